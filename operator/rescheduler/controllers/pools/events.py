"""Events of pools: on the NamespacePool, and on a node that keeps the label of a deleted pool."""

from collections.abc import Sequence

from rescheduler.api import API_VERSION
from rescheduler.api.pools import NamespacePool, NamespacePoolStatus
from rescheduler.controllers.drain.events import involved_node
from rescheduler.core.model.nodes import Node
from rescheduler.core.pools import messages
from rescheduler.kube.event_recorder import EventRecorder, EventType, InvolvedObject

_REPORTED_CONDITIONS = {"Conflict": "True", "TaintHeldBack": "True", "Enforced": "False", "SurvivesNodeLoss": "False"}
"""Conditions that become an Event when they get this status."""
_OVERWRITTEN = "Overwritten"


class PoolEvents:
    """Publish each change once."""

    def __init__(self, recorder: EventRecorder) -> None:
        self._recorder = recorder

    def publish_status_change(
        self, pool: NamespacePool, before: NamespacePoolStatus, after: NamespacePoolStatus
    ) -> None:
        """Publish a Warning for each condition that got a bad status in this write."""
        known = {(c.type, c.status, c.reason) for c in before.conditions}
        involved_pool = InvolvedObject(API_VERSION, "NamespacePool", pool.name, pool.uid)
        for condition in after.conditions:
            is_new = (condition.type, condition.status, condition.reason) not in known
            if is_new and _REPORTED_CONDITIONS.get(condition.type) == condition.status and condition.reason != "Audit":
                reason = condition.type if condition.status == "True" else f"Not{condition.type}"
                self._recorder.emit(involved_pool, EventType.WARNING, reason, condition.message)
            elif is_new and condition.reason == _OVERWRITTEN:
                self._recorder.emit(involved_pool, EventType.WARNING, _OVERWRITTEN, condition.message)

    def publish_label_kept(self, node: Node, pool: str, pods: Sequence[str]) -> None:
        """Publish that pods keep the label of a deleted pool on a node."""
        self._recorder.emit(involved_node(node), EventType.NORMAL, "PoolLabelKept", messages.label_kept(pool, pods))
