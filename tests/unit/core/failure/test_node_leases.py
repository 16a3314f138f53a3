"""Find silent nodes, and blackouts of the operator's own view."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rescheduler.api.policies import ReschedulePolicy
from rescheduler.core.failure.node_leases import (
    DEFAULT_LEASE_DURATION,
    LeaseTracker,
    bounded_duration,
    late_after,
    lease_timeout,
    renewal_interval,
    silence_offsets,
    silent_after,
)
from rescheduler.core.model.nodes import Node, NodeCondition


def tracker(**last: float) -> LeaseTracker:
    leases = LeaseTracker()
    for name, when in last.items():
        leases.record_lease(name, f"{when}", when)
    return leases


def test_node_is_silent_after_its_limit() -> None:
    leases = tracker(a=0, b=5)
    assert leases.silent_nodes({"a": 20, "b": 20}, 20) == {"a"}
    assert leases.silent_nodes({"b": 10}, 20) == {"b"}


def test_unchanged_lease_is_no_renewal() -> None:
    leases = tracker(a=0)
    leases.record_lease("a", "0", 15)
    assert leases.silent_nodes({"a": 20}, 20) == {"a"}


def test_a_node_without_a_lease_is_not_silent() -> None:
    assert tracker(a=0).silent_nodes({"b": 1}, 99) == frozenset()


def test_times_in_a_lease_are_ignored() -> None:
    leases = LeaseTracker()
    leases.record_lease("a", "1999-01-01T00:00:00Z", 0)
    leases.record_lease("a", "1998-01-01T00:00:00Z", 10)
    assert leases.silent_nodes({"a": 20}, 29) == frozenset()


@pytest.mark.parametrize(
    ("silent", "alive", "count"),
    [(1, 0, 0), (2, 0, 0), (2, 1, 2), (1, 2, 0), (3, 2, 3), (2, 2, 0), (6, 4, 6), (5, 5, 0)],
)
def test_many_leases_that_stop_together_are_a_blackout(silent: int, alive: int, count: int) -> None:
    names = {f"s{i}": float(i) for i in range(silent)} | {f"a{i}": 100.0 for i in range(alive)}
    assert tracker(**names).blackout_size(100) == count


def test_leases_that_stop_one_after_another_are_no_blackout() -> None:
    assert tracker(a=0, b=61, c=122, d=300).blackout_size(300) == 0


def test_reset_counts_all_leases_as_renewed() -> None:
    leases = tracker(a=0)
    leases.reset(100)
    assert leases.silent_nodes({"a": 20}, 119) == frozenset()


def test_blackout_outlasts_a_restart_of_the_operator() -> None:
    """A new leader learns from the node controller which nodes were silent before."""
    leases = tracker(a=100, b=100, c=100, d=100)
    leases.reset(100)
    leases.presume_silent({}, 100)
    assert leases.blackout_size(100) == 0
    leases.presume_silent({"a": 0, "b": 3, "c": 5}, 101)
    assert leases.blackout_size(101) == 3
    assert leases.silent_nodes({"a": 5}, 101) == frozenset()
    leases.record_lease("a", "renewed", 102)
    assert leases.blackout_size(102) == 0


def test_blackout_outlasts_an_interrupted_view() -> None:
    leases = tracker(a=0, b=1, c=2, d=30)
    assert leases.blackout_size(31) == 3
    leases.record_lease("d", "renewed", 40)
    leases.reset(50, blackout=True)
    assert leases.blackout_size(51) == 3
    assert leases.silent_nodes({"a": 20}, 60) == frozenset()
    leases.record_lease("a", "renewed", 52)
    assert leases.blackout_size(52) == 0


def test_nodes_dead_long_before_a_restart_are_no_blackout() -> None:
    leases = tracker(a=100, b=100, c=100)
    leases.reset(100)
    leases.presume_silent({"a": 86400, "b": 0}, 100)
    assert leases.blackout_size(101) == 0


def test_renewed_node_is_not_presumed_silent() -> None:
    leases = tracker(a=100)
    leases.reset(100)
    leases.record_lease("a", "renewed", 103)
    leases.presume_silent({"a": 0}, 104)
    assert leases.silent_nodes({"a": 5}, 105) == frozenset()


@given(st.lists(st.floats(0, 1000), min_size=3, max_size=40))
def test_blackout_has_at_least_six_in_ten_nodes(times: list[float]) -> None:
    found = tracker(**{f"n{i}": when for i, when in enumerate(times)}).blackout_size(1000)
    assert found == 0 or found >= 0.6 * len(times)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (40, 40),
        (200, 200),
        (10, 40),
        (86400, 600),
        (2**63, 600),
        (0, 40),
        (-5, 40),
        (None, 40),
        ("200", 40),
        (True, 40),
        (1e999, 40),
        ([], 40),
    ],
)
def test_duration_of_a_lease_is_bounded(said: object, seconds: float) -> None:
    assert bounded_duration(said) == seconds


def test_lease_is_silent_by_its_own_duration() -> None:
    assert (
        renewal_interval(DEFAULT_LEASE_DURATION),
        late_after(DEFAULT_LEASE_DURATION),
        silent_after(DEFAULT_LEASE_DURATION),
    ) == (11, 12, 20)
    assert (renewal_interval(200), silent_after(200)) == (55, 100)


def slow(lasts: float, every: float, count: int, until: float) -> int:
    """Return the largest blackout while kubelets renew their Leases in turn, `every` so many seconds."""
    leases, most = LeaseTracker(), 0
    for second in range(int(until)):
        for index in range(count):
            if (second - index * every / count) % every < 1:
                leases.record_lease(f"n{index}", str(second), second, lasts)
        most = max(most, leases.blackout_size(second))
    return most


@pytest.mark.parametrize("count", [3, 10])
@pytest.mark.parametrize("lasts", [40, 120, 200, 600])
def test_kubelets_that_renew_slowly_are_no_blackout(lasts: float, count: int) -> None:
    assert slow(lasts, lasts / 4, count, 4 * lasts) == 0


def test_slow_leases_that_stop_one_after_another_are_a_blackout() -> None:
    leases = LeaseTracker()
    for index in range(4):
        leases.record_lease(f"n{index}", "0", index * 40, 600)
    assert leases.blackout_size(120 + 299) == 4 - 1
    assert leases.blackout_size(120 + 300) == 4


def test_only_an_observed_renewal_is_a_sign_of_life() -> None:
    leases = tracker(a=0, b=0)
    assert leases.renewing_nodes(["a", "b", "none"], 10.9) == {"a", "b"}
    assert leases.renewing_nodes(["a"], 11) == frozenset()
    leases.reset(20)
    assert leases.renewing_nodes(["a"], 21) == frozenset()
    leases.record_lease("a", "renewed", 22)
    assert leases.renewing_nodes(["a", "b"], 23) == {"a"}


def test_next_renewal_is_that_of_the_shortest_lease() -> None:
    leases = LeaseTracker()
    assert leases.next_renewal_within() == float("inf")
    leases.record_lease("a", "0", 0, 200)
    assert leases.next_renewal_within() == 55
    leases.record_lease("b", "0", 0)
    assert leases.next_renewal_within() == 11


def test_the_lease_timeout_is_at_least_one_renewal_interval() -> None:
    def policy(**failure: Any) -> ReschedulePolicy:
        return ReschedulePolicy.from_object({"metadata": {"name": "p"}, "spec": {"failure": failure}})

    assert lease_timeout(policy(leaseTimeout="20s"), 40) == 20
    assert lease_timeout(policy(leaseTimeout="20s"), 400) == 110
    assert lease_timeout(policy(), 40) is None
    assert lease_timeout(policy(leaseTimeout="20s", enabled=False), 40) is None
    assert lease_timeout(None, 40) is None


def test_silence_offsets_count_back_from_the_last_node_that_became_unknown() -> None:
    def node(name: str, status: str, seconds: int) -> Node:
        changed = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
        return Node(name, name, conditions=(NodeCondition("Ready", status, last_transition=changed),))

    nodes = [node("a", "Unknown", 0), node("b", "Unknown", 5), node("c", "True", 9)]
    assert silence_offsets(nodes) == {"a": 5, "b": 0}
    assert silence_offsets(nodes[2:]) == {}


def test_only_overdue_nodes_are_looked_at_for_silence() -> None:
    """A limit is at least one renewal interval: a node that is not overdue has no limit that it could exceed."""
    leases = tracker(a=0, b=5, c=10)
    assert leases.overdue_nodes(10) == []
    assert leases.overdue_nodes(11) == ["a"]
    leases.record_lease("a", "renewed", 12)
    assert leases.overdue_nodes(16) == ["b"]
    assert leases.overdue_nodes(30) == ["b", "c", "a"]


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(0, 60)), max_size=40), st.floats(0, 60))
def test_no_other_node_is_silent_than_an_overdue_one(renewals: list[tuple[int, float]], age: float) -> None:
    leases, now = LeaseTracker(), 0.0
    for index, (name, pause) in enumerate(renewals):
        now += pause
        leases.record_lease(f"n{name}", f"{index}", now)
    shortest = dict.fromkeys(leases.renewals, renewal_interval(DEFAULT_LEASE_DURATION))
    assert leases.silent_nodes(shortest, now + age) == set(leases.overdue_nodes(now + age))
