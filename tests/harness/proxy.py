"""A proxy between the operator and the API server: it counts writes, and lets a test act right after a write.

That tests a crash without a hook in the operator: the write is done, and its answer is lost.
"""

import asyncio
import ssl
import threading
from collections.abc import Callable
from types import TracebackType

import aiohttp
from aiohttp import web

_WRITES = ("POST", "PUT", "PATCH", "DELETE")
_NOT_PASSED_ON = {"host", "content-length", "transfer-encoding", "connection", "content-encoding"}
_NO_CHANGE = ("/leases", "/events", "selfsubjectaccessreviews", "dryRun=All")


class Proxy:
    """Plain HTTP on its own port, in its own thread.

    Attributes:
        writes: method and path of each forwarded write, in order.
        after: called with the number of each write after the server's answer, before the operator gets it.
    """

    def __init__(self, server: str) -> None:
        self.writes: list[str] = []
        self.after: Callable[[int], None] = lambda _: None
        self.port = 0
        self._server = server
        self._end: Callable[[], None] = lambda: None
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        self._end = lambda: loop.call_soon_threadsafe(ended.set)  # type: ignore[assignment]
        unchecked = ssl.create_default_context()
        unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
        connector = aiohttp.TCPConnector(ssl=unchecked, limit=0)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as self._session:
            application = web.Application(client_max_size=2**26)
            application.router.add_route("*", "/{path:.*}", self._pass_on)
            runner = web.AppRunner(application, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.port = runner.addresses[0][1]
            self._started.set()
            await ended.wait()
            await runner.cleanup()

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _NOT_PASSED_ON}
        headers["Accept-Encoding"] = "identity"
        body = await request.read()
        timeout = aiohttp.ClientTimeout(total=None)
        url = f"{self._server}{request.raw_path}"
        async with self._session.request(
            request.method, url, headers=headers, data=body or None, timeout=timeout
        ) as answer:
            counts = request.method in _WRITES and not any(part in request.raw_path for part in _NO_CHANGE)
            if counts and answer.status < 300:
                said = await answer.read()  # the stream is empty from here on
                self.writes.append(f"{request.method} {request.path}")
                self.after(len(self.writes))
            response = web.StreamResponse(status=answer.status)
            response.headers["Content-Type"] = answer.headers.get("Content-Type", "application/json")
            await response.prepare(request)
            if counts and answer.status < 300:
                await response.write(said)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response

    def __enter__(self) -> "Proxy":
        self._thread.start()
        self._started.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        self._thread.join(10)
