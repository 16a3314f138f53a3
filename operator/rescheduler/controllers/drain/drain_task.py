"""The task that runs one NodeDrain, from its first sight until it is gone.

It finds out what is so, asks `core.drains` for the step, and carries the commands out; after anything that goes
wrong it starts again from what the cluster says then. Every command can be repeated.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from rescheduler.api import names
from rescheduler.api.drains import NodeDrain, Phase
from rescheduler.api.policies import DrainSettings, OnTimeout, ReschedulePolicy
from rescheduler.controllers.drain.deadlocks import DeadlockResolver
from rescheduler.controllers.drain.events import DrainEvents
from rescheduler.controllers.drain.external_owners import ExternalOwnerCheck
from rescheduler.controllers.drain.fencing import NodeFencing
from rescheduler.controllers.drain.node_writer import NodeWriter
from rescheduler.controllers.drain.status_writer import StatusWriter
from rescheduler.controllers.evacuation.pod_mover import EvacuationDependencies, PodMover
from rescheduler.controllers.evacuation.related_objects import RelatedObjects
from rescheduler.controllers.failure.lease_monitor import LeaseMonitor
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.conflicts import is_outdated, reread
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.controllers.runtime.store import ResourceKind, Store
from rescheduler.controllers.runtime.tasks import Supervisor
from rescheduler.controllers.runtime.write_attempts import WriteAttempts
from rescheduler.core.drain import state_machine, status
from rescheduler.core.drain.pod_summary import PodSummary
from rescheduler.core.drain.state_machine import Command, Fact
from rescheduler.core.eligibility import decision, preconditions
from rescheduler.core.eviction.pod_actions import EvictionContext, deadline
from rescheduler.core.eviction.write_refusals import WriteOperation
from rescheduler.core.failure import fencing
from rescheduler.core.failure.fencing import FencingState
from rescheduler.core.failure.health import Health
from rescheduler.core.model.nodes import CONDITION_UNKNOWN, Node
from rescheduler.core.model.wait_reasons import QUEUED_REASONS, ProgressingReason, WaitReason
from rescheduler.kube import paths
from rescheduler.kube.client import TRANSIENT_ERRORS, ApiError, Client

log = structlog.get_logger("rescheduler.drainer")

_RECHECK_INTERVAL = 10.0  # seconds, where nothing happens: time alone changes some facts
_DEADLINE_CHECK_INTERVAL = 1.0  # seconds, where pods have deadlines
_MIN_DEBOUNCE = 0.02  # seconds; a burst of pod events is one look
_MAX_DEBOUNCE = 0.5
_MIN_COST_FACTOR, _MAX_COST_FACTOR = 3, 10
"""Looks take at most one part in so many of the time, over all drains: requests must not wait for them. The more there
are the less, for the API server needs the machine too, and there is always one with something to send.
"""
_MAX_UNANSWERED_DELAY = 10.0  # seconds at most between two looks while the API server does not answer
_UNSYNCED_REPORTED_AFTER = 10.0  # seconds; a view of the cluster that is missing for longer is named
_WITHOUT_FINALIZER = 10.0  # seconds at most for which a new task waits for the finalizer
POD_RETURN_TIMEOUT, CLEANUP_POD_RETURN_TIMEOUT = timedelta(minutes=10), timedelta(minutes=1)
"""A drain that is over waits so long for its released pods before it restores the node without them."""


@dataclass(frozen=True, slots=True)
class DrainDependencies:
    """What every drain task shares; `leaving`: the operator leaves the cluster for good."""

    client: Client
    store: Store
    clock: Clock
    evacuation: EvacuationDependencies
    related_objects: RelatedObjects
    events: DrainEvents
    metrics: Metrics
    lease_monitor: LeaseMonitor
    supervisor: Supervisor
    own_pod: str = ""
    cleanup: bool = False


class DrainTask:
    """One NodeDrain's task."""

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
        self._pod_mover = self._new_pod_mover()
        self._deadlocks = DeadlockResolver(deps.client, deps.store, deps.clock, deps.evacuation.budgets)
        self._external_owners = ExternalOwnerCheck(deps.client, deps.clock)
        self._evaluation_seconds = 0.0  # seconds that the last look at the pods took
        self._unsynced_since: float | None = None  # since when a view is missing; monotonic
        self._born, self._born_at = deps.clock.monotonic(), deps.clock.now()

    def _new_pod_mover(self) -> PodMover:
        return PodMover(self.name, self._deps.evacuation, self.wake, self._fencing.confirm)

    def wake(self) -> None:
        """Something changed: look again."""
        self._wake.set()

    @property
    def has_released_pods(self) -> bool:
        """Whether a released pod is on its node, as far as was seen."""
        return self._pod_mover.has_released_pods

    async def run(self) -> None:
        """Step until the NodeDrain is gone."""
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
        """One look; seconds until the next, None: the NodeDrain is gone."""
        drain = self._deps.store.drain(self.name)
        if drain is None:
            return None
        try:
            pause = await self._reconcile(drain)
        except TRANSIENT_ERRORS:
            raise
        except Exception as error:
            self._close()  # what it has in memory may be the cause: the next look starts from the cluster
            self._pod_mover = self._new_pod_mover()
            await self._status_writer.report_internal_error(drain, error)
            raise
        self._attempts.clear(WriteOperation.RECONCILE)
        return min(pause, self._attempts.seconds_until_next())

    async def _handle_failure(self, error: Exception) -> float:
        """A look failed: name the cause once it lasts. Return the seconds until the next look."""
        if is_outdated(error):
            await reread(self._deps.client, self._deps.store, ResourceKind.DRAIN, paths.drain(self.name))
        pause, drain = self._attempts.record_failure(WriteOperation.RECONCILE, error), self._deps.store.drain(self.name)
        if (
            drain
            and self._attempts.is_reported(WriteOperation.RECONCILE)
            and not self._attempts.is_reported(WriteOperation.STATUS)
        ):
            try:
                await self._status_writer.write_failures(drain, self._deps.store.node(drain.spec.node_name))
            except TRANSIENT_ERRORS as untold:
                log.warning("drain.write_failures_not_reported", drain=self.name, error=str(untold))
        return pause if isinstance(error, ApiError) else min(pause, _MAX_UNANSWERED_DELAY)

    def _debounce_seconds(self) -> float:
        """Seconds for which a burst of pod events is one look."""
        busy = self._deps.store.draining_count
        share = min(_MIN_COST_FACTOR + busy - 1, _MAX_COST_FACTOR)
        return min(max(_MIN_DEBOUNCE, self._evaluation_seconds * share * busy), _MAX_DEBOUNCE)

    def _close(self) -> None:
        self._deps.store.reserve_slot(self.name, None)
        self._deps.related_objects.unsubscribe(self.name)
        self._pod_mover.close()

    async def _reconcile(self, drain: NodeDrain) -> float:
        """One step; seconds until the next where nothing happens."""
        store, now = self._deps.store, self._deps.clock.now()
        if store.is_unreadable(ResourceKind.DRAIN, self.name):
            return _RECHECK_INTERVAL  # what is known of it is old: nothing is done for it, and it is not written
        here = store.node(drain.spec.node_name)
        if here is None:
            here = await self._node_writer.read_live(drain.spec.node_name)
        if here and (wait := self._until_finalizer(drain)) > 0:
            return wait
        held = decision.wait_reason(drain, store.cluster_state(), now)
        if self.name in store.undeletable_drains and (held is None or held.reason is not ProgressingReason.STALE_VIEW):
            held = WaitReason(
                ProgressingReason.CANCELLED, "nothing asks for the drain any more, and its NodeDrain cannot be deleted"
            )
        if drain.status.started_at is None and here and (held is None or _keeps_cordon(drain, held)):
            held = await self._check_external_owner(drain, here) or held
        policy = store.policy(here) if here else None
        standing = await self._fencing_state(drain, here, policy, now)
        held = held or (self._fencing.wait_reason(drain, here, policy) if here else None)
        if here and (drain.status.started_at or (held and held.reason is ProgressingReason.AUDIT)):
            self._pod_mover.watch(here.name)
        withdrawn = drain.deletion_timestamp is not None
        if withdrawn:
            self._attempts.clear(
                WriteOperation.CORDON, WriteOperation.SET_METADATA, WriteOperation.TAINT, WriteOperation.ANNOTATE
            )
        may_move = (held is None or _gave_up_slot(drain, held)) and not withdrawn
        early, began = decision.is_only_suspected(drain, store.cluster_state(), now), self._deps.clock.monotonic()
        settings = drain.spec.drain.apply_to(policy.spec.drain if policy else DrainSettings())
        seen = self._eviction_context(drain, here, settings, standing, now)
        tally = (
            self._pod_mover.evaluate(drain.status, settings, seen, may_move=may_move, release_only=early)
            if seen
            else None
        )
        self._evaluation_seconds = self._deps.clock.monotonic() - began
        self._node_writer.node_in_use = seen is None or self._pod_mover.is_node_in_use(seen.volumes)
        self._unsynced_since = None if tally else self._unsynced_since
        tally = tally if policy else None
        situation = self._drain_state(drain, here, held, tally, now, settings)
        situation = replace(situation, suspected=early)
        fact = state_machine.fact(situation)
        phase, commands = state_machine.step(drain.status.phase or Phase.WAITING, fact)
        returning = self._pod_mover.pods_to_return() if withdrawn or fact is Fact.RETURNING_PODS_TO_STEP_BACK else ()
        scene = status.StatusInput(
            drain=drain,
            node=here,
            policy=policy,
            phase=phase,
            fact=fact,
            wait=None if fact in (Fact.MAY_START, Fact.EMPTY, Fact.EMPTY_AND_WAITING) else held,
            node_record=drain.status.node,
            started_at=drain.status.started_at,
            pod_summary=tally,
            moved=(self._pod_mover.moved_count or 0) + (tally.existing - tally.remaining if tally else 0),
            now=now,
            settings=settings,
            fencing_state=standing,
            pods_to_return=returning,
            node_in_use_by=self._pod_mover.node_in_use_by(seen.volumes) if seen and fact is Fact.OUT_OF_SERVICE else (),
            unsynced_reason=self._long_unsynced_reason(seen) if tally is None else "",
            last_move_at=self._pod_mover.last_move_at,
        )
        return await self._apply(commands, scene)

    def _until_finalizer(self, drain: NodeDrain) -> float:
        """Return the seconds to wait at most for the finalizer, which a NodeDrain made by a user does not have yet.

        The node controller writes it at the same time: without the wait one of the two writes meets a conflict. The
        wait ends, for the drain must go on if the finalizer is refused.
        """
        if names.FINALIZER in drain.finalizers or drain.deletion_timestamp is not None:
            return 0.0
        return self._born + _WITHOUT_FINALIZER - self._deps.clock.monotonic()

    def _long_unsynced_reason(self, context: EvictionContext | None) -> str:
        """Which view of the cluster is missing, once it has been missing for long."""
        what = self._pod_mover.unsynced_reason if context else self._deps.related_objects.why_not_synced(self.name)
        now = self._deps.clock.monotonic()
        self._unsynced_since = now if self._unsynced_since is None else self._unsynced_since
        return what if now - self._unsynced_since >= _UNSYNCED_REPORTED_AFTER else ""

    def _drain_state(
        self,
        drain: NodeDrain,
        node: Node | None,
        wait: WaitReason | None,
        pod_summary: PodSummary | None,
        now: datetime,
        settings: DrainSettings,
    ) -> state_machine.DrainState:
        record = drain.status.node
        withdrawn = drain.deletion_timestamp is not None
        restored = withdrawn and node is not None and self._node_writer.is_restored(drain, node)
        return state_machine.DrainState(
            now=now,
            same_node=node is not None and (record is None or not record.uid or record.uid == node.uid),
            withdrawn=withdrawn,
            restored=restored,
            must_wait=wait is not None,
            frozen=wait is not None and wait.reason is ProgressingReason.STALE_VIEW,
            without_slot=wait is not None and _gave_up_slot(drain, wait),
            out_of_service=node is not None and self._node_writer.must_stay_out_of_service(drain, node),
            steps_back=names.STEPPED_BACK in drain.annotations and wait is not None,
            cordoned_only=wait is not None and _keeps_cordon(drain, wait),
            has_pods_to_return=self._waits_for_pod_returns(drain, now),
            timed_out=self._is_cancelled_by_timeout(drain, settings, now),
            started_at=drain.status.started_at,
            cordoned_at=self._cordoned_at(drain),
            remaining=pod_summary.existing + len(pod_summary.detaching_volumes) if pod_summary else None,
            blocker_count=(len(pod_summary.blockers) if pod_summary else 0)
            + self._attempts.is_reported(WriteOperation.CORDON),
            last_move_at=self._pod_mover.last_move_at,
        )

    def _cordoned_at(self, drain: NodeDrain) -> datetime | None:
        """Return when the node was cordoned, rather late than early; None while the status does not say that it is.

        Before our start the node may have been uncordoned for a while: without news the cordon counts from the start,
        unless the node was found Drained then.
        """
        seen = self._deps.store.cordoned_at(drain.spec.node_name)
        found = status.cordoned_at(drain.status, seen)
        if found is None or seen or drain.status.phase is Phase.DRAINED:
            return found
        return max(found, self._born_at)

    def _waits_for_pod_returns(self, drain: NodeDrain, now: datetime) -> bool:
        """Whether released pods are left on the node, or it is not known that none are.

        A node is not kept cordoned for ever for a pod that cannot be returned: such pods are looked after without it.
        """
        if drain.status.started_at is None:
            return False
        patience = CLEANUP_POD_RETURN_TIMEOUT if self._deps.cleanup else POD_RETURN_TIMEOUT
        late = drain.deletion_timestamp is not None and now - drain.deletion_timestamp >= patience
        return not late and (self._pod_mover.has_release_records or not self._pod_mover.is_synced)

    @staticmethod
    def _is_cancelled_by_timeout(drain: NodeDrain, settings: DrainSettings, now: datetime) -> bool:
        """Whether the drain's time is up and it is to be cancelled."""
        seen = EvictionContext(now, drain.status.started_at, status.paused_duration(drain.status, now))
        end = deadline(settings.timeout, seen)
        return settings.on_timeout is OnTimeout.CANCEL and end is not None and now >= end

    async def _check_external_owner(self, drain: NodeDrain, node: Node) -> WaitReason | None:
        """Who else holds a node that is about to be drained; one that failed is read live beside it, for the cordon."""
        if not preconditions.has_only_failure_requests(drain):
            return await self._external_owners.wait_reason(node)
        found, _ = await asyncio.gather(
            self._external_owners.wait_reason(node), self._node_writer.read_recent(node.name)
        )
        return found

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
        self, drain: NodeDrain, node: Node | None, settings: DrainSettings, fencing_state: FencingState, now: datetime
    ) -> EvictionContext | None:
        """What the verdicts on the pods depend on; None while it is not known."""
        if node is None:
            return None
        seen = EvictionContext(
            now=now,
            started_at=drain.status.started_at,
            paused_for=status.paused_duration(drain.status, now),
            node_unreachable=node.ready_status == CONDITION_UNKNOWN or fencing_state.proof is not None,
            node_failing=fencing_state.failing,
            boot_dead=fencing_state.proof is not None,
            proof_hint=fencing_state.proof_hint or fencing.proof_hint(node),
            own_pod=self._deps.own_pod,
        )
        attached = fencing_state.proof is not None or fencing.is_taint_recorded(node, drain.status.node)
        return self._deps.related_objects.complete_context(
            self.name, node.name, seen, settings, self._pod_mover.node_pods(), needs_attachments=attached
        )

    # -- commands -----------------------------------------------------------------------------------------------

    async def _run_final_commands(self, commands: Iterable[Command], status_input: status.StatusInput) -> float | None:
        """Commands after which the drain is over, or another one; seconds until the next look, None: there was none."""
        if Command.REMOVE_FINALIZER in commands:
            if not await self._status_writer.remove_drain(status_input.drain, status_input.node):
                await self._write_status(status_input)
            return _RECHECK_INTERVAL
        if Command.RESTORE in commands and status_input.node is not None:
            await self._write_status(status_input)
            await self._node_writer.restore(status_input.drain)
            return min(self._node_writer.seconds_until_restore(), _RECHECK_INTERVAL)
        if Command.CANCEL in commands:
            if await self._status_writer.cancel(status_input):
                return 0.0
            await self._write_status(status_input)
            return _RECHECK_INTERVAL
        if Command.STEP_BACK in commands:
            return await self._step_back(status_input)
        if status_input.fact is Fact.MAY_START and names.STEPPED_BACK in status_input.drain.annotations:
            if await self._attempts.attempt(
                WriteOperation.ANNOTATE, lambda: self._deadlocks.clear_step_back(status_input.drain)
            ):
                return 0.0
            await self._write_status(status_input)
            return _RECHECK_INTERVAL
        return None

    async def _apply(self, commands: Iterable[Command], status_input: status.StatusInput) -> float:
        if (pause := await self._run_final_commands(commands, status_input)) is not None:
            return pause
        self._attempts.clear(WriteOperation.DELETE, WriteOperation.FINALIZER)
        here, judged = status_input.node, status_input
        self._node_writer.has_written = False
        if Command.RETURN_PODS in commands:
            self._pod_mover.return_pods()
            if status_input.fact is Fact.RETURNING_PODS:
                self._pod_mover.evict_unreturnable(status_input.policy.name if status_input.policy else "")
        if (
            status_input.wait
            and status_input.wait.reason in QUEUED_REASONS
            and here is not None
            and status_input.started_at is None
        ):
            status_input = await self._node_writer.taint_waiting_node(status_input, here, self._write_status)
        if Command.RECORD in commands and here is not None:
            self._pod_mover.watch(here.name)  # the list is under way while the node is cordoned
            status_input = await self._node_writer.cordon(status_input, here, self._write_status)
        status_input = await self._report_before_moves(status_input)
        # What was chosen before a write was awaited may not be right any more: it is chosen again.
        as_judged = status_input is judged
        pause = self._move_pods(status_input, commands) if as_judged else None
        status_input = await self._reconcile_taint(status_input, commands) if as_judged else status_input
        if (
            status_input.fact is Fact.PODS_UNKNOWN
            and not self._node_writer.has_written
            and not status_input.unsynced_reason
        ):
            return _RECHECK_INTERVAL  # nothing new can be said before the pods are seen
        await self._write_status(status_input)
        if status_input.fact is Fact.BLOCKED and here is not None and (drain := self._deps.store.drain(self.name)):
            await self._attempts.attempt(WriteOperation.ANNOTATE, lambda: self._deadlocks.resolve(drain, here))
        if status_input.fact is not Fact.PODS_UNKNOWN and (
            status_input.fact is not Fact.WAITING or status_input.started_at
        ):
            await self._node_writer.write_conditions(status_input)
        if not as_judged and (self._node_writer.has_written or status_input.drain is not judged.drain):
            return 0.0
        timed = (
            self._fencing.proof_pending
            or status_input.settings.timeout
            or any(rule.timeout for rule in status_input.settings.rules)
        )
        patience = (
            _DEADLINE_CHECK_INTERVAL
            if timed
            else self._pod_mover.seconds_until_reported(status_input.now)
            if self._pod_mover.has_refusals
            else _RECHECK_INTERVAL
        )
        return min(
            patience, pause if pause is not None else _RECHECK_INTERVAL, self._seconds_until_drained(status_input)
        )

    async def _report_before_moves(self, status_input: status.StatusInput) -> status.StatusInput:
        """What has to be said before any pod is moved."""
        if status_input.pod_summary is None:
            return status_input
        self._deps.events.publish_annotations_ignored(status_input.pod_summary)
        self._deps.events.publish_released_pods_removed(status_input)
        self._deps.events.publish_volumes_stuck(status_input)
        if status_input.phase is Phase.RESTORING or not status.has_unreported_local_volume(
            status_input.drain.status, status_input.pod_summary
        ):
            return status_input
        await self._write_status(status_input, immediately=True)
        drain = self._deps.store.drain(self.name) or status_input.drain
        return status_input if drain is status_input.drain else replace(status_input, drain=drain)

    async def _reconcile_taint(
        self, status_input: status.StatusInput, commands: Iterable[Command]
    ) -> status.StatusInput:
        """The out-of-service taint: set once all pods that it lets go are Terminating."""
        here, tally, busy = status_input.node, status_input.pod_summary, self._node_writer.node_in_use
        if here is None or status_input.started_at is None or status_input.fact is Fact.FROZEN:
            return status_input
        left = tally and (tally.proven_terminating or tally.detaching_volumes or tally.stuck_volumes)
        due = bool(status_input.fencing_state.proof and tally and left and not tally.proven_unsent)
        may_set = Command.MOVE in commands
        lost = tally.proven_terminating if tally else ()
        return await self._fencing.reconcile_taint(
            status_input, here, lost, taint_due=due, node_in_use=busy, may_set=may_set, write_status=self._write_status
        )

    def _seconds_until_drained(self, status_input: status.StatusInput) -> float:
        if status_input.started_at is None or status_input.phase is not Phase.DRAINING:
            return _RECHECK_INTERVAL
        since = self._cordoned_at(status_input.drain) or status_input.now
        settled = (since + state_machine.MIN_TIME_CORDONED - status_input.now).total_seconds()
        return settled if settled > 0 else _RECHECK_INTERVAL

    def _move_pods(self, status_input: status.StatusInput, commands: Iterable[Command]) -> float | None:
        tally, policy, finish = status_input.pod_summary, status_input.policy, Command.EVICT_RELEASED in commands
        here = self._deps.store.node(status_input.drain.spec.node_name)
        # The cordon may have been given up just now: whoever was found to be well is left alone.
        if tally is None or status_input.started_at is None or here is None or not here.unschedulable:
            return None
        if Command.RELEASE in commands:
            self._pod_mover.release()
        if policy is None or not (finish or Command.MOVE in commands):
            return None
        return self._pod_mover.move(tally, policy, status_input.settings, begun_only=finish)

    async def _write_status(self, status_input: status.StatusInput, *, immediately: bool = False) -> None:
        await self._status_writer.write(status_input, self._pod_mover, immediately=immediately)

    async def _step_back(self, status_input: status.StatusInput) -> float:
        """Put the node back, and be as a drain that has not begun. Return the seconds until the next look."""
        here = await self._node_writer.remove_changes(status_input.drain, {})
        if here is None:
            await self._write_status(status_input)
            return min(self._node_writer.seconds_until_restore(), _RECHECK_INTERVAL)
        self._deps.events.publish_stepped_back(status_input)
        self._pod_mover.close()
        self._pod_mover = self._new_pod_mover()
        await self._write_status(
            replace(status_input, node=here, node_record=None, started_at=None, pod_summary=None), immediately=True
        )
        self._node_writer.reset()
        return 0.0


def _gave_up_slot(drain: NodeDrain, wait: WaitReason) -> bool:
    """Whether the drain has begun, and waits for a slot only because it gave its own up."""
    return (
        drain.status.started_at is not None
        and wait.reason is ProgressingReason.MAX_CONCURRENT
        and names.STEPPED_BACK not in drain.annotations
    )


def _keeps_cordon(drain: NodeDrain, wait: WaitReason) -> bool:
    """Whether the node is cordoned all the same: it flaps, or is not well for long enough yet."""
    return wait.reason is ProgressingReason.FLAPPING or (
        wait.reason is ProgressingReason.CANCELLED and drain.status.started_at is not None
    )
