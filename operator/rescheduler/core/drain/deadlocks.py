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
from rescheduler.core.model import object_schemas
from rescheduler.core.model.disruption_budgets import DisruptionBudget
from rescheduler.core.model.node_affinity import has_anti_affinity_to, may_run_on
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.pods import TERMINAL_PHASES
from rescheduler.core.model.raw import RawPod
from rescheduler.core.model.resource_fit import fits_by_requests, free_resources
from rescheduler.core.model.resource_requests import allocated_with_pod, requested_resources

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


def would_fit(raw: RawPod, node: Node, pods_on_node: Collection[RawPod]) -> bool:
    """Whether the raw pod would have room on the schedulable node, next to the raw pods on it."""
    raw, pods_on_node = object_schemas.sanitize_pod(raw), [object_schemas.sanitize_pod(pod) for pod in pods_on_node]
    spec, running = raw["spec"], [p for p in pods_on_node if p["status"].get("phase") not in TERMINAL_PHASES]
    allocated: Counter[str] = Counter()
    for pod in running:
        allocated.update(allocated_with_pod(pod))
    has_room = fits_by_requests(free_resources(node.allocatable, allocated), requested_resources(spec))
    return has_room and may_run_on(spec, node) and not any(has_anti_affinity_to(raw, other) for other in pods_on_node)


def would_count_toward_budget(
    raw: RawPod, budgets: Iterable[DisruptionBudget], node: Node, pods_on_node: Iterable[RawPod]
) -> bool:
    """Whether the raw pending pod counts toward one of the budgets and may run on the node, next to its raw pods."""
    raw, pods_on_node = object_schemas.sanitize_pod(raw), [object_schemas.sanitize_pod(pod) for pod in pods_on_node]
    meta, spec = raw["metadata"], raw["spec"]
    if spec.get("nodeName") or "deletionTimestamp" in meta:
        return False
    labels = meta.get("labels") or {}
    counts = any(b.namespace == meta["namespace"] and b.selector and b.selector.matches(labels) for b in budgets)
    return counts and may_run_on(spec, node) and not any(has_anti_affinity_to(raw, other) for other in pods_on_node)
