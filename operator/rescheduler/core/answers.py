"""What the API server says to an eviction, told apart.

Four different refusals come as 429, two as 403; each asks for something else. Source: `pkg/registry/core/pod/
storage/eviction.go` of Kubernetes 1.37.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from rescheduler.api.drains import BlockerClass
from rescheduler.core.budgets import Budget

_DENIES = "denied the request"
_CATCH_UP = "the disruption controller has to catch up; look at kube-controller-manager if it stays"
_ANOTHER = re.compile(r"UID in (the )?precondition", re.IGNORECASE)
"""Another pod has its name now. (Where the resourceVersion differs it is the same pod, changed since.)"""


class Outcome(StrEnum):
    """What an eviction or delete came to."""

    ACCEPTED = "accepted"  # on its way: wait until it is gone
    GONE = "gone"  # not there, or another pod of its name: nothing left to do
    REFUSED = "refused"  # a blocker: wait for what it names
    RETRY = "retry"  # nobody's fault: again, with back-off


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that was no success: HTTP status and what the Status object says."""

    code: int
    reason: str = ""
    message: str = ""
    causes: tuple[tuple[str, str], ...] = ()  # (reason, message)
    retry_after: float = 0.0  # seconds

    def cause(self, reason: str) -> str | None:
        """Message of the first cause of this reason; None where there is none."""
        return next((message for name, message in self.causes if name == reason), None)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, judged. `retry_after`: seconds that the server asked for, 0 where it did not; `budget`: the one that refused."""

    outcome: Outcome
    cause: BlockerClass | None = None
    message: str = ""
    hint: str = ""
    retry_after: float = 0.0
    budget: Budget | None = None


ACCEPTED = Answer(Outcome.ACCEPTED)
OF_BUDGETS = (BlockerClass.BUDGET_EXHAUSTED, BlockerClass.BUDGET_MISCONFIGURED, BlockerClass.BUDGET_NOT_OBSERVED)
"""What a budget refuses now it may allow later, without anybody's doing."""


def judge(refusal: Refusal, budget: Budget | None) -> Answer:
    """What a refused eviction means; `budget` is the pod's, as last seen."""
    match refusal.code:
        case 404 | 409 if refusal.code == 404 or _ANOTHER.search(refusal.message):
            return Answer(Outcome.GONE)
        case 429:
            return _too_many(refusal, budget)
        case 403 if refusal.cause("NamespaceTerminating") is not None:
            return _refused(
                BlockerClass.NAMESPACE_TERMINATING, refusal, "its namespace is being deleted, and the pod with it"
            )
        case 403 if refusal.cause("DisruptionBudget") is not None:
            return _refused(BlockerClass.BUDGET_NOT_OBSERVED, refusal, _CATCH_UP)
        case 500 if "more than one PodDisruptionBudget" in refusal.message:
            return _refused(
                BlockerClass.SEVERAL_BUDGETS,
                refusal,
                "the API server evicts no pod under two budgets: narrow one PodDisruptionBudget's selector",
            )
        case 403 | 400 | 422:
            return _refused(BlockerClass.ADMISSION_DENIED, refusal, "ask whoever runs the admission policy it names")
        case 500 | 502 | 503 | 504 if _DENIES in refusal.message:
            # A webhook that was reached and says "later", as Strimzi's does: its operator will roll the pod.
            return _delegated(refusal)
        case 500 | 502 | 503 | 504 if "webhook" in refusal.message:
            return _refused(
                BlockerClass.ADMISSION_DENIED, refusal, "the admission webhook fails: look at its service and logs"
            )
    return _throttled(refusal)


def _too_many(refusal: Refusal, budget: Budget | None) -> Answer:
    says = refusal.cause("DisruptionBudget")
    if says is None and "webhook" in refusal.message:
        return _delegated(refusal)
    if says is None:
        return _throttled(refusal)
    if refusal.retry_after > 0 or "still being processed" in says:
        cause = BlockerClass.BUDGET_NOT_OBSERVED
        return Answer(Outcome.RETRY, cause, says, _CATCH_UP, refusal.retry_after, budget)
    return exhausted(budget, says)


def exhausted(budget: Budget | None, message: str) -> Answer:
    """The budget allows none at the moment: is it one that never can?"""
    if budget and not budget.observed:
        return Answer(
            Outcome.REFUSED,
            BlockerClass.BUDGET_NOT_OBSERVED,
            message,
            _CATCH_UP,
            budget=budget,
        )
    if budget and budget.misconfigured:
        return Answer(
            Outcome.REFUSED,
            BlockerClass.BUDGET_MISCONFIGURED,
            message,
            f"all {budget.expected} pods are healthy and it still allows none: {budget.remedy}",
            budget=budget,
        )
    name = f"PodDisruptionBudget {budget.name}" if budget else "its PodDisruptionBudget"
    return Answer(
        Outcome.REFUSED,
        BlockerClass.BUDGET_EXHAUSTED,
        message,
        f"{name} allows none until more of its pods are Ready: look at those that are not",
        budget=budget,
    )


def _delegated(refusal: Refusal) -> Answer:
    hint = "the webhook's owner moves the workload itself: wait for the pod to go, or ask whoever runs that webhook"
    return _refused(BlockerClass.DELEGATED, refusal, hint)


def _throttled(refusal: Refusal) -> Answer:
    """Nobody's budget is short: this never leads to more than another try."""
    hint = "the API server is busy or failing: look at its load and logs, and at its priority levels for this operator"
    return Answer(Outcome.RETRY, BlockerClass.THROTTLED, refusal.message, hint, refusal.retry_after)


def _refused(cause: BlockerClass, refusal: Refusal, hint: str) -> Answer:
    said = refusal.cause("DisruptionBudget") or refusal.message
    return Answer(Outcome.REFUSED, cause, said, hint, refusal.retry_after)
