"""Pods moved again that had just been moved."""

from datetime import UTC, datetime, timedelta

from rescheduler.core.model.pods import Owner, Pod
from rescheduler.core.replacement.move_history import WAVE, Lineages

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def pod(uid: str, created: timedelta, owner: str = "rs") -> Pod:
    return Pod("shop", uid, uid, owner=Owner("ReplicaSet", owner, owner), created=NOW + created)


def test_a_replacement_that_is_moved_too_counts_as_moved_again() -> None:
    seen, second = Lineages(), timedelta(seconds=1)
    assert not seen.moved(pod("a", -WAVE), NOW)
    assert not seen.moved(pod("b", -WAVE), NOW + second)
    assert seen.moved(pod("c", second), NOW + 9 * second)
    assert not seen.moved(pod("d", second, owner="other"), NOW + 9 * second)


def test_waves_far_apart_have_nothing_to_do_with_each_other() -> None:
    seen, later = Lineages(), NOW + 2 * WAVE
    seen.moved(pod("a", -WAVE), NOW)
    assert not seen.moved(pod("b", WAVE), later)
    assert seen.moved(pod("c", 2 * WAVE), later + WAVE)


def test_the_memory_is_bounded() -> None:
    seen = Lineages()
    for index in range(10_001):
        seen.moved(pod("a", -WAVE, owner=str(index)), NOW)
    assert not seen.moved(pod("b", WAVE, owner="0"), NOW)


def test_a_pod_that_came_while_others_of_its_owner_were_moved_replaces_one() -> None:
    seen, second = Lineages(), timedelta(seconds=1)
    seen.moved(pod("a", -WAVE), NOW + second / 2)
    assert seen.replaces(pod("b", timedelta()), NOW + second)
    assert not seen.replaces(pod("c", -second), NOW + second)
    assert not seen.replaces(pod("d", second, owner="other"), NOW + second)
    assert not seen.replaces(pod("b", timedelta()), NOW + WAVE + second)
