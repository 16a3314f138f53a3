"""Pods summed by node and by traits."""

from rescheduler.core.model.raw import RawPod
from rescheduler.core.placement.pod_requirements import PodRequirementsParser
from rescheduler.core.placement.pod_snapshot import PodSnapshot
from rescheduler.core.placement.successors import OwnerTemplate
from unit.builders import controlled_by, raw_pod


def terminating(raw: RawPod) -> RawPod:
    return {**raw, "metadata": {**raw["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}}


def census(*pods: RawPod) -> PodSnapshot:
    found = PodSnapshot(PodRequirementsParser(), {"n1"})
    for raw in pods:
        found.add(raw)
    return found


def test_requests_are_summed_by_node() -> None:
    found = census(*(raw_pod(name, node=node, cpu="500m") for name, node in (("a", "n1"), ("b", "n1"), ("c", "n2"))))
    assert found.allocated_by_node == {"n1": {"cpu": 1000, "pods": 2}, "n2": {"cpu": 500, "pods": 1}}


def test_finished_pods_do_not_count() -> None:
    assert not census(*(raw_pod(phase, node="n1", phase=phase) for phase in ("Succeeded", "Failed"))).allocated_by_node


def test_pods_with_equal_traits_are_counted() -> None:
    (presence,) = census(*(raw_pod(f"p{n}", node=f"n{n % 2}") for n in range(10))).node_counts_by_traits.items()
    assert presence[1] == {"n0": 5, "n1": 5}


def test_terminating_pods_have_other_traits() -> None:
    found = census(raw_pod("a", node="n1"), terminating(raw_pod("b", node="n1"))).node_counts_by_traits
    assert sorted(presence.terminating for presence in found) == [False, True]


def test_only_pods_of_planned_nodes_are_kept() -> None:
    found = census(raw_pod("a", namespace="shop", node="n1"), raw_pod("b", node="n2")).pods_by_node
    assert {node: [resident.key for resident in rows] for node, rows in found.items()} == {"n1": ["shop/a"]}


def test_pods_without_a_node_are_pending_unless_gated_or_deleted() -> None:
    gated = raw_pod("b", node="", schedulingGates=[{"name": "g"}])
    going = terminating(raw_pod("c", node=""))
    assert census(raw_pod("a", node="", phase="Pending"), gated, going).pending.total() == 1


def test_requirements_are_those_of_the_successor() -> None:
    raw = controlled_by(raw_pod("a", node="n1", cpu="1"), "ReplicaSet", "set")
    raw["metadata"]["generation"] = 2
    own = {"metadata": {"labels": {"app": "b"}}, "spec": raw_pod(cpu="4")["spec"]}
    found = PodSnapshot(PodRequirementsParser(), {"n1"}, templates := {})
    templates["set"] = OwnerTemplate(own, own)
    found.add(raw)
    (pod,) = found.pods_by_node["n1"]
    assert (pod.requirements.requests, pod.requirements.labels, pod.traits.labels) == (
        {"cpu": 4000},
        {"app": "b"},
        {"app": "a"},
    )
    assert found.allocated_by_node["n1"]["cpu"] == 1000


def test_owners_with_pods_in_transition_are_known() -> None:
    """ReplicaSets are left out: they create the next pod as soon as a pod is Terminating."""
    found = census(
        controlled_by(raw_pod("a", node=""), "StatefulSet", "waits"),
        terminating(controlled_by(raw_pod("b", node="n1"), "StatefulSet", "ends")),
        controlled_by(raw_pod("c", node="n1"), "StatefulSet", "runs"),
        controlled_by(raw_pod("d", node=""), "ReplicaSet", "set"),
    )
    assert found.owner_uids_in_transition == {"waits", "ends"}
    assert [resident.owner_uid for resident in found.pods_by_node["n1"]] == ["ends", "runs"]
