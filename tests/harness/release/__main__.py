"""`python -m harness.release`: the work of `make release` and `make release-check`."""

import shutil
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import click

from harness import binaries
from harness.release import ReleaseError, artifacts, changelog, versions

ROOT = Path(__file__).parents[3]
OUT = ROOT / "build" / "release"
NOTES = ROOT / "build" / "release-notes.md"


@click.group()
def main() -> None:
    """Prepare and check a release."""


@main.command()
@click.argument("version")
@click.option("--root", type=click.Path(path_type=Path), default=ROOT, help="Folder of the project.")
def prepare(version: str, root: Path) -> None:
    """Write VERSION into every place, and give the unreleased section of the changelog a date."""
    if versions.number(version) < versions.number(versions.current(root)):
        raise ReleaseError(f"{version} is older than {versions.current(root)}")
    text = changelog.release((root / "CHANGELOG.md").read_text(), version, datetime.now(UTC).date())
    versions.write(root, version)
    (root / "CHANGELOG.md").write_text(text)


@main.command()
def steps() -> None:
    """Print the commands that publish the version."""
    version = versions.current(ROOT)
    click.echo(f"The files are at version {version}. Check them, and publish them by a tag:\n")
    for command in (
        "make release-check",
        "git diff",
        f'git commit --all --message "Release {version}"',
        f'git tag --sign v{version} --message "Rescheduler {version}"',
        f"git push --atomic origin HEAD v{version}",
    ):
        click.echo(f"    {command}")


@main.command()
@click.option("--tag", envvar="TAG", default="", help="The tag that is being published: v and the version.")
@click.option("--include", type=click.Path(exists=True, path_type=Path), help="Folder of more files of the release.")
def check(tag: str, include: Path | None) -> None:
    """Build the files of the release into build/release, and test them."""
    version = versions.current(ROOT)
    text = (ROOT / "CHANGELOG.md").read_text()
    faults = versions.problems(ROOT) + changelog.problems(text, version, tagged=bool(tag))
    if tag and tag != f"v{version}":
        faults.append(f"the tag is {tag}, and the version is {version}")
    _report(f"version {version} in every place, and in the changelog", faults)
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as name:
        source, installed = Path(name) / "source", Path(name) / "installed"
        artifacts.copy_tracked(ROOT, source)
        packages = artifacts.build_packages(source, OUT)
        _report("sdist and wheel", [f for each in packages for f in artifacts.metadata_problems(each, version)])
        _report("installed programs", artifacts.program_problems(packages[1], installed, version))
        artifacts.package_chart(binaries.path("helm"), source / "manifests" / "chart", OUT)
        _report("chart", [])
    if include:
        artifacts.include(include, OUT)
    artifacts.write_checksums(OUT)
    NOTES.write_text(changelog.notes(text, version))
    click.echo(f"The files are in {OUT.relative_to(ROOT)}.")


def _report(step: str, faults: list[str]) -> None:
    """Print the result of a step. Raises ReleaseError."""
    if faults:
        raise ReleaseError("\n".join([f"{step}: failed", *faults]))
    click.echo(f"{step}: ok")


try:
    main(prog_name="harness.release")
except (ReleaseError, artifacts.CommandError, binaries.MissingBinariesError) as error:
    click.echo(f"release: {error}", err=True)
    sys.exit(1)
