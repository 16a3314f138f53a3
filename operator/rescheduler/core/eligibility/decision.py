"""Whether a drain may go on now, and if not, why: policy, suspension, gates, slots, storms.

A drain that may not go on touches nothing. Slots go first to drains already begun, oldest first, then in the
order in which they were asked for.
"""

from datetime import datetime

from rescheduler.api.drains import NodeDrain
from rescheduler.api.policies import Mode, OnWindowClose, ReschedulePolicy
from rescheduler.api.scalars import format_duration
from rescheduler.core.eligibility import concurrency
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
    """Why this drain may not go on; None: it may."""
    if why := stale_view_reason(state, now):
        return WaitReason(ProgressingReason.STALE_VIEW, why)
    node = state.nodes.get(drain.spec.node_name)
    if node is None:
        return WaitReason(ProgressingReason.STALE_VIEW, f"node {drain.spec.node_name} is not known yet")
    policy = state.policy(node)
    if policy is None:
        return WaitReason(
            ProgressingReason.NO_POLICY, "no ReschedulePolicy selects this node: nothing is touched until one does"
        )
    found = _policy_bound_wait_reason(drain, node, policy, state, now)
    if policy.spec.mode is not Mode.AUDIT:
        return found
    then = f"the drain would wait ({found.reason}: {found.message})" if found else "it would be cordoned and drained"
    return WaitReason(
        ProgressingReason.AUDIT, f"ReschedulePolicy {policy.name} is in mode Audit, the node is not touched: {then}"
    )


def _policy_bound_wait_reason(
    drain: NodeDrain, node: Node, policy: ReschedulePolicy, state: ClusterState, now: datetime
) -> WaitReason | None:
    if found := policy_wait_reason(drain, policy):
        return found
    if whose := external_owners.node_removal_reason(node):
        return WaitReason(ProgressingReason.OWNED_ELSEWHERE, f"{whose}: it empties the node by itself")
    if other := steps_back_for(drain, state.drains):
        return WaitReason(
            ProgressingReason.MAX_CONCURRENT,
            f"this drain and that of {other.spec.node_name} held each other's budgets up: "
            f"it has stepped back until {other.spec.node_name} is Drained",
        )
    if drain.status.started_at is None:
        return _start_wait_reason(drain, node, policy, state, now) or _recovery_wait_reason(
            drain, node, policy, state, now
        )
    if policy.spec.maintenance.on_window_close is OnWindowClose.PAUSE and (
        closed := window_wait_reason(drain, policy, now)
    ):
        return closed
    if drain.status.recordoned_at and not node.unschedulable:
        return WaitReason(
            ProgressingReason.UNCORDONED,
            "somebody uncordoned the node twice: nothing more is moved until it is cordoned by hand, "
            "or the request is withdrawn",
        )
    if rests := _recovery_wait_reason(drain, node, policy, state, now):
        return rests
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
    """Whether the node has failed, as far as it is known, and has not come back."""
    node = state.nodes.get(drain.spec.node_name)
    bad = (Health.FAILED, Health.SUSPECTED)
    return node is not None and has_failure_request(drain) and state.diagnose(node, now).health in bad


def is_only_suspected(drain: NodeDrain, state: ClusterState, now: datetime) -> bool:
    """Whether nothing but a silent Lease speaks for the drain: replacements may come up, and nothing may go.

    What a storm brakes does not speak for it.
    """
    node = state.nodes.get(drain.spec.node_name)
    policy = state.policy(node) if node else None
    if node is None or policy is None or not has_only_failure_requests(drain):
        return False
    alone = state.apply_storm_brake(node, policy, now).allowed_causes == (LEASE_NOT_RENEWED,)
    return alone or state.diagnose(node, now).health is Health.SUSPECTED


def _recovery_wait_reason(
    drain: NodeDrain, node: Node, policy: ReschedulePolicy, state: ClusterState, now: datetime
) -> WaitReason | None:
    """A drain for a failure that is over, or comes and goes, moves nothing."""
    if not has_only_failure_requests(drain):
        return None
    failure = policy.spec.failure
    if state.is_unknown_with_renewed_lease(node):
        return WaitReason(
            ProgressingReason.CANCELLED,
            "the node controller does not hear of the node, but its Lease is renewed: its kubelet lives, and nothing is "
            "moved. Check the node controller",
        )
    match state.diagnose(node, now).health:
        case Health.FAILED | Health.SUSPECTED:
            return None
        case Health.FLAPPING:
            often = f"{failure.flapping.changes} times or more within {format_duration(failure.flapping.within)}"
            return WaitReason(
                ProgressingReason.FLAPPING,
                f"its conditions began to fail {often}: the node is only cordoned, until it is quiet for so long",
            )
        case _:
            well = format_duration(failure.recover_after)
            return WaitReason(
                ProgressingReason.CANCELLED,
                f"the node does not fail any more: nothing is moved, and it is put back once well for {well}",
            )


def _is_restarting(drain: NodeDrain, node: Node) -> bool:
    """Whether it has begun, and nothing may have moved since, or only because of a suspicion that is over: what starts
    again asks the storm brake again, and for a slot.
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
        return WaitReason(
            ProgressingReason.GATED,
            f"waits for others to set the condition {', '.join(gates)} to True on this NodeDrain",
        )
    if other := state.other_control_plane_node_in_drain(drain, node):
        return WaitReason(
            ProgressingReason.CONTROL_PLANE, f"control-plane node {other} is held by a drain: one at a time"
        )
    if has_only_failure_requests(drain) or is_node_failing(drain, state, now):
        return (
            _storm_wait_reason(node, policy, state, now)
            or state.pool_wait_reason(node)
            or _recovery_wait_reason(drain, node, policy, state, now)
            or _failure_slot_wait_reason(drain, node, policy, state, now)
        )
    if closed := window_wait_reason(drain, policy, now):
        return closed
    full = concurrency.start_wait_reason(
        drain, node, policy.spec.maintenance, state.maintenance_queues[policy.name], state.nodes, now
    )
    return full or state.pool_wait_reason(node, _nodes_ahead(drain, state))


def _nodes_ahead(drain: NodeDrain, state: ClusterState) -> list[str]:
    """Nodes whose drains wait for a slot, under whatever policy, and whose turn comes before this one's."""
    return [
        other.spec.node_name for queue in state.maintenance_queues.values() for other in queue.waiting_before(drain)
    ]


def _storm_wait_reason(node: Node, policy: ReschedulePolicy, state: ClusterState, now: datetime) -> WaitReason | None:
    """The storm that brakes all that speaks for the drain."""
    found = state.apply_storm_brake(node, policy, now).storm_reason
    return WaitReason(ProgressingReason.STORM, found) if found else None


def _failure_slot_wait_reason(
    drain: NodeDrain, node: Node, policy: ReschedulePolicy, state: ClusterState, now: datetime
) -> WaitReason | None:
    """Why the drain of a failed node may not begin beside those that are under way."""
    cause = state.apply_storm_brake(node, policy, now).most_certain_cause
    if cause is None:
        return None
    return state.failure_queues[policy.name].wait_reason(
        FailureDrain.of(drain, cause), policy.spec.failure.max_concurrent
    )
