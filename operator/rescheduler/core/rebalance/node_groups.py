"""Among which nodes pods are evened out: those of one pool, or of none, that one policy decides for.

Only nodes that are whole take part; while one of a pool is drained, its pods need the room first.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rescheduler.api import names
from rescheduler.api.drains import NodeDrain
from rescheduler.api.policies import Mode, Policy, Suspend
from rescheduler.core.eligibility.cluster_state import World, blind
from rescheduler.core.failure.storm_brake import any_storm
from rescheduler.core.model.external_owners import owner
from rescheduler.core.model.nodes import Node
from rescheduler.core.rebalance.selection import Bounds

Key = tuple[str, str]
"""Pool (empty: none) and policy."""


@dataclass(frozen=True, slots=True)
class Arena:
    """Nodes among which pods are evened out.

    Attributes:
        pool: empty for nodes of none.
        waits: why nothing is moved now; empty where something may be.
    """

    pool: str
    policy: Policy
    nodes: tuple[Node, ...]
    waits: str = ""

    @property
    def key(self) -> Key:
        """What it is known by."""
        return self.pool, self.policy.name

    @property
    def bounds(self) -> Bounds:
        """Who gives and who takes."""
        found = self.policy.spec.rebalance
        return Bounds(high=int(found.high[:-1]) / 100, low=int(found.low[:-1]) / 100)

    @property
    def goes_on(self) -> bool:
        """What was begun may be brought to its end."""
        return self.policy.spec.mode is Mode.ENFORCE and self.policy.spec.suspend is not Suspend.ALL

    @property
    def words(self) -> str:
        """For people."""
        return f"the nodes of pool {self.pool}" if self.pool else "the nodes of no pool"


def survey(world: World) -> tuple[Arena, ...]:
    """All arenas, by key."""
    if not any(policy.spec.rebalance.enabled for policy in world.winners.policies):
        return ()
    drains = {drain.spec.node_name: drain for drain in world.drains.values()}
    found: dict[Key, list[Node]] = defaultdict(list)
    draining: dict[str, str] = {}
    for node in world.nodes.values():
        pool, drain = node.labels.get(names.NODE_POOL, ""), drains.get(node.name)
        if drain and _empties(drain):
            draining.setdefault(pool, node.name)
        policy = world.policy(node)
        whole = drain is None and node.name not in world.suspects and _whole(node)
        if policy and policy.spec.rebalance.enabled and whole:
            found[pool, policy.name].append(node)
    policies = {policy.name: policy for policy in world.winners.policies}
    return tuple(
        Arena(pool, policies[name], tuple(nodes), _waits(policies[name], nodes, draining.get(pool), world))
        for (pool, name), nodes in sorted(found.items())
    )


def _whole(node: Node) -> bool:
    return node.ready == "True" and not node.unschedulable and node.maintenance is None and not owner(node)


def _empties(drain: NodeDrain) -> bool:
    return drain.status.started_at is not None and drain.status.drained_at is None


def _waits(policy: Policy, nodes: Iterable[Node], drained: str | None, world: World) -> str:
    if found := blind(world, world.now):
        return found
    if policy.spec.suspend is not Suspend.NONE:
        return f"ReschedulePolicy {policy.name} has suspend: {policy.spec.suspend}"
    if drained:
        return f"node {drained} is being drained"
    places = {node.labels.get(names.ZONE): node for node in nodes}
    return next((found for node in places.values() if (found := any_storm(node, policy, world.weather))), "")


def begun(drains: Mapping[str, NodeDrain]) -> frozenset[str]:
    """Names of nodes that are being drained or held empty: once they are back, they are filled again."""
    return frozenset(drain.spec.node_name for drain in drains.values() if drain.status.started_at is not None)
