"""Webhooks and admission policies that hear of a drain."""

from typing import Any

import pytest

from rescheduler.cli.check.admission_hooks import Request, find_admission, parse_policies, parse_webhooks
from rescheduler.cli.check.findings import Level


def rule(resources: list[str], operations: list[str], groups: list[str] | None = None) -> dict[str, Any]:
    return {"apiGroups": [""] if groups is None else groups, "resources": resources, "operations": operations}


def webhooks(*rules: Any, **fields: Any) -> dict[str, Any]:
    service = {"service": {"namespace": "s", "name": "hook"}}
    return {"metadata": {"name": "w"}, "webhooks": [{"rules": list(rules), "clientConfig": service, **fields}]}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (rule(["pods/eviction"], ["CREATE"]), {Request.EVICTION}),
        (rule(["pods/*"], ["CREATE"]), {Request.EVICTION, Request.BINDING}),
        (rule(["*/eviction"], ["*"]), {Request.EVICTION}),
        (rule(["pods"], ["CREATE", "UPDATE"]), {Request.NEW_POD, Request.RELEASE}),
        (rule(["*"], ["UPDATE"], ["*"]), {Request.RELEASE, Request.CORDON}),
        (rule(["*/*"], ["*"], ["*"]), set(Request)),
        (rule(["pods"], ["DELETE"]), set()),
        (rule(["pods"], ["CREATE"], ["apps"]), set()),
        (rule(["deployments"], ["*"], ["apps"]), set()),
    ],
)
def test_a_rule_hears_of_the_requests_that_kubernetes_sends_it(found: dict[str, Any], expected: set[Request]) -> None:
    hooks = list(parse_webhooks("ValidatingWebhookConfiguration", webhooks(found)))
    assert set().union(*(hook.requests for hook in hooks)) == expected


@pytest.mark.parametrize("raw", [{}, {"webhooks": None}, {"webhooks": [3, {"rules": [3, {"resources": 3}]}]}])
def test_a_configuration_of_any_shape_is_no_error(raw: dict[str, Any]) -> None:
    assert list(parse_webhooks("ValidatingWebhookConfiguration", raw)) == []


def test_a_failing_webhook_without_endpoints_is_a_problem_and_an_ignored_one_is_not() -> None:
    strict = list(parse_webhooks("V", webhooks(rule(["pods/eviction"], ["CREATE"]))))
    problem, on_evictions = find_admission(strict, {("s", "hook")}, ())
    assert problem.level is Level.PROBLEM
    assert "s/hook" in problem.state
    assert problem.meaning == "The API server refuses: evictions."
    assert (on_evictions.level, on_evictions.objects) == (Level.WARNING, ["V w (Fail)"])
    lenient = list(parse_webhooks("V", webhooks(rule(["pods/eviction"], ["CREATE"]), failurePolicy="Ignore")))
    assert [found.level for found in find_admission(lenient, {("s", "hook")}, ())] == [Level.WARNING]


def test_a_webhook_of_namespaces_that_do_not_exist_hears_of_nothing() -> None:
    selector = {"matchLabels": {"team": "a"}}
    hooks = list(parse_webhooks("V", webhooks(rule(["pods"], ["CREATE"]), namespaceSelector=selector)))
    assert [found.level for found in find_admission(hooks, (), [{"team": "b"}])] == [Level.OK]
    assert [found.level for found in find_admission(hooks, (), [{"team": "a"}])] == [Level.NOTE]


def test_only_bound_policies_of_others_that_deny_count() -> None:
    def policy(name: str) -> dict[str, Any]:
        constraints = {"resourceRules": [rule(["pods"], ["UPDATE"])]}
        return {"metadata": {"name": name}, "spec": {"matchConstraints": constraints}}

    def binding(name: str, *actions: str) -> dict[str, Any]:
        return {"spec": {"policyName": name, "validationActions": list(actions)}}

    policies = [policy(name) for name in ("denies", "warns", "unbound", "rescheduler-pods.rescheduler.dev")]
    bindings = [binding("denies", "Deny"), binding("warns", "Warn"), binding(policies[3]["metadata"]["name"], "Deny")]
    assert [hook.name for hook in parse_policies("P", policies, bindings)] == ["P denies"]
