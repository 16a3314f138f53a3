"""Slow start: how many pods of one owner may be released together, by the releases that succeeded before."""

from collections import OrderedDict
from datetime import datetime

from rescheduler.core.replacement.move_history import WAVE_DURATION

_MAX_DOUBLINGS = 20  # more pods than any owner has; without a limit the number would grow forever
_MAX_OWNERS = 10_000  # the memory would grow without a limit


class SlowStart:
    """Successes of each owner since its last setback, by uid of the owner.

    A success is a released pod whose replacement became Ready. A restart of the operator begins again with one pod.
    """

    def __init__(self) -> None:
        self._successes: OrderedDict[str, tuple[int, datetime]] = OrderedDict()  # number, and time of the last one

    def max_released(self, owner: str, now: datetime) -> int:
        """Return how many pods of the owner may be released together: 1, and twice as many after each success."""
        count, last = self._successes.get(owner, (0, now))
        return 2**count if now - last <= WAVE_DURATION else 1

    def record_success(self, owner: str, now: datetime) -> None:
        """Record that a released pod of the owner has a Ready replacement and leaves."""
        doublings = self.max_released(owner, now).bit_length() - 1
        self._successes[owner] = (min(doublings + 1, _MAX_DOUBLINGS), now)
        self._successes.move_to_end(owner)
        while len(self._successes) > _MAX_OWNERS:
            self._successes.popitem(last=False)

    def record_setback(self, owner: str) -> None:
        """Record that a replacement of the owner failed: the next release is of one pod."""
        self._successes.pop(owner, None)
