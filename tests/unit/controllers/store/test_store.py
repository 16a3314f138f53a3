"""The store: slots, and objects that this version cannot read."""

from typing import Any

import pytest

from rescheduler.controllers.store.store import ResourceKind, Store
from rescheduler.core.eligibility.decision import wait_reason
from rescheduler.core.model.wait_reasons import ProgressingReason
from unit.builders import NOW


def node(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": name, "resourceVersion": "1"}}


def drain(name: str) -> dict[str, Any]:
    spec = {"nodeName": name, "requests": [{"reason": "Maintenance"}]}
    return {
        "metadata": {"name": name, "uid": name, "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": spec,
    }


def store(*names: str) -> Store:
    found = Store(lambda: NOW)
    found.put(ResourceKind.POLICY, {"metadata": {"name": "p", "uid": "p", "resourceVersion": "1"}, "spec": {}})
    for name in names:
        found.put(ResourceKind.NODE, node(name))
        found.put(ResourceKind.DRAIN, drain(name))
    return found


def may_begin(place: Store, name: str) -> bool:
    found = place.drain(name)
    assert found is not None
    return wait_reason(found, place.cluster_state(), NOW) is None


def test_a_reserved_slot_counts_before_the_status_is_written() -> None:
    """Two drains must not take the same free slot."""
    place = store("n1", "n2")
    assert may_begin(place, "n1")
    place.reserve_slot("n1", NOW)
    found = place.drain("n2")
    assert found is not None
    why = wait_reason(found, place.cluster_state(), NOW)
    assert why is not None
    assert why.reason is ProgressingReason.MAX_CONCURRENT
    place.reserve_slot("n1", None)
    assert may_begin(place, "n1")


def test_the_drain_of_a_deleted_node_takes_no_slot() -> None:
    place = store("n1", "n2")
    assert not may_begin(place, "n2")
    place.drop(ResourceKind.NODE, "n1")
    assert may_begin(place, "n2")


# -- what this version cannot read ------------------------------------------------------------------------------------

BAD: dict[ResourceKind, dict[str, Any]] = {
    ResourceKind.DRAIN: {**drain("n1"), "spec": {"nodeName": "n1", "requests": [{"reason": "Boredom"}]}},
    ResourceKind.POLICY: {"metadata": {"name": "p", "uid": "p"}, "spec": {"mode": "Dream"}},
    ResourceKind.POOL: {"metadata": {"name": "q", "uid": "q"}, "spec": {}},
}
"""Only kinds of this operator can be unreadable: bad fields of a Node or a Namespace are ignored."""
GOOD: dict[ResourceKind, dict[str, Any]] = {
    ResourceKind.NODE: node("n1"),
    ResourceKind.DRAIN: drain("n1"),
    ResourceKind.POLICY: {"metadata": {"name": "p", "uid": "p"}, "spec": {}},
    ResourceKind.POOL: {"metadata": {"name": "q", "uid": "q"}, "spec": {"nodeSelector": {"matchLabels": {"a": "b"}}}},
    ResourceKind.NAMESPACE: {"metadata": {"name": "s", "uid": "s"}},
}


def version(raw: dict[str, Any], number: int) -> dict[str, Any]:
    return {**raw, "metadata": {**raw["metadata"], "resourceVersion": str(number)}}


def names(place: Store) -> dict[ResourceKind, set[str]]:
    return {
        ResourceKind.NODE: set(place.nodes),
        ResourceKind.DRAIN: set(place.drains),
        ResourceKind.POLICY: set(place._policies),
        ResourceKind.POOL: set(place.memberships.pools),
        ResourceKind.NAMESPACE: set(place.namespaces),
    }


@pytest.mark.parametrize("kind", BAD)
def test_an_unreadable_object_keeps_its_last_readable_version(kind: ResourceKind) -> None:
    place, told = Store(lambda: NOW), []
    place.subscribe(on_unreadable_change=lambda: told.append(dict(place.unreadable_objects)))
    name = GOOD[kind]["metadata"]["name"]
    place.put(kind, version(GOOD[kind], 1))
    place.put(kind, version(BAD[kind], 2))
    place.put(kind, version(BAD[kind], 3))
    assert names(place)[kind] == {name}
    assert place.is_unreadable(kind, name)
    assert [list(found) for found in told] == [[(kind, name)]]  # once
    assert place.unreadable_objects[kind, name].last_version_kept
    place.resync(kind, [name], 4)
    assert names(place)[kind] == {name}
    place.put(kind, version(GOOD[kind], 5))
    assert not place.unreadable_objects
    assert told[-1] == {}


@pytest.mark.parametrize("kind", BAD)
def test_an_object_that_was_never_readable_is_kept_until_deleted(kind: ResourceKind) -> None:
    place = Store(lambda: NOW)
    name = BAD[kind]["metadata"]["name"]
    place.put(kind, version(BAD[kind], 2))
    assert names(place)[kind] == set()
    found = place.unreadable_objects[kind, name]
    assert (found.uid, found.last_version_kept, bool(found.reason)) == (name, False, True)
    place.drop(kind, name)
    assert not place.unreadable_objects
    place.put(kind, version(GOOD[kind], 1))
    assert names(place)[kind] == {name}


def test_a_node_and_a_namespace_are_always_readable() -> None:
    place = Store(lambda: NOW)
    place.put(
        ResourceKind.NODE, {"metadata": {"name": "n1", "resourceVersion": "1", "creationTimestamp": 5, "labels": []}}
    )
    place.put(ResourceKind.NAMESPACE, {"metadata": {"name": "s", "resourceVersion": "1", "labels": 7}})
    assert not place.unreadable_objects
    assert place.node("n1") is not None
    assert place.namespaces["s"].labels == {}


def test_an_unreadable_policy_stays_in_effect() -> None:
    place = store("n1")
    place.put(ResourceKind.POLICY, version(BAD[ResourceKind.POLICY], 2))
    here = place.node("n1")
    assert here is not None
    assert place.policy(here) is not None
