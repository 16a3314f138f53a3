"""Reconcile pools: the writes, their order, and no change while a fact is unknown."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from rescheduler.api import names
from rescheduler.controllers.pools.reconciler import PoolReconciler
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.controllers.store.object_cache import ResourceKind
from rescheduler.controllers.store.store import Store
from rescheduler.core.eviction.api_responses import ErrorResponse
from rescheduler.core.pools import labels_and_taints
from rescheduler.core.pools.admission_policies import AdmissionState
from rescheduler.core.pools.misplaced_pods import MisplacementReport
from rescheduler.kube.client import ApiError
from unit.builders import NOW
from unit.fakes import FakeClock

Json = dict[str, Any]
_KINDS = {"nodes": ResourceKind.NODE, "namespaces": ResourceKind.NAMESPACE, "namespacepools": ResourceKind.POOL}


class World:
    """An API server with nodes, namespaces and pools, and a reconciler whose store is always current."""

    def __init__(self, enforced: str = "True") -> None:
        self.objects: dict[tuple[str, str], Json] = {}
        self.pods: list[Json] = []
        self.daemon_sets: list[Json] = []
        self.writes: list[tuple[str, str]] = []
        self.version, self.clock, self.stale = 0, FakeClock(), False
        self.misplaced, self.totals, self.node_losses = (
            MisplacementReport(),
            None,
            dict[str, Any](),
        )  # in place of a count
        self.state = AdmissionState(enforced, since=NOW)  # in place of the admission check
        self.kept: list[str] = []
        self.refused: set[tuple[str, str]] = set()
        self.tries = 0
        self.store = Store(self.clock.now, ["rescheduler-system"])
        self.pools = PoolReconciler(self, self.store, self.clock, self, self, self, Metrics())  # type: ignore[arg-type]
        self.store.subscribe(on_membership_change=self.pools.enqueue)

    # -- as an API server ---------------------------------------------------------------------------------------------

    def put(self, kind: str, name: str, **body: Any) -> None:
        self.version += 1
        meta = {"name": name, "uid": name, "resourceVersion": str(self.version), **body.pop("metadata", {})}
        meta.setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
        self.objects[kind, name] = {"metadata": meta, **body}
        if not self.stale:
            self.store.put(_KINDS[kind], self.objects[kind, name])

    def drop(self, kind: str, name: str) -> None:
        del self.objects[kind, name]
        self.store.drop(_KINDS[kind], name)

    async def find(self, path: str) -> Json | None:
        *_, kind, name = path.split("/")
        return self.objects.get((kind, name))

    async def patch(self, path: str, body: Json) -> Json:
        kind, name = path.removesuffix("/status").split("/")[-2:]
        found = self.objects[kind, name]
        if (kind, name) in self.refused:
            self.tries += 1
            raise ApiError("PATCH", path, ErrorResponse(403, "Forbidden", "labels are frozen until Monday"))
        if body["metadata"]["resourceVersion"] != found["metadata"]["resourceVersion"]:
            raise ApiError("PATCH", path, ErrorResponse(409, "Conflict", "modified"))
        if not path.endswith("/status"):
            self.writes.append((kind, name))
        labels = {**found["metadata"].get("labels", {}), **body["metadata"].get("labels", {})}
        metadata = {"labels": {key: value for key, value in labels.items() if value is not None}}
        rest = {key: {**found.get(key, {}), **value} for key, value in body.items() if key != "metadata"}
        self.put(kind, name, **{**{k: v for k, v in found.items() if k != "metadata"}, **rest, "metadata": metadata})
        return self.objects[kind, name]

    async def list(self, path: str, **query: str) -> AsyncIterator[Json]:
        rows = self.daemon_sets if path.endswith("daemonsets") else self.pods
        node = query.get("fieldSelector", "").partition(",")[0].removeprefix("spec.nodeName=")
        yield {"items": [raw for raw in rows if path.endswith("daemonsets") or raw["spec"].get("nodeName", "") == node]}

    # -- as the pod counter and the events ----------------------------------------------------------------------------

    def request_recheck(self, scopes: Any) -> None: ...

    def request_recount(self) -> None: ...

    def publish_status_change(self, *_: Any) -> None: ...

    def publish_label_kept(self, node: Any, pool: str, pods: tuple[str, ...]) -> None:
        self.kept += pods

    # -- for tests ----------------------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Reconcile all keys of the queue, also those with a delay."""
        for _ in range(8):
            self.clock.seconds += 100
            self.pools.enqueue_all()
            keys = sorted(self.pools.queue._queued, reverse=True)  # nodes before namespaces
            while not self.pools.queue._waiting.empty():
                self.pools.queue._waiting.get_nowait()
            self.pools.queue._queued.clear()
            for key in keys:
                await self.pools.reconcile(key)

    def label(self, name: str) -> str | None:
        found: Mapping[str, str] = self.objects["namespaces", name]["metadata"].get("labels", {})
        return found.get(names.POOL)

    def mark(self, name: str) -> labels_and_taints.PoolAssignment:
        found = self.store.node(name)
        assert found is not None
        return labels_and_taints.current_assignment(found)

    def condition(self, type_: str, pool: str = "shop") -> str:
        found = self.objects["namespacepools", pool]["status"]["conditions"]
        return next(f"{c['status']} {c['reason']}" for c in found if c["type"] == type_)


def node(world: World, name: str, disk: str = "ssd", **body: Any) -> None:
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    world.put("nodes", name, **{"metadata": {"labels": {"disk": disk}}, "status": ready, **body})


def pool(world: World, name: str = "shop", **spec: Any) -> None:
    made = {"namespaces": ["x"], "nodeSelector": {"matchLabels": {"disk": "ssd"}}, "exclusive": False, **spec}
    world.put("namespacepools", name, spec=made)


def shop(enforced: str = "True", **spec: Any) -> World:
    world = World(enforced)
    world.put("namespaces", "x")
    node(world, "n1")
    node(world, "n2", disk="hdd")
    pool(world, **spec)
    return world


async def test_pool_labels_its_members_once() -> None:
    world = shop(exclusive=True)
    await world.settle()
    assert (world.label("x"), world.mark("n1"), world.mark("n2")) == (
        "shop",
        labels_and_taints.PoolAssignment("shop", tainted=True),
        labels_and_taints.PoolAssignment(),
    )
    writes, version = len(world.writes), world.version
    await world.settle()
    assert (len(world.writes), world.version) == (writes, version)
    assert world.condition("TaintHeldBack") == "False Tainted"


async def test_refused_label_is_reported_and_retried_twice_a_minute() -> None:
    world = shop()
    world.refused = {("namespaces", "x")}
    await world.settle()
    assert world.condition("Ready") == "False Marking"
    conditions = world.objects["namespacepools", "shop"]["status"]["conditions"]
    assert "namespace x cannot be written: 403 Forbidden: labels are frozen" in str(conditions)
    tries, world.clock.seconds = world.tries, world.clock.seconds + 31
    for _ in range(20):
        assert await world.pools.reconcile("namespace/x")
    assert world.tries == tries + 1
    world.refused.clear()
    await world.settle()
    assert world.condition("Ready") == "True Mapped"
    assert "frozen" not in str(world.objects["namespacepools", "shop"]["status"]["conditions"])


async def test_deleted_pool_loses_its_namespace_labels_first() -> None:
    """A pod created in between would require a label that no node has."""
    world = shop()
    await world.settle()
    world.writes.clear()
    world.drop("namespacepools", "shop")
    await world.settle()
    assert world.writes == [("namespaces", "x"), ("nodes", "n1")]


async def test_label_of_a_deleted_pool_stays_while_a_pod_requires_it() -> None:
    world = shop(exclusive=True)
    await world.settle()
    spec = {"nodeName": "n1", "nodeSelector": {names.NODE_POOL: "shop"}}
    world.pods = [{"metadata": {"namespace": "x", "name": "p"}, "spec": spec}]
    world.drop("namespacepools", "shop")
    await world.settle()
    assert world.mark("n1") == labels_and_taints.PoolAssignment("shop")
    assert world.kept == ["x/p"]
    world.pods = []
    await world.settle()
    assert world.mark("n1") == labels_and_taints.PoolAssignment()


async def test_node_of_a_new_pool_changes_its_label_at_once() -> None:
    world = shop()
    await world.settle()
    world.pods = [
        {
            "metadata": {"namespace": "x", "name": "p"},
            "spec": {"nodeName": "n1", "nodeSelector": {names.NODE_POOL: "shop"}},
        }
    ]
    world.drop("namespacepools", "shop")
    pool(world, "other", namespaces=["y"])
    await world.settle()
    assert world.mark("n1") == labels_and_taints.PoolAssignment("other")


async def test_no_taint_while_a_daemon_set_would_lose_pods() -> None:
    world = shop(exclusive=True)
    world.daemon_sets = [
        {"metadata": {"namespace": "kube-system", "name": "agent"}, "spec": {"template": {"spec": {}}}}
    ]
    await world.settle()
    assert world.mark("n1") == labels_and_taints.PoolAssignment("shop")
    assert world.condition("TaintHeldBack") == "True LastPlace"
    world.daemon_sets = []
    await world.settle()
    assert world.mark("n1") == labels_and_taints.PoolAssignment("shop", tainted=True)


async def test_two_exclusive_pools_do_not_count_on_each_others_nodes() -> None:
    """Each would count on the other's node, and in the end the pod would have none."""
    world = shop(exclusive=True)
    pool(world, "slow", exclusive=True, namespaces=["y"], nodeSelector={"matchLabels": {"disk": "hdd"}})
    owner = {"kind": "ReplicaSet", "name": "dns", "uid": "d", "controller": True}
    meta = {"namespace": "kube-system", "name": "dns", "ownerReferences": [owner]}
    world.pods = [{"metadata": meta, "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}}]
    await world.settle()
    assert world.mark("n1") == labels_and_taints.PoolAssignment("shop")
    assert world.condition("TaintHeldBack") == "True LastPlace"


@pytest.mark.parametrize(("enforced", "tainted"), [("False", False), ("Unknown", True)])
async def test_taints_go_without_admission_and_stay_if_it_is_unknown(enforced: str, tainted: bool) -> None:
    world = shop(exclusive=True)
    await world.settle()
    world.state = AdmissionState(enforced)
    await world.settle()
    assert world.mark("n1") == labels_and_taints.PoolAssignment("shop", tainted=tainted)
    assert world.label("x") == "shop"


async def test_members_of_an_unreadable_pool_stay_as_they_are() -> None:
    world = shop()
    await world.settle()
    fresh = World()
    fresh.objects, fresh.version = world.objects, world.version
    for (kind, _), raw in world.objects.items():
        if kind != "namespacepools":
            fresh.store.put(_KINDS[kind], raw)
    fresh.put("namespacepools", "shop", spec={"nodeSelector": "of a newer version"})
    await fresh.settle()
    assert (fresh.label("x"), fresh.mark("n1")) == ("shop", labels_and_taints.PoolAssignment("shop"))
    assert not fresh.writes


async def test_taint_check_runs_in_time_after_an_early_reconcile() -> None:
    """An early reconcile removes the timer of the key."""
    world = shop(exclusive=True)
    world.daemon_sets = [{"metadata": {"namespace": "y", "name": "agent"}, "spec": {"template": {"spec": {}}}}]
    await world.settle()
    queue = world.pools.queue
    queue.add_after("pool/shop", 0)
    queue._timers.pop("pool/shop").cancel()  # it is due
    await world.pools.reconcile("pool/shop")
    assert queue._timers["pool/shop"].when() > asyncio.get_running_loop().time() + 20
    queue._timers.pop("pool/shop").cancel()


async def test_object_is_read_and_written_again_after_a_conflict() -> None:
    world = shop()
    world.stale = True
    world.put("namespaces", "x", metadata={"labels": {"team": "a"}})
    world.stale = False
    await world.settle()
    assert world.label("x") == "shop"
    assert world.objects["namespaces", "x"]["metadata"]["labels"]["team"] == "a"


async def test_terminating_namespace_is_left_alone() -> None:
    world = shop()
    world.put("namespaces", "x", metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"})
    await world.settle()
    assert world.label("x") is None


async def test_an_audit_pool_writes_nothing_but_its_status() -> None:
    world = shop(mode="Audit", exclusive=True)
    await world.settle()
    assert not world.writes
    assert world.condition("Ready") == "False Audit"
