"""Whether a pod that is moved was itself the replacement of one moved shortly before: that is one move too many."""

from collections import OrderedDict
from datetime import datetime, timedelta

from rescheduler.core.model.pods import Pod

WAVE = timedelta(hours=1)
"""Moves of one owner further apart than this have nothing to do with each other."""
_MOST = 10_000  # owners remembered


class Lineages:
    """When the first pod of each owner was moved in the wave that is under way, by the owner's uid."""

    def __init__(self) -> None:
        self._first: OrderedDict[str, datetime] = OrderedDict()

    def moved(self, pod: Pod, now: datetime) -> bool:
        """Take in that this pod has left; whether it came into being only after the wave of its owner began."""
        if pod.owner is None:
            return False
        first = self._first.get(pod.owner.uid)
        began = min(now, _began(pod) or now)
        if first is None or began - first > WAVE:
            self._first[pod.owner.uid] = began
            while len(self._first) > _MOST:
                self._first.popitem(last=False)
            return False
        return pod.created is not None and pod.created >= first

    def replaces(self, pod: Pod, now: datetime) -> bool:
        """Whether this pod came into being after others of its owner were moved, in the wave that is under way."""
        first = self._first.get(pod.owner.uid) if pod.owner else None
        if first is None or now - first > WAVE:
            return False
        # Creation times are in whole seconds.
        return pod.created is not None and pod.created >= first.replace(microsecond=0)


def _began(pod: Pod) -> datetime | None:
    """When its move began: its release, else the eviction."""
    if pod.move:
        return pod.move.since
    return pod.deleting - timedelta(seconds=pod.grace) if pod.deleting else None
