"""How the one who writes on a node knows how it is."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from rescheduler.core.answers import Refusal
from rescheduler.core.facts import Node
from rescheduler.engine.keeper import RECENT, Keeper
from rescheduler.engine.store import Kind, Store
from rescheduler.kube.client import ApiError

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class World:
    """A server with one node, and a keeper that asks it.

    Attributes:
        reads: how often it was asked.
    """

    def __init__(self) -> None:
        self.version, self.reads, self.seconds, self.there = 1, 0, 1000.0, True
        self.store = Store(lambda: NOW)
        clock = SimpleNamespace(now=lambda: NOW, monotonic=lambda: self.seconds)
        client: Any = SimpleNamespace(get=self._get, patch=self._patch)
        made: Any = Keeper
        self.keeper: Keeper = made("n", client, self.store, clock, None, None)

    def raw(self) -> dict[str, Any]:
        return {"metadata": {"name": "n", "uid": "u", "resourceVersion": str(self.version)}}

    async def _get(self, path: str) -> dict[str, Any]:
        self.reads += 1
        await asyncio.sleep(0)
        if not self.there:
            raise ApiError("GET", path, Refusal(404))
        return self.raw()

    async def _patch(self, *_: Any, **__: Any) -> dict[str, Any]:
        self.version += 1
        return self.raw()

    async def news(self) -> None:
        """The watch tells of a change."""
        self.version += 1
        self.store.put(Kind.NODE, self.raw())


def reads(*acts: Callable[[World], Awaitable[object]]) -> int:
    """How often the server was asked."""
    world = World()

    async def all_of_them() -> None:
        for act in acts:
            await act(world)

    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(all_of_them())
    finally:
        loop.close()
    return world.reads


async def ask(world: World) -> None:
    found = await asyncio.gather(*(world.keeper.recent("n") for _ in range(5)))
    assert {node.version if node else "" for node in found} == ({str(world.version)} if world.there else {""})


async def write(world: World) -> None:
    await world.keeper.patch(Node("n", "u", str(world.version)), {})


async def wait(world: World) -> None:
    world.seconds += RECENT


async def vanish(world: World) -> None:
    world.there = False


def test_many_who_ask_at_once_share_one_answer() -> None:
    assert reads(ask, ask) == 1


def test_the_answer_to_a_write_does_too() -> None:
    assert reads(write, ask) == 0


def test_after_a_moment_it_is_read_anew() -> None:
    assert reads(ask, wait, ask) == 2


def test_where_there_is_news_since_it_is_read_anew() -> None:
    assert reads(ask, World.news, ask) == 2


def test_a_node_that_is_gone_is_none() -> None:
    assert reads(ask, wait, vanish, ask) > 1
