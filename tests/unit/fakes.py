"""Fakes for unit tests: a clock, an API server, and a client of a cluster in memory."""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Mapping
from copy import deepcopy
from typing import Any

import urllib3
from aiohttp import web

from invariants.records import Place
from rescheduler.cli.cluster_api import ApiUnavailableError, ClusterApi, parse_json, raise_for_error
from rescheduler.cli.connection import transport
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.core.eviction.api_responses import ErrorResponse
from rescheduler.core.model.raw import RawObject
from rescheduler.kube.client import ApiError, Client
from simulation.patches import merged
from simulation.server import selector_filter
from unit.builders import NOW

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class FakeClock(Clock):
    """A clock that a test sets. It starts at `NOW`.

    Attributes:
        seconds: the seconds since its start.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        super().__init__(wall=NOW.timestamp, monotonic=lambda: self.seconds)


class FakeApiServer:
    """A small API server that answers each request with `answer`.

    Attributes:
        asked: method, path with query, and credentials of each request.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.answer: Answer = self.say()
        self.host = ""

    def say(self, body: bytes = b"{}", status: int = 200, headers: dict[str, str] | None = None) -> Answer:
        async def answer(_: web.Request) -> web.StreamResponse:
            return web.Response(body=body, status=status, headers=headers)

        self.answer = answer
        return answer

    def stream(self, *chunks: bytes, then: Callable[[], Awaitable[object]] | None = None) -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            for chunk in chunks:
                await response.write(chunk)
            if then:
                await then()
            return response

        self.answer = answer

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.method, request.raw_path, request.headers.get("Authorization", "")))
        return await self.answer(request)


class FakeEvents:
    """Records the name of each published Event.

    Attributes:
        published: the names, among other entries that a test adds.
    """

    def __init__(self, events: type, published: list[Any] | None = None) -> None:
        """Stand for this class of Events."""
        self.published = [] if published is None else published
        self._events = events

    def __getattr__(self, name: str) -> Callable[..., None]:
        getattr(self._events, name)  # a call of a method that the class does not have must fail
        return lambda *_, **__: self.published.append(name)


async def settle() -> None:
    """Let all tasks run until each of them waits for a timer or for the test."""
    for _ in range(50):
        await asyncio.sleep(0)


class FakeClusterClient(Client):
    """A client of a cluster in memory. It lists and watches objects, and merges patches.

    The watch brings only the objects that a test puts: a patch of the client itself does not arrive.

    Attributes:
        refused: error by method and resource, such as `LIST pods`, `POST eviction` or `PATCH pods`.
        listed: path and query of each list.
        written: method, path and body of each write that arrived, refused or not.
        stalled: while set, each write waits for this event.
    """

    def __init__(self) -> None:
        self.refused: dict[str, Exception] = {}
        self.listed: list[tuple[str, Mapping[str, Any]]] = []
        self.written: list[tuple[str, str, Any]] = []
        self.stalled: asyncio.Event | None = None
        self.report = lambda *_: None
        self._version = 1
        self._objects: dict[str, dict[str, RawObject]] = defaultdict(dict)
        self._watches: list[tuple[str, Mapping[str, Any], asyncio.Queue[tuple[str, RawObject]]]] = []

    def refuse(self, request: str, code: int, message: str = "", **details: Any) -> None:
        """Refuse each request with this method and resource."""
        self.refused[request] = ApiError("", request, ErrorResponse(code, "", message, **details))

    def put(self, resource: str, *objects: RawObject) -> None:
        """Store objects in new versions, and send them to the watches."""
        for raw in objects:
            stored = self._store(resource, raw)
            for path, query, queue in self._watches:
                if _resource_in(path) == resource and _is_listed(path, query, stored):
                    queue.put_nowait(("MODIFIED", deepcopy(stored)))

    def remove(self, resource: str, uid: str) -> None:
        """Remove an object, and send its deletion to the watches."""
        gone = self._store(resource, self._objects[resource][uid])
        del self._objects[resource][uid]
        for path, query, queue in self._watches:
            if _resource_in(path) == resource and _is_listed(path, query, gone):
                queue.put_nowait(("DELETED", gone))

    def objects(self, resource: str) -> Mapping[str, RawObject]:
        """Return the stored objects by UID, which must not be changed."""
        return self._objects[resource]

    def _store(self, resource: str, raw: RawObject) -> RawObject:
        self._version += 1
        stored = deepcopy(raw)
        stored["metadata"]["resourceVersion"] = str(self._version)
        self._objects[resource][stored["metadata"]["uid"]] = stored
        return stored

    async def list(self, path: str, **params: str | int) -> AsyncIterator[RawObject]:
        self.listed.append((path, params))
        if error := self.refused.get(f"LIST {_resource_in(path)}"):
            raise error
        items = [deepcopy(raw) for raw in self._objects[_resource_in(path)].values() if _is_listed(path, params, raw)]
        yield {"metadata": {"resourceVersion": str(self._version)}, "items": items}

    async def list_metadata(self, path: str, **params: str | int) -> AsyncIterator[RawObject]:
        async for page in self.list(path, **params):
            yield {**page, "items": [{"metadata": raw["metadata"]} for raw in page["items"]]}

    async def get(self, path: str, *, election: bool = False, **params: str | int) -> RawObject:
        if Place.parse(path).name:
            if found := await self.find(path):
                return found
            raise ApiError("GET", path, ErrorResponse(404, "NotFound"))
        async for page in self.list(path, **params):
            return page
        raise AssertionError(path)

    async def find(self, path: str, *, election: bool = False) -> RawObject | None:
        place = Place.parse(path)
        if error := self.refused.get(f"GET {place.resource}"):
            raise error
        found = (raw for raw in self._objects[place.resource].values() if raw["metadata"]["name"] == place.name)
        return deepcopy(next(found, None))

    async def watch(
        self, path: str, *, version: str, idle_timeout: float = 0, seconds: float = 0, **params: str | int
    ) -> AsyncGenerator[tuple[str, RawObject], None]:
        queue: asyncio.Queue[tuple[str, RawObject]] = asyncio.Queue()
        self._watches.append((path, params, queue))
        while True:
            yield await queue.get()

    async def create(self, path: str, body: Any, *, election: bool = False, timeout: float = 30) -> RawObject:
        await self._arrive("POST", path, body)
        return {}

    async def patch(self, path: str, body: Any, *, kind: str = "", election: bool = False) -> RawObject:
        place = Place.parse(path)
        await self._arrive("PATCH", path, body)
        before = await self.find(path)
        if before is None:
            raise ApiError("PATCH", path, ErrorResponse(404))
        for key in ("uid", "resourceVersion"):
            if body["metadata"][key] != before["metadata"][key]:
                raise ApiError("PATCH", path, ErrorResponse(409, "Conflict", f"{key} of {place.name}"))
        return deepcopy(self._store(place.resource, merged(before, body)))

    async def _arrive(self, method: str, path: str, body: Any) -> None:
        self.written.append((method, path, body))
        if self.stalled:
            await self.stalled.wait()
        if error := self.refused.get(f"{method} {_resource_in(path)}"):
            raise error


def _resource_in(path: str) -> str:
    """Return the subresource that a path names, or else its resource."""
    place = Place.parse(path.partition("?")[0])
    return place.subresource or place.resource


def _is_listed(path: str, query: Mapping[str, Any], raw: RawObject) -> bool:
    """Whether a list of this path and query has the object."""
    namespace = Place.parse(path).namespace
    in_namespace = not namespace or raw["metadata"].get("namespace") == namespace
    return in_namespace and selector_filter(query)(raw)


class FakeClusterApi(ClusterApi):
    """The plugin's way to an API server, which answers reads from `answers` and allows rights.

    Attributes:
        answers: the JSON by path, such as `v1/pods`. Text is answered as it is, an integer as an error of that status.
        allowed: the rights that a review grants, such as `list nodes`; None grants all.
        asked: method and path of each request, in order.
    """

    def __init__(self, answers: Mapping[str, Any], allowed: Collection[str] | None = None) -> None:
        self.answers, self.allowed = dict(answers), allowed
        self.asked: list[str] = []

    def send(self, method: str, group: str, path: str, **options: Any) -> transport.Answer:
        self.asked.append(f"{method} {group}/{path}".rstrip("/"))
        if path == "selfsubjectaccessreviews":
            return _response(
                {"status": {"allowed": self._grants(json.loads(options["data"])["spec"]["resourceAttributes"])}}
            )
        return self._answer(f"{group}/{path}".rstrip("/"))

    def get_document(self, path: str) -> RawObject:
        self.asked.append(f"get {path}")
        if path not in self.answers:
            raise ApiUnavailableError("no answer")
        answer = self._answer(path)
        raise_for_error(answer, f"read /{path}")
        return parse_json(answer)

    def _answer(self, path: str) -> transport.Answer:
        found = self.answers.get(path, 404)
        if isinstance(found, int):
            return _response({"message": "no"}, found)
        return _response(found)

    def _grants(self, right: Mapping[str, str]) -> bool:
        return self.allowed is None or f"{right['verb']} {right['resource']}" in self.allowed


def _response(body: Any, status: int = 200) -> transport.Answer:
    data = (body if isinstance(body, str) else json.dumps(body)).encode()
    return transport.Answer(urllib3.HTTPResponse(body=data, status=status), "https://api")
