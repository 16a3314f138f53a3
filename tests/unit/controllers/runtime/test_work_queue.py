"""Keys that wait to be looked at."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from rescheduler.controllers.runtime.work_queue import WorkQueue


def handled(fill: Callable[[WorkQueue], None], *, fails: int = 0) -> list[str]:
    """The keys in the order in which one worker handles them until nothing is left; the first so often in vain."""
    done: list[str] = []

    async def handle(key: str) -> bool:
        done.append(key)
        return len(done) > fails

    async def work() -> None:
        queue = WorkQueue()
        fill(queue)
        worker = asyncio.create_task(queue.run_worker(handle))
        await asyncio.sleep(0.01)
        worker.cancel()

    _run(work())
    return done


def _run(work: Coroutine[Any, Any, None]) -> None:
    """`asyncio.run` would take the loop away that other tests share."""
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(work)
    finally:
        loop.close()


def test_marks_made_while_a_key_waits_count_once() -> None:
    assert handled(lambda queue: [queue.add(key) for key in "aba"] and None) == ["a", "b"]


def test_news_goes_ahead_of_routine() -> None:
    def fill(queue: WorkQueue) -> None:
        for key in "abc":
            queue.add(key, low_priority=True)
        queue.add("d")

    assert handled(fill) == ["d", "a", "b", "c"]


def test_news_of_a_key_that_waits_as_routine_takes_it_ahead_and_is_looked_at_once() -> None:
    def fill(queue: WorkQueue) -> None:
        for key in "abc":
            queue.add(key, low_priority=True)
        queue.add("c")
        queue.add("a", low_priority=True)

    assert handled(fill) == ["c", "a", "b"]


def test_a_key_whose_time_is_up_is_news() -> None:
    def fill(queue: WorkQueue) -> None:
        for number in range(100):
            queue.add(f"n{number}", low_priority=True)
        queue.add_after("due", 0)

    # The timer of the event loop turns in between: a worker that never let it would come to it last.
    assert handled(fill).index("due") < 3


def test_news_of_a_key_that_is_being_looked_at_is_looked_at_after_it() -> None:
    done: list[str] = []

    async def work() -> None:
        queue = WorkQueue()

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

    _run(work())
    assert done == ["a", "a", "b"]
