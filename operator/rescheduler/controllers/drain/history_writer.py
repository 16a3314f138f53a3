"""Write the record of each finished drain: to the log, and to a ConfigMap in the operator's namespace.

A record is written before the NodeDrain is gone, under a key that the NodeDrain determines. So a new leader that ends
the same drain again writes the same record. The ConfigMap belongs to the installation: the operator may change it and
create none. A record that cannot be written never keeps a drain from its end.
"""

import asyncio
from collections.abc import Mapping

import structlog

from rescheduler.api import names
from rescheduler.api.history import DrainRecord
from rescheduler.api.scalars import dump
from rescheduler.api.untrusted import LABELS, bounded_text
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.core.drain import history
from rescheduler.kube import paths
from rescheduler.kube.client import TRANSIENT_ERRORS, ApiError, Client

log = structlog.get_logger("rescheduler.audit")

_MAX_WAIT = 5.0  # seconds for which the end of a drain waits for its record
_WRITE_INTERVAL = 2.0  # seconds between two writes: drains that end together share one
_MAX_REMEMBERED = 1000


class HistoryWriter:
    """Writes the records of the whole process."""

    def __init__(self, client: Client, clock: Clock, namespace: str) -> None:
        self._client, self._clock = client, clock
        self._path = paths.config_map(namespace, names.HISTORY)
        self._logged: dict[str, None] = {}  # keys of records, oldest first
        self._pending: dict[str, str] = {}
        self._lock = asyncio.Lock()
        self._written_at = float("-inf")

    async def write(self, record: DrainRecord) -> None:
        """Write the record of a drain that ends; a failure is only logged, and the next record brings this one along.

        A drain that never began is logged only. Otherwise a flapping request would push real drains out.
        """
        key = history.record_key(record)
        if key not in self._logged:
            log.info("audit.drain", **dump(record))
            self._logged[key] = None
            if record.started_at:
                self._pending[key] = history.record_text(record)
            _trim(self._logged, _MAX_REMEMBERED)
            _trim(self._pending, history.MAX_RECORDS)
        if key not in self._pending:
            return
        try:
            async with asyncio.timeout(_MAX_WAIT), self._lock:
                if key in self._pending:
                    await self._write_pending()
        except (TimeoutError, *TRANSIENT_ERRORS) as error:
            log.warning("history.not_written", node=record.node, error=str(error) or type(error).__name__)

    async def _write_pending(self) -> None:
        await asyncio.sleep(max(0.0, self._written_at + _WRITE_INTERVAL - self._clock.monotonic()))
        records = dict(self._pending)
        try:
            await self._patch(records)
        except ApiError as error:
            if error.code != 409:
                raise
            await self._patch(records)
        for key in records:
            self._pending.pop(key, None)

    async def _patch(self, records: Mapping[str, str]) -> None:
        raw = await self._client.get(self._path)
        data = LABELS(raw.get("data") or {})
        if changes := history.changes(data if isinstance(data, Mapping) else {}, records):
            metadata = {key: bounded_text(raw["metadata"].get(key)) for key in ("uid", "resourceVersion")}
            await self._client.patch(self._path, {"metadata": metadata, "data": changes})
            self._written_at = self._clock.monotonic()


def _trim(remembered: dict[str, None] | dict[str, str], size: int) -> None:
    """Drop the oldest entries."""
    while len(remembered) > size:
        del remembered[next(iter(remembered))]
