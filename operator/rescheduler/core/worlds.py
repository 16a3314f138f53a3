"""What is known of the cluster in one moment, for the decisions: small facts of nodes, policies and NodeDrains; no pods."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property

from rescheduler.api.drains import NodeDrain
from rescheduler.api.policies import Policy
from rescheduler.core import pool_budgets, slots, storms
from rescheduler.core.barriers import by_policy, failed, gated, only_failed, shut, steps_back_for
from rescheduler.core.facts import Node
from rescheduler.core.health import Diagnosis, Health, counts, diagnose
from rescheduler.core.holds import Held
from rescheduler.core.policies import Winners
from rescheduler.core.pool_budgets import PoolBudget
from rescheduler.core.sightings import Sighting
from rescheduler.core.slots import Queue
from rescheduler.core.storms import Weather

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
        late: while there are suspects, all nodes whose Lease is late.
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
    late: frozenset[str] = frozenset()
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
        return self._survey(self.suspects)

    @cached_property
    def outlook(self) -> Weather:
        """The same, with those whose Lease is late: of an outage not all have fallen silent when the first has."""
        return self._survey(self.suspects | self.late)

    def _survey(self, silent: frozenset[str]) -> Weather:
        away = {d.spec.node_name for d in self.drains.values() if d.status.drained_at and not only_failed(d)}
        known = frozenset(d.spec.node_name for d in self.drains.values() if failed(d))
        return storms.survey(
            (node, policy, node.name not in away and self._counts(node, policy, silent, standing=node.name in known))
            for node in self.nodes.values()
            if (policy := self.policy(node))
        )

    def _counts(self, node: Node, policy: Policy, silent: frozenset[str], *, standing: bool) -> bool:
        seen = self.sightings.get(node.name)
        return counts(node, policy, seen, self.now, suspected=node.name in silent, standing=standing)

    @cached_property
    def _out(self) -> frozenset[str]:
        """Nodes of pools that are out: held by a drain that has begun, or failed."""
        known = frozenset(d.spec.node_name for d in self.drains.values() if failed(d))
        sick = {
            name
            for name in self.budgets
            if (node := self.nodes.get(name))
            and (policy := self.policy(node))
            and self._counts(node, policy, self.suspects, standing=name in known)
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


def _queues(drain: NodeDrain, policy: Policy, world: World) -> bool:
    """Whether a drain that has not begun is waiting for a slot of its policy, and for nothing else.

    One that its pool cannot spare keeps nobody waiting: others may be of other pools.
    """
    node = world.nodes.get(drain.spec.node_name)
    return (
        not by_policy(drain, policy)
        and not shut(drain, policy, world.now)
        and not steps_back_for(drain, world.drains)
        and not gated(drain, policy)
        and (node is None or not world.pool_wait(node))
    )
