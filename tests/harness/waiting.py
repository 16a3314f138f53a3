"""Wait for a condition, with a clear error if it stays false."""

import time
from collections.abc import Callable
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
