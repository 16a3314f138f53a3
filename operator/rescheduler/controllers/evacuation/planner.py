"""Make one plan for the pods of all drains: before the first pod leaves, and again while pods have no room.

A plan lists all pods in chunks, sums them and drops them. No watch is needed. The time that a plan takes decides how
soon the next plan may start. A drain does not wait forever for its plan. After a time limit, its pods move without a
plan.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from rescheduler.api import names
from rescheduler.controllers.evacuation import messages
from rescheduler.controllers.evacuation.chain_move_finder import ChainMoveFinder
from rescheduler.controllers.evacuation.workload_watch import WorkloadWatch
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.readable import readable_objects
from rescheduler.controllers.runtime.tasks import Supervisor
from rescheduler.controllers.store.store import Store
from rescheduler.core.model import object_schemas, resource_requests
from rescheduler.core.model.listed_pods import parse_listed_pod
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.raw import RawObject, RawPod
from rescheduler.core.model.volume_topology import ClusterVolumes, VolumeTopology
from rescheduler.core.model.volumes import NodeVolumes
from rescheduler.core.placement import planner
from rescheduler.core.placement.chain_moves import MAX_TRIES, ChainMove
from rescheduler.core.placement.planner import Fit, Forecast
from rescheduler.core.placement.pod_requirements import PodRequirements, PodRequirementsParser
from rescheduler.core.placement.pod_snapshot import PodSnapshot, ScheduledPod
from rescheduler.core.placement.problem import PlacementInput
from rescheduler.core.placement.successors import (
    OwnerTemplate,
    stateful_set_template,
    stateful_set_to_read,
)
from rescheduler.kube import paths
from rescheduler.kube.client import TRANSIENT_ERRORS, ApiError, Client

log = structlog.get_logger("rescheduler.evacuation.planner")

_FIRST_PLAN_TIMEOUT = 10.0  # seconds that a drain waits for its first plan
_TEMPLATE_TIMEOUT = 3.0  # seconds that a plan waits for the list of ReplicaSets
_REPLAN_INTERVAL = 30.0  # seconds between two plans while pods have no room
# Pause after a plan, as a multiple of its duration: repeated plans take 1/20 of the time, first plans a quarter.
_REPLAN_PAUSE_FACTOR, _PLAN_PAUSE_FACTOR = 20, 3
_RETRY_DELAY = 5.0  # seconds
_CHAIN_SEARCH_TIME = 4.0  # seconds in which chain moves are tried, at most, by the duration of the plan
_OWNER_POD_PENDING = Forecast(Fit.DOES_NOT_FIT, reason=messages.OWNER_POD_PENDING, blocked_by_pods=True)

_SchedulableNodes = frozenset[tuple[str, str]]
"""Name and pool label of each schedulable node. A new node gets its pool label a moment after its creation."""


@dataclass(frozen=True, slots=True)
class ChainRequest:
    """Chain moves of a drain.

    Attributes:
        moves_left: number of chain moves that the drain may begin now.
        moving_uids: uids of the pods that are being moved.
    """

    moves_left: int = 0
    moving_uids: Collection[str] = frozenset()


@dataclass(slots=True)
class _PlanRequest:
    """Request of one drain, or of one node migration.

    Attributes:
        waiting_since: start of the wait for a plan; monotonic, in seconds.
        started_at: time of the first request; earlier drains get room first.
        pod_uids: uids of the pods that leave.
        nodes: nodes of these pods.
        namespaces: namespaces whose ReplicaSets have the templates of these pods.
        pods_to_place: uids of the pods that need room; a released pod needs none, because its replacement has its own.
        volumes: volumes of the node.
        planned_uids: uids of the pods in the last plan.
        chain: chain moves of the drain.
    """

    waiting_since: float
    started_at: datetime
    pod_uids: frozenset[str] = frozenset()
    nodes: frozenset[str] = frozenset()
    namespaces: frozenset[str] = frozenset()
    pods_to_place: tuple[str, ...] = ()
    volumes: NodeVolumes = field(default_factory=NodeVolumes)
    planned_uids: frozenset[str] = frozenset()
    chain: ChainRequest = field(default_factory=ChainRequest)

    @property
    def is_planned(self) -> bool:
        """Whether a plan includes all pods that need room."""
        return self.planned_uids.issuperset(self.pods_to_place)


class EvacuationPlanner:
    """Planner of all drains, or of all migrations. They need separate plans: nodes of migrations still accept pods.

    `pool_by_namespace` returns the pool into which admission puts new pods, by namespace. `may_stay`: a pod has no room
    while another pod of its owner is Pending, because the other pod may take the room. `chain_moves`: finds the pods of
    other nodes that drains may move first; None for migrations.
    """

    def __init__(  # noqa: PLR0913 - the last ones are keyword-only
        self,
        client: Client,
        store: Store,
        clock: Clock,
        workloads: WorkloadWatch,
        pool_by_namespace: Callable[[], Mapping[str, str]],
        on_change: Callable[[Iterable[str]], None],
        supervisor: Supervisor,
        *,
        may_stay: bool = False,
        chain_moves: ChainMoveFinder | None = None,
    ) -> None:
        self._client, self._store, self._clock, self._may_stay = client, store, clock, may_stay
        self._supervisor, self._subject = supervisor, "single pods" if may_stay else "drains"
        self._chain_moves = chain_moves
        self._chain_offer: ChainMove | None = None
        self._planned_at: datetime | None = None
        self._is_outdated = False  # whether a chain move has ended since the last plan began
        self._workloads, self._pool_by_namespace, self._on_change = workloads, pool_by_namespace, on_change
        self._requests: dict[str, _PlanRequest] = {}
        self._forecasts: dict[str, Forecast] = {}
        self._task: asyncio.Task[None] | None = None
        self._not_before, self._next_plan_at = 0.0, 0.0  # monotonic: earliest plan, and next plan without a request
        self._nodes_at_last_plan: _SchedulableNodes = frozenset()

    @property
    def planned_at(self) -> datetime | None:
        """Return when the last plan began; None before the first plan."""
        return self._planned_at

    def chain_offer(self, node: str) -> ChainMove | None:
        """Return the chain move that the last plan offers to the drain of this node; None if there is none."""
        return self._chain_offer if self._chain_offer and self._chain_offer.for_node == node else None

    def replan(self, subscriber: str) -> None:
        """Make a new plan soon, because a chain move of this subscriber has ended."""
        self._chain_offer = None
        if subscriber in self._requests:
            self._is_outdated = True

    def forecast(
        self,
        subscriber: str,
        pods: Sequence[Pod],
        volumes: NodeVolumes,
        *,
        wait_for_plan: bool,
        chain: ChainRequest | None = None,
    ) -> Mapping[str, Forecast] | None:
        """Return the known forecasts of these pods, by uid; None while the plan is awaited.

        `wait_for_plan`: prefer to wait, for a limited time, over an answer without a plan.
        """
        now = self._clock.monotonic()
        request = self._requests.setdefault(subscriber, _PlanRequest(now, self._clock.now()))
        was_planned = request.is_planned
        # The replacement of a released pod is in the cluster already. With both, the pod would take room twice.
        request.pods_to_place = tuple(pod.uid for pod in pods if not pod.released)
        request.pod_uids, request.volumes = frozenset(pod.uid for pod in pods), volumes
        request.chain = chain or ChainRequest()
        request.nodes = frozenset(pod.node for pod in pods)
        request.namespaces = frozenset(p.namespace for p in pods if p.owner and p.owner.kind == "ReplicaSet")
        self._workloads.watch_templates(subscriber, request.namespaces)
        request.planned_uids &= request.pod_uids
        request.waiting_since = now if was_planned and not request.is_planned else request.waiting_since
        if self._task is None and now >= self._not_before and self._is_due(now) and self._has_templates(now):
            self._task = asyncio.create_task(self._run_plan(), name="plan")
        if not request.is_planned and wait_for_plan and now - request.waiting_since < _FIRST_PLAN_TIMEOUT:
            return None
        return {pod.uid: forecast for pod in pods if (forecast := self._forecasts.get(pod.uid))}

    def _is_due(self, now: float) -> bool:
        if self._is_outdated or any(not request.is_planned for request in self._requests.values()):
            return True
        any_without_room = any(
            self._lacks_room(uid) for request in self._requests.values() for uid in request.pods_to_place
        )
        return any_without_room and (
            now >= self._next_plan_at or not self._schedulable_nodes() <= self._nodes_at_last_plan
        )

    def _has_templates(self, now: float) -> bool:
        """Whether the ReplicaSets of all requests are listed; a request does not wait long for them."""
        return all(
            now - request.waiting_since >= _TEMPLATE_TIMEOUT or self._workloads.are_templates_synced(name)
            for name, request in self._requests.items()
        )

    def _lacks_room(self, uid: str) -> bool:
        forecast = self._forecasts.get(uid)
        return forecast is None or forecast.fit is Fit.DOES_NOT_FIT

    def _schedulable_nodes(self) -> _SchedulableNodes:
        nodes = (node for node in self._store.nodes.values() if not node.unschedulable and node.ready_status == "True")
        return frozenset((node.name, node.labels.get(names.NODE_POOL, "")) for node in nodes)

    def close(self, subscriber: str) -> None:
        """Drop the request of this subscriber, whose drain or migration has ended."""
        self._workloads.watch_templates(subscriber, ())
        self._requests.pop(subscriber, None)
        if self.chain_offer(subscriber):
            self._chain_offer = None
        if not self._requests:
            self._supervisor.clear("plan", self._subject)
            self._forecasts = {}
            if self._task:
                self._task.cancel()

    async def _run_plan(self) -> None:
        subscribers, started = tuple(self._requests), self._clock.monotonic()
        try:
            await self._make_plan(subscribers)
            now = self._clock.monotonic()
            self._not_before = now + (now - started) * _PLAN_PAUSE_FACTOR
            self._next_plan_at = max(started + _REPLAN_INTERVAL, now + (now - started) * _REPLAN_PAUSE_FACTOR)
            self._supervisor.clear("plan", self._subject)
        except TRANSIENT_ERRORS as error:
            log.warning("plan.failed", error=str(error))
            self._not_before = self._clock.monotonic() + _RETRY_DELAY
        except Exception as error:  # noqa: BLE001 - a bug in the plan must not stop drains, which continue without one
            wait = self._supervisor.record_failure("plan", self._subject, error)
            self._not_before = self._clock.monotonic() + max(wait, _RETRY_DELAY)
        finally:
            self._task = None
            self._on_change(subscribers)

    async def _make_plan(self, subscribers: Iterable[str]) -> None:
        planned_at, self._is_outdated = self._clock.now(), False
        moving_uids = {uid for request in self._requests.values() for uid in request.chain.moving_uids}
        nodes = frozenset[str]().union(*(self._nodes_of(name) for name in subscribers if name in self._requests))
        self._nodes_at_last_plan = self._schedulable_nodes()
        pods_before = {name: self._requests[name].pods_to_place for name in subscribers if name in self._requests}
        leaving_uids = {uid for uids in pods_before.values() for uid in uids}
        namespaces = frozenset[str]().union(*(request.namespaces for request in self._requests.values()))
        templates = self._workloads.templates(namespaces)
        snapshot = PodSnapshot(PodRequirementsParser(self._pool_by_namespace()), nodes, templates)
        unreplaced: Counter[PodRequirements] = Counter()  # chain moves without a replacement so far
        changed: list[tuple[str, RawPod]] = []  # with the StatefulSet, whose template is read first
        async for page in self._client.list(paths.PODS):
            for raw in readable_objects(page["items"], object_schemas.sanitize_pod):
                if raw["metadata"].get("uid") in leaving_uids and (stateful_set := stateful_set_to_read(raw)):
                    changed.append((stateful_set, raw))
                else:
                    snapshot.add(raw)
                if raw["metadata"].get("uid") in moving_uids and not parse_listed_pod(raw).released:
                    unreplaced[snapshot.scheduled_pod(raw).requirements] += 1
        stateful_sets = {(raw_pod["metadata"]["namespace"], stateful_set) for stateful_set, raw_pod in changed}
        templates |= await self._stateful_set_templates(stateful_sets)
        for _, raw_pod in changed:
            snapshot.add(raw_pod)
        remaining = [name for name in subscribers if name in self._requests]  # some ended during the list of the pods
        remaining.sort(key=self._start_order)
        requests = [self._requests[name] for name in remaining]
        # A pod that left during the list still needs its room. Without it, the plan would give the room to others.
        pods_to_place = [
            (*request.pods_to_place, *(uid for uid in pods_before[name] if uid not in request.pod_uids))
            for name, request in zip(remaining, requests, strict=True)
        ]
        pods_by_uid = {pod.uid: pod for node_pods in snapshot.pods_by_node.values() for pod in node_pods}
        leaving = [pods_by_uid[uid] for uids in pods_to_place for uid in uids if uid in pods_by_uid]
        placement_input = PlacementInput(
            nodes=dict(self._store.nodes),
            pod_snapshot=snapshot,
            excluded_nodes=nodes,
            competing_pods=snapshot.pending + unreplaced,
            namespace_labels={namespace.name: namespace.labels for namespace in self._store.namespaces.values()},
            cluster_volumes=_merge_volumes(request.volumes for request in requests),
            device_resources=await self._device_resources(leaving),
        )
        # A plan takes up to a second of computing, which would block the event loop.
        began = self._clock.monotonic()
        forecasts = await asyncio.to_thread(planner.plan, leaving, placement_input)
        plan_seconds = self._clock.monotonic() - began
        offer = None if moving_uids else await self._find_chain_move(leaving, forecasts, placement_input, plan_seconds)
        if self._may_stay:
            pairs = zip(leaving, forecasts, strict=True)
            forecasts = [
                _OWNER_POD_PENDING if pod.owner_uid in snapshot.owner_uids_in_transition else forecast
                for pod, forecast in pairs
            ]
        for request, uids in zip(requests, pods_to_place, strict=True):
            request.planned_uids |= frozenset(uids)
        # A drain may have begun a chain move meanwhile.
        in_progress = any(request.chain.moving_uids for request in self._requests.values())
        self._chain_offer, self._planned_at = None if in_progress else offer, planned_at
        self._store_forecasts(leaving, forecasts)

    async def _find_chain_move(
        self,
        leaving: Sequence[ScheduledPod],
        forecasts: Sequence[Forecast],
        placement_input: PlacementInput,
        plan_seconds: float,
    ) -> ChainMove | None:
        """Return the chain move that gives room to a pod of a drain which may begin one; None if there is none."""
        may_begin = {
            node
            for name, request in self._requests.items()
            for node in self._nodes_of(name)
            if request.chain.moves_left > 0
        }
        if self._chain_moves is None or not may_begin:
            return None
        max_tries = int(_CHAIN_SEARCH_TIME / max(plan_seconds, _CHAIN_SEARCH_TIME / MAX_TRIES))
        return await self._chain_moves.find(leaving, forecasts, placement_input, may_begin, max_tries)

    async def _stateful_set_templates(self, stateful_sets: Iterable[tuple[str, str]]) -> dict[str, OwnerTemplate]:
        """Return the templates of StatefulSets, by UID; `stateful_sets`: namespace and name of each."""
        templates: dict[str, OwnerTemplate] = {}
        for namespace, name in sorted(stateful_sets):
            raw = await self._client.find(paths.stateful_set(namespace, name))
            for found in readable_objects([raw] if raw else [], object_schemas.sanitize_stateful_set):
                templates[found["metadata"]["uid"]] = stateful_set_template(found)
        return templates

    async def _device_resources(self, leaving: Iterable[ScheduledPod]) -> frozenset[str]:
        """Return the resources that DeviceClasses serve; empty if no pod requests an extended resource."""
        if not any(pod.requirements.requests_extended_resource for pod in leaving):
            return frozenset()
        classes: list[RawObject] = []
        try:
            async for page in self._client.list(paths.DEVICE_CLASSES):
                classes += readable_objects(page["items"], object_schemas.sanitize_device_class)
        except ApiError as error:
            if error.code != 404:  # an API server before 1.34 serves no such resource
                raise
        return resource_requests.device_resources(classes)

    def _nodes_of(self, subscriber: str) -> frozenset[str]:
        drain = self._store.drain(subscriber)
        return frozenset({drain.spec.node_name}) if drain else self._requests[subscriber].nodes

    def _start_order(self, subscriber: str) -> tuple[datetime, str]:
        drain = self._store.drain(subscriber)
        started_at = drain.status.started_at if drain else None
        return started_at or self._requests[subscriber].started_at, subscriber

    def _store_forecasts(self, leaving: Sequence[ScheduledPod], forecasts: Sequence[Forecast]) -> None:
        """Store the new forecasts; a pod released since then keeps its earlier forecast."""
        new_forecasts = {pod.uid: forecast for pod, forecast in zip(leaving, forecasts, strict=True)}
        requested_uids = frozenset[str]().union(*(request.pod_uids for request in self._requests.values()))
        self._forecasts = {
            uid: forecast for uid, forecast in (self._forecasts | new_forecasts).items() if uid in requested_uids
        }
        counts = {fit: sum(forecast.fit is fit for forecast in forecasts) for fit in Fit}
        log.info(
            "plan.made",
            fits=counts[Fit.FITS],
            does_not_fit=counts[Fit.DOES_NOT_FIT],
            unknown=counts[Fit.UNKNOWN],
        )


def _merge_volumes(node_volumes: Iterable[NodeVolumes]) -> ClusterVolumes:
    """Return the volumes of all nodes, without attach limits: only the scheduler knows those of CSI drivers."""
    claims: dict[tuple[str, str], str] = {}
    topologies: dict[str, VolumeTopology] = {}
    for volumes in node_volumes:
        claims |= {key: claim.volume for key, claim in volumes.claims.items()}
        topologies |= volumes.topologies
    return ClusterVolumes(claims, topologies, None)
