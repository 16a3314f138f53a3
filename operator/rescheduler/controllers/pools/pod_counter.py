"""Counts the pods of pools: all of them in chunks every few minutes and on demand, those out of place every few seconds.

Nothing is watched and no pod is kept. What a count costs decides how soon the next may be: a cluster with very many
pods is counted less often, never harder.
"""

import asyncio
from collections.abc import Callable, Iterable

import structlog

from rescheduler.api import names
from rescheduler.controllers.pools.node_loss import NodeLossSimulation
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.readable import readable_objects
from rescheduler.controllers.runtime.store import Store
from rescheduler.controllers.runtime.tasks import Supervisor
from rescheduler.core.model import object_schemas
from rescheduler.core.pools import misplaced_pods
from rescheduler.core.pools.misplaced_pods import ListScope, MembershipSnapshot, MisplacementReport, PodTotals
from rescheduler.core.pools.node_loss import NodeLoss
from rescheduler.kube import paths
from rescheduler.kube.client import Client

log = structlog.get_logger("rescheduler.pool_counts")

_FULL_COUNT_INTERVAL = 300.0  # seconds between full counts where nothing changes
_MIN_COUNT_INTERVAL = 2.0  # seconds between two on demand, at least
_RECHECK_INTERVAL = 3.0  # seconds between glances while something is out of place: known within 5
_COUNT_PAUSE_FACTOR, _RECHECK_PAUSE_FACTOR = 20, 10  # a count may take 1/20 of the time, a glance 1/10
_MIN_SIMULATION_INTERVAL = 20.0  # seconds between two rehearsals of losses, at least
_MAX_CONCURRENT_LISTS = 8  # lists side by side
_RETRY_DELAY = 5.0
_WAKE_DEBOUNCE = 0.05  # seconds; a burst of changes is one look


class PoolPodCounter:
    """What is known of the pools' pods; `changed` is told after each look.

    Attributes:
        sums: the last full count; None before the first.
        finds: what is out of place now.
        losses: by pool, what would become of its pods without its largest node.
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
        """Something may be out of place there now."""
        self._requested_scopes |= set(scopes)
        self._wake.set()

    def request_recount(self) -> None:
        """All sums may be otherwise now."""
        self._next_count_at = min(self._next_count_at, self._earliest_count_at)
        self._wake.set()

    async def run(self, supervisor: Supervisor) -> None:
        """Count until cancelled."""
        retry = (_RETRY_DELAY, _RETRY_DELAY)
        await supervisor.run_loop(
            "pool_counts", self._step, wake=self._wake, debounce=lambda: _WAKE_DEBOUNCE, retry=retry
        )

    async def _step(self) -> float:
        """Count what is due; seconds until the next count is."""
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
            self._next_count_at, self._next_recheck_at = now + _FULL_COUNT_INTERVAL, float("inf")
            self._on_change()
        elif now >= self._next_count_at:
            await self._count_all(now)
        elif self._requested_scopes or now >= self._next_recheck_at:
            await self._recheck(now)

    async def _count_all(self, started_at: float) -> None:
        view, sums = MembershipSnapshot.of(self._store.memberships), PodTotals()
        rehearsal = NodeLossSimulation(self._store, view) if started_at >= self._next_simulation_at else None
        self._next_count_at = started_at + _FULL_COUNT_INTERVAL  # what is asked for while it runs makes it sooner
        self._earliest_count_at = started_at + _MIN_COUNT_INTERVAL
        self._requested_scopes.clear()
        async for page in self._client.list(paths.PODS):
            for raw in readable_objects(page["items"], object_schemas.sanitize_pod):
                sums.add(raw, view)
                if rehearsal:
                    rehearsal.add(raw, view)
        took = self._clock.monotonic() - started_at
        self._earliest_count_at = started_at + max(_MIN_COUNT_INTERVAL, took * (_COUNT_PAUSE_FACTOR + 1))
        self._next_count_at = max(self._next_count_at, self._earliest_count_at)
        self.totals = sums
        self._update_misplaced(sums.misplaced_by_scope, took)
        log.debug("pools.counted", seconds=round(took, 3))
        if rehearsal:
            await self._simulate_node_losses(rehearsal)

    async def _simulate_node_losses(self, simulation: NodeLossSimulation) -> None:
        """Dearer than the count itself: with it, but not each time."""
        began = self._clock.monotonic()
        self.node_losses = await simulation.run()
        ended = self._clock.monotonic()
        self._next_simulation_at = ended + max(_MIN_SIMULATION_INTERVAL, (ended - began) * _COUNT_PAUSE_FACTOR)
        self._on_change()

    async def _recheck(self, started_at: float) -> None:
        """Look where something was out of place, or may be now."""
        view, places = (
            MembershipSnapshot.of(self._store.memberships),
            sorted({*self._misplaced_by_scope, *self._requested_scopes}),
        )
        self._requested_scopes.clear()
        found: dict[ListScope, MisplacementReport] = {}
        limit = asyncio.Semaphore(_MAX_CONCURRENT_LISTS)

        async def look(place: ListScope) -> None:
            async with limit:
                found[place] = await self._list_misplaced(place, view)

        await asyncio.gather(*(look(place) for place in places))
        self._update_misplaced(found, self._clock.monotonic() - started_at)

    def _update_misplaced(self, misplaced_by_scope: dict[ListScope, MisplacementReport], duration: float) -> None:
        self._misplaced_by_scope = {
            place: finds for place, finds in misplaced_by_scope.items() if finds.pods_outside or finds.pods_foreign
        }
        total = MisplacementReport()
        for finds in self._misplaced_by_scope.values():
            total.merge(finds)
        self.misplaced = total
        gap = max(_RECHECK_INTERVAL, duration * _RECHECK_PAUSE_FACTOR)
        self._next_recheck_at = self._clock.monotonic() + gap if self._misplaced_by_scope else float("inf")
        self._on_change()

    async def _list_misplaced(self, scope: ListScope, snapshot: MembershipSnapshot) -> MisplacementReport:
        kind, name = scope
        finds = MisplacementReport()
        if kind == "node":
            pages = self._client.list(paths.PODS, fieldSelector=f"spec.nodeName={name}")
        else:
            pools = snapshot.pools_by_namespace.get(name, ())
            # Where one pool alone has a say, the label tells which pods were not made for it.
            only = {"labelSelector": f"{names.POOL}!={pools[0]}"} if len(pools) == 1 else {}
            pages = self._client.list(paths.in_namespace("v1", name, "pods"), **only)
        async for page in pages:
            for raw in readable_objects(page["items"], object_schemas.sanitize_pod):
                if misplaced_pods.list_scope(raw, snapshot) == scope:
                    misplaced_pods.add_to_report(raw, snapshot, finds)
        return finds
