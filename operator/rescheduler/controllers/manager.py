"""The engine as a whole: the re-sync, the queue's workers, and a task for each NodeDrain, while we lead.

A standby keeps its facts warm by the same re-sync, and writes nothing.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable
from functools import partial

import structlog

from rescheduler.controllers.drain.drain_task import Drainer, Tools
from rescheduler.controllers.drain.node_controller import Reconciler
from rescheduler.controllers.evacuation.orphaned_pods import HOLDER, Strays
from rescheduler.controllers.pools.controller import PoolKeeping
from rescheduler.controllers.rebalance.controller import Rebalancer
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.informers import Sources
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.controllers.runtime.store import Kind, Store
from rescheduler.controllers.runtime.work_queue import KeyedQueue
from rescheduler.core.eligibility import concurrency

log = structlog.get_logger("rescheduler.engine")

_WORKERS = 16
_RETRY = (2.0, 10.0)  # seconds after a list that failed
_RESYNC = 60.0  # seconds; deletions that a watch lost are found by then


class Engine:
    """Runs until cancelled."""

    def __init__(
        self,
        store: Store,
        tools: Tools,
        queue: KeyedQueue,
        reconciler: Reconciler,
        pools: PoolKeeping,
        rebalancer: Rebalancer,
    ) -> None:
        self._store, self._tools, self._queue, self._reconciler = store, tools, queue, reconciler
        self._pools, self._rebalancer = pools, rebalancer
        self._drainers: dict[str, tuple[Drainer, asyncio.Task[None]]] = {}
        self._leading = False
        self._supervisor = tools.supervisor
        self.strays = Strays(tools.movers, self._looked_after, tools.supervisor)
        self.news = asyncio.Event()  # something changed: for whoever clears it
        self.synced = asyncio.Event()
        self.beat = tools.clock.monotonic()
        pools.shifts.left.append(self.strays.look_at)
        self.sources = Sources(tools.client, store, self._look_at_all)
        store.changed, store.turned, store.told = self._changed, self._turned, self._tell

    @property
    def _clock(self) -> Clock:
        return self._tools.clock

    @property
    def _metrics(self) -> Metrics:
        return self._tools.metrics

    def _changed(self, name: str | None) -> None:
        """A fact of this node or its drain changed (None: of all): look at both."""
        self.news.set()
        if not self._leading:
            return
        self._pools.shifts.look_at(name)
        self._rebalancer.wake()
        for node in [name] if name else [*self._store.nodes, *self._store.drains]:
            self._queue.add(node, routine=name is None)
            if node in self._store.drains:
                self._ensure(node)
            if running := self._drainers.get(node):
                running[0].wake()

    def _tell(self) -> None:
        """Report objects that cannot be read; a standby only counts them."""
        counts = Counter(kind for kind, _ in self._store.unreadable)
        for kind in Kind:
            self._metrics.unreadable.labels(kind).set(counts[kind])
        for found in self._store.unreadable.values() if self._leading else ():
            self._tools.announcer.unreadable(found)

    def _turned(self) -> None:
        """Drains that wait for a slot look whether it is their turn."""
        for name, (drainer, _) in self._drainers.items():
            drain = self._store.drain(name)
            if drain and (drain.status.started_at is None or concurrency.waits_for_slot(drain)):
                drainer.wake()

    def wake(self, names: Iterable[str]) -> None:
        """These drains look again."""
        self._pools.wake(names)
        for name in names:
            if name == HOLDER:
                self.strays.wake()
            if running := self._drainers.get(name):
                running[0].wake()

    def _ensure(self, name: str) -> None:
        running = self._drainers.get(name)
        if running is None or running[1].done():
            drainer = Drainer(name, self._tools)
            self._drainers[name] = (drainer, asyncio.create_task(drainer.run(), name=f"drain {name}"))
            self._drainers[name][1].add_done_callback(lambda task: self._ended(name, task))

    def _looked_after(self) -> frozenset[str]:
        """Nodes whose released pods have a task: a drain that has not begun does not look at pods."""
        begun = (drain.spec.node_name for drain in self._store.drains.values() if drain.status.started_at)
        unread = (name for kind, name in self._store.unreadable if kind is Kind.DRAIN)
        return self._pools.shifts.nodes().union(begun, unread)

    def _ended(self, name: str, task: asyncio.Task[None]) -> None:
        current = self._drainers.get(name)
        if current and current[1] is task:
            if current[0].left_released:
                self.strays.look_at(name)
            del self._drainers[name]
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            # Its loop does not fail: it could not close. The drain must not be left without its task.
            wait = self._supervisor.note("drain", name, error)
            asyncio.get_running_loop().call_later(wait, self._ensure_again, name)
        else:
            self._ensure_again(name)

    def _ensure_again(self, name: str) -> None:
        if self._leading and self._store.drain(name):
            self._ensure(name)

    async def resync(self) -> None:
        """Keep the facts true for ever: list all, drop what is gone, look at everything again."""
        await self._supervisor.loop("resync", self._resync, retry=_RETRY, vital=True)

    async def _resync(self) -> float:
        await self._list_all()
        self.synced.set()
        self._look_at_all()
        return _RESYNC

    def _look_at_all(self) -> None:
        """Anything may be otherwise than it was thought to be."""
        self._tell()
        self._changed(None)
        self._pools.look_at_all()

    async def _list_all(self) -> None:
        begun = self._clock.now()
        await self.sources.list_all()
        self._store.set_listed(begun)

    async def follow(self) -> None:
        """Keep the facts current by watches, and show `/healthz` that the event loop turns."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.resync())
            group.create_task(self.sources.follow(self._supervisor))
            group.create_task(self._tools.heartbeats.run(self._supervisor))
            group.create_task(self._supervisor.loop("heartbeat", self._beat))

    async def _beat(self) -> float:
        self.beat = self._clock.monotonic()
        return 1.0

    async def _list_once(self) -> None:
        await self._list_all()

    async def lead(self, *, reconcile: bool = True) -> None:
        """Work, as the leader, until cancelled; without `reconcile` no NodeDrain is made or changed."""
        # Of drains that ended under another leader our watch may know nothing yet: they must not go on.
        await self._supervisor.loop("resync", self._list_once, subject="at the start", retry=_RETRY, vital=True)
        self._leading = True
        log.info("leader.working")
        self._tell()
        if reconcile:
            self._pools.shifts.begin()
        self._changed(None)
        keep, look = self._supervisor.keep, self._supervisor.guard("node", self._reconciler.look)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.strays.run())
                for _ in range(_WORKERS if reconcile else 0):
                    group.create_task(keep("queue", partial(self._queue.work, look)))
                if reconcile:
                    group.create_task(keep("pools", self._pools.run))
                    group.create_task(self._rebalancer.run())
        finally:
            self._leading = False
            self._pools.shifts.end()
            self._supervisor.forget("node")
            tasks = [task for _, task in self._drainers.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
