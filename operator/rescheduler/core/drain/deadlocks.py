"""Find two drains that block each other.

Each drain waits for a disruption budget that a pod kept off the other node would satisfy, or for room on the other
node. Such a deadlock never ends (openshift/machine-api-operator#1066). The younger drain steps back; the drain of a
failed node never does.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from datetime import UTC, datetime

from rescheduler.api.drains import BlockerClass, NodeDrain, Phase
from rescheduler.core.eligibility.concurrency import is_blocked_for_long
from rescheduler.core.eligibility.preconditions import has_failure_request
from rescheduler.core.model.disruption_budgets import DisruptionBudget
from rescheduler.core.model.listed_pods import ListedPod
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.resource_fit import fits_by_requests, free_resources

_NEVER = datetime.max.replace(tzinfo=UTC)


def deadlock_candidates(drain: NodeDrain, drains: Iterable[NodeDrain], now: datetime) -> tuple[NodeDrain, ...]:
    """Return the drains for which this drain would step back, if they block each other."""
    if has_failure_request(drain) or not is_blocked_for_long(drain, now) or not _may_be_deadlocked(drain):
        return ()
    return tuple(
        other
        for other in drains
        if other.name != drain.name
        and other.deletion_timestamp is None
        and is_blocked_for_long(other, now)
        and _may_be_deadlocked(other)
        and (has_failure_request(other) or _start_sort_key(other) < _start_sort_key(drain))
    )


def _start_sort_key(drain: NodeDrain) -> tuple[datetime, str]:
    return drain.status.started_at or _NEVER, drain.name


def _may_be_deadlocked(drain: NodeDrain) -> bool:
    return bool(exhausted_budgets(drain) or pods_without_room(drain))


def exhausted_budgets(drain: NodeDrain) -> frozenset[tuple[str, str]]:
    """Return the namespace and name of each budget that blocks the drain for lack of healthy pods."""
    return frozenset(
        (blocker.namespace, blocker.pdb)
        for blocker in drain.status.blockers
        if drain.status.phase is Phase.BLOCKED and blocker.class_ is BlockerClass.BUDGET_EXHAUSTED and blocker.pdb
    )


def pods_without_room(drain: NodeDrain) -> frozenset[tuple[str, str]]:
    """Return the namespace and name of each pod that blocks the drain for lack of room elsewhere."""
    return frozenset(
        (blocker.namespace, blocker.pod)
        for blocker in drain.status.blockers
        if drain.status.phase is Phase.BLOCKED and blocker.class_ is BlockerClass.NO_ROOM_IN_POOL
    )


def would_fit(pod: ListedPod, node: Node, pods_on_node: Collection[ListedPod]) -> bool:
    """Whether the pod would have room on the schedulable node, next to the pods on it."""
    allocated: Counter[str] = Counter()
    for other in pods_on_node:
        if not other.finished:
            allocated.update(other.allocated_with_pod)
    has_room = fits_by_requests(free_resources(node.allocatable, allocated), pod.requested)
    return has_room and _is_allowed_on(pod, node, pods_on_node)


def would_count_toward_budget(
    pod: ListedPod, budgets: Iterable[DisruptionBudget], node: Node, pods_on_node: Iterable[ListedPod]
) -> bool:
    """Whether the pending pod counts toward one of the budgets and may run on the node, next to the pods on it."""
    if pod.node or pod.terminating:
        return False
    counts = any(b.namespace == pod.namespace and b.selector and b.selector.matches(pod.labels) for b in budgets)
    return counts and _is_allowed_on(pod, node, pods_on_node)


def _is_allowed_on(pod: ListedPod, node: Node, pods_on_node: Iterable[ListedPod]) -> bool:
    return pod.node_constraints.allows_node(node) and not any(pod.has_anti_affinity_to(other) for other in pods_on_node)
