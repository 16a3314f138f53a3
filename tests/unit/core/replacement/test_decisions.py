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
from rescheduler.core.model.pods import Owner, Pod
from rescheduler.core.model.workloads import Deployment, ReplicaSet, Workload
from rescheduler.core.replacement.decisions import (
    PodWriteRefusal,
    ReplacementBackoff,
    ReplacementDecision,
    ReplacementFailure,
    ReplacementInput,
    ReplacementStep,
    backoff_after_removal,
    backoff_after_removals,
    backoff_from_blocker,
    decide,
    decide_return,
    ready_before_release,
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
        ({}, {"has_host_path": True}, "HostPath"),
        ({}, {"pinned_to_node": True}, "Pinned"),
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


@pytest.mark.parametrize(
    "changes",
    [
        {"deployment": replace(DEPLOYMENT, paused=True)},
        {"deployment": replace(DEPLOYMENT, observed=False)},
        {"replica_sets": (CURRENT, replace(CURRENT, uid="r0", pod_template_hash="0", revision="0"))},
    ],
)
def test_a_pod_waits_for_a_rollout_for_a_limited_time(changes: dict[str, Any]) -> None:
    found = workload(*THREE, **changes)
    assert decide(THREE[0], found, setting(rollout_since=NOW)).step is ReplacementStep.WAIT
    late = setting(rollout_since=NOW - timedelta(minutes=5))
    assert decide(THREE[0], found, late).step is ReplacementStep.PLAIN_EVICTION
    alone = workload(THREE[0], **changes)
    assert decide(THREE[0], alone, late).blocker_class is BlockerClass.REPLACEMENT_NOT_READY


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


REFUSED = PodWriteRefusal(BlockerClass.ADMISSION_DENIED, "policy says no", "ask for it")


def test_a_refused_release_evicts_pods_but_holds_the_last_ready_one() -> None:
    several = decide(THREE[0], workload(*THREE), setting(write_refusal=REFUSED))
    assert (several.step, several.reason) == (ReplacementStep.PLAIN_EVICTION, "ReleaseRefused")
    last = decide(THREE[0], workload(THREE[0]), setting(write_refusal=REFUSED))
    assert (last.step, last.blocker_class) == (ReplacementStep.HOLD, BlockerClass.ADMISSION_DENIED)
    assert "policy says no" in last.message
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


@pytest.mark.parametrize(
    ("refused", "new", "trouble"),
    [
        (
            "",
            replica("new", ready=False, unschedulable_message="0/3 nodes: 2 Insufficient cpu"),
            ReplacementFailure.NO_ROOM,
        ),
        (
            "",
            replica("new", ready=False, unschedulable_message="0/3 nodes: pod anti-affinity"),
            ReplacementFailure.NOT_POSSIBLE,
        ),
        ("", replica("new", ready=False, node="n2"), ReplacementFailure.NOT_READY),
        (
            "",
            replica("new", ready=False, unschedulable_message="0/3 nodes: didn't match topology spread"),
            ReplacementFailure.NOT_POSSIBLE,
        ),
        (
            "",
            replica("new", ready=False, unschedulable_message="0/3 nodes: didn't match node selector"),
            ReplacementFailure.NO_ROOM,
        ),
        (
            "",
            replica("new", ready=False, unschedulable_message="3 had untolerated taint(s)"),
            ReplacementFailure.NO_ROOM,
        ),
        ("", None, ReplacementFailure.NOT_READY),  # nothing goes while nothing can replace it
        ("pods is forbidden: exceeded quota: q", None, ReplacementFailure.NOT_POSSIBLE),
        ("admission webhook denied", None, ReplacementFailure.NOT_READY),
    ],
)
def test_a_pod_without_a_replacement_in_time_is_returned_with_the_cause(
    refused: str, new: Pod | None, trouble: ReplacementFailure
) -> None:
    old = released_replica("p1", since=301)
    sets = (replace(CURRENT, replica_failure=refused),)
    choice = decide(old, workload(old, *THREE[1:], *([new] if new else []), replica_sets=sets), setting())
    assert choice.step is ReplacementStep.RETURN
    assert choice.backoff is not None
    assert choice.backoff.failure is trouble
    assert choice.backoff.retry_at >= NOW + timedelta(minutes=5)


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


def test_quota_is_known_at_once() -> None:
    old = released_replica("p1", since=0)
    sets = (replace(CURRENT, replica_failure="exceeded quota"),)
    assert decide(old, workload(old, *THREE[1:], replica_sets=sets), setting()).step is ReplacementStep.RETURN


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


def test_a_hanging_rollout_is_reported_and_the_pod_stays_released() -> None:
    newer = ReplicaSet("s", "web-b", "r2", "web", pod_template_hash="b", replicas=1, revision="2")
    rolled: dict[str, Any] = {"deployment": replace(DEPLOYMENT, revision="2"), "replica_sets": (CURRENT, newer)}
    hangs = replica("new", ready=False, owner=Owner("ReplicaSet", "web-b", "r2"), labels={"pod-template-hash": "b"})

    def after(seconds: int) -> ReplacementDecision:
        old = released_replica("p1", since=seconds)
        return decide(old, workload(old, *THREE[1:], hangs, **rolled), setting())

    assert after(299).step is ReplacementStep.WAIT
    assert (after(300).step, after(300).blocker_class) == (ReplacementStep.HOLD, BlockerClass.REPLACEMENT_NOT_READY)


def setback(trouble: ReplacementFailure, seconds: int = 60, attempts: int = 1) -> ReplacementBackoff:
    return ReplacementBackoff(trouble, "why", NOW + timedelta(seconds=seconds), attempts)


@pytest.mark.parametrize(
    ("trouble", "drain", "pods", "way", "cause"),
    [
        (ReplacementFailure.NOT_POSSIBLE, {}, THREE, ReplacementStep.PLAIN_EVICTION, None),
        (ReplacementFailure.NOT_POSSIBLE, {}, THREE[:1], ReplacementStep.HOLD, BlockerClass.REPLACEMENT_NOT_READY),
        (
            ReplacementFailure.NOT_POSSIBLE,
            {"replacement": ReplacementMode.REQUIRED},
            THREE,
            ReplacementStep.HOLD,
            BlockerClass.REPLACEMENT_NOT_READY,
        ),
        (ReplacementFailure.NOT_READY, {}, THREE, ReplacementStep.HOLD, BlockerClass.REPLACEMENT_NOT_READY),
        (ReplacementFailure.NO_ROOM, {}, THREE, ReplacementStep.HOLD, BlockerClass.NO_ROOM_IN_POOL),
        (ReplacementFailure.NO_ROOM, {"no_room": NoRoom.EVICT}, THREE, ReplacementStep.PLAIN_EVICTION, None),
    ],
)
def test_each_failure_decides_the_step_during_a_backoff(
    trouble: ReplacementFailure,
    drain: dict[str, Any],
    pods: tuple[Pod, ...],
    way: ReplacementStep,
    cause: BlockerClass | None,
) -> None:
    choice = decide(pods[0], workload(*pods), setting(drain=drain, backoff=setback(trouble)))
    assert (choice.step, choice.blocker_class) == (way, cause)


def test_a_pod_is_released_again_after_the_backoff() -> None:
    for trouble in ReplacementFailure:
        assert decide(THREE[0], workload(*THREE), setting(backoff=setback(trouble, -1))).step is ReplacementStep.RELEASE


def test_without_room_the_pause_grows_to_half_an_hour() -> None:
    new = replica("new", ready=False, unschedulable_message="Insufficient memory")
    pauses = []
    for attempts in (*range(5), 10_000):
        old = released_replica("p1", since=301)
        before = setback(ReplacementFailure.NO_ROOM, attempts=attempts) if attempts else None
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
    assert decide(THREE[0], workload(THREE[0]), setting(backoff=backoff)).step is ReplacementStep.HOLD
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
                    self.slow_start.record_success("web", self.now)
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
    ("class_", "trouble"),
    [
        ("ReplacementNotReady", ReplacementFailure.NOT_READY),
        ("NoRoomInPool", ReplacementFailure.NO_ROOM),
        ("BudgetExhausted", None),
    ],
)
def test_what_a_blocker_says_is_remembered_over_a_restart(class_: str, trouble: ReplacementFailure | None) -> None:
    blocker = Blocker(
        namespace="shop", pod="web-1", class_=BlockerClass(class_), message="none came up: exceeded quota", since=NOW
    )
    found = backoff_from_blocker(blocker, DrainSettings(), NOW)
    assert (found and found.failure) == trouble
    assert found is None or (
        found.message == "exceeded quota" and found.retry_at == NOW + DrainSettings().replacement_timeout
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


def test_a_replacement_on_the_same_node_makes_each_pause_longer() -> None:
    held = decide(THREE[0], workload(*THREE), setting(backoff=setback(ReplacementFailure.SAME_NODE)))
    assert (held.step, held.blocker_class) == (ReplacementStep.HOLD, BlockerClass.REPLACEMENT_NOT_READY)
    old, new = shifted("old", on="n1"), replica("new", node="n1", created=NOW)
    again = decide(old, workload(old, new), setting(backoff=setback(ReplacementFailure.SAME_NODE, attempts=2))).backoff
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
    assert (found.step, found.reason) == (ReplacementStep.PLAIN_EVICTION, "CannotBeHad")


def test_the_last_ready_pod_blocked_by_other_pods_is_held() -> None:
    found = decide(THREE[0], workload(THREE[0]), setting(blocked_by_pods_reason="anti-affinity"))
    assert (found.step, found.blocker_class) == (ReplacementStep.HOLD, BlockerClass.REPLACEMENT_NOT_READY)


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
