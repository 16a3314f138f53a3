"""NodeDrain: the drain of one node. It is the durable record of the drain and the lock on the node."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from pydantic import Field, create_model

from rescheduler.api import names
from rescheduler.api.conditions import Condition
from rescheduler.api.field_writers import FieldWriter, last_field_writer
from rescheduler.api.history import DrainHistory
from rescheduler.api.policies import MAX_CHAIN_MOVES, DrainSettings, OptOutTool
from rescheduler.api.scalars import Model, Time, TruncatedText
from rescheduler.api.untrusted import LATEST_TIME, bounded_text, parse_time, sanitize_custom_resource

_KEPT_ANNOTATIONS = (names.STEPPED_BACK,)
_MAX_ANNOTATION_LENGTH = 1024
MAX_PODS_WAITING_FOR_NODE = 500
"""The status names at most this many pods that wait for their node: more than a node can run."""
MAX_OWNERS_CAME_BACK = 500
"""The status names at most this many owners of pods that came back: more than a node can run pods."""


class RequestReason(StrEnum):
    """Reason of a drain request."""

    MAINTENANCE = "Maintenance"
    FAILURE = "Failure"
    MANUAL = "Manual"


class Phase(StrEnum):
    """Phase of a drain, a summary for people. Programs read the conditions."""

    WAITING = "Waiting"
    DRAINING = "Draining"
    BLOCKED = "Blocked"
    DRAINED = "Drained"
    RESTORING = "Restoring"


class BlockerClass(StrEnum):
    """Class of a blocker: why a pod cannot leave its node. Source: docs/reference/blockers.md."""

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
    """A request to drain the node."""

    reason: RequestReason = Field(
        description="Maintenance and Failure are set by the operator, Manual is set by users."
    )
    message: TruncatedText = Field(default="", description="Human-readable cause of the request.")


def _optional_fields(model: type[Model]) -> dict[str, Any]:
    """Return the fields of a model with None as default, because an absent override must not change the policy."""
    fields: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        copy = info._copy()  # noqa: SLF001 - pydantic has no public way to keep the constraints
        copy.default, copy.default_factory = None, None
        fields[name] = (info.annotation | None if info.annotation else None, copy)
    return fields


class _Overrides(Model):
    def apply_to(self, drain: DrainSettings) -> DrainSettings:
        """Return the policy's drain settings with the fields that are set here. `rules` is replaced as a whole."""
        given = {name: value for name in DrainSettings.model_fields if (value := getattr(self, name)) is not None}
        return drain.model_copy(update=given) if given else drain


if TYPE_CHECKING:

    class DrainOverrides(_Overrides):
        """Stand-in for the type checker, which cannot read the model that `create_model` makes below."""

else:
    DrainOverrides = create_model(
        "DrainOverrides",
        __base__=_Overrides,
        __doc__="Fields that override the policy's `drain` for this node only.",
        **_optional_fields(DrainSettings),
    )


class NodeDrainSpec(Model):
    """Drain of one node: which node is drained, and why."""

    node_name: str = Field(
        description="Name of the node to drain. Immutable, and equal to metadata.name.", min_length=1, max_length=253
    )
    requests: tuple[NodeDrainRequest, ...] = Field(
        description="Why the node is drained. The NodeDrain exists as long as one request is left.",
        min_length=1,
        max_length=3,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["reason"]},
    )
    drain: DrainOverrides = Field(
        default_factory=DrainOverrides,
        description="Overrides `drain` of the policy, field by field. `rules` is replaced as a whole.",
    )


class TaintRecord(Model):
    """A taint that the drain added to the node."""

    key: str = Field(description="The taint's key.", json_schema_extra={"maxLength": 317})
    value: str = Field(default="", description="The taint's value.", json_schema_extra={"maxLength": 63})
    effect: str = Field(description="The taint's effect.", json_schema_extra={"maxLength": 63})


class NodeRecord(Model):
    """Everything that the drain added to the node. A restore removes exactly this."""

    uid: str = Field(default="", description="The node's UID.", json_schema_extra={"maxLength": 253})
    boot_id: str = Field(
        default="",
        alias="bootID",
        description="Boot ID of the node when the drain began.",
        json_schema_extra={"maxLength": 253},
    )
    cordoned_by_us: bool = Field(
        default=False,
        description="Whether the drain cordoned the node. A node that was cordoned before stays cordoned.",
    )
    added_taints: tuple[TaintRecord, ...] = Field(
        default=(), description="Taints that the drain added.", json_schema_extra={"maxItems": 16}
    )
    added_labels: dict[str, str] = Field(default_factory=dict, description="Labels that the drain added.")
    added_annotations: dict[str, str] = Field(default_factory=dict, description="Annotations that the drain added.")


class PolicyRef(Model):
    """The policy that decides for the node."""

    name: str = Field(description="Name of the policy.")
    uid: str = Field(default="", description="UID of the policy.")
    generation: int = Field(default=0, description="Generation of the policy that the operator last read.")


class PodCounts(Model):
    """Counts of the node's pods. `total` is `moved` plus `remaining`."""

    total: int = Field(default=0, description="Pods that must leave.")
    moved: int = Field(default=0, description="Pods that have left.")
    remaining: int = Field(default=0, description="Pods that must leave and are still on the node.")
    waiting_for_replacement: int = Field(default=0, description="Released pods whose replacement is not Ready.")
    blocked: int = Field(default=0, description="Pods with a blocker.")
    opted_out: int = Field(
        default=0, description="Pods that leave although they ask another tool not to disrupt them (see optedOut)."
    )
    skipped: int = Field(
        default=0,
        description="Pods that stay: DaemonSet pods, mirror pods, Skip pods, and pods that tolerate the cordon and "
        "that no eviction moves.",
    )
    waits_for_node: int = Field(
        default=0,
        description="Pods that only this node can have. They leave, and their new pods wait for the node.",
    )


class Blocker(Model):
    """A pod that cannot leave the node, and the reason."""

    namespace: str = Field(description="The pod's namespace.", json_schema_extra={"maxLength": 253})
    pod: str = Field(description="The pod's name.", json_schema_extra={"maxLength": 253})
    class_: BlockerClass = Field(alias="class", description="Class of the blocker, such as BudgetExhausted.")
    message: TruncatedText = Field(default="", description="Human-readable reason why the pod cannot leave.")
    since: Time = Field(description="When the pod became blocked.")
    pdb: str | None = Field(
        default=None, description="PodDisruptionBudget that blocks the pod.", json_schema_extra={"maxLength": 253}
    )
    healthy: int | None = Field(default=None, description="Healthy pods that the PodDisruptionBudget counts.")
    needed: int | None = Field(default=None, description="Healthy pods that the PodDisruptionBudget requires.")
    hint: TruncatedText = Field(default="", description="Next step that would unblock the pod.")


class OptedOutPod(Model):
    """A pod that leaves although it asks another tool not to disrupt it."""

    namespace: str = Field(description="The pod's namespace.", json_schema_extra={"maxLength": 253})
    pod: str = Field(description="The pod's name.", json_schema_extra={"maxLength": 253})
    annotations: tuple[str, ...] = Field(
        description="Keys of the annotations, such as karpenter.sh/do-not-disrupt.", max_length=len(OptOutTool)
    )


class CameBackPods(Model):
    """New pods of an owner that started on the node after its cordon."""

    namespace: str = Field(description="Namespace of the pods.", json_schema_extra={"maxLength": 253})
    kind: str = Field(
        description="Kind of the owner, with its group unless it is built in.", json_schema_extra={"maxLength": 317}
    )
    name: str = Field(description="Name of the owner.", json_schema_extra={"maxLength": 253})
    uid: str = Field(description="UID of the owner.", json_schema_extra={"maxLength": 253})
    pods: tuple[str, ...] = Field(
        max_length=3,
        description="UIDs of the first three of these pods. After the third, no pod of the owner is evicted.",
        json_schema_extra={"items": {"type": "string", "maxLength": 253}},
    )
    tolerates_cordon: bool = Field(
        default=False,
        description="Whether the last of these pods tolerates the cordon. Otherwise its controller sets spec.nodeName, "
        "or its scheduler ignores the cordon.",
    )
    last_created_at: Time = Field(description="When the last of these pods was created.")


class ChainMoveState(StrEnum):
    """State of a chain move."""

    MOVING = "Moving"
    MOVED = "Moved"
    FAILED = "Failed"


class ChainMoveStatus(Model):
    """A pod of another node that the drain moves first, so that a pod without room fits."""

    namespace: str = Field(description="The pod's namespace.", json_schema_extra={"maxLength": 253})
    pod: str = Field(description="The pod's name.", json_schema_extra={"maxLength": 253})
    uid: str = Field(description="The pod's UID.", json_schema_extra={"maxLength": 253})
    node: str = Field(description="Node that the pod leaves.", json_schema_extra={"maxLength": 253})
    for_pod: str = Field(
        description="Pod of the drained node that gets room, as namespace/name.", json_schema_extra={"maxLength": 507}
    )
    for_uid: str = Field(description="UID of the pod that gets room.", json_schema_extra={"maxLength": 253})
    holds_others: bool = Field(
        default=False, description="Whether the other pods of the drained node wait, because they would take the room."
    )
    state: ChainMoveState = Field(
        description="Moving: the pod is replaced first, then it leaves. Moved: the pod has left its node. Failed: the "
        "pod stays, and the drain continues without the move."
    )
    since: Time = Field(description="When this state began.")
    message: TruncatedText = Field(default="", description="Human-readable cause of a failure.")


class NodeDrainStatus(Model):
    """Progress of the drain. All times that the drain depends on are here, so that a restart loses none."""

    observed_generation: int | None = Field(
        default=None, description="Generation of the NodeDrain that the operator last read."
    )
    phase: Phase | None = Field(default=None, description="Summary for people. Programs read the conditions.")
    reasons: str | None = Field(
        default=None, description="Reasons of all requests in one value, for the table of kubectl get."
    )
    waiting: str | None = Field(
        default=None,
        description="Why the drain waits: the reason of Progressing=False, for the table of kubectl get.",
    )
    node: NodeRecord | None = Field(
        default=None, description="What the drain added to the node. A restore removes exactly this."
    )
    policy: PolicyRef | None = Field(default=None, description="The policy that decides for the node.")
    started_at: Time | None = Field(default=None, description="When the drain began, with the cordon.")
    drained_at: Time | None = Field(default=None, description="When the last pod that must leave was gone.")
    paused_at: Time | None = Field(
        default=None, description="When the current pause began. Absent while the drain is not paused."
    )
    paused_seconds: int | None = Field(
        default=None,
        description="Seconds that the drain was paused before the current pause.",
        json_schema_extra={"minimum": 0},
    )
    recordoned_at: Time | None = Field(
        default=None, description="When the node was cordoned again after somebody uncordoned it."
    )
    estimated_completion: str | None = Field(
        default=None,
        description="When the drain is expected to be done. Absent if this cannot be known.",
        json_schema_extra={"maxLength": 64},
    )
    progress: str | None = Field(
        default=None,
        description="Moved pods of all pods that must leave, such as 17/42.",
        json_schema_extra={"maxLength": 64},
    )
    pods: PodCounts | None = Field(default=None, description="Counts of the node's pods.")
    blockers: tuple[Blocker, ...] = Field(
        default=(),
        max_length=50,
        description="Pods that cannot leave, at most 50, the oldest first. blockersTotal counts all.",
    )
    blockers_total: int | None = Field(default=None, description="Number of all pods that cannot leave.")
    opted_out: tuple[OptedOutPod, ...] = Field(
        default=(),
        max_length=50,
        description="Pods that leave although they ask another tool not to disrupt them, at most 50. pods.optedOut "
        "counts all. List the tool in drain.honour, and the drain waits for such pods.",
    )
    waits_for_node: tuple[str, ...] = Field(
        default=(),
        max_length=MAX_PODS_WAITING_FOR_NODE,
        description="Pods that only this node can have, as namespace/name. They leave, and their new pods wait for the "
        "node. pods.waitsForNode counts them.",
        json_schema_extra={"items": {"type": "string", "maxLength": 507}},
    )
    came_back: tuple[CameBackPods, ...] = Field(
        default=(),
        max_length=MAX_OWNERS_CAME_BACK,
        description="New pods that started on the node after its cordon, by owner.",
    )
    history: DrainHistory = Field(
        default_factory=DrainHistory,
        description="What the drain did so far. The record of the finished drain is made from it.",
    )
    chain_moves: tuple[ChainMoveStatus, ...] = Field(
        default=(),
        max_length=MAX_CHAIN_MOVES,
        description="Pods of other nodes that the drain moves first, so that pods without room fit (drain.chainMoves).",
    )
    conditions: tuple[Condition, ...] = Field(
        default=(),
        description="Progressing, Cordoned, Drained, Blocked, Fenced, FitsWindow, and the conditions of drain.gates.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )


class NodeDrain(Model):
    """A NodeDrain with typed spec and status; `requests_writer`: the client, apart from the operator, that wrote it."""

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
    requests_writer: FieldWriter = FieldWriter()

    @classmethod
    def from_object(cls, raw: Mapping[str, Any]) -> "NodeDrain":
        """Parse a raw NodeDrain. Raises ValueError (UnreadableError, or pydantic's) that names the field."""
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
            requests_writer=last_field_writer(meta, "spec", "requests", without=names.FIELD_MANAGER),
        )
