"""What is known of the cluster in one moment, for the decisions: small facts of nodes, policies and NodeDrains; no pods."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property

from rescheduler.api import names
from rescheduler.api.drains import NodeDrain
from rescheduler.api.policies import ReschedulePolicy
from rescheduler.core.eligibility import concurrency, failure_concurrency
from rescheduler.core.eligibility.concurrency import MaintenanceQueue
from rescheduler.core.eligibility.failure_concurrency import FailureDrain, FailureQueue
from rescheduler.core.eligibility.preconditions import (
    closed_gates,
    has_failure_request,
    has_only_failure_requests,
    policy_wait_reason,
    steps_back_for,
    window_wait_reason,
)
from rescheduler.core.failure import storm_brake
from rescheduler.core.failure.causes import READY_UNKNOWN, Certainty, FailureCause
from rescheduler.core.failure.condition_history import ConditionHistory
from rescheduler.core.failure.health import Diagnosis, Health, diagnose, flapping_until, unhealthy_cause_names
from rescheduler.core.failure.storm_brake import UnhealthyCounts
from rescheduler.core.model import external_owners
from rescheduler.core.model.nodes import CONDITION_UNKNOWN, Node
from rescheduler.core.model.policy_selection import PolicySelector
from rescheduler.core.model.wait_reasons import ProgressingReason, WaitReason
from rescheduler.core.pools import max_unavailable
from rescheduler.core.pools.max_unavailable import PoolBudget

_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
LIST_STALE_AFTER = timedelta(minutes=3)
"""Nodes, policies and NodeDrains are listed each minute; where that has failed for so long, the view is stale."""


@dataclass(frozen=True, slots=True)
class StormBrakeResult:
    """By what a node may be drained for its failure.

    Attributes:
        causes: those that no storm brakes, the most certain first.
        storm: the storm that keeps the node from being drained, in words; empty if none does.
    """

    allowed_causes: tuple[FailureCause, ...] = ()
    storm_reason: str = ""

    @property
    def most_certain_cause(self) -> FailureCause | None:
        """The most certain one; None if there is none."""
        return next(iter(self.allowed_causes), None)


@dataclass(frozen=True)
class ClusterState:
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
    policy_selector: PolicySelector
    drains: Mapping[str, NodeDrain]
    now: datetime = _LONG_AGO
    listed_at: datetime | None = None
    condition_histories: Mapping[str, ConditionHistory] = field(default_factory=dict)
    suspected_nodes: frozenset[str] = frozenset()
    nodes_with_late_lease: frozenset[str] = frozenset()
    view_problem: str = ""
    pool_budgets: Mapping[str, PoolBudget] = field(default_factory=dict)
    nodes_with_renewed_lease: frozenset[str] = frozenset()

    def policy(self, node: Node) -> ReschedulePolicy | None:
        """The policy that decides for this node."""
        return self.policy_selector.policy_for(node)

    @cached_property
    def nodes_by_policy(self) -> Mapping[str, tuple[Node, ...]]:
        """The nodes that each policy decides for, by the policy's name."""
        found: dict[str, list[Node]] = {policy.name: [] for policy in self.policy_selector.policies}
        for node in self.nodes.values():
            if policy := self.policy(node):
                found[policy.name].append(node)
        return {name: tuple(nodes) for name, nodes in found.items()}

    def diagnose(self, node: Node, now: datetime) -> Diagnosis:
        """How a node is that has a drain for its failure."""
        seen = self.condition_histories.get(node.name)
        if seen is None:
            return Diagnosis(Health.HEALTHY)
        suspected, heard = node.name in self.suspected_nodes, node.name in self.nodes_with_renewed_lease
        return diagnose(
            node, self.policy(node), seen, now, failure_known=True, suspected=suspected, lease_renewed=heard
        )

    def is_unknown_with_renewed_lease(self, node: Node) -> bool:
        """Whether the node controller does not hear of the node, and its Lease is renewed all the same."""
        return node.ready_status == CONDITION_UNKNOWN and node.name in self.nodes_with_renewed_lease

    def apply_storm_brake(self, node: Node, policy: ReschedulePolicy, now: datetime) -> StormBrakeResult:
        """By what a node with a drain for its failure may be drained.

        A cause in a storm brakes no other one. But what is done on a node that nobody hears of, where pods go without
        their budgets, waits for the storm of such nodes, whatever else is said of it.
        """
        found = self.diagnose(node, now)
        if self.is_unknown_with_renewed_lease(node):
            return StormBrakeResult()
        if found.health is Health.FLAPPING:
            return StormBrakeResult(storm_reason=self._flapping_storm_reason(node, policy, now))
        silent = READY_UNKNOWN in self._unhealthy_causes(node, policy, self.suspected_nodes, failure_known=True)
        alone = node.ready_status != CONDITION_UNKNOWN  # whom only its Lease speaks against
        storm = (
            self._storm_reason(node, policy, READY_UNKNOWN, include_late_leases=alone)
            if silent and found.causes
            else ""
        )
        if storm:
            return StormBrakeResult(storm_reason=storm)
        storms_by = {
            cause: self._storm_reason(
                node, policy, cause.name, include_late_leases=cause.certainty is Certainty.SUSPECTED
            )
            for cause in found.causes
        }
        free = tuple(cause for cause, words in storms_by.items() if not words)
        return StormBrakeResult(free, "" if free else next(iter(storms_by.values()), ""))

    def _storm_reason(
        self, node: Node, policy: ReschedulePolicy, cause: str, *, include_late_leases: bool = False
    ) -> str:
        """A mere suspicion does not begin while so many others may be about to be suspected."""
        if include_late_leases:
            return storm_brake.storm_reason(
                node, policy, self.unhealthy_counts_with_late_leases, cause, also_counted=" or a Lease that is late"
            )
        return storm_brake.storm_reason(node, policy, self.unhealthy_counts, cause)

    def _flapping_storm_reason(self, node: Node, policy: ReschedulePolicy, now: datetime) -> str:
        """The storm of what a node flaps by, if it would not flap without."""
        seen = self.condition_histories[node.name]
        like, causes = " or had it on and off", sorted({begin.cause for begin in seen.failure_starts})
        found = {
            cause: storm_brake.storm_reason(node, policy, self.unhealthy_counts_with_flapping, cause, also_counted=like)
            for cause in causes
        }
        braked = [cause for cause, words in found.items() if words]
        if not braked or flapping_until(seen, policy.spec.failure, now, braked):
            return ""
        return found[braked[0]]

    @cached_property
    def unhealthy_counts(self) -> UnhealthyCounts:
        """Who is unhealthy, for the storm brake: not who was emptied for maintenance and may be switched off."""
        return self._count_unhealthy(self.suspected_nodes)

    @cached_property
    def unhealthy_counts_with_late_leases(self) -> UnhealthyCounts:
        """The same, with those whose Lease is late: of an outage not all have fallen silent when the first has."""
        return self._count_unhealthy(self.suspected_nodes | self.nodes_with_late_lease)

    @cached_property
    def unhealthy_counts_with_flapping(self) -> UnhealthyCounts:
        """The same as the weather, with nodes that flap, for each cause that they flap by."""
        return self._count_unhealthy(self.suspected_nodes, include_flapping=True)

    def _count_unhealthy(self, silent_nodes: frozenset[str], *, include_flapping: bool = False) -> UnhealthyCounts:
        away = {
            d.spec.node_name for d in self.drains.values() if d.status.drained_at and not has_only_failure_requests(d)
        }

        def causes(node: Node, policy: ReschedulePolicy) -> frozenset[str]:
            if node.name in away:
                return frozenset()
            found = self._unhealthy_causes(
                node, policy, silent_nodes, failure_known=node.name in self._nodes_with_failure_drain
            )
            return found | self._flapping_causes(node, policy) if include_flapping else found

        return storm_brake.count_unhealthy(
            (node, policy, causes(node, policy)) for node in self.nodes.values() if (policy := self.policy(node))
        )

    @cached_property
    def _nodes_with_failure_drain(self) -> frozenset[str]:
        """Nodes with a drain for their failure."""
        return frozenset(drain.spec.node_name for drain in self.drains.values() if has_failure_request(drain))

    def _unhealthy_causes(
        self, node: Node, policy: ReschedulePolicy, silent_nodes: frozenset[str], *, failure_known: bool
    ) -> frozenset[str]:
        seen, heard = self.condition_histories.get(node.name), node.name in self.nodes_with_renewed_lease
        return unhealthy_cause_names(
            node,
            policy,
            seen,
            self.now,
            suspected=node.name in silent_nodes,
            lease_renewed=heard,
            failure_known=failure_known,
        )

    def _flapping_causes(self, node: Node, policy: ReschedulePolicy) -> frozenset[str]:
        seen = self.condition_histories.get(node.name)
        if seen is None or not flapping_until(seen, policy.spec.failure, self.now):
            return frozenset()
        return frozenset(begin.cause for begin in seen.failure_starts if begin.cause)

    @cached_property
    def _unavailable_nodes(self) -> frozenset[str]:
        """Nodes of pools that are out: held by a drain that has begun, or failed."""
        sick = {
            name
            for name in self.pool_budgets
            if (node := self.nodes.get(name))
            and (policy := self.policy(node))
            and self._unhealthy_causes(
                node, policy, self.suspected_nodes, failure_known=name in self._nodes_with_failure_drain
            )
        }
        return max_unavailable.unavailable_nodes(self.drains.values(), sick)

    def pool_wait_reason(self, node: Node, nodes_ahead: Collection[str] = ()) -> WaitReason | None:
        """Why the node's pool cannot spare it now; None: it can. `ahead`: nodes whose turn comes before."""
        budget = self.pool_budgets.get(node.name)
        if budget is None or node.name in self.suspected_nodes:
            return None
        return max_unavailable.wait_reason(node, budget, self._unavailable_nodes, nodes_ahead)

    @cached_property
    def maintenance_queues(self) -> Mapping[str, MaintenanceQueue]:
        """The queue of each policy, by the policy's name."""
        begun: dict[str, list[NodeDrain]] = {policy.name: [] for policy in self.policy_selector.policies}
        waiting: dict[str, list[NodeDrain]] = {policy.name: [] for policy in self.policy_selector.policies}
        for drain in self.drains.values():
            node = self.nodes.get(drain.spec.node_name)
            policy = self.policy(node) if node else None
            if policy is None or has_failure_request(drain) or drain.deletion_timestamp is not None:
                continue
            if drain.status.started_at:
                begun[policy.name].append(drain)
            elif _waits_only_for_slot(drain, policy, self):
                waiting[policy.name].append(drain)
        return {
            name: MaintenanceQueue(
                len(self.nodes_by_policy[name]),
                tuple(begun[name]),
                tuple(sorted(waiting[name], key=concurrency.queue_sort_key)),
            )
            for name in begun
        }

    @cached_property
    def failure_queues(self) -> Mapping[str, FailureQueue]:
        """The drains for failures of each policy, by the policy's name: those under way, and those that could begin."""
        running: dict[str, list[FailureDrain]] = {policy.name: [] for policy in self.policy_selector.policies}
        waiting: dict[str, list[FailureDrain]] = {policy.name: [] for policy in self.policy_selector.policies}
        for drain in self.drains.values():
            node = self.nodes.get(drain.spec.node_name)
            policy = self.policy(node) if node else None
            if node is None or policy is None or not has_failure_request(drain) or drain.deletion_timestamp is not None:
                continue
            if drain.status.started_at is None:
                cause = self.apply_storm_brake(node, policy, self.now).most_certain_cause
                if cause and _failure_drain_waits_only_for_slot(drain, node, policy, self):
                    waiting[policy.name].append(FailureDrain.of(drain, cause))
                continue
            cause = next(iter(self.diagnose(node, self.now).causes), None)
            if cause and failure_concurrency.holds_slot(drain, cause, self.now):
                running[policy.name].append(FailureDrain.of(drain, cause))
        return {
            name: FailureQueue(
                len(self.nodes_by_policy[name]),
                tuple(running[name]),
                tuple(sorted(waiting[name], key=FailureDrain.sort_key)),
            )
            for name in running
        }

    def other_control_plane_node_in_drain(self, drain: NodeDrain, node: Node) -> str:
        """Another control-plane node that a drain holds, where this is one: etcd must not lose its quorum."""
        if names.CONTROL_PLANE not in node.labels:
            return ""
        for other in self.drains.values():
            there = self.nodes.get(other.spec.node_name)
            if other.name != drain.name and other.status.started_at and there and names.CONTROL_PLANE in there.labels:
                return there.name
        return ""


def stale_view_reason(state: ClusterState, now: datetime) -> str:
    """Why what we know of the cluster is not to be acted on; empty where it is."""
    if state.listed_at and now - state.listed_at >= LIST_STALE_AFTER:
        silent = int((now - state.listed_at).total_seconds())
        return f"nodes, policies and NodeDrains could not be listed for {silent} s"
    return state.view_problem


def _waits_only_for_slot(drain: NodeDrain, policy: ReschedulePolicy, state: ClusterState) -> bool:
    """Whether a drain that has not begun is waiting for a slot of its policy, and for nothing else.

    One that its pool cannot spare keeps nobody waiting: others may be of other pools.
    """
    node = state.nodes.get(drain.spec.node_name)
    return (
        not policy_wait_reason(drain, policy)
        and not window_wait_reason(drain, policy, state.now)
        and not steps_back_for(drain, state.drains)
        and not closed_gates(drain, policy)
        and not _is_owned_elsewhere(drain)
        and (node is None or not state.pool_wait_reason(node))
    )


def _failure_drain_waits_only_for_slot(
    drain: NodeDrain, node: Node, policy: ReschedulePolicy, state: ClusterState
) -> bool:
    """Whether nothing but a slot of its policy's failures keeps the drain of a failed node from beginning."""
    return (
        not policy_wait_reason(drain, policy)
        and not external_owners.node_removal_reason(node)
        and not _is_owned_elsewhere(drain)
        and not steps_back_for(drain, state.drains)
        and not closed_gates(drain, policy)
        and not state.other_control_plane_node_in_drain(drain, node)
        and not state.pool_wait_reason(node)
    )


def _is_owned_elsewhere(drain: NodeDrain) -> bool:
    """Whether somebody else holds the node, as was found out by asking: such a drain keeps nobody waiting."""
    return any(
        c.type == "Progressing" and c.status == "False" and c.reason == ProgressingReason.OWNED_ELSEWHERE
        for c in drain.status.conditions
    )
