"""The places that name the version of the project."""

import shutil
from pathlib import Path

import pytest

from harness.release import ReleaseError, versions

ROOT = Path(__file__).parents[4]
GENERATED = sorted({place.path for place in versions.places(ROOT, versions.GENERATED)})
FILES = sorted({place.path for place in versions.places(ROOT, versions.WRITTEN)} | {*GENERATED})


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a copy of the files that name the version."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_every_place_of_the_project_names_the_same_version() -> None:
    assert versions.problems(ROOT) == []


def test_package_chart_image_and_manifest_name_the_version() -> None:
    assert {"Makefile", "manifests/chart/Chart.yaml", "manifests/install.yaml", "pyproject.toml"} <= {*FILES}


@pytest.mark.parametrize("name", [name for name in FILES if name != versions.PROJECT])
def test_a_place_with_another_version_is_named_with_its_line(project: Path, name: str) -> None:
    file = project / name
    file.write_text(file.read_text().replace(versions.current(project), "0.0.9"))
    found = versions.problems(project)
    assert found
    assert all(each.startswith(f"{name}:") and "has version 0.0.9" in each for each in found)


def test_a_chart_version_that_is_no_version_is_a_problem(project: Path) -> None:
    chart = project / "manifests/chart/Chart.yaml"
    chart.write_text(chart.read_text().replace("\nversion: ", "\nversion: v"))
    assert len(versions.problems(project)) == 1


def test_a_written_version_is_in_every_place_but_the_generated_ones(project: Path) -> None:
    changed = versions.write(project, "12.0.3")
    assert [str(path.relative_to(project)) for path in changed] == [name for name in FILES if name not in GENERATED]
    assert versions.current(project) == "12.0.3"
    assert {each.split(":")[0] for each in versions.problems(project)} == {*GENERATED}


def test_a_written_version_changes_nothing_else(project: Path) -> None:
    old = {name: (project / name).read_text() for name in FILES}
    version = versions.current(project)
    versions.write(project, "12.0.3")
    versions.write(project, version)
    assert {name: (project / name).read_text() for name in FILES} == old


def test_the_versions_of_dependencies_are_never_written(project: Path) -> None:
    lines = (project / "pyproject.toml").read_text().splitlines()
    versions.write(project, "12.0.3")
    new = (project / "pyproject.toml").read_text().splitlines()
    assert [line for line, other in zip(lines, new, strict=True) if line != other] == [
        line for line in lines if line.startswith("version = ")
    ]


@pytest.mark.parametrize("text", ["1.2", "v1.2.3", "1.2.3-rc.1", "1.2.3rc1", "01.2.3", "1.2.x", "", "1.2.3\n"])
def test_only_three_numbers_are_a_version(text: str) -> None:
    with pytest.raises(ReleaseError, match="is not a version"):
        versions.number(text)


def test_versions_compare_as_numbers() -> None:
    assert versions.number("0.10.0") > versions.number("0.9.9")
