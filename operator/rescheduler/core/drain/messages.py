"""Texts for users about a drain: conditions of the NodeDrain and the Node, requests, blockers and migration waits.

Each function takes facts and returns a text. A text states the state, the cause and the next step, in this order.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from rescheduler.api import names
from rescheduler.api.policies import OnTimeout, Suspend
from rescheduler.api.scalars import format_duration
from rescheduler.core.model.disruption_budgets import DisruptionBudget
from rescheduler.core.model.messages import listing

_MAX_LISTED = 5


def _count_pods(count: int, adjective: str = "") -> str:
    return f"{count} {adjective}pod{'' if count == 1 else 's'}"


# -- Progressing ------------------------------------------------------------------------------------------------------

DRAIN_FINISHED = "the node is drained: it is restored when all requests are withdrawn"
SUSPECTED_NODE = (
    "the node is suspected: replacements are starting, and no pod is evicted until the failure is confirmed"
)
EVICTION_BLOCKED = "pods are blocked: eviction is retried as soon as a blocker changes (status.blockers)"
MOVING_PODS = "pods are being moved"
NO_POD_LEFT = "no pod is left; a pod that the scheduler has just bound may still appear"
RESTORING_NODE = "the node is being restored"
UNDELETABLE_DRAIN = "no request is left, but the NodeDrain cannot be deleted"

_TIMEOUT_EFFECTS = {
    OnTimeout.HOLD: "eviction keeps retrying",
    OnTimeout.DELETE: "pods are deleted without regard to their PodDisruptionBudgets",
    OnTimeout.CANCEL: "the drain is cancelled",
}


def timeout_effect(on_timeout: OnTimeout) -> str:
    """Return what the drain does after its timeout."""
    return _TIMEOUT_EFFECTS[on_timeout]


def timeout_passed(timeout: timedelta, on_timeout: OnTimeout) -> str:
    """Return the message of `TimedOut`."""
    effect = timeout_effect(on_timeout)
    return f"the timeout of {format_duration(timeout)} has passed: {effect} (drain.onTimeout: {on_timeout})"


def wait_before_returns(wait: str, released_pods: Sequence[str]) -> str:
    """Return the message of a wait, with the released pods that are returned first."""
    if not released_pods:
        return wait
    return f"{wait}; {_count_pods(len(released_pods), 'released ')} must be returned first: {listing(released_pods, _MAX_LISTED)}"


def restore_frozen(wait: str) -> str:
    """Return the message of a restore that a stale view stops."""
    return f"the node is not restored yet: {wait}"


def waiting_out_of_service(in_use_by: Sequence[str]) -> str:
    """Return the message of a restore that waits for the out-of-service taint."""
    text = "the node is restored after a reboot, or when no pod there is Terminating and no volume is attached"
    return f"{text}: {listing(in_use_by, _MAX_LISTED)}" if in_use_by else text


def returns_unknown(unsynced_reason: str | None) -> str:
    """Return the message of a restore that does not know the released pods yet."""
    cause = f": {unsynced_reason}" if unsynced_reason else ""
    return f"the node is restored when it is known which of its pods are released{cause}"


def returning_pods(released_pods: Sequence[str]) -> str:
    """Return the message of a restore that returns released pods first."""
    count = _count_pods(len(released_pods), "released ")
    return f"the node is restored after the return of {count}: {listing(released_pods, _MAX_LISTED)}"


def pods_not_listed(unsynced_reason: str) -> str:
    """Return the message of a drain that does not know the pods of its node yet."""
    return f"no pod moves yet: {unsynced_reason}"


def volumes_attached(volumes: Sequence[str]) -> str:
    """Return the message of a drain that waits for volumes."""
    return f"volumes are still attached: {listing(volumes, _MAX_LISTED)}"


def no_pod_leaving(
    *, waiting_for_replacement: int, blocked: int, queued: int, detaching_volumes: Sequence[str] = ()
) -> str:
    """Return the message of a drain in which no pod leaves at the moment.

    A queued pod with a claim waits until the volumes of other pods are detached.
    """
    volumes = f" until volumes are detached: {listing(detaching_volumes, _MAX_LISTED)}" if detaching_volumes else ""
    parts = (
        (waiting_for_replacement, "waiting for a replacement that is Ready"),
        (blocked, "blocked (see status.blockers)"),
        (queued, "queued" + volumes),
    )
    return "no pod is leaving now: " + ", ".join(f"{count} {text}" for count, text in parts if count > 0)


# -- other conditions of the NodeDrain and the Node -------------------------------------------------------------------

NODE_GONE = "the node is gone"
NODE_NOT_HELD = "this drain does not hold the node"
NODE_NOT_CORDONED = "the node is not cordoned"
NODE_CORDONED = "cordoned by this drain"
NODE_CORDONED_BEFORE = "the node was already cordoned by somebody else: it stays cordoned after the drain"
DRAIN_NOT_STARTED = "the drain has not started"
NO_POD_BLOCKS = "the drain is not blocked"
NODE_DRAINING = "Rescheduler is moving the pods away"
NODE_DRAINED = "every pod that must leave has left the node"
SEE_NODE_DRAIN = "see the NodeDrain with the name of this node"
NODE_IN_MAINTENANCE = "the node is held for maintenance"


def staying_pods(pods: Sequence[tuple[str, str]]) -> str:
    """Return which pods stay, with the reason of each; empty if there are none."""
    if not pods:
        return ""
    named = [f"{pod} ({reason})" for pod, reason in pods]
    return (
        f"{_count_pods(len(pods))} {'stays' if len(pods) == 1 else 'stay'} on the node: {listing(named, _MAX_LISTED)}"
    )


def all_pods_left(stuck_volumes: Sequence[str] = (), waiting_pods: Sequence[str] = (), staying: str = "") -> str:
    """Return the message of `Drained=True`.

    `waiting_pods`: pods that only this node can have. `staying`: of `staying_pods`.
    """
    stuck = (
        f"; volumes still attached, no longer waited for: {listing(stuck_volumes, _MAX_LISTED)}"
        if stuck_volumes
        else ""
    )
    one, several = (
        "can run on this node only, and its new pod waits",
        "can run on this node only, and their new pods wait",
    )
    waiting = (
        f"; {_count_pods(len(waiting_pods))} {one if len(waiting_pods) == 1 else several} for the node: "
        f"{listing(waiting_pods, _MAX_LISTED)}"
        if waiting_pods
        else ""
    )
    return f"no pod is left that must leave{f'; {staying}' if staying else ''}{waiting}{stuck}"


def pods_came_back(namespace: str, kind: str, name: str, created_at: datetime) -> str:
    """Return why an empty node is not Drained: a controller has just brought a pod back."""
    return (
        f"the last pod has left, but a pod of {kind} {namespace}/{name} came back onto the cordoned node at "
        f"{created_at:%H:%M:%S} UTC: the drain waits for a minute without such a pod"
    )


def pods_left(count: int | None) -> str:
    """Return the message of `Drained=False` with `PodsLeft`; None if the pods are not counted."""
    if count is None:
        return "the pods are not counted yet"
    return f"{_count_pods(count)} {'is' if count == 1 else 'are'} still on the node"


def window_fit(completion: datetime, window_end: datetime) -> str:
    """Return the message of `FitsWindow`."""
    return (
        f"at its current pace the drain is done at {completion:%H:%M:%S} UTC; "
        f"the window closes at {window_end:%H:%M:%S} UTC"
    )


# -- requests ---------------------------------------------------------------------------------------------------------


def condition_request(condition: str, status: str, for_: timedelta, reason: str) -> str:
    """Return the message of a request by a node condition. `triggers.parse_condition_message` reads it again."""
    return f"{condition} is {status} for over {format_duration(for_)}" + (f" ({reason})" if reason else "")


def suspected_request(lease_timeout: timedelta) -> str:
    """Return the message of a request by a silent Lease."""
    return f"suspected: its Lease has been silent for over {format_duration(lease_timeout)}"


def flapping_request(changes: int, within: timedelta) -> str:
    """Return the message of a request by a flapping node."""
    return f"flapping: its conditions began to fail {changes} times within {format_duration(within)}"


# -- pods -------------------------------------------------------------------------------------------------------------

FOREIGN_RELEASE_RECORD = (
    f"The annotation {names.MOVE} is ignored: it counts only on a pod that Rescheduler released itself, whose "
    f"controller is the Deployment that it names. Remove it: kubectl annotate pod NAME {names.MOVE}-"
)


def unreadable_pod(namespace: str, name: str, reason: str) -> tuple[str, str]:
    """Return the message and the hint of a pod that cannot be parsed."""
    return (
        f"the operator cannot read this pod: {reason}",
        f"kubectl -n {namespace} get pod {name} -o yaml, correct the field or delete the pod; and report this bug",
    )


def leaves_with_blocked_pod(pod: str, cause: str) -> str:
    """Return why a colocated pod stays while another one may not leave; `cause`: of the other pod."""
    return f"this pod must share a node with {pod}, which cannot leave: {cause}"


CHAIN_MOVE_HINT = "look at the pod that moves first (status.chainMoves); or set drain.chainMoves: 0"


def waits_for_chain_move(pod: str, node: str, for_pod: str) -> str:
    """Return that a pod waits until this other pod has left its node, so that `for_pod` fits there."""
    return f"pod {pod} moves off node {node} first, so that pod {for_pod} has room there"


def chain_move_timed_out(limit: timedelta) -> str:
    """Return that a chain move has not ended in time."""
    return f"the pod has not left its node within {format_duration(limit)}"


def chain_move_withdrawn(node: str) -> str:
    """Return that a chain move ends because its node must not give pods."""
    return f"node {node} is gone, drained, not Ready, or no longer of the same pool and policy"


def budget_too_small_for_all(budget: DisruptionBudget, count: int) -> tuple[str, str]:
    """Return the message and the hint of colocated pods that a budget lets leave only one after another."""
    name = f"PodDisruptionBudget {budget.name}"
    return (
        f"{count} pods must leave together because they must share a node, and {name} allows {budget.allowed}",
        f"let {name} allow {count} evictions: kubectl edit pdb -n {budget.namespace} {budget.name}",
    )


# -- migrations -------------------------------------------------------------------------------------------------------


def migration_without_policy(node: str) -> str:
    """Return the message of a migration whose node has no policy."""
    return f"no ReschedulePolicy selects its node {node}"


def migration_audited(policy: str, node: str) -> str:
    """Return the message of a migration in mode Audit."""
    return f"ReschedulePolicy {policy} of its node {node} is in mode Audit: it would be moved"


def migration_suspended(policy: str, node: str, suspend: Suspend) -> str:
    """Return the message of a migration under a suspended policy."""
    return f"ReschedulePolicy {policy} of its node {node} has suspend: {suspend}"
