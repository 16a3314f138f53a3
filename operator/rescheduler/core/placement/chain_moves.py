"""Chain moves: a pod of another node moves first, so that a pod without room fits on that node.

A nearly full cluster often has no node with enough room for a large pod, although the free resources of all nodes
together would hold several. For each pod without room, the smallest other pod is chosen whose move makes room, and
which certainly has a place elsewhere.

A chain move must not break a promise of the plan. Two more plans check that. In one of them the chain moves take their
new places and keep their old ones, as long as they are under way. In the other one their old places are free.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rescheduler.core.model.resource_fit import insufficient_resource, nodes_with_room, request_vector
from rescheduler.core.model.resource_requests import ResourceList
from rescheduler.core.placement.planner import Fit, Forecast, make_plan
from rescheduler.core.placement.pod_snapshot import ScheduledPod
from rescheduler.core.placement.problem import (
    ChainStage,
    EquivalenceGroup,
    MovablePod,
    PlacementInput,
    PlacementProblem,
)

_MAX_CANDIDATES = 4  # pods that are tried for each pod without room; each costs up to four plans
MAX_TRIES = 12
"""Largest number of pods that are tried for all pods of a plan; a try takes as long as one or two plans."""
_MAX_NODES = 30  # nodes whose pods are asked for, for each pod without room


@dataclass(frozen=True, slots=True)
class ChainMove:
    """A pod that moves first.

    Attributes:
        pod: `namespace/name` of the pod; `uid`, `node`: of the pod.
        for_pod: `namespace/name` of the pod that gets room; `for_uid`: its uid; `for_node`: the drained node.
        holds_others: whether the other pods of the drained node must wait, because they would take the room.
    """

    pod: str
    uid: str
    node: str
    for_pod: str
    for_uid: str
    for_node: str
    holds_others: bool = False


@dataclass(frozen=True, slots=True)
class ChainPlan:
    """Chain moves of a plan.

    Attributes:
        moves: in the order in which they are made.
        by_pod: the move that gives room to a pod, by `namespace/name` of that pod.
        all_fit: whether all pods certainly fit after the moves.
    """

    moves: tuple[ChainMove, ...] = ()
    by_pod: Mapping[str, ChainMove] = field(default_factory=dict)
    all_fit: bool = False


def lacks_room(forecast: Forecast) -> bool:
    """Whether more free capacity would help the pod."""
    return forecast.fit is Fit.DOES_NOT_FIT and not forecast.blocked_by_pods and not forecast.colocated_uids


def nodes_to_ask(
    pods_to_place: Sequence[ScheduledPod],
    forecasts: Sequence[Forecast],
    inputs: PlacementInput,
    allowed_nodes: Mapping[str, Iterable[str]],
) -> frozenset[str]:
    """Return the nodes that lack least for a pod without room; a chain move might make room there.

    `allowed_nodes`: nodes whose pods may move, by drained node.
    """
    problem = PlacementProblem(inputs, pods_to_place)
    index, found = problem.node_snapshot.index_by_name, set[str]()
    for group, position in _without_room(problem, pods_to_place, forecasts):
        allowed = {index[name] for name in allowed_nodes.get(pods_to_place[position].node, ()) if name in index}
        nodes = [n for n in group.certain_nodes if n in allowed]
        nodes.sort(key=lambda n, group=group: (_missing_share(problem, n, group), problem.nodes[n].name))  # type: ignore[misc]
        found.update(problem.nodes[n].name for n in nodes[:_MAX_NODES])
    return frozenset(found)


def find_chain_moves(
    pods_to_place: Sequence[ScheduledPod],
    forecasts: Sequence[Forecast],
    inputs: PlacementInput,
    movable_pods: Mapping[str, Sequence[MovablePod]],
    limits: Mapping[str, int],
    max_tries: int = MAX_TRIES,
) -> ChainPlan:
    """Return the chain moves that give room to pods without room.

    `movable_pods`: by drained node. `limits`: number of chain moves by drained node.
    """
    problem = PlacementProblem(inputs, pods_to_place)
    search = _ChainSearch(problem, pods_to_place, forecasts, movable_pods, limits, max_tries)
    for group, position in _without_room(problem, pods_to_place, forecasts):
        search.find_for(group, position)
    return ChainPlan(tuple(search.moves), search.by_pod, search.all_fit)


def _without_room(
    problem: PlacementProblem, pods_to_place: Sequence[ScheduledPod], forecasts: Sequence[Forecast]
) -> list[tuple[EquivalenceGroup, int]]:
    """Return the pods without room in the order of the plan: their group and their index."""
    rows = [
        (group, position)
        for group in problem.groups
        for position in group.pod_indexes
        if not group.unknown_reason and lacks_room(forecasts[position])
    ]
    return sorted(rows, key=lambda row: (forecasts[row[1]].rank, pods_to_place[row[1]].key))


def _missing_share(problem: PlacementProblem, node_index: int, group: EquivalenceGroup) -> float:
    """Return the largest share of the node that it lacks for one pod of the group; 1 or more: the node is too small."""
    free, allocatable = problem.free[node_index], problem.allocatable[node_index]
    return max((amount - free[kind]) / max(1, allocatable[kind]) for kind, amount in group.requests)


class _ChainSearch:
    """Searches chain moves, one after another; each must hold together with the earlier ones."""

    def __init__(
        self,
        problem: PlacementProblem,
        pods_to_place: Sequence[ScheduledPod],
        forecasts: Sequence[Forecast],
        movable_pods: Mapping[str, Sequence[MovablePod]],
        limits: Mapping[str, int],
        max_tries: int,
    ) -> None:
        self._problem, self._pods, self._limits = problem, pods_to_place, dict(limits)
        self._index = {kind: k for k, kind in enumerate(problem.resource_names)}
        totals = [max(1, sum(column)) for column in zip(*problem.allocatable, strict=True)]
        self._totals = dict(zip(problem.resource_names, totals, strict=False))  # without nodes there are no totals
        self._movable = {node: sorted(rows, key=self._sort_key) for node, rows in movable_pods.items()}
        self._promised = frozenset(
            pod.uid for pod, forecast in zip(pods_to_place, forecasts, strict=True) if forecast.fit is Fit.FITS
        )
        self._waiting = {
            pod.uid for pod, forecast in zip(pods_to_place, forecasts, strict=True) if lacks_room(forecast)
        }
        self._moving: dict[str, MovablePod] = {}
        self._placed = frozenset[str]()  # uids of the waiting pods that fit with the moves found so far
        self._hopeless: set[EquivalenceGroup] = set()
        self._tries_left = max_tries
        self.all_fit = False
        self.moves: list[ChainMove] = []
        self.by_pod: dict[str, ChainMove] = {}

    def find_for(self, group: EquivalenceGroup, position: int) -> None:
        """Find the smallest pod whose move gives room to this pod; in doubt, no other pod of its node waits for it."""
        pod = self._pods[position]
        if pod.uid in self._placed or group in self._hopeless or self._limits.get(pod.node, 0) < 1:
            return
        candidates = self._candidates(group, pod)
        for holds_others in (False, True):
            for movable in candidates:
                if self._tries_left < 1:
                    return
                self._tries_left -= 1
                if self._try(movable, pod, holds_others=holds_others):
                    return
        self._hopeless.add(group)

    def _try(self, movable: MovablePod, pod: ScheduledPod, *, holds_others: bool) -> bool:
        """Add this move if it gives room to the pod; return whether it does.

        Without holding others, each promised pod keeps its promise, and the pod comes last. If the others wait, the pod
        comes before them. As many of them must fit as before, unless the scheduler then places all pods as a rule.
        """
        moving = {**self._moving, movable.pod.uid: movable}
        held = self._held_pods(pod) if holds_others else frozenset[str]()
        turns = {**dict.fromkeys(moving, -1), pod.uid: 1, **dict.fromkeys(held, 2)}
        turns |= dict.fromkeys(self._placed, 1) | dict.fromkeys(self._waiting - self._placed - {pod.uid}, 3)
        after, usually_places_all = self._fitting(ChainStage(moving, have_left=True, turns=turns))
        if not after >= {pod.uid, *(self._promised - held), *moving, *self._placed}:
            return False
        if len(after & held) < len(self._promised & held) and not usually_places_all:
            return False
        meanwhile, _ = self._fitting(ChainStage(moving, have_left=False, turns=turns))
        if not meanwhile >= {*(self._promised - held - self._waiting), *moving}:
            return False
        placed = after & self._waiting
        move = ChainMove(movable.pod.key, movable.pod.uid, movable.pod.node, pod.key, pod.uid, pod.node, holds_others)
        self.by_pod |= {other.key: move for other in self._pods if other.uid in placed - self._placed}
        self._moving, self._placed = moving, placed
        self._promised = after - moving.keys()
        self.all_fit = after >= {other.uid for other in self._pods}
        self._limits[pod.node] -= 1
        self.moves.append(move)
        return True

    def _held_pods(self, pod: ScheduledPod) -> frozenset[str]:
        """Return the uids of the other pods of the node that are not without room themselves."""
        return frozenset(other.uid for other in self._pods if other.node == pod.node) - self._waiting

    def _candidates(self, group: EquivalenceGroup, pod: ScheduledPod) -> list[MovablePod]:
        """Return the smallest pod of each node that would make room, the smallest first."""
        nodes, found, names = set(group.certain_nodes), list[MovablePod](), set[str]()
        for movable in self._movable.get(pod.node, ()):
            n = self._problem.node_snapshot.index_by_name.get(movable.pod.node)
            if n not in nodes or n is None or movable.pod.node in names or movable.pod.uid in self._moving:
                continue
            if self._makes_room(n, movable.allocated, group) and self._may_have_place(movable.pod):
                names.add(movable.pod.node)
                found.append(movable)
                if len(found) == _MAX_CANDIDATES:
                    break
        return found

    def _makes_room(self, node_index: int, allocated: ResourceList, group: EquivalenceGroup) -> bool:
        freed = {self._index[kind]: amount for kind, amount in allocated.items() if kind in self._index}
        row = [amount + freed.get(kind, 0) for kind, amount in enumerate(self._problem.free[node_index])]
        return insufficient_resource(row, group.requests) is None

    def _may_have_place(self, pod: ScheduledPod) -> bool:
        if pod.requirements.unknown_reason or pod.claim_names:
            return False
        requests = request_vector(pod.requirements.requests, self._index)
        nodes = nodes_with_room(self._problem.allowed_nodes(pod.requirements), self._problem.free, requests)
        return any(self._problem.nodes[n].name != pod.node for n in nodes)

    def _fitting(self, stage: ChainStage) -> tuple[frozenset[str], bool]:
        """Return the uids of all pods that fit, those of the moves included, and `Plan.usually_places_all`."""
        pods = [*self._pods, *(movable.pod for movable in stage.moving.values())]
        inputs = replace(self._problem.inputs, node_snapshot=self._problem.node_snapshot, chain=stage)
        found = make_plan(pods, inputs)
        fitting = (pod.uid for pod, forecast in zip(pods, found.forecasts, strict=True) if forecast.fit is Fit.FITS)
        return frozenset(fitting), found.usually_places_all

    def _sort_key(self, movable: MovablePod) -> tuple[float, str]:
        """Sort by the largest share of the cluster that the pod takes."""
        shares = (amount / self._totals[kind] for kind, amount in movable.allocated.items() if kind in self._totals)
        return max(shares, default=0.0), movable.pod.key
