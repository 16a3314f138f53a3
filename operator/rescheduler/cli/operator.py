"""`rescheduler`: the command line of the operator."""

import asyncio
import sys
from typing import Any

import click

from rescheduler.cli import library_imports, logs


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rescheduler")
def main() -> None:
    """Drain nodes that failed or need maintenance, replacement first."""


@main.command()
@click.option(
    "--namespace",
    default="rescheduler-system",
    show_default=True,
    envvar="POD_NAMESPACE",
    help="Namespace of the Lease.",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="Port of /metrics. 0: any free port.",
)
@click.option(
    "--health-port",
    type=click.IntRange(0, 65535),
    default=8081,
    show_default=True,
    help="Port of /healthz and /readyz. 0: any free port.",
)
@click.option(
    "--log-format", type=click.Choice(["json", "console"]), default="json", show_default=True, help="Format of the log."
)
def run(namespace: str, metrics_port: int, health_port: int, log_format: str) -> None:
    """Run the operator.

    It works on the cluster of KUBECONFIG, or else on the cluster that it runs in.
    """
    _run(log_format, namespace=namespace, metrics_port=metrics_port, health_port=health_port)


@main.command()
@click.option(
    "--namespace",
    default="rescheduler-system",
    show_default=True,
    envvar="POD_NAMESPACE",
    help="Namespace of the operator's Deployment and Lease.",
)
@click.option("--deployment", default="rescheduler", show_default=True, help="Name of the operator's Deployment.")
@click.option(
    "--log-format",
    type=click.Choice(["json", "console"]),
    default="console",
    show_default=True,
    help="Format of the log.",
)
def cleanup(namespace: str, deployment: str, log_format: str) -> None:
    """Undo everything before an uninstall.

    The command ends all drains, returns released pods, and removes everything that Rescheduler wrote. The log names what
    is left.

    \b
    Exit codes:
      0  Nothing is left, except what must stay.
      1  Something is left, or the command cannot start.
    """  # noqa: D301 - click reads \b as "do not wrap"
    _run(log_format, namespace=namespace, deployment=deployment, metrics_port=0, health_port=0, cleanup=True)


@main.command()
@click.option(
    "--namespace",
    default="rescheduler-system",
    show_default=True,
    envvar="POD_NAMESPACE",
    help="Namespace of the operator.",
)
def verify(namespace: str) -> None:
    """Check an installation, with the operator's identity.

    The command checks rights, CRDs, admission policies and the leader. Every write is a dry run. The chart runs it as
    `helm test`.

    \b
    Exit codes:
      0  All checks passed.
      1  A check failed.
    """  # noqa: D301 - click reads \b as "do not wrap"
    library_imports.leave_out_unused_parts()
    from rescheduler.cli.verify import verification  # noqa: PLC0415 - see _run

    logs.configure("console")
    passed = asyncio.run(
        verification.run(namespace, lambda r: click.echo(f"{'ok' if r.passed else 'failed':8}{r.message}"))
    )
    sys.exit(not passed)


@main.command("migrate-storage")
def migrate_storage() -> None:
    """Store all objects in the storage version of their CRD.

    The command writes each policy, pool and NodeDrain without a change of its fields, moves its managedFields to that
    version, and removes the other versions from status.storedVersions of the CRDs. Run it after an upgrade or a downgrade without helm. It may run at any time, and
    several times.

    \b
    Exit codes:
      0  All objects are stored in the storage version.
      1  They are not, or it is not known.
    """  # noqa: D301 - click reads \b as "do not wrap"
    from rescheduler.cli.storage import stored_versions  # noqa: PLC0415 - see _run

    logs.configure("console")
    succeeded = asyncio.run(stored_versions.run(lambda result: click.echo(result.message, err=not result.succeeded)))
    sys.exit(not succeeded)


def _run(log_format: str, **options: Any) -> None:
    # Imported late, or else `--help` and usage errors take a second longer.
    library_imports.leave_out_unused_parts()
    from rescheduler import app  # noqa: PLC0415
    from rescheduler.kube.client import ConfigError  # noqa: PLC0415

    logs.configure(log_format)
    try:
        failure = asyncio.run(app.run(app.Options(**options)))
    except ConfigError as error:
        click.echo(f"rescheduler: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    if failure:
        click.echo(f"rescheduler: {failure}", err=True)
        sys.exit(1)
