"""Print the history of drains as a table, with the interrupted pods of one node, or as JSON."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

import click

from rescheduler.api import API_VERSION
from rescheduler.api.names import HISTORY
from rescheduler.api.scalars import parse_duration
from rescheduler.cli.cluster_api import ClusterApi, PluginError, connect
from rescheduler.cli.drain_history import messages
from rescheduler.cli.drain_history.records import PastDrain, finished_drains, running_drains, select
from rescheduler.cli.operator_namespace import read_operator_namespace
from rescheduler.cli.output import format_span, format_table, printable
from rescheduler.cli.printer import print_data

_COLUMNS = ("NODE", "STARTED", "TOOK", "OUTCOME", "REQUESTED BY", "MOVED", "INTERRUPTED", "FORCED", "BLOCKED")


def show(node: str | None, *, namespace: str | None, since: str | None, until: str | None, output: str) -> None:
    """Print the drains of a node, or of all nodes. Raises PluginError without an audit record."""
    now = datetime.now(UTC)
    begin, end = (parse_moment(text, now) if text else None for text in (since, until))
    drains = select(read_drains(ClusterApi(connect()), namespace), node, begin, end)
    if print_data([dict(drain.fields) for drain in drains], [], output):
        return
    if not drains:
        click.echo(messages.NO_RECORDS)
    else:
        click.echo("\n".join(as_text(drains, now, with_pods=node is not None)))


def parse_moment(text: str, now: datetime) -> datetime:
    """Return the moment of a date, of a time, or of a span before now. Without a zone it is UTC."""
    try:
        return now - parse_duration(text)
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.UsageError(messages.not_a_time(text)) from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def read_drains(api: ClusterApi, namespace: str | None) -> list[PastDrain]:
    """Read the finished and the running drains. `namespace`: of the operator; None finds it."""
    found = namespace or read_operator_namespace(api)
    raw = api.get("v1", f"namespaces/{found}/configmaps/{HISTORY}")
    if raw is None:
        raise PluginError(messages.no_history(found))
    drains = list(finished_drains(raw.get("data") or {}))
    if api.serves_group(API_VERSION):
        drains += running_drains(api.list_items(API_VERSION, "nodedrains"))
    return drains


def as_text(drains: Sequence[PastDrain], now: datetime, *, with_pods: bool) -> list[str]:
    """Return a row for each drain. `with_pods`: then the pods that each drain interrupted."""
    lines = format_table([_COLUMNS, *(_row(drain, now) for drain in drains)])
    if with_pods:
        for drain in drains:
            lines += ["", *_interrupted_lines(drain)]
    return lines


def _row(drain: PastDrain, now: datetime) -> tuple[str, ...]:
    took = format_span((drain.ended_at or now) - drain.started_at) if drain.started_at else ""
    unnamed = "+" if drain.moves_total > len(drain.moves) else ""
    return (
        drain.node,
        _time(drain.started_at),
        took,
        drain.outcome,
        ", ".join(drain.requested_by),
        str(drain.moves_total),
        f"{len(drain.interrupted)}{unnamed}",
        f"{sum(bool(move.forced) for move in drain.moves)}{unnamed}",
        format_span(timedelta(seconds=drain.blocked_seconds)),
    )


def _interrupted_lines(drain: PastDrain) -> list[str]:
    started, moves = _time(drain.started_at), drain.interrupted
    title = messages.interrupted(drain.node, started, len(moves))
    lines = [printable(title if moves else messages.nothing_interrupted(drain.node, started))]
    rows = [
        ("", move.pod, move.way, move.owner, ", ".join(_details(move.blocked_seconds, move.forced))) for move in moves
    ]
    lines += format_table(rows) if rows else []
    if (unnamed := drain.moves_total - len(drain.moves)) > 0:
        lines.append(f"   {messages.not_named(unnamed)}")
    if drain.proof:
        lines.append(printable(f"   {messages.proven_by(drain.proof)}"))
    return lines


def _details(blocked_seconds: int, forced: str) -> Iterable[str]:
    if blocked_seconds:
        yield messages.blocked_for(format_span(timedelta(seconds=blocked_seconds)))
    if forced:
        yield messages.forced_by(forced)


def _time(value: datetime | None) -> str:
    return f"{value:%Y-%m-%d %H:%M}Z" if value else ""
