"""Counts the pods of pools: all of them in chunks every few minutes and on demand, those out of place every few seconds.

Nothing is watched and no pod is kept. What a count costs decides how soon the next may be: a cluster with very many
pods is counted less often, never harder.
"""

import asyncio
from collections.abc import Callable, Iterable

import structlog

from rescheduler.api import names
from rescheduler.controllers.pools.node_loss import Rehearsal
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.readable import readable
from rescheduler.controllers.runtime.store import Store
from rescheduler.controllers.runtime.tasks import Supervisor
from rescheduler.core.model import object_schemas
from rescheduler.core.pools import misplaced_pods
from rescheduler.core.pools.misplaced_pods import Finds, Place, Sums, View
from rescheduler.core.pools.node_loss import Loss
from rescheduler.kube import paths
from rescheduler.kube.client import Client

log = structlog.get_logger("rescheduler.pool_counts")

_EVERY = 300.0  # seconds between full counts where nothing changes
_SOON = 2.0  # seconds between two on demand, at least
_GLANCE = 3.0  # seconds between glances while something is out of place: known within 5
_SHARE, _GLANCE_SHARE = 20, 10  # a count may take 1/20 of the time, a glance 1/10
_REHEARSED = 20.0  # seconds between two rehearsals of losses, at least
_AT_ONCE = 8  # lists side by side
_RETRY = 5.0
_SETTLE = 0.05  # seconds; a burst of changes is one look


class PoolCounts:
    """What is known of the pools' pods; `changed` is told after each look.

    Attributes:
        sums: the last full count; None before the first.
        finds: what is out of place now.
        losses: by pool, what would become of its pods without its largest node.
    """

    def __init__(self, client: Client, store: Store, clock: Clock, changed: Callable[[], None]) -> None:
        self.sums: Sums | None = None
        self.finds = Finds()
        self.losses: dict[str, Loss] = {}
        self._client, self._store, self._clock, self._changed = client, store, clock, changed
        self._places: dict[Place, Finds] = {}
        self._asked: set[Place] = set()
        self._wake = asyncio.Event()
        self._count_at, self._count_not_before = 0.0, 0.0
        self._glance_at, self._rehearse_at = float("inf"), 0.0

    def glance(self, places: Iterable[Place]) -> None:
        """Something may be out of place there now."""
        self._asked |= set(places)
        self._wake.set()

    def recount(self) -> None:
        """All sums may be otherwise now."""
        self._count_at = min(self._count_at, self._count_not_before)
        self._wake.set()

    async def run(self, supervisor: Supervisor) -> None:
        """Count until cancelled."""
        retry = (_RETRY, _RETRY)
        await supervisor.loop("pool_counts", self._step, wake=self._wake, settle=lambda: _SETTLE, retry=retry)

    async def _step(self) -> float:
        """Count what is due; seconds until the next count is."""
        try:
            await self._turn()
        except Exception:
            self._count_not_before = self._clock.monotonic() + _RETRY
            self._glance_at = max(self._glance_at, self._count_not_before)
            self._count_at = max(self._count_at, self._count_not_before)
            raise
        return min(self._count_at, self._glance_at) - self._clock.monotonic()

    async def _turn(self) -> None:
        now = self._clock.monotonic()
        if not self._store.memberships.pools:
            self.sums, self.finds, self._places, self.losses = None, Finds(), {}, {}
            self._asked.clear()
            self._count_at, self._glance_at = now + _EVERY, float("inf")
            self._changed()
        elif now >= self._count_at:
            await self._count(now)
        elif self._asked or now >= self._glance_at:
            await self._glance(now)

    async def _count(self, began: float) -> None:
        view, sums = View.of(self._store.memberships), Sums()
        rehearsal = Rehearsal(self._store, view) if began >= self._rehearse_at else None
        self._count_at = began + _EVERY  # what is asked for while it runs makes it sooner
        self._count_not_before = began + _SOON
        self._asked.clear()
        async for page in self._client.list(paths.PODS):
            for raw in readable(page["items"], object_schemas.pod):
                sums.add(raw, view)
                if rehearsal:
                    rehearsal.add(raw, view)
        took = self._clock.monotonic() - began
        self._count_not_before = began + max(_SOON, took * (_SHARE + 1))
        self._count_at = max(self._count_at, self._count_not_before)
        self.sums = sums
        self._take_in(sums.places, took)
        log.debug("pools.counted", seconds=round(took, 3))
        if rehearsal:
            await self._rehearse(rehearsal)

    async def _rehearse(self, rehearsal: Rehearsal) -> None:
        """Dearer than the count itself: with it, but not each time."""
        began = self._clock.monotonic()
        self.losses = await rehearsal.losses()
        ended = self._clock.monotonic()
        self._rehearse_at = ended + max(_REHEARSED, (ended - began) * _SHARE)
        self._changed()

    async def _glance(self, began: float) -> None:
        """Look where something was out of place, or may be now."""
        view, places = View.of(self._store.memberships), sorted({*self._places, *self._asked})
        self._asked.clear()
        found: dict[Place, Finds] = {}
        limit = asyncio.Semaphore(_AT_ONCE)

        async def look(place: Place) -> None:
            async with limit:
                found[place] = await self._look(place, view)

        await asyncio.gather(*(look(place) for place in places))
        self._take_in(found, self._clock.monotonic() - began)

    def _take_in(self, places: dict[Place, Finds], took: float) -> None:
        self._places = {place: finds for place, finds in places.items() if finds.outside or finds.foreign}
        total = Finds()
        for finds in self._places.values():
            total.add(finds)
        self.finds = total
        gap = max(_GLANCE, took * _GLANCE_SHARE)
        self._glance_at = self._clock.monotonic() + gap if self._places else float("inf")
        self._changed()

    async def _look(self, place: Place, view: View) -> Finds:
        kind, name = place
        finds = Finds()
        if kind == "node":
            pages = self._client.list(paths.PODS, fieldSelector=f"spec.nodeName={name}")
        else:
            pools = view.spaces.get(name, ())
            # Where one pool alone has a say, the label tells which pods were not made for it.
            only = {"labelSelector": f"{names.POOL}!={pools[0]}"} if len(pools) == 1 else {}
            pages = self._client.list(paths.namespaced("v1", name, "pods"), **only)
        async for page in pages:
            for raw in readable(page["items"], object_schemas.pod):
                if misplaced_pods.place(raw, view) == place:
                    misplaced_pods.find(raw, view, finds)
        return finds
