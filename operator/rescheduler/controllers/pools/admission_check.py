"""Keeps an eye on whether admission enforces pools; read live, every minute, oftener while it does not."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import structlog

from rescheduler.controllers.runtime.clock import Clock
from rescheduler.core.pools import admission_policies
from rescheduler.core.pools.admission_policies import GROUP_VERSION, AdmissionState
from rescheduler.kube import paths
from rescheduler.kube.client import TRANSIENT_ERRORS, Client

log = structlog.get_logger("rescheduler.enforcements")

_CHECK_INTERVAL, _SHORT_CHECK_INTERVAL = 60.0, 5.0  # seconds


class AdmissionCheck:
    """What is known of it now; `changed` is told when it is otherwise."""

    def __init__(self, client: Client, clock: Clock, on_change: Callable[[], None]) -> None:
        self.state = AdmissionState()
        self._client, self._clock, self._on_change = client, clock, on_change

    async def step(self) -> float:
        """Look once; seconds until the next look."""
        await self.refresh()
        return _CHECK_INTERVAL if self.state.is_enforced else _SHORT_CHECK_INTERVAL

    async def refresh(self) -> None:
        """Look once; what cannot be read now leaves things as they are known."""
        try:
            found = await self._read()
        except TRANSIENT_ERRORS as error:
            log.warning("admission.unreadable", error=str(error))
            return
        before = self.state
        if (found.status, found.message) == (before.status, before.message):
            return
        since = before.since if found.status == before.status else self._clock.now()
        self.state = replace(found, since=since)
        log.info("admission.changed", status=found.status, reason=found.reason, message=found.message)
        self._on_change()

    async def _read(self) -> AdmissionState:
        served = {entry["name"] for entry in (await self._client.get(f"/apis/{GROUP_VERSION}"))["resources"]}
        wanted = [(kind, name) for kind, name in admission_policies.REQUIRED_OBJECTS if kind in served]
        found = await asyncio.gather(*(self._client.find(paths.admission_object(kind, name)) for kind, name in wanted))
        return admission_policies.evaluate(served, dict(zip(wanted, found, strict=True)))
