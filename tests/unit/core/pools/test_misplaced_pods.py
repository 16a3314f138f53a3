"""Find misplaced pods, and sum the requests of a pool's pods."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rescheduler.api import names
from rescheduler.core.model.listed_pods import ListedPod, parse_listed_pod
from rescheduler.core.pools import misplaced_pods
from rescheduler.core.pools.membership import PoolMemberships
from rescheduler.core.pools.misplaced_pods import MembershipSnapshot, MisplacementReport, PodTotals
from unit.builders import (
    NOW,
    controlled_by,
    memberships_of,
    namespace,
    node,
    pool,
    raw_pod,
    raw_replica,
    release_record,
)


def view(*, exclusive: bool = True, moves: str = "Move") -> MembershipSnapshot:
    return MembershipSnapshot.of(places(exclusive=exclusive, moves=moves))


def places(*, exclusive: bool = True, moves: str = "Move") -> PoolMemberships:
    """Return pool a with namespace a and node a1, pool b with b and b1, the free node n1, and the Audit pool w."""
    more: dict[str, Any] = {"exclusive": exclusive, "existingPods": moves}
    return memberships_of(
        pool("a", namespaces=["a"], nodeSelector={"matchLabels": {"p": "a"}}, **more),
        pool("b", namespaces=["b"], nodeSelector={"matchLabels": {"p": "b"}}, **more),
        pool("w", namespaces=["free"], nodeSelector={"matchLabels": {"p": "w"}}, mode="Audit", **more),
        *(namespace(name) for name in ("a", "b", "free", "other")),
        *(node(f"{name}1", labels={"p": name}) for name in "abw"),
        node("n1"),
    )


def pod_in(namespace: str, on: str, label: str | None = None, *, kind: str = "ReplicaSet", **spec: Any) -> ListedPod:
    """Return a pod of this namespace on a node, with this label of its pool."""
    labels = {names.POOL: label} if label else None
    raw = raw_pod(namespace=namespace, node=on, cpu="100m", resources={"memory": "1Mi"}, labels=labels, **spec)
    return parse_listed_pod(controlled_by(raw, kind, "o"))


def finds(*pods: ListedPod, seen: MembershipSnapshot | None = None) -> MisplacementReport:
    seen, found = seen or view(), MisplacementReport()
    for each in pods:
        if misplaced_pods.list_scope(each, seen):
            misplaced_pods.add_to_report(each, seen, found)
    return found


def test_pod_on_a_node_outside_its_pool_is_outside() -> None:
    found = finds(pod_in("a", "n1"), pod_in("a", "a1"))
    assert (found.pods_outside, found.pods_foreign) == ({"a": 1}, {})
    assert [(p.requesting_pool, p.target_pool, p.node) for p in found.pods_to_move] == [("a", "a", "n1")]


def test_pod_older_than_its_pool_is_in_place_on_its_node() -> None:
    assert not misplaced_pods.is_misplaced(pod_in("a", "a1", label=None), view())


def test_pod_without_a_pool_is_foreign_on_an_exclusive_node() -> None:
    found = finds(pod_in("other", "a1"))
    assert (found.pods_outside, found.pods_foreign) == ({}, {"a": 1})
    assert [(p.requesting_pool, p.target_pool) for p in found.pods_to_move] == [("a", None)]
    assert not misplaced_pods.is_misplaced(pod_in("other", "a1"), view(exclusive=False))


def test_pod_on_another_pools_node_is_both_and_moves_to_its_pool() -> None:
    found = finds(pod_in("a", "b1"))
    assert (found.pods_outside, found.pods_foreign) == ({"a": 1}, {"b": 1})
    assert [(p.requesting_pool, p.target_pool) for p in found.pods_to_move] == [("a", "a")]


def test_foreign_pod_that_tolerates_the_taint_is_never_moved() -> None:
    found = finds(pod_in("other", "a1", tolerations=[{"operator": "Exists"}]))
    assert found.pods_foreign == {"a": 1}
    assert found.pods_to_move == []


def test_pods_are_counted_but_not_listed_with_existing_pods_leave() -> None:
    found = finds(pod_in("a", "n1"), seen=view(moves="Leave"))
    assert found.pods_outside == {"a": 1}
    assert found.pods_to_move == []


def test_terminating_pod_is_counted_but_not_listed() -> None:
    found = finds(replace(pod_in("a", "n1"), terminating=True))
    assert found.pods_outside == {"a": 1}
    assert found.pods_to_move == []


def test_exempt_and_ended_pods_are_never_misplaced() -> None:
    mirror, ended = replace(pod_in("a", "n1"), is_mirror=True), replace(pod_in("a", "n1"), finished=True)
    waiting = pod_in("a", "")
    for each in (pod_in("a", "n1", kind="DaemonSet"), mirror, ended, waiting, pod_in("kube-system", "a1")):
        assert not misplaced_pods.is_misplaced(each, view())


def test_audit_pool_counts_misplaced_pods_but_lists_none() -> None:
    found = finds(pod_in("free", "n1"), pod_in("other", "w1"))
    assert (found.pods_outside, found.pods_foreign) == ({"w": 1}, {"w": 1})
    assert found.pods_to_move == []


def test_listed_pods_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(misplaced_pods, "MAX_LISTED_PER_POOL", 2)
    found = finds(*(pod_in("a", "n1") for _ in range(5)))
    assert found.pods_outside == {"a": 5}
    assert len(found.pods_to_move) == 2


def test_released_pods_are_always_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A released pod that is not listed is returned."""
    monkeypatch.setattr(misplaced_pods, "MAX_LISTED_PER_POOL", 0)
    raw = raw_replica(node="n1", record=release_record("NamespacePool/a"))
    raw["metadata"]["namespace"] = "a"
    released = parse_listed_pod(raw)
    assert [found.released for found in finds(released, pod_in("a", "n1")).pods_to_move] == [True]


def test_requests_of_a_pool_include_other_pods_on_its_nodes() -> None:
    sums, seen = PodTotals(NOW, frozenset()), view()
    rows = [
        pod_in("a", "a1", "a"),
        pod_in("a", ""),
        pod_in("a", "n1"),
        pod_in("other", "a1"),
        pod_in("x", "a1", kind="DaemonSet"),
    ]
    for each in [*rows, pod_in("other", "n1")]:
        sums.add(each, seen)
    assert sums.pods_by_pool["a"] == 3
    assert sums.requests_by_pool["a"] == {"cpu": 500, "memory": 5 * 2**20, "pods": 5}
    assert sums.requests_by_node["a1"]["pods"] == 3
    assert sums.exempt_requests_by_node["a1"] == {"cpu": 100, "memory": 2**20, "pods": 1}


def test_pods_without_a_node_are_counted_once_the_scheduler_has_refused_them() -> None:
    def pod_with(node_name: str, reason: str, namespace: str = "a") -> ListedPod:
        raw = raw_pod(namespace=namespace, node=node_name)
        raw["status"]["conditions"] = [{"type": "PodScheduled", "status": "False", "reason": reason}]
        return parse_listed_pod(raw)

    sums, seen = PodTotals(NOW, frozenset()), view()
    for each in (
        pod_with("", "Unschedulable"),
        pod_with("", "SchedulingGated"),
        pod_with("a1", "Unschedulable"),
        pod_with("", "Unschedulable", namespace="other"),
        pod_in("a", ""),
    ):
        sums.add(each, seen)
    assert sums.unschedulable_by_pool == {"a": 1}
    assert sums.pods_by_pool["a"] == 4


_PODS = st.builds(
    pod_in,
    st.sampled_from(["a", "b", "free", "other", "kube-system"]),
    st.sampled_from(["a1", "b1", "w1", "n1", "gone", ""]),
    st.sampled_from([None, "a", "b", "w"]),
    kind=st.sampled_from(["ReplicaSet", "DaemonSet"]),
)


@given(st.lists(_PODS, max_size=20), st.booleans())
def test_lists_by_scope_find_each_misplaced_pod_once(pods: list[ListedPod], exclusive: bool) -> None:
    """A list of a namespace has pods without its pool's label, and a list of a node has all its pods."""
    seen, everywhere, sums = view(exclusive=exclusive), MisplacementReport(), PodTotals(NOW, frozenset())
    for each in pods:
        sums.add(each, seen)
    for (kind, name), known in sums.misplaced_by_scope.items():
        again = MisplacementReport()
        for each in pods:
            pools, label = seen.pools_by_namespace.get(name, ()), each.labels.get(names.POOL)
            here = name == (each.node if kind == "node" else each.namespace)
            if (
                here
                and (kind == "node" or len(pools) != 1 or label != pools[0])
                and misplaced_pods.list_scope(each, seen) == (kind, name)
            ):
                misplaced_pods.add_to_report(each, seen, again)
        assert (again.pods_outside, again.pods_foreign) == (known.pods_outside, known.pods_foreign)
        everywhere.merge(again)
    total = finds(*pods, seen=view(exclusive=exclusive))
    assert (everywhere.pods_outside, everywhere.pods_foreign) == (total.pods_outside, total.pods_foreign)
