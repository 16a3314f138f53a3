"""The planner of migrations: when it makes a plan, and its forecasts."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

from rescheduler.api import names
from rescheduler.controllers.evacuation.planner import EvacuationPlanner
from rescheduler.controllers.store.object_cache import ResourceKind
from rescheduler.controllers.store.store import Store
from rescheduler.core.model import pods
from rescheduler.core.model.volumes import NodeVolumes
from rescheduler.core.placement.planner import Fit
from unit.fakes import FakeClock
from unit.supervision import supervisor

Json = dict[str, Any]
SHOP = {names.NODE_POOL: "shop"}


class World:
    """Namespace `x` in pool `shop`, its pods on other nodes, and a clock that the test sets."""

    def __init__(self, *made: Json) -> None:
        self.pods, self.lists, self.clock = list(made), 0, FakeClock()
        self.woken: list[str] = []
        self.store = Store(self.clock.now)
        self.node("in", SHOP)
        self.node("out")
        in_pool = {"x": "shop"}
        self.plans = EvacuationPlanner(
            self,  # type: ignore[arg-type]
            self.store,
            self.clock,
            lambda: in_pool,
            self._wake,
            supervisor(),
            may_stay=True,
        )

    def node(self, name: str, labels: Json | None = None, version: str = "1") -> None:
        meta = {"name": name, "uid": name, "resourceVersion": version, "labels": labels or {}}
        ready = {"type": "Ready", "status": "True"}
        status = {"allocatable": {"cpu": "1", "pods": "2"}, "conditions": [ready]}
        self.store.put(ResourceKind.NODE, {"metadata": meta, "status": status})

    def _wake(self, holders: Iterable[str]) -> None:
        self.woken += holders

    async def list(self, _path: str, **_query: str) -> AsyncIterator[Json]:
        self.lists += 1
        yield {"items": self.pods}

    async def ask(self, *asked: Json) -> dict[str, Fit] | None:
        """Return the forecasts of these pods of one node, after a plan if one is due."""
        rows = [pods.parse_pod(raw) for raw in asked]

        def look() -> Any:
            return self.plans.forecast("migration/out", rows, NodeVolumes(), wait_for_plan=True)

        found = look()
        if self.plans._task:
            await asyncio.wait({self.plans._task})
            found = look()
        return None if found is None else {uid: forecast.fit for uid, forecast in found.items()}


def pod(name: str, *, cpu: str = "600m", kind: str = "StatefulSet", on: str = "out", **meta: Any) -> Json:
    owners = [{"apiVersion": "apps/v1", "kind": kind, "name": "o", "uid": f"o-{kind}", "controller": True}]
    container = {"name": "c", "resources": {"requests": {"cpu": cpu}}}
    return {
        "metadata": {"namespace": "x", "name": name, "uid": name, "ownerReferences": owners, **meta},
        "spec": {"nodeName": on, "containers": [container]},
        "status": {"phase": "Running"},
    }


async def test_only_nodes_of_the_pool_have_room_for_its_pods() -> None:
    world = World(first := pod("a"), second := pod("b"))
    world.node("free")
    found = await world.ask(first, second)
    assert found is not None
    assert sorted(found.values()) == [Fit.DOES_NOT_FIT, Fit.FITS]
    assert world.woken == ["migration/out"]


async def test_a_pod_that_comes_later_is_planned_before_it_leaves() -> None:
    world = World(first := pod("a"), second := pod("b", cpu="100m"))
    assert await world.ask(first) == {"a": Fit.FITS}
    world.clock.seconds += 1
    assert await world.ask(first, second) == {"a": Fit.FITS, "b": Fit.FITS}
    assert world.lists == 2
    world.clock.seconds += 60
    await world.ask(first, second)
    assert world.lists == 2


async def test_a_pod_has_no_room_while_another_of_its_owner_is_pending() -> None:
    ending = pod("a", deletionTimestamp="2026-01-01T00:00:00Z")
    world = World(ending, second := pod("b"), third := pod("c", cpu="100m", kind="ReplicaSet"))
    assert await world.ask(second, third) == {"b": Fit.DOES_NOT_FIT, "c": Fit.FITS}
    world.pods.remove(ending)
    world.clock.seconds += 60
    assert await world.ask(second, third) == {"b": Fit.FITS, "c": Fit.FITS}


async def test_a_node_that_joins_the_pool_is_planned_with_at_once() -> None:
    world = World(first := pod("a", cpu="1500m"))
    assert await world.ask(first) == {"a": Fit.DOES_NOT_FIT}
    world.clock.seconds += 1
    world.node("new")
    await world.ask(first)
    world.clock.seconds += 1
    await world.ask(first)
    assert world.lists == 2
    world.node("new", SHOP, version="2")
    await world.ask(first)
    assert world.lists == 3
