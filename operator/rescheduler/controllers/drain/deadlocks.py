"""Finds out, live, whether two drains that are both Blocked hold each other up, and notes who steps back."""

import structlog

from rescheduler.api import names
from rescheduler.api.drains import NodeDrain
from rescheduler.controllers.evacuation.budget_watch import Budgets
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.readable import readable
from rescheduler.controllers.runtime.store import Kind, Store
from rescheduler.core.drain import deadlocks
from rescheduler.core.model import object_schemas
from rescheduler.core.model.nodes import Node
from rescheduler.kube import paths
from rescheduler.kube.client import Client, Json

log = structlog.get_logger("rescheduler.standoffs")

_EVERY = 30.0  # seconds between two looks of one drain: it has been Blocked for minutes


class Standoffs:
    """What one drain asks of the others."""

    def __init__(self, client: Client, store: Store, clock: Clock, budgets: Budgets) -> None:
        self._client, self._store, self._clock, self._budgets = client, store, clock, budgets
        self._next = 0.0

    async def look(self, drain: NodeDrain, here: Node) -> None:
        """Where this drain and an older one hold each other up, note on ours that it steps back."""
        now, world = self._clock.monotonic(), self._store.world()
        rivals = deadlocks.opponents(drain, world.drains.values(), world.now)
        if not rivals or now < self._next:
            return
        self._next = now + _EVERY
        for other in rivals:
            there = world.nodes.get(other.spec.node_name)
            if there and await self._waits(drain, there) and await self._waits(other, here):
                log.warning("drain.steps_back", drain=drain.name, node=here.name, uid=here.uid, other=other.name)
                await self._annotate(drain, f"{other.name}/{other.uid}")
                return

    async def forget(self, drain: NodeDrain) -> None:
        """The other is Drained or gone."""
        await self._annotate(drain, None)

    async def _annotate(self, drain: NodeDrain, stepped: str | None) -> None:
        meta = {"resourceVersion": drain.resource_version, "annotations": {names.STEPPED_BACK: stepped}}
        self._store.put(Kind.DRAIN, await self._client.patch(paths.drain(drain.name), {"metadata": meta}))

    async def _waits(self, drain: NodeDrain, node: Node) -> bool:
        """Whether this drain waits for that node.

        A pod that no node has would fill one of its budgets, and may run there; or one of its own would have room there.
        """
        named, roomless = deadlocks.short(drain), deadlocks.roomless(drain)
        budgets = [budget for space, name in named if (budget := self._budgets.named(space, name))]
        there = await self._pods(paths.PODS, node.name)
        for space in {budget.namespace for budget in budgets}:
            for raw in await self._pods(paths.namespaced("v1", space, "pods"), ""):
                if deadlocks.would_fill(raw, budgets, node, there):
                    return True
        own = await self._pods(paths.PODS, drain.spec.node_name) if roomless else ()
        without = (raw for raw in own if (raw["metadata"]["namespace"], raw["metadata"]["name"]) in roomless)
        return any(deadlocks.would_fit(raw, node, there) for raw in without)

    async def _pods(self, path: str, node: str) -> list[Json]:
        """The pods bound to a node; with an empty name those that none has."""
        return [
            raw
            async for page in self._client.list(path, fieldSelector=f"spec.nodeName={node}")
            for raw in readable(page["items"], object_schemas.pod)
        ]
