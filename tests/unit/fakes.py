"""Fakes for unit tests: a clock, and an API server."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from rescheduler.controllers.runtime.clock import Clock
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
