"""Record recent moves, to find replacements that move again shortly after their creation."""

from collections import OrderedDict
from datetime import datetime, timedelta

from rescheduler.core.model.pods import Pod

WAVE_DURATION = timedelta(hours=1)
"""Moves of one owner that are further apart belong to different waves."""
_MAX_OWNERS = 10_000  # the memory would grow without a limit


class MoveHistory:
    """First move of the current wave, by uid of the owner; and how often the pods before a new pod have moved."""

    def __init__(self) -> None:
        self._moves_before: OrderedDict[str, int] = OrderedDict()  # by uid of a new pod
        self._wave_starts: OrderedDict[str, datetime] = OrderedDict()

    def record_move(self, pod: Pod, now: datetime) -> bool:
        """Record that this pod has left; return whether it was created after the wave of its owner began."""
        if pod.owner is None:
            return False
        first = self._wave_starts.get(pod.owner.uid)
        started = min(now, _move_started_at(pod) or now)
        if first is None or started - first > WAVE_DURATION:
            self._wave_starts[pod.owner.uid] = started
            while len(self._wave_starts) > _MAX_OWNERS:
                self._wave_starts.popitem(last=False)
            return False
        return pod.created is not None and pod.created >= first

    def move_number(self, pod: Pod, new_pod_uid: str, *, again: bool) -> int:
        """Return the number of this move in its chain of pods; `again`: the pod replaced a pod that moved in this wave."""
        number = self._moves_before.pop(pod.uid, int(again)) + 1
        if new_pod_uid:
            self._moves_before[new_pod_uid] = number
            while len(self._moves_before) > _MAX_OWNERS:
                self._moves_before.popitem(last=False)
        return number

    def is_replacement(self, pod: Pod, now: datetime) -> bool:
        """Whether this pod was created after the current wave of its owner began."""
        first = self._wave_starts.get(pod.owner.uid) if pod.owner else None
        if first is None or now - first > WAVE_DURATION:
            return False
        # A creation time has whole seconds: with fractions, a pod created in the same second would count as older.
        return pod.created is not None and pod.created >= first.replace(microsecond=0)


def _move_started_at(pod: Pod) -> datetime | None:
    """Return the time of the release of the pod, or else of its eviction; None if the pod is not Terminating."""
    if pod.release_record:
        return pod.release_record.released_at
    return pod.deletion_timestamp - timedelta(seconds=pod.grace_period_seconds) if pod.deletion_timestamp else None
