"""ReschedulePolicy: which nodes are drained, when, and how."""

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
"""The type of a condition has the syntax of a label key."""


class Mode(StrEnum):
    """Mode of a policy or pool: whether decisions are carried out, or only reported."""

    ENFORCE = "Enforce"
    AUDIT = "Audit"


class Suspend(StrEnum):
    """Work of a policy that is suspended."""

    NONE = "None"
    NEW = "New"
    ALL = "All"


class OnWindowClose(StrEnum):
    """Effect of the end of a window on a running drain."""

    FINISH = "Finish"
    PAUSE = "Pause"


class Force(StrEnum):
    """When pods that must not run twice are removed from a dead node by force."""

    WITH_PROOF = "WithProof"
    NEVER = "Never"


class ReplacementMode(StrEnum):
    """For which pods a new pod must be Ready before the old pod leaves."""

    REQUIRED = "Required"
    PREFERRED = "Preferred"
    WHEN_BLOCKED = "WhenBlocked"
    NEVER = "Never"


REPLACEMENT_ANNOTATION_VALUES = (ReplacementMode.REQUIRED, ReplacementMode.PREFERRED, ReplacementMode.NEVER)
"""Valid values of the annotation `rescheduler.dev/replacement` of a pod."""


class OnTimeout(StrEnum):
    """Action at the timeout for pods that are still on the node."""

    HOLD = "Hold"
    DELETE = "Delete"
    CANCEL = "Cancel"


class EvictOrBlock(StrEnum):
    """Whether pods of a kind are evicted or block the drain."""

    EVICT = "Evict"
    BLOCK = "Block"


class NoRoom(StrEnum):
    """Action for a pod without room on other nodes."""

    HOLD = "Hold"
    EVICT = "Evict"


class OptOutTool(StrEnum):
    """Tool whose opt-out annotations on pods Rescheduler knows."""

    KARPENTER = "karpenter"
    CLUSTER_AUTOSCALER = "cluster-autoscaler"
    DESCHEDULER = "descheduler"


class RuleAction(StrEnum):
    """Action for the pods that a rule selects."""

    EVICT = "Evict"
    SKIP = "Skip"
    WAIT_COMPLETED = "WaitCompleted"


class ConditionMatch(Model):
    """A node condition that counts when it has held for a time."""

    type: str = Field(description="Type of the node condition.", min_length=1, max_length=316, pattern=_CONDITION_TYPE)
    status: tuple[str, ...] = Field(
        description="Statuses that count: True, False, Unknown.",
        min_length=1,
        max_length=3,
        json_schema_extra={
            "items": {"type": "string", "enum": ["True", "False", "Unknown"]},
            "x-kubernetes-list-type": "set",
        },
    )
    for_: Duration = Field(
        default=timedelta(), alias="for", description="How long the condition must hold without a break, such as 60s."
    )


class MaintenanceSettings(Model):
    """Drains for maintenance."""

    enabled: bool = Field(
        default=True, description="Whether the annotation rescheduler.dev/maintenance and `conditions` start a drain."
    )
    conditions: tuple[ConditionMatch, ...] = Field(
        default=(),
        description="Node conditions that request maintenance in the same way as the annotation.",
        max_length=16,
    )
    max_concurrent: NumberOrPercent = Field(
        default=NumberOrPercent(1),
        description="Limit of nodes that are drained for maintenance at the same time: a number or a percentage.",
    )
    max_unavailable: NumberOrPercent = Field(
        default=NumberOrPercent(10, is_percent=True),
        description="Limit of nodes that are held cordoned for maintenance at the same time: a number or a percentage. "
        "Drained and blocked nodes count. A percentage never gives less than maxConcurrent.",
    )
    topology_key: str | None = Field(
        default=None,
        description="Node label, such as topology.kubernetes.io/zone. Nodes with different values are never drained at the same time.",
        min_length=1,
        max_length=316,
        pattern=KEY_PATTERN,
    )
    windows: tuple[Window, ...] = Field(
        default=(),
        description="When maintenance may start. Without windows: at any time. Several windows form a union.",
        max_length=16,
    )
    on_window_close: OnWindowClose = Field(
        default=OnWindowClose.FINISH,
        description="Effect of a window's end on a running drain. Finish: it continues. Pause: it waits for the next window.",
    )


class FlappingSettings(Model):
    """When a node that fails again and again is only cordoned."""

    changes: int = Field(default=3, ge=1, le=100, description="How often conditions of the node must begin to fail.")
    within: Duration = Field(
        default=timedelta(minutes=15),
        description="Time in which `changes` are counted. The node stays cordoned until this time passes without another change.",
    )


class FailureSettings(Model):
    """Drains of failed nodes."""

    enabled: bool = Field(default=True, description="Whether failed nodes are drained.")
    conditions: tuple[ConditionMatch, ...] = Field(
        default=(
            ConditionMatch(type="Ready", status=("Unknown",), for_=timedelta(seconds=60)),
            ConditionMatch(type="Ready", status=("False",), for_=timedelta(minutes=3)),
        ),
        description="A node has failed when any listed condition has held for its `for`. A list replaces the default list.",
        max_length=16,
    )
    startup_grace: Duration = Field(
        default=timedelta(minutes=10),
        description="Failure conditions of a new Node count only after its first Ready, or after this time since its creation.",
    )
    lease_timeout: Duration | None = Field(
        default=None,
        description="Suspect a node whose Lease has been silent for this long on the operator's clock. Replacements then start "
        "early. The least time is 11s, or a quarter of the Lease's duration with its jitter. Absent: suspect no node.",
        json_schema_extra={"x-kubernetes-validations": [POSITIVE_DURATION_RULE]},
    )
    recover_after: Duration = Field(
        default=timedelta(minutes=2), description="A node that has been healthy for this long is restored."
    )
    flapping: FlappingSettings = Field(
        default_factory=FlappingSettings, description="When a node that fails again and again is only cordoned."
    )
    max_unhealthy: NumberOrPercent = Field(
        default=NumberOrPercent(20, is_percent=True),
        description="Storm brake: if more nodes than this have a failure condition, no drain starts for that condition. "
        "One unhealthy node is never a storm. A number or a percentage.",
    )
    max_concurrent: NumberOrPercent = Field(
        default=NumberOrPercent(10, is_percent=True),
        description="Limit of drains for failures that are under way at the same time: a number or a percentage, at least "
        "1. The most certain failure starts first: an unreachable node with a silent Lease, then a suspected node, then "
        "Ready False, then other conditions. Of equal certainty, the failure that has lasted longest starts first. A "
        "drain waits only for drains whose failure is at least as certain. A drain is under way from its cordon until "
        "it is Drained. It does not count while it waits, after 5m in Blocked, or if all remaining pods wait for proof or "
        "for their owners.",
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
        default=Force.WITH_PROOF,
        description="Pods that must not run twice, on an unreachable node. WithProof: they move after proof that the node is dead. Never: they stay.",
    )


class DrainRule(Model):
    """A rule for the pods that it selects. The first matching rule decides."""

    namespace_selector: LabelSelector = Field(
        default_factory=LabelSelector, description="Namespaces by their labels. Empty selects every namespace."
    )
    pod_selector: LabelSelector = Field(
        default_factory=LabelSelector, description="Pods by their labels. Empty selects every pod."
    )
    action: RuleAction = Field(
        default=RuleAction.EVICT,
        description="Evict, Skip (the pod stays), or WaitCompleted (the pod stays until its containers have ended).",
    )
    order: int = Field(
        default=0,
        ge=-2147483648,
        le=2147483647,
        description="Pods with a lower order leave first, and are gone before the next order starts.",
    )
    timeout: Duration | None = Field(default=None, description="Replaces drain.timeout for these pods.")
    unmanaged: EvictOrBlock | None = Field(default=None, description="Replaces drain.unmanaged for these pods.")
    empty_dir: EvictOrBlock | None = Field(default=None, description="Replaces drain.emptyDir for these pods.")
    local_volume: EvictOrBlock | None = Field(default=None, description="Replaces drain.localVolume for these pods.")
    replacement: ReplacementMode | None = Field(
        default=None,
        description="Replaces drain.replacement for these pods. The annotation rescheduler.dev/replacement is stronger.",
    )


MAX_CHAIN_MOVES = 16
"""Largest value of `chainMoves`."""


class DrainSettings(Model):
    """Settings of a drain."""

    replacement: ReplacementMode = Field(
        default=ReplacementMode.PREFERRED, description="Whether a new pod must be Ready before the old pod leaves."
    )
    replacement_timeout: Duration = Field(
        default=timedelta(minutes=5), description="How long a replacement may take to become Ready."
    )
    timeout: Duration = Field(
        default=timedelta(), description="Time for the whole drain, from the cordon. 0s means no timeout."
    )
    on_timeout: OnTimeout = Field(
        default=OnTimeout.HOLD,
        description="Hold: eviction keeps retrying. Delete: remaining pods are deleted. Cancel: the drain is cancelled.",
    )
    grace_period_seconds: int | None = Field(
        default=None, ge=1, le=86400, description="Replaces the grace period of each pod, in seconds."
    )
    empty_dir: EvictOrBlock = Field(
        default=EvictOrBlock.EVICT, description="Pods with an emptyDir volume: Evict (the data is lost) or Block."
    )
    unmanaged: EvictOrBlock = Field(
        default=EvictOrBlock.BLOCK, description="Pods that no controller recreates: Block or Evict."
    )
    local_volume: EvictOrBlock = Field(
        default=EvictOrBlock.BLOCK,
        description="Pods whose data is on this node only, such as pods with a local volume. Block, or Evict: the pod is "
        "evicted within its budget, and its new pod waits until the node is uncordoned.",
    )
    honour: tuple[OptOutTool, ...] = Field(
        default=(),
        description="Tools whose annotations hold a pod in a drain: karpenter (karpenter.sh/do-not-disrupt), "
        'cluster-autoscaler (cluster-autoscaler.kubernetes.io/safe-to-evict: "false") and descheduler '
        "(descheduler.alpha.kubernetes.io/prefer-no-eviction). Rebalancing and pools never move such a pod.",
        max_length=len(OptOutTool),
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    chain_moves: int = Field(
        default=0,
        ge=0,
        le=MAX_CHAIN_MOVES,
        description="How many pods of other nodes a drain may move first, each so that a pod without room fits, such as 1. "
        "Only pods that rebalancing may move, replacement first, on nodes of the same pool and policy, one at a time.",
    )
    no_room: NoRoom = Field(default=NoRoom.HOLD, description="Pods without room on other nodes: Hold or Evict.")
    gates: tuple[str, ...] = Field(
        default=(),
        description="Condition types that other parties must set to True on the NodeDrain. Until then the operator writes nothing.",
        max_length=16,
        json_schema_extra={
            "items": {"type": "string", "minLength": 1, "maxLength": 316, "pattern": _CONDITION_TYPE},
            "x-kubernetes-list-type": "set",
            "x-kubernetes-validations": [
                {
                    "rule": "self.all(g, !(g in ['Progressing', 'Cordoned', 'Drained', 'Blocked', 'Fenced', 'FitsWindow']))",
                    "message": "gates must name conditions that other parties set, not conditions of Rescheduler",
                }
            ],
        },
    )
    max_evictions_per_second: int = Field(
        default=20, ge=1, le=1000, description="Limit of evictions per second, over all drains of this policy."
    )
    exclude_from_load_balancers: bool = Field(
        default=False,
        description="Set the label node.kubernetes.io/exclude-from-external-load-balancers while the drain holds the node.",
    )
    rules: tuple[DrainRule, ...] = Field(
        default=(), description="What happens to which pods. The first matching rule decides.", max_length=32
    )

    def with_rule(self, rule: DrainRule | None) -> "DrainSettings":
        """Return the settings for the pods of a rule: each field of the rule that is set replaces the field here."""
        given = {name: value for name in RULE_OVERRIDES if (value := getattr(rule, name, None)) is not None}
        return self.model_copy(update=given) if given else self


RULE_OVERRIDES = ("timeout", "unmanaged", "empty_dir", "local_volume", "replacement")
"""The fields of a rule that replace the field of `drain` with the same name."""


class RebalanceSettings(Model):
    """Moves of pods from fuller to emptier nodes of one pool."""

    enabled: bool = Field(default=False, description="Whether pods move to even out the nodes of one pool.")
    high: str = Field(
        default="80%",
        pattern=r"^(100|[1-9]?[0-9])%$",
        max_length=4,
        description="Nodes that are fuller than this give pods away.",
    )
    low: str = Field(
        default="50%",
        pattern=r"^(100|[1-9]?[0-9])%$",
        max_length=4,
        description="Nodes that are emptier than this take pods.",
    )


class ReschedulePolicySpec(Model):
    """Policy for the drains of nodes: which nodes are drained, when, and how."""

    node_selector: LabelSelector = Field(
        default_factory=LabelSelector, description="Nodes of the policy, by their labels. Empty selects every node."
    )
    priority: int = Field(
        default=0,
        ge=-2147483648,
        le=2147483647,
        description="If several policies select a node, one decides: the highest priority, then the first name.",
    )
    mode: Mode = Field(
        default=Mode.ENFORCE, description="Enforce, or Audit: decide and report, write nothing to nodes and pods."
    )
    suspend: Suspend = Field(
        default=Suspend.NONE,
        description="None, New (no new drain starts), or All (no cordon, no release, no eviction).",
    )
    maintenance: MaintenanceSettings = Field(
        default_factory=MaintenanceSettings, description="When nodes are drained for maintenance."
    )
    failure: FailureSettings = Field(default_factory=FailureSettings, description="When failed nodes are drained.")
    drain: DrainSettings = Field(default_factory=DrainSettings, description="How nodes are drained.")
    rebalance: RebalanceSettings = Field(
        default_factory=RebalanceSettings, description="Whether pods move to even out the nodes of one pool."
    )


@dataclass(frozen=True, slots=True)
class ReschedulePolicy:
    """A ReschedulePolicy with a typed spec."""

    name: str
    uid: str
    generation: int
    spec: ReschedulePolicySpec

    @classmethod
    def from_object(cls, raw: Mapping[str, Any]) -> "ReschedulePolicy":
        """Parse a raw ReschedulePolicy. Raises ValueError (UnreadableError, or pydantic's) that names the field."""
        raw = sanitize_custom_resource(raw)
        meta = raw["metadata"]
        spec = ReschedulePolicySpec.model_validate(raw["spec"] or {})
        return cls(meta["name"], meta.get("uid", ""), meta.get("generation", 0), spec)
