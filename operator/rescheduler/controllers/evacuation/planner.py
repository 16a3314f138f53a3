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
from rescheduler.controllers.runtime.readable import readable_objects
from rescheduler.controllers.runtime.store import Store
from rescheduler.controllers.runtime.tasks import Supervisor
from rescheduler.core.model import object_schemas
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.volume_topology import ClusterVolumes, VolumeTopology
from rescheduler.core.model.volumes import NodeVolumes
from rescheduler.core.placement import planner
from rescheduler.core.placement.planner import Fit, Forecast
from rescheduler.core.placement.pod_requirements import PodRequirementsParser
from rescheduler.core.placement.pod_snapshot import PodSnapshot, ScheduledPod
from rescheduler.core.placement.problem import PlacementInput
from rescheduler.kube import paths
from rescheduler.kube.client import TRANSIENT_ERRORS, Client

log = structlog.get_logger("rescheduler.plans")

_FIRST_PLAN_TIMEOUT = 10.0  # seconds that a drain waits for its first plan
_REPLAN_INTERVAL = 30.0  # seconds between two plans while pods have no room
_REPLAN_PAUSE_FACTOR, _PLAN_PAUSE_FACTOR = (
    20,
    3,
)  # such plans may take 1/20 of the time, those that a drain waits for a quarter
_RETRY_DELAY = 5.0  # seconds
_OWNER_POD_PENDING = Forecast(
    Fit.DOES_NOT_FIT, reason="where another pod of its owner will be is not known yet", blocked_by_pods=True
)

_SchedulableNodes = frozenset[tuple[str, str]]
"""Nodes that take pods, each with its pool: a new one gets that a moment after it is there."""


@dataclass(slots=True)
class _PlanRequest:
    """What one drain asks, or one node's moves of single pods.

    Attributes:
        since: monotonic; from when its pods wait for a plan.
        begun: when its node was emptied; the first to begin has room first.
        pods: uids of its pods; `nodes`: where these are; `homeless`: of those that need a place, and do not have one beside them already.
        planned: uids of those that a plan was made with.
    """

    waiting_since: float
    started_at: datetime
    pod_uids: frozenset[str] = frozenset()
    nodes: frozenset[str] = frozenset()
    pods_to_place: tuple[str, ...] = ()
    volumes: NodeVolumes = field(default_factory=NodeVolumes)
    planned_uids: frozenset[str] = frozenset()

    @property
    def is_planned(self) -> bool:
        """A plan with its pods is there."""
        return self.planned_uids.issuperset(self.pods_to_place)


class EvacuationPlanner:
    """One for drains, and one for moves of single pods: their nodes take pods all the same.

    `pools`: by namespace, the pool that admission puts its new pods into. `may_stay`: while another pod of its owner is on
    its way, a pod has no place, rather than one that the other may take.
    """

    def __init__(
        self,
        client: Client,
        store: Store,
        clock: Clock,
        pool_by_namespace: Callable[[], Mapping[str, str]],
        on_change: Callable[[Iterable[str]], None],
        supervisor: Supervisor,
        *,
        may_stay: bool = False,
    ) -> None:
        self._client, self._store, self._clock, self._may_stay = client, store, clock, may_stay
        self._supervisor, self._subject = supervisor, "single pods" if may_stay else "drains"
        self._pool_by_namespace, self._on_change = pool_by_namespace, on_change
        self._requests: dict[str, _PlanRequest] = {}
        self._forecasts: dict[str, Forecast] = {}
        self._task: asyncio.Task[None] | None = None
        self._not_before, self._next_plan_at = 0.0, 0.0  # monotonic: no plan before, the next by itself
        self._nodes_at_last_plan: _SchedulableNodes = frozenset()  # when the last was made

    def forecast(
        self, subscriber: str, pods: Sequence[Pod], volumes: NodeVolumes, *, wait_for_plan: bool
    ) -> Mapping[str, Forecast] | None:
        """What becomes of these pods of a drain's node, by uid, as far as it is known; None: that comes in a moment.

        `wait`: rather late than without a plan.
        """
        now = self._clock.monotonic()
        asked = self._requests.setdefault(subscriber, _PlanRequest(now, self._clock.now()))
        answered = asked.is_planned
        # Of those that were let go of the replacement looks for a place already.
        asked.pods_to_place = tuple(pod.uid for pod in pods if not pod.released)
        asked.pod_uids, asked.volumes = frozenset(pod.uid for pod in pods), volumes
        asked.nodes, asked.planned_uids = frozenset(pod.node for pod in pods), asked.planned_uids & asked.pod_uids
        asked.waiting_since = now if answered and not asked.is_planned else asked.waiting_since
        if self._task is None and now >= self._not_before and self._is_due(now):
            self._task = asyncio.create_task(self._run_plan(), name="plan")
        if not asked.is_planned and wait_for_plan and now - asked.waiting_since < _FIRST_PLAN_TIMEOUT:
            return None
        return {pod.uid: found for pod in pods if (found := self._forecasts.get(pod.uid))}

    def _is_due(self, now: float) -> bool:
        if any(not asked.is_planned for asked in self._requests.values()):
            return True
        waits = any(self._lacks_room(uid) for asked in self._requests.values() for uid in asked.pods_to_place)
        return waits and (now >= self._next_plan_at or not self._schedulable_nodes() <= self._nodes_at_last_plan)

    def _lacks_room(self, uid: str) -> bool:
        found = self._forecasts.get(uid)
        return found is None or found.fit is Fit.DOES_NOT_FIT

    def _schedulable_nodes(self) -> _SchedulableNodes:
        nodes = (node for node in self._store.nodes.values() if not node.unschedulable and node.ready_status == "True")
        return frozenset((node.name, node.labels.get(names.NODE_POOL, "")) for node in nodes)

    def close(self, subscriber: str) -> None:
        """Its drain is over."""
        self._requests.pop(subscriber, None)
        if not self._requests:
            self._supervisor.clear("plan", self._subject)
            self._forecasts = {}
            if self._task:
                self._task.cancel()

    async def _run_plan(self) -> None:
        holders, began = tuple(self._requests), self._clock.monotonic()
        try:
            await self._make_plan(holders)
            now = self._clock.monotonic()
            self._not_before = now + (now - began) * _PLAN_PAUSE_FACTOR
            self._next_plan_at = max(began + _REPLAN_INTERVAL, now + (now - began) * _REPLAN_PAUSE_FACTOR)
            self._supervisor.clear("plan", self._subject)
        except TRANSIENT_ERRORS as error:
            log.warning("plan.failed", error=str(error))
            self._not_before = self._clock.monotonic() + _RETRY_DELAY
        except Exception as error:  # noqa: BLE001 - drains go on without a plan, after their patience
            wait = self._supervisor.record_failure("plan", self._subject, error)
            self._not_before = self._clock.monotonic() + max(wait, _RETRY_DELAY)
        finally:
            self._task = None
            self._on_change(holders)

    async def _make_plan(self, subscribers: Iterable[str]) -> None:
        nodes = frozenset[str]().union(*(self._nodes_of(name) for name in subscribers if name in self._requests))
        self._nodes_at_last_plan = self._schedulable_nodes()
        before = {name: self._requests[name].pods_to_place for name in subscribers if name in self._requests}
        census = PodSnapshot(PodRequirementsParser(self._pool_by_namespace()), nodes)
        async for page in self._client.list(paths.PODS):
            for raw in readable_objects(page["items"], object_schemas.sanitize_pod):
                census.add(raw)
        still = [name for name in subscribers if name in self._requests]  # others were over while the pods were listed
        still.sort(key=self._start_order)
        asked = [self._requests[name] for name in still]
        # One that has left meanwhile needs its place all the same.
        homeless = [
            (*each.pods_to_place, *(uid for uid in before[name] if uid not in each.pod_uids))
            for name, each in zip(still, asked, strict=True)
        ]
        known = {resident.uid: resident for rows in census.pods_by_node.values() for resident in rows}
        leaving = [known[uid] for uids in homeless for uid in uids if uid in known]
        ground = PlacementInput(
            nodes=dict(self._store.nodes),
            pod_snapshot=census,
            excluded_nodes=nodes,
            competing_pods=census.pending,
            namespace_labels={space.name: space.labels for space in self._store.namespaces.values()},
            cluster_volumes=_storage(each.volumes for each in asked),
        )
        # Up to a second of computing: the event loop turns meanwhile.
        forecasts = await asyncio.to_thread(planner.plan, leaving, ground)
        if self._may_stay:
            pairs = zip(leaving, forecasts, strict=True)
            forecasts = [
                _OWNER_POD_PENDING if pod.owner_uid in census.owner_uids_in_transition else forecast
                for pod, forecast in pairs
            ]
        for each, uids in zip(asked, homeless, strict=True):
            each.planned_uids |= frozenset(uids)
        self._store_forecasts(leaving, forecasts)

    def _nodes_of(self, subscriber: str) -> frozenset[str]:
        drain = self._store.drain(subscriber)
        return frozenset({drain.spec.node_name}) if drain else self._requests[subscriber].nodes

    def _start_order(self, subscriber: str) -> tuple[datetime, str]:
        drain = self._store.drain(subscriber)
        begun = drain.status.started_at if drain else None
        return begun or self._requests[subscriber].started_at, subscriber

    def _store_forecasts(self, leaving: Sequence[ScheduledPod], forecasts: Sequence[Forecast]) -> None:
        """Those let go of since keep what was said of them."""
        new = {pod.uid: forecast for pod, forecast in zip(leaving, forecasts, strict=True)}
        there = frozenset[str]().union(*(asked.pod_uids for asked in self._requests.values()))
        self._forecasts = {uid: found for uid, found in (self._forecasts | new).items() if uid in there}
        counts = {fit: sum(each.fit is fit for each in forecasts) for fit in Fit}
        log.info(
            "plan.made",
            fits=counts[Fit.FITS],
            does_not_fit=counts[Fit.DOES_NOT_FIT],
            unknown=counts[Fit.UNKNOWN],
        )


def _storage(found: Iterable[NodeVolumes]) -> ClusterVolumes:
    """How many volumes a node can have attached is not looked at: of those of CSI only the scheduler knows."""
    claims: dict[tuple[str, str], str] = {}
    reaches: dict[str, VolumeTopology] = {}
    for volumes in found:
        claims |= {key: claim.volume for key, claim in volumes.claims.items()}
        reaches |= volumes.topologies
    return ClusterVolumes(claims, reaches, None)
