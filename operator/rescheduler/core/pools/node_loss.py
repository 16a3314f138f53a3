"""What would become of a pool's pods if its largest node went: planned on the rest of the pool, before it happens."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from random import Random

from rescheduler.core.model.nodes import Node
from rescheduler.core.model.quantities import CPU, MEMORY
from rescheduler.core.placement import planner
from rescheduler.core.placement.planner import Fit
from rescheduler.core.placement.pod_affinity import Labels
from rescheduler.core.placement.pod_snapshot import Census
from rescheduler.core.placement.problem import Ground

_NAMED = 5


@dataclass(frozen=True, slots=True)
class Loss:
    """The largest node, and which of the pool's pods on it would find no place, or perhaps none.

    Attributes:
        homeless, unsure: some of them in words, each with the reason; and how many there are.
    """

    node: str
    pods: int = 0
    homeless: tuple[str, ...] = ()
    homeless_total: int = 0
    unsure: tuple[str, ...] = ()
    unsure_total: int = 0


def largest(nodes: Iterable[Node]) -> Node | None:
    """The node that has most of what its pool has, CPU or memory; the first by name of equal ones."""
    rows = sorted(nodes, key=lambda node: node.name)
    whole = {kind: sum(node.allocatable.get(kind, 0) for node in rows) or 1 for kind in (CPU, MEMORY)}
    return max(rows, key=lambda n: max(n.allocatable.get(kind, 0) / whole[kind] for kind in whole), default=None)


def forecast(
    gone: Node, nodes: Mapping[str, Node], census: Census, mine: Collection[str], spaces: Mapping[str, Labels]
) -> Loss:
    """Where the pods `mine` (uids) on this node would go; `nodes`: of the pool, and `spaces`: labels of namespaces."""
    leaving = [resident for resident in census.residents[gone.name] if resident.uid in mine]
    closed = [name for name, node in nodes.items() if node.ready != "True"]
    ground = Ground(nodes, census, closed=closed, rivals=census.waiting, spaces=spaces)
    found = list(zip(leaving, planner.plan(leaving, ground, Random(0)), strict=True))  # noqa: S311 - the same each time
    homeless = [f"{pod.key} ({answer.reason})" for pod, answer in found if answer.fit is Fit.DOES_NOT_FIT]
    unsure = [f"{pod.key} ({answer.reason})" for pod, answer in found if answer.fit is Fit.UNKNOWN]
    return Loss(gone.name, len(leaving), tuple(homeless[:_NAMED]), len(homeless), tuple(unsure[:_NAMED]), len(unsure))
