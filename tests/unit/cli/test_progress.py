"""Lines that `kubectl reschedule drain` prints during a drain."""

from datetime import UTC, datetime
from typing import Any

from rescheduler.cli.output import format_table
from rescheduler.cli.progress import (
    DrainProgress,
    ProgressLine,
    format_requests,
    is_drained,
    is_unobserved,
    waiting_lines,
)
from rescheduler.core.model.raw import RawObject
from unit.builders import raw_drain

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
BLOCKER = {"namespace": "shop", "pod": "db-0", "class": "BudgetExhausted", "message": "pdb db allows none", "hint": "?"}


def drain_in_phase(
    phase: str = "", *, observed: int = 1, progressing: tuple[str, str] = ("", ""), **status: Any
) -> RawObject:
    reason, message = progressing
    conditions = [{"type": "Progressing", "reason": reason or phase, "message": message}]
    found = {"phase": phase, "observedGeneration": observed, "conditions": conditions, **status} if phase else {}
    requests = [{"reason": "Manual", "message": "swap disk"}, {"reason": "Failure"}]
    return raw_drain(requests=requests, status=found)


def texts(progress: DrainProgress, found: RawObject) -> list[str]:
    return [line.text for line in progress.new_lines(found, NOW)]


def test_each_change_is_printed_once() -> None:
    progress = DrainProgress()
    begun: dict[str, Any] = {"startedAt": "2026-01-01T11:59:00Z"}
    assert texts(progress, drain_in_phase()) == ["waiting for the operator"]
    assert texts(progress, drain_in_phase("Draining", progress="0/3", **begun)) == ["Draining, 0/3 moved"]
    assert texts(progress, drain_in_phase("Draining", progress="0/3", **begun)) == []
    assert texts(progress, drain_in_phase("Draining", progress="1/3", **begun)) == ["Draining, 1/3 moved"]
    assert texts(progress, drain_in_phase("Drained", progress="3/3", **begun)) == ["Drained, 3/3 moved"]


def test_an_estimate_is_printed_but_is_no_change_by_itself() -> None:
    progress = DrainProgress()
    assert texts(progress, drain_in_phase("Draining", estimatedCompletion="2026-01-01T12:01:05Z")) == [
        "Draining, about 1m5s left"
    ]
    assert texts(progress, drain_in_phase("Draining", estimatedCompletion="2026-01-01T12:01:00Z")) == []
    assert texts(progress, drain_in_phase("Blocked", estimatedCompletion="2026-01-01T11:59:00Z")) == ["Blocked"]


def test_a_waiting_drain_is_printed_with_its_reason() -> None:
    found = drain_in_phase("Waiting", progressing=("NoPolicy", "no ReschedulePolicy selects the node"))
    assert texts(DrainProgress(), found) == ["Waiting (NoPolicy: no ReschedulePolicy selects the node)"]


def test_each_blocked_pod_is_printed_once_with_its_hint() -> None:
    progress = DrainProgress()
    assert texts(progress, drain_in_phase("Draining", blockers=[BLOCKER], blockersTotal=1)) == [
        "Draining, 1 blocked",
        "  shop/db-0 cannot leave: BudgetExhausted: pdb db allows none",
        "    ?",
    ]
    assert texts(progress, drain_in_phase("Draining")) == ["Draining"]
    assert texts(progress, drain_in_phase("Draining", blockers=[BLOCKER], blockersTotal=1)) == ["Draining, 1 blocked"]


def test_blocked_pods_are_details_of_the_line_before() -> None:
    one, *blocked = DrainProgress().new_lines(drain_in_phase("Draining", blockers=[BLOCKER], blockersTotal=1), NOW)
    assert one == ProgressLine("Draining, 1 blocked")
    assert [line.detail for line in blocked] == [True, True]


def test_a_drain_is_drained_if_observed_and_not_withdrawn() -> None:
    assert is_drained(drain_in_phase("Drained"))
    assert not is_drained(drain_in_phase("Drained", observed=0))
    assert is_unobserved(drain_in_phase("Drained", observed=0))
    withdrawn = drain_in_phase("Drained")
    withdrawn["metadata"]["deletionTimestamp"] = "2026-01-01T12:00:00Z"
    assert not is_drained(withdrawn)
    assert texts(DrainProgress(), withdrawn) == ["withdrawn, the node is being restored"]


def test_all_requests_are_named() -> None:
    assert format_requests(drain_in_phase()) == "Manual (swap disk), Failure"


def test_control_characters_are_replaced() -> None:
    escape = "swap\x1b]0;owned\x07\n\u202edisk"
    found = raw_drain(requests=[{"reason": "Maintenance", "message": escape}])
    assert format_requests(found) == "Maintenance (swap\ufffd]0;owned\ufffd\ufffd\ufffddisk)"
    assert format_table([["pod", escape]]) == ["pod   swap\ufffd]0;owned\ufffd\ufffd\ufffddisk"]


def test_pods_that_only_their_node_can_have_are_counted_and_named() -> None:
    waiting = drain_in_phase("Drained", pods={"waitsForNode": 2}, waitsForNode=["rook/osd-1", "rook/osd-2"])
    assert texts(DrainProgress(), waiting) == ["Drained, 2 wait for the node"]
    assert waiting_lines([waiting, drain_in_phase("Drained"), drain_in_phase()]) == [
        "n: 2 pods can run on this node only, and their new pods wait for the node: rook/osd-1, rook/osd-2"
    ]
