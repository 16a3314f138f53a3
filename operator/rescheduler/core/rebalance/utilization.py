"""Utilization of the nodes of one group, and the effect of a move on their imbalance.

The imbalance weighs each node by its size. Therefore a move does not change the mean, and the effect of a move between
two nodes does not depend on other nodes. Each move has a minimum gain, so the number of moves is limited.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add
from statistics import pstdev
from types import MappingProxyType

from rescheduler.core.model.nodes import Node
from rescheduler.core.model.quantities import CPU, MEMORY, PODS
from rescheduler.core.model.resource_fit import fits_by_requests, free_resources
from rescheduler.core.model.resource_requests import PodSize, ResourceList

MIN_USAGE_SAMPLES = 3
"""Number of samples in a row that must show a high usage, so that a single peak moves no pod."""


@dataclass(frozen=True, slots=True)
class CpuMemory:
    """CPU and memory: amounts in thousandths of a core and bytes, or shares of a node."""

    cpu: float = 0.0
    memory: float = 0.0

    @classmethod
    def from_amounts(cls, amounts: ResourceList) -> "CpuMemory":
        """Return CPU and memory of a ResourceList."""
        return cls(amounts.get(CPU, 0), amounts.get(MEMORY, 0))

    def __add__(self, other: "CpuMemory") -> "CpuMemory":
        return CpuMemory(self.cpu + other.cpu, self.memory + other.memory)

    def __sub__(self, other: "CpuMemory") -> "CpuMemory":
        return CpuMemory(self.cpu - other.cpu, self.memory - other.memory)

    def __mul__(self, other: "CpuMemory") -> "CpuMemory":
        return CpuMemory(self.cpu * other.cpu, self.memory * other.memory)

    def __truediv__(self, other: "CpuMemory") -> "CpuMemory":
        """Divide CPU by CPU and memory by memory; 0 if the divisor is 0."""
        return CpuMemory(
            self.cpu / other.cpu if other.cpu else 0.0, self.memory / other.memory if other.memory else 0.0
        )

    @property
    def max_share(self) -> float:
        """Return the larger of the two shares."""
        return max(self.cpu, self.memory)

    @property
    def sum(self) -> float:
        """Return the sum of the two shares."""
        return self.cpu + self.memory


def elementwise_max(first: CpuMemory, second: CpuMemory) -> CpuMemory:
    """Return the larger CPU and the larger memory."""
    return CpuMemory(max(first.cpu, second.cpu), max(first.memory, second.memory))


def elementwise_min(first: CpuMemory, second: CpuMemory) -> CpuMemory:
    """Return the smaller CPU and the smaller memory."""
    return CpuMemory(min(first.cpu, second.cpu), min(first.memory, second.memory))


@dataclass(frozen=True, slots=True)
class NodeLoad:
    """Load of a node.

    Attributes:
        allocatable: capacity for pods.
        requested: requests of its pods.
        sustained: load as a source: the requests, or the usage if it was higher in all recent samples.
        peak: load as a destination: the requests, or the highest recent usage.
        free: allocatable minus requests, by resource, with the number of `pods`.
        pod_sizes: number of its pods of each size, without those that belong to the node.
    """

    node: Node
    allocatable: CpuMemory
    requested: CpuMemory
    sustained: CpuMemory
    peak: CpuMemory
    free: Mapping[str, int] = field(default_factory=dict)
    pod_sizes: Mapping[PodSize, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return the name of the node."""
        return self.node.name

    @property
    def sustained_utilization(self) -> CpuMemory:
        """Return the share of the node that counts if it gives pods."""
        return self.sustained / self.allocatable

    @property
    def peak_utilization(self) -> CpuMemory:
        """Return the share of the node that counts if it takes pods."""
        return self.peak / self.allocatable

    @property
    def requested_share(self) -> float:
        """Return the larger of the requested shares of CPU and memory, by which the scheduler compares nodes."""
        return (self.requested / self.allocatable).max_share

    def pod_load(self, requested: CpuMemory) -> CpuMemory:
        """Return the load that leaves with a pod with these requests: more if usage exceeds the node's requests."""
        return requested * elementwise_max(self.sustained / self.requested, CpuMemory(1, 1))

    def with_pod(self, requests: ResourceList, pod_load: CpuMemory) -> "NodeLoad":
        """Return the load with one pod more, with these requests and this load."""
        taken = {**requests, PODS: 1}
        return replace(
            self,
            requested=self.requested + CpuMemory.from_amounts(requests),
            sustained=self.sustained + pod_load,
            peak=self.peak + pod_load,
            free={name: amount - taken.get(name, 0) for name, amount in self.free.items()},
        )

    def without_pod(self, requests: ResourceList, pod_load: CpuMemory) -> "NodeLoad":
        """Return the load without one of its pods, with these requests and this load."""
        taken = {**requests, PODS: 1}
        return replace(
            self,
            requested=self.requested - CpuMemory.from_amounts(requests),
            sustained=self.sustained - pod_load,
            peak=self.peak - pod_load,
            free={name: amount + taken.get(name, 0) for name, amount in self.free.items()},
        )

    def has_room_for(self, requests: ResourceList) -> bool:
        """Whether the node has enough free resources for a pod with these requests."""
        return fits_by_requests(self.free, requests)


def node_load(
    node: Node,
    requested: ResourceList,
    samples_since_move: Sequence[CpuMemory] = (),
    recent_samples: Sequence[CpuMemory] = (),
    *,
    pod_sizes: Mapping[PodSize, int] = MappingProxyType({}),
) -> NodeLoad:
    """Return the load of a node; `requested`: sum over its pods, with their number as resource `pods`.

    `samples_since_move`: usage since the last moves of the group. `recent_samples`: all recent usage.
    `pod_sizes`: number of its pods of each size, without those that belong to the node.
    """
    requests = CpuMemory.from_amounts(requested)
    sustained, peak = requests, reduce(elementwise_max, (*recent_samples, *samples_since_move), requests)
    if len(samples_since_move) >= MIN_USAGE_SAMPLES:
        sustained = elementwise_max(requests, reduce(elementwise_min, samples_since_move[-MIN_USAGE_SAMPLES:]))
    free = free_resources(node.allocatable, requested)
    return NodeLoad(node, CpuMemory.from_amounts(node.allocatable), requests, sustained, peak, free, pod_sizes)


def mean_utilization(loads: Iterable[NodeLoad]) -> CpuMemory:
    """Return the sustained load of all nodes as a share of their capacity."""
    sustained = allocatable = CpuMemory()
    for load in loads:
        sustained, allocatable = sustained + load.sustained, allocatable + load.allocatable
    return sustained / allocatable


def mean_node_size(loads: Sequence[NodeLoad]) -> CpuMemory:
    """Return the mean capacity of these nodes."""
    total = reduce(add, (load.allocatable for load in loads), CpuMemory())
    return total / CpuMemory(len(loads), len(loads))


def mean_pod_size(loads: Sequence[NodeLoad]) -> CpuMemory:
    """Return the mean requests of all pods as shares of the mean node; 0 without pods."""
    requested, count = CpuMemory(), 0
    for load in loads:
        requested += load.requested
        count += load.node.allocatable.get(PODS, 0) - load.free.get(PODS, 0)
    return requested / CpuMemory(count, count) / mean_node_size(loads)


def imbalance(loads: Sequence[NodeLoad]) -> float:
    """Return the imbalance by requests: squared distances from the mean utilization, weighted by node size."""
    size, total = mean_node_size(loads), reduce(add, (load.allocatable for load in loads), CpuMemory())
    mean = reduce(add, (load.requested for load in loads), CpuMemory()) / total
    squares = CpuMemory()
    for load in loads:
        distance = load.requested / load.allocatable - mean
        squares += load.allocatable / size * distance * distance
    return squares.sum


@dataclass(frozen=True, slots=True)
class GainFunction:
    """Reduction of the imbalance by a move between two nodes, as a function of the requests of the pod.

    It is `linear` times the requests minus `square` times their squares, summed over CPU and memory.
    """

    linear: CpuMemory
    square: CpuMemory

    def __call__(self, requested: CpuMemory) -> float:
        """Return the reduction by a pod with these requests."""
        cpu, memory = requested.cpu, requested.memory
        return cpu * (self.linear.cpu - self.square.cpu * cpu) + memory * (
            self.linear.memory - self.square.memory * memory
        )


def gain_function(source: NodeLoad, destination: NodeLoad, mean_size: CpuMemory) -> GainFunction:
    """Return the effect of a move between two nodes by their loads, not only by requests.

    `mean_size`: mean capacity of the group's nodes.
    """
    gap = source.sustained_utilization - destination.peak_utilization
    return _gain_function(gap, source, destination, source.pod_load(CpuMemory(1, 1)), mean_size)


def balance_gain_by_requests(
    source: NodeLoad, destination: NodeLoad, requested: CpuMemory, mean_size: CpuMemory
) -> float:
    """Return the reduction of the imbalance by requests."""
    gap = source.requested / source.allocatable - destination.requested / destination.allocatable
    return _gain_function(gap, source, destination, CpuMemory(1, 1), mean_size)(requested)


def _gain_function(
    gap: CpuMemory, source: NodeLoad, destination: NodeLoad, load_ratio: CpuMemory, mean_size: CpuMemory
) -> GainFunction:
    """`load_ratio`: load that leaves with a pod, as a multiple of its requests."""
    sizes = CpuMemory(1, 1) / source.allocatable + CpuMemory(1, 1) / destination.allocatable
    return GainFunction(load_ratio / mean_size * (gap + gap), load_ratio * load_ratio / mean_size * sizes)


def standard_deviation(loads: Sequence[NodeLoad]) -> CpuMemory:
    """Return the standard deviation of the requested shares of the nodes, for metrics."""
    shares = [load.requested / load.allocatable for load in loads]
    return CpuMemory(pstdev([share.cpu for share in shares]), pstdev([share.memory for share in shares]))
