"""Selection of the pods to move from fuller to emptier nodes of one group.

The scheduler chooses the node of the replacement. Therefore a pod moves only if the move helps on each node that the
scheduler is likely to choose. Each move must lower the imbalance by a minimum gain, so the moves come to an end. The
pod with the largest gain moves first, so that few pods move. Source nodes give pods, destination nodes take pods.
"""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from operator import itemgetter

from rescheduler.core.model.node_affinity import NodeConstraints
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.resource_requests import ResourceList
from rescheduler.core.rebalance.likely_destinations import LikelyDestinations
from rescheduler.core.rebalance.place_guard import PlaceGuard
from rescheduler.core.rebalance.utilization import (
    CpuMemory,
    GainFunction,
    NodeLoad,
    balance_gain_by_requests,
    elementwise_max,
    elementwise_min,
    gain_function,
    mean_node_size,
    mean_pod_size,
    mean_utilization,
)

MAX_MIN_GAIN = 0.01
"""Largest minimum gain of a move off a node above `high`.

Example: a pod with 1% of a node's CPU and memory moves between nodes whose utilization differs by 26 points.
"""
_SMALLEST_MIN_GAIN = 0.001  # without it, a pool of pods that request nearly nothing would have many moves of no worth
_BRIDGED_RATIO = 0.75  # share of the distance from `low` to `high` by which nodes must differ for a pod of mean size
_BELOW_HIGH_FACTOR = 3  # a move off a node that is not above `high` must have this many times the gain
MAX_SOURCE_NODES = 100
"""Limit on the source nodes of one round, whose pods are listed node by node; the fullest nodes come first."""
_ACCEPTABLE_GAIN_RATIO = 0.85  # share of the largest gain of a pod in cooldown that another pod must reach


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Thresholds as shares of a node: above `high` a node gives pods, below `low` it takes pods."""

    high: float
    low: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """Pod that rebalancing may move.

    Attributes:
        requests: requested resources of the pod.
        can_be_replaced_first: whether a replacement can be Ready first; if not, the pod is evicted within its budget.
    """

    pod: Pod
    requests: ResourceList
    node_constraints: NodeConstraints = field(default_factory=NodeConstraints)
    can_be_replaced_first: bool = True

    @property
    def owner_uid(self) -> str:
        """Return the UID of its controller; of the pod itself if it has none."""
        return self.pod.owner.uid if self.pod.owner else self.pod.uid


@dataclass(frozen=True, slots=True)
class PlannedMove:
    """Move of a pod.

    Attributes:
        node_share: share of its node that becomes free.
        balance_gain: reduction of the imbalance if the pod moves to the emptiest destination.
        balance_gain_by_requests: the same reduction by requests only.
    """

    candidate: Candidate
    node_share: CpuMemory
    balance_gain: float
    balance_gain_by_requests: float


@dataclass(frozen=True, slots=True)
class NodeRoles:
    """Names of the source nodes and of the destination nodes."""

    source_nodes: frozenset[str] = frozenset()
    destination_nodes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class NodeClassification:
    """Source nodes and destination nodes at one moment.

    Attributes:
        loads: loads of all nodes of the group.
        source_nodes: the fullest first; a node gives pods until CPU and memory are below `source_target`.
        destination_nodes: the emptiest first; a node takes pods until CPU or memory is above `destination_target`.
        source_target: share of a node; `destination_target`: share of a node.
        roles: roles of the nodes, which the caller keeps until nothing is left to move.
    """

    loads: tuple[NodeLoad, ...]
    thresholds: Thresholds
    source_nodes: tuple[NodeLoad, ...] = ()
    destination_nodes: tuple[NodeLoad, ...] = ()
    source_target: CpuMemory = field(default_factory=CpuMemory)
    destination_target: CpuMemory = field(default_factory=CpuMemory)
    roles: NodeRoles = field(default_factory=NodeRoles)

    @property
    def has_nothing_to_move(self) -> bool:
        """Whether there is no source node or no destination node."""
        return not self.source_nodes or not self.destination_nodes


def classify_nodes(
    loads: Sequence[NodeLoad],
    thresholds: Thresholds,
    roles: NodeRoles | None = None,
    *,
    returned_nodes: AbstractSet[str] = frozenset(),
    nodes_without_candidates: AbstractSet[str] = frozenset(),
) -> NodeClassification:
    """Return the source nodes above `high` and the destination nodes below `low`, each until it reaches the mean.

    If moves stopped at `high` and `low`, the next new pod on a node would start them again.
    `returned_nodes`: empty nodes after a drain. Only they take pods then, and all nodes above the mean give pods.
    `nodes_without_candidates`: nodes that recently had no pod to move. The next fullest nodes take their place.
    """
    roles = roles or NodeRoles()
    high, low = _uniform(thresholds.high), _uniform(thresholds.low)
    mean = mean_utilization(loads)
    full = frozenset(load.name for load in loads if is_above(load, high))
    empty = frozenset(load.name for load in loads if _is_below(load, low) and accepts_new_pods(load))
    if empty_returned := empty & returned_nodes:
        empty, full = empty_returned, full | {load.name for load in loads if is_above(load, mean)} - empty_returned
    roles = NodeRoles((roles.source_nodes - empty) | full, (roles.destination_nodes - full) | empty)
    source_target, destination_target = elementwise_min(mean, high), elementwise_max(mean, low)
    sources = [
        load
        for load in loads
        if load.name in roles.source_nodes - nodes_without_candidates and is_above(load, source_target)
    ]
    destinations = [
        load
        for load in loads
        if load.name in roles.destination_nodes and _is_below(load, destination_target) and accepts_new_pods(load)
    ]
    sources.sort(key=lambda load: (-load.sustained_utilization.max_share, load.name))
    destinations.sort(key=_by_peak_utilization)
    return NodeClassification(
        tuple(loads),
        thresholds,
        tuple(sources[:MAX_SOURCE_NODES]),
        tuple(destinations),
        source_target,
        destination_target,
        roles,
    )


def min_gain(classification: NodeClassification) -> float:
    """Return the minimum gain of a move off a node above `high`.

    With an absolute value, a pool of small pods would stop early, and a narrow band would never be reached.
    """
    thresholds, pod = classification.thresholds, mean_pod_size(classification.loads)
    gain = 2 * pod.sum * _BRIDGED_RATIO * (thresholds.high - thresholds.low)
    return max(_SMALLEST_MIN_GAIN, min(MAX_MIN_GAIN, gain)) if pod.sum else MAX_MIN_GAIN


def is_above(load: NodeLoad, limit: CpuMemory) -> bool:
    """Whether CPU or memory of the node is above the limit, by sustained utilization."""
    return load.sustained_utilization.cpu > limit.cpu or load.sustained_utilization.memory > limit.memory


def _is_below(load: NodeLoad, limit: CpuMemory) -> bool:
    return load.peak_utilization.cpu < limit.cpu and load.peak_utilization.memory < limit.memory


def accepts_new_pods(load: NodeLoad) -> bool:
    """Whether the node has no taint with effect PreferNoSchedule, by which others ask for no new pods."""
    return not any(taint.effect == "PreferNoSchedule" for taint in load.node.taints)


def _uniform(share: float) -> CpuMemory:
    return CpuMemory(share, share)


def _by_peak_utilization(load: NodeLoad) -> tuple[float, str]:
    return load.peak_utilization.sum, load.name


def choose_moves(
    classification: NodeClassification,
    candidates: Iterable[Candidate],
    *,
    owners_cooling_down: AbstractSet[str] = frozenset(),
    max_moves: int = 1,
) -> tuple[PlannedMove, ...]:
    """Return the moves of a round: at most one for each source node and owner.

    `owners_cooling_down`: UIDs of owners that recently had a move. If the pod with the largest gain has such an owner,
    pods with a much smaller gain wait for it. Otherwise several of them would move instead.
    """
    if classification.has_nothing_to_move:
        return ()
    chooser = _MoveChooser(classification, candidates, owners_cooling_down)
    while len(chooser.moves) < max_moves and chooser.choose_next():
        continue
    return tuple(chooser.moves)


class _MoveChooser:
    """Chooses the moves of one round, one after another: each counts for the next as if it had already landed."""

    def __init__(
        self, classification: NodeClassification, candidates: Iterable[Candidate], owners_cooling_down: AbstractSet[str]
    ) -> None:
        self._high = classification.thresholds.high
        self._min_gain_above_high = min_gain(classification)
        self._mean_size = mean_node_size(classification.loads)
        self._owners_cooling_down = set(owners_cooling_down)
        self._source_nodes = {load.name: load for load in classification.source_nodes}
        self._above_high = self._names_above_high()
        self._remaining_candidates = [c for c in candidates if c.pod.node in self._source_nodes]
        self._destinations = LikelyDestinations(load for load in classification.loads if accepts_new_pods(load))
        self._place_guard = PlaceGuard(classification.loads)
        self._gain_functions: dict[tuple[str, str], GainFunction] = {}  # by source node and destination node
        self.moves: list[PlannedMove] = []

    def choose_next(self) -> bool:
        """Choose the next move; return whether there is one."""
        awaited_gain = 0.0
        for candidate in self._sorted_candidates():
            destination = self._expected_destination(candidate)
            if destination is None:
                continue
            gain = self._balance_gain(candidate, destination)
            if candidate.owner_uid in self._owners_cooling_down:
                awaited_gain = max(awaited_gain, gain)
            elif awaited_gain and not self._is_above_high(candidate):
                return False  # a node above `high` comes first, even if it waits
            elif gain >= _ACCEPTABLE_GAIN_RATIO * awaited_gain:
                self._add_move(candidate, destination, gain)
                return True
        return False

    def _sorted_candidates(self) -> list[Candidate]:
        """Return the candidates with enough gain on the emptiest node that could take them, and drop the others.

        They are sorted by: source above `high`, replacement first, larger gain, name.
        """
        rows: list[tuple[tuple[bool, bool, float, str], Candidate]] = []
        for candidate in self._remaining_candidates:
            pod = candidate.pod
            emptiest = self._destinations.emptiest(candidate.requests, candidate.node_constraints, pod.node)
            gain = self._balance_gain(candidate, emptiest) if emptiest else 0.0
            if gain >= self._min_gain(candidate):
                # Without rounding, noise in the last digits decides between equal gains.
                rank = not self._is_above_high(candidate), not candidate.can_be_replaced_first, -round(gain, 9), pod.key
                rows.append((rank, candidate))
        self._remaining_candidates = [candidate for _, candidate in sorted(rows, key=itemgetter(0))]
        return self._remaining_candidates

    def _min_gain(self, candidate: Candidate) -> float:
        return self._min_gain_above_high * (1 if self._is_above_high(candidate) else _BELOW_HIGH_FACTOR)

    def _is_above_high(self, candidate: Candidate) -> bool:
        return candidate.pod.node in self._above_high

    def _names_above_high(self) -> frozenset[str]:
        high = _uniform(self._high)
        return frozenset(name for name, load in self._source_nodes.items() if is_above(load, high))

    def _balance_gain(self, candidate: Candidate, destination: NodeLoad) -> float:
        key = candidate.pod.node, destination.name
        if key not in self._gain_functions:
            source = self._source_nodes[candidate.pod.node]
            self._gain_functions[key] = gain_function(source, destination, self._mean_size)
        return self._gain_functions[key](CpuMemory.from_amounts(candidate.requests))

    def _expected_destination(self, candidate: Candidate) -> NodeLoad | None:
        """Return the likely destination that is the least full with the pod.

        None if that node would exceed `high`, or if any likely destination has too small a gain or costs a needed place.
        """
        likely = self._destinations.likely(candidate.requests, candidate.node_constraints, candidate.pod.node)
        if any(self._balance_gain(candidate, node) < self._min_gain(candidate) for node in likely):
            return None
        source = self._source_nodes[candidate.pod.node]
        if not all(self._place_guard.allows(candidate.requests, source, node) for node in likely):
            return None
        pod_load = source.pod_load(CpuMemory.from_amounts(candidate.requests))
        utilization_after = likely[0].peak_utilization + pod_load / likely[0].allocatable
        return likely[0] if utilization_after.max_share <= self._high else None

    def _add_move(self, candidate: Candidate, destination: NodeLoad, balance_gain: float) -> None:
        source, requests = self._source_nodes[candidate.pod.node], CpuMemory.from_amounts(candidate.requests)
        gain_by_requests = balance_gain_by_requests(source, destination, requests, self._mean_size)
        pod_load = source.pod_load(requests)
        self.moves.append(PlannedMove(candidate, pod_load / source.allocatable, balance_gain, gain_by_requests))
        self._owners_cooling_down.add(candidate.owner_uid)
        self._place_guard.record_move(candidate.requests, source, destination)
        after = source.without_pod(candidate.requests, pod_load), destination.with_pod(candidate.requests, pod_load)
        changed = {load.name: load for load in after}
        self._destinations.replace(changed)
        self._source_nodes |= {name: load for name, load in changed.items() if name in self._source_nodes}
        self._above_high = self._names_above_high()
        self._gain_functions = {
            pair: gain for pair, gain in self._gain_functions.items() if changed.keys().isdisjoint(pair)
        }
        self._remaining_candidates = [c for c in self._remaining_candidates if c.pod.node != source.name]
