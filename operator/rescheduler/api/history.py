"""The history of a drain: the part of a status that a drain collects, and the record of a finished drain."""

from enum import StrEnum
from typing import Any

from pydantic import Field

from rescheduler.api.scalars import Model, Time, TruncatedText

MAX_RECORDED_PODS = 100
"""A history names at most this many moves, and this many blocked pods. Counts and logs have all of them."""
_NAME: dict[str, Any] = {"maxLength": 253}


class MoveWay(StrEnum):
    """Way in which a pod left its node."""

    REPLACED_FIRST = "ReplacedFirst"
    EVICTED = "Evicted"
    DELETED = "Deleted"
    LEFT = "Left"


class Force(StrEnum):
    """Reason for which a pod was deleted without asking its budgets."""

    TIMEOUT = "Timeout"
    NOT_READY = "NotReady"
    NODE_UNREACHABLE = "NodeUnreachable"
    BOOT_DEAD = "BootDead"
    SURPLUS = "Surplus"


class Outcome(StrEnum):
    """End of a drain."""

    DRAINED = "Drained"
    CANCELLED = "Cancelled"
    NOT_STARTED = "NotStarted"
    NODE_GONE = "NodeGone"


class Requester(Model):
    """The client that requested a drain."""

    reason: str = Field(description="Reason of the request.", json_schema_extra={"maxLength": 63})
    message: TruncatedText = Field(default="", description="Message of the request when the operator first read it.")
    manager: str = Field(
        default="",
        description="Client that wrote the request, as metadata.managedFields names it, such as kubectl-annotate. "
        "Empty if it is not recorded.",
        json_schema_extra={"maxLength": 128},
    )
    time: Time | None = Field(default=None, description="When that client wrote the request.")


class Move(Model):
    """A pod that left the node."""

    namespace: str = Field(description="The pod's namespace.", json_schema_extra=_NAME)
    pod: str = Field(description="The pod's name.", json_schema_extra=_NAME)
    owner: str = Field(
        default="",
        description="Kind and name of its owner, such as Deployment/web. Empty without an owner.",
        json_schema_extra={"maxLength": 571},
    )
    way: MoveWay = Field(
        description="How the pod left. ReplacedFirst: evicted after its replacement was Ready. Evicted and Deleted: by "
        "the operator, without a replacement first. Left: without a request that this operator process knows of."
    )
    left_at: Time | None = Field(default=None, description="When the pod was gone. Absent while it leaves.")
    new_pod: str = Field(
        default="", description="Pod that replaced it first. Empty if none did.", json_schema_extra=_NAME
    )
    new_node: str = Field(default="", description="Node of that pod.", json_schema_extra=_NAME)
    blocked_seconds: int = Field(
        default=0, description="Seconds for which the pod was a blocker.", json_schema_extra={"minimum": 0}
    )
    forced: Force | None = Field(
        default=None,
        description="Why the pod was deleted without asking its budgets. Timeout: drain.onTimeout. NotReady: it was not "
        "Ready on a failed node. NodeUnreachable, BootDead: its node was. Surplus: its owner wants fewer pods. Absent "
        "if its budgets were asked.",
    )


class BlockedPod(Model):
    """A pod that was a blocker, and no longer is."""

    namespace: str = Field(description="The pod's namespace.", json_schema_extra=_NAME)
    pod: str = Field(description="The pod's name.", json_schema_extra=_NAME)
    class_: str = Field(alias="class", description="Class of the blocker.", json_schema_extra={"maxLength": 63})
    seconds: int = Field(description="Seconds for which it was a blocker.", json_schema_extra={"minimum": 0})


class DrainHistory(Model):
    """Requests, moves and blockers of a drain so far. The record of the finished drain is made from it."""

    requested_by: tuple[Requester, ...] = Field(
        default=(), max_length=3, description="Clients that requested the drain, at most one for each reason."
    )
    started_at: Time | None = Field(default=None, description="When the drain first began.")
    drained_at: Time | None = Field(default=None, description="When the node was last Drained.")
    proof: TruncatedText = Field(default="", description="The proof that the boot of the node was dead, if it counted.")
    moves: tuple[Move, ...] = Field(
        default=(), max_length=MAX_RECORDED_PODS, description="Pods that left, at most 100, the first ones."
    )
    moves_total: int = Field(default=0, description="Number of pods that left.", json_schema_extra={"minimum": 0})
    blocked: tuple[BlockedPod, ...] = Field(
        default=(), max_length=MAX_RECORDED_PODS, description="Pods that were blockers, at most 100, the first ones."
    )
    blocked_seconds: int = Field(
        default=0,
        description="Seconds for which pods were blockers, summed over all pods.",
        json_schema_extra={"minimum": 0},
    )


class DrainRecord(DrainHistory):
    """A finished drain."""

    node: str = Field(description="Name of the node.")
    node_uid: str = Field(default="", alias="nodeUID", description="UID of the node.")
    drain_uid: str = Field(alias="drainUID", description="UID of the NodeDrain. No two drains have the same.")
    outcome: Outcome = Field(
        description="Drained: all pods left. Cancelled: the drain ended before that. NotStarted: the node was never "
        "cordoned. NodeGone: the Node was deleted or replaced."
    )
    reasons: tuple[str, ...] = Field(default=(), description="Reasons of the requests at the end.")
    policy: str = Field(default="", description="Policy that decided for the node. Empty without one.")
    created_at: Time | None = Field(default=None, description="When the NodeDrain was created.")
    ended_at: Time = Field(description="When the node was restored and the NodeDrain ended.")
    paused_seconds: int = Field(default=0, description="Seconds for which the drain was paused.")


class MoveRecord(Move):
    """A move as the log has it."""

    node: str = Field(description="Node that the pod left.")
    pod_uid: str = Field(
        default="", alias="podUID", description="UID of the pod. Empty if it left while no operator ran."
    )
    cause: str = Field(description="Object that caused the move, such as NodeDrain/n1 or NamespacePool/shop.")
    policy: str = Field(default="", description="Policy that decided for the node. Empty if no request was sent.")
    requested_by: tuple[str, ...] = Field(
        default=(), description="Reason and client of each request, such as Maintenance kubectl-annotate."
    )
    released_at: Time | None = Field(default=None, description="When the pod was released, if it was replaced first.")
    blocked_by: tuple[str, ...] = Field(default=(), description="Classes of its blockers.")
    proof: TruncatedText = Field(default="", description="The proof that the boot of the node was dead, if it counted.")
