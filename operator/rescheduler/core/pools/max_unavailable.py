"""Limit how many nodes of a pool are out at once, for maintenance, for failures and by hand together.

The drain of an unreachable node never waits for the limit, because its pods are lost already. The drain of an ill node
that still answers waits only while other nodes fill all slots. A failed node takes a slot before its drain begins.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from rescheduler.api.drains import NodeDrain
from rescheduler.api.scalars import NumberOrPercent
from rescheduler.core.model.nodes import CONDITION_UNKNOWN, Node
from rescheduler.core.model.wait_reasons import ProgressingReason, WaitReason
from rescheduler.core.pools import messages
from rescheduler.core.pools.membership import PoolMemberships


@dataclass(frozen=True, slots=True)
class PoolBudget:
    """The `maxUnavailable` of one pool.

    Attributes:
        pool: the name of the pool.
        limit: a number of nodes, or a percentage of them.
        nodes: the names of the pool's nodes.
    """

    pool: str
    limit: NumberOrPercent
    nodes: frozenset[str]

    @property
    def slots(self) -> int:
        """The number of the pool's nodes that may be out at once."""
        return self.limit.of(len(self.nodes))


def budgets_by_node(memberships: PoolMemberships) -> Mapping[str, PoolBudget]:
    """Return the budget of each node that is in a pool, by the node's name."""
    budgets: dict[str, PoolBudget] = {}
    for name, pool in memberships.pools.items():
        if memberships.is_enforcing(name):
            budget = PoolBudget(name, pool.spec.max_unavailable, frozenset(memberships.nodes(name)))
            budgets |= dict.fromkeys(budget.nodes, budget)
    return budgets


def unavailable_nodes(drains: Iterable[NodeDrain], failed: Collection[str]) -> frozenset[str]:
    """Return the names of nodes that are out: failed, or held by a drain that has begun and still exists."""
    return frozenset({*(drain.spec.node_name for drain in drains if drain.status.started_at), *failed})


def wait_reason(
    node: Node, budget: PoolBudget, unavailable: Collection[str], queued_ahead: Collection[str] = ()
) -> WaitReason | None:
    """Return why a drain of this node may not begin yet; None if it may.

    `queued_ahead`: nodes whose drains get a slot before this one. It is empty for a failed node, which never queues.
    """
    if node.ready_status == CONDITION_UNKNOWN:
        return None
    other_nodes = sorted(budget.nodes.intersection({*unavailable, *queued_ahead}) - {node.name})
    if len(other_nodes) < budget.slots:
        return None
    message = messages.pool_budget_taken(budget.pool, budget.limit, budget.slots, len(budget.nodes), other_nodes)
    return WaitReason(ProgressingReason.POOL_BUDGET, message)
