"""ReschedulePolicy: which nodes, when, how."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

from pydantic import Field

from rescheduler.api.scalars import POSITIVE_DURATION_RULE, Duration, Model, NumberOrPercent
from rescheduler.api.selectors import KEY_PATTERN, LabelSelector
from rescheduler.api.untrusted import sanitize_custom_resource
from rescheduler.api.windows import Window

_CONDITION_TYPE = KEY_PATTERN
"""A condition's type has the syntax of a label's key."""


class Mode(StrEnum):
    """Whether decisions are carried out."""

    ENFORCE = "Enforce"
    AUDIT = "Audit"


class Suspend(StrEnum):
    """What is held back for now."""

    NONE = "None"
    NEW = "New"
    ALL = "All"


class OnWindowClose(StrEnum):
    """What a closing window does to what runs."""

    FINISH = "Finish"
    PAUSE = "Pause"


class Force(StrEnum):
    """When pods that must not run twice are forced off a dead node."""

    WITH_PROOF = "WithProof"
    NEVER = "Never"


class ReplacementMode(StrEnum):
    """Whether the new pod has to run before the old one goes."""

    REQUIRED = "Required"
    PREFERRED = "Preferred"
    WHEN_BLOCKED = "WhenBlocked"
    NEVER = "Never"


REPLACEMENT_ANNOTATION_VALUES = (ReplacementMode.REQUIRED, ReplacementMode.PREFERRED, ReplacementMode.NEVER)
"""What the owner of a pod may say by its annotation."""


class OnTimeout(StrEnum):
    """What happens to pods still there at the timeout."""

    HOLD = "Hold"
    DELETE = "Delete"
    CANCEL = "Cancel"


class EvictOrBlock(StrEnum):
    """Whether such pods go or hold the drain."""

    EVICT = "Evict"
    BLOCK = "Block"


class NoRoom(StrEnum):
    """What happens to a pod with no room elsewhere."""

    HOLD = "Hold"
    EVICT = "Evict"


class RuleAction(StrEnum):
    """What a rule does with the pods that it selects."""

    EVICT = "Evict"
    SKIP = "Skip"
    WAIT_COMPLETED = "WaitCompleted"


class ConditionMatch(Model):
    """A node condition that asks for something once it has held for a time."""

    type: str = Field(description="The node condition's type.", min_length=1, max_length=316, pattern=_CONDITION_TYPE)
    status: tuple[str, ...] = Field(
        description="Any of these statuses counts: True, False, Unknown.",
        min_length=1,
        max_length=3,
        json_schema_extra={
            "items": {"type": "string", "enum": ["True", "False", "Unknown"]},
            "x-kubernetes-list-type": "set",
        },
    )
    for_: Duration = Field(
        default=timedelta(), alias="for", description="How long it has to hold without a break, such as 60s."
    )


class MaintenanceSettings(Model):
    """Emptying nodes that somebody wants to work on."""

    enabled: bool = Field(default=True, description="Whether the maintenance annotation is acted on.")
    conditions: tuple[ConditionMatch, ...] = Field(
        default=(),
        description="Node conditions that ask for maintenance as the annotation does.",
        max_length=16,
    )
    max_concurrent: NumberOrPercent = Field(
        default=NumberOrPercent(1), description="Nodes being drained for maintenance at once: a number or a percentage."
    )
    max_unavailable: NumberOrPercent = Field(
        default=NumberOrPercent(10, is_percent=True),
        description="Nodes held cordoned for maintenance, drained and blocked ones included: a number or a percentage; "
        "a percentage never comes to less than maxConcurrent.",
    )
    topology_key: str | None = Field(
        default=None,
        description="Node label; nodes of two of its values are never drained at once.",
        min_length=1,
        max_length=316,
        pattern=KEY_PATTERN,
    )
    windows: tuple[Window, ...] = Field(
        default=(), description="When maintenance may start; none means any time, several are a union.", max_length=16
    )
    on_window_close: OnWindowClose = Field(
        default=OnWindowClose.FINISH, description="What runs at a window's end: Finish goes on, Pause waits."
    )


class FlappingSettings(Model):
    """When a node that comes and goes is only cordoned."""

    changes: int = Field(default=3, ge=1, le=100, description="Times that a condition began to hold.")
    within: Duration = Field(
        default=timedelta(minutes=15), description="In so much time; also how long it must be quiet."
    )


class FailureSettings(Model):
    """Emptying nodes that failed."""

    enabled: bool = Field(default=True, description="Whether failed nodes are acted on.")
    conditions: tuple[ConditionMatch, ...] = Field(
        default=(
            ConditionMatch(type="Ready", status=("Unknown",), for_=timedelta(seconds=60)),
            ConditionMatch(type="Ready", status=("False",), for_=timedelta(minutes=3)),
        ),
        description="Any one that holds for its time makes a node failed; a list given replaces the default.",
        max_length=16,
    )
    startup_grace: Duration = Field(
        default=timedelta(minutes=10), description="From a Node's creation until it was first Ready, nothing counts."
    )
    lease_timeout: Duration | None = Field(
        default=None,
        description="Suspect a node whose Lease is silent for so long on our own clock (11s at least, or a quarter of the Lease's "
        "duration and its jitter); absent: never.",
        json_schema_extra={"x-kubernetes-validations": [POSITIVE_DURATION_RULE]},
    )
    recover_after: Duration = Field(
        default=timedelta(minutes=2), description="Healthy for so long, a node is put back as it was."
    )
    flapping: FlappingSettings = Field(
        default_factory=FlappingSettings, description="When a node that comes and goes is only cordoned."
    )
    max_unhealthy: NumberOrPercent = Field(
        default=NumberOrPercent(20, is_percent=True),
        description="Storm brake, for each condition by itself: with more nodes than this no drain starts for it. One "
        "node alone is never a storm.",
    )
    max_concurrent: NumberOrPercent = Field(
        default=NumberOrPercent(10, is_percent=True),
        description="Drains for failures that may be under way at once, such as when the storm brake opens: a number or "
        "a percentage, at least 1. The most certain failure starts first: an unreachable node with a silent Lease, then "
        "Ready False, then other conditions; then the one that has lasted longest. A drain waits only for drains whose "
        "failure is at least as certain. It is under way from its cordon until it is Drained, has only pods left that "
        "wait for proof or for their owners, has been Blocked for 5m, or rests.",
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": "type(self) == int ? self >= 1 && self <= 100000 : self.matches('^(100|[1-9][0-9]?)%$')",
                    "message": 'must be a number of nodes from 1, like 1, or a percentage from 1% to 100%, like "10%"',
                }
            ]
        },
    )
    force: Force = Field(
        default=Force.WITH_PROOF, description="When pods that must not run twice are forced off a dead node."
    )


class DrainRule(Model):
    """What happens to the pods that it selects; the first rule that matches decides."""

    namespace_selector: LabelSelector = Field(
        default_factory=LabelSelector, description="Namespaces by their labels; empty is every namespace."
    )
    pod_selector: LabelSelector = Field(
        default_factory=LabelSelector, description="Pods by their labels; empty is all."
    )
    action: RuleAction = Field(default=RuleAction.EVICT, description="Evict, Skip, or WaitCompleted.")
    order: int = Field(
        default=0, ge=-2147483648, le=2147483647, description="Lower leaves first, and is gone before the next starts."
    )
    timeout: Duration | None = Field(default=None, description="Instead of the drain's timeout.")


class DrainSettings(Model):
    """How a node is emptied."""

    replacement: ReplacementMode = Field(
        default=ReplacementMode.PREFERRED, description="Whether the new pod has to be Ready before the old one goes."
    )
    replacement_timeout: Duration = Field(
        default=timedelta(minutes=5), description="How long a replacement may take to be Ready."
    )
    timeout: Duration = Field(default=timedelta(), description="Time for the whole drain; 0s means none.")
    on_timeout: OnTimeout = Field(
        default=OnTimeout.HOLD, description="What happens at the timeout: Hold, Delete, Cancel."
    )
    grace_period_seconds: int | None = Field(
        default=None, ge=1, le=86400, description="Instead of each pod's own grace period; seconds."
    )
    empty_dir: EvictOrBlock = Field(
        default=EvictOrBlock.EVICT, description="Pods with an emptyDir volume, whose data is lost: Evict or Block."
    )
    unmanaged: EvictOrBlock = Field(
        default=EvictOrBlock.BLOCK, description="Pods that nothing would recreate: Block or Evict."
    )
    no_room: NoRoom = Field(default=NoRoom.HOLD, description="A pod with no room elsewhere: Hold or Evict.")
    gates: tuple[str, ...] = Field(
        default=(),
        description="Condition types that others set True on the NodeDrain before anything is touched.",
        max_length=16,
        json_schema_extra={
            "items": {"type": "string", "minLength": 1, "maxLength": 316, "pattern": _CONDITION_TYPE},
            "x-kubernetes-list-type": "set",
            "x-kubernetes-validations": [
                {
                    "rule": "self.all(g, !(g in ['Progressing', 'Cordoned', 'Drained', 'Blocked', 'Fenced', 'FitsWindow']))",
                    "message": "gates must name conditions that others set, not one of Rescheduler's own",
                }
            ],
        },
    )
    max_evictions_per_second: int = Field(
        default=20, ge=1, le=1000, description="Evictions per second over all drains of this policy."
    )
    exclude_from_load_balancers: bool = Field(
        default=False, description="Label the node node.kubernetes.io/exclude-from-external-load-balancers while held."
    )
    rules: tuple[DrainRule, ...] = Field(
        default=(), description="What happens to which pods; the first that matches decides.", max_length=32
    )


class RebalanceSettings(Model):
    """Moving pods from fuller to emptier nodes of one pool."""

    enabled: bool = Field(default=False, description="Whether pods are moved to even out nodes.")
    high: str = Field(
        default="80%",
        pattern=r"^(100|[1-9]?[0-9])%$",
        max_length=4,
        description="Nodes fuller than this give pods away.",
    )
    low: str = Field(
        default="50%", pattern=r"^(100|[1-9]?[0-9])%$", max_length=4, description="Nodes emptier than this take them."
    )


class ReschedulePolicySpec(Model):
    """What is to be done with the nodes that it selects."""

    node_selector: LabelSelector = Field(
        default_factory=LabelSelector, description="The policy's nodes by their labels; empty is every node."
    )
    priority: int = Field(
        default=0,
        ge=-2147483648,
        le=2147483647,
        description="Where several policies select one node, the highest decides alone; then the first by name.",
    )
    mode: Mode = Field(default=Mode.ENFORCE, description="Enforce, or Audit: decide and report, write nothing.")
    suspend: Suspend = Field(
        default=Suspend.NONE, description="None, New (start nothing new), or All (no cordon, release or eviction)."
    )
    maintenance: MaintenanceSettings = Field(
        default_factory=MaintenanceSettings, description="Emptying nodes that somebody wants to work on."
    )
    failure: FailureSettings = Field(default_factory=FailureSettings, description="Emptying nodes that failed.")
    drain: DrainSettings = Field(default_factory=DrainSettings, description="How a node is emptied.")
    rebalance: RebalanceSettings = Field(
        default_factory=RebalanceSettings, description="Evening out the nodes of one pool."
    )


@dataclass(frozen=True, slots=True)
class ReschedulePolicy:
    """A ReschedulePolicy as read."""

    name: str
    uid: str
    generation: int
    spec: ReschedulePolicySpec

    @classmethod
    def from_object(cls, raw: Mapping[str, Any]) -> "ReschedulePolicy":
        """From the raw object. Raises ValueError (UnreadableError, or pydantic's) that names the field."""
        raw = sanitize_custom_resource(raw)
        meta = raw["metadata"]
        spec = ReschedulePolicySpec.model_validate(raw["spec"] or {})
        return cls(meta["name"], meta.get("uid", ""), meta.get("generation", 0), spec)
