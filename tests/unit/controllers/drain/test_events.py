"""Event about an unreadable object."""

from typing import Any

import pytest

from rescheduler.controllers.drain.events import DrainEvents
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.controllers.store.object_cache import ResourceKind, UnreadableObject


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
