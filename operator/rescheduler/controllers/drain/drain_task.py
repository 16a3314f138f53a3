"""Run one NodeDrain, from its creation until it is gone.

The task observes the cluster, asks `core.drain` for the step, and runs its commands. After an error the task starts
again from the state of the cluster. Every command can be repeated.
"""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

import structlog

from rescheduler.api import names
from rescheduler.api.drains import NodeDrain, Phase
from rescheduler.api.policies import DrainSettings, ReschedulePolicy
from rescheduler.controllers.drain.deadlocks import DeadlockResolver
from rescheduler.controllers.drain.events import DrainEvents
from rescheduler.controllers.drain.external_owners import ExternalOwnerCheck
from rescheduler.controllers.drain.fencing import NodeFencing
from rescheduler.controllers.drain.history_writer import HistoryWriter
from rescheduler.controllers.drain.node_writer import Evidence, NodeWriter
from rescheduler.controllers.drain.status_writer import StatusWriter
from rescheduler.controllers.evacuation.node_evacuation import RECHECK_INTERVAL, EvacuationDependencies, NodeEvacuation
from rescheduler.controllers.failure.lease_monitor import LeaseMonitor
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.controllers.runtime.tasks import Supervisor
from rescheduler.controllers.runtime.write_attempts import WriteAttempts
from rescheduler.controllers.store.conflicts import may_be_outdated, reread
from rescheduler.controllers.store.object_cache import ResourceKind
from rescheduler.controllers.store.store import Store
from rescheduler.core.drain import messages, state_machine, status
from rescheduler.core.drain.drain_decision import DrainDecision, DrainObservation, decide_step, move_mode
from rescheduler.core.drain.pod_evaluation import MoveMode, PodEvaluation
from rescheduler.core.drain.state_machine import Command, Permission, Report
from rescheduler.core.eligibility import decision, preconditions
from rescheduler.core.eviction.pod_actions import EvictionContext
from rescheduler.core.eviction.write_refusals import WriteOperation
from rescheduler.core.failure import fencing
from rescheduler.core.failure.fencing import FencingState
from rescheduler.core.failure.health import Health
from rescheduler.core.model.nodes import CONDITION_UNKNOWN, Node
from rescheduler.core.model.wait_reasons import ProgressingReason, WaitReason
from rescheduler.kube import paths
from rescheduler.kube.client import TRANSIENT_ERRORS, ApiError, Client

log = structlog.get_logger("rescheduler.drain.drain_task")

_DEADLINE_CHECK_INTERVAL = 1.0  # seconds if pods have deadlines
_MIN_DEBOUNCE = 0.02  # seconds; a burst of pod events is one reconcile
_MAX_DEBOUNCE = 0.5
_MIN_COST_FACTOR, _MAX_COST_FACTOR = 3, 10
"""Reconciling takes at most this fraction of the time, over all drains, so that requests need not wait.

With more drains the fraction is smaller: the API server needs the machine too.
"""
_MAX_UNANSWERED_DELAY = 10.0  # seconds at most between two reconciles while the API server does not answer
_UNSYNCED_REPORTED_AFTER = 10.0  # seconds; a list that is missing for longer is reported
_WITHOUT_FINALIZER = 10.0  # seconds at most for which a new task waits for the finalizer


@dataclass(frozen=True, slots=True)
class DrainDependencies:
    """Dependencies that all drain tasks share.

    Attributes:
        own_pod: namespace/name of the operator's pod; empty if unknown.
        cleanup: the operator is being uninstalled.
    """

    client: Client
    store: Store
    clock: Clock
    evacuation: EvacuationDependencies
    events: DrainEvents
    metrics: Metrics
    lease_monitor: LeaseMonitor
    supervisor: Supervisor
    history_writer: HistoryWriter
    own_pod: str = ""
    cleanup: bool = False


class DrainTask:
    """Runs one NodeDrain."""

    def __init__(self, name: str, deps: DrainDependencies) -> None:
        self.name = name
        self._deps = deps
        self._wake = asyncio.Event()
        shared = (deps.client, deps.store, deps.clock, deps.events, deps.lease_monitor)
        self._attempts = WriteAttempts(deps.clock, drain=name)
        written = (deps.client, deps.store, deps.clock, deps.events, self._attempts)
        self._status_writer = StatusWriter(name, *written, self.wake)
        self._node_writer = NodeWriter(name, *shared, self._attempts, cleanup=deps.cleanup)
        self._fencing = NodeFencing(*shared, self._node_writer)
        self._evacuation = self._new_evacuation()
        self._deadlocks = DeadlockResolver(deps.client, deps.store, deps.clock, deps.evacuation.budgets)
        self._external_owners = ExternalOwnerCheck(deps.client, deps.clock)
        self._evaluation_seconds = 0.0  # duration of the last evaluation of the pods
        self._unsynced_since: float | None = None  # since when a list is missing; monotonic
        self._born, self._born_at = deps.clock.monotonic(), deps.clock.now()

    def _new_evacuation(self) -> NodeEvacuation:
        node_name = self.name  # the API server accepts no NodeDrain with another name than its node
        return NodeEvacuation(self.name, node_name, self._deps.evacuation, self.wake)

    def wake(self) -> None:
        """Reconcile again: something changed."""
        self._wake.set()

    @property
    def has_released_pods(self) -> bool:
        """Whether the task knows of a released pod on its node."""
        return self._evacuation.has_released_pods

    async def run(self) -> None:
        """Reconcile until the NodeDrain is gone."""
        try:
            await self._deps.supervisor.run_loop(
                "drain",
                self._step,
                subject=self.name,
                wake=self._wake,
                debounce=self._debounce_seconds,
                retry=self._handle_failure,
            )
        finally:
            self._close()

    async def _step(self) -> float | None:
        """Reconcile once. Return the seconds until the next time; None if the NodeDrain is gone."""
        drain = self._deps.store.drain(self.name)
        if drain is None:
            return None
        try:
            pause = await self._reconcile(drain)
        except TRANSIENT_ERRORS:
            raise
        except Exception as error:
            self._close()  # the state in memory may be the cause: the next reconcile starts from the cluster
            self._evacuation = self._new_evacuation()
            await self._status_writer.report_internal_error(drain, error)
            raise
        self._attempts.clear(WriteOperation.RECONCILE)
        self._deps.metrics.reconcile_total.labels("drain", "success").inc()
        return min(pause, self._attempts.seconds_until_next())

    async def _handle_failure(self, error: Exception) -> float:
        """Report the cause of a lasting failure. Return the seconds until the next reconcile."""
        self._deps.metrics.reconcile_total.labels("drain", "error").inc()
        if may_be_outdated(error):
            await reread(self._deps.client, self._deps.store, ResourceKind.DRAIN, paths.drain(self.name))
        pause, drain = self._attempts.record_failure(WriteOperation.RECONCILE, error), self._deps.store.drain(self.name)
        if (
            drain
            and self._attempts.is_reported(WriteOperation.RECONCILE)
            and not self._attempts.is_reported(WriteOperation.STATUS)
        ):
            try:
                await self._status_writer.write_failures(drain, self._deps.store.node(drain.spec.node_name))
            except TRANSIENT_ERRORS as report_error:
                log.warning("drain.write_failures_not_reported", drain=self.name, error=str(report_error))
        return pause if isinstance(error, ApiError) else min(pause, _MAX_UNANSWERED_DELAY)

    def _debounce_seconds(self) -> float:
        """Return the seconds in which a burst of pod events is one reconcile."""
        draining_count = self._deps.store.draining_count
        cost_factor = min(_MIN_COST_FACTOR + draining_count - 1, _MAX_COST_FACTOR)
        return min(max(_MIN_DEBOUNCE, self._evaluation_seconds * cost_factor * draining_count), _MAX_DEBOUNCE)

    def _close(self) -> None:
        self._deps.store.state_builder.reserve_slot(self.name, None)
        self._evacuation.close()

    async def _reconcile(self, drain: NodeDrain) -> float:
        """Reconcile the drain. Return the seconds until the next time without an event."""
        if self._deps.store.is_unreadable(ResourceKind.DRAIN, self.name):
            return RECHECK_INTERVAL  # the known version is old: acting on it could undo a request
        node = self._deps.store.node(drain.spec.node_name) or await self._node_writer.read_live(drain.spec.node_name)
        if node and (finalizer_wait := self._until_finalizer(drain)) > 0:
            return finalizer_wait
        observed = await self._observe(drain, node)
        return await self._apply(decide_step(observed))

    # -- observing ----------------------------------------------------------------------------------------------

    async def _observe(self, drain: NodeDrain, node: Node | None) -> DrainObservation:
        """Return everything that the step depends on; nothing is written to the cluster."""
        store, now = self._deps.store, self._deps.clock.now()
        policy = store.policy(node) if node else None
        settings = drain.spec.drain.apply_to(policy.spec.drain if policy else DrainSettings())
        wait = await self._start_wait_reason(drain, node, now)
        fencing_state = await self._fencing_state(drain, node, policy, now)
        wait = wait or (self._fencing.wait_reason(drain, node, policy) if node else None)
        if node and (drain.status.started_at or (wait and wait.reason is ProgressingReason.AUDIT)):
            self._evacuation.watch()
        only_suspected = decision.is_only_suspected(drain, store.cluster_state(), now)
        evaluation_began = self._deps.clock.monotonic()
        evaluation = (
            self._evacuation.evaluate(
                drain.status,
                settings,
                self._eviction_context(drain, node, fencing_state, now),
                move_mode(drain, wait, only_suspected=only_suspected),
                needs_attachments=fencing_state.proof is not None or fencing.is_taint_recorded(node, drain.status.node),
            )
            if node
            else None
        )
        self._evaluation_seconds = self._deps.clock.monotonic() - evaluation_began
        withdrawn = drain.deletion_timestamp is not None
        node_in_use = node is None or self._evacuation.is_node_in_use()
        writer = self._node_writer
        return DrainObservation(
            now=now,
            drain=drain,
            node=node,
            policy=policy,
            settings=settings,
            wait=wait,
            only_suspected=only_suspected,
            fencing_state=fencing_state,
            out_of_service=bool(node and writer.must_stay_out_of_service(drain, node, node_in_use=node_in_use)),
            is_restored=bool(withdrawn and node and writer.is_restored(drain, node, node_in_use=node_in_use)),
            cordoned_at=self._cordoned_at(drain),
            cordon_fails=self._attempts.is_reported(WriteOperation.CORDON),
            pod_summary=evaluation.summary if evaluation and policy else None,
            pod_evaluation=evaluation,
            pods_are_synced=self._evacuation.is_synced,
            released_pods=self._evacuation.pods_to_return(),
            moved=self._evacuation.moved_count or 0,
            last_move_at=self._evacuation.last_move_at,
            node_in_use=node_in_use,
            node_in_use_by=self._evacuation.node_in_use_by() if node and withdrawn else (),
            unsynced_reason=self._long_unsynced_reason(node, evaluation, policy),
            cleanup=self._deps.cleanup,
        )

    async def _start_wait_reason(self, drain: NodeDrain, node: Node | None, now: datetime) -> WaitReason | None:
        """Return why the drain must wait; another owner of the node is asked for live, just before a start."""
        wait = decision.wait_reason(drain, self._deps.store.cluster_state(), now)
        is_undeletable = self._deps.store.is_undeletable(self.name)
        if is_undeletable and (wait is None or wait.reason is not ProgressingReason.STALE_VIEW):
            wait = WaitReason(ProgressingReason.CANCELLED, messages.UNDELETABLE_DRAIN)
        cordons = wait is None or state_machine.permission(drain, wait) is Permission.KEEPS_CORDON
        if node is None or drain.status.started_at or not cordons:
            return wait
        return await self._check_external_owner(drain, node) or wait

    def _until_finalizer(self, drain: NodeDrain) -> float:
        """Return the seconds to wait at most for the finalizer, which a NodeDrain made by a user does not have yet.

        The node controller writes the finalizer at the same time: without the wait one of the two writes meets a
        conflict. The wait ends, because the drain must continue if the finalizer is refused.
        """
        if names.FINALIZER in drain.finalizers or drain.deletion_timestamp is not None:
            return 0.0
        return self._born + _WITHOUT_FINALIZER - self._deps.clock.monotonic()

    def _long_unsynced_reason(
        self, node: Node | None, evaluation: PodEvaluation | None, policy: ReschedulePolicy | None
    ) -> str | None:
        """Return which list is missing, if it is missing for long; else None."""
        if evaluation:
            self._unsynced_since = None
            if policy:
                return None
        reason = self._evacuation.unsynced_reason if node else None
        now = self._deps.clock.monotonic()
        self._unsynced_since = now if self._unsynced_since is None else self._unsynced_since
        return reason if now - self._unsynced_since >= _UNSYNCED_REPORTED_AFTER else None

    def _cordoned_at(self, drain: NodeDrain) -> datetime | None:
        """Return when the node was cordoned, rather late than early; None while the status reports no cordon.

        The node may have been uncordoned before the operator started. So the cordon counts from the start, unless the
        node was Drained then or the store observed the cordon.
        """
        observed = self._deps.store.history.cordoned_at(drain.spec.node_name)
        reported = status.cordoned_at(drain.status, observed)
        if reported is None or observed or drain.status.phase is Phase.DRAINED:
            return reported
        return max(reported, self._born_at)

    async def _check_external_owner(self, drain: NodeDrain, node: Node) -> WaitReason | None:
        """Return the wait reason of another owner before a start; a failed node is read live for the cordon too."""
        if not preconditions.has_only_failure_requests(drain):
            return await self._external_owners.wait_reason(node)
        wait, _ = await asyncio.gather(
            self._external_owners.wait_reason(node), self._node_writer.read_recent(node.name)
        )
        return wait

    async def _fencing_state(
        self, drain: NodeDrain, node: Node | None, policy: ReschedulePolicy | None, now: datetime
    ) -> FencingState:
        if node is None or drain.status.started_at is None:
            return FencingState()
        health = self._deps.store.cluster_state().diagnose(node, now).health
        failing = (
            drain.deletion_timestamp is None and preconditions.has_failure_request(drain) and health is Health.FAILED
        )
        return await self._fencing.evaluate(drain, node, policy, failing=failing)

    def _eviction_context(
        self, drain: NodeDrain, node: Node, fencing_state: FencingState, now: datetime
    ) -> EvictionContext:
        """Return the facts of the drain and its node that the decisions on pods depend on."""
        return EvictionContext(
            now=now,
            started_at=drain.status.started_at,
            paused_for=status.paused_duration(drain.status, now),
            node_unreachable=node.ready_status == CONDITION_UNKNOWN or fencing_state.proof is not None,
            node_failing=fencing_state.failing,
            boot_dead=fencing_state.proof is not None,
            proof=f"{fencing_state.proof.method}: {fencing_state.proof.description}" if fencing_state.proof else "",
            proof_hint=fencing_state.proof_hint or fencing.proof_hint(node),
            own_pod=self._deps.own_pod,
            cordoned_at=self._cordoned_at(drain),
        )

    # -- commands -----------------------------------------------------------------------------------------------

    async def _run_final_commands(self, step: DrainDecision) -> float | None:
        """Run the command that ends the step. Return the seconds until the next reconcile; None without one."""
        commands, status_input = step.commands, step.status_input
        if Command.REMOVE_FINALIZER in commands:
            writer = self._deps.history_writer
            if not await self._status_writer.remove_drain(status_input.drain, status_input.node, writer):
                await self._write_status(status_input)
            return RECHECK_INTERVAL
        if Command.RESTORE in commands and status_input.node is not None:
            await self._write_status(status_input)
            await self._node_writer.restore(status_input.drain, node_in_use=step.node_in_use)
            return min(self._node_writer.seconds_until_restore(), RECHECK_INTERVAL)
        if Command.CANCEL in commands:
            if await self._status_writer.cancel(status_input):
                return 0.0
            await self._write_status(status_input)
            return RECHECK_INTERVAL
        if Command.STEP_BACK in commands:
            return await self._step_back(status_input, node_in_use=step.node_in_use)
        if Command.CLEAR_STEP_BACK in commands:
            if await self._attempts.attempt(
                WriteOperation.ANNOTATE, lambda: self._deadlocks.clear_step_back(status_input.drain)
            ):
                return 0.0
            await self._write_status(status_input)
            return RECHECK_INTERVAL
        return None

    async def _apply(self, step: DrainDecision) -> float:
        """Run the commands and write the status. Return the seconds until the next time without an event."""
        self._fencing.publish_findings(step.status_input)
        if step.withdrawn:
            self._attempts.clear(
                WriteOperation.CORDON, WriteOperation.SET_METADATA, WriteOperation.TAINT, WriteOperation.ANNOTATE
            )
        if (pause := await self._run_final_commands(step)) is not None:
            return pause
        self._attempts.clear(WriteOperation.DELETE, WriteOperation.FINALIZER)
        writes_before = self._node_writer.write_count
        status_input = await self._report_before_moves(await self._prepare_node(step))
        # A decision from before an awaited write may be wrong now: it is made again.
        is_unchanged = status_input is step.status_input
        if is_unchanged:
            pause = self._move_pods(status_input, step)
            status_input = await self._reconcile_taint(status_input, step.commands, node_in_use=step.node_in_use)
        if (
            status_input.report is Report.PODS_UNKNOWN
            and self._node_writer.write_count == writes_before
            and not status_input.unsynced_reason
        ):
            return RECHECK_INTERVAL  # the status has no news before the pods are listed
        await self._write_status(status_input)
        await self._run_late_commands(step, status_input)
        if not is_unchanged and (
            self._node_writer.write_count != writes_before or status_input.drain is not step.status_input.drain
        ):
            return 0.0
        return self._seconds_until_recheck(status_input, pause)

    async def _prepare_node(self, step: DrainDecision) -> status.StatusInput:
        """Run the commands before any pod moves. Return the status input itself if nothing was written."""
        commands, status_input, node = step.commands, step.status_input, step.status_input.node
        if Command.RETURN_PODS in commands and step.pod_evaluation:
            self._evacuation.return_pods(step.pod_evaluation)
        if Command.EVICT_UNRETURNABLE in commands and step.pod_evaluation:
            policy_name = status_input.policy.name if status_input.policy else ""
            self._evacuation.evict_unreturnable(step.pod_evaluation, policy_name)
        if node is None:
            return status_input
        if Command.TAINT_QUEUED_NODE in commands:
            status_input = await self._node_writer.taint_waiting_node(status_input, node, self._write_status)
        if evidence := _required_evidence(commands):
            self._evacuation.watch()  # lists the pods while the node is cordoned
            status_input = await self._node_writer.cordon(status_input, node, self._write_status, evidence)
        return status_input

    async def _run_late_commands(self, step: DrainDecision, status_input: status.StatusInput) -> None:
        """Run the commands after the status is written."""
        node = step.status_input.node
        if Command.RESOLVE_DEADLOCK in step.commands and node and (drain := self._deps.store.drain(self.name)):
            await self._attempts.attempt(WriteOperation.ANNOTATE, lambda: self._deadlocks.resolve(drain, node))
        if Command.WRITE_CONDITIONS in step.commands:
            await self._node_writer.write_conditions(status_input)

    def _seconds_until_recheck(self, status_input: status.StatusInput, pause: float | None) -> float:
        """Return the seconds until time alone may change the step; `pause`: until the next eviction."""
        has_deadline = (
            status_input.fencing_state.proof_pending
            or status_input.settings.timeout
            or any(rule.timeout for rule in status_input.settings.rules)
        )
        return min(
            _DEADLINE_CHECK_INTERVAL if has_deadline else RECHECK_INTERVAL,
            self._evacuation.seconds_until_recheck(status_input.now, pause),
            self._seconds_until_drained(status_input),
        )

    async def _report_before_moves(self, status_input: status.StatusInput) -> status.StatusInput:
        """Report what must be reported before any pod moves."""
        if status_input.pod_summary is None:
            return status_input
        self._deps.events.publish_annotations_ignored(status_input.pod_summary)
        self._deps.events.publish_released_pods_removed(status_input)
        self._deps.events.publish_not_replaced_first(status_input)
        self._deps.events.publish_volumes_stuck(status_input)
        if status_input.phase is Phase.RESTORING or not status.has_unreported_local_volume(
            status_input.drain.status, status_input.pod_summary
        ):
            return status_input
        await self._write_status(status_input, immediately=True)
        drain = self._deps.store.drain(self.name) or status_input.drain
        return status_input if drain is status_input.drain else replace(status_input, drain=drain)

    async def _reconcile_taint(
        self, status_input: status.StatusInput, commands: Collection[Command], *, node_in_use: bool
    ) -> status.StatusInput:
        """Set the out-of-service taint when all pods that it removes are Terminating."""
        node, summary = status_input.node, status_input.pod_summary
        if node is None or status_input.started_at is None or Command.FENCE not in commands:
            return status_input
        has_leftovers = summary and (summary.proven_terminating or summary.detaching_volumes or summary.stuck_volumes)
        taint_due = bool(status_input.fencing_state.proof and summary and has_leftovers and not summary.proven_unsent)
        may_set = Command.MOVE in commands
        terminating_pods = summary.proven_terminating if summary else ()
        return await self._fencing.reconcile_taint(
            status_input,
            node,
            terminating_pods,
            taint_due=taint_due,
            node_in_use=node_in_use,
            may_set=may_set,
            write_status=self._write_status,
        )

    def _seconds_until_drained(self, status_input: status.StatusInput) -> float:
        if status_input.started_at is None or status_input.phase is not Phase.DRAINING:
            return RECHECK_INTERVAL
        cordoned_at = self._cordoned_at(status_input.drain) or status_input.now
        seconds = (cordoned_at + state_machine.MIN_TIME_CORDONED - status_input.now).total_seconds()
        return seconds if seconds > 0 else RECHECK_INTERVAL

    def _move_pods(self, status_input: status.StatusInput, step: DrainDecision) -> float | None:
        policy, evaluation = status_input.policy, step.pod_evaluation
        node = self._deps.store.node(status_input.drain.spec.node_name)
        # The node may have recovered just before its cordon: then no pod may move.
        if status_input.started_at is None or node is None or not node.unschedulable:
            return None
        if evaluation is None or status_input.pod_summary is None or status_input.node is None:
            return None
        if Command.RELEASE in step.commands:
            self._evacuation.release(evaluation)
        released_only = Command.EVICT_RELEASED in step.commands
        if policy is None or not (released_only or Command.MOVE in step.commands):
            return None
        mode = MoveMode.BEGUN_ONLY if released_only else MoveMode.ALL
        confirm = partial(self._fencing.confirm, status_input.drain, status_input.node)
        return self._evacuation.move(evaluation, mode, policy, status_input.settings, confirm)

    async def _write_status(self, status_input: status.StatusInput, *, immediately: bool = False) -> None:
        await self._status_writer.write(status_input, self._evacuation, immediately=immediately)

    async def _step_back(self, status_input: status.StatusInput, *, node_in_use: bool) -> float:
        """Restore the node; the drain then has not started. Return the seconds until the next reconcile."""
        node = await self._node_writer.remove_changes(status_input.drain, {}, node_in_use=node_in_use)
        if node is None:
            await self._write_status(status_input)
            return min(self._node_writer.seconds_until_restore(), RECHECK_INTERVAL)
        self._deps.events.publish_stepped_back(status_input)
        self._evacuation.close()
        self._evacuation = self._new_evacuation()
        await self._write_status(
            replace(status_input, node=node, node_record=None, started_at=None, pod_summary=None), immediately=True
        )
        self._node_writer.reset()
        return 0.0


def _required_evidence(commands: Collection[Command]) -> Evidence | None:
    """Return what a live read must show before the cordon; None if no command cordons the node."""
    if Command.KEEP_CORDON in commands:
        return Evidence.NONE
    if Command.CORDON not in commands:
        return None
    return Evidence.SILENT_LEASE if Command.RELEASE in commands else Evidence.CONDITION
