"""The live table leaves its last state on the terminal."""

import io

import pytest
from rich.console import Console

from rescheduler.cli import live_screen
from rescheduler.cli.live_screen import LiveScreen
from unit.builders import raw_drain


def test_the_last_state_stays_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(live_screen, "console", lambda: Console(file=file, width=80, force_terminal=True))
    with LiveScreen(["n", "m"]) as screen:
        screen.warn("no operator is running")
        screen.show(raw_drain(status={"phase": "Drained", "pods": {"moved": 3, "total": 3}}))
        screen.remove("m")
    last = file.getvalue().split("\r")[-1]
    assert "Drained" in last
    assert "3/3" in last
    assert "withdrawn" in last
    assert "no operator" not in last
