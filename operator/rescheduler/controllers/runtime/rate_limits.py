"""Limits that many share: so many requests a second, and so many in flight."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class Bucket:
    """A token bucket: `rate` a second, one second's worth at once."""

    clock: Callable[[], float]
    rate: float = 20.0
    level: float = 20.0
    filled: float | None = None

    def wait(self, rate: float) -> float:
        """Take a token at this rate: 0.0; or the seconds until there is one."""
        now = self.clock()
        if self.filled is None:
            self.level = rate
        else:
            self.level = min(max(rate, 1.0), self.level + (now - self.filled) * rate)
        self.filled = now
        if self.level >= 1:
            self.level -= 1
            return 0.0
        return (1 - self.level) / rate


class Slots:
    """Requests in flight, at most so many; whoever has twice as many as are free gets no more.

    So a namespace with a slow webhook takes two thirds at most, several of them leave some too, and nobody who comes
    later waits for them.
    """

    def __init__(self, most: int) -> None:
        self._free, self._taken = most, Counter[str]()

    def take(self, *keys: str) -> bool:
        """Take a slot for all these keys, if each may have one."""
        if self._free <= 0 or any(self._taken[key] >= 2 * self._free for key in keys):
            return False
        self._free -= 1
        self._taken.update(keys)
        return True

    def leave(self, *keys: str) -> None:
        """The request is over."""
        self._free += 1
        self._taken.subtract(keys)
        for key in keys:
            if not self._taken[key]:
                del self._taken[key]
