"""Classify the responses of the API server to an eviction or a delete, in one table over all status codes.

Code 429 has four meanings, 403 has five and 500 has four. Each meaning needs another next step. Sources:
`pkg/registry/core/pod/storage/eviction.go` of Kubernetes 1.37 for the budgets, and
`apiserver/pkg/admission/plugin/webhook/errors` for webhooks. The table ends with a row for each class of codes.
Therefore each response has a cause, a message and a next step.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from rescheduler.api.drains import BlockerClass
from rescheduler.core.eviction import messages
from rescheduler.core.model.disruption_budgets import DisruptionBudget
from rescheduler.core.model.pods import Pod

MAX_RETRY_AFTER = 300.0
"""Seconds; the limit of Retry-After. Without it, a webhook could delay a pod for any time."""
_MAX_MESSAGE_LENGTH = 1000  # characters of a message of the API server or a webhook
_FIRST_DELAY, _MAX_DELAY = 0.5, 30.0  # seconds; with more than 30 s, webhooks would notice a pod too late
_NO_RESPONSE = 0  # code of a request without a response


class EvictionOutcome(StrEnum):
    """Outcome of one eviction or delete."""

    ACCEPTED = "accepted"  # wait until the pod is gone
    GONE = "gone"  # the pod does not exist, is Terminating, or its name belongs to another pod
    REFUSED = "refused"  # report a blocker
    RETRY = "retry"  # a temporary failure: retry with back-off


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """A response that is no success.

    Attributes:
        code: HTTP status; 0 if there was no response.
        reason, message: as in the Status object; empty if it has none.
        causes: `details.causes` of the Status object, as pairs of reason and message.
        retry_after: seconds of the header Retry-After; 0 if there was none.
    """

    code: int
    reason: str = ""
    message: str = ""
    causes: tuple[tuple[str, str], ...] = ()
    retry_after: float = 0.0

    def cause_message(self, reason: str) -> str | None:
        """Return the message of the first cause with this reason, or None."""
        return next((message for name, message in self.causes if name == reason), None)


@dataclass(frozen=True, slots=True)
class EvictionResult:
    """Meaning of one response.

    Attributes:
        blocker_class: class of the blocker to report; None if there is no blocker.
        message, hint: texts of the blocker.
        retry_after: seconds that the server asked to wait, at most MAX_RETRY_AFTER; 0 if it did not ask.
        budget: the budget that refused the eviction; None if no budget did.
        by_webhook: an admission webhook answered. On a dry run this result does not count, because a webhook that
            moves pods itself acts on real evictions only.
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
"""Refusals of a budget that can end without a change to the budget."""
BUDGET_CLASSES = (*TEMPORARY_BUDGET_CLASSES, BlockerClass.SEVERAL_BUDGETS)
"""Refusals of budgets. The watch of the budgets predicts them."""


@dataclass(frozen=True, slots=True)
class ResponseRule:
    """Row of the table of responses; the first row that matches a response decides."""

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
    regex = re.compile(pattern, re.IGNORECASE)
    return lambda response: regex.search(str(response.message)) is not None


def _has_cause(reason: str) -> Callable[[ErrorResponse], bool]:
    return lambda response: response.cause_message(reason) is not None


def _always(_: ErrorResponse) -> bool:
    return True


_denied_by_webhook = _message_matches('admission webhook ".*" denied the request')
_webhook_failed = _message_matches(r"failed (calling|to call) webhook|conversion webhook .* failed")
_denied_by_policy = _message_matches(r"ValidatingAdmissionPolicy")
_R, _B = EvictionOutcome, BlockerClass

RESPONSE_RULES: tuple[ResponseRule, ...] = (
    # A webhook may fill in the whole Status. In a later row, its response would count as one of a budget.
    ResponseRule(
        "webhook takes over",
        (429, *_SERVER_ERRORS),
        _denied_by_webhook,
        _R.REFUSED,
        _B.DELEGATED,
        messages.DELEGATED_HINT,
        by_webhook=True,
    ),
    ResponseRule(
        "webhook denies",
        _ANY_CODE,
        _denied_by_webhook,
        _R.REFUSED,
        _B.ADMISSION_DENIED,
        messages.ADMISSION_DENIED_HINT,
        by_webhook=True,
    ),
    ResponseRule(
        "webhook fails",
        _ANY_CODE,
        _webhook_failed,
        _R.REFUSED,
        _B.ADMISSION_DENIED,
        messages.WEBHOOK_FAILED_HINT,
        by_webhook=True,
    ),
    ResponseRule(
        "policy denies", _ANY_CODE, _denied_by_policy, _R.REFUSED, _B.ADMISSION_DENIED, messages.ADMISSION_DENIED_HINT
    ),
    ResponseRule(
        "namespace ends",
        (403,),
        _has_cause("NamespaceTerminating"),
        _R.REFUSED,
        _B.NAMESPACE_TERMINATING,
        messages.NAMESPACE_TERMINATING_HINT,
    ),
    ResponseRule(
        "budget is odd",
        (403,),
        _has_cause("DisruptionBudget"),
        _R.REFUSED,
        _B.BUDGET_NOT_OBSERVED,
        messages.BUDGET_NOT_OBSERVED_HINT,
    ),
    ResponseRule(
        "budget is not observed",
        (429,),
        lambda response: (
            "still being processed" in (response.cause_message("DisruptionBudget") or "")
            or (_is_budget_refusal(response) and response.retry_after > 0)
        ),
        _R.RETRY,
        _B.BUDGET_NOT_OBSERVED,
        messages.BUDGET_NOT_OBSERVED_HINT,
    ),
    ResponseRule("budget allows none", (429,), _has_cause("DisruptionBudget"), _R.REFUSED, _B.BUDGET_EXHAUSTED),
    ResponseRule(
        "several budgets",
        (500,),
        _message_matches("more than one PodDisruptionBudget"),
        _R.REFUSED,
        _B.SEVERAL_BUDGETS,
        messages.SEVERAL_BUDGETS_HINT,
    ),
    ResponseRule("pod is gone", (404,), _always, _R.GONE),
    ResponseRule("another pod has its name", (409,), _message_matches(r"UID in (the )?precondition"), _R.GONE),
    ResponseRule(
        "pod has changed",
        (409,),
        _message_matches(r"ResourceVersion in (the )?precondition"),
        _R.RETRY,
        _B.THROTTLED,
        messages.POD_CHANGED_HINT,
    ),
    ResponseRule(
        "budget is contended",
        (409,),
        _always,
        _R.RETRY,
        _B.THROTTLED,
        messages.BUDGET_CONTENDED_HINT,
    ),
    ResponseRule(
        "credentials",
        (401,),
        _always,
        _R.RETRY,
        _B.THROTTLED,
        messages.CREDENTIALS_HINT,
    ),
    ResponseRule(
        "rights", (403,), _message_matches(r"cannot \w+ resource"), _R.REFUSED, _B.ADMISSION_DENIED, messages.RBAC_HINT
    ),
    ResponseRule("forbidden", (403,), _always, _R.REFUSED, _B.ADMISSION_DENIED, messages.ADMISSION_DENIED_HINT),
    ResponseRule("throttled", (408, 425, 429), _always, _R.RETRY, _B.THROTTLED, messages.OVERLOADED_HINT),
    ResponseRule(
        "too large",
        (413,),
        _always,
        _R.REFUSED,
        _B.ADMISSION_DENIED,
        messages.TOO_LARGE_HINT,
    ),
    ResponseRule(
        "not understood",
        range(300, 500),
        _always,
        _R.REFUSED,
        _B.ADMISSION_DENIED,
        messages.NOT_UNDERSTOOD_HINT,
    ),
    ResponseRule(
        "no answer",
        (_NO_RESPONSE,),
        _always,
        _R.RETRY,
        _B.THROTTLED,
        messages.NO_RESPONSE_HINT,
    ),
    ResponseRule("server fails", _ANY_CODE, _always, _R.RETRY, _B.THROTTLED, messages.OVERLOADED_HINT),
)


def _is_budget_refusal(response: ErrorResponse) -> bool:
    return response.cause_message("DisruptionBudget") is not None


def matching_rule(response: ErrorResponse) -> ResponseRule:
    """Return the row of the table for a response."""
    code = response.code if response.code in _ANY_CODE else _SERVER_ERRORS[0]
    return next(rule for rule in RESPONSE_RULES if code in rule.codes and rule.matches(response))


def classify(response: ErrorResponse, budget: DisruptionBudget | None) -> EvictionResult:
    """Return the meaning of a refused request; `budget`: the budget of the pod, as last watched."""
    rule = matching_rule(response)
    if rule.outcome is EvictionOutcome.GONE:
        return GONE
    text = response.message if rule.by_webhook else response.cause_message("DisruptionBudget") or response.message
    retry_after = min(max(response.retry_after, 0.0), MAX_RETRY_AFTER)
    message = str(text or "")[:_MAX_MESSAGE_LENGTH] or f"HTTP {response.code} {response.reason}".strip()
    if rule.blocker_class is BlockerClass.BUDGET_EXHAUSTED or (
        rule.blocker_class in TEMPORARY_BUDGET_CLASSES and budget and budget.sync_error
    ):
        return budget_refusal(budget, message, retry_after)
    refusing_budget = budget if rule.blocker_class in TEMPORARY_BUDGET_CLASSES else None
    return EvictionResult(
        rule.outcome,
        rule.blocker_class,
        message,
        rule.hint,
        retry_after,
        refusing_budget,
        by_webhook=rule.by_webhook,
    )


def no_response(message: str) -> EvictionResult:
    """Return the result of a request without a response: the pod may be evicted or not."""
    return classify(ErrorResponse(_NO_RESPONSE, "", message), None)


def eviction_without_effect(pod: Pod) -> EvictionResult:
    """Return the result for a pod whose eviction was accepted, but which is not Terminating."""
    return EvictionResult(
        EvictionOutcome.REFUSED,
        BlockerClass.DELEGATED,
        messages.eviction_without_effect_message(pod),
        messages.DELEGATED_SILENTLY_HINT,
    )


def not_confirmed(message: str) -> EvictionResult:
    """Return the result for a pod whose required proof no longer holds at the live read before the request."""
    return EvictionResult(EvictionOutcome.RETRY, BlockerClass.WAITING_FOR_PROOF, message, messages.NOT_CONFIRMED_HINT)


def retry_delay(result: EvictionResult, failures: int) -> float:
    """Return the seconds until the next request for a pod; `failures`: in a row, without this result.

    A refusal of a watched budget is short. Any other refusal lasts until a user removes its cause.
    """
    temporary = result.outcome is not EvictionOutcome.REFUSED or (
        result.budget is not None and result.blocker_class in TEMPORARY_BUDGET_CLASSES
    )
    wait = min(_FIRST_DELAY * 2 ** min(failures, 10), _MAX_DELAY) if temporary else _MAX_DELAY
    return max(wait, result.retry_after)


# -- refusals predicted from the watched budgets -----------------------------------------------------------------------


def predict_refusal(pod: Pod, budgets: Sequence[DisruptionBudget]) -> EvictionResult | None:
    """Return how the server would refuse an eviction now, by these budgets; None if it would accept."""
    if not budgets or not pod.counts_in_budgets:
        return None
    if len(budgets) > 1:
        message = messages.several_budgets_message(budget.name for budget in budgets)
        return EvictionResult(
            EvictionOutcome.REFUSED, BlockerClass.SEVERAL_BUDGETS, message, messages.SEVERAL_BUDGETS_HINT
        )
    (budget,) = budgets
    if budget.allows_eviction_of(pod):
        return None
    return budget_refusal(budget, messages.budget_exhausted_message(budget))


def budget_refusal(budget: DisruptionBudget | None, message: str, retry_after: float = 0.0) -> EvictionResult:
    """Return the result for a budget that allows no eviction now; the class says whether it ever can."""
    blocker_class, message, hint = _explain_budget(budget, message)
    return EvictionResult(EvictionOutcome.REFUSED, blocker_class, message, hint, retry_after, budget)


def _explain_budget(budget: DisruptionBudget | None, message: str) -> tuple[BlockerClass, str, str]:
    if budget is None:
        return BlockerClass.BUDGET_EXHAUSTED, message, messages.UNKNOWN_BUDGET_HINT
    if budget.sync_error:
        cause = messages.sync_failed_message(budget)[:_MAX_MESSAGE_LENGTH]
        return BlockerClass.BUDGET_MISCONFIGURED, cause, messages.sync_failed_hint(budget)
    if not budget.observed:
        cause = messages.budget_not_observed_message(budget)
        return BlockerClass.BUDGET_NOT_OBSERVED, cause, messages.BUDGET_NOT_OBSERVED_HINT
    if budget.misconfigured:
        return BlockerClass.BUDGET_MISCONFIGURED, message, messages.budget_misconfigured_hint(budget)
    return BlockerClass.BUDGET_EXHAUSTED, message, messages.budget_exhausted_hint(budget)
