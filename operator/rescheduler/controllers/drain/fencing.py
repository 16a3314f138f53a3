"""Find proof that the node of a drain is dead, and manage the out-of-service taint.

A pod forced off a live node runs twice, and two writers corrupt a volume. So the node and its Lease are read live
before each act, and every write carries a precondition. Any contradiction stops the act.
"""

from collections.abc import Iterable
from dataclasses import replace

import structlog

from rescheduler.api.drains import NodeDrain
from rescheduler.api.policies import Force, ReschedulePolicy
from rescheduler.controllers.drain import messages
from rescheduler.controllers.drain.events import DrainEvents
from rescheduler.controllers.drain.node_writer import NodeWriter, WriteStatus
from rescheduler.controllers.failure.lease_monitor import LeaseMonitor
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.readable import readable_objects
from rescheduler.controllers.store.store import Store
from rescheduler.core.drain import node_patches, status
from rescheduler.core.eligibility import preconditions
from rescheduler.core.eviction import write_refusals
from rescheduler.core.eviction.pod_actions import PodDecision, RequiredProof
from rescheduler.core.failure import duplicate_pods, fencing
from rescheduler.core.failure.fencing import READY, FencingState, TaintAction
from rescheduler.core.model import pods
from rescheduler.core.model.nodes import CONDITION_UNKNOWN, Node
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.wait_reasons import ProgressingReason, WaitReason
from rescheduler.kube import paths
from rescheduler.kube.client import TRANSIENT_ERRORS, Client

log = structlog.get_logger("rescheduler.drain.fencing")

_RECHECK_INTERVAL = 2.0  # seconds between two reads of a Lease that is not yet silent for long enough
_WAIT_AFTER_TAINT_REMOVAL = (
    60.0  # seconds; the pod garbage collector may act on a removed taint for this long (k/k#141887)
)
_MAX_DUPLICATES = 20


class NodeFencing:
    """Fences the node of one drain."""

    def __init__(
        self,
        client: Client,
        store: Store,
        clock: Clock,
        events: DrainEvents,
        lease_monitor: LeaseMonitor,
        node_writer: NodeWriter,
    ) -> None:
        self._client, self._store, self._clock = client, store, clock
        self._events, self._lease_monitor, self._node_writer = events, lease_monitor, node_writer
        self._lease_check: tuple[float, str | None] = (float("-inf"), None)
        self._removed_pods: dict[str, Pod] = {}  # by UID: pods that left by proof
        self._duplicates_checked_at = float("-inf")
        self._taint_removed_at = float("-inf")
        self._new_boot: tuple[str, float] = ("", 0.0)  # a boot after the failure, and when it was first observed

    # -- observing ----------------------------------------------------------------------------------------------------

    async def evaluate(
        self, drain: NodeDrain, node: Node, policy: ReschedulePolicy | None, *, failing: bool
    ) -> FencingState:
        """Return the fencing state of the drain; `failing`: a failure request stands and the node has failed."""
        returned = await self._observe_return(drain, node)
        if policy and not policy.spec.failure.enabled:
            return replace(returned, proof_hint=messages.FAILURE_DISABLED_HINT)
        if not failing or node.ready_status == READY or policy is None:
            return replace(returned, failing=failing, proof_hint=fencing.proof_hint(node))
        if policy.spec.failure.force is Force.NEVER:
            return FencingState(failing=True, force_forbidden=True, proof_hint=messages.FORCE_NEVER_HINT)
        evidence = self._find_proof(drain, node)
        proof, rejections = evidence.proof, evidence.rejections
        not_dead_reason = await self._not_dead_reason(node) if proof else None
        if not_dead_reason:
            proof, rejections = None, (*rejections, not_dead_reason)
        return FencingState(
            failing=True,
            proof=proof,
            rejections=rejections,
            proof_hint=fencing.proof_hint(node),
            proof_pending=not_dead_reason is not None,
            attestation_error=evidence.attestation_error,
        )

    def _find_proof(self, drain: NodeDrain, node: Node) -> fencing.FencingEvidence:
        record = drain.status.node
        is_recorded_boot = record is not None and (record.uid, record.boot_id) == (node.uid, node.boot_id)
        methods = (c.reason for c in drain.status.conditions if c.type == "Fenced" and c.status == "True")
        known_method = next(methods, "") if is_recorded_boot else ""
        own_taint = fencing.is_taint_recorded(node, record)
        return fencing.find_proof(
            node,
            self._store.history.boots(node.name),
            own_taint=own_taint,
            known_method=known_method,
            now=self._clock.now(),
        )

    async def _not_dead_reason(self, node: Node) -> str | None:
        """Return why the boot may be alive by its Lease; None if the Lease is silent."""
        now = self._clock.monotonic()
        if now - self._lease_check[0] >= _RECHECK_INTERVAL:
            self._lease_check = (now, await self._lease_not_silent_reason(node))
        return self._lease_check[1]

    async def _lease_not_silent_reason(self, node: Node) -> str | None:
        try:
            is_silent = await self._lease_monitor.is_silent_for_long(node)
        except TRANSIENT_ERRORS as error:
            return messages.lease_unreadable(error)
        return None if is_silent else messages.LEASE_NOT_SILENT

    def wait_reason(self, drain: NodeDrain, node: Node, policy: ReschedulePolicy | None) -> WaitReason | None:
        """Return why no pod moves off a node that is coming back; None if pods may move."""
        record = drain.status.node
        if fencing.returned_without_reboot(node, record):
            return WaitReason(
                ProgressingReason.CANCELLED,
                messages.FENCED_BOOT_RETURNED,
            )
        if self._clock.monotonic() - self._taint_removed_at < _WAIT_AFTER_TAINT_REMOVAL:
            return WaitReason(ProgressingReason.CANCELLED, messages.TAINT_JUST_REMOVED)
        has_rebooted = record is not None and record.boot_id not in ("", node.boot_id)
        is_booting = (
            has_rebooted
            and node.ready_status not in (READY, CONDITION_UNKNOWN)
            and preconditions.has_only_failure_requests(drain)
        )
        return self._reboot_wait_reason(node, policy) if is_booting else None

    def _reboot_wait_reason(self, node: Node, policy: ReschedulePolicy | None) -> WaitReason | None:
        """Return the wait while pods restart in place after a reboot: as long as the `for` of the condition."""
        now = self._clock.monotonic()
        if self._new_boot[0] != node.boot_id:
            self._new_boot = (node.boot_id, now)
        matches = policy.spec.failure.conditions if policy else ()
        patience = max(
            (m.for_.total_seconds() for m in matches if m.type == "Ready" and node.ready_status in m.status), default=0
        )
        if now - self._new_boot[1] >= patience:
            return None
        return WaitReason(
            ProgressingReason.CANCELLED,
            messages.NODE_REBOOTED,
        )

    # -- acting -------------------------------------------------------------------------------------------------------

    def publish_findings(self, status_input: status.StatusInput) -> None:
        """Publish an attestation that is not proof, a fenced boot that is back, and the pods that run twice."""
        drain, node, state = status_input.drain, status_input.node, status_input.fencing_state
        if node is None:
            return
        if state.attestation_error:
            self._events.publish_attestation_refused(node, state.attestation_error)
        if state.pods_may_run:
            self._events.publish_returned_without_reboot(drain, node)
        for pod, duplicate in state.duplicates:
            self._removed_pods.pop(pod.uid, None)
            self._events.publish_running_twice(drain, node, pod, duplicate)

    async def confirm(self, drain: NodeDrain, evaluated_node: Node, pod: Pod, decision: PodDecision) -> str | None:
        """Return why the pod may not leave, from a live read; None if it may.

        `drain`, `evaluated_node`: what the decision rests on.
        """
        if self._store.state_builder.is_view_stale():
            return messages.VIEW_UNRELIABLE
        if decision.required_proof is RequiredProof.BOOT_DEAD:
            if await self._read_if_proven_dead(drain, evaluated_node) is None:
                return messages.PROOF_LOST
            self._removed_pods[pod.uid] = pod
            return None
        node = await self._node_writer.read_recent(evaluated_node.name)
        is_unchanged = node is not None and _identity(node) == _identity(evaluated_node)
        return None if is_unchanged else messages.NODE_CHANGED

    async def _read_if_proven_dead(self, drain: NodeDrain, evaluated_node: Node) -> Node | None:
        """Return the node read live if its boot is still proven dead and its Lease is silent; else None."""
        live = await self._node_writer.read_live(evaluated_node.name)
        if live is None or _identity(live) != _identity(evaluated_node) or not self._find_proof(drain, live).proof:
            return None
        return live if await self._lease_monitor.is_silent_for_long(live) else None

    async def reconcile_taint(
        self,
        status_input: status.StatusInput,
        node: Node,
        terminating_pods: Iterable[Pod],
        *,
        taint_due: bool,
        node_in_use: bool,
        may_set: bool,
        write_status: WriteStatus,
    ) -> status.StatusInput:
        """Set the taint, remove it, or leave it; `terminating_pods`: the pods that the taint removes."""
        action = fencing.taint_action(node, status_input.node_record, taint_due=taint_due, node_in_use=node_in_use)
        is_needed = action in (TaintAction.SET, TaintAction.REMOVE)
        if (
            not self._node_writer.may_attempt(write_refusals.WriteOperation.OUT_OF_SERVICE, wanted=is_needed)
            and is_needed
        ):
            return status_input
        match action:
            case TaintAction.SET if may_set:
                return await self._set_taint(status_input, node, terminating_pods, write_status)
            case TaintAction.REMOVE | TaintAction.CLEAR_RECORD:
                return await self._end_taint(status_input, node, action, taint_due=taint_due, node_in_use=node_in_use)
        return status_input

    async def _set_taint(
        self, status_input: status.StatusInput, node: Node, terminating_pods: Iterable[Pod], write_status: WriteStatus
    ) -> status.StatusInput:
        record = node_patches.out_of_service_record(node, status_input.node_record)
        status_input = replace(status_input, node_record=record)
        if record != status_input.drain.status.node:
            await write_status(status_input, immediately=True)
        drain = self._store.drain(status_input.drain.name) or status_input.drain
        live = await self._read_if_proven_dead(drain, node)
        if live is None or (patch := node_patches.out_of_service_patch(live)) is None:
            return replace(status_input, drain=drain)
        if not await self._node_writer.attempt(write_refusals.WriteOperation.OUT_OF_SERVICE, live, patch):
            return replace(status_input, drain=drain)
        self._removed_pods |= {pod.uid: pod for pod in terminating_pods}
        log.info("node.out_of_service", node=node.name, drain=drain.name, uid=node.uid, boot=node.boot_id)
        self._events.publish_out_of_service(status_input, node)
        return replace(status_input, drain=drain)

    async def _end_taint(
        self, status_input: status.StatusInput, node: Node, action: TaintAction, *, taint_due: bool, node_in_use: bool
    ) -> status.StatusInput:
        """Remove the taint if it is on the node, and clear its record; after a live read: the cached node may be old."""
        live, record = await self._node_writer.read_live(node.name), status_input.node_record
        if (
            live is None
            or record is None
            or fencing.taint_action(live, record, taint_due=taint_due, node_in_use=node_in_use) is not action
        ):
            return status_input
        if action is TaintAction.REMOVE and (patch := node_patches.in_service_patch(live)):
            if not await self._node_writer.attempt(write_refusals.WriteOperation.OUT_OF_SERVICE, live, patch):
                return status_input
            self._taint_removed_at = self._clock.monotonic()
            log.info("node.in_service", node=live.name, drain=status_input.drain.name, uid=live.uid, boot=live.boot_id)
            self._events.publish_in_service(status_input, live, rebooted=live.boot_id != record.boot_id)
        return replace(status_input, node_record=node_patches.in_service_record(record))

    # -- a fenced boot returns ----------------------------------------------------------------------------------------

    async def _observe_return(self, drain: NodeDrain, node: Node) -> FencingState:
        """Return whether a fenced boot is back, and which pods run twice."""
        record = drain.status.node
        if node.ready_status != READY:
            return FencingState()
        if record is None or record.boot_id != node.boot_id:
            self._removed_pods.clear()
        has_returned = fencing.returned_without_reboot(node, record)
        may_run = has_returned or bool(self._removed_pods)
        duplicates = await self._find_duplicates(drain, node) if may_run else ()
        return FencingState(returned_without_reboot=has_returned, pods_may_run=may_run, duplicates=duplicates)

    async def _find_duplicates(self, drain: NodeDrain, node: Node) -> tuple[tuple[Pod, Pod], ...]:
        """Return the pods that left by proof, each with the running pod that replaces it."""
        now = self._clock.monotonic()
        if now - self._duplicates_checked_at < _RECHECK_INTERVAL:
            return ()
        self._duplicates_checked_at = now
        found: list[tuple[Pod, Pod]] = []
        try:
            for pod in list(self._removed_pods.values())[:_MAX_DUPLICATES]:
                candidates: list[Pod] = []
                async for page in self._client.list(
                    paths.in_namespace("v1", pod.namespace, "pods"), **duplicate_pods.list_params(pod)
                ):
                    candidates += readable_objects(page["items"], pods.parse_pod)
                if duplicate := duplicate_pods.running_duplicate(pod, candidates):
                    found.append((pod, duplicate))
        except TRANSIENT_ERRORS as error:
            log.warning("node.duplicates_unknown", node=node.name, drain=drain.name, error=str(error))
        return tuple(found)


def _identity(node: Node) -> tuple[str, str, str]:
    return node.uid, node.boot_id, node.ready_status
