"""The live table of `kubectl reschedule drain` on a terminal."""

from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from rich.live import Live

from rescheduler.cli.drain_table import DrainTable
from rescheduler.cli.output import console
from rescheduler.core.model.raw import RawObject


class LiveScreen:
    """A table that is drawn again twice a second, so that the times left pass. Its last state stays."""

    def __init__(self, names: list[str]) -> None:
        self._drains: dict[str, RawObject | None] = dict.fromkeys(names)
        self._removed: list[str] = []
        self._warning = ""
        self._live = Live(get_renderable=self._table, console=console(), refresh_per_second=2)

    def show(self, drain: RawObject) -> None:
        """Show the latest state of a drain."""
        self._warning = ""
        self._drains[drain["metadata"]["name"]] = drain

    def remove(self, name: str) -> None:
        """Show that a drain was withdrawn."""
        self._drains.pop(name, None)
        self._removed.append(name)

    def warn(self, text: str) -> None:
        """Show a warning below the table."""
        self._warning = text

    def clear_warning(self) -> None:
        """Remove the warning."""
        self._warning = ""

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._live.start()
        return self

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Draw the last state, and leave it on the terminal."""
        self._live.stop()

    def _table(self) -> DrainTable:
        # A copy: the thread that draws must not see a change in the middle.
        drains = [drain for drain in self._drains.copy().values() if drain is not None]
        return DrainTable(drains, datetime.now(UTC), removed=tuple(self._removed), warning=self._warning)
