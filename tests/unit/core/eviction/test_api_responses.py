"""The meaning of each response of the API server to an eviction or a delete."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rescheduler.api.drains import BlockerClass as B
from rescheduler.core.eviction.api_responses import (
    MAX_RETRY_AFTER,
    RESPONSE_RULES,
    ErrorResponse,
    EvictionOutcome,
    classify,
    matching_rule,
    no_response,
    predict_refusal,
    retry_delay,
)
from rescheduler.core.model.disruption_budgets import DisruptionBudget
from rescheduler.core.model.pods import Pod

NEEDS = (("DisruptionBudget", "The disruption budget web needs 2 healthy pods and has 2 currently"),)
NOT_YET = (("DisruptionBudget", "The disruption budget web is still being processed by the server."),)
TWO = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
WEBHOOK = 'admission webhook "virt" denied the request: evacuation has begun'
FAILS = 'Internal error occurred: failed calling webhook "x": failed to call webhook: Post "https://x": EOF'
POLICY = "pods \"a\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: ask us"
RIGHTS = 'pods "a" is forbidden: User "x" cannot create resource "pods/eviction" in API group "" in the namespace "s"'
UID = "Precondition failed: UID in precondition: a, UID in object meta: b"
VERSION = "the ResourceVersion in the precondition (1) does not match the ResourceVersion in record (2)"
REFUSED, RETRY, GONE = EvictionOutcome.REFUSED, EvictionOutcome.RETRY, EvictionOutcome.GONE

CASES = [
    # code, message, causes -> row, outcome, class
    (404, 'pods "a" not found', (), "pod is gone", GONE, None),
    (404, 'pods "webhook-0" not found', (), "pod is gone", GONE, None),
    (409, UID, (), "another pod has its name", GONE, None),
    (
        409,
        "the UID in the precondition (a) does not match the UID in record (b)",
        (),
        "another pod has its name",
        GONE,
        None,
    ),
    # The same pod, changed since it was looked at: it may be Ready again.
    (409, VERSION, (), "pod has changed", RETRY, B.THROTTLED),
    (409, "please apply your changes to the latest version", (), "budget is contended", RETRY, B.THROTTLED),
    (429, "Cannot evict", NEEDS, "budget allows none", REFUSED, B.BUDGET_EXHAUSTED),
    (429, "Cannot evict", NOT_YET, "budget is not observed", RETRY, B.BUDGET_NOT_OBSERVED),
    (429, "too many requests", (), "throttled", RETRY, B.THROTTLED),
    (429, WEBHOOK, (), "webhook takes over", REFUSED, B.DELEGATED),
    (429, WEBHOOK, NEEDS, "webhook takes over", REFUSED, B.DELEGATED),  # it may fill in the causes, too
    (
        500,
        'admission webhook "strimzi" denied the request: will be rolled',
        (),
        "webhook takes over",
        REFUSED,
        B.DELEGATED,
    ),
    (503, WEBHOOK, (), "webhook takes over", REFUSED, B.DELEGATED),
    (400, WEBHOOK, (), "webhook denies", REFUSED, B.ADMISSION_DENIED),
    (403, WEBHOOK, (), "webhook denies", REFUSED, B.ADMISSION_DENIED),
    (404, WEBHOOK, (), "webhook denies", REFUSED, B.ADMISSION_DENIED),
    (409, f"{WEBHOOK} {UID}", (), "webhook denies", REFUSED, B.ADMISSION_DENIED),
    (500, FAILS, (), "webhook fails", REFUSED, B.ADMISSION_DENIED),
    (504, FAILS, (), "webhook fails", REFUSED, B.ADMISSION_DENIED),
    (422, POLICY, (), "policy denies", REFUSED, B.ADMISSION_DENIED),
    (403, "x", (("NamespaceTerminating", ""),), "namespace ends", REFUSED, B.NAMESPACE_TERMINATING),
    (403, "x", (("DisruptionBudget", "too many"),), "budget is odd", REFUSED, B.BUDGET_NOT_OBSERVED),
    (403, RIGHTS, (), "rights", REFUSED, B.ADMISSION_DENIED),
    (403, "denied by policy", (), "forbidden", REFUSED, B.ADMISSION_DENIED),
    (500, TWO, (), "several budgets", REFUSED, B.SEVERAL_BUDGETS),
    (400, "bad", (), "not understood", REFUSED, B.ADMISSION_DENIED),
    (401, "Unauthorized", (), "credentials", RETRY, B.THROTTLED),
    (405, "", (), "not understood", REFUSED, B.ADMISSION_DENIED),
    (413, "too large", (), "too large", REFUSED, B.ADMISSION_DENIED),
    (422, "invalid", (), "not understood", REFUSED, B.ADMISSION_DENIED),
    (500, "etcd", (), "server fails", RETRY, B.THROTTLED),
    (502, "", (), "server fails", RETRY, B.THROTTLED),
    (503, "", (), "server fails", RETRY, B.THROTTLED),
    (504, "timeout", (), "server fails", RETRY, B.THROTTLED),
    (0, "timed out", (), "no answer", RETRY, B.THROTTLED),
    (599, "", (), "server fails", RETRY, B.THROTTLED),
    (7, "", (), "server fails", RETRY, B.THROTTLED),
    (12345, "", (), "server fails", RETRY, B.THROTTLED),
]


@pytest.mark.parametrize(("code", "message", "causes", "name", "outcome", "cause"), CASES)
def test_each_response_matches_its_row(
    code: int, message: str, causes: tuple[tuple[str, str], ...], name: str, outcome: EvictionOutcome, cause: B | None
) -> None:
    refusal = ErrorResponse(code, "", message, causes)
    answer = classify(refusal, None)
    assert (matching_rule(refusal).name, answer.outcome, answer.blocker_class) == (name, outcome, cause)


def test_each_row_of_the_table_has_a_case() -> None:
    assert {each.name for each in RESPONSE_RULES} == {case[3] for case in CASES}


@pytest.mark.parametrize("message", ["", "x", WEBHOOK, FAILS, TWO, UID, VERSION, RIGHTS])
def test_no_code_is_without_an_outcome_and_words(message: str) -> None:
    for code in range(-1, 1100):
        answer = classify(ErrorResponse(code, "", message, (), 3), None)
        assert answer.outcome is not EvictionOutcome.ACCEPTED
        assert answer.outcome is GONE or (answer.blocker_class and answer.message and answer.hint), code
        assert retry_delay(answer, 0) >= 0.5
        assert answer.outcome is GONE or retry_delay(answer, 0) >= 3


def test_only_404_and_another_uid_mean_that_nothing_is_left_to_do() -> None:
    gone = {
        code
        for code in range(1000)
        for m in ("", "x", TWO, RIGHTS)
        if classify(ErrorResponse(code, "", m), None).outcome is GONE
    }
    assert gone == {404}


@given(st.floats(allow_nan=False), st.text(max_size=3000), st.integers(0, 10**6))
def test_what_others_ask_and_say_is_bounded(asked: float, words: str, failures: int) -> None:
    answer = classify(ErrorResponse(429, "", words, (), asked), None)
    assert 0 <= answer.retry_after <= MAX_RETRY_AFTER
    assert retry_delay(answer, failures) <= MAX_RETRY_AFTER
    assert len(answer.message) <= 1000


def test_a_dry_run_that_a_webhook_answers_says_nothing_of_a_real_one() -> None:
    assert {each.name for each in RESPONSE_RULES if each.by_webhook} == {
        "webhook takes over",
        "webhook denies",
        "webhook fails",
    }
    assert classify(ErrorResponse(429, "", WEBHOOK), None).by_webhook
    assert not classify(ErrorResponse(429, "", "", NEEDS), None).by_webhook


def test_a_request_without_an_answer_has_words_too() -> None:
    answer = no_response("POST /x: TimeoutError")
    assert (answer.outcome, answer.blocker_class, answer.message) == (RETRY, B.THROTTLED, "POST /x: TimeoutError")
    assert "slow admission webhooks" in answer.hint


FULL = DisruptionBudget("s", "web", "u", allowed=0, healthy=2, needed=2, expected=2, limit="minAvailable 2")
SYNC = "virtualmachines.kubevirt.io does not implement the scale subresource"


@pytest.mark.parametrize(
    ("changes", "cause", "says", "hint"),
    [
        ({}, B.BUDGET_MISCONFIGURED, "needs 2 healthy", "lower minAvailable 2"),
        ({"healthy": 1}, B.BUDGET_EXHAUSTED, "needs 2 healthy", "wait until more pods of"),
        ({"disrupted": 1}, B.BUDGET_EXHAUSTED, "needs 2 healthy", "have been replaced"),
        ({"expected": 0}, B.BUDGET_EXHAUSTED, "needs 2 healthy", "their owner wants none"),
        ({"observed": False}, B.BUDGET_NOT_OBSERVED, "its status is not up to date yet", "kube-controller-manager"),
        ({"observed": False, "sync_error": SYNC}, B.BUDGET_MISCONFIGURED, SYNC, "use an integer minAvailable"),
        (
            {"sync_error": "etcd timed out"},
            B.BUDGET_MISCONFIGURED,
            "etcd timed out",
            "check the logs of kube-controller-manager",
        ),
    ],
)
def test_a_budget_that_allows_none_says_why_and_what_helps(
    changes: dict[str, object], cause: B, says: str, hint: str
) -> None:
    budget = replace(FULL, **changes)  # type: ignore[arg-type]
    foreseen = predict_refusal(Pod("s", "p", "p", ready=True), (budget,))
    assert foreseen
    for answer in (foreseen, classify(ErrorResponse(429, "", "", NEEDS), budget)):
        assert answer.blocker_class is cause
        assert says in answer.message
        assert hint in answer.hint
        assert answer.budget is budget


def test_a_budget_whose_sync_failed_is_not_said_to_be_behind() -> None:
    """The API server reports "still being processed", with Retry-After, until a user fixes the budget."""
    failed = replace(FULL, observed=False, sync_error=SYNC)
    answer = classify(ErrorResponse(429, "", "Cannot evict", NOT_YET, 10), failed)
    assert (answer.outcome, answer.blocker_class, answer.retry_after) == (REFUSED, B.BUDGET_MISCONFIGURED, 10)
    assert SYNC in answer.message


@pytest.mark.parametrize("phase", ["Pending", "Succeeded", "Failed"])
def test_pods_that_no_budget_counts_wait_for_none(phase: str) -> None:
    pod = Pod("s", "p", "p", phase=phase)
    assert predict_refusal(pod, (replace(FULL, healthy=0),)) is None
    assert predict_refusal(pod, (FULL, FULL)) is None
    assert predict_refusal(replace(pod, phase="Running", ready=True), (FULL, FULL)) is not None
