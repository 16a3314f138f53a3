"""`kubectl reschedule`: the command line of the plugin. Each command is a module of its own, imported when it runs."""

import gc
import os
import sys
from typing import Any

import click

from rescheduler.cli.connection.options import ClusterGroup, Duration
from rescheduler.cli.printer import output_option

_SHELLS = ("bash", "zsh", "fish", "kubectl")
_COMPLETE_VARIABLE = "_KUBECTL_RESCHEDULE_COMPLETE"
_OBJECTS_BEFORE_COLLECTION = 100_000  # the imports of a command make fewer, and they leave no garbage


def run() -> None:
    """Run the plugin. The scripts of `completion` run it too, with a variable in their environment."""
    gc.set_threshold(_OBJECTS_BEFORE_COLLECTION)
    if _COMPLETE_VARIABLE in os.environ:
        main(prog_name="kubectl-reschedule", complete_var=_COMPLETE_VARIABLE)
    else:
        main(prog_name="kubectl reschedule")


def answer_kubectl() -> None:
    """Complete the words of the command line, as kubectl expects it of `kubectl_complete-reschedule`."""
    main(args=["__complete", *sys.argv[1:]])


def _nodes(context: click.Context, parameter: click.Parameter, incomplete: str) -> Any:
    from rescheduler.cli.completion import complete_nodes  # noqa: PLC0415

    return complete_nodes(context, parameter, incomplete)


def _drains(context: click.Context, parameter: click.Parameter, incomplete: str) -> Any:
    from rescheduler.cli.completion import complete_drains  # noqa: PLC0415

    return complete_drains(context, parameter, incomplete)


@click.group(cls=ClusterGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rescheduler")
def main() -> None:
    """Plan, start, watch and cancel drains of nodes."""


@main.command(short_help="Plan drains: what fits, what would block.")
@click.argument("nodes", nargs=-1, metavar="[NODE]...", shell_complete=_nodes)
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


@main.command(short_help="Request drains, and follow them.")
@click.argument("nodes", nargs=-1, metavar="[NODE]...", shell_complete=_nodes)
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


@main.command(short_help="Withdraw all requests to drain nodes.")
@click.argument("nodes", nargs=-1, required=True, metavar="NODE...", shell_complete=_drains)
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


@main.command(short_help="Check what would hinder a drain here.")
@output_option("text", "json", "yaml")
def check(output: str) -> None:
    """Check what would hinder a drain on this cluster.

    The command only reads. Rescheduler need not be installed.

    \b
    Exit codes:
      0  No problem was found. There may be warnings.
      1  A problem hinders a drain, or a command of the plugin.
      2  Error.
    """  # noqa: D301 - click reads \b as "do not wrap"
    from rescheduler.cli.check import presentation  # noqa: PLC0415

    presentation.show(output)


@main.command(short_help="Explain what a drain does with one pod.")
@click.argument("pod", metavar="NAMESPACE/POD")
@output_option("text", "json", "yaml")
def why(pod: str, output: str) -> None:
    """Explain what a drain does, or would do, with one pod.

    The command only reads. Rescheduler need not be installed.
    """
    from rescheduler.cli.why import explanation  # noqa: PLC0415

    explanation.show(pod, output)


@main.command(short_help="List past drains, and what they interrupted.")
@click.argument("node", required=False, shell_complete=_nodes)
@click.option("--since", metavar="TIME", help="Only drains that began at this time or later: a date, a time, or 72h.")
@click.option("--until", metavar="TIME", help="Only drains that began before this time.")
@click.option("-n", "--namespace", help="Namespace of the operator. By default the one that acts is found.")
@output_option("text", "json", "yaml")
def history(node: str | None, since: str | None, until: str | None, namespace: str | None, output: str) -> None:
    """List finished and running drains, of NODE or of all nodes: who requested them, and what they interrupted.

    With NODE, the pods that left without a replacement first are named.
    """
    from rescheduler.cli.drain_history import table  # noqa: PLC0415

    table.show(node, namespace=namespace, since=since, until=until, output=output)


@main.command(short_help="Write a zip for a bug report.")
@click.option("--file", "path", metavar="FILE", help="The zip to write. By default its name has the time.")
@click.option("-n", "--namespace", help="Namespace of the operator. By default the one that acts is found.")
def report(path: str | None, namespace: str | None) -> None:
    """Write a zip for a bug report: objects, Events, logs and metrics of Rescheduler.

    Environment, arguments and annotations are redacted, and Secrets and ConfigMaps are never read. The command lists
    the content of the zip.

    \b
    Exit codes:
      0  The zip is written. What could not be read is listed.
      2  Error.
    """  # noqa: D301 - click reads \b as "do not wrap"
    from rescheduler.cli.report import zip_file  # noqa: PLC0415

    zip_file.write(path, namespace)


@main.command(short_help="Show problems, slots and all drains.")
@output_option("table", "wide", "json", "yaml", "name")
def status(output: str) -> None:
    """Show what keeps drains from going on, which drains hold the slots, and all drains.

    The worst problems come first.
    """
    from rescheduler.cli import status as cli_status  # noqa: PLC0415

    cli_status.show(output)


@main.command(short_help="Set a gate of a drain to True.")
@click.argument("node", shell_complete=_drains)
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


@main.command(short_help="Show NamespacePools and their problems.")
@output_option("table", "wide", "json", "yaml", "name")
def pools(output: str) -> None:
    """Show NamespacePools, with what is wrong with them first."""
    from rescheduler.cli import pools as cli_pools  # noqa: PLC0415

    cli_pools.show(output)


@main.command(short_help="Show versions, and whether they fit.")
@click.option("--client", "client_only", is_flag=True, help="Show the version of the plugin only.")
@output_option("text", "json", "yaml")
def version(output: str, client_only: bool) -> None:
    """Show the versions of the plugin, the operator and the CRDs, and warn if they do not fit."""
    from rescheduler.cli import version as cli_version  # noqa: PLC0415

    cli_version.show(output, client_only=client_only)


@main.command(cls=click.Command, short_help="Print a script for completion.")
@click.argument("shell", type=click.Choice(_SHELLS))
def completion(shell: str) -> None:
    """Print the script that completes `kubectl-reschedule` in SHELL, for bash, zsh and fish.

    kubectl completes `kubectl reschedule` by the program kubectl_complete-reschedule in PATH. `pip install` brings it;
    `completion kubectl` prints it.
    """
    from rescheduler.cli.completion import script  # noqa: PLC0415

    click.echo(script(main, shell))


@main.command(
    "__complete",
    cls=click.Command,
    hidden=True,
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def complete(words: tuple[str, ...]) -> None:
    """Complete the last of these words."""
    from rescheduler.cli.completion import complete_for_kubectl  # noqa: PLC0415

    click.echo(complete_for_kubectl(main, words))


if __name__ == "__main__":
    run()
