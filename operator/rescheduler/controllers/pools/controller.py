"""All that is done for pools, put together: one process keeps them while it leads."""

import asyncio
from collections.abc import Iterable
from functools import partial

from rescheduler.controllers.migration.manager import Shifts
from rescheduler.controllers.migration.node_task import Tools
from rescheduler.controllers.pools.admission_check import Enforcements
from rescheduler.controllers.pools.events import PoolAnnouncer
from rescheduler.controllers.pools.label_writer import Pools
from rescheduler.controllers.pools.move_controller import PoolMoves
from rescheduler.controllers.pools.pod_counter import PoolCounts
from rescheduler.controllers.runtime.metrics import Metrics

_WORKERS = 16


class PoolKeeping:
    """The parts, wired.

    Attributes:
        shifts: moves of single pods; others may want some too.
    """

    def __init__(self, tools: Tools, shifts: Shifts, announcer: PoolAnnouncer, metrics: Metrics) -> None:
        client, store, clock = tools.client, tools.store, tools.clock
        self._enforcements = Enforcements(client, clock, self.look_at_all)
        self._counts = PoolCounts(client, store, clock, self._counted)
        self._pools = Pools(client, store, clock, self._enforcements, self._counts, announcer, metrics)
        self.shifts = shifts
        self._moves = PoolMoves(store, clock, self._enforcements, self._counts, self.shifts)
        self._known = (0, 0)
        self._supervisor = tools.supervisor
        self._pools.blockers = self._moves.blockers
        self.shifts.moved.append(self._moves.left)
        store.touched = self._pools.touched

    def _counted(self) -> None:
        self._moves.look()
        self._pools.tell()
        finds = self._counts.finds
        known = finds.outside.total(), finds.foreign.total()
        if known != self._known:
            self._known = known
            self._counts.recount()  # pods have moved: other nodes are full now

    @property
    def enforced(self) -> bool:
        """Whether admission puts new pods of pools' namespaces into their pool."""
        return self._enforcements.now.holds

    def wake(self, holders: Iterable[str]) -> None:
        """What these hold in view changed."""
        self.shifts.wake(holders)

    def look_at_all(self) -> None:
        """Look whether all is as it should be."""
        self._pools.look_at_all()

    async def run(self) -> None:
        """Keep the pools, as the leader, until cancelled."""
        self._counts.recount()
        await self._enforcements.look()  # else every status would say for a moment that it is not known
        self.look_at_all()
        supervisor, look = self._supervisor, self._supervisor.guard("pool", self._pools.look)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.shifts.run())
                group.create_task(supervisor.loop("admission", self._enforcements.step))
                group.create_task(self._counts.run(supervisor))
                for _ in range(_WORKERS):
                    group.create_task(supervisor.keep("queue", partial(self._pools.queue.work, look)))
        finally:
            supervisor.forget("pool")
