"""Events of a drain's life: on its node and its NodeDrain, and on the owners of pods where somebody must act.

A pod that leaves without trouble gets none.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime

import structlog

from rescheduler.api import API_VERSION, names
from rescheduler.api.drains import Blocker, NodeDrain, NodeDrainStatus, Phase
from rescheduler.api.policies import OnTimeout, Policy
from rescheduler.api.scalars import cut, format_duration
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.controllers.runtime.store import Kind as Sort
from rescheduler.controllers.runtime.store import Unreadable
from rescheduler.core.drain.pod_summary import Tally
from rescheduler.core.drain.status import Scene
from rescheduler.core.eligibility.windows import look
from rescheduler.core.eviction.write_refusals import Trouble
from rescheduler.core.failure import fencing
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.pods import Owner, Pod
from rescheduler.kube.event_recorder import Kind, Recorder, Subject

log = structlog.get_logger("rescheduler.announcements")

_MOST_NOTES = 1000  # remembered; above that a word may be said twice
_VERSIONS = {"ReplicaSet": "apps/v1", "StatefulSet": "apps/v1", "DaemonSet": "apps/v1", "Job": "batch/v1"}
_LEFT = "nothing is done for it, and what it holds stays as it is"
_UNREAD = {
    Sort.NODE: ("v1", "Node", _LEFT),
    Sort.NAMESPACE: ("v1", "Namespace", _LEFT),
    Sort.POLICY: (API_VERSION, "ReschedulePolicy", "it decides for no node, and which nodes it selects is not known"),
    Sort.POOL: (API_VERSION, "NamespacePool", _LEFT),
    Sort.DRAIN: (API_VERSION, "NodeDrain", _LEFT),
}
"""API version and kind, and what follows if no version of the object could ever be read."""


def of_node(node: Node) -> Subject:
    """A Node as the subject of an Event."""
    return Subject("v1", "Node", node.name, node.uid)


def of_drain(drain: NodeDrain) -> Subject:
    """A NodeDrain as the subject of an Event."""
    return Subject(API_VERSION, "NodeDrain", drain.name, drain.uid)


def _reasons(status: NodeDrainStatus) -> set[str]:
    return {c.reason for c in status.conditions if c.type == "Progressing"}


class Announcer:
    """Says what changed, once."""

    def __init__(self, recorder: Recorder, metrics: Metrics) -> None:
        self._recorder, self._metrics = recorder, metrics
        self._noted: dict[str, str] = {}  # by what it is about; a pod with nonsense on it leaves soon

    def _both(self, drain: NodeDrain, node: Node | None, kind: Kind, reason: str, message: str) -> None:
        for subject in [of_drain(drain), *([of_node(node)] if node else [])]:
            self._recorder.emit(subject, kind, reason, message)

    def cordoned(self, scene: Scene) -> None:
        """The node was cordoned."""
        if scene.recordoned:
            message = (
                "Somebody uncordoned the node while it is drained: cordoned again, once. Withdraw the request to stop"
            )
            self._both(scene.drain, scene.node, Kind.WARNING, "CordonedAgain", message)
            return
        why = "; ".join(f"{r.reason}: {r.message}" if r.message else str(r.reason) for r in scene.drain.spec.requests)
        self._both(scene.drain, scene.node, Kind.NORMAL, "Cordoned", f"Cordoned to be drained ({why})")

    def restored(self, drain: NodeDrain, node: Node) -> None:
        """The node is as it was."""
        record = drain.status.node
        kept = " (it stays cordoned: somebody else had done that)" if node.unschedulable and record else ""
        message = f"Nothing of Rescheduler's is left on the node{kept}"
        self._both(drain, node, Kind.NORMAL, "Restored", message)

    def let_go(self, node: Node) -> None:
        """The NodeDrain of a held node is gone, and nobody put the node back."""
        if node.unschedulable:
            message = (
                "Its NodeDrain was taken away by force, and with it the word of who had cordoned the node: it stays "
                "cordoned. kubectl uncordon it where nobody else wants it so"
            )
            self._recorder.emit(of_node(node), Kind.WARNING, "LeftCordoned", message)

    def unwritable(self, node: Node, troubles: Iterable[Trouble]) -> None:
        """The status cannot tell what fails, so this Event does."""
        words = cut("; ".join(map(str, troubles)))
        if self._first(f"{node.uid}/troubles", words):
            self._recorder.emit(of_node(node), Kind.WARNING, "WriteFailed", words)

    def attestation_refused(self, node: Node, why: str) -> None:
        """The annotation that should prove the node dead does not."""
        if self._first(f"{node.uid}/{names.FENCED}", why):
            message = f"The annotation {names.FENCED} is not taken as proof: {why}. {fencing.hint(node)}"
            self._recorder.emit(of_node(node), Kind.WARNING, "FencedRefused", message)

    def out_of_service(self, scene: Scene, node: Node) -> None:
        """The taint was set."""
        message = (
            f"Boot {node.boot_id} is proven dead: tainted {names.OUT_OF_SERVICE}:NoSchedule, so that its pods are "
            "removed and its volumes detached"
        )
        self._both(scene.drain, node, Kind.NORMAL, "OutOfService", message)

    def in_service(self, scene: Scene, node: Node, *, rebooted: bool) -> None:
        """The taint was taken off."""
        why = "the node has booted anew" if rebooted else "nothing there is Terminating or attached any more"
        message = f"Took off the taint {names.OUT_OF_SERVICE}: {why}"
        self._both(scene.drain, node, Kind.NORMAL, "InService", message)

    def left_out_of_service(self, drain: NodeDrain, node: Node) -> None:
        """The operator leaves the cluster, and a taint of its own on a node."""
        taint = f"{names.OUT_OF_SERVICE}:NoSchedule"
        log.warning("cleanup.taint_left", node=node.name, taint=taint, boot=node.boot_id)
        message = (
            f"The taint {taint} stays though Rescheduler leaves: the boot is said to be dead, and has not been replaced. "
            f"Once it has: kubectl taint node {node.name} {taint}-"
        )
        self._both(drain, node, Kind.WARNING, "LeftOutOfService", message)

    def returned_without_reboot(self, drain: NodeDrain, node: Node) -> None:
        """The boot that was said to be dead is back."""
        if self._first(f"{drain.uid}/{node.boot_id}/returned", "said"):
            message = (
                f"Boot {node.boot_id}, which was said to be dead, is back: its containers ran all along, and what was "
                "started elsewhere in their place ran twice. Look at the data of what moved"
            )
            self._both(drain, node, Kind.WARNING, "ReturnedWithoutReboot", message)

    def running_twice(self, drain: NodeDrain, node: Node, old: Pod, new: Pod) -> None:
        """A pod runs in the place of one that had never stopped."""
        message = (
            f"Pod {new.key} runs on node {new.node} in the place of {old.key}, whose containers on {node.name} had "
            "never stopped: look at its data"
        )
        subject = Subject("v1", "Pod", new.name, new.uid, new.namespace)
        self._recorder.emit(subject, Kind.WARNING, "RunningTwice", message)
        self._both(drain, node, Kind.WARNING, "RunningTwice", message)

    def stepped_back(self, scene: Scene) -> None:
        """The node was given free for another drain."""
        why = scene.held.message if scene.held else ""
        self._both(scene.drain, scene.node, Kind.WARNING, "SteppedBack", f"Uncordoned again: {why}")

    def windows(self, policy: Policy, now: datetime) -> None:
        """A window of the policy makes no sense, and opens nothing: the server's schema cannot tell."""
        error = look(policy.spec.maintenance.windows, now).error
        if error and self._first(f"{policy.uid}/{policy.generation}", error):
            subject = Subject(API_VERSION, "ReschedulePolicy", policy.name, policy.uid)
            self._recorder.emit(subject, Kind.WARNING, "WindowIgnored", f"A window never opens: {error}")

    def unreadable(self, found: Unreadable) -> None:
        """An object cannot be read by this version."""
        if self._first(f"{found.uid}/unreadable", found.why):
            version, kind, without = _UNREAD[found.kind]
            holds = "its last version that could be read still holds" if found.known else without
            message = (
                f"{kind} {found.name} cannot be read by this version of Rescheduler ({found.why}): {holds}. "
                "Correct it, or run the version that wrote it"
            )
            self._recorder.emit(Subject(version, kind, found.name, found.uid), Kind.WARNING, "Unreadable", message)

    def notes(self, tally: Tally) -> None:
        """Words for the owners of pods, each once."""
        for pod, note in tally.notes:
            if self._first(f"{pod.uid}/{note}", "said"):  # a pod may have several: none may take turns with another
                subject = Subject("v1", "Pod", pod.name, pod.uid, pod.namespace)
                self._recorder.emit(subject, Kind.WARNING, "AnnotationIgnored", note)

    def taken(self, scene: Scene) -> None:
        """Released pods were removed by somebody else."""
        for pod in scene.tally.taken if scene.tally else ():
            if self._first(f"{pod.uid}/taken", "said"):
                message = (
                    f"Pod {pod.key} was released and somebody else removed it before its replacement was Ready: it does "
                    "not count as moved. Find out who deletes pods of this workload; the API server's audit log names them"
                )
                self._both(scene.drain, scene.node, Kind.WARNING, "ReleasedPodRemoved", message)

    def hanging(self, scene: Scene) -> None:
        """Volumes are not detached though their pods have left: said once, for whoever looks after the storage."""
        hanging = scene.tally.hanging if scene.tally else frozenset()
        for volume in sorted(hanging):
            if self._first(f"{scene.drain.uid}/{volume}", "VolumeStuck"):
                message = (
                    f"PersistentVolume {volume} is still attached to the node though no pod here uses it: not waited for "
                    "any more. Look at its VolumeAttachment and at the CSI driver"
                )
                self._both(scene.drain, scene.node, Kind.WARNING, "VolumeStuck", message)

    def timed_out(self, scene: Scene) -> None:
        """The drain's time is up."""
        late = format_duration(scene.settings.timeout)
        does = {
            OnTimeout.HOLD: "pods are tried on",
            OnTimeout.DELETE: "pods are deleted past their budgets",
            OnTimeout.CANCEL: "the drain is cancelled, and the node put back as it was",
        }[scene.settings.on_timeout]
        self._both(scene.drain, scene.node, Kind.WARNING, "TimedOut", f"The timeout of {late} has passed: {does}")

    def node_gone(self, drain: NodeDrain, node: Node | None) -> None:
        """The drain's node was deleted, or replaced under its name."""
        what = "another machine has its name now" if node else "it was deleted"
        message = f"Node {drain.spec.node_name} is gone ({what}): this drain ends"
        self._both(drain, node, Kind.WARNING, "NodeGone", message)

    def maintenance_refused(self, node: Node) -> None:
        """The annotation's value makes no sense."""
        message = (
            'The annotation rescheduler.dev/maintenance has the value "false", which is refused: '
            "its presence asks for maintenance. To end maintenance, remove it: "
            f"kubectl annotate node {node.name} rescheduler.dev/maintenance-"
        )
        self._recorder.emit(of_node(node), Kind.WARNING, "MaintenanceRefused", message)

    def changed(
        self,
        scene: Scene,
        before: NodeDrainStatus,
        after: NodeDrainStatus,
        pods: Mapping[str, str],
        owners: Mapping[str, Owner],
    ) -> None:
        """The status was written: what of it is news? `pods`: UIDs by namespace/name; `owners`: their controllers."""
        self._waiting(scene, before, after)
        if "TimedOut" in _reasons(after) - _reasons(before):
            self.timed_out(scene)
        if before.phase != after.phase:
            self._phase(scene, after)
        known = {(b.namespace, b.pod, b.class_) for b in before.blockers}
        for blocker in after.blockers:
            if (blocker.namespace, blocker.pod, blocker.class_) not in known:
                self._blocked(scene, blocker, pods, owners)

    def _blocked(self, scene: Scene, blocker: Blocker, pods: Mapping[str, str], owners: Mapping[str, Owner]) -> None:
        """On the pod, and once a drain and class on its owner: a hundred pods of one owner have one cause."""
        key, uid = f"{blocker.namespace}/{blocker.pod}", scene.drain.uid
        pod = Subject("v1", "Pod", blocker.pod, pods.get(key, ""), blocker.namespace)
        message = f"Cannot leave node {scene.drain.spec.node_name}: {blocker.message}. {blocker.hint}"
        self._recorder.emit(pod, Kind.WARNING, blocker.class_, message)
        owner = owners.get(key)
        version = _VERSIONS.get(owner.kind) if owner else None
        if owner and version and self._first(f"{uid}/{owner.uid}", blocker.class_):
            subject = Subject(version, owner.kind, owner.name, owner.uid, blocker.namespace)
            self._recorder.emit(subject, Kind.WARNING, blocker.class_, f"Pod {blocker.pod}: {message}")

    def _first(self, about: str, word: str) -> bool:
        """Whether this was not just said of it."""
        if self._noted.get(about) == word:
            return False
        if len(self._noted) >= _MOST_NOTES:
            self._noted.clear()
        self._noted[about] = word
        return True

    def _waiting(self, scene: Scene, before: NodeDrainStatus, after: NodeDrainStatus) -> None:
        def reason(status: NodeDrainStatus) -> tuple[str, str] | None:
            found = next((c for c in status.conditions if c.type == "Progressing" and c.status == "False"), None)
            return (found.reason, found.message) if found else None

        now = reason(after)
        if scene.held and now and now[0] != (reason(before) or ("",))[0]:
            self._both(scene.drain, scene.node, Kind.WARNING, now[0], f"The drain waits: {now[1]}")

    def _phase(self, scene: Scene, after: NodeDrainStatus) -> None:
        progress = after.progress or "0/0"
        match after.phase:
            case Phase.DRAINING:
                self._both(scene.drain, scene.node, Kind.NORMAL, "Draining", "Pods are being moved off the node")
            case Phase.DRAINED:
                if scene.begun:
                    self._metrics.drain_seconds.observe((scene.now - scene.begun).total_seconds())
                message = f"Drained: {progress} pods have left"
                self._both(scene.drain, scene.node, Kind.NORMAL, "Drained", message)
            case Phase.BLOCKED:
                blocked = next((c.message for c in after.conditions if c.type == "Blocked"), "")
                message = f"Nothing moves ({progress} pods have left): {blocked}"
                self._both(scene.drain, scene.node, Kind.WARNING, "Blocked", message)
            case _:
                return
