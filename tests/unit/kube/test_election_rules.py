"""Who may take a Lease, and when."""

from hypothesis import given
from hypothesis import strategies as st

from rescheduler.kube.election_rules import INSTALLATION, PROCESS, Seen, Terms

TIMES = st.floats(0, 1e6)


def test_a_lease_that_nobody_holds_and_our_own_are_free_at_once() -> None:
    assert Seen().is_free("a", PROCESS, 0.0)
    assert Seen().then("", "", 5.0).is_free("a", PROCESS, 5.0)
    assert Seen().then("a", "1", 5.0).is_free("a", PROCESS, 5.0)


def test_anothers_lease_is_free_when_it_was_not_renewed_for_its_duration() -> None:
    seen = Seen().then("b", "1", 100.0)
    assert not seen.is_free("a", INSTALLATION, 219.9)
    assert seen.is_free("a", INSTALLATION, 220.0)
    renewed = seen.then("b", "2", 219.0)
    assert not renewed.is_free("a", INSTALLATION, 338.9)
    assert renewed.then("b", "2", 300.0) == renewed  # a look that finds nothing new is no renewal


def test_a_holder_is_alive_once_it_was_seen_to_renew() -> None:
    first = Seen().then("b", "1", 0.0)
    assert not first.alive
    assert first.then("b", "2", 5.0).alive
    assert not first.then("b", "2", 5.0).then("c", "3", 6.0).alive
    assert not first.then("", "2", 5.0).then("", "3", 6.0).alive


@given(st.lists(st.tuples(st.sampled_from(["", "a", "b", "c"]), st.text(max_size=2), TIMES), max_size=20), TIMES)
def test_whatever_is_written_into_it_anothers_lease_is_free_only_after_its_duration(
    looks: list[tuple[str, str, float]], now: float
) -> None:
    seen, changed = Seen(), 0.0
    for holder, renewal, when in sorted(looks, key=lambda look: look[2]):
        if (holder, renewal) != (seen.holder, seen.renewal):
            changed = when
        seen = seen.then(holder, renewal, when)
    if seen.holder not in ("", "a"):
        assert seen.is_free("a", PROCESS, now) == (now >= changed + PROCESS.duration)


def test_a_holder_stops_before_another_may_take_over() -> None:
    def margin(terms: Terms) -> float:
        return terms.duration - terms.deadline - terms.retry

    assert margin(PROCESS) >= 3
    assert margin(INSTALLATION) >= 30
