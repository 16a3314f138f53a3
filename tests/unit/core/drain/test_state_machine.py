"""The state machine of a drain, row by row."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rescheduler.api import names
from rescheduler.api.drains import NodeDrain, Phase, RequestReason
from rescheduler.core.drain.state_machine import (
    MIN_TIME_CORDONED,
    TRANSITIONS,
    Command,
    DrainState,
    Fact,
    Permission,
    fact,
    permission,
    step,
)
from rescheduler.core.model.wait_reasons import ProgressingReason, WaitReason
from unit.builders import NOW, drain


def situation(**changes: object) -> DrainState:
    base: dict[str, object] = {"now": NOW, "same_node": True, "withdrawn": False, "restored": False}
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
        ({"started_at": NOW, "permission": Permission.WAITS, "out_of_service": True}, Fact.PAUSED),
        ({"permission": Permission.WAITS}, Fact.WAITING),
        ({}, Fact.MAY_START),
        ({"has_step_back": True}, Fact.STEP_BACK_ENDED),
        ({"started_at": NOW, "remaining": None}, Fact.PODS_UNKNOWN),
        ({"started_at": NOW, "remaining": 0}, Fact.PODS_REMAINING),  # the scheduler may still bind
        ({"started_at": NOW - MIN_TIME_CORDONED, "remaining": 0}, Fact.EMPTY),
        ({"started_at": NOW - MIN_TIME_CORDONED, "remaining": 0, "may_come_back": True}, Fact.PODS_REMAINING),
        (
            {"started_at": NOW - MIN_TIME_CORDONED, "remaining": 0, "cordoned_at": NOW},
            Fact.PODS_REMAINING,
        ),  # cordoned late, or again
        ({"started_at": NOW - MIN_TIME_CORDONED, "remaining": 0, "cordoned_at": None}, Fact.PODS_REMAINING),
        (
            {
                "started_at": NOW - MIN_TIME_CORDONED,
                "remaining": 0,
                "cordoned_at": None,
                "permission": Permission.WAITS,
            },
            Fact.PAUSED,
        ),
        (
            {"started_at": NOW - MIN_TIME_CORDONED, "remaining": 0, "permission": Permission.WAITS},
            Fact.EMPTY_AND_WAITING,
        ),
        ({"started_at": NOW - MIN_TIME_CORDONED, "remaining": 0, "permission": Permission.YIELDS}, Fact.EMPTY),
        ({"started_at": NOW - MIN_TIME_CORDONED, "remaining": 0, "permission": Permission.KEEPS_CORDON}, Fact.EMPTY),
        ({"started_at": NOW - MIN_TIME_CORDONED, "remaining": 1, "permission": Permission.WAITS}, Fact.PAUSED),
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
                "permission": Permission.YIELDS,
                "suspected": True,
            },
            Fact.WITHOUT_SLOT,
        ),
        ({"started_at": NOW, "remaining": 1, "permission": Permission.YIELDS}, Fact.WITHOUT_SLOT),
        (
            {
                "started_at": NOW - timedelta(hours=1),
                "remaining": 1,
                "blocker_count": 1,
                "permission": Permission.YIELDS,
            },
            Fact.BLOCKED,
        ),
        (
            {"started_at": NOW, "permission": Permission.STEPS_BACK, "has_pods_to_return": True},
            Fact.RETURNING_PODS_TO_STEP_BACK,
        ),
        ({"started_at": NOW, "permission": Permission.STEPS_BACK}, Fact.STEPPING_BACK),
        ({"permission": Permission.QUEUES}, Fact.QUEUED),
        ({"started_at": NOW, "permission": Permission.FROZEN}, Fact.FROZEN),
        ({"withdrawn": True, "permission": Permission.FROZEN}, Fact.FROZEN),
        ({"permission": Permission.KEEPS_CORDON}, Fact.CORDONED_ONLY),
        ({"suspected": True}, Fact.SUSPECTED),
        ({"suspected": True, "permission": Permission.WAITS}, Fact.WAITING),
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
    assert step(phase, what).phase is then


def test_what_is_being_restored_never_drains_again() -> None:
    with pytest.raises(LookupError):
        step(Phase.RESTORING, Fact.MAY_START)


@given(phase=st.sampled_from(Phase), what=st.sampled_from(Fact))
def test_pods_move_and_nodes_are_cordoned_only_where_a_drain_may_go_on(phase: Phase, what: Fact) -> None:
    if what not in TRANSITIONS[phase]:
        return
    commands = step(phase, what).commands
    may = what in (Fact.MAY_START, Fact.PODS_REMAINING, Fact.BLOCKED, Fact.EMPTY)
    assert (Command.MOVE in commands) is may
    assert bool({Command.CORDON, Command.KEEP_CORDON} & set(commands)) is (
        may or what in (Fact.WITHOUT_SLOT, Fact.PODS_UNKNOWN, Fact.CORDONED_ONLY, Fact.SUSPECTED)
    )


@given(phase=st.sampled_from(Phase), what=st.sampled_from(Fact))
def test_commands_of_a_row_are_in_the_order_of_execution(phase: Phase, what: Fact) -> None:
    if what not in TRANSITIONS[phase]:
        return
    order = list(Command)
    commands = step(phase, what).commands
    assert list(commands) == sorted(commands, key=order.index)


def test_every_fact_has_a_row_in_every_phase_with_a_request() -> None:
    for phase in Phase:
        if phase is not Phase.RESTORING:
            assert set(TRANSITIONS[phase]) == set(Fact)


def manual_drain(*, started: bool = True, steps_back: bool = False) -> NodeDrain:
    annotations = {names.STEPPED_BACK: "n2/u2"} if steps_back else {}
    return drain(begun=started, reasons=(RequestReason.MANUAL,), annotations=annotations)


@pytest.mark.parametrize(
    ("reason", "state", "expected"),
    [
        (None, {"steps_back": True}, Permission.MAY_MOVE),
        (ProgressingReason.STALE_VIEW, {"steps_back": True}, Permission.FROZEN),
        (ProgressingReason.MAX_CONCURRENT, {}, Permission.YIELDS),
        (ProgressingReason.MAX_CONCURRENT, {"started": False}, Permission.QUEUES),
        (ProgressingReason.MAX_CONCURRENT, {"steps_back": True}, Permission.STEPS_BACK),
        (ProgressingReason.MAX_CONCURRENT, {"steps_back": True, "started": False}, Permission.QUEUES),
        (ProgressingReason.POOL_BUDGET, {}, Permission.WAITS),
        (ProgressingReason.FLAPPING, {"started": False}, Permission.KEEPS_CORDON),
        (ProgressingReason.CANCELLED, {}, Permission.KEEPS_CORDON),
        (ProgressingReason.CANCELLED, {"started": False}, Permission.WAITS),
        (ProgressingReason.WINDOW, {"started": False}, Permission.WAITS),
    ],
)
def test_a_reason_to_wait_gives_a_permission(
    reason: ProgressingReason | None, state: dict[str, bool], expected: Permission
) -> None:
    assert permission(manual_drain(**state), WaitReason(reason, "why") if reason else None) is expected


def test_a_drain_does_not_step_back_while_its_node_is_out_of_service() -> None:
    wait = WaitReason(ProgressingReason.MAX_CONCURRENT, "why")
    assert permission(manual_drain(steps_back=True), wait, out_of_service=True) is Permission.WAITS
