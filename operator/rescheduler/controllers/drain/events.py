"""Events of a drain's life: on its node and its NodeDrain, and on the owners of pods where somebody must act.

A pod that leaves without trouble gets none.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime

import structlog

from rescheduler.api import API_VERSION, names
from rescheduler.api.drains import Blocker, NodeDrain, NodeDrainStatus, Phase
from rescheduler.api.policies import OnTimeout, ReschedulePolicy
from rescheduler.api.scalars import format_duration, truncate
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.controllers.runtime.store import ResourceKind, UnreadableObject
from rescheduler.core.drain.pod_summary import PodSummary
from rescheduler.core.drain.status import StatusInput
from rescheduler.core.eligibility.windows import window_state
from rescheduler.core.eviction.write_refusals import WriteFailure
from rescheduler.core.failure import fencing
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.pods import Owner, Pod
from rescheduler.kube.event_recorder import EventRecorder, EventType, InvolvedObject

log = structlog.get_logger("rescheduler.announcements")

_MAX_REMEMBERED = 1000  # remembered; above that a word may be said twice
_OWNER_API_VERSIONS = {"ReplicaSet": "apps/v1", "StatefulSet": "apps/v1", "DaemonSet": "apps/v1", "Job": "batch/v1"}
_NOTHING_DONE = "nothing is done for it, and what it holds stays as it is"
_UNREADABLE_KINDS = {
    ResourceKind.NODE: ("v1", "Node", _NOTHING_DONE),
    ResourceKind.NAMESPACE: ("v1", "Namespace", _NOTHING_DONE),
    ResourceKind.POLICY: (
        API_VERSION,
        "ReschedulePolicy",
        "it decides for no node, and which nodes it selects is not known",
    ),
    ResourceKind.POOL: (API_VERSION, "NamespacePool", _NOTHING_DONE),
    ResourceKind.DRAIN: (API_VERSION, "NodeDrain", _NOTHING_DONE),
}
"""API version and kind, and what follows if no version of the object could ever be read."""


def involved_node(node: Node) -> InvolvedObject:
    """A Node as the subject of an Event."""
    return InvolvedObject("v1", "Node", node.name, node.uid)


def involved_drain(drain: NodeDrain) -> InvolvedObject:
    """A NodeDrain as the subject of an Event."""
    return InvolvedObject(API_VERSION, "NodeDrain", drain.name, drain.uid)


def _progressing_reasons(status: NodeDrainStatus) -> set[str]:
    return {c.reason for c in status.conditions if c.type == "Progressing"}


class DrainEvents:
    """Says what changed, once."""

    def __init__(self, recorder: EventRecorder, metrics: Metrics) -> None:
        self._recorder, self._metrics = recorder, metrics
        self._emitted: dict[str, str] = {}  # by what it is about; a pod with nonsense on it leaves soon

    def _emit_on_drain_and_node(
        self, drain: NodeDrain, node: Node | None, kind: EventType, reason: str, message: str
    ) -> None:
        for subject in [involved_drain(drain), *([involved_node(node)] if node else [])]:
            self._recorder.emit(subject, kind, reason, message)

    def publish_cordoned(self, status_input: StatusInput) -> None:
        """The node was cordoned."""
        if status_input.recordoned_at:
            message = (
                "Somebody uncordoned the node while it is drained: cordoned again, once. Withdraw the request to stop"
            )
            self._emit_on_drain_and_node(
                status_input.drain, status_input.node, EventType.WARNING, "CordonedAgain", message
            )
            return
        why = "; ".join(
            f"{r.reason}: {r.message}" if r.message else str(r.reason) for r in status_input.drain.spec.requests
        )
        self._emit_on_drain_and_node(
            status_input.drain, status_input.node, EventType.NORMAL, "Cordoned", f"Cordoned to be drained ({why})"
        )

    def publish_restored(self, drain: NodeDrain, node: Node) -> None:
        """The node is as it was."""
        record = drain.status.node
        kept = " (it stays cordoned: somebody else had done that)" if node.unschedulable and record else ""
        message = f"Nothing of Rescheduler's is left on the node{kept}"
        self._emit_on_drain_and_node(drain, node, EventType.NORMAL, "Restored", message)

    def publish_left_cordoned(self, node: Node) -> None:
        """The NodeDrain of a held node is gone, and nobody put the node back."""
        if node.unschedulable:
            message = (
                "Its NodeDrain was taken away by force, and with it the word of who had cordoned the node: it stays "
                "cordoned. kubectl uncordon it where nobody else wants it so"
            )
            self._recorder.emit(involved_node(node), EventType.WARNING, "LeftCordoned", message)

    def publish_write_failed(self, node: Node, write_failures: Iterable[WriteFailure]) -> None:
        """The status cannot tell what fails, so this Event does."""
        words = truncate("; ".join(map(str, write_failures)))
        if self._is_new(f"{node.uid}/troubles", words):
            self._recorder.emit(involved_node(node), EventType.WARNING, "WriteFailed", words)

    def publish_attestation_refused(self, node: Node, why: str) -> None:
        """The annotation that should prove the node dead does not."""
        if self._is_new(f"{node.uid}/{names.FENCED}", why):
            message = f"The annotation {names.FENCED} is not taken as proof: {why}. {fencing.proof_hint(node)}"
            self._recorder.emit(involved_node(node), EventType.WARNING, "FencedRefused", message)

    def publish_out_of_service(self, status_input: StatusInput, node: Node) -> None:
        """The taint was set."""
        message = (
            f"Boot {node.boot_id} is proven dead: tainted {names.OUT_OF_SERVICE_TAINT_KEY}:NoSchedule, so that its pods are "
            "removed and its volumes detached"
        )
        self._emit_on_drain_and_node(status_input.drain, node, EventType.NORMAL, "OutOfService", message)

    def publish_in_service(self, status_input: StatusInput, node: Node, *, rebooted: bool) -> None:
        """The taint was taken off."""
        why = "the node has booted anew" if rebooted else "nothing there is Terminating or attached any more"
        message = f"Took off the taint {names.OUT_OF_SERVICE_TAINT_KEY}: {why}"
        self._emit_on_drain_and_node(status_input.drain, node, EventType.NORMAL, "InService", message)

    def publish_left_out_of_service(self, drain: NodeDrain, node: Node) -> None:
        """The operator leaves the cluster, and a taint of its own on a node."""
        taint = f"{names.OUT_OF_SERVICE_TAINT_KEY}:NoSchedule"
        log.warning("cleanup.taint_left", node=node.name, taint=taint, boot=node.boot_id)
        message = (
            f"The taint {taint} stays though Rescheduler leaves: the boot is said to be dead, and has not been replaced. "
            f"Once it has: kubectl taint node {node.name} {taint}-"
        )
        self._emit_on_drain_and_node(drain, node, EventType.WARNING, "LeftOutOfService", message)

    def publish_returned_without_reboot(self, drain: NodeDrain, node: Node) -> None:
        """The boot that was said to be dead is back."""
        if self._is_new(f"{drain.uid}/{node.boot_id}/returned", "said"):
            message = (
                f"Boot {node.boot_id}, which was said to be dead, is back: its containers ran all along, and what was "
                "started elsewhere in their place ran twice. Look at the data of what moved"
            )
            self._emit_on_drain_and_node(drain, node, EventType.WARNING, "ReturnedWithoutReboot", message)

    def publish_running_twice(self, drain: NodeDrain, node: Node, old: Pod, new: Pod) -> None:
        """A pod runs in the place of one that had never stopped."""
        message = (
            f"Pod {new.key} runs on node {new.node} in the place of {old.key}, whose containers on {node.name} had "
            "never stopped: look at its data"
        )
        subject = InvolvedObject("v1", "Pod", new.name, new.uid, new.namespace)
        self._recorder.emit(subject, EventType.WARNING, "RunningTwice", message)
        self._emit_on_drain_and_node(drain, node, EventType.WARNING, "RunningTwice", message)

    def publish_stepped_back(self, status_input: StatusInput) -> None:
        """The node was given free for another drain."""
        why = status_input.wait.message if status_input.wait else ""
        self._emit_on_drain_and_node(
            status_input.drain, status_input.node, EventType.WARNING, "SteppedBack", f"Uncordoned again: {why}"
        )

    def publish_window_ignored(self, policy: ReschedulePolicy, now: datetime) -> None:
        """A window of the policy makes no sense, and opens nothing: the server's schema cannot tell."""
        error = window_state(policy.spec.maintenance.windows, now).error
        if error and self._is_new(f"{policy.uid}/{policy.generation}", error):
            subject = InvolvedObject(API_VERSION, "ReschedulePolicy", policy.name, policy.uid)
            self._recorder.emit(subject, EventType.WARNING, "WindowIgnored", f"A window never opens: {error}")

    def publish_unreadable(self, unreadable_object: UnreadableObject) -> None:
        """An object cannot be read by this version."""
        if self._is_new(f"{unreadable_object.uid}/unreadable", unreadable_object.reason):
            version, kind, without = _UNREADABLE_KINDS[unreadable_object.kind]
            holds = (
                "its last version that could be read still holds" if unreadable_object.last_version_kept else without
            )
            message = (
                f"{kind} {unreadable_object.name} cannot be read by this version of Rescheduler ({unreadable_object.reason}): {holds}. "
                "Correct it, or run the version that wrote it"
            )
            self._recorder.emit(
                InvolvedObject(version, kind, unreadable_object.name, unreadable_object.uid),
                EventType.WARNING,
                "Unreadable",
                message,
            )

    def publish_annotations_ignored(self, pod_summary: PodSummary) -> None:
        """Words for the owners of pods, each once."""
        for pod, note in pod_summary.notes:
            if self._is_new(f"{pod.uid}/{note}", "said"):  # a pod may have several: none may take turns with another
                subject = InvolvedObject("v1", "Pod", pod.name, pod.uid, pod.namespace)
                self._recorder.emit(subject, EventType.WARNING, "AnnotationIgnored", note)

    def publish_released_pods_removed(self, status_input: StatusInput) -> None:
        """Released pods were removed by somebody else."""
        for pod in status_input.pod_summary.removed_released_pods if status_input.pod_summary else ():
            if self._is_new(f"{pod.uid}/taken", "said"):
                message = (
                    f"Pod {pod.key} was released and somebody else removed it before its replacement was Ready: it does "
                    "not count as moved. Find out who deletes pods of this workload; the API server's audit log names them"
                )
                self._emit_on_drain_and_node(
                    status_input.drain, status_input.node, EventType.WARNING, "ReleasedPodRemoved", message
                )

    def publish_volumes_stuck(self, status_input: StatusInput) -> None:
        """Volumes are not detached though their pods have left: said once, for whoever looks after the storage."""
        hanging = status_input.pod_summary.stuck_volumes if status_input.pod_summary else frozenset()
        for volume in sorted(hanging):
            if self._is_new(f"{status_input.drain.uid}/{volume}", "VolumeStuck"):
                message = (
                    f"PersistentVolume {volume} is still attached to the node though no pod here uses it: not waited for "
                    "any more. Look at its VolumeAttachment and at the CSI driver"
                )
                self._emit_on_drain_and_node(
                    status_input.drain, status_input.node, EventType.WARNING, "VolumeStuck", message
                )

    def publish_timed_out(self, status_input: StatusInput) -> None:
        """The drain's time is up."""
        late = format_duration(status_input.settings.timeout)
        does = {
            OnTimeout.HOLD: "pods are tried on",
            OnTimeout.DELETE: "pods are deleted past their budgets",
            OnTimeout.CANCEL: "the drain is cancelled, and the node put back as it was",
        }[status_input.settings.on_timeout]
        self._emit_on_drain_and_node(
            status_input.drain,
            status_input.node,
            EventType.WARNING,
            "TimedOut",
            f"The timeout of {late} has passed: {does}",
        )

    def publish_node_gone(self, drain: NodeDrain, node: Node | None) -> None:
        """The drain's node was deleted, or replaced under its name."""
        what = "another machine has its name now" if node else "it was deleted"
        message = f"Node {drain.spec.node_name} is gone ({what}): this drain ends"
        self._emit_on_drain_and_node(drain, node, EventType.WARNING, "NodeGone", message)

    def publish_maintenance_refused(self, node: Node) -> None:
        """The annotation's value makes no sense."""
        message = (
            'The annotation rescheduler.dev/maintenance has the value "false", which is refused: '
            "its presence asks for maintenance. To end maintenance, remove it: "
            f"kubectl annotate node {node.name} rescheduler.dev/maintenance-"
        )
        self._recorder.emit(involved_node(node), EventType.WARNING, "MaintenanceRefused", message)

    def publish_status_change(
        self,
        status_input: StatusInput,
        before: NodeDrainStatus,
        after: NodeDrainStatus,
        pods: Mapping[str, str],
        owners: Mapping[str, Owner],
    ) -> None:
        """The status was written: what of it is news? `pods`: UIDs by namespace/name; `owners`: their controllers."""
        self._publish_wait(status_input, before, after)
        if "TimedOut" in _progressing_reasons(after) - _progressing_reasons(before):
            self.publish_timed_out(status_input)
        if before.phase != after.phase:
            self._publish_phase(status_input, after)
        known = {(b.namespace, b.pod, b.class_) for b in before.blockers}
        for blocker in after.blockers:
            if (blocker.namespace, blocker.pod, blocker.class_) not in known:
                self._publish_blocker(status_input, blocker, pods, owners)

    def _publish_blocker(
        self, status_input: StatusInput, blocker: Blocker, pods: Mapping[str, str], owners: Mapping[str, Owner]
    ) -> None:
        """On the pod, and once a drain and class on its owner: a hundred pods of one owner have one cause."""
        key, uid = f"{blocker.namespace}/{blocker.pod}", status_input.drain.uid
        pod = InvolvedObject("v1", "Pod", blocker.pod, pods.get(key, ""), blocker.namespace)
        message = f"Cannot leave node {status_input.drain.spec.node_name}: {blocker.message}. {blocker.hint}"
        self._recorder.emit(pod, EventType.WARNING, blocker.class_, message)
        owner = owners.get(key)
        version = _OWNER_API_VERSIONS.get(owner.kind) if owner else None
        if owner and version and self._is_new(f"{uid}/{owner.uid}", blocker.class_):
            subject = InvolvedObject(version, owner.kind, owner.name, owner.uid, blocker.namespace)
            self._recorder.emit(subject, EventType.WARNING, blocker.class_, f"Pod {blocker.pod}: {message}")

    def _is_new(self, key: str, text: str) -> bool:
        """Whether this was not just said of it."""
        if self._emitted.get(key) == text:
            return False
        if len(self._emitted) >= _MAX_REMEMBERED:
            self._emitted.clear()
        self._emitted[key] = text
        return True

    def _publish_wait(self, status_input: StatusInput, before: NodeDrainStatus, after: NodeDrainStatus) -> None:
        def reason(status: NodeDrainStatus) -> tuple[str, str] | None:
            found = next((c for c in status.conditions if c.type == "Progressing" and c.status == "False"), None)
            return (found.reason, found.message) if found else None

        now = reason(after)
        if status_input.wait and now and now[0] != (reason(before) or ("",))[0]:
            self._emit_on_drain_and_node(
                status_input.drain, status_input.node, EventType.WARNING, now[0], f"The drain waits: {now[1]}"
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
                    "Pods are being moved off the node",
                )
            case Phase.DRAINED:
                if status_input.started_at:
                    self._metrics.drain_seconds.observe((status_input.now - status_input.started_at).total_seconds())
                message = f"Drained: {progress} pods have left"
                self._emit_on_drain_and_node(
                    status_input.drain, status_input.node, EventType.NORMAL, "Drained", message
                )
            case Phase.BLOCKED:
                blocked = next((c.message for c in after.conditions if c.type == "Blocked"), "")
                message = f"Nothing moves ({progress} pods have left): {blocked}"
                self._emit_on_drain_and_node(
                    status_input.drain, status_input.node, EventType.WARNING, "Blocked", message
                )
            case _:
                return
