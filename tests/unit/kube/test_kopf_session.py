"""Kopf's watch of nodes sees only errors that it survives."""

import json
from typing import Any

import pytest

from rescheduler.kube import kopf_session
from rescheduler.kube.backoff import Backoff
from rescheduler.kube.client import Client
from rescheduler.kube.kopf_session import NodeWatchShield
from unit.fakes import FakeApiServer

WATCH = "/api/v1/nodes?watch=true&resourceVersion=1"


def line(kind: str, raw: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": raw}).encode() + b"\n"


NODE = {"metadata": {"name": "n", "uid": "u", "resourceVersion": "5"}}
GOOD = line("MODIFIED", NODE)
BOOKMARK = line("BOOKMARK", {"metadata": {"resourceVersion": "6"}})
EXPIRED = line("ERROR", {"kind": "Status", "code": 410})


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kopf_session, "Backoff", lambda *_: Backoff(0.001, 0.002))


async def read(api: FakeApiServer, client: Client, path: str = WATCH) -> tuple[int, bytes]:
    """Return the status and the body of a response, read as Kopf does."""
    session = await client.session(NodeWatchShield())
    async with session.get(f"{api.host}{path}") as response:
        body = b"".join([chunk async for chunk in response.content.iter_chunked(1024)])
    await session.close()
    return response.status, body


@pytest.mark.parametrize(("code", "seen"), [(400, 429), (401, 401), (404, 429), (410, 429), (429, 429), (503, 429)])
async def test_a_refused_list_or_watch_is_one_that_kopf_retries(
    api: FakeApiServer, client: Client, code: int, seen: int
) -> None:
    api.answer = api.say(b"{}", status=code)
    assert (await read(api, client))[0] == seen
    assert (await read(api, client, "/api/v1/nodes?limit=5"))[0] == seen


async def test_other_requests_are_left_alone(api: FakeApiServer, client: Client) -> None:
    api.answer = api.say(b"no json", status=404)
    assert await read(api, client, "/apis/x/v1") == (404, b"no json")


async def test_good_events_pass_whatever_their_chunks(api: FakeApiServer, client: Client) -> None:
    whole = GOOD + BOOKMARK + EXPIRED + GOOD
    api.stream(*(whole[at : at + 30] for at in range(0, len(whole), 30)))
    assert await read(api, client) == (200, whole)


@pytest.mark.parametrize(
    "bad",
    [
        line("ERROR", {"kind": "Status", "code": 500}),
        line("ERROR", {"kind": "Status", "code": 504}),
        line("TELEPORTED", NODE),
        line("MODIFIED", {"metadata": {"resourceVersion": "5"}}),
        line("BOOKMARK", {"metadata": {"resourceVersion": None}}),
        line("MODIFIED", {}),
        b"<html>bad gateway</html>\n",
        b"[]\n",
        b"[" * 20_000 + b"\n",
        GOOD[:40] + b"\n",
    ],
)
async def test_a_bad_event_asks_kopf_for_a_new_list(api: FakeApiServer, client: Client, bad: bytes) -> None:
    api.stream(GOOD, bad, GOOD)
    status, body = await read(api, client)
    assert (status, body) == (200, GOOD + EXPIRED)


async def test_half_a_line_at_the_end_is_dropped(api: FakeApiServer, client: Client) -> None:
    api.stream(GOOD, GOOD[:40])
    assert await read(api, client) == (200, GOOD)
