"""Client against a faulty server: every fault becomes an error of the client module."""

import asyncio
import json
import socket
from typing import Any

import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kubernetes.aio.client import Configuration

from rescheduler.core.eviction.api_responses import ErrorResponse
from rescheduler.kube import connection_limits
from rescheduler.kube.client import (
    TRANSIENT_ERRORS,
    ApiError,
    Client,
    ExpiredError,
    NotLeaderError,
    UnreachableError,
    WatchStalledError,
    _parse_error,
    _parse_event,
    _parse_page,
)
from rescheduler.kube.connections import _open_socket
from unit.fakes import FakeApiServer

OWN = (*TRANSIENT_ERRORS, ExpiredError)
POD = {"metadata": {"name": "p", "uid": "u", "resourceVersion": "7"}}


async def events(client: Client, seen: list[tuple[str, Any]] | None = None, **how: Any) -> None:
    async for event in client.watch("/api/v1/pods", version="1", **how):
        if seen is not None:
            seen.append(event)


def line(**event: Any) -> bytes:
    return json.dumps(event).encode() + b"\n"


@pytest.mark.parametrize(
    "body",
    [b"{", b"[1]", b'"x"', b"7", b"null", b"<html>", b"\xff\xfe\x00", b"[" * 100_000, b'{"a":' * 100_000],
    ids=lambda body: repr(body[:8]),
)
async def test_a_response_that_is_no_json_object_is_an_error(api: FakeApiServer, client: Client, body: bytes) -> None:
    api.say(body)
    with pytest.raises(UnreachableError):
        await client.get("/api/v1/nodes/n")


async def test_an_empty_response_is_an_empty_object(api: FakeApiServer, client: Client) -> None:
    api.say(b"")
    assert await client.get("/api/v1/nodes/n") == {}


@pytest.mark.parametrize(
    "body", [b"{}", b'{"metadata": []}', b'{"metadata": {}, "items": 5}', b'{"metadata": {}, "items": [{}]}']
)
async def test_a_page_that_is_no_list_is_an_error(api: FakeApiServer, client: Client, body: bytes) -> None:
    api.say(body)
    with pytest.raises(UnreachableError):
        _ = [page async for page in client.list("/api/v1/pods")]


async def test_a_list_without_items_is_empty(api: FakeApiServer, client: Client) -> None:
    api.say(b'{"metadata": {"resourceVersion": "1"}, "items": null}')
    (page,) = [page async for page in client.list("/api/v1/pods")]
    assert page["items"] == []


@pytest.mark.parametrize(
    "bad",
    [
        b'{"type": "ADDED", "obj',
        b"<html>502</html>\n",
        b"[]\n",
        b'{"type": "ADDED"}\n',
        b'{"type": "ADDED", "object": {}}\n',
        b'{"type": "ADDED", "object": {"metadata": {"resourceVersion": 7}}}\n',
        line(type="WHO", object=POD),
        b"[" * 100_000 + b"\n",
        b'"' + b"x" * 5_000_000 + b'"\n',
    ],
    ids=lambda body: repr(body[:40]),
)
async def test_a_line_that_is_no_event_ends_the_watch(api: FakeApiServer, client: Client, bad: bytes) -> None:
    api.stream(line(type="ADDED", object=POD), bad)
    seen: list[tuple[str, Any]] = []
    with pytest.raises(UnreachableError):
        await events(client, seen)
    assert seen == [("ADDED", POD)]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ({"code": 410}, ExpiredError),
        ({"code": 403, "message": "no", "details": []}, ApiError),
        ({"code": "410"}, ApiError),
        ({}, ApiError),
    ],
)
async def test_an_error_event_of_a_watch_raises_its_error(
    api: FakeApiServer, client: Client, status: Any, error: type[Exception]
) -> None:
    api.stream(line(type="ERROR", object=status))
    with pytest.raises(error):
        await events(client)


async def test_a_watch_without_events_stalls_unless_bookmarks_arrive(api: FakeApiServer, client: Client) -> None:
    async def rests() -> None:
        await asyncio.sleep(5)

    api.stream(line(type="BOOKMARK", object=POD), then=rests)
    async with asyncio.timeout(3):
        with pytest.raises(WatchStalledError):
            await events(client, idle_timeout=0.1)
        api.answer = lambda _: asyncio.sleep(5)  # type: ignore[assignment,return-value]
        with pytest.raises(WatchStalledError):  # a watch without a response stalls too
            await events(client, idle_timeout=0.1)


async def test_connection_of_a_cancelled_watch_closes_at_once(
    api: FakeApiServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def rests() -> None:
        await asyncio.sleep(5)

    api.stream(line(type="BOOKMARK", object=POD), then=rests)
    aborted: list[bool] = []
    stream = client.watch("/api/v1/pods", version="1")
    await anext(stream)
    connector = client._connections._connector
    assert connector is not None
    (protocol,) = connector._acquired
    assert protocol.transport
    monkeypatch.setattr(protocol, "transport", Aborted(protocol.transport, aborted))
    await stream.aclose()
    assert aborted == [True]


class Aborted:
    """A transport that records when it is aborted."""

    def __init__(self, transport: Any, aborted: list[bool]) -> None:
        self._transport, self._aborted = transport, aborted

    def abort(self) -> None:
        self._aborted.append(True)
        self._transport.abort()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


async def test_a_truncated_refusal_of_a_watch_raises_a_known_error(api: FakeApiServer, client: Client) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=500, headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"{")
        assert request.transport
        request.transport.abort()
        return response

    api.answer = answer
    with pytest.raises(OWN):
        await events(client)
    api.say(b"too old", 410)
    with pytest.raises(ExpiredError):
        await events(client)


async def test_unreadable_credentials_raise_a_known_error(api: FakeApiServer, client: Client) -> None:
    def broken(_: object) -> None:
        raise OSError(24, "Too many open files")

    client._connections.configuration.api_key["BearerToken"] = "x"
    client._connections.configuration.refresh_api_key_hook = broken
    with pytest.raises(UnreachableError, match="Too many open files"):
        await client.get("/api/v1/nodes/n")
    with pytest.raises(UnreachableError):
        await events(client)


async def test_a_closed_connection_raises_a_known_error(api: FakeApiServer, client: Client) -> None:
    await client.get("/api/v1/nodes/n")
    await client.close()
    with pytest.raises(UnreachableError):
        await client.get("/api/v1/nodes/n")


@pytest.mark.parametrize(
    ("after", "seconds"),
    [("7", 7), ("0", 0), ("²", 0), ("-1", 0), ("Wed, 21 Oct 2026 07:28:00 GMT", 0), ("9" * 400, 3600), ("1e9", 0)],
)
async def test_retry_after_is_used_up_to_a_limit(
    api: FakeApiServer, client: Client, after: str, seconds: float
) -> None:
    error = _parse_error("GET", "/x", 429, {"Retry-After": after}, b"{}")
    assert isinstance(error, ApiError)
    assert error.response.retry_after == seconds


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["metadata", "items", "details", "causes", "code", "type", "object", "resourceVersion", "reason", "continue"]) | st.text(), inner),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(found=_JSON, kind=st.sampled_from(["ERROR", "ADDED", "BOOKMARK"]))
def test_any_json_is_parsed_or_raises_a_known_error(found: Any, kind: str) -> None:
    error = _parse_error("GET", "/x", 400, {}, json.dumps(found).encode())
    assert isinstance(error, ApiError)
    assert isinstance(error.response, ErrorResponse)
    str(error)
    for read in (lambda: _parse_event("/x", {"type": kind, "object": found}), lambda: _parse_page("/x", dict(found))):
        try:
            read()
        except (*OWN, ValueError, TypeError):  # the callers turn the last two into UnreachableError
            continue


async def test_a_redirect_to_another_host_gets_no_token(api: FakeApiServer, client: Client) -> None:
    client._connections.configuration.api_key["BearerToken"] = "Bearer secret"
    other = api.host.replace("127.0.0.1", "localhost")

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.host.startswith("localhost"):
            return web.json_response({})
        raise web.HTTPFound(f"{other}/elsewhere")

    api.answer = answer
    await client.get("/api/v1/nodes/n")
    assert [credentials for _, path, credentials in api.asked if path == "/elsewhere"] == [""]
    assert api.asked[0][2] == "Bearer secret"


async def test_a_waiting_write_is_not_sent_after_the_lease_is_lost(api: FakeApiServer) -> None:
    leads = True
    client = Client(Configuration(host=api.host), guard=lambda: leads)
    gate, full, inside = asyncio.Event(), asyncio.Event(), 0

    async def answer(_: web.Request) -> web.StreamResponse:
        nonlocal inside
        inside += 1
        if inside == connection_limits.EVICTION_CONNECTIONS_PER_NAMESPACE:
            full.set()
        await gate.wait()
        return web.json_response({})

    api.answer = answer
    path = "/api/v1/namespaces/a/pods/p/eviction"
    writes = [
        asyncio.create_task(client.create(path, {}))
        for _ in range(connection_limits.EVICTION_CONNECTIONS_PER_NAMESPACE + 1)
    ]
    await full.wait()
    leads = False
    gate.set()
    ended = await asyncio.gather(*writes, return_exceptions=True)
    assert sum(isinstance(each, NotLeaderError) for each in ended) == 1
    assert inside == connection_limits.EVICTION_CONNECTIONS_PER_NAMESPACE
    await client.close()


async def test_no_more_connections_are_open_than_the_limit(api: FakeApiServer, client: Client) -> None:
    """At once: watches that share connections, reads, evictions in many namespaces, and the session of Kopf."""
    now = most = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal now, most
        now += 1
        most = max(most, now)
        try:
            await asyncio.sleep(0.02)
            return web.json_response({"type": "BOOKMARK", "object": POD})
        finally:
            now -= 1

    api.answer = answer
    # Without turns: the server counts a watch that is cancelled a moment longer than the client.
    client.watch_limiter = connection_limits.WatchLimiter(shared_seconds=60.0)

    async def watch() -> None:
        async with client.watch_limiter.acquire():
            await events(client)

    session = await client.session()

    async def guest() -> None:
        async with session.get(f"{api.host}/api/v1/nodes") as response:
            await response.read()

    work: list[Any] = [watch() for _ in range(200)]
    work += [client.get(f"/api/v1/nodes/{n}") for n in range(200)]
    work += [client.create(f"/api/v1/namespaces/n{n}/pods/p/eviction", {}) for n in range(200)]
    work += [client.get("/apis/coordination.k8s.io/v1/namespaces/x/leases/y", election=True) for _ in range(20)]
    work += [guest() for _ in range(50)]
    await asyncio.gather(*work)
    assert (
        connection_limits.MAX_CONNECTIONS - connection_limits.KOPF_CONNECTIONS
        <= most
        <= connection_limits.MAX_CONNECTIONS
    )
    assert client._connections._connector is not None
    assert sum(map(len, client._connections._connector._conns.values())) <= connection_limits.MAX_CONNECTIONS
    await session.close()


async def test_sockets_notice_a_peer_without_power() -> None:
    with _open_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 1))) as made:
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 30
