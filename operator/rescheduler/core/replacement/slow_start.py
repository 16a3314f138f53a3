"""Slow start: how many pods of one owner may be released together, by the new pods that found a place before."""

from collections import OrderedDict
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime

from rescheduler.core.replacement.move_history import WAVE_DURATION

_MAX_DOUBLINGS = 20  # more pods than any owner has; without a limit the number would grow forever
_MAX_OWNERS = 10_000  # the memory would grow without a limit


@dataclass(frozen=True, slots=True)
class _Successes:
    """Successes of an owner since its last setback, the time of the last one, and the pods that count already."""

    count: int
    last: datetime
    counted_uids: AbstractSet[str] = frozenset()


class SlowStart:
    """Successes of each owner since its last setback, by uid of the owner.

    A success is a new pod that the scheduler placed on another node. If a node dies in the middle of its drain, only
    the pods that were released before have a replacement on its way, so the number must not wait until each new pod is
    Ready. A restart of the operator begins again with one pod.
    """

    def __init__(self) -> None:
        self._successes: OrderedDict[str, _Successes] = OrderedDict()

    def max_released(self, owner: str, now: datetime) -> int:
        """Return how many pods of the owner may be released together: 1, and twice as many after each success."""
        found = self._successes.get(owner)
        return 2**found.count if found and now - found.last <= WAVE_DURATION else 1

    def record_placed(self, owner: str, uids: AbstractSet[str], now: datetime) -> None:
        """Record the new pods of the owner that have a place now; each of them counts once."""
        found = self._successes.get(owner, _Successes(0, now))
        added = len(uids - found.counted_uids)
        doublings = self.max_released(owner, now).bit_length() - 1
        self._successes[owner] = _Successes(
            min(doublings + added, _MAX_DOUBLINGS), now if added else found.last, frozenset(uids)
        )
        self._successes.move_to_end(owner)
        while len(self._successes) > _MAX_OWNERS:
            self._successes.popitem(last=False)

    def record_setback(self, owner: str) -> None:
        """Record that a replacement of the owner failed: the next release is of one pod."""
        if found := self._successes.get(owner):
            self._successes[owner] = _Successes(0, found.last, found.counted_uids)
