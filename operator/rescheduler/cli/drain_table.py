"""The table of drains on a terminal: a row with a bar for each drain, what it waits for, and its oldest blockers."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from rescheduler.cli import messages
from rescheduler.cli.output import PHASE_STYLES, format_span, printable
from rescheduler.cli.problems import Problem, blocker_problems, other_problems, wait_problems
from rescheduler.cli.progress import drain_stage, moved_pods, time_left
from rescheduler.core.model.raw import RawObject

_NARROW = 70  # columns; below, the bar is short and counts stand without their column
_BAR_WIDTH, _SHORT_BAR_WIDTH = 24, 8
_MAX_BLOCKERS = 5
_MIN_ROWS = 5
_ORDER = {"Blocked": 1, "Draining": 2, "Restoring": 3, "Waiting": 4, "Drained": 5}  # on a terminal with too few lines


class DrainTable:
    """Drains as a renderable of rich. `removed`: names of withdrawn drains."""

    def __init__(
        self,
        drains: Sequence[RawObject],
        now: datetime,
        *,
        removed: Iterable[str] = (),
        warning: str = "",
    ) -> None:
        self._drains, self._now, self._removed, self._warning = drains, now, tuple(removed), warning

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table for the width of the terminal."""
        shown, more = _most_important(self._drains, max(_MIN_ROWS, options.max_height // 2))
        table = drain_rows(shown, self._now, width=options.max_width)
        for name in self._removed:
            table.add_row(printable(name), Text(messages.WITHDRAWN_PHASE, style="dim"))
        problems = [
            *wait_problems(self._drains, self._now),
            *other_problems(self._drains, self._now),
            *blocker_problems(self._drains, self._now, _MAX_BLOCKERS),
        ]
        lines: list[RenderableType] = [Text(more)] if more else []
        lines += problem_lines(problems)
        lines += [Text(self._warning, style="yellow")] if self._warning else []
        yield Group(table, *([""] if lines else []), *lines)


def problem_lines(problems: Iterable[Problem]) -> Iterator[RenderableType]:
    """Yield each problem, and below it its next step."""
    for problem in problems:
        yield Text(printable(problem.text), style="red" if problem.severe else "yellow")
        if problem.hint:
            yield Padding(Text(printable(problem.hint), style="cyan"), (0, 0, 0, 2))


def drain_rows(drains: Iterable[RawObject], now: datetime, *, width: int) -> Table:
    """Return the table with a row for each drain. `width`: columns of the terminal."""
    narrow = width < _NARROW
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1 if narrow else 2, 0, 0))
    for title in messages.TABLE_TITLES_NARROW if narrow else messages.TABLE_TITLES:
        table.add_column(title, no_wrap=True, overflow="ellipsis")
    for drain in drains:
        table.add_row(*_row(drain, now, narrow=narrow))
    return table


def _row(drain: RawObject, now: datetime, *, narrow: bool) -> list[RenderableType]:
    status = drain.get("status") or {}
    stage = drain_stage(drain)
    moved, total = moved_pods(status)
    bar = _bar(moved, total, _SHORT_BAR_WIDTH if narrow else _BAR_WIDTH, PHASE_STYLES.get(stage, ""))
    left = time_left(status, now)
    cells: list[RenderableType] = [
        printable(drain["metadata"]["name"]),
        Text(printable(stage), style=PHASE_STYLES.get(stage, "")),
        bar,
        f"{moved}/{total}" if total else "",
    ]
    if not narrow:
        blocked = int(status.get("blockersTotal") or 0)
        cells.append(Text(str(blocked), style="red" if blocked else ""))
    return [*cells, format_span(left) if left else ""]


def _most_important(drains: Sequence[RawObject], limit: int) -> tuple[Sequence[RawObject], str]:
    """Return the drains that fit onto the terminal, and a line that counts the others. Ended drains are left out first."""
    if len(drains) <= limit:
        return drains, ""
    ordered = sorted(drains, key=lambda drain: _ORDER.get(drain_stage(drain), 0))
    counts = Counter(drain_stage(drain) for drain in ordered[limit:])
    return ordered[:limit], messages.more_drains([(count, stage) for stage, count in counts.items()])


def _bar(moved: int, total: int, width: int, style: str) -> Text:
    """Return a bar of the moved pods. The rest has another character, because there may be no colors."""
    filled = min(width, width * moved // total) if total else 0
    return Text.assemble(("━" * filled, style or "green"), ("─" * (width - filled), "bright_black"))
