"""How many nodes of a pool rescheduling may take out at once: maintenance, failure and drains by hand together.

A node that is unreachable never waits for it: its pods are lost already. One that is ill and answers waits only while
others fill all slots. A node that failed takes a slot whether or not its drain has begun.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from rescheduler.api.drains import NodeDrain
from rescheduler.api.scalars import NumberOrPercent
from rescheduler.core.model.nodes import CONDITION_UNKNOWN, Node
from rescheduler.core.model.wait_reasons import ProgressingReason, WaitReason
from rescheduler.core.pools.membership import PoolMemberships


@dataclass(frozen=True, slots=True)
class PoolBudget:
    """One pool's `maxUnavailable`.

    Attributes:
        nodes: the names of the pool's nodes.
    """

    pool: str
    limit: NumberOrPercent
    nodes: frozenset[str]

    @property
    def slots(self) -> int:
        """How many of its nodes may be out at once."""
        return self.limit.of(len(self.nodes))


def budgets_by_node(memberships: PoolMemberships) -> Mapping[str, PoolBudget]:
    """The budget of each node that is in a pool, by the node's name; worked out once for many drains."""
    found: dict[str, PoolBudget] = {}
    for name, pool in memberships.pools.items():
        if memberships.is_enforcing(name):
            budget = PoolBudget(name, pool.spec.max_unavailable, frozenset(memberships.nodes(name)))
            found |= dict.fromkeys(budget.nodes, budget)
    return found


def unavailable_nodes(drains: Iterable[NodeDrain], failed: Collection[str]) -> frozenset[str]:
    """Nodes that are out: held by a drain that has begun and is not over, or failed."""
    return frozenset({*(drain.spec.node_name for drain in drains if drain.status.started_at), *failed})


def wait_reason(
    node: Node, budget: PoolBudget, unavailable: Collection[str], queued_ahead: Collection[str] = ()
) -> WaitReason | None:
    """Why a drain of this node may not begin yet; None: it may.

    `taken`: nodes that are out. `ahead`: nodes whose drain waits for a slot, and comes first; none where the node failed,
    which queues behind nobody.
    """
    if node.ready_status == CONDITION_UNKNOWN:
        return None
    others = budget.nodes.intersection({*unavailable, *queued_ahead}) - {node.name}
    if len(others) < budget.slots:
        return None
    names = sorted(others)
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return WaitReason(
        ProgressingReason.POOL_BUDGET,
        f"maxUnavailable {budget.limit} of NamespacePool {budget.pool} ({budget.slots} of {len(budget.nodes)} nodes) "
        f"is taken by {', '.join(names[:5])}{more}",
    )
