"""On a terminal a line replaces the line before it of the same stage. Otherwise each change is a line."""

import sys

import pytest

from rescheduler.cli.follow import Screen
from rescheduler.cli.progress import ProgressLine


def shown(monkeypatch: pytest.MonkeyPatch, *, terminal: bool) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    screen = Screen()
    for line in (
        ProgressLine("1/3 moved", "a"),
        ProgressLine("2/3 moved", "a"),
        ProgressLine("  db-0 cannot leave"),
        ProgressLine("Drained", "b"),
    ):
        screen.show("n1", line)
    screen.warn("no operator is running")
    screen.warn("no operator is running")
    screen.finish()


def test_without_a_terminal_each_change_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown(monkeypatch, terminal=False)
    out, err = capsys.readouterr()
    assert out == "n1: 1/3 moved\nn1: 2/3 moved\n  db-0 cannot leave\nn1: Drained\n"
    assert err == "no operator is running\n"


def test_on_a_terminal_progress_lines_replace_each_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown(monkeypatch, terminal=True)
    clear = "\r\x1b[2K"
    out = capsys.readouterr().out
    assert out == f"{clear}n1: 1/3 moved{clear}n1: 2/3 moved\n  db-0 cannot leave\n{clear}n1: Drained\n"
