"""When a drain should be done."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rescheduler.core.drain.eta import Line, Paces, completion
from rescheduler.core.eviction.pod_actions import Fate, Verdict
from rescheduler.core.model.disruption_budgets import Budget
from rescheduler.core.model.pods import Pod

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TIGHT = Budget("s", "tight", "t", expected=10, needed=9)


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


def line(left: int, gone: int = 0, active: float = 100, *, grace: float = 30, **more: Any) -> Line:
    base: dict[str, Any] = {"order": 0, "at_once": None}
    return Line(left=left, gone=gone, active=seconds(active), grace=seconds(grace), **(base | more))


def after(*lines: Line, moved: int = 10, active: float = 100, rate: float = 1000) -> float | None:
    found = completion(lines, active=seconds(active), moved=moved, now=NOW, rate=rate)
    return (found - NOW).total_seconds() if found else None


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([line(20, gone=10)], 200),  # its own pace goes on
        ([line(1, gone=99, grace=60)], 60),  # no pod is gone before its grace is over
        ([line(2, gone=100), line(5, gone=5, at_once=1)], 100),  # the slowest line, not the pace of all
        ([line(20, gone=10), line(20, gone=10, order=7)], 400),  # orders add up
        ([line(0, gone=9), line(6, at_once=2), line(1, gone=10, at_once=1)], 90),  # a wave takes a grace at least
        ([line(6, at_once=2), line(1, gone=2, at_once=2)], 300),  # and as long as one under another budget took
        ([line(6, at_once=2)], 90),  # nothing under a budget measured: three waves of a grace
        ([line(100, grace=1)], 1000),  # nothing measured here: the pace of all
    ],
)
def test_each_line_goes_by_its_own_pace(lines: list[Line], expected: float) -> None:
    assert after(*lines) == expected


def test_the_policys_rate_bounds_it() -> None:
    assert after(line(100, gone=100, active=1, grace=1), line(100, gone=100, active=1, grace=1), rate=2) == 100


def test_nothing_measured_or_nothing_left_is_nothing_said() -> None:
    assert after(line(20), moved=0) is None
    assert after() is None


def test_after_a_restart_all_that_has_left_is_the_measure() -> None:
    assert after(line(20, active=0), moved=10) == 200


def test_what_leaves_is_counted_by_its_budget_from_its_turn_on() -> None:
    paces, evict, later = Paces(), Verdict(Fate.EVICT), Verdict(Fate.EVICT, 5)
    free, held, last = Pod("s", "a", "a", grace=10), Pod("s", "b", "b", grace=20), Pod("s", "c", "c", grace=40)
    rows = [(free, evict), (held, evict), (last, later)]
    budgets = {"b": TIGHT, "c": Budget("s", "other", "o", expected=3, needed=3)}
    assert [found.active for found in paces.lines(rows, budgets, seconds(50))] == [seconds(0)] * 3
    paces.left(None)
    paces.left(TIGHT)
    first, second, third = paces.lines(rows, budgets, seconds(80))
    assert (first.gone, first.active, first.at_once, first.grace) == (1, seconds(30), None, seconds(10))
    assert (second.gone, second.active, second.at_once, second.grace) == (1, seconds(30), 1, seconds(20))
    assert (third.order, third.gone, third.active, third.at_once) == (5, 0, seconds(0), 1)
    paces.lines(rows[2:], budgets, seconds(90))
    assert paces.lines(rows[2:], budgets, seconds(95), grace=7) == (
        Line(order=5, left=1, gone=0, active=seconds(5), at_once=1, grace=seconds(7)),
    )


@given(
    st.lists(
        st.builds(
            Line,
            order=st.integers(0, 3),
            left=st.integers(1, 300),
            gone=st.integers(0, 300),
            active=st.timedeltas(seconds(1), seconds(10_000)),
            at_once=st.none() | st.integers(1, 30),
            grace=st.timedeltas(seconds(0), seconds(600)),
        ),
        min_size=1,
    )
)
def test_nothing_is_done_before_the_longest_grace(lines: list[Line]) -> None:
    found = completion(lines, active=seconds(100), moved=1, now=NOW, rate=20)
    assert found is not None
    assert found >= NOW + max(each.grace for each in lines)
