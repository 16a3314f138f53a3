"""A queue of keys: each at most once, one worker a key, later with back-off where work failed."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable

from rescheduler.kube.backoff import Backoff

_FIRST_DELAY, _MAX_DELAY = 0.4, 60.0  # seconds
_HIGH_PRIORITY, _LOW_PRIORITY = 0, 1


class WorkQueue:
    """Marks say "look at this key"; marks made while it waits or is worked on count once."""

    def __init__(self) -> None:
        self._waiting: asyncio.PriorityQueue[tuple[int, int, str]] = asyncio.PriorityQueue()
        self._queued: dict[str, int] = {}  # by key: its rank
        self._processing: set[str] = set()
        self._dirty: dict[str, int] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._backoffs: dict[str, Backoff] = {}
        self._sequence = itertools.count()

    def add(self, key: str, *, low_priority: bool = False) -> None:
        """Look at this key soon; `routine`: after all that there is news of, for thousands of keys may be so."""
        rank = _LOW_PRIORITY if low_priority else _HIGH_PRIORITY
        if key in self._processing:
            self._dirty[key] = min(rank, self._dirty.get(key, rank))
        elif self._queued.get(key, _LOW_PRIORITY + 1) > rank:
            self._queued[key] = rank
            self._waiting.put_nowait((rank, next(self._sequence), key))

    def add_after(self, key: str, seconds: float) -> None:
        """Look at this key in so many seconds, or earlier where it was to be looked at earlier."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer and not timer.cancelled() and timer.when() <= loop.time() + seconds:
            return
        if timer:
            timer.cancel()
        self._timers[key] = loop.call_later(max(0.0, seconds), self._add_due, key)

    def _add_due(self, key: str) -> None:
        self._timers.pop(key, None)
        self.add(key)

    async def run_worker(self, handle: Callable[[str], Awaitable[bool]]) -> None:
        """Handle keys until cancelled; `handle` answers whether it succeeded. Run several for concurrency."""
        while True:
            rank, _, key = await self._waiting.get()
            if self._queued.get(key) != rank:
                continue  # it went ahead of its place
            del self._queued[key]
            self._processing.add(key)
            try:
                succeeded = await handle(key)
            finally:
                self._processing.discard(key)
            if succeeded:
                self._backoffs.pop(key, None)
            else:
                backoff = self._backoffs.setdefault(key, Backoff(_FIRST_DELAY, _MAX_DELAY))
                self.add_after(key, backoff.next_delay())
            if key in self._dirty:
                self.add(key, low_priority=self._dirty.pop(key) == _LOW_PRIORITY)
            if rank == _LOW_PRIORITY:
                await asyncio.sleep(0)  # a thousand looks that ask nothing of the server are half a second
