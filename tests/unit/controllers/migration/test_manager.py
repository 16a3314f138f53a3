"""The migrations of all nodes: which nodes get a task, how many at once, and when they back off."""

import asyncio
from typing import Any

import pytest

from rescheduler.api.drains import Blocker, BlockerClass
from rescheduler.controllers.migration import manager
from rescheduler.controllers.migration.manager import MigrationManager
from rescheduler.controllers.migration.node_task import BlockedMigration, MigrationDependencies
from rescheduler.controllers.store.object_cache import ResourceKind
from rescheduler.controllers.store.store import Store
from rescheduler.core.drain import migration as decisions
from rescheduler.core.model.pods import Pod
from unit.builders import NOW
from unit.fakes import FakeClock
from unit.supervision import supervisor


class MigrationTask:
    """Fake task of one node, which ends when the test sets `over`."""

    made: list["MigrationTask"]

    def __init__(self, node_name: str, deps: Any, on_pod_gone: Any, on_evaluated: Any) -> None:
        self.node_name, self.on_pod_gone = node_name, on_pod_gone
        self.requests: dict[str, str] = {}
        self.blocked: tuple[BlockedMigration, ...] = ()
        self.stalled = self.has_released_pods = False
        self.over = asyncio.Event()
        MigrationTask.made.append(self)

    async def run(self) -> None:
        await self.over.wait()

    def wake(self) -> None: ...


class World:
    """Nodes, and a clock that the test sets."""

    def __init__(self, nodes: int = 3) -> None:
        self.clock = FakeClock()
        self.store = Store(self.clock.now)
        for index in range(nodes):
            self.node(f"n{index}")
        deps = MigrationDependencies(None, self.store, self.clock, None, supervisor())  # type: ignore[arg-type]
        self.shifts = MigrationManager(deps, {"pools"})
        self.shifts.start_leading()
        self.task = asyncio.create_task(self.shifts.run())

    def node(self, name: str, version: str = "1", *, tainted: bool = False) -> None:
        taints = [decisions.MIGRATION_TAINT.as_json()] if tainted else []
        meta = {"name": name, "uid": name, "resourceVersion": version}
        self.store.put(ResourceKind.NODE, {"metadata": meta, "spec": {"taints": taints}})

    async def want(self, **errands: dict[str, str]) -> list[str]:
        """Set the requests, and return the nodes with a running task."""
        self.shifts.set_requests("pools", errands)
        return await self.running()

    async def running(self) -> list[str]:
        for _ in range(5):
            await asyncio.sleep(0)
        return sorted(shift.node_name for shift in MigrationTask.made if not shift.over.is_set())


@pytest.fixture(autouse=True)
def _stub(monkeypatch: pytest.MonkeyPatch) -> None:
    MigrationTask.made = []
    monkeypatch.setattr(manager, "MigrationTask", MigrationTask)


async def test_each_node_with_requests_has_one_task() -> None:
    world = World()
    assert await world.want(n1={"a": "x"}, n2={"b": "x"}) == ["n1", "n2"]
    assert {shift.node_name: shift.requests for shift in MigrationTask.made} == {"n1": {"a": "x"}, "n2": {"b": "x"}}


async def test_a_running_task_gets_changed_requests() -> None:
    world = World()
    await world.want(n1={"a": "x"})
    await world.want(n1={"b": "x"})
    assert [shift.requests for shift in MigrationTask.made] == [{"b": "x"}]
    await world.want()
    assert [shift.requests for shift in MigrationTask.made] == [{}]


async def test_only_so_many_nodes_at_once_and_the_next_when_one_is_done() -> None:
    world = World(nodes=20)
    errands = {f"n{index}": {f"p{index}": "x"} for index in range(20)}
    assert len(await world.want(**errands)) == manager.MAX_CONCURRENT_NODES
    for shift in MigrationTask.made[:3]:
        shift.on_pod_gone(f"p{shift.node_name[1:]}", None, "x")
        shift.over.set()
    assert len(await world.running()) == manager.MAX_CONCURRENT_NODES
    assert len(MigrationTask.made) == manager.MAX_CONCURRENT_NODES + 3


async def test_a_pod_that_has_left_is_not_migrated_again_on_an_old_request() -> None:
    world = World()
    left: list[str] = []
    world.shifts.subscribe(on_pod_moved=lambda pod, cause: left.append(f"{pod.key} {cause}"))
    await world.want(n1={"a": "x"})
    MigrationTask.made[0].on_pod_gone("a", Pod("s", "p", "a"), "x")
    MigrationTask.made[0].over.set()
    assert await world.running() == []
    assert await world.want(n1={"a": "x"}) == []
    assert left == ["s/p x"]


async def test_an_interrupted_migration_resumes_once_all_requests_are_set() -> None:
    """After a restart, its released pods must not be returned before that."""
    world = World()
    world.node("n1", version="2", tainted=True)
    world.shifts.on_node_changed(None)
    assert await world.running() == []
    assert world.shifts.managed_nodes() == {"n1"}
    assert await world.want() == ["n1"]
    assert MigrationTask.made[0].requests == {}


async def test_tainted_nodes_count_as_managed_before_any_migration_runs() -> None:
    """The start waits for the check of admission; no other controller may return these pods meanwhile."""
    world = World()
    world.task.cancel()
    deps = MigrationDependencies(None, world.store, world.clock, None, supervisor())  # type: ignore[arg-type]
    world.shifts = MigrationManager(deps, {"pools"})
    world.node("n1", version="2", tainted=True)
    assert world.shifts.managed_nodes() == frozenset()
    world.shifts.start_leading()
    assert world.shifts.managed_nodes() == {"n1"}


async def test_a_pod_that_cannot_move_backs_off_longer_and_stays_reported() -> None:
    world = World()
    blocker = Blocker(namespace="s", pod="p", class_=BlockerClass.NO_ROOM_IN_POOL, since=NOW)
    for rest in (60, 120):
        assert await world.want(n1={"a": "x"}) == ["n1"]
        MigrationTask.made[-1].blocked, MigrationTask.made[-1].stalled = (BlockedMigration("x", blocker),), True
        MigrationTask.made[-1].over.set()
        assert await world.running() == []
        assert [held.blocker for held in world.shifts.blocked_migrations()] == [blocker]
        world.clock.seconds += rest - 1
        assert await world.want(n1={"a": "x"}) == []
        world.clock.seconds += 1
    assert await world.want(n1={"a": "x"}) == ["n1"]


async def test_another_pod_does_not_rest_with_the_first() -> None:
    world = World()
    await world.want(n1={"a": "x"})
    MigrationTask.made[0].stalled = True
    MigrationTask.made[0].over.set()
    await world.running()
    assert await world.want(n1={"a": "x", "b": "x"}) == ["n1"]


async def test_a_node_whose_drain_has_begun_is_left_to_it() -> None:
    world = World()
    meta = {"name": "n1", "uid": "d", "resourceVersion": "1"}
    spec = {"nodeName": "n1", "requests": [{"reason": "Maintenance"}]}
    world.store.put(
        ResourceKind.DRAIN, {"metadata": meta, "spec": spec, "status": {"startedAt": "2026-01-01T00:00:00Z"}}
    )
    assert await world.want(n1={"a": "x"}) == []


async def test_with_the_lease_lost_nothing_goes_on() -> None:
    world = World()
    await world.want(n1={"a": "x"})
    world.task.cancel()
    await asyncio.gather(world.task, return_exceptions=True)
    world.shifts.stop_leading()
    assert world.shifts.managed_nodes() == frozenset()
