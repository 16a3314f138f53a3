"""Settings, waiting reasons and node taint for moving single pods off a node that is not drained.

Unlike a drain, a migration may fail to move a pod. In doubt the pod stays and is reported.
"""

from rescheduler.api import names
from rescheduler.api.drains import BlockerClass, NodeDrain
from rescheduler.api.policies import (
    DrainRule,
    DrainSettings,
    EvictOrBlock,
    Mode,
    NoRoom,
    OnTimeout,
    OptOutTool,
    ReplacementMode,
    ReschedulePolicy,
    Suspend,
)
from rescheduler.core.drain import messages
from rescheduler.core.model.nodes import Node, Taint
from rescheduler.core.model.raw import RawObject
from rescheduler.core.model.wait_reasons import ProgressingReason, WaitReason

MIGRATION_TAINT = Taint(names.WAITING_TAINT_KEY, "", "PreferNoSchedule")
"""Set on the source node during a migration: without the taint, replacements would start on the same node."""

TEMPORARY_BLOCKERS = (BlockerClass.BUDGET_EXHAUSTED, BlockerClass.BUDGET_NOT_OBSERVED, BlockerClass.THROTTLED)
"""Blockers that do not end a move of a pod that is replaced first.

Otherwise a budget that is exhausted for a moment would discard a Ready replacement.
"""


def settings(drain_settings: DrainSettings) -> DrainSettings:
    """Return the policy's `drain` without the settings that are only safe if the node must become empty.

    A migration deletes no pod, evicts no pod that nothing recreates, and requires a Ready replacement first. It moves
    no pod with an opt-out of another tool.
    """
    replacement = (
        ReplacementMode.REQUIRED
        if drain_settings.replacement is ReplacementMode.PREFERRED
        else drain_settings.replacement
    )
    return drain_settings.model_copy(
        update={
            "replacement": replacement,
            "timeout": type(drain_settings.timeout)(),
            "on_timeout": OnTimeout.HOLD,
            "unmanaged": EvictOrBlock.BLOCK,
            "local_volume": EvictOrBlock.BLOCK,
            "honour": tuple(OptOutTool),
            "no_room": NoRoom.HOLD,
            "rules": tuple(_rule(rule) for rule in drain_settings.rules),
        }
    )


def _rule(rule: DrainRule) -> DrainRule:
    """Return the rule without the fields that are only safe if the node must become empty."""
    update: dict[str, object] = {"timeout": None, "unmanaged": None, "local_volume": None}
    if rule.replacement is ReplacementMode.PREFERRED:
        update["replacement"] = ReplacementMode.REQUIRED
    return rule.model_copy(update=update)


def why_no_migration(node: Node, policy: ReschedulePolicy | None, stale_view_reason: str | None) -> WaitReason | None:
    """Return why no pod may move off this node now; None if pods may move.

    `stale_view_reason`: why the view of the cluster is unreliable; None if the view is reliable.
    """
    if stale_view_reason:
        return WaitReason(ProgressingReason.STALE_VIEW, stale_view_reason)
    if policy is None:
        return WaitReason(ProgressingReason.NO_POLICY, messages.migration_without_policy(node.name))
    if policy.spec.mode is Mode.AUDIT:
        return WaitReason(
            ProgressingReason.AUDIT,
            messages.migration_audited(policy.name, node.name),
        )
    if policy.spec.suspend is not Suspend.NONE:
        return WaitReason(
            ProgressingReason.SUSPENDED,
            messages.migration_suspended(policy.name, node.name, policy.spec.suspend),
        )
    return None


def has_migration_taint(node: Node) -> bool:
    """Whether the node has the taint of a migration."""
    return MIGRATION_TAINT in node.taints


def drain_owns_taint(drain: NodeDrain | None) -> bool:
    """Whether a drain recorded the node's taint as its own."""
    record = drain.status.node if drain else None
    return record is not None and any(taint.key == names.WAITING_TAINT_KEY for taint in record.added_taints)


def taint_patch(node: Node) -> RawObject | None:
    """Return the patch that sets the taint; None if the node has a taint with this key."""
    if any(taint.key == names.WAITING_TAINT_KEY for taint in node.taints):
        return None
    return _taints_patch(node, (*node.taints, MIGRATION_TAINT))


def untaint_patch(node: Node) -> RawObject | None:
    """Return the patch that removes the taint; None if the node does not have it."""
    return (
        _taints_patch(node, tuple(t for t in node.taints if t != MIGRATION_TAINT))
        if has_migration_taint(node)
        else None
    )


def _taints_patch(node: Node, taints: tuple[Taint, ...]) -> RawObject:
    guard = {"resourceVersion": node.resource_version, "uid": node.uid}
    return {"metadata": guard, "spec": {"taints": [taint.as_json() for taint in taints] or None}}
