"""Plans for pods that are to leave, of all drains together: before the first leaves, and again while some have no room.

All pods are listed in chunks, summed and dropped; nothing is watched. What a plan costs decides how soon the next may
be. A drain that waits for one does not wait for ever: what cannot be planned is moved without.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from rescheduler.api import names
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.readable import readable
from rescheduler.controllers.runtime.store import Store
from rescheduler.controllers.runtime.tasks import Supervisor
from rescheduler.core.model import object_schemas
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.volume_topology import Reach, Storage
from rescheduler.core.model.volumes import Volumes
from rescheduler.core.placement import planner
from rescheduler.core.placement.planner import Fit, Forecast
from rescheduler.core.placement.pod_requirements import Asks
from rescheduler.core.placement.pod_snapshot import Census, Resident
from rescheduler.core.placement.problem import Ground
from rescheduler.kube import paths
from rescheduler.kube.client import TRANSIENT, Client

log = structlog.get_logger("rescheduler.plans")

_PATIENCE = 10.0  # seconds that a drain waits for its first plan
_EVERY = 30.0  # seconds between two plans while pods have no room
_SHARE, _GAP = 20, 3  # such plans may take 1/20 of the time, those that a drain waits for a quarter
_RETRY = 5.0  # seconds
_UNDER_WAY = Forecast(Fit.DOES_NOT_FIT, reason="where another pod of its owner will be is not known yet", crowded=True)

_Open = frozenset[tuple[str, str]]
"""Nodes that take pods, each with its pool: a new one gets that a moment after it is there."""


@dataclass(slots=True)
class _Asked:
    """What one drain asks, or one node's moves of single pods.

    Attributes:
        since: monotonic; from when its pods wait for a plan.
        begun: when its node was emptied; the first to begin has room first.
        pods: uids of its pods; `nodes`: where these are; `homeless`: of those that need a place, and do not have one beside them already.
        planned: uids of those that a plan was made with.
    """

    since: float
    begun: datetime
    pods: frozenset[str] = frozenset()
    nodes: frozenset[str] = frozenset()
    homeless: tuple[str, ...] = ()
    volumes: Volumes = field(default_factory=Volumes)
    planned: frozenset[str] = frozenset()

    @property
    def answered(self) -> bool:
        """A plan with its pods is there."""
        return self.planned.issuperset(self.homeless)


class Plans:
    """One for drains, and one for moves of single pods: their nodes take pods all the same.

    `pools`: by namespace, the pool that admission puts its new pods into. `may_stay`: while another pod of its owner is on
    its way, a pod has no place, rather than one that the other may take.
    """

    def __init__(
        self,
        client: Client,
        store: Store,
        clock: Clock,
        pools: Callable[[], Mapping[str, str]],
        changed: Callable[[Iterable[str]], None],
        supervisor: Supervisor,
        *,
        may_stay: bool = False,
    ) -> None:
        self._client, self._store, self._clock, self._may_stay = client, store, clock, may_stay
        self._supervisor, self._subject = supervisor, "single pods" if may_stay else "drains"
        self._pools, self._changed = pools, changed
        self._asked: dict[str, _Asked] = {}
        self._forecasts: dict[str, Forecast] = {}
        self._task: asyncio.Task[None] | None = None
        self._first, self._next = 0.0, 0.0  # monotonic: no plan before, the next by itself
        self._open: _Open = frozenset()  # when the last was made

    def look(self, holder: str, pods: Sequence[Pod], volumes: Volumes, *, wait: bool) -> Mapping[str, Forecast] | None:
        """What becomes of these pods of a drain's node, by uid, as far as it is known; None: that comes in a moment.

        `wait`: rather late than without a plan.
        """
        now = self._clock.monotonic()
        asked = self._asked.setdefault(holder, _Asked(now, self._clock.now()))
        answered = asked.answered
        # Of those that were let go of the replacement looks for a place already.
        asked.homeless = tuple(pod.uid for pod in pods if not pod.released)
        asked.pods, asked.volumes = frozenset(pod.uid for pod in pods), volumes
        asked.nodes, asked.planned = frozenset(pod.node for pod in pods), asked.planned & asked.pods
        asked.since = now if answered and not asked.answered else asked.since
        if self._task is None and now >= self._first and self._is_due(now):
            self._task = asyncio.create_task(self._plan(), name="plan")
        if not asked.answered and wait and now - asked.since < _PATIENCE:
            return None
        return {pod.uid: found for pod in pods if (found := self._forecasts.get(pod.uid))}

    def _is_due(self, now: float) -> bool:
        if any(not asked.answered for asked in self._asked.values()):
            return True
        waits = any(self._waits(uid) for asked in self._asked.values() for uid in asked.homeless)
        return waits and (now >= self._next or not self._open_now() <= self._open)

    def _waits(self, uid: str) -> bool:
        found = self._forecasts.get(uid)
        return found is None or found.fit is Fit.DOES_NOT_FIT

    def _open_now(self) -> _Open:
        nodes = (node for node in self._store.nodes.values() if not node.unschedulable and node.ready == "True")
        return frozenset((node.name, node.labels.get(names.NODE_POOL, "")) for node in nodes)

    def close(self, holder: str) -> None:
        """Its drain is over."""
        self._asked.pop(holder, None)
        if not self._asked:
            self._supervisor.clear("plan", self._subject)
            self._forecasts = {}
            if self._task:
                self._task.cancel()

    async def _plan(self) -> None:
        holders, began = tuple(self._asked), self._clock.monotonic()
        try:
            await self._make(holders)
            now = self._clock.monotonic()
            self._first = now + (now - began) * _GAP
            self._next = max(began + _EVERY, now + (now - began) * _SHARE)
            self._supervisor.clear("plan", self._subject)
        except TRANSIENT as error:
            log.warning("plan.failed", error=str(error))
            self._first = self._clock.monotonic() + _RETRY
        except Exception as error:  # noqa: BLE001 - drains go on without a plan, after their patience
            wait = self._supervisor.note("plan", self._subject, error)
            self._first = self._clock.monotonic() + max(wait, _RETRY)
        finally:
            self._task = None
            self._changed(holders)

    async def _make(self, holders: Iterable[str]) -> None:
        nodes = frozenset[str]().union(*(self._nodes(name) for name in holders if name in self._asked))
        self._open = self._open_now()
        before = {name: self._asked[name].homeless for name in holders if name in self._asked}
        census = Census(Asks(self._pools()), nodes)
        async for page in self._client.list(paths.PODS):
            for raw in readable(page["items"], object_schemas.pod):
                census.add(raw)
        still = [name for name in holders if name in self._asked]  # others were over while the pods were listed
        still.sort(key=self._began)
        asked = [self._asked[name] for name in still]
        # One that has left meanwhile needs its place all the same.
        homeless = [
            (*each.homeless, *(uid for uid in before[name] if uid not in each.pods))
            for name, each in zip(still, asked, strict=True)
        ]
        known = {resident.uid: resident for rows in census.residents.values() for resident in rows}
        leaving = [known[uid] for uids in homeless for uid in uids if uid in known]
        ground = Ground(
            nodes=dict(self._store.nodes),
            census=census,
            closed=nodes,
            rivals=census.waiting,
            spaces={space.name: space.labels for space in self._store.namespaces.values()},
            storage=_storage(each.volumes for each in asked),
        )
        # Up to a second of computing: the event loop turns meanwhile.
        forecasts = await asyncio.to_thread(planner.plan, leaving, ground)
        if self._may_stay:
            pairs = zip(leaving, forecasts, strict=True)
            forecasts = [_UNDER_WAY if pod.owner in census.under_way else forecast for pod, forecast in pairs]
        for each, uids in zip(asked, homeless, strict=True):
            each.planned |= frozenset(uids)
        self._take_in(leaving, forecasts)

    def _nodes(self, holder: str) -> frozenset[str]:
        drain = self._store.drain(holder)
        return frozenset({drain.spec.node_name}) if drain else self._asked[holder].nodes

    def _began(self, holder: str) -> tuple[datetime, str]:
        drain = self._store.drain(holder)
        begun = drain.status.started_at if drain else None
        return begun or self._asked[holder].begun, holder

    def _take_in(self, leaving: Sequence[Resident], forecasts: Sequence[Forecast]) -> None:
        """Those let go of since keep what was said of them."""
        new = {pod.uid: forecast for pod, forecast in zip(leaving, forecasts, strict=True)}
        there = frozenset[str]().union(*(asked.pods for asked in self._asked.values()))
        self._forecasts = {uid: found for uid, found in (self._forecasts | new).items() if uid in there}
        counts = {fit: sum(each.fit is fit for each in forecasts) for fit in Fit}
        log.info(
            "plan.made",
            fits=counts[Fit.FITS],
            does_not_fit=counts[Fit.DOES_NOT_FIT],
            unknown=counts[Fit.UNKNOWN],
        )


def _storage(found: Iterable[Volumes]) -> Storage:
    """How many volumes a node can have attached is not looked at: of those of CSI only the scheduler knows."""
    claims: dict[tuple[str, str], str] = {}
    reaches: dict[str, Reach] = {}
    for volumes in found:
        claims |= {key: claim.volume for key, claim in volumes.claims.items()}
        reaches |= volumes.reaches
    return Storage(claims, reaches, None)
