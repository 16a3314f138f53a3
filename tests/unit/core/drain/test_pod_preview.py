"""The preview of one pod is what the preview of its node says about it."""

from dataclasses import replace
from typing import Any

import pytest

from rescheduler.api.drains import BlockerClass
from rescheduler.api.policies import DrainRule, DrainSettings
from rescheduler.core.drain.pod_preview import PodOutcome, PodPreview, preview_pod
from rescheduler.core.drain.preview import PreviewInput, preview_node
from rescheduler.core.placement.planner import Fit
from unit.builders import raw_node
from unit.core.drain.preview_inputs import WEB, limit, pod_of_kind, world


def look(seen: PreviewInput, uid: str = "p1", **drain: Any) -> PodPreview:
    found = preview_pod(uid, seen.placement_input.nodes["old"], DrainSettings(**drain), seen)
    assert found
    return found


def test_a_pod_of_a_deployment_is_replaced_first() -> None:
    found = look(world([pod_of_kind("p1")]))
    assert (found.outcome, found.fit, found.not_replaced_reason) == (PodOutcome.REPLACED_FIRST, Fit.FITS, "")


def test_a_budget_that_allows_nothing_does_not_keep_it_from_being_replaced_first() -> None:
    labels = {"app": "a"}
    found = look(world([pod_of_kind("p1", labels=labels)], limit("b")))
    assert found.outcome is PodOutcome.REPLACED_FIRST


def test_a_pod_that_is_not_eligible_is_evicted_and_says_why() -> None:
    recreate = replace(WEB, allows_surge=False)
    found = look(world([pod_of_kind("p1")], deployment=recreate))
    assert (found.outcome, found.not_replaced_reason) == (PodOutcome.EVICTED, "NoSurge")


def test_a_blocker_has_its_class_message_and_hint() -> None:
    found = look(world([pod_of_kind("p1", kind="")]))
    assert (found.outcome, found.blocker_class) == (PodOutcome.BLOCKED, BlockerClass.UNMANAGED)
    assert found.message
    assert found.hint


def test_a_pod_without_room_is_the_blocker_that_a_drain_reports() -> None:
    found = look(world([pod_of_kind("p1", cpu="9")]))
    assert (found.outcome, found.blocker_class) == (PodOutcome.BLOCKED, BlockerClass.NO_ROOM_IN_POOL)
    assert "too little cpu" in found.message


def test_with_no_room_evict_its_new_pod_stays_pending() -> None:
    assert look(world([pod_of_kind("p1", cpu="9")]), noRoom="Evict").outcome is PodOutcome.STAYS_PENDING


def test_a_pod_that_only_its_node_can_have_waits_for_it() -> None:
    pinned = pod_of_kind("p1", nodeSelector={"kubernetes.io/hostname": "old"})
    assert look(world([pinned])).outcome is PodOutcome.WAITS_FOR_NODE


def test_of_what_only_the_scheduler_knows_the_reason_is_named() -> None:
    found = look(world([pod_of_kind("p1", schedulerName="other")]))
    assert (found.outcome, found.fit) == (PodOutcome.REPLACED_FIRST, Fit.UNKNOWN)
    assert "other" in found.fit_reason


def test_a_pod_that_stays_has_its_reason_if_another_setting_would_move_it() -> None:
    rule = DrainRule.model_validate({"podSelector": {}, "action": "Skip"})
    skipped = look(world([pod_of_kind("p1")]), rules=(rule,))
    assert (skipped.outcome, bool(skipped.message)) == (PodOutcome.STAYS, True)
    daemon = look(world([pod_of_kind("p1", kind="DaemonSet")]))
    assert (daemon.outcome, daemon.message) == (PodOutcome.STAYS, "")


def test_a_pod_of_another_node_has_no_preview() -> None:
    seen = world([pod_of_kind("p1")])
    assert preview_pod("gone", seen.placement_input.nodes["old"], DrainSettings(), seen) is None


@pytest.mark.parametrize("cpu", ["1", "3"])
def test_each_pod_of_a_node_has_the_outcome_that_the_node_counts(cpu: str) -> None:
    """With 3 CPUs, not all of the pods fit together."""
    seen = world(
        [
            *(pod_of_kind(f"web{number}", cpu=cpu) for number in range(3)),
            pod_of_kind("bare", kind=""),
            pod_of_kind("daemon", kind="DaemonSet"),
            pod_of_kind("db", kind="StatefulSet", labels={"app": "a"}),
        ],
        limit("b"),
        nodes=[raw_node("n1", cpu="8")],
    )
    node_preview = preview_node(seen.placement_input.nodes["old"], DrainSettings(), seen)
    outcomes = {pod.key: look(seen, pod.uid) for pod in seen.pods_by_node["old"]}
    blocked = {row.pod for row in node_preview.blockers}
    without_room = {key for key, forecast in node_preview.unplaced if forecast.fit is Fit.DOES_NOT_FIT}
    assert {key for key, row in outcomes.items() if row.outcome is PodOutcome.BLOCKED} == blocked | without_room
    assert sum(row.outcome is PodOutcome.STAYS for row in outcomes.values()) == node_preview.staying
    assert sum(row.fit is Fit.FITS for row in outcomes.values()) == node_preview.placed
