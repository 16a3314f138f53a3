"""Among which nodes pods are evened out: those of one pool, or of none, that one policy decides for.

Only nodes that are whole take part; while one of a pool is drained, its pods need the room first.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rescheduler.api import names
from rescheduler.api.drains import NodeDrain
from rescheduler.api.policies import Mode, ReschedulePolicy, Suspend
from rescheduler.core.eligibility.cluster_state import ClusterState, stale_view_reason
from rescheduler.core.failure.storm_brake import any_storm_reason
from rescheduler.core.model.external_owners import node_removal_reason
from rescheduler.core.model.nodes import Node
from rescheduler.core.rebalance.selection import Thresholds

NodeGroupKey = tuple[str, str]
"""Pool (empty: none) and policy."""


@dataclass(frozen=True, slots=True)
class NodeGroup:
    """Nodes among which pods are evened out.

    Attributes:
        pool: empty for nodes of none.
        waits: why nothing is moved now; empty where something may be.
    """

    pool: str
    policy: ReschedulePolicy
    nodes: tuple[Node, ...]
    pause_reason: str = ""

    @property
    def key(self) -> NodeGroupKey:
        """What it is known by."""
        return self.pool, self.policy.name

    @property
    def thresholds(self) -> Thresholds:
        """Who gives and who takes."""
        found = self.policy.spec.rebalance
        return Thresholds(high=int(found.high[:-1]) / 100, low=int(found.low[:-1]) / 100)

    @property
    def may_finish_moves(self) -> bool:
        """What was begun may be brought to its end."""
        return self.policy.spec.mode is Mode.ENFORCE and self.policy.spec.suspend is not Suspend.ALL

    @property
    def description(self) -> str:
        """For people."""
        return f"the nodes of pool {self.pool}" if self.pool else "the nodes of no pool"


def build_groups(cluster_state: ClusterState) -> tuple[NodeGroup, ...]:
    """All arenas, by key."""
    if not any(policy.spec.rebalance.enabled for policy in cluster_state.policy_selector.policies):
        return ()
    drains = {drain.spec.node_name: drain for drain in cluster_state.drains.values()}
    found: dict[NodeGroupKey, list[Node]] = defaultdict(list)
    draining: dict[str, str] = {}
    for node in cluster_state.nodes.values():
        pool, drain = node.labels.get(names.NODE_POOL, ""), drains.get(node.name)
        if drain and _is_draining(drain):
            draining.setdefault(pool, node.name)
        policy = cluster_state.policy(node)
        whole = drain is None and node.name not in cluster_state.suspected_nodes and _is_in_service(node)
        if policy and policy.spec.rebalance.enabled and whole:
            found[pool, policy.name].append(node)
    policies = {policy.name: policy for policy in cluster_state.policy_selector.policies}
    return tuple(
        NodeGroup(
            pool, policies[name], tuple(nodes), _pause_reason(policies[name], nodes, draining.get(pool), cluster_state)
        )
        for (pool, name), nodes in sorted(found.items())
    )


def _is_in_service(node: Node) -> bool:
    return (
        node.ready_status == "True"
        and not node.unschedulable
        and node.maintenance_annotation is None
        and not node_removal_reason(node)
    )


def _is_draining(drain: NodeDrain) -> bool:
    return drain.status.started_at is not None and drain.status.drained_at is None


def _pause_reason(
    policy: ReschedulePolicy, nodes: Iterable[Node], draining_node: str | None, cluster_state: ClusterState
) -> str:
    if found := stale_view_reason(cluster_state, cluster_state.now):
        return found
    if policy.spec.suspend is not Suspend.NONE:
        return f"ReschedulePolicy {policy.name} has suspend: {policy.spec.suspend}"
    if draining_node:
        return f"node {draining_node} is being drained"
    places = {node.labels.get(names.ZONE): node for node in nodes}
    return next(
        (
            found
            for node in places.values()
            if (found := any_storm_reason(node, policy, cluster_state.unhealthy_counts))
        ),
        "",
    )


def nodes_with_started_drain(drains: Mapping[str, NodeDrain]) -> frozenset[str]:
    """Names of nodes that are being drained or held empty: once they are back, they are filled again."""
    return frozenset(drain.spec.node_name for drain in drains.values() if drain.status.started_at is not None)
