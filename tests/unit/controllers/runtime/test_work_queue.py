"""Queue of keys."""

import asyncio
from collections.abc import Callable

from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.controllers.runtime.work_queue import WorkQueue
from unit.supervision import run_in_own_loop


def handled(fill: Callable[[WorkQueue], None], *, fails: int = 0) -> list[str]:
    """Return the keys in the order in which one worker handles them; the first `fails` attempts fail."""
    done: list[str] = []

    async def handle(key: str) -> bool:
        done.append(key)
        return len(done) > fails

    async def work() -> None:
        queue = WorkQueue("test", Metrics())
        fill(queue)
        worker = asyncio.create_task(queue.run_worker(handle))
        await asyncio.sleep(0.01)
        worker.cancel()

    run_in_own_loop(work())
    return done


def test_repeated_adds_of_a_waiting_key_count_once() -> None:
    def add_keys(queue: WorkQueue) -> None:
        for key in "aba":
            queue.add(key)

    assert handled(add_keys) == ["a", "b"]


def test_a_high_priority_key_is_handled_first() -> None:
    def fill(queue: WorkQueue) -> None:
        for key in "abc":
            queue.add(key, low_priority=True)
        queue.add("d")

    assert handled(fill) == ["d", "a", "b", "c"]


def test_a_low_priority_key_added_again_is_handled_first_and_once() -> None:
    def fill(queue: WorkQueue) -> None:
        for key in "abc":
            queue.add(key, low_priority=True)
        queue.add("c")
        queue.add("a", low_priority=True)

    assert handled(fill) == ["c", "a", "b"]


def test_a_due_key_has_high_priority() -> None:
    def fill(queue: WorkQueue) -> None:
        for number in range(100):
            queue.add(f"n{number}", low_priority=True)
        queue.add_after("due", 0)

    # The worker must let the timer of the event loop run; otherwise it handles this key last.
    assert handled(fill).index("due") < 3


def test_a_key_added_while_it_is_processed_is_handled_again() -> None:
    done: list[str] = []

    async def work() -> None:
        queue = WorkQueue("test", Metrics())

        async def handle(key: str) -> bool:
            done.append(key)
            if len(done) == 1:
                queue.add("b", low_priority=True)
                queue.add("a", low_priority=True)
                queue.add("a")
            return True

        queue.add("a")
        worker = asyncio.create_task(queue.run_worker(handle))
        await asyncio.sleep(0.01)
        worker.cancel()

    run_in_own_loop(work())
    assert done == ["a", "a", "b"]
