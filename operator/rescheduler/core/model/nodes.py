"""Nodes as small frozen records, parsed from raw JSON once.

No other module keeps raw nodes: a raw Node has about 14 kB, mostly images, a record some hundred bytes.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache

from rescheduler.api import names
from rescheduler.api.field_writers import FieldWriter, last_field_writer
from rescheduler.api.untrusted import bounded_text, parse_json_object, parse_time, truncate_with_digest
from rescheduler.core.model import object_schemas
from rescheduler.core.model.quantities import parse_quantity
from rescheduler.core.model.raw import RawObject

CONDITION_UNKNOWN = "Unknown"
"""Status of `Ready` if the kubelet does not report to the node controller."""

_KEPT_ANNOTATIONS = (
    names.MAINTENANCE,
    names.CANCELLED,
    names.FENCED,
    names.SCALE_DOWN_DISABLED,
    names.KARPENTER_DO_NOT_DISRUPT,
    names.MACHINE,
    names.MACHINE_NAMESPACE,
    names.OPENSHIFT_DESIRED_DRAIN,
    names.TALOS_CORDONED,
)
_MAX_MAINTENANCE_LENGTH = 1024
_MAX_ANNOTATION_LENGTH = 16_384
_MAX_BOOT_ID_LENGTH = 253
_MAX_REASON_LENGTH = 1024


@dataclass(frozen=True, slots=True)
class NodeCondition:
    """Entry of a Node's `status.conditions`.

    Attributes:
        last_transition: `lastTransitionTime`, by the writer's clock; None if absent or unreadable.
        last_heartbeat: `lastHeartbeatTime`, by the writer's clock; None if absent or unreadable.
    """

    type: str
    status: str
    reason: str = ""
    last_transition: datetime | None = None
    last_heartbeat: datetime | None = None


@dataclass(frozen=True, slots=True)
class Taint:
    """Taint of a Node.

    Attributes:
        time_added: `timeAdded`; a patch of all taints must keep it. Empty if absent.
    """

    key: str
    value: str
    effect: str
    time_added: str = ""

    def as_json(self) -> dict[str, str]:
        """Return the taint in the form of the API."""
        body = {"key": self.key, "value": self.value, "effect": self.effect, "timeAdded": self.time_added}
        return {name: value for name, value in body.items() if value}


CORDON_TAINT = Taint("node.kubernetes.io/unschedulable", "", "NoSchedule")
"""The node lifecycle controller sets this taint on a cordoned node."""


def matches_taint(key: str, operator: str, value: str, effect: str, taint: Taint) -> bool:
    """Whether a toleration with these fields tolerates the taint (component-helpers scheduling/corev1).

    A toleration with an operator that Rescheduler does not know tolerates no taint: see `may_tolerate`.
    """
    if effect not in ("", taint.effect) or key not in ("", taint.key):
        return False
    return operator == "Exists" or (operator in ("", "Equal") and bool(key) and value == taint.value)


@dataclass(frozen=True, slots=True)
class Node:
    """A Node: the fields that the operator uses.

    Attributes:
        uid: differs between two Nodes of one name.
        resource_version: the resourceVersion of the object that was parsed.
        boot_id: changes with every boot of the machine; empty before the kubelet first reports.
        created: the creation time; None if unreadable.
        unschedulable: whether the node is cordoned.
        deleting: whether the Node has a deletionTimestamp.
        annotations: only those that the operator reads.
        maintenance_writer: the client that wrote the maintenance annotation.
        allocatable: resources for pods, CPU in thousandths, others in units; equal nodes share one mapping.
    """

    name: str
    uid: str
    resource_version: str = ""
    boot_id: str = ""
    created: datetime | None = None
    unschedulable: bool = False
    deleting: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    maintenance_writer: FieldWriter = field(default_factory=FieldWriter)
    taints: tuple[Taint, ...] = ()
    conditions: tuple[NodeCondition, ...] = ()
    allocatable: Mapping[str, int] = field(default_factory=dict)

    def condition(self, type_: str) -> NodeCondition | None:
        """Return the condition of this type; None if the node has none."""
        return next((c for c in self.conditions if c.type == type_), None)

    @property
    def ready_status(self) -> str:
        """Return the status of `Ready`: True, False or Unknown; Unknown if the node has no such condition."""
        condition = self.condition("Ready")
        return condition.status if condition else CONDITION_UNKNOWN

    @property
    def maintenance_annotation(self) -> str | None:
        """Return the text of the maintenance annotation; None if absent."""
        return self.annotations.get(names.MAINTENANCE)

    @property
    def cancelled_requests(self) -> Mapping[str, str]:
        """Return the token of each cancelled request by reason; an unreadable annotation counts as none."""
        with contextlib.suppress(ValueError):
            tokens = parse_json_object(self.annotations.get(names.CANCELLED, "{}"), _MAX_ANNOTATION_LENGTH)
            return {reason: token for reason, token in tokens.items() if isinstance(token, str)}
        return {}


def parse_node(raw: RawObject) -> Node:
    """Parse a raw Node. Raises UnreadableError without a name."""
    raw = object_schemas.sanitize_node(raw)
    meta, spec, status = raw["metadata"], raw["spec"], raw["status"]
    name, annotations = meta["name"], meta.get("annotations") or {}
    return Node(
        name=name,
        uid=meta.get("uid", ""),
        resource_version=meta.get("resourceVersion", ""),
        boot_id=truncate_with_digest((status.get("nodeInfo") or {}).get("bootID"), _MAX_BOOT_ID_LENGTH),
        created=parse_time(meta.get("creationTimestamp")),
        unschedulable=bool(spec.get("unschedulable")),
        deleting="deletionTimestamp" in meta,
        labels={
            share(key): name if value == name else share(value) for key, value in (meta.get("labels") or {}).items()
        },
        annotations={
            key: _bounded_annotation(key, annotations[key]) for key in _KEPT_ANNOTATIONS if key in annotations
        },
        maintenance_writer=last_field_writer(meta, "metadata", "annotations", names.MAINTENANCE)
        if names.MAINTENANCE in annotations
        else FieldWriter(),
        taints=tuple(
            Taint(t["key"], t.get("value", ""), t["effect"], t.get("timeAdded", "")) for t in spec.get("taints") or ()
        ),
        conditions=tuple(
            NodeCondition(
                share(c["type"]),
                share(c["status"]),
                share(bounded_text(c.get("reason"), _MAX_REASON_LENGTH)),
                parse_time(c.get("lastTransitionTime")),
                parse_time(c.get("lastHeartbeatTime")),
            )
            for c in status.get("conditions") or ()
        ),
        allocatable=_parse_allocatable(tuple((status.get("allocatable") or {}).items())),
    )


def _bounded_annotation(key: str, value: str) -> str:
    """Return the annotation, cut to the limit of its key; cut values of different texts differ."""
    return truncate_with_digest(value, _MAX_MAINTENANCE_LENGTH if key == names.MAINTENANCE else _MAX_ANNOTATION_LENGTH)


@lru_cache(maxsize=4096)
def share(text: str) -> str:
    """Return this text as the object that other nodes with an equal text have: most texts of a node are the same."""
    return text


@lru_cache(maxsize=10_000)
def _parse_allocatable(resources: tuple[tuple[str, str], ...]) -> Mapping[str, int]:
    return {name: parse_quantity(name, quantity, 0) for name, quantity in resources}
