"""Released pods that no drain and no move looks after: returned, or evicted as those of their ReplicaSets would go.

Released pods are on nodes with a NodeDrain or with a taint of ours, and are seen there. If somebody removed both by
force, or if a return was refused for so long that the node was restored without it, nobody sees them. A scan finds them:
at start, once an hour, and of one node as soon as its task ends with a released pod left.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import structlog

from rescheduler.api.policies import DrainSettings
from rescheduler.controllers.evacuation.eviction_queue import EvictionSession
from rescheduler.controllers.evacuation.pod_mover import EvacuationDependencies
from rescheduler.controllers.runtime.readable import readable_objects
from rescheduler.controllers.runtime.tasks import Supervisor
from rescheduler.core.eviction.pod_actions import PodAction, PodDecision
from rescheduler.core.model import object_schemas, pods
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.release_record import read_record
from rescheduler.core.replacement.decisions import ReplacementDecision, ReplacementStep
from rescheduler.kube import paths

log = structlog.get_logger("rescheduler.strays")

ORPHANED_PODS_SUBSCRIBER = "strays/"
"""As a holder of mirrors; no node has a name like this."""
_EVICTIONS_PER_SECOND = 20
_SCAN_INTERVAL = 3600.0  # seconds
_FIRST_DELAY, _MAX_DELAY = 5.0, 60.0  # seconds to the next look while there are some; longer while nothing changes
_WAKE_DEBOUNCE = 0.5  # seconds; a burst of events is one look


class OrphanedPodController:
    """Looks after them while this process leads; `held`: nodes whose pods somebody else looks after.

    Attributes:
        none_left: a scan has ended since the last request for one, and found none that is still there.
        waiting: those that are there, by namespace/name, each with what it waits for; empty if nothing is known to hold it.
    """

    def __init__(
        self, deps: EvacuationDependencies, nodes_with_task: Callable[[], Collection[str]], supervisor: Supervisor
    ) -> None:
        self._deps, self._nodes_with_task, self._supervisor = deps, nodes_with_task, supervisor
        self._wake = asyncio.Event()
        self._session = EvictionSession(self.wake)
        self._pods: dict[str, Pod] = {}  # by uid
        self._nodes_to_scan: set[str] = set()  # to be listed
        self._next_scan_at = float("-inf")  # monotonic
        self._delay = _FIRST_DELAY
        self.none_left = asyncio.Event()
        self.waiting_reasons: dict[str, str] = {}

    def wake(self) -> None:
        """Look now."""
        self._wake.set()

    def request_scan(self) -> None:
        """Look for them in the whole cluster now."""
        self._next_scan_at = float("-inf")
        self.none_left.clear()
        self._wake.set()

    def request_node_scan(self, node: str) -> None:
        """Look for them on this node now."""
        self._nodes_to_scan.add(node)
        self._wake.set()

    async def run(self) -> None:
        """Look whenever woken, when a scan is due, and while there are some."""
        self.request_scan()
        try:
            await self._supervisor.run_loop(
                "strays",
                self._reconcile,
                wake=self._wake,
                debounce=lambda: _WAKE_DEBOUNCE,
                retry=(_FIRST_DELAY, _MAX_DELAY),
            )
        finally:
            self._deps.budgets.subscribe(ORPHANED_PODS_SUBSCRIBER, ())
            self._deps.replacer.close(ORPHANED_PODS_SUBSCRIBER)

    async def _reconcile(self) -> float:
        """Return the seconds until the next look."""
        now, before = self._deps.clock.monotonic(), self._pods
        await self._refresh(now)
        self._deps.metrics.orphaned_released_pods.set(len(self._pods))
        if not self._pods:
            self.none_left.set()
        else:
            self.none_left.clear()
        self._return_or_evict(list(self._pods.values()))
        self._delay = _FIRST_DELAY if before != self._pods else min(self._delay * 2, _MAX_DELAY)
        until_scan = max(_WAKE_DEBOUNCE, self._next_scan_at - now)
        return min(self._delay, until_scan) if self._pods else until_scan

    def _return_or_evict(self, orphaned_pods: list[Pod]) -> None:
        self._deps.budgets.subscribe(ORPHANED_PODS_SUBSCRIBER, {pod.namespace for pod in orphaned_pods})
        rows = [(pod, PodDecision(PodAction.EVICT)) for pod in orphaned_pods]
        now, settings = self._deps.clock.now(), DrainSettings()
        back = (
            self._deps.replacer.evaluate(ORPHANED_PODS_SUBSCRIBER, rows, settings, now, may_move=False, blockers={})
            or {}
        )
        sent = []
        waiting: dict[str, str] = {}
        for pod, verdict in rows:
            choice = back.get(pod.uid, ReplacementDecision(ReplacementStep.WAIT))
            waiting[pod.key] = choice.message or choice.waiting_for
            self._deps.replacer.start(ORPHANED_PODS_SUBSCRIBER, pod, choice)
            if choice.step in (ReplacementStep.DELETE, ReplacementStep.EVICT):
                sent.append((pod, PodDecision(PodAction.DELETE) if choice.step is ReplacementStep.DELETE else verdict))
        for key, why in waiting.items():
            if why and self.waiting_reasons.get(key) != why:
                log.warning("orphaned_pods.waiting", pod=key, why=why)
        self.waiting_reasons = waiting
        self._deps.eviction_queue.send(self._session, sent, policy=ORPHANED_PODS_SUBSCRIBER, rate=_EVICTIONS_PER_SECOND)

    async def _refresh(self, now: float) -> None:
        """Read again those that are known, and look for others where that is due."""
        read = [await self._read_pod(pod.namespace, pod.name) for pod in self._pods.values()]
        for node in list(self._nodes_to_scan):
            read += await self._list_node_pods(node)
            self._nodes_to_scan.discard(node)
        if now >= self._next_scan_at:
            read += await self._scan_cluster()
            self._next_scan_at = now + _SCAN_INTERVAL
        held = self._nodes_with_task()
        found = {
            pod.uid: pod
            for pod in read
            if pod and pod.node not in held and not pod.deletion_timestamp and pod.release_record
        }
        gone = self._pods.keys() - found.keys()
        self._deps.eviction_queue.forget(self._session, list(gone))
        self._deps.budgets.forget(gone)
        self._deps.replacer.forget(gone)
        for pod in found.values():
            if pod.uid not in self._pods:
                log.info(
                    "orphaned_pods.found",
                    pod=pod.key,
                    uid=pod.uid,
                    node=pod.node,
                    cause=pod.release_record and pod.release_record.cause,
                )
        self._pods = found

    async def _read_pod(self, namespace: str, name: str) -> Pod | None:
        """Read one pod by a list, for the right to list pods is there anyway."""
        path = paths.in_namespace("v1", namespace, "pods")
        answer = await self._deps.client.get(path, fieldSelector=f"metadata.name={name}")
        return next(readable_objects(answer.get("items") or (), pods.parse_pod), None)

    async def _list_node_pods(self, node: str) -> list[Pod | None]:
        found: list[Pod | None] = []
        async for page in self._deps.client.list(paths.PODS, fieldSelector=f"spec.nodeName={node}"):
            rows = readable_objects(page["items"], object_schemas.sanitize_unnamed_pod)
            found += readable_objects((raw for raw in rows if read_record(raw["metadata"])[0]), pods.parse_pod)
        return found

    async def _scan_cluster(self) -> list[Pod | None]:
        """Only metadata is read, page by page: the pods of a large cluster are some hundred megabytes."""
        marked: list[tuple[str, str]] = []
        held = self._nodes_with_task()
        async for page in self._deps.client.list_metadata(paths.PODS):
            marked += _pods_with_record(page["items"], held)
        log.info("orphaned_pods.scanned", found=len(marked))
        return [await self._read_pod(namespace, name) for namespace, name in marked]


def _pods_with_record(rows: Iterable[Mapping[str, Any]], nodes_with_task: Collection[str]) -> list[tuple[str, str]]:
    """Namespace and name of the pods with the record of a move, but those whose drain looks after them."""
    found = []
    for row in readable_objects(rows, object_schemas.sanitize_unnamed_pod):
        meta = row["metadata"]
        move, _ = read_record(meta)
        if move and not (move.is_for_drain and move.cause.removeprefix("NodeDrain/") in nodes_with_task):
            found.append((meta.get("namespace", ""), meta.get("name", "")))
    return found
