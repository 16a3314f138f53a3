"""Tell a dead watch of Leases from dead kubelets."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from rescheduler.controllers.failure.lease_monitor import LeaseMonitor
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.controllers.store.object_cache import ResourceKind
from rescheduler.controllers.store.store import Store
from rescheduler.kube.client import UnreachableError
from rescheduler.kube.connection_limits import WatchLimiter
from rescheduler.kube.watch_ages import WatchAges
from unit.supervision import simulated, supervisor

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


class World:
    """An API server with the Leases of some kubelets, and a monitor.

    Attributes:
        alive: names of the kubelets that renew their Leases.
        lost: names whose renewals an open watch does not deliver; a new watch does.
        away: whether lists get no response.
        lists: when the Leases were listed.
        blackouts: when a blackout began or ended.
    """

    def __init__(self, nodes: int = 4, lasts: int = 40) -> None:
        self.names = [f"n{index}" for index in range(nodes)]
        self.alive, self.lasts = set(self.names), lasts
        self.lost, self.away = set[str](), False
        self.lists: list[float] = []
        self.blackouts: list[tuple[float, bool]] = []
        self._renewals = dict.fromkeys(self.names, 0)
        self._streams: list[asyncio.Queue[dict[str, Any]]] = []
        self._version = 1
        client: Any = SimpleNamespace(
            list=self._list, watch=self._watch, watch_limiter=WatchLimiter(), watches=WatchAges(), report=print
        )
        clock: Any = SimpleNamespace(monotonic=self.time)
        self.store = Store(lambda: BEGAN + timedelta(seconds=self.time()))
        self.store.set_listed(BEGAN)
        self.store.subscribe(on_change=lambda _: self._changed())
        for name in self.names:
            raw = {"metadata": {"name": name, "uid": name, "resourceVersion": "1"}}
            self.store.put(ResourceKind.NODE, raw)
        self.beats = LeaseMonitor(client, self.store, clock, Metrics())

    @staticmethod
    def time() -> float:
        return asyncio.get_running_loop().time() - 1000

    def _changed(self) -> None:
        if not self.blackouts or self.blackouts[-1][1] != bool(self.store.state_builder.blackout_reason):
            self.blackouts.append((self.time(), bool(self.store.state_builder.blackout_reason)))

    def _raw(self, name: str) -> dict[str, Any]:
        meta = {"name": name, "uid": name, "resourceVersion": str(self._version)}
        return {"metadata": meta, "spec": {"renewTime": str(self._renewals[name]), "leaseDurationSeconds": self.lasts}}

    async def _list(self, _: str, **__: Any) -> AsyncIterator[dict[str, Any]]:
        self.lists.append(self.time())
        if self.away:
            await asyncio.sleep(30)
            raise UnreachableError("no answer")
        yield {"metadata": {"resourceVersion": "1"}, "items": [self._raw(name) for name in self.names]}

    async def _watch(self, _: str, **__: Any) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        stream: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._streams.append(stream)
        self.lost.clear()
        while True:
            yield "MODIFIED", await stream.get()

    def half_open(self) -> None:
        """Let the server of all open watches die without closing them."""
        self._streams.clear()

    async def renew(self) -> None:
        """Renew the Leases of the living kubelets in turn."""
        for second in range(100_000):
            for index, name in enumerate(self.names):
                if name in self.alive and (second + 3 * index) % (self.lasts // 4) == 0:
                    self._renewals[name] += 1
                    self._version += 1
                    for stream in self._streams if name not in self.lost else ():
                        stream.put_nowait(self._raw(name))
            await asyncio.sleep(1)


def play(scene: Callable[[World], Awaitable[None]], **world: Any) -> World:
    async def act() -> World:
        made = World(**world)
        beside = [asyncio.create_task(work) for work in (made.renew(), made.beats.run(supervisor()))]
        try:
            await asyncio.sleep(30)
            await scene(made)
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
        return made

    return simulated(act())


def declared(world: World) -> list[float]:
    return [at for at, dark in world.blackouts if dark]


def test_while_leases_are_renewed_they_are_listed_once() -> None:
    async def scene(_: World) -> None:
        await asyncio.sleep(600)

    world = play(scene)
    assert len(world.lists) == 1
    assert not declared(world)


@pytest.mark.parametrize("nodes", [1, 4, 10])
def test_a_watch_that_has_died_is_opened_again_and_is_no_blackout(nodes: int) -> None:
    async def scene(world: World) -> None:
        world.half_open()
        await asyncio.sleep(25)
        assert len(world.lists) == 3  # the first list, a list that has renewals, and the list of the new watch
        assert world.lists[1] < 30 + 10 + 17
        assert world._streams
        await asyncio.sleep(300)

    world = play(scene, nodes=nodes)
    assert len(world.lists) == 3
    assert not declared(world)
    assert not world.store.history.suspected_nodes


def test_watch_that_loses_renewals_is_opened_again_before_a_blackout() -> None:
    async def scene(world: World) -> None:
        world.lost = {"n1", "n2", "n3"}
        await asyncio.sleep(120)
        assert not world.lost

    assert not declared(play(scene))


def test_list_confirms_a_blackout_of_all_kubelets() -> None:
    async def scene(world: World) -> None:
        world.alive.clear()
        await asyncio.sleep(40)

    world = play(scene)
    (at,) = declared(world)
    assert any(at - 4 <= listed <= at for listed in world.lists)
    assert 30 + 10 <= at <= 30 + 25


def test_list_confirms_a_blackout_of_most_kubelets() -> None:
    async def scene(world: World) -> None:
        world.alive = {"n0"}
        await asyncio.sleep(40)
        assert declared(world)
        world.alive = set(world.names)
        await asyncio.sleep(15)

    world = play(scene)
    assert [dark for _, dark in world.blackouts][-2:] == [True, False]


def test_blackout_without_any_list_ends_with_a_new_connection() -> None:
    async def scene(world: World) -> None:
        world.half_open()
        world.away = True
        await asyncio.sleep(60)
        (at,) = declared(world)
        assert at <= 30 + 35
        world.away = False
        await asyncio.sleep(25)
        assert not world.store.state_builder.blackout_reason

    world = play(scene)
    pauses = [later - sooner for sooner, later in zip(world.lists[1:], world.lists[2:], strict=False)]
    assert min(pauses[:-1]) >= 5


def test_lists_are_paced_while_all_kubelets_are_dead() -> None:
    async def scene(world: World) -> None:
        world.alive.clear()
        await asyncio.sleep(600)

    assert len(play(scene, nodes=2).lists) <= 600 / 15 + 2


def test_slow_kubelets_are_neither_silent_nor_a_dead_watch() -> None:
    async def scene(_: World) -> None:
        await asyncio.sleep(900)

    world = play(scene, lasts=200)
    assert len(world.lists) == 1
    assert not declared(world)


def test_a_lease_that_is_renewed_before_the_node_is_given_up_is_a_false_alarm() -> None:
    async def scene(world: World) -> None:
        ready = {"conditions": [{"type": "Ready", "status": "True"}]}
        world.store.put(
            ResourceKind.NODE, {"metadata": {"name": "n0", "uid": "n0", "resourceVersion": "2"}, "status": ready}
        )
        world.store.set_suspected_nodes(frozenset({"n0", "n1"}), frozenset())  # n1 is Unknown: a true alarm
        world.beats.evaluate()

    world = play(scene)
    assert not world.beats._given_up
    registry = world.beats._metrics.registry
    assert registry.get_sample_value("rescheduler_false_alarms_total") == 1


def test_a_node_that_is_back_is_no_false_alarm_even_if_it_is_ready_before_its_lease_is_seen() -> None:
    def show(world: World, status: str, version: str) -> None:
        meta = {"name": "n0", "uid": "n0", "resourceVersion": version}
        world.store.put(
            ResourceKind.NODE, {"metadata": meta, "status": {"conditions": [{"type": "Ready", "status": status}]}}
        )

    async def scene(world: World) -> None:
        show(world, "Unknown", "2")
        world.store.set_suspected_nodes(frozenset({"n0"}), frozenset())
        world.beats._count_false_alarms(())
        show(world, "True", "3")
        world.beats.evaluate()

    assert play(scene).beats._metrics.registry.get_sample_value("rescheduler_false_alarms_total") == 0
