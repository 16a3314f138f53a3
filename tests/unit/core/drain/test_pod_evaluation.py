"""The rules for the pods of one node."""

from dataclasses import replace
from datetime import timedelta

import pytest

from rescheduler.api.drains import BlockerClass
from rescheduler.api.policies import DrainSettings, ReplacementMode
from rescheduler.core.drain import pod_evaluation
from rescheduler.core.drain.pod_evaluation import MoveMode, PodEvaluation, PodTimers
from rescheduler.core.drain.pod_summary import PodSummary
from rescheduler.core.drain.state_machine import BLOCKED_AFTER
from rescheduler.core.eviction.api_responses import EvictionOutcome, EvictionResult
from rescheduler.core.eviction.pod_actions import EvictionContext, PodAction, PodDecision, RequiredProof
from rescheduler.core.model.pods import Owner, Pod, Toleration
from rescheduler.core.model.release_record import ReleaseRecord
from rescheduler.core.model.volumes import NodeVolumes, VolumeClaim
from rescheduler.core.placement.planner import Fit, Forecast
from rescheduler.core.replacement.decisions import ReplacementDecision, ReplacementStep
from unit.builders import NOW, pod

SECOND = timedelta(seconds=1)
EVICT = PodDecision(PodAction.EVICT)
REFUSAL = EvictionResult(EvictionOutcome.REFUSED, BlockerClass.BUDGET_EXHAUSTED, "full", "wait")
RECORD = ReleaseRecord("NamespacePool/shop", None, 1, NOW, 1, "web", "d", "web-a", "r1")
FULL = Forecast(Fit.DOES_NOT_FIT, reason="full")


def evaluation(*pods: Pod, volumes: NodeVolumes | None = None, **steps: ReplacementStep) -> PodEvaluation:
    decisions = {uid: ReplacementDecision(step) for uid, step in steps.items()}
    summary = PodSummary(next_pods=tuple((each, EVICT) for each in pods))
    return PodEvaluation(summary, decisions, {}, volumes or NodeVolumes())


def names(rows: list[tuple[Pod, PodDecision]]) -> list[str]:
    return [each.name for each, _ in rows]


@pytest.mark.parametrize(
    ("mode", "moved"),
    [
        (MoveMode.NONE, []),
        (MoveMode.RELEASE_ONLY, []),
        (MoveMode.BEGUN_ONLY, ["b"]),
        (MoveMode.ALL, ["a", "b"]),
    ],
)
def test_the_mode_decides_which_pods_may_move(mode: MoveMode, moved: list[str]) -> None:
    pods = pod("a"), pod("b", release_record=RECORD)
    assert names(evaluation(*pods).pods_in_turn(pods, (), mode)) == moved


DISKS = NodeVolumes(
    {("s", name): VolumeClaim("s", name, f"pv-{name}", single_node=True) for name in "ab"},
    attached_volumes=frozenset({"pv-a", "pv-b"}),
)


def test_volumes_are_detached_one_after_another_by_priority() -> None:
    low, high, plain = pod("a", claims=("a",)), pod("b", claims=("b",), priority=9), pod("c")
    pods = low, high, plain
    found = evaluation(*pods, volumes=DISKS)
    assert names(found.pods_in_turn(pods, (), MoveMode.ALL)) == ["b", "c"]
    assert names(found.pods_in_turn(pods, ("a",), MoveMode.ALL)) == ["a", "c"]
    detaching = replace(found, summary=replace(found.summary, detaching_volumes=frozenset({"pv-x"})))
    assert names(detaching.pods_in_turn(pods, (), MoveMode.ALL)) == ["c"]


@pytest.mark.parametrize(
    "decision",
    [replace(EVICT, forced=True), replace(EVICT, required_proof=RequiredProof.BOOT_DEAD)],
)
def test_forced_and_proven_pods_wait_for_no_volume(decision: PodDecision) -> None:
    pods = pod("a", claims=("a",)), pod("b", claims=("b",))
    found = PodEvaluation(PodSummary(next_pods=tuple((each, decision) for each in pods)), volumes=DISKS)
    assert names(found.pods_in_turn(pods, (), MoveMode.ALL)) == ["a", "b"]


def test_a_pod_without_a_decision_or_with_a_sending_step_is_sent() -> None:
    pods = pod("a"), pod("b"), pod("c")
    found = evaluation(*pods, b=ReplacementStep.WAIT, c=ReplacementStep.EVICT)
    assert [found.sends(each) for each in pods] == [True, False, True]


def test_releases_are_held_only_if_no_record_can_be_cleared() -> None:
    held, ended = pod("a", release_record=RECORD), pod("b", release_record=RECORD, phase="Failed")
    assert evaluation(a=ReplacementStep.HOLD).are_releases_held((held, ended))
    assert not evaluation(a=ReplacementStep.RETURN).are_releases_held((held,))
    assert not evaluation().are_releases_held((held,))


def test_a_migration_moves_only_requested_and_released_pods() -> None:
    requested, released, stranger = pod("a"), pod("b", release_record=RECORD), pod("c")
    requests = {"a": "Rebalance/x"}
    causes = [pod_evaluation.move_cause(each, "migration/n1", requests) for each in (requested, released, stranger)]
    assert causes == ["Rebalance/x", "NamespacePool/shop", ""]
    assert pod_evaluation.move_cause(stranger, "n1", None) == "NodeDrain/n1"


def test_a_released_pod_without_a_request_is_skipped_so_that_it_is_returned() -> None:
    context = EvictionContext(NOW)
    released = pod("b", release_record=RECORD)
    assert pod_evaluation.decide_pod(released, DrainSettings(), context, {}).action is PodAction.SKIP
    assert pod_evaluation.decide_pod(released, DrainSettings(), context, None).action is PodAction.EVICT
    leaving = replace(released, deletion_timestamp=NOW)
    assert pod_evaluation.decide_pod(leaving, DrainSettings(), context, {}).action is PodAction.WAIT_TERMINATING


def test_a_migration_leaves_pods_that_belong_to_other_pods_of_the_node() -> None:
    requests, context = {"a": "NamespacePool/shop"}, EvictionContext(NOW)
    for found in (pod("a", owner=Owner("Pod", "main", "m")), pod("a", labels={"kubevirt.io": "hotplug-disk"})):
        assert pod_evaluation.decide_pod(found, DrainSettings(), context, requests).action is PodAction.SKIP
        assert pod_evaluation.decide_pod(found, DrainSettings(), context, None).action is PodAction.EVICT


def test_a_migration_leaves_a_pod_that_tolerates_the_cordon_and_a_drain_moves_it() -> None:
    tolerating, context = pod("a", tolerations=(Toleration("", "Exists", "", ""),)), EvictionContext(NOW)
    requests = {"a": "NamespacePool/shop"}
    assert pod_evaluation.decide_pod(tolerating, DrainSettings(), context, requests).action is PodAction.SKIP
    assert pod_evaluation.decide_pod(tolerating, DrainSettings(), context, None).action is PodAction.EVICT
    for ending in (replace(tolerating, phase="Failed"), replace(tolerating, deletion_timestamp=NOW)):
        decision = pod_evaluation.decide_pod(ending, DrainSettings(), context, requests)
        assert decision == pod_evaluation.decide_pod(ending, DrainSettings(), context, None)


def test_rebalancing_needs_no_plan_and_pools_and_drains_do() -> None:
    rows = [(pod("a"), EVICT), (pod("b"), EVICT)]
    causes = {"a": "Rebalance/x", "b": "NamespacePool/shop"}
    assert [each.name for each in pod_evaluation.pods_for_plan(rows, causes, is_drain=False)] == ["b"]
    assert [each.name for each in pod_evaluation.pods_for_plan(rows, causes, is_drain=True)] == ["a", "b"]


def test_pods_that_serve_no_traffic_leave_even_without_room() -> None:
    ready, unready = pod("a"), pod("b", ready=False)
    forecasts = {"a": FULL, "b": FULL}

    def in_effect(**changes: bool) -> set[str]:
        context = EvictionContext(NOW, **changes)  # type: ignore[arg-type]
        return set(pod_evaluation.forecasts_in_effect(forecasts, (ready, unready), context))

    assert in_effect() == {"a", "b"}
    assert in_effect(node_failing=True) == {"a"}
    assert in_effect(node_failing=True, node_unreachable=True) == set()


@pytest.mark.parametrize(("seconds", "action"), [(14, PodAction.EVICT), (15, PodAction.DELETE)])
def test_an_unready_pod_bypasses_its_budget_after_a_while(seconds: int, action: PodAction) -> None:
    context = EvictionContext(NOW, node_failing=True)
    since = {"a": NOW - seconds * SECOND}
    rows = [(pod("a", ready=False), EVICT)]
    ((_, decision),) = pod_evaluation.bypass_budgets(rows, since, {"a"}, context)
    assert decision.action is action
    ((_, decision),) = pod_evaluation.bypass_budgets(rows, since, set(), context)
    assert decision.action is PodAction.EVICT


def test_a_surplus_pod_is_deleted_and_keeps_its_order() -> None:
    surplus = ReplacementDecision(ReplacementStep.DELETE)
    assert pod_evaluation.with_replacement_step(pod("a"), PodDecision(PodAction.EVICT, 3), surplus) == PodDecision(
        PodAction.DELETE, 3
    )
    skipped = PodDecision(PodAction.SKIP)
    assert pod_evaluation.with_replacement_step(pod("a"), skipped, surplus) is skipped


@pytest.mark.parametrize("proof", RequiredProof)
def test_a_surplus_pod_that_requires_proof_is_not_deleted_without(proof: RequiredProof) -> None:
    surplus = ReplacementDecision(ReplacementStep.DELETE)
    found = pod_evaluation.with_replacement_step(pod("a"), replace(EVICT, required_proof=proof), surplus)
    assert (found.action, found.required_proof) == (PodAction.DELETE, proof)


def test_each_kind_of_refusal_becomes_a_blocker_after_its_own_time() -> None:
    held = ReplacementDecision(ReplacementStep.HOLD, "", BlockerClass.NO_ROOM_IN_POOL, "no room", "add a node")
    waits = ReplacementDecision(ReplacementStep.WAIT, waiting_for="a rollout")
    decisions = {"b": held, "c": waits, "d": ReplacementDecision(ReplacementStep.WAIT)}
    found = pod_evaluation.expected_refusals((), {"a": REFUSAL}, decisions, DrainSettings())
    assert {uid: wait for uid, (_, wait) in found.items()} == {
        "a": pod_evaluation.REFUSAL_REPORTED_AFTER,
        "b": timedelta(),
        "c": BLOCKED_AFTER,
    }
    assert (found["b"][0].blocker_class, found["b"][0].hint) == (BlockerClass.NO_ROOM_IN_POOL, "add a node")
    assert (found["c"][0].blocker_class, found["c"][0].message) == (BlockerClass.REPLACEMENT_NOT_READY, "a rollout")


def test_a_refused_replacement_is_reported_within_seconds() -> None:
    refused = ReplacementDecision(
        ReplacementStep.WAIT, "", BlockerClass.REPLACEMENT_NOT_READY, "exceeded quota: q", "raise it"
    )
    ((refusal, wait),) = pod_evaluation.expected_refusals((), {}, {"a": refused}, DrainSettings()).values()
    assert (refusal.message, refusal.hint, wait) == ("exceeded quota: q", "raise it", 5 * SECOND)


def test_a_wait_has_its_own_hint() -> None:
    waits = ReplacementDecision(ReplacementStep.WAIT, waiting_for="a rollout", hint="undo it")
    ((refusal, _),) = pod_evaluation.expected_refusals((), {}, {"a": waits}, DrainSettings()).values()
    assert refusal.hint == "undo it"


def test_the_blocker_of_a_budget_names_why_the_pod_is_not_replaced_first() -> None:
    plain = ReplacementDecision(ReplacementStep.PLAIN_EVICTION, "Gated", message="gate x", hint="open it")
    decisions = {"a": plain, "b": ReplacementDecision(ReplacementStep.PLAIN_EVICTION, "NotReady"), "c": plain}
    found = pod_evaluation.expected_refusals((), {"a": REFUSAL, "b": REFUSAL}, decisions, DrainSettings())
    assert found["b"][0] == REFUSAL
    assert found["a"][0] == replace(REFUSAL, message=f"{REFUSAL.message}; gate x", hint="open it")
    assert "c" not in found


def test_a_pod_without_a_replacement_has_a_cause() -> None:
    gated = ReplacementDecision(ReplacementStep.PLAIN_EVICTION, "Gated", message="gate x")
    ineligible = ReplacementDecision(ReplacementStep.PLAIN_EVICTION, "HostPath")
    held = ReplacementDecision(ReplacementStep.HOLD, "Gated", message="gate x")
    found = PodEvaluation(PodSummary(), {"a": gated, "b": ineligible, "c": held})
    assert found.pods_without_replacement([pod("a"), pod("b"), pod("c")]) == ((pod("a"), gated),)


def test_a_refusal_lasts_from_its_start_and_over_a_restart() -> None:
    refusals = {"a": (REFUSAL, 5 * SECOND), "b": (REFUSAL, 5 * SECOND)}
    timers = pod_evaluation.refusal_timers({}, refusals, {"b"}, NOW)
    assert set(pod_evaluation.lasting_refusals(refusals, timers, NOW)) == {"b"}
    later = NOW + 5 * SECOND
    timers = pod_evaluation.refusal_timers(timers, refusals, set(), later)
    assert set(pod_evaluation.lasting_refusals(refusals, timers, later)) == {"a", "b"}
    assert pod_evaluation.refusal_timers(timers, (), set(), later) == {}


def test_the_next_refusal_to_report_decides_the_pause() -> None:
    timers = PodTimers({"a": NOW - 2 * SECOND, "b": NOW - 9 * SECOND})
    assert timers.seconds_until_reported(NOW) == 3
    assert PodTimers().seconds_until_reported(NOW) == 5


def test_only_pods_that_wait_for_others_count_as_waiting() -> None:
    steps = {step.value: ReplacementDecision(step) for step in ReplacementStep}
    assert pod_evaluation.waiting_uids(steps) == {"Wait", "Release", "GiveBack", "Settle"}


def test_a_volume_is_awaited_and_then_stuck() -> None:
    timers = {"pv-a": NOW - 119 * SECOND, "pv-b": NOW - 120 * SECOND}
    found = pod_evaluation.with_unused_volumes(PodSummary(), timers, NOW)
    assert (found.detaching_volumes, found.stuck_volumes) == (frozenset({"pv-a"}), frozenset({"pv-b"}))


def test_no_volume_of_an_unreachable_node_is_awaited_without_proof() -> None:
    context = EvictionContext(NOW, node_unreachable=True, volumes=DISKS)
    assert pod_evaluation.unused_volumes((), context) == frozenset()
    assert pod_evaluation.unused_volumes((), replace(context, boot_dead=True)) == {"pv-a", "pv-b"}
    assert pod_evaluation.unused_volumes((pod("a", claims=("a",)),), replace(context, boot_dead=True)) == {"pv-b"}


def test_a_timer_keeps_its_start_and_ends_with_its_condition() -> None:
    assert pod_evaluation.timers_since({"a": NOW, "b": NOW}, ("a", "c"), NOW + SECOND) == {
        "a": NOW,
        "c": NOW + SECOND,
    }


BOUND = replace(EVICT, is_bound_to_node=True)


def test_pods_that_only_the_node_can_have_wait_for_it_also_when_they_are_gone() -> None:
    rows = [(pod("a"), BOUND), (pod("b"), EVICT), (pod("c"), replace(BOUND, action=PodAction.BLOCK))]
    found = pod_evaluation.waiting_for_node(rows, {"b"}, ())
    assert found == ("s/a", "s/b")
    leaving = [(pod("b"), PodDecision(PodAction.WAIT_TERMINATING)), rows[2]]
    assert pod_evaluation.waiting_for_node(leaving, (), found) == found
    assert pod_evaluation.waiting_for_node((), (), found) == found


def test_a_pod_that_stays_or_completes_after_all_no_longer_waits() -> None:
    rows = [(pod("a"), PodDecision(PodAction.SKIP)), (pod("b", phase="Succeeded"), EVICT)]
    assert pod_evaluation.waiting_for_node(rows, (), ("s/a", "s/b", "s/c")) == ("s/c",)


def test_a_pod_that_may_start_on_the_cordoned_node_does_not_wait_for_it() -> None:
    bound = PodDecision(PodAction.EVICT, is_bound_to_node=True)
    tolerating = (Toleration("", "Exists", "", ""),)
    rows = [(pod("a", tolerations=tolerating), bound), (pod("b", tolerations=tolerating), EVICT), (pod("c"), bound)]
    assert pod_evaluation.waiting_for_node(rows, {"b"}, ()) == ("s/c",)


def test_no_pod_of_a_migration_waits_for_its_node() -> None:
    bound, context = pod("a", pinned_to_node=True), EvictionContext(NOW)
    assert pod_evaluation.decide_pod(bound, DrainSettings(), context, None).waits_for_node
    decision = pod_evaluation.decide_pod(bound, DrainSettings(), context, {"a": "NamespacePool/shop"})
    assert not decision.waits_for_node
    causes = {"a": "NamespacePool/shop"}
    assert pod_evaluation.pods_for_plan([(bound, decision)], causes, is_drain=False) == [bound]


def refusal_of(pod: Pod, reason: str, **settings: object) -> tuple[str, str]:
    decision = ReplacementDecision(ReplacementStep.PLAIN_EVICTION, reason) if reason else None
    found = pod_evaluation.expected_refusals(
        [(pod, EVICT)],
        {pod.uid: REFUSAL},
        {pod.uid: decision} if decision else {},
        DrainSettings(**settings),
    )[pod.uid][0]
    return found.message, found.hint


REQUIRED = {"rescheduler.dev/replacement": "Required"}
DATABASE = Owner("StatefulSet", "db", "o")


def test_a_blocker_says_why_the_pod_is_not_replaced_first() -> None:
    mount = "mount single files read-only, with type: File in the hostPath volume; or wait"
    because = "because it mounts hostPath /d of its node"
    paths = pod("a", host_paths=("/d",))
    assert refusal_of(paths, "HostPath") == (f"full; this pod is not replaced first, {because}", mount)
    required = replace(paths, annotations=REQUIRED)
    assert refusal_of(required, "HostPath") == (f"full; replacement: Required cannot be honoured, {because}", mount)


@pytest.mark.parametrize("reason", ["Never", "SeveralBudgets", "NotBlocked", "CannotBeHad", ""])
def test_a_blocker_says_no_more_if_the_choice_or_the_class_says_it(reason: str) -> None:
    assert refusal_of(pod("a"), reason) == ("full", "wait")


def test_a_blocker_of_a_pod_without_a_deployment_says_so_only_if_a_replacement_is_required() -> None:
    asked = "full; replacement: Required cannot be honoured, because no Deployment controls it"
    assert refusal_of(pod("a", owner=DATABASE), "") == ("full", "wait")
    assert refusal_of(pod("a", owner=DATABASE), "", replacement=ReplacementMode.REQUIRED) == (asked, "wait")
    assert refusal_of(pod("a", owner=DATABASE, annotations=REQUIRED), "") == (asked, "wait")


def test_a_refusal_of_another_kind_is_quoted_as_it_is() -> None:
    denied = replace(REFUSAL, blocker_class=BlockerClass.ADMISSION_DENIED)
    assert pod_evaluation.with_eligibility(denied, pod("a"), "Pinned", ReplacementMode.REQUIRED) is denied


@pytest.mark.parametrize(
    ("found", "decision", "cause"),
    [
        (pod("a", annotations=REQUIRED), ReplacementDecision(ReplacementStep.PLAIN_EVICTION, "NoSurge"), True),
        (pod("a", annotations=REQUIRED, owner=DATABASE), None, True),
        (pod("a", annotations=REQUIRED), ReplacementDecision(ReplacementStep.RELEASE), False),
        (pod("a", annotations=REQUIRED), ReplacementDecision(ReplacementStep.EVICT), False),
        (pod("a"), ReplacementDecision(ReplacementStep.PLAIN_EVICTION, "NoSurge"), False),
        (pod("a", annotations=REQUIRED, owner=DATABASE, phase="Failed"), None, False),
    ],
)
def test_the_owner_is_warned_if_the_required_replacement_cannot_be_had(
    found: Pod, decision: ReplacementDecision | None, cause: bool
) -> None:
    note = pod_evaluation.with_replacement_step(found, EVICT, decision).owner_message
    assert (note is not None and "Required cannot be honoured, because" in note) is cause
