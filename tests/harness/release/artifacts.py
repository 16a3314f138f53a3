"""The files of a release: built from a copy of the tracked files, and tested before anybody gets them."""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from packaging.metadata import Metadata

PROGRAMS = ("rescheduler", "kubectl-reschedule")
CHECKSUMS = "SHA256SUMS"
_IMPORT_ALL = """
import importlib, pkgutil, rescheduler
for module in pkgutil.walk_packages(rescheduler.__path__, "rescheduler."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(rescheduler.__file__)
"""


class CommandError(Exception):
    """A command failed; the message has the command and its last lines."""


def copy_tracked(root: Path, target: Path) -> None:
    """Copy the tracked files without `.git`: a file that nobody added to git is missing from the copy."""
    listed = _run(["git", "ls-files", "-z"], folder=root)
    for name in listed.split("\0"):
        if name and (root / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, target / name)


def build_packages(source: Path, out: Path) -> tuple[Path, Path]:
    """Build the sdist from the source, and the wheel from the sdist, as an installer does; return both paths."""
    _python("-m", "hatchling", "build", "--target", "sdist", "--directory", str(out), folder=source)
    (sdist,) = out.glob("*.tar.gz")
    _pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(out), str(sdist), folder=out)
    (wheel,) = out.glob("*.whl")
    return sdist, wheel


def read_metadata(package: Path) -> bytes:
    """Return the metadata of an sdist or a wheel."""
    if package.suffix == ".whl":
        with zipfile.ZipFile(package) as archive:
            (name,) = [each for each in archive.namelist() if each.endswith(".dist-info/METADATA")]
            return archive.read(name)
    with tarfile.open(package) as archive:
        (member,) = [each for each in archive.getmembers() if each.name.count("/") == 1 and "PKG-INFO" in each.name]
        text = archive.extractfile(member)
        return text.read() if text else b""


def metadata_problems(package: Path, version: str) -> list[str]:
    """Return what an index would refuse in the metadata of an sdist or a wheel, and a version that differs."""
    try:
        metadata = Metadata.from_email(read_metadata(package))
    except ExceptionGroup as group:
        return [f"{package.name}: {error}" for error in group.exceptions]
    faults = []
    if str(metadata.version) != version:
        faults.append(f"{package.name}: the metadata has version {metadata.version}")
    if not metadata.description or metadata.description_content_type != "text/markdown":
        faults.append(f"{package.name}: the metadata has no description in Markdown")
    return faults


def program_problems(wheel: Path, folder: Path, version: str) -> list[str]:
    """Install the wheel into a folder; return what keeps a module from its import, or a program from its start."""
    _pip("install", "--no-deps", "--no-index", "--target", str(folder), str(wheel), folder=wheel.parent)
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    faults = []
    try:
        place = _python("-c", _IMPORT_ALL, folder=folder, environment=environment).strip()
        if not Path(place).is_relative_to(folder):
            faults.append(f"the modules were imported from {place}, and not from the wheel")
    except CommandError as error:
        faults.append(str(error))
    for program in PROGRAMS:
        for option, expected in (("--version", version), ("--help", "Usage: ")):
            try:
                answer = _run([str(folder / "bin" / program), option], folder=folder, environment=environment)
            except (CommandError, OSError) as error:
                faults.append(str(error))
                continue
            if expected not in answer:
                faults.append(f"{program} {option} does not print {expected!r}")
    return faults


def package_chart(helm: Path, chart: Path, out: Path) -> None:
    """Lint the chart and package it. Raises CommandError."""
    _run([str(helm), "lint", "--strict", "--quiet", str(chart)], folder=out)
    _run([str(helm), "package", "--destination", str(out), str(chart)], folder=out)


def include(folder: Path, out: Path) -> None:
    """Copy the files that other targets of the Makefile built; their checksums are written again."""
    for path in folder.iterdir():
        if path.is_file() and path.name != CHECKSUMS:
            shutil.copy2(path, out)


def write_checksums(out: Path) -> None:
    """Write the checksum of each file, in the format that `sha256sum --check` reads."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted(out.iterdir())
        if path.is_file() and path.name != CHECKSUMS
    ]
    (out / CHECKSUMS).write_text("".join(lines))


def _pip(*arguments: str, folder: Path) -> str:
    return _python("-m", "pip", "--quiet", "--disable-pip-version-check", *arguments, folder=folder)


def _python(*arguments: str, folder: Path, environment: Mapping[str, str] | None = None) -> str:
    return _run([sys.executable, *arguments], folder=folder, environment=environment)


def _run(command: Sequence[str], *, folder: Path, environment: Mapping[str, str] | None = None) -> str:
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        lines = (result.stdout + result.stderr).strip().splitlines()[-10:]
        raise CommandError("\n".join([f"{' '.join(command)} failed:", *lines]))
    return result.stdout
