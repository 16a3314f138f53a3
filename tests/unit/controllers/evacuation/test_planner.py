"""The planner of migrations: when it makes a plan, and its forecasts."""

import asyncio
from collections.abc import Iterable
from typing import Any

from rescheduler.api import names
from rescheduler.controllers.evacuation.planner import ChainRequest, EvacuationPlanner
from rescheduler.controllers.evacuation.workload_watch import WorkloadWatch
from rescheduler.controllers.store.object_cache import ResourceKind
from rescheduler.controllers.store.store import Store
from rescheduler.core.eviction.api_responses import ErrorResponse
from rescheduler.core.model import pods
from rescheduler.core.model.raw import RawObject, RawPod
from rescheduler.core.model.volumes import NodeVolumes
from rescheduler.core.placement.planner import Fit
from rescheduler.kube import paths
from rescheduler.kube.client import ApiError
from unit.builders import controlled_by, raw_node, raw_pod
from unit.fakes import FakeClock, FakeClusterClient, settle
from unit.supervision import supervisor

SHOP = {names.NODE_POOL: "shop"}


class World:
    """Namespace `x` in pool `shop`, its pods on other nodes, and a clock that the test sets."""

    def __init__(self, *made: RawPod) -> None:
        self.client, self.clock = FakeClusterClient(), FakeClock()
        self.client.put("pods", *made)
        self.woken: list[str] = []
        self.store = Store(self.clock.now)
        self.put_node("in", labels=SHOP)
        self.put_node("out")
        in_pool = {"x": "shop"}
        self.workloads = WorkloadWatch(self.client, self._wake)
        self.plans = EvacuationPlanner(
            self.client,
            self.store,
            self.clock,
            self.workloads,
            lambda: in_pool,
            self._wake,
            supervisor(),
            may_stay=True,
        )

    def put_node(self, name: str, **fields: Any) -> None:
        """Store a node of one CPU for two pods."""
        self.store.put(ResourceKind.NODE, raw_node(name, cpu="1", pods="2", **fields))

    def _wake(self, holders: Iterable[str]) -> None:
        self.woken += holders

    async def ask(self, *asked: RawPod) -> dict[str, Fit] | None:
        """Return the forecasts of these pods of one node, after a plan if one is due."""
        rows = [pods.parse_pod(raw) for raw in asked]

        def look() -> Any:
            return self.plans.forecast("migration/out", rows, NodeVolumes(), wait_for_plan=True)

        found = look()
        if found is None and not self.plans._task:
            await settle()  # the list of ReplicaSets
            found = look()
        if self.plans._task:
            await asyncio.wait({self.plans._task})
            found = look()
        return None if found is None else {uid: forecast.fit for uid, forecast in found.items()}


def owned(name: str, *, cpu: str = "600m", kind: str = "StatefulSet", **fields: Any) -> RawPod:
    """Return a pod of namespace `x` on node `out`; its controller is the only one of this kind."""
    return controlled_by(raw_pod(name, namespace="x", node="out", cpu=cpu, **fields), kind, f"o-{kind}")


async def test_only_nodes_of_the_pool_have_room_for_its_pods() -> None:
    world = World(first := owned("a"), second := owned("b"))
    world.put_node("free")
    found = await world.ask(first, second)
    assert found is not None
    assert sorted(found.values()) == [Fit.DOES_NOT_FIT, Fit.FITS]
    assert world.woken == ["migration/out"]


async def test_a_pod_that_comes_later_is_planned_before_it_leaves() -> None:
    world = World(first := owned("a"), second := owned("b", cpu="100m"))
    assert await world.ask(first) == {"a": Fit.FITS}
    world.clock.seconds += 1
    assert await world.ask(first, second) == {"a": Fit.FITS, "b": Fit.FITS}
    assert len(world.client.listed) == 2
    world.clock.seconds += 60
    await world.ask(first, second)
    assert len(world.client.listed) == 2


async def test_a_pod_has_no_room_while_another_of_its_owner_is_pending() -> None:
    ending = owned("a")
    ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    world = World(ending, second := owned("b"), third := owned("c", cpu="100m", kind="ReplicaSet"))
    assert await world.ask(second, third) == {"b": Fit.DOES_NOT_FIT, "c": Fit.FITS}
    world.client.remove("pods", "a")
    world.clock.seconds += 60
    assert await world.ask(second, third) == {"b": Fit.FITS, "c": Fit.FITS}


async def test_a_node_that_joins_the_pool_is_planned_with_at_once() -> None:
    world = World(first := owned("a", cpu="1500m"))
    assert await world.ask(first) == {"a": Fit.DOES_NOT_FIT}
    world.clock.seconds += 1
    world.put_node("new")
    await world.ask(first)
    world.clock.seconds += 1
    await world.ask(first)
    assert len(world.client.listed) == 2
    world.put_node("new", labels=SHOP, version=2)
    await world.ask(first)
    assert len(world.client.listed) == 3


async def test_device_classes_are_listed_only_for_pods_with_extended_resources() -> None:
    gpu = {"example.com/gpu": "1"}
    plain, asks = owned("a", cpu="100m"), owned("b", cpu="100m", resources=gpu)
    world = World(plain, asks)
    world.client.put(
        "deviceclasses", {"metadata": {"name": "gpu", "uid": "c"}, "spec": {"extendedResourceName": "example.com/gpu"}}
    )
    world.put_node("gpu", resources=gpu)
    assert await world.ask(plain) == {"a": Fit.FITS}
    assert paths.DEVICE_CLASSES not in [path for path, _ in world.client.listed]
    world.clock.seconds += 60
    assert await world.ask(plain, asks) == {"a": Fit.FITS, "b": Fit.UNKNOWN}
    assert [path for path, _ in world.client.listed].count(paths.DEVICE_CLASSES) == 1


async def test_an_api_server_without_device_classes_serves_no_resources_by_them() -> None:
    gpu = {"example.com/gpu": "1"}
    asks = owned("b", cpu="100m", resources=gpu)
    world = World(asks)
    world.client.refused["LIST deviceclasses"] = ApiError("GET", paths.DEVICE_CLASSES, ErrorResponse(404))
    world.put_node("gpu", resources=gpu)
    assert await world.ask(asks) == {"b": Fit.DOES_NOT_FIT}


def resized(raw: RawPod) -> RawPod:
    return {**raw, "metadata": {**raw["metadata"], "generation": 2}}


def template(cpu: str) -> RawObject:
    return {"metadata": {"labels": {"app": "a"}}, "spec": raw_pod(cpu=cpu)["spec"]}


async def test_a_pod_resized_in_place_is_planned_by_the_template_of_its_replica_set() -> None:
    pod = resized(owned("a", cpu="100m", kind="ReplicaSet"))
    owner = {"metadata": {"namespace": "x", "name": "o", "uid": "o-ReplicaSet"}}
    world = World(pod)
    world.client.put("replicasets", owner | {"spec": {"replicas": 1, "template": template("2")}})
    assert await world.ask(pod) == {"a": Fit.DOES_NOT_FIT}
    world.plans.close("migration/out")
    await settle()
    assert world.workloads.templates(["x"]) == {}


async def test_a_stateful_set_is_read_only_for_a_pod_that_was_changed() -> None:
    plain, changed = owned("a", cpu="100m"), resized(owned("b", cpu="100m"))
    world = World(plain, changed)
    owner = {"metadata": {"namespace": "x", "name": "o-StatefulSet", "uid": "o-StatefulSet"}}
    world.client.put("statefulsets", owner | {"spec": {"template": template("2")}})
    world.client.refuse("GET statefulsets", 500)
    assert await world.ask(plain) == {"a": Fit.FITS}
    world.client.refused.clear()
    world.clock.seconds += 60
    assert await world.ask(plain, changed) == {"a": Fit.FITS, "b": Fit.DOES_NOT_FIT}


async def test_a_plan_does_not_wait_long_for_replica_sets() -> None:
    pod = resized(owned("a", cpu="100m", kind="ReplicaSet"))
    world = World(pod)
    world.client.refuse("LIST replicasets", 403, "not allowed")
    assert await world.ask(pod) is None
    world.clock.seconds += 4
    assert await world.ask(pod) == {"a": Fit.UNKNOWN}


async def test_chain_move_in_progress_takes_room_in_the_plan() -> None:
    first, moving = owned("a"), owned("c", cpu="600m")
    moving["spec"]["nodeName"] = "far"
    world = World(first, moving)
    rows = [pods.parse_pod(first)]

    async def fit(chain: ChainRequest) -> Fit | None:
        world.clock.seconds += 600
        world.plans.replan("migration/out")
        for _ in range(2):
            found = world.plans.forecast("migration/out", rows, NodeVolumes(), wait_for_plan=True, chain=chain)
            if world.plans._task:
                await asyncio.wait({world.plans._task})
        return found["a"].fit if found else None

    assert await fit(ChainRequest()) is Fit.FITS
    world.plans.close("migration/out")
    await settle()
    assert await fit(ChainRequest(0, {"c"})) is not Fit.FITS
