"""NodeDrains that follow the requests of nodes, also after a restart and next to unreadable objects."""

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from rescheduler.api import names
from rescheduler.controllers.drain.node_controller import NodeController
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.controllers.store.object_cache import ResourceKind
from rescheduler.controllers.store.store import Store
from unit.builders import NOW
from unit.supervision import run_in_own_loop

CONDITION = {"type": "GpuBad", "status": "True", "lastTransitionTime": "2025-12-31T00:00:00Z"}
POLICY: dict[str, Any] = {
    "metadata": {"name": "p", "uid": "p"},
    "spec": {"failure": {"conditions": [{"type": "GpuBad", "status": ["True"], "for": "10s"}]}},
}


class World:
    """A node with a failure condition, and the writes for it."""

    def __init__(self) -> None:
        self.now, self._version = NOW, 1
        self.store = Store(lambda: self.now)
        self.writes: list[tuple[str, str]] = []
        client: Any = SimpleNamespace(
            create=self._note("create"), patch=self._note("patch"), delete=self._note("delete")
        )
        clock: Any = SimpleNamespace(now=lambda: self.now, monotonic=lambda: self.now.timestamp())  # noqa: PLW0108 - `now` changes
        queue: Any = SimpleNamespace(add_after=lambda *_: None)
        announcer: Any = SimpleNamespace(publish_window_ignored=lambda *_: None, publish_left_cordoned=lambda *_: None)
        self.reconciler = NodeController(client, self.store, clock, queue, announcer, Metrics(), lambda _: None)

    def _note(self, verb: str) -> Any:
        async def write(path: str, *_: Any, **__: Any) -> dict[str, Any]:
            self.writes.append((verb, path.rsplit("/", 1)[-1]))
            return {"metadata": {"name": "n", "uid": "d", "resourceVersion": "0"}}

        return write

    def put(self, kind: ResourceKind, raw: dict[str, Any]) -> None:
        self._version += 1
        self.store.put(kind, {**raw, "metadata": {**raw["metadata"], "resourceVersion": str(self._version)}})

    def node(self, *conditions: dict[str, str]) -> None:
        ready = {"type": "Ready", "status": "True"}
        self.put(
            ResourceKind.NODE, {"metadata": {"name": "n", "uid": "n"}, "status": {"conditions": [ready, *conditions]}}
        )

    def drain(self, reason: str = "Failure", message: str = "GpuBad is True for over 10s (Xid)") -> None:
        meta = {"name": "n", "uid": "d", "finalizers": [names.FINALIZER]}
        self.put(
            ResourceKind.DRAIN,
            {"metadata": meta, "spec": {"nodeName": "n", "requests": [{"reason": reason, "message": message}]}},
        )

    def look(self, seconds: float = 0) -> list[tuple[str, str]]:
        """Reconcile after some seconds, and return the writes."""
        self.now += timedelta(seconds=seconds)
        self.writes.clear()
        assert run_in_own_loop(self.reconciler.reconcile("n"))
        return list(self.writes)


def test_failure_without_policy_stands_while_its_condition_holds() -> None:
    world = World()
    world.node(CONDITION)
    world.drain()
    assert world.look() == []
    assert world.look(1000) == []
    world.node({**CONDITION, "status": "False"})
    assert world.look(1) == []
    assert world.look(118) == []
    assert world.look(2) == [("delete", "n")]


def test_a_policy_that_goes_and_comes_back_changes_nothing() -> None:
    world = World()
    world.put(ResourceKind.POLICY, POLICY)
    world.node(CONDITION)
    assert world.look(0) == []
    assert world.look(10) == [("create", "nodedrains")]
    world.drain(message="GpuBad is True for over 10s")
    assert world.look() == []
    world.store.drop(ResourceKind.POLICY, "p")
    assert world.look(500) == []
    world.put(ResourceKind.POLICY, {**POLICY, "metadata": {"name": "renamed", "uid": "r"}})
    assert world.look(1) == []


def test_unreadable_node_drain_is_neither_replaced_nor_treated_as_gone() -> None:
    world = World()
    world.put(ResourceKind.POLICY, POLICY)
    world.node(CONDITION, {"type": names.DRAIN_IN_PROGRESS, "status": "True", "reason": "Draining"})
    world.drain(reason="Boredom")
    assert world.store.drain("n") is None
    assert world.look(20) == []
    world.store.drop(ResourceKind.DRAIN, "n")
    assert world.look(20)  # as of a node whose NodeDrain was taken by force


def test_node_drain_that_became_unreadable_is_not_written() -> None:
    world = World()
    world.put(ResourceKind.POLICY, POLICY)
    world.node()
    world.drain()
    world.drain(reason="Boredom")
    assert world.look(1000) == []
