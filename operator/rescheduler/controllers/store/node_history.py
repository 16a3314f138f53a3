"""History of nodes: the conditions, boots, cordons and silent Leases that this process observed."""

from collections.abc import Callable, Mapping
from datetime import datetime

from rescheduler.api.policies import ReschedulePolicy
from rescheduler.core.failure import condition_history, fencing
from rescheduler.core.failure.condition_history import ConditionHistory
from rescheduler.core.failure.fencing import BootHistory
from rescheduler.core.model.nodes import CONDITION_UNKNOWN, Node


class NodeHistory:
    """Observations of nodes by name.

    Attributes:
        conditions: condition history of each node.
        unknown_nodes: nodes whose Ready condition is Unknown.
        suspected_nodes: nodes whose Lease is not renewed.
        nodes_with_late_lease: nodes whose Lease is late, while there are suspected nodes.
        nodes_with_renewed_lease: nodes whose Ready condition is Unknown although their Lease is renewed.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        """Create an empty history; `now` gives the operator's time."""
        self._now = now
        self._conditions: dict[str, ConditionHistory] = {}
        self._boots: dict[str, BootHistory] = {}
        self._cordons: dict[str, datetime] = {}
        self.unknown_nodes: set[str] = set()
        self.conditions: Mapping[str, ConditionHistory] = self._conditions
        self.suspected_nodes: frozenset[str] = frozenset()
        self.nodes_with_late_lease: frozenset[str] = frozenset()
        self.nodes_with_renewed_lease: frozenset[str] = frozenset()

    def observe(self, before: Node | None, node: Node, policy: ReschedulePolicy | None) -> None:
        """Record one observation of a node with its winning policy; `before`: the observation before it."""
        self._boots[node.name] = fencing.observe_boot(self._boots.get(node.name), node)
        self._observe_cordon(before, node)
        if node.ready_status == CONDITION_UNKNOWN:
            self.unknown_nodes.add(node.name)
        else:
            self.unknown_nodes.discard(node.name)
        if before != node:  # also for a new node: a standby must know that a node was Ready once
            self.refresh_conditions(node, policy)

    def _observe_cordon(self, before: Node | None, node: Node) -> None:
        """Record the time of a cordon. A task that reads the node later would miss an uncordon in between."""
        if not node.unschedulable:
            self._cordons.pop(node.name, None)
        elif before and not before.unschedulable:
            self._cordons[node.name] = self._now()

    def forget(self, name: str) -> None:
        """Drop the observations of a deleted node; the next Leases replace the sets of suspected nodes."""
        self._conditions.pop(name, None)
        self._boots.pop(name, None)
        self._cordons.pop(name, None)
        self.unknown_nodes.discard(name)

    def refresh_conditions(self, node: Node, policy: ReschedulePolicy | None) -> ConditionHistory:
        """Return the condition history of a node, updated to now."""
        history = condition_history.observe(
            self._conditions.get(node.name), node, policy, self._now(), suspected=node.name in self.suspected_nodes
        )
        self._conditions[node.name] = history
        return history

    def amend_conditions(self, name: str, change: Callable[[ConditionHistory], ConditionHistory]) -> ConditionHistory:
        """Change the history of a node by the record in its NodeDrain, which covers the time before this process."""
        self._conditions[name] = change(self._conditions[name])
        return self._conditions[name]

    def restart_condition_timers(self) -> None:
        """Let every `for` start again, because the operator was blind until now."""
        now = self._now()
        for name, history in self._conditions.items():
            self._conditions[name] = condition_history.restart_timers(history, now)

    def boots(self, name: str) -> BootHistory | None:
        """Return the boots of a node that this process has observed; None for an unknown node."""
        return self._boots.get(name)

    def cordoned_at(self, name: str) -> datetime | None:
        """Return when this process saw the cordon of a node; None without cordon, or if the cordon is older."""
        return self._cordons.get(name)

    def set_suspected_nodes(
        self, suspected: frozenset[str], with_late_lease: frozenset[str], with_renewed_lease: frozenset[str]
    ) -> bool:
        """Replace the sets of suspected nodes; return whether a set has changed. It changes no condition history."""
        before = self.suspected_nodes, self.nodes_with_late_lease, self.nodes_with_renewed_lease
        self.suspected_nodes = suspected
        self.nodes_with_late_lease = with_late_lease
        self.nodes_with_renewed_lease = with_renewed_lease
        return before != (suspected, with_late_lease, with_renewed_lease)
