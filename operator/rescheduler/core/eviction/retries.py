"""When a pod may be asked about again, after answers that were no success: the one pace of all requests for a pod.

At most two requests a minute after the first few, and never before the time that an answer asked for.
"""

from collections.abc import Iterable

from rescheduler.core.eviction import api_responses
from rescheduler.core.eviction.api_responses import EvictionResult


class RetrySchedule:
    """Failures in a row and the next time, by pod uid; `now` is monotonic, in seconds."""

    def __init__(self) -> None:
        self._schedule: dict[str, tuple[int, float]] = {}

    def seconds_until_due(self, uid: str, now: float) -> float:
        """Return the seconds until the pod may be asked about; 0 or less: now."""
        return self._schedule[uid][1] - now if uid in self._schedule else 0.0

    def record_failure(self, uid: str, result: EvictionResult, now: float) -> None:
        """Count an answer that was no success."""
        failures, _ = self._schedule.get(uid, (0, 0.0))
        self._schedule[uid] = (failures + 1, now + api_responses.retry_delay(result, failures))

    def postpone(self, uid: str, until: float) -> None:
        """Ask no more before this time, though nothing failed."""
        failures, due = self._schedule.get(uid, (0, 0.0))
        self._schedule[uid] = (failures, max(due, until))

    def forget(self, uids: Iterable[str]) -> None:
        """Drop these pods: they are gone, or nobody moves them."""
        for uid in uids:
            self._schedule.pop(uid, None)
