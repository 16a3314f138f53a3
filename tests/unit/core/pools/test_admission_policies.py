"""Decide whether admission enforces pools; without it no pod is moved for a pool."""

from datetime import timedelta

import pytest

from rescheduler.core.model.admission import AdmissionObject, parse_admission_object
from rescheduler.core.pools.admission_policies import (
    BINDINGS,
    MUTATING,
    POLICY_PROPAGATION_DELAY,
    REQUIRED_OBJECTS,
    VALIDATING,
    AdmissionState,
    evaluate,
)
from unit.builders import NOW

SERVED = {MUTATING, VALIDATING, *BINDINGS.values()}


def everything() -> dict[tuple[str, str], AdmissionObject | None]:
    return {
        (kind, name): parse_admission_object({"spec": {"policyName": name} if kind.endswith("bindings") else {}})
        for kind, name in REQUIRED_OBJECTS
    }


def test_pools_are_enforced_with_all_objects_of_the_chart() -> None:
    assert evaluate(SERVED, everything()).is_enforced


def test_old_api_server_is_reported_as_not_served() -> None:
    found = evaluate({VALIDATING}, {})
    assert (found.status, found.reason) == ("False", "NotServed")
    assert "1.36" in found.message
    assert "refused" not in found.message


def test_binding_that_refuses_pods_nothing_puts_into_a_pool_is_named() -> None:
    served = {VALIDATING, BINDINGS[VALIDATING]}
    found = evaluate(served, {key: value for key, value in everything().items() if key[0] in served})
    assert (found.status, found.reason) == ("False", "NotServed")
    assert "delete ValidatingAdmissionPolicyBinding rescheduler-pool-pods.rescheduler.dev" in found.message
    assert "pools.policies=never" in found.message


@pytest.mark.parametrize("gone", REQUIRED_OBJECTS, ids="/".join)
def test_each_policy_and_binding_is_required(gone: tuple[str, str]) -> None:
    found = evaluate(SERVED, everything() | {gone: None})
    assert (found.status, found.reason) == ("False", "PoliciesMissing")
    assert gone[1] in found.message


def test_binding_of_another_policy_counts_as_missing() -> None:
    key = next(k for k in everything() if k[0] == BINDINGS[MUTATING])
    assert not evaluate(SERVED, everything() | {key: AdmissionObject("x")}).is_enforced


def test_new_policies_count_after_the_propagation_delay() -> None:
    found = AdmissionState("True", since=NOW)
    assert not found.is_enforced_everywhere(NOW + POLICY_PROPAGATION_DELAY - timedelta(seconds=1))
    assert found.is_enforced_everywhere(NOW + POLICY_PROPAGATION_DELAY)
    assert not AdmissionState("False", since=NOW).is_enforced_everywhere(NOW + POLICY_PROPAGATION_DELAY)
