"""Simulate the loss of the largest node of a pool."""

from typing import Any

from rescheduler.core.model.nodes import Node
from rescheduler.core.model.raw import RawObject
from rescheduler.core.placement.pod_requirements import PodRequirementsParser
from rescheduler.core.placement.pod_snapshot import PodSnapshot
from rescheduler.core.pools import node_loss
from rescheduler.core.pools.node_loss import NodeLoss
from unit.builders import node, raw_pod


def pod_on(name: str, on: str, cpu: str = "400m", **spec: Any) -> RawObject:
    """Return a raw pod of namespace `x` on this node."""
    return raw_pod(name, namespace="x", node=on, cpu=cpu, **spec)


def loss(
    *pods: RawObject, nodes: tuple[Node, ...] = (node("n1", cpu=2000, pool="shop"), node("n2", pool="shop"))
) -> NodeLoss:
    gone = node_loss.largest_node(nodes)
    assert gone is not None
    census = PodSnapshot(PodRequirementsParser({"x": "shop"}), {gone.name})
    for raw in pods:
        census.add(raw)
    mine = {raw["metadata"]["uid"] for raw in pods}
    return node_loss.simulate(gone, {n.name: n for n in nodes}, census, mine, {})


def test_largest_node_has_the_largest_share_of_cpu_or_memory() -> None:
    assert node_loss.largest_node([node("n1"), node("n2", cpu=1500), node("n3")]) == node("n2", cpu=1500)
    assert node_loss.largest_node([node("n2"), node("n1")]) == node("n1")
    assert node_loss.largest_node([]) is None


def test_pods_that_fit_together_are_placeable() -> None:
    found = loss(pod_on("p1", "n1"), pod_on("p2", "n1"), pod_on("p3", "n2", cpu="200m"))
    assert (found.node, found.pods_total, found.unplaceable_total, found.uncertain_total) == ("n1", 2, 0, 0)


def test_pod_without_room_is_listed_with_the_reason() -> None:
    found = loss(pod_on("p1", "n1"), pod_on("p2", "n1"), pod_on("p3", "n1"), pod_on("p4", "n2", cpu="200m"))
    assert found.unplaceable_total == 1
    assert "x/p3" in found.unplaceable[0]


def test_pod_with_anti_affinity_is_unplaceable_in_spite_of_room() -> None:
    """The pod would fit by the sums of requests."""
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "a"}}}
    apart = {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}
    assert loss(pod_on("p1", "n1", "10m", **apart), pod_on("p2", "n2", "10m", **apart)).unplaceable_total == 1


def test_node_that_is_not_ready_takes_no_pods() -> None:
    found = loss(
        pod_on("p1", "n1"), nodes=(node("n1", cpu=2000, pool="shop"), node("n2", pool="shop", ready="Unknown"))
    )
    assert found.unplaceable_total == 1


def test_pod_that_only_the_scheduler_can_place_is_uncertain() -> None:
    found = loss(pod_on("p1", "n1", volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]))
    assert (found.unplaceable_total, found.uncertain_total) == (0, 1)
    assert "claim data" in found.uncertain[0]
