"""`python -m applications FOLDER [APPLICATION…]`: drain each node under each application, and print a table."""

import sys
from pathlib import Path

import click

from applications import runs
from applications.loading import Application, applications
from applications.results import Result, table


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("only", nargs=-1)
@click.option("--nodes", default=4, show_default=True, help="Number of simulated nodes.")
def main(folder: Path, only: tuple[str, ...], nodes: int) -> None:
    """Drain each node under each application of a folder: a subfolder or a file is one application."""
    try:
        found = applications(folder)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if unknown := sorted({*only} - {each.name for each in found}):
        raise click.UsageError(f"no such application: {', '.join(unknown)}")
    if not found:
        raise click.UsageError(f"{folder} has no manifests")
    results = [_run_one(each, nodes) for each in found if not only or each.name in only]
    click.echo(table(results))
    sys.exit(any(result.failures for result in results))


def _run_one(application: Application, nodes: int) -> Result:
    click.echo(f"{application.name}: {len(application.documents)} objects", err=True)
    result = runs.run(application, nodes)
    for line in (*(f"note: {note}" for note in result.notes), *(f"FAILS: {each}" for each in result.failures)):
        click.echo(f"    {line}", err=True)
    for drain in result.drains:
        end = "Drained" if drain.finished else f"blocked by {'; '.join(drain.blockers) or 'nothing that is named'}"
        wait = f"; {', '.join(drain.waiting)} wait for it" if drain.waiting else ""
        click.echo(f"    {drain.node}: {drain.pods} pods, {drain.seconds:.0f} s, {end}{wait}", err=True)
    return result


if __name__ == "__main__":
    main()
