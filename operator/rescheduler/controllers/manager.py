"""The engine as a whole: the re-sync, the queue's workers, and a task for each NodeDrain, while we lead.

A standby keeps its facts warm by the same re-sync, and writes nothing.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable
from functools import partial

import structlog

from rescheduler.controllers.drain.drain_task import DrainDependencies, DrainTask
from rescheduler.controllers.drain.node_controller import NodeController
from rescheduler.controllers.evacuation.orphaned_pods import ORPHANED_PODS_SUBSCRIBER, OrphanedPodController
from rescheduler.controllers.pools.controller import PoolController
from rescheduler.controllers.rebalance.controller import Rebalancer
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.informers import StoreInformers
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.controllers.runtime.store import ResourceKind, Store
from rescheduler.controllers.runtime.work_queue import WorkQueue
from rescheduler.core.eligibility import concurrency

log = structlog.get_logger("rescheduler.engine")

_WORKER_COUNT = 16
_RETRY_DELAYS = (2.0, 10.0)  # seconds after a list that failed
_RESYNC_INTERVAL = 60.0  # seconds; deletions that a watch lost are found by then


class ControllerManager:
    """Runs until cancelled."""

    def __init__(
        self,
        store: Store,
        deps: DrainDependencies,
        queue: WorkQueue,
        node_controller: NodeController,
        pool_controller: PoolController,
        rebalancer: Rebalancer,
    ) -> None:
        self._store, self._deps, self._queue, self._node_controller = store, deps, queue, node_controller
        self._pool_controller, self._rebalancer = pool_controller, rebalancer
        self._drain_tasks: dict[str, tuple[DrainTask, asyncio.Task[None]]] = {}
        self._leading = False
        self._supervisor = deps.supervisor
        self.orphaned_pods = OrphanedPodController(deps.evacuation, self._nodes_with_tasks, deps.supervisor)
        self.changed = asyncio.Event()  # something changed: for whoever clears it
        self.synced = asyncio.Event()
        self.last_beat_at = deps.clock.monotonic()
        pool_controller.migrations.released_pods_left_listeners.append(self.orphaned_pods.request_node_scan)
        self.informers = StoreInformers(deps.client, store, self._requeue_all)
        store.on_change, store.on_eligibility_change, store.on_unreadable_change = (
            self._on_change,
            self._on_eligibility_change,
            self._report_unreadable,
        )

    @property
    def _clock(self) -> Clock:
        return self._deps.clock

    @property
    def _metrics(self) -> Metrics:
        return self._deps.metrics

    def _on_change(self, name: str | None) -> None:
        """A fact of this node or its drain changed (None: of all): look at both."""
        self.changed.set()
        if not self._leading:
            return
        self._pool_controller.migrations.on_node_changed(name)
        self._rebalancer.wake()
        for node in [name] if name else [*self._store.nodes, *self._store.drains]:
            self._queue.add(node, low_priority=name is None)
            if node in self._store.drains:
                self._ensure_task(node)
            if running := self._drain_tasks.get(node):
                running[0].wake()

    def _report_unreadable(self) -> None:
        """Report objects that cannot be read; a standby only counts them."""
        counts = Counter(kind for kind, _ in self._store.unreadable_objects)
        for kind in ResourceKind:
            self._metrics.unreadable_objects.labels(kind).set(counts[kind])
        for found in self._store.unreadable_objects.values() if self._leading else ():
            self._deps.events.publish_unreadable(found)

    def _on_eligibility_change(self) -> None:
        """Drains that wait for a slot look whether it is their turn."""
        for name, (drainer, _) in self._drain_tasks.items():
            drain = self._store.drain(name)
            if drain and (drain.status.started_at is None or concurrency.waits_for_slot(drain)):
                drainer.wake()

    def wake(self, names: Iterable[str]) -> None:
        """These drains look again."""
        self._pool_controller.wake(names)
        for name in names:
            if name == ORPHANED_PODS_SUBSCRIBER:
                self.orphaned_pods.wake()
            if running := self._drain_tasks.get(name):
                running[0].wake()

    def _ensure_task(self, name: str) -> None:
        running = self._drain_tasks.get(name)
        if running is None or running[1].done():
            drainer = DrainTask(name, self._deps)
            self._drain_tasks[name] = (drainer, asyncio.create_task(drainer.run(), name=f"drain {name}"))
            self._drain_tasks[name][1].add_done_callback(lambda task: self._on_task_done(name, task))

    def _nodes_with_tasks(self) -> frozenset[str]:
        """Nodes whose released pods have a task: a drain that has not begun does not look at pods."""
        begun = (drain.spec.node_name for drain in self._store.drains.values() if drain.status.started_at)
        unread = (name for kind, name in self._store.unreadable_objects if kind is ResourceKind.DRAIN)
        return self._pool_controller.migrations.managed_nodes().union(begun, unread)

    def _on_task_done(self, name: str, task: asyncio.Task[None]) -> None:
        current = self._drain_tasks.get(name)
        if current and current[1] is task:
            if current[0].has_released_pods:
                self.orphaned_pods.request_node_scan(name)
            del self._drain_tasks[name]
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            # Its loop does not fail: it could not close. The drain must not be left without its task.
            wait = self._supervisor.record_failure("drain", name, error)
            asyncio.get_running_loop().call_later(wait, self._ensure_while_leading, name)
        else:
            self._ensure_while_leading(name)

    def _ensure_while_leading(self, name: str) -> None:
        if self._leading and self._store.drain(name):
            self._ensure_task(name)

    async def resync(self) -> None:
        """Keep the facts true for ever: list all, drop what is gone, look at everything again."""
        await self._supervisor.run_loop("resync", self._resync, retry=_RETRY_DELAYS, vital=True)

    async def _resync(self) -> float:
        await self._list_all()
        self.synced.set()
        self._requeue_all()
        return _RESYNC_INTERVAL

    def _requeue_all(self) -> None:
        """Anything may be otherwise than it was thought to be."""
        self._report_unreadable()
        self._on_change(None)
        self._pool_controller.enqueue_all()

    async def _list_all(self) -> None:
        begun = self._clock.now()
        await self.informers.list_all()
        self._store.set_listed(begun)

    async def watch(self) -> None:
        """Keep the facts current by watches, and show `/healthz` that the event loop turns."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.resync())
            group.create_task(self.informers.watch(self._supervisor))
            group.create_task(self._deps.lease_monitor.run(self._supervisor))
            group.create_task(self._supervisor.run_loop("heartbeat", self._record_beat))

    async def _record_beat(self) -> float:
        self.last_beat_at = self._clock.monotonic()
        return 1.0

    async def _list_once(self) -> None:
        await self._list_all()

    async def lead(self, *, reconcile: bool = True) -> None:
        """Work, as the leader, until cancelled; without `reconcile` no NodeDrain is made or changed."""
        # Of drains that ended under another leader our watch may know nothing yet: they must not go on.
        await self._supervisor.run_loop(
            "resync", self._list_once, subject="at the start", retry=_RETRY_DELAYS, vital=True
        )
        self._leading = True
        log.info("leader.working")
        self._report_unreadable()
        if reconcile:
            self._pool_controller.migrations.start_leading()
        self._on_change(None)
        keep, look = self._supervisor.run_forever, self._supervisor.guard("node", self._node_controller.reconcile)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.orphaned_pods.run())
                for _ in range(_WORKER_COUNT if reconcile else 0):
                    group.create_task(keep("queue", partial(self._queue.run_worker, look)))
                if reconcile:
                    group.create_task(keep("pools", self._pool_controller.run))
                    group.create_task(self._rebalancer.run())
        finally:
            self._leading = False
            self._pool_controller.migrations.stop_leading()
            self._supervisor.forget("node")
            tasks = [task for _, task in self._drain_tasks.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
