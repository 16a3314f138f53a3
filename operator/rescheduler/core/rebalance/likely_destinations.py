"""Nodes that the scheduler probably chooses for a moved pod.

The default scheduler scores nodes by free resources and by the balance of CPU and memory. The sum of the two scores
falls with the larger of the two requested shares. Other plugins shift the scores a little, so the nodes that are nearly
as empty as the emptiest node are likely too.
"""

from collections.abc import Iterable, Iterator, Mapping

from rescheduler.core.model.node_affinity import NodeConstraints
from rescheduler.core.model.resource_requests import ResourceList
from rescheduler.core.rebalance.utilization import CpuMemory, NodeLoad

MARGIN = 0.05
"""Share of a node by which a likely destination may be fuller than the emptiest node that could take the pod."""
_MAX_NODES = 20  # the emptiest nodes that the constraints allow; without a limit, thousands of equal nodes cost seconds


class LikelyDestinations:
    """The nodes of a group by their requested share, the emptiest first."""

    def __init__(self, loads: Iterable[NodeLoad]) -> None:
        """`loads`: loads of the nodes that accept new pods."""
        self._loads = sorted(loads, key=_by_requested_share)
        self._allowed_by_constraints: dict[str, dict[str, bool]] = {}

    def emptiest(self, requests: ResourceList, constraints: NodeConstraints, source_node: str) -> NodeLoad | None:
        """Return the emptiest node that could take the pod; None if there is none."""
        return next(self._possible(requests, constraints, source_node), None)

    def likely(self, requests: ResourceList, constraints: NodeConstraints, source_node: str) -> tuple[NodeLoad, ...]:
        """Return the likely destinations; the first has the smallest share after the move."""
        likely: list[NodeLoad] = []
        for load in self._possible(requests, constraints, source_node):
            if likely and load.requested_share > likely[0].requested_share + MARGIN:
                break
            likely.append(load)
        pod = CpuMemory.from_amounts(requests)
        return tuple(sorted(likely, key=lambda load: ((load.requested + pod) / load.allocatable).max_share))

    def replace(self, changed: Mapping[str, NodeLoad]) -> None:
        """Replace the loads of some nodes, by name."""
        self._loads = sorted((changed.get(load.name, load) for load in self._loads), key=_by_requested_share)

    def _possible(self, requests: ResourceList, constraints: NodeConstraints, source_node: str) -> Iterator[NodeLoad]:
        """Yield the emptiest nodes with room that the constraints allow."""
        allowed_by_name = self._allowed_by_constraints.setdefault(repr(constraints.spec), {})
        count = 0
        for load in self._loads:
            if load.name not in allowed_by_name:
                allowed_by_name[load.name] = constraints.allows_node(load.node)
            if load.name == source_node or not allowed_by_name[load.name]:
                continue
            if load.has_room_for(requests):
                yield load
            count += 1
            if count == _MAX_NODES:
                return


def _by_requested_share(load: NodeLoad) -> tuple[float, str]:
    return load.requested_share, load.name
