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
from rescheduler.api.scalars import Model, NumberOrPercent, TruncatedText
from rescheduler.api.selectors import LabelSelector
from rescheduler.api.untrusted import parse_time, sanitize_custom_resource


class ExistingPods(StrEnum):
    """What becomes of pods that run outside their pool."""

    LEAVE = "Leave"
    MOVE = "Move"


class NamespacePoolSpec(Model):
    """Namespaces and the nodes that they live on."""

    namespaces: tuple[str, ...] = Field(
        default=(),
        description="Namespaces of the pool by name; and/or namespaceSelector, at least one of the two.",
        max_length=5000,
        json_schema_extra={
            "items": {"type": "string", "minLength": 1, "maxLength": 63, "pattern": r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"},
            "x-kubernetes-list-type": "set",
        },
    )
    namespace_selector: LabelSelector | None = Field(
        default=None, description="Namespaces of the pool by their labels."
    )
    node_selector: LabelSelector = Field(description="The pool's nodes by their labels; an empty selector is refused.")
    exclusive: bool = Field(default=True, description="Other namespaces' pods are kept off the pool's nodes.")
    mode: Mode = Field(default=Mode.ENFORCE, description="Enforce, or Audit: say what would change, change nothing.")
    existing_pods: ExistingPods = Field(
        default=ExistingPods.LEAVE, description="Pods that run outside their pool: Leave or Move."
    )
    max_unavailable: NumberOrPercent = Field(
        default=NumberOrPercent(20, is_percent=True),
        description="Of the pool's nodes that rescheduling may take out at once, all reasons together: number or percentage.",
    )


class Resources(Model):
    """Sums over a pool, as quantities."""

    cpu: str | None = Field(default=None, description="CPU, such as 4 or 500m.")
    memory: str | None = Field(default=None, description="Memory, such as 16Gi.")
    pods: str | None = Field(default=None, description="Number of pods.")


class PoolBlocker(Model):
    """One pod that cannot be moved into its pool, and why."""

    namespace: str = Field(description="The pod's namespace.")
    pod: str = Field(description="The pod's name.")
    class_: str = Field(alias="class", description="What holds it back.")
    message: TruncatedText = Field(default="", description="Why, in words.")


class NamespacePoolStatus(Model):
    """The pool at a glance."""

    observed_generation: int | None = Field(default=None, description="The generation last looked at.")
    nodes: int | None = Field(default=None, description="Nodes of the pool.")
    ready_nodes: int | None = Field(default=None, description="Those that are Ready.")
    namespaces: int | None = Field(default=None, description="Namespaces of the pool.")
    pods: int | None = Field(default=None, description="Pods of the pool's namespaces.")
    pods_outside: int | None = Field(default=None, description="Those that run outside the pool.")
    pods_foreign: int | None = Field(default=None, description="Other pods on the nodes of an exclusive pool.")
    requested: Resources | None = Field(default=None, description="Sum of the pods' requests.")
    allocatable: Resources | None = Field(default=None, description="Sum of what the nodes have.")
    blockers: tuple[PoolBlocker, ...] = Field(default=(), max_length=50, description="Pods that cannot be moved.")
    conditions: tuple[Condition, ...] = Field(
        default=(),
        description="Ready, Conflict, Enforced, TaintHeldBack, SurvivesNodeLoss, NodeLabelsTrusted.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )


@dataclass(frozen=True, slots=True)
class NamespacePool:
    """A NamespacePool as read.

    Attributes:
        created: decides which of two pools keeps what both claim.
        spoken_for: it has that label.
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
        """From the raw object. Raises ValueError (UnreadableError, or pydantic's) that names the field."""
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
