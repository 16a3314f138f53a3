"""Which pods are moved from fuller to emptier nodes of one pool.

The scheduler, not we, says where a pod goes: so a pod is moved only if that helps on every node that is to take and
could take it. Each move must lower the spread by at least LEAST, or it is not worth a pod's move; that alone makes
it end. As few moves as possible: what lowers the spread most goes first.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from rescheduler.core.model.node_affinity import may_run_on
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.resource_requests import ResourceList
from rescheduler.core.rebalance.utilization import (
    CpuMemory,
    NodeLoad,
    balance_gain,
    balance_gain_by_requests,
    elementwise_max,
    elementwise_min,
    mean_node_size,
    mean_utilization,
)

MIN_GAIN_ABOVE_HIGH = 0.01
"""By how much a move off a node above `high` lowers the spread at least: 1% of a node, of both resources, across 26 points."""
MIN_GAIN_BELOW_HIGH = 0.03
"""The same, of moves off other nodes."""
MAX_SOURCE_NODES = 10
"""The pods of so many nodes, the fullest, are looked at in one round."""
_ACCEPTABLE_GAIN_RATIO = 0.7  # a pod that helps so much as well as the one waited for will do
_MAX_DESTINATION_NODES = 20  # the emptiest; the others are emptier than `low` or the mean all the same


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Shares of a node: fuller than `high` it gives, emptier than `low` it takes."""

    high: float
    low: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pod that may be moved.

    Attributes:
        asked: its requests.
        asks: of its spec, what says which nodes it may run on.
        first: a replacement can be Ready before it goes; else it is evicted within its budget.
    """

    pod: Pod
    requests: ResourceList
    node_constraints: Mapping[str, Any] = field(default_factory=dict)
    can_be_replaced_first: bool = True

    @property
    def owner_uid(self) -> str:
        """Uid of its controller."""
        return self.pod.owner.uid if self.pod.owner else self.pod.uid


@dataclass(frozen=True, slots=True)
class PlannedMove:
    """One pod to be moved.

    Attributes:
        share: of its node, what leaves with it.
        gain: by how much nodes are more evenly full then, where it lands on the emptiest; `evens`: by requests alone.
    """

    candidate: Candidate
    node_share: CpuMemory
    balance_gain: float
    balance_gain_by_requests: float


@dataclass(frozen=True, slots=True)
class NodeRoles:
    """Names of the nodes that give, and of those that take, while a pool is evened out."""

    source_nodes: frozenset[str] = frozenset()
    destination_nodes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class NodeClassification:
    """Who gives and who takes now.

    Attributes:
        loads: all nodes of the pool that could do either.
        givers: the fullest first, each until it is below `line` (of both resources).
        takers: the emptiest first, each until it is above `until` (of one).
        roles: to be remembered until nothing is left to move.
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
        """Nothing is to be moved."""
        return not self.source_nodes or not self.destination_nodes


def classify_nodes(
    loads: Sequence[NodeLoad],
    thresholds: Thresholds,
    roles: NodeRoles | None = None,
    *,
    returned_nodes: AbstractSet[str] = frozenset(),
    nodes_without_candidates: AbstractSet[str] = frozenset(),
) -> NodeClassification:
    """Who gives and who takes: nodes above `high`, and nodes below `low`, each until it is as full as the mean.

    To stop at `high` and `low` would leave a node that gives just below one, and its next pod start all over again.
    `returned`: nodes back from maintenance, empty; all above the mean fill them, and them first. `barren`: nodes whose
    pods were looked at of late, and none could be moved: the next fullest have their turn.
    """
    roles = roles or NodeRoles()
    high, low = _uniform(thresholds.high), _uniform(thresholds.low)
    middle = mean_utilization(loads)
    full = frozenset(load.name for load in loads if is_above(load, high))
    empty = frozenset(load.name for load in loads if _is_below(load, low) and _accepts_new_pods(load))
    if back := empty & returned_nodes:
        empty, full = back, full | {load.name for load in loads if is_above(load, middle)} - back
    roles = NodeRoles((roles.source_nodes - empty) | full, (roles.destination_nodes - full) | empty)
    line, until = elementwise_min(middle, high), elementwise_max(middle, low)
    givers = [
        load for load in loads if load.name in roles.source_nodes - nodes_without_candidates and is_above(load, line)
    ]
    takers = [
        load
        for load in loads
        if load.name in roles.destination_nodes and _is_below(load, until) and _accepts_new_pods(load)
    ]
    givers.sort(key=lambda load: (-load.sustained_utilization.max_share, load.name))
    takers.sort(key=_by_peak_utilization)
    return NodeClassification(
        tuple(loads), thresholds, tuple(givers[:MAX_SOURCE_NODES]), tuple(takers), line, until, roles
    )


def is_above(load: NodeLoad, limit: CpuMemory) -> bool:
    """Whether it is fuller than this, of CPU or of memory."""
    return load.sustained_utilization.cpu > limit.cpu or load.sustained_utilization.memory > limit.memory


def _is_below(load: NodeLoad, limit: CpuMemory) -> bool:
    return load.peak_utilization.cpu < limit.cpu and load.peak_utilization.memory < limit.memory


def _accepts_new_pods(load: NodeLoad) -> bool:
    """Not where somebody would rather have no new pods: their reasons are as good as ours."""
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
    """The pods to move now: at most so many, one off a node, one for each node that takes, and one an owner.

    `resting`: uids of owners of which nothing is moved for some time. A node that would best give a pod of theirs
    waits for it, rather than give several smaller ones instead.
    """
    draft = _MoveChooser(classification, candidates, owners_cooling_down)
    while len(draft.moves) < max_moves and draft.choose_next():
        continue
    return tuple(draft.moves)


class _MoveChooser:
    """One round, on paper."""

    def __init__(
        self, classification: NodeClassification, candidates: Iterable[Candidate], owners_cooling_down: AbstractSet[str]
    ) -> None:
        self._classification, self._mean_size, self._owners_cooling_down = (
            classification,
            mean_node_size(classification.loads),
            set(owners_cooling_down),
        )
        self._source_nodes = {load.name: load for load in classification.source_nodes}
        self._destination_nodes = list(classification.destination_nodes[:_MAX_DESTINATION_NODES])
        self._remaining_candidates = [c for c in candidates if c.pod.node in self._source_nodes]
        self._allowed_by_constraints: dict[str, frozenset[str]] = {}
        self.moves: list[PlannedMove] = []

    def choose_next(self) -> bool:
        """Choose one more; whether there was one."""
        waits: dict[str, float] = {}  # by node, the gain that it waits for
        for candidate in sorted(self._remaining_candidates, key=self._sort_key) if self._destination_nodes else ():
            taker = self._find_destination(candidate)
            if taker is None:
                continue
            node, helps = candidate.pod.node, self._balance_gain(candidate, taker)
            if candidate.owner_uid in self._owners_cooling_down:
                waits.setdefault(node, helps)
            elif waits and not self._is_above_high(candidate):
                return False  # nodes above `high` come first, also where they wait
            elif helps >= _ACCEPTABLE_GAIN_RATIO * waits.get(node, 0.0):
                self._add_move(candidate, taker, helps)
                return True
        return False

    def _sort_key(self, candidate: Candidate) -> tuple[bool, bool, float, str]:
        """Off nodes above `high` first; those that can be replaced first before others; then what helps most."""
        helps = self._balance_gain(candidate, self._destination_nodes[0])
        return (not self._is_above_high(candidate), not candidate.can_be_replaced_first, -helps, candidate.pod.key)

    def _is_above_high(self, candidate: Candidate) -> bool:
        return is_above(self._source_nodes[candidate.pod.node], _uniform(self._classification.thresholds.high))

    def _balance_gain(self, candidate: Candidate, destination: NodeLoad) -> float:
        return balance_gain(
            self._source_nodes[candidate.pod.node],
            destination,
            CpuMemory.from_amounts(candidate.requests),
            self._mean_size,
        )

    def _find_destination(self, candidate: Candidate) -> NodeLoad | None:
        """The emptiest node that can have it; None where it would be too full, or where another would not do either."""
        least, may = (
            MIN_GAIN_ABOVE_HIGH if self._is_above_high(candidate) else MIN_GAIN_BELOW_HIGH,
            self._allowed_nodes(candidate),
        )
        could = [t for t in self._destination_nodes if t.name in may and t.has_room_for(candidate.requests)]
        if not could or any(self._balance_gain(candidate, taker) < least for taker in could):
            return None
        weight = self._source_nodes[candidate.pod.node].pod_load(CpuMemory.from_amounts(candidate.requests))
        then = could[0].peak_utilization + weight / could[0].allocatable
        return could[0] if then.max_share <= self._classification.thresholds.high else None

    def _allowed_nodes(self, candidate: Candidate) -> frozenset[str]:
        """Names of the nodes that its spec lets it run on; many pods ask for the same."""
        key = json.dumps(candidate.node_constraints, sort_keys=True)
        if key not in self._allowed_by_constraints:
            nodes = (load.node for load in self._classification.destination_nodes[:_MAX_DESTINATION_NODES])
            self._allowed_by_constraints[key] = frozenset(
                node.name for node in nodes if may_run_on(candidate.node_constraints, node)
            )
        return self._allowed_by_constraints[key]

    def _add_move(self, candidate: Candidate, destination: NodeLoad, balance_gain: float) -> None:
        giver, asked = self._source_nodes[candidate.pod.node], CpuMemory.from_amounts(candidate.requests)
        evens = balance_gain_by_requests(giver, destination, asked, self._mean_size)
        self.moves.append(PlannedMove(candidate, giver.pod_load(asked) / giver.allocatable, balance_gain, evens))
        self._owners_cooling_down.add(candidate.owner_uid)
        self._destination_nodes.remove(destination)
        self._remaining_candidates = [c for c in self._remaining_candidates if c.pod.node != giver.name]
