"""Guard of the places for the largest pods of a node group.

Nodes that are all equally full may have no room for a large pod, although most of their free resources together would
hold many. Such a pod then cannot be replaced first, and its node cannot be drained. Therefore no move takes away the
last places for the largest requests that the group runs.
"""

from collections.abc import Sequence
from types import MappingProxyType

from rescheduler.core.model.quantities import CPU, MEMORY, PODS
from rescheduler.core.model.resource_requests import PodSize, ResourceList
from rescheduler.core.rebalance.utilization import NodeLoad


class PlaceGuard:
    """The places for the pods with the most CPU and for those with the most memory.

    A place is room for one more such pod. As many places are kept as one node runs of these pods, so that each node can
    be drained.
    """

    def __init__(self, loads: Sequence[NodeLoad]) -> None:
        sizes = {size for load in loads for size, count in load.pod_sizes.items() if count and _runs_on(size, load)}
        largest = {max(sizes), max(sizes, key=lambda size: (size[1], size[0]))} if sizes else set()
        self._needed = {size: max(load.pod_sizes.get(size, 0) for load in loads) for size in largest}
        self._places = {size: sum(count_places(load, size) for load in loads) for size in largest}

    def allows(self, requests: ResourceList, source: NodeLoad, destination: NodeLoad) -> bool:
        """Whether enough places remain after a move of a pod with these requests, or at least no fewer than now."""
        return all(
            change >= 0 or self._places[size] + change >= self._needed[size]
            for size, change in self._changes(requests, source, destination).items()
        )

    def record_move(self, requests: ResourceList, source: NodeLoad, destination: NodeLoad) -> None:
        """Count the places as if the pod had moved; both loads are those before the move."""
        for size, change in self._changes(requests, source, destination).items():
            self._places[size] += change

    def _changes(self, requests: ResourceList, source: NodeLoad, destination: NodeLoad) -> dict[PodSize, int]:
        return {
            size: _change(source, size, requests, -1) + _change(destination, size, requests, 1) for size in self._places
        }


def _runs_on(size: PodSize, load: NodeLoad) -> bool:
    """Whether a kubelet runs a pod of this size; the kubelet refuses a larger pod, which has no scheduler."""
    return size[0] <= load.allocatable.cpu and size[1] <= load.allocatable.memory


def _change(load: NodeLoad, size: PodSize, requests: ResourceList, sign: int) -> int:
    """Return the change of the places of a node if a pod comes (`sign` 1) or leaves (-1)."""
    return count_places(load, size, requests, sign) - count_places(load, size)


def count_places(load: NodeLoad, size: PodSize, requests: ResourceList = MappingProxyType({}), sign: int = 0) -> int:
    """Return how many more pods of this size the node has room for, after a pod with these requests came or left."""
    places = load.free.get(PODS, 0) - sign
    for resource, amount in zip((CPU, MEMORY), size, strict=True):
        if amount:
            places = min(places, (load.free.get(resource, 0) - sign * requests.get(resource, 0)) // amount)
    return max(0, places)
