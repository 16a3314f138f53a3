"""Kubernetes Events that `kubectl describe` shows.

Kopf sets a namespace in `involvedObject` of cluster-scoped objects, so `kubectl describe` does not find those Events.
The recorder increases `count` of a repeated Event instead of creating another Event. A background task writes the Events at a limited
rate, so the controllers never wait for an Event and never fail because of one.
"""

import asyncio
import hashlib
import itertools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from rescheduler.kube import messages, paths
from rescheduler.kube.client import TRANSIENT_ERRORS, ApiError, Client

_MAX_COUNTED_EVENTS = 2000
_MAX_MESSAGE_LENGTH = 1024
_MAX_PENDING_EVENTS = 2000  # further Events are lost and reported
_WRITE_INTERVAL = 0.1  # seconds between two Events after a burst
_BURST = 30
_FLUSH_TIMEOUT = 2.0  # seconds for the waiting Events when the process ends


class EventType(StrEnum):
    """Type of an Event."""

    NORMAL = "Normal"
    WARNING = "Warning"


@dataclass(frozen=True, slots=True)
class InvolvedObject:
    """Object of an Event; `namespace` is empty for cluster-scoped kinds."""

    api_version: str
    kind: str
    name: str
    uid: str
    namespace: str = ""


_PendingEvent = tuple[InvolvedObject, EventType, str, str, datetime, bool]


class EventRecorder:
    """Write Events in the background, and count repetitions.

    `on_lost` gets reason and error of each Event that is not written. An empty reason means several Events.
    """

    def __init__(
        self,
        client: Client,
        *,
        identity: str,
        now: Callable[[], datetime],
        on_lost: Callable[[str, str], None] = lambda *_: None,
    ) -> None:
        self._client, self._identity, self._now, self._on_lost = client, identity, now, on_lost
        self._counts: OrderedDict[str, int] = OrderedDict()
        self._pending: asyncio.Queue[_PendingEvent] = asyncio.Queue(_MAX_PENDING_EVENTS)

    def emit(
        self, subject: InvolvedObject, kind: EventType, reason: str, message: str, *, election: bool = False
    ) -> None:
        """Queue one Event; a failure only reaches `on_lost`.

        `election`: the Event may be written while this process is not the leader.
        """
        try:
            self._pending.put_nowait((subject, kind, reason, message, self._now(), election))
        except asyncio.QueueFull:
            self._on_lost(reason, messages.event_queue_full(_MAX_PENDING_EVENTS))

    async def run(self) -> None:
        """Write queued Events until cancelled; then write the remaining ones."""
        try:
            while True:
                await self._write_pending(burst=_BURST)
        finally:
            await self._flush()

    async def _write_pending(self, burst: int) -> None:
        """Write until the queue is empty: a burst at once, then ten Events a second."""
        event = await self._pending.get()
        for count in itertools.count(1):
            await self._record(event)
            if self._pending.empty():
                return
            await asyncio.sleep(_WRITE_INTERVAL if count > burst else 0)
            event = self._pending.get_nowait()

    async def _flush(self) -> None:
        try:
            async with asyncio.timeout(_FLUSH_TIMEOUT):
                while not self._pending.empty():
                    await self._record(self._pending.get_nowait())
        except TimeoutError:
            self._on_lost("", messages.events_not_written(self._pending.qsize()))

    async def _record(self, pending: _PendingEvent) -> None:
        subject, kind, reason, message, when, election = pending
        namespace = subject.namespace or "default"
        message = message if len(message) <= _MAX_MESSAGE_LENGTH else message[: _MAX_MESSAGE_LENGTH - 1] + "…"
        digest = hashlib.sha256(f"{subject}{kind}{reason}{message}".encode()).hexdigest()[:16]
        name = f"{subject.name[:200]}.{digest}"
        stamp = when.strftime("%Y-%m-%dT%H:%M:%SZ")
        count = self._counts.pop(name, 0) + 1
        self._counts[name] = count
        if len(self._counts) > _MAX_COUNTED_EVENTS:
            self._counts.popitem(last=False)
        try:
            event = _event(subject, kind, reason, message, self._identity)
            await self._write(namespace, name, count, stamp, event, election=election)
        except TRANSIENT_ERRORS as error:
            self._on_lost(reason, str(error))

    async def _write(
        self, namespace: str, name: str, count: int, stamp: str, event: Mapping[str, object], *, election: bool
    ) -> None:
        if count > 1:
            try:
                repetition = {"count": count, "lastTimestamp": stamp}
                await self._client.patch(f"{paths.events(namespace)}/{name}", repetition, election=election)
            except ApiError as error:
                if error.code != 404:
                    raise
            else:
                return
        metadata = {"name": name, "namespace": namespace}
        times = {"firstTimestamp": stamp, "lastTimestamp": stamp, "count": count}
        try:
            body = {**event, "metadata": metadata, **times}
            await self._client.create(paths.events(namespace), body, election=election)
        except ApiError as error:
            if error.code != 409:
                raise


def _event(subject: InvolvedObject, kind: EventType, reason: str, message: str, identity: str) -> dict[str, object]:
    involved = {
        "apiVersion": subject.api_version,
        "kind": subject.kind,
        "name": subject.name,
        "uid": subject.uid,
    }
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "involvedObject": involved | ({"namespace": subject.namespace} if subject.namespace else {}),
        "type": kind,
        "reason": reason,
        "message": message,
        "source": {"component": "rescheduler", "host": identity},
        "reportingComponent": "rescheduler",
        "reportingInstance": identity,
    }
