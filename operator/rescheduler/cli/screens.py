"""Screens for drains that are followed: a live table on a terminal, and lines elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Protocol

import click

from rescheduler.cli.output import is_terminal, printable
from rescheduler.cli.progress import DrainProgress
from rescheduler.core.model.raw import RawObject


class Screen(Protocol):
    """Shows drains, by their raw NodeDrains."""

    def show(self, drain: RawObject) -> None:
        """Show the latest state of a drain."""

    def remove(self, name: str) -> None:
        """Show that a drain was withdrawn."""

    def warn(self, text: str) -> None:
        """Show a warning until the next change, or until `clear_warning`."""

    def clear_warning(self) -> None:
        """Forget the warning, so that it is shown again if it recurs."""


@contextmanager
def open_screen(names: list[str]) -> Iterator[Screen]:
    """Open the screen for drains of these nodes. On a terminal its last state stays."""
    if not is_terminal():
        yield LineScreen(several=len(names) > 1)
        return
    # Imported late: nothing else needs a terminal.
    from rescheduler.cli.live_screen import LiveScreen  # noqa: PLC0415

    with LiveScreen(names) as screen:
        yield screen


class LineScreen:
    """Prints a line for each change on stdout, and warnings on stderr."""

    def __init__(self, *, several: bool) -> None:
        self._several = several
        self._progress: dict[str, DrainProgress] = {}
        self._last_warning = ""

    def show(self, drain: RawObject) -> None:
        """Print what changed since the last call for this drain."""
        name = drain["metadata"]["name"]
        for line in self._progress.setdefault(name, DrainProgress()).new_lines(drain, datetime.now(UTC)):
            self._last_warning = ""
            named = not line.detail or self._several
            click.echo(printable(f"{name}: {line.text}" if named else line.text))

    def remove(self, name: str) -> None:
        """Print nothing: the command reports how each drain ended."""

    def warn(self, text: str) -> None:
        """Print a warning, once until a line is printed or `clear_warning` is called."""
        if text != self._last_warning:
            self._last_warning = text
            click.echo(text, err=True)

    def clear_warning(self) -> None:
        """Forget the last warning."""
        self._last_warning = ""
