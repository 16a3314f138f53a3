"""Every answer of the API server to an eviction, told apart."""

import pytest

from rescheduler.api.drains import BlockerClass as B
from rescheduler.core.answers import Outcome, Refusal, judge
from rescheduler.core.budgets import Budget

BUDGET = (("DisruptionBudget", "The disruption budget web needs 2 healthy pods and has 2 currently"),)
TWO = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."


@pytest.mark.parametrize(
    ("refusal", "outcome", "cause"),
    [
        (Refusal(404, "NotFound"), Outcome.GONE, None),
        (
            Refusal(409, "Conflict", "Precondition failed: UID in precondition: a, UID in object meta: b"),
            Outcome.GONE,
            None,
        ),
        (
            Refusal(409, "Conflict", "the UID in the precondition (a) does not match the UID in record (b)"),
            Outcome.GONE,
            None,
        ),
        (
            # The same pod, changed since it was looked at: it may be Ready again.
            Refusal(
                409, "Conflict", "the ResourceVersion in the precondition (1) does not match the one in record (2)"
            ),
            Outcome.RETRY,
            B.THROTTLED,
        ),
        (
            Refusal(409, "Conflict", "Precondition failed: ResourceVersion in precondition: 1, in object meta: 2"),
            Outcome.RETRY,
            B.THROTTLED,
        ),
        (Refusal(409, "Conflict", "please apply your changes to the latest version"), Outcome.RETRY, B.THROTTLED),
        (Refusal(429, "TooManyRequests", "Cannot evict", BUDGET), Outcome.REFUSED, B.BUDGET_EXHAUSTED),
        (
            Refusal(
                429,
                "TooManyRequests",
                "Cannot evict",
                (("DisruptionBudget", "is still being processed by the server"),),
                10,
            ),
            Outcome.RETRY,
            B.BUDGET_NOT_OBSERVED,
        ),
        (Refusal(429, "TooManyRequests", "too many requests", (), 1), Outcome.RETRY, B.THROTTLED),
        (
            Refusal(429, "TooManyRequests", 'admission webhook "virt" denied the request: evacuation has begun'),
            Outcome.REFUSED,
            B.DELEGATED,
        ),
        (Refusal(403, "Forbidden", "x", (("NamespaceTerminating", ""),)), Outcome.REFUSED, B.NAMESPACE_TERMINATING),
        (
            Refusal(403, "Forbidden", "x", (("DisruptionBudget", "too many unconfirmed"),)),
            Outcome.REFUSED,
            B.BUDGET_NOT_OBSERVED,
        ),
        (Refusal(403, "Forbidden", "denied by policy"), Outcome.REFUSED, B.ADMISSION_DENIED),
        (Refusal(500, "InternalError", TWO), Outcome.REFUSED, B.SEVERAL_BUDGETS),
        (Refusal(500, "InternalError", 'failed calling webhook "x": EOF'), Outcome.REFUSED, B.ADMISSION_DENIED),
        (
            Refusal(500, "", 'admission webhook "strimzi" denied the request: The pod will be rolled by the Operator'),
            Outcome.REFUSED,
            B.DELEGATED,
        ),
        (Refusal(500, "InternalError", "etcd"), Outcome.RETRY, B.THROTTLED),
        (Refusal(504, "Timeout", "timeout", (), 10), Outcome.RETRY, B.THROTTLED),
    ],
)
def test_answers(refusal: Refusal, outcome: Outcome, cause: B | None) -> None:
    answer = judge(refusal, None)
    assert (answer.outcome, answer.cause) == (outcome, cause)
    assert bool(answer.hint) == (cause is not None)


def test_a_budget_that_can_never_allow_is_called_so() -> None:
    budget = Budget("s", "web", "u", allowed=0, healthy=2, needed=2, expected=2)
    assert judge(Refusal(429, "", "", BUDGET), budget).cause is B.BUDGET_MISCONFIGURED
    short = Budget("s", "web", "u", allowed=0, healthy=1, needed=2, expected=2)
    assert judge(Refusal(429, "", "", BUDGET), short).cause is B.BUDGET_EXHAUSTED
