"""One step of a drain as a value: an observation goes in, commands and the status come out."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from rescheduler.api import names
from rescheduler.api.drains import Blocker, BlockerClass, NodeDrain, NodeRecord, Phase
from rescheduler.api.policies import DrainSettings, OnTimeout
from rescheduler.core.drain.drain_decision import (
    CLEANUP_POD_RETURN_TIMEOUT,
    POD_RETURN_TIMEOUT,
    DrainDecision,
    DrainObservation,
    decide_step,
    drain_state,
    move_mode,
)
from rescheduler.core.drain.pod_evaluation import MoveMode
from rescheduler.core.drain.pod_summary import PodSummary
from rescheduler.core.drain.state_machine import Command, Report
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.wait_reasons import ProgressingReason, WaitReason
from unit.builders import NOW

STARTED: dict[str, Any] = {"started_at": NOW - timedelta(hours=1), "node": NodeRecord(uid="u", cordoned_by_us=True)}
WINDOW = WaitReason(ProgressingReason.WINDOW, "no window is open")
NO_SLOT = WaitReason(ProgressingReason.MAX_CONCURRENT, "maintenance.maxConcurrent 1 is taken by n2")
STALE = WaitReason(ProgressingReason.STALE_VIEW, "nodes could not be listed")
PODS = PodSummary(existing=2, remaining=1)
BLOCKED = PodSummary(
    existing=1,
    remaining=1,
    blockers=(Blocker(namespace="s", pod="a", class_=BlockerClass.BUDGET_EXHAUSTED, message="why", since=NOW),),
)


def nodedrain(
    *, deleted: datetime | None = None, annotations: dict[str, str] | None = None, **before: Any
) -> NodeDrain:
    meta = {"name": "n", "uid": "d", "resourceVersion": "1", "annotations": annotations or {}}
    made = NodeDrain.from_object({"metadata": meta, "spec": {"nodeName": "n", "requests": [{"reason": "Manual"}]}})
    return made.model_copy(
        update={
            "deletion_timestamp": deleted,
            "status": made.status.model_copy(update={"phase": Phase.DRAINING} | before),
        }
    )


def observation(drain: NodeDrain, **changes: Any) -> DrainObservation:
    base: dict[str, Any] = {"now": NOW, "drain": drain, "node": Node("n", "u"), "pods_are_synced": True}
    return DrainObservation(**(base | changes))


def decided(drain: NodeDrain, **changes: Any) -> DrainDecision:
    return decide_step(observation(drain, **changes))


def test_new_drain_is_cordoned_and_moves_pods() -> None:
    step = decided(nodedrain(phase=None))
    assert step.status_input.phase is Phase.DRAINING
    assert Command.CORDON in step.commands
    assert Command.MOVE in step.commands


def test_waiting_drain_reports_its_reason_and_moves_no_pod() -> None:
    step = decided(nodedrain(**STARTED), wait=WINDOW, pod_summary=PODS)
    assert (step.status_input.phase, step.status_input.wait) == (Phase.WAITING, WINDOW)
    assert step.status_input.report is Report.PAUSED
    assert not {Command.CORDON, Command.MOVE, Command.RELEASE} & set(step.commands)


def test_queued_drain_taints_its_node() -> None:
    assert Command.TAINT_QUEUED_NODE in decided(nodedrain(), wait=NO_SLOT).commands


def test_stale_view_stops_every_other_decision() -> None:
    step = decided(nodedrain(deleted=NOW, **STARTED), wait=STALE, is_restored=True)
    assert step.status_input.report is Report.FROZEN
    assert step.commands == ()


def test_drained_drain_reports_no_reason_to_wait() -> None:
    empty: dict[str, Any] = {"pod_summary": PodSummary(), "cordoned_at": NOW - timedelta(minutes=1)}
    step = decided(nodedrain(**STARTED), wait=WINDOW, **empty)
    assert (step.status_input.phase, step.status_input.wait) == (Phase.DRAINED, None)


def test_a_node_is_not_drained_while_a_pod_may_come_back() -> None:
    def phase(seconds: int) -> Phase:
        now = NOW + timedelta(seconds=seconds)
        awaited = PodSummary(tolerating_left_at=NOW)
        changes: dict[str, Any] = {"now": now, "pod_summary": awaited, "cordoned_at": NOW - timedelta(minutes=1)}
        return decided(nodedrain(**STARTED), **changes).status_input.phase

    assert (phase(9), phase(10)) == (Phase.DRAINING, Phase.DRAINED)


def test_moved_pods_are_those_of_earlier_steps_and_of_this_one() -> None:
    assert decided(nodedrain(**STARTED), moved=3, pod_summary=PODS).status_input.moved == 4


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, Phase.DRAINING), ({"cordon_fails": True}, Phase.BLOCKED), ({"pod_summary": BLOCKED}, Phase.BLOCKED)],
)
def test_drain_is_blocked_by_a_pod_or_by_a_refused_cordon(changes: dict[str, Any], expected: Phase) -> None:
    assert decided(nodedrain(**STARTED), **({"pod_summary": PODS} | changes)).status_input.phase is expected


def test_blocked_drain_looks_for_a_deadlock() -> None:
    assert Command.RESOLVE_DEADLOCK in decided(nodedrain(**STARTED), pod_summary=BLOCKED).commands


def test_suspected_node_gets_replacements_and_no_eviction() -> None:
    step = decided(nodedrain(**STARTED), only_suspected=True, pod_summary=PODS)
    assert Command.RELEASE in step.commands
    assert Command.MOVE not in step.commands


@pytest.mark.parametrize(("node", "is_same"), [(None, False), (Node("n", "u"), True), (Node("n", "another"), False)])
def test_node_with_another_uid_is_another_node(node: Node | None, is_same: bool) -> None:
    assert drain_state(observation(nodedrain(**STARTED), node=node)).same_node is is_same


def test_drain_without_a_record_takes_any_node() -> None:
    assert drain_state(observation(nodedrain(), node=Node("n", "another"))).same_node


# -- the end of a drain -----------------------------------------------------------------------------------------------


def test_restore_waits_for_released_pods_and_names_them() -> None:
    step = decided(nodedrain(deleted=NOW, **STARTED), released_pods=("s/a",))
    assert step.withdrawn
    assert Command.RETURN_PODS in step.commands
    assert step.status_input.pods_to_return == ("s/a",)


def test_restore_waits_while_the_pods_of_the_node_are_unknown() -> None:
    assert Command.RESTORE not in decided(nodedrain(deleted=NOW, **STARTED), pods_are_synced=False).commands


@pytest.mark.parametrize(("cleanup", "patience"), [(False, POD_RETURN_TIMEOUT), (True, CLEANUP_POD_RETURN_TIMEOUT)])
def test_restore_goes_on_without_released_pods_after_a_timeout(cleanup: bool, patience: timedelta) -> None:
    late: dict[str, Any] = {"released_pods": ("s/a",), "cleanup": cleanup}
    assert Command.RESTORE in decided(nodedrain(deleted=NOW - patience, **STARTED), **late).commands
    early = NOW - patience + timedelta(seconds=1)
    assert Command.RESTORE not in decided(nodedrain(deleted=early, **STARTED), **late).commands


def test_drain_that_never_started_is_restored_at_once() -> None:
    assert Command.RESTORE in decided(nodedrain(deleted=NOW), pods_are_synced=False).commands


def test_node_out_of_service_is_not_restored_and_its_users_are_named() -> None:
    step = decided(nodedrain(deleted=NOW, **STARTED), out_of_service=True, node_in_use_by=("volume pv1 is attached",))
    assert Command.RESTORE not in step.commands
    assert step.status_input.node_in_use_by == ("volume pv1 is attached",)


def test_restored_drain_loses_its_finalizer() -> None:
    assert decided(nodedrain(deleted=NOW, **STARTED), is_restored=True).commands == (Command.REMOVE_FINALIZER,)


@pytest.mark.parametrize(
    ("on_timeout", "timeout", "is_cancelled"),
    [(OnTimeout.CANCEL, 59, True), (OnTimeout.CANCEL, 61, False), (OnTimeout.HOLD, 59, False)],
)
def test_drain_is_cancelled_after_its_timeout(on_timeout: OnTimeout, timeout: int, is_cancelled: bool) -> None:
    settings = DrainSettings().model_copy(update={"timeout": timedelta(minutes=timeout), "on_timeout": on_timeout})
    step = decided(nodedrain(**STARTED), settings=settings, pod_summary=PODS)
    assert (Command.CANCEL in step.commands) is is_cancelled


# -- stepping back ----------------------------------------------------------------------------------------------------

STEPPED_BACK = {names.STEPPED_BACK: "n2/u2"}


def test_drain_that_steps_back_returns_its_pods_first() -> None:
    step = decided(nodedrain(annotations=STEPPED_BACK, **STARTED), wait=NO_SLOT, released_pods=("s/a",))
    assert Command.RETURN_PODS in step.commands
    assert Command.STEP_BACK not in step.commands
    assert step.status_input.pods_to_return == ("s/a",)


def test_drain_that_steps_back_releases_its_node_afterwards() -> None:
    step = decided(nodedrain(annotations=STEPPED_BACK, **STARTED), wait=NO_SLOT)
    assert step.commands == (Command.STEP_BACK,)


def test_drain_starts_again_only_without_the_record_of_its_step_back() -> None:
    assert decided(nodedrain(annotations=STEPPED_BACK)).commands == (Command.CLEAR_STEP_BACK,)


# -- which pods may move -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("drain", "wait", "expected"),
    [
        (nodedrain(), None, MoveMode.ALL),
        (nodedrain(deleted=NOW), None, MoveMode.NONE),
        (nodedrain(), NO_SLOT, MoveMode.NONE),
        (nodedrain(**STARTED), NO_SLOT, MoveMode.ALL),
        (nodedrain(**STARTED), WINDOW, MoveMode.NONE),
        (nodedrain(annotations=STEPPED_BACK, **STARTED), NO_SLOT, MoveMode.NONE),
    ],
)
def test_pods_may_move_without_a_wait_or_after_a_slot_was_given_up(
    drain: NodeDrain, wait: WaitReason | None, expected: MoveMode
) -> None:
    assert move_mode(drain, wait, only_suspected=False) is expected
    releases = expected is MoveMode.ALL
    assert move_mode(drain, wait, only_suspected=True) is (MoveMode.RELEASE_ONLY if releases else MoveMode.NONE)
