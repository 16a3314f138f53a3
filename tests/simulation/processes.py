"""An operator process, wired by its own `App`: a watch plays Kopf, and nothing is served over HTTP."""

import asyncio
import contextlib
import random
from collections.abc import Callable
from functools import partial

from rescheduler import handlers
from rescheduler.app import App, Options
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.kube import paths
from rescheduler.kube.client import TRANSIENT_ERRORS, ExpiredError
from simulation.clients import SimulatedClient
from simulation.server import Server

NAMESPACE = "rescheduler-system"
_IDLE_TIMEOUT = 70.0  # seconds, as in Kopf


class Process:
    """An operator process that is started, killed and stopped as by a kubelet; it keeps its name.

    Attributes:
        began: called at each start.
        crashed: the error with which it ended by itself, which must never happen.
    """

    def __init__(self, server: Server, name: str, chance: random.Random, namespace: str = NAMESPACE) -> None:
        self.name, self._server, self._chance = name, server, chance
        self.namespace, self.cleanup = namespace, False
        self.began: Callable[[float], None] = lambda _: None
        self.app: App | None = None
        self.client: SimulatedClient | None = None
        self.crashed = ""
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start a new process without any state."""
        loop = asyncio.get_running_loop()
        self.began(self._server.now().timestamp())
        connect = partial(SimulatedClient, self._server, self.name, self._chance)
        clock = Clock(wall=lambda: self._server.now().timestamp(), monotonic=loop.time)
        self.app = App(
            connect, Options(namespace=self.namespace, cleanup=self.cleanup), clock=clock, identity=self.name
        )
        assert isinstance(self.app.client, SimulatedClient)
        self.client = self.app.client
        self.app.start_tasks()
        self._tasks = [asyncio.create_task(each(self.app)) for each in (self._feed, self._watch_over)]

    async def _watch_over(self, app: App) -> None:
        await app.stop_flag.wait()
        if self.app is app:
            self.crashed = f"{self.name} ended by itself"

    async def _feed(self, app: App) -> None:
        """Feed nodes as Kopf does: a deletion between two lists is never reported."""
        while True:
            try:
                version = ""
                async for page in app.client.list(paths.NODES):
                    version = page["metadata"]["resourceVersion"]
                    for raw in page["items"]:
                        handlers.store_event(app.store, {"type": None, "object": raw})
                while True:
                    async for type_, raw in app.client.watch(paths.NODES, version=version, idle_timeout=_IDLE_TIMEOUT):
                        version = raw["metadata"]["resourceVersion"]
                        if type_ != "BOOKMARK":
                            handlers.store_event(app.store, {"type": type_, "object": raw})
            except ExpiredError:
                continue
            except TRANSIENT_ERRORS:
                await asyncio.sleep(1)

    async def kill(self) -> None:
        """Send SIGKILL: the server may still carry out what was sent, and the process never sees the answer."""
        if self.app is None or self.client is None:
            return
        app, self.app, self.client.dead = self.app, None, True
        await self._cancel([*self._tasks, *app._tasks])
        self.client = None

    async def stop(self) -> None:
        """Send SIGTERM."""
        if self.app is None or self.client is None:
            return
        app, self.app = self.app, None
        await self._cancel(self._tasks)
        await app.shut_down()
        self.client.dead = True
        self.client = None

    @staticmethod
    async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
