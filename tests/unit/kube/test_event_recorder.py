"""Kubernetes Events: repetitions increase the count."""

import asyncio
import contextlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from rescheduler.core.eviction.api_responses import ErrorResponse
from rescheduler.kube.client import ApiError
from rescheduler.kube.event_recorder import EventRecorder, EventType, InvolvedObject

NODE = InvolvedObject("v1", "Node", "n1", "u")


class Server:
    """Record what is written."""

    def __init__(self) -> None:
        self.made: list[Mapping[str, Any]] = []
        self.patched: list[Mapping[str, Any]] = []
        self.gone = False

    async def create(self, path: str, body: Mapping[str, Any], *, election: bool) -> None:
        self.made.append(body)

    async def patch(self, path: str, body: Mapping[str, Any], *, election: bool) -> None:
        if self.gone:
            raise ApiError("PATCH", path, ErrorResponse(404))
        self.patched.append(body)


def recorder(server: Server) -> EventRecorder:
    return EventRecorder(server, identity="x", now=lambda: datetime(2026, 1, 1, tzinfo=UTC))  # type: ignore[arg-type]


async def write(events: EventRecorder) -> None:
    """Write the waiting Events, as at the end of a process."""
    work = asyncio.create_task(events.run())
    await asyncio.sleep(0)
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work


async def test_a_repeated_event_increases_the_count() -> None:
    server = Server()
    events = recorder(server)
    for _ in range(3):
        events.emit(NODE, EventType.WARNING, "Blocked", "why")
    await write(events)
    assert len(server.made) == 1
    assert [body["count"] for body in server.patched] == [2, 3]
    events.emit(NODE, EventType.WARNING, "Blocked", "something else")
    await write(events)
    assert len(server.made) == 2


async def test_an_expired_event_is_created_again() -> None:
    server = Server()
    events = recorder(server)
    events.emit(NODE, EventType.WARNING, "Blocked", "why")
    await write(events)
    server.gone = True
    events.emit(NODE, EventType.WARNING, "Blocked", "why")
    await write(events)
    assert len(server.made) == 2
    assert server.made[1]["count"] == 2


async def test_events_above_the_limit_are_lost_and_reported() -> None:
    server, lost = Server(), []
    events = EventRecorder(
        server,  # type: ignore[arg-type]
        identity="x",
        now=lambda: datetime(2026, 1, 1, tzinfo=UTC),
        on_lost=lambda reason, error: lost.append((reason, error)),
    )
    for index in range(2001):
        events.emit(NODE, EventType.NORMAL, "Many", str(index))
    assert [reason for reason, _ in lost] == ["Many"]
