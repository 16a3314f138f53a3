"""`rescheduler`: the operator's own program."""

import asyncio
import sys
from typing import Any

import click

from rescheduler.cli import logs


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rescheduler")
def main() -> None:
    """Moves pods off nodes that failed or are due for maintenance."""


@main.command()
@click.option(
    "--namespace",
    default="rescheduler-system",
    show_default=True,
    envvar="POD_NAMESPACE",
    help="Where the Lease lives.",
)
@click.option("--metrics-port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="For /metrics.")
@click.option(
    "--health-port", type=click.IntRange(0, 65535), default=8081, show_default=True, help="For /healthz and /readyz."
)
@click.option("--log-format", type=click.Choice(["json", "console"]), default="json", show_default=True)
def run(namespace: str, metrics_port: int, health_port: int, log_format: str) -> None:
    """Run the operator, on the cluster that KUBECONFIG names or the one it runs in."""
    _run(log_format, namespace=namespace, metrics_port=metrics_port, health_port=health_port)


@main.command()
@click.option(
    "--namespace",
    default="rescheduler-system",
    show_default=True,
    envvar="POD_NAMESPACE",
    help="Where the operator's Deployment and Lease live.",
)
@click.option("--log-format", type=click.Choice(["json", "console"]), default="console", show_default=True)
def cleanup(namespace: str, log_format: str) -> None:
    """Before uninstalling: end every drain, give pods back, restore nodes, leave nothing of ours."""
    _run(log_format, namespace=namespace, metrics_port=0, health_port=0, cleanup=True)


def _run(log_format: str, **options: Any) -> None:
    # Imported late: `--help` and wrong options must not cost a second.
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
