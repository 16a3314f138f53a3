"""Events: repetitions count one up."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from rescheduler.core.answers import Refusal
from rescheduler.kube.client import ApiError
from rescheduler.kube.recorder import Kind, Recorder, Subject

NODE = Subject("v1", "Node", "n1", "u")


class Server:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.made: list[Mapping[str, Any]] = []
        self.patched: list[Mapping[str, Any]] = []
        self.gone = False

    async def create(self, path: str, body: Mapping[str, Any]) -> None:
        self.made.append(body)

    async def patch(self, path: str, body: Mapping[str, Any]) -> None:
        if self.gone:
            raise ApiError("PATCH", path, Refusal(404))
        self.patched.append(body)


def recorder(server: Server) -> Recorder:
    return Recorder(server, identity="x", now=lambda: datetime(2026, 1, 1, tzinfo=UTC))  # type: ignore[arg-type]


async def test_the_same_words_again_count_up_one_event() -> None:
    server = Server()
    events = recorder(server)
    for _ in range(3):
        await events.emit(NODE, Kind.WARNING, "Blocked", "why")
    assert len(server.made) == 1
    assert [body["count"] for body in server.patched] == [2, 3]
    await events.emit(NODE, Kind.WARNING, "Blocked", "something else")
    assert len(server.made) == 2


async def test_an_event_that_the_server_has_dropped_is_made_anew() -> None:
    server = Server()
    events = recorder(server)
    await events.emit(NODE, Kind.WARNING, "Blocked", "why")
    server.gone = True
    await events.emit(NODE, Kind.WARNING, "Blocked", "why")
    assert len(server.made) == 2
    assert server.made[1]["count"] == 2
