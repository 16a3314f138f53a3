"""A TLS proxy between a client and the API server: it counts writes, and it is bad in every way a network can be.

A test of a crash kills the operator right after a write: the write is done, and its answer is lost. A fault harms the
requests that it matches, for as long as it is set. `harness.wire_faults` has faults by name.
"""

import asyncio
import base64
import contextlib
import random
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp
import yaml
from aiohttp import web

from harness.clients import Clients

_WRITES = ("POST", "PUT", "PATCH", "DELETE")
_NOT_PASSED_ON = {"host", "content-length", "transfer-encoding", "connection", "content-encoding"}
_NO_CHANGE = ("/leases", "/events", "selfsubjectaccessreviews", "dryRun=All")
_HANG_CHECK = 0.1  # seconds
Edit = Callable[[bytes], list[bytes]]
"""Takes a line of a watch, and returns the lines that the client gets in its place."""


@dataclass(frozen=True)
class Asked:
    """A request of the client."""

    method: str
    path: str
    query: str
    authorization: str

    @property
    def is_watch(self) -> bool:
        return "watch=" in self.query

    @property
    def writes(self) -> bool:
        """Whether it changes an object; Leases, Events, reviews and dry runs do not count."""
        return self.method in _WRITES and not any(part in f"{self.path}?{self.query}" for part in _NO_CHANGE)


@dataclass(frozen=True)
class Fault:
    """A fault of the connection.

    Attributes:
        matches: which requests it harms; default: all.
        share: share of the matching requests.
        delay: seconds before the request is passed on.
        code: HTTP status of an answer in place of the server's; 0 passes the request on.
        retry_after: `Retry-After` of that answer, in seconds.
        reset: the connection is closed without an answer, and the request is not passed on.
        loses_answer: the request is passed on, and the connection is closed without an answer.
        hangs: the request gets no answer while the fault is set.
        edit: makes an edit of the lines of one watch.
        breaks_after: bytes of a watch after which the connection is closed; 0 never.
        server: address of another API server.
    """

    matches: Callable[[Asked], bool] = lambda _: True
    share: float = 1.0
    delay: float = 0.0
    code: int = 0
    retry_after: int = 0
    reset: bool = False
    loses_answer: bool = False
    hangs: bool = False
    edit: Callable[[], Edit] | None = None
    breaks_after: int = 0
    server: str = ""


class Proxy:
    """A server for TLS on its own port, in its own thread.

    Attributes:
        writes: method and path of each forwarded write, in order.
        requests: the number of all requests.
        harmed: the number of requests that a fault harmed.
        authority: certificate of the authority for the kubeconfigs.
        after: called with the number of each write after the server's answer, before the client gets it.
    """

    def __init__(self, plane: Clients, *, seed: int = 0) -> None:
        self.writes: list[str] = []
        self.requests = self.harmed = 0
        self.after: Callable[[int], None] = lambda _: None
        self.port = 0
        self._server, self._chance = plane.server, random.Random(seed)
        self.authority = plane.pki / "ca.crt"
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.present(plane.pki / "admin.crt", plane.pki / "admin.key")
        self._faults: tuple[Fault, ...] = ()
        self._open: set[asyncio.Transport] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = asyncio.Event()
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    # -- control ------------------------------------------------------------------------------------------------------

    @contextmanager
    def fault(self, *faults: Fault) -> Iterator[None]:
        """Set faults while the block runs; open connections are closed at its start, so that they meet them too."""
        self._faults += faults
        self.disconnect()
        try:
            yield
        finally:
            self._faults = tuple(each for each in self._faults if each not in faults)

    def disconnect(self) -> None:
        """Close all connections of clients without a word."""

        def abort() -> None:
            for transport in tuple(self._open):
                transport.abort()

        if self._loop:
            self._loop.call_soon_threadsafe(abort)

    def present(self, certificate: Path, key: Path) -> None:
        """Use this certificate for new connections."""
        self._context.load_cert_chain(certificate, key)

    def kubeconfig(self, identity: Path, path: Path) -> Path:
        """Write a kubeconfig with the address of the proxy; return its path."""
        body: dict[str, Any] = yaml.safe_load(identity.read_text())
        authority = base64.b64encode(self.authority.read_bytes()).decode()
        server = f"https://127.0.0.1:{self.port}"
        body["clusters"][0]["cluster"] = {"server": server, "certificate-authority-data": authority}
        path.write_text(yaml.safe_dump(body))
        return path

    # -- requests -----------------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        unchecked = ssl.create_default_context()
        unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
        connector = aiohttp.TCPConnector(ssl=unchecked, limit=0)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as self._session:
            application = web.Application(client_max_size=2**26)
            application.router.add_route("*", "/{path:.*}", self._answer)
            runner = web.AppRunner(application, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self._context).start()
            self.port = runner.addresses[0][1]
            self._started.set()
            await self._ended.wait()
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        asked = Asked(request.method, request.path, request.query_string, request.headers.get("Authorization", ""))
        self.requests += 1
        if request.transport:
            self._open.add(request.transport)
        fault = self._fault_of(asked)
        self.harmed += fault is not None
        try:
            return await self._pass_on(request, asked, fault or Fault())
        except (OSError, aiohttp.ClientError, asyncio.IncompleteReadError):
            return self._abort(request)  # the server closed the connection, so the client sees it closed
        finally:
            self._open = {each for each in self._open if not each.is_closing()}

    def _fault_of(self, asked: Asked) -> Fault | None:
        found = (each for each in self._faults if each.matches(asked) and self._chance.random() < each.share)
        return next(found, None)

    async def _pass_on(self, request: web.Request, asked: Asked, fault: Fault) -> web.StreamResponse:
        await asyncio.sleep(fault.delay)
        while fault.hangs and fault in self._faults:  # noqa: ASYNC110 - a test removes the fault in another thread
            await asyncio.sleep(_HANG_CHECK)
        if fault.reset or fault.hangs:
            return self._abort(request)
        if fault.code:
            return _refusal(fault)
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _NOT_PASSED_ON}
        headers["Accept-Encoding"] = "identity"
        body = await request.read()
        timeout = aiohttp.ClientTimeout(total=None)
        url = f"{fault.server or self._server}{request.raw_path}"
        async with self._session.request(
            request.method, url, headers=headers, data=body or None, timeout=timeout
        ) as answer:
            done = await answer.read() if not asked.is_watch else b""
            if asked.writes and answer.status < 300:
                self.writes.append(f"{request.method} {request.path}")
                self.after(len(self.writes))
            if fault.loses_answer:
                return self._abort(request)
            response = web.StreamResponse(status=answer.status)
            for header in ("Content-Type", "Retry-After", "Date"):
                if header in answer.headers:
                    response.headers[header] = answer.headers[header]
            await response.prepare(request)
            await response.write(done)
            if asked.is_watch and not await self._stream(answer, response, fault):
                return self._abort(request)
            await response.write_eof()
            return response

    async def _stream(self, answer: aiohttp.ClientResponse, response: web.StreamResponse, fault: Fault) -> bool:
        """Pass a watch on, line by line while a fault edits it; whether it came to its end."""
        sent, pending = 0, b""
        edit = fault.edit() if fault.edit else None
        async for chunk in answer.content.iter_any():
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                is_set = fault in self._faults
                for edited in edit(line) if edit and is_set else [line]:
                    data = edited + b"\n"
                    if is_set and 0 < fault.breaks_after < sent + len(data):
                        await response.write(data[: max(1, fault.breaks_after - sent)])
                        return False
                    await response.write(data)
                    sent += len(data)
        return True

    @staticmethod
    def _abort(request: web.Request) -> web.StreamResponse:
        """Close the connection; the answer is never sent."""
        if request.transport:
            request.transport.abort()
        return web.Response(status=500)

    def __enter__(self) -> "Proxy":
        self._thread.start()
        if not self._started.wait(10):
            raise RuntimeError("the proxy does not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.disconnect()
        if self._loop:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(10)


def _refusal(fault: Fault) -> web.Response:
    """Return a Status as an API server sends it."""
    reasons = {401: "Unauthorized", 403: "Forbidden", 409: "Conflict", 410: "Expired", 429: "TooManyRequests"}
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": fault.code}
    status |= {"reason": reasons.get(fault.code, "InternalError"), "message": f"a fault of the test: {fault.code}"}
    headers = {"Retry-After": str(fault.retry_after)} if fault.retry_after else {}
    return web.json_response(status, status=fault.code, headers=headers)
