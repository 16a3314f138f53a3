"""Waiting for something to become true, with a clear word when it does not."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], what: str | Callable[[], str], *, seconds: float = 90, every: float = 0.1) -> T:
    """The first truthy answer of `condition`.

    Raises TimeoutError that says what was waited for (asked only then, where it is a function).
    """
    deadline = time.monotonic() + seconds
    while True:
        if answer := condition():
            return answer
        if time.monotonic() > deadline:
            words = what if isinstance(what, str) else what()
            raise TimeoutError(f"waited {seconds:.0f} s for {words}; last answer: {answer!r}")
        time.sleep(every)
