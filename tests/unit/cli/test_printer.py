"""Formats of all commands, and tables on narrow terminals."""

import json

import pytest
import yaml

from rescheduler.cli import printer
from rescheduler.cli.printer import fit_columns, print_data, print_table

DATA = [{"metadata": {"name": "n1"}, "since": "2026-01-01", "on": "yes"}]
ROWS = [["NODE", "PHASE", "MOVED"], ["n1", "Blocked", "1/2"]]


@pytest.mark.parametrize(("output", "parse"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_data_is_printed_as_it_is(output: str, parse: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert print_data(DATA, [], output)
    assert callable(parse)
    assert parse(capsys.readouterr().out) == DATA


def test_names_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert print_data(DATA, ["node/n1", "node/\x1b[31m"], "name")
    assert capsys.readouterr().out == "node/n1\nnode/\ufffd[31m\n"


def test_other_formats_are_left_to_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert not print_data(DATA, [], "wide")
    assert capsys.readouterr().out == ""


def test_a_table_without_a_terminal_has_all_columns_and_no_colors(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(ROWS)
    assert capsys.readouterr().out == "NODE   PHASE     MOVED\nn1     Blocked   1/2\n"


@pytest.mark.parametrize(("no_color", "colored"), [("", True), ("1", False)])
def test_a_terminal_has_colors_unless_no_color_is_set(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], no_color: str, colored: bool
) -> None:
    monkeypatch.setattr(printer, "is_terminal", lambda: True)
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "80", "NO_COLOR": no_color}.items():
        monkeypatch.setenv(name, value)
    print_table(ROWS)
    out = capsys.readouterr().out
    assert ("\x1b[31mBlocked" in out) is colored
    assert "1/2" in out


@pytest.mark.parametrize(("width", "kept"), [(22, 3), (21, 2), (5, 2)])
def test_columns_that_do_not_fit_are_left_out(width: int, kept: int) -> None:
    assert [len(row) for row in fit_columns(ROWS, width)] == [kept, kept]
