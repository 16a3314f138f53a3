"""The controller manager: the resync, the workers of the queue, and a task for each NodeDrain of the leader.

A standby runs the same resync to keep its store current, and writes nothing.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable
from functools import partial

import structlog

from rescheduler.controllers.drain.drain_task import DrainDependencies, DrainTask
from rescheduler.controllers.drain.node_controller import NodeController
from rescheduler.controllers.evacuation.orphaned_pods import ORPHANED_PODS_SUBSCRIBER, OrphanedPodController
from rescheduler.controllers.migration.chain_requests import ChainMoveRequests
from rescheduler.controllers.pools.controller import PoolController
from rescheduler.controllers.rebalance.controller import Rebalancer
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.controllers.runtime.work_queue import WorkQueue
from rescheduler.controllers.store.crd_check import CrdCheck
from rescheduler.controllers.store.informers import StoreInformers
from rescheduler.controllers.store.object_cache import ResourceKind
from rescheduler.controllers.store.store import Store
from rescheduler.core.eligibility import concurrency

log = structlog.get_logger("rescheduler.controllers.manager")

_WORKER_COUNT = 16
_RETRY_DELAYS = (2.0, 10.0)  # seconds: first and longest delay after a failed list
_RESYNC_INTERVAL = 60.0  # seconds; the resync finds deletions that a watch missed


class ControllerManager:
    """Run all controllers of one process.

    Attributes:
        orphaned_pods: controller of the released pods without a task.
        informers: informers that feed the store.
        changed: set after each change; the cleanup clears it.
        synced: set after the first full list.
        last_beat_at: last heartbeat of the event loop, in monotonic seconds.
    """

    def __init__(
        self,
        store: Store,
        deps: DrainDependencies,
        queue: WorkQueue,
        node_controller: NodeController,
        pool_controller: PoolController,
        rebalancer: Rebalancer,
        chain_moves: ChainMoveRequests,
    ) -> None:
        self._store, self._deps, self._queue, self._node_controller = store, deps, queue, node_controller
        self._pool_controller, self._rebalancer, self._chain_moves = pool_controller, rebalancer, chain_moves
        self._drain_tasks: dict[str, tuple[DrainTask, asyncio.Task[None]]] = {}
        self._leading = False
        self._supervisor = deps.supervisor
        self.orphaned_pods = OrphanedPodController(deps.evacuation, self._nodes_with_tasks, deps.supervisor)
        self.changed = asyncio.Event()
        self.synced = asyncio.Event()
        self.last_beat_at = deps.clock.monotonic()
        pool_controller.migrations.subscribe(on_released_pods_left=self.orphaned_pods.request_node_scan)
        self.informers = StoreInformers(deps.client, store, self._requeue_all)
        self._crd_check = CrdCheck(deps.client, store, deps.metrics, self._requeue_all)
        store.subscribe(
            on_change=self._on_change,
            on_eligibility_change=self._on_eligibility_change,
            on_unreadable_change=self._report_unreadable,
        )

    @property
    def _clock(self) -> Clock:
        return self._deps.clock

    @property
    def _metrics(self) -> Metrics:
        return self._deps.metrics

    def _on_change(self, name: str | None) -> None:
        """Reconcile a node and its drain after a change; None means all nodes."""
        self.changed.set()
        if not self._leading:
            return
        self._chain_moves.reconcile()
        self._pool_controller.migrations.on_node_changed(name)
        self._rebalancer.wake()
        for node in [name] if name else [*self._store.nodes, *self._store.drains]:
            self._queue.add(node, low_priority=name is None)
            if node in self._store.drains:
                self._ensure_task(node)
            if running := self._drain_tasks.get(node):
                running[0].wake()

    def _report_unreadable(self) -> None:
        """Report unreadable objects; a standby only counts them."""
        counts = Counter(kind for kind, _ in self._store.cache.unreadable_objects)
        for kind in ResourceKind:
            self._metrics.unreadable_objects.labels(kind).set(counts[kind])
        for unreadable in self._store.cache.unreadable_objects.values() if self._leading else ():
            self._deps.events.publish_unreadable(unreadable)

    def _on_eligibility_change(self) -> None:
        """Wake the drains that wait for a slot."""
        for name, (drainer, _) in self._drain_tasks.items():
            drain = self._store.drain(name)
            if drain and (drain.status.started_at is None or concurrency.waits_for_slot(drain)):
                drainer.wake()

    def wake(self, names: Iterable[str]) -> None:
        """Wake the tasks of these drains, nodes and pools."""
        self._pool_controller.wake(names)
        for name in names:
            if name == ORPHANED_PODS_SUBSCRIBER:
                self.orphaned_pods.wake()
            if running := self._drain_tasks.get(name):
                running[0].wake()
            elif name in self._store.nodes:
                self.orphaned_pods.request_node_scan(name)  # a release can outlive the task that requested it

    def _ensure_task(self, name: str) -> None:
        running = self._drain_tasks.get(name)
        if running is None or running[1].done():
            drainer = DrainTask(name, self._deps)
            self._drain_tasks[name] = (drainer, asyncio.create_task(drainer.run(), name=f"drain {name}"))
            self._drain_tasks[name][1].add_done_callback(lambda task: self._on_task_done(name, task))

    def _nodes_with_tasks(self) -> frozenset[str]:
        """Return the nodes whose released pods have a task. A drain that has not started has no released pods."""
        started = (drain.spec.node_name for drain in self._store.drains.values() if drain.status.started_at)
        unreadable = (name for kind, name in self._store.cache.unreadable_objects if kind is ResourceKind.DRAIN)
        return self._pool_controller.migrations.managed_nodes().union(started, unreadable)

    def _on_task_done(self, name: str, task: asyncio.Task[None]) -> None:
        current = self._drain_tasks.get(name)
        if current and current[1] is task:
            if current[0].has_released_pods:
                self.orphaned_pods.request_node_scan(name)
            del self._drain_tasks[name]
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            # The task failed while it ended. Without a new task the drain would stall.
            delay = self._supervisor.record_failure("drain", name, error)
            asyncio.get_running_loop().call_later(delay, self._ensure_while_leading, name)
        else:
            self._ensure_while_leading(name)

    def _ensure_while_leading(self, name: str) -> None:
        if self._leading and self._store.drain(name):
            self._ensure_task(name)

    async def resync(self) -> None:
        """Repeat forever: list all kinds, drop deleted objects, and reconcile everything."""
        await self._supervisor.run_loop("resync", self._resync, retry=_RETRY_DELAYS, vital=True)

    async def _resync(self) -> float:
        await self._list_all()
        self.synced.set()
        self._requeue_all()
        return _RESYNC_INTERVAL

    def _requeue_all(self) -> None:
        """Reconcile everything: any object may have changed without an event."""
        self._report_unreadable()
        self._on_change(None)
        self._pool_controller.enqueue_all()

    async def _list_all(self) -> None:
        started_at = self._clock.now()
        await self.informers.list_all()
        self._store.set_listed(started_at)

    async def watch(self) -> None:
        """Keep the store current, and record heartbeats of the event loop for `/healthz`."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.resync())
            group.create_task(self.informers.watch(self._supervisor))
            group.create_task(self._deps.lease_monitor.run(self._supervisor))
            group.create_task(self._supervisor.run_loop("heartbeat", self._record_beat))
            group.create_task(self._supervisor.run_loop("crds", self._crd_check.step))

    async def _record_beat(self) -> float:
        self.last_beat_at = self._clock.monotonic()
        return 1.0

    async def _list_once(self) -> None:
        await self._list_all()

    async def lead(self, *, reconcile: bool = True) -> None:
        """Run the controllers as the leader until cancelled; without `reconcile`, create and change no NodeDrain."""
        # The watch may be late: without a list, drains that ended under another leader would continue.
        await self._supervisor.run_loop(
            "resync", self._list_once, subject="the new leader", retry=_RETRY_DELAYS, vital=True
        )
        self._leading = True
        log.info("leader.working")
        self._report_unreadable()
        if reconcile:
            self._pool_controller.migrations.start_leading()
            self._chain_moves.reset()
        self._on_change(None)
        run_forever, reconcile_node = (
            self._supervisor.run_forever,
            self._supervisor.guard("node", self._node_controller.reconcile),
        )
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.orphaned_pods.run())
                for _ in range(_WORKER_COUNT if reconcile else 0):
                    group.create_task(run_forever("queue", partial(self._queue.run_worker, reconcile_node)))
                if reconcile:
                    group.create_task(run_forever("pools", self._pool_controller.run))
                    group.create_task(self._rebalancer.run())
        finally:
            self._leading = False
            self._pool_controller.migrations.stop_leading()
            self._supervisor.forget("node")
            tasks = [task for _, task in self._drain_tasks.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
