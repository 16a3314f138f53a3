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
from rescheduler.core.model.disruption_budgets import DisruptionBudget
from rescheduler.core.model.pods import Pod

MAX_RETRY_AFTER = 300.0
"""Seconds: a longer Retry-After counts as this. A webhook may write any number."""
_MAX_MESSAGE_LENGTH = 1000  # characters of others' words that are kept
_FIRST_DELAY, _MAX_DELAY = 0.5, 30.0  # seconds; after the first few a pod costs at most two requests a minute
_NO_RESPONSE = 0  # code of a request without an answer


class EvictionOutcome(StrEnum):
    """What an eviction or delete came to."""

    ACCEPTED = "accepted"  # on its way: wait until it is gone
    GONE = "gone"  # not there, Terminating already, or another pod of its name: nothing left to do
    REFUSED = "refused"  # a blocker: wait for what it names
    RETRY = "retry"  # nobody's fault: again, with back-off


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """An answer that was no success: HTTP status (0: there was no answer) and what the Status object says."""

    code: int
    reason: str = ""
    message: str = ""
    causes: tuple[tuple[str, str], ...] = ()  # (reason, message)
    retry_after: float = 0.0  # seconds

    def cause_message(self, reason: str) -> str | None:
        """Message of the first cause of this reason; None where there is none."""
        return next((message for name, message in self.causes if name == reason), None)


@dataclass(frozen=True, slots=True)
class EvictionResult:
    """One answer, judged.

    Attributes:
        retry_after: seconds that the server asked for, at most MOST_ASKED; 0 if it did not.
        budget: the one that refused.
        by_webhook: an admission webhook answered. To a dry run that is no answer: a webhook that takes evictions over
            acts on real ones only.
    """

    outcome: EvictionOutcome
    blocker_class: BlockerClass | None = None
    message: str = ""
    hint: str = ""
    retry_after: float = 0.0
    budget: DisruptionBudget | None = None
    by_webhook: bool = False


ACCEPTED = EvictionResult(EvictionOutcome.ACCEPTED)
GONE = EvictionResult(EvictionOutcome.GONE)
TEMPORARY_BUDGET_CLASSES = (
    BlockerClass.BUDGET_EXHAUSTED,
    BlockerClass.BUDGET_MISCONFIGURED,
    BlockerClass.BUDGET_NOT_OBSERVED,
)
"""What a budget refuses now it may allow later, without anybody's doing."""
BUDGET_CLASSES = (*TEMPORARY_BUDGET_CLASSES, BlockerClass.SEVERAL_BUDGETS)
"""What budgets refuse, as their watch shows it too."""

_CATCH_UP_HINT = "the disruption controller has to catch up; look at kube-controller-manager if it stays"
_SEVERAL_BUDGETS_HINT = "the API server evicts no pod under two budgets: narrow one selector"
_OVERLOADED_HINT = (
    "the API server is busy or failing: look at its load and logs, and at its priority levels for this operator"
)
_DELEGATED_HINT = (
    "the webhook's owner moves the workload itself: wait for the pod to go, or ask whoever runs that webhook"
)
_ADMISSION_DENIED_HINT = "ask whoever runs the webhook or admission policy that the message names"
_RBAC_HINT = "the operator lacks this right: apply the ClusterRole of its chart, or ask whoever took the right away"


@dataclass(frozen=True, slots=True)
class ResponseRule:
    """One row of the table: the first row that fits an answer decides."""

    name: str
    codes: Sequence[int]
    matches: Callable[[ErrorResponse], bool]
    outcome: EvictionOutcome
    blocker_class: BlockerClass | None = None
    hint: str = ""
    by_webhook: bool = False


_ANY_CODE = range(1000)
_SERVER_ERRORS = range(500, 600)


def _message_matches(pattern: str) -> Callable[[ErrorResponse], bool]:
    found = re.compile(pattern, re.IGNORECASE)
    return lambda refusal: found.search(str(refusal.message)) is not None


def _has_cause(reason: str) -> Callable[[ErrorResponse], bool]:
    return lambda refusal: refusal.cause_message(reason) is not None


def _always(_: ErrorResponse) -> bool:
    return True


_denied_by_webhook = _message_matches('admission webhook ".*" denied the request')
_webhook_failed = _message_matches(r"failed (calling|to call) webhook|conversion webhook .* failed")
_denied_by_policy = _message_matches(r"ValidatingAdmissionPolicy")
_R, _B = EvictionOutcome, BlockerClass

RESPONSE_RULES: tuple[ResponseRule, ...] = (
    # A webhook may fill in the whole Status, so its own words come first.
    ResponseRule(
        "webhook takes over",
        (429, *_SERVER_ERRORS),
        _denied_by_webhook,
        _R.REFUSED,
        _B.DELEGATED,
        _DELEGATED_HINT,
        by_webhook=True,
    ),
    ResponseRule(
        "webhook denies",
        _ANY_CODE,
        _denied_by_webhook,
        _R.REFUSED,
        _B.ADMISSION_DENIED,
        _ADMISSION_DENIED_HINT,
        by_webhook=True,
    ),
    ResponseRule(
        "webhook fails",
        _ANY_CODE,
        _webhook_failed,
        _R.REFUSED,
        _B.ADMISSION_DENIED,
        "the admission webhook fails: look at its service and logs",
        by_webhook=True,
    ),
    ResponseRule(
        "policy denies", _ANY_CODE, _denied_by_policy, _R.REFUSED, _B.ADMISSION_DENIED, _ADMISSION_DENIED_HINT
    ),
    ResponseRule(
        "namespace ends",
        (403,),
        _has_cause("NamespaceTerminating"),
        _R.REFUSED,
        _B.NAMESPACE_TERMINATING,
        "its namespace is being deleted, and the pod with it",
    ),
    ResponseRule(
        "budget is odd", (403,), _has_cause("DisruptionBudget"), _R.REFUSED, _B.BUDGET_NOT_OBSERVED, _CATCH_UP_HINT
    ),
    ResponseRule(
        "budget is not observed",
        (429,),
        lambda r: (
            "still being processed" in (r.cause_message("DisruptionBudget") or "")
            or (_is_budget_refusal(r) and r.retry_after > 0)
        ),
        _R.RETRY,
        _B.BUDGET_NOT_OBSERVED,
        _CATCH_UP_HINT,
    ),
    ResponseRule("budget allows none", (429,), _has_cause("DisruptionBudget"), _R.REFUSED, _B.BUDGET_EXHAUSTED),
    ResponseRule(
        "several budgets",
        (500,),
        _message_matches("more than one PodDisruptionBudget"),
        _R.REFUSED,
        _B.SEVERAL_BUDGETS,
        _SEVERAL_BUDGETS_HINT,
    ),
    ResponseRule("pod is gone", (404,), _always, _R.GONE),
    ResponseRule("another pod has its name", (409,), _message_matches(r"UID in (the )?precondition"), _R.GONE),
    ResponseRule(
        "pod has changed",
        (409,),
        _message_matches(r"ResourceVersion in (the )?precondition"),
        _R.RETRY,
        _B.THROTTLED,
        "the pod changes while it is looked at: look who writes to it",
    ),
    ResponseRule(
        "budget is contended",
        (409,),
        _always,
        _R.RETRY,
        _B.THROTTLED,
        "others write the same object at the same time: look who else evicts pods under this budget",
    ),
    ResponseRule(
        "credentials",
        (401,),
        _always,
        _R.RETRY,
        _B.THROTTLED,
        "the API server does not accept the operator's credentials: look at its ServiceAccount and token",
    ),
    ResponseRule(
        "rights", (403,), _message_matches(r"cannot \w+ resource"), _R.REFUSED, _B.ADMISSION_DENIED, _RBAC_HINT
    ),
    ResponseRule("forbidden", (403,), _always, _R.REFUSED, _B.ADMISSION_DENIED, _ADMISSION_DENIED_HINT),
    ResponseRule("throttled", (408, 425, 429), _always, _R.RETRY, _B.THROTTLED, _OVERLOADED_HINT),
    ResponseRule(
        "too large",
        (413,),
        _always,
        _R.REFUSED,
        _B.ADMISSION_DENIED,
        "raise the limit on requests of the proxy before the API server, or call the API server without it",
    ),
    ResponseRule(
        "not understood",
        range(300, 500),
        _always,
        _R.REFUSED,
        _B.ADMISSION_DENIED,
        "the API server, or a proxy before it, does not take this request: look at their logs and versions",
    ),
    ResponseRule(
        "no answer",
        (_NO_RESPONSE,),
        _always,
        _R.RETRY,
        _B.THROTTLED,
        "the API server does not answer in time: look at its load, at the network, and at slow admission webhooks",
    ),
    ResponseRule("server fails", _ANY_CODE, _always, _R.RETRY, _B.THROTTLED, _OVERLOADED_HINT),
)


def _is_budget_refusal(response: ErrorResponse) -> bool:
    return response.cause_message("DisruptionBudget") is not None


def matching_rule(response: ErrorResponse) -> ResponseRule:
    """Return the row of the table for a refusal."""
    code = response.code if response.code in _ANY_CODE else _SERVER_ERRORS[0]
    return next(each for each in RESPONSE_RULES if code in each.codes and each.matches(response))


def classify(response: ErrorResponse, budget: DisruptionBudget | None) -> EvictionResult:
    """Return what a refused request means; `budget` is the pod's, as last seen."""
    found = matching_rule(response)
    if found.outcome is EvictionOutcome.GONE:
        return GONE
    says = response.message if found.by_webhook else response.cause_message("DisruptionBudget") or response.message
    asked = min(max(response.retry_after, 0.0), MAX_RETRY_AFTER)
    words = str(says or "")[:_MAX_MESSAGE_LENGTH] or f"HTTP {response.code} {response.reason}".strip()
    if found.blocker_class is BlockerClass.BUDGET_EXHAUSTED or (
        found.blocker_class in TEMPORARY_BUDGET_CLASSES and budget and budget.sync_error
    ):
        return budget_refusal(budget, words, asked)
    over = budget if found.blocker_class in TEMPORARY_BUDGET_CLASSES else None
    return EvictionResult(
        found.outcome, found.blocker_class, words, found.hint, asked, over, by_webhook=found.by_webhook
    )


def no_response(message: str) -> EvictionResult:
    """Return the answer for a request that got none: nobody knows what the server did."""
    return classify(ErrorResponse(_NO_RESPONSE, "", message), None)


def eviction_without_effect(pod: Pod) -> EvictionResult:
    """Return the answer for a pod whose eviction was accepted, and that is not Terminating after all."""
    return EvictionResult(
        EvictionOutcome.REFUSED,
        BlockerClass.DELEGATED,
        f"the API server answered that {pod.key} is evicted, and the pod is there and not Terminating",
        "look for an admission webhook on pods/eviction that takes evictions over or makes them dry runs",
    )


def not_confirmed(message: str) -> EvictionResult:
    """Return the answer for a pod that may not go, by what the cluster says just before."""
    return EvictionResult(
        EvictionOutcome.RETRY,
        BlockerClass.WAITING_FOR_PROOF,
        message,
        "wait: the node is looked at again; see docs/guides/fencing.md for what proves that a node is dead",
    )


def retry_delay(result: EvictionResult, failures: int) -> float:
    """Return the seconds until the next request for a pod, after `failures` answers in a row before this one.

    What the watch of a budget shows is refused for a moment only; any other refusal takes somebody to lift it.
    """
    moment = result.outcome is not EvictionOutcome.REFUSED or (
        result.budget is not None and result.blocker_class in TEMPORARY_BUDGET_CLASSES
    )
    wait = min(_FIRST_DELAY * 2 ** min(failures, 10), _MAX_DELAY) if moment else _MAX_DELAY
    return max(wait, result.retry_after)


# -- what the budgets, as watched, would answer ------------------------------------------------------------------------


def predict_refusal(pod: Pod, budgets: Sequence[DisruptionBudget]) -> EvictionResult | None:
    """Return what the server would refuse to an eviction now, by these budgets; None if it would accept."""
    if not budgets or not pod.counts_in_budgets:
        return None
    if len(budgets) > 1:
        names = " and ".join(budget.name for budget in budgets)
        says = f"it is under the PodDisruptionBudgets {names}"
        return EvictionResult(EvictionOutcome.REFUSED, BlockerClass.SEVERAL_BUDGETS, says, _SEVERAL_BUDGETS_HINT)
    (budget,) = budgets
    if budget.allows_eviction_of(pod):
        return None
    says = f"PodDisruptionBudget {budget.name} needs {budget.needed} healthy pods and has {budget.healthy}"
    return budget_refusal(budget, says)


def budget_refusal(budget: DisruptionBudget | None, message: str, retry_after: float = 0.0) -> EvictionResult:
    """Return the answer of a budget that allows none at the moment: can it ever, and what would help?"""
    cause, message, hint = _explain_budget(budget, message)
    return EvictionResult(EvictionOutcome.REFUSED, cause, message, hint, retry_after, budget)


def _explain_budget(budget: DisruptionBudget | None, message: str) -> tuple[BlockerClass, str, str]:
    if budget is None:
        hint = "its PodDisruptionBudget allows none until more of its pods are Ready: look at those that are not"
        return BlockerClass.BUDGET_EXHAUSTED, message, hint
    name = f"PodDisruptionBudget {budget.name}"
    if budget.sync_error:
        says = f"the disruption controller cannot compute {name} (SyncFailed): {budget.sync_error}"
        return BlockerClass.BUDGET_MISCONFIGURED, says[:_MAX_MESSAGE_LENGTH], _sync_failure_hint(budget)
    if not budget.observed:
        return (
            BlockerClass.BUDGET_NOT_OBSERVED,
            f"{name} has changed, and its status does not show it yet",
            _CATCH_UP_HINT,
        )
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


def _sync_failure_hint(budget: DisruptionBudget) -> str:
    if "scale" in budget.sync_error:
        return "its pods' owner kind has no scale subresource: use an integer minAvailable"
    if "controller" in budget.sync_error:
        return "its pods have no controller that can be scaled: use an integer minAvailable"
    return f"do what these words ask for, or look at kube-controller-manager; then check {budget.limit or 'the budget'}"
