"""Events of a drain's life: on its node and its NodeDrain, and on the owners of pods where somebody must act.

A pod that leaves without trouble gets none.
"""

import asyncio
from collections.abc import Mapping

from rescheduler.api import GROUP, VERSION
from rescheduler.api.drains import NodeDrain, NodeDrainStatus, Phase
from rescheduler.api.policies import OnTimeout
from rescheduler.api.scalars import format_duration
from rescheduler.core.facts import Node
from rescheduler.core.pods import Owner
from rescheduler.core.reports import Scene
from rescheduler.core.tallies import Tally
from rescheduler.engine.metrics import Metrics
from rescheduler.kube.recorder import Kind, Recorder, Subject

_MOST_NOTES = 1000  # remembered; above that a word may be said twice
_VERSIONS = {"ReplicaSet": "apps/v1", "StatefulSet": "apps/v1", "DaemonSet": "apps/v1", "Job": "batch/v1"}


def of_node(node: Node) -> Subject:
    """A Node as the subject of an Event."""
    return Subject("v1", "Node", node.name, node.uid)


def of_drain(drain: NodeDrain) -> Subject:
    """A NodeDrain as the subject of an Event."""
    return Subject(f"{GROUP}/{VERSION}", "NodeDrain", drain.name, drain.uid)


def _reasons(status: NodeDrainStatus) -> set[str]:
    return {c.reason for c in status.conditions if c.type == "Progressing"}


class Announcer:
    """Says what changed, once."""

    def __init__(self, recorder: Recorder, metrics: Metrics) -> None:
        self._recorder, self._metrics = recorder, metrics
        self._noted: dict[str, str] = {}  # by what it is about; a pod with nonsense on it leaves soon

    async def _both(self, drain: NodeDrain, node: Node | None, kind: Kind, reason: str, message: str) -> None:
        subjects = [of_drain(drain), *([of_node(node)] if node else [])]
        await asyncio.gather(*(self._recorder.emit(subject, kind, reason, message) for subject in subjects))

    async def cordoned(self, scene: Scene) -> None:
        """The node was cordoned."""
        if scene.recordoned:
            message = (
                "Somebody uncordoned the node while it is drained: cordoned again, once. Withdraw the request to stop"
            )
            await self._both(scene.drain, scene.node, Kind.WARNING, "CordonedAgain", message)
            return
        why = "; ".join(f"{r.reason}: {r.message}" if r.message else str(r.reason) for r in scene.drain.spec.requests)
        await self._both(scene.drain, scene.node, Kind.NORMAL, "Cordoned", f"Cordoned to be drained ({why})")

    async def restored(self, drain: NodeDrain, node: Node) -> None:
        """The node is as it was."""
        record = drain.status.node
        kept = " (it stays cordoned: somebody else had done that)" if node.unschedulable and record else ""
        message = f"Nothing of Rescheduler's is left on the node{kept}"
        await self._both(drain, node, Kind.NORMAL, "Restored", message)

    async def stepped_back(self, scene: Scene) -> None:
        """The node was given free for another drain."""
        why = scene.held.message if scene.held else ""
        await self._both(scene.drain, scene.node, Kind.WARNING, "SteppedBack", f"Uncordoned again: {why}")

    async def notes(self, tally: Tally) -> None:
        """Words for the owners of pods, each once."""
        for pod, note in tally.notes:
            if self._noted.get(pod.uid) != note:
                if len(self._noted) >= _MOST_NOTES:
                    self._noted.clear()
                self._noted[pod.uid] = note
                subject = Subject("v1", "Pod", pod.name, pod.uid, pod.namespace)
                await self._recorder.emit(subject, Kind.WARNING, "AnnotationIgnored", note)

    async def hanging(self, scene: Scene) -> None:
        """Volumes are not detached though their pods have left: said once, for whoever looks after the storage."""
        hanging = scene.tally.hanging if scene.tally else frozenset()
        for volume in sorted(hanging):
            key = f"{scene.drain.uid}/{volume}"
            if key not in self._noted:
                self._noted[key] = volume
                message = (
                    f"PersistentVolume {volume} is still attached to the node though no pod here uses it: not waited for "
                    "any more. Look at its VolumeAttachment and at the CSI driver"
                )
                await self._both(scene.drain, scene.node, Kind.WARNING, "VolumeStuck", message)

    async def timed_out(self, scene: Scene) -> None:
        """The drain's time is up."""
        late = format_duration(scene.settings.timeout)
        does = {
            OnTimeout.HOLD: "pods are tried on",
            OnTimeout.DELETE: "pods are deleted past their budgets",
            OnTimeout.CANCEL: "the drain is cancelled, and the node put back as it was",
        }[scene.settings.on_timeout]
        await self._both(scene.drain, scene.node, Kind.WARNING, "TimedOut", f"The timeout of {late} has passed: {does}")

    async def node_gone(self, drain: NodeDrain, node: Node | None) -> None:
        """The drain's node was deleted, or replaced under its name."""
        what = "another machine has its name now" if node else "it was deleted"
        message = f"Node {drain.spec.node_name} is gone ({what}): this drain ends"
        await self._both(drain, node, Kind.WARNING, "NodeGone", message)

    async def maintenance_refused(self, node: Node) -> None:
        """The annotation's value makes no sense."""
        message = (
            'The annotation rescheduler.dev/maintenance has the value "false", which is refused: '
            "its presence asks for maintenance. To end maintenance, remove it: "
            f"kubectl annotate node {node.name} rescheduler.dev/maintenance-"
        )
        await self._recorder.emit(of_node(node), Kind.WARNING, "MaintenanceRefused", message)

    async def changed(
        self,
        scene: Scene,
        before: NodeDrainStatus,
        after: NodeDrainStatus,
        pods: Mapping[str, str],
        owners: Mapping[str, Owner],
    ) -> None:
        """The status was written: what of it is news? `pods`: UIDs by namespace/name; `owners`: their controllers."""
        await self._waiting(scene, before, after)
        if "TimedOut" in _reasons(after) - _reasons(before):
            await self.timed_out(scene)
        if before.phase != after.phase:
            await self._phase(scene, after)
        known = {(b.namespace, b.pod, b.class_) for b in before.blockers}
        for blocker in after.blockers:
            if (blocker.namespace, blocker.pod, blocker.class_) not in known:
                uid = pods.get(f"{blocker.namespace}/{blocker.pod}", "")
                pod = Subject("v1", "Pod", blocker.pod, uid, blocker.namespace)
                message = f"Cannot leave node {scene.drain.spec.node_name}: {blocker.message}. {blocker.hint}"
                await self._recorder.emit(pod, Kind.WARNING, blocker.class_, message)
                owner = owners.get(f"{blocker.namespace}/{blocker.pod}")
                if owner and (version := _VERSIONS.get(owner.kind)):
                    subject = Subject(version, owner.kind, owner.name, owner.uid, blocker.namespace)
                    await self._recorder.emit(subject, Kind.WARNING, blocker.class_, f"Pod {blocker.pod}: {message}")

    async def _waiting(self, scene: Scene, before: NodeDrainStatus, after: NodeDrainStatus) -> None:
        def reason(status: NodeDrainStatus) -> tuple[str, str] | None:
            found = next((c for c in status.conditions if c.type == "Progressing" and c.status == "False"), None)
            return (found.reason, found.message) if found else None

        now = reason(after)
        if scene.held and now and now[0] != (reason(before) or ("",))[0]:
            await self._both(scene.drain, scene.node, Kind.WARNING, now[0], f"The drain waits: {now[1]}")

    async def _phase(self, scene: Scene, after: NodeDrainStatus) -> None:
        progress = after.progress or "0/0"
        match after.phase:
            case Phase.DRAINING:
                await self._both(scene.drain, scene.node, Kind.NORMAL, "Draining", "Pods are being moved off the node")
            case Phase.DRAINED:
                if scene.begun:
                    self._metrics.drain_seconds.observe((scene.now - scene.begun).total_seconds())
                message = f"Drained: {progress} pods have left"
                await self._both(scene.drain, scene.node, Kind.NORMAL, "Drained", message)
            case Phase.BLOCKED:
                blocked = next((c.message for c in after.conditions if c.type == "Blocked"), "")
                message = f"Nothing moves ({progress} pods have left): {blocked}"
                await self._both(scene.drain, scene.node, Kind.WARNING, "Blocked", message)
            case _:
                return
