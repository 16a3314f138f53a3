"""Reads of the node before writes, and requests that a restore records as cancelled."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from rescheduler.api import names
from rescheduler.api.drains import NodeDrain, NodeRecord
from rescheduler.controllers.drain.node_writer import RECENT_READ_MAX_AGE, NodeWriter
from rescheduler.controllers.runtime.write_attempts import WriteAttempts
from rescheduler.controllers.store.object_cache import ResourceKind
from rescheduler.controllers.store.store import Store
from rescheduler.core.model.nodes import Node
from unit.builders import NOW
from unit.supervision import run_in_own_loop


class World:
    """A server with one node, and its writer.

    Attributes:
        reads: the number of live reads.
        written: the bodies of patches.
    """

    def __init__(self) -> None:
        self.version, self.reads, self.seconds, self.there = 1, 0, 1000.0, True
        self.written: list[dict[str, Any]] = []
        self.status: dict[str, Any] = {}
        self.now = NOW
        self.store = Store(lambda: self.now)
        clock = SimpleNamespace(now=lambda: self.now, monotonic=lambda: self.seconds)
        client: Any = SimpleNamespace(find=self._find, patch=self._patch)
        made: Any = NodeWriter
        announcer = SimpleNamespace(publish_restored=lambda *_: None)
        self.attempts = WriteAttempts(clock)  # type: ignore[arg-type]
        self.keeper: NodeWriter = made("n", client, self.store, clock, announcer, None, self.attempts)

    def raw(self) -> dict[str, Any]:
        meta = {"name": "n", "uid": "u", "resourceVersion": str(self.version)}
        return {"metadata": meta | {"annotations": {names.MAINTENANCE: "disk"}}, "status": self.status}

    async def _find(self, _path: str) -> dict[str, Any] | None:
        self.reads += 1
        await asyncio.sleep(0)
        return self.raw() if self.there else None

    async def _patch(self, path: str, body: dict[str, Any], **_: Any) -> dict[str, Any]:
        self.version += 1
        self.written.append(body)
        return self.raw()

    async def news(self) -> None:
        """Change the node, as the watch reports it."""
        self.version += 1
        self.store.put(ResourceKind.NODE, self.raw())


def reads(*acts: Callable[[World], Awaitable[object]]) -> int:
    """Return the number of live reads."""
    return played(World(), *acts).reads


def played(world: World, *acts: Callable[[World], Awaitable[object]]) -> World:
    """Run the acts, and return the world after them."""

    async def all_of_them() -> None:
        for act in acts:
            await act(world)

    run_in_own_loop(all_of_them())
    return world


async def ask(world: World) -> None:
    found = await asyncio.gather(*(world.keeper.read_recent("n") for _ in range(5)))
    assert {node.resource_version if node else "" for node in found} == ({str(world.version)} if world.there else {""})


async def write(world: World) -> None:
    await world.keeper.patch(Node("n", "u", str(world.version)), {})


async def wait(world: World) -> None:
    world.seconds += RECENT_READ_MAX_AGE


async def vanish(world: World) -> None:
    world.there = False


def test_concurrent_reads_share_one_request() -> None:
    assert reads(ask, ask) == 1


def test_response_of_a_write_counts_as_a_read() -> None:
    assert reads(write, ask) == 0


def test_old_read_is_repeated() -> None:
    assert reads(ask, wait, ask) == 2


def test_read_is_repeated_after_a_change_of_the_node() -> None:
    assert reads(ask, World.news, ask) == 2


def test_missing_node_is_read_as_none() -> None:
    assert reads(ask, wait, vanish, ask) > 1


# -- putting a node back ----------------------------------------------------------------------------------------------


def withdrawn(*reasons: str) -> NodeDrain:
    """Return a deleted NodeDrain."""
    meta = {"name": "n", "uid": "d", "deletionTimestamp": "2026-01-01T00:00:00Z"}
    spec = {"nodeName": "n", "requests": [{"reason": reason} for reason in reasons]}
    made = NodeDrain.from_object({"metadata": meta, "spec": spec})
    record = NodeRecord(uid="u", cordoned_by_us=True)
    return made.model_copy(update={"status": made.status.model_copy(update={"node": record, "started_at": NOW})})


def cancelled(drain: NodeDrain) -> set[str]:
    """Return the requests that a restore records as cancelled, on a failed node under maintenance."""
    world = World()
    at = "2025-12-31T00:00:00Z"
    world.status = {"conditions": [{"type": "Ready", "status": "Unknown", "lastTransitionTime": at}]}
    world.store.put(ResourceKind.POLICY, {"metadata": {"name": "p", "uid": "p", "resourceVersion": "1"}, "spec": {}})
    world.store.put(ResourceKind.NODE, {**world.raw(), "status": {"conditions": [{"type": "Ready", "status": "True"}]}})
    world.version = 2
    world.store.put(ResourceKind.NODE, world.raw())
    world.now += timedelta(hours=1)
    played(world, lambda world: world.keeper.restore(drain, node_in_use=True))
    noted = [body["metadata"].get("annotations", {}).get(names.CANCELLED) for body in world.written]
    return set(json.loads(next(text for text in noted if text)))


def test_standing_requests_are_recorded_as_cancelled() -> None:
    assert cancelled(withdrawn("Maintenance", "Failure")) == {"Maintenance", "Failure"}


def test_failure_after_the_withdrawal_is_not_recorded_as_cancelled() -> None:
    assert cancelled(withdrawn("Maintenance")) == {"Maintenance"}
