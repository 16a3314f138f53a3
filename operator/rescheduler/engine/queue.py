"""A queue of keys: each at most once, one worker a key, later with back-off where work failed."""

import asyncio
import random
from collections.abc import Awaitable, Callable

_FIRST_WAIT, _LONGEST_WAIT = 0.2, 60.0  # seconds


class KeyedQueue:
    """Marks say "look at this key"; marks made while it waits or is worked on count once."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[str] = asyncio.Queue()
        self._queued: set[str] = set()
        self._busy: set[str] = set()
        self._again: set[str] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._failures: dict[str, int] = {}

    def add(self, key: str) -> None:
        """Look at this key soon."""
        if key in self._busy:
            self._again.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._waiting.put_nowait(key)

    def add_after(self, key: str, seconds: float) -> None:
        """Look at this key in so many seconds, or earlier where it was to be looked at earlier."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer and not timer.cancelled() and timer.when() <= loop.time() + seconds:
            return
        if timer:
            timer.cancel()
        self._timers[key] = loop.call_later(max(0.0, seconds), self._due, key)

    def _due(self, key: str) -> None:
        self._timers.pop(key, None)
        self.add(key)

    async def work(self, handle: Callable[[str], Awaitable[bool]]) -> None:
        """Handle keys until cancelled; `handle` answers whether it succeeded. Run several for concurrency."""
        while True:
            key = await self._waiting.get()
            self._queued.discard(key)
            self._busy.add(key)
            try:
                succeeded = await handle(key)
            finally:
                self._busy.discard(key)
            if succeeded:
                self._failures.pop(key, None)
            else:
                failures = self._failures[key] = self._failures.get(key, 0) + 1
                wait = min(_FIRST_WAIT * 2**failures, _LONGEST_WAIT)
                self.add_after(key, wait * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, no secret
            if key in self._again:
                self._again.discard(key)
                self.add(key)
