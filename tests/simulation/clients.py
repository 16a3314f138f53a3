"""The operator's client over the simulated server, with the client's own guard and paging, and with a network.

Requests take time. An answer may be lost after the server has done the request.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from rescheduler.core.eviction.api_responses import ErrorResponse
from rescheduler.core.model.raw import RawObject
from rescheduler.kube import paths
from rescheduler.kube.client import ApiError, Client, ExpiredError, UnreachableError
from simulation.refusals import RefusedError
from simulation.server import Server
from simulation.watches import WatchFaults

_WATCH_SECONDS = 300.0
_TIMEOUT = 3.0
"""Seconds until an unanswered request times out; the real client waits for 30 s."""


class SimulatedClient(Client):
    """A `Client` whose requests and watches end in the simulation.

    Attributes:
        cut: no request or event gets through.
        dead: the process is gone; its awaits never return.
        watch_faults: what is wrong with its watches.
    """

    def __init__(
        self,
        server: Server,
        user: str,
        chance: random.Random,
        *,
        guard: Callable[[], bool],
        count: Callable[[str, str, int], None],
        time_request: Callable[[str, float], None] = lambda *_: None,
        on_server_date: Callable[[str], None] = lambda _: None,
        report: Callable[[str, str, str], None] = lambda *_: None,
    ) -> None:
        self._server, self._user, self._chance = server, user, chance
        self._guard, self._count, self.report = guard, count, report
        self.cut = self.dead = False
        self.watch_faults = WatchFaults(chance)

    async def close(self) -> None:
        """Do nothing: there is no connection."""

    async def _travel(self) -> None:
        await asyncio.sleep(self._chance.choice((0.002, 0.005, 0.02, 0.1)))
        if self.dead:
            await self._server.never.wait()
        if self.cut or self._server.away:
            await asyncio.sleep(_TIMEOUT)
            raise UnreachableError("no answer")

    async def _send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        body: Any = None,
        content_type: str = "",
        accept: str = "",
        timeout: float = 30.0,
    ) -> RawObject:
        await self._travel()
        if path == paths.CUSTOM_RESOURCE_DEFINITIONS:
            raise ApiError(method, path, ErrorResponse(404))
        try:
            answer = self._server.request(self._user, method, path, params or {}, body, content_type)
        except RefusedError as no:
            await asyncio.sleep(no.delay)
            await self._travel()
            raise ApiError(method, path, no.refusal) from None
        await self._travel()
        return answer

    async def watch(
        self,
        path: str,
        *,
        version: str,
        idle_timeout: float = 0.0,
        seconds: float = _WATCH_SECONDS,
        **params: str | int,
    ) -> AsyncGenerator[tuple[str, RawObject], None]:
        """Yield events a little late, in order, until the stream ends or breaks."""
        await self._travel()
        try:
            stream = self._server.open(path, params, int(version))
        except RefusedError:
            raise ExpiredError(path) from None
        ends, faults = asyncio.get_running_loop().time() + _WATCH_SECONDS, self.watch_faults
        check_expiry = faults.expiry(path)
        try:
            while (left := ends - asyncio.get_running_loop().time()) > 0:
                if not stream.waiting:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(min(left, 30.0)):
                            await stream.news.wait()
                stream.news.clear()
                await self._travel()
                await faults.thaw(path, idle_timeout)
                check_expiry()
                while stream.waiting:
                    for event in faults.distort(stream.take()):
                        yield event
            yield "BOOKMARK", {"metadata": {"resourceVersion": str(self._server.version)}}
        finally:
            self._server.close(stream)
