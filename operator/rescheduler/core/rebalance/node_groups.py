"""Groups of nodes that rebalancing treats together: nodes of one pool, or of none, with the same winning policy.

Only Ready nodes without a drain take part. While a node of the pool is drained, the group waits, because the displaced
pods need the free capacity first.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from rescheduler.api import names
from rescheduler.api.drains import NodeDrain
from rescheduler.api.policies import Mode, ReschedulePolicy, Suspend
from rescheduler.core.eligibility.cluster_state import ClusterState, stale_view_reason
from rescheduler.core.failure.storm_brake import any_storm_reason
from rescheduler.core.model.external_owners import node_owner_reason
from rescheduler.core.model.nodes import Node
from rescheduler.core.rebalance.selection import Thresholds

NodeGroupKey = tuple[str, str]
"""Name of the pool (empty for nodes of no pool) and name of the policy."""


@dataclass(frozen=True, slots=True)
class NodeGroup:
    """Nodes that rebalancing treats together.

    Attributes:
        pool: name of the pool; empty for nodes of no pool.
        pause_reason: why rebalancing moves no pod now; None if it may.
    """

    pool: str
    policy: ReschedulePolicy
    nodes: tuple[Node, ...]
    pause_reason: str | None = None

    @property
    def key(self) -> NodeGroupKey:
        """Return pool and policy, which identify the group."""
        return self.pool, self.policy.name

    @property
    def thresholds(self) -> Thresholds:
        """Return `high` and `low` of the policy as shares of a node."""
        settings = self.policy.spec.rebalance
        return Thresholds(high=int(settings.high[:-1]) / 100, low=int(settings.low[:-1]) / 100)

    @property
    def may_finish_moves(self) -> bool:
        """Whether started moves may continue."""
        return self.policy.spec.mode is Mode.ENFORCE and self.policy.spec.suspend is not Suspend.ALL


def build_groups(cluster_state: ClusterState) -> tuple[NodeGroup, ...]:
    """Return all node groups, sorted by key; none if no policy enables rebalancing."""
    if not any(policy.spec.rebalance.enabled for policy in cluster_state.policy_selector.policies):
        return ()
    drains = {drain.spec.node_name: drain for drain in cluster_state.drains.values()}
    nodes_by_key: dict[NodeGroupKey, list[Node]] = defaultdict(list)
    draining_by_pool: dict[str, str] = {}
    for node in cluster_state.nodes.values():
        pool, drain = node.labels.get(names.NODE_POOL, ""), drains.get(node.name)
        if drain and _is_draining(drain):
            draining_by_pool.setdefault(pool, node.name)
        policy = cluster_state.policy(node)
        takes_part = drain is None and node.name not in cluster_state.suspected_nodes and _is_in_service(node)
        if policy and policy.spec.rebalance.enabled and takes_part:
            nodes_by_key[pool, policy.name].append(node)
    policies = {policy.name: policy for policy in cluster_state.policy_selector.policies}
    return tuple(
        NodeGroup(
            pool,
            policies[name],
            tuple(nodes),
            _pause_reason(policies[name], nodes, draining_by_pool.get(pool), cluster_state),
        )
        for (pool, name), nodes in sorted(nodes_by_key.items())
    )


def _is_in_service(node: Node) -> bool:
    return (
        node.ready_status == "True"
        and not node.unschedulable
        and node.maintenance_annotation is None
        and not node_owner_reason(node)
    )


def nodes_for_chain_moves(drained: Node, cluster_state: ClusterState) -> frozenset[str]:
    """Return the nodes whose pods may move first for the drain of this node."""

    def policy_name(node: Node) -> str:
        policy = cluster_state.policy(node)
        return policy.name if policy else ""

    with_drain = {drain.spec.node_name for drain in cluster_state.drains.values()}
    return nodes_of_same_group(
        drained, cluster_state.nodes.values(), policy_name, with_drain | cluster_state.suspected_nodes
    )


def nodes_of_same_group(
    drained: Node, nodes: Iterable[Node], policy_name: Callable[[Node], str], excluded: Collection[str]
) -> frozenset[str]:
    """Return the nodes in service that share pool and policy with a node that is drained.

    `policy_name` returns the winning policy of a node, empty for none. `excluded`: nodes with a drain, and suspected nodes.
    """
    group = drained.labels.get(names.NODE_POOL, ""), policy_name(drained)
    return frozenset(
        node.name
        for node in nodes
        if node.name != drained.name
        and node.name not in excluded
        and (node.labels.get(names.NODE_POOL, ""), policy_name(node)) == group
        and _is_in_service(node)
    )


def _is_draining(drain: NodeDrain) -> bool:
    return drain.status.started_at is not None and drain.status.drained_at is None


def _pause_reason(
    policy: ReschedulePolicy, nodes: Iterable[Node], draining_node: str | None, cluster_state: ClusterState
) -> str | None:
    if stale_view := stale_view_reason(cluster_state, cluster_state.now):
        return stale_view
    if policy.spec.suspend is not Suspend.NONE:
        return f"ReschedulePolicy {policy.name} has suspend: {policy.spec.suspend}"
    if draining_node:
        return f"node {draining_node} is being drained"
    node_by_zone = {node.labels.get(names.ZONE): node for node in nodes}
    return next(
        (
            storm
            for node in node_by_zone.values()
            if (storm := any_storm_reason(node, policy, cluster_state.unhealthy_counts))
        ),
        None,
    )


def nodes_with_started_drain(drains: Mapping[str, NodeDrain]) -> frozenset[str]:
    """Return the names of nodes with a started drain; rebalancing fills them after the restore."""
    return frozenset(drain.spec.node_name for drain in drains.values() if drain.status.started_at is not None)
