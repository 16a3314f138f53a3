"""Whether a drain may go on now, and if not, why: policy, suspension, gates, slots, storms.

A drain that may not go on touches nothing. Slots go first to drains already begun, oldest first, then in the
order in which they were asked for.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property

from rescheduler.api import names
from rescheduler.api.drains import NodeDrain, Reason
from rescheduler.api.policies import Mode, OnWindowClose, Policy, Suspend
from rescheduler.api.scalars import format_duration
from rescheduler.core import ownerships, pool_budgets, slots, storms
from rescheduler.core.facts import Node
from rescheduler.core.health import Diagnosis, Health, counts, diagnose
from rescheduler.core.holds import RESTING, Held, Hold
from rescheduler.core.policies import Winners
from rescheduler.core.pool_budgets import PoolBudget
from rescheduler.core.sightings import Sighting
from rescheduler.core.slots import Queue
from rescheduler.core.storms import Weather
from rescheduler.core.windows import look

_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
STALE = timedelta(minutes=3)
"""Nodes, policies and NodeDrains are listed each minute; where that has failed for so long, the view is stale."""


@dataclass(frozen=True)
class World:
    """All small facts of one moment; no pods. What many drains ask is worked out once.

    Attributes:
        listed: when nodes, policies and NodeDrains were last listed in full; None: that is not followed.
        sightings: what was seen of nodes over time, by name.
        suspects: nodes whose Lease is silent.
        blackout: why what we see of the nodes is not to be believed now; empty where it is.
        budgets: of the pools, by each of their nodes.
    """

    nodes: Mapping[str, Node]
    winners: Winners
    drains: Mapping[str, NodeDrain]
    now: datetime = _LONG_AGO
    listed: datetime | None = None
    sightings: Mapping[str, Sighting] = field(default_factory=dict)
    suspects: frozenset[str] = frozenset()
    blackout: str = ""
    budgets: Mapping[str, PoolBudget] = field(default_factory=dict)

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

    def diagnose(self, node: Node, now: datetime) -> Diagnosis:
        """How a node is that has a drain for its failure."""
        seen = self.sightings.get(node.name)
        if seen is None:
            return Diagnosis(Health.WELL)
        return diagnose(node, self.policy(node), seen, now, standing=True, suspected=node.name in self.suspects)

    @cached_property
    def weather(self) -> Weather:
        """Who is unhealthy, for the storm brake: not who was emptied for maintenance and may be switched off."""
        away = {d.spec.node_name for d in self.drains.values() if d.status.drained_at and not only_failed(d)}
        known = frozenset(d.spec.node_name for d in self.drains.values() if failed(d))
        return storms.survey(
            (node, policy, node.name not in away and self._counts(node, policy, standing=node.name in known))
            for node in self.nodes.values()
            if (policy := self.policy(node))
        )

    def _counts(self, node: Node, policy: Policy, *, standing: bool) -> bool:
        seen = self.sightings.get(node.name)
        return counts(node, policy, seen, self.now, suspected=node.name in self.suspects, standing=standing)

    @cached_property
    def _out(self) -> frozenset[str]:
        """Nodes of pools that are out: held by a drain that has begun, or failed."""
        known = frozenset(d.spec.node_name for d in self.drains.values() if failed(d))
        sick = {
            name
            for name in self.budgets
            if (node := self.nodes.get(name))
            and (policy := self.policy(node))
            and self._counts(node, policy, standing=name in known)
        }
        return pool_budgets.out(self.drains.values(), sick)

    def pool_wait(self, node: Node, ahead: Collection[str] = ()) -> Held | None:
        """Why the node's pool cannot spare it now; None: it can. `ahead`: nodes whose turn comes before."""
        budget = self.budgets.get(node.name)
        if budget is None or node.name in self.suspects:
            return None
        return pool_budgets.wait(node, budget, self._out, ahead)

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


def blind(world: World, now: datetime) -> str:
    """Why what we know of the cluster is not to be acted on; empty where it is."""
    if world.listed and now - world.listed >= STALE:
        silent = int((now - world.listed).total_seconds())
        return f"nodes, policies and NodeDrains could not be listed for {silent} s"
    return world.blackout


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
    if found := _by_policy(drain, policy):
        return found
    if whose := ownerships.owner(node):
        return Held(Hold.OWNED_ELSEWHERE, f"{whose}: it empties the node by itself")
    if other := steps_back_for(drain, world):
        return Held(
            Hold.MAX_CONCURRENT,
            f"this drain and that of {other.spec.node_name} held each other's budgets up: "
            f"it has stepped back until {other.spec.node_name} is Drained",
        )
    if drain.status.started_at is None:
        return _start(drain, node, policy, world, now) or _resting(drain, node, policy, world, now)
    if policy.spec.maintenance.on_window_close is OnWindowClose.PAUSE and (shut := _shut(drain, policy, now)):
        return shut
    if drain.status.recordoned_at and not node.unschedulable:
        return Held(
            Hold.UNCORDONED,
            "somebody uncordoned the node twice: nothing more is moved until it is cordoned by hand, "
            "or the request is withdrawn",
        )
    if rests := _resting(drain, node, policy, world, now):
        return rests
    if failing(drain, world, now):
        return _storm(node, policy, world) if _rested(drain) else None
    return slots.to_go_on(drain, node, policy.spec.maintenance, world.queues[policy.name], world.nodes, now)


def failing(drain: NodeDrain, world: World, now: datetime) -> bool:
    """Whether the node has failed, as far as it is known, and has not come back."""
    node = world.nodes.get(drain.spec.node_name)
    bad = (Health.FAILED, Health.SUSPECTED)
    return node is not None and failed(drain) and world.diagnose(node, now).health in bad


def suspected(drain: NodeDrain, world: World, now: datetime) -> bool:
    """Whether nothing but a silent Lease speaks for the drain: replacements may come up, and nothing may go."""
    node = world.nodes.get(drain.spec.node_name)
    return node is not None and only_failed(drain) and world.diagnose(node, now).health is Health.SUSPECTED


def _resting(drain: NodeDrain, node: Node, policy: Policy, world: World, now: datetime) -> Held | None:
    """A drain for a failure that is over, or comes and goes, moves nothing."""
    if not only_failed(drain):
        return None
    failure = policy.spec.failure
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


def _rested(drain: NodeDrain) -> bool:
    """Whether it has begun and nothing may have moved since: what starts again asks the storm brake again."""
    return any(c.type == "Progressing" and c.status == "False" and c.reason in RESTING for c in drain.status.conditions)


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
    if other := _other_control_plane(drain, node, world):
        return Held(Hold.CONTROL_PLANE, f"control-plane node {other} is held by a drain: one at a time")
    if only_failed(drain) or failing(drain, world, now):
        return _storm(node, policy, world) or world.pool_wait(node)
    if shut_window := _shut(drain, policy, now):
        return shut_window
    full = slots.to_begin(drain, node, policy.spec.maintenance, world.queues[policy.name], world.nodes, now)
    return full or world.pool_wait(node, _ahead(drain, world))


def _ahead(drain: NodeDrain, world: World) -> list[str]:
    """Nodes whose drains wait for a slot, under whatever policy, and whose turn comes before this one's."""
    return [other.spec.node_name for queue in world.queues.values() for other in queue.ahead(drain)]


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


def _storm(node: Node, policy: Policy, world: World) -> Held | None:
    found = storms.storm(node, policy, world.weather)
    return Held(Hold.STORM, found) if found else None


def _other_control_plane(drain: NodeDrain, node: Node, world: World) -> str:
    """Another control-plane node that a drain holds, where this is one: etcd must not lose its quorum."""
    if names.CONTROL_PLANE not in node.labels:
        return ""
    for other in world.drains.values():
        there = world.nodes.get(other.spec.node_name)
        if other.name != drain.name and other.status.started_at and there and names.CONTROL_PLANE in there.labels:
            return there.name
    return ""


def _queues(drain: NodeDrain, policy: Policy, world: World) -> bool:
    """Whether a drain that has not begun is waiting for a slot of its policy, and for nothing else.

    One that its pool cannot spare keeps nobody waiting: others may be of other pools.
    """
    gates = drain.spec.drain.over(policy.spec.drain).gates
    node = world.nodes.get(drain.spec.node_name)
    return (
        not _by_policy(drain, policy)
        and not _shut(drain, policy, world.now)
        and not steps_back_for(drain, world)
        and all(_is_true(drain, gate) for gate in gates)
        and (node is None or not world.pool_wait(node))
    )
