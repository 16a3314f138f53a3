"""Counting and sorting the pods of one drain."""

from datetime import UTC, datetime

from rescheduler.api.drains import BlockerClass
from rescheduler.core.answers import Answer, Outcome
from rescheduler.core.pods import Pod
from rescheduler.core.tallies import Attempt, tally
from rescheduler.core.verdicts import Fate, Verdict

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


def test_a_retry_is_named_only_after_some_in_a_row_and_a_refusal_at_once() -> None:
    rows = [(pod("a"), Verdict(Fate.EVICT))]
    retry = Answer(Outcome.RETRY, BlockerClass.THROTTLED, "busy")
    refused = Answer(Outcome.REFUSED, BlockerClass.ADMISSION_DENIED, "no")
    assert not tally(rows, {"a": Attempt(None, retry, 1)}, {}, {}, NOW, unreachable=False).blockers
    assert tally(rows, {"a": Attempt(None, retry, 3)}, {}, {}, NOW, unreachable=False).blockers
    assert tally(rows, {"a": Attempt(None, refused, 1)}, {}, {}, NOW, unreachable=False).blockers


def test_a_known_blocker_keeps_its_since() -> None:
    rows = [(pod("a"), Verdict(Fate.EVICT))]
    refusal = {"a": Answer(Outcome.REFUSED, BlockerClass.BUDGET_EXHAUSTED, "none")}
    earlier = NOW.replace(year=2025)
    known = {("s", "a", "BudgetExhausted"): earlier}
    assert tally(rows, {}, refusal, known, NOW, unreachable=False).blockers[0].since == earlier
