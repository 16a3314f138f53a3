"""The places that name the version of the project.

`pyproject.toml` decides. A place that is generated from another place is compared, and never changed here.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.release import ReleaseError

PROJECT = "pyproject.toml"
_VERSION = r"(?P<version>\d[\w.+-]*\w)"
_IMAGE = re.compile(rf"ghcr\.io/rescheduler-dev/rescheduler:{_VERSION}")
_ARCHIVE = re.compile(rf"\brescheduler-{_VERSION}\.tgz")
_SEMANTIC = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")

WRITTEN = (
    (PROJECT, re.compile(r'^version = "(?P<version>.*)"$', re.MULTILINE)),
    ("manifests/chart/Chart.yaml", re.compile(r'^(?:version|appVersion): "?(?P<version>[^"\n]*)"?$', re.MULTILINE)),
    *(
        (files, pattern)
        for files in ("Makefile", "README.md", "docs/**/*.md", "manifests/chart/*.yaml")
        for pattern in (_IMAGE, _ARCHIVE)
    ),
)
GENERATED = (
    ("manifests/install.yaml", _IMAGE),
    ("manifests/install.yaml", re.compile(rf"helm\.sh/chart: rescheduler-{_VERSION}")),
    ("manifests/install.yaml", re.compile(rf"app\.kubernetes\.io/version: [\"']?{_VERSION}")),
)


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a file that names a version."""

    path: str
    line: int
    version: str


def number(version: str) -> tuple[int, ...]:
    """Return the three numbers of a semantic version, which compare as versions do. Raises ReleaseError."""
    if not (found := _SEMANTIC.fullmatch(version)):
        raise ReleaseError(f"{version!r} is not a version: write MAJOR.MINOR.PATCH, such as 0.2.0")
    return tuple(int(part) for part in found.groups())


def current(root: Path) -> str:
    """Return the version in pyproject.toml. Raises ReleaseError."""
    versions = [place.version for place in places(root, WRITTEN) if place.path == PROJECT]
    if len(versions) != 1:
        raise ReleaseError(f"{PROJECT} must have one version, and has {len(versions)}")
    return versions[0]


def problems(root: Path) -> list[str]:
    """Return one sentence for each place whose version differs from pyproject.toml."""
    try:
        version = current(root)
        number(version)
    except ReleaseError as error:
        return [str(error)]
    return [
        f"{place.path}:{place.line} has version {place.version}, and {PROJECT} has {version}"
        for place in places(root, (*WRITTEN, *GENERATED))
        if place.version != version
    ]


def write(root: Path, version: str) -> list[Path]:
    """Write the version into each place that is not generated; return the files that changed."""
    changed = []
    for files, pattern in WRITTEN:
        for path in sorted(root.glob(files)):
            old = path.read_text()
            new = pattern.sub(lambda found: found[0].replace(found["version"], version), old)
            if new != old:
                path.write_text(new)
                changed.append(path)
    return sorted(set(changed))


def places(root: Path, where: Sequence[tuple[str, re.Pattern[str]]]) -> Iterator[Place]:
    """Yield each place of these files and patterns that names a version."""
    for files, pattern in where:
        for path in sorted(root.glob(files)):
            text = path.read_text()
            for found in pattern.finditer(text):
                line = text.count("\n", 0, found.start()) + 1
                yield Place(str(path.relative_to(root)), line, found["version"])
