"""Pods summed by node and by traits."""

from typing import Any

from rescheduler.core.placement.pod_requirements import PodRequirementsParser
from rescheduler.core.placement.pod_snapshot import PodSnapshot


def pod(name: str, node: str = "", phase: str = "Running", **more: Any) -> dict[str, Any]:
    meta = {"name": name, "namespace": "shop", "uid": f"u-{name}", "labels": {"app": "web"}, **more.pop("meta", {})}
    container = {"name": "app", "resources": {"requests": {"cpu": "500m"}}}
    spec = {"containers": [container], **({"nodeName": node} if node else {}), **more}
    return {"metadata": meta, "spec": spec, "status": {"phase": phase}}


def census(*pods: dict[str, Any]) -> PodSnapshot:
    found = PodSnapshot(PodRequirementsParser(), {"n1"})
    for raw in pods:
        found.add(raw)
    return found


def test_requests_are_summed_by_node() -> None:
    found = census(pod("a", "n1"), pod("b", "n1"), pod("c", "n2"))
    assert found.allocated_by_node == {"n1": {"cpu": 1000, "pods": 2}, "n2": {"cpu": 500, "pods": 1}}


def test_finished_pods_do_not_count() -> None:
    assert not census(pod("a", "n1", "Succeeded"), pod("b", "n1", "Failed")).allocated_by_node


def test_pods_with_equal_traits_are_counted() -> None:
    (presence,) = census(*(pod(f"p{n}", f"n{n % 2}") for n in range(10))).node_counts_by_traits.items()
    assert presence[1] == {"n0": 5, "n1": 5}


def test_terminating_pods_have_other_traits() -> None:
    ending = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
    found = census(pod("a", "n1"), pod("b", "n1", meta=ending)).node_counts_by_traits
    assert sorted(presence.terminating for presence in found) == [False, True]


def test_only_pods_of_planned_nodes_are_kept() -> None:
    found = census(pod("a", "n1"), pod("b", "n2")).pods_by_node
    assert {node: [resident.key for resident in rows] for node, rows in found.items()} == {"n1": ["shop/a"]}


def test_pods_without_a_node_are_pending_unless_gated_or_deleted() -> None:
    gated = pod("b", schedulingGates=[{"name": "g"}])
    going = pod("c", meta={"deletionTimestamp": "2026-01-01T00:00:00Z"})
    assert census(pod("a", phase="Pending"), gated, going).pending.total() == 1


def test_owners_with_pods_in_transition_are_known() -> None:
    """ReplicaSets are left out: they create the next pod as soon as a pod is Terminating."""

    def owned(name: str, kind: str, owner: str, node: str = "", **meta: Any) -> dict[str, Any]:
        owners = [{"kind": kind, "name": owner, "uid": owner, "controller": True}]
        return pod(name, node, meta={"ownerReferences": owners, **meta})

    ending = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
    found = census(
        owned("a", "StatefulSet", "waits"),
        owned("b", "StatefulSet", "ends", "n1", **ending),
        owned("c", "StatefulSet", "runs", "n1"),
        owned("d", "ReplicaSet", "set"),
    )
    assert found.owner_uids_in_transition == {"waits", "ends"}
    assert [resident.owner_uid for resident in found.pods_by_node["n1"]] == ["ends", "runs"]
