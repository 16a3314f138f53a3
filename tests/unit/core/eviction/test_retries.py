"""The retry schedule of the requests for one pod."""

from hypothesis import given
from hypothesis import strategies as st

from rescheduler.api.drains import BlockerClass
from rescheduler.core.eviction.api_responses import ErrorResponse, EvictionResult, classify
from rescheduler.core.eviction.retries import RetrySchedule
from rescheduler.core.model.disruption_budgets import DisruptionBudget

CAUSES = st.sampled_from([(), (("DisruptionBudget", "needs 2"),), (("DisruptionBudget", "still being processed"),)])
WORDS = st.sampled_from(["", 'admission webhook "x" denied the request: no', "failed calling webhook"])
REFUSALS = st.builds(ErrorResponse, st.integers(0, 600), st.just(""), WORDS, CAUSES, st.integers(0, 400))
BUDGETS = st.sampled_from([None, DisruptionBudget("s", "b", "b")])


@given(st.lists(st.tuples(REFUSALS, BUDGETS), min_size=1, max_size=60))
def test_no_responses_cost_a_pod_more_than_two_requests_a_minute(
    stream: list[tuple[ErrorResponse, DisruptionBudget | None]],
) -> None:
    """The limit holds after the first few requests; each Retry-After is honoured."""
    retries, now, times = RetrySchedule(), 0.0, []
    for refusal, budget in stream:
        answer = classify(refusal, budget)
        times.append(now)
        retries.record_failure("a", answer, now)
        wait = retries.seconds_until_due("a", now)
        assert wait >= answer.retry_after
        now += wait
    assert max(sum(start <= at < start + 59.9 for at in times) for start in times) <= 7
    assert all(sum(start <= at < start + 59.9 for at in times) <= 2 for start in times[7:])


def test_a_forgotten_pod_starts_again_and_others_keep_their_schedule() -> None:
    retries, answer = (
        RetrySchedule(),
        EvictionResult(classify(ErrorResponse(500), None).outcome, BlockerClass.THROTTLED),
    )
    for uid in ("a", "a", "a", "b"):
        retries.record_failure(uid, answer, 0.0)
    retries.forget(["a"])
    assert (retries.seconds_until_due("a", 0.0), retries.seconds_until_due("b", 0.0)) == (0.0, 0.5)


def test_a_rest_is_no_failure_and_never_shortens_a_pause() -> None:
    retries = RetrySchedule()
    retries.postpone("a", 5.0)
    retries.postpone("a", 2.0)
    assert retries.seconds_until_due("a", 0.0) == 5.0
    retries.record_failure("a", classify(ErrorResponse(500), None), 5.0)
    assert retries.seconds_until_due("a", 5.0) == 0.5
