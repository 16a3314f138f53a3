"""The rights that commands need."""

from pathlib import Path

from rescheduler.cli.check.findings import Level
from rescheduler.cli.check.rights import ALL_RIGHTS, COMMAND_RIGHTS, Right, find_missing_rights

DOCS = Path(__file__).parents[4] / "docs" / "reference" / "cli.md"


def test_missing_rights_of_plan_are_a_problem_and_name_each_right() -> None:
    missing = {Right("policy", "poddisruptionbudgets", "list")}
    problem, fine = find_missing_rights(missing, "")
    assert (problem.level, problem.objects) == (Level.PROBLEM, ["list poddisruptionbudgets.policy"])
    assert "plan" in problem.state
    assert (fine.level, fine.state) == (Level.OK, "your rights suffice for drain, cancel")


def test_a_right_that_a_plan_rarely_needs_is_a_warning() -> None:
    warning, _ = find_missing_rights({Right("resource.k8s.io", "deviceclasses", "list")}, "")
    assert warning.level is Level.WARNING


def test_without_reviews_the_rights_are_unknown_and_not_fine() -> None:
    (found,) = find_missing_rights((), "the server has no reviews")
    assert (found.level, "no reviews" in found.state) == (Level.WARNING, True)


def test_a_review_asks_for_one_right_of_all_namespaces() -> None:
    spec = Right("apps", "deployments", "list").review()["spec"]
    assert spec == {"resourceAttributes": {"group": "apps", "resource": "deployments", "verb": "list"}}


def test_the_reference_names_each_resource_of_each_command() -> None:
    text = DOCS.read_text()
    rights = " ".join(line for line in text.split("\n\n") if "Rights" in line)
    assert [right for right in ALL_RIGHTS if right.resource not in rights] == []
    assert {*COMMAND_RIGHTS} == {"plan", "drain", "cancel"}
