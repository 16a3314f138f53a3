"""Return or evict orphaned pods: released pods that no drain and no migration manages.

A released pod is normally on a node with a NodeDrain or with the migration taint. Its task manages the pod. A pod is
orphaned if a client removed both by force. A pod is also orphaned if its return was refused until the node was restored
without it. A scan of the cluster finds orphaned pods at start and once an hour. A scan of one node follows when the task
of the node ends with a released pod left.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable

import structlog

from rescheduler.api.policies import DrainSettings
from rescheduler.controllers.evacuation.eviction_queue import EvictionSession, refuse_unproven
from rescheduler.controllers.evacuation.node_evacuation import EvacuationDependencies
from rescheduler.controllers.runtime.readable import readable_objects
from rescheduler.controllers.runtime.tasks import Supervisor
from rescheduler.core.drain.pod_evaluation import MoveMode
from rescheduler.core.eviction.pod_actions import PodAction, PodDecision
from rescheduler.core.model import object_schemas, pods
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.raw import RawObject
from rescheduler.core.model.release_record import read_record
from rescheduler.core.replacement.decisions import ReplacementDecision, ReplacementStep
from rescheduler.kube import paths

log = structlog.get_logger("rescheduler.evacuation.orphaned_pods")

ORPHANED_PODS_SUBSCRIBER = "orphaned-pods/"
"""Subscriber of the informers. The slash makes the name differ from every node name."""
_EVICTIONS_PER_SECOND = 20
_SCAN_INTERVAL = 3600.0  # seconds
_FIRST_DELAY, _MAX_DELAY = 5.0, 60.0  # seconds between two reconciles while there are orphaned pods
_WAKE_DEBOUNCE = 0.5  # seconds; without it, each event of a burst would cost a reconcile


class OrphanedPodController:
    """Manager of the orphaned pods while this process leads; `nodes_with_task`: returns the nodes with a task.

    Attributes:
        none_left: set if the last requested scan has ended and no orphaned pod is left.
        waiting_reasons: what each orphaned pod waits for, by namespace/name; empty text if unknown.
    """

    def __init__(
        self, deps: EvacuationDependencies, nodes_with_task: Callable[[], Collection[str]], supervisor: Supervisor
    ) -> None:
        self._deps, self._nodes_with_task, self._supervisor = deps, nodes_with_task, supervisor
        self._wake = asyncio.Event()
        self._session = EvictionSession(self.wake)
        self._pods: dict[str, Pod] = {}  # by uid
        self._nodes_to_scan: set[str] = set()
        self._next_scan_at = float("-inf")  # monotonic
        self._delay = _FIRST_DELAY
        self.none_left = asyncio.Event()
        self.waiting_reasons: dict[str, str] = {}

    def wake(self) -> None:
        """Reconcile now."""
        self._wake.set()

    def request_scan(self) -> None:
        """Scan the whole cluster now."""
        self._next_scan_at = float("-inf")
        self.none_left.clear()
        self._wake.set()

    def request_node_scan(self, node: str) -> None:
        """Scan this node now."""
        self._nodes_to_scan.add(node)
        self._wake.set()

    async def run(self) -> None:
        """Reconcile until cancelled: on each wake, when a scan is due, and while there are orphaned pods."""
        self.request_scan()
        try:
            await self._supervisor.run_loop(
                "orphaned_pods",
                self._reconcile,
                wake=self._wake,
                debounce=lambda: _WAKE_DEBOUNCE,
                retry=(_FIRST_DELAY, _MAX_DELAY),
            )
        finally:
            self._deps.budgets.subscribe(ORPHANED_PODS_SUBSCRIBER, ())
            self._deps.replacer.close(ORPHANED_PODS_SUBSCRIBER)

    async def _reconcile(self) -> float:
        """Return the seconds until the next reconcile."""
        now, previous_pods = self._deps.clock.monotonic(), self._pods
        await self._refresh(now)
        self._deps.metrics.orphaned_released_pods.set(len(self._pods))
        if not self._pods:
            self.none_left.set()
        else:
            self.none_left.clear()
        self._return_or_evict(list(self._pods.values()))
        self._delay = _FIRST_DELAY if previous_pods != self._pods else min(self._delay * 2, _MAX_DELAY)
        until_scan = max(_WAKE_DEBOUNCE, self._next_scan_at - now)
        return min(self._delay, until_scan) if self._pods else until_scan

    def _return_or_evict(self, orphaned_pods: list[Pod]) -> None:
        self._deps.budgets.subscribe(ORPHANED_PODS_SUBSCRIBER, {pod.namespace for pod in orphaned_pods})
        pod_decisions = [(pod, PodDecision(PodAction.EVICT)) for pod in orphaned_pods]
        now, settings = self._deps.clock.now(), DrainSettings()
        decisions = self._deps.replacer.evaluate(
            ORPHANED_PODS_SUBSCRIBER, pod_decisions, settings, now, MoveMode.NONE, blockers={}
        )
        to_send = []
        waiting_reasons: dict[str, str] = {}
        for pod, pod_decision in pod_decisions:
            decision = (decisions or {}).get(pod.uid, ReplacementDecision(ReplacementStep.WAIT))
            waiting_reasons[pod.key] = decision.message or decision.waiting_for
            self._deps.replacer.start(ORPHANED_PODS_SUBSCRIBER, pod, decision)
            if decision.step is ReplacementStep.DELETE:
                to_send.append((pod, PodDecision(PodAction.DELETE)))
            elif decision.step is ReplacementStep.EVICT:
                to_send.append((pod, pod_decision))
        for key, why in waiting_reasons.items():
            if why and self.waiting_reasons.get(key) != why:
                log.warning("orphaned_pods.waiting", pod=key, why=why)
        self.waiting_reasons = waiting_reasons
        self._deps.eviction_queue.send(
            self._session,
            to_send,
            policy=ORPHANED_PODS_SUBSCRIBER,
            rate=_EVICTIONS_PER_SECOND,
            confirm=refuse_unproven,
        )

    async def _refresh(self, now: float) -> None:
        """Read the known orphaned pods again, and run the scans that are due."""
        listed = [await self._read_pod(pod.namespace, pod.name) for pod in self._pods.values()]
        for node in list(self._nodes_to_scan):
            listed += await self._list_node_pods(node)
            self._nodes_to_scan.discard(node)
        if now >= self._next_scan_at:
            listed += await self._scan_cluster()
            self._next_scan_at = now + _SCAN_INTERVAL
        nodes_with_task = self._nodes_with_task()
        orphaned = {
            pod.uid: pod
            for pod in listed
            if pod and pod.node not in nodes_with_task and not pod.deletion_timestamp and pod.release_record
        }
        gone = self._pods.keys() - orphaned.keys()
        self._deps.eviction_queue.forget(self._session, list(gone))
        self._deps.budgets.forget(gone)
        self._deps.replacer.forget(gone)
        for pod in orphaned.values():
            if pod.uid not in self._pods:
                log.info(
                    "orphaned_pods.found",
                    pod=pod.key,
                    uid=pod.uid,
                    node=pod.node,
                    cause=pod.release_record and pod.release_record.cause,
                )
        self._pods = orphaned

    async def _read_pod(self, namespace: str, name: str) -> Pod | None:
        """Read one pod; a list needs no right in addition to those that the operator has."""
        path = paths.in_namespace("v1", namespace, "pods")
        response = await self._deps.client.get(path, fieldSelector=f"metadata.name={name}")
        return next(readable_objects(response.get("items") or (), pods.parse_pod), None)

    async def _list_node_pods(self, node: str) -> list[Pod | None]:
        node_pods: list[Pod | None] = []
        async for page in self._deps.client.list(paths.PODS, fieldSelector=f"spec.nodeName={node}"):
            raw_pods = readable_objects(page["items"], object_schemas.sanitize_unnamed_pod)
            node_pods += readable_objects((raw for raw in raw_pods if read_record(raw["metadata"])[0]), pods.parse_pod)
        return node_pods

    async def _scan_cluster(self) -> list[Pod | None]:
        """List the metadata of all pods in pages; the whole pods of a large cluster take hundreds of megabytes."""
        with_record: list[tuple[str, str]] = []
        nodes_with_task = self._nodes_with_task()
        async for page in self._deps.client.list_metadata(paths.PODS):
            with_record += _pods_with_record(page["items"], nodes_with_task)
        log.info("orphaned_pods.scanned", found=len(with_record))
        return [await self._read_pod(namespace, name) for namespace, name in with_record]


def _pods_with_record(rows: Iterable[RawObject], nodes_with_task: Collection[str]) -> list[tuple[str, str]]:
    """Return namespace and name of the pods with a move record, without pods whose drain has a task."""
    pod_names = []
    for row in readable_objects(rows, object_schemas.sanitize_unnamed_pod):
        meta = row["metadata"]
        record, _ = read_record(meta)
        if record and not (record.is_for_drain and record.cause.removeprefix("NodeDrain/") in nodes_with_task):
            pod_names.append((meta.get("namespace", ""), meta.get("name", "")))
    return pod_names
