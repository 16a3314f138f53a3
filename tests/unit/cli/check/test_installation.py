"""CRDs, operator and versions."""

from typing import Any

import yaml

from rescheduler.api.crds import manifests
from rescheduler.cli.check.findings import Finding, Level
from rescheduler.cli.check.installation import (
    RESOURCES,
    InstallationFacts,
    OperatorDeployment,
    find_features,
    find_installation,
)

CRDS = {resource: yaml.safe_load(manifests()[f"rescheduler.dev_{resource}.yaml"]) for resource in RESOURCES}
OPERATOR = OperatorDeployment("sys", "rescheduler", "0.1.0", 2, 2)


def facts(**changes: Any) -> InstallationFacts:
    given: dict[str, Any] = {
        "admission_resources": {"mutatingadmissionpolicies", "validatingadmissionpolicies"},
        "is_served": True,
        "crds": CRDS,
        "operators": (OPERATOR,),
        "policies": ["default"],
    }
    return InstallationFacts("0.1.0", "v1.37.2", **given | changes)


def levels(found: list[Finding]) -> list[Level]:
    return [row.level for row in found]


def schema_of(resource: str) -> dict[str, Any]:
    """Return a copy of a CRD that a test may change."""
    copy: dict[str, Any] = yaml.safe_load(manifests()[f"rescheduler.dev_{resource}.yaml"])
    return copy


def test_a_complete_installation_of_one_version_is_fine() -> None:
    found = list(find_installation(facts()))
    assert levels(found) == [Level.OK]
    assert "0.1.0 has 2 Ready pods" in found[0].state


def test_a_cluster_without_anything_is_a_note() -> None:
    found = list(find_installation(facts(is_served=False, crds=dict.fromkeys(RESOURCES), operators=(), policies=())))
    assert levels(found) == [Level.NOTE]


def test_a_crd_that_lacks_a_field_is_a_problem_and_the_field_is_named() -> None:
    old = schema_of("nodedrains")
    schema = old["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    del schema["properties"]["status"]["properties"]["cameBack"]
    problem = next(iter(find_installation(facts(crds=CRDS | {"nodedrains": old}))))
    assert (problem.level, ".status.cameBack" in problem.objects) == (Level.PROBLEM, True)
    assert "older" in problem.state


def test_a_crd_with_another_field_is_newer_than_the_plugin() -> None:
    new = schema_of("reschedulepolicies")
    schema = new["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"]["properties"]["future"] = {"type": "string"}
    warning = next(iter(find_installation(facts(crds=CRDS | {"reschedulepolicies": new}))))
    assert (warning.level, list(warning.objects)) == (Level.WARNING, [".spec.future"])


def test_another_version_of_the_operator_is_a_warning() -> None:
    found = list(find_installation(facts(operators=(OperatorDeployment("sys", "rescheduler", "v0.2.0", 1, 1),))))
    assert levels(found) == [Level.WARNING]
    assert found[0].state == "the plugin is 0.1.0, operator sys/rescheduler is v0.2.0"


def test_a_patch_version_of_the_operator_fits() -> None:
    found = list(find_installation(facts(operators=(OperatorDeployment("sys", "rescheduler", "0.1.7", 1, 1),))))
    assert levels(found) == [Level.OK]


def test_an_operator_without_ready_pods_is_a_problem() -> None:
    found = list(find_installation(facts(operators=(OperatorDeployment("sys", "rescheduler", "0.1.0", 0, 2),))))
    assert levels(found) == [Level.PROBLEM]


def test_ready_pods_without_a_leader_are_a_problem() -> None:
    found = list(find_installation(facts(leading_in=[])))
    assert levels(found) == [Level.PROBLEM]
    assert "no process renews its Lease" in found[0].state
    assert levels(list(find_installation(facts(leading_in=["sys"])))) == [Level.OK]


def test_an_operator_outside_the_cluster_is_found_by_its_lease() -> None:
    found = list(find_installation(facts(operators=(), leading_in=["sys"])))
    assert levels(found) == [Level.OK]


def test_crds_without_operator_or_policy_are_warnings() -> None:
    found = list(find_installation(facts(operators=(), policies=())))
    assert levels(found) == [Level.WARNING, Level.WARNING]


def test_what_cannot_be_read_is_not_reported_as_absent() -> None:
    assert list(find_installation(facts(crds={}, operators=None, policies=None))) == []


def test_an_absent_crd_next_to_others_is_a_problem() -> None:
    problem = next(iter(find_installation(facts(crds=CRDS | {"namespacepools": None}))))
    assert (problem.level, list(problem.objects)) == (Level.PROBLEM, ["namespacepools.rescheduler.dev"])


def test_features_that_an_older_api_server_lacks_are_named() -> None:
    found = list(find_features(facts(admission_resources={"validatingadmissionpolicies"})))
    assert levels(found) == [Level.NOTE]
    assert "MutatingAdmissionPolicy" in found[0].state
    assert levels(list(find_features(facts()))) == [Level.OK]
