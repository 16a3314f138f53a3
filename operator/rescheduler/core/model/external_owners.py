"""Other controllers that remove a node or hold it. Two controllers that drain one node undo each other's work."""

import re
from dataclasses import dataclass
from datetime import datetime

from rescheduler.api import names
from rescheduler.api.untrusted import bounded_text, parse_seconds, parse_time
from rescheduler.core.model import messages, object_schemas
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.raw import RawObject

_REMOVAL_TAINTS = {
    "karpenter.sh/disrupted": "Karpenter",
    "karpenter.sh/disruption": "Karpenter",
    "ToBeDeletedByClusterAutoscaler": "the cluster autoscaler",
}
"""By key of the taint: the tool that sets it before it removes the node."""
_OBJECT_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_DELETE_MACHINE_ANNOTATION = "cluster.x-k8s.io/delete-machine"
_MAX_HOLDER_LENGTH = 253
MEDIK8S_LEASE_NAMESPACE = "medik8s-leases"
"""Namespace of the Leases by which medik8s operators hold a node. Each Lease is named `node-<node>`."""


@dataclass(frozen=True, slots=True)
class MachineRef:
    """Reference to a Cluster API Machine."""

    namespace: str
    name: str


def node_removal_reason(node: Node) -> str | None:
    """Return which removal of the node its taints or its deletion announce; None if none."""
    if node.deleting:
        return messages.NODE_DELETING
    key = next((taint.key for taint in node.taints if taint.key in _REMOVAL_TAINTS), None)
    return messages.node_removal_announced(_REMOVAL_TAINTS[key], key) if key else None


def machine_of(node: Node) -> MachineRef | None:
    """Return the Machine of the node; None if Cluster API did not create the node.

    Any user may write the annotations: a value that is no valid object name counts as absent.
    """
    namespace, name = node.annotations.get(names.MACHINE_NAMESPACE, ""), node.annotations.get(names.MACHINE, "")
    return MachineRef(namespace, name) if _OBJECT_NAME.fullmatch(namespace) and _OBJECT_NAME.fullmatch(name) else None


def preferred_version(group: RawObject) -> str | None:
    """Return the version that the API server prefers, from a raw APIGroup; None if the group has none."""
    preferred = group.get("preferredVersion")
    version = preferred.get("version") if isinstance(preferred, dict) else None
    return version if isinstance(version, str) and version else None


def machine_removal_reason(raw: RawObject) -> str | None:
    """Return why Cluster API removes a raw Machine; None if the Machine stays."""
    meta = object_schemas.sanitize_metadata(raw)["metadata"]
    if "deletionTimestamp" in meta:
        return messages.machine_deleting(meta["name"])
    if _DELETE_MACHINE_ANNOTATION in (meta.get("annotations") or {}):
        return messages.machine_marked_for_deletion(meta["name"], _DELETE_MACHINE_ANNOTATION)
    return None


def lease_holder_reason(raw: RawObject, now: datetime) -> str | None:
    """Return the holder of a node by a raw medik8s Lease; None if the Lease has expired or has no holder.

    Only this function compares the time of another controller with the operator's clock. These Leases last an hour.
    A skewed clock only makes a drain wait some seconds too long or too short.
    """
    spec = object_schemas.sanitize_lease(raw)["spec"]
    holder, renewed = bounded_text(spec.get("holderIdentity"), _MAX_HOLDER_LENGTH), parse_time(spec.get("renewTime"))
    if not holder or renewed is None:
        return None
    expires = renewed + parse_seconds(spec.get("leaseDurationSeconds"))
    return messages.node_leased(holder, MEDIK8S_LEASE_NAMESPACE) if now < expires else None
