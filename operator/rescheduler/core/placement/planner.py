"""Plan whether displaced pods all fit into the free capacity together.

`Fits` is a promise: the scheduler places the pod, whichever nodes it chooses, if pods come in the order of the plan and
pods that do not fit come last. `Fits` must never be wrong. If it could be wrong, the result is `Unknown`. A plan never
counts on preemption.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from rescheduler.core.model.resource_fit import nodes_with_room
from rescheduler.core.placement import messages
from rescheduler.core.placement.colocation import (
    ColocatedGroups,
    find_colocated_groups,
    has_node_for_all,
    is_kept_off_by_pods,
)
from rescheduler.core.placement.guaranteed_fits import guaranteed_groups
from rescheduler.core.placement.pod_constraints import PodConstraints
from rescheduler.core.placement.pod_snapshot import ScheduledPod
from rescheduler.core.placement.problem import EquivalenceGroup, PlacementInput, PlacementProblem
from rescheduler.core.placement.scheduling_run import (
    SchedulingRun,
    ScoreFunction,
    default_score,
    default_score_before_1_35,
)
from rescheduler.core.placement.unschedulable_reasons import UnschedulableExplainer, UnschedulableReason

_REQUIRED_CONSISTENT_RUNS = 72  # runs in a row that place every promised pod
_MAX_RUNS = 216  # runs of one plan
_MAX_PLACEMENTS = 10_000  # pods that all runs of one plan place together
_LARGE_CLUSTER_NODES = 5_000  # nodes; with this many, a plan may place half of _MAX_PLACEMENTS
_UPPER_BOUND_RUNS = 4  # runs that find out how many pods may fit at best
_TIE_MARGIN = 0.03  # score; nodes with a smaller difference may be equal for the scheduler
_MAX_RANK_SHIFT = 8.0  # places in the queue that a pod may come early or late


class Fit(StrEnum):
    """Result of a plan for one pod."""

    FITS = "Fits"
    DOES_NOT_FIT = "DoesNotFit"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Forecast:
    """Result of a plan for one pod, with its reason.

    Attributes:
        rank: place in the order of the plan; pods that fit come first.
        reason: why the pod does not fit, or why only the scheduler can decide; None if the pod fits.
        blocked_by_pods: whether constraints of other pods block it, so that more capacity would not help.
        colocated_uids: uids of the pods that must leave together with this pod, its own included; empty if there are none.
    """

    fit: Fit
    rank: int = 0
    reason: str | None = None
    blocked_by_pods: bool = False
    colocated_uids: frozenset[str] = frozenset()


_Result = tuple[Fit, UnschedulableReason]


def plan(pods_to_place: Sequence[ScheduledPod], inputs: PlacementInput, random: Random | None = None) -> list[Forecast]:
    """Return a forecast for each pod, in the order of `pods_to_place`."""
    problem = PlacementProblem(inputs, pods_to_place)
    PodConstraints(problem).apply()
    simulation = _Simulation(problem, random or Random(0))  # noqa: S311 - a fixed seed: equal input, equal plan
    fewest, most = simulation.compute_bounds()
    results: list[_Result] = [(Fit.FITS, UnschedulableReason())] * len(pods_to_place)
    explainer = UnschedulableExplainer(simulation.last_run)
    for group in problem.groups:
        reason = (
            explainer.explain(group)
            if len(group.pod_indexes) > most[group] and not group.unknown_reason
            else UnschedulableReason()
        )
        for number, position in enumerate(group.pod_indexes):
            if group.unknown_reason:
                results[position] = (Fit.UNKNOWN, UnschedulableReason(group.unknown_reason))
            elif number >= most[group]:
                results[position] = (Fit.DOES_NOT_FIT, reason)
            elif number >= fewest[group]:
                results[position] = (Fit.UNKNOWN, UnschedulableReason(messages.DEPENDS_ON_OTHER_PODS))
    colocated_uids: dict[int, frozenset[str]] = {}
    for colocated in find_colocated_groups(problem):
        positions = sorted(position for group in colocated for position in group.pod_indexes)
        _judge_as_one(results, positions, problem, colocated, [pods_to_place[position].key for position in positions])
        colocated_uids |= dict.fromkeys(positions, frozenset(pods_to_place[position].uid for position in positions))
    ranks = {position: rank for rank, position in enumerate(simulation.sort_pods(results))}
    return [
        Forecast(
            fit, ranks[position], reason.message, reason.blocked_by_pods, colocated_uids.get(position, frozenset())
        )
        for position, (fit, reason) in enumerate(results)
    ]


def _judge_as_one(
    results: list[_Result],
    positions: Sequence[int],
    problem: PlacementProblem,
    colocated: ColocatedGroups,
    keys: Sequence[str],
) -> None:
    """Give colocated pods one result, the worst: a pod that fits alone could not follow the others, or they it.

    `positions`: of these pods in the results. `keys`: `namespace/name` of each.
    """
    unplaced = [results[position] for position in positions if results[position][0] is not Fit.FITS]
    if not unplaced or len(positions) == 1:
        return
    fit, reason = Fit.UNKNOWN, UnschedulableReason(messages.DEPENDS_ON_OTHER_PODS)
    own_reasons = [own for own_fit, own in unplaced if own_fit is Fit.DOES_NOT_FIT and not own.blocked_by_pods]
    if any(own_fit is Fit.DOES_NOT_FIT for own_fit, _ in unplaced) and not has_node_for_all(problem, colocated):
        blocked_by_pods = not own_reasons and is_kept_off_by_pods(colocated)
        fit, reason = Fit.DOES_NOT_FIT, UnschedulableReason(messages.no_room_for_all(keys), blocked_by_pods)
    for position in positions:
        own_fit, own = results[position]
        if own_fit is not fit or own.blocked_by_pods is not reason.blocked_by_pods:
            results[position] = (fit, reason)


class _Simulation:
    """Repeats scheduling runs to bound the number of pods of each group that fit.

    Attributes:
        last_run: a completed run, which explains why pods do not fit.
    """

    def __init__(self, problem: PlacementProblem, random: Random) -> None:
        self._problem, self._random = problem, random
        totals = [max(1, sum(column)) for column in zip(*problem.allocatable, strict=True)]
        sizes = {g: max(amount / totals[kind] for kind, amount in g.requests) for g in problem.groups}
        pods = [
            (-g.requirements.priority, sizes[g], p, g)
            for g in problem.groups
            for p in g.pod_indexes
            if not g.unknown_reason
        ]
        # The scheduler's queue is sorted by priority. Among equals, small pods first: this order places the most pods.
        pods.sort(key=lambda pod: pod[:3])
        self._queue = [group for *_, group in pods]
        self._pod_indexes = [position for *_, position, _ in pods]
        self._competing_groups = [
            g
            for g in problem.groups
            for _ in range(g.competing_count + (len(g.pod_indexes) if g.unknown_reason else 0))
        ]
        self._pods_per_group = Counter(self._queue)
        self._nodes_with_room: dict[EquivalenceGroup, Sequence[int]] = {}
        self.last_run = SchedulingRun(problem, random, None, certain_only=False)
        self._noisy_score = self._with_noise(default_score, 0.3)
        # The scheduler rounds scores to whole percents and picks a random node among equals.
        tied = self._with_noise(default_score, _TIE_MARGIN)
        self._score_functions = (
            tied,
            self._noisy_score,
            tied,
            self._with_noise(default_score_before_1_35, _TIE_MARGIN),
            tied,
            None,
        )

    def _with_noise(self, score: ScoreFunction, max_noise: float) -> ScoreFunction:
        uniform = self._random.uniform
        return lambda free, allocatable, requested: score(free, allocatable, requested) + uniform(0, max_noise)

    def sort_pods(self, results: Sequence[_Result]) -> list[int]:
        """Return the indexes of all pods in the order of the plan; pods that fit come first."""
        order = {Fit.FITS: 0, Fit.UNKNOWN: 1, Fit.DOES_NOT_FIT: 2}
        unknown = [position for g in self._problem.groups if g.unknown_reason for position in g.pod_indexes]
        return sorted((*self._pod_indexes, *unknown), key=lambda position: order[results[position][0]])

    def compute_bounds(self) -> tuple[Counter[EquivalenceGroup], Counter[EquivalenceGroup]]:
        """Return the fewest and the most pods of each group that fit."""
        guaranteed = guaranteed_groups(self._problem)
        if guaranteed >= self._pods_per_group.keys():
            return self._pods_per_group, self._pods_per_group
        problem = self._problem
        for group in problem.groups:
            self._nodes_with_room[group] = nodes_with_room(group.possible_nodes, problem.free, group.requests)
        fewest = self._guaranteed_counts() | Counter({group: self._pods_per_group[group] for group in guaranteed})
        most = Counter(fewest)
        for number in range(_UPPER_BOUND_RUNS):
            promised, others = self._split_queue(fewest)
            self.last_run = self._new_run((default_score, self._noisy_score)[number % 2], certain_only=False)
            self.last_run.place(promised)
            self.last_run.place(others)
            most |= self.last_run.placed
        return fewest, most

    def _guaranteed_counts(self) -> Counter[EquivalenceGroup]:
        fewest, consistent_runs, runs = self._count_placed(default_score, self._queue), 0, 0
        corrected: set[EquivalenceGroup] = set()
        placements = _MAX_PLACEMENTS / (1 + len(self._problem.allocatable) / _LARGE_CLUSTER_NODES)
        max_runs = min(_MAX_RUNS, max(_UPPER_BOUND_RUNS, int(placements) // len(self._queue)))
        while consistent_runs < _REQUIRED_CONSISTENT_RUNS and runs < max_runs:
            order, _ = self._split_queue(fewest)
            cycle, function = divmod(runs, len(self._score_functions))
            if cycle % 2:
                order = self._perturb_order(order)
            placed = self._count_placed(self._score_functions[function], order)
            missing = fewest - placed
            consistent_runs = 0 if missing else consistent_runs + 1
            corrected |= missing.keys()
            fewest -= missing
            runs += 1
        # Without enough consistent runs, a group whose count was wrong before may be wrong again.
        return fewest if consistent_runs >= _REQUIRED_CONSISTENT_RUNS else fewest - Counter(corrected)

    def _count_placed(
        self, score: ScoreFunction | None, order: Sequence[EquivalenceGroup]
    ) -> Counter[EquivalenceGroup]:
        """Return how many pods of each group a run places after the competing pods."""
        run = self._new_run(score, certain_only=True)
        run.place(self._competing_groups)
        competing = Counter(run.placed)
        run.place(order)
        return run.placed - competing

    def _new_run(self, score: ScoreFunction | None, *, certain_only: bool) -> SchedulingRun:
        return SchedulingRun(
            self._problem, self._random, score, certain_only=certain_only, nodes_with_room=self._nodes_with_room
        )

    def _split_queue(
        self, guaranteed: Counter[EquivalenceGroup]
    ) -> tuple[list[EquivalenceGroup], list[EquivalenceGroup]]:
        """Split the queue into the guaranteed pods and the other pods, both in the order of the plan."""
        counts: Counter[EquivalenceGroup] = Counter()
        promised, others = list[EquivalenceGroup](), list[EquivalenceGroup]()
        for group in self._queue:
            counts[group] += 1
            (promised if counts[group] <= guaranteed[group] else others).append(group)
        return promised, others

    def _perturb_order(self, order: Sequence[EquivalenceGroup]) -> list[EquivalenceGroup]:
        ranks = sorted((rank + self._random.uniform(0, _MAX_RANK_SHIFT), rank) for rank in range(len(order)))
        return [order[rank] for _, rank in ranks]
