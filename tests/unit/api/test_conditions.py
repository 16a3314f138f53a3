"""Conditions keep their transition time while their status is the same."""

from datetime import timedelta

from rescheduler.api.conditions import CRDS_OUTDATED, Condition, merge, with_crds_outdated
from unit.builders import NOW

LATER = NOW + timedelta(minutes=1)


def test_merge_keeps_the_transition_time_of_an_unchanged_status() -> None:
    before = merge((), {"Ready": ("True", "Mapped", "a")}, 1, NOW)
    (ready,) = merge(before, {"Ready": ("True", "Mapped", "b")}, 2, LATER)
    assert (ready.message, ready.observed_generation, ready.last_transition_time) == ("b", 2, NOW)


def test_merge_sets_the_transition_time_of_a_changed_status() -> None:
    before = merge((), {"Ready": ("True", "Mapped", "a")}, 1, NOW)
    (ready,) = merge(before, {"Ready": ("False", "NoNodes", "a")}, 1, LATER)
    assert ready.last_transition_time == LATER


def test_merge_keeps_conditions_of_other_types_and_their_order() -> None:
    foreign = Condition(type="Gate", status="True", last_transition_time=NOW)
    merged = merge((foreign,), {"Ready": ("True", "Mapped", "a")}, 1, LATER)
    assert [condition.type for condition in merged] == ["Gate", "Ready"]
    assert merged[0] == foreign


def test_outdated_crds_are_a_condition_while_they_are_known_to_be_outdated() -> None:
    before = merge((), {"Ready": ("True", "Mapped", "a")}, 1, NOW)
    outdated = with_crds_outdated(before, "the CRD lacks a field", 1, NOW)
    assert [(c.type, c.status) for c in outdated] == [("Ready", "True"), (CRDS_OUTDATED, "True")]
    assert with_crds_outdated(outdated, "the CRD lacks a field", 1, LATER) == outdated
    assert with_crds_outdated(outdated, None, 1, LATER) == outdated
    assert with_crds_outdated(outdated, "", 1, LATER) == before
