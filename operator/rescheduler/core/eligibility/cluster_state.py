"""What is known of the cluster in one moment, for the decisions: small facts of nodes, policies and NodeDrains; no pods."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property

from rescheduler.api import names
from rescheduler.api.drains import NodeDrain
from rescheduler.api.policies import Policy
from rescheduler.core.eligibility import concurrency, failure_concurrency
from rescheduler.core.eligibility.concurrency import Queue
from rescheduler.core.eligibility.failure_concurrency import Line, Patient
from rescheduler.core.eligibility.preconditions import by_policy, failed, gated, only_failed, shut, steps_back_for
from rescheduler.core.failure import storm_brake
from rescheduler.core.failure.causes import SILENT, Cause, Certainty
from rescheduler.core.failure.condition_history import Sighting
from rescheduler.core.failure.health import Diagnosis, Health, diagnose, flapping_until, symptoms
from rescheduler.core.failure.storm_brake import Weather
from rescheduler.core.model import external_owners
from rescheduler.core.model.nodes import UNREACHABLE, Node
from rescheduler.core.model.policy_selection import Winners
from rescheduler.core.model.wait_reasons import Held, Hold
from rescheduler.core.pools import max_unavailable
from rescheduler.core.pools.max_unavailable import PoolBudget

_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
STALE = timedelta(minutes=3)
"""Nodes, policies and NodeDrains are listed each minute; where that has failed for so long, the view is stale."""


@dataclass(frozen=True, slots=True)
class Footing:
    """By what a node may be drained for its failure.

    Attributes:
        causes: those that no storm brakes, the most certain first.
        storm: the storm that keeps the node from being drained, in words; empty if none does.
    """

    causes: tuple[Cause, ...] = ()
    storm: str = ""

    @property
    def cause(self) -> Cause | None:
        """The most certain one; None if there is none."""
        return next(iter(self.causes), None)


@dataclass(frozen=True)
class World:
    """All small facts of one moment; no pods. What many drains ask is worked out once.

    Attributes:
        listed: when nodes, policies and NodeDrains were last listed in full; None: that is not followed.
        sightings: what was seen of nodes over time, by name.
        suspects: nodes whose Lease is silent.
        late: while there are suspects, all nodes whose Lease is late.
        heard: nodes that are Unknown though their Lease is renewed.
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
    heard: frozenset[str] = frozenset()

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
        suspected, heard = node.name in self.suspects, node.name in self.heard
        return diagnose(node, self.policy(node), seen, now, standing=True, suspected=suspected, heard=heard)

    def contradicted(self, node: Node) -> bool:
        """Whether the node controller does not hear of the node, and its Lease is renewed all the same."""
        return node.ready == UNREACHABLE and node.name in self.heard

    def footing(self, node: Node, policy: Policy, now: datetime) -> Footing:
        """By what a node with a drain for its failure may be drained.

        A cause in a storm brakes no other one. But what is done on a node that nobody hears of, where pods go without
        their budgets, waits for the storm of such nodes, whatever else is said of it.
        """
        found = self.diagnose(node, now)
        if self.contradicted(node):
            return Footing()
        if found.health is Health.FLAPPING:
            return Footing(storm=self._flapping_storm(node, policy, now))
        silent = SILENT in self._symptoms(node, policy, self.suspects, standing=True)
        alone = node.ready != UNREACHABLE  # whom only its Lease speaks against
        storm = self._storm(node, policy, SILENT, late=alone) if silent and found.causes else ""
        if storm:
            return Footing(storm=storm)
        storms_by = {
            cause: self._storm(node, policy, cause.name, late=cause.certainty is Certainty.SUSPECTED)
            for cause in found.causes
        }
        free = tuple(cause for cause, words in storms_by.items() if not words)
        return Footing(free, "" if free else next(iter(storms_by.values()), ""))

    def _storm(self, node: Node, policy: Policy, cause: str, *, late: bool = False) -> str:
        """A mere suspicion does not begin while so many others may be about to be suspected."""
        if late:
            return storm_brake.storm(node, policy, self.outlook, cause, like=" or a Lease that is late")
        return storm_brake.storm(node, policy, self.weather, cause)

    def _flapping_storm(self, node: Node, policy: Policy, now: datetime) -> str:
        """The storm of what a node flaps by, if it would not flap without."""
        seen = self.sightings[node.name]
        like, causes = " or had it on and off", sorted({begin.cause for begin in seen.begins})
        found = {cause: storm_brake.storm(node, policy, self.unrest, cause, like=like) for cause in causes}
        braked = [cause for cause, words in found.items() if words]
        if not braked or flapping_until(seen, policy.spec.failure, now, braked):
            return ""
        return found[braked[0]]

    @cached_property
    def weather(self) -> Weather:
        """Who is unhealthy, for the storm brake: not who was emptied for maintenance and may be switched off."""
        return self._survey(self.suspects)

    @cached_property
    def outlook(self) -> Weather:
        """The same, with those whose Lease is late: of an outage not all have fallen silent when the first has."""
        return self._survey(self.suspects | self.late)

    @cached_property
    def unrest(self) -> Weather:
        """The same as the weather, with nodes that flap, for each cause that they flap by."""
        return self._survey(self.suspects, flapping=True)

    def _survey(self, silent: frozenset[str], *, flapping: bool = False) -> Weather:
        away = {d.spec.node_name for d in self.drains.values() if d.status.drained_at and not only_failed(d)}

        def causes(node: Node, policy: Policy) -> frozenset[str]:
            if node.name in away:
                return frozenset()
            found = self._symptoms(node, policy, silent, standing=node.name in self._known)
            return found | self._flaps_by(node, policy) if flapping else found

        return storm_brake.survey(
            (node, policy, causes(node, policy)) for node in self.nodes.values() if (policy := self.policy(node))
        )

    @cached_property
    def _known(self) -> frozenset[str]:
        """Nodes with a drain for their failure."""
        return frozenset(drain.spec.node_name for drain in self.drains.values() if failed(drain))

    def _symptoms(self, node: Node, policy: Policy, silent: frozenset[str], *, standing: bool) -> frozenset[str]:
        seen, heard = self.sightings.get(node.name), node.name in self.heard
        return symptoms(node, policy, seen, self.now, suspected=node.name in silent, heard=heard, standing=standing)

    def _flaps_by(self, node: Node, policy: Policy) -> frozenset[str]:
        seen = self.sightings.get(node.name)
        if seen is None or not flapping_until(seen, policy.spec.failure, self.now):
            return frozenset()
        return frozenset(begin.cause for begin in seen.begins if begin.cause)

    @cached_property
    def _out(self) -> frozenset[str]:
        """Nodes of pools that are out: held by a drain that has begun, or failed."""
        sick = {
            name
            for name in self.budgets
            if (node := self.nodes.get(name))
            and (policy := self.policy(node))
            and self._symptoms(node, policy, self.suspects, standing=name in self._known)
        }
        return max_unavailable.out(self.drains.values(), sick)

    def pool_wait(self, node: Node, ahead: Collection[str] = ()) -> Held | None:
        """Why the node's pool cannot spare it now; None: it can. `ahead`: nodes whose turn comes before."""
        budget = self.budgets.get(node.name)
        if budget is None or node.name in self.suspects:
            return None
        return max_unavailable.wait(node, budget, self._out, ahead)

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
            name: Queue(len(self.members[name]), tuple(begun[name]), tuple(sorted(waiting[name], key=concurrency.turn)))
            for name in begun
        }

    @cached_property
    def failures(self) -> Mapping[str, Line]:
        """The drains for failures of each policy, by the policy's name: those under way, and those that could begin."""
        running: dict[str, list[Patient]] = {policy.name: [] for policy in self.winners.policies}
        waiting: dict[str, list[Patient]] = {policy.name: [] for policy in self.winners.policies}
        for drain in self.drains.values():
            node = self.nodes.get(drain.spec.node_name)
            policy = self.policy(node) if node else None
            if node is None or policy is None or not failed(drain) or drain.deletion_timestamp is not None:
                continue
            if drain.status.started_at is None:
                cause = self.footing(node, policy, self.now).cause
                if cause and _could_begin(drain, node, policy, self):
                    waiting[policy.name].append(Patient.of(drain, cause))
                continue
            cause = next(iter(self.diagnose(node, self.now).causes), None)
            if cause and failure_concurrency.under_way(drain, cause, self.now):
                running[policy.name].append(Patient.of(drain, cause))
        return {
            name: Line(len(self.members[name]), tuple(running[name]), tuple(sorted(waiting[name], key=Patient.turn)))
            for name in running
        }

    def other_control_plane(self, drain: NodeDrain, node: Node) -> str:
        """Another control-plane node that a drain holds, where this is one: etcd must not lose its quorum."""
        if names.CONTROL_PLANE not in node.labels:
            return ""
        for other in self.drains.values():
            there = self.nodes.get(other.spec.node_name)
            if other.name != drain.name and other.status.started_at and there and names.CONTROL_PLANE in there.labels:
                return there.name
        return ""


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
        and not _owned_elsewhere(drain)
        and (node is None or not world.pool_wait(node))
    )


def _could_begin(drain: NodeDrain, node: Node, policy: Policy, world: World) -> bool:
    """Whether nothing but a slot of its policy's failures keeps the drain of a failed node from beginning."""
    return (
        not by_policy(drain, policy)
        and not external_owners.owner(node)
        and not _owned_elsewhere(drain)
        and not steps_back_for(drain, world.drains)
        and not gated(drain, policy)
        and not world.other_control_plane(drain, node)
        and not world.pool_wait(node)
    )


def _owned_elsewhere(drain: NodeDrain) -> bool:
    """Whether somebody else holds the node, as was found out by asking: such a drain keeps nobody waiting."""
    return any(
        c.type == "Progressing" and c.status == "False" and c.reason == Hold.OWNED_ELSEWHERE
        for c in drain.status.conditions
    )
