"""Counting and sorting the pods of one drain."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from rescheduler.api.drains import BlockerClass
from rescheduler.core.drain.pod_summary import Attempt, tally, with_unreadable
from rescheduler.core.eviction.api_responses import Answer, Outcome
from rescheduler.core.eviction.pod_actions import Fate, Premise, Verdict
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.release_record import Move

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def pod(name: str, priority: int = 0) -> Pod:
    return Pod("s", name, name, priority=priority)


def test_only_the_lowest_order_is_next_and_low_priority_goes_first() -> None:
    rows = [(pod("a", 5), Verdict(Fate.EVICT)), (pod("b"), Verdict(Fate.EVICT)), (pod("c"), Verdict(Fate.EVICT, 1))]
    counted = tally(rows, {}, {}, {}, NOW, unreachable=False)
    assert [p.name for p, _ in counted.next] == ["b", "a"]
    assert (counted.objects, counted.remaining, counted.skipped) == (3, 3, 0)


def test_a_blocked_pod_holds_later_groups_and_never_its_own() -> None:
    block = Verdict(Fate.BLOCK, 0, BlockerClass.UNMANAGED, "why", "how")
    rows = [(pod("a"), block), (pod("b"), Verdict(Fate.EVICT)), (pod("c"), Verdict(Fate.EVICT, 1))]
    counted = tally(rows, {}, {}, {}, NOW, unreachable=False)
    assert [p.name for p, _ in counted.next] == ["b"]
    assert [b.class_ for b in counted.blockers] == [BlockerClass.UNMANAGED]


def test_on_an_unreachable_node_a_terminating_pod_counts_as_moved() -> None:
    rows = [(pod("a"), Verdict(Fate.LEAVING)), (pod("b"), Verdict(Fate.DELETE, 1))]
    counted = tally(rows, {}, {}, {}, NOW, unreachable=True)
    assert (counted.objects, counted.remaining) == (2, 1)
    assert [p.name for p, _ in counted.next] == ["b"]


WAITS = Verdict(Fate.LEAVING, 0, BlockerClass.WAITING_FOR_PROOF, "why", "how")
PROVEN = Verdict(Fate.DELETE, 0, premise=Premise.DEAD)


def test_one_that_waits_for_proof_is_not_gone_though_it_is_terminating() -> None:
    counted = tally([(pod("a"), WAITS), (pod("b"), Verdict(Fate.DELETE, 1))], {}, {}, {}, NOW, unreachable=True)
    assert (counted.objects, counted.remaining, counted.unproven) == (2, 2, 1)
    assert not counted.next
    assert [b.class_ for b in counted.blockers] == [BlockerClass.WAITING_FOR_PROOF]
    assert counted.in_flight == 0


def test_two_groups_on_a_dead_node_go_one_after_the_other_though_the_old_objects_stay() -> None:
    first, later = Verdict(Fate.DELETE), Verdict(Fate.DELETE, 7)
    before = tally([(pod("a"), first), (pod("b"), later)], {}, {}, {}, NOW, unreachable=True)
    assert [p.name for p, _ in before.next] == ["a"]
    after = tally([(pod("a"), Verdict(Fate.LEAVING)), (pod("b"), later)], {}, {}, {}, NOW, unreachable=True)
    assert [p.name for p, _ in after.next] == ["b"]


def test_it_knows_whether_all_that_goes_by_proof_has_been_sent() -> None:
    rows = [(pod("a"), PROVEN), (pod("b"), Verdict(Fate.LEAVING, premise=Premise.DEAD)), (pod("c"), PROVEN)]
    refused = Attempt(None, Answer(Outcome.REFUSED, BlockerClass.ADMISSION_DENIED, "no"), 1)
    counted = tally(rows, {"c": refused}, {}, {}, NOW, unreachable=True)
    assert (counted.proven, counted.unsent, [p.name for p in counted.lost]) == (3, 1, ["b"])
    accepted = tally(rows, {"a": Attempt(accepted=NOW), "c": refused}, {}, {}, NOW, unreachable=True)
    assert accepted.unsent == 1  # until it is seen to be Terminating


def test_an_object_that_only_a_finalizer_keeps_on_a_dead_node_is_named() -> None:
    stuck = Verdict(Fate.LEAVING, 0, BlockerClass.STUCK_TERMINATING, "finalizers", "ask")
    rows = [(replace(pod("a"), phase="Failed"), stuck), (pod("b"), stuck)]
    counted = tally(rows, {}, {}, {}, NOW, unreachable=True)
    assert [b.pod for b in counted.blockers] == ["a"]
    assert (counted.objects, counted.remaining) == (2, 0)


def test_a_retry_is_named_only_after_some_in_a_row_and_a_refusal_at_once() -> None:
    rows = [(pod("a"), Verdict(Fate.EVICT))]
    retry = Answer(Outcome.RETRY, BlockerClass.THROTTLED, "busy")
    refused = Answer(Outcome.REFUSED, BlockerClass.ADMISSION_DENIED, "no")
    assert not tally(rows, {"a": Attempt(None, retry, 1)}, {}, {}, NOW, unreachable=False).blockers
    assert tally(rows, {"a": Attempt(None, retry, 3)}, {}, {}, NOW, unreachable=False).blockers
    assert tally(rows, {"a": Attempt(None, refused, 1)}, {}, {}, NOW, unreachable=False).blockers


def test_a_slow_retry_is_named_after_ten_seconds_though_it_is_the_first() -> None:
    rows = [(pod("a"), Verdict(Fate.EVICT))]
    retry = Answer(Outcome.RETRY, BlockerClass.THROTTLED, "no answer")
    for seconds, named in ((9, 0), (10, 1)):
        attempt = Attempt(None, retry, 1, NOW - timedelta(seconds=seconds))
        assert len(tally(rows, {"a": attempt}, {}, {}, NOW, unreachable=False).blockers) == named


def test_an_eviction_without_effect_is_on_its_way_for_15_s_and_one_more_is_not_believed() -> None:
    rows = [(pod("a"), Verdict(Fate.EVICT))]
    vain = Answer(Outcome.REFUSED, BlockerClass.DELEGATED, "not Terminating")
    for accepted, answer, flies, named in ((14, None, 1, 0), (15, None, 0, 0), (1, vain, 0, 1), (20, vain, 0, 1)):
        attempt = Attempt(NOW - timedelta(seconds=accepted), answer, 1, NOW)
        counted = tally(rows, {"a": attempt}, {}, {}, NOW, unreachable=False)
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
    rows = [(pod("a"), Verdict(Fate.EVICT))]
    refusals = {"a": Answer(Outcome.REFUSED, foreseen, "watch")} if foreseen else {}
    attempt = Attempt(None, Answer(Outcome.REFUSED, answered, "server"), 1, NOW)
    found = tally(rows, {"a": attempt}, refusals, {}, NOW, unreachable=False).blockers
    assert [b.class_ for b in found] == ([named] if named else [])


def test_a_known_blocker_keeps_its_since() -> None:
    rows = [(pod("a"), Verdict(Fate.EVICT))]
    refusal = {"a": Answer(Outcome.REFUSED, BlockerClass.BUDGET_EXHAUSTED, "none")}
    earlier = NOW.replace(year=2025)
    known = {("s", "a", "BudgetExhausted"): earlier}
    assert tally(rows, {}, refusal, known, NOW, unreachable=False).blockers[0].since == earlier


def test_at_its_deadline_a_pod_does_not_wait_for_a_lower_order() -> None:
    late, blocked = Verdict(Fate.DELETE, 9, grace=1, forced=True), Verdict(Fate.EVICT, 0)
    counted = tally(
        [(pod("a"), blocked), (pod("b"), late), (pod("c"), Verdict(Fate.DELETE, 9))], {}, {}, {}, NOW, unreachable=False
    )
    assert [p.name for p, _ in counted.next] == ["a", "b"]


@pytest.mark.parametrize(
    ("verdict", "attempt", "released", "flies"),
    [
        (Verdict(Fate.LEAVING), None, None, True),
        (Verdict(Fate.LEAVING, 0, BlockerClass.STUCK_TERMINATING), None, None, False),
        (Verdict(Fate.LEAVING, 0, BlockerClass.STUCK_TERMINATING), Attempt(accepted=NOW), None, False),
        (Verdict(Fate.EVICT), Attempt(accepted=NOW), None, True),
        (Verdict(Fate.EVICT), None, 4, True),
        (Verdict(Fate.EVICT), None, 5, False),
        (Verdict(Fate.EVICT), None, None, False),
    ],
)
def test_what_is_stuck_or_was_let_go_long_ago_is_not_in_flight(
    verdict: Verdict, attempt: Attempt | None, released: int | None, flies: bool
) -> None:
    some = pod("a")
    if released is not None:
        move = Move("NodeDrain/n", None, 1, NOW - timedelta(minutes=released), 1, "d", "du", "r", "ru")
        some = replace(some, move=move, released=True)
    attempts = {"a": attempt} if attempt else {}
    assert tally([(some, verdict)], attempts, {}, {}, NOW, unreachable=False).in_flight == flies


def test_pods_that_cannot_be_read_are_there_and_block() -> None:
    counted = tally([(pod("a"), Verdict(Fate.EVICT))], {}, {}, {}, NOW, unreachable=False)
    before = NOW - timedelta(minutes=5)
    since = {("s", "bad", "Unreadable"): before}
    found = with_unreadable(counted, {"s/bad": "OverflowError: inf", "s/new": "KeyError: 'x'"}, since, NOW)
    assert (found.objects, found.remaining, len(found.leaving)) == (3, 3, 1)
    assert [(b.namespace, b.pod, b.class_, b.since) for b in found.blockers] == [
        ("s", "bad", BlockerClass.UNREADABLE, before),
        ("s", "new", BlockerClass.UNREADABLE, NOW),
    ]
    assert "OverflowError" in found.blockers[0].message
    assert found.next == counted.next
