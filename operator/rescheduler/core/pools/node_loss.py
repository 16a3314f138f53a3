"""What would become of a pool's pods if its largest node went: planned on the rest of the pool, before it happens."""

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
    """The largest node, and which of the pool's pods on it would find no place, or perhaps none.

    Attributes:
        homeless, unsure: some of them in words, each with the reason; and how many there are.
    """

    node: str
    pods_total: int = 0
    unplaceable: tuple[str, ...] = ()
    unplaceable_total: int = 0
    uncertain: tuple[str, ...] = ()
    uncertain_total: int = 0


def largest_node(nodes: Iterable[Node]) -> Node | None:
    """The node that has most of what its pool has, CPU or memory; the first by name of equal ones."""
    rows = sorted(nodes, key=lambda node: node.name)
    whole = {kind: sum(node.allocatable.get(kind, 0) for node in rows) or 1 for kind in (CPU, MEMORY)}
    return max(rows, key=lambda n: max(n.allocatable.get(kind, 0) / whole[kind] for kind in whole), default=None)


def simulate(
    lost_node: Node,
    nodes: Mapping[str, Node],
    pod_snapshot: PodSnapshot,
    pod_uids: Collection[str],
    namespace_labels: Mapping[str, Labels],
) -> NodeLoss:
    """Where the pods `mine` (uids) on this node would go; `nodes`: of the pool, and `spaces`: labels of namespaces."""
    leaving = [resident for resident in pod_snapshot.pods_by_node[lost_node.name] if resident.uid in pod_uids]
    closed = [name for name, node in nodes.items() if node.ready_status != "True"]
    ground = PlacementInput(
        nodes,
        pod_snapshot,
        excluded_nodes=closed,
        competing_pods=pod_snapshot.pending,
        namespace_labels=namespace_labels,
    )
    found = list(zip(leaving, planner.plan(leaving, ground, Random(0)), strict=True))  # noqa: S311 - the same each time
    homeless = [f"{pod.key} ({answer.reason})" for pod, answer in found if answer.fit is Fit.DOES_NOT_FIT]
    unsure = [f"{pod.key} ({answer.reason})" for pod, answer in found if answer.fit is Fit.UNKNOWN]
    return NodeLoss(
        lost_node.name,
        len(leaving),
        tuple(homeless[:_MAX_LISTED_PODS]),
        len(homeless),
        tuple(unsure[:_MAX_LISTED_PODS]),
        len(unsure),
    )
