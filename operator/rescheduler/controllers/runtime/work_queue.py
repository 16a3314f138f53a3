"""Queue of keys, as in client-go: a key is queued once, and only one worker handles it. Failures are retried with back-off."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable

from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.kube.backoff import Backoff, keep_cancellation

_FIRST_DELAY, _MAX_DELAY = 0.4, 60.0  # seconds
_HIGH_PRIORITY, _LOW_PRIORITY = 0, 1


class WorkQueue:
    """Queue of keys; repeated adds of a key that waits or is processed count once."""

    def __init__(self, name: str, metrics: Metrics) -> None:
        self._adds, self._retries = metrics.queue_adds.labels(name), metrics.queue_retries.labels(name)
        self._queue_seconds, self._work_seconds = metrics.queue_seconds.labels(name), metrics.work_seconds.labels(name)
        metrics.queue_depth.labels(name).set_function(lambda: float(len(self._queued)))
        self._added_at: dict[str, float] = {}
        self._waiting: asyncio.PriorityQueue[tuple[int, int, str]] = asyncio.PriorityQueue()
        self._queued: dict[str, int] = {}  # by key: its priority
        self._processing: set[str] = set()
        self._dirty: dict[str, int] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._backoffs: dict[str, Backoff] = {}
        self._sequence = itertools.count()

    def add(self, key: str, *, low_priority: bool = False) -> None:
        """Add a key; `low_priority`: handle it after all other keys, because a resync adds thousands of keys."""
        priority = _LOW_PRIORITY if low_priority else _HIGH_PRIORITY
        if key in self._processing:
            self._dirty[key] = min(priority, self._dirty.get(key, priority))
        elif self._queued.get(key, _LOW_PRIORITY + 1) > priority:
            self._queued[key] = priority
            self._adds.inc()
            self._added_at.setdefault(key, time.monotonic())
            self._waiting.put_nowait((priority, next(self._sequence), key))

    def add_after(self, key: str, seconds: float) -> None:
        """Add a key after a delay in seconds; an earlier timer of the key stays."""
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
        """Handle keys until cancelled; `handle` returns whether it succeeded. Run several workers for concurrency."""
        while True:
            priority, _, key = await self._waiting.get()
            if self._queued.get(key) != priority:
                continue  # the key was added again with high priority
            del self._queued[key]
            self._processing.add(key)
            began = time.monotonic()
            self._queue_seconds.observe(began - self._added_at.pop(key, began))
            try:
                succeeded = await keep_cancellation(handle(key))
            finally:
                self._processing.discard(key)
                self._work_seconds.observe(time.monotonic() - began)
            if succeeded:
                self._backoffs.pop(key, None)
            else:
                backoff = self._backoffs.setdefault(key, Backoff(_FIRST_DELAY, _MAX_DELAY))
                self._retries.inc()
                self.add_after(key, backoff.next_delay())
            if key in self._dirty:
                self.add(key, low_priority=self._dirty.pop(key) == _LOW_PRIORITY)
            if priority == _LOW_PRIORITY:
                await asyncio.sleep(0)  # else a thousand keys would block the event loop for half a second
