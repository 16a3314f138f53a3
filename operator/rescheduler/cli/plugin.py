"""`kubectl reschedule`: the plugin. It reads with pykube, whose tables are the server's own columns."""

import os
import sys
from pathlib import Path
from typing import Any

import click


def _api() -> Any:
    # Imported late: `--help` must not cost what a cluster costs.
    import pykube  # noqa: PLC0415

    named = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0] or str(Path.home() / ".kube" / "config")
    try:
        return pykube.HTTPClient(pykube.KubeConfig.from_file(named))
    except (OSError, KeyError, TypeError, pykube.exceptions.PyKubeError) as error:
        raise click.ClickException(f"no usable kubeconfig at {named}: {error}") from error


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rescheduler")
def main() -> None:
    """See how nodes are drained."""


@main.command()
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def status(output: str) -> None:
    """NodeDrains: how far they are, and what blocks them."""
    import json  # noqa: PLC0415

    import pykube  # noqa: PLC0415
    import requests  # noqa: PLC0415

    api = _api()
    try:
        drains = pykube.object_factory(api, "rescheduler.dev/v1alpha1", "NodeDrain").objects(api)
        if output == "json":
            click.echo(json.dumps([drain.obj for drain in drains], indent=2))
            return
        table = drains.as_table()
    except (requests.RequestException, ValueError) as error:
        click.echo(f"kubectl-reschedule: cannot read NodeDrains: {error}", err=True)
        sys.exit(2)
    rows = [[column["name"].upper() for column in table.columns]]
    rows += [["" if cell is None else str(cell) for cell in row["cells"]] for row in table.rows]
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    for row in rows:
        click.echo("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
