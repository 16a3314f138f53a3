"""Estimates of the end of a drain."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rescheduler.core.drain.eta import EvictionGroup, EvictionRates, completion
from rescheduler.core.eviction.pod_actions import PodAction, PodDecision
from rescheduler.core.model.disruption_budgets import DisruptionBudget
from rescheduler.core.model.pods import Pod
from unit.builders import NOW

TIGHT = DisruptionBudget("s", "tight", "t", expected=10, needed=9)


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


def line(left: int, moved: int = 0, active: float = 100, *, grace: float = 30, **more: Any) -> EvictionGroup:
    base: dict[str, Any] = {"order": 0, "max_disruptions": None}
    return EvictionGroup(
        remaining=left, moved=moved, active_time=seconds(active), grace_period=seconds(grace), **(base | more)
    )


def after(*lines: EvictionGroup, moved: int = 10, active: float = 100, rate: float = 1000) -> float | None:
    found = completion(lines, active_time=seconds(active), moved=moved, now=NOW, rate=rate)
    return (found - NOW).total_seconds() if found else None


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([line(20, moved=10)], 200),  # its own pace goes on
        ([line(1, moved=99, grace=60)], 60),  # no pod is gone before its grace is over
        ([line(2, moved=100), line(5, moved=5, max_disruptions=1)], 100),  # the slowest line, not the pace of all
        ([line(20, moved=10), line(20, moved=10, order=7)], 400),  # orders add up
        (
            [line(0, moved=9), line(6, max_disruptions=2), line(1, moved=10, max_disruptions=1)],
            90,
        ),  # a wave takes a grace at least
        (
            [line(6, max_disruptions=2), line(1, moved=2, max_disruptions=2)],
            300,
        ),  # and as long as one under another budget took
        ([line(6, max_disruptions=2)], 90),  # nothing under a budget measured: three waves of a grace
        ([line(100, grace=1)], 1000),  # nothing measured here: the pace of all
    ],
)
def test_each_line_goes_by_its_own_pace(lines: list[EvictionGroup], expected: float) -> None:
    assert after(*lines) == expected


def test_the_policys_rate_bounds_it() -> None:
    assert after(line(100, moved=100, active=1, grace=1), line(100, moved=100, active=1, grace=1), rate=2) == 100


def test_no_estimate_without_a_measurement_or_without_pods() -> None:
    assert after(line(20), moved=0) is None
    assert after() is None


def test_after_a_restart_all_that_has_left_is_the_measure() -> None:
    assert after(line(20, active=0), moved=10) == 200


def test_moved_pods_count_for_their_budget_from_their_turn_on() -> None:
    paces, evict, later = EvictionRates(), PodDecision(PodAction.EVICT), PodDecision(PodAction.EVICT, 5)
    free, held, last = (
        Pod("s", "a", "a", grace_period_seconds=10),
        Pod("s", "b", "b", grace_period_seconds=20),
        Pod("s", "c", "c", grace_period_seconds=40),
    )
    rows = [(free, evict), (held, evict), (last, later)]
    budgets = {"b": TIGHT, "c": DisruptionBudget("s", "other", "o", expected=3, needed=3)}
    assert [found.active_time for found in paces.group_pods(rows, budgets, seconds(50))] == [seconds(0)] * 3
    paces.record_moved(None)
    paces.record_moved(TIGHT)
    first, second, third = paces.group_pods(rows, budgets, seconds(80))
    assert (first.moved, first.active_time, first.max_disruptions, first.grace_period) == (
        1,
        seconds(30),
        None,
        seconds(10),
    )
    assert (second.moved, second.active_time, second.max_disruptions, second.grace_period) == (
        1,
        seconds(30),
        1,
        seconds(20),
    )
    assert (third.order, third.moved, third.active_time, third.max_disruptions) == (5, 0, seconds(0), 1)
    paces.group_pods(rows[2:], budgets, seconds(90))
    assert paces.group_pods(rows[2:], budgets, seconds(95), grace_period_seconds=7) == (
        EvictionGroup(
            order=5, remaining=1, moved=0, active_time=seconds(5), max_disruptions=1, grace_period=seconds(7)
        ),
    )


@given(
    st.lists(
        st.builds(
            EvictionGroup,
            order=st.integers(0, 3),
            remaining=st.integers(1, 300),
            moved=st.integers(0, 300),
            active_time=st.timedeltas(seconds(1), seconds(10_000)),
            max_disruptions=st.none() | st.integers(1, 30),
            grace_period=st.timedeltas(seconds(0), seconds(600)),
        ),
        min_size=1,
    )
)
def test_nothing_is_done_before_the_longest_grace(lines: list[EvictionGroup]) -> None:
    found = completion(lines, active_time=seconds(100), moved=1, now=NOW, rate=20)
    assert found is not None
    assert found >= NOW + max(each.grace_period for each in lines)
