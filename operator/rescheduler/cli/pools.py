"""`kubectl reschedule pools`: the NamespacePools, with what is wrong with them first."""

from collections.abc import Iterable

import click

from rescheduler.api import API_VERSION, GROUP
from rescheduler.cli import messages
from rescheduler.cli.cluster_api import ClusterApi, connect
from rescheduler.cli.printer import print_data, print_table, print_text
from rescheduler.core.model.raw import RawObject

_GOOD = {
    "Ready": "True",
    "Conflict": "False",
    "Enforced": "True",
    "TaintHeldBack": "False",
    "SurvivesNodeLoss": "True",
    "NodeLabelsTrusted": "True",
}
"""The status of each condition of a pool without problems."""


def show(output: str) -> None:
    """Print all pools."""
    server = ClusterApi(connect())
    server.require_installed("namespacepools")
    pools = list(server.list_items(API_VERSION, "namespacepools"))
    if print_data(pools, [f"namespacepool.{GROUP}/{pool['metadata']['name']}" for pool in pools], output):
        return
    if not pools:
        click.echo(messages.NO_POOLS)
        return
    problems = pool_problems(pools)
    for line in problems:
        print_text(line)
    if problems:
        click.echo()
    table = server.get_table(API_VERSION, "namespacepools")
    if output == "wide":
        table = _with_resources(table, {pool["metadata"]["name"]: pool for pool in pools})
    print_table(table)


def pool_problems(pools: Iterable[RawObject]) -> list[str]:
    """Return a line for each condition of a pool that shows a problem."""
    return [
        messages.pool_problem(
            pool["metadata"]["name"], condition["type"], condition["status"], condition.get("message", "")
        )
        for pool in pools
        for condition in (pool.get("status") or {}).get("conditions") or ()
        if condition["status"] != _GOOD.get(condition["type"], condition["status"])
    ]


def _with_resources(table: list[list[str]], pools: dict[str, RawObject]) -> list[list[str]]:
    """Return the table with the sums of requests, and of what the nodes have."""
    head, *rows = table
    name = head.index("NAME")

    def cells(row: list[str]) -> list[str]:
        status = pools.get(row[name], {}).get("status") or {}
        requested, allocatable = status.get("requested") or {}, status.get("allocatable") or {}
        return [f"{requested.get(what, '')}/{allocatable.get(what, '')}" for what in ("cpu", "memory")]

    return [[*head, *messages.RESOURCE_TITLES], *([*row, *cells(row)] for row in rows)]
