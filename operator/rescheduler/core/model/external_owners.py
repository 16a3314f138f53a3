"""Nodes whose life another controller is about to end or holds: two that drain one node undo each other's work."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rescheduler.api import names
from rescheduler.api.untrusted import bounded_text, parse_seconds, parse_time
from rescheduler.core.model import object_schemas
from rescheduler.core.model.nodes import Node

_REMOVAL_TAINTS = {
    "karpenter.sh/disrupted": "Karpenter is about to remove the node (taint karpenter.sh/disrupted)",
    "karpenter.sh/disruption": "Karpenter is about to remove the node (taint karpenter.sh/disruption)",
    "ToBeDeletedByClusterAutoscaler": "the cluster autoscaler is about to remove the node (taint ToBeDeletedByClusterAutoscaler)",
}
_OBJECT_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_DELETE_MACHINE_ANNOTATION = "cluster.x-k8s.io/delete-machine"
_MAX_HOLDER_LENGTH = 253
MEDIK8S_LEASE_NAMESPACE = "medik8s-leases"
"""Namespace of the Leases by which medik8s operators hold a node, each named `node-<node>`."""


@dataclass(frozen=True, slots=True)
class MachineRef:
    """A Cluster API Machine, by namespace and name."""

    namespace: str
    name: str


def node_removal_reason(node: Node) -> str:
    """Who is about to remove the node, by what stands on it, in words; empty where nobody is."""
    if node.deleting:
        return "the Node is being deleted"
    return next((_REMOVAL_TAINTS[taint.key] for taint in node.taints if taint.key in _REMOVAL_TAINTS), "")


def machine_of(node: Node) -> MachineRef | None:
    """Return the Machine behind the node; None if Cluster API did not make it.

    The annotations are anybody's: what can be no name names no Machine.
    """
    namespace, name = node.annotations.get(names.MACHINE_NAMESPACE, ""), node.annotations.get(names.MACHINE, "")
    return MachineRef(namespace, name) if _OBJECT_NAME.fullmatch(namespace) and _OBJECT_NAME.fullmatch(name) else None


def preferred_version(group: Mapping[str, Any]) -> str:
    """Return the version that the server prefers, by its (raw) APIGroup; empty if it names none."""
    preferred = group.get("preferredVersion")
    version = preferred.get("version") if isinstance(preferred, dict) else None
    return version if isinstance(version, str) else ""


def machine_removal_reason(raw: Mapping[str, Any]) -> str:
    """What the (raw) Machine says; empty where it stays."""
    meta = object_schemas.sanitize_metadata(raw)["metadata"]
    if "deletionTimestamp" in meta:
        return f"Cluster API is deleting the Machine {meta['name']}"
    if _DELETE_MACHINE_ANNOTATION in (meta.get("annotations") or {}):
        return f"the Machine {meta['name']} is marked for deletion ({_DELETE_MACHINE_ANNOTATION})"
    return ""


def lease_holder_reason(raw: Mapping[str, Any], now: datetime) -> str:
    """Who holds the node by a medik8s Lease (raw); empty where nobody does.

    The one place where another's stamp is compared with our clock: such Leases are long (an hour), and the worst
    that a skewed clock does is to make us wait, or stop waiting, some seconds early.
    """
    spec = object_schemas.sanitize_lease(raw)["spec"]
    holder, renewed = bounded_text(spec.get("holderIdentity"), _MAX_HOLDER_LENGTH), parse_time(spec.get("renewTime"))
    if not holder or renewed is None:
        return ""
    ends = renewed + parse_seconds(spec.get("leaseDurationSeconds"))
    return f"{holder} holds the node by its Lease in {MEDIK8S_LEASE_NAMESPACE}" if now < ends else ""
