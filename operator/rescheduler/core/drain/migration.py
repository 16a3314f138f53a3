"""Moves of single pods off a node that is not drained: under which settings, and what they write on the node.

Unlike a drain such a move may be left undone: where in doubt the pod stays, and is named.
"""

from rescheduler.api import names
from rescheduler.api.drains import NodeDrain
from rescheduler.api.policies import Drain, EvictOrBlock, Mode, NoRoom, OnTimeout, Policy, Replacement, Suspend
from rescheduler.core.drain.node_patches import Patch
from rescheduler.core.model.nodes import Node, Taint
from rescheduler.core.model.wait_reasons import Held, Hold

SHUNNED = Taint(names.WAITING_TAINT, "", "PreferNoSchedule")
"""On the source, for the time of the move: without it replacements come up on the same node again."""


def settings(drain: Drain) -> Drain:
    """The policy's `drain`, less what is only right where the node must be emptied.

    No pod is deleted, none is lost for good, and none gives up its place before its replacement has one.
    """
    first = Replacement.REQUIRED if drain.replacement is Replacement.PREFERRED else drain.replacement
    return drain.model_copy(
        update={
            "replacement": first,
            "timeout": type(drain.timeout)(),
            "on_timeout": OnTimeout.HOLD,
            "unmanaged": EvictOrBlock.BLOCK,
            "no_room": NoRoom.HOLD,
            "rules": tuple(rule.model_copy(update={"timeout": None}) for rule in drain.rules),
        }
    )


def held(node: Node, policy: Policy | None, blind: str) -> Held | None:
    """Why nothing may be moved off this node now; None: it may. `blind`: why our view is not to be believed."""
    if blind:
        return Held(Hold.STALE_VIEW, blind)
    if policy is None:
        return Held(Hold.NO_POLICY, f"no ReschedulePolicy selects its node {node.name}")
    if policy.spec.mode is Mode.AUDIT:
        return Held(
            Hold.AUDIT, f"ReschedulePolicy {policy.name} of its node {node.name} is in mode Audit: it would be moved"
        )
    if policy.spec.suspend is not Suspend.NONE:
        return Held(
            Hold.SUSPENDED, f"ReschedulePolicy {policy.name} of its node {node.name} has suspend: {policy.spec.suspend}"
        )
    return None


def is_shunned(node: Node) -> bool:
    """Whether the node has the taint."""
    return SHUNNED in node.taints


def has_record(drain: NodeDrain | None) -> bool:
    """Whether a drain says that the node's taint is its own."""
    record = drain.status.node if drain else None
    return record is not None and any(taint.key == names.WAITING_TAINT for taint in record.added_taints)


def shun_patch(node: Node) -> Patch | None:
    """Set the taint; None where one of its key is there."""
    if any(taint.key == names.WAITING_TAINT for taint in node.taints):
        return None
    return _patch(node, (*node.taints, SHUNNED))


def welcome_patch(node: Node) -> Patch | None:
    """Take the taint off; None where it is not there."""
    return _patch(node, tuple(t for t in node.taints if t != SHUNNED)) if is_shunned(node) else None


def _patch(node: Node, taints: tuple[Taint, ...]) -> Patch:
    guard = {"resourceVersion": node.version, "uid": node.uid}
    return {"metadata": guard, "spec": {"taints": [taint.as_json() for taint in taints] or None}}
