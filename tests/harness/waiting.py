"""Wait for a condition, with a clear error if it stays false; or repeat a step meanwhile."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], what: str | Callable[[], str], *, seconds: float = 90, every: float = 0.1) -> T:
    """Return the first truthy result of `condition`.

    Raises TimeoutError that names `what`; a function is called only for the error.
    """
    deadline = time.monotonic() + seconds
    while True:
        if answer := condition():
            return answer
        if time.monotonic() > deadline:
            words = what if isinstance(what, str) else what()
            raise TimeoutError(f"waited {seconds:.0f} s for {words}; last answer: {answer!r}")
        time.sleep(every)


@contextmanager
def repeated(step: Callable[[], object], *, every: float) -> Iterator[None]:
    """Call `step` every so many seconds, in a thread, while the block runs."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(every):
            step()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
