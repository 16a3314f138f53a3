"""The loss of each pool's largest node, rehearsed while its pods are counted."""

import asyncio
from collections.abc import Mapping
from typing import Any

from rescheduler.core import pool_losses, pool_pods
from rescheduler.core.asks import Asks
from rescheduler.core.censuses import Census
from rescheduler.core.facts import Node
from rescheduler.core.pool_losses import Loss
from rescheduler.core.pool_pods import View
from rescheduler.engine.store import Store


class Rehearsal:
    """For one count: what it knows of pods is dropped with it."""

    def __init__(self, store: Store, view: View) -> None:
        self._store = store
        self._members = {pool: self._nodes(pool) for pool in store.memberships.pools}
        self._gone = {
            pool: found for pool, rows in self._members.items() if (found := pool_losses.largest(rows.values()))
        }
        homes = {space: pool for space, pool in view.home.items() if pool}
        self._census = Census(Asks(homes), {node.name for node in self._gone.values()})
        self._mine: dict[str, set[str]] = {pool: set() for pool in self._gone}  # by pool: uids

    def _nodes(self, pool: str) -> Mapping[str, Node]:
        names = self._store.memberships.nodes(pool)
        return {name: node for name in names if (node := self._store.node(name))}

    def add(self, raw: Mapping[str, Any], view: View) -> None:
        """Take a raw pod in: what is on nodes of no pool concerns nobody here."""
        node, meta = raw["spec"].get("nodeName"), raw["metadata"]
        if node and node not in view.nodes:
            return
        self._census.add(raw)
        for pool in view.spaces.get(meta["namespace"], ()):
            gone = self._gone.get(pool)
            if gone and gone.name == node and not pool_pods.is_fixed(raw, view.exempt):
                self._mine[pool].add(meta["uid"])

    async def losses(self) -> dict[str, Loss]:
        """By pool; others have their turn between two."""
        spaces = {name: space.labels for name, space in self._store.namespaces.items()}
        found: dict[str, Loss] = {}
        for pool, gone in self._gone.items():
            found[pool] = pool_losses.forecast(gone, self._members[pool], self._census, self._mine[pool], spaces)
            await asyncio.sleep(0)
        return found
