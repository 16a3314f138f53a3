"""The NodeDrain as one drain's task writes it: its status, and its end.

Each write carries the version that it was made from. Of a refused write the status tells; of a refused status an Event
on the node, and the log.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import structlog

from rescheduler.api import names
from rescheduler.api.conditions import Condition
from rescheduler.api.drains import NodeDrain, NodeDrainStatus
from rescheduler.api.scalars import merge_patch
from rescheduler.controllers.drain.events import DrainEvents
from rescheduler.controllers.evacuation.pod_mover import PodMover
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.store import ResourceKind, Store
from rescheduler.controllers.runtime.write_attempts import WriteAttempts
from rescheduler.core.drain import status as drain_status
from rescheduler.core.eviction import write_refusals
from rescheduler.core.eviction.write_refusals import WriteFailure, WriteOperation
from rescheduler.core.model.nodes import Node
from rescheduler.kube import paths
from rescheduler.kube.client import TRANSIENT_ERRORS, ApiError, Client

log = structlog.get_logger("rescheduler.drainer")

_MIN_PROGRESS_INTERVAL = 1.0  # seconds between writes of mere progress; longer where many drains have some to write
_MAX_PROGRESS_WRITES_PER_SECOND = 5.0  # a second, at most, over all drains


class StatusWriter:
    """One NodeDrain's writes; `wake`: look again, at what was not written yet."""

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

    async def write(
        self, status_input: drain_status.StatusInput, pod_mover: PodMover, *, immediately: bool = False
    ) -> None:
        """Write the status where it differs; mere progress now and then.

        `now`: it has to be there before what comes next, so a failure raises; otherwise it is tried again later.
        """
        status_input = replace(status_input, write_failures=self._reportable_failures())
        wanted, before = drain_status.build(status_input), status_input.drain.status
        if wanted == before:
            return
        urgent, monotonic = immediately or _urgent_part(wanted) != _urgent_part(before), self._clock.monotonic()
        if not urgent and monotonic - self._written_at < (every := self._progress_interval()):
            asyncio.get_running_loop().call_later(every, self._wake)
            return
        if await self._patch_status(status_input.drain, status_input.node, wanted, required=immediately):
            self._events.publish_status_change(
                status_input, before, wanted, pod_mover.uids_by_pod(), pod_mover.owners_by_pod()
            )

    async def write_failures(self, drain: NodeDrain, node: Node | None) -> None:
        """Name what fails in the status as it stands: a look that failed has none of its own."""
        wanted = drain_status.with_write_failures(drain, self._reportable_failures(), self._clock.now())
        if wanted != drain.status:
            await self._patch_status(drain, node, wanted, required=False)

    def _reportable_failures(self) -> tuple[WriteFailure, ...]:
        """What a status that could be written would tell."""
        return tuple(
            trouble for trouble in self._attempts.reported_failures() if trouble.operation is not WriteOperation.STATUS
        )

    async def _patch_status(
        self, drain: NodeDrain, node: Node | None, wanted: NodeDrainStatus, *, required: bool
    ) -> bool:
        self._written_at = self._clock.monotonic()
        body = {"metadata": {"resourceVersion": drain.resource_version}, "status": merge_patch(drain.status, wanted)}

        async def send() -> None:
            self._store.put(ResourceKind.DRAIN, await self._client.patch(f"{paths.drain(self._name)}/status", body))

        try:
            if not required:
                return await self._attempts.attempt(WriteOperation.STATUS, send)
            await send()
        except ApiError as error:
            if not write_refusals.is_conflict(error.response):
                self._attempts.record_failure(WriteOperation.STATUS, error)
            raise
        finally:
            if node and self._attempts.is_reported(WriteOperation.STATUS):
                self._events.publish_write_failed(node, self._attempts.reported_failures())
        self._attempts.clear(WriteOperation.STATUS)
        return True

    def _progress_interval(self) -> float:
        """Seconds between writes of mere progress; all drains are counted, so it is not asked with each look."""
        return max(_MIN_PROGRESS_INTERVAL, self._store.draining_count / _MAX_PROGRESS_WRITES_PER_SECOND)

    async def report_internal_error(self, drain: NodeDrain, error: Exception) -> None:
        """Report that the operator itself fails at this drain, once; the next status that is written replaces this."""
        status = _with_internal_error(drain, error, self._clock.now())
        if status == drain.status:
            return
        body = {"metadata": {"resourceVersion": drain.resource_version}, "status": merge_patch(drain.status, status)}
        try:
            self._store.put(ResourceKind.DRAIN, await self._client.patch(f"{paths.drain(self._name)}/status", body))
        except TRANSIENT_ERRORS as refused:
            log.warning("drain.failure_not_reported", drain=self._name, error=str(refused))

    async def cancel(self, status_input: drain_status.StatusInput) -> bool:
        """Its time is up: delete it, and say so. Return whether it was deleted."""
        deleted = await self._delete(status_input.drain)
        if deleted:
            self._events.publish_timed_out(status_input)
        return deleted

    async def _delete(self, drain: NodeDrain) -> bool:
        async def send() -> None:
            answer = await self._client.delete(paths.drain(self._name), {"preconditions": {"uid": drain.uid}})
            if answer.get("kind") == "NodeDrain":
                self._store.put(ResourceKind.DRAIN, answer)

        return await self._attempts.attempt(WriteOperation.DELETE, send)

    async def remove_drain(self, drain: NodeDrain, node: Node | None) -> bool:
        """Let the NodeDrain go; one whose node is gone is deleted first. Return whether it is gone."""
        record = drain.status.node
        if drain.deletion_timestamp is None:
            if not await self._delete(drain):
                return False
            self._events.publish_node_gone(drain, node)
        if names.FINALIZER in drain.finalizers and not await self._attempts.attempt(
            WriteOperation.FINALIZER, lambda: self._remove_finalizer(drain)
        ):
            return False
        log.info("drain.gone", drain=self._name, node=drain.spec.node_name, uid=record.uid if record else "")
        self._store.drop(ResourceKind.DRAIN, self._name)
        return True

    async def _remove_finalizer(self, drain: NodeDrain) -> None:
        fresh = (await self._client.get(paths.drain(self._name)))["metadata"]
        kept = [found for found in fresh.get("finalizers") or [] if found != names.FINALIZER]
        # Of the uid too: by now it may be another one of the same name, which holds a node.
        body = {"metadata": {"uid": drain.uid, "resourceVersion": fresh["resourceVersion"], "finalizers": kept}}
        await self._client.patch(paths.drain(self._name), body)


def _with_internal_error(drain: NodeDrain, error: Exception, now: datetime) -> NodeDrainStatus:
    known = {condition.type: condition for condition in drain.status.conditions}
    before = known.get("Progressing")
    known["Progressing"] = Condition(
        type="Progressing",
        status="False",
        reason="InternalError",
        message=f"internal error in the operator ({type(error).__name__}): it tries again at least once a minute; "
        "find task.failed in its log and report it",
        observed_generation=drain.generation,
        last_transition_time=before.last_transition_time if before and before.status == "False" else now,
    )
    conditions = tuple(known.values())
    return drain.status.model_copy(update={"conditions": conditions, "waiting": drain_status.waiting(conditions)})


def _urgent_part(status: NodeDrainStatus) -> tuple[object, ...]:
    """What a person waits for: a change of it is written at once."""
    blockers = tuple((b.namespace, b.pod, b.class_) for b in status.blockers)
    conditions = tuple((c.type, c.status, c.reason) for c in status.conditions)
    return (status.phase, status.node, status.started_at, status.recordoned_at, blockers, conditions)
