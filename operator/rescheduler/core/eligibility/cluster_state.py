"""The state of the cluster at one moment, for decisions about drains: nodes, policies and NodeDrains, but no pods."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property

from rescheduler.api import names
from rescheduler.api.drains import NodeDrain
from rescheduler.api.policies import ReschedulePolicy
from rescheduler.core.eligibility import concurrency, failure_concurrency, messages
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
from rescheduler.core.failure import messages as failure_messages
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
"""Nodes, policies and NodeDrains are listed each minute; without a list for this time the view is stale."""


@dataclass(frozen=True, slots=True)
class StormBrakeResult:
    """The causes of a failed node after the storm brake.

    Attributes:
        allowed_causes: the causes that no storm brakes, the most certain first.
        storm_reason: the message about the storm that brakes all causes; None if there is none.
    """

    allowed_causes: tuple[FailureCause, ...] = ()
    storm_reason: str | None = None

    @property
    def most_certain_cause(self) -> FailureCause | None:
        """The most certain allowed cause; None if there is none."""
        return next(iter(self.allowed_causes), None)


@dataclass(frozen=True)
class ClusterState:
    """The state of the cluster at one moment; values for many drains are computed once.

    Attributes:
        nodes: all nodes, by name.
        policy_selector: finds the policy of a node.
        drains: all NodeDrains, by name.
        now: the time of the state.
        listed_at: when nodes, policies and NodeDrains were last listed in full; None: not tracked.
        condition_histories: the history of each node, by name.
        suspected_nodes: nodes whose Lease is silent.
        nodes_with_late_lease: all nodes whose Lease is late; empty while no node is suspected.
        view_problem: why the view of the nodes is unreliable; None if it is reliable.
        pool_budgets: the budget of its pool, by node.
        nodes_with_renewed_lease: nodes with Ready=Unknown whose Lease is renewed.
    """

    nodes: Mapping[str, Node]
    policy_selector: PolicySelector
    drains: Mapping[str, NodeDrain]
    now: datetime = _LONG_AGO
    listed_at: datetime | None = None
    condition_histories: Mapping[str, ConditionHistory] = field(default_factory=dict)
    suspected_nodes: frozenset[str] = frozenset()
    nodes_with_late_lease: frozenset[str] = frozenset()
    view_problem: str | None = None
    pool_budgets: Mapping[str, PoolBudget] = field(default_factory=dict)
    nodes_with_renewed_lease: frozenset[str] = frozenset()

    def policy(self, node: Node) -> ReschedulePolicy | None:
        """Return the policy that decides for this node; None if no policy selects it."""
        return self.policy_selector.policy_for(node)

    @cached_property
    def nodes_by_policy(self) -> Mapping[str, tuple[Node, ...]]:
        """The nodes that each policy decides for, by the policy's name."""
        nodes_by_policy: dict[str, list[Node]] = {policy.name: [] for policy in self.policy_selector.policies}
        for node in self.nodes.values():
            if policy := self.policy(node):
                nodes_by_policy[policy.name].append(node)
        return {name: tuple(nodes) for name, nodes in nodes_by_policy.items()}

    def diagnose(self, node: Node, now: datetime) -> Diagnosis:
        """Return the health of a node that has a drain for its failure."""
        history = self.condition_histories.get(node.name)
        if history is None:
            return Diagnosis(Health.HEALTHY)
        return diagnose(
            node,
            self.policy(node),
            history,
            now,
            failure_known=True,
            suspected=node.name in self.suspected_nodes,
            lease_renewed=node.name in self.nodes_with_renewed_lease,
        )

    def is_unknown_with_renewed_lease(self, node: Node) -> bool:
        """Whether the node controller does not hear of the node although its Lease is renewed."""
        return node.ready_status == CONDITION_UNKNOWN and node.name in self.nodes_with_renewed_lease

    def apply_storm_brake(self, node: Node, policy: ReschedulePolicy, now: datetime) -> StormBrakeResult:
        """Return the causes for which a node with a drain for its failure may be drained.

        A storm of one cause brakes no other cause. But an unreachable node, whose pods leave without their budgets,
        waits for the storm of unreachable nodes even if it has other causes.
        """
        diagnosis = self.diagnose(node, now)
        if self.is_unknown_with_renewed_lease(node):
            return StormBrakeResult()
        if diagnosis.health is Health.FLAPPING:
            return StormBrakeResult(storm_reason=self._flapping_storm_reason(node, policy, now))
        unreachable = READY_UNKNOWN in self._unhealthy_causes(node, policy, self.suspected_nodes, failure_known=True)
        only_lease_silent = node.ready_status != CONDITION_UNKNOWN
        storm = (
            self._storm_reason(node, policy, READY_UNKNOWN, include_late_leases=only_lease_silent)
            if unreachable and diagnosis.causes
            else None
        )
        if storm:
            return StormBrakeResult(storm_reason=storm)
        storms_by_cause = {
            cause: self._storm_reason(
                node, policy, cause.name, include_late_leases=cause.certainty is Certainty.SUSPECTED
            )
            for cause in diagnosis.causes
        }
        allowed = tuple(cause for cause, reason in storms_by_cause.items() if not reason)
        return StormBrakeResult(allowed, None if allowed else next(iter(storms_by_cause.values()), None))

    def _storm_reason(
        self, node: Node, policy: ReschedulePolicy, cause: str, *, include_late_leases: bool = False
    ) -> str | None:
        """Return the message about the storm of a cause; late Leases count for a suspicion, which must not start first."""
        if not include_late_leases:
            return storm_brake.storm_reason(node, policy, self.unhealthy_counts, cause)
        counts = self.unhealthy_counts_with_late_leases
        return storm_brake.storm_reason(node, policy, counts, cause, also_counted=failure_messages.OR_LATE_LEASE)

    def _flapping_storm_reason(self, node: Node, policy: ReschedulePolicy, now: datetime) -> str | None:
        """Return the message about the storm of a flapping cause without which the node would not flap."""
        history, counts = self.condition_histories[node.name], self.unhealthy_counts_with_flapping
        storms_by_cause = {
            cause: storm_brake.storm_reason(node, policy, counts, cause, also_counted=failure_messages.OR_FLAPPING)
            for cause in sorted({start.cause for start in history.failure_starts if start.cause})
        }
        braked_causes = [cause for cause, reason in storms_by_cause.items() if reason]
        if not braked_causes or flapping_until(history, policy.spec.failure, now, braked_causes):
            return None
        return storms_by_cause[braked_causes[0]]

    @cached_property
    def unhealthy_counts(self) -> UnhealthyCounts:
        """The unhealthy nodes for the storm brake; without nodes that are drained for maintenance and may be off."""
        return self._count_unhealthy(self.suspected_nodes)

    @cached_property
    def unhealthy_counts_with_late_leases(self) -> UnhealthyCounts:
        """The same with late Leases: when the first Lease of an outage is silent, the others are only late."""
        return self._count_unhealthy(self.suspected_nodes | self.nodes_with_late_lease)

    @cached_property
    def unhealthy_counts_with_flapping(self) -> UnhealthyCounts:
        """The same as `unhealthy_counts` with flapping nodes, for each cause by which they flap."""
        return self._count_unhealthy(self.suspected_nodes, include_flapping=True)

    def _count_unhealthy(self, silent_nodes: frozenset[str], *, include_flapping: bool = False) -> UnhealthyCounts:
        in_maintenance = {
            d.spec.node_name for d in self.drains.values() if d.status.drained_at and not has_only_failure_requests(d)
        }

        def causes(node: Node, policy: ReschedulePolicy) -> frozenset[str]:
            if node.name in in_maintenance:
                return frozenset()
            unhealthy_causes = self._unhealthy_causes(
                node, policy, silent_nodes, failure_known=node.name in self._nodes_with_failure_drain
            )
            return unhealthy_causes | self._flapping_causes(node, policy) if include_flapping else unhealthy_causes

        return storm_brake.count_unhealthy(
            (node, policy, causes(node, policy)) for node in self.nodes.values() if (policy := self.policy(node))
        )

    @cached_property
    def _nodes_with_failure_drain(self) -> frozenset[str]:
        """The names of nodes with a drain for their failure."""
        return frozenset(drain.spec.node_name for drain in self.drains.values() if has_failure_request(drain))

    def _unhealthy_causes(
        self, node: Node, policy: ReschedulePolicy, silent_nodes: frozenset[str], *, failure_known: bool
    ) -> frozenset[str]:
        return unhealthy_cause_names(
            node,
            policy,
            self.condition_histories.get(node.name),
            self.now,
            suspected=node.name in silent_nodes,
            lease_renewed=node.name in self.nodes_with_renewed_lease,
            failure_known=failure_known,
        )

    def _flapping_causes(self, node: Node, policy: ReschedulePolicy) -> frozenset[str]:
        history = self.condition_histories.get(node.name)
        if history is None or not flapping_until(history, policy.spec.failure, self.now):
            return frozenset()
        return frozenset(start.cause for start in history.failure_starts if start.cause)

    @cached_property
    def _unavailable_nodes(self) -> frozenset[str]:
        """The nodes of pools that are out: failed, or held by a drain that has begun."""
        failed = {
            name
            for name in self.pool_budgets
            if (node := self.nodes.get(name))
            and (policy := self.policy(node))
            and self._unhealthy_causes(
                node, policy, self.suspected_nodes, failure_known=name in self._nodes_with_failure_drain
            )
        }
        return max_unavailable.unavailable_nodes(self.drains.values(), failed)

    def pool_wait_reason(self, node: Node, nodes_ahead: Collection[str] = ()) -> WaitReason | None:
        """Return why the pool of the node cannot lose it now; None if it can. `nodes_ahead`: nodes that drain first."""
        budget = self.pool_budgets.get(node.name)
        if budget is None or node.name in self.suspected_nodes:
            return None
        return max_unavailable.wait_reason(node, budget, self._unavailable_nodes, nodes_ahead)

    @cached_property
    def maintenance_queues(self) -> Mapping[str, MaintenanceQueue]:
        """The queue for maintenance of each policy, by the policy's name."""
        started: dict[str, list[NodeDrain]] = {policy.name: [] for policy in self.policy_selector.policies}
        waiting: dict[str, list[NodeDrain]] = {policy.name: [] for policy in self.policy_selector.policies}
        for drain in self.drains.values():
            node = self.nodes.get(drain.spec.node_name)
            policy = self.policy(node) if node else None
            if policy is None or has_failure_request(drain) or drain.deletion_timestamp is not None:
                continue
            if drain.status.started_at:
                started[policy.name].append(drain)
            elif _waits_only_for_slot(drain, policy, self):
                waiting[policy.name].append(drain)
        return {
            name: MaintenanceQueue(
                len(self.nodes_by_policy[name]),
                tuple(started[name]),
                tuple(sorted(waiting[name], key=concurrency.queue_sort_key)),
            )
            for name in started
        }

    @cached_property
    def failure_queues(self) -> Mapping[str, FailureQueue]:
        """The queue for failures of each policy, by the policy's name."""
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

    def other_control_plane_node_in_drain(self, drain: NodeDrain, node: Node) -> str | None:
        """Return another control-plane node that a drain holds; None if there is none, or this node is a worker.

        With two control-plane nodes out, etcd could lose its quorum.
        """
        if names.CONTROL_PLANE not in node.labels:
            return None
        for other_drain in self.drains.values():
            other_node = self.nodes.get(other_drain.spec.node_name)
            is_held = other_drain.name != drain.name and other_drain.status.started_at
            if is_held and other_node and names.CONTROL_PLANE in other_node.labels:
                return other_node.name
        return None


def stale_view_reason(state: ClusterState, now: datetime) -> str | None:
    """Return why the view of the cluster is unreliable; None if it is reliable."""
    if state.listed_at and now - state.listed_at >= LIST_STALE_AFTER:
        return messages.not_listed(int((now - state.listed_at).total_seconds()))
    return state.view_problem


def _waits_only_for_slot(drain: NodeDrain, policy: ReschedulePolicy, state: ClusterState) -> bool:
    """Whether a drain that has not begun waits only for a slot of its policy.

    A drain that waits for its pool is no such drain: it would hold back drains of other pools.
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
    """Whether the drain of a failed node waits only for a slot of `failure.maxConcurrent`."""
    return (
        not policy_wait_reason(drain, policy)
        and not external_owners.node_owner_reason(node)
        and not _is_owned_elsewhere(drain)
        and not steps_back_for(drain, state.drains)
        and not closed_gates(drain, policy)
        and not state.other_control_plane_node_in_drain(drain, node)
        and not state.pool_wait_reason(node)
    )


def _is_owned_elsewhere(drain: NodeDrain) -> bool:
    """Whether the status reports that another party owns the node; such a drain must not hold back others."""
    return any(
        c.type == "Progressing" and c.status == "False" and c.reason == ProgressingReason.OWNED_ELSEWHERE
        for c in drain.status.conditions
    )
