"""Check whether admission enforces pools: live reads each minute, and every few seconds while it does not."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import structlog

from rescheduler.controllers.runtime.clock import Clock
from rescheduler.core.model.admission import parse_admission_object
from rescheduler.core.pools import admission_policies
from rescheduler.core.pools.admission_policies import GROUP_VERSION, AdmissionState
from rescheduler.kube import paths
from rescheduler.kube.client import TRANSIENT_ERRORS, Client

log = structlog.get_logger("rescheduler.pools.admission_check")

_CHECK_INTERVAL, _SHORT_CHECK_INTERVAL = 60.0, 5.0  # seconds


class AdmissionCheck:
    """Keep the state of admission; call the listeners when its status or message changes.

    Attributes:
        state: the last result; status Unknown before the first.
    """

    def __init__(self, client: Client, clock: Clock) -> None:
        self.state = AdmissionState()
        self._client, self._clock = client, clock
        self._listeners: list[Callable[[], None]] = []

    def subscribe(self, on_change: Callable[[], None]) -> None:
        """Call `on_change` after each change of the state."""
        self._listeners.append(on_change)

    async def step(self) -> float:
        """Check once; return the seconds until the next check."""
        await self.refresh()
        return _CHECK_INTERVAL if self.state.is_enforced else _SHORT_CHECK_INTERVAL

    async def refresh(self) -> None:
        """Check once; if a read fails, keep the last state."""
        try:
            state = await self._read()
        except TRANSIENT_ERRORS as error:
            log.warning("admission.unreadable", error=str(error))
            return
        before = self.state
        if (state.status, state.message) == (before.status, before.message):
            return
        since = before.since if state.status == before.status else self._clock.now()
        self.state = replace(state, since=since)
        log.info("admission.changed", status=state.status, reason=state.reason, message=state.message)
        for on_change in self._listeners:
            on_change()

    async def _read(self) -> AdmissionState:
        served = {entry["name"] for entry in (await self._client.get(f"/apis/{GROUP_VERSION}"))["resources"]}
        required = [(kind, name) for kind, name in admission_policies.REQUIRED_OBJECTS if kind in served]
        raws = await asyncio.gather(*(self._client.find(paths.admission_object(k, name)) for k, name in required))
        objects = (parse_admission_object(raw) if raw else None for raw in raws)
        return admission_policies.evaluate(served, dict(zip(required, objects, strict=True)))
