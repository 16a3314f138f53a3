"""A small API server that sends the responses of a test."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web
from kubernetes.aio.client import Configuration

from rescheduler.kube.client import Client

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Api:
    """Server that answers each request with `answer`.

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


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    made = Api()
    application = web.Application(client_max_size=2**26)
    application.router.add_route("*", "/{path:.*}", made.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.host = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


@pytest.fixture
async def client(api: Api) -> AsyncIterator[Client]:
    made = Client(Configuration(host=api.host))
    yield made
    await made.close()
