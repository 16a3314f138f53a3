"""When a drain should be done: from what was measured in this very drain, grace periods, and what budgets let go.

Pods under one budget leave one after another, those under others beside them. One pace for all would promise the last
pods of a tight budget at the speed of those that nothing held.
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
"""What blocks a pod only until others are Ready, or have done their work; nobody knows when the rest ends."""


@dataclass(frozen=True, slots=True)
class EvictionGroup:
    """Pods of one order that leave one after another: those under one budget, or those under none.

    Attributes:
        left: how many are still there.
        gone: how many under the same budget have left while we looked, and `active`: how long they had their turn.
        at_once: how many the budget lets be missing; None: it has no budget.
        grace: the longest grace period of those left.
    """

    order: int
    remaining: int
    moved: int
    active_time: timedelta
    max_disruptions: int | None
    grace_period: timedelta

    @property
    def wave_duration(self) -> timedelta | None:
        """How long it took until as many as may be missing had left and been replaced; None where nothing tells."""
        return self.active_time / self.moved * self.max_disruptions if self.moved and self.max_disruptions else None


class EvictionRates:
    """How fast the pods of one drain leave, by budget; what was measured is forgotten with the process."""

    def __init__(self) -> None:
        self._moved: Counter[str] = Counter()
        self._active_since: dict[str, timedelta] = {}  # active time of the drain when the first pod had its turn

    def record_moved(self, budget: DisruptionBudget | None) -> None:
        """A pod under this budget has left."""
        self._moved[_budget_key(budget)] += 1

    def group_pods(
        self,
        pod_decisions: Iterable[tuple[Pod, PodDecision]],
        budgets: Mapping[str, DisruptionBudget],
        active_time: timedelta,
        *,
        grace_period_seconds: int | None = None,
    ) -> tuple[EvictionGroup, ...]:
        """The pods that must leave, in their lines.

        `budgets`: by pod uid. `active`: the drain's time, pauses left out. `grace`: instead of the pods' own.
        """
        waiting = list(pod_decisions)
        first = min((verdict.order for _, verdict in waiting), default=0)
        lines: dict[tuple[int, str], list[Pod]] = {}
        for pod, verdict in waiting:
            key = _budget_key(budgets.get(pod.uid))
            lines.setdefault((verdict.order, key), []).append(pod)
            if verdict.order == first:
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
            for (order, key), pods in lines.items()
        )


def _budget_key(budget: DisruptionBudget | None) -> str:
    return budget.uid if budget else ""


def _max_disruptions(budget: DisruptionBudget | None) -> int | None:
    return max(1, budget.expected - budget.needed) if budget else None


def completion(
    groups: Iterable[EvictionGroup], *, active_time: timedelta, moved: int, now: datetime, rate: float
) -> datetime | None:
    """When the last pod should be gone; None while nothing is left, or nothing was measured.

    Orders add up, the lines of one order go side by side. `moved`, in the `active` time of the whole drain, is all
    that is known after a restart. `rate`: evictions a second that the policy lets pass.
    """
    found = list(groups)
    if not found or not moved or active_time <= timedelta():
        return None
    try:
        return now + _total_duration(found, active_time / moved, rate)
    except OverflowError:  # from times and counts in a status that cannot be true
        return None


def _total_duration(groups: list[EvictionGroup], time_per_pod: timedelta, rate: float) -> timedelta:
    """How long all lines should take; `common`: how long one pod took so far."""
    measured = [line.wave_duration for line in groups if line.wave_duration]
    spent = timedelta()
    for order in {line.order for line in groups}:
        peers = [line for line in groups if line.order == order]
        slowest = max(_group_duration(line, max(measured, default=None), time_per_pod) for line in peers)
        spent += max(slowest, timedelta(seconds=sum(line.remaining for line in peers) / rate))
    return spent


def min_duration(groups: Iterable[EvictionGroup], rate: float) -> timedelta:
    """How long a drain takes at least, before anything of it was measured: by grace periods, budgets and the rate."""
    found = list(groups)
    spent = timedelta()
    for order in {line.order for line in found}:
        peers = [line for line in found if line.order == order]
        slowest = max(
            line.grace_period * ceil(line.remaining / (line.max_disruptions or line.remaining)) for line in peers
        )
        spent += max(slowest, timedelta(seconds=sum(line.remaining for line in peers) / rate))
    return spent


def _group_duration(group: EvictionGroup, wave_duration: timedelta | None, time_per_pod: timedelta) -> timedelta:
    """How long one line should take: by its own pace, else by that of others, and never less than its grace."""
    if group.moved:
        return max(group.active_time / group.moved * group.remaining, group.grace_period)
    if group.max_disruptions is None:
        return max(time_per_pod * group.remaining, group.grace_period)
    waves = ceil(group.remaining / group.max_disruptions)
    # Nothing under a budget has left yet: a wave takes a grace period at least.
    return waves * max(wave_duration or time_per_pod * group.max_disruptions, group.grace_period)
