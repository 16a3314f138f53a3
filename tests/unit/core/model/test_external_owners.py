"""Nodes that another controller holds or is about to remove."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from rescheduler.api import names
from rescheduler.core.model.external_owners import (
    NODE_MARKS,
    MarkKind,
    NodeMark,
    OwnerClaim,
    lease_holder_reason,
    machine_of,
    machine_owner_reason,
    node_owner_reason,
    preferred_version,
    upgrade_plan_reason,
)
from rescheduler.core.model.nodes import Node, NodeCondition, Taint

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


DOCS = Path(__file__).parents[4] / "docs" / "guides" / "coexistence.md"


def marked(kind: MarkKind, key: str, value: str = "", *, cordoned: bool = True) -> Node:
    """Return a cordoned node with one taint, label, annotation or condition; its reason is the value."""
    return Node(
        "n",
        "u",
        unschedulable=cordoned,
        taints=(Taint(key, value, "NoSchedule"),) if kind is MarkKind.TAINT else (),
        labels={key: value} if kind is MarkKind.LABEL else {},
        annotations={key: value} if kind is MarkKind.ANNOTATION else {},
        conditions=(NodeCondition(key, "True", value),) if kind is MarkKind.CONDITION else (),
    )


@pytest.mark.parametrize(
    ("kind", "key", "value", "owner", "claim"),
    [
        (MarkKind.TAINT, "karpenter.sh/disrupted", "", "Karpenter", OwnerClaim.REMOVES),
        (MarkKind.TAINT, "karpenter.sh/disruption", "", "Karpenter", OwnerClaim.REMOVES),
        (MarkKind.TAINT, "ToBeDeletedByClusterAutoscaler", "171", "cluster autoscaler", OwnerClaim.REMOVES),
        (MarkKind.CONDITION, "Terminating", "ScaleDown", "Gardener", OwnerClaim.REMOVES),
        (MarkKind.CONDITION, "Terminating", "Unhealthy", "Gardener", OwnerClaim.REMOVES),
        (MarkKind.TAINT, "karpenter.sh/rebooting", "", "Karpenter", OwnerClaim.HOLDS),
        (
            MarkKind.ANNOTATION,
            "machineconfiguration.openshift.io/desiredDrain",
            "drain-rendered-worker-1",
            "OpenShift",
            OwnerClaim.HOLDS,
        ),
        (MarkKind.ANNOTATION, "talos.dev/cordoned", "true", "Talos", OwnerClaim.HOLDS),
        (MarkKind.LABEL, "dgxc.nvidia.com/nvsentinel-state", "draining", "NVSentinel", OwnerClaim.HOLDS),
        (MarkKind.TAINT, "medik8s.io/drain", "", "Node Maintenance", OwnerClaim.HOLDS),
        (MarkKind.TAINT, "medik8s.io/remediation", "self-node-remediation", "Self Node", OwnerClaim.HOLDS),
        (MarkKind.TAINT, "medik8s.io/fence-agents-remediation", "", "Fence Agents", OwnerClaim.HOLDS),
        (MarkKind.TAINT, "remediation.medik8s.io/fence-agents-remediation", "", "Fence Agents", OwnerClaim.HOLDS),
    ],
)
def test_a_mark_names_its_owner(kind: MarkKind, key: str, value: str, owner: str, claim: OwnerClaim) -> None:
    node = marked(kind, key, value)
    reason = node_owner_reason(node)
    assert reason is not None
    assert owner in reason
    assert f"{claim.value} ({kind} {key})" in reason
    assert (node_owner_reason(node, has_started=True) == reason) is (claim is OwnerClaim.REMOVES)


@pytest.mark.parametrize(
    "node",
    [
        marked(MarkKind.TAINT, "DeletionCandidateOfClusterAutoscaler"),
        marked(MarkKind.TAINT, "node.kubernetes.io/out-of-service"),
        marked(MarkKind.TAINT, "node.cloudprovider.kubernetes.io/shutdown"),
        marked(MarkKind.CONDITION, "Terminating", "TerminationRequested"),
        Node("n", "u", conditions=(NodeCondition("Terminating", "False", "ScaleDown"),)),
        marked(MarkKind.ANNOTATION, "machineconfiguration.openshift.io/desiredDrain", "uncordon-rendered-worker-1"),
        marked(MarkKind.ANNOTATION, "talos.dev/cordoned", "true", cordoned=False),
        marked(MarkKind.LABEL, "dgxc.nvidia.com/nvsentinel-state", "remediation-failed"),
        marked(MarkKind.LABEL, "medik8s.io/drain"),
        Node("n", "u"),
    ],
)
def test_a_node_without_a_current_mark_has_no_owner(node: Node) -> None:
    assert node_owner_reason(node) is None


def test_a_removal_is_named_before_a_hold() -> None:
    taints = (Taint("medik8s.io/drain", "", "NoSchedule"), Taint("karpenter.sh/disrupted", "", "NoSchedule"))
    assert "Karpenter" in str(node_owner_reason(Node("n", "u", taints=taints)))


@pytest.mark.parametrize("mark", NODE_MARKS, ids=lambda mark: f"{mark.kind}-{mark.key}")
def test_the_guide_names_each_mark_with_its_owner(mark: NodeMark) -> None:
    owner = mark.owner.removeprefix("the ")
    rows = [row for row in DOCS.read_text().splitlines() if row.startswith("|") and f"`{mark.key}" in row]
    assert rows
    assert all(owner.lower() in row.lower() for row in rows)
    waits = "every drain" if mark.claim is OwnerClaim.REMOVES else "a drain that has not begun"
    assert all(waits in row for row in rows)


def test_a_deleting_node_has_an_owner() -> None:
    assert node_owner_reason(Node("n", "u", deleting=True), has_started=True)


def plan(*applying: object) -> dict[str, object]:
    return {"metadata": {"name": "server", "namespace": "system-upgrade"}, "status": {"applying": list(applying)}}


def test_a_plan_holds_the_nodes_that_it_upgrades_now() -> None:
    node = Node("n1.example.com", "u", labels={"kubernetes.io/hostname": "n1"})
    assert "Plan system-upgrade/server" in str(upgrade_plan_reason(plan("n0", "n1"), node))
    assert upgrade_plan_reason(plan("n0"), node) is None
    assert upgrade_plan_reason({"metadata": {"name": "p", "namespace": "s"}}, node) is None
    assert upgrade_plan_reason(plan("n2"), Node("n2", "u"))


def test_a_machine_that_is_deleted_marked_or_updated_has_a_reason() -> None:
    made = Node("n", "u", annotations={names.MACHINE: "m1", names.MACHINE_NAMESPACE: "capi"})
    found = machine_of(made)
    assert found is not None
    assert (found.namespace, found.name) == ("capi", "m1")
    assert machine_of(Node("n", "u")) is None
    assert machine_owner_reason({"metadata": {"name": "m1"}}) is None
    assert "m1" in str(machine_owner_reason({"metadata": {"name": "m1", "deletionTimestamp": "2026-01-01T00:00:00Z"}}))
    updating = {"in-place-updates.internal.cluster.x-k8s.io/update-in-progress": ""}
    assert "in place" in str(machine_owner_reason({"metadata": {"name": "m1", "annotations": updating}}))
    assert "marked" in str(
        machine_owner_reason({"metadata": {"name": "m1", "annotations": {"cluster.x-k8s.io/delete-machine": ""}}})
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
