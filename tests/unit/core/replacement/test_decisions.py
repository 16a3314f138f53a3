"""The decisions of replacement first."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Unpack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rescheduler.api.drains import Blocker, BlockerClass
from rescheduler.api.policies import DrainSettings, NoRoom, ReplacementMode
from rescheduler.api.selectors import LabelSelector
from rescheduler.core.model.disruption_budgets import DisruptionBudget
from rescheduler.core.model.pods import Owner, Pod, Toleration
from rescheduler.core.model.workloads import Deployment, ReplicaSet, Workload
from rescheduler.core.replacement.decisions import (
    PodWriteRefusal,
    ReplacementDecision,
    ReplacementInput,
    ReplacementStep,
    backoff_after_removal,
    backoff_after_removals,
    backoff_from_blocker,
    decide,
    decide_return,
    ready_before_release,
)
from rescheduler.core.replacement.failures import (
    ReplacementBackoff,
    ReplacementFailure,
    next_backoff,
)
from rescheduler.core.replacement.new_pods import NewPods
from rescheduler.core.replacement.slow_start import SlowStart
from unit.builders import NOW, PodFields, pod, release_record

DEPLOYMENT = Deployment("s", "web", "web", replicas=3, revision="1")
CURRENT = ReplicaSet("s", "web-a", "web-a", "web", pod_template_hash="a", replicas=3, revision="1")
FULL = DisruptionBudget("s", "b", "b", allowed=0, healthy=1, needed=1, expected=1)


def replica(name: str, *, ready: bool = True, **fields: Unpack[PodFields]) -> Pod:
    """Return a pod of `CURRENT`."""
    given: PodFields = {"owner": Owner("ReplicaSet", "web-a", "web-a"), "labels": {"pod-template-hash": "a"}, **fields}
    return pod(name, ready=ready, **given)


def released_replica(
    name: str, *, since: int = 10, before: int = 3, ready: bool = True, **fields: Unpack[PodFields]
) -> Pod:
    """Return a pod that was released from `CURRENT`.

    Args:
        since: seconds since its release.
        before: Ready pods of its owner before the release.
    """
    record = release_record(released_at=NOW - timedelta(seconds=since), ready_pods=before)
    given: PodFields = {**fields, "released": True, "release_record": record}
    return replica(name, ready=ready, **given)


def workload(*pods: Pod, going: frozenset[str] = frozenset(), **changes: Any) -> Workload:
    base: dict[str, Any] = {"deployment": DEPLOYMENT, "replica_sets": (CURRENT,), "pods": pods, "evicting_uids": going}
    return Workload(**(base | changes))


def setting(now: datetime = NOW, **changes: Any) -> ReplacementInput:
    drain = changes.pop("drain", {})
    return ReplacementInput(DrainSettings(**drain), now, **changes)


THREE = (replica("p1"), replica("p2"), replica("p3"))


def test_a_pod_is_released_first() -> None:
    assert decide(THREE[0], workload(*THREE), setting()).step is ReplacementStep.RELEASE


def test_no_more_pods_are_released_together_than_slow_start_allows() -> None:
    released = released_replica("p1")
    assert decide(THREE[1], workload(released, *THREE[1:]), setting()).step is ReplacementStep.WAIT
    assert decide(THREE[0], workload(*THREE), setting(releases_in_flight=1)).step is ReplacementStep.WAIT
    two = setting(max_released=2)
    assert decide(THREE[1], workload(released, *THREE[1:]), two).step is ReplacementStep.RELEASE
    assert decide(THREE[2], workload(released, released_replica("p2"), THREE[2]), two).step is ReplacementStep.WAIT


@pytest.mark.parametrize(
    ("changes", "pods", "replica_set"),
    [
        ({"no_room_reason": "full"}, (), CURRENT),
        ({}, (replica("new", ready=False, unschedulable_message="0/3 nodes: Insufficient cpu"),), CURRENT),
        ({}, (), replace(CURRENT, replica_failure="exceeded quota")),
        *(
            ({"backoff": ReplacementBackoff(failure, "why", NOW - timedelta(seconds=1))}, (), CURRENT)
            for failure in ReplacementFailure
        ),
    ],
)
def test_one_pod_is_released_without_room_and_after_a_setback(
    changes: dict[str, Any], pods: tuple[Pod, ...], replica_set: ReplicaSet
) -> None:
    inputs = setting(max_released=8, **changes)
    none_released = workload(*THREE, *pods, replica_sets=(replica_set,))
    assert decide(THREE[0], none_released, inputs).step is ReplacementStep.RELEASE
    one_released = workload(released_replica("p1"), *THREE[1:], *pods, replica_sets=(replica_set,))
    assert decide(THREE[1], one_released, inputs).step is ReplacementStep.WAIT


@pytest.mark.parametrize(
    ("changes", "pod_changes", "reason"),
    [
        ({"drain": {"replacement": ReplacementMode.NEVER}}, {}, "Never"),
        ({}, {"annotations": {"rescheduler.dev/replacement": "Never"}}, "Never"),
        ({"has_single_node_volume": True}, {}, "ExclusiveVolume"),
        ({}, {"host_paths": ("/d",)}, "HostPath"),
        ({"is_bound_to_node": True}, {}, "Pinned"),
        ({}, {"pinned_to_node": True}, "Pinned"),
        ({"is_colocated": True}, {}, "Colocated"),
        ({}, {"ready": False}, "NotReady"),
        ({"budgets": (FULL, FULL)}, {}, "SeveralBudgets"),
        ({"left_selector": True}, {}, "LeftSelector"),
        ({"drain": {"replacement": ReplacementMode.WHEN_BLOCKED}}, {}, "NotBlocked"),
    ],
)
def test_a_pod_that_cannot_be_replaced_first_is_evicted_plainly(
    changes: dict[str, Any], pod_changes: dict[str, Any], reason: str
) -> None:
    first = replace(THREE[0], **pod_changes)
    choice = decide(first, workload(first, *THREE[1:]), setting(**changes))
    assert (choice.step, choice.reason) == (ReplacementStep.PLAIN_EVICTION, reason)


def test_when_blocked_waits_for_a_replacement_only_without_budget() -> None:
    drain = {"replacement": ReplacementMode.WHEN_BLOCKED}
    assert decide(THREE[0], workload(*THREE), setting(drain=drain, budgets=(FULL,))).step is ReplacementStep.RELEASE


def test_the_owners_word_is_stronger_than_the_policys() -> None:
    first = replace(THREE[0], annotations={"rescheduler.dev/replacement": "Preferred"})
    assert (
        decide(first, workload(first), setting(drain={"replacement": ReplacementMode.NEVER})).step
        is ReplacementStep.RELEASE
    )


def test_recreate_has_no_second_pod() -> None:
    found = workload(*THREE, deployment=replace(DEPLOYMENT, allows_surge=False))
    assert decide(THREE[0], found, setting()).reason == "NoSurge"


def test_pod_of_a_mover_is_evicted_without_a_release() -> None:
    virtual_machine = replica("p1", labels={"pod-template-hash": "a", "kubevirt.io": "virt-launcher"})
    found = decide(virtual_machine, workload(virtual_machine, *THREE[1:]), setting())
    assert (found.step, found.reason) == (ReplacementStep.PLAIN_EVICTION, "Mover")


OLDER = replace(CURRENT, name="web-0", uid="r0", pod_template_hash="0", revision="0")
NEWER = replace(CURRENT, name="web-b", uid="r2", pod_template_hash="b", revision="2", replicas=1)
STUCK: dict[str, Any] = {"deployment": replace(DEPLOYMENT, revision="2"), "replica_sets": (CURRENT, NEWER)}
"""A rollout that does not end: the pods of the newer ReplicaSet are not Ready."""


def newer_replica(name: str, *, ready: bool = False) -> Pod:
    """Return a pod of `NEWER`."""
    return replica(name, ready=ready, owner=Owner("ReplicaSet", "web-b", "r2"), labels={"pod-template-hash": "b"})


@pytest.mark.parametrize(
    "changes",
    [{"deployment": replace(DEPLOYMENT, observed=False)}, {"replica_sets": (CURRENT, OLDER)}, STUCK],
)
@pytest.mark.parametrize("pods", [THREE, THREE[:1]])
def test_a_pod_waits_for_a_rollout_and_is_then_replaced_by_its_own_replica_set(
    changes: dict[str, Any], pods: tuple[Pod, ...]
) -> None:
    found = workload(*pods, **changes)
    waits = decide(pods[0], found, setting(rollout_since=NOW))
    assert waits.step is ReplacementStep.WAIT
    assert "kubectl rollout undo deployment -n s web" in waits.hint
    late = setting(rollout_since=NOW - timedelta(minutes=5))
    assert decide(pods[0], found, late).step is ReplacementStep.RELEASE


def test_a_paused_deployment_is_replaced_from_its_current_replica_set() -> None:
    found = workload(*THREE, deployment=replace(DEPLOYMENT, paused=True))
    assert decide(THREE[0], found, setting(rollout_since=NOW)).step is ReplacementStep.RELEASE
    old, new = released_replica("p1"), replica("new")
    assert decide(old, replace(found, pods=(old, *THREE[1:], new)), setting()).step is ReplacementStep.EVICT


def test_a_pod_of_a_replica_set_that_a_stuck_rollout_scaled_down_is_evicted() -> None:
    """No ReplicaSet would replace it."""
    found = workload(*THREE, **STUCK | {"replica_sets": (replace(CURRENT, replicas=0), NEWER, OLDER)})
    late = setting(rollout_since=NOW - timedelta(minutes=5))
    decision = decide(THREE[0], found, late)
    assert (decision.step, decision.reason) == (ReplacementStep.PLAIN_EVICTION, "Superseded")


def test_the_gate_counts_all_replica_sets_of_a_stuck_rollout() -> None:
    late = setting(rollout_since=NOW - timedelta(minutes=5))
    old, broken = released_replica("p1", before=2), newer_replica("b1")
    pods = (old, THREE[1], broken)
    assert decide(old, workload(*pods, **STUCK), late).step is ReplacementStep.WAIT
    assert decide(old, workload(*pods, replica("new"), **STUCK), late).step is ReplacementStep.EVICT
    assert decide(old, workload(*pods, newer_replica("b2", ready=True), **STUCK), late).step is ReplacementStep.EVICT


def test_the_gate_counts_pods_not_the_budget() -> None:
    old = released_replica("p1")
    assert decide(old, workload(old, *THREE[1:]), setting()).step is ReplacementStep.WAIT
    assert decide(old, workload(old, *THREE[1:], replica("new", ready=False)), setting()).step is ReplacementStep.WAIT
    assert decide(old, workload(old, *THREE[1:], replica("new")), setting()).step is ReplacementStep.EVICT


def test_the_gate_waits_for_min_ready_seconds() -> None:
    slow = replace(DEPLOYMENT, min_ready_time=timedelta(seconds=30))
    settled = tuple(replace(p, ready_since=NOW - timedelta(hours=1)) for p in THREE[1:])
    old, new = released_replica("p1"), replica("new", ready_since=NOW - timedelta(seconds=29))
    assert decide(old, workload(old, *settled, new, deployment=slow), setting()).step is ReplacementStep.WAIT
    ripe = replace(new, ready_since=NOW - timedelta(seconds=30))
    assert decide(old, workload(old, *settled, ripe, deployment=slow), setting()).step is ReplacementStep.EVICT


def test_an_eviction_under_way_counts_as_gone() -> None:
    first, second = released_replica("p1"), released_replica("p2")
    rest = (THREE[2], replica("new"))
    assert decide(first, workload(first, second, *rest), setting()).step is ReplacementStep.EVICT
    assert (
        decide(second, workload(first, second, *rest, evicting_uids=frozenset({"p1"})), setting()).step
        is ReplacementStep.WAIT
    )


def test_fewer_ready_before_need_no_more_after() -> None:
    old = released_replica("p1", before=1)
    assert decide(old, workload(old, replica("new")), setting()).step is ReplacementStep.EVICT


@pytest.mark.parametrize(
    "changes",
    [
        {"deployment": replace(DEPLOYMENT, replicas=0)},
        {"deployment": replace(DEPLOYMENT, replicas=1)},  # its ReplicaSet has two Ready pods of its own
    ],
)
def test_a_surplus_pod_is_deleted(changes: dict[str, Any]) -> None:
    old = released_replica("p1")
    found = workload(old, *THREE[1:], **changes)
    assert decide(old, found, setting()).step is ReplacementStep.DELETE
    assert decide_return(old, found, NOW).step is ReplacementStep.DELETE


OTHER = "other"


@pytest.mark.parametrize(
    "changes",
    [
        {"deployment": None, "replica_sets": ()},
        {"deployment": replace(DEPLOYMENT, replicas=0), "replica_sets": ()},
        {"deployment": replace(DEPLOYMENT, replicas=0), "replica_sets": (replace(CURRENT, deployment_uid=OTHER),)},
        {"deployment": replace(DEPLOYMENT, uid=OTHER, replicas=0), "replica_sets": (CURRENT,)},
        {"deployment": replace(DEPLOYMENT, deleting=True, replicas=0), "replica_sets": (CURRENT,)},
        {"deployment": None, "replica_sets": (replace(CURRENT, replicas=0),)},
    ],
)
def test_a_record_deletes_no_pod_if_its_owners_do_not_belong_together(
    changes: dict[str, Any],
) -> None:
    old = released_replica("p1")
    found = workload(old, *THREE[1:], **changes)
    assert decide(old, found, setting()).step is not ReplacementStep.DELETE
    assert decide_return(old, found, NOW).step is not ReplacementStep.DELETE


def test_a_released_pod_whose_owner_is_gone_waits_for_nothing() -> None:
    old = released_replica("p1")
    for nothing in (None, workload(old, deployment=None, replica_sets=())):
        assert (decide(old, nothing, setting()).step, decide(old, nothing, setting()).reason) == (
            ReplacementStep.PLAIN_EVICTION,
            "NoDeployment",
        )
        assert decide_return(old, nothing, NOW).step is ReplacementStep.CLEAR_RECORD


def test_a_released_pod_that_has_ended_goes_without_the_gate() -> None:
    old = released_replica("p1", ready=False, phase="Failed")
    assert decide(old, workload(old, *THREE[1:]), setting()).step is ReplacementStep.EVICT
    assert decide_return(old, workload(old, *THREE[1:]), NOW).step is ReplacementStep.EVICT


def test_a_released_pod_outside_the_selector_waits_for_no_replacement() -> None:
    named = replace(CURRENT, selector=LabelSelector.model_validate({"matchLabels": {"app": "web"}}))
    old = released_replica("p1", labels={"app": "quarantine"})
    found = workload(*THREE[1:], replica_sets=(named,))
    assert decide(old, found, setting(left_selector=True)).step is ReplacementStep.PLAIN_EVICTION
    assert decide_return(old, found, NOW).step is ReplacementStep.CLEAR_RECORD


REFUSED = PodWriteRefusal(BlockerClass.ADMISSION_DENIED, "policy says no", "ask for it", NOW)


def test_a_refused_release_evicts_pods_but_holds_the_last_ready_one_for_the_timeout() -> None:
    several = decide(THREE[0], workload(*THREE), setting(write_refusal=REFUSED))
    assert (several.step, several.reason) == (ReplacementStep.PLAIN_EVICTION, "ReleaseRefused")
    assert "policy says no" in several.message
    last = decide(THREE[0], workload(THREE[0]), setting(write_refusal=REFUSED))
    assert (last.step, last.blocker_class) == (ReplacementStep.HOLD, BlockerClass.ADMISSION_DENIED)
    assert "policy says no" in last.message
    lasting = replace(REFUSED, since=NOW - timedelta(minutes=5))
    assert decide(THREE[0], workload(THREE[0]), setting(write_refusal=lasting)).step is ReplacementStep.PLAIN_EVICTION
    required = setting(write_refusal=REFUSED, drain={"replacement": ReplacementMode.REQUIRED})
    assert decide(THREE[0], workload(*THREE), required).blocker_class is BlockerClass.ADMISSION_DENIED


def test_a_refused_return_is_named_and_ends_once_the_replacement_is_ready() -> None:
    old = released_replica("p1", since=301)
    held = decide_return(old, workload(old, *THREE[1:]), NOW, REFUSED)
    assert (held.step, held.blocker_class) == (ReplacementStep.HOLD, BlockerClass.ADMISSION_DENIED)
    assert "policy says no" in held.message
    assert (
        decide(old, workload(old, *THREE[1:]), setting(write_refusal=REFUSED)).blocker_class
        is BlockerClass.ADMISSION_DENIED
    )
    assert decide_return(old, workload(old, *THREE[1:], replica("new")), NOW, REFUSED).step is ReplacementStep.EVICT


def test_a_record_that_cannot_be_cleared_is_reported_and_holds_no_pod() -> None:
    back = replace(replica("p1"), release_record=released_replica("x").release_record)
    assert decide_return(back, workload(back), NOW, REFUSED).blocker_class is BlockerClass.ADMISSION_DENIED
    assert (
        decide(back, workload(back, *THREE[1:]), setting(write_refusal=REFUSED)).step is ReplacementStep.PLAIN_EVICTION
    )


def test_no_second_pod_is_released_while_fewer_are_ready_than_at_the_first() -> None:
    many, inputs = replace(DEPLOYMENT, replicas=8), setting(max_released=2)
    released, others = released_replica("p1", before=8), tuple(replica(f"p{n}") for n in range(2, 9))
    assert decide(others[0], workload(released, *others, deployment=many), inputs).step is ReplacementStep.RELEASE
    fewer = (replace(others[-1], ready=False), *others[:-1])
    waits = decide(others[0], workload(released, *fewer, deployment=many), inputs)
    assert (waits.step, waits.waiting_for) == (ReplacementStep.WAIT, "7 of 8 pods of the owner are Ready")


def test_a_removed_released_pod_holds_its_owner_until_enough_are_ready() -> None:
    gone = released_replica("p0")
    found = backoff_after_removal(gone, DrainSettings(), None, NOW)
    assert found is not None
    assert (found.failure, found.required_ready, found.attempts) == (ReplacementFailure.REMOVED_BY_OTHERS, 3, 1)
    later = found.retry_at + timedelta(hours=1)
    held = decide(THREE[0], workload(*THREE[:2]), setting(later, backoff=found))
    assert (held.step, held.blocker_class) == (ReplacementStep.HOLD, BlockerClass.REPLACEMENT_NOT_READY)
    assert "2 of 3 pods" in held.message
    assert decide(THREE[0], workload(*THREE), setting(backoff=found)).step is ReplacementStep.HOLD  # the pause
    assert decide(THREE[0], workload(*THREE), setting(later, backoff=found)).step is ReplacementStep.RELEASE
    again = backoff_after_removal(gone, DrainSettings(), found, NOW)
    assert again is not None
    assert again.retry_at > found.retry_at
    assert backoff_after_removal(THREE[0], DrainSettings(), None, NOW) is None


@given(
    deleted=st.lists(st.booleans(), min_size=1, max_size=20),
    replicas=st.integers(1, 6),
)
def test_a_deleter_of_released_pods_costs_one_pod_at_a_time(deleted: list[bool], replicas: int) -> None:
    """Whatever the deleter removes and when, releases cost at most one Ready pod."""
    found = replace(DEPLOYMENT, replicas=replicas)
    pods = [replica(f"p{n}") for n in range(replicas)]
    setback: ReplacementBackoff | None = None
    for takes in deleted:
        chosen = next(
            (
                p
                for p in pods
                if decide(p, workload(*pods, deployment=found), setting(backoff=setback)).step
                is ReplacementStep.RELEASE
            ),
            None,
        )
        if chosen and takes:
            released = released_replica(chosen.name, before=len(pods))
            setback = backoff_after_removal(released, DrainSettings(), setback, NOW - timedelta(hours=1))
            pods.remove(chosen)
        assert len(pods) >= replicas - 1


def test_a_pod_is_never_returned_after_a_rollout() -> None:
    new = replace(CURRENT, uid="r2", pod_template_hash="b", revision="2")
    rolled = replace(DEPLOYMENT, revision="2")
    old = released_replica("p1", since=100_000)
    fresh = tuple(
        replica(f"b{i}", labels={"pod-template-hash": "b"}, owner=Owner("ReplicaSet", "b", "r2")) for i in (1, 2)
    )
    sets = (replace(CURRENT, replicas=0), new)
    two = workload(old, *fresh, deployment=rolled, replica_sets=sets)
    assert decide(old, two, setting()).step is ReplacementStep.HOLD
    assert (decide_return(old, two, NOW).step, decide_return(old, two, NOW).blocker_class) == (
        ReplacementStep.HOLD,
        BlockerClass.REPLACEMENT_NOT_READY,
    )
    third = replace(fresh[0], uid="b3")
    assert (
        decide(old, workload(old, *fresh, third, deployment=rolled, replica_sets=sets), setting()).step
        is ReplacementStep.EVICT
    )
    assert (
        decide(old, workload(old, *fresh, third, deployment=rolled, replica_sets=(new,)), setting()).step
        is ReplacementStep.EVICT
    )


def test_a_replica_set_without_deployment_keeps_the_gate() -> None:
    old = released_replica("p1")
    alone = replace(CURRENT, deployment_uid="")
    assert (
        decide(old, workload(old, *THREE[1:], deployment=None, replica_sets=(alone,)), setting()).step
        is ReplacementStep.WAIT
    )
    found = workload(old, *THREE[1:], replica("new"), deployment=None, replica_sets=(alone,))
    assert decide(old, found, setting()).step is ReplacementStep.EVICT


def without_replacement(*new: Pod, since: int = 301, refused: str | None = None, **inputs: Any) -> ReplacementDecision:
    """Return the decision for a released pod whose replacement is not Ready."""
    old = released_replica("p1", since=since)
    sets = (replace(CURRENT, replica_failure=refused),)
    return decide(old, workload(old, *THREE[1:], *new, replica_sets=sets), setting(**inputs))


def new_replica(**fields: Unpack[PodFields]) -> Pod:
    given: PodFields = {"created": NOW, **fields}
    return replica("new", ready=False, **given)


@pytest.mark.parametrize(
    ("refused", "new", "failure", "says"),
    [
        (None, {"unschedulable_message": "2 Insufficient cpu"}, ReplacementFailure.NO_ROOM, "Insufficient"),
        (None, {"unschedulable_message": "pod anti-affinity"}, ReplacementFailure.BLOCKED_BY_PODS, "anti"),
        (None, {"unschedulable_message": "didn't match topology spread"}, ReplacementFailure.BLOCKED_BY_PODS, "spread"),
        (None, {"unschedulable_message": "didn't match node selector"}, ReplacementFailure.NO_ROOM, "selector"),
        (None, {"unschedulable_message": "3 had untolerated taint(s)"}, ReplacementFailure.NO_ROOM, "taint"),
        (None, {"scheduling_gates": ("kueue", "quota")}, ReplacementFailure.GATED, "gates kueue, quota"),
        (None, {"node": "n2", "start_failure": "ErrImagePull"}, ReplacementFailure.NOT_STARTING, "ErrImagePull"),
        (None, {"node": "n2"}, ReplacementFailure.NOT_READY, "pod new is not Ready"),
        (None, None, ReplacementFailure.NOT_CREATED, "controller may not be at work"),
        ("exceeded quota: q", None, ReplacementFailure.QUOTA, "exceeded quota: q"),
        ('admission webhook "x" denied', None, ReplacementFailure.CREATION_REFUSED, 'webhook "x"'),
        ("an old refusal", {"node": "n2"}, ReplacementFailure.NOT_READY, "pod new is not Ready"),
    ],
)
def test_a_pod_without_a_replacement_in_time_is_returned_with_the_cause(
    refused: str | None, new: PodFields | None, failure: ReplacementFailure, says: str
) -> None:
    decision = without_replacement(*([] if new is None else [new_replica(**new)]), refused=refused)
    assert decision.step is ReplacementStep.RETURN
    assert decision.backoff is not None
    assert decision.backoff.failure is failure
    assert says in decision.backoff.message


def test_the_gate_that_other_pods_keep_closed_is_no_missing_new_pod() -> None:
    old, new = released_replica("p1", since=301), replica("new", created=NOW)
    ill = replace(THREE[1], ready=False, created=NOW - timedelta(hours=1))
    decision = decide(old, workload(old, ill, THREE[2], new), setting())
    assert decision.backoff is not None
    assert (decision.backoff.failure, decision.backoff.message) == (
        ReplacementFailure.NOT_READY,
        "2 of 3 pods of the owner are Ready",
    )


@pytest.mark.parametrize(
    ("refused", "new", "says", "hint"),
    [
        ("denied by x", None, "cannot create the replacement: denied by x", "policy or webhook"),
        ("exceeded quota: q", None, "cannot create the replacement: exceeded quota: q", "ResourceQuota"),
    ],
)
def test_a_refused_replacement_is_reported_while_the_replica_set_retries(
    refused: str, new: PodFields | None, says: str, hint: str
) -> None:
    decision = without_replacement(since=1, refused=refused)
    assert (decision.step, decision.blocker_class) == (ReplacementStep.WAIT, BlockerClass.REPLACEMENT_NOT_READY)
    assert says in decision.message
    assert hint in decision.hint


@pytest.mark.parametrize(
    ("new", "says", "hint"),
    [
        ({"scheduling_gates": ("kueue",)}, "gates kueue", "scheduling gate"),
        ({"node": "n2", "start_failure": "ErrImagePull"}, "ErrImagePull", "fix the image"),
        (None, "no new pod yet", "kube-controller-manager"),
    ],
)
def test_a_wait_for_a_replacement_names_its_cause(new: PodFields | None, says: str, hint: str) -> None:
    decision = without_replacement(*([] if new is None else [new_replica(**new)]), since=1)
    assert decision.step is ReplacementStep.WAIT
    assert says in decision.waiting_for
    assert hint in decision.hint


# -- quota ------------------------------------------------------------------------------------------------------------

FULL_QUOTA = (replace(CURRENT, replica_failure="exceeded quota: q"),)


def test_a_quota_is_waited_for_while_a_pod_of_the_owner_leaves() -> None:
    old = released_replica("p1", since=6)
    leaving = replace(THREE[2], deletion_timestamp=NOW + timedelta(seconds=20))

    def after(*pods: Pod, now: datetime = NOW) -> ReplacementStep:
        return decide(old, workload(old, *pods, replica_sets=FULL_QUOTA), setting(now)).step

    assert after(THREE[1], leaving) is ReplacementStep.WAIT
    assert after(THREE[1]) is ReplacementStep.RETURN
    assert after(THREE[1], replace(leaving, phase="Failed")) is ReplacementStep.RETURN  # no quota counts it
    stuck = NOW + timedelta(seconds=20, minutes=5)
    assert after(THREE[1], leaving, now=stuck - timedelta(seconds=1)) is ReplacementStep.WAIT
    assert after(THREE[1], leaving, now=stuck) is ReplacementStep.RETURN  # it may never end


def test_released_pods_wait_for_the_new_pods_that_a_quota_allows() -> None:
    """More pods may be released together than the quota allows new pods: the others wait for their turn."""
    old, other = released_replica("p1", since=9), released_replica("p2")
    refused: dict[str, Any] = {"replica_sets": (replace(CURRENT, replica_failure="exceeded quota"),)}
    new = replica("new", ready=False, created=NOW - timedelta(seconds=10))
    assert decide(old, workload(old, other, THREE[2], new, **refused), setting()).step is ReplacementStep.WAIT
    assert decide(old, workload(old, other, THREE[2], **refused), setting()).step is ReplacementStep.RETURN
    older = replace(new, created=NOW - timedelta(seconds=11))
    assert decide(old, workload(old, other, THREE[2], older, **refused), setting()).step is ReplacementStep.RETURN
    late = setting(NOW + timedelta(minutes=5))
    assert decide(old, workload(old, other, THREE[2], new, **refused), late).step is ReplacementStep.RETURN


def test_no_pod_is_released_while_a_quota_still_counts_pods_that_leave() -> None:
    backoff = setback(ReplacementFailure.QUOTA, -1)
    leaving = replace(THREE[2], deletion_timestamp=NOW)
    for busy in (leaving, released_replica("p3")):
        waits = decide(THREE[0], workload(*THREE[:2], busy), setting(backoff=backoff))
        assert waits.step is ReplacementStep.WAIT
        assert "still count in the quota: why" in waits.waiting_for
    assert decide(THREE[0], workload(*THREE[:2]), setting(backoff=backoff)).step is ReplacementStep.RELEASE
    many = replace(DEPLOYMENT, replicas=8)
    assert decide(THREE[0], workload(*THREE, deployment=many), setting(backoff=backoff)).step is ReplacementStep.RELEASE
    one_in_flight = setting(backoff=backoff, releases_in_flight=1)
    assert decide(THREE[0], workload(*THREE, deployment=many), one_in_flight).step is ReplacementStep.WAIT


def test_a_quota_that_stays_full_leads_to_a_plain_eviction_within_seconds() -> None:
    first = without_replacement(since=5, refused="exceeded quota: q").backoff
    assert first is not None
    assert first.retry_at <= NOW + timedelta(seconds=1)
    due = replace(first, retry_at=NOW - timedelta(seconds=6))
    second = without_replacement(since=5, refused="exceeded quota: q", backoff=due).backoff
    assert second is not None
    assert decide(THREE[0], workload(*THREE), setting(backoff=second)).step is ReplacementStep.PLAIN_EVICTION


@pytest.mark.parametrize(
    ("why", "says"),
    [
        ({"budgets": (FULL,)}, "the budget refuses"),
        ({"eviction_refusal": "ask the database team"}, "the database team"),
    ],
)
def test_a_pod_is_returned_if_its_eviction_is_refused_for_long(why: dict[str, Any], says: str) -> None:
    def after(seconds: int) -> ReplacementDecision:
        old = released_replica("p1", since=seconds)
        return decide(old, workload(old, *THREE[1:], replica("new")), setting(**why))

    assert after(599).step is ReplacementStep.EVICT
    given = after(600)
    assert given.step is ReplacementStep.RETURN
    assert given.backoff is not None
    assert says in given.backoff.message


def test_a_rollout_that_hangs_after_it_replaced_the_replica_set_is_reported() -> None:
    rolled = STUCK | {"replica_sets": (replace(CURRENT, replicas=0), NEWER)}

    def after(seconds: int) -> ReplacementDecision:
        old = released_replica("p1", since=seconds)
        return decide(old, workload(old, *THREE[1:], newer_replica("new"), **rolled), setting())

    assert after(299).step is ReplacementStep.WAIT
    held = after(300)
    assert (held.step, held.blocker_class) == (ReplacementStep.HOLD, BlockerClass.REPLACEMENT_NOT_READY)
    assert "kubectl rollout undo deployment -n s web" in held.hint


def test_a_released_pod_waits_for_a_rollout_before_it_is_returned() -> None:
    """The rollout may soon scale the ReplicaSet down, and with it the returned pod."""
    old = released_replica("p1", since=301)
    found = workload(old, *THREE[1:], newer_replica("new"), **STUCK)
    assert decide(old, found, setting(rollout_since=NOW - timedelta(minutes=4))).step is ReplacementStep.WAIT
    assert decide(old, found, setting(rollout_since=NOW - timedelta(minutes=5))).step is ReplacementStep.RETURN


def setback(trouble: ReplacementFailure, seconds: int = 60, attempts: int = 1) -> ReplacementBackoff:
    return ReplacementBackoff(trouble, "why", NOW + timedelta(seconds=seconds), attempts)


REQUIRED = {"replacement": ReplacementMode.REQUIRED}
ONE: dict[str, Any] = {"deployment": replace(DEPLOYMENT, replicas=1)}
EVICT, HOLD = ReplacementStep.PLAIN_EVICTION, ReplacementStep.HOLD


@pytest.mark.parametrize(
    ("failure", "attempts", "several", "last_of_several", "only"),
    [
        (ReplacementFailure.BLOCKED_BY_PODS, 1, EVICT, HOLD, EVICT),
        (ReplacementFailure.BLOCKED_BY_PODS, 2, EVICT, EVICT, EVICT),
        (ReplacementFailure.GATED, 1, EVICT, HOLD, EVICT),
        (ReplacementFailure.GATED, 2, EVICT, EVICT, EVICT),
        (ReplacementFailure.QUOTA, 1, HOLD, HOLD, HOLD),
        (ReplacementFailure.QUOTA, 2, EVICT, HOLD, EVICT),
        (ReplacementFailure.QUOTA, 3, EVICT, EVICT, EVICT),
        (ReplacementFailure.NOT_READY, 2, HOLD, HOLD, HOLD),
        (ReplacementFailure.NOT_READY, 3, EVICT, HOLD, EVICT),
        (ReplacementFailure.NOT_READY, 4, EVICT, EVICT, EVICT),
        *(
            (failure, 1000, HOLD, HOLD, HOLD)
            for failure in (
                ReplacementFailure.NO_ROOM,
                ReplacementFailure.NOT_CREATED,
                ReplacementFailure.CREATION_REFUSED,
                ReplacementFailure.NOT_STARTING,
                ReplacementFailure.SAME_NODE,
                ReplacementFailure.REMOVED_BY_OTHERS,
            )
        ),
    ],
)
def test_each_failure_ends_with_a_plain_eviction_after_its_attempts_or_holds_the_pod(
    failure: ReplacementFailure,
    attempts: int,
    several: ReplacementStep,
    last_of_several: ReplacementStep,
    only: ReplacementStep,
) -> None:
    inputs = setting(backoff=setback(failure, attempts=attempts))
    found = [workload(*THREE), workload(THREE[0]), workload(THREE[0], **ONE)]
    decisions = [decide(THREE[0], each, inputs) for each in found]
    assert [decision.step for decision in decisions] == [several, last_of_several, only]
    required = setting(backoff=setback(failure, attempts=attempts), drain=REQUIRED)
    assert {decide(THREE[0], each, required).step for each in found} == {HOLD}
    for decision in decisions:
        assert "why" in decision.message
        assert decision.hint


def test_without_room_a_policy_may_allow_the_eviction() -> None:
    inputs = setting(backoff=setback(ReplacementFailure.NO_ROOM), drain={"no_room": NoRoom.EVICT})
    assert decide(THREE[0], workload(*THREE), inputs).step is EVICT


def test_a_failed_replacement_is_no_reason_to_evict_a_pod_without_room() -> None:
    inputs = setting(backoff=setback(ReplacementFailure.GATED), no_room_reason="full")
    decision = decide(THREE[0], workload(*THREE), inputs)
    assert (decision.step, decision.blocker_class) == (HOLD, BlockerClass.NO_ROOM_IN_POOL)


def test_a_hold_between_attempts_reports_their_number() -> None:
    held = decide(THREE[0], workload(*THREE), setting(backoff=setback(ReplacementFailure.NOT_READY, attempts=2)))
    assert held.message == "no replacement became Ready in 2 of 3 attempts: why"
    last = decide(THREE[0], workload(THREE[0]), setting(backoff=setback(ReplacementFailure.NOT_READY, attempts=3)))
    assert last.message.startswith("no replacement became Ready in 3 of 4 attempts: why; this pod is the last Ready")
    held = decide(THREE[0], workload(*THREE), setting(backoff=setback(ReplacementFailure.NOT_STARTING)))
    assert held.message == "no replacement became Ready: why"


ALTERNATING = [
    ReplacementFailure.BLOCKED_BY_PODS,
    ReplacementFailure.QUOTA,
    ReplacementFailure.GATED,
    ReplacementFailure.NOT_READY,
]


@given(
    seconds=st.integers(0, 3600),
    failures=st.lists(st.sampled_from(ALTERNATING), min_size=4),
    replicas=st.integers(1, 3),
)
def test_attempts_that_end_with_an_eviction_last_at_most_four_timeouts_and_pauses(
    seconds: int, failures: list[ReplacementFailure], replicas: int
) -> None:
    """Whatever the causes are and however they alternate, the last Ready pod leaves."""
    drain = {"replacement_timeout": timedelta(seconds=seconds)}
    found = workload(THREE[0], deployment=replace(DEPLOYMENT, replicas=replicas))
    backoff: ReplacementBackoff | None = None
    for failure in failures[:4]:
        backoff = next_backoff(failure, "why", backoff, DrainSettings(**drain), NOW, required=False)
    assert backoff is not None
    assert (
        decide(THREE[0], found, setting(NOW, drain=drain, backoff=replace(backoff, retry_at=NOW + timedelta(1)))).step
        is EVICT
    )


def test_pods_that_were_released_together_fail_one_attempt() -> None:
    def fail(since: int, seconds: float, backoff: ReplacementBackoff | None) -> ReplacementBackoff:
        old = released_replica("p1", since=since)
        inputs = setting(NOW + timedelta(seconds=seconds), backoff=backoff)
        found = decide(old, workload(old, *THREE[1:], new_replica()), inputs).backoff
        assert found is not None
        return found

    first = fail(300, 0, None)
    assert first.retry_at == NOW + timedelta(seconds=37.5)
    second = fail(298, 2, first)
    assert second.attempts == 1
    assert (
        fail(-39, 39 + 262.5, second).attempts == 2
    )  # released after the pause, and judged by the rest of the timeout


def test_a_pod_is_released_again_after_the_backoff() -> None:
    for trouble in ReplacementFailure:
        assert decide(THREE[0], workload(*THREE), setting(backoff=setback(trouble, -1))).step is ReplacementStep.RELEASE


def test_without_room_the_pause_grows_to_half_an_hour() -> None:
    new = replica("new", ready=False, unschedulable_message="Insufficient memory")
    pauses = []
    for attempts in (*range(5), 10_000):
        old = released_replica("p1", since=301)
        before = setback(ReplacementFailure.NO_ROOM, -400, attempts) if attempts else None
        choice = decide(old, workload(old, new), setting(backoff=before))
        assert choice.backoff is not None
        pauses.append((choice.backoff.retry_at - NOW).total_seconds() / 60)
    assert pauses == [5, 10, 20, 30, 30, 30]


def test_the_record_of_a_returned_pod_is_cleared() -> None:
    back = replace(replica("p1"), release_record=released_replica("x").release_record)
    assert decide(back, workload(back), setting()).step is ReplacementStep.CLEAR_RECORD
    assert decide_return(back, workload(back), NOW).step is ReplacementStep.CLEAR_RECORD


def test_the_deletion_cost_stays_until_the_surplus_pod_is_gone() -> None:
    """The ReplicaSet removes one of several equal pods, preferably on a node with several."""
    move = released_replica("x").release_record
    first, second = (replace(replica(name), release_record=move) for name in ("p1", "p2"))
    new = [replica(f"new{number}") for number in range(3)]
    for crowd in (workload(first, second, *new), workload(first, released_replica("p2"), *new[:2])):
        assert decide(first, crowd, setting()).step is ReplacementStep.WAIT
        assert decide_return(first, crowd, NOW).step is ReplacementStep.WAIT
    going = workload(first, second, new[0], *(replace(each, deletion_timestamp=NOW) for each in new[1:]))
    assert decide_return(first, going, NOW).step is ReplacementStep.CLEAR_RECORD


@given(
    replicas=st.integers(1, 6),
    own=st.lists(st.booleans(), max_size=6),
    old=st.lists(st.booleans(), min_size=1, max_size=4),
    before=st.integers(0, 6),
)
def test_no_eviction_leaves_fewer_ready_than_before(
    replicas: int, own: list[bool], old: list[bool], before: int
) -> None:
    """In any order of decisions, min(replicas, ready before) pods stay Ready."""
    pods = [replica(f"o{i}", ready=ready) for i, ready in enumerate(own)]
    released = [released_replica(f"r{i}", ready=ready, before=before) for i, ready in enumerate(old)]
    found = replace(DEPLOYMENT, replicas=replicas)
    going: set[str] = set()
    for each in released:
        world = workload(*pods, *released, deployment=found, evicting_uids=frozenset(going))
        if decide(each, world, setting()).step is ReplacementStep.EVICT:
            going.add(each.uid)
            left = sum(p.ready for p in (*pods, *released) if p.uid not in going)
            assert left >= min(replicas, before)


REMOVED = NewPods("web-a", 3, removed=("new1", "new2", "new3 (DaemonSet agent is its controller now)"))


def test_removed_new_pods_return_the_released_pods_and_hold_the_owner() -> None:
    backoff = backoff_after_removals(REMOVED, None, NOW)
    assert backoff.retry_at == NOW + timedelta(seconds=1)
    old, new = released_replica("p1"), replica("new4", ready=False, created=NOW)
    returned = decide(old, workload(old, *THREE[1:], new), setting(backoff=backoff))
    assert (returned.step, returned.backoff) == (ReplacementStep.RETURN, backoff)
    held = decide(THREE[1], workload(*THREE), setting(backoff=backoff))
    assert (held.step, held.blocker_class) == (ReplacementStep.HOLD, BlockerClass.REPLACEMENT_NOT_READY)
    assert (
        "3 new pods of ReplicaSet web-a, the last one was new3 (DaemonSet agent is its controller now)" in held.message
    )
    replaced = workload(old, *THREE[1:], replace(new, ready=True))
    assert decide(old, replaced, setting(backoff=backoff)).step is ReplacementStep.EVICT
    later = setting(backoff.retry_at, backoff=backoff)
    assert decide(old, workload(old, *THREE[1:], new), later).step is ReplacementStep.WAIT
    assert decide(THREE[1], workload(*THREE), later).step is ReplacementStep.RELEASE


def test_pods_leave_plainly_once_the_pause_after_removals_is_the_longest() -> None:
    backoff: ReplacementBackoff | None = None
    steps = []
    for _ in range(11):
        backoff = backoff_after_removals(REMOVED, backoff, NOW)
        steps.append(decide(THREE[0], workload(*THREE), setting(backoff=backoff)).step)
    assert steps == 9 * [ReplacementStep.HOLD] + 2 * [ReplacementStep.PLAIN_EVICTION]
    assert backoff is not None
    tenth = setting(backoff=replace(backoff, attempts=10))
    assert decide(THREE[0], workload(THREE[0]), tenth).step is ReplacementStep.HOLD
    assert decide(THREE[0], workload(THREE[0]), setting(backoff=backoff)).step is ReplacementStep.PLAIN_EVICTION
    required = setting(backoff=backoff, drain={"replacement": ReplacementMode.REQUIRED})
    assert decide(THREE[0], workload(*THREE), required).step is ReplacementStep.HOLD


class Owned:
    """Pods of one owner on a drained node, the controllers around them, and the releases of slow start.

    Attributes:
        spare: how many pods more than the replicas the quota allows.
        removed: number of released pods that another client removed.
        least: fewest Ready pods so far.
    """

    def __init__(self, replicas: int, spare: int) -> None:
        self.deployment, self.spare = replace(DEPLOYMENT, replicas=replicas), spare
        self.pods = {name: replica(name) for name in (f"p{n}" for n in range(replicas))}
        self.slow_start = SlowStart()
        self.backoff: ReplacementBackoff | None = None
        self.now, self.removed, self.least, self.created = NOW, 0, replicas, 0
        self.refused = False

    @property
    def world(self) -> Workload:
        sets = (replace(CURRENT, replica_failure="exceeded quota" if self.refused else None),)
        return workload(*self.pods.values(), deployment=self.deployment, replica_sets=sets)

    def create_pods(self) -> None:
        """Let the ReplicaSet create what it lacks, and the quota refuse what it does not allow."""
        lacking = self.deployment.replicas - sum(not pod.released for pod in self.pods.values())
        allowed = self.deployment.replicas + self.spare - len(self.pods)
        self.refused = lacking > max(0, allowed)
        for _ in range(min(lacking, allowed)):
            self.created += 1
            name = f"new{self.created}"
            self.pods[name] = replica(name, ready=False, node="n2", created=self.now)
        new = frozenset(name for name in self.pods if name.startswith("new"))
        self.slow_start.record_placed("web", new, self.now)

    def set_back(self, backoff: ReplacementBackoff | None) -> None:
        self.backoff = backoff
        self.slow_start.record_setback("web")

    def evaluate(self) -> None:
        """Decide for each old pod in turn, as one process does for all drains, and apply the decision."""
        for name in [name for name in self.pods if name.startswith("p")]:
            pod, world = self.pods[name], self.world
            allowed = self.slow_start.max_released("web", self.now)
            inputs = setting(self.now, backoff=self.backoff, max_released=allowed)
            decision = decide(pod, world, inputs)
            match decision.step:
                case ReplacementStep.RELEASE:
                    record = release_record(
                        released_at=self.now, ready_pods=ready_before_release(world) or world.serving_count
                    )
                    self.pods[name] = replace(pod, released=True, release_record=record)
                    assert len(self.world.released_pods) <= (1 if self.backoff else allowed)
                case ReplacementStep.EVICT:
                    del self.pods[name]
                    self.backoff = None
                case ReplacementStep.RETURN:
                    self.pods[name] = replace(pod, released=False, release_record=None)
                    self.set_back(decision.backoff)
            self.least = min(self.least, self.world.serving_count)

    def run(self, event: str) -> None:
        self.now += timedelta(seconds=5)
        new = next((pod for pod in self.pods.values() if not pod.ready), None)
        released = next((pod for pod in self.pods.values() if pod.released), None)
        if event == "create":
            self.create_pods()
        elif event == "ready" and new:
            self.pods[new.name] = replace(new, ready=True)
        elif event == "late":
            self.now += timedelta(minutes=10)
        elif event == "remove" and released:
            del self.pods[released.name]
            self.removed += released.ready
            self.set_back(backoff_after_removal(released, DrainSettings(), self.backoff, self.now))
        self.evaluate()


@settings(deadline=None)
@given(
    replicas=st.integers(1, 12),
    spare=st.integers(0, 12),
    events=st.lists(st.sampled_from(("create", "create", "ready", "ready", "ready", "late", "remove")), max_size=60),
)
def test_releases_alone_cost_no_ready_pod(replicas: int, spare: int, events: list[str]) -> None:
    """Never more are released together than allowed, and only other clients make the Ready pods fewer."""
    owner = Owned(replicas, spare)
    owner.evaluate()
    for event in events:
        owner.run(event)
        assert owner.least >= replicas - owner.removed


def test_ten_pods_move_in_three_rounds() -> None:
    owner, rounds = Owned(10, 10), []
    while any(name.startswith("p") for name in owner.pods):
        owner.evaluate()
        rounds.append(len(owner.world.released_pods))
        owner.create_pods()
        owner.pods = {name: replace(pod, ready=True) for name, pod in owner.pods.items()}
        owner.evaluate()
    assert rounds == [1, 2, 7]


@pytest.mark.parametrize(
    ("class_", "message", "failure", "attempts"),
    [
        ("ReplacementNotReady", "no replacement became Ready: x: y", ReplacementFailure.NOT_READY, 1),
        (
            "ReplacementNotReady",
            "no replacement became Ready in 2 of 3 attempts: x: y",
            ReplacementFailure.NOT_READY,
            2,
        ),
        ("ReplacementNotReady", "the ReplicaSet cannot create the replacement: x: y", None, 0),
        ("ReplacementNotReady", "a rollout of the Deployment is running", None, 0),
        ("NoRoomInPool", "no node has room for the replacement: x: y", ReplacementFailure.NO_ROOM, 1),
        ("BudgetExhausted", "no replacement became Ready: x: y", None, 0),
    ],
)
def test_a_backoff_is_read_from_the_blocker_of_a_failed_attempt_only(
    class_: str, message: str, failure: ReplacementFailure | None, attempts: int
) -> None:
    blocker = Blocker(namespace="shop", pod="web-1", class_=BlockerClass(class_), message=message, since=NOW)
    found = backoff_from_blocker(blocker, DrainSettings(), NOW)
    assert (found and (found.failure, found.message, found.attempts, found.retry_at)) == (
        failure and (failure, "x: y", attempts, NOW + DrainSettings().replacement_timeout)
    )


def test_a_suspected_node_releases_all_pods_and_evicts_none() -> None:
    released, new = released_replica("p1"), replica("p4")
    place = workload(released, *THREE[1:], new)
    assert decide(THREE[1], place, setting(release_only=True)).step is ReplacementStep.RELEASE
    assert decide(released, place, setting()).step is ReplacementStep.EVICT
    assert decide(released, place, setting(release_only=True)).step is ReplacementStep.WAIT
    late = NOW + timedelta(hours=1)
    assert (
        decide(released, workload(released, *THREE[1:]), setting(late, release_only=True)).step is ReplacementStep.WAIT
    )
    pinned = replace(THREE[0], pinned_to_node=True)
    assert decide(pinned, workload(pinned, *THREE[1:]), setting(release_only=True)).step is ReplacementStep.WAIT


def shifted(name: str, *, on: str, since: int = 10) -> Pod:
    """Return a released pod on a node that is not drained."""
    record = release_record("NamespacePool/shop", released_at=NOW - timedelta(seconds=since))
    return replica(name, node=on, released=True, release_record=record)


def test_a_replacement_on_the_node_to_leave_undoes_the_move() -> None:
    old, new = shifted("old", on="n1"), replica("new", node="n1", created=NOW)
    found = decide(old, workload(old, new, replica("p2"), replica("p3")), setting())
    assert found.step is ReplacementStep.RETURN
    assert found.backoff is not None
    assert found.backoff.failure is ReplacementFailure.SAME_NODE
    assert found.backoff.retry_at >= NOW + timedelta(minutes=5)


def test_a_replacement_on_another_node_opens_the_gate() -> None:
    old, new = shifted("old", on="n1"), replica("new", node="n2", created=NOW)
    assert decide(old, workload(old, new, replica("p2"), replica("p3")), setting()).step is ReplacementStep.EVICT


def test_an_older_pod_on_the_same_node_is_no_replacement() -> None:
    old, before = shifted("old", on="n1"), replica("p2", node="n1", created=NOW - timedelta(hours=1))
    assert (
        decide(old, workload(old, before, replica("p3"), replica("new", node="n2", created=NOW)), setting()).step
        is ReplacementStep.EVICT
    )


def test_a_replacement_on_a_drained_node_does_not_undo_the_move() -> None:
    """A pod that was bound just before the cordon moves later."""
    old, new = released_replica("old", node="n1"), replica("new", node="n1", created=NOW)
    assert decide(old, workload(old, new, replica("p2"), replica("p3")), setting()).step is ReplacementStep.EVICT


def test_a_replacement_that_tolerates_the_cordon_of_a_drain_undoes_the_move_for_a_moment() -> None:
    tolerating = (Toleration("", "Exists", "", ""),)
    old = released_replica("old", node="n1", tolerations=tolerating)
    new = replica("new", node="n1", created=NOW, tolerations=tolerating)
    found = decide(old, workload(old, new, replica("p2"), replica("p3")), setting())
    assert found.step is ReplacementStep.RETURN
    assert found.backoff is not None
    assert found.backoff.failure is ReplacementFailure.SAME_NODE
    assert found.backoff.retry_at == NOW + timedelta(seconds=2)
    elsewhere = replica("new", node="n2", created=NOW, tolerations=tolerating)
    assert decide(old, workload(old, elsewhere, replica("p2"), replica("p3")), setting()).step is ReplacementStep.EVICT


def test_a_pod_of_a_superseded_replica_set_is_not_returned_wherever_new_pods_start() -> None:
    old, new = shifted("old", on="n1"), replica("new", node="n1", created=NOW, owner=Owner("ReplicaSet", "web-b", "r2"))
    sets = (replace(CURRENT, replicas=0), replace(CURRENT, name="web-b", uid="r2", revision="2"))
    rolled_out = workload(old, new, deployment=replace(DEPLOYMENT, revision="2"), replica_sets=sets)
    assert decide(old, rolled_out, setting()).step is ReplacementStep.WAIT


@pytest.mark.parametrize(
    ("is_drain", "tolerates", "waits"), [(True, False, False), (True, True, True), (False, False, True)]
)
def test_a_replacement_on_the_same_node_before_the_cordon_delays_no_drain(
    is_drain: bool, tolerates: bool, waits: bool
) -> None:
    tolerations = (Toleration("", "Exists", "", ""),) if tolerates else ()
    old = replace(THREE[0], tolerations=tolerations)
    backoff = setback(ReplacementFailure.SAME_NODE)
    step = decide(old, workload(old, *THREE[1:]), setting(backoff=backoff, is_drain=is_drain)).step
    assert (step is not ReplacementStep.RELEASE) is waits


def test_a_replacement_on_the_same_node_makes_each_pause_longer() -> None:
    held = decide(THREE[0], workload(*THREE), setting(backoff=setback(ReplacementFailure.SAME_NODE)))
    assert (held.step, held.blocker_class) == (ReplacementStep.HOLD, BlockerClass.REPLACEMENT_NOT_READY)
    old, new = shifted("old", on="n1"), replica("new", node="n1", created=NOW)
    again = decide(old, workload(old, new), setting(backoff=setback(ReplacementFailure.SAME_NODE, -60, 2))).backoff
    assert again is not None
    assert again.attempts == 3
    assert again.retry_at == NOW + timedelta(minutes=20)


def test_a_pod_that_cannot_be_released_and_has_no_room_is_held() -> None:
    lonely = replace(DEPLOYMENT, allows_surge=False)
    found = decide(THREE[0], workload(*THREE, deployment=lonely), setting(no_room_reason="full"))
    assert (found.step, found.blocker_class, found.reason) == (
        ReplacementStep.HOLD,
        BlockerClass.NO_ROOM_IN_POOL,
        "NoSurge",
    )
    evict = setting(no_room_reason="full", drain={"no_room": NoRoom.EVICT})
    assert decide(THREE[0], workload(*THREE, deployment=lonely), evict).step is ReplacementStep.PLAIN_EVICTION


def test_a_pod_blocked_by_other_pods_everywhere_is_evicted_plainly() -> None:
    found = decide(THREE[0], workload(*THREE), setting(blocked_by_pods_reason="anti-affinity"))
    assert (found.step, found.reason) == (ReplacementStep.PLAIN_EVICTION, "BlockedByPods")
    assert "nodeTaintsPolicy: Honor" in found.hint


def test_the_last_ready_pod_blocked_by_other_pods_leaves_only_after_an_attempt() -> None:
    blocked = setting(blocked_by_pods_reason="anti-affinity")
    assert decide(THREE[0], workload(THREE[0]), blocked).step is ReplacementStep.RELEASE
    tried = replace(blocked, backoff=setback(ReplacementFailure.BLOCKED_BY_PODS))
    assert decide(THREE[0], workload(THREE[0], **ONE), tried).step is ReplacementStep.PLAIN_EVICTION
    required = setting(blocked_by_pods_reason="anti-affinity", drain=REQUIRED)
    assert decide(THREE[0], workload(THREE[0]), required).step is ReplacementStep.HOLD


def test_while_a_replacement_is_pending_the_schedulers_words_are_passed_on() -> None:
    waiting = replica("new", ready=False, unschedulable_message="0/3 nodes are available")
    found = decide(released_replica("p1"), workload(released_replica("p1"), waiting, *THREE[1:2]), setting())
    assert (found.step, found.message) == (ReplacementStep.WAIT, "0/3 nodes are available")


def test_a_forecast_is_no_backoff_after_a_restart() -> None:
    said = Blocker(
        namespace="s",
        pod="p1",
        class_=BlockerClass.NO_ROOM_IN_POOL,
        message="the plan finds no room for this pod on another node: x",
        since=NOW,
    )
    assert backoff_from_blocker(said, DrainSettings(), NOW) is None
    tried = said.model_copy(update={"message": "no node has room for the replacement: x"})
    found = backoff_from_blocker(tried, DrainSettings(), NOW)
    assert found is not None
    assert (found.failure, found.message) == (ReplacementFailure.NO_ROOM, "x")
