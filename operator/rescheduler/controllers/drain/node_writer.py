"""Writes on the node of a drain: record, cordon, conditions, and taking all of it off again."""

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import replace
from typing import Protocol

import structlog

from rescheduler.api.drains import NodeDrain, NodeRecord, Phase
from rescheduler.controllers.drain.events import DrainEvents
from rescheduler.controllers.failure.lease_monitor import LeaseMonitor
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.store import ResourceKind, Store
from rescheduler.controllers.runtime.write_attempts import WriteAttempts
from rescheduler.core.drain import node_patches, status, triggers
from rescheduler.core.drain.node_patches import RestorePart
from rescheduler.core.drain.state_machine import Fact
from rescheduler.core.eligibility import decision, preconditions
from rescheduler.core.eviction import write_refusals
from rescheduler.core.eviction.write_refusals import WriteOperation
from rescheduler.core.failure import condition_history, fencing
from rescheduler.core.model.nodes import CONDITION_UNKNOWN, Node, parse_node
from rescheduler.core.model.wait_reasons import ProgressingReason
from rescheduler.kube import paths
from rescheduler.kube.client import MERGE_PATCH, STRATEGIC_PATCH, ApiError, Client, Json

log = structlog.get_logger("rescheduler.keeper")

_RESTORE_KEY, _CONDITIONS_KEY, _TAINT_KEY = "restore", "mark", "taint"  # what is done again and again is done at a pace
_PART_ACTS = {
    RestorePart.UNCORDON: WriteOperation.UNCORDON,
    RestorePart.UNTAINT: WriteOperation.UNTAINT,
    RestorePart.REMOVE_METADATA: WriteOperation.REMOVE_METADATA,
    RestorePart.ANNOTATE_CANCELLED: WriteOperation.ANNOTATE_CANCELLED,
}
RECENT_READ_MAX_AGE = 1.0  # seconds that an answer about the node is good for, where nothing is forced


class WriteStatus(Protocol):
    """Writes the NodeDrain's status; `now`: without waiting for more to say."""

    def __call__(self, status_input: status.StatusInput, *, immediately: bool = False) -> Awaitable[None]: ...


class NodeWriter:
    """One drain's node.

    Attributes:
        busy: something there is Terminating, or attached though no pod uses it, or that is not known.
        wrote: the node was changed since this was last set to False.
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
        self.node_in_use, self.has_written = True, False
        self._attempts, self._cleanup = attempts, cleanup
        self._conditions_removed = False  # our conditions were removed once
        self._restore_attempts = 0  # in a row
        self._restores_in_parts = False  # the whole restore was refused: its parts are written on their own
        self._written_conditions: Mapping[str, tuple[str, str, str]] = {}  # the conditions last written
        self._written_metadata: tuple[object, object] | None = None  # the labels and annotations last written
        self._name, self._client, self._store = name, client, store
        self._clock, self._events, self._lease_monitor = clock, events, lease_monitor
        self._lost_race = False  # the last patch failed: what its record says is not on the node
        self._record_before_patch: NodeRecord | None = None  # what the record said before that patch
        self._undone = False  # somebody uncordoned the node, and it is not cordoned again yet
        self._last_read: tuple[float, Node | None] = (
            float("-inf"),
            None,
        )  # when we last asked, and what the answer was
        self._read_lock = asyncio.Lock()

    async def read_live(self, name: str) -> Node | None:
        """The node read live: absent from memory may mean not seen yet."""
        asked = self._clock.monotonic()
        if raw := await self._client.find(paths.node(name)):
            return self._store_node(raw, asked)
        self._last_read = (asked, None)
        return None

    async def read_recent(self, name: str) -> Node | None:
        """The node as the server told it a moment ago, be it in answer to a write, where there is no news since; else
        read live.
        """
        async with self._read_lock:
            (asked, told), known = self._last_read, self._store.node(name)
            if (
                told
                and known
                and told.resource_version == known.resource_version
                and self._clock.monotonic() - asked < RECENT_READ_MAX_AGE
            ):
                return told
            return await self.read_live(name)

    def _store_node(self, raw: Json, asked_at: float) -> Node:
        self._store.put(ResourceKind.NODE, raw)
        self._last_read = (asked_at, parse_node(raw))
        return parse_node(raw)

    async def _send_patch(self, path: str, patch: node_patches.Patch, *, kind: str = MERGE_PATCH) -> Node:
        asked = self._clock.monotonic()
        self.has_written = True
        return self._store_node(await self._client.patch(path, patch, kind=kind), asked)

    def is_restored(self, drain: NodeDrain, node: Node) -> bool:
        """Whether nothing of ours is on the node.

        Conditions are only words: once they were removed, or their removal was refused, nothing waits for them.
        """
        given_up = self._conditions_removed or self._attempts.is_permanent(WriteOperation.CONDITIONS)
        conditions = not given_up and any(map(node_patches.is_our_condition, node.conditions))
        patch = node_patches.restore_patch(
            node, self._record_to_remove(drain, node), self._cancelled_requests(drain, node)
        )
        return patch is None and not conditions

    def must_stay_out_of_service(self, drain: NodeDrain, node: Node) -> bool:
        """Whether the out-of-service taint is ours and may not go: the node cannot be put back yet."""
        return not self._cleanup and fencing.must_keep_taint(node, drain.status.node, node_in_use=self.node_in_use)

    def _record_to_remove(self, drain: NodeDrain, node: Node) -> NodeRecord | None:
        """What is to be taken off: on leaving for good all but a taint that may not go."""
        record = drain.status.node
        stays = self._cleanup and fencing.must_keep_taint(node, record, node_in_use=self.node_in_use)
        return node_patches.in_service_record(record) if record and stays else record

    async def cordon(
        self, status_input: status.StatusInput, node: Node, write_status: WriteStatus
    ) -> status.StatusInput:
        """Record, then cordon: what is not in the record yet is written there before it is written on the node.

        Return the scene itself if there was nothing to do, or nothing that may be tried now.
        """
        before_us = self._undone or status.is_cordoned(status_input.drain.status)
        self._undone = before_us and not node.unschedulable
        if (
            status_input.wait
            and status_input.wait.reason is ProgressingReason.CANCELLED
            and not node.unschedulable
            and not before_us
        ):
            return status_input  # it is well again: nothing is cordoned anew
        drain, reasons = status_input.drain, {r.reason for r in status_input.drain.spec.requests}
        exclude = (
            status_input.policy is not None
            and drain.spec.drain.apply_to(status_input.policy.spec.drain).exclude_from_load_balancers
        )
        adds = node_patches.additions(node, reasons, exclude_from_load_balancers=exclude)
        before = self._record_before_patch = self._record_before_patch if self._lost_race else drain.status.node
        record = node_patches.cordon_record(node, before, adds)
        self._clear_resolved_failures(node, record)
        if record == drain.status.node and self._due_cordon_patch(node, record) is None:
            return status_input
        if status_input.started_at is None and self._has_wait_reason_changed(status_input):
            return replace(status_input, phase=Phase.WAITING)
        begun = status_input.started_at or status_input.now
        self._store.reserve_slot(self._name, begun)
        try:
            # Until the cordon was seen to be through, also after a lost race, the node may have healed.
            if preconditions.has_only_failure_requests(drain) and not before_us:
                live = await self.read_recent(node.name)
                if live is None or not await self._is_still_failed(status_input, live):
                    # Healed or gone meanwhile: so will its request be.
                    return replace(status_input, node=live or node, phase=Phase.WAITING)
                node = live
                record = node_patches.cordon_record(node, before, adds)
            # The status says that the cordon was through: a crash before it is nobody's uncordoning.
            undone = bool(status_input.started_at and not node.unschedulable and before_us)
            phase = Phase.DRAINING if undone and status_input.phase is Phase.DRAINED else status_input.phase
            status_input = replace(status_input, node_record=record, started_at=begun, node=node, phase=phase)
            # After a crash the status would say that the first cordon still holds.
            if record != drain.status.node or drain.status.started_at is None or undone:
                await write_status(status_input, immediately=True)
            if await self._apply_cordon(node, record) and not node.unschedulable:
                # Noted once it is through: one that lost a race has not been done, and is done again.
                self._undone, cordoned = False, self._clock.now()
                status_input = replace(status_input, now=cordoned, recordoned_at=cordoned if undone else None)
                log.info("node.cordoned", node=node.name, drain=self._name, uid=node.uid)
                self._events.publish_cordoned(status_input)
        finally:
            self._store.reserve_slot(self._name, None)
        seen = self._store.node(node.name) or node
        return replace(status_input, drain=self._store.drain(self._name) or status_input.drain, node=seen)

    def _clear_resolved_failures(self, node: Node, record: NodeRecord) -> None:
        """What is there, whoever wrote it, fails no more."""
        self._attempts.clear(WriteOperation.TAINT)
        if node.unschedulable:
            self._attempts.clear(WriteOperation.CORDON)
        if node_patches.cordon_patch(node, record) == node_patches.cordon_patch(node, record, with_metadata=False):
            self._attempts.clear(WriteOperation.SET_METADATA)

    def _due_cordon_patch(self, node: Node, record: NodeRecord) -> node_patches.Patch | None:
        """Return what is to be written now; None while it is there, or may not be tried again yet.

        What somebody keeps removing is set again twice a minute.
        """
        decorate = self._attempts.is_due(WriteOperation.SET_METADATA) or self._written_metadata != _added_metadata(
            record
        )
        patch = node_patches.cordon_patch(node, record, with_metadata=decorate)
        if patch is None or (not node.unschedulable and not self._attempts.is_due(WriteOperation.CORDON)):
            return None
        return patch

    async def _apply_cordon(self, node: Node, record: NodeRecord) -> bool:
        """Cordon and decorate in one write; if it is refused, cordon on its own. Return whether one went through."""
        patch, plain = (
            self._due_cordon_patch(node, record),
            node_patches.cordon_patch(node, record, with_metadata=False),
        )
        if patch is None:
            return False
        decorates = patch != plain
        whole = await self._attempts.attempt(
            WriteOperation.CORDON if plain is not None else WriteOperation.SET_METADATA,
            lambda: self._patch_recorded(node, patch),
        )
        if decorates:
            self._written_metadata = _added_metadata(record)
        if whole and decorates:
            self._attempts.clear(WriteOperation.SET_METADATA)
            self._attempts.postpone(WriteOperation.SET_METADATA, write_refusals.MAX_RETRY_DELAY)
        elif (
            not whole and decorates and plain is not None and self._attempts.may_other_write_pass(WriteOperation.CORDON)
        ):
            self._attempts.reassign_failure(WriteOperation.CORDON, WriteOperation.SET_METADATA)
            whole = await self._attempts.attempt(WriteOperation.CORDON, lambda: self._patch_recorded(node, plain))
        return whole

    def seconds_until_restore(self) -> float:
        """Return the seconds until the node may be put back again."""
        failed = self._attempts.seconds_until_next(WriteOperation.RESTORE, *_PART_ACTS.values())
        return max(self._attempts.seconds_until_due(_RESTORE_KEY), 0.0 if failed == float("inf") else failed)

    def reset(self) -> None:
        """The node was put back, and will be held again."""
        self._restore_attempts, self._restores_in_parts, self._conditions_removed, self._undone = 0, False, False, False

    def _has_wait_reason_changed(self, status_input: status.StatusInput) -> bool:
        """Whether it is this drain's turn no more: while it asked others, another may have begun in its place."""
        now = decision.wait_reason(status_input.drain, self._store.cluster_state(), self._clock.now())
        return (now.reason if now else None) != (status_input.wait.reason if status_input.wait else None)

    async def taint_waiting_node(
        self, status_input: status.StatusInput, node: Node, write_status: WriteStatus
    ) -> status.StatusInput:
        """While the node waits for its turn: pods that others lose had better not come here."""
        record = node_patches.waiting_record(node, status_input.drain.status.node)
        if node_patches.waiting_taint_patch(node, record) is None:
            self._attempts.clear(WriteOperation.TAINT)
            return status_input
        again = record == status_input.drain.status.node and not self._attempts.is_due(
            _TAINT_KEY
        )  # somebody keeps removing it
        if again or not self._attempts.is_due(WriteOperation.TAINT):
            return status_input
        self._attempts.postpone(_TAINT_KEY, write_refusals.MAX_RETRY_DELAY)
        self._record_before_patch = status_input.drain.status.node
        status_input = replace(status_input, node_record=record)
        if record != status_input.drain.status.node:
            await write_status(status_input, immediately=True)
        await self._attempts.attempt(
            WriteOperation.TAINT, lambda: self._patch_recorded(node, node_patches.waiting_taint_patch(node, record))
        )
        return replace(status_input, drain=self._store.drain(self._name) or status_input.drain)

    async def _patch_recorded(self, node: Node, patch: node_patches.Patch | None) -> None:
        """Write what the record promises. Where somebody was faster, it is found out anew who had cordoned the node."""
        if patch is None:
            return
        try:
            await self.patch(node, patch)
        except ApiError as error:
            self._lost_race = self._lost_race or error.code == 409
            raise
        self._lost_race = False

    async def patch(self, node: Node, patch: node_patches.Patch) -> None:
        """Write on the node. The patch carries the version that it was made from: where somebody was faster it
        fails, and the node is read again.
        """
        try:
            await self._send_patch(paths.node(node.name), patch)
        except ApiError as error:
            if error.code == 409:
                await self.read_live(node.name)
            raise

    def may_attempt(self, operation: WriteOperation, *, wanted: bool) -> bool:
        """Whether the act may be tried now; what is not wanted any more fails no more."""
        if not wanted:
            self._attempts.clear(operation)
        return wanted and self._attempts.is_due(operation)

    async def attempt(self, operation: WriteOperation, node: Node, patch: node_patches.Patch) -> bool:
        """Write on the node what the drain can do without; whether it went through."""
        return await self._attempts.attempt(operation, lambda: self.patch(node, patch))

    async def _is_still_failed(self, status_input: status.StatusInput, node: Node) -> bool:
        """Whether the node, as just read, is still what the drain is for, and what we see is to be believed."""
        if status_input.fact is Fact.CORDONED_ONLY:
            return True  # it comes and goes
        conditions = status_input.policy.spec.failure.conditions if status_input.policy else ()
        if status_input.fact is not Fact.SUSPECTED and not any(
            condition_history.matching_condition(node, match) for match in conditions
        ):
            return False
        said = node.ready_status != CONDITION_UNKNOWN and status_input.fact is not Fact.SUSPECTED
        return (said or await self._lease_monitor.is_silent(node)) and not self._store.is_view_stale()

    async def write_conditions(self, status_input: status.StatusInput) -> None:
        """Our conditions on the node."""
        here = self._store.node(status_input.drain.spec.node_name)
        if here is None:
            return
        wanted = status.node_conditions(
            status_input.phase, status_input.started_at, {r.reason for r in status_input.drain.spec.requests}
        )
        patch = node_patches.conditions_patch(wanted, here, status_input.now)
        if patch is None:
            self._attempts.clear(WriteOperation.CONDITIONS)
            return
        if wanted != self._written_conditions or self._attempts.is_due(_CONDITIONS_KEY):
            path = f"{paths.node(here.name)}/status"
            await self._attempts.attempt(
                WriteOperation.CONDITIONS, lambda: self._send_patch(path, patch, kind=STRATEGIC_PATCH)
            )
            self._written_conditions = wanted
            self._attempts.postpone(
                _CONDITIONS_KEY, write_refusals.MAX_RETRY_DELAY
            )  # somebody may keep writing the same ones

    def _cancelled_requests(self, drain: NodeDrain, node: Node) -> dict[str, str]:
        """Requests that still stand though the NodeDrain was deleted: they must not start again by themselves."""
        seen = self._store.refresh_history(node.name)
        if seen is None or self._cleanup:
            return {}
        standing = triggers.existing_requests(drain)
        view = self._store.trigger_context(node.name, standing)
        wants = triggers.wanted_requests(node, self._store.policy(node), seen, self._clock.now(), view)
        # What it was never asked for nobody has cancelled: the node may have failed since it was withdrawn.
        asked = [want for want in wants.requests if want.reason in standing]
        return {str(want.reason): want.token for want in asked if want.token is not None}

    async def restore(self, drain: NodeDrain) -> None:
        """Put the node back, for good; requests that still stand are noted as cancelled."""
        here = self._store.node(drain.spec.node_name)
        cancelled = self._cancelled_requests(drain, here) if here else {}
        if here := await self.remove_changes(drain, cancelled):
            log.info("node.restored", node=here.name, drain=self._name, uid=here.uid)
            self._events.publish_restored(drain, here)

    async def remove_changes(self, drain: NodeDrain, cancelled: Mapping[str, str]) -> Node | None:
        """Take off the node our conditions, then all that the record names.

        None where the node is gone, must stay out of service for now, or something could not be taken off.
        """
        if not self._attempts.is_due(_RESTORE_KEY):
            return None
        self._restore_attempts += 1
        self._attempts.postpone(
            _RESTORE_KEY, write_refusals.backoff_delay(self._restore_attempts)
        )  # somebody may keep undoing it
        here = await self.read_live(drain.spec.node_name)
        if here is None or self.must_stay_out_of_service(drain, here):
            return None
        ours = self._record_to_remove(drain, here)
        if ours != drain.status.node:
            self._events.publish_left_out_of_service(drain, here)
        here = await self._remove_conditions(here)
        if not self._restores_in_parts:
            here, done = await self._apply_removal(
                here, WriteOperation.RESTORE, node_patches.restore_patch(here, ours, cancelled)
            )
            self._restores_in_parts = self._attempts.may_other_write_pass(WriteOperation.RESTORE)
            if not self._restores_in_parts:
                return here if done else None
        done = True
        for part, act in _PART_ACTS.items():
            here, through = await self._apply_removal(
                here, act, node_patches.restore_patch(here, ours, cancelled, (part,))
            )
            done = done and through
        # Until a part is named, the whole names the cause.
        if done or any(map(self._attempts.is_reported, _PART_ACTS.values())):
            self._attempts.clear(WriteOperation.RESTORE)
        return here if done else None

    async def _remove_conditions(self, node: Node) -> Node:
        if (patch := node_patches.conditions_patch({}, node, self._clock.now())) and not self._conditions_removed:
            path = f"{paths.node(node.name)}/status"
            through = await self._attempts.attempt(
                WriteOperation.CONDITIONS, lambda: self._send_patch(path, patch, kind=STRATEGIC_PATCH)
            )
            self._conditions_removed = through
        return self._store.node(node.name) or node

    async def _apply_removal(
        self, node: Node, operation: WriteOperation, patch: node_patches.Patch | None
    ) -> tuple[Node, bool]:
        """Return the node as it is then, and whether nothing of this is left."""
        through = patch is None
        if patch is not None:
            through = await self._attempts.attempt(operation, lambda: self.patch(node, patch))
        if through:
            self._attempts.clear(operation)
        return self._store.node(node.name) or node, through


def _added_metadata(record: NodeRecord) -> tuple[object, object]:
    return record.added_labels, record.added_annotations
