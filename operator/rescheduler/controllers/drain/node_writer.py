"""Write on the node of a drain: record, cordon, waiting taint, conditions, and the restore."""

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import replace
from enum import Enum, auto
from typing import Protocol

import structlog

from rescheduler.api.drains import NodeDrain, NodeRecord
from rescheduler.controllers.drain.events import DrainEvents
from rescheduler.controllers.failure.lease_monitor import LeaseMonitor
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.write_attempts import WriteAttempts
from rescheduler.controllers.store.object_cache import ResourceKind
from rescheduler.controllers.store.store import Store
from rescheduler.core.drain import node_patches, status, triggers
from rescheduler.core.drain.node_patches import RestorePart
from rescheduler.core.drain.state_machine import Fact, step
from rescheduler.core.eligibility import decision, preconditions
from rescheduler.core.eviction import write_refusals
from rescheduler.core.eviction.write_refusals import WriteOperation
from rescheduler.core.failure import condition_history, fencing
from rescheduler.core.model.nodes import CONDITION_UNKNOWN, Node, parse_node
from rescheduler.core.model.raw import RawObject
from rescheduler.core.model.wait_reasons import ProgressingReason
from rescheduler.kube import paths
from rescheduler.kube.client import MERGE_PATCH, STRATEGIC_PATCH, ApiError, Client

log = structlog.get_logger("rescheduler.drain.node_writer")

_PART_ACTS = {
    RestorePart.UNCORDON: WriteOperation.UNCORDON,
    RestorePart.UNTAINT: WriteOperation.UNTAINT,
    RestorePart.REMOVE_METADATA: WriteOperation.REMOVE_METADATA,
    RestorePart.ANNOTATE_CANCELLED: WriteOperation.ANNOTATE_CANCELLED,
}
RECENT_READ_MAX_AGE = 1.0  # seconds; a read this recent is enough unless a pod is forced off


class WriteStatus(Protocol):
    """Writes the status of the NodeDrain; `immediately`: without waiting for more changes."""

    def __call__(self, status_input: status.StatusInput, *, immediately: bool = False) -> Awaitable[None]: ...


class _Pace(Enum):
    """Keys of writes that another client may undo. A text as key could be equal to a `WriteOperation`."""

    RESTORE = auto()
    CONDITIONS = auto()
    TAINT = auto()


class Evidence(Enum):
    """Signs of failure that a live read must still show before the cordon of a failed node."""

    CONDITION = auto()  # a failure condition of the policy
    SILENT_LEASE = auto()  # only the silent Lease, because the failure is not confirmed
    NONE = auto()  # nothing: a flapping node need not fail at this moment


class NodeWriter:
    """Writes on the node of one drain.

    Attributes:
        write_count: number of writes on the node, also of those that failed.
    """

    def __init__(
        self,
        name: str,
        client: Client,
        store: Store,
        clock: Clock,
        events: DrainEvents,
        lease_monitor: LeaseMonitor,
        attempts: WriteAttempts,
        *,
        cleanup: bool = False,
    ) -> None:
        self.write_count = 0
        self._attempts, self._cleanup = attempts, cleanup
        self._conditions_removed = False  # the conditions of the operator were removed once
        self._restore_attempts = 0  # in a row
        self._restores_in_parts = False  # the whole restore was refused: its parts are written separately
        self._written_conditions: Mapping[str, tuple[str, str, str]] = {}  # the conditions last written
        self._written_metadata: tuple[object, object] | None = None  # the labels and annotations last written
        self._name, self._client, self._store = name, client, store
        self._clock, self._events, self._lease_monitor = clock, events, lease_monitor
        self._lost_race = False  # the last patch failed: the node does not have what the record names
        self._record_before_patch: NodeRecord | None = None  # the record before that patch
        self._undone = False  # a user uncordoned the node, and the node is not cordoned again yet
        self._last_read: tuple[float, Node | None] = (
            float("-inf"),
            None,
        )
        self._read_lock = asyncio.Lock()

    async def read_live(self, name: str) -> Node | None:
        """Return the node from a live read: a node that is not in memory may exist."""
        asked = self._clock.monotonic()
        if raw := await self._client.find(paths.node(name)):
            return self._store_node(raw, asked)
        self._last_read = (asked, None)
        return None

    async def read_recent(self, name: str) -> Node | None:
        """Return the node from a read or write a moment ago if it is still current; else from a live read."""
        async with self._read_lock:
            (read_at, last_node), current = self._last_read, self._store.node(name)
            if (
                last_node
                and current
                and last_node.resource_version == current.resource_version
                and self._clock.monotonic() - read_at < RECENT_READ_MAX_AGE
            ):
                return last_node
            return await self.read_live(name)

    def _store_node(self, raw: RawObject, asked_at: float) -> Node:
        self._store.put(ResourceKind.NODE, raw)
        self._last_read = (asked_at, parse_node(raw))
        return parse_node(raw)

    async def _send_patch(self, path: str, patch: RawObject, *, kind: str = MERGE_PATCH) -> Node:
        asked = self._clock.monotonic()
        self.write_count += 1
        return self._store_node(await self._client.patch(path, patch, kind=kind), asked)

    def is_restored(self, drain: NodeDrain, node: Node, *, node_in_use: bool) -> bool:
        """Whether nothing that the drain added is left on the node.

        Conditions are information only: after their removal or a refused removal, the restore does not wait for them.
        """
        is_finished = self._conditions_removed or self._attempts.is_permanent(WriteOperation.CONDITIONS)
        has_conditions = not is_finished and any(map(node_patches.is_our_condition, node.conditions))
        patch = node_patches.restore_patch(
            node, self._record_to_remove(drain, node, node_in_use=node_in_use), self._cancelled_requests(drain, node)
        )
        return patch is None and not has_conditions

    def must_stay_out_of_service(self, drain: NodeDrain, node: Node, *, node_in_use: bool) -> bool:
        """Whether the out-of-service taint of the drain must stay, so that the node cannot be restored yet."""
        return not self._cleanup and fencing.must_keep_taint(node, drain.status.node, node_in_use=node_in_use)

    def _record_to_remove(self, drain: NodeDrain, node: Node, *, node_in_use: bool) -> NodeRecord | None:
        """Return the record of what to remove; an uninstall leaves an out-of-service taint that must stay."""
        record = drain.status.node
        keeps_taint = self._cleanup and fencing.must_keep_taint(node, record, node_in_use=node_in_use)
        return node_patches.in_service_record(record) if record and keeps_taint else record

    async def cordon(
        self, status_input: status.StatusInput, node: Node, write_status: WriteStatus, evidence: Evidence
    ) -> status.StatusInput:
        """Cordon the node, after the status has the record of every addition.

        Return the given input itself if there is nothing to do or no write is due.
        """
        was_cordoned = self._undone or status.is_cordoned(status_input.drain.status)
        self._undone = was_cordoned and not node.unschedulable
        if (
            status_input.wait
            and status_input.wait.reason is ProgressingReason.CANCELLED
            and not node.unschedulable
            and not was_cordoned
        ):
            return status_input  # the node has recovered: it must not be cordoned now
        drain, reasons = status_input.drain, {r.reason for r in status_input.drain.spec.requests}
        exclude = (
            status_input.policy is not None
            and drain.spec.drain.apply_to(status_input.policy.spec.drain).exclude_from_load_balancers
        )
        added = node_patches.additions(node, reasons, exclude_from_load_balancers=exclude)
        previous_record = self._record_before_patch = (
            self._record_before_patch if self._lost_race else drain.status.node
        )
        record = node_patches.cordon_record(node, previous_record, added)
        self._clear_resolved_failures(node, record)
        if record == drain.status.node and self._due_cordon_patch(node, record) is None:
            return status_input
        if status_input.started_at is None and self._has_wait_reason_changed(status_input):
            return replace(status_input, phase=step(status_input.phase, Fact.TURN_LOST).phase)
        started_at = status_input.started_at or status_input.now
        self._store.state_builder.reserve_slot(self._name, started_at)
        try:
            # Until the cordon is observed, also after a lost race, the node may have recovered.
            if preconditions.has_only_failure_requests(drain) and not was_cordoned:
                live_node = await self.read_recent(node.name)
                if live_node is None or not await self._is_still_failed(status_input, live_node, evidence):
                    # The node has recovered or is gone: its request ends soon.
                    phase = step(status_input.phase, Fact.RECOVERED).phase
                    return replace(status_input, node=live_node or node, phase=phase)
                node = live_node
                record = node_patches.cordon_record(node, previous_record, added)
            # Only a reported cordon can be undone: after a crash before the cordon, no user uncordoned the node.
            was_uncordoned = bool(status_input.started_at and not node.unschedulable and was_cordoned)
            phase = step(status_input.phase, Fact.UNCORDONED).phase if was_uncordoned else status_input.phase
            status_input = replace(status_input, node_record=record, started_at=started_at, node=node, phase=phase)
            # Without this write, the status would claim after a crash that the first cordon still holds.
            if record != drain.status.node or drain.status.started_at is None or was_uncordoned:
                await write_status(status_input, immediately=True)
            if await self._apply_cordon(node, record) and not node.unschedulable:
                # Only a successful cordon counts: after a lost race the cordon is written again.
                self._undone, cordoned = False, self._clock.now()
                status_input = replace(status_input, now=cordoned, recordoned_at=cordoned if was_uncordoned else None)
                log.info("node.cordoned", node=node.name, drain=self._name, uid=node.uid)
                self._events.publish_cordoned(status_input)
        finally:
            self._store.state_builder.reserve_slot(self._name, None)
        current_node = self._store.node(node.name) or node
        return replace(status_input, drain=self._store.drain(self._name) or status_input.drain, node=current_node)

    def _clear_resolved_failures(self, node: Node, record: NodeRecord) -> None:
        """Clear failures of writes whose result is on the node, from any writer."""
        self._attempts.clear(WriteOperation.TAINT)
        if node.unschedulable:
            self._attempts.clear(WriteOperation.CORDON)
        if node_patches.cordon_patch(node, record) == node_patches.cordon_patch(node, record, with_metadata=False):
            self._attempts.clear(WriteOperation.SET_METADATA)

    def _due_cordon_patch(self, node: Node, record: NodeRecord) -> RawObject | None:
        """Return the cordon patch that is due; None if the node has it or no attempt is due.

        Metadata that another client keeps removing is set twice a minute.
        """
        with_metadata = self._attempts.is_due(WriteOperation.SET_METADATA) or self._written_metadata != _added_metadata(
            record
        )
        patch = node_patches.cordon_patch(node, record, with_metadata=with_metadata)
        if patch is None or (not node.unschedulable and not self._attempts.is_due(WriteOperation.CORDON)):
            return None
        return patch

    async def _apply_cordon(self, node: Node, record: NodeRecord) -> bool:
        """Cordon and set metadata in one write; if refused, cordon separately. Return whether a write succeeded."""
        patch, cordon_only = (
            self._due_cordon_patch(node, record),
            node_patches.cordon_patch(node, record, with_metadata=False),
        )
        if patch is None:
            return False
        has_metadata = patch != cordon_only
        succeeded = await self._attempts.attempt(
            WriteOperation.CORDON if cordon_only is not None else WriteOperation.SET_METADATA,
            lambda: self._patch_recorded(node, patch),
        )
        if has_metadata:
            self._written_metadata = _added_metadata(record)
        if succeeded and has_metadata:
            self._attempts.clear(WriteOperation.SET_METADATA)
            self._attempts.postpone(WriteOperation.SET_METADATA, write_refusals.MAX_RETRY_DELAY)
        elif (
            not succeeded
            and has_metadata
            and cordon_only is not None
            and self._attempts.may_other_write_pass(WriteOperation.CORDON)
        ):
            self._attempts.reassign_failure(WriteOperation.CORDON, WriteOperation.SET_METADATA)
            succeeded = await self._attempts.attempt(
                WriteOperation.CORDON, lambda: self._patch_recorded(node, cordon_only)
            )
        return succeeded

    def seconds_until_restore(self) -> float:
        """Return the seconds until the next attempt to restore the node."""
        failed = self._attempts.seconds_until_next(WriteOperation.RESTORE, *_PART_ACTS.values())
        return max(self._attempts.seconds_until_due(_Pace.RESTORE), 0.0 if failed == float("inf") else failed)

    def reset(self) -> None:
        """Forget the restore: the node is restored, and the drain will hold it again."""
        self._restore_attempts, self._restores_in_parts, self._conditions_removed, self._undone = 0, False, False, False

    def _has_wait_reason_changed(self, status_input: status.StatusInput) -> bool:
        """Whether the reason for waiting has changed: another drain may have started during a request."""
        current = decision.wait_reason(status_input.drain, self._store.cluster_state(), self._clock.now())
        return (current.reason if current else None) != (status_input.wait.reason if status_input.wait else None)

    async def taint_waiting_node(
        self, status_input: status.StatusInput, node: Node, write_status: WriteStatus
    ) -> status.StatusInput:
        """Set the waiting taint: evicted pods of other nodes avoid a node that is drained next."""
        record = node_patches.waiting_record(node, status_input.drain.status.node)
        if node_patches.waiting_taint_patch(node, record) is None:
            self._attempts.clear(WriteOperation.TAINT)
            return status_input
        is_repeated = record == status_input.drain.status.node and not self._attempts.is_due(
            _Pace.TAINT
        )  # another client keeps removing the taint
        if is_repeated or not self._attempts.is_due(WriteOperation.TAINT):
            return status_input
        self._attempts.postpone(_Pace.TAINT, write_refusals.MAX_RETRY_DELAY)
        self._record_before_patch = status_input.drain.status.node
        status_input = replace(status_input, node_record=record)
        if record != status_input.drain.status.node:
            await write_status(status_input, immediately=True)
        await self._attempts.attempt(
            WriteOperation.TAINT, lambda: self._patch_recorded(node, node_patches.waiting_taint_patch(node, record))
        )
        return replace(status_input, drain=self._store.drain(self._name) or status_input.drain)

    async def _patch_recorded(self, node: Node, patch: RawObject | None) -> None:
        """Write what the record names. After a conflict, `cordonedByUs` is decided again from a new read."""
        if patch is None:
            return
        try:
            await self.patch(node, patch)
        except ApiError as error:
            self._lost_race = self._lost_race or error.code == 409
            raise
        self._lost_race = False

    async def patch(self, node: Node, patch: RawObject) -> None:
        """Patch the node. The patch carries its resourceVersion: after a conflict the node is read again."""
        try:
            await self._send_patch(paths.node(node.name), patch)
        except ApiError as error:
            if error.code == 409:
                await self.read_live(node.name)
            raise

    def may_attempt(self, operation: WriteOperation, *, wanted: bool) -> bool:
        """Whether an attempt is due; the failure of an operation that is not wanted is cleared."""
        if not wanted:
            self._attempts.clear(operation)
        return wanted and self._attempts.is_due(operation)

    async def attempt(self, operation: WriteOperation, node: Node, patch: RawObject) -> bool:
        """Write an optional patch on the node. Return whether it succeeded."""
        return await self._attempts.attempt(operation, lambda: self.patch(node, patch))

    async def _is_still_failed(self, status_input: status.StatusInput, node: Node, evidence: Evidence) -> bool:
        """Whether the node, as just read, still has the failure of the drain, and the view is reliable."""
        if evidence is Evidence.NONE:
            return True
        conditions = status_input.policy.spec.failure.conditions if status_input.policy else ()
        if evidence is not Evidence.SILENT_LEASE and not any(
            condition_history.matching_condition(node, match) for match in conditions
        ):
            return False
        is_reported = node.ready_status != CONDITION_UNKNOWN and evidence is not Evidence.SILENT_LEASE
        return (
            is_reported or await self._lease_monitor.is_silent(node)
        ) and not self._store.state_builder.is_view_stale()

    async def write_conditions(self, status_input: status.StatusInput) -> None:
        """Write the node conditions of the operator."""
        node = self._store.node(status_input.drain.spec.node_name)
        if node is None:
            return
        wanted = status.node_conditions(
            status_input.phase, status_input.started_at, {r.reason for r in status_input.drain.spec.requests}
        )
        patch = node_patches.conditions_patch(wanted, node, status_input.now)
        if patch is None:
            self._attempts.clear(WriteOperation.CONDITIONS)
            return
        if wanted != self._written_conditions or self._attempts.is_due(_Pace.CONDITIONS):
            path = f"{paths.node(node.name)}/status"
            await self._attempts.attempt(
                WriteOperation.CONDITIONS, lambda: self._send_patch(path, patch, kind=STRATEGIC_PATCH)
            )
            self._written_conditions = wanted
            self._attempts.postpone(
                _Pace.CONDITIONS, write_refusals.MAX_RETRY_DELAY
            )  # another client may keep writing them

    def _cancelled_requests(self, drain: NodeDrain, node: Node) -> dict[str, str]:
        """Return the tokens of requests that stand after the NodeDrain was deleted: they must not start again."""
        history = self._store.refresh_history(node.name)
        if history is None or self._cleanup:
            return {}
        existing_requests = triggers.existing_requests(drain)
        context = self._store.trigger_context(node.name, existing_requests)
        wanted = triggers.wanted_requests(node, self._store.policy(node), history, self._clock.now(), context)
        # Only requests of this NodeDrain are cancelled: a later failure must start a new drain.
        requested = [request for request in wanted.requests if request.reason in existing_requests]
        return {str(request.reason): request.token for request in requested if request.token is not None}

    async def restore(self, drain: NodeDrain, *, node_in_use: bool) -> None:
        """Restore the node, and record the requests that stand as cancelled."""
        node = self._store.node(drain.spec.node_name)
        cancelled = self._cancelled_requests(drain, node) if node else {}
        if node := await self.remove_changes(drain, cancelled, node_in_use=node_in_use):
            log.info("node.restored", node=node.name, drain=self._name, uid=node.uid)
            self._events.publish_restored(drain, node)

    async def remove_changes(self, drain: NodeDrain, cancelled: Mapping[str, str], *, node_in_use: bool) -> Node | None:
        """Remove the conditions from the node, then everything that the record names.

        Return None if the node is gone, must stay out of service, or a write failed.
        """
        if not self._attempts.is_due(_Pace.RESTORE):
            return None
        self._restore_attempts += 1
        self._attempts.postpone(
            _Pace.RESTORE, write_refusals.backoff_delay(self._restore_attempts)
        )  # another client may keep undoing the restore
        node = await self.read_live(drain.spec.node_name)
        if node is None or self.must_stay_out_of_service(drain, node, node_in_use=node_in_use):
            return None
        record = self._record_to_remove(drain, node, node_in_use=node_in_use)
        if record != drain.status.node:
            self._events.publish_left_out_of_service(drain, node)
        node = await self._remove_conditions(node)
        if not self._restores_in_parts:
            node, is_done = await self._apply_removal(
                node, WriteOperation.RESTORE, node_patches.restore_patch(node, record, cancelled)
            )
            self._restores_in_parts = self._attempts.may_other_write_pass(WriteOperation.RESTORE)
            if not self._restores_in_parts:
                return node if is_done else None
        is_done = True
        for part, operation in _PART_ACTS.items():
            node, succeeded = await self._apply_removal(
                node, operation, node_patches.restore_patch(node, record, cancelled, (part,))
            )
            is_done = is_done and succeeded
        # The failure of the whole restore is reported until the failure of a part is.
        if is_done or any(map(self._attempts.is_reported, _PART_ACTS.values())):
            self._attempts.clear(WriteOperation.RESTORE)
        return node if is_done else None

    async def _remove_conditions(self, node: Node) -> Node:
        if (patch := node_patches.conditions_removal_patch(node)) and not self._conditions_removed:
            path = f"{paths.node(node.name)}/status"
            succeeded = await self._attempts.attempt(
                WriteOperation.CONDITIONS, lambda: self._send_patch(path, patch, kind=STRATEGIC_PATCH)
            )
            self._conditions_removed = succeeded
        return self._store.node(node.name) or node

    async def _apply_removal(self, node: Node, operation: WriteOperation, patch: RawObject | None) -> tuple[Node, bool]:
        """Return the current node, and whether nothing of this removal is left."""
        succeeded = patch is None
        if patch is not None:
            succeeded = await self._attempts.attempt(operation, lambda: self.patch(node, patch))
        if succeeded:
            self._attempts.clear(operation)
        return self._store.node(node.name) or node, succeeded


def _added_metadata(record: NodeRecord) -> tuple[object, object]:
    return record.added_labels, record.added_annotations
