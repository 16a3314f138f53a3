"""Budgets as watched, and what is corrected of them meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from rescheduler.core.budgets import Budget
from rescheduler.core.pods import Pod
from rescheduler.engine.budgets import Budgets


class World:
    """A cluster of budgets that change as they are made to."""

    def __init__(self) -> None:
        self.time = 0.0
        self.news: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.budgets = Budgets(self, lambda _: None, lambda: self.time)  # type: ignore[arg-type]
        self.pod = Pod("s", "a", "a", ready=True, labels={"app": "web"})

    async def list(self, path: str, **params: str) -> AsyncIterator[dict[str, Any]]:
        yield {"metadata": {"resourceVersion": "1"}, "items": [budget(1, allowed=3)]}

    async def watch(self, path: str, *, version: str, **params: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        while True:
            yield "MODIFIED", await self.news.get()

    async def open(self) -> Budget:
        self.budgets.hold("drain", ["s"])
        return await self.seen()

    async def seen(self) -> Budget:
        for _ in range(20):
            await asyncio.sleep(0)
        (found,) = self.budgets.of(self.pod) or ()
        return found


def budget(version: int, *, allowed: int, app: str = "web") -> dict[str, Any]:
    meta = {"namespace": "s", "name": "b", "uid": "b", "resourceVersion": str(version), "generation": 1}
    status = {"disruptionsAllowed": allowed, "observedGeneration": 1}
    return {"metadata": meta, "spec": {"selector": {"matchLabels": {"app": app}}}, "status": status}


async def test_what_was_spent_counts_until_the_watch_shows_it() -> None:
    world = World()
    world.budgets.spend(await world.open())
    world.budgets.spend(await world.seen())
    assert (await world.seen()).allowed == 1
    world.news.put_nowait(budget(2, allowed=2))
    assert (await world.seen()).allowed == 2
    world.budgets.hold("drain", ())


async def test_a_correction_that_the_server_does_not_confirm_expires() -> None:
    world = World()
    world.budgets.exhaust(await world.open())
    assert (await world.seen()).allowed == 0
    world.time = 9.9
    assert (await world.seen()).allowed == 0
    world.time = 10
    assert (await world.seen()).allowed == 3
    world.budgets.hold("drain", ())


async def test_what_was_decided_on_an_older_budget_corrects_no_newer_one() -> None:
    world = World()
    before = await world.open()
    world.news.put_nowait(budget(2, allowed=2))
    await world.seen()
    world.budgets.spend(before)
    assert (await world.seen()).allowed == 2
    world.budgets.hold("drain", ())


async def test_a_pod_whose_labels_change_is_under_another_budget() -> None:
    world = World()
    await world.open()
    relabelled = Pod("s", "a", "a", ready=True, labels={"app": "other"})
    assert world.budgets.of(relabelled) == ()
    assert world.budgets.of(world.pod)
    world.budgets.hold("drain", ())


async def test_nothing_is_remembered_of_namespaces_that_nobody_holds() -> None:
    world = World()
    world.budgets.spend(await world.open())
    world.time = 11
    world.budgets.hold("drain", ())
    assert not any((world.budgets._covering, world.budgets._known, world.budgets._corrections))
    assert world.budgets.of(world.pod) is None
