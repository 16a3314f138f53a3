"""When a drain should be done, from what was measured in this very drain."""

from datetime import datetime, timedelta


def completion(
    *, started: datetime, paused: timedelta, now: datetime, moved: int, remaining: int, grace: timedelta
) -> datetime | None:
    """The time at which the last pod should be gone; None while there is nothing to measure.

    Its own pace so far goes on, and no pod is gone before its grace period is over (`grace`: the longest of those
    left).
    """
    active = now - started - paused
    if not remaining or not moved or active <= timedelta():
        return None
    return now + max(active / moved * remaining, grace)
