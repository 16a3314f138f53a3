"""Wait for a condition, with a clear error if it stays false; or repeat a step meanwhile."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
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
def in_background(run: Callable[[threading.Event], object]) -> Iterator[None]:
    """Run `run` in a thread while the block runs; its argument is set when the block has ended."""
    ended = threading.Event()
    thread = threading.Thread(target=run, args=(ended,))
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def repeated(step: Callable[[], object], *, every: float) -> AbstractContextManager[None]:
    """Call `step` every so many seconds, in a thread, while the block runs."""

    def run(ended: threading.Event) -> None:
        while not ended.wait(every):
            step()

    return in_background(run)
