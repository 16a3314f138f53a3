"""An API server that sends the responses of a test, and a client for it."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from kubernetes.aio.client import Configuration

from rescheduler.kube.client import Client
from unit.fakes import FakeApiServer


@pytest.fixture
async def api() -> AsyncIterator[FakeApiServer]:
    made = FakeApiServer()
    application = web.Application(client_max_size=2**26)
    application.router.add_route("*", "/{path:.*}", made.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.host = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


@pytest.fixture
async def client(api: FakeApiServer) -> AsyncIterator[Client]:
    made = Client(Configuration(host=api.host))
    yield made
    await made.close()
