"""The task of a drain: it observes, decides once, and then writes."""

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from rescheduler.api import names
from rescheduler.api.drains import Phase
from rescheduler.api.history import DrainRecord, Outcome
from rescheduler.controllers.drain.drain_task import DrainDependencies, DrainTask
from rescheduler.controllers.drain.events import DrainEvents
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.controllers.store.object_cache import ResourceKind
from rescheduler.controllers.store.store import Store
from unit.builders import NOW
from unit.fakes import FakeEvents
from unit.supervision import run_in_own_loop

POLICY = {"metadata": {"name": "p", "uid": "p", "resourceVersion": "1"}, "spec": {}}
CORDONED = {"node": {"uid": "u", "cordonedByUs": True}, "startedAt": "2025-12-31T23:00:00Z", "phase": "Draining"}


class FakeCluster:
    """A store, and an API server that records writes and answers each with the object that it knows.

    Attributes:
        writes: the verb and the path of each write.
        reads: paths of live reads.
    """

    def __init__(self, *, unschedulable: bool = False, **drain: Any) -> None:
        self.writes: list[tuple[str, str]] = []
        self.reads: list[str] = []
        self.seconds = 1000.0
        self.events = FakeEvents(DrainEvents)
        self.store = Store(lambda: NOW)
        meta = {"name": "n", "uid": "u", "resourceVersion": "1"}
        self.node: dict[str, Any] = {"metadata": meta, "spec": {"unschedulable": unschedulable}, "status": {}}
        self.drain = self._drain(**drain)
        for kind, raw in (
            (ResourceKind.POLICY, POLICY),
            (ResourceKind.NODE, self.node),
            (ResourceKind.DRAIN, self.drain),
        ):
            self.store.put(kind, raw)
        client: Any = SimpleNamespace(
            patch=self._write("patch"), delete=self._write("delete"), find=self._read, get=self._read
        )
        related: Any = SimpleNamespace(
            complete_context=lambda *_, **__: None, why_not_synced=lambda _: "", unsubscribe=lambda _: None
        )
        clock: Any = SimpleNamespace(now=lambda: NOW, monotonic=lambda: self.seconds)
        evacuation: Any = SimpleNamespace(budgets=None, related_objects=related)
        events: Any = self.events
        unused: Any = None
        self.records: list[DrainRecord] = []
        history_writer: Any = SimpleNamespace(write=self._record)
        self.task = DrainTask(
            "n",
            DrainDependencies(client, self.store, clock, evacuation, events, Metrics(), unused, unused, history_writer),
        )
        self.task._evacuation.watch = lambda: None  # type: ignore[method-assign]

    @staticmethod
    def _drain(
        *, deleted: bool = False, finalizers: tuple[str, ...] = (names.FINALIZER,), status: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        meta: dict[str, Any] = {"name": "n", "uid": "d", "resourceVersion": "1", "finalizers": list(finalizers)}
        if deleted:
            meta["deletionTimestamp"] = "2025-12-31T23:00:00Z"
        spec = {"nodeName": "n", "requests": [{"reason": "Manual"}]}
        return {"kind": "NodeDrain", "metadata": meta, "spec": spec, "status": status or {}}

    async def _record(self, record: DrainRecord) -> None:
        assert not any("nodedrains" in path and verb == "patch" for verb, path in self.writes)  # before the finalizer
        self.records.append(record)

    def _known(self, path: str) -> dict[str, Any]:
        return self.drain if "nodedrains" in path else self.node

    async def _read(self, path: str, **_: Any) -> dict[str, Any] | None:
        self.reads.append(path)
        return self._known(path)

    def _write(self, verb: str) -> Any:
        async def write(path: str, *_: Any, **__: Any) -> dict[str, Any]:
            self.writes.append((verb, path.split("/", 3)[-1]))
            return self._known(path)

        return write

    def step(self) -> Any:
        return run_in_own_loop(self.task._step())


def test_observation_writes_nothing_to_the_cluster() -> None:
    for changes in ({}, {"deleted": True}, {"status": CORDONED}, {"deleted": True, "status": CORDONED}):
        cluster = FakeCluster(**changes)
        drain, node = cluster.store.drain("n"), cluster.store.node("n")
        assert drain is not None
        run_in_own_loop(cluster.task._observe(drain, node))
        assert cluster.writes == []


def test_observation_reports_what_is_unknown() -> None:
    cluster = FakeCluster(status=CORDONED, deleted=True)
    drain, node = cluster.store.drain("n"), cluster.store.node("n")
    assert drain is not None
    observed = run_in_own_loop(cluster.task._observe(drain, node))
    assert observed.pod_summary is None
    assert not observed.pods_are_synced
    assert observed.node_in_use


def test_drain_without_a_finalizer_waits_for_it_before_any_write() -> None:
    cluster = FakeCluster(finalizers=())
    assert cluster.step() > 0
    assert cluster.writes == []


def test_drain_that_is_gone_ends_its_task() -> None:
    cluster = FakeCluster()
    cluster.store.drop(ResourceKind.DRAIN, "n")
    assert cluster.step() is None


def test_withdrawn_drain_without_additions_loses_its_finalizer_only() -> None:
    cluster = FakeCluster(deleted=True)
    cluster.step()
    assert [verb for verb, path in cluster.writes if path.endswith("nodedrains/n")] == ["patch"]
    assert not [path for _, path in cluster.writes if "nodes/" in path]
    assert cluster.store.drain("n") is None
    assert [record.outcome for record in cluster.records] == [Outcome.NOT_STARTED]


def test_node_that_is_gone_ends_its_drain() -> None:
    cluster = FakeCluster(status={"node": {"uid": "another"}, "phase": Phase.WAITING.value})
    cluster.step()
    assert ("delete", "v1alpha1/nodedrains/n") in cluster.writes
    assert "publish_node_gone" in cluster.events.published
    assert [record.outcome for record in cluster.records] == [Outcome.NODE_GONE]


def test_restore_waits_for_the_pods_of_a_started_drain() -> None:
    cluster = FakeCluster(deleted=True, status=CORDONED, unschedulable=True)
    drain = cluster.store.drain("n")
    assert drain is not None
    recent = drain.model_copy(update={"deletion_timestamp": NOW - timedelta(seconds=1)})
    observed = run_in_own_loop(cluster.task._observe(recent, cluster.store.node("n")))
    assert not observed.pods_are_synced
    assert not observed.is_restored
