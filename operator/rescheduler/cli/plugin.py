"""`kubectl reschedule`: the command line of the plugin. Each command is a module of its own, imported when it runs."""

import click

from rescheduler.cli.connection.options import ClusterGroup, Duration
from rescheduler.cli.printer import output_option


@click.group(cls=ClusterGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rescheduler")
def main() -> None:
    """Plan, start, watch and cancel drains of nodes."""


@main.command()
@click.argument("nodes", nargs=-1, metavar="[NODE]...")
@click.option("--all", "every", is_flag=True, help="Plan every node, one at a time.")
@output_option("text", "wide", "json", "yaml", "name")
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
@output_option("table", "wide", "json", "yaml", "name")
def status(output: str) -> None:
    """Show what keeps drains from going on, which drains hold the slots, and all drains.

    The worst problems come first.
    """
    from rescheduler.cli import status as cli_status  # noqa: PLC0415

    cli_status.show(output)


@main.command()
@click.argument("node")
@click.argument("gate")
@click.option("-m", "--message", default="", help="Why the drain may begin.")
def approve(node: str, gate: str, message: str) -> None:
    """Approve GATE of the drain of NODE: set this condition of the NodeDrain to True.

    `drain.gates` of the policy names the gates. A drain begins when all its gates are True.

    \b
    Exit codes:
      0  The gate is approved.
      2  Error.
    """  # noqa: D301 - click reads \b as "do not wrap"
    from rescheduler.cli import approve as cli_approve  # noqa: PLC0415

    cli_approve.approve(node, gate, message)


@main.command()
@output_option("table", "wide", "json", "yaml", "name")
def pools(output: str) -> None:
    """Show NamespacePools, with what is wrong with them first."""
    from rescheduler.cli import pools as cli_pools  # noqa: PLC0415

    cli_pools.show(output)


@main.command()
@click.option("--client", "client_only", is_flag=True, help="Show the version of the plugin only.")
@output_option("text", "json", "yaml")
def version(output: str, client_only: bool) -> None:
    """Show the versions of the plugin, the operator and the CRDs, and warn if they do not fit."""
    from rescheduler.cli import version as cli_version  # noqa: PLC0415

    cli_version.show(output, client_only=client_only)


if __name__ == "__main__":
    main()
