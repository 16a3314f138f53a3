"""The retry schedule of all requests for a pod.

After the first few requests a pod costs at most two requests a minute. No retry precedes a Retry-After.
"""

from collections.abc import Iterable

from rescheduler.core.eviction import api_responses
from rescheduler.core.eviction.api_responses import EvictionResult


class RetrySchedule:
    """Failures in a row and the time of the next request, by pod uid; times are monotonic, in seconds."""

    def __init__(self) -> None:
        self._schedule: dict[str, tuple[int, float]] = {}

    def seconds_until_due(self, uid: str, now: float) -> float:
        """Return the seconds until the next request for the pod; 0 or less: the request is due."""
        return self._schedule[uid][1] - now if uid in self._schedule else 0.0

    def record_failure(self, uid: str, result: EvictionResult, now: float) -> None:
        """Count a response that is no success."""
        failures, _ = self._schedule.get(uid, (0, 0.0))
        self._schedule[uid] = (failures + 1, now + api_responses.retry_delay(result, failures))

    def postpone(self, uid: str, until: float) -> None:
        """Allow no request before this time; nothing failed."""
        failures, due = self._schedule.get(uid, (0, 0.0))
        self._schedule[uid] = (failures, max(due, until))

    def forget(self, uids: Iterable[str]) -> None:
        """Drop these pods, which are gone or no longer move."""
        for uid in uids:
            self._schedule.pop(uid, None)
