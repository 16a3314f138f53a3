"""Released pods that no drain and no move looks after: returned, or evicted as those of their ReplicaSets would go.

Released pods are on nodes with a NodeDrain or with a taint of ours, and are seen there. If somebody removed both by
force, or if a return was refused for so long that the node was restored without it, nobody sees them. A scan finds them:
at start, once an hour, and of one node as soon as its task ends with a released pod left.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import structlog

from rescheduler.api.policies import Drain
from rescheduler.controllers.evacuation.eviction_queue import Sender
from rescheduler.controllers.evacuation.pod_mover import Movers
from rescheduler.controllers.runtime.readable import readable
from rescheduler.controllers.runtime.tasks import Supervisor
from rescheduler.core.eviction.pod_actions import Fate, Verdict
from rescheduler.core.model import object_schemas, pods
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.release_record import record
from rescheduler.core.replacement.decisions import Choice, Way
from rescheduler.kube import paths

log = structlog.get_logger("rescheduler.strays")

HOLDER = "strays/"
"""As a holder of mirrors; no node has a name like this."""
_RATE = 20
_SCAN_EVERY = 3600.0  # seconds
_SOON, _LATEST = 5.0, 60.0  # seconds to the next look while there are some; longer while nothing changes
_SETTLE = 0.5  # seconds; a burst of events is one look


class Strays:
    """Looks after them while this process leads; `held`: nodes whose pods somebody else looks after.

    Attributes:
        none_left: a scan has ended since the last request for one, and found none that is still there.
        waiting: those that are there, by namespace/name, each with what it waits for; empty if nothing is known to hold it.
    """

    def __init__(self, movers: Movers, held: Callable[[], Collection[str]], supervisor: Supervisor) -> None:
        self._t, self._held, self._supervisor = movers, held, supervisor
        self._wake = asyncio.Event()
        self._sender = Sender(self.wake)
        self._known: dict[str, Pod] = {}  # by uid
        self._nodes: set[str] = set()  # to be listed
        self._scan_at = float("-inf")  # monotonic
        self._pause = _SOON
        self.none_left = asyncio.Event()
        self.waiting: dict[str, str] = {}

    def wake(self) -> None:
        """Look now."""
        self._wake.set()

    def scan(self) -> None:
        """Look for them in the whole cluster now."""
        self._scan_at = float("-inf")
        self.none_left.clear()
        self._wake.set()

    def look_at(self, node: str) -> None:
        """Look for them on this node now."""
        self._nodes.add(node)
        self._wake.set()

    async def run(self) -> None:
        """Look whenever woken, when a scan is due, and while there are some."""
        self.scan()
        try:
            await self._supervisor.loop(
                "strays", self._look, wake=self._wake, settle=lambda: _SETTLE, retry=(_SOON, _LATEST)
            )
        finally:
            self._t.budgets.hold(HOLDER, ())
            self._t.replacements.close(HOLDER)

    async def _look(self) -> float:
        """Return the seconds until the next look."""
        now, before = self._t.clock.monotonic(), self._known
        await self._find(now)
        self._t.metrics.orphaned.set(len(self._known))
        if not self._known:
            self.none_left.set()
        else:
            self.none_left.clear()
        self._act(list(self._known.values()))
        self._pause = _SOON if before != self._known else min(self._pause * 2, _LATEST)
        until_scan = max(_SETTLE, self._scan_at - now)
        return min(self._pause, until_scan) if self._known else until_scan

    def _act(self, found: list[Pod]) -> None:
        self._t.budgets.hold(HOLDER, {pod.namespace for pod in found})
        rows = [(pod, Verdict(Fate.EVICT)) for pod in found]
        now, settings = self._t.clock.now(), Drain()
        back = self._t.replacements.look(HOLDER, rows, settings, now, may_move=False, said={}) or {}
        sent = []
        waiting: dict[str, str] = {}
        for pod, verdict in rows:
            choice = back.get(pod.uid, Choice(Way.WAIT))
            waiting[pod.key] = choice.message or choice.why
            self._t.replacements.act(HOLDER, pod, choice)
            if choice.way in (Way.DELETE, Way.EVICT):
                sent.append((pod, Verdict(Fate.DELETE) if choice.way is Way.DELETE else verdict))
        for key, why in waiting.items():
            if why and self.waiting.get(key) != why:
                log.warning("strays.waiting", pod=key, why=why)
        self.waiting = waiting
        self._t.evictions.send(self._sender, sent, policy=HOLDER, rate=_RATE)

    async def _find(self, now: float) -> None:
        """Read again those that are known, and look for others where that is due."""
        read = [await self._read(pod.namespace, pod.name) for pod in self._known.values()]
        for node in list(self._nodes):
            read += await self._on_node(node)
            self._nodes.discard(node)
        if now >= self._scan_at:
            read += await self._everywhere()
            self._scan_at = now + _SCAN_EVERY
        held = self._held()
        found = {pod.uid: pod for pod in read if pod and pod.node not in held and not pod.deleting and pod.move}
        gone = self._known.keys() - found.keys()
        self._t.evictions.forget(self._sender, list(gone))
        self._t.budgets.forget(gone)
        self._t.replacements.forget(gone)
        for pod in found.values():
            if pod.uid not in self._known:
                log.info("strays.found", pod=pod.key, uid=pod.uid, node=pod.node, cause=pod.move and pod.move.cause)
        self._known = found

    async def _read(self, namespace: str, name: str) -> Pod | None:
        """Read one pod by a list, for the right to list pods is there anyway."""
        path = paths.namespaced("v1", namespace, "pods")
        answer = await self._t.client.get(path, fieldSelector=f"metadata.name={name}")
        return next(readable(answer.get("items") or (), pods.pod), None)

    async def _on_node(self, node: str) -> list[Pod | None]:
        found: list[Pod | None] = []
        async for page in self._t.client.list(paths.PODS, fieldSelector=f"spec.nodeName={node}"):
            rows = readable(page["items"], object_schemas.any_pod)
            found += readable((raw for raw in rows if record(raw["metadata"])[0]), pods.pod)
        return found

    async def _everywhere(self) -> list[Pod | None]:
        """Only metadata is read, page by page: the pods of a large cluster are some hundred megabytes."""
        marked: list[tuple[str, str]] = []
        held = self._held()
        async for page in self._t.client.list_metadata(paths.PODS):
            marked += _marked(page["items"], held)
        log.info("strays.scanned", found=len(marked))
        return [await self._read(namespace, name) for namespace, name in marked]


def _marked(rows: Iterable[Mapping[str, Any]], held: Collection[str]) -> list[tuple[str, str]]:
    """Namespace and name of the pods with the record of a move, but those whose drain looks after them."""
    found = []
    for row in readable(rows, object_schemas.any_pod):
        meta = row["metadata"]
        move, _ = record(meta)
        if move and not (move.of_drain and move.cause.removeprefix("NodeDrain/") in held):
            found.append((meta.get("namespace", ""), meta.get("name", "")))
    return found
