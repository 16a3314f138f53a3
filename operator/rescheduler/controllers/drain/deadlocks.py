"""Finds out, live, whether two drains that are both Blocked hold each other up, and notes who steps back."""

import structlog

from rescheduler.api import names
from rescheduler.api.drains import NodeDrain
from rescheduler.controllers.evacuation.budget_watch import BudgetWatch
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.readable import readable_objects
from rescheduler.controllers.runtime.store import ResourceKind, Store
from rescheduler.core.drain import deadlocks
from rescheduler.core.model import object_schemas
from rescheduler.core.model.nodes import Node
from rescheduler.kube import paths
from rescheduler.kube.client import Client, Json

log = structlog.get_logger("rescheduler.standoffs")

_CHECK_INTERVAL = 30.0  # seconds between two looks of one drain: it has been Blocked for minutes


class DeadlockResolver:
    """What one drain asks of the others."""

    def __init__(self, client: Client, store: Store, clock: Clock, budgets: BudgetWatch) -> None:
        self._client, self._store, self._clock, self._budgets = client, store, clock, budgets
        self._next_check_at = 0.0

    async def resolve(self, drain: NodeDrain, node: Node) -> None:
        """Where this drain and an older one hold each other up, note on ours that it steps back."""
        now, world = self._clock.monotonic(), self._store.cluster_state()
        rivals = deadlocks.deadlock_candidates(drain, world.drains.values(), world.now)
        if not rivals or now < self._next_check_at:
            return
        self._next_check_at = now + _CHECK_INTERVAL
        for other in rivals:
            there = world.nodes.get(other.spec.node_name)
            if there and await self._waits_for_node(drain, there) and await self._waits_for_node(other, node):
                log.warning("drain.steps_back", drain=drain.name, node=node.name, uid=node.uid, other=other.name)
                await self._annotate(drain, f"{other.name}/{other.uid}")
                return

    async def clear_step_back(self, drain: NodeDrain) -> None:
        """The other is Drained or gone."""
        await self._annotate(drain, None)

    async def _annotate(self, drain: NodeDrain, stepped_back_for: str | None) -> None:
        meta = {"resourceVersion": drain.resource_version, "annotations": {names.STEPPED_BACK: stepped_back_for}}
        self._store.put(ResourceKind.DRAIN, await self._client.patch(paths.drain(drain.name), {"metadata": meta}))

    async def _waits_for_node(self, drain: NodeDrain, node: Node) -> bool:
        """Whether this drain waits for that node.

        A pod that no node has would fill one of its budgets, and may run there; or one of its own would have room there.
        """
        named, roomless = deadlocks.exhausted_budgets(drain), deadlocks.pods_without_room(drain)
        budgets = [budget for space, name in named if (budget := self._budgets.by_name(space, name))]
        there = await self._list_pods(paths.PODS, node.name)
        for space in {budget.namespace for budget in budgets}:
            for raw in await self._list_pods(paths.in_namespace("v1", space, "pods"), ""):
                if deadlocks.would_count_toward_budget(raw, budgets, node, there):
                    return True
        own = await self._list_pods(paths.PODS, drain.spec.node_name) if roomless else ()
        without = (raw for raw in own if (raw["metadata"]["namespace"], raw["metadata"]["name"]) in roomless)
        return any(deadlocks.would_fit(raw, node, there) for raw in without)

    async def _list_pods(self, path: str, node: str) -> list[Json]:
        """The pods bound to a node; with an empty name those that none has."""
        return [
            raw
            async for page in self._client.list(path, fieldSelector=f"spec.nodeName={node}")
            for raw in readable_objects(page["items"], object_schemas.sanitize_pod)
        ]
