"""Requests to the API server in raw JSON: errors, shares of the connections, and the guard on writes.

A write must never leave a process that is not sure to be the leader: `guard` is asked before each. Whatever breaks on the
wire, or is no answer of an API server, leaves as one of the errors below: a task that follows the cluster must not end by it.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any
from urllib.parse import quote

import aiohttp
from kubernetes.aio import client as kubernetes_client

from rescheduler.core.eviction.api_responses import ErrorResponse
from rescheduler.kube.connection_limits import RequestLimiter, WatchLimiter
from rescheduler.kube.connections import ConfigError as ConfigError  # noqa: PLC0414 - re-exported
from rescheduler.kube.connections import ConnectionConfig, ConnectionPool

MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
_JSON = "application/json"
_ACCEPT_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_PAGE_SIZE = 200
_REQUEST_TIMEOUT = 30.0  # seconds
_WATCH_TIMEOUT = 300.0
WATCH_IDLE_TIMEOUT = 75.0
"""Seconds without a byte after which a watch is dead: the server sends a bookmark every minute."""
_MAX_RETRY_AFTER = 3600.0  # seconds; no server is believed that asks for more

Json = dict[str, Any]


class ApiError(Exception):
    """The API server said no."""

    def __init__(self, method: str, path: str, response: ErrorResponse) -> None:
        super().__init__(f"{method} {path}: {response.code} {response.reason}: {response.message}")
        self.response = response

    @property
    def code(self) -> int:
        """The HTTP status."""
        return self.response.code


class UnreachableError(Exception):
    """The API server did not answer, or not in time; nothing is known of what it did."""


class WatchStalledError(UnreachableError):
    """A watch delivered nothing for too long: its connection is dead, or what it shows is old."""


class NotLeaderError(Exception):
    """A write was held back: this process is not sure to be the leader."""


class ExpiredError(Exception):
    """A watch's resourceVersion is too old: list again."""


TRANSIENT_ERRORS = (ApiError, UnreachableError, NotLeaderError)
"""What a level-triggered loop catches: it tries again with back-off from what the cluster says then."""


class Client:
    """Requests with raw JSON bodies.

    `guard` answers whether this process may write now; `count` is told of each request: method, resource, code. `dated`
    gets the server's time (`Date`) with each answer.
    """

    report: Callable[[str, str, str], None] = staticmethod(lambda *_: None)
    """Is told what went wrong that nobody else tells: event, subject and error."""

    def __init__(
        self,
        config: ConnectionConfig | kubernetes_client.Configuration,
        *,
        reload: Callable[[], Awaitable[ConnectionConfig]] | None = None,
        guard: Callable[[], bool] = lambda: True,
        count: Callable[[str, str, int], None] = lambda *_: None,
        on_server_date: Callable[[str], None] = lambda _: None,
        user_agent: str = "rescheduler",
    ) -> None:
        config = config if isinstance(config, ConnectionConfig) else ConnectionConfig(config)
        self._connections = ConnectionPool(config, reload, self._report)
        self._guard = guard
        self._count, self._on_server_date = count, on_server_date
        self._user_agent = user_agent

    def _report(self, event: str, subject: str, error: str) -> None:
        self.report(event, subject, error)

    @cached_property
    def watch_limiter(self) -> WatchLimiter:
        """The connections for watches."""
        return WatchLimiter()

    @cached_property
    def request_limiter(self) -> RequestLimiter:
        """The connections for requests."""
        return RequestLimiter()

    @property
    def server(self) -> str:
        """Address of the API server."""
        return str(self._connections.configuration.host)

    async def session(self) -> aiohttp.ClientSession:
        """Make a session on the same connections for somebody else, who closes it."""
        return await self._connections.session()

    async def close(self) -> None:
        """Close the connections."""
        await self._connections.close()

    async def get(self, path: str, *, election: bool = False, **params: str | int) -> Json:
        """Read one object, or a list in one piece."""
        async with self.request_limiter.acquire(path, election=election):
            return await self._send("GET", path, params=params)

    async def find(self, path: str, *, election: bool = False) -> Json | None:
        """Read one object; None where there is none, or no such kind."""
        try:
            return await self.get(path, election=election)
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    async def list(self, path: str, **params: str | int) -> AsyncIterator[Json]:
        """Read a list page by page; every page as the server sent it, `metadata.resourceVersion` with it."""
        async for page in self._pages(path, params, _JSON):
            yield page

    async def list_metadata(self, path: str, **params: str | int) -> AsyncIterator[Json]:
        """Read a list as `list` does, of each object only its metadata."""
        async for page in self._pages(path, params, _ACCEPT_METADATA):
            yield page

    async def _pages(self, path: str, params: Mapping[str, str | int], accept: str) -> AsyncIterator[Json]:
        token = ""
        while True:
            query = {**params, "limit": _PAGE_SIZE, **({"continue": token} if token else {})}
            try:
                async with self.request_limiter.acquire(path):
                    page = _parse_page(path, await self._send("GET", path, params=query, accept=accept))
            except ExpiredError as error:
                # It took longer than the server remembers: whoever lists begins anew, with back-off as after any failure.
                raise ApiError("GET", path, ErrorResponse(410, "Expired", "the list took too long", (), 0)) from error
            yield page
            token = page["metadata"].get("continue", "")
            if not token:
                return

    async def create(self, path: str, body: Mapping[str, Any], *, election: bool = False, timeout: float = 30) -> Json:
        """POST; `election`: may be sent without being the leader."""
        return await self._write("POST", path, body, election=election, timeout=timeout)

    async def replace(self, path: str, body: Mapping[str, Any], *, election: bool = False) -> Json:
        """PUT; the body carries the resourceVersion that it is based on."""
        return await self._write("PUT", path, body, election=election)

    async def patch(self, path: str, body: Any, *, kind: str = MERGE_PATCH, election: bool = False) -> Json:
        """PATCH; a merge patch carries `metadata.resourceVersion` where it must not lose another's write."""
        return await self._write("PATCH", path, body, content_type=kind, election=election)

    async def delete(self, path: str, options: Mapping[str, Any]) -> Json:
        """DELETE with DeleteOptions, which always hold a UID precondition."""
        return await self._write("DELETE", path, options)

    async def review(self, path: str, body: Mapping[str, Any]) -> Json:
        """POST of a review, which writes nothing: allowed to all."""
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
    ) -> Json:
        if not election and not self._guard():
            raise NotLeaderError(f"{method} {path} held back: not sure to be the leader")
        async with self.request_limiter.acquire(path, election=election):
            if not election and not self._guard():  # it may have waited
                raise NotLeaderError(f"{method} {path} held back: not sure to be the leader")
            return await self._send(method, path, body=body, content_type=content_type, timeout=timeout)

    async def watch(
        self,
        path: str,
        *,
        version: str,
        idle_timeout: float = WATCH_IDLE_TIMEOUT,
        seconds: float = _WATCH_TIMEOUT,
        **params: str | int,
    ) -> AsyncGenerator[tuple[str, Json], None]:
        """Events (type, object) from a version on, until the server ends the stream; it is asked to after `seconds`.

        Raises ExpiredError where the version is too old, and SilentError if nothing came for `silence` seconds.
        """
        query = params | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": max(1, int(seconds)),
        }
        timeout = aiohttp.ClientTimeout(total=None, connect=_REQUEST_TIMEOUT, sock_connect=10, sock_read=idle_timeout)
        async with await self._open("GET", path, query, None, _JSON, timeout) as response:
            with _translate_errors(f"watch of {path} broke off"):
                if response.status >= 300:
                    raise _parse_error("GET", path, response.status, response.headers, await response.read())
                async for line in response.content:
                    yield _parse_event(path, json.loads(line))

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
    ) -> Json:
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
        url = f"{self.server}{path}" + (f"?{query}" if query else "")
        try:
            with _translate_errors(f"{method} {path}"):
                response = await self._connections.request(method, url, headers=headers, body=body, timeout=timeout)
        except UnreachableError:
            self._count(method, resource_of(path), 0)
            raise
        self._count(method, resource_of(path), response.status)
        self._on_server_date(response.headers.get("Date", ""))
        return response


@contextmanager
def _translate_errors(what: str) -> Iterator[None]:
    """Make one of our own errors of all that may break between us and the API server."""
    try:
        yield
    except (*TRANSIENT_ERRORS, ExpiredError):
        raise
    except aiohttp.SocketTimeoutError as error:
        raise WatchStalledError(f"{what}: nothing came for too long") from error
    except Exception as error:
        raise UnreachableError(f"{what}: {error or type(error).__name__}") from error


def _expect_object(found: Any) -> Json:
    if not isinstance(found, dict):
        raise ValueError(f"the answer is no JSON object but {type(found).__name__}")  # noqa: TRY004 - as of any bad JSON
    return found


def _parse_page(path: str, found: Json) -> Json:
    """One page of a list; none at all ("items": null) is an empty one."""
    with _translate_errors(f"GET {path}"):
        found["items"] = found.get("items") or []
        if not all(
            isinstance(each, dict) and isinstance(each.get("metadata"), dict) for each in (found, *found["items"])
        ):
            raise ValueError("the answer is no list of objects")
        return found


def _parse_event(path: str, found: Any) -> tuple[str, Json]:
    kind, raw = _expect_object(found).get("type"), _expect_object(found.get("object"))
    if kind == "ERROR":
        code = raw.get("code")
        refusal = _parse_error_response(code if isinstance(code, int) else 500, raw, {})
        raise ExpiredError(path) if refusal.code == 410 else ApiError("WATCH", path, refusal)
    if kind not in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK"):
        raise ValueError(f"an event of type {str(kind)[:50]!r}")
    if not isinstance(metadata := raw.get("metadata"), dict) or not isinstance(metadata.get("resourceVersion"), str):
        raise ValueError("an event without a resourceVersion")  # noqa: TRY004 - as of any bad JSON
    return kind, raw


def resource_of(path: str) -> str:
    """The resource of a path for a metric's label, with its subresource and without names."""
    parts = path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    if len(parts) > 2 and parts[0] == "namespaces":
        parts = parts[2:]
    return "/".join(parts[0:1] + parts[2:3])


def _parse_error_response(code: int, status: Mapping[str, Any], headers: Mapping[str, str]) -> ErrorResponse:
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
    """Seconds to wait; 0 for what is no such number (HTTP allows a date too)."""
    found = str(text)
    return min(float(found), _MAX_RETRY_AFTER) if found.isascii() and found.isdecimal() else 0.0


def _parse_error(method: str, path: str, code: int, headers: Mapping[str, str], text: bytes) -> Exception:
    try:
        status = json.loads(text)
    except (ValueError, RecursionError):
        status = {}
    refusal = _parse_error_response(code, status if isinstance(status, dict) else {}, headers)
    return ExpiredError(path) if code == 410 else ApiError(method, path, refusal)
