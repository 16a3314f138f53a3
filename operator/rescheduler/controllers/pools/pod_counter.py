"""Count the pods of pools: all pods every few seconds, misplaced pods more often.

Pods are listed in pages, and neither watched nor kept. The duration of a count decides when the next one may begin, so
that a cluster with very many pods is counted less often and bears no more load.
"""

import asyncio
from collections.abc import Callable, Iterable

import structlog

from rescheduler.api import names
from rescheduler.controllers.pools.node_loss import NodeLossSimulation
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.readable import readable_objects
from rescheduler.controllers.runtime.tasks import Supervisor
from rescheduler.controllers.store.store import Store
from rescheduler.core.model.listed_pods import parse_listed_pod
from rescheduler.core.pools import misplaced_pods
from rescheduler.core.pools.misplaced_pods import ListScope, MembershipSnapshot, MisplacementReport, PodTotals
from rescheduler.core.pools.node_loss import NodeLoss
from rescheduler.kube import paths
from rescheduler.kube.client import Client

log = structlog.get_logger("rescheduler.pools.pod_counter")

_FULL_COUNT_INTERVAL = 5.0  # seconds between the starts of two full counts, at least
_REQUESTED_COUNT_INTERVAL = 2.0  # the same if the second one is requested
_NO_POOL_INTERVAL = 300.0  # seconds between looks for pools; the first pool requests a count
_RECHECK_INTERVAL = 3.0  # seconds between lists of misplaced pods: a change is known within 5 s
_COUNT_PAUSE_FACTOR, _RECHECK_PAUSE_FACTOR = 20, 10  # counts may take 1/20 of the time, rechecks 1/10
_MAX_CONCURRENT_LISTS = 8
_RETRY_DELAY = 5.0  # seconds
_WAKE_DEBOUNCE = 0.05  # seconds; one step serves a burst of requests


class PoolPodCounter:
    """Count pods, and call `on_change` after each count.

    Attributes:
        totals: the last full count; None before the first.
        misplaced: the misplaced pods of the last count or recheck.
        node_losses: by pool, the last simulated loss of its largest node.
    """

    def __init__(self, client: Client, store: Store, clock: Clock, on_change: Callable[[], None]) -> None:
        self.totals: PodTotals | None = None
        self.misplaced = MisplacementReport()
        self.node_losses: dict[str, NodeLoss] = {}
        self._client, self._store, self._clock, self._on_change = client, store, clock, on_change
        self._misplaced_by_scope: dict[ListScope, MisplacementReport] = {}
        self._requested_scopes: set[ListScope] = set()
        self._wake = asyncio.Event()
        self._next_count_at, self._earliest_count_at = 0.0, 0.0
        self._next_recheck_at, self._next_simulation_at = float("inf"), 0.0

    def request_recheck(self, scopes: Iterable[ListScope]) -> None:
        """List these scopes soon: they may have misplaced pods now."""
        self._requested_scopes |= set(scopes)
        self._wake.set()

    def request_recount(self) -> None:
        """Count all pods soon."""
        self._next_count_at = min(self._next_count_at, self._earliest_count_at)
        self._wake.set()

    async def run(self, supervisor: Supervisor) -> None:
        """Count until cancelled."""
        retry = (_RETRY_DELAY, _RETRY_DELAY)
        await supervisor.run_loop(
            "pool_counts", self._step, wake=self._wake, debounce=lambda: _WAKE_DEBOUNCE, retry=retry
        )

    async def _step(self) -> float:
        """Run the count that is due; return the seconds until the next one."""
        try:
            await self._run_due()
        except Exception:
            self._earliest_count_at = self._clock.monotonic() + _RETRY_DELAY
            self._next_recheck_at = max(self._next_recheck_at, self._earliest_count_at)
            self._next_count_at = max(self._next_count_at, self._earliest_count_at)
            raise
        return min(self._next_count_at, self._next_recheck_at) - self._clock.monotonic()

    async def _run_due(self) -> None:
        now = self._clock.monotonic()
        if not self._store.memberships.pools:
            self.totals, self.misplaced, self._misplaced_by_scope, self.node_losses = None, MisplacementReport(), {}, {}
            self._requested_scopes.clear()
            self._next_count_at, self._next_recheck_at = now + _NO_POOL_INTERVAL, float("inf")
            self._on_change()
        elif now >= self._next_count_at:
            await self._count_all(now)
        elif self._requested_scopes or now >= self._next_recheck_at:
            await self._recheck(now)

    async def _count_all(self, started_at: float) -> None:
        memberships = self._store.memberships
        snapshot = MembershipSnapshot.of(memberships)
        totals = PodTotals(self._clock.now(), frozenset(pool.uid for pool in memberships.pools.values()))
        simulation = NodeLossSimulation(self._store, snapshot) if started_at >= self._next_simulation_at else None
        # Set first: a request during the count brings the next one forward.
        self._next_count_at = started_at + _FULL_COUNT_INTERVAL
        self._earliest_count_at = started_at + _REQUESTED_COUNT_INTERVAL
        self._requested_scopes.clear()
        async for page in self._client.list(paths.PODS):
            for pod in readable_objects(page["items"], parse_listed_pod):
                totals.add(pod, snapshot)
                if simulation:
                    simulation.add(pod, snapshot)
        duration = self._clock.monotonic() - started_at
        self._earliest_count_at = started_at + max(_REQUESTED_COUNT_INTERVAL, duration * (_COUNT_PAUSE_FACTOR + 1))
        self._next_count_at = max(self._next_count_at, self._earliest_count_at)
        # Published together: a status must not have the pods of one count and the node loss of an earlier one.
        if simulation:
            self.node_losses = await self._simulate_node_losses(simulation)
        self.totals = totals
        self._update_misplaced(totals.misplaced_by_scope, duration)
        log.debug("pools.counted", seconds=round(duration, 3))

    async def _simulate_node_losses(self, simulation: NodeLossSimulation) -> dict[str, NodeLoss]:
        """Run a simulation, and set the time of the next one: it may cost more than a count."""
        started_at = self._clock.monotonic()
        node_losses = await simulation.run()
        ended_at = self._clock.monotonic()
        self._next_simulation_at = ended_at + (ended_at - started_at) * _COUNT_PAUSE_FACTOR
        return node_losses

    async def _recheck(self, started_at: float) -> None:
        """List the scopes that had misplaced pods, or that are requested."""
        snapshot = MembershipSnapshot.of(self._store.memberships)
        scopes = sorted({*self._misplaced_by_scope, *self._requested_scopes})
        self._requested_scopes.clear()
        reports: dict[ListScope, MisplacementReport] = {}
        limit = asyncio.Semaphore(_MAX_CONCURRENT_LISTS)

        async def list_scope(scope: ListScope) -> None:
            async with limit:
                reports[scope] = await self._list_misplaced(scope, snapshot)

        await asyncio.gather(*(list_scope(scope) for scope in scopes))
        self._update_misplaced(reports, self._clock.monotonic() - started_at)

    def _update_misplaced(self, misplaced_by_scope: dict[ListScope, MisplacementReport], duration: float) -> None:
        self._misplaced_by_scope = {
            scope: report for scope, report in misplaced_by_scope.items() if report.pods_outside or report.pods_foreign
        }
        total = MisplacementReport()
        for report in self._misplaced_by_scope.values():
            total.merge(report)
        self.misplaced = total
        pause = max(_RECHECK_INTERVAL, duration * _RECHECK_PAUSE_FACTOR)
        self._next_recheck_at = self._clock.monotonic() + pause if self._misplaced_by_scope else float("inf")
        self._on_change()

    async def _list_misplaced(self, scope: ListScope, snapshot: MembershipSnapshot) -> MisplacementReport:
        kind, name = scope
        report = MisplacementReport()
        if kind == "node":
            pages = self._client.list(paths.PODS, fieldSelector=f"spec.nodeName={name}")
        else:
            pools = snapshot.pools_by_namespace.get(name, ())
            # Without the selector the API server would send all pods of the namespace, and most are in place.
            selector = {"labelSelector": f"{names.POOL}!={pools[0]}"} if len(pools) == 1 else {}
            pages = self._client.list(paths.in_namespace("v1", name, "pods"), **selector)
        async for page in pages:
            for pod in readable_objects(page["items"], parse_listed_pod):
                if misplaced_pods.list_scope(pod, snapshot) == scope:
                    misplaced_pods.add_to_report(pod, snapshot, report)
        return report
