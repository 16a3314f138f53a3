"""Will these pods find a place on what is left, all together?

`Fits` is a promise: those pods are placed, on whichever nodes the scheduler chooses, when they ask in the plan's order
and before those that do not fit. It must never be wrong; where it might be, the answer is Unknown. Nothing is
preempted: a plan takes no other pod's place away.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random

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

_REQUIRED_CONSISTENT_RUNS = 72  # courses of events in a row in which all that is promised came true
_MAX_RUNS = 216  # are tried in all
_MAX_PLACEMENTS = 10_000  # pods are placed in all of them together, and it is enough
_LARGE_CLUSTER_NODES = 5_000  # nodes, where half of that is
_UPPER_BOUND_RUNS = 4  # for what may fit at best
_TIE_MARGIN = 0.03  # nodes that differ by less may be equal to the scheduler
_MAX_RANK_SHIFT = 8.0  # so many turns early or late a pod may ask


class Fit(StrEnum):
    """Whether a pod finds a place."""

    FITS = "Fits"
    DOES_NOT_FIT = "DoesNotFit"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Forecast:
    """What becomes of one pod.

    Attributes:
        turn: its place in the plan's order: those that fit come first.
        reason: why it does not fit, or why only the scheduler can say.
        crowded: other pods keep it off; more room would not help.
    """

    fit: Fit
    rank: int = 0
    reason: str = ""
    blocked_by_pods: bool = False


_DEPENDS_ON_OTHER_PODS = "it depends on where the scheduler puts the others"


def plan(pods_to_place: Sequence[ScheduledPod], inputs: PlacementInput, random: Random | None = None) -> list[Forecast]:
    """A forecast for each of the pods, in their order."""
    board = PlacementProblem(inputs, pods_to_place)
    PodConstraints(board).apply()
    tries = _Simulation(board, random or Random(0))  # noqa: S311 - no secret: the same plan twice is the same
    fewest, most = tries.compute_bounds()
    found: list[tuple[Fit, UnschedulableReason]] = [(Fit.FITS, UnschedulableReason())] * len(pods_to_place)
    shortages = UnschedulableExplainer(tries.last_run)
    for group in board.groups:
        none = (
            shortages.explain(group)
            if len(group.pod_indexes) > most[group] and not group.unknown_reason
            else UnschedulableReason()
        )
        for number, position in enumerate(group.pod_indexes):
            if group.unknown_reason:
                found[position] = (Fit.UNKNOWN, UnschedulableReason(group.unknown_reason))
            elif number >= most[group]:
                found[position] = (Fit.DOES_NOT_FIT, none)
            elif number >= fewest[group]:
                found[position] = (Fit.UNKNOWN, UnschedulableReason(_DEPENDS_ON_OTHER_PODS))
    turns = {position: turn for turn, position in enumerate(tries.sort_pods(found))}
    return [
        Forecast(fit, turns[position], short.message, short.blocked_by_pods)
        for position, (fit, short) in enumerate(found)
    ]


class _Simulation:
    """Tries several courses of events, for the fewest and the most pods of each group that find a place.

    Attributes:
        last: one of them, to its end.
    """

    def __init__(self, problem: PlacementProblem, random: Random) -> None:
        self._problem, self._random = problem, random
        whole = [max(1, sum(column)) for column in zip(*problem.allocatable, strict=True)]
        sizes = {g: max(amount / whole[kind] for kind, amount in g.requests) for g in problem.groups}
        pods = [
            (-g.requirements.priority, sizes[g], p, g)
            for g in problem.groups
            for p in g.pod_indexes
            if not g.unknown_reason
        ]
        # The scheduler's queue has the more important first. Of equal ones the small first: most find a place so, and
        # those that others leave no room for are the fewest.
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
        # The scheduler counts in whole percents, so that many nodes are equal, and takes one of these by chance.
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
        return lambda free, offered, size: score(free, offered, size) + uniform(0, max_noise)

    def sort_pods(self, results: Sequence[tuple[Fit, UnschedulableReason]]) -> list[int]:
        """The positions of all pods in the plan's order: those that fit first."""
        rank = {Fit.FITS: 0, Fit.UNKNOWN: 1, Fit.DOES_NOT_FIT: 2}
        doubted = [position for g in self._problem.groups if g.unknown_reason for position in g.pod_indexes]
        return sorted((*self._pod_indexes, *doubted), key=lambda position: rank[results[position][0]])

    def compute_bounds(self) -> tuple[Counter[EquivalenceGroup], Counter[EquivalenceGroup]]:
        """The fewest and the most of each group that find a place."""
        sure = guaranteed_groups(self._problem)
        if sure >= self._pods_per_group.keys():
            return self._pods_per_group, self._pods_per_group
        for group in self._problem.groups:
            self._nodes_with_room[group] = self._problem.filter_by_free_resources(group.possible_nodes, group)
        fewest = self._guaranteed_counts() | Counter({group: self._pods_per_group[group] for group in sure})
        most = Counter(fewest)
        for number in range(_UPPER_BOUND_RUNS):
            first, others = self._split_queue(fewest)
            self.last_run = self._new_run((default_score, self._noisy_score)[number % 2], certain_only=False)
            self.last_run.place(first)
            self.last_run.place(others)
            most |= self.last_run.placed
        return fewest, most

    def _guaranteed_counts(self) -> Counter[EquivalenceGroup]:
        fewest, clean, tried, shaken = self._count_placed(default_score, self._queue), 0, 0, set[EquivalenceGroup]()
        work = _MAX_PLACEMENTS / (1 + len(self._problem.allocatable) / _LARGE_CLUSTER_NODES)
        most = min(_MAX_RUNS, max(_UPPER_BOUND_RUNS, int(work) // len(self._queue)))
        while clean < _REQUIRED_CONSISTENT_RUNS and tried < most:
            order, _ = self._split_queue(fewest)
            course, way = divmod(tried, len(self._score_functions))
            if course % 2:
                order = self._perturb_order(order)
            placed = self._count_placed(self._score_functions[way], order)
            missing = fewest - placed
            clean = 0 if missing else clean + 1
            shaken |= missing.keys()
            fewest -= missing
            tried += 1
        # It was not tried often enough to promise what has been wrong before.
        return fewest if clean >= _REQUIRED_CONSISTENT_RUNS else fewest - Counter(shaken)

    def _count_placed(
        self, score: ScoreFunction | None, order: Sequence[EquivalenceGroup]
    ) -> Counter[EquivalenceGroup]:
        """How many of each group find a place when others that wait have theirs before."""
        packing = self._new_run(score, certain_only=True)
        packing.place(self._competing_groups)
        before = Counter(packing.placed)
        packing.place(order)
        return packing.placed - before

    def _new_run(self, score: ScoreFunction | None, *, certain_only: bool) -> SchedulingRun:
        return SchedulingRun(
            self._problem, self._random, score, certain_only=certain_only, nodes_with_room=self._nodes_with_room
        )

    def _split_queue(
        self, guaranteed: Counter[EquivalenceGroup]
    ) -> tuple[list[EquivalenceGroup], list[EquivalenceGroup]]:
        """Those that fit, and the others, both in the plan's order."""
        seen: Counter[EquivalenceGroup] = Counter()
        first, others = list[EquivalenceGroup](), list[EquivalenceGroup]()
        for group in self._queue:
            seen[group] += 1
            (first if seen[group] <= guaranteed[group] else others).append(group)
        return first, others

    def _perturb_order(self, order: Sequence[EquivalenceGroup]) -> list[EquivalenceGroup]:
        turns = sorted((turn + self._random.uniform(0, _MAX_RANK_SHIFT), turn) for turn in range(len(order)))
        return [order[turn] for _, turn in turns]
