"""The pace of requests for one pod."""

from hypothesis import given
from hypothesis import strategies as st

from rescheduler.api.drains import BlockerClass
from rescheduler.core.eviction.api_responses import Answer, Refusal, judge
from rescheduler.core.eviction.retries import Retries
from rescheduler.core.model.disruption_budgets import Budget

CAUSES = st.sampled_from([(), (("DisruptionBudget", "needs 2"),), (("DisruptionBudget", "still being processed"),)])
WORDS = st.sampled_from(["", 'admission webhook "x" denied the request: no', "failed calling webhook"])
REFUSALS = st.builds(Refusal, st.integers(0, 600), st.just(""), WORDS, CAUSES, st.integers(0, 400))
BUDGETS = st.sampled_from([None, Budget("s", "b", "b")])


@given(st.lists(st.tuples(REFUSALS, BUDGETS), min_size=1, max_size=60))
def test_no_stream_of_answers_makes_a_pod_cost_more_than_two_requests_a_minute(
    stream: list[tuple[Refusal, Budget | None]],
) -> None:
    """After the first few; and whatever an answer asks to wait is waited."""
    retries, now, times = Retries(), 0.0, []
    for refusal, budget in stream:
        answer = judge(refusal, budget)
        times.append(now)
        retries.failed("a", answer, now)
        wait = retries.wait("a", now)
        assert wait >= answer.retry_after
        now += wait
    assert max(sum(start <= at < start + 59.9 for at in times) for start in times) <= 7
    assert all(sum(start <= at < start + 59.9 for at in times) <= 2 for start in times[7:])


def test_what_is_forgotten_begins_anew_and_others_are_not_touched() -> None:
    retries, answer = Retries(), Answer(judge(Refusal(500), None).outcome, BlockerClass.THROTTLED)
    for uid in ("a", "a", "a", "b"):
        retries.failed(uid, answer, 0.0)
    retries.forget(["a"])
    assert (retries.wait("a", 0.0), retries.wait("b", 0.0)) == (0.0, 0.5)


def test_a_rest_is_no_failure_and_never_shortens_a_pause() -> None:
    retries = Retries()
    retries.rest("a", 5.0)
    retries.rest("a", 2.0)
    assert retries.wait("a", 0.0) == 5.0
    retries.failed("a", judge(Refusal(500), None), 5.0)
    assert retries.wait("a", 5.0) == 0.5
