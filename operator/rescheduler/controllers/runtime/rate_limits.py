"""Shared limits: requests per second, and requests in flight."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class TokenBucket:
    """Token bucket for a rate per second; the burst is one second of the rate.

    Attributes:
        clock: returns monotonic seconds.
        rate: tokens per second.
        tokens: tokens that are left.
        filled_at: when the tokens were last counted; None before the first request.
    """

    clock: Callable[[], float]
    rate: float = 20.0
    tokens: float = 20.0
    filled_at: float | None = None

    def take(self, rate: float) -> float:
        """Take a token and return 0.0, or return the seconds until a token is available; `rate` per second."""
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
    """Slots for requests in flight, up to a limit. A key that has twice as many slots as are free gets no more.

    So a namespace with a slow webhook gets two thirds of the slots at most, and new namespaces do not wait for it.
    """

    def __init__(self, limit: int) -> None:
        self._free, self._in_flight = limit, Counter[str]()

    def acquire(self, *keys: str) -> bool:
        """Take one slot for all these keys together; whether every key may have one."""
        if self._free <= 0 or any(self._in_flight[key] >= 2 * self._free for key in keys):
            return False
        self._free -= 1
        self._in_flight.update(keys)
        return True

    def release(self, *keys: str) -> None:
        """Free the slot of a finished request."""
        self._free += 1
        self._in_flight.subtract(keys)
        for key in keys:
            if not self._in_flight[key]:
                del self._in_flight[key]
