"""Events and metrics of evening out: what is moved off which node, and why; on the node, for nobody asked for it."""

from collections.abc import Sequence

from rescheduler.controllers.drain.events import involved_node
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.core.rebalance.node_groups import NodeGroup
from rescheduler.core.rebalance.selection import NodeClassification, PlannedMove
from rescheduler.core.rebalance.utilization import NodeLoad, standard_deviation
from rescheduler.kube.event_recorder import EventRecorder, EventType


class RebalanceEvents:
    """Says what changed, once."""

    def __init__(self, recorder: EventRecorder, metrics: Metrics) -> None:
        self._recorder, self._metrics = recorder, metrics
        self._audited_pods: dict[tuple[str, str], frozenset[str]] = {}  # by arena: uids of pods that Audit named

    def set_deviation(self, group: NodeGroup, loads: Sequence[NodeLoad]) -> None:
        """How uneven an arena is now."""
        found = standard_deviation(loads)
        for resource, value in (("cpu", found.cpu), ("memory", found.memory)):
            self._metrics.load_deviation.labels(group.pool, group.policy.name, resource).set(value)

    def forget(self, pool: str, policy: str) -> None:
        """An arena is gone."""
        self._audited_pods.pop((pool, policy), None)
        for resource in ("cpu", "memory"):
            self._metrics.load_deviation.remove(pool, policy, resource)

    def publish_moving(
        self, group: NodeGroup, classification: NodeClassification, moves: Sequence[PlannedMove]
    ) -> None:
        """These are moved now."""
        for shift in moves:
            self._publish(group, classification, shift, "Rebalancing", "Moving")

    def publish_would_move(
        self, group: NodeGroup, classification: NodeClassification, moves: Sequence[PlannedMove]
    ) -> None:
        """In mode Audit: these would be moved."""
        uids = frozenset(shift.candidate.pod.uid for shift in moves)
        if self._audited_pods.get(group.key) != uids:
            self._audited_pods[group.key] = uids
            for shift in moves:
                self._publish(group, classification, shift, "WouldRebalance", "In mode Enforce this would move")

    def count_move(self, group: NodeGroup, outcome: str) -> None:
        """What became of one move."""
        self._metrics.rebalance_moves.labels(group.pool, outcome).inc()

    def publish_stopped(self, group: NodeGroup) -> None:
        """Moves have not made the nodes more even: none is tried again before something changes."""
        message = (
            f"Moving pods has not evened out {group.description}: the scheduler puts them elsewhere than on the emptiest. "
            "Nothing more is moved until nodes, requests or the policy change"
        )
        self._recorder.emit(involved_node(group.nodes[0]), EventType.WARNING, "RebalancingStopped", message)

    def _publish(
        self, group: NodeGroup, classification: NodeClassification, move: PlannedMove, reason: str, action: str
    ) -> None:
        pod = move.candidate.pod
        giver = next(load for load in classification.source_nodes if load.name == pod.node)
        share, high = giver.sustained_utilization, group.policy.spec.rebalance.high
        fuller = share.max_share > group.thresholds.high
        why = f"above high ({high})" if fuller else "fuller than the mean"
        takers = [load.name for load in classification.destination_nodes]
        others = f"{', '.join(takers[:3])}{' and others' if len(takers) > 3 else ''}"
        message = (
            f"{action} pod {pod.key} ({_percent(move.node_share.cpu)} of the node's CPU, {_percent(move.node_share.memory)} of its "
            f"memory) off this node, which is {why} with {_percent(share.cpu)} CPU and {_percent(share.memory)} memory; "
            f"{others} {'has' if len(takers) == 1 else 'have'} room"
        )
        self._recorder.emit(involved_node(giver.node), EventType.NORMAL, reason, message)


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"
