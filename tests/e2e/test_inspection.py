"""`kubectl reschedule check`, `why` and `report`, as people call them."""

import json
from collections.abc import Iterator

import pytest

from e2e.test_plans import reschedule
from harness import ControlPlane, workloads
from harness.waiting import until


@pytest.fixture(scope="module")
def empty() -> Iterator[ControlPlane]:
    """Yield a control plane without any Rescheduler component."""
    with ControlPlane.start() as plane:
        yield plane


def test_check_finds_no_problem_in_an_empty_cluster_and_says_what_it_finds(empty: ControlPlane) -> None:
    empty.add_nodes(1, prefix="check-n")
    found = reschedule(empty.kubeconfig, "check")
    assert (found.returncode, found.stderr) == (0, "")
    assert "Rescheduler is not installed" in found.stdout
    assert "your rights suffice for plan, drain, cancel" in found.stdout
    empty.apply(workloads.namespace("shop"))
    empty.kubectl("wait", "-n", "shop", "--for=create", "serviceaccount/default")
    empty.apply(workloads.stateful_set("db", 1, "shop"), workloads.budget("db", "shop", minAvailable=1))
    until(lambda: "BudgetMisconfigured" in reschedule(empty.kubeconfig, "check").stdout, "the budget to be counted")
    result = reschedule(empty.kubeconfig, "check", "-o", "json")
    problems = [row for row in json.loads(result.stdout)["findings"] if row["level"] == "problem"]
    assert (result.returncode, [row["topic"] for row in problems]) == (1, ["budgets"])
    nobody = reschedule(empty.identity_kubeconfig("shop", "default"), "check")
    assert (nobody.returncode, nobody.stderr) == (1, "")
    assert "the check is incomplete" in nobody.stdout
