"""Decide whether a drain may start or continue now, and return the wait reason if it may not.

A drain with a wait reason writes nothing to its node and pods. docs/reference/conditions.md lists the reasons.
"""

from datetime import datetime

from rescheduler.api.drains import NodeDrain
from rescheduler.api.policies import Mode, OnWindowClose, ReschedulePolicy
from rescheduler.api.scalars import format_duration
from rescheduler.core.eligibility import concurrency, messages
from rescheduler.core.eligibility.cluster_state import ClusterState, stale_view_reason
from rescheduler.core.eligibility.failure_concurrency import FailureDrain
from rescheduler.core.eligibility.preconditions import (
    closed_gates,
    has_failure_request,
    has_only_failure_requests,
    policy_wait_reason,
    steps_back_for,
    window_wait_reason,
)
from rescheduler.core.failure.causes import LEASE_NOT_RENEWED
from rescheduler.core.failure.health import Health
from rescheduler.core.model import external_owners
from rescheduler.core.model.nodes import CONDITION_UNKNOWN, Node
from rescheduler.core.model.wait_reasons import RECHECK_REASONS, SUSPECTED, ProgressingReason, WaitReason


def wait_reason(drain: NodeDrain, state: ClusterState, now: datetime) -> WaitReason | None:
    """Return why this drain may not start or continue; None if it may."""
    if view_problem := stale_view_reason(state, now):
        return WaitReason(ProgressingReason.STALE_VIEW, view_problem)
    node = state.nodes.get(drain.spec.node_name)
    if node is None:
        return WaitReason(ProgressingReason.STALE_VIEW, messages.node_unknown(drain.spec.node_name))
    policy = state.policy(node)
    if policy is None:
        return WaitReason(ProgressingReason.NO_POLICY, messages.NO_POLICY)
    enforced_reason = _policy_bound_wait_reason(drain, node, policy, state, now)
    if policy.spec.mode is not Mode.AUDIT:
        return enforced_reason
    reason_and_message = (enforced_reason.reason, enforced_reason.message) if enforced_reason else None
    return WaitReason(ProgressingReason.AUDIT, messages.audit(policy.name, reason_and_message))


def _policy_bound_wait_reason(
    drain: NodeDrain, node: Node, policy: ReschedulePolicy, state: ClusterState, now: datetime
) -> WaitReason | None:
    if policy_reason := policy_wait_reason(drain, policy):
        return policy_reason
    has_started = drain.status.started_at is not None
    if owner_reason := external_owners.node_owner_reason(node, has_started=has_started):
        return WaitReason(ProgressingReason.OWNED_ELSEWHERE, messages.left_to_owner(owner_reason))
    if rival := steps_back_for(drain, state.drains):
        return WaitReason(ProgressingReason.MAX_CONCURRENT, messages.stepped_back(rival.spec.node_name))
    if not has_started:
        return _start_wait_reason(drain, node, policy, state, now) or _recovery_wait_reason(
            drain, node, policy, state, now
        )
    if policy.spec.maintenance.on_window_close is OnWindowClose.PAUSE and (
        window_reason := window_wait_reason(drain, policy, now)
    ):
        return window_reason
    if drain.status.recordoned_at and not node.unschedulable:
        return WaitReason(ProgressingReason.UNCORDONED, messages.UNCORDONED)
    if recovery_reason := _recovery_wait_reason(drain, node, policy, state, now):
        return recovery_reason
    if is_node_failing(drain, state, now):
        if not _is_restarting(drain, node):
            return None
        return _storm_wait_reason(node, policy, state, now) or _failure_slot_wait_reason(
            drain, node, policy, state, now
        )
    return concurrency.resume_wait_reason(
        drain, node, policy.spec.maintenance, state.maintenance_queues[policy.name], state.nodes, now
    )


def is_node_failing(drain: NodeDrain, state: ClusterState, now: datetime) -> bool:
    """Whether the drain has a failure request, and its node is failed or suspected now."""
    node = state.nodes.get(drain.spec.node_name)
    failing = (Health.FAILED, Health.SUSPECTED)
    return node is not None and has_failure_request(drain) and state.diagnose(node, now).health in failing


def is_only_suspected(drain: NodeDrain, state: ClusterState, now: datetime) -> bool:
    """Whether a silent Lease is the only cause of the drain that no storm brakes.

    Replacements may then be created, but no pod may be evicted or deleted.
    """
    node = state.nodes.get(drain.spec.node_name)
    policy = state.policy(node) if node else None
    if node is None or policy is None or not has_only_failure_requests(drain):
        return False
    only_suspicion_allowed = state.apply_storm_brake(node, policy, now).allowed_causes == (LEASE_NOT_RENEWED,)
    return only_suspicion_allowed or state.diagnose(node, now).health is Health.SUSPECTED


def _recovery_wait_reason(
    drain: NodeDrain, node: Node, policy: ReschedulePolicy, state: ClusterState, now: datetime
) -> WaitReason | None:
    """Return the wait reason of a drain whose node has recovered or flaps; None for a failing node."""
    if not has_only_failure_requests(drain):
        return None
    failure = policy.spec.failure
    if state.is_unknown_with_renewed_lease(node):
        return WaitReason(ProgressingReason.CANCELLED, messages.LEASE_RENEWED)
    match state.diagnose(node, now).health:
        case Health.FAILED | Health.SUSPECTED:
            return None
        case Health.FLAPPING:
            message = messages.flapping(failure.flapping.changes, format_duration(failure.flapping.within))
            return WaitReason(ProgressingReason.FLAPPING, message)
        case _:
            message = messages.recovered(format_duration(failure.recover_after))
            return WaitReason(ProgressingReason.CANCELLED, message)


def _is_restarting(drain: NodeDrain, node: Node) -> bool:
    """Whether a drain that has begun waited until now, or continues after a suspicion has ended.

    Such a drain needs the storm brake and a slot again, like a drain that starts.
    """
    for c in drain.status.conditions:
        if (
            c.type == "Progressing"
            and c.status == "False"
            and c.reason in (*RECHECK_REASONS, ProgressingReason.MAX_CONCURRENT)
        ):
            return True
        if c.type == "Progressing" and c.reason == SUSPECTED and node.ready_status != CONDITION_UNKNOWN:
            return True
    return False


def _start_wait_reason(
    drain: NodeDrain, node: Node, policy: ReschedulePolicy, state: ClusterState, now: datetime
) -> WaitReason | None:
    if gates := closed_gates(drain, policy):
        return WaitReason(ProgressingReason.GATED, messages.gated(gates))
    if other_node := state.other_control_plane_node_in_drain(drain, node):
        return WaitReason(ProgressingReason.CONTROL_PLANE, messages.control_plane(other_node))
    if has_only_failure_requests(drain) or is_node_failing(drain, state, now):
        return (
            _storm_wait_reason(node, policy, state, now)
            or state.pool_wait_reason(node)
            or _recovery_wait_reason(drain, node, policy, state, now)
            or _failure_slot_wait_reason(drain, node, policy, state, now)
        )
    if window_reason := window_wait_reason(drain, policy, now):
        return window_reason
    slot_reason = concurrency.start_wait_reason(
        drain, node, policy.spec.maintenance, state.maintenance_queues[policy.name], state.nodes, now
    )
    return slot_reason or state.pool_wait_reason(node, _nodes_ahead(drain, state))


def _nodes_ahead(drain: NodeDrain, state: ClusterState) -> list[str]:
    """Return the nodes whose drains wait for a slot of any policy and start before this drain."""
    return [
        waiting.spec.node_name for queue in state.maintenance_queues.values() for waiting in queue.waiting_before(drain)
    ]


def _storm_wait_reason(node: Node, policy: ReschedulePolicy, state: ClusterState, now: datetime) -> WaitReason | None:
    """Return the wait reason if a storm brakes all causes of the drain; None if there is none."""
    storm_reason = state.apply_storm_brake(node, policy, now).storm_reason
    return WaitReason(ProgressingReason.STORM, storm_reason) if storm_reason else None


def _failure_slot_wait_reason(
    drain: NodeDrain, node: Node, policy: ReschedulePolicy, state: ClusterState, now: datetime
) -> WaitReason | None:
    """Return why the drain of a failed node has no slot; None if it has one, or a storm brakes all its causes."""
    cause = state.apply_storm_brake(node, policy, now).most_certain_cause
    if cause is None:
        return None
    return state.failure_queues[policy.name].wait_reason(
        FailureDrain.of(drain, cause), policy.spec.failure.max_concurrent
    )
