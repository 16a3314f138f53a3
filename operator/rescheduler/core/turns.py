"""Whether a drain may go on now, and if not, why: policy, suspension, gates, slots, storms.

A drain that may not go on touches nothing. Slots go first to drains already begun, oldest first, then in the
order in which they were asked for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property

from rescheduler.api import names
from rescheduler.api.drains import NodeDrain, Reason
from rescheduler.api.policies import Mode, OnWindowClose, Policy, Suspend
from rescheduler.core import slots
from rescheduler.core.facts import Node
from rescheduler.core.holds import Held, Hold
from rescheduler.core.policies import Winners
from rescheduler.core.slots import Queue
from rescheduler.core.triggers import ill
from rescheduler.core.windows import look

_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
STALE = timedelta(minutes=3)
"""Nodes, policies and NodeDrains are listed each minute; where that has failed for so long, the view is stale."""


@dataclass(frozen=True)
class World:
    """All small facts of one moment; no pods. What many drains ask is worked out once.

    Attributes:
        listed: when nodes, policies and NodeDrains were last listed in full; None: that is not followed.
    """

    nodes: Mapping[str, Node]
    winners: Winners
    drains: Mapping[str, NodeDrain]
    now: datetime = _LONG_AGO
    listed: datetime | None = None

    def policy(self, node: Node) -> Policy | None:
        """The policy that decides for this node."""
        return self.winners.of(node)

    @cached_property
    def members(self) -> Mapping[str, tuple[Node, ...]]:
        """The nodes that each policy decides for, by the policy's name."""
        found: dict[str, list[Node]] = {policy.name: [] for policy in self.winners.policies}
        for node in self.nodes.values():
            if policy := self.policy(node):
                found[policy.name].append(node)
        return {name: tuple(nodes) for name, nodes in found.items()}

    @cached_property
    def queues(self) -> Mapping[str, Queue]:
        """The queue of each policy, by the policy's name."""
        begun: dict[str, list[NodeDrain]] = {policy.name: [] for policy in self.winners.policies}
        waiting: dict[str, list[NodeDrain]] = {policy.name: [] for policy in self.winners.policies}
        for drain in self.drains.values():
            node = self.nodes.get(drain.spec.node_name)
            policy = self.policy(node) if node else None
            if policy is None or failed(drain) or drain.deletion_timestamp is not None:
                continue
            if drain.status.started_at:
                begun[policy.name].append(drain)
            elif _queues(drain, policy, self):
                waiting[policy.name].append(drain)
        return {
            name: Queue(len(self.members[name]), tuple(begun[name]), tuple(sorted(waiting[name], key=slots.turn)))
            for name in begun
        }


def held(drain: NodeDrain, world: World, now: datetime) -> Held | None:
    """Why this drain may not go on; None: it may."""
    node = world.nodes.get(drain.spec.node_name)
    if world.listed and now - world.listed >= STALE:
        silent = int((now - world.listed).total_seconds())
        return Held(Hold.STALE_VIEW, f"nodes, policies and NodeDrains could not be listed for {silent} s")
    if node is None:
        return Held(Hold.STALE_VIEW, f"node {drain.spec.node_name} is not known yet")
    policy = world.policy(node)
    if policy is None:
        return Held(Hold.NO_POLICY, "no ReschedulePolicy selects this node: nothing is touched until one does")
    if found := _by_policy(drain, policy):
        return found
    if other := steps_back_for(drain, world):
        return Held(
            Hold.MAX_CONCURRENT,
            f"this drain and that of {other.spec.node_name} held each other's budgets up: "
            f"it has stepped back until {other.spec.node_name} is Drained",
        )
    if drain.status.started_at is None:
        return _start(drain, node, policy, world, now)
    if policy.spec.maintenance.on_window_close is OnWindowClose.PAUSE and (shut := _shut(drain, policy, now)):
        return shut
    if drain.status.recordoned_at and not node.unschedulable:
        return Held(
            Hold.UNCORDONED,
            "somebody uncordoned the node twice: nothing more is moved until it is cordoned by hand, "
            "or the request is withdrawn",
        )
    if failed(drain):
        return None
    return slots.to_go_on(drain, node, policy.spec.maintenance, world.queues[policy.name], world.nodes, now)


def steps_back_for(drain: NodeDrain, world: World) -> NodeDrain | None:
    """The drain that this one has stepped back for, while that is neither Drained nor gone."""
    name, _, uid = drain.annotations.get(names.STEPPED_BACK, "").rpartition("/")
    other = world.drains.get(name)
    return other if other and other.uid == uid and not other.status.drained_at else None


def failed(drain: NodeDrain) -> bool:
    """Whether the node failed: then it queues behind nobody."""
    return any(r.reason is Reason.FAILURE for r in drain.spec.requests)


def only_failed(drain: NodeDrain) -> bool:
    """Whether nothing but its failure asks for the drain."""
    return all(r.reason is Reason.FAILURE for r in drain.spec.requests)


def _by_policy(drain: NodeDrain, policy: Policy) -> Held | None:
    spec, begun = policy.spec, drain.status.started_at is not None
    if spec.mode is Mode.AUDIT:
        return Held(
            Hold.AUDIT, f"ReschedulePolicy {policy.name} is in mode Audit: the node would be cordoned and drained"
        )
    if spec.suspend is Suspend.ALL or (spec.suspend is Suspend.NEW and not begun):
        return Held(Hold.SUSPENDED, f"ReschedulePolicy {policy.name} has suspend: {spec.suspend}")
    asked = {request.reason for request in drain.spec.requests}
    enabled = {
        Reason.MAINTENANCE: spec.maintenance.enabled,
        Reason.FAILURE: spec.failure.enabled,
        Reason.MANUAL: True,
    }
    if not any(enabled[reason] for reason in asked):
        triggers = " and ".join(sorted(f"{reason.lower()}.enabled: false" for reason in asked))
        return Held(Hold.DISABLED, f"ReschedulePolicy {policy.name} has {triggers}")
    return None


def _start(drain: NodeDrain, node: Node, policy: Policy, world: World, now: datetime) -> Held | None:
    gates = drain.spec.drain.over(policy.spec.drain).gates
    shut = [gate for gate in gates if not _is_true(drain, gate)]
    if shut:
        return Held(Hold.GATED, f"waits for others to set the condition {', '.join(shut)} to True on this NodeDrain")
    if failed(drain):
        return _storm(policy, world)
    if shut_window := _shut(drain, policy, now):
        return shut_window
    return slots.to_begin(drain, node, policy.spec.maintenance, world.queues[policy.name], world.nodes, now)


def _shut(drain: NodeDrain, policy: Policy, now: datetime) -> Held | None:
    """Windows are for maintenance alone: who asks by hand, or a node that failed, does not wait for one."""
    if not policy.spec.maintenance.windows or any(r.reason is not Reason.MAINTENANCE for r in drain.spec.requests):
        return None
    found = look(policy.spec.maintenance.windows, now)
    if found.until:
        return None
    then = f"the next maintenance window opens at {found.next:%Y-%m-%d %H:%M} UTC" if found.next else "no window opens"
    return Held(Hold.WINDOW, "; ".join(part for part in (then, found.error) if part))


def _is_true(drain: NodeDrain, type_: str) -> bool:
    return any(c.type == type_ and c.status == "True" for c in drain.status.conditions)


def _storm(policy: Policy, world: World) -> Held | None:
    nodes = world.members[policy.name]
    sick = sum(ill(node, policy) for node in nodes)
    limit = policy.spec.failure.max_unhealthy
    if sick > 1 and sick > limit.of(len(nodes)):
        return Held(
            Hold.STORM,
            f"{sick} of {len(nodes)} nodes of ReschedulePolicy {policy.name} are unhealthy, "
            f"more than failure.maxUnhealthy {limit}: nothing new starts",
        )
    return None


def _queues(drain: NodeDrain, policy: Policy, world: World) -> bool:
    """Whether a drain that has not begun is waiting for a slot, and for nothing else."""
    gates = drain.spec.drain.over(policy.spec.drain).gates
    return (
        not _by_policy(drain, policy)
        and not _shut(drain, policy, world.now)
        and not steps_back_for(drain, world)
        and all(_is_true(drain, gate) for gate in gates)
    )
