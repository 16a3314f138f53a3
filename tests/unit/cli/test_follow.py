"""On a terminal the newest line takes the place of the one before; elsewhere there is a line for each change."""

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
    screen.warn("nobody is at work")
    screen.warn("nobody is at work")
    screen.finish()


def test_elsewhere_there_is_a_line_for_each_change(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown(monkeypatch, terminal=False)
    out, err = capsys.readouterr()
    assert out == "n1: 1/3 moved\nn1: 2/3 moved\n  db-0 cannot leave\nn1: Drained\n"
    assert err == "nobody is at work\n"


def test_on_a_terminal_progress_is_shown_in_place_and_blocked_pods_stay(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown(monkeypatch, terminal=True)
    clear = "\r\x1b[2K"
    out = capsys.readouterr().out
    assert out == f"{clear}n1: 1/3 moved{clear}n1: 2/3 moved\n  db-0 cannot leave\n{clear}n1: Drained\n"
