"""`python -m harness`: start and stop a control plane for `make cluster`, `make cluster-down` and `make binaries`."""

import os
import sys
from pathlib import Path

import click

from harness import binaries
from harness import rights as found_rights
from harness.clients import ControlPlaneError
from harness.controlplane import ControlPlane
from harness.coverage import Coverage


def place(name: str) -> Path:
    """Return the folder of a control plane that outlives the command."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "rescheduler" / "clusters" / name


@click.group()
def main() -> None:
    """Run a real control plane with simulated nodes."""


@main.command()
@click.option("--name", default="dev", show_default=True)
@click.option("--nodes", default=6, show_default=True)
def up(name: str, nodes: int) -> None:
    """Start a control plane that stays, and print how to use it."""
    workdir = place(name)
    if workdir.exists():
        click.echo(f"{name} is there already: `make cluster-down` ends it", err=True)
    else:
        plane = ControlPlane.start(name=name, workdir=workdir, keep=True)
        plane.add_nodes(nodes, zones=("a", "b", "c"), own_kwok=True)
    tools = binaries.path("kubectl").parent
    click.echo(f"export KUBECONFIG={workdir / 'kubeconfig'} PATH={tools}:$PATH")


@main.command()
@click.option("--name", default="dev", show_default=True)
def down(name: str) -> None:
    """Stop the control plane, and leave no process and no file."""
    if place(name).exists():
        ControlPlane(place(name), name).stop()


@main.command(name="binaries")
def get_binaries() -> None:
    """Find, download or build the programs; print their folder."""
    binaries.ensure()
    click.echo(binaries.path("kubectl").parent)


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
def rights(folder: Path) -> None:
    """Print the rights of the chart that no test used, by the files in the folder; fail if there are any."""
    left = found_rights.unused(folder)
    for right in left:
        click.echo(f"granted, and used by no test: {right}", err=True)
    sys.exit(1 if left else 0)


@main.command()
@click.argument("report", type=click.Path(path_type=Path))
@click.option("--floor", type=float, required=True, help="Lowest percentage of lines and branches.")
def coverage(report: Path, floor: float) -> None:
    """Print the coverage by lines and branches; below the floor, name the files that miss most, and fail."""
    found = Coverage.read(report)
    click.echo(f"Lines and branches covered: {found.percent:.1f}% (at least {floor:g}%)")
    if found.percent < floor:
        for name, missing in found.worst(10):
            click.echo(f"not covered: {missing} lines and branches of {name}", err=True)
        sys.exit(1)


try:
    main(prog_name="harness")
except (ControlPlaneError, binaries.MissingBinariesError) as error:
    click.echo(f"cluster: {error}", err=True)
    sys.exit(1)
