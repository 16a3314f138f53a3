"""Run all tasks of pools while this process is the leader."""

import asyncio
from collections.abc import Iterable
from functools import partial

from rescheduler.controllers.migration.manager import MigrationManager
from rescheduler.controllers.migration.node_task import MigrationDependencies
from rescheduler.controllers.pools.admission_check import AdmissionCheck
from rescheduler.controllers.pools.events import PoolEvents
from rescheduler.controllers.pools.move_controller import PoolMoveController
from rescheduler.controllers.pools.pod_counter import PoolPodCounter
from rescheduler.controllers.pools.reconciler import PoolReconciler
from rescheduler.controllers.runtime.metrics import Metrics

_WORKERS = 16


class PoolController:
    """Connect the parts: admission check, pod counter, reconciler and moves.

    Attributes:
        migrations: the moves of single pods, shared with rebalancing.
    """

    def __init__(
        self,
        deps: MigrationDependencies,
        migrations: MigrationManager,
        admission: AdmissionCheck,
        events: PoolEvents,
        metrics: Metrics,
    ) -> None:
        client, store, clock = deps.client, deps.store, deps.clock
        self._admission = admission
        self._pod_counter = PoolPodCounter(client, store, clock, self._on_counted)
        self.migrations = migrations
        self._move_controller = PoolMoveController(store, clock, admission, self._pod_counter, migrations)
        self._reconciler = PoolReconciler(
            client,
            store,
            clock,
            admission,
            self._pod_counter,
            events,
            metrics,
            list_blockers=self._move_controller.blockers,
        )
        self._misplaced_totals = (0, 0)
        self._supervisor = deps.supervisor
        admission.subscribe(self.enqueue_all)
        migrations.subscribe(on_pod_moved=self._move_controller.on_pod_moved)
        store.subscribe(on_membership_change=self._reconciler.enqueue)

    def _on_counted(self) -> None:
        self._move_controller.reconcile()
        self._reconciler.enqueue_pools()
        misplaced = self._pod_counter.misplaced
        totals = misplaced.pods_outside.total(), misplaced.pods_foreign.total()
        if totals != self._misplaced_totals:
            self._misplaced_totals = totals
            self._pod_counter.request_recount()  # pods have moved: without a count their new nodes look free

    def wake(self, subscribers: Iterable[str]) -> None:
        """Wake the subscribers of changed objects."""
        self.migrations.wake(subscribers)

    def enqueue_all(self) -> None:
        """Reconcile all namespaces, nodes and pools."""
        self._reconciler.enqueue_all()

    async def run(self) -> None:
        """Run as the leader until cancelled."""
        self._pod_counter.request_recount()
        await self._admission.refresh()  # otherwise every status shows `Enforced=Unknown` for a moment
        self.enqueue_all()
        supervisor, reconcile = self._supervisor, self._supervisor.guard("pool", self._reconciler.reconcile)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.migrations.run())
                group.create_task(supervisor.run_loop("admission", self._admission.step))
                group.create_task(self._pod_counter.run(supervisor))
                for _ in range(_WORKERS):
                    worker = partial(self._reconciler.queue.run_worker, reconcile)
                    group.create_task(supervisor.run_forever("queue", worker))
        finally:
            supervisor.forget("pool")
