"""Events about an unreadable object, and about pods that stay."""

from typing import Any

import pytest

from rescheduler.api.drains import NodeDrainStatus, Phase
from rescheduler.controllers.drain.events import DrainEvents
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.controllers.store.object_cache import ResourceKind, UnreadableObject
from rescheduler.core.drain.pod_summary import PodSummary
from rescheduler.core.drain.state_machine import Report
from rescheduler.core.drain.status import StatusInput
from unit.builders import NOW, drain, pod


class Recorder:
    """Record Events."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, str, str]] = []

    def emit(self, subject: Any, kind: str, reason: str, message: str) -> None:
        self.events.append((subject.kind, subject.name, reason, message))


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("kind", list(ResourceKind))
def test_the_event_has_object_cause_and_effect_once(kind: ResourceKind, known: bool) -> None:
    recorder: Any = Recorder()
    announcer = DrainEvents(recorder, Metrics())
    for _ in range(2):
        announcer.publish_unreadable(UnreadableObject(kind, "x", "u", "mode: Dream is no mode", known))
    ((subject, name, reason, message),) = recorder.events
    assert (name, reason) == ("x", "Unreadable")
    assert f"{subject} x cannot be read" in message
    assert "mode: Dream is no mode" in message
    assert ("its last readable version still applies" in message) is known
    announcer.publish_unreadable(UnreadableObject(kind, "x", "u", "another cause", known))
    assert len(recorder.events) == 2


def test_the_event_of_a_drained_node_names_the_pods_that_stay() -> None:
    recorder: Any = Recorder()
    begun = drain("n1", begun=True)
    facts: Any = {"started_at": NOW, "moved": 2, "now": NOW, "report": Report.PHASE, "node_record": None}
    summary = PodSummary(staying=((pod("a"), "it tolerates the cordon"),))
    status_input = StatusInput(begun, None, None, Phase.DRAINED, wait=None, pod_summary=summary, **facts)
    drained = NodeDrainStatus(phase=Phase.DRAINED, progress="2/2")
    DrainEvents(recorder, Metrics()).publish_status_change(status_input, begun.status, drained, {}, {})
    assert recorder.events == [
        (
            "NodeDrain",
            "n1",
            "Drained",
            "Drained: 2/2 pods have left; 1 pod stays on the node: s/a (it tolerates the cordon)",
        )
    ]
