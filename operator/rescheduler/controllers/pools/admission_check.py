"""Keeps an eye on whether admission enforces pools; read live, every minute, oftener while it does not."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import structlog

from rescheduler.controllers.runtime.clock import Clock
from rescheduler.core.pools import admission_policies
from rescheduler.core.pools.admission_policies import GROUP, Enforcement
from rescheduler.kube import paths
from rescheduler.kube.client import TRANSIENT, Client

log = structlog.get_logger("rescheduler.enforcements")

_EVERY, _SOON = 60.0, 5.0  # seconds


class Enforcements:
    """What is known of it now; `changed` is told when it is otherwise."""

    def __init__(self, client: Client, clock: Clock, changed: Callable[[], None]) -> None:
        self.now = Enforcement()
        self._client, self._clock, self._changed = client, clock, changed

    async def step(self) -> float:
        """Look once; seconds until the next look."""
        await self.look()
        return _EVERY if self.now.holds else _SOON

    async def look(self) -> None:
        """Look once; what cannot be read now leaves things as they are known."""
        try:
            found = await self._read()
        except TRANSIENT as error:
            log.warning("enforcement.unreadable", error=str(error))
            return
        before = self.now
        if (found.status, found.message) == (before.status, before.message):
            return
        since = before.since if found.status == before.status else self._clock.now()
        self.now = replace(found, since=since)
        log.info("enforcement.changed", status=found.status, reason=found.reason, message=found.message)
        self._changed()

    async def _read(self) -> Enforcement:
        served = {entry["name"] for entry in (await self._client.get(f"/apis/{GROUP}"))["resources"]}
        wanted = [(kind, name) for kind, name in admission_policies.WANTED if kind in served]
        found = await asyncio.gather(*(self._client.find(paths.admission(kind, name)) for kind, name in wanted))
        return admission_policies.judge(served, dict(zip(wanted, found, strict=True)))
