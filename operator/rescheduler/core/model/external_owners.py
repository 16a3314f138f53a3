"""Other controllers that remove a node or hold it. Two controllers that drain one node undo each other's work.

`NODE_MARKS` is the table of what they write on a Node. Three of them are recognised by other objects: medik8s by its
Leases, Cluster API by its Machines, and the system-upgrade-controller by its Plans. docs/guides/coexistence.md has the
same table for users.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, StrEnum

from rescheduler.api import names
from rescheduler.api.untrusted import bounded_text, parse_seconds, parse_time
from rescheduler.core.model import messages, object_schemas
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.raw import HOSTNAME_LABEL, RawObject


class OwnerClaim(Enum):
    """Claim of another controller on a node."""

    REMOVES = "is about to remove the node"
    """Every drain waits, also a drain that has started."""
    HOLDS = "holds the node"
    """A drain that has not started waits. A started drain continues: its pods are half moved."""


class MarkKind(StrEnum):
    """The field of a Node that a mark is in."""

    TAINT = "taint"
    LABEL = "label"
    ANNOTATION = "annotation"
    CONDITION = "condition"


@dataclass(frozen=True, slots=True)
class NodeMark:
    """Mark that another controller writes on a Node while it removes or holds the node.

    Attributes:
        owner: the controller, as a user knows it.
        key: the key of the taint, label or annotation, or the type of the condition.
        value: the pattern of the value, or of the reason of a condition that is True.
        only_if_cordoned: whether the mark is left over if the node is not cordoned.
    """

    owner: str
    claim: OwnerClaim
    kind: MarkKind
    key: str
    value: str = ".*"
    only_if_cordoned: bool = False

    def is_on(self, node: Node) -> bool:
        """Whether the node has the mark."""
        if self.only_if_cordoned and not node.unschedulable:
            return False
        value = self._value_on(node)
        return value is not None and re.fullmatch(self.value, value, re.DOTALL) is not None

    def _value_on(self, node: Node) -> str | None:
        match self.kind:
            case MarkKind.TAINT:
                return next((taint.value for taint in node.taints if taint.key == self.key), None)
            case MarkKind.LABEL:
                return node.labels.get(self.key)
            case MarkKind.ANNOTATION:
                return node.annotations.get(self.key)
            case MarkKind.CONDITION:
                condition = node.condition(self.key)
                return condition.reason if condition and condition.status == "True" else None


_REMOVES, _HOLDS = OwnerClaim.REMOVES, OwnerClaim.HOLDS
_TAINT, _LABEL, _ANNOTATION, _CONDITION = MarkKind
NODE_MARKS = (
    NodeMark("Karpenter", _REMOVES, _TAINT, "karpenter.sh/disrupted"),
    NodeMark("Karpenter", _REMOVES, _TAINT, "karpenter.sh/disruption"),
    NodeMark("the cluster autoscaler", _REMOVES, _TAINT, "ToBeDeletedByClusterAutoscaler"),
    # The termination handler of OpenShift writes this condition too, with another reason, and drains nothing itself.
    NodeMark("Gardener", _REMOVES, _CONDITION, "Terminating", "Unhealthy|ScaleDown"),
    NodeMark("Karpenter", _HOLDS, _TAINT, "karpenter.sh/rebooting"),
    NodeMark("the OpenShift Machine Config Operator", _HOLDS, _ANNOTATION, names.OPENSHIFT_DESIRED_DRAIN, "drain-.*"),
    NodeMark("Talos", _HOLDS, _ANNOTATION, names.TALOS_CORDONED, only_if_cordoned=True),
    # NVSentinel has given up, or has finished, in its other states.
    NodeMark(
        "NVSentinel",
        _HOLDS,
        _LABEL,
        "dgxc.nvidia.com/nvsentinel-state",
        "quarantined|draining|drain-succeeded|remediating",
    ),
    NodeMark("Node Maintenance (medik8s)", _HOLDS, _TAINT, "medik8s.io/drain"),
    NodeMark("Self Node Remediation (medik8s)", _HOLDS, _TAINT, "medik8s.io/remediation"),
    NodeMark("Fence Agents Remediation (medik8s)", _HOLDS, _TAINT, "medik8s.io/fence-agents-remediation"),
    NodeMark("Fence Agents Remediation (medik8s)", _HOLDS, _TAINT, "remediation.medik8s.io/fence-agents-remediation"),
)
"""Each key is read from the source code of its controller. The first mark of a node decides: removals come first."""
_OBJECT_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_DELETE_MACHINE_ANNOTATION = "cluster.x-k8s.io/delete-machine"
_UPDATE_MACHINE_ANNOTATION = "in-place-updates.internal.cluster.x-k8s.io/update-in-progress"
_MAX_HOLDER_LENGTH = 253
MEDIK8S_LEASE_NAMESPACE = "medik8s-leases"
"""Namespace of the Leases by which medik8s operators hold a node. Each Lease is named `node-<node>`."""


@dataclass(frozen=True, slots=True)
class MachineRef:
    """Reference to a Cluster API Machine."""

    namespace: str
    name: str


def node_owner_reason(node: Node, *, has_started: bool = False) -> str | None:
    """Return which other controller removes or holds the node, by the Node itself; None if none.

    A drain that has started waits only for a removal.
    """
    if node.deleting:
        return messages.NODE_DELETING
    marks = (mark for mark in NODE_MARKS if mark.claim is OwnerClaim.REMOVES or not has_started)
    mark = next((mark for mark in marks if mark.is_on(node)), None)
    return messages.node_owned(mark.owner, mark.claim.value, f"{mark.kind} {mark.key}") if mark else None


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


def machine_owner_reason(raw: RawObject) -> str | None:
    """Return why Cluster API removes or holds a raw Machine; None if it does not."""
    meta = object_schemas.sanitize_metadata(raw)["metadata"]
    if "deletionTimestamp" in meta:
        return messages.machine_deleting(meta["name"])
    annotations = meta.get("annotations") or {}
    if _DELETE_MACHINE_ANNOTATION in annotations:
        return messages.machine_marked_for_deletion(meta["name"], _DELETE_MACHINE_ANNOTATION)
    if _UPDATE_MACHINE_ANNOTATION in annotations:
        return messages.machine_updating(meta["name"], _UPDATE_MACHINE_ANNOTATION)
    return None


def upgrade_plan_reason(raw: RawObject, node: Node) -> str | None:
    """Return that a raw Plan of the system-upgrade-controller upgrades the node now; None if it does not.

    The Plan names a node by its hostname label.
    """
    plan = object_schemas.sanitize_upgrade_plan(raw)
    if node.labels.get(HOSTNAME_LABEL, node.name) not in (plan["status"].get("applying") or ()):
        return None
    return messages.node_upgraded(f"{plan['metadata']['namespace']}/{plan['metadata']['name']}")


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
