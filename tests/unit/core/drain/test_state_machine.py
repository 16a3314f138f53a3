"""The table of a drain's life, line by line."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rescheduler.api.drains import Phase
from rescheduler.core.drain.state_machine import MIN_TIME_CORDONED, TRANSITIONS, Command, DrainState, Fact, fact, step

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def situation(**changes: object) -> DrainState:
    base: dict[str, object] = {"now": NOW, "same_node": True, "withdrawn": False, "restored": False, "must_wait": False}
    base["cordoned_at"] = changes.get("started_at")
    return DrainState(**(base | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"same_node": False, "withdrawn": True}, Fact.NODE_GONE),
        ({"withdrawn": True}, Fact.WITHDRAWN),
        ({"withdrawn": True, "restored": True}, Fact.RESTORED),
        ({"withdrawn": True, "out_of_service": True, "started_at": NOW}, Fact.OUT_OF_SERVICE),
        (
            {"withdrawn": True, "out_of_service": True, "started_at": NOW, "has_pods_to_return": True},
            Fact.RETURNING_PODS,
        ),
        ({"withdrawn": True, "out_of_service": True, "same_node": False}, Fact.NODE_GONE),
        ({"started_at": NOW, "must_wait": True, "steps_back": True, "out_of_service": True}, Fact.WAITING),
        ({"must_wait": True}, Fact.WAITING),
        ({}, Fact.MAY_START),
        ({"started_at": NOW, "remaining": None}, Fact.PODS_UNKNOWN),
        ({"started_at": NOW, "remaining": 0}, Fact.PODS_REMAINING),  # the scheduler may still bind
        ({"started_at": NOW - MIN_TIME_CORDONED, "remaining": 0}, Fact.EMPTY),
        (
            {"started_at": NOW - MIN_TIME_CORDONED, "remaining": 0, "cordoned_at": NOW},
            Fact.PODS_REMAINING,
        ),  # cordoned late, or again
        ({"started_at": NOW - MIN_TIME_CORDONED, "remaining": 0, "cordoned_at": None}, Fact.PODS_REMAINING),
        ({"started_at": NOW - MIN_TIME_CORDONED, "remaining": 0, "cordoned_at": None, "must_wait": True}, Fact.WAITING),
        ({"started_at": NOW - MIN_TIME_CORDONED, "remaining": 0, "must_wait": True}, Fact.EMPTY_AND_WAITING),
        ({"started_at": NOW - MIN_TIME_CORDONED, "remaining": 0, "must_wait": True, "without_slot": True}, Fact.EMPTY),
        ({"started_at": NOW - MIN_TIME_CORDONED, "remaining": 0, "must_wait": True, "cordoned_only": True}, Fact.EMPTY),
        ({"started_at": NOW - MIN_TIME_CORDONED, "remaining": 1, "must_wait": True}, Fact.WAITING),
        ({"started_at": NOW - timedelta(seconds=59), "remaining": 1, "blocker_count": 1}, Fact.PODS_REMAINING),
        ({"started_at": NOW - timedelta(seconds=60), "remaining": 1, "blocker_count": 1}, Fact.BLOCKED),
        (
            {"started_at": NOW - timedelta(hours=1), "remaining": 1, "blocker_count": 1, "last_move_at": NOW},
            Fact.PODS_REMAINING,
        ),
        # A suspicion that lost its slot evicts nothing, however long a pod of it is blocked.
        (
            {
                "started_at": NOW - timedelta(hours=1),
                "remaining": 1,
                "blocker_count": 1,
                "must_wait": True,
                "without_slot": True,
                "suspected": True,
            },
            Fact.WITHOUT_SLOT,
        ),
        ({"started_at": NOW, "remaining": 1, "must_wait": True, "without_slot": True}, Fact.WITHOUT_SLOT),
        (
            {
                "started_at": NOW - timedelta(hours=1),
                "remaining": 1,
                "blocker_count": 1,
                "must_wait": True,
                "without_slot": True,
            },
            Fact.BLOCKED,
        ),
        (
            {"started_at": NOW, "must_wait": True, "steps_back": True, "has_pods_to_return": True},
            Fact.RETURNING_PODS_TO_STEP_BACK,
        ),
        ({"started_at": NOW, "must_wait": True, "steps_back": True}, Fact.STEPPING_BACK),
        ({"must_wait": True, "steps_back": True}, Fact.WAITING),
        ({"started_at": NOW, "must_wait": True, "frozen": True}, Fact.FROZEN),
        ({"withdrawn": True, "frozen": True}, Fact.FROZEN),
        ({"must_wait": True, "cordoned_only": True}, Fact.CORDONED_ONLY),
        ({"suspected": True}, Fact.SUSPECTED),
        ({"suspected": True, "must_wait": True}, Fact.WAITING),
        ({"started_at": NOW, "remaining": 3, "suspected": True}, Fact.SUSPECTED),
    ],
)
def test_the_first_fact_that_holds(changes: dict[str, object], expected: Fact) -> None:
    assert fact(situation(**changes)) is expected


@pytest.mark.parametrize(
    ("phase", "what", "then"),
    [
        (Phase.WAITING, Fact.WAITING, Phase.WAITING),
        (Phase.WAITING, Fact.MAY_START, Phase.DRAINING),
        (Phase.DRAINING, Fact.BLOCKED, Phase.BLOCKED),
        (Phase.BLOCKED, Fact.PODS_REMAINING, Phase.DRAINING),
        (Phase.DRAINING, Fact.EMPTY, Phase.DRAINED),
        (Phase.DRAINED, Fact.EMPTY_AND_WAITING, Phase.DRAINED),
        (Phase.DRAINED, Fact.PODS_REMAINING, Phase.DRAINING),
        (Phase.DRAINING, Fact.WAITING, Phase.WAITING),
        (Phase.DRAINED, Fact.WITHDRAWN, Phase.RESTORING),
        (Phase.DRAINED, Fact.FROZEN, Phase.DRAINED),
        (Phase.DRAINED, Fact.PODS_UNKNOWN, Phase.DRAINED),
        (Phase.BLOCKED, Fact.PODS_UNKNOWN, Phase.BLOCKED),
        (Phase.RESTORING, Fact.FROZEN, Phase.RESTORING),
        (Phase.RESTORING, Fact.OUT_OF_SERVICE, Phase.RESTORING),
        (Phase.DRAINED, Fact.OUT_OF_SERVICE, Phase.RESTORING),
        (Phase.BLOCKED, Fact.STEPPING_BACK, Phase.WAITING),
    ],
)
def test_phases_follow_facts(phase: Phase, what: Fact, then: Phase) -> None:
    assert step(phase, what)[0] is then


def test_what_is_being_restored_never_drains_again() -> None:
    with pytest.raises(LookupError):
        step(Phase.RESTORING, Fact.MAY_START)


@given(phase=st.sampled_from(Phase), what=st.sampled_from(Fact))
def test_pods_move_and_nodes_are_cordoned_only_where_a_drain_may_go_on(phase: Phase, what: Fact) -> None:
    if what not in TRANSITIONS[phase]:
        return
    commands = step(phase, what)[1]
    may = what in (Fact.MAY_START, Fact.PODS_REMAINING, Fact.BLOCKED, Fact.EMPTY)
    assert (Command.MOVE in commands) is may
    assert (Command.CORDON in commands) is (
        may or what in (Fact.WITHOUT_SLOT, Fact.PODS_UNKNOWN, Fact.CORDONED_ONLY, Fact.SUSPECTED)
    )
    if Command.CORDON in commands:
        assert commands.index(Command.RECORD) < commands.index(Command.CORDON)
