"""Events of pools: on the NamespacePool, and on a node where its label outlives its pool."""

from collections.abc import Sequence

from rescheduler.api import API_VERSION
from rescheduler.api.pools import NamespacePool, NamespacePoolStatus
from rescheduler.controllers.drain.events import involved_node
from rescheduler.core.model.nodes import Node
from rescheduler.core.pools import taint_safety
from rescheduler.kube.event_recorder import EventRecorder, EventType, InvolvedObject

_REPORTED_CONDITIONS = {"Conflict": "True", "TaintHeldBack": "True", "Enforced": "False", "SurvivesNodeLoss": "False"}
"""Conditions that somebody should hear of once they have this status."""


class PoolEvents:
    """Says what changed, once."""

    def __init__(self, recorder: EventRecorder) -> None:
        self._recorder = recorder

    def publish_status_change(
        self, pool: NamespacePool, before: NamespacePoolStatus, after: NamespacePoolStatus
    ) -> None:
        """The status was written: what of it is news?"""
        known = {(c.type, c.status, c.reason) for c in before.conditions}
        subject = InvolvedObject(API_VERSION, "NamespacePool", pool.name, pool.uid)
        for condition in after.conditions:
            news = (condition.type, condition.status, condition.reason) not in known
            if news and _REPORTED_CONDITIONS.get(condition.type) == condition.status and condition.reason != "Audit":
                reason = condition.type if condition.status == "True" else f"Not{condition.type}"
                self._recorder.emit(subject, EventType.WARNING, reason, condition.message)

    def publish_label_kept(self, node: Node, pool: str, pods: Sequence[str]) -> None:
        """Pods hold the label of a pool that is gone."""
        message = (
            f"The label of pool {pool}, which is gone, stays until these pods have left, which can run on no other node "
            f"(a kubelet that restarts would fail them): {taint_safety.listing(pods)}"
        )
        self._recorder.emit(involved_node(node), EventType.NORMAL, "PoolLabelKept", message)
