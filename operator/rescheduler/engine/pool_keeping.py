"""All that is done for pools, put together: one process keeps them while it leads."""

import asyncio

from rescheduler.engine.clock import Clock
from rescheduler.engine.enforcements import Enforcements
from rescheduler.engine.metrics import Metrics
from rescheduler.engine.pool_announcements import PoolAnnouncer
from rescheduler.engine.pool_counts import PoolCounts
from rescheduler.engine.pools import Pools
from rescheduler.engine.store import Store
from rescheduler.kube.client import Client

_WORKERS = 16


class PoolKeeping:
    """The parts, wired."""

    def __init__(
        self,
        client: Client,
        store: Store,
        clock: Clock,
        announcer: PoolAnnouncer,
        metrics: Metrics,
        *,
        namespace: str,
    ) -> None:
        self._enforcements = Enforcements(client, clock, namespace, self._enforced)
        self._counts = PoolCounts(client, store, clock, self._counted)
        self._pools = Pools(client, store, clock, self._enforcements, self._counts, announcer, metrics)
        self._leading = False
        store.touched = self._pools.touched

    def _enforced(self) -> None:
        self.look_at_all()

    def _counted(self) -> None:
        self._pools.tell()

    def look_at_all(self) -> None:
        """Look whether all is as it should be."""
        self._pools.look_at_all()

    async def run(self) -> None:
        """Keep the pools, as the leader, until cancelled."""
        self._counts.recount()
        self.look_at_all()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._enforcements.run())
            group.create_task(self._counts.run())
            for _ in range(_WORKERS):
                group.create_task(self._pools.queue.work(self._pools.look))
