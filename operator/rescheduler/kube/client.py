"""One connection to the API server: sign-in, requests, errors, and the guard on writes.

A write must never leave a process that is not sure to be the leader: `guard` is asked before each.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from kubernetes.aio import client as kubernetes_client
from kubernetes.aio import config as kubernetes_config

from rescheduler.core.answers import Refusal

MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
_JSON = "application/json"
_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_PAGE = 200
_READ_TIMEOUT = 30.0  # seconds
_WATCH_SECONDS = 300
_SILENCE = 330.0  # seconds without a byte after which a watch counts as dead
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")

Json = dict[str, Any]


class ConfigError(Exception):
    """There is no usable way to the API server; the message says what is wrong and what to do."""


class ApiError(Exception):
    """The API server said no."""

    def __init__(self, method: str, path: str, refusal: Refusal) -> None:
        super().__init__(f"{method} {path}: {refusal.code} {refusal.reason}: {refusal.message}")
        self.refusal = refusal

    @property
    def code(self) -> int:
        """The HTTP status."""
        return self.refusal.code


class UnreachableError(Exception):
    """The API server did not answer, or not in time; nothing is known of what it did."""


class NotLeaderError(Exception):
    """A write was held back: this process is not sure to be the leader."""


class ExpiredError(Exception):
    """A watch's resourceVersion is too old: list again."""


TRANSIENT = (ApiError, UnreachableError, NotLeaderError)
"""What a level-triggered loop catches: it tries again with back-off from what the cluster says then."""


class Client:
    """Requests with raw JSON bodies.

    `guard` answers whether this process may write now; `count` is told of each request: method, resource, code.
    """

    def __init__(
        self,
        configuration: kubernetes_client.Configuration,
        *,
        guard: Callable[[], bool] = lambda: True,
        count: Callable[[str, str, int], None] = lambda *_: None,
        user_agent: str = "rescheduler",
    ) -> None:
        configuration.connection_pool_maxsize = (
            0  # without limit: each watch keeps a connection, and others must not wait for it
        )
        # The environment is asked once: aiohttp would look for a proxy and a .netrc, in a thread, with each request.
        configuration.client_session_kwargs = {"trust_env": False}
        configuration.proxy = configuration.proxy or _proxy(configuration.host)
        self._configuration = configuration
        self._rest = kubernetes_client.ApiClient(configuration).rest_client
        self._guard = guard
        self._count = count
        self._user_agent = user_agent

    @property
    def server(self) -> str:
        """Address of the API server."""
        return str(self._configuration.host)

    async def close(self) -> None:
        """Close the connections."""
        await self._rest.close()

    async def get(self, path: str, **params: str | int) -> Json:
        """Read one object, or a list in one piece."""
        return await self._send("GET", path, params=params)

    async def find(self, path: str) -> Json | None:
        """Read one object; None where there is none, or no such kind."""
        try:
            return await self.get(path)
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
        async for page in self._pages(path, params, _METADATA):
            yield page

    async def _pages(self, path: str, params: Mapping[str, str | int], accept: str) -> AsyncIterator[Json]:
        token = ""
        while True:
            query = {**params, "limit": _PAGE, **({"continue": token} if token else {})}
            try:
                page = await self._send("GET", path, params=query, accept=accept)
            except ExpiredError as error:
                # It took longer than the server remembers: whoever lists begins anew, with back-off as after any failure.
                raise ApiError("GET", path, Refusal(410, "Expired", "the list took too long", (), 0)) from error
            # An empty list of metadata has no items: null, and not an empty array.
            yield page if page.get("items") is not None else page | {"items": []}
            token = (page.get("metadata") or {}).get("continue", "")
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
        return await self._send("POST", path, body=body)

    async def _write(
        self,
        method: str,
        path: str,
        body: Any,
        *,
        election: bool = False,
        content_type: str = _JSON,
        timeout: float = _READ_TIMEOUT,
    ) -> Json:
        if not election and not self._guard():
            raise NotLeaderError(f"{method} {path} held back: not sure to be the leader")
        return await self._send(method, path, body=body, content_type=content_type, timeout=timeout)

    async def watch(self, path: str, *, version: str, **params: str | int) -> AsyncIterator[tuple[str, Json]]:
        """Events (type, object) from a version on, until the server ends the stream.

        Raises ExpiredError where the version is too old.
        """
        query = params | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": _WATCH_SECONDS,
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=_SILENCE)
        async with await self._open("GET", path, query, None, _JSON, timeout) as response:
            if response.status != 200:
                raise _error("GET", path, response.status, response.headers, await response.read())
            try:
                async for line in response.content:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        refusal = _refusal(event["object"].get("code", 500), event["object"], {})
                        raise ExpiredError(path) if refusal.code == 410 else ApiError("WATCH", path, refusal)
                    yield event["type"], event["object"]
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise UnreachableError(f"watch of {path} broke off: {error or type(error).__name__}") from error

    async def _send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        body: Any = None,
        content_type: str = _JSON,
        accept: str = _JSON,
        timeout: float = _READ_TIMEOUT,
    ) -> Json:
        limit = aiohttp.ClientTimeout(total=timeout, sock_connect=10)
        async with await self._open(method, path, params or {}, body, content_type, limit, accept=accept) as response:
            try:
                text = await response.read()
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise UnreachableError(f"{method} {path}: {error or type(error).__name__}") from error
        if response.status >= 400:
            raise _error(method, path, response.status, response.headers, text)
        return dict(json.loads(text)) if text else {}

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
        for setting in (await self._configuration.auth_settings()).values():
            if setting["value"]:
                headers[setting["key"]] = setting["value"]
        query = "&".join(f"{key}={quote(str(value), safe='')}" for key, value in params.items())
        url = f"{self._configuration.host}{path}" + (f"?{query}" if query else "")
        try:
            answer = await self._rest.request(method, url, headers=headers, body=body, _request_timeout=timeout)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._count(method, resource_of(path), 0)
            raise UnreachableError(f"{method} {path}: {error or type(error).__name__}") from error
        response: aiohttp.ClientResponse = answer.response
        self._count(method, resource_of(path), response.status)
        return response


def _proxy(address: str) -> str | None:
    """The proxy that the environment names for an address (HTTPS_PROXY, NO_PROXY); None where it names none."""
    url = urlsplit(address)
    return None if not url.hostname or proxy_bypass(url.hostname) else getproxies().get(url.scheme)


def resource_of(path: str) -> str:
    """The resource of a path for a metric's label, with its subresource and without names."""
    parts = path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    if len(parts) > 2 and parts[0] == "namespaces":
        parts = parts[2:]
    return "/".join(parts[0:1] + parts[2:3])


def _refusal(code: int, status: Mapping[str, Any], headers: Mapping[str, str]) -> Refusal:
    details = status.get("details") or {}
    after = headers.get("Retry-After") or details.get("retryAfterSeconds") or 0
    return Refusal(
        code=code,
        reason=status.get("reason", ""),
        message=status.get("message", ""),
        causes=tuple((c.get("reason", ""), c.get("message", "")) for c in details.get("causes") or ()),
        retry_after=float(after) if str(after).isdigit() else 0.0,
    )


def _error(method: str, path: str, code: int, headers: Mapping[str, str], text: bytes) -> Exception:
    try:
        status = json.loads(text)
    except ValueError:
        status = {}
    refusal = _refusal(code, status if isinstance(status, dict) else {}, headers)
    return ExpiredError(path) if code == 410 else ApiError(method, path, refusal)


async def configuration() -> kubernetes_client.Configuration:
    """The way to the API server: KUBECONFIG (or ~/.kube/config) if there is one, else the pod's ServiceAccount.

    Raises ConfigError with a message for people.
    """
    found = kubernetes_client.Configuration()
    named = os.environ.get("KUBECONFIG")
    try:
        if named or not await asyncio.to_thread(_SERVICE_ACCOUNT.exists):
            for part in (named or "").split(os.pathsep):
                if part and not await asyncio.to_thread(Path(part).is_file):
                    raise ConfigError(
                        f"KUBECONFIG names {part}, which is not a file: set it to a kubeconfig that exists"
                    )
            if not named and not await asyncio.to_thread((Path.home() / ".kube" / "config").is_file):
                raise ConfigError(
                    "no KUBECONFIG, no ~/.kube/config and no ServiceAccount token: set KUBECONFIG, "
                    "or run in a cluster under the chart's ServiceAccount"
                )
            await kubernetes_config.load_kube_config(client_configuration=found, persist_config=False)
        else:
            kubernetes_config.load_incluster_config(client_configuration=found)
    except (kubernetes_config.ConfigException, OSError, ValueError) as error:
        where = f"KUBECONFIG {named}" if named else "~/.kube/config or the ServiceAccount's token"
        raise ConfigError(f"{where} cannot be used: {error}") from error
    return found
