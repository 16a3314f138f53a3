"""What kube-controller-manager does with workloads and budgets, as far as moving pods depends on it."""

import asyncio
import contextlib
import random
from collections.abc import Callable
from math import ceil

from invariants.objects import (
    HASH,
    Json,
    annotations,
    controller,
    deleting,
    finished,
    is_ready,
    labels,
    name,
    node_of,
    seconds,
    selects,
    uid,
)
from simulation.server import Server

_COST = "controller.kubernetes.io/pod-deletion-cost"
_REVISION = "deployment.kubernetes.io/revision"
_CONFIRMED = 120.0
"""Seconds after which an eviction that never came to a deletion is forgotten by its budget."""


class Controller:
    """Looks at everything of its kinds soon after something of them changed, and from time to time."""

    kinds: tuple[str, ...] = ()
    period: float | None = None
    delay = (0.01, 0.15)

    def __init__(self, server: Server, chance: random.Random) -> None:
        self.server, self.chance = server, chance
        self._wake = asyncio.Event()
        for kind in self.kinds:
            server.listeners.setdefault(kind, []).append(lambda _: self._wake.set())

    async def run(self) -> None:
        """Until cancelled; while the server is away nothing can be done."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.period):
                    await self._wake.wait()
            await asyncio.sleep(self.chance.uniform(*self.delay))
            self._wake.clear()
            if self.server.away:
                await asyncio.sleep(1)
                self._wake.set()
            else:
                self.reconcile()

    def reconcile(self) -> None:
        raise NotImplementedError


def reference(kind: str, raw: Json) -> Json:
    """An ownerReference to a controller."""
    return {"apiVersion": "apps/v1", "kind": kind, "name": name(raw), "uid": uid(raw), "controller": True}


def _pod(owner: Json, kind: str, pod_name: str, more: Json) -> Json:
    template, space = owner["spec"]["template"], owner["metadata"]["namespace"]
    meta = {
        "name": pod_name,
        "namespace": space,
        "labels": {**template["metadata"]["labels"], **more},
        "annotations": dict(template["metadata"].get("annotations") or {}),
        "ownerReferences": [reference(kind, owner)],
    }
    return {"metadata": meta, "spec": dict(template["spec"]), "status": {"phase": "Pending", "conditions": []}}


class Deployments(Controller):
    """Makes the one ReplicaSet and hands it the number of replicas: no rollouts here."""

    kinds = ("deployments",)

    def reconcile(self) -> None:
        for raw in self.server.all("deployments"):
            self._one(raw, raw["spec"]["replicas"], raw["metadata"]["generation"])

    def _one(self, raw: Json, replicas: int, generation: int) -> None:
        mine = [rs for rs in self.server.all("replicasets") if controller(rs).get("uid") == uid(raw)]
        if not mine:
            mine = [self.server.make("replicasets", _replica_set(raw))]
        self.server.edit("replicasets", mine[0], lambda r: r["spec"].update(replicas=replicas))

        def seen(now: Json) -> None:
            now["metadata"].setdefault("annotations", {})[_REVISION] = "1"
            now["status"] = {"observedGeneration": generation}

        self.server.edit("deployments", raw, seen)


def _replica_set(deployment: Json) -> Json:
    meta, spec = deployment["metadata"], deployment["spec"]
    hashed = {HASH: f"{meta['name']}1"}
    template, wanted = spec["template"], spec["selector"]["matchLabels"] | hashed
    template = {**template, "metadata": {**template["metadata"], "labels": template["metadata"]["labels"] | hashed}}
    return {
        "metadata": {
            "name": f"{meta['name']}-rs",
            "namespace": meta["namespace"],
            "labels": wanted,
            "annotations": {_REVISION: "1"},
            "ownerReferences": [reference("Deployment", deployment)],
        },
        "spec": {"replicas": spec["replicas"], "selector": {"matchLabels": wanted}, "template": template},
    }


class ReplicaSets(Controller):
    """Adopts what its selector matches, lets go of what it does not, and keeps the number."""

    kinds = ("replicasets", "pods")
    _made = 0

    def reconcile(self) -> None:
        for rs in self.server.all("replicasets"):
            self._one(rs, rs["spec"]["replicas"])

    def _one(self, rs: Json, wanted: int) -> None:
        mine = []
        for pod in self.server.all("pods", rs["metadata"]["namespace"]):
            fits, owner = selects(rs["spec"]["selector"], labels(pod)), controller(pod)
            if owner.get("uid") == uid(rs) and not fits:
                self.server.edit("pods", pod, lambda r: r["metadata"].pop("ownerReferences"))
            elif fits and not owner and not deleting(pod):
                self.server.edit(
                    "pods", pod, lambda r: r["metadata"].update(ownerReferences=[reference("ReplicaSet", rs)])
                )
                mine.append(pod)
            elif owner.get("uid") == uid(rs):
                mine.append(pod)
        active = [pod for pod in mine if not deleting(pod) and not finished(pod)]
        for pod in sorted(active, key=self._worth)[: max(0, len(active) - wanted)]:
            self.server.remove("pods", pod)
        for _ in range(wanted - len(active)):
            self._made += 1
            self.server.make("pods", _pod(rs, "ReplicaSet", f"{name(rs)}-{self._made}", {}))

    @staticmethod
    def _worth(pod: Json) -> tuple[bool, bool, int, float]:
        """The least is deleted first: not bound, not Ready, low cost, young."""
        born = seconds(pod["metadata"]["creationTimestamp"]) or 0
        return bool(node_of(pod)), is_ready(pod), int(annotations(pod).get(_COST, 0)), -born


def claim_volume(server: Server, claim: str, space: str) -> Json:
    """A pod's volume by a claim that one node alone can have; claim and volume are made where they are not there."""
    if server.find("persistentvolumeclaims", claim, space) is None:
        server.make("persistentvolumes", {"metadata": {"name": f"pv-{claim}"}, "spec": {}})
        spec = {"accessModes": ["ReadWriteOnce"], "volumeName": f"pv-{claim}"}
        server.make("persistentvolumeclaims", {"metadata": {"name": claim, "namespace": space}, "spec": spec})
    return {"name": "data", "persistentVolumeClaim": {"claimName": claim}}


class StatefulSets(Controller):
    """One pod for each number, under the same name for ever, and never two at once."""

    kinds = ("statefulsets", "pods")

    def reconcile(self) -> None:
        for raw in self.server.all("statefulsets"):
            space, count = raw["metadata"]["namespace"], raw["spec"]["replicas"]
            for number in range(count):
                pod = f"{name(raw)}-{number}"
                if self.server.find("pods", pod, space) is None:
                    made = _pod(raw, "StatefulSet", pod, {"statefulset.kubernetes.io/pod-name": pod})
                    if raw["spec"].get("volumeClaimTemplates"):
                        made["spec"]["volumes"] = [claim_volume(self.server, f"data-{pod}", space)]
                    self.server.make("pods", made)


class DaemonSets(Controller):
    """One pod on each node, whatever its taints, except while one is ending there."""

    kinds = ("daemonsets", "pods", "nodes")

    def reconcile(self) -> None:
        for raw in self.server.all("daemonsets"):
            space = raw["metadata"]["namespace"]
            there = {node_of(p) for p in self.server.all("pods", space) if controller(p).get("uid") == uid(raw)}
            for node in self.server.all("nodes"):
                if name(node) not in there:
                    made = _pod(raw, "DaemonSet", f"{name(raw)}-{name(node)}", {})
                    made["spec"] |= {"nodeName": name(node), "tolerations": [{"operator": "Exists"}]}
                    self.server.make("pods", made)


class Budgets(Controller):
    """The disruption controller."""

    kinds = ("poddisruptionbudgets", "pods", "deployments", "statefulsets", "replicasets")
    period = 30.0

    def reconcile(self) -> None:
        for raw in self.server.all("poddisruptionbudgets"):
            space = raw["metadata"]["namespace"]
            pods = [p for p in self.server.all("pods", space) if selects(raw["spec"]["selector"], labels(p))]
            self.server.edit("poddisruptionbudgets", raw, lambda r, pods=pods: self._update(r, pods))

    def _update(self, raw: Json, pods: list[Json]) -> None:
        status, now = raw.setdefault("status", {}), self.server.now().timestamp()
        by_name = {name(p): p for p in pods}
        disrupted = {
            key: since
            for key, since in (status.get("disruptedPods") or {}).items()
            if key in by_name and not deleting(by_name[key]) and now - (seconds(since) or 0) < _CONFIRMED
        }
        healthy = sum(is_ready(p) and not deleting(p) and name(p) not in disrupted for p in pods)
        expected, needed = self._numbers(raw["spec"], pods)
        allowed = max(0, healthy - needed) if expected > 0 else 0
        raw["status"] = {
            "observedGeneration": raw["metadata"]["generation"],
            "disruptedPods": disrupted,
            "currentHealthy": healthy,
            "desiredHealthy": needed,
            "expectedPods": expected,
            "disruptionsAllowed": allowed,
        }

    def _numbers(self, spec: Json, pods: list[Json]) -> tuple[int, int]:
        """Pods that should be there, and how many of them must be healthy."""
        least, most = spec.get("minAvailable"), spec.get("maxUnavailable")
        if isinstance(least, int):
            return len(pods), least
        expected = sum({owner: self._scale(owner) for p in pods if (owner := _owner(p))}.values())
        if least is not None:
            return expected, ceil(int(least.rstrip("%")) * expected / 100)
        count = most if isinstance(most, int) else ceil(int(str(most).rstrip("%")) * expected / 100)
        return expected, max(0, expected - count)

    def _scale(self, owner: tuple[str, str, str]) -> int:
        kind, space, called = owner
        found = self.server.find(f"{kind.lower()}s", called, space)
        above = controller(found) if found else {}
        if above.get("kind") == "Deployment":
            found = self.server.find("deployments", above["name"], space)
        return int(found["spec"]["replicas"]) if found else 0


def _owner(pod: Json) -> tuple[str, str, str] | None:
    found = controller(pod)
    return (found["kind"], pod["metadata"]["namespace"], found["name"]) if found else None


WORKLOADS: tuple[Callable[[Server, random.Random], Controller], ...] = (
    Deployments,
    ReplicaSets,
    StatefulSets,
    DaemonSets,
    Budgets,
)
