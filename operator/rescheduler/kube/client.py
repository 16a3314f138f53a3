"""Requests to the API server in raw JSON: errors, limits on connections, and the guard on writes.

A process that is not certain to be the leader must send no write. Therefore the client calls `guard` before each write.
Every failure of the connection, and every response that is not from an API server, becomes one of the errors below. So
a task that watches the cluster never ends because of an unknown exception.
"""

import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any
from urllib.parse import quote

import aiohttp
from kubernetes.aio import client as kubernetes_client

from rescheduler.api import names
from rescheduler.core.eviction.api_responses import ErrorResponse
from rescheduler.core.model.raw import RawObject
from rescheduler.kube import messages
from rescheduler.kube.connection_limits import RequestLimiter, WatchLimiter
from rescheduler.kube.connections import ConfigError as ConfigError  # noqa: PLC0414 - re-exported
from rescheduler.kube.connections import ConnectionConfig, ConnectionPool
from rescheduler.kube.watch_ages import WatchAges

MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
_JSON = "application/json"
_ACCEPT_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_PAGE_SIZE = 200
_REQUEST_TIMEOUT = 30.0  # seconds
_WATCH_TIMEOUT = 300.0
WATCH_IDLE_TIMEOUT = 75.0
"""Seconds without a byte after which a watch is dead: the server sends a bookmark every minute."""
_MAX_RETRY_AFTER = 3600.0  # seconds; a longer Retry-After is cut to this


class ApiError(Exception):
    """The API server refused the request."""

    def __init__(self, method: str, path: str, response: ErrorResponse) -> None:
        super().__init__(f"{method} {path}: {response.code} {response.reason}: {response.message}")
        self.response = response

    @property
    def code(self) -> int:
        """The HTTP status."""
        return self.response.code


class UnreachableError(Exception):
    """The API server did not answer in time; the request may have taken effect."""


class WatchStalledError(UnreachableError):
    """A watch delivered nothing for too long: its connection is dead, or its view is old."""


class NotLeaderError(Exception):
    """A write was not sent: this process is not certain to be the leader."""


class ExpiredError(Exception):
    """The resourceVersion of a watch is too old: list again."""


TRANSIENT_ERRORS = (ApiError, UnreachableError, NotLeaderError)
"""Errors that a level-triggered loop catches: it retries with back-off, from the state of the cluster at that time."""


class Client:
    """Send requests with raw JSON bodies.

    `guard` returns whether this process may write now. `count` gets method, resource and status code of each request;
    code 0 means no answer. `time_request` gets method and seconds of each answer. `on_server_date` gets the `Date` header of each answer. `report` gets each problem that no
    caller sees: name of the log event, subject and error.
    """

    def __init__(
        self,
        config: ConnectionConfig | kubernetes_client.Configuration,
        *,
        reload: Callable[[], Awaitable[ConnectionConfig]] | None = None,
        guard: Callable[[], bool] = lambda: True,
        count: Callable[[str, str, int], None] = lambda *_: None,
        time_request: Callable[[str, float], None] = lambda *_: None,
        on_server_date: Callable[[str], None] = lambda _: None,
        report: Callable[[str, str, str], None] = lambda *_: None,
        user_agent: str = names.FIELD_MANAGER,
    ) -> None:
        config = config if isinstance(config, ConnectionConfig) else ConnectionConfig(config)
        self._connections = ConnectionPool(config, reload, report)
        self._guard = guard
        self._count, self._time_request, self._on_server_date = count, time_request, on_server_date
        self.report = report
        self._user_agent = user_agent

    @cached_property
    def watch_limiter(self) -> WatchLimiter:
        """Limiter of the connections for watches."""
        return WatchLimiter()

    @cached_property
    def watches(self) -> WatchAges:
        """Ages of the open watches."""
        return WatchAges()

    @cached_property
    def request_limiter(self) -> RequestLimiter:
        """Limiter of the connections for requests."""
        return RequestLimiter()

    @property
    def server(self) -> str:
        """Address of the API server."""
        return str(self._connections.configuration.host)

    async def session(self, *middlewares: aiohttp.ClientMiddlewareType) -> aiohttp.ClientSession:
        """Return a new session on the same connections; the caller closes the session."""
        return await self._connections.session(*middlewares)

    async def close(self) -> None:
        """Close the connections."""
        await self._connections.close()

    async def get(self, path: str, *, election: bool = False, **params: str | int) -> RawObject:
        """Read one object, or a list without pages; `election`: use the connections of the election."""
        async with self.request_limiter.acquire(path, election=election):
            return await self._send("GET", path, params=params)

    async def find(self, path: str, *, election: bool = False) -> RawObject | None:
        """Read one object; None if the object or its kind does not exist."""
        try:
            return await self.get(path, election=election)
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    async def list(self, path: str, **params: str | int) -> AsyncIterator[RawObject]:
        """Read a list page by page; each page has `metadata.resourceVersion` and `items`. `limit`: objects of a page."""
        async for page in self._pages(path, params, _JSON):
            yield page

    async def list_metadata(self, path: str, **params: str | int) -> AsyncIterator[RawObject]:
        """Read a list page by page, with only the metadata of each object."""
        async for page in self._pages(path, params, _ACCEPT_METADATA):
            yield page

    async def _pages(self, path: str, params: Mapping[str, str | int], accept: str) -> AsyncIterator[RawObject]:
        token = ""
        while True:
            query = {"limit": _PAGE_SIZE, **params, **({"continue": token} if token else {})}
            try:
                async with self.request_limiter.acquire(path):
                    page = _parse_page(path, await self._send("GET", path, params=query, accept=accept))
            except ExpiredError as error:
                # The continue token has expired. Without this the caller would list again with no back-off.
                raise ApiError("GET", path, ErrorResponse(410, "Expired", messages.list_expired(), (), 0)) from error
            yield page
            token = page["metadata"].get("continue", "")
            if not token:
                return

    async def create(self, path: str, body: RawObject, *, election: bool = False, timeout: float = 30) -> RawObject:
        """Send a POST; `election`: the guard does not apply. `timeout` in seconds."""
        return await self._write("POST", path, body, election=election, timeout=timeout)

    async def replace(self, path: str, body: RawObject, *, election: bool = False) -> RawObject:
        """Send a PUT; the body has the resourceVersion that it is based on."""
        return await self._write("PUT", path, body, election=election)

    async def patch(self, path: str, body: Any, *, kind: str = MERGE_PATCH, election: bool = False) -> RawObject:
        """Send a PATCH; a merge patch has `metadata.resourceVersion` if it must not overwrite another write."""
        return await self._write("PATCH", path, body, content_type=kind, election=election)

    async def delete(self, path: str, options: RawObject) -> RawObject:
        """Send a DELETE; the DeleteOptions always have a UID as precondition."""
        return await self._write("DELETE", path, options)

    async def review(self, path: str, body: RawObject) -> RawObject:
        """Send the POST of a review. A review writes nothing, so the guard does not apply."""
        async with self.request_limiter.acquire(path):
            return await self._send("POST", path, body=body)

    async def _write(
        self,
        method: str,
        path: str,
        body: Any,
        *,
        election: bool = False,
        content_type: str = _JSON,
        timeout: float = _REQUEST_TIMEOUT,
    ) -> RawObject:
        if not election and not self._guard():
            raise NotLeaderError(messages.write_not_sent(method, path))
        async with self.request_limiter.acquire(path, election=election):
            if not election and not self._guard():  # the Lease may be lost while the request waits for a connection
                raise NotLeaderError(messages.write_not_sent(method, path))
            return await self._send(method, path, body=body, content_type=content_type, timeout=timeout)

    async def watch(
        self,
        path: str,
        *,
        version: str,
        idle_timeout: float = WATCH_IDLE_TIMEOUT,
        seconds: float = _WATCH_TIMEOUT,
        **params: str | int,
    ) -> AsyncGenerator[tuple[str, RawObject], None]:
        """Yield events (type, object) after a resourceVersion; the server ends the watch after `seconds`.

        Raises ExpiredError if the resourceVersion is too old. Raises WatchStalledError if nothing arrives for
        `idle_timeout` seconds.
        """
        query = params | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": max(1, int(seconds)),
        }
        timeout = aiohttp.ClientTimeout(total=None, connect=_REQUEST_TIMEOUT, sock_connect=10, sock_read=idle_timeout)
        async with await self._open("GET", path, query, None, _JSON, timeout) as response:
            with _translate_errors(f"watch of {path}"):
                if response.status >= 300:
                    raise _parse_error("GET", path, response.status, response.headers, await response.read())
                try:
                    async for line in response.content:
                        yield _parse_event(path, json.loads(line))
                finally:
                    _abort(response)

    async def _send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        body: Any = None,
        content_type: str = _JSON,
        accept: str = _JSON,
        timeout: float = _REQUEST_TIMEOUT,
    ) -> RawObject:
        limit = aiohttp.ClientTimeout(total=timeout, sock_connect=10)
        async with await self._open(method, path, params or {}, body, content_type, limit, accept=accept) as response:
            with _translate_errors(f"{method} {path}"):
                text = await response.read()
                if response.status >= 300:
                    raise _parse_error(method, path, response.status, response.headers, text)
                return _expect_object(json.loads(text)) if text else {}

    async def _open(
        self,
        method: str,
        path: str,
        params: Mapping[str, str | int],
        body: Any,
        content_type: str,
        timeout: aiohttp.ClientTimeout,
        *,
        accept: str = _JSON,
    ) -> aiohttp.ClientResponse:
        headers = {"Accept": accept, "Content-Type": content_type, "User-Agent": self._user_agent}
        query = "&".join(f"{key}={quote(str(value), safe='')}" for key, value in params.items())
        url, began = f"{self.server}{path}" + (f"?{query}" if query else ""), time.monotonic()
        try:
            with _translate_errors(f"{method} {path}"):
                response = await self._connections.request(method, url, headers=headers, body=body, timeout=timeout)
        except UnreachableError:
            self._count(method, resource_of(path), 0)
            raise
        self._count(method, resource_of(path), response.status)
        if "watch" not in params:
            self._time_request(method, time.monotonic() - began)
        self._on_server_date(response.headers.get("Date", ""))
        return response


def _abort(response: aiohttp.ClientResponse) -> None:
    """Close the connection of an unfinished response at once.

    A TLS connection that is closed in the usual way waits for the server. A server under load answers late, and the
    connections that wait would exceed the limit of connections.
    """
    if response.connection and response.connection.transport:
        response.connection.transport.abort()


@contextmanager
def _translate_errors(request: str) -> Iterator[None]:
    """Raise one of the errors of this module for every failure between this process and the API server."""
    try:
        yield
    except (*TRANSIENT_ERRORS, ExpiredError):
        raise
    except aiohttp.SocketTimeoutError as error:
        raise WatchStalledError(messages.watch_stalled(request)) from error
    except Exception as error:
        raise UnreachableError(f"{request}: {error or type(error).__name__}") from error


def _expect_object(value: Any) -> RawObject:
    if not isinstance(value, dict):
        raise ValueError(messages.not_an_object(type(value).__name__))  # noqa: TRY004 - as for any bad JSON
    return value


def _parse_page(path: str, page: RawObject) -> RawObject:
    """Return a checked page of a list. API servers send `"items": null` for an empty list."""
    with _translate_errors(f"GET {path}"):
        page = {**page, "items": page.get("items") or []}
        if not all(isinstance(raw, dict) and isinstance(raw.get("metadata"), dict) for raw in (page, *page["items"])):
            raise ValueError("the response is not a list of objects")
        return page


def _parse_event(path: str, event: Any) -> tuple[str, RawObject]:
    kind, raw = _expect_object(event).get("type"), _expect_object(event.get("object"))
    if kind == "ERROR":
        code = raw.get("code")
        refusal = _parse_error_response(code if isinstance(code, int) else 500, raw, {})
        raise ExpiredError(path) if refusal.code == 410 else ApiError("WATCH", path, refusal)
    if kind not in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK"):
        raise ValueError(f"the watch sent an event of type {str(kind)[:50]!r}")
    if not isinstance(metadata := raw.get("metadata"), dict) or not isinstance(metadata.get("resourceVersion"), str):
        raise ValueError("the watch sent an event without a resourceVersion")  # noqa: TRY004 - as for any bad JSON
    return kind, raw


def resource_of(path: str) -> str:
    """Return the resource of a path as a metric label: with its subresource, without names."""
    parts = path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    if len(parts) > 2 and parts[0] == "namespaces":
        parts = parts[2:]
    return "/".join(parts[0:1] + parts[2:3])


def _parse_error_response(code: int, status: RawObject, headers: Mapping[str, str]) -> ErrorResponse:
    details = status.get("details")
    details = details if isinstance(details, dict) else {}
    causes = details.get("causes")
    return ErrorResponse(
        code=code,
        reason=str(status.get("reason") or ""),
        message=str(status.get("message") or ""),
        causes=tuple(
            (str(cause.get("reason") or ""), str(cause.get("message") or ""))
            for cause in (causes if isinstance(causes, list) else ())
            if isinstance(cause, dict)
        ),
        retry_after=_parse_retry_after(headers.get("Retry-After") or details.get("retryAfterSeconds")),
    )


def _parse_retry_after(text: object) -> float:
    """Return the seconds to wait; 0 if the value is not a whole number (HTTP also allows a date)."""
    seconds = str(text)
    return min(float(seconds), _MAX_RETRY_AFTER) if seconds.isascii() and seconds.isdecimal() else 0.0


def _parse_error(method: str, path: str, code: int, headers: Mapping[str, str], text: bytes) -> Exception:
    try:
        status = json.loads(text)
    except (ValueError, RecursionError):
        status = {}
    refusal = _parse_error_response(code, status if isinstance(status, dict) else {}, headers)
    return ExpiredError(path) if code == 410 else ApiError(method, path, refusal)
