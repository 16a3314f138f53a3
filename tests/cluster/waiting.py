"""Waiting for something to become true, with a clear word when it does not."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], what: str, *, seconds: float = 30, every: float = 0.1) -> T:
    """The first truthy answer of `condition`. Raises TimeoutError that says what was waited for."""
    deadline = time.monotonic() + seconds
    while True:
        if answer := condition():
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}; last answer: {answer!r}")
        time.sleep(every)
