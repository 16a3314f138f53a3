"""Moves of single pods off a node that is not drained: under which settings, and what they write on the node.

Unlike a drain such a move may be left undone: where in doubt the pod stays, and is named.
"""

from rescheduler.api import names
from rescheduler.api.drains import NodeDrain
from rescheduler.api.policies import (
    DrainSettings,
    EvictOrBlock,
    Mode,
    NoRoom,
    OnTimeout,
    ReplacementMode,
    ReschedulePolicy,
    Suspend,
)
from rescheduler.core.drain.node_patches import Patch
from rescheduler.core.model.nodes import Node, Taint
from rescheduler.core.model.wait_reasons import ProgressingReason, WaitReason

MIGRATION_TAINT = Taint(names.WAITING_TAINT_KEY, "", "PreferNoSchedule")
"""On the source, for the time of the move: without it replacements come up on the same node again."""


def settings(drain_settings: DrainSettings) -> DrainSettings:
    """The policy's `drain`, less what is only right where the node must be emptied.

    No pod is deleted, none is lost for good, and none gives up its place before its replacement has one.
    """
    first = (
        ReplacementMode.REQUIRED
        if drain_settings.replacement is ReplacementMode.PREFERRED
        else drain_settings.replacement
    )
    return drain_settings.model_copy(
        update={
            "replacement": first,
            "timeout": type(drain_settings.timeout)(),
            "on_timeout": OnTimeout.HOLD,
            "unmanaged": EvictOrBlock.BLOCK,
            "no_room": NoRoom.HOLD,
            "rules": tuple(rule.model_copy(update={"timeout": None}) for rule in drain_settings.rules),
        }
    )


def why_no_migration(node: Node, policy: ReschedulePolicy | None, stale_view_reason: str) -> WaitReason | None:
    """Why nothing may be moved off this node now; None: it may. `blind`: why our view is not to be believed."""
    if stale_view_reason:
        return WaitReason(ProgressingReason.STALE_VIEW, stale_view_reason)
    if policy is None:
        return WaitReason(ProgressingReason.NO_POLICY, f"no ReschedulePolicy selects its node {node.name}")
    if policy.spec.mode is Mode.AUDIT:
        return WaitReason(
            ProgressingReason.AUDIT,
            f"ReschedulePolicy {policy.name} of its node {node.name} is in mode Audit: it would be moved",
        )
    if policy.spec.suspend is not Suspend.NONE:
        return WaitReason(
            ProgressingReason.SUSPENDED,
            f"ReschedulePolicy {policy.name} of its node {node.name} has suspend: {policy.spec.suspend}",
        )
    return None


def has_migration_taint(node: Node) -> bool:
    """Whether the node has the taint."""
    return MIGRATION_TAINT in node.taints


def drain_owns_taint(drain: NodeDrain | None) -> bool:
    """Whether a drain says that the node's taint is its own."""
    record = drain.status.node if drain else None
    return record is not None and any(taint.key == names.WAITING_TAINT_KEY for taint in record.added_taints)


def taint_patch(node: Node) -> Patch | None:
    """Set the taint; None where one of its key is there."""
    if any(taint.key == names.WAITING_TAINT_KEY for taint in node.taints):
        return None
    return _taints_patch(node, (*node.taints, MIGRATION_TAINT))


def untaint_patch(node: Node) -> Patch | None:
    """Take the taint off; None where it is not there."""
    return (
        _taints_patch(node, tuple(t for t in node.taints if t != MIGRATION_TAINT))
        if has_migration_taint(node)
        else None
    )


def _taints_patch(node: Node, taints: tuple[Taint, ...]) -> Patch:
    guard = {"resourceVersion": node.resource_version, "uid": node.uid}
    return {"metadata": guard, "spec": {"taints": [taint.as_json() for taint in taints] or None}}
