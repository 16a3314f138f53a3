"""Reconcile pools: the writes, their order, and no change while a fact is unknown."""

import asyncio
import itertools
from typing import Any

import pytest

from invariants.records import Place
from rescheduler.api import names
from rescheduler.controllers.pools.reconciler import PoolReconciler
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.controllers.store.object_cache import ResourceKind
from rescheduler.controllers.store.store import Store
from rescheduler.core.eviction.api_responses import ErrorResponse
from rescheduler.core.model.raw import RawObject
from rescheduler.core.pools import labels_and_taints
from rescheduler.core.pools.admission_policies import AdmissionState
from rescheduler.core.pools.misplaced_pods import MisplacementReport
from rescheduler.kube.client import ApiError
from unit.builders import NOW, controlled_by, raw_node, raw_object, raw_pod, raw_pool
from unit.fakes import FakeClock, FakeClusterClient

_KINDS = {"nodes": ResourceKind.NODE, "namespaces": ResourceKind.NAMESPACE, "namespacepools": ResourceKind.POOL}
AGENT = raw_object("agent", metadata={"namespace": "kube-system"}, spec={"template": {"spec": {}}})
"""A DaemonSet."""


class World:
    """A cluster with nodes, namespaces and pools, and a reconciler whose store is always current."""

    def __init__(self, enforced: str = "True") -> None:
        self.client, self.clock = FakeClusterClient(), FakeClock()
        self.misplaced, self.totals, self.node_losses = (
            MisplacementReport(),
            None,
            dict[str, Any](),
        )  # in place of a count
        self.state = AdmissionState(enforced, since=NOW)  # in place of the admission check
        self.kept: list[str] = []
        self.store = Store(self.clock.now, ["rescheduler-system"])
        self.pools = PoolReconciler(self.client, self.store, self.clock, self, self, self, Metrics())  # type: ignore[arg-type]
        self.store.subscribe(on_membership_change=self.pools.enqueue)

    # -- the cluster --------------------------------------------------------------------------------------------------

    def put(self, resource: str, raw: RawObject) -> None:
        self.client.put(resource, raw)
        self.store.put(_KINDS[resource], self.client.objects(resource)[raw["metadata"]["uid"]])

    def drop_pool(self) -> None:
        self.client.remove("namespacepools", "shop")
        self.store.drop(ResourceKind.POOL, "shop")

    @property
    def writes(self) -> list[tuple[str, str]]:
        """Return resource and name of each write, except writes of a status."""
        places = [Place.parse(path) for _, path, _ in self.client.written]
        return [(place.resource, place.name) for place in places if not place.subresource]

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
        found: str | None = self.client.objects("namespaces")[name]["metadata"].get("labels", {}).get(names.POOL)
        return found

    def mark(self, name: str) -> labels_and_taints.PoolAssignment:
        found = self.store.node(name)
        assert found is not None
        return labels_and_taints.current_assignment(found)

    def conditions(self) -> list[dict[str, str]]:
        found: list[dict[str, str]] = self.client.objects("namespacepools")["shop"]["status"]["conditions"]
        return found

    def condition(self, type_: str) -> str:
        return next(f"{c['status']} {c['reason']}" for c in self.conditions() if c["type"] == type_)


def put_pool(world: World, name: str = "shop", **spec: Any) -> None:
    """Store a pool that is not exclusive by default, with namespace `x`."""
    world.put("namespacepools", raw_pool(name, **{"namespaces": ["x"], "exclusive": False, **spec}))


def shop(enforced: str = "True", **spec: Any) -> World:
    """Return a cluster with namespace `x` and node `n1` in pool `shop`, and with node `n2` in no pool."""
    world = World(enforced)
    world.put("namespaces", raw_object("x"))
    world.put("nodes", raw_node("n1", labels={"disk": "ssd"}))
    world.put("nodes", raw_node("n2", labels={"disk": "hdd"}))
    put_pool(world, **spec)
    return world


def pod_that_requires_the_pool() -> RawObject:
    return raw_pod(namespace="x", node="n1", nodeSelector={names.NODE_POOL: "shop"})


async def test_pool_labels_its_members_once() -> None:
    world = shop(exclusive=True)
    await world.settle()
    assert (world.label("x"), world.mark("n1"), world.mark("n2")) == (
        "shop",
        labels_and_taints.PoolAssignment("shop", tainted=True),
        labels_and_taints.PoolAssignment(),
    )
    written = list(world.client.written)
    await world.settle()
    assert world.client.written == written
    assert world.condition("TaintHeldBack") == "False Tainted"


async def test_refused_label_is_reported_and_retried_twice_a_minute() -> None:
    world = shop()
    answer = ErrorResponse(403, "Forbidden", "labels are frozen until Monday")
    world.client.refused["PATCH namespaces"] = ApiError("PATCH", "", answer)
    await world.settle()
    assert world.condition("Ready") == "False Marking"
    assert "namespace x cannot be written: 403 Forbidden: labels are frozen" in str(world.conditions())
    tries, world.clock.seconds = len(world.writes), world.clock.seconds + 31
    for _ in range(20):
        assert await world.pools.reconcile("namespace/x")
    assert len(world.writes) == tries + 1
    world.client.refused.clear()
    await world.settle()
    assert world.condition("Ready") == "True Mapped"
    assert "frozen" not in str(world.conditions())


async def test_label_that_another_client_keeps_removing_is_paced_and_reported_once() -> None:
    world = shop()
    world.put("namespacepools", raw_pool("other", namespaces=["y"], nodeSelector={"matchLabels": {"no": "node"}}))
    world.put("namespaces", raw_object("y"))
    await world.settle()
    world.client.written.clear()
    reasons = []
    for _ in range(600):  # for 5 minutes
        world.clock.seconds += 0.5
        if world.label("x"):
            world.put("namespaces", raw_object("x", version=1000 + int(world.clock.seconds * 10)))
        await world.pools.reconcile("namespace/x")
        await world.pools.reconcile("pool/shop")
        reasons.append(world.condition("Ready"))
    assert 10 <= len(world.writes) <= 25
    changes = [b for a, b in itertools.pairwise(reasons) if a != b]
    assert changes[-1] == "False Overwritten"
    assert len(changes) <= 6
    assert "namespace x" in str(world.conditions())
    world.put("namespaces", raw_object("y", version=5))
    await world.pools.reconcile("namespace/y")
    assert world.label("y") == "other"

    await world.pools.reconcile("namespace/x")
    world.clock.seconds += 31
    await world.pools.reconcile("namespace/x")
    world.clock.seconds += 301
    await world.pools.reconcile("pool/shop")
    assert world.condition("Ready") == "True Mapped"


async def test_label_and_taint_that_another_client_keeps_removing_are_paced() -> None:
    world = shop(exclusive=True)
    await world.settle()
    world.client.written.clear()
    for number in range(600):  # for 5 minutes
        world.clock.seconds += 0.5
        if world.mark("n1").tainted:
            world.put("nodes", raw_node("n1", version=1000 + number, labels={"disk": "ssd"}))
        for key in ("node/n1", "pool/shop"):
            await world.pools.reconcile(key)
    assert 10 <= len(world.writes) <= 50
    assert world.condition("Ready") == "False Overwritten"
    assert "node n1" in str(world.conditions())


async def test_deleted_pool_loses_its_namespace_labels_first() -> None:
    """A pod created in between would require a label that no node has."""
    world = shop()
    await world.settle()
    world.client.written.clear()
    world.drop_pool()
    await world.settle()
    assert world.writes == [("namespaces", "x"), ("nodes", "n1")]


async def test_label_of_a_deleted_pool_stays_while_a_pod_requires_it() -> None:
    world = shop(exclusive=True)
    await world.settle()
    world.client.put("pods", pod_that_requires_the_pool())
    world.drop_pool()
    await world.settle()
    assert world.mark("n1") == labels_and_taints.PoolAssignment("shop")
    assert world.kept == ["x/p"]
    world.client.remove("pods", "p")
    await world.settle()
    assert world.mark("n1") == labels_and_taints.PoolAssignment()


async def test_node_of_a_new_pool_changes_its_label_at_once() -> None:
    world = shop()
    await world.settle()
    world.client.put("pods", pod_that_requires_the_pool())
    world.drop_pool()
    put_pool(world, "other", namespaces=["y"])
    await world.settle()
    assert world.mark("n1") == labels_and_taints.PoolAssignment("other")


async def test_no_taint_while_a_daemon_set_would_lose_pods() -> None:
    world = shop(exclusive=True)
    world.client.put("daemonsets", AGENT)
    await world.settle()
    assert world.mark("n1") == labels_and_taints.PoolAssignment("shop")
    assert world.condition("TaintHeldBack") == "True LastPlace"
    world.client.remove("daemonsets", "agent")
    await world.settle()
    assert world.mark("n1") == labels_and_taints.PoolAssignment("shop", tainted=True)


async def test_two_exclusive_pools_do_not_count_on_each_others_nodes() -> None:
    """Each would count on the other's node, and in the end the pod would have none."""
    world = shop(exclusive=True)
    selector = {"matchLabels": {"disk": "hdd"}}
    put_pool(world, "slow", exclusive=True, namespaces=["y"], nodeSelector=selector)
    world.client.put("pods", controlled_by(raw_pod(namespace="kube-system", node="n1"), "ReplicaSet", "dns"))
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
    for resource in ("namespaces", "nodes"):
        for raw in world.client.objects(resource).values():
            fresh.put(resource, raw)
    fresh.put("namespacepools", raw_pool(nodeSelector="of a newer version"))
    await fresh.settle()
    assert (fresh.label("x"), fresh.mark("n1")) == ("shop", labels_and_taints.PoolAssignment("shop"))
    assert not fresh.writes


async def test_taint_check_runs_in_time_after_an_early_reconcile() -> None:
    """An early reconcile removes the timer of the key."""
    world = shop(exclusive=True)
    world.client.put("daemonsets", AGENT)
    await world.settle()
    queue = world.pools.queue
    queue.add_after("pool/shop", 0)
    queue._timers.pop("pool/shop").cancel()  # it is due
    await world.pools.reconcile("pool/shop")
    assert queue._timers["pool/shop"].when() > asyncio.get_running_loop().time() + 20
    queue._timers.pop("pool/shop").cancel()


async def test_object_is_read_and_written_again_after_a_conflict() -> None:
    world = shop()
    world.client.put("namespaces", raw_object("x", metadata={"labels": {"team": "a"}}))  # the store has the old version
    await world.settle()
    assert world.label("x") == "shop"
    assert world.client.objects("namespaces")["x"]["metadata"]["labels"]["team"] == "a"


async def test_terminating_namespace_is_left_alone() -> None:
    world = shop()
    world.put("namespaces", raw_object("x", metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}))
    await world.settle()
    assert world.label("x") is None


async def test_an_audit_pool_writes_nothing_but_its_status() -> None:
    world = shop(mode="Audit", exclusive=True)
    await world.settle()
    assert not world.writes
    assert world.condition("Ready") == "False Audit"
