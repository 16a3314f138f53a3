"""Find the pods and DaemonSets that would lose their last place by the taint of a pool."""

from dataclasses import replace
from typing import Any

from rescheduler.api import names
from rescheduler.core.model.listed_pods import ListedPod, parse_listed_pod
from rescheduler.core.model.nodes import Node, Taint
from rescheduler.core.model.volumes import Volume, VolumeClaim
from rescheduler.core.model.workloads import DaemonSet, parse_daemon_set
from rescheduler.core.pools import labels_and_taints, taint_safety
from rescheduler.core.pools.taint_safety import PlannedTaint, plan_taint
from unit.builders import node, raw_pod

SSD = {"disk": "ssd"}
GPU = (Taint("gpu", "", "NoSchedule"),)


def found(*nodes: Node, members: tuple[str, ...] = ("p1",), homed: tuple[str, ...] = ("shop",)) -> PlannedTaint:
    return plan_taint("shop", members, members, nodes, lambda space: space not in homed)


def owned_pod(
    name: str = "x", space: str = "other", owner: str | None = "ReplicaSet", on: str = "p1", **spec: Any
) -> ListedPod:
    raw = raw_pod(name, namespace=space, node=on, phase="Running" if on else "Pending", **spec)
    if owner:
        raw["metadata"]["ownerReferences"] = [{"kind": owner, "name": "o", "uid": "o", "controller": True}]
    return parse_listed_pod(raw)


def daemon_set(**spec: Any) -> DaemonSet:
    meta = {"name": "agent", "namespace": "kube-system"}
    return parse_daemon_set({"metadata": meta, "spec": {"template": {"spec": spec}}})


def test_a_daemon_set_that_does_not_tolerate_the_taint_is_named() -> None:
    assert taint_safety.unschedulable_daemon_sets([daemon_set()], found(node("p1"))) == ["DaemonSet kube-system/agent"]


def test_daemon_set_that_tolerates_the_taint_is_not_named() -> None:
    every, this = {"operator": "Exists"}, {"key": names.POOL, "operator": "Exists", "effect": "NoSchedule"}
    place = found(node("p1"))
    assert (
        taint_safety.unschedulable_daemon_sets([daemon_set(tolerations=[every]), daemon_set(tolerations=[this])], place)
        == []
    )


def test_a_daemon_set_of_other_nodes_loses_nothing() -> None:
    place = found(node("p1"), node("p2", taints=GPU), members=("p1", "p2"))
    assert taint_safety.unschedulable_daemon_sets([daemon_set(nodeSelector={"os": "windows"})], place) == []


def test_passing_taints_are_ignored_for_daemon_sets() -> None:
    """Pods of DaemonSets tolerate passing taints; without a toleration of other taints they are not on the node."""
    passing = node("p1", taints=(Taint("node.kubernetes.io/disk-pressure", "", "NoSchedule"),))
    assert taint_safety.unschedulable_daemon_sets([daemon_set()], found(passing))
    assert not taint_safety.unschedulable_daemon_sets([daemon_set()], found(node("p1", taints=GPU)))


def test_a_pod_that_no_other_node_would_take_is_named() -> None:
    pinned = owned_pod(nodeSelector=SSD)
    assert taint_safety.unschedulable_pods([pinned], found(node("p1", labels=SSD), node("n2"))) == ["pod other/x"]
    assert taint_safety.unschedulable_pods([pinned], found(node("p1", labels=SSD), node("n2", labels=SSD))) == []


def test_node_that_takes_no_pods_is_no_other_place() -> None:
    for closed in (
        node("n2", unschedulable=True),
        node("n2", ready="Unknown"),
        node("n2", taints=GPU),
    ):
        assert taint_safety.unschedulable_pods([owned_pod()], found(node("p1"), closed)) == ["pod other/x"]


def test_node_of_another_exclusive_pool_is_no_other_place() -> None:
    assert taint_safety.unschedulable_pods(
        [owned_pod()], found(node("p1"), node("b1", taints=(labels_and_taints.pool_taint("b"),)))
    ) == ["pod other/x"]


def test_system_pods_are_checked_but_pods_of_pools_are_not() -> None:
    place = found(node("p1"))
    assert taint_safety.unschedulable_pods([owned_pod(space="kube-system"), owned_pod(space="shop")], place) == [
        "pod kube-system/x"
    ]


def test_pods_without_a_successor_lose_no_place() -> None:
    mirror, ended = replace(owned_pod(), is_mirror=True), replace(owned_pod(), finished=True)
    assert (
        taint_safety.unschedulable_pods(
            [owned_pod(owner=None), owned_pod(owner="DaemonSet"), mirror, ended], found(node("p1"))
        )
        == []
    )


def test_pending_pod_keeps_its_only_node() -> None:
    waiting = owned_pod(on="", owner=None, nodeSelector=SSD)
    assert taint_safety.unschedulable_pods([waiting], found(node("p1", labels=SSD), node("n2"))) == ["pod other/x"]


def test_pending_pod_without_any_matching_node_loses_no_place() -> None:
    assert (
        taint_safety.unschedulable_pods([owned_pod(on="", nodeSelector={"gpu": "yes"})], found(node("p1"), node("n2")))
        == []
    )


def test_pod_with_a_local_volume_has_no_other_place() -> None:
    volume = {"name": "v", "persistentVolumeClaim": {"claimName": "data"}}
    place = found(node("p1"), node("n2"))
    tolerant = owned_pod("y", tolerations=[{"operator": "Exists"}], volumes=[volume])
    mounts = taint_safety.claims_of_affected_pods(
        [owned_pod(volumes=[volume]), owned_pod("none"), owned_pod(space="shop", volumes=[volume]), tolerant], place
    )
    assert mounts == {"pod other/x": (("other", "data"),)}
    claims = [VolumeClaim("other", "data", "pv"), VolumeClaim("shop", "data", "pv2")]
    assert taint_safety.pods_with_local_volumes(mounts, claims, [Volume("pv", local=True)]) == ["pod other/x"]
    assert taint_safety.pods_with_local_volumes(mounts, claims, [Volume("pv"), Volume("pv2", local=True)]) == []
