"""Nodes that another controller holds or is about to remove."""

from datetime import UTC, datetime

import pytest

from rescheduler.api import names
from rescheduler.core.model.external_owners import (
    lease_holder_reason,
    machine_of,
    machine_removal_reason,
    node_removal_reason,
    preferred_version,
)
from rescheduler.core.model.nodes import Node, Taint

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("key", "whose"),
    [
        ("karpenter.sh/disrupted", "Karpenter"),
        ("karpenter.sh/disruption", "Karpenter"),
        ("ToBeDeletedByClusterAutoscaler", "cluster autoscaler"),
        ("DeletionCandidateOfClusterAutoscaler", ""),
        ("node.kubernetes.io/out-of-service", ""),
        ("node.cloudprovider.kubernetes.io/shutdown", None),
    ],
)
def test_a_removal_taint_names_the_tool(key: str, whose: str | None) -> None:
    said = node_removal_reason(Node("n", "u", taints=(Taint(key, "", "NoSchedule"),)))
    assert whose in str(said) if whose else said is None


def test_a_deleting_node_has_a_removal_reason() -> None:
    assert node_removal_reason(Node("n", "u", deleting=True))


def test_a_machine_that_is_deleted_or_marked_has_a_removal_reason() -> None:
    made = Node("n", "u", annotations={names.MACHINE: "m1", names.MACHINE_NAMESPACE: "capi"})
    found = machine_of(made)
    assert found is not None
    assert (found.namespace, found.name) == ("capi", "m1")
    assert machine_of(Node("n", "u")) is None
    assert machine_removal_reason({"metadata": {"name": "m1"}}) is None
    assert "m1" in str(
        machine_removal_reason({"metadata": {"name": "m1", "deletionTimestamp": "2026-01-01T00:00:00Z"}})
    )
    assert "marked" in str(
        machine_removal_reason({"metadata": {"name": "m1", "annotations": {"cluster.x-k8s.io/delete-machine": ""}}})
    )


@pytest.mark.parametrize(
    "name", ["", "..", ".", "a/b", "../../../../api/v1/nodes/n", "a?b", "a#b", "a%2fb", "A", "x" * 254]
)
def test_an_invalid_machine_annotation_counts_as_absent(name: str) -> None:
    assert machine_of(Node("n", "u", annotations={names.MACHINE: name, names.MACHINE_NAMESPACE: "capi"})) is None
    assert machine_of(Node("n", "u", annotations={names.MACHINE: "m1", names.MACHINE_NAMESPACE: name})) is None


@pytest.mark.parametrize(
    ("group", "version"),
    [
        ({"preferredVersion": {"groupVersion": "cluster.x-k8s.io/v1beta2", "version": "v1beta2"}}, "v1beta2"),
        ({"preferredVersion": {}}, None),
        ({"preferredVersion": 7}, None),
        ({}, None),
    ],
)
def test_the_preferred_version_comes_from_the_api_group(group: dict[str, object], version: str | None) -> None:
    assert preferred_version(group) == version


@pytest.mark.parametrize(
    ("spec", "held"),
    [
        ({"holderIdentity": "nmo", "renewTime": "2026-01-01T11:30:00Z", "leaseDurationSeconds": 3600}, True),
        ({"holderIdentity": "nmo", "renewTime": "2026-01-01T10:30:00Z", "leaseDurationSeconds": 3600}, False),
        ({"holderIdentity": "", "renewTime": "2026-01-01T11:30:00Z", "leaseDurationSeconds": 3600}, False),
        ({"holderIdentity": "nmo"}, False),
        ({}, False),
    ],
)
def test_a_medik8s_lease_holds_a_node_until_it_expires(spec: dict[str, object], held: bool) -> None:
    assert bool(lease_holder_reason({"spec": spec}, NOW)) is held
