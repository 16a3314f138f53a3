"""Events and metrics of rebalancing. The Events are on the source node, because no user requested the moves."""

from collections.abc import Sequence

from rescheduler.controllers.drain.events import involved_node
from rescheduler.controllers.rebalance import messages
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.core.rebalance.node_groups import NodeGroup
from rescheduler.core.rebalance.selection import NodeClassification, PlannedMove
from rescheduler.core.rebalance.utilization import NodeLoad, standard_deviation
from rescheduler.kube.event_recorder import EventRecorder, EventType


class RebalanceEvents:
    """Publishes the Events and metrics of rebalancing."""

    def __init__(self, recorder: EventRecorder, metrics: Metrics) -> None:
        self._recorder, self._metrics = recorder, metrics
        self._audited_pods: dict[tuple[str, str], frozenset[str]] = {}  # by group: UIDs in the last WouldRebalance

    def set_deviation(self, group: NodeGroup, loads: Sequence[NodeLoad]) -> None:
        """Set the metric of the standard deviation of a group's utilization."""
        deviation = standard_deviation(loads)
        for resource, value in (("cpu", deviation.cpu), ("memory", deviation.memory)):
            self._metrics.load_deviation.labels(*self._bounded(group.pool, group.policy.name), resource).set(value)

    def forget(self, pool: str, policy: str) -> None:
        """Drop the metric and the state of a group that no longer exists."""
        self._audited_pods.pop((pool, policy), None)
        for resource in ("cpu", "memory"):
            self._metrics.load_deviation.remove(*self._bounded(pool, policy), resource)

    def _bounded(self, pool: str, policy: str) -> tuple[str, str]:
        return self._metrics.bounded_name(pool), self._metrics.bounded_name(policy)

    def publish_moving(
        self, group: NodeGroup, classification: NodeClassification, moves: Sequence[PlannedMove]
    ) -> None:
        """Publish an Event for each move that starts."""
        for move in moves:
            self._publish(group, classification, move, "Rebalancing", audit=False)

    def publish_would_move(
        self, group: NodeGroup, classification: NodeClassification, moves: Sequence[PlannedMove]
    ) -> None:
        """Publish an Event for each move that mode Audit prevents, once for each set of pods."""
        uids = frozenset(move.candidate.pod.uid for move in moves)
        if self._audited_pods.get(group.key) != uids:
            self._audited_pods[group.key] = uids
            for move in moves:
                self._publish(group, classification, move, "WouldRebalance", audit=True)

    def count_move(self, group: NodeGroup, outcome: str) -> None:
        """Count a move by its outcome."""
        self._metrics.rebalance_moves.labels(self._metrics.bounded_name(group.pool), outcome).inc()

    def publish_stopped(self, group: NodeGroup) -> None:
        """Publish that rebalancing of the group has stopped, because moves have not helped."""
        message = messages.rebalancing_stopped(group.pool)
        self._recorder.emit(involved_node(group.nodes[0]), EventType.WARNING, "RebalancingStopped", message)

    def _publish(
        self, group: NodeGroup, classification: NodeClassification, move: PlannedMove, reason: str, *, audit: bool
    ) -> None:
        pod = move.candidate.pod
        source = next(load for load in classification.source_nodes if load.name == pod.node)
        utilization = source.sustained_utilization
        message = messages.rebalance_move(
            pod.key,
            move.node_share,
            utilization,
            high=group.policy.spec.rebalance.high if utilization.max_share > group.thresholds.high else None,
            destinations=[load.name for load in classification.destination_nodes],
            audit=audit,
        )
        self._recorder.emit(involved_node(source.node), EventType.NORMAL, reason, message)
