"""Texts of wait reasons for users: the messages of `Progressing=False`.

docs/reference/conditions.md lists them.
"""

from collections.abc import Sequence
from datetime import datetime

from rescheduler.api.scalars import NumberOrPercent
from rescheduler.core.model.messages import listing

NO_POLICY = "no ReschedulePolicy selects this node: nothing is changed until a policy selects it"
UNCORDONED = (
    "the node was uncordoned twice during the drain: no more pods are moved. "
    "Cordon the node by hand, or withdraw the request"
)
LEASE_RENEWED = (
    "the node controller does not hear of the node, but its Lease is renewed: its kubelet is alive, and no pod is moved. "
    "Check the node controller"
)
NO_WINDOW = "no maintenance window opens"
_MAX_LISTED = 5


def not_listed(seconds: int) -> str:
    """Return the message of `StaleView` if lists fail."""
    return f"nodes, policies and NodeDrains could not be listed for {seconds} s"


def node_unknown(node: str) -> str:
    """Return the message of `StaleView` for a node that no list or watch has shown yet."""
    return f"node {node} is not known yet"


def audit(policy: str, wait_reason: tuple[str, str] | None) -> str:
    """Return the message of `Audit`; `wait_reason`: reason and message of what would hold the drain back."""
    outcome = (
        f"the drain would wait ({wait_reason[0]}: {wait_reason[1]})"
        if wait_reason
        else "the node would be cordoned and drained"
    )
    return f"ReschedulePolicy {policy} is in mode Audit, and the node is not changed: {outcome}"


def suspended(policy: str, suspend: str) -> str:
    """Return the message of `Suspended`."""
    return f"ReschedulePolicy {policy} has suspend: {suspend}"


def disabled(policy: str, triggers: Sequence[str]) -> str:
    """Return the message of `Disabled`."""
    switches = " and ".join(f"{trigger}.enabled: false" for trigger in triggers)
    return f"ReschedulePolicy {policy} has {switches}"


def left_to_owner(owner_reason: str) -> str:
    """Return the message of `OwnedElsewhere` for a node that another controller removes or holds."""
    return f"{owner_reason}, and the drain leaves the node alone"


def stepped_back(node: str) -> str:
    """Return the message of a drain that stepped back for the drain of this node."""
    return (
        f"deadlock with the drain of {node} (each waited for a PodDisruptionBudget that the other used up): "
        f"this drain waits until {node} is Drained"
    )


def flapping(changes: int, within: str) -> str:
    """Return the message of `Flapping`."""
    return (
        f"conditions of the node began to fail {changes} times or more within {within}: "
        f"the node stays cordoned, and no pod is moved until no condition fails for {within}"
    )


def recovered(recover_after: str) -> str:
    """Return the message of `Cancelled` for a node that does not fail."""
    return f"the node no longer counts as failed: no pod is moved, and the node is restored once it is healthy for {recover_after}"


def gated(gates: Sequence[str]) -> str:
    """Return the message of `Gated`."""
    return f"the drain waits for another party to set the condition {', '.join(gates)} to True on this NodeDrain"


def control_plane(node: str) -> str:
    """Return the message of `ControlPlane`."""
    return f"control-plane node {node} is held by a drain: only one is drained at a time"


def window(next_opening: datetime | None, error: str | None) -> str:
    """Return the message of `Window`; next_opening None: no window opens."""
    opening = f"the next maintenance window opens at {next_opening:%Y-%m-%d %H:%M} UTC" if next_opening else NO_WINDOW
    return "; ".join(part for part in (opening, error) if part)


def limit_taken(limit: str, drains: Sequence[str]) -> str:
    """Return the message of `MaxConcurrent` and `MaxUnavailable`: the limit, and the drains that have its slots."""
    return f"{limit} is taken by {listing(sorted(drains), _MAX_LISTED)}"


def slot_given_up(taken: str) -> str:
    """Return the message of `MaxConcurrent` for a drain that was blocked for long; `taken`: why it gets no slot now."""
    return f"the drain was blocked and gave up its slot; {taken}"


def failure_limit_taken(
    limit: NumberOrPercent, slots: int, nodes: int, taken: Sequence[str], ahead: Sequence[str]
) -> str:
    """Return the message of `MaxConcurrent` for the drain of a failed node; `ahead`: drains that start first."""
    first = listing(sorted(ahead), _MAX_LISTED)
    before = f", and next comes {first}" if ahead else ""
    use = f"is taken by {listing(sorted(taken), _MAX_LISTED)}{before}" if taken else f"goes first to {first}"
    return (
        f"failure.maxConcurrent {limit} ({slots} of {nodes} nodes) {use}: "
        "this drain starts when one of them is Drained or has no pod left that can move"
    )


def topology(node: str, topology_key: str) -> str:
    """Return the message of `Topology`."""
    return f"node {node} with another {topology_key} is being drained"
