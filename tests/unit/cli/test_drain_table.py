"""The table of drains: what it shows at each width, and what names of others cannot do."""

import io
from datetime import UTC, datetime
from typing import Any

from rich.console import Console

from rescheduler.cli.drain_table import DrainTable
from rescheduler.core.model.raw import RawObject
from unit.builders import raw_drain

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
BLOCKER = {
    "namespace": "shop",
    "pod": "db-0",
    "class": "BudgetExhausted",
    "message": "PDB db allows none",
    "since": "2026-01-01T11:58:30Z",
    "hint": "add a replica",
}


def shown(*drains: RawObject, width: int = 80, height: int = 40, color: bool = False, **more: Any) -> str:
    console = Console(
        file=io.StringIO(), width=width, height=height, force_terminal=color, markup=False, highlight=False
    )
    console.print(DrainTable(drains, NOW, **more))
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def drain(name: str, phase: str, reason: str = "", **status: Any) -> RawObject:
    conditions = [{"type": "Progressing", "reason": reason or phase, "message": "slots are taken by n1"}]
    found = raw_drain(status={"phase": phase, "conditions": conditions, **status})
    return {**found, "metadata": {**found["metadata"], "name": name}}


MOVING = drain("n1", "Blocked", pods={"moved": 6, "total": 12}, blockersTotal=1, blockers=[BLOCKER])
WAITING = drain("n2", "Waiting", "MaxConcurrent", estimatedCompletion="2026-01-01T12:03:20Z")


def test_a_wide_terminal_has_bars_blockers_and_times() -> None:
    lines = [line.rstrip() for line in shown(MOVING, WAITING).splitlines()]
    assert [line.split() for line in lines] == [
        ["NODE", "PHASE", "PODS", "MOVED", "BLOCKED", "TIME", "LEFT"],
        ["n1", "Blocked", "━" * 12 + "─" * 12, "6/12", "1"],
        ["n2", "Waiting", "─" * 24, "0", "3m20s"],
        [],
        ["n2:", "waits", "for", "0s:", "MaxConcurrent:", "slots", "are", "taken", "by", "n1"],
        ["n1:", "shop/db-0", "cannot", "leave:", "BudgetExhausted", "for", "1m30s:", "PDB", "db", "allows", "none"],
        ["add", "a", "replica"],
    ]


def test_a_narrow_terminal_keeps_each_number_and_breaks_sentences() -> None:
    text = shown(MOVING, WAITING, width=40)
    assert max(map(len, text.splitlines())) <= 40
    for word in ("n1", "Blocked", "6/12", "3m20s", "shop/db-0", "allows", "replica", "MaxConcurrent"):
        assert word in text


def test_withdrawn_drains_many_blockers_and_warnings_are_named() -> None:
    many = drain("n1", "Blocked", blockers=[BLOCKER] * 9, blockersTotal=70)
    text = shown(many, removed=["n3"], warning="no operator is running")
    assert text.count("db-0") == 5
    assert "65 more pods are blocked" in text
    assert "n3    withdrawn" in text
    assert text.splitlines()[-1].strip() == "no operator is running"


def test_a_low_terminal_shows_the_drains_that_need_care() -> None:
    drains = [drain(f"d{number}", "Drained") for number in range(30)]
    drains += [drain(f"w{number}", "Waiting", "MaxConcurrent") for number in range(9)]
    text = shown(*drains, MOVING, height=20)
    rows = [line.split()[0] for line in text.splitlines()[1:11]]
    assert rows == ["n1", *(f"w{number}" for number in range(9))]
    assert "not shown: 30 Drained" in text
    assert "w0, w1, w2, w3, w4, w5, w6, w7, w8: wait for" in text


def test_texts_of_others_control_neither_the_terminal_nor_the_style() -> None:
    evil = {**BLOCKER, "message": "\x1b]0;owned\x07 [red]x[/red]"}
    text = shown(drain("n1", "Blocked", blockers=[evil]), width=120, color=True)
    assert "\x1b]0" not in text
    assert "[red]x[/red]" in text


def test_no_color_has_no_escape_sequence_of_color() -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, no_color=True)
    console.print(DrainTable([MOVING], NOW))
    assert "\x1b[3" not in console.file.getvalue()  # type: ignore[attr-defined]
