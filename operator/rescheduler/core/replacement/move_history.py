"""Whether a pod that is moved was itself the replacement of one moved shortly before: that is one move too many."""

from collections import OrderedDict
from datetime import datetime, timedelta

from rescheduler.core.model.pods import Pod

WAVE_DURATION = timedelta(hours=1)
"""Moves of one owner further apart than this have nothing to do with each other."""
_MAX_OWNERS = 10_000  # owners remembered


class MoveHistory:
    """When the first pod of each owner was moved in the wave that is under way, by the owner's uid."""

    def __init__(self) -> None:
        self._wave_starts: OrderedDict[str, datetime] = OrderedDict()

    def record_move(self, pod: Pod, now: datetime) -> bool:
        """Take in that this pod has left; whether it came into being only after the wave of its owner began."""
        if pod.owner is None:
            return False
        first = self._wave_starts.get(pod.owner.uid)
        began = min(now, _move_started_at(pod) or now)
        if first is None or began - first > WAVE_DURATION:
            self._wave_starts[pod.owner.uid] = began
            while len(self._wave_starts) > _MAX_OWNERS:
                self._wave_starts.popitem(last=False)
            return False
        return pod.created is not None and pod.created >= first

    def is_replacement(self, pod: Pod, now: datetime) -> bool:
        """Whether this pod came into being after others of its owner were moved, in the wave that is under way."""
        first = self._wave_starts.get(pod.owner.uid) if pod.owner else None
        if first is None or now - first > WAVE_DURATION:
            return False
        # Creation times are in whole seconds.
        return pod.created is not None and pod.created >= first.replace(microsecond=0)


def _move_started_at(pod: Pod) -> datetime | None:
    """When its move began: its release, else the eviction."""
    if pod.release_record:
        return pod.release_record.released_at
    return pod.deletion_timestamp - timedelta(seconds=pod.grace_period_seconds) if pod.deletion_timestamp else None
