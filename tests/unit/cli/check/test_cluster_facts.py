"""What a check reads, on a cluster that was captured from a real API server."""

import json
from pathlib import Path
from typing import Any

import pytest

from rescheduler.cli.check.cluster_facts import read_cluster_facts
from rescheduler.cli.check.findings import Finding, Level, Topic
from rescheduler.cli.check.rights import ALL_RIGHTS
from rescheduler.cli.cluster_api import ApiUnavailableError
from unit.fakes import FakeClusterApi

CAPTURED: dict[str, Any] = json.loads(Path(__file__).with_name("cluster.json").read_text())


def check(api: FakeClusterApi) -> list[Finding]:
    return read_cluster_facts(api).findings()


def states(findings: list[Finding], level: Level) -> list[str]:
    return [found.state for found in findings if found.level is level]


def test_each_finding_of_a_captured_cluster_is_there() -> None:
    findings = check(FakeClusterApi(CAPTURED))
    problems, warnings = states(findings, Level.PROBLEM), states(findings, Level.WARNING)
    words = ["SeveralBudgets", "BudgetMisconfigured", "Unmanaged", "failurePolicy Fail", "older"]
    assert [word for word in words if not any(word in state for state in problems)] == []
    words = ["single replicas", "evictions", "kured", "descheduler"]
    assert [word for word in words if not any(word in state for state in warnings)] == []
    notes = " ".join(states(findings, Level.NOTE))
    assert [word for word in ("Karpenter", "Argo CD", "own node", "updates of pods") if word not in notes] == []


def test_each_kind_is_read_once_and_an_administrator_asks_for_one_right() -> None:
    api = FakeClusterApi(CAPTURED)
    check(api)
    reads = [row for row in api.asked if not row.endswith("rescheduler.dev/v1alpha1")]
    assert [row for row in reads if reads.count(row) > 1] == []
    assert sum("selfsubjectaccessreviews" in row for row in reads) == 1
    assert {row.split()[0] for row in reads} == {"get", "post"}
    assert len(api.asked) < 35


def test_without_any_right_the_check_ends_and_reports_nothing_as_fine() -> None:
    answers = {path: body if path in ("version", "apis") else 403 for path, body in CAPTURED.items()}
    findings = check(FakeClusterApi(answers, allowed=()))
    missing = [name for row in findings if row.topic is Topic.RIGHTS for name in row.objects]
    assert {str(right) for right in ALL_RIGHTS} <= {*missing}
    assert any("incomplete" in state for state in states(findings, Level.WARNING))
    assert states(findings, Level.OK) == []


def test_one_kind_that_cannot_be_read_hides_only_its_own_topic() -> None:
    findings = check(FakeClusterApi(CAPTURED | {"policy/v1/poddisruptionbudgets": 403}))
    assert not any(row.topic is Topic.BUDGETS for row in findings)
    assert any("Unmanaged" in row.state for row in findings)


def test_without_deployments_nothing_is_reported_about_replacements() -> None:
    findings = check(FakeClusterApi(CAPTURED | {"apps/v1/deployments": 403}))
    assert not any(row.topic in (Topic.BUDGETS, Topic.REPLICAS) for row in findings)


def test_an_api_server_without_an_answer_is_an_error() -> None:
    with pytest.raises(ApiUnavailableError):
        check(FakeClusterApi({}))


def test_objects_of_any_shape_cost_only_themselves() -> None:
    strange = {"items": [{"metadata": {"name": "x"}}, {"metadata": {"name": "y", "namespace": "s", "uid": "u"}}]}
    kinds = ("v1/pods", "policy/v1/poddisruptionbudgets", "v1/persistentvolumeclaims", "v1/persistentvolumes")
    assert check(FakeClusterApi(CAPTURED | dict.fromkeys(kinds, strange)))
