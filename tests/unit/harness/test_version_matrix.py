"""The results of the tests on each version of Kubernetes, and the table that is made of them."""

import re
from pathlib import Path

import pytest
import yaml

from harness import binaries, version_matrix
from harness.version_matrix import ROOT, Outcome, VersionResult

OLDEST, *_, NEWEST = binaries.kubernetes_versions()


def case(name: str, subject: str, *children: str) -> str:
    properties = f'<properties><property name="subject" value="{subject}"/></properties>'
    return f'<testcase name="{name}">{properties}{"".join(children)}</testcase>'


def report(*cases: str) -> str:
    return f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>"


def test_outcomes_are_counted_by_subject_and_failures_named_once() -> None:
    found = version_matrix.parse_report(
        report(
            case("test_a", "plans"),
            case("test_b", "plans", "<failure/>"),
            case("test_b", "plans", "<error/>"),
            case("test_c", "pools", "<error/>"),
            case("test_d", "pools", "<skipped/>"),
        )
    )
    assert found == {"plans": Outcome(1, ["test_b"]), "pools": Outcome(0, ["test_c"])}


def test_a_test_whose_process_ended_is_no_result() -> None:
    with pytest.raises(version_matrix.VersionError, match="test_a"):
        version_matrix.parse_report(report('<testcase name="test_a"><error/></testcase>'))


def test_a_version_on_which_the_tests_do_not_run_loses_its_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def test(minor: str) -> VersionResult:
        if minor == OLDEST:
            raise binaries.MissingBinariesError("go build failed")
        return VersionResult(f"v{minor}.1", {"plans": Outcome(0, ["test_b"])})

    monkeypatch.setattr(version_matrix, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(version_matrix, "test", test)
    version_matrix.write_results({OLDEST: VersionResult("v1.33.99", {"plans": Outcome(1)})})
    assert version_matrix.main([OLDEST, NEWEST]) == 1
    assert [*version_matrix.read_results()] == [NEWEST]
    written = capsys.readouterr().err
    assert f"Kubernetes {OLDEST}: go build failed\n" in written
    assert f"Kubernetes {NEWEST}: test_b\n" in written


def test_the_table_shows_what_passed_failed_is_off_and_was_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(version_matrix, "RESULTS", tmp_path / "results.json")
    subjects = {"plans": Outcome(1, ["test_b"]), "maintenance": Outcome(3)}
    version_matrix.write_results({OLDEST: VersionResult("v1.33.99", subjects), "1.2": VersionResult("v1.2.0", {})})
    assert version_matrix.read_results() == {OLDEST: VersionResult("v1.33.99", subjects)}
    rows = {cells[0]: cells[1:] for cells in map(_cells, version_matrix.versions_table().splitlines())}
    newest, oldest = 0, -1
    assert (rows[""][newest], rows[""][oldest]) == (f"Kubernetes {NEWEST}", f"Kubernetes {OLDEST}")
    assert (rows["tested"][newest], rows["tested"][oldest]) == ("not run", "v1.33.99")
    assert (rows["plans"][newest], rows["plans"][oldest]) == ("", "**1 of 2 failed**: `test_b`")
    assert (rows["maintenance"][oldest], rows["pools"][oldest]) == ("3 passed", "off")


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_an_unknown_version_is_refused_with_those_that_are_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert version_matrix.main(["1.2"]) == 2
    assert f"unknown versions of Kubernetes: 1.2; known are {OLDEST}, " in capsys.readouterr().err


def test_each_marked_test_has_a_subject_of_the_table() -> None:
    texts = [path.read_text() for path in (ROOT / "tests" / "e2e").glob("test_*.py")]
    used = {subject for text in texts for subject in re.findall(r"mark\.every_version\(\"([^\"]*)\"", text)}
    assert used == {*version_matrix.SUBJECTS}


def test_the_chart_and_the_pages_require_the_oldest_version_that_the_tests_run_on() -> None:
    chart = yaml.safe_load((ROOT / "manifests" / "chart" / "Chart.yaml").read_text())
    assert chart["kubeVersion"] == f">={OLDEST}.0-0"
    for page in ("README.md", "docs/getting-started.md", "docs/guides/upgrading.md"):
        assert f"Kubernetes {OLDEST} or newer" in (ROOT / page).read_text(), page


def test_versions_are_compared_as_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_VERSION", OLDEST)
    selected = [version_matrix.is_selected(since) for since in ("", "1.9", OLDEST, NEWEST)]
    assert selected == [True, True, True, False]
