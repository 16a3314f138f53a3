"""Move single pods off nodes that are not drained: into their pool, or to an emptier node.

Each requester names the pods to move, with a cause, by node. Each node with requests has one task
(`controllers.migration.node_task`), under the winning policy of the node. After a restart, each node with the migration
taint gets a task, until no pod of the node has a move record.
"""

import asyncio
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import structlog

from rescheduler.controllers.migration.node_task import (
    SUBSCRIBER_PREFIX,
    BlockedMigration,
    MigrationDependencies,
    MigrationRequests,
    MigrationTask,
    OnNodeEvaluated,
)
from rescheduler.core.drain import migration
from rescheduler.core.model.pods import Pod

log = structlog.get_logger("rescheduler.migration.manager")

MAX_CONCURRENT_NODES = 16
"""Number of nodes with a running migration."""
_FIRST_RETRY_DELAY, _MAX_RETRY_DELAY = 60.0, 300.0  # seconds
_MAX_DOUBLINGS = 10

OnPodMoved = Callable[[Pod, str], None]
"""Called when a requested pod has left its node, with the pod and the cause of the move."""


@dataclass(frozen=True, slots=True)
class _NodeBackoff:
    """Pause of a node whose pods cannot move now.

    Attributes:
        until: end of the pause; monotonic, in seconds.
        retries: number of earlier pauses in a row.
        uids: uids of the requested pods; a request for another pod ends the pause.
        blocked: the pods that cannot move.
    """

    until: float
    retries: int
    uids: frozenset[str]
    blocked: tuple[BlockedMigration, ...]


class MigrationManager:
    """Migrations of all nodes.

    `requesters` are the names of all requesters. No migration starts or ends before each has set its requests.
    """

    def __init__(self, deps: MigrationDependencies, requesters: Collection[str]) -> None:
        self._pod_moved_listeners: list[OnPodMoved] = []
        self._pod_gone_listeners: list[Callable[[str], None]] = []
        self._node_evaluated_listeners: list[OnNodeEvaluated] = []
        self._released_pods_left_listeners: list[Callable[[str], None]] = []
        self._deps = deps
        self._pending_requesters = set(requesters)
        self._requests: dict[str, Mapping[str, MigrationRequests]] = {}
        self._gone_uids: set[str] = set()  # uids of pods that have left; a requester may not know this yet
        self._running: dict[str, tuple[MigrationTask, asyncio.Task[None]]] = {}
        self._backing_off: dict[str, _NodeBackoff] = {}  # by node
        self._leading = False
        self._wake = asyncio.Event()

    def subscribe(
        self,
        *,
        on_pod_moved: OnPodMoved | None = None,
        on_pod_gone: Callable[[str], None] | None = None,
        on_node_evaluated: OnNodeEvaluated | None = None,
        on_released_pods_left: Callable[[str], None] | None = None,
    ) -> None:
        """Add callbacks before the start.

        `on_pod_moved` gets each pod that has left its node, with the cause. `on_pod_gone` gets the uid of each requested
        pod that is not on its node, even if it never was. `on_node_evaluated` is called after each
        reconcile of a node. `on_released_pods_left` gets a node with released pods that cannot be returned now.
        """
        if on_pod_moved:
            self._pod_moved_listeners.append(on_pod_moved)
        if on_pod_gone:
            self._pod_gone_listeners.append(on_pod_gone)
        if on_node_evaluated:
            self._node_evaluated_listeners.append(on_node_evaluated)
        if on_released_pods_left:
            self._released_pods_left_listeners.append(on_released_pods_left)

    def start_leading(self) -> None:
        """Count the nodes with the migration taint as managed from now on."""
        self._leading = True

    def set_requests(self, requester: str, requests: Mapping[str, MigrationRequests]) -> None:
        """Replace all requests of this requester, by node."""
        self._pending_requesters.discard(requester)
        self._requests[requester] = requests
        self._gone_uids &= {
            uid for by_node in self._requests.values() for node_requests in by_node.values() for uid in node_requests
        }
        self._wake.set()

    def wake(self, subscribers: Iterable[str]) -> None:
        """Wake the tasks of these subscribers, because a watched object changed."""
        for subscriber in subscribers:
            node_name = subscriber.removeprefix(SUBSCRIBER_PREFIX)
            if running := self._running.get(node_name):
                running[0].wake()
            elif subscriber != node_name:
                self._notify_released_pods_left(node_name)  # a release can outlive the task that requested it

    def on_node_changed(self, node_name: str | None) -> None:
        """Handle a change of a node or its drain; None: all may have changed."""
        for node_task, _ in self._running.values():
            if node_name is None or node_task.node_name == node_name:
                node_task.wake()
        if node_name is None or self._has_leftover_taint(node_name):
            self._wake.set()

    def managed_nodes(self) -> frozenset[str]:
        """Return the nodes whose released pods belong to a migration, now or after a restart."""
        tainted = (
            {name for name in self._deps.store.nodes if self._has_leftover_taint(name)} if self._leading else set()
        )
        return frozenset({*self._running, *tainted})

    def blocked_migrations(self) -> list[BlockedMigration]:
        """Return the pods that cannot move now."""
        running = [blocked for node_task, _ in self._running.values() for blocked in node_task.blocked]
        return [*running, *(blocked for backoff in self._backing_off.values() for blocked in backoff.blocked)]

    def _has_leftover_taint(self, name: str) -> bool:
        """Whether a node has the migration taint, and no drain has recorded the taint as its own."""
        node = self._deps.store.node(name)
        return (
            node is not None
            and migration.has_migration_taint(node)
            and not migration.drain_owns_taint(self._deps.store.drain(name))
        )

    def _requests_by_node(self) -> dict[str, dict[str, str]]:
        requests: dict[str, dict[str, str]] = {}
        for by_node in self._requests.values():
            for name, node_requests in by_node.items():
                if pending := {uid: cause for uid, cause in node_requests.items() if uid not in self._gone_uids}:
                    requests.setdefault(name, {}).update(pending)
        return requests

    async def run(self) -> None:
        """Run the migrations until cancelled."""
        try:
            await self._deps.supervisor.run_loop("migrations", self._step, wake=self._wake)
        finally:
            tasks = [task for _, task in self._running.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def stop_leading(self) -> None:
        """Leave the nodes with the migration taint to the new leader."""
        self._leading = False

    async def _step(self) -> float:
        return math.inf if self._pending_requesters else self._reconcile()

    def _reconcile(self) -> float:
        """Start tasks, and update the requests of running ones; return the seconds until the next pause ends."""
        requests, now = self._requests_by_node(), self._deps.clock.monotonic()
        for name, (node_task, _) in self._running.items():
            if node_task.requests != requests.get(name, {}):
                node_task.requests = requests.get(name, {})
                node_task.wake()
        self._backing_off = {name: backoff for name, backoff in self._backing_off.items() if name in requests}
        tainted = [name for name in self._deps.store.nodes if self._has_leftover_taint(name)]
        requested = [name for name in sorted(requests) if not self._is_backing_off(name, requests[name], now)]
        for name in [*tainted, *requested]:
            if name not in self._running and len(self._running) < MAX_CONCURRENT_NODES:
                self._start_task(name, requests.get(name, {}))
        waits = (backoff.until - now for name, backoff in self._backing_off.items() if name not in self._running)
        return min((wait for wait in waits if wait > 0), default=math.inf)

    def _is_backing_off(self, name: str, requests: MigrationRequests, now: float) -> bool:
        backoff = self._backing_off.get(name)
        return backoff is not None and now < backoff.until and backoff.uids.issuperset(requests)

    def _start_task(self, name: str, requests: dict[str, str]) -> None:
        drain = self._deps.store.drain(name)
        if self._deps.store.node(name) is None or (
            drain and drain.status.started_at and not self._has_leftover_taint(name)
        ):
            return
        node_task = MigrationTask(name, self._deps, self._on_pod_gone, self._notify_evaluated)
        node_task.requests = requests
        task = asyncio.create_task(node_task.run(), name=f"migration {name}")
        self._running[name] = (node_task, task)
        task.add_done_callback(lambda done: self._on_task_done(node_task, done))
        log.info("migration.started", node=name, pods=len(requests))

    def _on_pod_gone(self, uid: str, pod: Pod | None, cause: str) -> None:
        self._gone_uids.add(uid)
        for notify_gone in self._pod_gone_listeners:
            notify_gone(uid)
        if pod:
            for notify in self._pod_moved_listeners:
                notify(pod, cause)

    def _notify_evaluated(self) -> None:
        for notify in self._node_evaluated_listeners:
            notify()

    def _notify_released_pods_left(self, node_name: str) -> None:
        for notify in self._released_pods_left_listeners:
            notify(node_name)

    def _on_task_done(self, node_task: MigrationTask, task: asyncio.Task[None]) -> None:
        self._running.pop(node_task.node_name, None)
        if task.cancelled():
            return
        if node_task.has_released_pods:
            self._notify_released_pods_left(node_task.node_name)
        error = task.exception()
        if isinstance(error, Exception):
            self._deps.supervisor.record_failure("migration", node_task.node_name, error)
        if node_task.stalled or error:
            previous = self._backing_off.get(node_task.node_name)
            retries = previous.retries + 1 if previous else 0
            until = self._deps.clock.monotonic() + min(
                _FIRST_RETRY_DELAY * 2 ** min(retries, _MAX_DOUBLINGS), _MAX_RETRY_DELAY
            )
            self._backing_off[node_task.node_name] = _NodeBackoff(
                until, retries, frozenset(node_task.requests), node_task.blocked
            )
        else:
            self._backing_off.pop(node_task.node_name, None)
        log.info("migration.ended", node=node_task.node_name, blocked=len(node_task.blocked), stalled=node_task.stalled)
        self._wake.set()
