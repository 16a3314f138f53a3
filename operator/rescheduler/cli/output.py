"""Format text, tables and times, for a terminal or for a file."""

import os
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

PHASE_STYLES = {"Draining": "cyan", "Blocked": "red", "Waiting": "yellow", "Drained": "green", "Restoring": "blue"}
"""Colors of phases on a terminal."""


def is_terminal() -> bool:
    """Whether stdout is a terminal that can move its cursor."""
    return sys.stdout.isatty() and os.environ.get("TERM") not in (None, "", "dumb")


def console() -> "Console":
    """Return the terminal. It has no colors with NO_COLOR, and reads no markup in the names of others."""
    # Imported late: without a terminal nothing needs it.
    from rich.console import Console  # noqa: PLC0415

    return Console(markup=False, highlight=False, emoji=False)


def printable(text: str) -> str:
    """Return text without control characters, because annotations of others could control the terminal."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def format_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of cells as lines with aligned columns."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def format_span(length: timedelta) -> str:
    """Return a time span such as 1h2m3s; 0s for less than a second."""
    minutes, seconds = divmod(round(length.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "m"), (seconds, "s"))
    return "".join(f"{value}{unit}" for value, unit in parts if value) or "0s"
