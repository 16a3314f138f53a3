"""Without a terminal each change is a line, and with several drains each line names its node."""

import sys

import pytest

from rescheduler.cli.screens import LineScreen, open_screen
from unit.builders import raw_drain

BLOCKER = {"namespace": "shop", "pod": "db-0", "class": "BudgetExhausted", "message": "none", "hint": "wait"}


@pytest.mark.parametrize("several", [False, True])
def test_without_a_terminal_each_change_is_a_line(several: bool, capsys: pytest.CaptureFixture[str]) -> None:
    screen = LineScreen(several=several)
    found = raw_drain(status={"phase": "Draining", "blockers": [BLOCKER], "blockersTotal": 1})
    screen.show(found)
    screen.show(found)
    screen.remove("n")
    for _ in range(2):
        screen.warn("no operator is running")
    screen.clear_warning()
    screen.warn("no operator is running")
    out, err = capsys.readouterr()
    node = "n: " if several else ""
    assert out.splitlines() == [
        "n: Draining, 1 blocked",
        f"{node}  shop/db-0 cannot leave: BudgetExhausted: none",
        f"{node}    wait",
    ]
    assert err == "no operator is running\n" * 2


@pytest.mark.parametrize(("terminal", "term"), [(False, "xterm"), (True, "dumb"), (True, "")])
def test_without_a_cursor_there_are_lines(monkeypatch: pytest.MonkeyPatch, terminal: bool, term: str) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    monkeypatch.setenv("TERM", term)
    with open_screen(["n"]) as screen:
        assert isinstance(screen, LineScreen)
