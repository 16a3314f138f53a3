"""Which budget covers a pod, and what it would answer; `tests/e2e/test_answers.py` asks the server the same."""

from dataclasses import replace
from typing import Any

import pytest

from rescheduler.core.budgets import Budget, budget, covering
from rescheduler.core.pods import Pod

POD = Pod("s", "p", "p", ready=True, labels={"app": "web"})
FULL = Budget("s", "b", "b", allowed=0, healthy=2, needed=2, expected=2)


@pytest.mark.parametrize(
    ("changes", "pod", "allows"),
    [
        ({"allowed": 1}, {}, True),
        ({}, {}, False),
        ({}, {"phase": "Pending", "ready": False}, True),
        ({}, {"phase": "Succeeded", "ready": False}, True),
        ({}, {"phase": "Failed", "ready": False}, True),
        # Not Ready under the default policy: only while enough others are healthy, and the budget asks for some.
        ({}, {"ready": False}, True),
        ({"healthy": 1}, {"ready": False}, False),
        ({"healthy": 0, "needed": 0}, {"ready": False}, False),
        ({"healthy": 1, "always_allow": True}, {"ready": False}, True),
        ({"healthy": 1, "always_allow": True}, {}, False),
    ],
)
def test_what_a_budget_would_answer(changes: dict[str, Any], pod: dict[str, Any], allows: bool) -> None:
    assert replace(FULL, **changes).would_allow(replace(POD, **pod)) is allows


@pytest.mark.parametrize(
    ("selector", "covers"),
    [
        (None, False),
        ({}, True),  # every pod of the namespace (policy/v1)
        ({"matchLabels": {"app": "web"}}, True),
        ({"matchLabels": {"app": "db"}}, False),
    ],
)
def test_which_pods_a_budget_covers(selector: dict[str, Any] | None, covers: bool) -> None:
    found = budget({"metadata": {"namespace": "s", "name": "b", "uid": "b"}, "spec": {"selector": selector}})
    assert covering(POD, [found]) == ((found,) if covers else ())
    assert covering(replace(POD, namespace="other"), [found]) == ()


@pytest.mark.parametrize(("generation", "observed"), [(1, True), (2, False)])
def test_a_status_may_speak_of_an_older_spec(generation: int, observed: bool) -> None:
    meta = {"namespace": "s", "name": "b", "uid": "b", "generation": generation}
    counts = {"observedGeneration": 1, "currentHealthy": 3, "desiredHealthy": 3, "expectedPods": 3}
    found = budget({"metadata": meta, "status": counts})
    assert found.observed is observed
    assert found.misconfigured is observed


def test_a_policy_that_we_do_not_know_allows_nothing_more() -> None:
    meta = {"namespace": "s", "name": "b", "uid": "b"}
    spec = {"unhealthyPodEvictionPolicy": "Sometimes"}
    found = budget({"metadata": meta, "spec": spec, "status": {"desiredHealthy": 2, "currentHealthy": 1}})
    assert not found.would_allow(replace(POD, ready=False))


@pytest.mark.parametrize(
    ("spec", "remedy"),
    [
        ({"minAvailable": 3}, "lower minAvailable 3 of PodDisruptionBudget b, or add replicas"),
        ({"minAvailable": "90%"}, "lower minAvailable 90% of PodDisruptionBudget b, or add replicas"),
        ({"minAvailable": "100%"}, "lower minAvailable 100% of PodDisruptionBudget b"),
        ({"maxUnavailable": 0}, "raise maxUnavailable 0 of PodDisruptionBudget b"),
    ],
)
def test_the_way_out_is_one_that_helps(spec: dict[str, Any], remedy: str) -> None:
    assert budget({"metadata": {"namespace": "s", "name": "b", "uid": "b"}, "spec": spec}).remedy == remedy
