"""How long to wait before something that failed is tried again."""

import random

_MOST_DOUBLINGS = 20


class Backoff:
    """Waits in seconds, each twice the last up to a limit, with jitter."""

    def __init__(self, first: float, longest: float) -> None:
        self._first, self._longest, self._times = first, longest, 0

    def next(self) -> float:
        """Return the next wait."""
        wait = min(self._first * 2.0 ** min(self._times, _MOST_DOUBLINGS), self._longest)
        self._times += 1
        return wait * random.uniform(0.5, 1.5)  # noqa: S311 - jitter, no secret

    def reset(self) -> None:
        """Start again with the first wait."""
        self._times = 0
