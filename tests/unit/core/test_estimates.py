"""When a drain should be done."""

from datetime import UTC, datetime, timedelta

from rescheduler.core.estimates import completion

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def estimate(moved: int, remaining: int, *, active: int = 100, paused: int = 0, grace: int = 30) -> datetime | None:
    return completion(
        started=NOW - timedelta(seconds=active + paused),
        paused=timedelta(seconds=paused),
        now=NOW,
        moved=moved,
        remaining=remaining,
        grace=timedelta(seconds=grace),
    )


def test_its_own_pace_goes_on() -> None:
    assert estimate(10, 20) == NOW + timedelta(seconds=200)


def test_time_paused_is_no_pace() -> None:
    assert estimate(10, 20, paused=1000) == NOW + timedelta(seconds=200)


def test_no_pod_is_gone_before_its_grace_is_over() -> None:
    assert estimate(99, 1, grace=60) == NOW + timedelta(seconds=60)


def test_nothing_measured_is_nothing_said() -> None:
    assert estimate(0, 20) is None
    assert estimate(20, 0) is None
