"""Find the pod of another node whose move gives room to a pod that a drain cannot place."""

import asyncio
from collections.abc import Collection, Sequence

from rescheduler.controllers.evacuation import candidate_lists
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.store.store import Store
from rescheduler.core.failure.storm_brake import any_storm_reason
from rescheduler.core.placement import chain_moves
from rescheduler.core.placement.chain_moves import ChainMove
from rescheduler.core.placement.planner import Forecast
from rescheduler.core.placement.pod_snapshot import ScheduledPod
from rescheduler.core.placement.problem import PlacementInput
from rescheduler.core.rebalance import node_groups
from rescheduler.kube.client import Client


class ChainMoveFinder:
    """Finds chain moves for plans; only the pods of a few nodes are listed for it."""

    def __init__(self, client: Client, store: Store, clock: Clock, *, own_pod: str) -> None:
        self._client, self._store, self._clock, self._own_pod = client, store, clock, own_pod

    async def find(
        self,
        leaving: Sequence[ScheduledPod],
        forecasts: Sequence[Forecast],
        placement_input: PlacementInput,
        may_begin: Collection[str],
        max_tries: int,
    ) -> ChainMove | None:
        """Return the first chain move that gives room to a pod; None if there is none.

        `may_begin`: nodes whose drains may begin a chain move. `max_tries`: number of pods that are tried.
        """
        drained = {
            pod.node for pod, forecast in zip(leaving, forecasts, strict=True) if chain_moves.lacks_room(forecast)
        }
        allowed = {node: nodes for node in drained.intersection(may_begin) if (nodes := self._allowed_nodes(node))}
        if not allowed:
            return None
        plan = (leaving, forecasts, placement_input)
        asked = await asyncio.to_thread(chain_moves.nodes_to_ask, *plan, allowed)
        policies = {name: self._store.policy(placement_input.nodes[name]) for name in asked}
        settings = {name: policy.spec.drain for name, policy in policies.items() if policy}
        movable = await candidate_lists.list_movable_pods(
            self._client, settings, placement_input.pod_snapshot, self._clock.now(), own_pod=self._own_pod
        )
        by_drain = {node: [row for row in movable if row.pod.node in nodes] for node, nodes in allowed.items()}
        # One move at a time over all drains: the plan after it decides about the next one.
        limits = dict.fromkeys(allowed, 1)
        found = await asyncio.to_thread(chain_moves.find_chain_moves, *plan, by_drain, limits, max_tries)
        return next(iter(found.moves), None)

    def _allowed_nodes(self, drained_name: str) -> frozenset[str]:
        """Return the nodes whose pods may move for this drain; none during a storm."""
        state, node = self._store.cluster_state(), self._store.node(drained_name)
        policy = self._store.policy(node) if node else None
        if node is None or policy is None or any_storm_reason(node, policy, state.unhealthy_counts):
            return frozenset()
        return node_groups.nodes_for_chain_moves(node, state)
