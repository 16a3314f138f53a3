"""The cache of typed objects: versions, and objects that this version cannot read."""

import pytest

from rescheduler.controllers.store.object_cache import ObjectCache, ObjectUpdate, ResourceKind
from rescheduler.core.model.raw import RawObject

BAD: dict[ResourceKind, RawObject] = {
    ResourceKind.DRAIN: {
        "metadata": {"name": "n1", "uid": "n1"},
        "spec": {"nodeName": "n1", "requests": [{"reason": "Boredom"}]},
    },
    ResourceKind.POLICY: {"metadata": {"name": "p", "uid": "p"}, "spec": {"mode": "Dream"}},
    ResourceKind.POOL: {"metadata": {"name": "q", "uid": "q"}, "spec": {}},
}
"""Only kinds of this operator can be unreadable: bad fields of a Node or a Namespace are ignored."""
GOOD: dict[ResourceKind, RawObject] = {
    ResourceKind.NODE: {"metadata": {"name": "n1", "uid": "n1"}},
    ResourceKind.DRAIN: {
        "metadata": {"name": "n1", "uid": "n1", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"nodeName": "n1", "requests": [{"reason": "Maintenance"}]},
    },
    ResourceKind.POLICY: {"metadata": {"name": "p", "uid": "p"}, "spec": {}},
    ResourceKind.POOL: {"metadata": {"name": "q", "uid": "q"}, "spec": {"nodeSelector": {"matchLabels": {"a": "b"}}}},
    ResourceKind.NAMESPACE: {"metadata": {"name": "s", "uid": "s"}},
}


class Reports:
    """Record the unreadable objects at each report of the cache."""

    def __init__(self) -> None:
        self.cache = ObjectCache(lambda: self.unreadable.append(set(self.cache.unreadable_objects)))
        self.unreadable: list[set[tuple[ResourceKind, str]]] = []


def version(raw: RawObject, number: int) -> RawObject:
    return {**raw, "metadata": {**raw["metadata"], "resourceVersion": str(number)}}


def name_of(kind: ResourceKind) -> str:
    return str(GOOD[kind]["metadata"]["name"])


@pytest.mark.parametrize("kind", GOOD)
def test_an_object_is_kept_by_kind_and_name(kind: ResourceKind) -> None:
    cache = Reports().cache
    update = cache.put(kind, version(GOOD[kind], 1))
    assert update == ObjectUpdate(None, cache.objects(kind)[name_of(kind)])
    assert [other for other in ResourceKind if cache.objects(other)] == [kind]


def test_an_update_has_the_object_before_it() -> None:
    cache = Reports().cache
    node = GOOD[ResourceKind.NODE]
    cache.put(ResourceKind.NODE, version(node, 1))
    first = cache.nodes["n1"]
    update = cache.put(ResourceKind.NODE, version({**node, "spec": {"unschedulable": True}}, 2))
    assert update == ObjectUpdate(first, cache.nodes["n1"])
    assert cache.nodes["n1"].unschedulable


@pytest.mark.parametrize("number", [2, 3])
def test_an_old_or_equal_version_changes_nothing(number: int) -> None:
    cache = Reports().cache
    node = GOOD[ResourceKind.NODE]
    cache.put(ResourceKind.NODE, version(node, 3))
    assert cache.put(ResourceKind.NODE, version({**node, "spec": {"unschedulable": True}}, number)) is None
    assert not cache.nodes["n1"].unschedulable


def test_a_deletion_older_than_the_object_drops_nothing() -> None:
    cache = Reports().cache
    cache.put(ResourceKind.NODE, version(GOOD[ResourceKind.NODE], 3))
    assert not cache.drop(ResourceKind.NODE, "n1", not_after=2)
    assert "n1" in cache.nodes
    assert cache.drop(ResourceKind.NODE, "n1", not_after=3)
    assert "n1" not in cache.nodes


def test_an_unknown_object_is_not_dropped() -> None:
    assert not Reports().cache.drop(ResourceKind.NODE, "n1")


def test_a_full_list_shows_which_objects_no_longer_exist() -> None:
    cache = Reports().cache
    cache.put(ResourceKind.POLICY, version(GOOD[ResourceKind.POLICY], 1))
    unreadable = {"metadata": {"name": "bad"}, "spec": {"mode": "Dream"}}
    cache.put(ResourceKind.POLICY, version(unreadable, 2))
    assert cache.unlisted(ResourceKind.POLICY, ["p", "new"]) == {"bad"}
    assert cache.unlisted(ResourceKind.POLICY, []) == {"p", "bad"}


@pytest.mark.parametrize("kind", BAD)
def test_an_unreadable_object_keeps_its_last_readable_version(kind: ResourceKind) -> None:
    reports, name = Reports(), name_of(kind)
    cache = reports.cache
    cache.put(kind, version(GOOD[kind], 1))
    assert cache.put(kind, version(BAD[kind], 2)) is None
    assert set(cache.objects(kind)) == {name}
    assert cache.unreadable_objects[kind, name].last_version_kept
    assert cache.unlisted(kind, [name]) == set()


@pytest.mark.parametrize("kind", BAD)
def test_an_unreadable_object_is_reported_once_until_it_is_readable(kind: ResourceKind) -> None:
    reports, name = Reports(), name_of(kind)
    reports.cache.put(kind, version(BAD[kind], 2))
    reports.cache.put(kind, version(BAD[kind], 3))
    assert reports.unreadable == [{(kind, name)}]
    reports.cache.put(kind, version(GOOD[kind], 5))
    assert reports.unreadable == [{(kind, name)}, set()]


@pytest.mark.parametrize("kind", BAD)
def test_an_object_that_was_never_readable_is_known_until_deleted(kind: ResourceKind) -> None:
    reports, name = Reports(), name_of(kind)
    cache = reports.cache
    cache.put(kind, version(BAD[kind], 2))
    assert not cache.objects(kind)
    found = cache.unreadable_objects[kind, name]
    assert (found.uid, found.last_version_kept, bool(found.reason)) == (name, False, True)
    assert cache.drop(kind, name)
    assert reports.unreadable[-1] == set()
    cache.put(kind, version(GOOD[kind], 1))
    assert set(cache.objects(kind)) == {name}


def test_a_node_and_a_namespace_are_always_readable() -> None:
    cache = Reports().cache
    node = {"metadata": {"name": "n1", "resourceVersion": "1", "creationTimestamp": 5, "labels": []}}
    cache.put(ResourceKind.NODE, node)
    cache.put(ResourceKind.NAMESPACE, {"metadata": {"name": "s", "resourceVersion": "1", "labels": 7}})
    assert not cache.unreadable_objects
    assert set(cache.nodes) == {"n1"}
    assert cache.namespaces["s"].labels == {}
