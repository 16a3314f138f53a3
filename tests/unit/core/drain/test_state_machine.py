"""The table of a drain's life, line by line."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rescheduler.api.drains import Phase
from rescheduler.core.drain.state_machine import SETTLE, TRANSITIONS, Command, Fact, Situation, fact, step

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def situation(**changes: object) -> Situation:
    base: dict[str, object] = {"now": NOW, "same_node": True, "withdrawn": False, "restored": False, "held": False}
    base["cordoned"] = changes.get("begun")
    return Situation(**(base | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"same_node": False, "withdrawn": True}, Fact.NODE_GONE),
        ({"withdrawn": True}, Fact.WITHDRAWN),
        ({"withdrawn": True, "restored": True}, Fact.RESTORED),
        ({"withdrawn": True, "fenced": True, "begun": NOW}, Fact.FENCED),
        ({"withdrawn": True, "fenced": True, "begun": NOW, "traces": True}, Fact.RETURNING),
        ({"withdrawn": True, "fenced": True, "same_node": False}, Fact.NODE_GONE),
        ({"begun": NOW, "held": True, "steps_back": True, "fenced": True}, Fact.HELD),
        ({"held": True}, Fact.HELD),
        ({}, Fact.GRANTED),
        ({"begun": NOW, "remaining": None}, Fact.UNSEEN),
        ({"begun": NOW, "remaining": 0}, Fact.LEAVING),  # the scheduler may still bind
        ({"begun": NOW - SETTLE, "remaining": 0}, Fact.EMPTY),
        ({"begun": NOW - SETTLE, "remaining": 0, "cordoned": NOW}, Fact.LEAVING),  # cordoned late, or again
        ({"begun": NOW - SETTLE, "remaining": 0, "cordoned": None}, Fact.LEAVING),
        ({"begun": NOW - SETTLE, "remaining": 0, "cordoned": None, "held": True}, Fact.HELD),
        ({"begun": NOW - SETTLE, "remaining": 0, "held": True}, Fact.EMPTY_AND_HELD),
        ({"begun": NOW - SETTLE, "remaining": 0, "held": True, "yields": True}, Fact.EMPTY),
        ({"begun": NOW - SETTLE, "remaining": 0, "held": True, "set_aside": True}, Fact.EMPTY),
        ({"begun": NOW - SETTLE, "remaining": 1, "held": True}, Fact.HELD),
        ({"begun": NOW - timedelta(seconds=59), "remaining": 1, "blocked": 1}, Fact.LEAVING),
        ({"begun": NOW - timedelta(seconds=60), "remaining": 1, "blocked": 1}, Fact.STUCK),
        ({"begun": NOW - timedelta(hours=1), "remaining": 1, "blocked": 1, "last_move": NOW}, Fact.LEAVING),
        # A suspicion that lost its slot evicts nothing, however long a pod of it is blocked.
        (
            {
                "begun": NOW - timedelta(hours=1),
                "remaining": 1,
                "blocked": 1,
                "held": True,
                "yields": True,
                "suspected": True,
            },
            Fact.YIELDED,
        ),
        ({"begun": NOW, "remaining": 1, "held": True, "yields": True}, Fact.YIELDED),
        ({"begun": NOW - timedelta(hours=1), "remaining": 1, "blocked": 1, "held": True, "yields": True}, Fact.STUCK),
        ({"begun": NOW, "held": True, "steps_back": True, "traces": True}, Fact.RETREATING),
        ({"begun": NOW, "held": True, "steps_back": True}, Fact.STEPPING_BACK),
        ({"held": True, "steps_back": True}, Fact.HELD),
        ({"begun": NOW, "held": True, "frozen": True}, Fact.FROZEN),
        ({"withdrawn": True, "frozen": True}, Fact.FROZEN),
        ({"held": True, "set_aside": True}, Fact.SET_ASIDE),
        ({"suspected": True}, Fact.SUSPECTED),
        ({"suspected": True, "held": True}, Fact.HELD),
        ({"begun": NOW, "remaining": 3, "suspected": True}, Fact.SUSPECTED),
    ],
)
def test_the_first_fact_that_holds(changes: dict[str, object], expected: Fact) -> None:
    assert fact(situation(**changes)) is expected


@pytest.mark.parametrize(
    ("phase", "what", "then"),
    [
        (Phase.WAITING, Fact.HELD, Phase.WAITING),
        (Phase.WAITING, Fact.GRANTED, Phase.DRAINING),
        (Phase.DRAINING, Fact.STUCK, Phase.BLOCKED),
        (Phase.BLOCKED, Fact.LEAVING, Phase.DRAINING),
        (Phase.DRAINING, Fact.EMPTY, Phase.DRAINED),
        (Phase.DRAINED, Fact.EMPTY_AND_HELD, Phase.DRAINED),
        (Phase.DRAINED, Fact.LEAVING, Phase.DRAINING),
        (Phase.DRAINING, Fact.HELD, Phase.WAITING),
        (Phase.DRAINED, Fact.WITHDRAWN, Phase.RESTORING),
        (Phase.DRAINED, Fact.FROZEN, Phase.DRAINED),
        (Phase.DRAINED, Fact.UNSEEN, Phase.DRAINED),
        (Phase.BLOCKED, Fact.UNSEEN, Phase.BLOCKED),
        (Phase.RESTORING, Fact.FROZEN, Phase.RESTORING),
        (Phase.RESTORING, Fact.FENCED, Phase.RESTORING),
        (Phase.DRAINED, Fact.FENCED, Phase.RESTORING),
        (Phase.BLOCKED, Fact.STEPPING_BACK, Phase.WAITING),
    ],
)
def test_phases_follow_facts(phase: Phase, what: Fact, then: Phase) -> None:
    assert step(phase, what)[0] is then


def test_what_is_being_restored_never_drains_again() -> None:
    with pytest.raises(LookupError):
        step(Phase.RESTORING, Fact.GRANTED)


@given(phase=st.sampled_from(Phase), what=st.sampled_from(Fact))
def test_pods_move_and_nodes_are_cordoned_only_where_a_drain_may_go_on(phase: Phase, what: Fact) -> None:
    if what not in TRANSITIONS[phase]:
        return
    commands = step(phase, what)[1]
    may = what in (Fact.GRANTED, Fact.LEAVING, Fact.STUCK, Fact.EMPTY)
    assert (Command.MOVE in commands) is may
    assert (Command.CORDON in commands) is (may or what in (Fact.YIELDED, Fact.UNSEEN, Fact.SET_ASIDE, Fact.SUSPECTED))
    if Command.CORDON in commands:
        assert commands.index(Command.RECORD) < commands.index(Command.CORDON)
