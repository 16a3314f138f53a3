"""Pods that come back onto a drained node."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rescheduler.api.drains import CameBackPods
from rescheduler.core.drain import came_back
from rescheduler.core.eviction.pod_actions import OwnerKey
from rescheduler.core.model.pods import Owner, Pod, Toleration
from unit.builders import NOW, pod

ANYTHING = (Toleration("", "Exists", "", ""),)
WEB: OwnerKey = ("s", "r1")
SEEN = {"first": WEB}


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def new(name: str, seconds: float = 10, owner: Owner | None = None, *, tolerates: bool = True) -> Pod:
    """Return a pod that was created this many seconds after the cordon."""
    owner = owner or Owner("ReplicaSet", "web", "r1")
    return pod(name, created=at(seconds), owner=owner, tolerations=ANYTHING if tolerates else ())


def uids(found: tuple[CameBackPods, ...]) -> list[tuple[str, ...]]:
    return [entry.pods for entry in found]


def entry(*pods: str, seconds: float = 10, tolerates: bool = False) -> CameBackPods:
    return CameBackPods(
        namespace="s",
        kind="ReplicaSet",
        name="web",
        uid="r1",
        pods=pods,
        tolerates_cordon=tolerates,
        last_created_at=at(seconds),
    )


def test_a_new_pod_of_an_owner_that_had_a_pod_on_the_node_came_back() -> None:
    (found,) = came_back.observe((), [new("a")], SEEN, NOW)
    assert (found.namespace, found.kind, found.name, found.uid, found.pods) == ("s", "ReplicaSet", "web", "r1", ("a",))
    assert found.tolerates_cordon
    assert found.last_created_at == at(10)


@pytest.mark.parametrize(
    ("arrived", "cordoned_at"),
    [
        (new("first"), NOW),  # it was on the node before
        (new("a", owner=Owner("Job", "j", "other")), NOW),  # the first pod of its owner
        (new("a", -1), NOW),  # older than the cordon
        (new("a"), None),  # the node is not cordoned
        (new("a", 1, tolerates=False), NOW),  # the scheduler may not have seen the cordon
        (pod("a", owner=Owner("ReplicaSet", "web", "r1"), tolerations=ANYTHING), NOW),  # of unknown age
        (pod("a", namespace="other", owner=Owner("ReplicaSet", "web", "r1"), created=at(9)), NOW),  # it names any UID
        (new("a", owner=Owner("DaemonSet", "d", "r1")), NOW),
        (pod("a", owner=None, created=at(10)), NOW),
    ],
)
def test_any_other_pod_did_not_come_back(arrived: Pod, cordoned_at: datetime | None) -> None:
    assert came_back.observe((), [arrived], SEEN, cordoned_at) == ()


def test_a_pod_counts_once_and_a_restart_of_the_operator_loses_no_count() -> None:
    first = came_back.observe((), [new("a")], SEEN, NOW)
    assert came_back.observe(first, [new("a")], {**SEEN, "a": WEB}, NOW) == first
    assert came_back.observe(first, [new("a")], {}, NOW) == first
    assert uids(came_back.observe(first, [new("a"), new("b", 11)], {}, NOW)) == [("a", "b")]


def test_after_three_pods_the_owner_is_settled_and_only_the_time_goes_on() -> None:
    found: tuple[CameBackPods, ...] = ()
    for number, name in enumerate("abcd"):
        assert came_back.settled_owners(found) == (frozenset({WEB}) if number == 3 else frozenset())
        found = came_back.observe(found, [new(name, 10 + number)], SEEN, NOW)
    assert uids(found) == [("a", "b", "c")]
    assert found[0].last_created_at == at(13)


def test_a_pod_that_ignores_the_cordon_keeps_the_node_from_being_drained_for_a_minute() -> None:
    rows = (entry("a", seconds=10), entry("b", seconds=90, tolerates=True))
    assert came_back.last_came_back(rows, at(69)) == rows[0]
    assert came_back.last_came_back(rows, at(70)) is None
    assert came_back.may_come_back(rows, None, at(69))
    assert not came_back.may_come_back(rows, None, at(70))


def test_the_successor_of_a_tolerating_pod_is_awaited_for_a_moment() -> None:
    assert came_back.may_come_back((), NOW, at(9))
    assert came_back.seconds_until_successor(NOW, at(9)) == 1
    assert not came_back.may_come_back((), NOW, at(10))
    assert came_back.seconds_until_successor(NOW, at(11)) == 0


def test_a_list_that_is_too_long_keeps_the_owners_with_most_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(came_back, "MAX_OWNERS_CAME_BACK", 1)
    other = new("x", owner=Owner("ReplicaSet", "aaa", "r0"))
    found = came_back.observe((entry("a"),), [new("b", 11), other], {"o": ("s", "r0")}, NOW)
    assert uids(found) == [("a", "b")]


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(-5, 30), st.booleans(), st.booleans()), max_size=12))
def test_a_count_never_falls_and_never_passes_three(events: list[tuple[str, int, bool, bool]]) -> None:
    found: tuple[CameBackPods, ...] = ()
    seen: dict[str, OwnerKey] = dict(SEEN)
    for name, seconds, tolerates, restarted in events:
        seen = {} if restarted else seen
        before, there = found, [new(name, seconds, tolerates=tolerates)]
        found = came_back.observe(found, there, seen, NOW)
        seen |= came_back.owners_by_uid(there)
        assert all(old.pods == kept.pods[: len(old.pods)] for old, kept in zip(before, found, strict=False))
        assert len(found) >= len(before)
        assert all(len(kept.pods) == len(set(kept.pods)) <= 3 for kept in found)
