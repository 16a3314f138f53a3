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
from rescheduler.core.eviction.pod_actions import Verdict
from rescheduler.core.model.disruption_budgets import Budget
from rescheduler.core.model.pods import Pod

ENDS_BY_ITSELF = frozenset(
    {
        BlockerClass.BUDGET_EXHAUSTED,
        BlockerClass.BUDGET_NOT_OBSERVED,
        BlockerClass.THROTTLED,
        BlockerClass.DELEGATED,
    }
)
"""What blocks a pod only until others are Ready, or have done their work; nobody knows when the rest ends."""


@dataclass(frozen=True, slots=True)
class Line:
    """Pods of one order that leave one after another: those under one budget, or those under none.

    Attributes:
        left: how many are still there.
        gone: how many under the same budget have left while we looked, and `active`: how long they had their turn.
        at_once: how many the budget lets be missing; None: it has no budget.
        grace: the longest grace period of those left.
    """

    order: int
    left: int
    gone: int
    active: timedelta
    at_once: int | None
    grace: timedelta

    @property
    def wave(self) -> timedelta | None:
        """How long it took until as many as may be missing had left and been replaced; None where nothing tells."""
        return self.active / self.gone * self.at_once if self.gone and self.at_once else None


class Paces:
    """How fast the pods of one drain leave, by budget; what was measured is forgotten with the process."""

    def __init__(self) -> None:
        self._gone: Counter[str] = Counter()
        self._since: dict[str, timedelta] = {}  # active time of the drain when the first pod had its turn

    def left(self, budget: Budget | None) -> None:
        """A pod under this budget has left."""
        self._gone[_key(budget)] += 1

    def lines(
        self,
        rows: Iterable[tuple[Pod, Verdict]],
        budgets: Mapping[str, Budget],
        active: timedelta,
        *,
        grace: int | None = None,
    ) -> tuple[Line, ...]:
        """The pods that must leave, in their lines.

        `budgets`: by pod uid. `active`: the drain's time, pauses left out. `grace`: instead of the pods' own.
        """
        waiting = list(rows)
        first = min((verdict.order for _, verdict in waiting), default=0)
        lines: dict[tuple[int, str], list[Pod]] = {}
        for pod, verdict in waiting:
            key = _key(budgets.get(pod.uid))
            lines.setdefault((verdict.order, key), []).append(pod)
            if verdict.order == first:
                self._since.setdefault(key, active)
        return tuple(
            Line(
                order=order,
                left=len(pods),
                gone=self._gone[key],
                active=active - self._since.get(key, active),
                at_once=_at_once(budgets.get(pods[0].uid)),
                grace=timedelta(seconds=max(pod.grace for pod in pods) if grace is None else grace),
            )
            for (order, key), pods in lines.items()
        )


def _key(budget: Budget | None) -> str:
    return budget.uid if budget else ""


def _at_once(budget: Budget | None) -> int | None:
    return max(1, budget.expected - budget.needed) if budget else None


def completion(lines: Iterable[Line], *, active: timedelta, moved: int, now: datetime, rate: float) -> datetime | None:
    """When the last pod should be gone; None while nothing is left, or nothing was measured.

    Orders add up, the lines of one order go side by side. `moved`, in the `active` time of the whole drain, is all
    that is known after a restart. `rate`: evictions a second that the policy lets pass.
    """
    found = list(lines)
    if not found or not moved or active <= timedelta():
        return None
    try:
        return now + _spent(found, active / moved, rate)
    except OverflowError:  # from times and counts in a status that cannot be true
        return None


def _spent(found: list[Line], common: timedelta, rate: float) -> timedelta:
    """How long all lines should take; `common`: how long one pod took so far."""
    measured = [line.wave for line in found if line.wave]
    spent = timedelta()
    for order in {line.order for line in found}:
        peers = [line for line in found if line.order == order]
        slowest = max(_ends(line, max(measured, default=None), common) for line in peers)
        spent += max(slowest, timedelta(seconds=sum(line.left for line in peers) / rate))
    return spent


def least(lines: Iterable[Line], rate: float) -> timedelta:
    """How long a drain takes at least, before anything of it was measured: by grace periods, budgets and the rate."""
    found = list(lines)
    spent = timedelta()
    for order in {line.order for line in found}:
        peers = [line for line in found if line.order == order]
        slowest = max(line.grace * ceil(line.left / (line.at_once or line.left)) for line in peers)
        spent += max(slowest, timedelta(seconds=sum(line.left for line in peers) / rate))
    return spent


def _ends(line: Line, wave: timedelta | None, common: timedelta) -> timedelta:
    """How long one line should take: by its own pace, else by that of others, and never less than its grace."""
    if line.gone:
        return max(line.active / line.gone * line.left, line.grace)
    if line.at_once is None:
        return max(common * line.left, line.grace)
    waves = ceil(line.left / line.at_once)
    # Nothing under a budget has left yet: a wave takes a grace period at least.
    return waves * max(wave or common * line.at_once, line.grace)
