"""The loss of each pool's largest node, rehearsed while its pods are counted."""

import asyncio
from collections.abc import Mapping
from typing import Any

from rescheduler.controllers.runtime.store import Store
from rescheduler.core.model.nodes import Node
from rescheduler.core.placement.pod_requirements import PodRequirementsParser
from rescheduler.core.placement.pod_snapshot import PodSnapshot
from rescheduler.core.pools import misplaced_pods, node_loss
from rescheduler.core.pools.misplaced_pods import MembershipSnapshot
from rescheduler.core.pools.node_loss import NodeLoss


class NodeLossSimulation:
    """For one count: what it knows of pods is dropped with it."""

    def __init__(self, store: Store, snapshot: MembershipSnapshot) -> None:
        self._store = store
        self._nodes_by_pool = {pool: self._nodes_of(pool) for pool in store.memberships.pools}
        self._largest_nodes = {
            pool: found
            for pool, rows in self._nodes_by_pool.items()
            if (found := node_loss.largest_node(rows.values()))
        }
        asks = PodRequirementsParser({space: pool for space, pool in snapshot.pool_of_namespace.items() if pool})
        # One for each pool: a plan looks at all that its census knows.
        self._pod_snapshots = {pool: PodSnapshot(asks, {node.name}) for pool, node in self._largest_nodes.items()}
        self._pod_uids: dict[str, set[str]] = {pool: set() for pool in self._largest_nodes}  # by pool: uids

    def _nodes_of(self, pool: str) -> Mapping[str, Node]:
        names = self._store.memberships.nodes(pool)
        return {name: node for name in names if (node := self._store.node(name))}

    def add(self, raw: Mapping[str, Any], snapshot: MembershipSnapshot) -> None:
        """Take a raw pod in: on a node of the pool, or on none yet and to come there."""
        node, meta = raw["spec"].get("nodeName"), raw["metadata"]
        homes = snapshot.pools_by_namespace.get(meta["namespace"], ())
        for pool in snapshot.pools_by_node.get(node, ()) if node else homes:
            if pool not in self._largest_nodes:
                continue
            self._pod_snapshots[pool].add(raw)
            if (
                pool in homes
                and node == self._largest_nodes[pool].name
                and not misplaced_pods.is_exempt(raw, snapshot.exempt_namespaces)
            ):
                self._pod_uids[pool].add(meta.get("uid", ""))

    async def run(self) -> dict[str, NodeLoss]:
        """By pool; others have their turn between two."""
        spaces = {name: space.labels for name, space in self._store.namespaces.items()}
        found: dict[str, NodeLoss] = {}
        for pool, gone in self._largest_nodes.items():
            found[pool] = node_loss.simulate(
                gone, self._nodes_by_pool[pool], self._pod_snapshots[pool], self._pod_uids[pool], spaces
            )
            await asyncio.sleep(0)
        return found
