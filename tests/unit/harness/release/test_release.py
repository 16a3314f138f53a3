"""Commands of `python -m harness.release`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.release import changelog, versions

ROOT = Path(__file__).parents[4]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a project with its changelog at version 0.1.0, of which nothing is released."""
    (tmp_path / "pyproject.toml").write_text('version = "0.1.0"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 0.1.0 (unreleased)\n\n- A.\n")
    return tmp_path


def release(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness.release", *arguments]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT / 'tests'}", **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_prepare_changes_the_version_and_the_changelog(project: Path, version: str) -> None:
    assert release("prepare", version, "--root", str(project)).returncode == 0
    assert versions.current(project) == version
    assert changelog.problems((project / "CHANGELOG.md").read_text(), version, tagged=True) == []


@pytest.mark.parametrize("version", ["0.0.9", "0.2", ""])
def test_prepare_refuses_an_older_or_malformed_version_and_writes_nothing(project: Path, version: str) -> None:
    before = {path: path.read_text() for path in project.iterdir()}
    ended = release("prepare", version, "--root", str(project))
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("release: ")
    assert {path: path.read_text() for path in project.iterdir()} == before


def test_a_released_version_cannot_be_prepared_again(project: Path) -> None:
    release("prepare", "0.1.0", "--root", str(project))
    assert "no unreleased section" in release("prepare", "0.1.0", "--root", str(project)).stderr


def test_the_printed_steps_sign_and_push_a_tag_of_the_version() -> None:
    version = versions.current(ROOT)
    printed = release("steps").stdout
    assert f"git tag --sign v{version} " in printed
    assert f"git push --atomic origin HEAD v{version}\n" in printed


def test_a_tag_of_another_version_is_refused_before_anything_is_built() -> None:
    ended = release("check", TAG="v99.0.0")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "the tag is v99.0.0" in ended.stderr
