"""Plan whether displaced pods all fit into the free capacity together.

`Fits` is a promise: the scheduler places the pod, whichever nodes it chooses, if pods come in the order of the
plan. `Fits` must never be wrong. If it could be wrong, the result is `Unknown`. A plan never
counts on preemption.

The order decides how many pods fit. If small pods come first, a scheduler that spreads pods leaves no large gap. If
large pods come first, they may take the room of many small ones. A plan tries both orders and keeps the better one.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import reduce
from operator import and_
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
_MAX_RUNS = 216  # runs that one count makes
_VERIFICATION_RUNS = 288  # the best of several counts may be the luckiest; so many more runs in a row verify it
_MAX_PLACEMENTS = 10_000  # pods that all runs of one plan place together
_LARGE_CLUSTER_NODES = 5_000  # nodes; with this many, a plan may place half of _MAX_PLACEMENTS
_STARTS = 3  # runs that a count of promised pods starts from
_TYPICAL_RUNS = 8  # if half of these runs place all pods, pods that may not fit keep their turn
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


@dataclass(frozen=True, slots=True)
class Plan:
    """Result of a plan.

    Attributes:
        forecasts: one for each pod, in the order of the pods to place.
        usually_places_all: whether the scheduler places all pods as a rule, even if not all of them certainly fit.
    """

    forecasts: list[Forecast]
    usually_places_all: bool


_Result = tuple[Fit, UnschedulableReason]


def plan(pods_to_place: Sequence[ScheduledPod], inputs: PlacementInput, random: Random | None = None) -> list[Forecast]:
    """Return a forecast for each pod, in the order of `pods_to_place`."""
    return make_plan(pods_to_place, inputs, random).forecasts


def make_plan(pods_to_place: Sequence[ScheduledPod], inputs: PlacementInput, random: Random | None = None) -> Plan:
    """Return the whole plan for these pods."""
    problem = PlacementProblem(inputs, pods_to_place)
    PodConstraints(problem).apply()
    bounds = _Simulation(problem, random or Random(0)).compute_bounds()  # noqa: S311 - a fixed seed: equal input, equal plan
    fewest, most = bounds.fewest, bounds.most
    results: list[_Result] = [(Fit.FITS, UnschedulableReason())] * len(pods_to_place)
    explainer = UnschedulableExplainer(bounds.run)
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
    ranks = {position: rank for rank, position in enumerate(_sort_pods(problem, bounds.order, results))}
    forecasts = [
        Forecast(
            fit, ranks[position], reason.message, reason.blocked_by_pods, colocated_uids.get(position, frozenset())
        )
        for position, (fit, reason) in enumerate(results)
    ]
    return Plan(forecasts, bounds.order.keeps_turns or all(fit is Fit.FITS for fit, _ in results))


def _judge_as_one(
    results: list[_Result],
    positions: Sequence[int],
    problem: PlacementProblem,
    colocated: ColocatedGroups,
    keys: Sequence[str],
) -> None:
    """Judge colocated pods together: a pod that fits alone may not follow the others, or they it.

    If no node has room for all of them, the scheduler may still place some.

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
        if fit is Fit.DOES_NOT_FIT and own_fit is not Fit.DOES_NOT_FIT:
            results[position] = (Fit.UNKNOWN, UnschedulableReason(messages.DEPENDS_ON_OTHER_PODS))
        elif own_fit is not fit or own.blocked_by_pods is not reason.blocked_by_pods:
            results[position] = (fit, reason)


def _sort_pods(problem: PlacementProblem, order: "_Order", results: Sequence[_Result]) -> list[int]:
    """Return the indexes of all pods in this order."""
    unknown = [position for g in problem.groups if g.unknown_reason for position in g.pod_indexes]
    positions = [*order.pod_indexes, *unknown]
    if order.keeps_turns:
        return positions
    turn = {Fit.FITS: 0, Fit.UNKNOWN: 1, Fit.DOES_NOT_FIT: 2}
    return sorted(positions, key=lambda position: turn[results[position][0]])


@dataclass(frozen=True, slots=True)
class _Order:
    """Order in which pods come to the scheduler: the group and the index of each pod.

    Attributes:
        turns: turn of each pod; pods come early or late only within their turn.
        keeps_turns: whether pods that may not fit keep their turn; otherwise they come after all pods that fit. They
            keep it if the scheduler places all pods as a rule: asked last, a large pod would find no gap.
    """

    groups: Sequence[EquivalenceGroup]
    pod_indexes: Sequence[int]
    turns: Sequence[int]
    keeps_turns: bool = False

    def at(self, places: Sequence[int]) -> "_Order":
        """Return the pods at these places of the order."""
        return _Order(
            [self.groups[n] for n in places],
            [self.pod_indexes[n] for n in places],
            [self.turns[n] for n in places],
            self.keeps_turns,
        )

    def with_first(self, counts: Counter[EquivalenceGroup]) -> "_Order":
        """Return the order in which this number of pods of each group come before the others of their priority."""
        seen: Counter[EquivalenceGroup] = Counter()
        rows = []
        for n, (group, turn) in enumerate(zip(self.groups, self.turns, strict=True)):
            seen[group] += 1
            rows.append((turn, -group.requirements.priority, seen[group] > counts[group], n))
        return self.at([n for *_, n in sorted(rows)])


@dataclass(frozen=True, slots=True)
class _Bounds:
    """Number of pods of each group that fit.

    Attributes:
        order: order of the pods in which at least `fewest` fit.
        most: the most pods that fit in any tried order.
        run: a completed run in this order, which explains why pods do not fit.
    """

    order: _Order
    fewest: Counter[EquivalenceGroup]
    most: Counter[EquivalenceGroup]
    run: SchedulingRun


class _Simulation:
    """Repeats scheduling runs to bound the number of pods of each group that fit."""

    def __init__(self, problem: PlacementProblem, random: Random) -> None:
        self._problem, self._random = problem, random
        self._competing_groups = [
            g
            for g in problem.groups
            for _ in range(g.competing_count + (len(g.pod_indexes) if g.unknown_reason else 0))
        ]
        self._pods_per_group = Counter(
            {g: len(g.pod_indexes) for g in problem.groups if g.pod_indexes and not g.unknown_reason}
        )
        self._guaranteed: Counter[EquivalenceGroup] = Counter()
        self._nodes_with_room: dict[EquivalenceGroup, Sequence[int]] = {}
        self._noisy_score = self._with_noise(default_score, 0.3)
        # The scheduler rounds scores to whole percents and picks a random node among equals.
        tied = self._tied_score = self._with_noise(default_score, _TIE_MARGIN)
        before_1_35 = self._with_noise(default_score_before_1_35, _TIE_MARGIN)
        self._score_functions = (tied, self._noisy_score, tied, before_1_35, tied, None)
        self._likely_score_functions = (tied, tied, before_1_35)

    def _with_noise(self, score: ScoreFunction, max_noise: float) -> ScoreFunction:
        uniform = self._random.uniform
        return lambda free, allocatable, requested: score(free, allocatable, requested) + uniform(0, max_noise)

    def _orders(self) -> tuple[_Order, _Order]:
        """Return the order with large pods first, and the one with small pods first, among pods of equal priority.

        Chain moves come before all other pods, and the pods that wait for them come last.
        """
        totals = [max(1, sum(column)) for column in zip(*self._problem.allocatable, strict=True)]
        turns = self._problem.turns
        rows = [
            (
                turns[p],
                group.requirements.priority,
                max(amount / totals[kind] for kind, amount in group.requests),
                p,
                group,
            )
            for group in self._pods_per_group
            for p in group.pod_indexes
        ]

        def order(sign: int) -> _Order:
            # The scheduler's queue is sorted by priority.
            ordered = sorted(rows, key=lambda row: (row[0], -row[1], sign * row[2], row[3]))
            pod_indexes = [position for *_, position, _ in ordered]
            return _Order([group for *_, group in ordered], pod_indexes, [turns[p] for p in pod_indexes])

        return order(-1), order(1)

    def compute_bounds(self) -> _Bounds:
        """Return the bounds of the better order; the other order is not tried if all pods fit in the first."""
        problem, (first_order, second_order) = self._problem, self._orders()
        guaranteed = guaranteed_groups(problem)
        self._guaranteed = Counter({group: self._pods_per_group[group] for group in guaranteed})
        if guaranteed >= self._pods_per_group.keys():
            run = SchedulingRun(problem, self._random, None, certain_only=False)
            return _Bounds(first_order, self._pods_per_group, self._pods_per_group, run)
        for group in problem.groups:
            self._nodes_with_room[group] = nodes_with_room(group.possible_nodes, problem.free, group.requests)
        first = self._verified(self._bounds_of(first_order))
        if first.fewest == self._pods_per_group:
            return first
        second = self._bounds_of(second_order, better_than=first)
        better = second if self._quality(second) > self._quality(first) else first
        return self._verified(self._with_later_pods(replace(better, most=first.most | second.most)))

    def _quality(self, bounds: _Bounds) -> tuple[bool, bool, int]:
        fewest = bounds.fewest.total()
        return fewest == self._pods_per_group.total(), bounds.order.keeps_turns, fewest

    def _bounds_of(self, order: _Order, better_than: _Bounds | None = None) -> _Bounds:
        """Return the bounds of this order; `fewest` is too high if they are not better than these others."""
        typical = self._typical_counts(order)
        order = replace(order, keeps_turns=2 * typical.count(self._pods_per_group) >= _TYPICAL_RUNS)
        more_than = -1
        if better_than and better_than.order.keeps_turns > order.keeps_turns:
            more_than = self._pods_per_group.total() - 1
        elif better_than and better_than.order.keeps_turns == order.keeps_turns:
            more_than = better_than.fewest.total()
        fewest = self._best_guaranteed_counts(order, max(typical, key=Counter.total), more_than)
        most, run = Counter(fewest), self._new_run(self._tied_score, certain_only=False)
        for placed in typical:
            most |= placed
        for number in range(_UPPER_BOUND_RUNS):
            run = self._new_run((self._tied_score, self._noisy_score)[number % 2], certain_only=False)
            for part in _split(order, fewest):
                run.place(part.groups)
            most |= run.placed
        return _Bounds(order, fewest, most, run)

    def _with_later_pods(self, bounds: _Bounds) -> _Bounds:
        """Return the bounds with more pods that fit: those that are placed after all others in every run."""
        fewest, order = bounds.fewest, bounds.order
        queue, later = _split(order, fewest)
        if not later.groups or not self._may_be_certain(order):
            return bounds
        runs = [self._count_placed(self._tied_score, queue.groups, later.groups) for _ in range(_TYPICAL_RUNS)]
        order = order.with_first(fewest)
        more = self._guaranteed_counts(order, fewest | reduce(and_, runs), fewest.total())
        if more.total() <= fewest.total():
            return bounds
        return replace(bounds, order=order, fewest=more, most=bounds.most | more)

    def _verified(self, bounds: _Bounds) -> _Bounds:
        """Return the bounds without the pods that some of many more runs do not place."""
        if not self._may_be_certain(bounds.order):
            return bounds
        return replace(bounds, fewest=self._guaranteed_counts(bounds.order, bounds.fewest, -1, verify=True))

    def _typical_counts(self, order: _Order) -> list[Counter[EquivalenceGroup]]:
        """Return how many pods of each group some runs place if all pods keep their turn."""
        typical = [self._count_placed(score, order.groups) for score in (default_score, self._tied_score)]
        while self._pods_per_group in typical and len(typical) < _TYPICAL_RUNS:
            typical.append(self._count_placed(self._tied_score, order.groups))
        return typical

    def _best_guaranteed_counts(
        self, order: _Order, placed: Counter[EquivalenceGroup], more_than: int
    ) -> Counter[EquivalenceGroup]:
        """Return the best of several results of `_guaranteed_counts`: they depend on the run that they start from."""
        best = self._guaranteed_counts(order, placed, more_than)
        for _ in range(_STARTS - 1 if self._may_be_certain(order) else 0):
            if best == self._pods_per_group:
                break
            placed = self._count_placed(self._tied_score, order.groups)
            other = self._guaranteed_counts(order, placed, max(more_than, best.total()))
            best = max(best, other, key=Counter.total)
        return best

    def _guaranteed_counts(
        self, order: _Order, placed: Counter[EquivalenceGroup], more_than: int, *, verify: bool = False
    ) -> Counter[EquivalenceGroup]:
        """Return how many pods of each group fit for certain; `placed`: by a first run.

        The result is too high if not more than `more_than` pods fit. `verify`: make more runs that are likely, instead
        of all kinds of runs.
        """
        fewest, consistent_runs, runs = Counter(placed), 0, 0
        corrected: set[EquivalenceGroup] = set()
        required_runs = _VERIFICATION_RUNS if verify else _REQUIRED_CONSISTENT_RUNS
        max_runs = self._max_runs(order) * required_runs // _REQUIRED_CONSISTENT_RUNS
        while consistent_runs < required_runs and runs < max_runs:
            if (fewest | self._guaranteed).total() <= more_than:
                break
            queue, _ = _split(order, fewest)
            functions = self._likely_score_functions if verify else self._score_functions
            cycle, function = divmod(runs, len(functions))
            if verify or cycle % 2:
                queue = self._perturb_order(queue)
            missing = fewest - self._count_placed(functions[function], queue.groups)
            consistent_runs = 0 if missing else consistent_runs + 1
            corrected |= missing.keys()
            fewest -= missing
            runs += 1
        # Without enough consistent runs, a group whose count was wrong before may be wrong again.
        certain = fewest if consistent_runs >= required_runs else fewest - Counter(corrected)
        return certain | self._guaranteed

    def _max_runs(self, order: _Order) -> int:
        placements = _MAX_PLACEMENTS / (1 + len(self._problem.allocatable) / _LARGE_CLUSTER_NODES)
        return min(_MAX_RUNS, max(_UPPER_BOUND_RUNS, int(placements) // len(order.groups)))

    def _may_be_certain(self, order: _Order) -> bool:
        """Whether a plan may make enough runs of this order for a certain result; a large plan may not."""
        return self._max_runs(order) > _REQUIRED_CONSISTENT_RUNS

    def _count_placed(
        self, score: ScoreFunction | None, *queues: Sequence[EquivalenceGroup]
    ) -> Counter[EquivalenceGroup]:
        """Return how many pods of each group a run places after the competing pods, one queue after the other."""
        run = self._new_run(score, certain_only=True)
        run.place(self._competing_groups)
        competing = Counter(run.placed)
        for queue in queues:
            run.place(queue)
        return run.placed - competing

    def _new_run(self, score: ScoreFunction | None, *, certain_only: bool) -> SchedulingRun:
        return SchedulingRun(
            self._problem, self._random, score, certain_only=certain_only, nodes_with_room=self._nodes_with_room
        )

    def _perturb_order(self, order: _Order) -> _Order:
        shifted = [(turn, n + self._random.uniform(0, _MAX_RANK_SHIFT), n) for n, turn in enumerate(order.turns)]
        return order.at([n for *_, n in sorted(shifted)])


def _split(order: _Order, guaranteed: Counter[EquivalenceGroup]) -> tuple[_Order, _Order]:
    """Split the pods into those that come first and those that come last."""
    if order.keeps_turns:
        return order, order.at(())
    counts: Counter[EquivalenceGroup] = Counter()
    first, last = list[int](), list[int]()
    for n, group in enumerate(order.groups):
        counts[group] += 1
        (first if counts[group] <= guaranteed[group] else last).append(n)
    return order.at(first), order.at(last)
