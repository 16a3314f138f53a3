"""The loss of each pool's largest node, rehearsed while its pods are counted."""

import asyncio
from collections.abc import Mapping
from typing import Any

from rescheduler.controllers.runtime.store import Store
from rescheduler.core.model.nodes import Node
from rescheduler.core.placement.pod_requirements import Asks
from rescheduler.core.placement.pod_snapshot import Census
from rescheduler.core.pools import misplaced_pods, node_loss
from rescheduler.core.pools.misplaced_pods import View
from rescheduler.core.pools.node_loss import Loss


class Rehearsal:
    """For one count: what it knows of pods is dropped with it."""

    def __init__(self, store: Store, view: View) -> None:
        self._store = store
        self._members = {pool: self._nodes(pool) for pool in store.memberships.pools}
        self._gone = {
            pool: found for pool, rows in self._members.items() if (found := node_loss.largest(rows.values()))
        }
        asks = Asks({space: pool for space, pool in view.home.items() if pool})
        # One for each pool: a plan looks at all that its census knows.
        self._census = {pool: Census(asks, {node.name}) for pool, node in self._gone.items()}
        self._mine: dict[str, set[str]] = {pool: set() for pool in self._gone}  # by pool: uids

    def _nodes(self, pool: str) -> Mapping[str, Node]:
        names = self._store.memberships.nodes(pool)
        return {name: node for name in names if (node := self._store.node(name))}

    def add(self, raw: Mapping[str, Any], view: View) -> None:
        """Take a raw pod in: on a node of the pool, or on none yet and to come there."""
        node, meta = raw["spec"].get("nodeName"), raw["metadata"]
        homes = view.spaces.get(meta["namespace"], ())
        for pool in view.nodes.get(node, ()) if node else homes:
            if pool not in self._gone:
                continue
            self._census[pool].add(raw)
            if pool in homes and node == self._gone[pool].name and not misplaced_pods.is_fixed(raw, view.exempt):
                self._mine[pool].add(meta.get("uid", ""))

    async def losses(self) -> dict[str, Loss]:
        """By pool; others have their turn between two."""
        spaces = {name: space.labels for name, space in self._store.namespaces.items()}
        found: dict[str, Loss] = {}
        for pool, gone in self._gone.items():
            found[pool] = node_loss.forecast(gone, self._members[pool], self._census[pool], self._mine[pool], spaces)
            await asyncio.sleep(0)
        return found
