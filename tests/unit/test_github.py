"""Workflows, forms and other files that GitHub reads: nothing here can run them, so these rules hold."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import binaries

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*"))
FORMS = sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yaml"))
RELEASE = "release.yaml"


def load(path: Path) -> dict[str, Any]:
    """Return a file as GitHub reads it: `on` is a key, and no truth value."""
    loaded: dict[str, Any] = yaml.load(path.read_text(), yaml.BaseLoader)
    return loaded


def jobs(path: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = load(path)["jobs"]
    return found


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in jobs(path).values() for step in job.get("steps", [])]


def targets() -> set[str]:
    """Return the targets of the Makefile."""
    return set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_there_are_workflows_and_forms() -> None:
    assert {path.name for path in WORKFLOWS} == {"tests.yaml", "vulnerabilities.yaml", RELEASE}
    assert {path.stem for path in FORMS} == {"bug", "feature", "question"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_each_job_has_its_own_rights_and_only_a_release_may_write(path: Path) -> None:
    assert load(path)["permissions"] == {}
    for name, job in jobs(path).items():
        writes = {right for right, level in job["permissions"].items() if level == "write"}
        assert set(job["permissions"].values()) <= {"read", "write"}
        assert not writes or path.name == RELEASE, name


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_each_action_is_pinned_by_commit_with_its_version_behind_it(path: Path) -> None:
    used = re.findall(r"uses: *(.*)", path.read_text())
    assert used
    others = [each for each in used if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", each)]
    assert set(others) <= {"./.github/workflows/tests.yaml"}


def test_each_action_has_one_commit() -> None:
    used = {each for path in WORKFLOWS for each in re.findall(r"uses: *(\S+)@(\S+)", path.read_text())}
    assert len({action for action, _ in used}) == len(used)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_each_run_uses_targets_of_the_makefile_and_no_input_of_others(path: Path) -> None:
    run = [step["run"] for step in steps(path) if "run" in step]
    assert {target for each in run for target in re.findall(r"\bmake ([\w-]+)", each)} <= targets()
    # An expression is pasted into the script. A branch name or a title could then run commands.
    assert not [each for each in run if "${{" in each]
    assert "pull_request_target" not in load(path)["on"]
    # Without pipefail, the failure of a command before a pipe is lost.
    assert load(path)["defaults"]["run"]["shell"] == "bash"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_each_job_ends_and_needs_jobs_that_exist(path: Path) -> None:
    for name, job in jobs(path).items():
        needs = job.get("needs", [])
        assert {*([needs] if isinstance(needs, str) else needs)} <= jobs(path).keys(), name
        assert "uses" in job or int(job["timeout-minutes"]) <= 90, name


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_no_checkout_leaves_a_token_for_later_steps(path: Path) -> None:
    checkouts = [step for step in steps(path) if step.get("uses", "").startswith("actions/checkout@")]
    assert checkouts
    assert all(step["with"] == {"persist-credentials": "false"} for step in checkouts)


def test_the_tests_run_on_the_oldest_python_that_the_package_allows() -> None:
    oldest = re.search(r'^requires-python = ">=(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert oldest
    assert jobs(GITHUB / "workflows/tests.yaml")["test"]["strategy"]["matrix"]["python"][0] == oldest[1]


def test_the_tests_run_on_the_oldest_and_the_newest_kubernetes() -> None:
    known = list(binaries.kubernetes_versions())
    matrix = jobs(GITHUB / "workflows/tests.yaml")["kubernetes"]["strategy"]["matrix"]
    assert matrix["kubernetes"] == [known[0], known[-1]]


def test_everything_that_is_pushed_is_signed_and_attested() -> None:
    released = jobs(GITHUB / "workflows" / RELEASE)
    for name in ("image", "chart", "publish"):
        text = str(released[name])
        assert "cosign sign" in text, name
        assert "actions/attest@" in text, name
        assert released[name]["permissions"]["id-token"] == "write"
    assert {*released["image"]["needs"]} == {"tests", "check"}
    assert {*released["publish"]["needs"]} == {"image", "chart"}


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_each_form_asks_with_fields_that_github_knows(path: Path) -> None:
    form = load(path)
    assert form.keys() == {"name", "description", "labels", "body"}
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert {field["type"] for field in fields} <= {"input", "textarea", "dropdown", "checkboxes"}
    assert len({field["id"] for field in fields}) == len(fields)
    assert all(field["attributes"]["label"] for field in fields)
    assert any(field.get("validations") == {"required": "true"} for field in fields)


def test_dependency_updates_reach_every_file_that_locks_versions() -> None:
    updates = load(GITHUB / "dependabot.yml")["updates"]
    update = {each["package-ecosystem"]: each for each in updates}
    patterns = [p for each in updates if each["package-ecosystem"] == "gomod" for p in each["directories"]]
    folders = {folder for pattern in patterns for folder in ROOT.glob(pattern[1:]) if folder.is_dir()}
    tracked = {path.parent for top in ("bench", "tests") for path in (ROOT / top).rglob("go.mod")}
    assert tracked
    assert tracked <= folders
    for ecosystem, file in (("pip", "runtime.txt"), ("docker", "Dockerfile"), ("github-actions", ".github/workflows")):
        assert (ROOT / update[ecosystem]["directory"].lstrip("/") / file).exists()
