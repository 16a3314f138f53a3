"""What `kubectl reschedule drain` says while a drain goes on."""

from datetime import UTC, datetime
from typing import Any

from rescheduler.cli.output import format_table
from rescheduler.cli.progress import DrainProgress, ProgressLine, format_requests, is_drained, is_unobserved

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
BLOCKER = {"namespace": "shop", "pod": "db-0", "class": "BudgetExhausted", "message": "pdb db allows none", "hint": "?"}


def drain(
    phase: str = "", *, observed: int = 1, progressing: tuple[str, str] = ("", ""), **status: Any
) -> dict[str, Any]:
    reason, message = progressing
    conditions = [{"type": "Progressing", "reason": reason or phase, "message": message}]
    found = {"phase": phase, "observedGeneration": observed, "conditions": conditions, **status} if phase else {}
    requests = [{"reason": "Manual", "message": "swap disk"}, {"reason": "Failure"}]
    return {"metadata": {"generation": 1}, "spec": {"requests": requests}, "status": found}


def said(tidings: DrainProgress, found: dict[str, Any]) -> list[str]:
    return [line.text for line in tidings.new_lines(found, NOW)]


def test_each_change_is_said_once() -> None:
    tidings = DrainProgress()
    begun = {"startedAt": "2026-01-01T11:59:00Z"}
    assert said(tidings, drain()) == ["waits for the operator"]
    assert said(tidings, drain("Draining", progress="0/3", **begun)) == ["Draining, 0/3 moved"]
    assert said(tidings, drain("Draining", progress="0/3", **begun)) == []
    assert said(tidings, drain("Draining", progress="1/3", **begun)) == ["Draining, 1/3 moved"]
    assert said(tidings, drain("Drained", progress="3/3", **begun)) == ["Drained, 3/3 moved"]


def test_an_estimate_is_said_and_is_no_change_by_itself() -> None:
    tidings = DrainProgress()
    assert said(tidings, drain("Draining", estimatedCompletion="2026-01-01T12:01:05Z")) == ["Draining, about 1m5s left"]
    assert said(tidings, drain("Draining", estimatedCompletion="2026-01-01T12:01:00Z")) == []
    assert said(tidings, drain("Blocked", estimatedCompletion="2026-01-01T11:59:00Z")) == ["Blocked"]


def test_why_it_waits_is_said() -> None:
    found = drain("Waiting", progressing=("NoPolicy", "no ReschedulePolicy selects the node"))
    assert said(DrainProgress(), found) == ["Waiting (NoPolicy: no ReschedulePolicy selects the node)"]


def test_each_blocked_pod_is_named_once_with_what_would_help() -> None:
    tidings = DrainProgress()
    assert said(tidings, drain("Draining", blockers=[BLOCKER], blockersTotal=1)) == [
        "Draining, 1 blocked",
        "  shop/db-0 cannot leave: BudgetExhausted: pdb db allows none",
        "    ?",
    ]
    assert said(tidings, drain("Draining")) == ["Draining"]
    assert said(tidings, drain("Draining", blockers=[BLOCKER], blockersTotal=1)) == ["Draining, 1 blocked"]


def test_lines_of_one_stage_may_replace_each_other_and_blocked_pods_stay() -> None:
    one, *blocked = DrainProgress().new_lines(drain("Draining", blockers=[BLOCKER], blockersTotal=1), NOW)
    assert one == ProgressLine("Draining, 1 blocked", "Draining")
    assert {line.stage for line in blocked} == {""}


def test_it_is_done_when_the_operator_has_seen_the_request_and_nobody_withdraws_it() -> None:
    assert is_drained(drain("Drained"))
    assert not is_drained(drain("Drained", observed=0))
    assert is_unobserved(drain("Drained", observed=0))
    withdrawn = drain("Drained")
    withdrawn["metadata"]["deletionTimestamp"] = "2026-01-01T12:00:00Z"
    assert not is_drained(withdrawn)
    assert said(DrainProgress(), withdrawn) == ["withdrawn, the node is being put back"]


def test_all_requests_are_named() -> None:
    assert format_requests(drain()) == "Manual (swap disk), Failure"


def test_what_others_wrote_steers_no_terminal() -> None:
    escape = "swap\x1b]0;owned\x07\n\u202edisk"
    found = drain() | {"spec": {"requests": [{"reason": "Maintenance", "message": escape}]}}
    assert format_requests(found) == "Maintenance (swap\ufffd]0;owned\ufffd\ufffd\ufffddisk)"
    assert format_table([["pod", escape]]) == ["pod   swap\ufffd]0;owned\ufffd\ufffd\ufffddisk"]
