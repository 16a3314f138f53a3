"""Faults of the watches of one operator, as a bad proxy, a slow API server or a compaction of etcd causes them."""

import asyncio
import random
from collections.abc import Callable, Iterable

from rescheduler.core.model.raw import RawObject
from rescheduler.kube.client import ExpiredError, WatchStalledError

Event = tuple[str, RawObject]


class WatchFaults:
    """Faults of the watches now.

    Attributes:
        frozen: no event arrives, although the connections are open.
        mixed: events arrive twice, and in another order.
        lost: share of the events that never arrive.
    """

    def __init__(self, chance: random.Random) -> None:
        self._chance, self._compactions = chance, 0
        self.frozen = self.mixed = False
        self.lost = 0.0

    def compact(self) -> None:
        """End all watches with 410: their resourceVersion is too old."""
        self._compactions += 1

    def expiry(self, path: str) -> Callable[[], None]:
        """Return a check that raises ExpiredError after a compaction from now on."""
        opened = self._compactions

        def check() -> None:
            if self._compactions != opened:
                raise ExpiredError(path)

        return check

    async def thaw(self, path: str, idle_timeout: float) -> None:
        """Return when events arrive again. Raises WatchStalledError after `idle_timeout` seconds; 0 means never."""
        silent = 0.0
        while self.frozen:
            await asyncio.sleep(1)
            silent += 1
            if 0 < idle_timeout <= silent:
                raise WatchStalledError(f"watch of {path}")

    def distort(self, events: Iterable[Event]) -> list[Event]:
        """Return the events that arrive, in their order."""
        found = [event for event in events if not (self.lost and self._chance.random() < self.lost)]
        if self.mixed and found:
            found += self._chance.sample(found, 1)
            self._chance.shuffle(found)
        return found
