"""Simulate the loss of each pool's largest node, during a count of its pods."""

import asyncio
from collections.abc import Mapping

from rescheduler.controllers.store.store import Store
from rescheduler.core.model.listed_pods import ListedPod
from rescheduler.core.model.nodes import Node
from rescheduler.core.placement.pod_requirements import PodRequirementsParser
from rescheduler.core.placement.pod_snapshot import PodSnapshot
from rescheduler.core.pools import misplaced_pods, node_loss
from rescheduler.core.pools.misplaced_pods import MembershipSnapshot
from rescheduler.core.pools.node_loss import NodeLoss


class NodeLossSimulation:
    """The simulation of one count; its pods are dropped with it."""

    def __init__(self, store: Store, snapshot: MembershipSnapshot) -> None:
        self._store = store
        self._nodes_by_pool = {pool: self._nodes_of(pool) for pool in store.memberships.pools}
        self._largest_nodes = {
            pool: largest
            for pool, nodes in self._nodes_by_pool.items()
            if (largest := node_loss.largest_node(nodes.values()))
        }
        parser = PodRequirementsParser({name: pool for name, pool in snapshot.pool_of_namespace.items() if pool})
        # One snapshot for each pool: a plan reads all pods of its snapshot.
        self._pod_snapshots = {pool: PodSnapshot(parser, {node.name}) for pool, node in self._largest_nodes.items()}
        self._pod_uids: dict[str, set[str]] = {pool: set() for pool in self._largest_nodes}  # its pods on that node

    def _nodes_of(self, pool: str) -> Mapping[str, Node]:
        names = self._store.memberships.nodes(pool)
        return {name: node for name in names if (node := self._store.node(name))}

    def add(self, pod: ListedPod, snapshot: MembershipSnapshot) -> None:
        """Add a pod to the pools of its node; without a node, to the pools of its namespace."""
        own_pools = snapshot.pools_by_namespace.get(pod.namespace, ())
        for pool in snapshot.pools_by_node.get(pod.node, ()) if pod.node else own_pools:
            if pool not in self._largest_nodes:
                continue
            self._pod_snapshots[pool].add(pod.raw)
            if (
                pool in own_pools
                and pod.node == self._largest_nodes[pool].name
                and not misplaced_pods.is_exempt(pod, snapshot.exempt_namespaces)
            ):
                self._pod_uids[pool].add(pod.uid)

    async def run(self) -> dict[str, NodeLoss]:
        """Return the result of each pool, by its name."""
        labels = {name: namespace.labels for name, namespace in self._store.namespaces.items()}
        losses: dict[str, NodeLoss] = {}
        for pool, lost_node in self._largest_nodes.items():
            losses[pool] = node_loss.simulate(
                lost_node, self._nodes_by_pool[pool], self._pod_snapshots[pool], self._pod_uids[pool], labels
            )
            await asyncio.sleep(0)  # a plan takes long: other tasks would miss their deadlines
        return losses
