"""Metrics of the state of the cluster, as a scrape shows them."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.controllers.store.object_cache import ResourceKind
from rescheduler.controllers.store.state_metrics import StateMetrics
from rescheduler.controllers.store.store import Store
from rescheduler.core.model.raw import RawObject
from rescheduler.kube.watch_ages import WatchAges
from unit.builders import NOW, raw_drain, raw_pool

Samples = Mapping[tuple[str, ...], float]
EARLIER = "2025-12-31T23:50:00Z"


class World:
    def __init__(self) -> None:
        self.store, self.metrics = Store(lambda: NOW), Metrics()
        client: Any = SimpleNamespace(watches=WatchAges())
        self.watches = client.watches
        self.collector = StateMetrics(client, self.store, self.metrics, lambda: NOW)

    def put(self, kind: ResourceKind, raw: RawObject, **status: Any) -> None:
        self.store.put(kind, {**raw, "status": {**raw.get("status", {}), **status}})

    def samples(self) -> dict[str, Samples]:
        async def collect() -> dict[str, Samples]:
            return {
                family.name.removeprefix("rescheduler_"): {
                    tuple(sample.labels.values()): sample.value for sample in family.samples
                }
                for family in self.collector.collect()
            }

        return asyncio.run(collect())


def blocker(class_: str, since: str) -> dict[str, str]:
    return {"namespace": "s", "pod": "p", "class": class_, "since": since}


def test_drains_count_by_phase_and_by_what_they_wait_for() -> None:
    world = World()
    world.put(ResourceKind.DRAIN, raw_drain("a"), phase="Waiting", waiting="Storm")
    world.put(ResourceKind.DRAIN, raw_drain("b"), phase="Blocked", waiting="a reason of nobody")
    found = world.samples()
    assert (found["drains"][("Waiting",)], found["drains"][("Blocked",)], found["drains"][("Drained",)]) == (1, 1, 0)
    assert found["drains_waiting"][("Storm",)] == 1
    assert sum(found["drains_waiting"].values()) == 1
    assert found["storm_brake"][()] == 1


def test_the_oldest_blocker_of_a_class_counts() -> None:
    world = World()
    blockers = [blocker("Throttled", "2025-12-31T23:59:00Z"), blocker("Throttled", EARLIER)]
    world.put(ResourceKind.DRAIN, raw_drain("a"), phase="Blocked", blockers=blockers)
    found = world.samples()
    assert found["drain_blocked_seconds"][("Throttled",)] == 600
    assert found["drain_blocked_seconds"][("EmptyDir",)] == 0
    assert found["blockers"][("Throttled",)] == 2
    assert found["storm_brake"][()] == 0


def test_a_pool_shows_its_fill_and_whether_it_survives_the_loss_of_a_node() -> None:
    world = World()
    sums = {"requested": {"cpu": "1500m", "memory": "1Gi"}, "allocatable": {"cpu": "6", "memory": "4Gi"}}
    condition = {"type": "SurvivesNodeLoss", "status": "False", "reason": "NoRoom", "lastTransitionTime": EARLIER}
    world.put(ResourceKind.POOL, raw_pool("shop"), **sums, podsOutside=3, conditions=[condition])
    world.put(ResourceKind.POOL, raw_pool("new"))
    found = world.samples()
    assert found["pool_fill_ratio"] == {("shop", "cpu"): 0.25, ("shop", "memory"): 0.25}
    assert found["pool_survives_node_loss"] == {("shop",): 0}
    assert found["pool_pods_outside"] == {("shop",): 3, ("new",): 0}


def test_views_have_an_age() -> None:
    world = World()
    world.store.set_listed(NOW - timedelta(seconds=30))
    assert world.samples()["list_age_seconds"][()] == 30

    async def watch_age() -> float:
        world.watches.record(world, "pods", asyncio.get_running_loop().time() - 80)
        (family,) = [f for f in world.collector.collect() if f.name == "rescheduler_watch_age_seconds"]
        return float(family.samples[0].value)

    assert asyncio.run(watch_age()) == pytest.approx(80, abs=1)


def test_names_of_others_do_not_make_series() -> None:
    """Everybody who may create pools and NodeDrains can choose their names."""
    world = World()
    before = sum(map(len, world.samples().values()))
    for number in range(500):
        hostile = blocker("NoSuchClass", EARLIER) if number % 2 else blocker("Throttled", EARLIER)
        world.put(
            ResourceKind.DRAIN, raw_drain(f"n-{number}"), phase="Waiting", waiting=f"r-{number}", blockers=[hostile]
        )
        world.put(ResourceKind.POOL, raw_pool(f"pool-{number}"), podsOutside=1)
    found = world.samples()
    assert len(found["pool_pods_outside"]) == 101
    assert sum(map(len, found.values())) <= before + 2 * 101
