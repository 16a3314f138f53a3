"""Replacement first, as decisions."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rescheduler.api.drains import Blocker, BlockerClass
from rescheduler.api.policies import Drain, NoRoom, Replacement
from rescheduler.api.selectors import LabelSelector
from rescheduler.core.model.disruption_budgets import Budget
from rescheduler.core.model.pods import Owner, Pod
from rescheduler.core.model.release_record import Move
from rescheduler.core.model.workloads import Deployment, ReplicaSet, Workload
from rescheduler.core.replacement.decisions import (
    Choice,
    Refused,
    Setback,
    Setting,
    Trouble,
    Way,
    choose,
    give_back,
    recall,
    taken,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DEPLOYMENT = Deployment("s", "web", "d", replicas=3, revision="1")
CURRENT = ReplicaSet("s", "web-a", "r1", "web", "d", hash="a", replicas=3, revision="1")
FULL = Budget("s", "b", "b", allowed=0, healthy=1, needed=1, expected=1)


def pod(name: str, *, released: bool = False, since: int = 10, before: int = 3, **changes: Any) -> Pod:
    move = Move("NodeDrain/n", None, before, NOW - timedelta(seconds=since), 1, "web", "d", "web-a", "r1")
    base: dict[str, Any] = {
        "namespace": "s",
        "name": name,
        "uid": name,
        "ready": True,
        "owner": Owner("ReplicaSet", "web-a", "r1"),
        "labels": {"pod-template-hash": "a"},
        "move": move if released else None,
        "released": released,
    }
    return Pod(**(base | changes))


def workload(*pods: Pod, going: frozenset[str] = frozenset(), **changes: Any) -> Workload:
    base: dict[str, Any] = {"deployment": DEPLOYMENT, "replica_sets": (CURRENT,), "pods": pods, "going": going}
    return Workload(**(base | changes))


def setting(now: datetime = NOW, **changes: Any) -> Setting:
    drain = changes.pop("drain", {})
    return Setting(Drain(**drain), now, **changes)


THREE = (pod("p1"), pod("p2"), pod("p3"))


def test_a_pod_is_let_go_first() -> None:
    assert choose(THREE[0], workload(*THREE), setting()).way is Way.RELEASE


def test_a_quarter_of_an_owner_at_once_rounded_up() -> None:
    released = pod("p1", released=True)
    assert choose(THREE[1], workload(released, *THREE[1:]), setting()).way is Way.WAIT
    assert choose(THREE[0], workload(*THREE), setting(releasing=1)).way is Way.WAIT
    many = replace(DEPLOYMENT, replicas=5)
    assert choose(THREE[1], workload(released, *THREE[1:], deployment=many), setting()).way is Way.RELEASE


@pytest.mark.parametrize(
    ("changes", "pod_changes", "reason"),
    [
        ({"drain": {"replacement": Replacement.NEVER}}, {}, "Never"),
        ({}, {"annotations": {"rescheduler.dev/replacement": "Never"}}, "Never"),
        ({"exclusive": True}, {}, "ExclusiveVolume"),
        ({}, {"host_path": True}, "HostPath"),
        ({}, {"pinned": True}, "Pinned"),
        ({}, {"ready": False}, "NotReady"),
        ({"budgets": (FULL, FULL)}, {}, "SeveralBudgets"),
        ({"left": True}, {}, "LeftSelector"),
        ({"drain": {"replacement": Replacement.WHEN_BLOCKED}}, {}, "NotBlocked"),
    ],
)
def test_who_cannot_be_replaced_first_goes_plainly(
    changes: dict[str, Any], pod_changes: dict[str, Any], reason: str
) -> None:
    first = replace(THREE[0], **pod_changes)
    choice = choose(first, workload(first, *THREE[1:]), setting(**changes))
    assert (choice.way, choice.reason) == (Way.PLAIN, reason)


def test_when_blocked_waits_for_a_replacement_only_without_budget() -> None:
    drain = {"replacement": Replacement.WHEN_BLOCKED}
    assert choose(THREE[0], workload(*THREE), setting(drain=drain, budgets=(FULL,))).way is Way.RELEASE


def test_the_owners_word_is_stronger_than_the_policys() -> None:
    first = replace(THREE[0], annotations={"rescheduler.dev/replacement": "Preferred"})
    assert choose(first, workload(first), setting(drain={"replacement": Replacement.NEVER})).way is Way.RELEASE


def test_recreate_has_no_second_pod() -> None:
    found = workload(*THREE, deployment=replace(DEPLOYMENT, surges=False))
    assert choose(THREE[0], found, setting()).reason == "NoSurge"


@pytest.mark.parametrize(
    "changes",
    [
        {"deployment": replace(DEPLOYMENT, paused=True)},
        {"deployment": replace(DEPLOYMENT, observed=False)},
        {"replica_sets": (CURRENT, replace(CURRENT, uid="r0", hash="0", revision="0"))},
    ],
)
def test_a_rollout_is_waited_for_and_not_for_ever(changes: dict[str, Any]) -> None:
    found = workload(*THREE, **changes)
    assert choose(THREE[0], found, setting(rolling_since=NOW)).way is Way.WAIT
    late = setting(rolling_since=NOW - timedelta(minutes=5))
    assert choose(THREE[0], found, late).way is Way.PLAIN
    alone = workload(THREE[0], **changes)
    assert choose(THREE[0], alone, late).cause is BlockerClass.REPLACEMENT_NOT_READY


def test_the_gate_counts_pods_not_the_budget() -> None:
    old = pod("p1", released=True)
    assert choose(old, workload(old, *THREE[1:]), setting()).way is Way.WAIT
    assert choose(old, workload(old, *THREE[1:], pod("new", ready=False)), setting()).way is Way.WAIT
    assert choose(old, workload(old, *THREE[1:], pod("new")), setting()).way is Way.EVICT


def test_the_gate_waits_for_min_ready_seconds() -> None:
    slow = replace(DEPLOYMENT, min_ready=timedelta(seconds=30))
    settled = tuple(replace(p, ready_since=NOW - timedelta(hours=1)) for p in THREE[1:])
    old, new = pod("p1", released=True), pod("new", ready_since=NOW - timedelta(seconds=29))
    assert choose(old, workload(old, *settled, new, deployment=slow), setting()).way is Way.WAIT
    ripe = replace(new, ready_since=NOW - timedelta(seconds=30))
    assert choose(old, workload(old, *settled, ripe, deployment=slow), setting()).way is Way.EVICT


def test_an_eviction_under_way_counts_as_gone() -> None:
    first, second = pod("p1", released=True), pod("p2", released=True)
    rest = (THREE[2], pod("new"))
    assert choose(first, workload(first, second, *rest), setting()).way is Way.EVICT
    assert choose(second, workload(first, second, *rest, going=frozenset({"p1"})), setting()).way is Way.WAIT


def test_fewer_ready_before_need_no_more_after() -> None:
    old = pod("p1", released=True, before=1)
    assert choose(old, workload(old, pod("new")), setting()).way is Way.EVICT


@pytest.mark.parametrize(
    "changes",
    [
        {"deployment": replace(DEPLOYMENT, replicas=0)},
        {"deployment": replace(DEPLOYMENT, replicas=1)},  # its ReplicaSet has two Ready pods of its own
    ],
)
def test_what_its_owner_wants_no_more_is_deleted(changes: dict[str, Any]) -> None:
    old = pod("p1", released=True)
    found = workload(old, *THREE[1:], **changes)
    assert choose(old, found, setting()).way is Way.DELETE
    assert give_back(old, found, NOW).way is Way.DELETE


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
def test_a_record_deletes_nothing_unless_deployment_and_replica_set_exist_and_belong_together(
    changes: dict[str, Any],
) -> None:
    old = pod("p1", released=True)
    found = workload(old, *THREE[1:], **changes)
    assert choose(old, found, setting()).way is not Way.DELETE
    assert give_back(old, found, NOW).way is not Way.DELETE


def test_a_released_pod_whose_owner_is_gone_waits_for_nothing() -> None:
    old = pod("p1", released=True)
    for nothing in (None, workload(old, deployment=None, replica_sets=())):
        assert (choose(old, nothing, setting()).way, choose(old, nothing, setting()).reason) == (
            Way.PLAIN,
            "NoDeployment",
        )
        assert give_back(old, nothing, NOW).way is Way.CLEAR


def test_a_released_pod_that_has_ended_goes_without_the_gate() -> None:
    old = pod("p1", released=True, ready=False, phase="Failed")
    assert choose(old, workload(old, *THREE[1:]), setting()).way is Way.EVICT
    assert give_back(old, workload(old, *THREE[1:]), NOW).way is Way.EVICT


def test_a_released_pod_that_left_the_selector_of_its_owner_is_not_waited_for() -> None:
    named = replace(CURRENT, selector=LabelSelector.model_validate({"matchLabels": {"app": "web"}}))
    old = pod("p1", released=True, labels={"app": "quarantine"})
    found = workload(*THREE[1:], replica_sets=(named,))
    assert choose(old, found, setting(left=True)).way is Way.PLAIN
    assert give_back(old, found, NOW).way is Way.CLEAR


REFUSED = Refused(BlockerClass.ADMISSION_DENIED, "policy says no", "ask for it")


def test_a_refused_release_goes_plainly_and_the_last_ready_pod_is_held_in_the_words_of_the_policy() -> None:
    several = choose(THREE[0], workload(*THREE), setting(unwritable=REFUSED))
    assert (several.way, several.reason) == (Way.PLAIN, "ReleaseRefused")
    last = choose(THREE[0], workload(THREE[0]), setting(unwritable=REFUSED))
    assert (last.way, last.cause) == (Way.HOLD, BlockerClass.ADMISSION_DENIED)
    assert "policy says no" in last.message
    required = setting(unwritable=REFUSED, drain={"replacement": Replacement.REQUIRED})
    assert choose(THREE[0], workload(*THREE), required).cause is BlockerClass.ADMISSION_DENIED


def test_a_refused_return_is_named_and_ends_once_the_replacement_is_ready() -> None:
    old = pod("p1", released=True, since=301)
    held = give_back(old, workload(old, *THREE[1:]), NOW, REFUSED)
    assert (held.way, held.cause) == (Way.HOLD, BlockerClass.ADMISSION_DENIED)
    assert "policy says no" in held.message
    assert choose(old, workload(old, *THREE[1:]), setting(unwritable=REFUSED)).cause is BlockerClass.ADMISSION_DENIED
    assert give_back(old, workload(old, *THREE[1:], pod("new")), NOW, REFUSED).way is Way.EVICT


def test_a_record_that_cannot_be_cleared_is_named_and_does_not_keep_the_pod() -> None:
    back = replace(pod("p1"), move=pod("x", released=True).move)
    assert give_back(back, workload(back), NOW, REFUSED).cause is BlockerClass.ADMISSION_DENIED
    assert choose(back, workload(back, *THREE[1:]), setting(unwritable=REFUSED)).way is Way.PLAIN


def test_no_second_pod_is_released_while_fewer_are_ready_than_at_the_first() -> None:
    many = replace(DEPLOYMENT, replicas=8)
    released, others = pod("p1", released=True, before=8), tuple(pod(f"p{n}") for n in range(2, 9))
    assert choose(others[0], workload(released, *others, deployment=many), setting()).way is Way.RELEASE
    fewer = (replace(others[-1], ready=False), *others[:-1])
    waits = choose(others[0], workload(released, *fewer, deployment=many), setting())
    assert (waits.way, waits.why) == (Way.WAIT, "7 of 8 pods of its owner are Ready")


def test_a_released_pod_that_somebody_else_removed_holds_its_owner_until_as_many_are_ready() -> None:
    gone = pod("p0", released=True)
    found = taken(gone, Drain(), None, NOW)
    assert found is not None
    assert (found.trouble, found.ready, found.attempts) == (Trouble.TAKEN, 3, 1)
    later = found.until + timedelta(hours=1)
    held = choose(THREE[0], workload(*THREE[:2]), setting(later, setback=found))
    assert (held.way, held.cause) == (Way.HOLD, BlockerClass.REPLACEMENT_NOT_READY)
    assert "2 of 3 pods" in held.message
    assert choose(THREE[0], workload(*THREE), setting(setback=found)).way is Way.HOLD  # the pause
    assert choose(THREE[0], workload(*THREE), setting(later, setback=found)).way is Way.RELEASE
    again = taken(gone, Drain(), found, NOW)
    assert again is not None
    assert again.until > found.until
    assert taken(THREE[0], Drain(), None, NOW) is None


@given(
    deleted=st.lists(st.booleans(), min_size=1, max_size=20),
    replicas=st.integers(1, 6),
)
def test_a_deleter_of_released_pods_costs_one_pod_at_a_time(deleted: list[bool], replicas: int) -> None:
    """Whatever the deleter takes and when: no release leads below one Ready pod less than there were."""
    found = replace(DEPLOYMENT, replicas=replicas)
    pods = [pod(f"p{n}") for n in range(replicas)]
    setback: Setback | None = None
    for takes in deleted:
        chosen = next(
            (
                p
                for p in pods
                if choose(p, workload(*pods, deployment=found), setting(setback=setback)).way is Way.RELEASE
            ),
            None,
        )
        if chosen and takes:
            released = pod(chosen.name, released=True, before=len(pods))
            setback = taken(released, Drain(), setback, NOW - timedelta(hours=1))
            pods.remove(chosen)
        assert len(pods) >= replicas - 1


def test_after_a_rollout_it_is_never_given_back() -> None:
    new = replace(CURRENT, uid="r2", hash="b", revision="2")
    rolled = replace(DEPLOYMENT, revision="2")
    old = pod("p1", released=True, since=100_000)
    fresh = tuple(pod(f"b{i}", labels={"pod-template-hash": "b"}, owner=Owner("ReplicaSet", "b", "r2")) for i in (1, 2))
    sets = (replace(CURRENT, replicas=0), new)
    two = workload(old, *fresh, deployment=rolled, replica_sets=sets)
    assert choose(old, two, setting()).way is Way.HOLD
    assert (give_back(old, two, NOW).way, give_back(old, two, NOW).cause) == (
        Way.HOLD,
        BlockerClass.REPLACEMENT_NOT_READY,
    )
    third = replace(fresh[0], uid="b3")
    assert choose(old, workload(old, *fresh, third, deployment=rolled, replica_sets=sets), setting()).way is Way.EVICT
    assert choose(old, workload(old, *fresh, third, deployment=rolled, replica_sets=(new,)), setting()).way is Way.EVICT


def test_a_replica_set_without_deployment_keeps_the_gate() -> None:
    old = pod("p1", released=True)
    alone = replace(CURRENT, deployment="", deployment_uid="")
    assert choose(old, workload(old, *THREE[1:], deployment=None, replica_sets=(alone,)), setting()).way is Way.WAIT
    found = workload(old, *THREE[1:], pod("new"), deployment=None, replica_sets=(alone,))
    assert choose(old, found, setting()).way is Way.EVICT


@pytest.mark.parametrize(
    ("refused", "new", "trouble"),
    [
        ("", pod("new", ready=False, unschedulable="0/3 nodes: 2 Insufficient cpu"), Trouble.NO_ROOM),
        ("", pod("new", ready=False, unschedulable="0/3 nodes: pod anti-affinity"), Trouble.CANNOT_BE_HAD),
        ("", pod("new", ready=False, node="n2"), Trouble.NOT_READY),
        ("", pod("new", ready=False, unschedulable="0/3 nodes: didn't match topology spread"), Trouble.CANNOT_BE_HAD),
        ("", pod("new", ready=False, unschedulable="0/3 nodes: didn't match node selector"), Trouble.NO_ROOM),
        ("", pod("new", ready=False, unschedulable="3 had untolerated taint(s)"), Trouble.NO_ROOM),
        ("", None, Trouble.NOT_READY),  # nothing goes while nothing can replace it
        ("pods is forbidden: exceeded quota: q", None, Trouble.CANNOT_BE_HAD),
        ("admission webhook denied", None, Trouble.NOT_READY),
    ],
)
def test_not_up_in_time_it_is_given_back_with_the_reason(refused: str, new: Pod | None, trouble: Trouble) -> None:
    old = pod("p1", released=True, since=301)
    sets = (replace(CURRENT, refused=refused),)
    choice = choose(old, workload(old, *THREE[1:], *([new] if new else []), replica_sets=sets), setting())
    assert choice.way is Way.RETURN
    assert choice.setback is not None
    assert choice.setback.trouble is trouble
    assert choice.setback.until >= NOW + timedelta(minutes=5)


def test_quota_is_known_at_once() -> None:
    old = pod("p1", released=True, since=0)
    sets = (replace(CURRENT, refused="exceeded quota"),)
    assert choose(old, workload(old, *THREE[1:], replica_sets=sets), setting()).way is Way.RETURN


@pytest.mark.parametrize(
    ("why", "says"),
    [({"budgets": (FULL,)}, "its budget refuses"), ({"refused": "ask the database team"}, "the database team")],
)
def test_refused_for_long_though_the_gate_is_open_it_is_given_back(why: dict[str, Any], says: str) -> None:
    def after(seconds: int) -> Choice:
        old = pod("p1", released=True, since=seconds)
        return choose(old, workload(old, *THREE[1:], pod("new")), setting(**why))

    assert after(599).way is Way.EVICT
    given = after(600)
    assert given.way is Way.RETURN
    assert given.setback is not None
    assert says in given.setback.message


def test_behind_a_rollout_that_hangs_it_is_named_and_neither_given_back_nor_evicted() -> None:
    newer = ReplicaSet("s", "web-b", "r2", "web", "d", hash="b", replicas=1, revision="2")
    rolled = {"deployment": replace(DEPLOYMENT, revision="2"), "replica_sets": (CURRENT, newer)}
    hangs = pod("new", ready=False, owner=Owner("ReplicaSet", "web-b", "r2"), labels={"pod-template-hash": "b"})

    def after(seconds: int) -> Choice:
        old = pod("p1", released=True, since=seconds)
        return choose(old, workload(old, *THREE[1:], hangs, **rolled), setting())

    assert after(299).way is Way.WAIT
    assert (after(300).way, after(300).cause) == (Way.HOLD, BlockerClass.REPLACEMENT_NOT_READY)


def setback(trouble: Trouble, seconds: int = 60, attempts: int = 1) -> Setback:
    return Setback(trouble, "why", NOW + timedelta(seconds=seconds), attempts)


@pytest.mark.parametrize(
    ("trouble", "drain", "pods", "way", "cause"),
    [
        (Trouble.CANNOT_BE_HAD, {}, THREE, Way.PLAIN, None),
        (Trouble.CANNOT_BE_HAD, {}, THREE[:1], Way.HOLD, BlockerClass.REPLACEMENT_NOT_READY),
        (
            Trouble.CANNOT_BE_HAD,
            {"replacement": Replacement.REQUIRED},
            THREE,
            Way.HOLD,
            BlockerClass.REPLACEMENT_NOT_READY,
        ),
        (Trouble.NOT_READY, {}, THREE, Way.HOLD, BlockerClass.REPLACEMENT_NOT_READY),
        (Trouble.NO_ROOM, {}, THREE, Way.HOLD, BlockerClass.NO_ROOM_IN_POOL),
        (Trouble.NO_ROOM, {"no_room": NoRoom.EVICT}, THREE, Way.PLAIN, None),
    ],
)
def test_while_a_setback_stands(
    trouble: Trouble, drain: dict[str, Any], pods: tuple[Pod, ...], way: Way, cause: BlockerClass | None
) -> None:
    choice = choose(pods[0], workload(*pods), setting(drain=drain, setback=setback(trouble)))
    assert (choice.way, choice.cause) == (way, cause)


def test_afterwards_it_is_tried_again() -> None:
    for trouble in Trouble:
        assert choose(THREE[0], workload(*THREE), setting(setback=setback(trouble, -1))).way is Way.RELEASE


def test_without_room_the_pause_grows_to_half_an_hour() -> None:
    new = pod("new", ready=False, unschedulable="Insufficient memory")
    pauses = []
    for attempts in (*range(5), 10_000):
        old = pod("p1", released=True, since=301)
        before = setback(Trouble.NO_ROOM, attempts=attempts) if attempts else None
        choice = choose(old, workload(old, new), setting(setback=before))
        assert choice.setback is not None
        pauses.append((choice.setback.until - NOW).total_seconds() / 60)
    assert pauses == [5, 10, 20, 30, 30, 30]


def test_given_back_and_owned_again_the_last_traces_come_off() -> None:
    back = replace(pod("p1"), move=pod("x", released=True).move)
    assert choose(back, workload(back), setting()).way is Way.CLEAR
    assert give_back(back, workload(back), NOW).way is Way.CLEAR


def test_the_deletion_cost_stays_until_the_replica_set_has_none_too_many_and_none_is_to_come_back() -> None:
    """It removes one of those that are equal to it, and of a node with several rather those."""
    move = pod("x", released=True).move
    first, second = (replace(pod(name), move=move) for name in ("p1", "p2"))
    new = [pod(f"new{number}") for number in range(3)]
    for crowd in (workload(first, second, *new), workload(first, pod("p2", released=True), *new[:2])):
        assert choose(first, crowd, setting()).way is Way.WAIT
        assert give_back(first, crowd, NOW).way is Way.WAIT
    going = workload(first, second, new[0], *(replace(each, deleting=NOW) for each in new[1:]))
    assert give_back(first, going, NOW).way is Way.CLEAR


@given(
    replicas=st.integers(1, 6),
    own=st.lists(st.booleans(), max_size=6),
    old=st.lists(st.booleans(), min_size=1, max_size=4),
    before=st.integers(0, 6),
)
def test_no_eviction_leaves_fewer_ready_than_before(
    replicas: int, own: list[bool], old: list[bool], before: int
) -> None:
    """The promise itself: whatever is chosen one after another, min(replicas, ready before) pods stay Ready."""
    pods = [pod(f"o{i}", ready=ready) for i, ready in enumerate(own)]
    released = [pod(f"r{i}", released=True, ready=ready, before=before) for i, ready in enumerate(old)]
    found = replace(DEPLOYMENT, replicas=replicas)
    going: set[str] = set()
    for each in released:
        world = workload(*pods, *released, deployment=found, going=frozenset(going))
        if choose(each, world, setting()).way is Way.EVICT:
            going.add(each.uid)
            left = sum(p.ready for p in (*pods, *released) if p.uid not in going)
            assert left >= min(replicas, before)


@pytest.mark.parametrize(
    ("class_", "trouble"),
    [
        ("ReplacementNotReady", Trouble.NOT_READY),
        ("NoRoomInPool", Trouble.NO_ROOM),
        ("BudgetExhausted", None),
    ],
)
def test_what_a_blocker_says_is_remembered_over_a_restart(class_: str, trouble: Trouble | None) -> None:
    blocker = Blocker(
        namespace="shop", pod="web-1", class_=BlockerClass(class_), message="none came up: exceeded quota", since=NOW
    )
    found = recall(blocker, Drain(), NOW)
    assert (found and found.trouble) == trouble
    assert found is None or (found.message == "exceeded quota" and found.until == NOW + Drain().replacement_timeout)


def test_for_a_suspected_node_all_are_let_go_at_once_and_nothing_goes() -> None:
    released, new = pod("p1", released=True), pod("p4")
    place = workload(released, *THREE[1:], new)
    assert choose(THREE[1], place, setting(early=True)).way is Way.RELEASE
    assert choose(released, place, setting()).way is Way.EVICT
    assert choose(released, place, setting(early=True)).way is Way.WAIT
    late = NOW + timedelta(hours=1)
    assert choose(released, workload(released, *THREE[1:]), setting(late, early=True)).way is Way.WAIT
    pinned = replace(THREE[0], pinned=True)
    assert choose(pinned, workload(pinned, *THREE[1:]), setting(early=True)).way is Way.WAIT


def shifted(name: str, *, on: str, since: int = 10) -> Pod:
    """A released pod on a node that is not drained."""
    made = pod(name, released=True, since=since, node=on)
    assert made.move is not None
    return replace(made, move=replace(made.move, cause="NamespacePool/shop"))


def test_a_replacement_that_comes_up_on_the_node_to_be_left_undoes_the_move() -> None:
    old, new = shifted("old", on="n1"), pod("new", node="n1", created=NOW)
    found = choose(old, workload(old, new, pod("p2"), pod("p3")), setting())
    assert found.way is Way.RETURN
    assert found.setback is not None
    assert found.setback.trouble is Trouble.CAME_BACK
    assert found.setback.until >= NOW + timedelta(minutes=5)


def test_on_another_node_it_is_what_was_waited_for() -> None:
    old, new = shifted("old", on="n1"), pod("new", node="n2", created=NOW)
    assert choose(old, workload(old, new, pod("p2"), pod("p3")), setting()).way is Way.EVICT


def test_who_was_there_before_did_not_come_back() -> None:
    old, before = shifted("old", on="n1"), pod("p2", node="n1", created=NOW - timedelta(hours=1))
    assert choose(old, workload(old, before, pod("p3"), pod("new", node="n2", created=NOW)), setting()).way is Way.EVICT


def test_on_a_drained_node_nobody_comes_back() -> None:
    """What was bound there just before the cordon is moved in its turn."""
    old, new = pod("old", released=True, node="n1"), pod("new", node="n1", created=NOW)
    assert choose(old, workload(old, new, pod("p2"), pod("p3")), setting()).way is Way.EVICT


def test_a_pod_whose_replacement_came_back_stays_and_is_tried_ever_less_often() -> None:
    held = choose(THREE[0], workload(*THREE), setting(setback=setback(Trouble.CAME_BACK)))
    assert (held.way, held.cause) == (Way.HOLD, BlockerClass.REPLACEMENT_NOT_READY)
    old, new = shifted("old", on="n1"), pod("new", node="n1", created=NOW)
    again = choose(old, workload(old, new), setting(setback=setback(Trouble.CAME_BACK, attempts=2))).setback
    assert again is not None
    assert again.attempts == 3
    assert again.until == NOW + timedelta(minutes=20)


def test_without_room_one_of_an_owner_is_let_go_at_a_time() -> None:
    many = replace(DEPLOYMENT, replicas=8)
    released, others = pod("p1", released=True), tuple(pod(f"p{n}") for n in range(2, 9))
    assert choose(others[0], workload(released, *others, deployment=many), setting()).way is Way.RELEASE
    assert choose(others[0], workload(released, *others, deployment=many), setting(short="full")).way is Way.WAIT
    assert choose(others[0], workload(*others, deployment=many), setting(short="full")).way is Way.RELEASE


def test_who_cannot_be_let_go_and_has_no_room_is_held_at_once() -> None:
    lonely = replace(DEPLOYMENT, surges=False)
    found = choose(THREE[0], workload(*THREE, deployment=lonely), setting(short="full"))
    assert (found.way, found.cause, found.reason) == (Way.HOLD, BlockerClass.NO_ROOM_IN_POOL, "NoSurge")
    evict = setting(short="full", drain={"no_room": NoRoom.EVICT})
    assert choose(THREE[0], workload(*THREE, deployment=lonely), evict).way is Way.PLAIN


def test_who_is_kept_off_everywhere_by_other_pods_has_no_replacement_beside_it_and_goes_plainly() -> None:
    found = choose(THREE[0], workload(*THREE), setting(crowded="anti-affinity"))
    assert (found.way, found.reason) == (Way.PLAIN, "CannotBeHad")


def test_but_the_last_of_them_is_held() -> None:
    found = choose(THREE[0], workload(THREE[0]), setting(crowded="anti-affinity"))
    assert (found.way, found.cause) == (Way.HOLD, BlockerClass.REPLACEMENT_NOT_READY)


def test_while_a_replacement_is_pending_the_schedulers_words_are_passed_on() -> None:
    waiting = pod("new", ready=False, unschedulable="0/3 nodes are available")
    found = choose(pod("p1", released=True), workload(pod("p1", released=True), waiting, *THREE[1:2]), setting())
    assert (found.way, found.message) == (Way.WAIT, "0/3 nodes are available")


def test_what_only_a_plan_said_is_no_setback_after_a_restart() -> None:
    said = Blocker(
        namespace="s",
        pod="p1",
        class_=BlockerClass.NO_ROOM_IN_POOL,
        message="the plan finds no room for it elsewhere: x",
        since=NOW,
    )
    assert recall(said, Drain(), NOW) is None
    tried = said.model_copy(update={"message": "no node has room for its replacement: x"})
    found = recall(tried, Drain(), NOW)
    assert found is not None
    assert (found.trouble, found.message) == (Trouble.NO_ROOM, "x")
