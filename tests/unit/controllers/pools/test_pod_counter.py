"""Count pods without a watch: which lists are sent, and how often."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

from rescheduler.api import names
from rescheduler.controllers.pools.pod_counter import PoolPodCounter
from rescheduler.controllers.store.object_cache import ResourceKind
from rescheduler.controllers.store.store import Store
from rescheduler.core.model.raw import RawObject, RawPod
from unit.builders import raw_node, raw_object, raw_pod, raw_pool
from unit.fakes import FakeClock, FakeClusterClient
from unit.supervision import supervisor


class SlowClient(FakeClusterClient):
    """Each list takes `list_seconds` of the clock."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self.clock, self.list_seconds = clock, 0.0

    async def list(self, path: str, **params: Any) -> AsyncIterator[RawObject]:
        self.clock.seconds += self.list_seconds
        async for page in super().list(path, **params):
            yield page


class World:
    """Namespace `x`, a node in pool `shop` and one outside, a counter, and a clock that tests set.

    Attributes:
        published: after each count, the number of the pool's pods, and of those that the node loss is about.
    """

    def __init__(self, *pods: RawPod) -> None:
        self.clock = FakeClock()
        self.client = SlowClient(self.clock)
        self.client.put("pods", *pods)
        self.store = Store(self.clock.now)
        self.published: list[tuple[int, int]] = []
        self.counts = PoolPodCounter(self.client, self.store, self.clock, self._record)
        self.store.put(ResourceKind.NAMESPACE, raw_object("x"))
        self.store.put(ResourceKind.NODE, raw_node("in", labels={"disk": "ssd"}))
        self.store.put(ResourceKind.NODE, raw_node("out"))

    def _record(self) -> None:
        totals, loss = self.counts.totals, self.counts.node_losses.get("shop")
        if totals and loss:
            self.published.append((totals.pods_by_pool["shop"], loss.pods_total))

    def put_pool(self) -> None:
        self.store.put(ResourceKind.POOL, raw_pool(namespaces=["x"]))

    async def after(self, seconds: float) -> None:
        """Run the counter for this time."""
        self.clock.seconds += seconds
        await self.counts._run_due()


def pod_on(node: str, *, label: str = "") -> RawPod:
    """Return a pod of namespace `x`, with this label of its pool."""
    return raw_pod(namespace="x", node=node, labels={names.POOL: label} if label else None)


async def test_no_list_is_sent_without_pools() -> None:
    world = World(pod_on("out"))
    for _ in range(5):
        await world.after(1000)
    assert world.client.listed == []


async def test_pods_of_a_small_cluster_are_counted_every_few_seconds() -> None:
    world = World(pod_on("in"))
    world.put_pool()
    await world.after(1)
    world.client.put("pods", raw_pod("later", namespace="x", node="in"))
    for _ in range(60):
        await world.after(1)
    assert len(world.client.listed) == 13
    assert world.counts.totals is not None
    assert world.counts.totals.pods_by_pool["shop"] == 2
    assert world.clock.now() - world.counts.totals.counted_at < timedelta(seconds=5)


async def test_counts_take_at_most_a_twentieth_of_the_time() -> None:
    world = World(pod_on("in"))
    world.put_pool()
    world.client.list_seconds = 3.0
    for _ in range(600):
        await world.after(1)
        world.counts.request_recount()
    spent = len(world.client.listed) * world.client.list_seconds
    assert 0.04 < spent / world.clock.seconds < 0.06


async def test_a_count_and_its_node_loss_are_published_together() -> None:
    world = World(pod_on("in"))
    world.put_pool()
    for number in range(5):
        world.client.put("pods", raw_pod(f"p{number}", namespace="x", node="in"))
        await world.after(6)
    assert world.published
    assert all(pods == lost for pods, lost in world.published)


async def test_misplaced_pods_are_rechecked_every_few_seconds_by_scope() -> None:
    world = World(pod_on("out"))
    world.put_pool()
    await world.after(1)
    assert world.counts.misplaced.pods_outside["shop"] == 1
    world.client.listed.clear()
    await world.after(4)
    assert world.client.listed == [("/api/v1/namespaces/x/pods", {"labelSelector": f"{names.POOL}!=shop"})]
    world.client.remove("pods", "p")
    await world.after(4)
    assert world.counts.misplaced.pods_outside["shop"] == 0
    world.client.listed.clear()
    await world.after(60)
    assert world.client.listed == [("/api/v1/pods", {})]


async def test_labelled_misplaced_pod_is_rechecked_on_its_node() -> None:
    world = World(pod_on("out", label="shop"))
    world.put_pool()
    await world.after(1)
    world.client.listed.clear()
    await world.after(4)
    assert world.client.listed == [("/api/v1/pods", {"fieldSelector": "spec.nodeName=out"})]
    assert world.counts.misplaced.pods_outside["shop"] == 1


async def test_requested_count_runs_at_once_but_not_twice_at_once() -> None:
    world = World(pod_on("in"))
    world.put_pool()
    await world.after(1)
    world.client.listed.clear()
    for _ in range(10):
        world.counts.request_recount()
        await world.after(0.1)
    assert world.client.listed == []
    await world.after(1.5)
    assert len(world.client.listed) == 1


async def test_failing_list_is_retried_after_a_delay() -> None:
    world = World(pod_on("in"))
    world.put_pool()
    world.client.refuse("LIST pods", 500)
    task = asyncio.create_task(world.counts.run(supervisor()))
    await asyncio.sleep(0.2)
    task.cancel()
    assert len(world.client.listed) == 1
