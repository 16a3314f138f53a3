"""`kubectl reschedule`: the command line of the plugin. Tables have the columns of the API server."""

import click

from rescheduler.api import API_VERSION
from rescheduler.cli.connection.options import ClusterGroup, Duration


@click.group(cls=ClusterGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rescheduler")
def main() -> None:
    """Plan, start, watch and cancel drains of nodes."""


@main.command()
@click.argument("nodes", nargs=-1, metavar="[NODE]...")
@click.option("--all", "every", is_flag=True, help="Plan every node, one at a time.")
@click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Output format."
)
def plan(nodes: tuple[str, ...], every: bool, output: str) -> None:
    """Plan a drain of each NODE on its own: which pods fit, and which would block.

    The command only reads. Rescheduler need not be installed.

    \b
    Exit codes:
      0  Every pod fits, and nothing would block the drain.
      1  A pod does not fit, would block, or only the scheduler can decide.
         With --all: some node cannot be drained.
      2  Error.
    """  # noqa: D301 - click reads \b as "do not wrap"
    if every == bool(nodes):
        raise click.UsageError("specify a NODE, or --all")
    # Imported late, or else `--help` loads everything that a plan needs.
    from rescheduler.cli import plan as cli_plan  # noqa: PLC0415

    cli_plan.show(nodes, output)


@main.command()
@click.argument("nodes", nargs=-1, metavar="[NODE]...")
@click.option("-l", "--selector", default="", metavar="LABELS", help="Drain the nodes with these labels, such as a=b.")
@click.option("-m", "--message", default="", help="What the drain is for.")
@click.option("--no-wait", is_flag=True, help="End when the drains are requested, without following them.")
@click.option("--timeout", type=Duration(), help="End after this time, such as 30m. The drains continue.")
def drain(nodes: tuple[str, ...], selector: str, message: str, no_wait: bool, timeout: float | None) -> None:
    """Request a drain of each NODE, and follow the drains until all nodes are Drained.

    The policy decides how many nodes drain at once, and in which order. Ctrl-C stops watching, not the drains. Use
    `cancel` to stop a drain.

    \b
    Exit codes:
      0    All nodes are Drained. With --no-wait: the drains are requested.
      1    A drain was withdrawn before its node was Drained, or --timeout is over.
      2    Error.
      130  Ctrl-C. The drains continue.
    """  # noqa: D301 - click reads \b as "do not wrap"
    if bool(nodes) == bool(selector):
        raise click.UsageError("specify a NODE, or --selector")
    from rescheduler.cli import drain as cli_drain  # noqa: PLC0415

    cli_drain.start(nodes, selector, message, wait=not no_wait, timeout=timeout)


@main.command()
@click.argument("nodes", nargs=-1, required=True, metavar="NODE...")
def cancel(nodes: tuple[str, ...]) -> None:
    """Withdraw every request to drain each NODE, also the requests of others.

    The operator then returns released pods and restores the node.

    \b
    Exit codes:
      0  Every request is withdrawn, or nothing requested a drain.
      2  Error.
    """  # noqa: D301 - click reads \b as "do not wrap"
    from rescheduler.cli import cancel as cli_cancel  # noqa: PLC0415

    cli_cancel.cancel(nodes)


@main.command()
@click.option(
    "-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="Output format."
)
def status(output: str) -> None:
    """List NodeDrains: phase, progress and number of blocked pods, and the pods that wait for their node."""
    _print_resource("nodedrains", output)


@main.command()
@click.option(
    "-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="Output format."
)
def pools(output: str) -> None:
    """List NamespacePools: numbers of nodes, namespaces and pods."""
    _print_resource("namespacepools", output)


def _print_resource(resource: str, output: str) -> None:
    import json  # noqa: PLC0415

    from rescheduler.cli.cluster_api import ClusterApi, connect  # noqa: PLC0415
    from rescheduler.cli.output import format_table  # noqa: PLC0415
    from rescheduler.cli.progress import waiting_lines  # noqa: PLC0415

    server, group = ClusterApi(connect()), API_VERSION
    server.require_installed(resource)
    if output == "json":
        click.echo(json.dumps(list(server.list_items(group, resource)), indent=2))
    else:
        notes = waiting_lines(server.list_items(group, resource)) if resource == "nodedrains" else []
        click.echo("\n".join([*format_table(server.get_table(group, resource)), *notes]))


if __name__ == "__main__":
    main()
