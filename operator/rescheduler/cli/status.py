"""`kubectl reschedule status`: what keeps drains from going on, which drains hold the slots, and all drains."""

from collections.abc import Sequence
from datetime import UTC, datetime

import click

from rescheduler.api import API_VERSION, GROUP
from rescheduler.api.untrusted import parse_time
from rescheduler.cli import messages
from rescheduler.cli.cluster_api import ClusterApi, connect
from rescheduler.cli.operator_lease import read_leaders
from rescheduler.cli.output import console, format_span, is_terminal, printable
from rescheduler.cli.printer import print_data, print_table
from rescheduler.cli.problems import Problem, find_problems, slot_lines
from rescheduler.cli.progress import drain_stage, format_requests, moved_pods, time_left
from rescheduler.core.model.raw import RawObject


def show(output: str) -> None:
    """Print the state of all drains."""
    server = ClusterApi(connect())
    server.require_installed("nodedrains")
    drains = list(server.list_items(API_VERSION, "nodedrains"))
    names = [f"nodedrain.{GROUP}/{drain['metadata']['name']}" for drain in drains]
    if print_data(drains, names, output):
        return
    now = datetime.now(UTC)
    _print_problems(find_problems(drains, read_leaders(server), now), slot_lines(drains, now))
    if not drains:
        click.echo(messages.NO_DRAINS)
    elif output == "wide":
        print_table(server.get_table(API_VERSION, "nodedrains"))
    elif is_terminal():
        from rescheduler.cli.drain_table import drain_rows  # noqa: PLC0415 - only a terminal needs it

        terminal = console()
        terminal.print(drain_rows(drains, now, width=terminal.width))
    else:
        print_table([messages.STATUS_TITLES, *(_row(drain, now) for drain in drains)])


def _row(drain: RawObject, now: datetime) -> tuple[str, ...]:
    status, meta = drain.get("status") or {}, drain["metadata"]
    moved, total = moved_pods(status)
    left, created = time_left(status, now), parse_time(meta.get("creationTimestamp"))
    return (
        meta["name"],
        drain_stage(drain),
        f"{moved}/{total}" if total else "",
        str(status.get("blockersTotal") or 0),
        format_span(left) if left else "",
        format_span(now - created) if created else "",
        format_requests(drain),
    )


def _print_problems(problems: Sequence[Problem], slots: Sequence[str]) -> None:
    if not is_terminal():
        for problem in problems:
            click.echo(printable(problem.text))
            if problem.hint:
                click.echo(f"  {printable(problem.hint)}")
        for line in slots:
            click.echo(printable(line))
    else:
        from rescheduler.cli.drain_table import problem_lines  # noqa: PLC0415 - only a terminal needs it

        terminal = console()
        for text in problem_lines(problems):
            terminal.print(text)
        for line in slots:
            terminal.print(printable(line))
    if problems or slots:
        click.echo()
