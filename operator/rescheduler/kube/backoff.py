"""The wait before a failed operation is retried.

`Backoff` is in `kube`, because the informers and the Lease election need it. The controllers import it from here.
"""

import random

_MAX_DOUBLINGS = 20


class Backoff:
    """Delays in seconds: each is twice the previous one, up to a limit, with a jitter of 50% in both directions."""

    def __init__(self, first_delay: float, max_delay: float) -> None:
        self._first_delay, self._max_delay, self._failures = first_delay, max_delay, 0

    def next_delay(self) -> float:
        """Return the delay in seconds after one more failure."""
        delay = min(self._first_delay * 2.0 ** min(self._failures, _MAX_DOUBLINGS), self._max_delay)
        self._failures += 1
        return delay * random.uniform(0.5, 1.5)  # noqa: S311 - jitter, no secret

    def reset(self) -> None:
        """Start again with the first delay."""
        self._failures = 0
