"""Moves single pods off nodes that are not drained: into their pool, or to an emptier node.

Whoever wants pods moved says which, and why, by node; each node with such pods has a task of its own
(`controllers.migration.node_task`), under the policy that wins for the node. After a restart nodes with the taint are looked after
until nothing of a move is left on their pods.
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

log = structlog.get_logger("rescheduler.shifts")

MAX_CONCURRENT_NODES = 16
"""Nodes that pods are moved off at once."""
_FIRST_RETRY_DELAY, _MAX_RETRY_DELAY = 60.0, 300.0  # seconds
_MAX_DOUBLINGS = 10

OnPodMoved = Callable[[Pod, str], None]
"""Told of a pod that has left on an errand, and what for."""


@dataclass(frozen=True, slots=True)
class _NodeBackoff:
    """Of a node whose pods cannot be moved for now; `until`: monotonic, `times`: so often in a row."""

    until: float
    retries: int
    uids: frozenset[str]
    blocked: tuple[BlockedMigration, ...]


class MigrationManager:
    """All shifts; `sources`: who may want pods moved. Nothing is ended before each has said what it wants.

    Attributes:
        moved: who is told of each pod that has left on an errand.
        looked: who is told after each look at a node.
        left: who is told of a node where released pods are left that cannot be returned now.
    """

    def __init__(self, deps: MigrationDependencies, requesters: Collection[str]) -> None:
        self.pod_moved_listeners: list[OnPodMoved] = []
        self.node_evaluated_listeners: list[OnNodeEvaluated] = []
        self.released_pods_left_listeners: list[Callable[[str], None]] = []
        self._deps = deps
        self._pending_requesters = set(requesters)
        self._requests: dict[str, Mapping[str, MigrationRequests]] = {}
        self._gone_uids: set[str] = set()  # uids of pods that have left, and may be wanted by who has not seen it yet
        self._running: dict[str, tuple[MigrationTask, asyncio.Task[None]]] = {}
        self._backing_off: dict[str, _NodeBackoff] = {}  # by node
        self._leading = False
        self._wake = asyncio.Event()

    def start_leading(self) -> None:
        """From now on nodes with the taint of a move are looked after here, though nothing may run yet."""
        self._leading = True

    def set_requests(self, requester: str, requests: Mapping[str, MigrationRequests]) -> None:
        """All that this source wants moved now, by node."""
        self._pending_requesters.discard(requester)
        self._requests[requester] = requests
        self._gone_uids &= {uid for wanted in self._requests.values() for errand in wanted.values() for uid in errand}
        self._wake.set()

    def wake(self, subscribers: Iterable[str]) -> None:
        """What these hold in view changed."""
        for holder in subscribers:
            if running := self._running.get(holder.removeprefix(SUBSCRIBER_PREFIX)):
                running[0].wake()

    def on_node_changed(self, node_name: str | None) -> None:
        """The node or its drain changed; None: all may have."""
        for shift, _ in self._running.values():
            if node_name is None or shift.node_name == node_name:
                shift.wake()
        if node_name is None or self._has_leftover_taint(node_name):
            self._wake.set()

    def managed_nodes(self) -> frozenset[str]:
        """Nodes whose released pods are looked after here, or will be."""
        left = {name for name in self._deps.store.nodes if self._has_leftover_taint(name)} if self._leading else set()
        return frozenset({*self._running, *left})

    def blocked_migrations(self) -> list[BlockedMigration]:
        """Pods that cannot be moved now."""
        running = [each for shift, _ in self._running.values() for each in shift.blocked]
        return [*running, *(each for rest in self._backing_off.values() for each in rest.blocked)]

    def _has_leftover_taint(self, name: str) -> bool:
        """Whether a node has the taint of a move, and no drain says that it is its own."""
        here = self._deps.store.node(name)
        return (
            here is not None
            and migration.has_migration_taint(here)
            and not migration.drain_owns_taint(self._deps.store.drain(name))
        )

    def _requests_by_node(self) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for wanted in self._requests.values():
            for name, errand in wanted.items():
                if left := {uid: cause for uid, cause in errand.items() if uid not in self._gone_uids}:
                    found.setdefault(name, {}).update(left)
        return found

    async def run(self) -> None:
        """Keep the shifts that are wanted running until cancelled."""
        try:
            await self._deps.supervisor.run_loop("shifts", self._step, wake=self._wake)
        finally:
            tasks = [task for _, task in self._running.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def stop_leading(self) -> None:
        """Leave the tainted nodes to whoever leads now."""
        self._leading = False

    async def _step(self) -> float:
        return math.inf if self._pending_requesters else self._reconcile()

    def _reconcile(self) -> float:
        """Start what is wanted, and tell those that run; seconds until the next rest is over."""
        errands, now = self._requests_by_node(), self._deps.clock.monotonic()
        for name, (shift, _) in self._running.items():
            if shift.requests != errands.get(name, {}):
                shift.requests = errands.get(name, {})
                shift.wake()
        self._backing_off = {name: rest for name, rest in self._backing_off.items() if name in errands}
        left = [name for name in self._deps.store.nodes if self._has_leftover_taint(name)]
        for name in [*left, *(name for name in sorted(errands) if not self._is_backing_off(name, errands[name], now))]:
            if name not in self._running and len(self._running) < MAX_CONCURRENT_NODES:
                self._start_task(name, errands.get(name, {}))
        rests = (rest.until - now for name, rest in self._backing_off.items() if name not in self._running)
        return min((wait for wait in rests if wait > 0), default=math.inf)

    def _is_backing_off(self, name: str, requests: MigrationRequests, now: float) -> bool:
        rest = self._backing_off.get(name)
        return rest is not None and now < rest.until and rest.uids.issuperset(requests)

    def _start_task(self, name: str, requests: dict[str, str]) -> None:
        drain = self._deps.store.drain(name)
        if self._deps.store.node(name) is None or (
            drain and drain.status.started_at and not self._has_leftover_taint(name)
        ):
            return
        shift = MigrationTask(name, self._deps, self._on_pod_gone, self._notify_evaluated)
        shift.requests = requests
        task = asyncio.create_task(shift.run(), name=f"shift {name}")
        self._running[name] = (shift, task)
        task.add_done_callback(lambda done: self._on_task_done(shift, done))
        log.info("migration.started", node=name, pods=len(requests))

    def _on_pod_gone(self, uid: str, pod: Pod | None, cause: str) -> None:
        self._gone_uids.add(uid)
        if pod:
            for tell in self.pod_moved_listeners:
                tell(pod, cause)

    def _notify_evaluated(self) -> None:
        for tell in self.node_evaluated_listeners:
            tell()

    def _on_task_done(self, node_task: MigrationTask, task: asyncio.Task[None]) -> None:
        self._running.pop(node_task.node_name, None)
        if task.cancelled():
            return
        for tell in self.released_pods_left_listeners if node_task.has_released_pods else ():
            tell(node_task.node_name)
        error = task.exception()
        if isinstance(error, Exception):
            self._deps.supervisor.record_failure("shift", node_task.node_name, error)
        if node_task.stalled or error:
            before = self._backing_off.get(node_task.node_name)
            times = before.retries + 1 if before else 0
            until = self._deps.clock.monotonic() + min(
                _FIRST_RETRY_DELAY * 2 ** min(times, _MAX_DOUBLINGS), _MAX_RETRY_DELAY
            )
            self._backing_off[node_task.node_name] = _NodeBackoff(
                until, times, frozenset(node_task.requests), node_task.blocked
            )
        else:
            self._backing_off.pop(node_task.node_name, None)
        log.info("migration.ended", node=node_task.node_name, held=len(node_task.blocked), rests=node_task.stalled)
        self._wake.set()
