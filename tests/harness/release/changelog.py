"""The sections of CHANGELOG.md: one for each version, the newest first.

A heading is `## 0.2.0 - 2026-12-24`, `## 0.2.0 (unreleased)` or `## Unreleased`. Only the first section may be
unreleased.
"""

import re
from dataclasses import dataclass
from datetime import date

from harness.release import ReleaseError

_HEADING = re.compile(r"^## (.*)$", re.MULTILINE)
_RELEASED = re.compile(r"(?P<version>\d\S*) - (?P<date>\d{4}-\d\d-\d\d)")
_UNRELEASED = re.compile(r"(?P<version>\d\S*) \(unreleased\)|Unreleased")


@dataclass(frozen=True, slots=True)
class Section:
    """Changes of one version.

    Attributes:
        version: empty if the version is not known yet.
        released: the day of the release; None if the version is not released.
    """

    heading: str
    version: str
    released: date | None
    text: str


def sections(changelog: str) -> list[Section]:
    """Return the sections, the newest first. Raises ReleaseError."""
    parts = _HEADING.split(changelog)[1:]
    return [_section(heading, text) for heading, text in zip(parts[::2], parts[1::2], strict=True)]


def _section(heading: str, text: str) -> Section:
    if found := _UNRELEASED.fullmatch(heading):
        return Section(heading, found["version"] or "", None, text.strip())
    if found := _RELEASED.fullmatch(heading):
        try:
            return Section(heading, found["version"], date.fromisoformat(found["date"]), text.strip())
        except ValueError as error:
            raise ReleaseError(f"CHANGELOG.md: the date in {heading!r} does not exist: correct it") from error
    raise ReleaseError(f"CHANGELOG.md: {heading!r} is no heading of a version: write `## 0.2.0 - 2026-12-24`")


def problems(changelog: str, version: str, *, tagged: bool) -> list[str]:
    """Return one sentence for each fault of the changelog; `tagged`: this version is being published."""
    try:
        found = sections(changelog)
    except ReleaseError as error:
        return [str(error)]
    faults = [
        f"CHANGELOG.md: {each.heading!r} must be the first section, or have a date"
        for each in found[1:]
        if each.released is None
    ]
    own = [each for each in found if each.version == version]
    if len(own) != 1:
        return [*faults, f"CHANGELOG.md has {len(own)} sections of {version}, and must have one"]
    if not own[0].text:
        faults.append(f"CHANGELOG.md: the section of {version} is empty")
    if tagged and own[0].released is None:
        faults.append(f"CHANGELOG.md: {own[0].heading!r} has no date: run `make release VERSION={version}` first")
    if tagged and found[0] is not own[0]:
        faults.append(f"CHANGELOG.md: {found[0].heading!r} stands above the section of {version}")
    return faults


def release(changelog: str, version: str, today: date) -> str:
    """Return the changelog with the unreleased section as the section of this version. Raises ReleaseError."""
    found = sections(changelog)
    if not found or found[0].released is not None:
        raise ReleaseError("CHANGELOG.md has no unreleased section: add `## Unreleased` with the changes")
    if not found[0].text:
        raise ReleaseError(f"CHANGELOG.md: {found[0].heading!r} is empty: write what changes for users")
    if any(each.version == version for each in found[1:]):
        raise ReleaseError(f"CHANGELOG.md has a section of {version} already: choose another version")
    return changelog.replace(f"## {found[0].heading}\n", f"## {version} - {today.isoformat()}\n", 1)


def notes(changelog: str, version: str) -> str:
    """Return the text of the section of this version, for the page of the release."""
    return next(each.text for each in sections(changelog) if each.version == version) + "\n"
