"""Publish the Events of a drain: on its Node and NodeDrain, and on the owner of a pod if somebody must act.

A pod that leaves without trouble gets no Event.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime

import structlog

from rescheduler.api import API_VERSION, names
from rescheduler.api.drains import Blocker, ChainMoveState, NodeDrain, NodeDrainStatus, Phase
from rescheduler.api.policies import ReschedulePolicy
from rescheduler.api.scalars import truncate
from rescheduler.controllers.drain import messages
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.controllers.store.object_cache import ResourceKind, UnreadableObject
from rescheduler.core.drain import history
from rescheduler.core.drain.pod_summary import PodSummary
from rescheduler.core.drain.status import StatusInput, staying_pods
from rescheduler.core.eligibility.windows import window_state
from rescheduler.core.eviction.write_refusals import WriteFailure
from rescheduler.core.failure import fencing
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.pods import Owner, Pod
from rescheduler.kube.event_recorder import EventRecorder, EventType, InvolvedObject

log = structlog.get_logger("rescheduler.drain.events")

_MAX_REMEMBERED = 1000  # texts; above this number, an Event may be repeated
_OWNER_API_VERSIONS = {"ReplicaSet": "apps/v1", "StatefulSet": "apps/v1", "DaemonSet": "apps/v1", "Job": "batch/v1"}
_UNREADABLE_KINDS = {
    ResourceKind.NODE: ("v1", "Node", messages.UNREADABLE_OBJECT_IGNORED),
    ResourceKind.NAMESPACE: ("v1", "Namespace", messages.UNREADABLE_OBJECT_IGNORED),
    ResourceKind.POLICY: (
        API_VERSION,
        "ReschedulePolicy",
        messages.UNREADABLE_POLICY_IGNORED,
    ),
    ResourceKind.POOL: (API_VERSION, "NamespacePool", messages.UNREADABLE_OBJECT_IGNORED),
    ResourceKind.DRAIN: (API_VERSION, "NodeDrain", messages.UNREADABLE_OBJECT_IGNORED),
}
"""API version, kind, and the effect if no version of the object was ever readable."""


def involved_node(node: Node) -> InvolvedObject:
    """Return the Node as the subject of an Event."""
    return InvolvedObject("v1", "Node", node.name, node.uid)


def involved_drain(drain: NodeDrain) -> InvolvedObject:
    """Return the NodeDrain as the subject of an Event."""
    return InvolvedObject(API_VERSION, "NodeDrain", drain.name, drain.uid)


def _progressing_reasons(status: NodeDrainStatus) -> set[str]:
    return {c.reason for c in status.conditions if c.type == "Progressing"}


class DrainEvents:
    """Publishes each change once."""

    def __init__(self, recorder: EventRecorder, metrics: Metrics) -> None:
        self._recorder, self._metrics = recorder, metrics
        self._emitted: dict[str, str] = {}  # the last text by subject

    def _emit_on_drain_and_node(
        self, drain: NodeDrain, node: Node | None, kind: EventType, reason: str, message: str
    ) -> None:
        for subject in [involved_drain(drain), *([involved_node(node)] if node else [])]:
            self._recorder.emit(subject, kind, reason, message)

    def publish_cordoned(self, status_input: StatusInput) -> None:
        """Publish `Cordoned` or `CordonedAgain`."""
        if status_input.recordoned_at:
            self._emit_on_drain_and_node(
                status_input.drain, status_input.node, EventType.WARNING, "CordonedAgain", messages.CORDONED_AGAIN
            )
            return
        requests = ((str(request.reason), request.message) for request in status_input.drain.spec.requests)
        self._emit_on_drain_and_node(
            status_input.drain, status_input.node, EventType.NORMAL, "Cordoned", messages.cordoned(requests)
        )

    def publish_restored(self, drain: NodeDrain, node: Node) -> None:
        """Publish `Restored`."""
        message = messages.restored(stays_cordoned=node.unschedulable and drain.status.node is not None)
        self._emit_on_drain_and_node(drain, node, EventType.NORMAL, "Restored", message)

    def publish_left_cordoned(self, node: Node) -> None:
        """Publish `LeftCordoned`: the NodeDrain of a held node is gone, and nobody restored the node."""
        if node.unschedulable:
            self._recorder.emit(involved_node(node), EventType.WARNING, "LeftCordoned", messages.LEFT_CORDONED)

    def publish_write_failed(self, node: Node, write_failures: Iterable[WriteFailure]) -> None:
        """Publish `WriteFailed`, because the status cannot report these failures."""
        message = truncate("; ".join(map(str, write_failures)))
        if self._is_new(f"{node.uid}/write-failures", message):
            self._recorder.emit(involved_node(node), EventType.WARNING, "WriteFailed", message)

    def publish_attestation_refused(self, node: Node, cause: str) -> None:
        """Publish `FencedRefused`: the annotation does not prove that the node is dead."""
        if self._is_new(f"{node.uid}/{names.FENCED}", cause):
            message = messages.attestation_refused(cause, fencing.proof_hint(node))
            self._recorder.emit(involved_node(node), EventType.WARNING, "FencedRefused", message)

    def publish_out_of_service(self, status_input: StatusInput, node: Node) -> None:
        """Publish `OutOfService`."""
        message = messages.taken_out_of_service(node.boot_id)
        self._emit_on_drain_and_node(status_input.drain, node, EventType.NORMAL, "OutOfService", message)

    def publish_in_service(self, status_input: StatusInput, node: Node, *, rebooted: bool) -> None:
        """Publish `InService`."""
        message = messages.returned_to_service(rebooted=rebooted)
        self._emit_on_drain_and_node(status_input.drain, node, EventType.NORMAL, "InService", message)

    def publish_left_out_of_service(self, drain: NodeDrain, node: Node) -> None:
        """Publish `LeftOutOfService`: an uninstall leaves the out-of-service taint on a node."""
        taint = f"{names.OUT_OF_SERVICE_TAINT_KEY}:NoSchedule"
        log.warning("cleanup.taint_left", node=node.name, taint=taint, boot=node.boot_id)
        message = messages.left_out_of_service(node.name)
        self._emit_on_drain_and_node(drain, node, EventType.WARNING, "LeftOutOfService", message)

    def publish_returned_without_reboot(self, drain: NodeDrain, node: Node) -> None:
        """Publish `ReturnedWithoutReboot`."""
        if self._is_new(f"{drain.uid}/{node.boot_id}/returned", "ReturnedWithoutReboot"):
            message = messages.returned_without_reboot(node.boot_id)
            self._emit_on_drain_and_node(drain, node, EventType.WARNING, "ReturnedWithoutReboot", message)

    def publish_running_twice(self, drain: NodeDrain, node: Node, old: Pod, new: Pod) -> None:
        """Publish `RunningTwice`: the pod replaces a pod that never stopped."""
        message = messages.running_twice(new.key, new.node, old.key, node.name)
        subject = InvolvedObject("v1", "Pod", new.name, new.uid, new.namespace)
        self._recorder.emit(subject, EventType.WARNING, "RunningTwice", message)
        self._emit_on_drain_and_node(drain, node, EventType.WARNING, "RunningTwice", message)

    def publish_stepped_back(self, status_input: StatusInput) -> None:
        """Publish `SteppedBack`: the node is released for another drain."""
        wait_message = status_input.wait.message if status_input.wait else ""
        self._emit_on_drain_and_node(
            status_input.drain,
            status_input.node,
            EventType.WARNING,
            "SteppedBack",
            messages.drain_stepped_back(wait_message),
        )

    def publish_window_ignored(self, policy: ReschedulePolicy, now: datetime) -> None:
        """Publish `WindowIgnored`: a window never opens. The schema cannot detect that."""
        error = window_state(policy.spec.maintenance.windows, now).error
        if error and self._is_new(f"{policy.uid}/{policy.generation}", error):
            subject = InvolvedObject(API_VERSION, "ReschedulePolicy", policy.name, policy.uid)
            self._recorder.emit(subject, EventType.WARNING, "WindowIgnored", messages.window_ignored(error))

    def publish_unreadable(self, unreadable_object: UnreadableObject) -> None:
        """Publish `Unreadable`: this version cannot read the object."""
        if self._is_new(f"{unreadable_object.uid}/unreadable", unreadable_object.reason):
            version, kind, without_version = _UNREADABLE_KINDS[unreadable_object.kind]
            message = messages.unreadable(
                kind,
                unreadable_object.name,
                unreadable_object.reason,
                last_version_kept=unreadable_object.last_version_kept,
                without_version=without_version,
            )
            self._recorder.emit(
                InvolvedObject(version, kind, unreadable_object.name, unreadable_object.uid),
                EventType.WARNING,
                "Unreadable",
                message,
            )

    def publish_annotations_ignored(self, pod_summary: PodSummary) -> None:
        """Publish `AnnotationIgnored`, once for each annotation of a pod."""
        for pod, note in pod_summary.notes:
            if self._is_new(
                f"{pod.uid}/{note}", "AnnotationIgnored"
            ):  # with one key for all notes of a pod, they would alternate forever
                subject = InvolvedObject("v1", "Pod", pod.name, pod.uid, pod.namespace)
                self._recorder.emit(subject, EventType.WARNING, "AnnotationIgnored", note)

    def publish_not_replaced_first(self, status_input: StatusInput) -> None:
        """Publish `NotReplacedFirst`, once for each cause: on the pod, and once for each drain on its owner."""
        drain = status_input.drain
        for pod, decision in status_input.pod_summary.not_replaced_first if status_input.pod_summary else ():
            if self._is_new(f"{pod.uid}/not-replaced-first", decision.reason):
                subject = InvolvedObject("v1", "Pod", pod.name, pod.uid, pod.namespace)
                message = messages.not_replaced_first(drain.spec.node_name, decision.message, decision.hint)
                self._recorder.emit(subject, EventType.WARNING, "NotReplacedFirst", message)
                self._emit_on_owner(drain, pod.namespace, pod.name, pod.owner, "NotReplacedFirst", message)

    def publish_released_pods_removed(self, status_input: StatusInput) -> None:
        """Publish `ReleasedPodRemoved`: somebody else removed released pods."""
        for pod in status_input.pod_summary.removed_released_pods if status_input.pod_summary else ():
            if self._is_new(f"{pod.uid}/removed", "ReleasedPodRemoved"):
                message = messages.released_pod_removed(pod.key)
                self._emit_on_drain_and_node(
                    status_input.drain, status_input.node, EventType.WARNING, "ReleasedPodRemoved", message
                )

    def publish_volumes_stuck(self, status_input: StatusInput) -> None:
        """Publish `VolumeStuck`, once for each volume that is not detached after its pod has left."""
        stuck_volumes = status_input.pod_summary.stuck_volumes if status_input.pod_summary else frozenset()
        for volume in sorted(stuck_volumes):
            if self._is_new(f"{status_input.drain.uid}/{volume}", "VolumeStuck"):
                message = messages.volume_stuck(volume)
                self._emit_on_drain_and_node(
                    status_input.drain, status_input.node, EventType.WARNING, "VolumeStuck", message
                )

    def publish_timed_out(self, status_input: StatusInput) -> None:
        """Publish `TimedOut`."""
        settings = status_input.settings
        self._emit_on_drain_and_node(
            status_input.drain,
            status_input.node,
            EventType.WARNING,
            "TimedOut",
            messages.drain_timed_out(settings.timeout, settings.on_timeout),
        )

    def publish_node_gone(self, drain: NodeDrain, node: Node | None) -> None:
        """Publish `NodeGone`: the node was deleted, or its name belongs to another Node."""
        message = messages.node_is_gone(drain.spec.node_name, replaced=node is not None)
        self._emit_on_drain_and_node(drain, node, EventType.WARNING, "NodeGone", message)

    def publish_maintenance_refused(self, node: Node) -> None:
        """Publish `MaintenanceRefused`."""
        message = messages.maintenance_refused(node.name)
        self._recorder.emit(involved_node(node), EventType.WARNING, "MaintenanceRefused", message)

    def publish_status_change(
        self,
        status_input: StatusInput,
        before: NodeDrainStatus,
        after: NodeDrainStatus,
        pods: Mapping[str, str],
        owners: Mapping[str, Owner],
    ) -> None:
        """Publish the changes of a written status. `pods`: UIDs by namespace/name; `owners`: their controllers."""
        self._observe(status_input, before, after)
        self._publish_wait(status_input, before, after)
        if "TimedOut" in _progressing_reasons(after) - _progressing_reasons(before):
            self.publish_timed_out(status_input)
        if before.phase != after.phase:
            self._publish_phase(status_input, after)
        self._publish_chain_moves(status_input, before, after)
        known_blockers = {(b.namespace, b.pod, b.class_) for b in before.blockers}
        for blocker in after.blockers:
            if (blocker.namespace, blocker.pod, blocker.class_) not in known_blockers:
                self._publish_blocker(status_input, blocker, pods, owners)

    def _observe(self, status_input: StatusInput, before: NodeDrainStatus, after: NodeDrainStatus) -> None:
        """Observe what a written status has that the one before had not."""
        for ended in history.ended_blockers(before.blockers, after.blockers, status_input.now):
            self._metrics.count_blocked(ended.class_, ended.seconds)
        for stage, seconds in history.failover_stages(status_input.drain, after, status_input.now):
            self._metrics.failover_seconds.labels(stage).observe(seconds)
        if after.drained_at and not before.drained_at and after.started_at:
            self._metrics.drain_seconds.observe((status_input.now - after.started_at).total_seconds())

    def _publish_chain_moves(self, status_input: StatusInput, before: NodeDrainStatus, after: NodeDrainStatus) -> None:
        """Publish `ChainMove` and `ChainMoveFailed` for the chain moves that began or failed."""
        known = {(move.uid, move.state) for move in before.chain_moves}
        for move in after.chain_moves:
            if (move.uid, move.state) in known:
                continue
            pod = f"{move.namespace}/{move.pod}"
            if move.state is ChainMoveState.MOVING:
                message = messages.chain_move_begun(pod, move.node, move.for_pod)
                self._emit_on_drain_and_node(
                    status_input.drain, status_input.node, EventType.NORMAL, "ChainMove", message
                )
            elif move.state is ChainMoveState.FAILED:
                message = messages.chain_move_failed(pod, move.node, move.message)
                self._emit_on_drain_and_node(
                    status_input.drain, status_input.node, EventType.WARNING, "ChainMoveFailed", message
                )

    def _publish_blocker(
        self, status_input: StatusInput, blocker: Blocker, pods: Mapping[str, str], owners: Mapping[str, Owner]
    ) -> None:
        """Publish a blocker on the pod, and once for each drain and class on its owner, which is often the cause."""
        key = f"{blocker.namespace}/{blocker.pod}"
        pod = InvolvedObject("v1", "Pod", blocker.pod, pods.get(key, ""), blocker.namespace)
        message = messages.pod_blocked(status_input.drain.spec.node_name, blocker.message, blocker.hint)
        self._recorder.emit(pod, EventType.WARNING, blocker.class_, message)
        self._emit_on_owner(
            status_input.drain, blocker.namespace, blocker.pod, owners.get(key), blocker.class_, message
        )

    def _emit_on_owner(
        self, drain: NodeDrain, namespace: str, pod_name: str, owner: Owner | None, reason: str, message: str
    ) -> None:
        """Publish the Event of a pod on its owner, once for each drain and reason."""
        version = _OWNER_API_VERSIONS.get(owner.kind) if owner else None
        if owner and version and self._is_new(f"{drain.uid}/{owner.uid}", reason):
            subject = InvolvedObject(version, owner.kind, owner.name, owner.uid, namespace)
            self._recorder.emit(subject, EventType.WARNING, reason, messages.owned_pod_event(pod_name, message))

    def _is_new(self, key: str, text: str) -> bool:
        """Whether the last text of this subject differs."""
        if self._emitted.get(key) == text:
            return False
        if len(self._emitted) >= _MAX_REMEMBERED:
            self._emitted.clear()
        self._emitted[key] = text
        return True

    def _publish_wait(self, status_input: StatusInput, before: NodeDrainStatus, after: NodeDrainStatus) -> None:
        def wait(status: NodeDrainStatus) -> tuple[str, str] | None:
            progressing = next((c for c in status.conditions if c.type == "Progressing" and c.status == "False"), None)
            return (progressing.reason, progressing.message) if progressing else None

        current = wait(after)
        if status_input.wait and current and current[0] != (wait(before) or ("",))[0]:
            self._emit_on_drain_and_node(
                status_input.drain, status_input.node, EventType.WARNING, current[0], messages.drain_waits(current[1])
            )

    def _publish_phase(self, status_input: StatusInput, after: NodeDrainStatus) -> None:
        progress = after.progress or "0/0"
        match after.phase:
            case Phase.DRAINING:
                self._emit_on_drain_and_node(
                    status_input.drain,
                    status_input.node,
                    EventType.NORMAL,
                    "Draining",
                    messages.DRAIN_BEGUN,
                )
            case Phase.DRAINED:
                message = messages.drain_finished(progress, staying_pods(status_input.pod_summary))
                self._emit_on_drain_and_node(
                    status_input.drain, status_input.node, EventType.NORMAL, "Drained", message
                )
            case Phase.BLOCKED:
                blocked = next((c.message for c in after.conditions if c.type == "Blocked"), "")
                message = messages.drain_blocked(progress, blocked)
                self._emit_on_drain_and_node(
                    status_input.drain, status_input.node, EventType.WARNING, "Blocked", message
                )
            case _:
                return
