"""Find out live whether two Blocked drains block each other, and record which drain steps back."""

import structlog

from rescheduler.api import names
from rescheduler.api.drains import NodeDrain
from rescheduler.controllers.evacuation.budget_watch import BudgetWatch
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.readable import readable_objects
from rescheduler.controllers.store.object_cache import ResourceKind
from rescheduler.controllers.store.store import Store
from rescheduler.core.drain import deadlocks
from rescheduler.core.model.listed_pods import ListedPod, parse_listed_pod
from rescheduler.core.model.nodes import Node
from rescheduler.kube import paths
from rescheduler.kube.client import Client

log = structlog.get_logger("rescheduler.drain.deadlocks")

_CHECK_INTERVAL = 30.0  # seconds; the drain has been Blocked for minutes


class DeadlockResolver:
    """Detects the deadlocks of one drain."""

    def __init__(self, client: Client, store: Store, clock: Clock, budgets: BudgetWatch) -> None:
        self._client, self._store, self._clock, self._budgets = client, store, clock, budgets
        self._next_check_at = 0.0

    async def resolve(self, drain: NodeDrain, node: Node) -> None:
        """Record on the NodeDrain that it steps back, if this drain and an older one block each other."""
        now, cluster_state = self._clock.monotonic(), self._store.cluster_state()
        candidates = deadlocks.deadlock_candidates(drain, cluster_state.drains.values(), cluster_state.now)
        if not candidates or now < self._next_check_at:
            return
        self._next_check_at = now + _CHECK_INTERVAL
        for other in candidates:
            other_node = cluster_state.nodes.get(other.spec.node_name)
            if other_node and await self._waits_for_node(drain, other_node) and await self._waits_for_node(other, node):
                log.warning("drain.steps_back", drain=drain.name, node=node.name, uid=node.uid, other=other.name)
                await self._annotate(drain, f"{other.name}/{other.uid}")
                return

    async def clear_step_back(self, drain: NodeDrain) -> None:
        """Remove the record: the other drain is Drained or gone."""
        await self._annotate(drain, None)

    async def _annotate(self, drain: NodeDrain, stepped_back_for: str | None) -> None:
        meta = {"resourceVersion": drain.resource_version, "annotations": {names.STEPPED_BACK: stepped_back_for}}
        self._store.put(ResourceKind.DRAIN, await self._client.patch(paths.drain(drain.name), {"metadata": meta}))

    async def _waits_for_node(self, drain: NodeDrain, node: Node) -> bool:
        """Whether this drain waits for that node.

        A pending pod would satisfy a budget of the drain and may run on the node, or a pod of the drain would have room
        there.
        """
        budget_keys, keys_without_room = deadlocks.exhausted_budgets(drain), deadlocks.pods_without_room(drain)
        budgets = [budget for namespace, name in budget_keys if (budget := self._budgets.by_name(namespace, name))]
        pods_on_node = await self._list_pods(paths.PODS, node.name)
        for namespace in {budget.namespace for budget in budgets}:
            for pod in await self._list_pods(paths.in_namespace("v1", namespace, "pods"), ""):
                if deadlocks.would_count_toward_budget(pod, budgets, node, pods_on_node):
                    return True
        own_pods = await self._list_pods(paths.PODS, drain.spec.node_name) if keys_without_room else ()
        pods_without_room = (pod for pod in own_pods if (pod.namespace, pod.name) in keys_without_room)
        return any(deadlocks.would_fit(pod, node, pods_on_node) for pod in pods_without_room)

    async def _list_pods(self, path: str, node: str) -> list[ListedPod]:
        """Return the pods bound to a node; with an empty name, the pods bound to no node."""
        return [
            pod
            async for page in self._client.list(path, fieldSelector=f"spec.nodeName={node}")
            for pod in readable_objects(page["items"], parse_listed_pod)
        ]
