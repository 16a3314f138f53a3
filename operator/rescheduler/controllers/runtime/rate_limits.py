"""Limits that many share: so many requests a second, and so many in flight."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class TokenBucket:
    """A token bucket: `rate` a second, one second's worth at once."""

    clock: Callable[[], float]
    rate: float = 20.0
    tokens: float = 20.0
    filled_at: float | None = None

    def take(self, rate: float) -> float:
        """Take a token at this rate: 0.0; or the seconds until there is one."""
        now = self.clock()
        if self.filled_at is None:
            self.tokens = rate
        else:
            self.tokens = min(max(rate, 1.0), self.tokens + (now - self.filled_at) * rate)
        self.filled_at = now
        if self.tokens >= 1:
            self.tokens -= 1
            return 0.0
        return (1 - self.tokens) / rate


class InFlightSlots:
    """Requests in flight, at most so many; whoever has twice as many as are free gets no more.

    So a namespace with a slow webhook takes two thirds at most, several of them leave some too, and nobody who comes
    later waits for them.
    """

    def __init__(self, limit: int) -> None:
        self._free, self._in_flight = limit, Counter[str]()

    def acquire(self, *keys: str) -> bool:
        """Take a slot for all these keys, if each may have one."""
        if self._free <= 0 or any(self._in_flight[key] >= 2 * self._free for key in keys):
            return False
        self._free -= 1
        self._in_flight.update(keys)
        return True

    def release(self, *keys: str) -> None:
        """The request is over."""
        self._free += 1
        self._in_flight.subtract(keys)
        for key in keys:
            if not self._in_flight[key]:
                del self._in_flight[key]
