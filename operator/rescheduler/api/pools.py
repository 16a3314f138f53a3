"""NamespacePool: which namespaces live on which nodes."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import Field

from rescheduler.api import names
from rescheduler.api.conditions import Condition
from rescheduler.api.policies import Mode
from rescheduler.api.scalars import Model, NumberOrPercent, Time, TruncatedText
from rescheduler.api.selectors import LabelSelector
from rescheduler.api.untrusted import parse_time, sanitize_custom_resource


class ExistingPods(StrEnum):
    """Action for pods that run outside their pool."""

    LEAVE = "Leave"
    MOVE = "Move"


class NamespacePoolSpec(Model):
    """Pool of nodes for namespaces: which namespaces run on which nodes."""

    namespaces: tuple[str, ...] = Field(
        default=(),
        description="Namespaces of the pool, by name. Set this, namespaceSelector, or both.",
        max_length=5000,
        json_schema_extra={
            "items": {"type": "string", "minLength": 1, "maxLength": 63, "pattern": r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"},
            "x-kubernetes-list-type": "set",
        },
    )
    namespace_selector: LabelSelector | None = Field(
        default=None, description="Namespaces of the pool, by their labels."
    )
    node_selector: LabelSelector = Field(
        description="Nodes of the pool, by their labels. An empty selector is refused."
    )
    exclusive: bool = Field(
        default=True, description="Whether a taint keeps pods of other namespaces off the nodes of the pool."
    )
    mode: Mode = Field(
        default=Mode.ENFORCE, description="Enforce, or Audit: report what would change, and change nothing."
    )
    existing_pods: ExistingPods = Field(
        default=ExistingPods.LEAVE,
        description="Running pods outside their pool, and other pods on nodes of an exclusive pool: Leave or Move.",
    )
    max_unavailable: NumberOrPercent = Field(
        default=NumberOrPercent(20, is_percent=True),
        description="Limit of the pool's nodes that Rescheduler takes out at the same time, for all reasons together: a number or a percentage.",
    )


class Resources(Model):
    """Sums of resources over a pool, as quantities of Kubernetes."""

    cpu: str | None = Field(default=None, description="CPU, such as 4 or 500m.")
    memory: str | None = Field(default=None, description="Memory, such as 16Gi.")
    pods: str | None = Field(default=None, description="Number of pods.")


class PoolBlocker(Model):
    """A pod that cannot be moved into its pool, and the reason."""

    namespace: str = Field(description="The pod's namespace.")
    pod: str = Field(description="The pod's name.")
    class_: str = Field(alias="class", description="Class of the blocker, such as NoRoomInPool.")
    message: TruncatedText = Field(default="", description="Human-readable reason why the pod cannot be moved.")


class NamespacePoolStatus(Model):
    """State of the pool."""

    observed_generation: int | None = Field(
        default=None, description="Generation of the pool that the operator last read."
    )
    nodes: int | None = Field(default=None, description="Number of nodes of the pool.")
    ready_nodes: int | None = Field(default=None, description="Number of nodes that are Ready.")
    namespaces: int | None = Field(default=None, description="Number of namespaces of the pool.")
    pods: int | None = Field(default=None, description="Number of pods of the pool's namespaces.")
    pods_unschedulable: int | None = Field(
        default=None, description="Number of these pods for which the scheduler has found no node."
    )
    pods_outside: int | None = Field(default=None, description="Number of these pods that run outside the pool.")
    pods_foreign: int | None = Field(
        default=None, description="Number of pods of other namespaces on the nodes of an exclusive pool."
    )
    requested: Resources | None = Field(default=None, description="Sum of the requests of the pool's pods.")
    allocatable: Resources | None = Field(
        default=None, description="Sum of the allocatable resources of the pool's nodes."
    )
    counted_at: Time | None = Field(
        default=None,
        description="When the pods of the status were counted. Without any other change, renewed about once a minute.",
    )
    blockers: tuple[PoolBlocker, ...] = Field(
        default=(), max_length=50, description="Pods that cannot be moved into the pool, at most 50."
    )
    conditions: tuple[Condition, ...] = Field(
        default=(),
        description="Ready, Conflict, Enforced, TaintHeldBack, SurvivesNodeLoss, NodeLabelsTrusted.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )


@dataclass(frozen=True, slots=True)
class NamespacePool:
    """A NamespacePool with typed spec and status.

    Attributes:
        created: creation time. If two pools claim the same node or namespace, the older pool keeps it. None: unknown.
        admission_skip: whether the pool has the label `rescheduler.dev/admission-skip`.
    """

    name: str
    uid: str
    resource_version: str
    generation: int
    created: datetime | None
    spec: NamespacePoolSpec
    status: NamespacePoolStatus
    admission_skip: bool = False

    @classmethod
    def from_object(cls, raw: Mapping[str, Any]) -> "NamespacePool":
        """Parse a raw NamespacePool. Raises ValueError (UnreadableError, or pydantic's) that names the field."""
        raw = sanitize_custom_resource(raw)
        meta = raw["metadata"]
        return cls(
            meta["name"],
            meta.get("uid", ""),
            meta.get("resourceVersion", ""),
            meta.get("generation", 0),
            parse_time(meta.get("creationTimestamp")),
            NamespacePoolSpec.model_validate(raw["spec"]),
            NamespacePoolStatus.model_validate(raw["status"] or {}),
            names.ADMISSION_SKIP in (meta.get("labels") or {}),
        )
