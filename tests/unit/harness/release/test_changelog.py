"""The sections of the changelog."""

from datetime import date
from pathlib import Path

import pytest

from harness.release import ReleaseError, changelog, versions

ROOT = Path(__file__).parents[4]
DAY = date(2026, 12, 24)
OLD = "## 0.1.0 - 2026-11-30\n\n- A.\n"


def written(*parts: str) -> str:
    return "\n".join(["# Changelog\n", *parts])


def test_the_changelog_of_the_project_has_its_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert changelog.problems(text, versions.current(ROOT), tagged=False) == []


@pytest.mark.parametrize("heading", ["Unreleased", "0.2.0 (unreleased)", "0.3.0 (unreleased)"])
def test_a_release_gives_the_unreleased_section_its_version_and_date(heading: str) -> None:
    before = written(f"## {heading}\n\n### Added\n\n- B.\n", OLD)
    after = changelog.release(before, "0.2.0", DAY)
    assert after == before.replace(f"## {heading}", "## 0.2.0 - 2026-12-24")
    assert changelog.problems(after, "0.2.0", tagged=True) == []
    assert changelog.notes(after, "0.2.0") == "### Added\n\n- B.\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (written(), "no unreleased section"),
        (written(OLD), "no unreleased section"),
        (written("## Unreleased\n", OLD), "is empty"),
        (written("## Unreleased\n\n- B.\n", OLD.replace("0.1.0", "0.2.0")), "has a section of 0.2.0 already"),
        (written("## Soon\n\n- B.\n", OLD), "is no heading of a version"),
        (written("## Unreleased\n\n- B.\n", OLD.replace("11-30", "11-31")), "does not exist"),
    ],
)
def test_a_changelog_that_cannot_be_released_is_refused(text: str, message: str) -> None:
    with pytest.raises(ReleaseError, match=message):
        changelog.release(text, "0.2.0", DAY)


@pytest.mark.parametrize(
    ("text", "tagged", "faults"),
    [
        (written("## Unreleased\n\n- B.\n", OLD), False, 0),
        (written("## Unreleased\n\n- B.\n", OLD), True, 1),
        (written(OLD), True, 0),
        (written("## 0.1.0 (unreleased)\n\n- A.\n"), False, 0),
        (written("## 0.1.0 (unreleased)\n\n- A.\n"), True, 1),
        (written("## 0.1.0 - 2026-11-30\n"), False, 1),
        (written(OLD, OLD), False, 1),
        (written(OLD, "## Unreleased\n\n- B.\n"), False, 1),
        (written("## Soon\n\n- B.\n", OLD), False, 1),
        (written(), False, 1),
    ],
)
def test_a_published_version_needs_the_first_section_and_a_date(text: str, tagged: bool, faults: int) -> None:
    assert len(changelog.problems(text, "0.1.0", tagged=tagged)) == faults
