"""Replacements that move again shortly after their creation."""

from datetime import timedelta

from rescheduler.core.model.pods import Owner, Pod
from rescheduler.core.replacement.move_history import WAVE_DURATION, MoveHistory
from unit.builders import NOW, pod


def pod_created(uid: str, created: timedelta, owner: str = "rs") -> Pod:
    """Return a pod of this ReplicaSet that was created at `NOW` plus this time."""
    return pod(uid, owner=Owner("ReplicaSet", owner, owner), created=NOW + created)


def test_a_replacement_that_is_moved_too_counts_as_moved_again() -> None:
    seen, second = MoveHistory(), timedelta(seconds=1)
    assert not seen.record_move(pod_created("a", -WAVE_DURATION), NOW)
    assert not seen.record_move(pod_created("b", -WAVE_DURATION), NOW + second)
    assert seen.record_move(pod_created("c", second), NOW + 9 * second)
    assert not seen.record_move(pod_created("d", second, owner="other"), NOW + 9 * second)


def test_waves_far_apart_have_nothing_to_do_with_each_other() -> None:
    seen, later = MoveHistory(), NOW + 2 * WAVE_DURATION
    seen.record_move(pod_created("a", -WAVE_DURATION), NOW)
    assert not seen.record_move(pod_created("b", WAVE_DURATION), later)
    assert seen.record_move(pod_created("c", 2 * WAVE_DURATION), later + WAVE_DURATION)


def test_the_memory_is_bounded() -> None:
    seen = MoveHistory()
    for index in range(10_001):
        seen.record_move(pod_created("a", -WAVE_DURATION, owner=str(index)), NOW)
    assert not seen.record_move(pod_created("b", WAVE_DURATION, owner="0"), NOW)


def test_a_pod_that_came_while_others_of_its_owner_were_moved_replaces_one() -> None:
    seen, second = MoveHistory(), timedelta(seconds=1)
    seen.record_move(pod_created("a", -WAVE_DURATION), NOW + second / 2)
    assert seen.is_replacement(pod_created("b", timedelta()), NOW + second)
    assert not seen.is_replacement(pod_created("c", -second), NOW + second)
    assert not seen.is_replacement(pod_created("d", second, owner="other"), NOW + second)
    assert not seen.is_replacement(pod_created("b", timedelta()), NOW + WAVE_DURATION + second)


def test_moves_of_a_pod_and_of_the_pods_before_it_are_numbered() -> None:
    moves = MoveHistory()
    assert moves.move_number(pod("a"), "b", again=False) == 1
    assert moves.move_number(pod("b"), "c", again=True) == 2
    assert moves.move_number(pod("c"), "", again=True) == 3
    assert moves.move_number(pod("unknown"), "", again=True) == 2
