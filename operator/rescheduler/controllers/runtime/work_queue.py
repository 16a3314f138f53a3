"""A queue of keys: each at most once, one worker a key, later with back-off where work failed."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable

from rescheduler.kube.backoff import Backoff

_FIRST_WAIT, _LONGEST_WAIT = 0.4, 60.0  # seconds
_NEWS, _ROUTINE = 0, 1


class KeyedQueue:
    """Marks say "look at this key"; marks made while it waits or is worked on count once."""

    def __init__(self) -> None:
        self._waiting: asyncio.PriorityQueue[tuple[int, int, str]] = asyncio.PriorityQueue()
        self._queued: dict[str, int] = {}  # by key: its rank
        self._busy: set[str] = set()
        self._again: dict[str, int] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._failing: dict[str, Backoff] = {}
        self._count = itertools.count()

    def add(self, key: str, *, routine: bool = False) -> None:
        """Look at this key soon; `routine`: after all that there is news of, for thousands of keys may be so."""
        rank = _ROUTINE if routine else _NEWS
        if key in self._busy:
            self._again[key] = min(rank, self._again.get(key, rank))
        elif self._queued.get(key, _ROUTINE + 1) > rank:
            self._queued[key] = rank
            self._waiting.put_nowait((rank, next(self._count), key))

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
            rank, _, key = await self._waiting.get()
            if self._queued.get(key) != rank:
                continue  # it went ahead of its place
            del self._queued[key]
            self._busy.add(key)
            try:
                succeeded = await handle(key)
            finally:
                self._busy.discard(key)
            if succeeded:
                self._failing.pop(key, None)
            else:
                backoff = self._failing.setdefault(key, Backoff(_FIRST_WAIT, _LONGEST_WAIT))
                self.add_after(key, backoff.next())
            if key in self._again:
                self.add(key, routine=self._again.pop(key) == _ROUTINE)
            if rank == _ROUTINE:
                await asyncio.sleep(0)  # a thousand looks that ask nothing of the server are half a second
