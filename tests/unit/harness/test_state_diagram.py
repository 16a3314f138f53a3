"""The page of the state machine follows the table."""

from harness import state_diagram
from rescheduler.core.drain.state_machine import Command, Fact


def test_page_is_current() -> None:
    page = state_diagram.PAGE.read_text(encoding="utf-8")
    assert state_diagram.render(page) == page


def test_tables_name_every_fact_and_command() -> None:
    tables = state_diagram.tables()
    assert all(f"| `{value}` | " in tables for value in (*Fact, *Command))
