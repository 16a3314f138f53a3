"""PodDisruptionBudgets: the pods that they cover, and the evictions that they allow.

`tests/e2e/test_answers.py` asks the API server the same.
"""

from dataclasses import replace
from typing import Any

import pytest

from rescheduler.core.model.disruption_budgets import DisruptionBudget, budgets_for, parse_budget
from rescheduler.core.model.pods import Pod

POD = Pod("s", "p", "p", ready=True, labels={"app": "web"})
FULL = DisruptionBudget("s", "b", "b", allowed=0, healthy=2, needed=2, expected=2)


@pytest.mark.parametrize(
    ("changes", "pod", "allows"),
    [
        ({"allowed": 1}, {}, True),
        ({}, {}, False),
        ({}, {"phase": "Pending", "ready": False}, True),
        ({}, {"phase": "Succeeded", "ready": False}, True),
        ({}, {"phase": "Failed", "ready": False}, True),
        # Default policy: a pod that is not Ready leaves only if enough other pods are healthy.
        ({}, {"ready": False}, True),
        ({"healthy": 1}, {"ready": False}, False),
        ({"healthy": 0, "needed": 0}, {"ready": False}, False),
        ({"healthy": 1, "always_allows_unhealthy": True}, {"ready": False}, True),
        ({"healthy": 1, "always_allows_unhealthy": True}, {}, False),
    ],
)
def test_a_budget_allows_an_eviction_by_the_rules_of_the_server(
    changes: dict[str, Any], pod: dict[str, Any], allows: bool
) -> None:
    assert replace(FULL, **changes).allows_eviction_of(replace(POD, **pod)) is allows


@pytest.mark.parametrize(
    ("changes", "pod", "spends"),
    [
        ({}, {}, True),
        ({}, {"phase": "Pending", "ready": False}, False),
        ({}, {"phase": "Failed", "ready": False}, False),
        ({}, {"ready": False}, False),  # enough others are healthy
        ({"healthy": 1}, {"ready": False}, True),
        ({"healthy": 1, "always_allows_unhealthy": True}, {"ready": False}, False),
        ({"healthy": 0, "needed": 0}, {"ready": False}, True),
    ],
)
def test_an_eviction_uses_the_budget_unless_the_pod_is_exempt(
    changes: dict[str, Any], pod: dict[str, Any], spends: bool
) -> None:
    assert replace(FULL, allowed=1, **changes).counts_eviction_of(replace(POD, **pod)) is spends


def test_a_budget_used_by_a_recent_eviction_is_not_misconfigured() -> None:
    one = replace(FULL, allowed=1, needed=1)
    assert (one.after_eviction().allowed, one.after_eviction().misconfigured) == (0, False)
    assert (replace(one, allowed=2).as_exhausted().allowed, one.as_exhausted().misconfigured) == (0, False)
    assert FULL.misconfigured


def test_an_outdated_status_allows_only_evictions_that_do_not_count() -> None:
    behind = replace(FULL, allowed=1, observed=False)
    assert not behind.allows_eviction_of(POD)
    assert behind.allows_eviction_of(replace(POD, phase="Failed"))


def test_a_failed_sync_is_quoted_and_disrupted_pods_are_counted() -> None:
    meta = {"namespace": "s", "name": "b", "uid": "b", "generation": 1}
    condition = {"type": "DisruptionAllowed", "status": "False", "reason": "SyncFailed", "message": "no scale"}
    found = parse_budget({"metadata": meta, "status": {"conditions": [condition], "disruptedPods": {"p": "2026"}}})
    assert (found.sync_error, found.observed, found.disrupted) == ("no scale", False, 1)
    for other in ({"reason": "InsufficientPods"}, {"status": "True"}, {"type": "Other"}):
        assert not parse_budget({"metadata": meta, "status": {"conditions": [condition | other]}}).sync_error
    assert (
        len(
            parse_budget({"metadata": meta, "status": {"conditions": [condition | {"message": "x" * 9000}]}}).sync_error
        )
        < 999
    )


@pytest.mark.parametrize(
    ("selector", "covers"),
    [
        (None, False),
        ({}, True),  # every pod of the namespace (policy/v1)
        ({"matchLabels": {"app": "web"}}, True),
        ({"matchLabels": {"app": "db"}}, False),
    ],
)
def test_a_budget_covers_the_pods_that_its_selector_matches(selector: dict[str, Any] | None, covers: bool) -> None:
    found = parse_budget({"metadata": {"namespace": "s", "name": "b", "uid": "b"}, "spec": {"selector": selector}})
    assert budgets_for(POD, [found]) == ((found,) if covers else ())
    assert budgets_for(replace(POD, namespace="other"), [found]) == ()


@pytest.mark.parametrize(("generation", "observed"), [(1, True), (2, False)])
def test_a_budget_is_observed_if_its_status_is_current(generation: int, observed: bool) -> None:
    meta = {"namespace": "s", "name": "b", "uid": "b", "generation": generation}
    counts = {"observedGeneration": 1, "currentHealthy": 3, "desiredHealthy": 3, "expectedPods": 3}
    found = parse_budget({"metadata": meta, "status": counts})
    assert found.observed is observed
    assert found.misconfigured is observed


def test_an_unknown_eviction_policy_allows_nothing_more() -> None:
    meta = {"namespace": "s", "name": "b", "uid": "b"}
    spec = {"unhealthyPodEvictionPolicy": "Sometimes"}
    found = parse_budget({"metadata": meta, "spec": spec, "status": {"desiredHealthy": 2, "currentHealthy": 1}})
    assert not found.allows_eviction_of(replace(POD, ready=False))


@pytest.mark.parametrize(
    ("spec", "remedy"),
    [
        ({"minAvailable": 3}, "lower minAvailable 3 of PodDisruptionBudget b, or add replicas"),
        ({"minAvailable": "90%"}, "lower minAvailable 90% of PodDisruptionBudget b, or add replicas"),
        ({"minAvailable": "100%"}, "lower minAvailable 100% of PodDisruptionBudget b"),
        ({"maxUnavailable": 0}, "raise maxUnavailable 0 of PodDisruptionBudget b"),
    ],
)
def test_the_remedy_of_a_misconfigured_budget_helps(spec: dict[str, Any], remedy: str) -> None:
    assert parse_budget({"metadata": {"namespace": "s", "name": "b", "uid": "b"}, "spec": spec}).remedy == remedy
