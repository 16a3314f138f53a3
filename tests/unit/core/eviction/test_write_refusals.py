"""The cause of a failed write, and when it is retried."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rescheduler.core.eviction import messages, write_refusals
from rescheduler.core.eviction.api_responses import ErrorResponse
from rescheduler.core.eviction.write_refusals import WriteFailure, WriteOperation

CODES = st.sampled_from([0, 400, 401, 403, 404, 405, 408, 409, 410, 413, 415, 422, 429, 500, 502, 503, 504])


@pytest.mark.parametrize(
    ("code", "lasting"),
    [
        (0, False),
        (400, True),
        (403, True),
        (413, True),
        (422, True),
        (404, False),
        (409, False),
        (429, False),
        (500, False),
    ],
)
def test_only_a_person_ends_some_refusals(code: int, lasting: bool) -> None:
    assert write_refusals.is_permanent(ErrorResponse(code)) is lasting
    assert write_refusals.is_reported(ErrorResponse(code), 1) is lasting
    assert write_refusals.is_reported(ErrorResponse(code), 3)


@given(CODES, st.integers(1, 10**6), st.floats(0, 1e9))
def test_a_retry_is_never_hot_and_never_late_for_good(code: int, failures: int, retry_after: float) -> None:
    found = write_refusals.retry_delay(ErrorResponse(code, retry_after=retry_after), failures)
    assert 0.1 <= found <= 60
    assert found >= min(retry_after, 60)
    if write_refusals.is_permanent(ErrorResponse(code)):
        assert found >= 30
    if failures > 10:
        assert found >= 30


@given(CODES, st.text(), st.text())
def test_the_cause_is_short_whatever_the_server_says_and_names_a_next_step(code: int, reason: str, said: str) -> None:
    words = write_refusals.describe(ErrorResponse(code, reason[:40], said * 100))
    assert len(words) < 600
    assert str(code or "does not answer") in words
    assert "; " in words


@pytest.mark.parametrize(
    ("refusal", "step"),
    [
        (ErrorResponse(403, "Forbidden", 'User "x" cannot patch resource "nodes" in API group ""'), "ClusterRole"),
        (ErrorResponse(403, "Forbidden", "ValidatingAdmissionPolicy 'x' denied request: no"), "admission policy"),
        (ErrorResponse(422, "Invalid", "metadata.annotations: Too long: may not be more than 262144 bytes"), "smaller"),
        (ErrorResponse(500, "InternalError", 'failed calling webhook "x": connection refused'), "logs of the webhook"),
        (ErrorResponse(409, "Conflict", "the object has been modified"), "which other client keeps writing"),
        (ErrorResponse(503, "", "etcd"), "load"),
        (ErrorResponse(0, "", "timed out"), "network"),
    ],
)
def test_the_next_step_fits_the_refusal(refusal: ErrorResponse, step: str) -> None:
    assert step in write_refusals.describe(refusal)


def test_a_smaller_write_is_tried_where_a_rule_or_a_webhook_is_in_the_way() -> None:
    assert write_refusals.may_other_write_pass(ErrorResponse(422), 1)
    assert not write_refusals.may_other_write_pass(ErrorResponse(500), 2)
    assert write_refusals.may_other_write_pass(ErrorResponse(500), 3)
    assert not write_refusals.may_other_write_pass(ErrorResponse(429), 99)


def test_a_write_failure_names_the_write_and_its_cause() -> None:
    assert str(WriteFailure(WriteOperation.UNCORDON, "why")) == "the node cannot be uncordoned: why"


def test_each_failed_write_has_a_text_and_no_write_equals_a_string() -> None:
    assert set(messages.FAILED_WRITES) == {operation.value for operation in WriteOperation}
    assert not {*WriteOperation} & {*messages.FAILED_WRITES}
