"""Simulate the loss of a pool's largest node: plan its pods onto the other nodes of the pool."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from random import Random

from rescheduler.core.model.nodes import Node
from rescheduler.core.model.quantities import CPU, MEMORY
from rescheduler.core.placement import planner
from rescheduler.core.placement.planner import Fit
from rescheduler.core.placement.pod_affinity import Labels
from rescheduler.core.placement.pod_snapshot import PodSnapshot
from rescheduler.core.placement.problem import PlacementInput

_MAX_LISTED_PODS = 5


@dataclass(frozen=True, slots=True)
class NodeLoss:
    """The result of the simulation.

    Attributes:
        node: the name of the largest node.
        pods_total: the number of the pool's pods on that node.
        unplaceable: the first pods that would find no place, each with the reason.
        unplaceable_total: the number of all such pods.
        uncertain: the first pods about which only the scheduler can decide, each with the reason.
        uncertain_total: the number of all such pods.
    """

    node: str
    pods_total: int = 0
    unplaceable: tuple[str, ...] = ()
    unplaceable_total: int = 0
    uncertain: tuple[str, ...] = ()
    uncertain_total: int = 0


def largest_node(nodes: Iterable[Node]) -> Node | None:
    """Return the node with the largest share of the pool's CPU or memory; of equal nodes the first by name."""
    by_name = sorted(nodes, key=lambda node: node.name)
    totals = {kind: sum(node.allocatable.get(kind, 0) for node in by_name) or 1 for kind in (CPU, MEMORY)}
    return max(by_name, key=lambda n: max(n.allocatable.get(kind, 0) / totals[kind] for kind in totals), default=None)


def simulate(
    lost_node: Node,
    nodes: Mapping[str, Node],
    pod_snapshot: PodSnapshot,
    pod_uids: Collection[str],
    namespace_labels: Mapping[str, Labels],
) -> NodeLoss:
    """Plan the pods with these UIDs on the lost node; `nodes`: the nodes of the pool, by name."""
    pods = [pod for pod in pod_snapshot.pods_by_node[lost_node.name] if pod.uid in pod_uids]
    not_ready = [name for name, node in nodes.items() if node.ready_status != "True"]
    inputs = PlacementInput(
        nodes,
        pod_snapshot,
        excluded_nodes=not_ready,
        competing_pods=pod_snapshot.pending,
        namespace_labels=namespace_labels,
    )
    plans = list(zip(pods, planner.plan(pods, inputs, Random(0)), strict=True))  # noqa: S311 - the same each time
    unplaceable = [f"{pod.key} ({plan.reason})" for pod, plan in plans if plan.fit is Fit.DOES_NOT_FIT]
    uncertain = [f"{pod.key} ({plan.reason})" for pod, plan in plans if plan.fit is Fit.UNKNOWN]
    return NodeLoss(
        lost_node.name,
        len(pods),
        tuple(unplaceable[:_MAX_LISTED_PODS]),
        len(unplaceable),
        tuple(uncertain[:_MAX_LISTED_PODS]),
        len(uncertain),
    )
