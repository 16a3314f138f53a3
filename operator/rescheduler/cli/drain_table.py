"""The table of drains on a terminal: a row with a bar for each drain, what it waits for, and its oldest blockers."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from rescheduler.api.untrusted import parse_time
from rescheduler.cli import messages
from rescheduler.cli.output import PHASE_STYLES, format_span, printable
from rescheduler.cli.progress import drain_stage, moved_pods, time_left, wait_message
from rescheduler.core.model.raw import RawObject

_NARROW = 70  # columns; below, the bar is short and counts stand without their column
_BAR_WIDTH, _SHORT_BAR_WIDTH = 24, 8
_MAX_BLOCKERS = 5  # of one drain


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
        table = drain_rows(self._drains, self._now, width=options.max_width)
        for name in self._removed:
            table.add_row(printable(name), Text(messages.WITHDRAWN_PHASE, style="dim"))
        details = [line for drain in self._drains for line in _wait_lines(drain)]
        details += [line for drain in self._drains for line in self._blocker_lines(drain)]
        warning = [Text(self._warning, style="yellow")] if self._warning else []
        yield Group(table, *([""] if details or warning else []), *details, *warning)

    def _blocker_lines(self, drain: RawObject) -> Iterable[RenderableType]:
        status, name = drain.get("status") or {}, printable(drain["metadata"]["name"])
        blockers = status.get("blockers") or []
        for blocker in blockers[:_MAX_BLOCKERS]:
            since = parse_time(blocker.get("since"))
            span = format_span(self._now - since) if since and since < self._now else ""
            pod = f"{blocker['namespace']}/{blocker['pod']}"
            line = messages.blocked_pod_for(pod, blocker["class"], span, blocker.get("message", ""))
            yield Text.assemble((f"{name}: ", "bold"), printable(line))
            if hint := blocker.get("hint"):
                yield Padding(Text(printable(hint), style="cyan"), (0, 0, 0, 2))
        total = int(status.get("blockersTotal") or len(blockers))
        if total > _MAX_BLOCKERS:
            yield Text.assemble((f"{name}: ", "bold"), messages.more_blockers(total - _MAX_BLOCKERS))


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


def _wait_lines(drain: RawObject) -> list[RenderableType]:
    if not (message := wait_message(drain)):
        return []
    return [Text.assemble((f"{printable(drain['metadata']['name'])}: ", "bold"), (printable(message), "yellow"))]


def _bar(moved: int, total: int, width: int, style: str) -> Text:
    """Return a bar of the moved pods. The rest has another character, because there may be no colors."""
    filled = min(width, width * moved // total) if total else 0
    return Text.assemble(("━" * filled, style or "green"), ("─" * (width - filled), "bright_black"))
