"""Reconcile one node: compare the requests of the node with its NodeDrain."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from datetime import datetime
from functools import partial

import structlog

from rescheduler.api.drains import NodeDrain, RequestReason
from rescheduler.api.policies import ReschedulePolicy
from rescheduler.controllers.drain.events import DrainEvents
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.controllers.runtime.work_queue import WorkQueue
from rescheduler.controllers.runtime.write_attempts import WriteAttempts
from rescheduler.controllers.store.conflicts import reread
from rescheduler.controllers.store.object_cache import ResourceKind
from rescheduler.controllers.store.store import Store
from rescheduler.core.drain import node_patches, requests, triggers
from rescheduler.core.drain.requests import CreateDrain, DeleteDrain, UpdateRequests
from rescheduler.core.drain.triggers import WantedRequests
from rescheduler.core.eviction import write_refusals
from rescheduler.core.eviction.write_refusals import WriteOperation
from rescheduler.core.failure import condition_history
from rescheduler.core.failure.condition_history import ConditionHistory
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.raw import RawObject
from rescheduler.core.model.wait_reasons import ProgressingReason
from rescheduler.kube import paths
from rescheduler.kube.client import STRATEGIC_PATCH, TRANSIENT_ERRORS, ApiError, Client

log = structlog.get_logger("rescheduler.drain.node_controller")

_ORPHANED_CONDITIONS = "orphaned conditions"
_DELETE_ANSWERED_WITHIN = 1.0  # seconds; a later answer comes from a webhook or a busy server


class NodeController:
    """Creates, changes and deletes NodeDrains by the requests of their nodes."""

    def __init__(
        self,
        client: Client,
        store: Store,
        clock: Clock,
        queue: WorkQueue,
        events: DrainEvents,
        metrics: Metrics,
        silent_seconds: Callable[[str], float | None],
    ) -> None:
        """Create a controller; `silent_seconds` returns the seconds since a node's last sign of life, None if unknown."""
        self._client, self._store, self._clock = client, store, clock
        self._queue, self._events, self._metrics = queue, events, metrics
        self._silent_seconds = silent_seconds
        self._refusal_reported: dict[str, str] = {}  # by node name: the UID of the node with a reported refusal
        self._attempts: dict[str, WriteAttempts] = {}  # by node: writes that failed

    async def reconcile(self, name: str) -> bool:
        """Reconcile one node. Return whether it succeeded: after a failure the queue retries with back-off."""
        if self._store.is_unreadable(ResourceKind.DRAIN, name):
            return True  # the NodeDrain exists, and its spec is unknown: a write could undo a request
        attempts = self._attempts.setdefault(name, WriteAttempts(self._clock, node=name))
        try:
            await self._reconcile(name, attempts)
        except TRANSIENT_ERRORS as error:
            log.warning("node.reconcile_failed", node=name, error=str(error))
            self._metrics.reconcile_total.labels("node", "error").inc()
            if isinstance(error, ApiError) and write_refusals.is_conflict(error.response):
                await reread(self._client, self._store, ResourceKind.DRAIN, paths.drain(name))
            return False
        self._metrics.reconcile_total.labels(
            "node", "error" if self._report_failures(name, attempts) else "success"
        ).inc()
        return True

    def _report_failures(self, name: str, attempts: WriteAttempts) -> bool:
        """Report failing writes by an Event and retry them when due. Return whether any write fails."""
        node = self._store.node(name)
        if node is None or not attempts.has_failures:
            if node is None or not attempts.has_postponed:
                self._attempts.pop(name, None)
            return False
        self._queue.add_after(name, min(attempts.seconds_until_next(), write_refusals.MAX_RETRY_DELAY))
        if failures := attempts.reported_failures():
            self._events.publish_write_failed(node, failures)
        return True

    async def _reconcile(self, name: str, attempts: WriteAttempts) -> None:
        node, history = self._store.node(name), self._store.refresh_history(name)
        if node is None or history is None:
            return  # the task of the drain ends it
        drain, policy = self._store.drain(name), self._store.policy(node)
        if drain is None:
            node = await self._clear_orphaned_conditions(node, attempts)
        if ResourceKind.DRAIN in self._store.cache.not_installed:
            return  # every node is reconciled again when the CRD exists
        if policy:
            self._events.publish_window_ignored(policy, self._clock.now())
        history = self._with_recorded_history(history, drain, policy)
        context = self._store.trigger_context(name, triggers.existing_requests(drain))
        wanted = triggers.wanted_requests(node, policy, history, self._clock.now(), context)
        if wanted.recheck_at:
            self._queue.add_after(name, (wanted.recheck_at - self._clock.now()).total_seconds())
        await self._report_refused_annotation(node, refused=wanted.refused)
        await self._drop_stale_cancellations(node, wanted, history, attempts)
        await self._update_drain(node, drain, wanted, attempts)

    async def _update_drain(
        self, node: Node, drain: NodeDrain | None, wanted: WantedRequests, attempts: WriteAttempts
    ) -> None:
        """Create, change or delete the NodeDrain."""
        change = requests.required_change(node, drain, wanted)
        match change:
            case CreateDrain(body):
                reasons = [want.reason.value for want in wanted.requests]
                if await attempts.attempt(
                    WriteOperation.CREATE, lambda: self._store_response(self._client.create(paths.DRAINS, body))
                ):
                    self._observe_detection(node, reasons)
                    log.info("drain.created", node=node.name, uid=node.uid, reasons=reasons)
            case UpdateRequests(patch):
                await attempts.attempt(
                    WriteOperation.UPDATE_REQUESTS,
                    lambda: self._store_response(self._client.patch(paths.drain(node.name), patch)),
                )
            case DeleteDrain() if drain:
                await self._delete_drain(node, drain, attempts)
        if attempts.fails(WriteOperation.DELETE):
            self._store.set_undeletable(node.name, undeletable=True)
        if not isinstance(change, CreateDrain):
            attempts.clear(WriteOperation.CREATE)
        if not isinstance(change, UpdateRequests):
            attempts.clear(WriteOperation.UPDATE_REQUESTS)
        if not isinstance(change, DeleteDrain):
            attempts.clear(WriteOperation.DELETE)
            self._store.set_undeletable(node.name, undeletable=False)

    async def _delete_drain(self, node: Node, drain: NodeDrain, attempts: WriteAttempts) -> None:
        """Delete a NodeDrain without a request; the drain must not reach its deadline while a webhook delays this."""
        options = {"preconditions": {"uid": drain.uid, "resourceVersion": drain.resource_version}}
        set_undeletable = partial(self._store.set_undeletable, node.name, undeletable=True)
        timer = asyncio.get_running_loop().call_later(_DELETE_ANSWERED_WITHIN, set_undeletable)
        try:
            if await attempts.attempt(
                WriteOperation.DELETE,
                lambda: self._store_response(self._client.delete(paths.drain(node.name), options)),
            ):
                log.info("drain.withdrawn", node=node.name, uid=node.uid)
        finally:
            timer.cancel()

    def _observe_detection(self, node: Node, reasons: Collection[str]) -> None:
        silent = self._silent_seconds(node.name)
        if RequestReason.FAILURE in reasons and silent is not None:
            self._metrics.failover_seconds.labels("Detected").observe(silent)

    async def _store_response(self, response: Awaitable[RawObject]) -> None:
        """Store the NodeDrain in the response; a delete may respond with a Status only."""
        raw = await response
        if raw.get("kind") != "Status":
            self._store.put(ResourceKind.DRAIN, raw)

    def _with_recorded_history(
        self, history: ConditionHistory, drain: NodeDrain | None, policy: ReschedulePolicy | None
    ) -> ConditionHistory:
        """Return the history with what the NodeDrain records from before the start of the operator."""
        if drain is None:
            return history
        name = drain.spec.node_name
        if policy is None:
            match = triggers.parse_condition_message(triggers.existing_requests(drain).get(RequestReason.FAILURE, ""))
            is_known = match is None or any(
                match.type == m.type and set(match.status) <= set(m.status) for m in history.condition_matches
            )
            return (
                history
                if match is None or is_known
                else self._store.history.amend_conditions(name, partial(condition_history.with_failure, match=match))
            )
        if history.failure_starts or not (since := _flapping_since(drain)):
            return history
        changes = policy.spec.failure.flapping.changes
        return self._store.history.amend_conditions(
            name, partial(condition_history.with_flapping, changes=changes, last_change=since)
        )

    async def _clear_orphaned_conditions(self, node: Node, attempts: WriteAttempts) -> Node:
        """Remove the conditions of a force-deleted NodeDrain; no record names its other changes."""
        if not node_patches.has_drain_condition(node):
            attempts.clear(WriteOperation.CONDITIONS)
            return node
        patch = node_patches.conditions_removal_patch(node)

        async def send() -> None:
            raw = await self._client.patch(f"{paths.node(node.name)}/status", patch, kind=STRATEGIC_PATCH)
            self._store.put(ResourceKind.NODE, raw)

        if attempts.is_due(_ORPHANED_CONDITIONS) and await attempts.attempt(WriteOperation.CONDITIONS, send):
            attempts.postpone(
                _ORPHANED_CONDITIONS, write_refusals.MAX_RETRY_DELAY
            )  # another client may keep writing them
            log.warning("node.drain_record_lost", node=node.name, uid=node.uid, cordoned=node.unschedulable)
            self._events.publish_left_cordoned(node)
        return self._store.node(node.name) or node

    async def _report_refused_annotation(self, node: Node, *, refused: bool) -> None:
        if not refused:
            self._refusal_reported.pop(node.name, None)
        elif self._refusal_reported.get(node.name) != node.uid:
            self._refusal_reported[node.name] = node.uid
            self._events.publish_maintenance_refused(node)

    async def _drop_stale_cancellations(
        self, node: Node, wanted: WantedRequests, history: ConditionHistory, attempts: WriteAttempts
    ) -> None:
        """Drop cancellations whose request has ended or changed."""
        stale = triggers.stale_cancellations(node, wanted, history)
        patch = node_patches.drop_cancelled_patch(node, stale) if stale else None

        async def send() -> None:
            self._store.put(ResourceKind.NODE, await self._client.patch(paths.node(node.name), patch))

        if patch is None:
            attempts.clear(WriteOperation.REMOVE_METADATA)
        else:
            await attempts.attempt(WriteOperation.REMOVE_METADATA, send)


def _flapping_since(drain: NodeDrain) -> datetime | None:
    """Return since when the NodeDrain reports Flapping; None if it does not."""
    flapping_conditions = (
        c for c in drain.status.conditions if c.type == "Progressing" and c.reason == ProgressingReason.FLAPPING
    )
    return next((c.last_transition_time for c in flapping_conditions), None)
