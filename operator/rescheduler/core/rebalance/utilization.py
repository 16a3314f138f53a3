"""How full the nodes of one pool are, and what moving a pod would do to that.

The spread weighs each node by its size: so its mean stays where it is whatever is moved, and a move between two
nodes changes it by the same amount whatever happens on others. That is what makes "every move lowers the spread by
at least so much" a promise that ends.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from statistics import pstdev

from rescheduler.core.model.nodes import Node
from rescheduler.core.model.quantities import CPU, MEMORY, PODS
from rescheduler.core.model.resource_requests import ResourceList

MIN_USAGE_SAMPLES = 3
"""So many samples in a row must agree before a node gives because of its usage: one peak moves nothing."""


@dataclass(frozen=True, slots=True)
class CpuMemory:
    """CPU and memory: amounts (thousandths, bytes) or shares of a node."""

    cpu: float = 0.0
    memory: float = 0.0

    @classmethod
    def from_amounts(cls, amounts: ResourceList) -> "CpuMemory":
        """Those two of a ResourceList."""
        return cls(amounts.get(CPU, 0), amounts.get(MEMORY, 0))

    def __add__(self, other: "CpuMemory") -> "CpuMemory":
        return CpuMemory(self.cpu + other.cpu, self.memory + other.memory)

    def __sub__(self, other: "CpuMemory") -> "CpuMemory":
        return CpuMemory(self.cpu - other.cpu, self.memory - other.memory)

    def __mul__(self, other: "CpuMemory") -> "CpuMemory":
        return CpuMemory(self.cpu * other.cpu, self.memory * other.memory)

    def __truediv__(self, other: "CpuMemory") -> "CpuMemory":
        """Share by share; of nothing there is no share."""
        return CpuMemory(
            self.cpu / other.cpu if other.cpu else 0.0, self.memory / other.memory if other.memory else 0.0
        )

    @property
    def max_share(self) -> float:
        """The larger one, of shares."""
        return max(self.cpu, self.memory)

    @property
    def sum(self) -> float:
        """Both together, of shares."""
        return self.cpu + self.memory


def elementwise_max(first: CpuMemory, second: CpuMemory) -> CpuMemory:
    """The larger of each."""
    return CpuMemory(max(first.cpu, second.cpu), max(first.memory, second.memory))


def elementwise_min(first: CpuMemory, second: CpuMemory) -> CpuMemory:
    """The smaller of each."""
    return CpuMemory(min(first.cpu, second.cpu), min(first.memory, second.memory))


@dataclass(frozen=True, slots=True)
class NodeLoad:
    """How full one node is.

    Attributes:
        whole: what it has for pods (allocatable).
        requested: what its pods ask for.
        burden: what counts when it gives: the requests, or more where more was used for some time.
        claimed: what counts when it takes: the requests, or the highest usage seen of late.
        free: by resource, what no pod has asked for; `pods` among them.
    """

    node: Node
    allocatable: CpuMemory
    requested: CpuMemory
    sustained: CpuMemory
    peak: CpuMemory
    free: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The node's."""
        return self.node.name

    @property
    def sustained_utilization(self) -> CpuMemory:
        """How full it is."""
        return self.sustained / self.allocatable

    @property
    def peak_utilization(self) -> CpuMemory:
        """How full it is when another pod is to come."""
        return self.peak / self.allocatable

    def pod_load(self, requested: CpuMemory) -> CpuMemory:
        """What leaves with a pod that asks for this: of a node that uses more than is asked, in proportion more."""
        return requested * elementwise_max(self.sustained / self.requested, CpuMemory(1, 1))

    def has_room_for(self, requests: ResourceList) -> bool:
        """Whether the scheduler would find room for it."""
        return self.free.get(PODS, 0) >= 1 and all(self.free.get(name, 0) >= size for name, size in requests.items())


def node_load(
    node: Node,
    requested: ResourceList,
    samples_since_move: Sequence[CpuMemory] = (),
    recent_samples: Sequence[CpuMemory] = (),
) -> NodeLoad:
    """A node with what its pods ask for, `pods` their number.

    `recent`: samples of its usage since pods were last moved here; `known`: of late, from before that too.
    """
    asked = CpuMemory.from_amounts(requested)
    burden, claimed = asked, reduce(elementwise_max, (*recent_samples, *samples_since_move), asked)
    if len(samples_since_move) >= MIN_USAGE_SAMPLES:
        burden = elementwise_max(asked, reduce(elementwise_min, samples_since_move[-MIN_USAGE_SAMPLES:]))
    free = {name: size - requested.get(name, 0) for name, size in node.allocatable.items()}
    return NodeLoad(node, CpuMemory.from_amounts(node.allocatable), asked, burden, claimed, free)


def mean_utilization(loads: Iterable[NodeLoad]) -> CpuMemory:
    """How full they are together."""
    burden = whole = CpuMemory()
    for each in loads:
        burden, whole = burden + each.sustained, whole + each.allocatable
    return burden / whole


def mean_node_size(loads: Sequence[NodeLoad]) -> CpuMemory:
    """The mean size of these nodes."""
    whole = reduce(add, (each.allocatable for each in loads), CpuMemory())
    return whole / CpuMemory(len(loads), len(loads))


def imbalance(loads: Sequence[NodeLoad]) -> float:
    """How unevenly full they are, by requests: the squares of the distances from the mean, in nodes of mean size."""
    size, whole = mean_node_size(loads), reduce(add, (each.allocatable for each in loads), CpuMemory())
    middle = reduce(add, (each.requested for each in loads), CpuMemory()) / whole
    squares = CpuMemory()
    for each in loads:
        distance = each.requested / each.allocatable - middle
        squares += each.allocatable / size * distance * distance
    return squares.sum


def balance_gain(source: NodeLoad, destination: NodeLoad, requested: CpuMemory, mean_size: CpuMemory) -> float:
    """By how much nodes are more evenly full once a pod that asks for this goes from one to the other.

    As `spread`, but by what counts as their load. `size`: the unit of the spread.
    """
    return _imbalance_reduction(
        source.sustained_utilization - destination.peak_utilization,
        source,
        destination,
        source.pod_load(requested),
        mean_size,
    )


def balance_gain_by_requests(
    source: NodeLoad, destination: NodeLoad, requested: CpuMemory, mean_size: CpuMemory
) -> float:
    """By how much the spread falls."""
    return _imbalance_reduction(
        source.requested / source.allocatable - destination.requested / destination.allocatable,
        source,
        destination,
        requested,
        mean_size,
    )


def _imbalance_reduction(
    gap: CpuMemory, source: NodeLoad, destination: NodeLoad, pod_load: CpuMemory, mean_size: CpuMemory
) -> float:
    return (pod_load / mean_size * (gap + gap - pod_load / source.allocatable - pod_load / destination.allocatable)).sum


def standard_deviation(loads: Sequence[NodeLoad]) -> CpuMemory:
    """For people: the standard deviation of the requested share, of CPU and of memory."""
    shares = [each.requested / each.allocatable for each in loads]
    return CpuMemory(pstdev([share.cpu for share in shares]), pstdev([share.memory for share in shares]))
