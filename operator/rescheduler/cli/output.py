"""Format text, tables and times for a terminal."""

from collections.abc import Sequence
from datetime import timedelta


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
