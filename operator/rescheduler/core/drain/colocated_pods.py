"""Let colocated pods leave together: none of them leaves while another one may not.

The new pods find a place only when all colocated pods have left (`core/placement/colocation.py`). A pod that leaves
before the others would only be missing.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from rescheduler.api.drains import BlockerClass
from rescheduler.core.drain import messages
from rescheduler.core.drain.capacity import Forecasts
from rescheduler.core.eviction import api_responses
from rescheduler.core.eviction.pod_actions import PodAction, PodDecision, PodWithDecision
from rescheduler.core.model.disruption_budgets import DisruptionBudget
from rescheduler.core.model.pods import Pod
from rescheduler.core.replacement.decisions import ReplacementDecision, ReplacementStep
from rescheduler.core.replacement.movers import has_mover

BudgetsOf = Callable[[Pod], Sequence[DisruptionBudget]]
"""Returns the PodDisruptionBudgets that cover a pod."""


def hold_for_colocated_pods(
    pod_decisions: Sequence[PodWithDecision],
    decisions: Mapping[str, ReplacementDecision],
    forecasts: Forecasts,
    budgets_of: BudgetsOf,
    evicting_uids: Collection[str],
) -> dict[str, ReplacementDecision]:
    """Return the decisions for colocated pods that wait for each other: these pods stay.

    `evicting_uids`: pods that count as gone.
    """
    present = {pod.uid: (pod, decision) for pod, decision in pod_decisions if pod.uid not in evicting_uids}
    held: dict[str, ReplacementDecision] = {}
    for uids in _colocated_sets(forecasts):
        rows = [present[uid] for uid in sorted(uids & present.keys())]
        leaving = [pod for pod, decision in rows if _leaves_plainly(pod, decision, decisions)]
        blocker = (
            _blocked_pod(rows, decisions) or _refused_pod(leaving, budgets_of) or _too_small_budget(leaving, budgets_of)
        )
        for pod in leaving if blocker else ():
            # A pod whose own budget refuses it remains a normal refusal: webhooks must hear of its eviction.
            if blocker and not api_responses.predict_refusal(pod, budgets_of(pod)):
                held[pod.uid] = blocker
    return held


def with_common_order(pod_decisions: Sequence[PodWithDecision], forecasts: Forecasts) -> list[PodWithDecision]:
    """Return the decisions, in which colocated pods have the highest order of any of them."""
    orders = {pod.uid: decision.order for pod, decision in pod_decisions}
    highest: dict[str, int] = {}
    for uids in _colocated_sets(forecasts):
        highest |= dict.fromkeys(uids, max((orders[uid] for uid in uids if uid in orders), default=0))
    return [
        (pod, replace(decision, order=highest[pod.uid]) if pod.uid in highest else decision)
        for pod, decision in pod_decisions
    ]


def _colocated_sets(forecasts: Forecasts) -> set[frozenset[str]]:
    """Return the uids of the pods of each set of two or more colocated pods."""
    return {forecast.colocated_uids for forecast in forecasts.values() if len(forecast.colocated_uids) > 1}


def _leaves_plainly(pod: Pod, decision: PodDecision, decisions: Mapping[str, ReplacementDecision]) -> bool:
    replacement = decisions.get(pod.uid)
    is_plain = replacement is None or replacement.step is ReplacementStep.PLAIN_EVICTION
    return decision.action is PodAction.EVICT and is_plain and not pod.finished


def _hold(blocker_class: BlockerClass | None, message: str, hint: str) -> ReplacementDecision:
    return ReplacementDecision(ReplacementStep.HOLD, blocker_class=blocker_class, message=message, hint=hint)


def _blocked_pod(
    rows: Iterable[PodWithDecision], decisions: Mapping[str, ReplacementDecision]
) -> ReplacementDecision | None:
    """Return the hold for the first pod that must not leave now, such as one without room; None if there is none."""
    for pod, decision in rows:
        if (held := decisions.get(pod.uid)) and held.step is ReplacementStep.HOLD:
            return _hold(held.blocker_class, messages.leaves_with_blocked_pod(pod.key, held.message), held.hint)
        if decision.action is PodAction.BLOCK:
            message = messages.leaves_with_blocked_pod(pod.key, decision.message)
            return _hold(decision.blocker_class, message, decision.hint)
    return None


def _refused_pod(leaving: Sequence[Pod], budgets_of: BudgetsOf) -> ReplacementDecision | None:
    """Return the hold for the first pod that its budget refuses; None if there is none, or if a mover acts on refusals."""
    for pod in leaving if not any(map(has_mover, leaving)) else ():
        if refusal := api_responses.predict_refusal(pod, budgets_of(pod)):
            message = messages.leaves_with_blocked_pod(pod.key, refusal.message)
            return _hold(refusal.blocker_class, message, refusal.hint)
    return None


def _too_small_budget(leaving: Sequence[Pod], budgets_of: BudgetsOf) -> ReplacementDecision | None:
    """Return the hold for the first budget that does not allow all of its pods to leave; None if there is none."""
    all_budgets = [(pod, budget) for pod in leaving for budget in budgets_of(pod)]
    counts = Counter(budget.uid for pod, budget in all_budgets if budget.counts_eviction_of(pod))
    for _, budget in all_budgets if not any(map(has_mover, leaving)) else ():
        if budget.allowed < counts[budget.uid]:
            message, hint = messages.budget_too_small_for_all(budget, counts[budget.uid])
            return _hold(BlockerClass.BUDGET_EXHAUSTED, message, hint)
    return None
