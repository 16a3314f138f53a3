"""The writer of records of finished drains: once each, and never in the way of a drain."""

import asyncio
from datetime import timedelta
from typing import Any

import looptime
from structlog.testing import capture_logs

from rescheduler.api import names
from rescheduler.api.history import DrainRecord, Outcome
from rescheduler.controllers.drain.history_writer import HistoryWriter
from rescheduler.core.drain import history
from rescheduler.core.model.raw import RawObject
from unit.builders import NOW
from unit.fakes import FakeClock, FakeClusterClient


def record(name: str = "n1", **changes: Any) -> DrainRecord:
    fields: dict[str, Any] = {
        "node": name,
        "drain_uid": f"uid-{name}",
        "outcome": Outcome.DRAINED,
        "started_at": NOW,
        "ended_at": NOW + timedelta(minutes=1),
    }
    return DrainRecord(**(fields | changes))


class HistoryClient(FakeClusterClient):
    async def get(self, path: str, *, election: bool = False, **params: str | int) -> RawObject:
        if error := self.refused.get("GET configmaps"):
            raise error
        found = await self.find(path)
        assert found
        return found


class World:
    def __init__(self) -> None:
        self.client, self.clock = HistoryClient(), FakeClock()
        metadata = {"name": names.HISTORY, "namespace": "system", "uid": "h"}
        self.client.put("configmaps", {"metadata": metadata, "data": {"note": "of somebody else"}})
        self.writer = HistoryWriter(self.client, self.clock, "system")

    @property
    def data(self) -> dict[str, str]:
        return dict(self.client.objects("configmaps")["h"]["data"])


async def test_a_record_is_logged_and_kept_once() -> None:
    world = World()
    with capture_logs() as logs:
        await world.writer.write(record())
        await world.writer.write(record(ended_at=NOW + timedelta(minutes=9)))  # the finalizer could not be removed
    assert [(line["event"], line["node"], line["drainUID"]) for line in logs] == [("audit.drain", "n1", "uid-n1")]
    assert len(world.client.written) == 1
    assert history.parse_records(world.data) == [record()]
    assert world.data["note"] == "of somebody else"


async def test_a_new_leader_writes_no_second_record() -> None:
    world = World()
    await world.writer.write(record())
    await HistoryWriter(world.client, world.clock, "system").write(record())
    assert len(history.parse_records(world.data)) == 1


async def test_a_drain_that_never_began_is_logged_only() -> None:
    world = World()
    with capture_logs() as logs:
        await world.writer.write(record(started_at=None, outcome=Outcome.NOT_STARTED))
    assert [line["outcome"] for line in logs] == ["NotStarted"]
    assert not world.client.written


async def test_a_refused_record_is_reported_and_written_with_the_next() -> None:
    world = World()
    for request, code in (("GET configmaps", 404), ("PATCH configmaps", 403)):
        world.client.refuse(request, code, "no")
    with capture_logs() as logs:
        await world.writer.write(record("n1"))
    assert [line["event"] for line in logs] == ["audit.drain", "history.not_written"]
    world.client.refused.clear()
    await world.writer.write(record("n2"))
    assert [found.node for found in history.parse_records(world.data)] == ["n1", "n2"]


def test_a_silent_server_holds_a_drain_for_five_seconds_and_many_drains_share_a_write() -> None:
    async def scenario() -> float:
        world, loop = World(), asyncio.get_running_loop()
        world.client.stalled, began = asyncio.Event(), loop.time()
        await asyncio.gather(*(world.writer.write(record(f"n{number}")) for number in range(20)))
        held = loop.time() - began
        world.client.stalled.set()
        world.client.written.clear()
        await asyncio.gather(*(world.writer.write(record(f"m{number}")) for number in range(20)))
        assert len(world.client.written) == 1
        assert len(history.parse_records(world.data)) == 40
        return held

    with asyncio.Runner(loop_factory=lambda: looptime.new_event_loop(start=0.0, noop_cycles=0)) as runner:
        assert runner.run(scenario()) == 5.0
