"""The status of a NodeDrain."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rescheduler.api.conditions import Condition
from rescheduler.api.drains import (
    MAX_PODS_WAITING_FOR_NODE,
    Blocker,
    BlockerClass,
    CameBackPods,
    NodeDrain,
    NodeDrainRequest,
    NodeDrainSpec,
    NodeDrainStatus,
    NodeRecord,
    OptedOutPod,
    Phase,
    RequestReason,
)
from rescheduler.api.policies import ReschedulePolicy, ReschedulePolicySpec
from rescheduler.core.drain.eta import EvictionGroup
from rescheduler.core.drain.pod_summary import PodSummary
from rescheduler.core.drain.state_machine import Report
from rescheduler.core.drain.status import (
    StatusInput,
    build,
    cordoned_at,
    has_unreported_local_volume,
    with_write_failures,
)
from rescheduler.core.eviction.write_refusals import WriteFailure, WriteOperation
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.wait_reasons import ProgressingReason, WaitReason
from unit.builders import pod

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
NOON: dict[str, Any] = {"maintenance": {"windows": [{"schedule": "0 12 * * *", "duration": "1h"}]}}


def scene(
    *,
    reasons: tuple[RequestReason, ...] = (RequestReason.MAINTENANCE,),
    before: dict[str, Any] | None = None,
    **more: Any,
) -> StatusInput:
    spec = more.pop("spec", {})
    drain = NodeDrain(
        name="n",
        uid="d",
        resource_version="1",
        generation=3,
        created=NOW,
        deletion_timestamp=None,
        finalizers=(),
        annotations={},
        spec=NodeDrainSpec(node_name="n", requests=tuple(NodeDrainRequest(reason=reason) for reason in reasons)),
        status=NodeDrainStatus(**(before or {})),
    )
    base: dict[str, Any] = {
        "drain": drain,
        "node": Node("n", "u", unschedulable=True),
        "policy": ReschedulePolicy("p", "pu", 1, ReschedulePolicySpec.model_validate(spec)),
        "phase": Phase.DRAINING,
        "report": Report.PHASE,
        "wait": None,
        "node_record": NodeRecord(uid="u", cordoned_by_us=True),
        "started_at": NOW - timedelta(minutes=10),
        "pod_summary": None,
        "moved": 10,
        "now": NOW,
    }
    return StatusInput(**(base | more))


def left(minutes: float) -> PodSummary:
    """Return a summary of pods that leave in this many minutes, after ten pods left in ten minutes."""
    line = EvictionGroup(
        order=0,
        remaining=int(minutes * 10),
        moved=100,
        active_time=timedelta(minutes=10),
        max_disruptions=None,
        grace_period=timedelta(),
    )
    return PodSummary(existing=9, remaining=9, eviction_groups=(line,))


def conditions(found: NodeDrainStatus) -> dict[str, Condition]:
    return {c.type: c for c in found.conditions}


def blocker(name: str, class_: BlockerClass = BlockerClass.BUDGET_EXHAUSTED, age: int = 0) -> Blocker:
    return Blocker(namespace="s", pod=name, class_=class_, message="why", since=NOW - timedelta(seconds=age))


def test_forty_blocked_pods_make_a_short_message_that_stays_the_same() -> None:
    blockers = tuple(blocker(f"p{i}") for i in range(40))
    stuck: dict[str, Any] = {"phase": Phase.BLOCKED, "report": Report.PHASE}
    first = build(scene(pod_summary=PodSummary(existing=40, remaining=40, blockers=blockers), **stuck))
    message = conditions(first)["Blocked"].message
    assert message.endswith("; and 37 more")
    assert len(message) < 200
    assert (first.blockers_total, len(first.blockers)) == (40, 40)
    before = scene(pod_summary=PodSummary(existing=40, remaining=40, blockers=blockers), **stuck)
    drain = before.drain.model_copy(update={"status": first})
    again = build(replace(before, drain=drain, now=NOW + timedelta(minutes=1)))
    assert again == first


def test_fifty_opted_out_pods_are_named_and_all_are_counted() -> None:
    rows = tuple(
        OptedOutPod(namespace="s", pod=f"p{i}", annotations=("karpenter.sh/do-not-disrupt",)) for i in range(60)
    )
    status = build(scene(pod_summary=PodSummary(existing=60, remaining=60, opted_out=rows)))
    assert status.pods is not None
    assert (len(status.opted_out), status.pods.opted_out) == (50, 60)


def test_fifty_blockers_are_named_and_all_are_counted() -> None:
    found = build(
        scene(pod_summary=PodSummary(existing=60, remaining=60, blockers=tuple(blocker(f"p{i}") for i in range(60))))
    )
    assert (len(found.blockers), found.blockers_total, found.pods and found.pods.blocked) == (50, 60, 60)


@pytest.mark.parametrize(("minutes", "state", "reason"), [(30, "True", "Fits"), (90, "False", "WillNotFit")])
def test_it_is_said_whether_the_drain_fits_its_window(minutes: int, state: str, reason: str) -> None:
    found = build(scene(spec=NOON, pod_summary=left(minutes)))
    fits = conditions(found)["FitsWindow"]
    assert (fits.status, fits.reason) == (state, reason)
    assert "the window closes at 13:00:00 UTC" in fits.message
    assert found.estimated_completion == f"{NOW + timedelta(minutes=minutes):%Y-%m-%dT%H:%M:%SZ}"


@pytest.mark.parametrize(
    "changes",
    [
        {"spec": {}},
        {
            "reasons": (RequestReason.MAINTENANCE, RequestReason.FAILURE)
        },  # who does not wait for windows is not bound by one
        {"reasons": (RequestReason.MANUAL,)},
        {"phase": Phase.DRAINED},
    ],
)
def test_fits_window_disappears_if_no_window_bounds_the_drain(changes: dict[str, Any]) -> None:
    said = Condition(type="FitsWindow", status="False", reason="WillNotFit", last_transition_time=NOW)
    gate = Condition(type="example.com/ok", status="True", reason="Set", last_transition_time=NOW)
    case: dict[str, Any] = {"spec": NOON, "pod_summary": left(90), "before": {"conditions": (said, gate)}}
    found = build(scene(**(case | changes)))
    assert "FitsWindow" not in conditions(found)
    assert conditions(found)["example.com/ok"] == gate


def test_what_ends_by_no_clock_has_no_estimate() -> None:
    def eta(class_: BlockerClass) -> str | None:
        tally = left(30)
        blocked = PodSummary(
            existing=9, remaining=9, eviction_groups=tally.eviction_groups, blockers=(blocker("a", class_),)
        )
        return build(scene(pod_summary=blocked)).estimated_completion

    assert eta(BlockerClass.BUDGET_EXHAUSTED)
    assert eta(BlockerClass.UNMANAGED) is None
    assert eta(BlockerClass.STUCK_TERMINATING) is None
    assert build(scene(pod_summary=left(30), phase=Phase.BLOCKED)).estimated_completion is None


@pytest.mark.parametrize(("before", "kept"), [(28, True), (20, False), (40, False), (-1, False)])
def test_estimate_that_hardly_changes_is_not_written_again(before: int, kept: bool) -> None:
    known = f"{NOW + timedelta(minutes=before):%Y-%m-%dT%H:%M:%SZ}"
    found = build(scene(pod_summary=left(30), before={"estimated_completion": known}))
    assert (found.estimated_completion == known) is kept


def test_stuck_volumes_are_reported_and_do_not_delay_drained() -> None:
    waits = build(scene(pod_summary=PodSummary(detaching_volumes=frozenset({"pv1"}))))
    assert conditions(waits)["Drained"].reason == "VolumesAttached"
    done = build(
        scene(pod_summary=PodSummary(stuck_volumes=frozenset({"pv1"})), phase=Phase.DRAINED, report=Report.PHASE)
    )
    assert conditions(done)["Drained"].status == "True"
    assert "no longer waited for: pv1" in conditions(done)["Drained"].message


def test_time_held_is_paused_and_kept() -> None:
    held = WaitReason(ProgressingReason.WINDOW, "shut")
    stops = build(scene(report=Report.PAUSED, phase=Phase.WAITING, wait=held))
    assert stops.paused_at == NOW
    goes = build(scene(before={"paused_at": NOW - timedelta(seconds=90), "paused_seconds": 10}))
    assert (goes.paused_at, goes.paused_seconds) == (None, 100)


def test_all_reasons_are_in_one_value() -> None:
    assert build(scene(reasons=(RequestReason.MAINTENANCE, RequestReason.FAILURE))).reasons == "Maintenance, Failure"


def test_waiting_is_the_reason_of_the_wait_and_absent_otherwise() -> None:
    moving, held = (
        build(scene()),
        build(scene(wait=WaitReason(ProgressingReason.WINDOW, "closed"), report=Report.PAUSED)),
    )
    assert (moving.waiting, held.waiting) == (None, "Window")
    drain = scene().drain.model_copy(update={"status": NodeDrainStatus()})
    trouble = WriteFailure(WriteOperation.RECONCILE, "denied")
    assert with_write_failures(drain, (trouble,), NOW).waiting == "StaleView"


def test_local_volume_is_unreported_until_the_status_names_its_pod() -> None:
    local = blocker("a", BlockerClass.LOCAL_VOLUME)
    assert has_unreported_local_volume(NodeDrainStatus(), PodSummary(blockers=(local,)))
    assert not has_unreported_local_volume(NodeDrainStatus(blockers=(local,)), PodSummary(blockers=(local,)))
    assert not has_unreported_local_volume(NodeDrainStatus(), PodSummary(blockers=(blocker("a"),)))


# -- nothing waits without a word -------------------------------------------------------------------------------------


def says(type_: str = "Progressing", **changes: Any) -> tuple[str, str, str]:
    found = conditions(build(scene(**changes)))[type_]
    return found.status, found.reason, found.message


REFUSED = WriteFailure(WriteOperation.CORDON, "403 Forbidden: no")
OVER: dict[str, Any] = {"phase": Phase.RESTORING}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"report": Report.PODS_UNKNOWN, "unsynced_reason": "the list /x is not there yet (403)"},
            "the list /x is not there yet (403)",
        ),
        (
            {"pod_summary": PodSummary(existing=3, remaining=3, waiting_for_replacement=2)},
            "2 waiting for a replacement that is Ready, 1 queued",
        ),
        (
            {"pod_summary": PodSummary(existing=1, remaining=1, blockers=(blocker("a"),))},
            "1 blocked (see status.blockers)",
        ),
        ({"pod_summary": PodSummary(detaching_volumes=frozenset({"pv1"}))}, "still attached: pv1"),
        (
            {"pod_summary": PodSummary(existing=1, remaining=1, detaching_volumes=frozenset({"pv1"}))},
            "no pod is leaving now: 1 queued until volumes are detached: pv1",
        ),
        ({"pod_summary": PodSummary()}, "no pod is left"),
        ({"write_failures": (REFUSED,)}, "the node cannot be cordoned"),
        (
            {**OVER, "report": Report.RETURNING_PODS, "pods_to_return": ("s/a", "s/b")},
            "after the return of 2 released pods",
        ),
        (
            {**OVER, "report": Report.RETURNING_PODS, "pods_to_return": ("s/a",)},
            "after the return of 1 released pod: s/a",
        ),
        (
            {**OVER, "report": Report.RETURNING_PODS, "unsynced_reason": "the pods are not listed"},
            "the pods are not listed",
        ),
        (
            {**OVER, "report": Report.OUT_OF_SERVICE, "node_in_use_by": ("volume pv1 is attached",)},
            "volume pv1 is attached",
        ),
        (
            {**OVER, "report": Report.FROZEN, "wait": WaitReason(ProgressingReason.STALE_VIEW, "the network")},
            "the network",
        ),
        (
            {**OVER, "report": Report.PHASE, "write_failures": (WriteFailure(WriteOperation.UNCORDON, "why"),)},
            "cannot be uncordoned: why",
        ),
        (
            {"report": Report.PAUSED, "phase": Phase.WAITING, "wait": WaitReason(ProgressingReason.WINDOW, "shut")},
            "shut",
        ),
    ],
)
def test_what_a_drain_waits_for_is_named(changes: dict[str, Any], words: str) -> None:
    assert words in says(**changes)[2]


@pytest.mark.parametrize(
    "changes",
    [
        {"pod_summary": PodSummary(existing=3, remaining=3, in_flight=1)},
        {"pod_summary": PodSummary(existing=3), "last_move_at": NOW},
    ],
)
def test_while_something_moves_the_words_stay_the_same(changes: dict[str, Any]) -> None:
    assert says(**changes)[2] == "pods are being moved"


def test_restore_reports_only_pods_that_cannot_be_returned_with_cause() -> None:
    stuck = PodSummary(existing=2, remaining=2, blockers=(blocker("a"), blocker("b")))
    found = build(scene(**OVER, report=Report.RETURNING_PODS, pods_to_return=("s/a",), pod_summary=stuck))
    assert "s/a (why)" in conditions(found)["Progressing"].message
    assert [b.pod for b in found.blockers] == ["a"]
    assert found.blockers_total == 1


def test_a_node_counts_as_cordoned_only_when_it_is() -> None:
    assert says("Cordoned", node=Node("n", "u"))[:2] == ("False", "NotCordoned")
    assert says("Cordoned")[:2] == ("True", "Cordoned")


def test_a_refused_cordon_is_what_blocks() -> None:
    assert says("Blocked", phase=Phase.BLOCKED, report=Report.PHASE, write_failures=(REFUSED,)) == (
        "True",
        "Blocked",
        str(REFUSED),
    )


def test_conditions_about_pods_stay_until_the_pods_are_listed_again() -> None:
    said = Condition(type="Blocked", status="True", reason="Unmanaged", message="s/a", last_transition_time=NOW)
    found = build(scene(before={"conditions": (said,)}, report=Report.PODS_UNKNOWN, phase=Phase.BLOCKED))
    assert conditions(found)["Blocked"] == said


def test_failed_reconcile_is_reported_in_the_current_status() -> None:
    before = build(scene())
    drain = scene().drain.model_copy(update={"status": before})
    found = with_write_failures(drain, [WriteFailure(WriteOperation.RECONCILE, "500")], NOW)
    assert conditions(found)["Progressing"].message == "the drain cannot continue: 500"
    assert conditions(found)["Progressing"].reason == "Draining"
    assert (
        with_write_failures(
            drain.model_copy(update={"status": found}), [WriteFailure(WriteOperation.RECONCILE, "500")], NOW
        )
        == found
    )
    assert with_write_failures(drain, [], NOW) == before
    new = with_write_failures(scene().drain, [WriteFailure(WriteOperation.RECONCILE, "500")], NOW)
    assert (new.phase, conditions(new)["Progressing"].reason) == (Phase.WAITING, "StaleView")


def test_the_cordon_counts_from_when_it_was_written_or_last_seen() -> None:
    def seen(status_: str, at: datetime, again: datetime | None = None) -> NodeDrainStatus:
        found = Condition(type="Cordoned", status=status_, last_transition_time=at)
        return NodeDrainStatus(conditions=(found,), recordoned_at=again)

    second = timedelta(seconds=1)
    assert cordoned_at(seen("False", NOW), NOW) is None
    assert cordoned_at(NodeDrainStatus(), NOW) is None
    assert cordoned_at(seen("True", NOW), None) == NOW + second  # a status has whole seconds
    assert cordoned_at(seen("True", NOW), NOW + second / 2) == NOW + second / 2
    assert cordoned_at(seen("True", NOW), NOW - second) == NOW + second
    assert cordoned_at(seen("True", NOW, NOW + 9 * second), None) == NOW + 10 * second


def test_pods_that_only_the_node_can_have_are_counted_and_named() -> None:
    summary = PodSummary(waits_for_node=("s/a", "s/b"))
    found = build(scene(pod_summary=summary, phase=Phase.DRAINED))
    assert found.pods is not None
    assert (found.pods.waits_for_node, found.waits_for_node) == (2, ("s/a", "s/b"))
    drained = next(c.message for c in found.conditions if c.type == "Drained")
    assert drained == (
        "no pod is left that must leave; 2 pods can run on this node only, and their new pods wait for the node: s/a, s/b"
    )


def came_back(seconds: int = 0, *, tolerates: bool = False) -> CameBackPods:
    created = NOW - timedelta(seconds=seconds)
    return CameBackPods(
        namespace="s", kind="Job", name="j", uid="o", pods=("a",), tolerates_cordon=tolerates, last_created_at=created
    )


def test_drained_names_pods_that_stay_with_their_reasons() -> None:
    staying = ((pod("a"), "it tolerates"), (pod("b"), "a rule"))
    found = build(scene(phase=Phase.DRAINED, pod_summary=PodSummary(skipped=3, staying=staying)))
    message = "no pod is left that must leave; 2 pods stay on the node: s/a (it tolerates), s/b (a rule)"
    assert conditions(found)["Drained"].message == message
    alone = build(scene(phase=Phase.DRAINED, pod_summary=PodSummary(staying=staying[:1])))
    assert conditions(alone)["Drained"].message.endswith("; 1 pod stays on the node: s/a (it tolerates)")


def test_an_empty_node_onto_which_a_pod_came_back_says_why_it_is_not_drained() -> None:
    for rows, reason in (
        ((came_back(59),), "PodsCameBack"),
        ((came_back(60),), "PodsLeft"),
        ((came_back(5, tolerates=True),), "PodsLeft"),
    ):
        found = build(scene(pod_summary=PodSummary(came_back=rows)))
        assert conditions(found)["Drained"].reason == reason
        is_named = "a pod of Job s/j came back onto the cordoned node" in conditions(found)["Progressing"].message
        assert is_named is (reason == "PodsCameBack")
        assert found.came_back == rows


def test_pods_that_came_back_are_kept_while_pods_are_unknown_and_dropped_before_the_start() -> None:
    before = {"came_back": (came_back(),)}
    assert build(scene(before=before)).came_back == (came_back(),)
    assert build(scene(before=before, started_at=None)).came_back == ()


def test_more_pods_than_the_status_may_name_are_counted() -> None:
    summary = PodSummary(waits_for_node=tuple(f"s/{number}" for number in range(MAX_PODS_WAITING_FOR_NODE + 1)))
    found = build(scene(pod_summary=summary))
    assert found.pods is not None
    assert (found.pods.waits_for_node, len(found.waits_for_node)) == (
        MAX_PODS_WAITING_FOR_NODE + 1,
        MAX_PODS_WAITING_FOR_NODE,
    )
