"""NodeDrain: one node being emptied; the durable record, and the lock."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from pydantic import Field, create_model

from rescheduler.api import names
from rescheduler.api.conditions import Condition
from rescheduler.api.policies import DrainSettings
from rescheduler.api.scalars import Model, Time, TruncatedText
from rescheduler.api.untrusted import LATEST_TIME, bounded_text, parse_time, sanitize_custom_resource

_KEPT_ANNOTATIONS = (names.STEPPED_BACK,)
_MAX_ANNOTATION_LENGTH = 1024


class RequestReason(StrEnum):
    """Why a node is to be emptied."""

    MAINTENANCE = "Maintenance"
    FAILURE = "Failure"
    MANUAL = "Manual"


class Phase(StrEnum):
    """Where a drain stands: a summary for people; machines read the conditions."""

    WAITING = "Waiting"
    DRAINING = "Draining"
    BLOCKED = "Blocked"
    DRAINED = "Drained"
    RESTORING = "Restoring"


class BlockerClass(StrEnum):
    """What holds a pod back."""

    BUDGET_EXHAUSTED = "BudgetExhausted"
    BUDGET_MISCONFIGURED = "BudgetMisconfigured"
    SEVERAL_BUDGETS = "SeveralBudgets"
    BUDGET_NOT_OBSERVED = "BudgetNotObserved"
    THROTTLED = "Throttled"
    DELEGATED = "Delegated"
    ADMISSION_DENIED = "AdmissionDenied"
    NAMESPACE_TERMINATING = "NamespaceTerminating"
    STUCK_TERMINATING = "StuckTerminating"
    DO_NOT_DISRUPT = "DoNotDisrupt"
    UNMANAGED = "Unmanaged"
    EMPTY_DIR = "EmptyDir"
    LOCAL_VOLUME = "LocalVolume"
    NO_ROOM_IN_POOL = "NoRoomInPool"
    REPLACEMENT_NOT_READY = "ReplacementNotReady"
    WAITING_FOR_PROOF = "WaitingForProof"
    WAIT_COMPLETED = "WaitCompleted"
    UNREADABLE = "Unreadable"


class NodeDrainRequest(Model):
    """One reason to empty the node."""

    reason: RequestReason = Field(description="Maintenance and Failure are the operator's, Manual is the user's.")
    message: TruncatedText = Field(default="", description="For people: what for.")


def _optional_fields(model: type[Model]) -> dict[str, Any]:
    """The fields of a model without their defaults: an override that is absent overrides nothing."""
    fields: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        copy = info._copy()  # noqa: SLF001 - pydantic has no public way to keep the constraints
        copy.default, copy.default_factory = None, None
        fields[name] = (info.annotation | None if info.annotation else None, copy)
    return fields


class _Overrides(Model):
    def apply_to(self, drain: DrainSettings) -> DrainSettings:
        """The policy's drain with what is set here instead, field by field; `rules` is replaced whole."""
        given = {name: value for name in DrainSettings.model_fields if (value := getattr(self, name)) is not None}
        return drain.model_copy(update=given) if given else drain


if TYPE_CHECKING:

    class DrainOverrides(_Overrides):
        """What `create_model` makes below, as far as type checking needs it."""

else:
    DrainOverrides = create_model(
        "DrainOverrides",
        __base__=_Overrides,
        __doc__="Fields of the policy's drain, for this node alone.",
        **_optional_fields(DrainSettings),
    )


class NodeDrainSpec(Model):
    """Which node, and why."""

    node_name: str = Field(
        description="The node to empty; immutable, and the object's own name.", min_length=1, max_length=253
    )
    requests: tuple[NodeDrainRequest, ...] = Field(
        description="Why; the NodeDrain lives while one is left.",
        min_length=1,
        max_length=3,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["reason"]},
    )
    drain: DrainOverrides = Field(
        default_factory=DrainOverrides, description="Overrides the policy's drain, field by field."
    )


class TaintRecord(Model):
    """A taint of ours."""

    key: str = Field(description="The taint's key.", json_schema_extra={"maxLength": 317})
    value: str = Field(default="", description="The taint's value.", json_schema_extra={"maxLength": 63})
    effect: str = Field(description="The taint's effect.", json_schema_extra={"maxLength": 63})


class NodeRecord(Model):
    """What is ours on the node; restoring removes exactly this."""

    uid: str = Field(default="", description="The node's UID.", json_schema_extra={"maxLength": 253})
    boot_id: str = Field(
        default="",
        alias="bootID",
        description="The node's boot when the drain began.",
        json_schema_extra={"maxLength": 253},
    )
    cordoned_by_us: bool = Field(default=False, description="The node was not cordoned before.")
    added_taints: tuple[TaintRecord, ...] = Field(
        default=(), description="Taints that were added.", json_schema_extra={"maxItems": 16}
    )
    added_labels: dict[str, str] = Field(default_factory=dict, description="Labels that were added.")
    added_annotations: dict[str, str] = Field(default_factory=dict, description="Annotations that were added.")


class PolicyRef(Model):
    """The policy that decides."""

    name: str = Field(description="Its name.")
    uid: str = Field(default="", description="Its UID.")
    generation: int = Field(default=0, description="Its generation when last looked at.")


class PodCounts(Model):
    """The node's pods; total = moved + remaining: those that must leave."""

    total: int = Field(default=0, description="Pods that must leave.")
    moved: int = Field(default=0, description="Those that have left.")
    remaining: int = Field(default=0, description="Those that have not.")
    waiting_for_replacement: int = Field(default=0, description="Those released whose replacement is not Ready.")
    blocked: int = Field(default=0, description="Those with a blocker.")
    skipped: int = Field(default=0, description="Pods that stay: DaemonSet, mirror, Skip, cordon-tolerating.")


class Blocker(Model):
    """One pod that cannot leave, and why."""

    namespace: str = Field(description="The pod's namespace.", json_schema_extra={"maxLength": 253})
    pod: str = Field(description="The pod's name.", json_schema_extra={"maxLength": 253})
    class_: BlockerClass = Field(alias="class", description="What holds it back.")
    message: TruncatedText = Field(default="", description="Why, in words.")
    since: Time = Field(description="Since when.")
    pdb: str | None = Field(
        default=None, description="The PodDisruptionBudget concerned.", json_schema_extra={"maxLength": 253}
    )
    healthy: int | None = Field(default=None, description="Healthy pods that the budget counts.")
    needed: int | None = Field(default=None, description="Healthy pods that the budget needs.")
    hint: TruncatedText = Field(default="", description="What would unblock it.")


class NodeDrainStatus(Model):
    """How far it is; every clock that matters is here."""

    observed_generation: int | None = Field(default=None, description="The generation last looked at.")
    phase: Phase | None = Field(default=None, description="A summary for people; machines read the conditions.")
    reasons: str | None = Field(
        default=None, description="Why, all requests in one value: a table shows only the first of a list."
    )
    waiting: str | None = Field(
        default=None,
        description="Why the drain waits: the reason of Progressing=False; a table cannot choose by type and status.",
    )
    node: NodeRecord | None = Field(default=None, description="What is ours on the node.")
    policy: PolicyRef | None = Field(default=None, description="The policy that decides.")
    started_at: Time | None = Field(default=None, description="When the drain began: the cordon.")
    drained_at: Time | None = Field(default=None, description="When the last pod was gone.")
    paused_at: Time | None = Field(default=None, description="Since when the drain is paused.")
    paused_seconds: int | None = Field(
        default=None, description="Time spent paused so far; seconds.", json_schema_extra={"minimum": 0}
    )
    recordoned_at: Time | None = Field(
        default=None, description="When the node was cordoned again after somebody uncordoned it."
    )
    estimated_completion: str | None = Field(
        default=None, description="When it should be done.", json_schema_extra={"maxLength": 64}
    )
    progress: str | None = Field(
        default=None,
        description="Pods moved of all that must leave, such as 17/42.",
        json_schema_extra={"maxLength": 64},
    )
    pods: PodCounts | None = Field(default=None, description="Pod counts.")
    blockers: tuple[Blocker, ...] = Field(
        default=(), max_length=50, description="Pods that cannot leave, the oldest first; blockersTotal counts all."
    )
    blockers_total: int | None = Field(default=None, description="All pods that cannot leave.")
    conditions: tuple[Condition, ...] = Field(
        default=(),
        description="Progressing, Cordoned, Drained, Blocked, Fenced, FitsWindow, and the gates'.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )


class NodeDrain(Model):
    """A NodeDrain as read."""

    name: str
    uid: str
    resource_version: str
    generation: int
    created: datetime | None
    deletion_timestamp: datetime | None
    finalizers: tuple[str, ...]
    annotations: dict[str, str]
    spec: NodeDrainSpec
    status: NodeDrainStatus

    @classmethod
    def from_object(cls, raw: Mapping[str, Any]) -> "NodeDrain":
        """From the raw object. Raises ValueError (UnreadableError, or pydantic's) that names the field."""
        raw = sanitize_custom_resource(raw)
        meta = raw["metadata"]
        annotations = meta.get("annotations") or {}
        return cls(
            name=meta["name"],
            uid=meta.get("uid", ""),
            resource_version=meta.get("resourceVersion", ""),
            generation=meta.get("generation", 0),
            created=parse_time(meta.get("creationTimestamp")),
            deletion_timestamp=(parse_time(meta["deletionTimestamp"]) or LATEST_TIME)
            if "deletionTimestamp" in meta
            else None,
            finalizers=tuple(meta.get("finalizers") or ()),
            annotations={
                key: bounded_text(annotations[key], _MAX_ANNOTATION_LENGTH)
                for key in _KEPT_ANNOTATIONS
                if key in annotations
            },
            spec=NodeDrainSpec.model_validate(raw["spec"]),
            status=NodeDrainStatus.model_validate(raw["status"] or {}),
        )
