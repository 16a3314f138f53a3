"""What the API server answers to an eviction or a delete, and what that means: one table for every status code.

Four refusals come as 429, five as 403, four as 500; each asks for something else. Sources: `pkg/registry/core/pod/
storage/eviction.go` of Kubernetes 1.37 for the budgets, `apiserver/pkg/admission/plugin/webhook/errors` for webhooks.
The table ends with a row for each class of codes, so that no answer is without a cause, words and a next step.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from rescheduler.api.drains import BlockerClass
from rescheduler.core.model.disruption_budgets import Budget
from rescheduler.core.model.pods import Pod

MOST_ASKED = 300.0
"""Seconds: a longer Retry-After counts as this. A webhook may write any number."""
_MOST_WORDS = 1000  # characters of others' words that are kept
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0  # seconds; after the first few a pod costs at most two requests a minute
_NONE = 0  # code of a request without an answer


class Outcome(StrEnum):
    """What an eviction or delete came to."""

    ACCEPTED = "accepted"  # on its way: wait until it is gone
    GONE = "gone"  # not there, Terminating already, or another pod of its name: nothing left to do
    REFUSED = "refused"  # a blocker: wait for what it names
    RETRY = "retry"  # nobody's fault: again, with back-off


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that was no success: HTTP status (0: there was no answer) and what the Status object says."""

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
    """One answer, judged.

    Attributes:
        retry_after: seconds that the server asked for, at most MOST_ASKED; 0 if it did not.
        budget: the one that refused.
        by_webhook: an admission webhook answered. To a dry run that is no answer: a webhook that takes evictions over
            acts on real ones only.
    """

    outcome: Outcome
    cause: BlockerClass | None = None
    message: str = ""
    hint: str = ""
    retry_after: float = 0.0
    budget: Budget | None = None
    by_webhook: bool = False


ACCEPTED = Answer(Outcome.ACCEPTED)
GONE = Answer(Outcome.GONE)
OF_BUDGETS = (BlockerClass.BUDGET_EXHAUSTED, BlockerClass.BUDGET_MISCONFIGURED, BlockerClass.BUDGET_NOT_OBSERVED)
"""What a budget refuses now it may allow later, without anybody's doing."""
BY_BUDGETS = (*OF_BUDGETS, BlockerClass.SEVERAL_BUDGETS)
"""What budgets refuse, as their watch shows it too."""

_CATCH_UP = "the disruption controller has to catch up; look at kube-controller-manager if it stays"
_SEVERAL = "the API server evicts no pod under two budgets: narrow one selector"
_BUSY = "the API server is busy or failing: look at its load and logs, and at its priority levels for this operator"
_TAKEN_OVER = "the webhook's owner moves the workload itself: wait for the pod to go, or ask whoever runs that webhook"
_DENIED = "ask whoever runs the webhook or admission policy that the message names"
_RIGHTS = "the operator lacks this right: apply the ClusterRole of its chart, or ask whoever took the right away"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table: the first row that fits an answer decides."""

    name: str
    codes: Sequence[int]
    fits: Callable[[Refusal], bool]
    outcome: Outcome
    cause: BlockerClass | None = None
    hint: str = ""
    by_webhook: bool = False


_ANY = range(1000)
_SERVER = range(500, 600)


def _says(pattern: str) -> Callable[[Refusal], bool]:
    found = re.compile(pattern, re.IGNORECASE)
    return lambda refusal: found.search(str(refusal.message)) is not None


def _has(reason: str) -> Callable[[Refusal], bool]:
    return lambda refusal: refusal.cause(reason) is not None


def _always(_: Refusal) -> bool:
    return True


_webhook = _says('admission webhook ".*" denied the request')
_fails = _says(r"failed (calling|to call) webhook|conversion webhook .* failed")
_policy = _says(r"ValidatingAdmissionPolicy")
_R, _B = Outcome, BlockerClass

TABLE: tuple[Row, ...] = (
    # A webhook may fill in the whole Status, so its own words come first.
    Row("webhook takes over", (429, *_SERVER), _webhook, _R.REFUSED, _B.DELEGATED, _TAKEN_OVER, by_webhook=True),
    Row("webhook denies", _ANY, _webhook, _R.REFUSED, _B.ADMISSION_DENIED, _DENIED, by_webhook=True),
    Row(
        "webhook fails",
        _ANY,
        _fails,
        _R.REFUSED,
        _B.ADMISSION_DENIED,
        "the admission webhook fails: look at its service and logs",
        by_webhook=True,
    ),
    Row("policy denies", _ANY, _policy, _R.REFUSED, _B.ADMISSION_DENIED, _DENIED),
    Row(
        "namespace ends",
        (403,),
        _has("NamespaceTerminating"),
        _R.REFUSED,
        _B.NAMESPACE_TERMINATING,
        "its namespace is being deleted, and the pod with it",
    ),
    Row("budget is odd", (403,), _has("DisruptionBudget"), _R.REFUSED, _B.BUDGET_NOT_OBSERVED, _CATCH_UP),
    Row(
        "budget is not observed",
        (429,),
        lambda r: "still being processed" in (r.cause("DisruptionBudget") or "") or (_budget(r) and r.retry_after > 0),
        _R.RETRY,
        _B.BUDGET_NOT_OBSERVED,
        _CATCH_UP,
    ),
    Row("budget allows none", (429,), _has("DisruptionBudget"), _R.REFUSED, _B.BUDGET_EXHAUSTED),
    Row(
        "several budgets", (500,), _says("more than one PodDisruptionBudget"), _R.REFUSED, _B.SEVERAL_BUDGETS, _SEVERAL
    ),
    Row("pod is gone", (404,), _always, _R.GONE),
    Row("another pod has its name", (409,), _says(r"UID in (the )?precondition"), _R.GONE),
    Row(
        "pod has changed",
        (409,),
        _says(r"ResourceVersion in (the )?precondition"),
        _R.RETRY,
        _B.THROTTLED,
        "the pod changes while it is looked at: look who writes to it",
    ),
    Row(
        "budget is contended",
        (409,),
        _always,
        _R.RETRY,
        _B.THROTTLED,
        "others write the same object at the same time: look who else evicts pods under this budget",
    ),
    Row(
        "credentials",
        (401,),
        _always,
        _R.RETRY,
        _B.THROTTLED,
        "the API server does not accept the operator's credentials: look at its ServiceAccount and token",
    ),
    Row("rights", (403,), _says(r"cannot \w+ resource"), _R.REFUSED, _B.ADMISSION_DENIED, _RIGHTS),
    Row("forbidden", (403,), _always, _R.REFUSED, _B.ADMISSION_DENIED, _DENIED),
    Row("throttled", (408, 425, 429), _always, _R.RETRY, _B.THROTTLED, _BUSY),
    Row(
        "too large",
        (413,),
        _always,
        _R.REFUSED,
        _B.ADMISSION_DENIED,
        "raise the limit on requests of the proxy before the API server, or call the API server without it",
    ),
    Row(
        "not understood",
        range(300, 500),
        _always,
        _R.REFUSED,
        _B.ADMISSION_DENIED,
        "the API server, or a proxy before it, does not take this request: look at their logs and versions",
    ),
    Row(
        "no answer",
        (_NONE,),
        _always,
        _R.RETRY,
        _B.THROTTLED,
        "the API server does not answer in time: look at its load, at the network, and at slow admission webhooks",
    ),
    Row("server fails", _ANY, _always, _R.RETRY, _B.THROTTLED, _BUSY),
)


def _budget(refusal: Refusal) -> bool:
    return refusal.cause("DisruptionBudget") is not None


def row(refusal: Refusal) -> Row:
    """Return the row of the table for a refusal."""
    code = refusal.code if refusal.code in _ANY else _SERVER[0]
    return next(each for each in TABLE if code in each.codes and each.fits(refusal))


def judge(refusal: Refusal, budget: Budget | None) -> Answer:
    """Return what a refused request means; `budget` is the pod's, as last seen."""
    found = row(refusal)
    if found.outcome is Outcome.GONE:
        return GONE
    says = refusal.message if found.by_webhook else refusal.cause("DisruptionBudget") or refusal.message
    asked = min(max(refusal.retry_after, 0.0), MOST_ASKED)
    words = str(says or "")[:_MOST_WORDS] or f"HTTP {refusal.code} {refusal.reason}".strip()
    if found.cause is BlockerClass.BUDGET_EXHAUSTED or (found.cause in OF_BUDGETS and budget and budget.sync_failed):
        return exhausted(budget, words, asked)
    over = budget if found.cause in OF_BUDGETS else None
    return Answer(found.outcome, found.cause, words, found.hint, asked, over, by_webhook=found.by_webhook)


def unanswered(words: str) -> Answer:
    """Return the answer for a request that got none: nobody knows what the server did."""
    return judge(Refusal(_NONE, "", words), None)


def unfulfilled(pod: Pod) -> Answer:
    """Return the answer for a pod whose eviction was accepted, and that is not Terminating after all."""
    return Answer(
        Outcome.REFUSED,
        BlockerClass.DELEGATED,
        f"the API server answered that {pod.key} is evicted, and the pod is there and not Terminating",
        "look for an admission webhook on pods/eviction that takes evictions over or makes them dry runs",
    )


def unconfirmed(why: str) -> Answer:
    """Return the answer for a pod that may not go, by what the cluster says just before."""
    return Answer(
        Outcome.RETRY,
        BlockerClass.WAITING_FOR_PROOF,
        why,
        "wait: the node is looked at again; see docs/fencing.md for what proves that a node is dead",
    )


def pause(answer: Answer, failures: int) -> float:
    """Return the seconds until the next request for a pod, after `failures` answers in a row before this one.

    What the watch of a budget shows is refused for a moment only; any other refusal takes somebody to lift it.
    """
    moment = answer.outcome is not Outcome.REFUSED or (answer.budget is not None and answer.cause in OF_BUDGETS)
    wait = min(_FIRST_PAUSE * 2 ** min(failures, 10), _LONGEST_PAUSE) if moment else _LONGEST_PAUSE
    return max(wait, answer.retry_after)


# -- what the budgets, as watched, would answer ------------------------------------------------------------------------


def foresee(pod: Pod, over: Sequence[Budget]) -> Answer | None:
    """Return what the server would refuse to an eviction now, by these budgets; None if it would accept."""
    if not over or not pod.counts_in_budgets:
        return None
    if len(over) > 1:
        names = " and ".join(budget.name for budget in over)
        says = f"it is under the PodDisruptionBudgets {names}"
        return Answer(Outcome.REFUSED, BlockerClass.SEVERAL_BUDGETS, says, _SEVERAL)
    (budget,) = over
    if budget.would_allow(pod):
        return None
    says = f"PodDisruptionBudget {budget.name} needs {budget.needed} healthy pods and has {budget.healthy}"
    return exhausted(budget, says)


def exhausted(budget: Budget | None, message: str, retry_after: float = 0.0) -> Answer:
    """Return the answer of a budget that allows none at the moment: can it ever, and what would help?"""
    cause, message, hint = _shortage(budget, message)
    return Answer(Outcome.REFUSED, cause, message, hint, retry_after, budget)


def _shortage(budget: Budget | None, message: str) -> tuple[BlockerClass, str, str]:
    if budget is None:
        hint = "its PodDisruptionBudget allows none until more of its pods are Ready: look at those that are not"
        return BlockerClass.BUDGET_EXHAUSTED, message, hint
    name = f"PodDisruptionBudget {budget.name}"
    if budget.sync_failed:
        says = f"the disruption controller cannot compute {name} (SyncFailed): {budget.sync_failed}"
        return BlockerClass.BUDGET_MISCONFIGURED, says[:_MOST_WORDS], _remedy_of_sync(budget)
    if not budget.observed:
        return BlockerClass.BUDGET_NOT_OBSERVED, f"{name} has changed, and its status does not show it yet", _CATCH_UP
    if budget.misconfigured:
        hint = f"all {budget.expected} pods are healthy and it still allows none: {budget.remedy}"
        return BlockerClass.BUDGET_MISCONFIGURED, message, hint
    if budget.expected <= 0:
        hint = f"{name} counts no pods, because their owner wants none: scale the owner up, or delete the pod by hand"
    elif budget.healthy >= budget.expected or budget.disrupted:
        hint = f"{name} allows the next one when those that are on their way out have been replaced: wait"
    else:
        hint = f"{name} allows none until more of its pods are Ready: look at those that are not"
    return BlockerClass.BUDGET_EXHAUSTED, message, hint


def _remedy_of_sync(budget: Budget) -> str:
    if "scale" in budget.sync_failed:
        return "its pods' owner kind has no scale subresource: use an integer minAvailable"
    if "controller" in budget.sync_failed:
        return "its pods have no controller that can be scaled: use an integer minAvailable"
    return f"do what these words ask for, or look at kube-controller-manager; then check {budget.rule or 'the budget'}"
