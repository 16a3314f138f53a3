"""Write the status of a NodeDrain, and remove the NodeDrain at its end.

Each write carries the version that it was made from. The status reports other refused writes. A refused status is
reported by an Event on the node, and in the log.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import structlog

from rescheduler.api import names
from rescheduler.api.drains import NodeDrain, NodeDrainStatus
from rescheduler.api.scalars import merge_patch
from rescheduler.controllers.drain import messages
from rescheduler.controllers.drain.events import DrainEvents
from rescheduler.controllers.drain.history_writer import HistoryWriter
from rescheduler.controllers.evacuation.node_evacuation import NodeEvacuation
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.write_attempts import WriteAttempts
from rescheduler.controllers.store.object_cache import ResourceKind
from rescheduler.controllers.store.store import Store
from rescheduler.controllers.store.unstored_fields import UnstoredFields
from rescheduler.core.drain import history
from rescheduler.core.drain import status as drain_status
from rescheduler.core.eviction import write_refusals
from rescheduler.core.eviction.write_refusals import WriteFailure, WriteOperation
from rescheduler.core.model.nodes import Node
from rescheduler.kube import paths
from rescheduler.kube.client import TRANSIENT_ERRORS, ApiError, Client

log = structlog.get_logger("rescheduler.drain.status_writer")

_MIN_PROGRESS_INTERVAL = 1.0  # seconds between writes of progress only; longer with many drains
_MAX_PROGRESS_WRITES_PER_SECOND = 5.0  # over all drains


class StatusWriter:
    """Writes one NodeDrain; `wake` reconciles the drain again for a delayed write."""

    def __init__(
        self,
        name: str,
        client: Client,
        store: Store,
        clock: Clock,
        events: DrainEvents,
        attempts: WriteAttempts,
        wake: Callable[[], None],
    ) -> None:
        self._name, self._attempts, self._wake = name, attempts, wake
        self._client, self._store, self._clock, self._events = client, store, clock, events
        self._written_at = float("-inf")
        self._unstored = UnstoredFields[NodeDrainStatus]()

    async def write(
        self, status_input: drain_status.StatusInput, evacuation: NodeEvacuation, *, immediately: bool = False
    ) -> None:
        """Write the status if it differs; a change of progress only waits for the next interval.

        `immediately`: the next step needs this status, so a failure raises. Other failures are retried later.
        """
        before = self._unstored.add_to(status_input.drain.status)
        status_input = replace(
            status_input,
            drain=status_input.drain.model_copy(update={"status": before}),
            write_failures=self._reportable_failures(),
            outdated_crds=self._store.cache.outdated_crds,
        )
        wanted = drain_status.build(status_input)
        if wanted == before:
            return
        is_urgent, monotonic = immediately or _urgent_part(wanted) != _urgent_part(before), self._clock.monotonic()
        if not is_urgent and monotonic - self._written_at < (interval := self._progress_interval()):
            asyncio.get_running_loop().call_later(interval, self._wake)
            return
        if await self._patch_status(status_input.drain, status_input.node, wanted, required=immediately):
            self._events.publish_status_change(
                status_input, before, wanted, evacuation.uids_by_pod(), evacuation.owners_by_pod()
            )

    async def write_failures(self, drain: NodeDrain, node: Node | None) -> None:
        """Report failing writes in the status after a failed reconcile."""
        wanted = drain_status.with_write_failures(drain, self._reportable_failures(), self._clock.now())
        if wanted != drain.status:
            await self._patch_status(drain, node, wanted, required=False)

    def _reportable_failures(self) -> tuple[WriteFailure, ...]:
        """Return the failures that a status can report."""
        return tuple(
            failure for failure in self._attempts.reported_failures() if failure.operation is not WriteOperation.STATUS
        )

    async def _patch_status(
        self, drain: NodeDrain, node: Node | None, wanted: NodeDrainStatus, *, required: bool
    ) -> bool:
        self._written_at = self._clock.monotonic()
        try:
            if not required:
                return await self._attempts.attempt(WriteOperation.STATUS, lambda: self._send_status(drain, wanted))
            await self._send_status(drain, wanted)
        except ApiError as error:
            if not write_refusals.is_conflict(error.response):
                self._attempts.record_failure(WriteOperation.STATUS, error)
            raise
        finally:
            if node and self._attempts.is_reported(WriteOperation.STATUS):
                self._events.publish_write_failed(node, self._attempts.reported_failures())
        self._attempts.clear(WriteOperation.STATUS)
        return True

    async def _send_status(self, drain: NodeDrain, wanted: NodeDrainStatus) -> None:
        body = {"metadata": {"resourceVersion": drain.resource_version}, "status": merge_patch(drain.status, wanted)}
        raw = await self._client.patch(f"{paths.drain(self._name)}/status", body)
        self._unstored.record(wanted, raw)
        self._store.put(ResourceKind.DRAIN, raw)

    def _progress_interval(self) -> float:
        """Return the seconds between writes of progress. The store counts the drains, so this runs only for a write."""
        return max(_MIN_PROGRESS_INTERVAL, self._store.draining_count / _MAX_PROGRESS_WRITES_PER_SECOND)

    async def report_internal_error(self, drain: NodeDrain, error: Exception) -> None:
        """Report an internal error of the operator at this drain, once; the next status replaces the report."""
        state = ("False", "InternalError", messages.internal_error(error))
        status = drain_status.with_progressing(drain, state, self._clock.now())
        if status == drain.status:
            return
        try:
            await self._send_status(drain, status)
        except TRANSIENT_ERRORS as refused:
            log.warning("drain.failure_not_reported", drain=self._name, error=str(refused))

    async def cancel(self, status_input: drain_status.StatusInput) -> bool:
        """Delete the NodeDrain after its timeout, and report that. Return whether the NodeDrain was deleted."""
        deleted = await self._delete(status_input.drain)
        if deleted:
            self._events.publish_timed_out(status_input)
        return deleted

    async def _delete(self, drain: NodeDrain) -> bool:
        async def send() -> None:
            response = await self._client.delete(paths.drain(self._name), {"preconditions": {"uid": drain.uid}})
            if response.get("kind") == "NodeDrain":
                self._store.put(ResourceKind.DRAIN, response)

        return await self._attempts.attempt(WriteOperation.DELETE, send)

    async def remove_drain(self, drain: NodeDrain, node: Node | None, history_writer: HistoryWriter) -> bool:
        """Record the drain, and remove the finalizer. Return whether the NodeDrain is gone.

        If the node is gone, the NodeDrain is deleted first.
        """
        record = drain.status.node
        if drain.deletion_timestamp is None:
            if not await self._delete(drain):
                return False
            self._events.publish_node_gone(drain, node)
        await history_writer.write(history.record(drain, node, self._clock.now()))
        if names.FINALIZER in drain.finalizers and not await self._attempts.attempt(
            WriteOperation.FINALIZER, lambda: self._remove_finalizer(drain)
        ):
            return False
        log.info("drain.gone", drain=self._name, node=drain.spec.node_name, uid=record.uid if record else "")
        self._store.drop(ResourceKind.DRAIN, self._name)
        return True

    async def _remove_finalizer(self, drain: NodeDrain) -> None:
        metadata = (await self._client.get(paths.drain(self._name)))["metadata"]
        remaining = [finalizer for finalizer in metadata.get("finalizers") or [] if finalizer != names.FINALIZER]
        # Without the UID, a new NodeDrain of this name could lose its finalizer while it holds a node.
        body = {"metadata": {"uid": drain.uid, "resourceVersion": metadata["resourceVersion"], "finalizers": remaining}}
        await self._client.patch(paths.drain(self._name), body)


def _urgent_part(status: NodeDrainStatus) -> tuple[object, ...]:
    """Return the part of the status that a user waits for: its changes are written at once."""
    blockers = tuple((b.namespace, b.pod, b.class_) for b in status.blockers)
    conditions = tuple((c.type, c.status, c.reason) for c in status.conditions)
    chain_moves = status.chain_moves
    return (status.phase, status.node, status.started_at, status.recordoned_at, chain_moves, blockers, conditions)
