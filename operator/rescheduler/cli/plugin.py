"""`kubectl reschedule`: the command line of the plugin. Tables have the columns of the API server."""

import click

from rescheduler.api import API_VERSION
from rescheduler.cli.connection.options import ClusterGroup


@click.group(cls=ClusterGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rescheduler")
def main() -> None:
    """Plan, start, watch and cancel drains of nodes."""


@main.command()
@click.argument("node", required=False)
@click.option("--all", "every", is_flag=True, help="Plan every node, one at a time.")
@click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Output format."
)
def plan(node: str | None, every: bool, output: str) -> None:
    """Plan a drain of NODE: which pods fit, and which would block.

    The command only reads. Rescheduler need not be installed.

    \b
    Exit codes:
      0  Every pod fits, and nothing would block the drain.
      1  A pod does not fit, would block, or only the scheduler can decide.
         With --all: some node cannot be drained.
      2  Error.
    """  # noqa: D301 - click reads \b as "do not wrap"
    if every == bool(node):
        raise click.UsageError("specify one NODE, or --all")
    # Imported late, or else `--help` loads everything that a plan needs.
    from rescheduler.cli import plan as cli_plan  # noqa: PLC0415

    cli_plan.show(node, output)


@main.command()
@click.argument("node")
@click.option("-m", "--message", default="", help="What the drain is for.")
@click.option("--no-wait", is_flag=True, help="End when the drain is requested, without following it.")
def drain(node: str, message: str, no_wait: bool) -> None:
    """Request a drain of NODE, and follow it until the node is Drained.

    Ctrl-C stops watching, not the drain. Use `cancel` to stop the drain.

    \b
    Exit codes:
      0    The node is Drained. With --no-wait: the drain is requested.
      1    The drain was withdrawn before the node was Drained.
      2    Error.
      130  Ctrl-C. The drain continues.
    """  # noqa: D301 - click reads \b as "do not wrap"
    from rescheduler.cli import drain as cli_drain  # noqa: PLC0415

    cli_drain.start(node, message, wait=not no_wait)


@main.command()
@click.argument("node")
def cancel(node: str) -> None:
    """Withdraw every request to drain NODE, also those of others.

    The operator then returns released pods and restores the node.

    \b
    Exit codes:
      0  Every request is withdrawn, or nothing requested a drain.
      2  Error.
    """  # noqa: D301 - click reads \b as "do not wrap"
    from rescheduler.cli import drain as cli_drain  # noqa: PLC0415

    cli_drain.cancel(node)


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
