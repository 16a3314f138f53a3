"""The summary of the pods of one drain."""

from dataclasses import replace
from datetime import timedelta

import pytest

from rescheduler.api import names
from rescheduler.api.drains import BlockerClass
from rescheduler.core.drain.pod_summary import EvictionAttempts, summarize, with_unreadable
from rescheduler.core.eviction.api_responses import EvictionOutcome, EvictionResult
from rescheduler.core.eviction.pod_actions import PodAction, PodDecision, RequiredProof
from rescheduler.core.model.release_record import ReleaseRecord
from unit.builders import NOW, pod


def test_only_the_lowest_order_is_next_and_low_priority_goes_first() -> None:
    rows = [
        (pod("a", priority=5), PodDecision(PodAction.EVICT)),
        (pod("b"), PodDecision(PodAction.EVICT)),
        (pod("c"), PodDecision(PodAction.EVICT, 1)),
    ]
    counted = summarize(rows, {}, {}, {}, NOW, unreachable=False)
    assert [p.name for p, _ in counted.next_pods] == ["b", "a"]
    assert (counted.existing, counted.remaining, counted.skipped) == (3, 3, 0)


def test_next_pods_of_equal_priority_keep_their_order() -> None:
    rows = [
        (pod(name, priority=priority), PodDecision(PodAction.EVICT))
        for name, priority in (("c", 5), ("b", 0), ("a", 0))
    ]
    counted = summarize(rows, {}, {}, {}, NOW, unreachable=False)
    assert [p.name for p, _ in counted.next_pods] == ["b", "a", "c"]


def test_a_blocked_pod_holds_later_groups_and_never_its_own() -> None:
    block = PodDecision(PodAction.BLOCK, 0, BlockerClass.UNMANAGED, "why", "how")
    rows = [(pod("a"), block), (pod("b"), PodDecision(PodAction.EVICT)), (pod("c"), PodDecision(PodAction.EVICT, 1))]
    counted = summarize(rows, {}, {}, {}, NOW, unreachable=False)
    assert [p.name for p, _ in counted.next_pods] == ["b"]
    assert [b.class_ for b in counted.blockers] == [BlockerClass.UNMANAGED]


def test_pods_that_stay_for_a_reason_are_named_and_no_pods_of_daemon_sets() -> None:
    skip = PodDecision(PodAction.SKIP)
    rows = [(pod("b"), replace(skip, message="why")), (pod("a"), replace(skip, message="other")), (pod("d"), skip)]
    counted = summarize(rows, {}, {}, {}, NOW, unreachable=False)
    assert (counted.skipped, counted.existing) == (3, 0)
    assert [(p.name, reason) for p, reason in counted.staying] == [("a", "other"), ("b", "why")]


def test_on_an_unreachable_node_a_terminating_pod_counts_as_moved() -> None:
    rows = [(pod("a"), PodDecision(PodAction.WAIT_TERMINATING)), (pod("b"), PodDecision(PodAction.DELETE, 1))]
    counted = summarize(rows, {}, {}, {}, NOW, unreachable=True)
    assert (counted.existing, counted.remaining) == (2, 1)
    assert [p.name for p, _ in counted.next_pods] == ["b"]


WAITS = PodDecision(PodAction.WAIT_TERMINATING, 0, BlockerClass.WAITING_FOR_PROOF, "why", "how")
PROVEN = PodDecision(PodAction.DELETE, 0, required_proof=RequiredProof.BOOT_DEAD)


def test_terminating_pod_that_waits_for_proof_does_not_count_as_moved() -> None:
    counted = summarize(
        [(pod("a"), WAITS), (pod("b"), PodDecision(PodAction.DELETE, 1))], {}, {}, {}, NOW, unreachable=True
    )
    assert (counted.existing, counted.remaining, counted.waiting_for_proof) == (2, 2, 1)
    assert not counted.next_pods
    assert [b.class_ for b in counted.blockers] == [BlockerClass.WAITING_FOR_PROOF]
    assert counted.in_flight == 0


def test_groups_on_a_dead_node_leave_in_order_though_old_objects_stay() -> None:
    first, later = PodDecision(PodAction.DELETE), PodDecision(PodAction.DELETE, 7)
    before = summarize([(pod("a"), first), (pod("b"), later)], {}, {}, {}, NOW, unreachable=True)
    assert [p.name for p, _ in before.next_pods] == ["a"]
    after = summarize(
        [(pod("a"), PodDecision(PodAction.WAIT_TERMINATING)), (pod("b"), later)], {}, {}, {}, NOW, unreachable=True
    )
    assert [p.name for p, _ in after.next_pods] == ["b"]


def test_summary_counts_pods_that_leave_by_proof_and_are_not_sent_yet() -> None:
    rows = [
        (pod("a"), PROVEN),
        (pod("b"), PodDecision(PodAction.WAIT_TERMINATING, required_proof=RequiredProof.BOOT_DEAD)),
        (pod("c"), PROVEN),
    ]
    refused = EvictionAttempts(None, EvictionResult(EvictionOutcome.REFUSED, BlockerClass.ADMISSION_DENIED, "no"), 1)
    counted = summarize(rows, {"c": refused}, {}, {}, NOW, unreachable=True)
    assert (counted.proven, counted.proven_unsent, [p.name for p in counted.proven_terminating]) == (3, 1, ["b"])
    accepted = summarize(rows, {"a": EvictionAttempts(accepted_at=NOW), "c": refused}, {}, {}, NOW, unreachable=True)
    assert accepted.proven_unsent == 1  # until it is seen to be Terminating


def test_an_object_that_only_a_finalizer_keeps_on_a_dead_node_is_named() -> None:
    stuck = PodDecision(PodAction.WAIT_TERMINATING, 0, BlockerClass.STUCK_TERMINATING, "finalizers", "ask")
    rows = [(replace(pod("a"), phase="Failed"), stuck), (pod("b"), stuck)]
    counted = summarize(rows, {}, {}, {}, NOW, unreachable=True)
    assert [b.pod for b in counted.blockers] == ["a"]
    assert (counted.existing, counted.remaining) == (2, 0)


def test_a_retry_is_named_only_after_some_in_a_row_and_a_refusal_at_once() -> None:
    rows = [(pod("a"), PodDecision(PodAction.EVICT))]
    retry = EvictionResult(EvictionOutcome.RETRY, BlockerClass.THROTTLED, "busy")
    refused = EvictionResult(EvictionOutcome.REFUSED, BlockerClass.ADMISSION_DENIED, "no")
    assert not summarize(rows, {"a": EvictionAttempts(None, retry, 1)}, {}, {}, NOW, unreachable=False).blockers
    assert summarize(rows, {"a": EvictionAttempts(None, retry, 3)}, {}, {}, NOW, unreachable=False).blockers
    assert summarize(rows, {"a": EvictionAttempts(None, refused, 1)}, {}, {}, NOW, unreachable=False).blockers


def test_a_slow_retry_is_named_after_ten_seconds_though_it_is_the_first() -> None:
    rows = [(pod("a"), PodDecision(PodAction.EVICT))]
    retry = EvictionResult(EvictionOutcome.RETRY, BlockerClass.THROTTLED, "no answer")
    for seconds, named in ((9, 0), (10, 1)):
        attempt = EvictionAttempts(None, retry, 1, NOW - timedelta(seconds=seconds))
        assert len(summarize(rows, {"a": attempt}, {}, {}, NOW, unreachable=False).blockers) == named


def test_eviction_without_effect_counts_for_15_s_and_the_next_one_does_not() -> None:
    rows = [(pod("a"), PodDecision(PodAction.EVICT))]
    vain = EvictionResult(EvictionOutcome.REFUSED, BlockerClass.DELEGATED, "not Terminating")
    for accepted, answer, flies, named in ((14, None, 1, 0), (15, None, 0, 0), (1, vain, 0, 1), (20, vain, 0, 1)):
        attempt = EvictionAttempts(NOW - timedelta(seconds=accepted), answer, 1, NOW)
        counted = summarize(rows, {"a": attempt}, {}, {}, NOW, unreachable=False)
        assert (counted.in_flight, len(counted.blockers)) == (flies, named)


@pytest.mark.parametrize(
    ("foreseen", "answered", "named"),
    [
        # A webhook that has the pod, or a policy that keeps it, is what holds it: not the budget that has no room.
        (BlockerClass.BUDGET_EXHAUSTED, BlockerClass.DELEGATED, BlockerClass.DELEGATED),
        (BlockerClass.SEVERAL_BUDGETS, BlockerClass.ADMISSION_DENIED, BlockerClass.ADMISSION_DENIED),
        (BlockerClass.BUDGET_MISCONFIGURED, BlockerClass.BUDGET_EXHAUSTED, BlockerClass.BUDGET_MISCONFIGURED),
        (BlockerClass.REPLACEMENT_NOT_READY, BlockerClass.DELEGATED, BlockerClass.REPLACEMENT_NOT_READY),
        (None, BlockerClass.DELEGATED, BlockerClass.DELEGATED),
        # A budget that refused one eviction a moment ago is named once it lasts.
        (None, BlockerClass.BUDGET_EXHAUSTED, None),
    ],
)
def test_what_holds_a_pod_is_what_was_answered_of_it(
    foreseen: BlockerClass | None, answered: BlockerClass, named: BlockerClass | None
) -> None:
    rows = [(pod("a"), PodDecision(PodAction.EVICT))]
    refusals = {"a": EvictionResult(EvictionOutcome.REFUSED, foreseen, "watch")} if foreseen else {}
    attempt = EvictionAttempts(None, EvictionResult(EvictionOutcome.REFUSED, answered, "server"), 1, NOW)
    found = summarize(rows, {"a": attempt}, refusals, {}, NOW, unreachable=False).blockers
    assert [b.class_ for b in found] == ([named] if named else [])


def test_a_known_blocker_keeps_its_since() -> None:
    rows = [(pod("a"), PodDecision(PodAction.EVICT))]
    refusal = {"a": EvictionResult(EvictionOutcome.REFUSED, BlockerClass.BUDGET_EXHAUSTED, "none")}
    earlier = NOW.replace(year=2025)
    known = {("s", "a", "BudgetExhausted"): earlier}
    assert summarize(rows, {}, refusal, known, NOW, unreachable=False).blockers[0].since == earlier


def test_at_its_deadline_a_pod_does_not_wait_for_a_lower_order() -> None:
    late, blocked = PodDecision(PodAction.DELETE, 9, grace_seconds=1, forced=True), PodDecision(PodAction.EVICT, 0)
    counted = summarize(
        [(pod("a"), blocked), (pod("b"), late), (pod("c"), PodDecision(PodAction.DELETE, 9))],
        {},
        {},
        {},
        NOW,
        unreachable=False,
    )
    assert [p.name for p, _ in counted.next_pods] == ["a", "b"]


@pytest.mark.parametrize(
    ("verdict", "attempt", "released", "flies"),
    [
        (PodDecision(PodAction.WAIT_TERMINATING), None, None, True),
        (PodDecision(PodAction.WAIT_TERMINATING, 0, BlockerClass.STUCK_TERMINATING), None, None, False),
        (
            PodDecision(PodAction.WAIT_TERMINATING, 0, BlockerClass.STUCK_TERMINATING),
            EvictionAttempts(accepted_at=NOW),
            None,
            False,
        ),
        (PodDecision(PodAction.EVICT), EvictionAttempts(accepted_at=NOW), None, True),
        (PodDecision(PodAction.EVICT), None, 4, True),
        (PodDecision(PodAction.EVICT), None, 5, False),
        (PodDecision(PodAction.EVICT), None, None, False),
    ],
)
def test_stuck_pods_and_pods_released_long_ago_are_not_in_flight(
    verdict: PodDecision, attempt: EvictionAttempts | None, released: int | None, flies: bool
) -> None:
    some = pod("a")
    if released is not None:
        move = ReleaseRecord("NodeDrain/n", None, 1, NOW - timedelta(minutes=released), 1, "d", "du", "r", "ru")
        some = replace(some, release_record=move, released=True)
    attempts = {"a": attempt} if attempt else {}
    assert summarize([(some, verdict)], attempts, {}, {}, NOW, unreachable=False).in_flight == flies


def test_pods_that_cannot_be_read_are_there_and_block() -> None:
    counted = summarize([(pod("a"), PodDecision(PodAction.EVICT))], {}, {}, {}, NOW, unreachable=False)
    before = NOW - timedelta(minutes=5)
    since = {("s", "bad", "Unreadable"): before}
    found = with_unreadable(counted, {"s/bad": "OverflowError: inf", "s/new": "KeyError: 'x'"}, since, NOW)
    assert (found.existing, found.remaining, len(found.leaving_uids)) == (3, 3, 1)
    assert [(b.namespace, b.pod, b.class_, b.since) for b in found.blockers] == [
        ("s", "bad", BlockerClass.UNREADABLE, before),
        ("s", "new", BlockerClass.UNREADABLE, NOW),
    ]
    assert "OverflowError" in found.blockers[0].message
    assert found.next_pods == counted.next_pods


def test_pods_that_leave_despite_an_opt_out_are_named() -> None:
    wishes = {names.KARPENTER_DO_NOT_DISRUPT: "true", names.PREFER_NO_EVICTION: ""}
    block = PodDecision(PodAction.BLOCK, 0, BlockerClass.DO_NOT_DISRUPT, "why", "how")
    rows = [
        (pod("b", annotations={names.SAFE_TO_EVICT: "false"}), PodDecision(PodAction.DELETE)),
        (pod("a", annotations=wishes), PodDecision(PodAction.EVICT)),
        (pod("blocked", annotations=wishes), block),
        (pod("going", annotations=wishes), PodDecision(PodAction.WAIT_TERMINATING)),
        (pod("skipped", annotations=wishes), PodDecision(PodAction.SKIP)),
        (pod("plain"), PodDecision(PodAction.EVICT)),
    ]
    counted = summarize(rows, {}, {}, {}, NOW, unreachable=False)
    assert [(row.pod, row.annotations) for row in counted.opted_out] == [
        ("a", (names.KARPENTER_DO_NOT_DISRUPT, names.PREFER_NO_EVICTION)),
        ("b", (names.SAFE_TO_EVICT,)),
    ]
