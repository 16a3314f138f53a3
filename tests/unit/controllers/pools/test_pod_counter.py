"""Count pods without a watch: which lists are sent, and how often."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from rescheduler.api import names
from rescheduler.controllers.pools.pod_counter import PoolPodCounter
from rescheduler.controllers.store.object_cache import ResourceKind
from rescheduler.controllers.store.store import Store
from rescheduler.core.eviction.api_responses import ErrorResponse
from rescheduler.kube.client import ApiError
from unit.fakes import FakeClock
from unit.supervision import supervisor

Json = dict[str, Any]


class World:
    """An API server with pods, and a clock that tests set."""

    def __init__(self, *pods: Json) -> None:
        self.pods, self.asked = list(pods), list[tuple[str, Json]]()
        self.clock, self.looks, self.refuses = FakeClock(), 0, False
        self.store = Store(self.clock.now)
        self.counts = PoolPodCounter(self, self.store, self.clock, self._looked)  # type: ignore[arg-type]
        for kind, name, body in (
            (ResourceKind.NAMESPACE, "x", {}),
            (ResourceKind.NODE, "in", {"metadata": {"labels": {"disk": "ssd"}}}),
            (ResourceKind.NODE, "out", {}),
        ):
            meta = {"name": name, "uid": name, "resourceVersion": "1", **body.get("metadata", {})}
            self.store.put(kind, {"metadata": meta})

    def pool(self, **spec: Any) -> None:
        made = {"namespaces": ["x"], "nodeSelector": {"matchLabels": {"disk": "ssd"}}, **spec}
        meta = {"name": "shop", "uid": "p", "resourceVersion": "2", "creationTimestamp": "2026-01-01T00:00:00Z"}
        self.store.put(ResourceKind.POOL, {"metadata": meta, "spec": made})

    def _looked(self) -> None:
        self.looks += 1

    async def list(self, path: str, **query: str) -> AsyncIterator[Json]:
        self.asked.append((path, query))
        if self.refuses:
            raise ApiError("GET", path, ErrorResponse(500))
        node = query.get("fieldSelector", "").removeprefix("spec.nodeName=")
        yield {"items": [raw for raw in self.pods if not node or raw["spec"].get("nodeName") == node]}

    async def after(self, seconds: float) -> None:
        """Run the counter for this time."""
        self.clock.seconds += seconds
        await self.counts._run_due()


def pod(on: str, label: str | None = None) -> Json:
    labels = {names.POOL: label} if label else {}
    return {"metadata": {"namespace": "x", "name": "p", "uid": "u", "labels": labels}, "spec": {"nodeName": on}}


async def test_no_list_is_sent_without_pools() -> None:
    world = World(pod("out"))
    for _ in range(5):
        await world.after(1000)
    assert world.asked == []


async def test_pods_in_place_are_counted_every_few_minutes() -> None:
    world = World(pod("in"))
    world.pool()
    for _ in range(60):
        await world.after(10)
    assert len(world.asked) == 2
    assert world.counts.totals is not None
    assert world.counts.totals.pods_by_pool["shop"] == 1


async def test_misplaced_pods_are_rechecked_every_few_seconds_by_scope() -> None:
    world = World(pod("out"))
    world.pool()
    await world.after(1)
    assert world.counts.misplaced.pods_outside["shop"] == 1
    world.asked.clear()
    await world.after(4)
    assert world.asked == [("/api/v1/namespaces/x/pods", {"labelSelector": f"{names.POOL}!=shop"})]
    world.pods = []
    await world.after(4)
    assert world.counts.misplaced.pods_outside["shop"] == 0
    world.asked.clear()
    await world.after(60)
    assert world.asked == []


async def test_labelled_misplaced_pod_is_rechecked_on_its_node() -> None:
    world = World(pod("out", label="shop"))
    world.pool()
    await world.after(1)
    world.asked.clear()
    await world.after(4)
    assert world.asked == [("/api/v1/pods", {"fieldSelector": "spec.nodeName=out"})]
    assert world.counts.misplaced.pods_outside["shop"] == 1


async def test_requested_count_runs_at_once_but_not_twice_at_once() -> None:
    world = World(pod("in"))
    world.pool()
    await world.after(1)
    world.asked.clear()
    for _ in range(10):
        world.counts.request_recount()
        await world.after(0.1)
    assert world.asked == []
    await world.after(1.5)
    assert len(world.asked) == 1


async def test_failing_list_is_retried_after_a_delay() -> None:
    world = World(pod("in"))
    world.pool()
    world.refuses = True
    task = asyncio.create_task(world.counts.run(supervisor()))
    await asyncio.sleep(0.2)
    task.cancel()
    assert len(world.asked) == 1
