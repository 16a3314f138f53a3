"""Rules of the Lease election."""

from hypothesis import given
from hypothesis import strategies as st

from rescheduler.kube.election_rules import INSTALLATION_TIMINGS, PROCESS_TIMINGS, LeaseTimings, ObservedLease

TIMES = st.floats(0, 1e6)


def test_a_lease_that_nobody_holds_and_our_own_are_free_at_once() -> None:
    assert ObservedLease().is_free("a", PROCESS_TIMINGS, 0.0)
    assert ObservedLease().updated("", "", 5.0).is_free("a", PROCESS_TIMINGS, 5.0)
    assert ObservedLease().updated("a", "1", 5.0).is_free("a", PROCESS_TIMINGS, 5.0)


def test_anothers_lease_is_free_when_it_was_not_renewed_for_its_duration() -> None:
    observed = ObservedLease().updated("b", "1", 100.0)
    assert not observed.is_free("a", INSTALLATION_TIMINGS, 219.9)
    assert observed.is_free("a", INSTALLATION_TIMINGS, 220.0)
    renewed = observed.updated("b", "2", 219.0)
    assert not renewed.is_free("a", INSTALLATION_TIMINGS, 338.9)
    assert renewed.updated("b", "2", 300.0) == renewed  # a read without a change is no renewal


def test_a_holder_is_alive_once_it_was_seen_to_renew() -> None:
    first = ObservedLease().updated("b", "1", 0.0)
    assert not first.holder_is_alive
    assert first.updated("b", "2", 5.0).holder_is_alive
    assert not first.updated("b", "2", 5.0).updated("c", "3", 6.0).holder_is_alive
    assert not first.updated("", "2", 5.0).updated("", "3", 6.0).holder_is_alive


@given(st.lists(st.tuples(st.sampled_from(["", "a", "b", "c"]), st.text(max_size=2), TIMES), max_size=20), TIMES)
def test_a_held_lease_is_free_only_after_its_duration(looks: list[tuple[str, str, float]], now: float) -> None:
    observed, changed = ObservedLease(), 0.0
    for holder, renewal, when in sorted(looks, key=lambda look: look[2]):
        if (holder, renewal) != (observed.holder, observed.renew_time):
            changed = when
        observed = observed.updated(holder, renewal, when)
    if observed.holder not in ("", "a"):
        assert observed.is_free("a", PROCESS_TIMINGS, now) == (now >= changed + PROCESS_TIMINGS.lease_duration)


def test_a_holder_stops_before_another_may_take_over() -> None:
    def margin(terms: LeaseTimings) -> float:
        return terms.lease_duration - terms.renew_deadline - terms.retry_period

    assert margin(PROCESS_TIMINGS) >= 3
    assert margin(INSTALLATION_TIMINGS) >= 30
