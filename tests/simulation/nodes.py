"""The parts of kube-controller-manager for silent nodes, and for their pods and volumes."""

import asyncio
from typing import Any

from invariants.objects import (
    claims,
    condition,
    deleting,
    finished,
    has_taint,
    is_ready,
    name,
    node_of,
    set_condition,
    uid,
)
from rescheduler.core.model.raw import RawObject
from simulation.controllers import Controller

GRACE = 50.0  # --node-monitor-grace-period
_TOLERATED = 300.0  # tolerationSeconds of every pod
_FORCED = 360.0  # seconds until an unused volume is detached from a node that is not Ready
_KEYS = {"False": "node.kubernetes.io/not-ready", "Unknown": "node.kubernetes.io/unreachable"}
_CORDONED, OUT_OF_SERVICE = "node.kubernetes.io/unschedulable", "node.kubernetes.io/out-of-service"


class NodeLifecycle(Controller):
    """Set nodes with a silent Lease to Unknown, by its own clock, with their taints; mark their pods as not Ready."""

    kinds = ("nodes",)
    period = 5.0

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._renewals: dict[str, tuple[str, float]] = {}
        self._last, self._was = 0.0, dict[str, str]()

    def reconcile(self) -> None:
        now = self.server.now().timestamp()
        if now - self._last > 4 * (self.period or 0):
            self._renewals.clear()  # after an outage every node has the whole grace period again
        self._last = now
        for node in self.server.all("nodes"):
            self._one(node, now)

    def _one(self, node: RawObject, now: float) -> None:
        lease = self.server.find("leases", name(node), "kube-node-lease")
        renewal = lease["spec"]["renewTime"] if lease else ""
        known = self._renewals.get(name(node))
        if known is None or known[0] != renewal:
            known = self._renewals[name(node)] = (renewal, now)
        if now - known[1] >= GRACE:
            self.server.edit("nodes", node, self._silent)
        status = self._status(node)
        if status != "True" and self._was.get(name(node), "True") == "True":
            asyncio.get_running_loop().call_later(self.chance.choice((0, 0.3, 4)), self._mark_pods, node)
        self._was[name(node)] = status
        self.server.edit("nodes", node, self._taint)

    def _mark_pods(self, node: RawObject) -> None:
        if self.server.away or self._status(node) == "True":
            return
        for pod in self.server.all("pods"):
            if node_of(pod) == name(node) and is_ready(pod):
                self.server.edit("pods", pod, self._not_ready)

    def _status(self, node: RawObject) -> str:
        fresh = self.server.find("nodes", name(node)) or node
        return str(condition(fresh, "Ready").get("status", "Unknown"))

    def _silent(self, raw: dict[str, Any]) -> None:
        set_condition(raw, "Ready", "Unknown", "NodeStatusUnknown", self.server.now())

    def _not_ready(self, raw: dict[str, Any]) -> None:
        set_condition(raw, "Ready", "False", "NodeNotReady", self.server.now())

    def _taint(self, raw: RawObject) -> None:
        ours = {*_KEYS.values(), _CORDONED}
        status = condition(raw, "Ready").get("status", "Unknown")
        wanted = [(_CORDONED, "NoSchedule")] if raw["spec"].get("unschedulable") else []
        if key := _KEYS.get(status):
            wanted += [(key, "NoSchedule"), (key, "NoExecute")]
        have = {(t["key"], t["effect"]): t for t in raw["spec"].get("taints") or ()}
        kept = [taint for taint in have.values() if taint["key"] not in ours]
        taints = kept + [have.get(each, {"key": each[0], "effect": each[1]}) for each in wanted]
        if taints:
            raw["spec"]["taints"] = taints
        else:
            raw["spec"].pop("taints", None)


class TaintEviction(Controller):
    """Delete pods of nodes that are not Ready for five minutes, without budgets; pause while no node is Ready."""

    kinds = ("nodes",)
    period = 5.0

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._since: dict[str, float] = {}

    def reconcile(self) -> None:
        now, nodes = self.server.now().timestamp(), self.server.all("nodes")
        tainted = {name(n) for n in nodes if any(has_taint(n, key) for key in _KEYS.values())}
        if len(tainted) == len(nodes):
            tainted = set()
        self._since = {node: self._since.get(node, now) for node in tainted}
        for pod in self.server.all("pods"):
            tolerates = any("key" not in t for t in pod["spec"].get("tolerations") or ())
            if now - self._since.get(node_of(pod), now) >= _TOLERATED and not tolerates and not deleting(pod):
                self.server.remove("pods", pod)


class PodGarbage(Controller):
    """Remove Terminating pods from nodes that are out of service and not Ready."""

    period = 20.0

    def reconcile(self) -> None:
        dead = {name(n) for n in self.server.all("nodes") if has_taint(n, OUT_OF_SERVICE) and not is_ready(n)}
        for pod in self.server.all("pods"):
            if node_of(pod) in dead and deleting(pod):
                self.server.remove("pods", pod, grace=0)


class Attachments(Controller):
    """Attach volumes to the nodes of their pods, one node at a time, and detach them when that is safe or declared
    safe.
    """

    kinds = ("pods", "nodes")
    period = 10.0

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._unused: dict[str, float] = {}

    def reconcile(self) -> None:
        wanted = {
            (f"pv-{claim}", node_of(pod))
            for pod in self.server.all("pods")
            if node_of(pod) and not finished(pod)
            for claim in claims(pod)
        }
        attached = {a["spec"]["source"]["persistentVolumeName"]: a for a in self.server.all("volumeattachments")}
        now = self.server.now().timestamp()
        for volume, attachment in attached.items():
            if (volume, attachment["spec"]["nodeName"]) in wanted:
                self._unused.pop(uid(attachment), None)
            elif self._safe(attachment, now):
                self.server.remove("volumeattachments", attachment)
        for volume, node in sorted(wanted):
            if volume not in attached:
                spec = {"nodeName": node, "attacher": "csi", "source": {"persistentVolumeName": volume}}
                self.server.make("volumeattachments", {"metadata": {"name": f"va-{volume}"}, "spec": spec})
                attached[volume] = {}

    def _safe(self, attachment: RawObject, now: float) -> bool:
        node = self.server.find("nodes", attachment["spec"]["nodeName"])
        since = self._unused.setdefault(uid(attachment), now)
        return node is None or is_ready(node) or has_taint(node, OUT_OF_SERVICE) or now - since >= _FORCED


NODES = (NodeLifecycle, TaintEviction, PodGarbage, Attachments)
