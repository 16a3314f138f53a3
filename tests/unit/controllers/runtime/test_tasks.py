"""Supervision: a failed task affects no other task, is reported, and is retried with back-off."""

import asyncio
import itertools
from collections.abc import Awaitable, Iterator
from typing import Any

import pytest

from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.controllers.runtime.tasks import PROCESS_ENDS_AFTER, VIEW_STALE_AFTER, Supervisor
from rescheduler.controllers.runtime.work_queue import WorkQueue
from rescheduler.core.eviction.api_responses import ErrorResponse
from rescheduler.kube.backoff import Backoff
from rescheduler.kube.client import ApiError
from unit.supervision import silent, simulated


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with silent():
        yield


class World:
    """Supervisor in simulated time, with its reports."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.doubts: list[str] = []
        self.ends: list[str] = []
        loop = asyncio.get_running_loop()
        self.began = loop.time()
        self.supervisor = Supervisor(
            loop.time, self.metrics.task_failures, on_view_stale=self.doubts.append, on_give_up=self.ends.append
        )

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time() - self.began

    def failures(self, task: str) -> float:
        return self.metrics.registry.get_sample_value("rescheduler_task_failures_total", {"task": task}) or 0.0


async def during(seconds: float, *work: Awaitable[None]) -> None:
    """Run coroutines for these seconds, then cancel them."""
    tasks = [asyncio.ensure_future(each) for each in work]
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


HIDING_ERRORS = [ApiError("GET", "/", ErrorResponse(503)), RuntimeError("a bug")]


@pytest.mark.parametrize("error", [None, *HIDING_ERRORS], ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("kind", ["step", "coroutine", "worker"])
def test_a_cancelled_task_ends_although_its_work_hides_the_cancellation(kind: str, error: Exception | None) -> None:
    async def act() -> None:
        world, queue = World(), WorkQueue("test", Metrics())
        hidden = [error]  # only once: otherwise a failed test would never end

        async def work(_key: str = "") -> Any:
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                if not hidden:
                    raise
                if error := hidden.pop():
                    raise error from None
            return 1.0

        queue.add("a")
        queue.add("b")
        task = asyncio.ensure_future(
            {
                "step": lambda: world.supervisor.run_loop("x", work),
                "coroutine": lambda: world.supervisor.run_forever("x", work),
                "worker": lambda: queue.run_worker(world.supervisor.guard("x", work)),
            }[kind]()
        )
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait({task}, timeout=600)
        assert task.cancelled()

    simulated(act())


def test_a_failing_step_is_retried_with_backoff_and_reported() -> None:
    async def act() -> None:
        world, times, fails = World(), list[float](), [True]

        async def step() -> float:
            times.append(world.now)
            if fails[0]:
                raise ValueError("a\nbad object")
            return 10.0

        task = asyncio.create_task(world.supervisor.run_loop("drain", step, subject="n1"))
        await asyncio.sleep(600)
        assert 10 <= len(times) <= 25  # 0.2 s, doubling up to a minute
        assert max(b - a for a, b in itertools.pairwise(times)) <= 90
        summary = world.supervisor.failure_summary or ""
        assert f"task drain of n1 failed {len(times)} times in a row (ValueError: a bad object)" in summary
        assert world.failures("drain") == len(times)
        fails[0] = False
        await asyncio.sleep(91)
        assert world.supervisor.failure_summary is None
        count = len(times)
        fails[0] = True
        await asyncio.sleep(15)
        assert len(times) >= count + 4  # the delays start again
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert world.supervisor.failure_summary is None  # an ended task is not reported

    simulated(act())


def test_a_task_that_raises_does_not_stop_another() -> None:
    async def act() -> None:
        world, done = World(), list[float]()

        async def bad() -> float:
            raise RecursionError

        async def good() -> float:
            done.append(world.now)
            return 1.0

        await during(
            60, world.supervisor.run_loop("drain", bad, subject="n1"), world.supervisor.run_loop("drain", good)
        )
        assert len(done) >= 59

    simulated(act())


def test_a_step_that_returns_zero_is_limited_to_once_a_second() -> None:
    """Two controllers that overwrite each other's conditions must not load the API server."""

    async def act() -> None:
        world, times, wake = World(), list[float](), asyncio.Event()

        async def step() -> float:
            times.append(world.now)
            wake.set()  # its own write wakes the task
            return 0.0

        await during(60, world.supervisor.run_loop("drain", step, wake=wake))
        assert len(times) <= 140
        assert sum(when <= 0.2 for when in times) >= 3  # the first repetitions are quick: a node is restored in steps

    simulated(act())


def test_a_failed_request_is_retried_with_backoff_and_not_reported() -> None:
    async def act() -> None:
        world, times, wake = World(), list[float](), asyncio.Event()

        async def step() -> float:
            times.append(world.now)
            wake.set()
            raise ApiError("GET", "/", ErrorResponse(503))

        await during(100, world.supervisor.run_loop("drain", step, wake=wake, retry=(0.1, 10.0)))
        assert 10 <= len(times) <= 35
        assert world.failures("drain") == 0
        assert world.supervisor.failure_summary is None

    simulated(act())


def test_a_retry_function_sets_the_delay_and_may_fail() -> None:
    async def act() -> None:
        world, times = World(), list[float]()

        async def step() -> float:
            times.append(world.now)
            raise ApiError("GET", "/", ErrorResponse(429, retry_after=30))

        async def failed(error: Exception) -> float:
            if len(times) == 2:
                raise KeyError("spec")
            assert isinstance(error, ApiError)
            return error.response.retry_after

        await during(100, world.supervisor.run_loop("drain", step, retry=failed))
        assert len(times) == 5
        assert world.failures("drain") == 1

    simulated(act())


def test_a_wake_shortens_a_pause_and_a_burst_of_wakes_is_one_step() -> None:
    async def act() -> None:
        world, times, wake = World(), list[float](), asyncio.Event()

        async def step() -> float:
            times.append(world.now)
            return 100.0

        task = asyncio.create_task(world.supervisor.run_loop("drain", step, wake=wake, debounce=lambda: 0.5))
        for _ in range(4):
            await asyncio.sleep(0.1)
            wake.set()
        await asyncio.sleep(5)
        task.cancel()
        assert len(times) == 2

    simulated(act())


def test_a_loop_ends_when_its_step_says_so() -> None:
    async def act() -> None:
        async def step() -> None:
            return None

        await World().supervisor.run_loop("drain", step)

    simulated(act())


def test_a_coroutine_that_ends_is_restarted_and_reported() -> None:
    async def act() -> None:
        world, runs = World(), list[float]()

        async def run() -> None:
            runs.append(world.now)
            if len(runs) == 2:
                return  # an end without an error is a failure too
            if len(runs) < 4:
                raise KeyError("x")
            await asyncio.Event().wait()

        task = asyncio.create_task(world.supervisor.run_forever("watch", run, subject="nodes"))
        await asyncio.sleep(10)
        assert len(runs) == 4
        assert "task watch of nodes failed 3 times in a row" in (world.supervisor.failure_summary or "")
        await asyncio.sleep(30)
        assert world.supervisor.failure_summary is None
        task.cancel()

    simulated(act())


def test_a_failing_vital_task_makes_the_view_stale_and_ends_the_process() -> None:
    async def act() -> None:
        world, fails = World(), [True]

        async def step() -> float:
            if fails[0]:
                raise OverflowError("x")
            return 1.0

        task = asyncio.create_task(world.supervisor.run_loop("resync", step, vital=True))
        await asyncio.sleep(2)
        assert not world.doubts
        await asyncio.sleep(VIEW_STALE_AFTER * 3)  # the attempt after 10 s of failures is 29 s late at most
        assert "task resync failed" in world.doubts[-1]
        fails[0] = False
        await asyncio.sleep(60)
        assert world.doubts[-1] == ""
        assert not world.ends
        fails[0] = True
        await asyncio.sleep(PROCESS_ENDS_AFTER + 120)
        assert "OverflowError: x" in world.ends[0]
        task.cancel()

    simulated(act())


def test_a_task_that_is_not_vital_may_fail_forever() -> None:
    async def act() -> None:
        world = World()

        async def step() -> float:
            raise ValueError

        await during(3600, world.supervisor.run_loop("drain", step, subject="n1"))
        assert not world.ends
        assert not world.doubts

    simulated(act())


def test_a_failing_key_affects_no_other_key() -> None:
    async def act() -> None:
        world, handled, queue = World(), list[str](), WorkQueue("test", Metrics())

        async def handle(key: str) -> bool:
            handled.append(key)
            if key == "bad":
                raise OverflowError("1e999")
            return True

        guarded = world.supervisor.guard("node", handle)
        task = asyncio.create_task(world.supervisor.run_forever("queue", lambda: queue.run_worker(guarded)))
        for key in ("bad", "a", "b"):
            queue.add(key)
        await asyncio.sleep(600)
        queue.add("c")
        await asyncio.sleep(1)
        assert [key for key in handled if key != "bad"] == ["a", "b", "c"]
        assert 8 <= handled.count("bad") <= 25
        assert "task node of bad failed" in (world.supervisor.failure_summary or "")
        assert world.failures("queue") == 0
        world.supervisor.forget("node")
        assert world.supervisor.failure_summary is None
        task.cancel()

    simulated(act())


def test_a_key_is_retried_after_very_many_failures() -> None:
    async def act() -> None:
        handled, queue = list[str](), WorkQueue("test", Metrics())

        async def handle(key: str) -> bool:
            handled.append(key)
            return False

        queue.add("a")
        backoff = queue._backoffs["a"] = Backoff(1.0, 60.0)
        for _ in range(5000):  # more doublings than a float has room for
            backoff.next_delay()
        task = asyncio.create_task(queue.run_worker(handle))
        await asyncio.sleep(300)
        assert len(handled) >= 4
        task.cancel()

    simulated(act())


def test_the_summary_of_many_failing_tasks_is_short() -> None:
    async def act() -> None:
        world = World()
        for number in range(500):
            world.supervisor.record_failure("drain", f"n{number}", ValueError("x" * 10_000))
        summary = world.supervisor.failure_summary or ""
        assert "and 497 more" in summary
        assert len(summary) < 1200

    simulated(act())
