"""How long to wait before something that failed is tried again."""

import random

_MAX_DOUBLINGS = 20


class Backoff:
    """Waits in seconds, each twice the last up to a limit, with jitter."""

    def __init__(self, first_delay: float, max_delay: float) -> None:
        self._first_delay, self._max_delay, self._failures = first_delay, max_delay, 0

    def next_delay(self) -> float:
        """Return the next wait."""
        wait = min(self._first_delay * 2.0 ** min(self._failures, _MAX_DOUBLINGS), self._max_delay)
        self._failures += 1
        return wait * random.uniform(0.5, 1.5)  # noqa: S311 - jitter, no secret

    def reset(self) -> None:
        """Start again with the first wait."""
        self._failures = 0
