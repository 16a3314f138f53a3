"""Whether a drain may go on now, and if not, why: policy, suspension, gates, slots, storms.

A drain that may not go on touches nothing. Slots go first to drains already begun, oldest first, then in the
order in which they were asked for.
"""

from datetime import datetime

from rescheduler.api.drains import NodeDrain
from rescheduler.api.policies import Mode, OnWindowClose, Policy
from rescheduler.api.scalars import format_duration
from rescheduler.core.eligibility import concurrency
from rescheduler.core.eligibility.cluster_state import World, blind
from rescheduler.core.eligibility.failure_concurrency import Patient
from rescheduler.core.eligibility.preconditions import by_policy, failed, gated, only_failed, shut, steps_back_for
from rescheduler.core.failure.causes import SUSPICION
from rescheduler.core.failure.health import Health
from rescheduler.core.model import external_owners
from rescheduler.core.model.nodes import UNREACHABLE, Node
from rescheduler.core.model.wait_reasons import RESTING, SUSPECTED, Held, Hold


def held(drain: NodeDrain, world: World, now: datetime) -> Held | None:
    """Why this drain may not go on; None: it may."""
    if why := blind(world, now):
        return Held(Hold.STALE_VIEW, why)
    node = world.nodes.get(drain.spec.node_name)
    if node is None:
        return Held(Hold.STALE_VIEW, f"node {drain.spec.node_name} is not known yet")
    policy = world.policy(node)
    if policy is None:
        return Held(Hold.NO_POLICY, "no ReschedulePolicy selects this node: nothing is touched until one does")
    found = _held(drain, node, policy, world, now)
    if policy.spec.mode is not Mode.AUDIT:
        return found
    then = f"the drain would wait ({found.reason}: {found.message})" if found else "it would be cordoned and drained"
    return Held(Hold.AUDIT, f"ReschedulePolicy {policy.name} is in mode Audit, the node is not touched: {then}")


def _held(drain: NodeDrain, node: Node, policy: Policy, world: World, now: datetime) -> Held | None:
    if found := by_policy(drain, policy):
        return found
    if whose := external_owners.owner(node):
        return Held(Hold.OWNED_ELSEWHERE, f"{whose}: it empties the node by itself")
    if other := steps_back_for(drain, world.drains):
        return Held(
            Hold.MAX_CONCURRENT,
            f"this drain and that of {other.spec.node_name} held each other's budgets up: "
            f"it has stepped back until {other.spec.node_name} is Drained",
        )
    if drain.status.started_at is None:
        return _start(drain, node, policy, world, now) or _resting(drain, node, policy, world, now)
    if policy.spec.maintenance.on_window_close is OnWindowClose.PAUSE and (closed := shut(drain, policy, now)):
        return closed
    if drain.status.recordoned_at and not node.unschedulable:
        return Held(
            Hold.UNCORDONED,
            "somebody uncordoned the node twice: nothing more is moved until it is cordoned by hand, "
            "or the request is withdrawn",
        )
    if rests := _resting(drain, node, policy, world, now):
        return rests
    if failing(drain, world, now):
        if not _begins_anew(drain, node):
            return None
        return _storm(node, policy, world, now) or _slot(drain, node, policy, world, now)
    return concurrency.to_go_on(drain, node, policy.spec.maintenance, world.queues[policy.name], world.nodes, now)


def failing(drain: NodeDrain, world: World, now: datetime) -> bool:
    """Whether the node has failed, as far as it is known, and has not come back."""
    node = world.nodes.get(drain.spec.node_name)
    bad = (Health.FAILED, Health.SUSPECTED)
    return node is not None and failed(drain) and world.diagnose(node, now).health in bad


def suspected(drain: NodeDrain, world: World, now: datetime) -> bool:
    """Whether nothing but a silent Lease speaks for the drain: replacements may come up, and nothing may go.

    What a storm brakes does not speak for it.
    """
    node = world.nodes.get(drain.spec.node_name)
    policy = world.policy(node) if node else None
    if node is None or policy is None or not only_failed(drain):
        return False
    alone = world.footing(node, policy, now).causes == (SUSPICION,)
    return alone or world.diagnose(node, now).health is Health.SUSPECTED


def _resting(drain: NodeDrain, node: Node, policy: Policy, world: World, now: datetime) -> Held | None:
    """A drain for a failure that is over, or comes and goes, moves nothing."""
    if not only_failed(drain):
        return None
    failure = policy.spec.failure
    if world.contradicted(node):
        return Held(
            Hold.CANCELLED,
            "the node controller does not hear of the node, but its Lease is renewed: its kubelet lives, and nothing is "
            "moved. Check the node controller",
        )
    match world.diagnose(node, now).health:
        case Health.FAILED | Health.SUSPECTED:
            return None
        case Health.FLAPPING:
            often = f"{failure.flapping.changes} times or more within {format_duration(failure.flapping.within)}"
            return Held(
                Hold.FLAPPING,
                f"its conditions began to fail {often}: the node is only cordoned, until it is quiet for so long",
            )
        case _:
            well = format_duration(failure.recover_after)
            return Held(
                Hold.CANCELLED,
                f"the node does not fail any more: nothing is moved, and it is put back once well for {well}",
            )


def _begins_anew(drain: NodeDrain, node: Node) -> bool:
    """Whether it has begun, and nothing may have moved since, or only because of a suspicion that is over: what starts
    again asks the storm brake again, and for a slot.
    """
    for c in drain.status.conditions:
        if c.type == "Progressing" and c.status == "False" and c.reason in (*RESTING, Hold.MAX_CONCURRENT):
            return True
        if c.type == "Progressing" and c.reason == SUSPECTED and node.ready != UNREACHABLE:
            return True
    return False


def _start(drain: NodeDrain, node: Node, policy: Policy, world: World, now: datetime) -> Held | None:
    if gates := gated(drain, policy):
        return Held(Hold.GATED, f"waits for others to set the condition {', '.join(gates)} to True on this NodeDrain")
    if other := world.other_control_plane(drain, node):
        return Held(Hold.CONTROL_PLANE, f"control-plane node {other} is held by a drain: one at a time")
    if only_failed(drain) or failing(drain, world, now):
        return (
            _storm(node, policy, world, now)
            or world.pool_wait(node)
            or _resting(drain, node, policy, world, now)
            or _slot(drain, node, policy, world, now)
        )
    if closed := shut(drain, policy, now):
        return closed
    full = concurrency.to_begin(drain, node, policy.spec.maintenance, world.queues[policy.name], world.nodes, now)
    return full or world.pool_wait(node, _ahead(drain, world))


def _ahead(drain: NodeDrain, world: World) -> list[str]:
    """Nodes whose drains wait for a slot, under whatever policy, and whose turn comes before this one's."""
    return [other.spec.node_name for queue in world.queues.values() for other in queue.ahead(drain)]


def _storm(node: Node, policy: Policy, world: World, now: datetime) -> Held | None:
    """The storm that brakes all that speaks for the drain."""
    found = world.footing(node, policy, now).storm
    return Held(Hold.STORM, found) if found else None


def _slot(drain: NodeDrain, node: Node, policy: Policy, world: World, now: datetime) -> Held | None:
    """Why the drain of a failed node may not begin beside those that are under way."""
    cause = world.footing(node, policy, now).cause
    if cause is None:
        return None
    return world.failures[policy.name].wait(Patient.of(drain, cause), policy.spec.failure.max_concurrent)
