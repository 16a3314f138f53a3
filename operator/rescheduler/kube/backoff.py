"""Retries of failed operations: the wait before each, and their end when the task is cancelled.

The module is in `kube`, because the informers need it. The controllers import it from here.
"""

import asyncio
import random
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")
_MAX_DOUBLINGS = 20


class Backoff:
    """Delays in seconds: each is twice the previous one, up to a limit, with a jitter of 50% in both directions."""

    def __init__(self, first_delay: float, max_delay: float) -> None:
        self._first_delay, self._max_delay, self._failures = first_delay, max_delay, 0

    def next_delay(self) -> float:
        """Return the delay in seconds after one more failure."""
        delay = min(self._first_delay * 2.0 ** min(self._failures, _MAX_DOUBLINGS), self._max_delay)
        self._failures += 1
        return delay * random.uniform(0.5, 1.5)  # noqa: S311 - jitter, no secret

    def reset(self) -> None:
        """Start again with the first delay."""
        self._failures = 0


async def keep_cancellation(operation: Awaitable[T]) -> T:
    """Await one attempt of an operation. Raises CancelledError if the task was cancelled, whatever the operation does.

    A connection that fails to close replaces the CancelledError by its own error, and so may a TaskGroup. A retry
    after that error would never end, and the shutdown would wait for it.
    """
    task = asyncio.current_task()
    try:
        return await operation
    finally:
        if task and task.cancelling():
            raise asyncio.CancelledError
