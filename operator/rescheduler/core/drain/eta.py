"""Estimate when a drain is done, from its measured pace, the grace periods and the disruption budgets.

Pods under one budget leave one after another, and pods under other budgets leave at the same time. With one pace for
all pods, the estimate would be too early for the last pods of a tight budget.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil

from rescheduler.api.drains import BlockerClass
from rescheduler.core.eviction.pod_actions import PodDecision
from rescheduler.core.model.disruption_budgets import DisruptionBudget
from rescheduler.core.model.pods import Pod

TEMPORARY_BLOCKER_CLASSES = frozenset(
    {
        BlockerClass.BUDGET_EXHAUSTED,
        BlockerClass.BUDGET_NOT_OBSERVED,
        BlockerClass.THROTTLED,
        BlockerClass.DELEGATED,
    }
)
"""Classes that end by themselves; for every other class, no end can be estimated."""


@dataclass(frozen=True, slots=True)
class EvictionGroup:
    """Pods of one order that leave one after another: under one budget, or under none.

    Attributes:
        order: the order of the rule; lower orders leave first.
        remaining: pods that are still on the node.
        moved: pods under the same budget that have left since the operator started.
        active_time: how long the pods under this budget could leave, without pauses.
        max_disruptions: pods that the budget allows to be missing; None without a budget.
        grace_period: the longest grace period of the remaining pods.
    """

    order: int
    remaining: int
    moved: int
    active_time: timedelta
    max_disruptions: int | None
    grace_period: timedelta

    @property
    def wave_duration(self) -> timedelta | None:
        """Return how long one wave took: its pods left and were replaced; None if nothing was measured."""
        return self.active_time / self.moved * self.max_disruptions if self.moved and self.max_disruptions else None


class EvictionRates:
    """Measures how fast the pods of one drain leave, by budget. A restart of the operator loses the measurements."""

    def __init__(self) -> None:
        self._moved: Counter[str] = Counter()
        self._active_since: dict[
            str, timedelta
        ] = {}  # active time of the drain when the first pod of the budget could leave

    def record_moved(self, budget: DisruptionBudget | None) -> None:
        """Count a pod under this budget as moved."""
        self._moved[_budget_key(budget)] += 1

    def group_pods(
        self,
        pod_decisions: Iterable[tuple[Pod, PodDecision]],
        budgets: Mapping[str, DisruptionBudget],
        active_time: timedelta,
        *,
        grace_period_seconds: int | None = None,
    ) -> tuple[EvictionGroup, ...]:
        """Group the pods that must leave, by order and budget.

        `budgets`: by pod UID. `active_time`: the time of the drain without pauses. `grace_period_seconds`: replaces the
        grace period of each pod.
        """
        rows = list(pod_decisions)
        first = min((decision.order for _, decision in rows), default=0)
        pods_by_group: dict[tuple[int, str], list[Pod]] = {}
        for pod, decision in rows:
            key = _budget_key(budgets.get(pod.uid))
            pods_by_group.setdefault((decision.order, key), []).append(pod)
            if decision.order == first:
                self._active_since.setdefault(key, active_time)
        return tuple(
            EvictionGroup(
                order=order,
                remaining=len(pods),
                moved=self._moved[key],
                active_time=active_time - self._active_since.get(key, active_time),
                max_disruptions=_max_disruptions(budgets.get(pods[0].uid)),
                grace_period=timedelta(
                    seconds=max(pod.grace_period_seconds for pod in pods)
                    if grace_period_seconds is None
                    else grace_period_seconds
                ),
            )
            for (order, key), pods in pods_by_group.items()
        )


def _budget_key(budget: DisruptionBudget | None) -> str:
    return budget.uid if budget else ""


def _max_disruptions(budget: DisruptionBudget | None) -> int | None:
    return max(1, budget.expected - budget.needed) if budget else None


def completion(
    groups: Iterable[EvictionGroup], *, active_time: timedelta, moved: int, now: datetime, rate: float
) -> datetime | None:
    """Return when the last pod leaves; None if no pod is left, or if nothing was measured.

    Orders add up, and the groups of one order run at the same time. After a restart, only `moved` pods in the
    `active_time` of the drain are known. `rate`: the evictions a second that the policy allows.
    """
    remaining_groups = list(groups)
    if not remaining_groups or not moved or active_time <= timedelta():
        return None
    try:
        return now + _total_duration(remaining_groups, active_time / moved, rate)
    except OverflowError:  # impossible times or counts in a hand-written status
        return None


def _total_duration(groups: list[EvictionGroup], time_per_pod: timedelta, rate: float) -> timedelta:
    """Return the duration of all groups; `time_per_pod` is the average so far."""
    measured = [group.wave_duration for group in groups if group.wave_duration]
    total = timedelta()
    for order in {group.order for group in groups}:
        concurrent = [group for group in groups if group.order == order]
        slowest = max(_group_duration(group, max(measured, default=None), time_per_pod) for group in concurrent)
        total += max(slowest, timedelta(seconds=sum(group.remaining for group in concurrent) / rate))
    return total


def min_duration(groups: Iterable[EvictionGroup], rate: float) -> timedelta:
    """Return the shortest duration of a drain, before any measurement: from grace periods, budgets and the rate."""
    all_groups = list(groups)
    total = timedelta()
    for order in {group.order for group in all_groups}:
        concurrent = [group for group in all_groups if group.order == order]
        slowest = max(
            group.grace_period * ceil(group.remaining / (group.max_disruptions or group.remaining))
            for group in concurrent
        )
        total += max(slowest, timedelta(seconds=sum(group.remaining for group in concurrent) / rate))
    return total


def _group_duration(group: EvictionGroup, wave_duration: timedelta | None, time_per_pod: timedelta) -> timedelta:
    """Return the duration of one group: by its own pace, else the pace of others, and never below its grace period."""
    if group.moved:
        return max(group.active_time / group.moved * group.remaining, group.grace_period)
    if group.max_disruptions is None:
        return max(time_per_pod * group.remaining, group.grace_period)
    waves = ceil(group.remaining / group.max_disruptions)
    # No pod under this budget has left yet: a wave takes at least a grace period.
    return waves * max(wave_duration or time_per_pod * group.max_disruptions, group.grace_period)
