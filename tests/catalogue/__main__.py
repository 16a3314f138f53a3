"""`python -m catalogue [ENTRY…]`: run entries, print the results, and write the page of the docs if all were run."""

import dataclasses
import json
import os
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import click

from catalogue import cluster, runs
from catalogue.comparison import Result, Verdict
from catalogue.entries import Way, load, names
from catalogue.peer import Peer
from catalogue.report import page
from harness import ControlPlane
from harness.operators import Operator, install

_PAGE = Path(__file__).parents[2] / "docs" / "reference" / "catalogue.md"


def _say(name: str, way: Way, result: Result) -> None:
    """Print a result as soon as it is there."""
    values = {key: value for key, value in dataclasses.asdict(result).items() if value or key == "finished"}
    click.echo(f"{name}, {way}: {json.dumps(values, ensure_ascii=False)}", err=True)


def _report(results: Mapping[str, Mapping[Way, Result]], *, write: bool) -> int:
    """Print verdicts; return 1 if an entry fails that is not known to fail, or the reverse."""
    rows = [(entry := load(name), found, Verdict(entry, found)) for name, found in results.items()]
    for entry, _, verdict in rows:
        click.echo(f"{entry.name}: {verdict.word}{'' if verdict.surprising else ' as known' * bool(entry.known)}")
        for finding in verdict.failures:
            click.echo(f"    {finding}")
        if entry.known and not verdict.failures:
            click.echo("    it no longer fails: remove `known` from the entry")
    if write:
        _PAGE.write_text(page(rows))
    click.echo(f"{sum(not verdict.failures for _, _, verdict in rows)} of {len(rows)} entries hold")
    return int(any(verdict.surprising for _, _, verdict in rows))


@click.command()
@click.argument("entries", nargs=-1)
@click.option("--at-once", default=8, show_default=True, help="Number of drains that run side by side.")
@click.option(
    "--peer",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with the programs `drain` and `controller` of another tool, for a fourth way.",
)
def main(entries: tuple[str, ...], at_once: int, peer: Path | None) -> None:
    """Run entries of the catalogue, all of them by default."""
    if unknown := sorted(set(entries) - set(names())):
        raise click.UsageError(f"no such entry: {', '.join(unknown)}")
    if peer and not os.access(peer / "drain", os.X_OK):
        raise click.UsageError(f"--peer: {peer} has no program `drain`")
    with ControlPlane.start(node_monitor_grace_period="50s", open_limits=True) as plane:
        identity = install(plane)
        cluster.install(plane)
        other = Peer(peer.resolve(), plane.kubeconfig) if peer else None
        with (
            Operator(identity, plane.workdir / "operator.log"),
            other.running() if other else nullcontext(),
        ):
            results = runs.run_all(plane, entries or names(), at_once, _say, other)
    sys.exit(_report(results, write=not (entries or peer)))


if __name__ == "__main__":
    main()
