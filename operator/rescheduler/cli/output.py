"""Columns and times for people."""

from collections.abc import Sequence
from datetime import timedelta


def printable(text: str) -> str:
    """Return text without characters that steer a terminal: annotations, and what answers quote of them, may hold any."""
    return "".join(each if each.isprintable() else "\ufffd" for each in text)


def format_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines, with the cells of one column under each other."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def format_span(length: timedelta) -> str:
    """Such as 1h2m3s; 0s where there is nothing."""
    minutes, seconds = divmod(round(length.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "m"), (seconds, "s"))
    return "".join(f"{value}{unit}" for value, unit in parts if value) or "0s"
