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
from rescheduler.core.model.resource_requests import Amounts
from rescheduler.core.rebalance.utilization import Load, Pair, gain, gain_by_requests, larger, mean, smaller, unit

LEAST = 0.01
"""By how much a move off a node above `high` lowers the spread at least: 1% of a node, of both resources, across 26 points."""
WORTH = 0.03
"""The same, of moves off other nodes."""
MOST_GIVERS = 10
"""The pods of so many nodes, the fullest, are looked at in one round."""
_PATIENCE = 0.7  # a pod that helps so much as well as the one waited for will do
_MOST_TAKERS = 20  # the emptiest; the others are emptier than `low` or the mean all the same


@dataclass(frozen=True, slots=True)
class Bounds:
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
    asked: Amounts
    asks: Mapping[str, Any] = field(default_factory=dict)
    first: bool = True

    @property
    def owner(self) -> str:
        """Uid of its controller."""
        return self.pod.owner.uid if self.pod.owner else self.pod.uid


@dataclass(frozen=True, slots=True)
class Shift:
    """One pod to be moved.

    Attributes:
        share: of its node, what leaves with it.
        gain: by how much nodes are more evenly full then, where it lands on the emptiest; `evens`: by requests alone.
    """

    candidate: Candidate
    share: Pair
    gain: float
    evens: float


@dataclass(frozen=True, slots=True)
class Roles:
    """Names of the nodes that give, and of those that take, while a pool is evened out."""

    givers: frozenset[str] = frozenset()
    takers: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Sides:
    """Who gives and who takes now.

    Attributes:
        loads: all nodes of the pool that could do either.
        givers: the fullest first, each until it is below `line` (of both resources).
        takers: the emptiest first, each until it is above `until` (of one).
        roles: to be remembered until nothing is left to move.
    """

    loads: tuple[Load, ...]
    bounds: Bounds
    givers: tuple[Load, ...] = ()
    takers: tuple[Load, ...] = ()
    line: Pair = field(default_factory=Pair)
    until: Pair = field(default_factory=Pair)
    roles: Roles = field(default_factory=Roles)

    @property
    def idle(self) -> bool:
        """Nothing is to be moved."""
        return not self.givers or not self.takers


def sides(
    loads: Sequence[Load],
    bounds: Bounds,
    roles: Roles | None = None,
    *,
    returned: AbstractSet[str] = frozenset(),
    barren: AbstractSet[str] = frozenset(),
) -> Sides:
    """Who gives and who takes: nodes above `high`, and nodes below `low`, each until it is as full as the mean.

    To stop at `high` and `low` would leave a node that gives just below one, and its next pod start all over again.
    `returned`: nodes back from maintenance, empty; all above the mean fill them, and them first. `barren`: nodes whose
    pods were looked at of late, and none could be moved: the next fullest have their turn.
    """
    roles = roles or Roles()
    high, low = _both(bounds.high), _both(bounds.low)
    middle = mean(loads)
    full = frozenset(load.name for load in loads if above(load, high))
    empty = frozenset(load.name for load in loads if _below(load, low) and _welcomes(load))
    if back := empty & returned:
        empty, full = back, full | {load.name for load in loads if above(load, middle)} - back
    roles = Roles((roles.givers - empty) | full, (roles.takers - full) | empty)
    line, until = smaller(middle, high), larger(middle, low)
    givers = [load for load in loads if load.name in roles.givers - barren and above(load, line)]
    takers = [load for load in loads if load.name in roles.takers and _below(load, until) and _welcomes(load)]
    givers.sort(key=lambda load: (-load.share.most, load.name))
    takers.sort(key=_emptiness)
    return Sides(tuple(loads), bounds, tuple(givers[:MOST_GIVERS]), tuple(takers), line, until, roles)


def above(load: Load, line: Pair) -> bool:
    """Whether it is fuller than this, of CPU or of memory."""
    return load.share.cpu > line.cpu or load.share.memory > line.memory


def _below(load: Load, until: Pair) -> bool:
    return load.taken.cpu < until.cpu and load.taken.memory < until.memory


def _welcomes(load: Load) -> bool:
    """Not where somebody would rather have no new pods: their reasons are as good as ours."""
    return not any(taint.effect == "PreferNoSchedule" for taint in load.node.taints)


def _both(share: float) -> Pair:
    return Pair(share, share)


def _emptiness(load: Load) -> tuple[float, str]:
    return load.taken.sum, load.name


def choose(
    found: Sides, candidates: Iterable[Candidate], *, resting: AbstractSet[str] = frozenset(), most: int = 1
) -> tuple[Shift, ...]:
    """The pods to move now: at most so many, one off a node, one for each node that takes, and one an owner.

    `resting`: uids of owners of which nothing is moved for some time. A node that would best give a pod of theirs
    waits for it, rather than give several smaller ones instead.
    """
    draft = _Draft(found, candidates, resting)
    while len(draft.shifts) < most and draft.step():
        continue
    return tuple(draft.shifts)


class _Draft:
    """One round, on paper."""

    def __init__(self, found: Sides, candidates: Iterable[Candidate], resting: AbstractSet[str]) -> None:
        self._found, self._size, self._resting = found, unit(found.loads), set(resting)
        self._givers = {load.name: load for load in found.givers}
        self._takers = list(found.takers[:_MOST_TAKERS])
        self._left = [c for c in candidates if c.pod.node in self._givers]
        self._may: dict[str, frozenset[str]] = {}
        self.shifts: list[Shift] = []

    def step(self) -> bool:
        """Choose one more; whether there was one."""
        waits: dict[str, float] = {}  # by node, the gain that it waits for
        for candidate in sorted(self._left, key=self._order) if self._takers else ():
            taker = self._landing(candidate)
            if taker is None:
                continue
            node, helps = candidate.pod.node, self._gain(candidate, taker)
            if candidate.owner in self._resting:
                waits.setdefault(node, helps)
            elif waits and not self._full(candidate):
                return False  # nodes above `high` come first, also where they wait
            elif helps >= _PATIENCE * waits.get(node, 0.0):
                self._take(candidate, taker, helps)
                return True
        return False

    def _order(self, candidate: Candidate) -> tuple[bool, bool, float, str]:
        """Off nodes above `high` first; those that can be replaced first before others; then what helps most."""
        helps = self._gain(candidate, self._takers[0])
        return (not self._full(candidate), not candidate.first, -helps, candidate.pod.key)

    def _full(self, candidate: Candidate) -> bool:
        return above(self._givers[candidate.pod.node], _both(self._found.bounds.high))

    def _gain(self, candidate: Candidate, taker: Load) -> float:
        return gain(self._givers[candidate.pod.node], taker, Pair.of(candidate.asked), self._size)

    def _landing(self, candidate: Candidate) -> Load | None:
        """The emptiest node that can have it; None where it would be too full, or where another would not do either."""
        least, may = LEAST if self._full(candidate) else WORTH, self._allowed(candidate)
        could = [t for t in self._takers if t.name in may and t.room_for(candidate.asked)]
        if not could or any(self._gain(candidate, taker) < least for taker in could):
            return None
        weight = self._givers[candidate.pod.node].weight(Pair.of(candidate.asked))
        then = could[0].taken + weight / could[0].whole
        return could[0] if then.most <= self._found.bounds.high else None

    def _allowed(self, candidate: Candidate) -> frozenset[str]:
        """Names of the nodes that its spec lets it run on; many pods ask for the same."""
        key = json.dumps(candidate.asks, sort_keys=True)
        if key not in self._may:
            nodes = (load.node for load in self._found.takers[:_MOST_TAKERS])
            self._may[key] = frozenset(node.name for node in nodes if may_run_on(candidate.asks, node))
        return self._may[key]

    def _take(self, candidate: Candidate, taker: Load, helps: float) -> None:
        giver, asked = self._givers[candidate.pod.node], Pair.of(candidate.asked)
        evens = gain_by_requests(giver, taker, asked, self._size)
        self.shifts.append(Shift(candidate, giver.weight(asked) / giver.whole, helps, evens))
        self._resting.add(candidate.owner)
        self._takers.remove(taker)
        self._left = [c for c in self._left if c.pod.node != giver.name]
