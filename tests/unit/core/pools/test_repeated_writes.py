"""The pace of writes that another client undoes."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from rescheduler.core.pools.repeated_writes import RepeatedWrite, after_write


def writes_within(seconds: float, undone_after: float) -> list[float]:
    """Return the times of the writes if another client undoes each after a while."""
    now, last, times = 0.0, None, list[float]()
    while now < seconds:
        wait = last.seconds_until_due(now) if last else 0.0
        now += wait
        last = after_write(last, now)
        times.append(now)
        now += undone_after
    return times


@given(st.floats(min_value=0.0, max_value=200.0))
def test_an_undone_write_is_repeated_at_least_twice_a_minute_and_seldom(undone_after: float) -> None:
    times = writes_within(3600, undone_after)
    assert len(times) <= 10 + 2 * 60
    assert all(b - a <= 30.001 + undone_after for a, b in pairwise(times))


def test_only_a_write_that_is_undone_again_and_again_is_reported() -> None:
    last: RepeatedWrite | None = None
    reported = []
    for number in range(4):
        last = after_write(last, 180.0 * number)  # a tool that looks every 3 minutes
        reported.append(last.is_reported(180.0 * number))
    assert reported == [False, False, False, True]
    assert last is not None
    assert last.is_reported(540.0 + 299)
    assert not last.is_reported(540.0 + 300)
    assert after_write(last, 540.0 + 300).undone == 0
