"""`kubectl reschedule`: the plugin. Tables are the server's own columns."""

import click

from rescheduler.api import API_VERSION


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rescheduler")
def main() -> None:
    """See how nodes are drained, and what a drain would come to."""


@main.command()
@click.argument("node", required=False)
@click.option("--all", "every", is_flag=True, help="Each node of the cluster, taken by itself.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def plan(node: str | None, every: bool, output: str) -> None:
    """What would become of NODE's pods if it were drained now. Reads only; needs nothing installed.

    Exit code 0: all pods fit and none blocks; 1: not so (with --all: some node cannot be drained); 2: error.
    """
    if every == bool(node):
        raise click.UsageError("name one node, or give --all")
    # Imported late: `--help` must not cost what a cluster costs.
    from rescheduler.cli import plan as cli_plan  # noqa: PLC0415

    cli_plan.show(node, output)


@main.command()
@click.argument("node")
@click.option("-m", "--message", default="", help="What for; shown with the drain.")
@click.option("--no-wait", is_flag=True, help="Ask for it, and do not follow it.")
def drain(node: str, message: str, no_wait: bool) -> None:
    """Ask the operator to empty NODE, and follow it until it is Drained.

    Whoever stops following (Ctrl-C) stops nothing: `cancel` does. Exit code 0: it is Drained (with --no-wait: asked
    for); 1: the drain was withdrawn before; 2: error; 130: Ctrl-C.
    """
    from rescheduler.cli import drain as cli_drain  # noqa: PLC0415

    cli_drain.start(node, message, wait=not no_wait)


@main.command()
@click.argument("node")
def cancel(node: str) -> None:
    """Withdraw every request to drain NODE: the operator puts it back as it was.

    Exit code 0: withdrawn, or nothing asked for it; 2: error.
    """
    from rescheduler.cli import drain as cli_drain  # noqa: PLC0415

    cli_drain.cancel(node)


@main.command()
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def status(output: str) -> None:
    """NodeDrains: how far they are, and what blocks them."""
    _print_resource("nodedrains", output)


@main.command()
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def pools(output: str) -> None:
    """NamespacePools: their nodes, namespaces and pods, and what is wrong with them."""
    _print_resource("namespacepools", output)


def _print_resource(resource: str, output: str) -> None:
    import json  # noqa: PLC0415

    from rescheduler.cli.cluster_api import ClusterApi, connect  # noqa: PLC0415
    from rescheduler.cli.output import format_table  # noqa: PLC0415

    server, group = ClusterApi(connect()), API_VERSION
    server.require_installed(resource)
    if output == "json":
        click.echo(json.dumps(list(server.list_items(group, resource)), indent=2))
    else:
        click.echo("\n".join(format_table(server.get_table(group, resource))))
