"""A supervisor for tests, and event loops for tests that are not async."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import looptime
import structlog

from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.controllers.runtime.tasks import Supervisor

T = TypeVar("T")


def supervisor(monotonic: Callable[[], float] = time.monotonic) -> Supervisor:
    return Supervisor(monotonic, Metrics().task_failures)


def _drop(*_: Any) -> Any:
    raise structlog.DropEvent


@contextmanager
def silent() -> Iterator[None]:
    """Disable the log: rendering a traceback takes a second."""
    structlog.configure(processors=[_drop], cache_logger_on_first_use=False)
    try:
        yield
    finally:
        structlog.reset_defaults()


def run_in_own_loop(work: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine; `asyncio.run` would remove the loop that other tests share."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


def simulated(work: Coroutine[Any, Any, T]) -> T:
    """Run in a loop whose time passes at once."""
    with asyncio.Runner(loop_factory=lambda: looptime.new_event_loop(start=1000.0, noop_cycles=0)) as runner:
        return runner.run(work)
