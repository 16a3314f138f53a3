"""Errors that Kopf's watch of nodes survives.

Kopf ends its process at every error of a list or watch but a few: a 404, a 410 as a status, an ERROR event with any
other code than 410, or a line that is no JSON. All of them pass. So this middleware turns a refused request into a 429,
which Kopf retries and then answers with a new list. It turns a bad event into an ERROR event with code 410, after which
Kopf lists again.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, cast

import aiohttp

from rescheduler.kube import paths
from rescheduler.kube.backoff import Backoff

_UNAUTHORIZED, _TOO_MANY_REQUESTS, _EXPIRED = 401, 429, 410
_EXPIRED_EVENT = json.dumps({"type": "ERROR", "object": {"kind": "Status", "code": _EXPIRED}}).encode() + b"\n"
_FIRST_DELAY, _MAX_DELAY = 0.2, 10.0  # seconds


class NodeWatchShield:
    """Middleware of the session of Kopf."""

    def __init__(self) -> None:
        self._backoff = Backoff(_FIRST_DELAY, _MAX_DELAY)

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Send a request; return a response that Kopf survives."""
        response = await handler(request)
        if request.url.path != paths.NODES:
            return response
        if response.status >= 400 and response.status != _UNAUTHORIZED:  # after a 401 Kopf logs in again
            response.status = _TOO_MANY_REQUESTS
        elif "watch" in request.url.query:
            response.content = cast("aiohttp.StreamReader", _Events(response.content, self._backoff))
        return response


class _Events:
    """The lines of a watch, as Kopf reads them."""

    def __init__(self, stream: aiohttp.StreamReader, backoff: Backoff) -> None:
        self._stream, self._backoff = stream, backoff

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the stream: aiohttp needs some when it releases the connection."""
        return getattr(self._stream, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        """Yield complete lines; end at the first one that Kopf could not use."""
        pending = b""
        async for data in self._stream.iter_chunked(size):
            *lines, pending = (pending + data).split(b"\n")
            for line in filter(None, lines):
                if not _is_usable(line):
                    # Without this wait, a server that sends only errors gets a list for each of them.
                    await asyncio.sleep(self._backoff.next_delay())
                    yield _EXPIRED_EVENT
                    return
                self._backoff.reset()
                yield line + b"\n"


def _is_usable(line: bytes) -> bool:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return False
    raw: Any = event.get("object") if isinstance(event, dict) else None
    if not isinstance(raw, dict):
        return False
    if event.get("type") == "ERROR":
        return raw.get("code") == _EXPIRED
    metadata = raw.get("metadata")
    if not isinstance(metadata, dict) or not str(metadata.get("resourceVersion")).isdecimal():
        return False
    named = isinstance(metadata.get("name"), str) and isinstance(metadata.get("uid"), str)
    return event.get("type") == "BOOKMARK" or (event.get("type") in ("ADDED", "MODIFIED", "DELETED") and named)
