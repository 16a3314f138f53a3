"""The parts of kube-controller-manager for workloads and budgets that moving pods depends on."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from math import ceil
from typing import Any

from invariants.objects import (
    HASH,
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
    set_condition,
    uid,
)
from rescheduler.core.model.raw import RawObject
from simulation.server import Server

_COST = "controller.kubernetes.io/pod-deletion-cost"
VERSION, BROKEN = "example.com/version", "example.com/broken"
"""Annotations of a template: its version, and whether its pods never become Ready."""
_REVISION = "deployment.kubernetes.io/revision"
_CONFIRMED = 120.0
"""Seconds after which a budget forgets an eviction without a deletion."""


class Controller:
    """Reconcile all objects of the controller's kinds soon after a change, and from time to time."""

    kinds: tuple[str, ...] = ()
    period: float | None = None
    delay = (0.01, 0.15)

    def __init__(self, server: Server, chance: random.Random) -> None:
        self.server, self.chance = server, chance
        self._wake = asyncio.Event()
        for kind in self.kinds:
            server.listeners.setdefault(kind, []).append(lambda _: self._wake.set())

    async def run(self) -> None:
        """Run until cancelled; while the server is away, nothing happens."""
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


def reference(kind: str, raw: RawObject) -> RawObject:
    """Return an ownerReference to a controller."""
    return {"apiVersion": "apps/v1", "kind": kind, "name": name(raw), "uid": uid(raw), "controller": True}


def _pod(owner: RawObject, kind: str, pod_name: str, more: RawObject) -> dict[str, Any]:
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
    """Roll from one ReplicaSet to the next: a quarter more pods than wanted, a quarter fewer Ready ones."""

    kinds = ("deployments", "replicasets", "pods")

    def reconcile(self) -> None:
        ready: dict[str, int] = {}
        for pod in self.server.all("pods"):
            if is_ready(pod) and not deleting(pod) and (owner := controller(pod).get("uid")):
                ready[owner] = ready.get(owner, 0) + 1
        for raw in self.server.all("deployments"):
            self._one(raw, raw["metadata"]["generation"], ready)

    def _one(self, raw: RawObject, generation: int, ready: Mapping[str, int]) -> None:
        mine = [rs for rs in self.server.all("replicasets") if controller(rs).get("uid") == uid(raw)]
        last = max((int(annotations(rs)[_REVISION]) for rs in mine), default=0)
        current = next((rs for rs in mine if _version(rs) == _version(raw)), None)
        if current is None:
            current = self.server.make(
                "replicasets", _replica_set(raw, last + 1, 0 if mine else raw["spec"]["replicas"])
            )
        elif int(annotations(current)[_REVISION]) < last:
            number = {_REVISION: str(last + 1)}
            self.server.edit("replicasets", current, lambda r: r["metadata"]["annotations"].update(number))
        fresh = self.server.find("replicasets", name(current), raw["metadata"]["namespace"]) or current
        self._roll(raw["spec"]["replicas"], fresh, [rs for rs in mine if uid(rs) != uid(fresh)], ready)
        revision = annotations(fresh)[_REVISION]

        def seen(now: dict[str, Any]) -> None:
            now["metadata"].setdefault("annotations", {})[_REVISION] = revision
            now["status"] = {"observedGeneration": generation}

        if annotations(raw).get(_REVISION) != revision or raw.get("status") != {"observedGeneration": generation}:
            self.server.edit("deployments", raw, seen)

    def _roll(self, wanted: int, new: RawObject, old: list[RawObject], ready: Mapping[str, int]) -> None:
        def count(rs: RawObject) -> int:
            return int(rs["spec"]["replicas"])

        old = [rs for rs in old if count(rs)]
        total = sum(map(count, (new, *old)))
        if not old or count(new) >= wanted:
            self._scale(new, wanted)
        elif (more := min(wanted - count(new), wanted + ceil(wanted / 4) - total)) > 0:
            self._scale(new, count(new) + more)
            return
        fewest = wanted - wanted // 4
        spare = total - fewest - (count(new) - ready.get(uid(new), 0))
        for rs in old:  # ReplicaSets whose pods are not Ready first
            down = max(0, min(count(rs) - ready.get(uid(rs), 0), spare))
            spare -= down
            serving = sum(ready.get(uid(each), 0) for each in (new, *old))
            down += max(0, min(count(rs) - down, spare, serving - fewest)) if not down else 0
            if down:
                self._scale(rs, count(rs) - down)
                return

    def _scale(self, rs: RawObject, replicas: int) -> None:
        if rs["spec"]["replicas"] != replicas:
            self.server.edit("replicasets", rs, lambda r: r["spec"].update(replicas=replicas))


def _version(owner: RawObject) -> str:
    """Return the hash that distinguishes the templates of a Deployment."""
    return str(annotations(owner["spec"]["template"]).get(VERSION, ""))


def _replica_set(deployment: RawObject, number: int, replicas: int) -> RawObject:
    meta, spec = deployment["metadata"], deployment["spec"]
    hashed = {HASH: f"{meta['name']}{number}"}
    template, wanted = spec["template"], spec["selector"]["matchLabels"] | hashed
    template = {**template, "metadata": {**template["metadata"], "labels": template["metadata"]["labels"] | hashed}}
    return {
        "metadata": {
            "name": f"{meta['name']}-rs{number if number > 1 else ''}",
            "namespace": meta["namespace"],
            "labels": wanted,
            "annotations": {_REVISION: str(number)},
            "ownerReferences": [reference("Deployment", deployment)],
        },
        "spec": {"replicas": replicas, "selector": {"matchLabels": wanted}, "template": template},
    }


class ReplicaSets(Controller):
    """Adopt pods that match and have no controller, orphan pods that do not match, and keep the count."""

    kinds = ("replicasets", "pods")
    period = 15.0
    _made = 0

    def reconcile(self) -> None:
        for rs in self.server.all("replicasets"):
            self._one(rs, rs["spec"]["replicas"])

    def _one(self, rs: RawObject, wanted: int) -> None:
        mine, claims = [], not deleting(rs)
        for pod in self.server.all("pods", rs["metadata"]["namespace"]):
            owner = controller(pod).get("uid")
            # Pods of another controller are never touched, whatever their labels. Pods that end or have ended do not
            # count.
            if owner not in (None, uid(rs)) or deleting(pod) or finished(pod):
                continue
            fits = selects(rs["spec"]["selector"], labels(pod))
            if owner and fits:
                mine.append(pod)
            elif owner and claims and not self.server.edit("pods", pod, _orphan):
                return  # refused: nothing more happens until the next reconcile
            elif not owner and fits and claims:
                found = self.server.edit("pods", pod, lambda r: _adopt(r, reference("ReplicaSet", rs)))
                if found is None:
                    return
                mine.append(found)
        if not claims:
            return
        for pod in sorted(mine, key=self._worth)[: max(0, len(mine) - wanted)]:
            self.server.remove("pods", pod)
        for _ in range(wanted - len(mine)):
            self._made += 1
            self.server.make("pods", _pod(rs, "ReplicaSet", f"{name(rs)}-{self._made}", {}))

    @staticmethod
    def _worth(pod: RawObject) -> tuple[bool, bool, int, float]:
        """Return the sort key for deletion, lowest first: not bound, not Ready, low deletion cost, young."""
        born = seconds(pod["metadata"]["creationTimestamp"]) or 0
        return bool(node_of(pod)), is_ready(pod), int(annotations(pod).get(_COST, 0)), -born


def _adopt(pod: RawObject, owner: RawObject) -> None:
    meta = pod["metadata"]
    meta["ownerReferences"] = [*(meta.get("ownerReferences") or ()), owner]


def _orphan(pod: RawObject) -> None:
    meta = pod["metadata"]
    kept = [o for o in meta["ownerReferences"] if not o.get("controller")]
    meta["ownerReferences"] = kept
    if not kept:
        del meta["ownerReferences"]


def claim_volume(server: Server, claim: str, space: str) -> RawObject:
    """Return the volume of a claim that only one node can have; create claim and volume if they do not exist."""
    if server.find("persistentvolumeclaims", claim, space) is None:
        server.make("persistentvolumes", {"metadata": {"name": f"pv-{claim}"}, "spec": {}})
        spec = {"accessModes": ["ReadWriteOnce"], "volumeName": f"pv-{claim}"}
        server.make("persistentvolumeclaims", {"metadata": {"name": claim, "namespace": space}, "spec": spec})
    return {"name": "data", "persistentVolumeClaim": {"claimName": claim}}


class StatefulSets(Controller):
    """Keep one pod for each ordinal under a fixed name, and never two at once."""

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
    """Keep one pod on each node, whatever its taints, except while one is Terminating there.

    It adopts pods that match and have no controller. Of several pods on one node it keeps the oldest.
    """

    kinds = ("daemonsets", "pods", "nodes")

    def reconcile(self) -> None:
        for raw in self.server.all("daemonsets"):
            space, here = raw["metadata"]["namespace"], dict[str, list[RawObject]]()
            for pod in self._claimed(raw, space):
                here.setdefault(node_of(pod), []).append(pod)
            for node in self.server.all("nodes"):
                there = here.get(name(node), [])
                alive = sorted((p for p in there if not deleting(p)), key=_born)
                for surplus in alive[1:]:
                    self.server.remove("pods", surplus)
                if not there:
                    made = _pod(raw, "DaemonSet", f"{name(raw)}-{name(node)}", {})
                    made["spec"] |= {"nodeName": name(node), "tolerations": [{"operator": "Exists"}]}
                    if self.server.find("pods", name(made), space) is None:
                        self.server.make("pods", made)

    def _claimed(self, raw: RawObject, space: str) -> Iterator[RawObject]:
        for pod in self.server.all("pods", space):
            owner = controller(pod)
            if owner.get("uid") == uid(raw):
                yield pod
            if owner or deleting(pod) or not selects(raw["spec"]["selector"], labels(pod)):
                continue
            if found := self.server.edit("pods", pod, lambda r: _adopt(r, reference("DaemonSet", raw))):
                yield found


def _born(pod: RawObject) -> tuple[str, str]:
    return pod["metadata"]["creationTimestamp"], name(pod)


class Garbage(Controller):
    """The garbage collector: delete an object if all its owners are gone."""

    kinds = ("pods", "replicasets", "deployments", "statefulsets", "daemonsets")
    delay = (0.1, 1.0)

    def reconcile(self) -> None:
        there = {uid(raw) for kind in _OWNERS.values() for raw in self.server.all(kind)}
        for kind in ("replicasets", "pods"):
            for raw in self.server.all(kind):
                owners = raw["metadata"].get("ownerReferences") or ()
                known = all(owner["kind"] in _OWNERS for owner in owners)
                if owners and known and not deleting(raw) and not any(owner["uid"] in there for owner in owners):
                    self.server.remove(kind, raw)


_OWNERS = {
    "Deployment": "deployments",
    "ReplicaSet": "replicasets",
    "StatefulSet": "statefulsets",
    "DaemonSet": "daemonsets",
    "Pod": "pods",
}


class NoScaleError(Exception):
    """The controller of a pod has no known scale: the budget is not synced."""


class Budgets(Controller):
    """The disruption controller: `pkg/controller/disruption/disruption.go`."""

    kinds = ("poddisruptionbudgets", "pods", "deployments", "statefulsets", "replicasets")
    period = 30.0

    def reconcile(self) -> None:
        for raw in self.server.all("poddisruptionbudgets"):
            space = raw["metadata"]["namespace"]
            pods = [p for p in self.server.all("pods", space) if selects(raw["spec"]["selector"], labels(p))]
            self.server.edit("poddisruptionbudgets", raw, partial(self._update, pods=pods))

    def _update(self, raw: dict[str, Any], pods: list[RawObject]) -> None:
        status, now = raw.setdefault("status", {}), self.server.now().timestamp()
        by_name = {name(p): p for p in pods}
        disrupted = {
            key: since
            for key, since in (status.get("disruptedPods") or {}).items()
            if key in by_name and not deleting(by_name[key]) and now - (seconds(since) or 0) < _CONFIRMED
        }
        healthy = sum(is_ready(p) and not deleting(p) and name(p) not in disrupted for p in pods)
        try:
            expected, needed = self._numbers(raw["spec"], pods)
        except NoScaleError as error:
            status["disruptionsAllowed"] = 0
            set_condition(raw, "DisruptionAllowed", "False", "SyncFailed", self.server.now())
            next(c for c in status["conditions"] if c["type"] == "DisruptionAllowed")["message"] = str(error)
            return
        allowed = max(0, healthy - needed) if expected > 0 else 0
        raw["status"] = {
            "observedGeneration": raw["metadata"]["generation"],
            "disruptedPods": disrupted,
            "currentHealthy": healthy,
            "desiredHealthy": needed,
            "expectedPods": expected,
            "disruptionsAllowed": allowed,
        }

    def _numbers(self, spec: RawObject, pods: list[RawObject]) -> tuple[int, int]:
        """Return the expected pods, and how many of them must be healthy. Raises NoScaleError."""
        least, most = spec.get("minAvailable"), spec.get("maxUnavailable")
        if isinstance(least, int):
            return len(pods), least
        expected = sum(dict(self._scale(p) for p in pods if controller(p)).values())
        if least is not None:
            return expected, ceil(int(least.rstrip("%")) * expected / 100)
        count = most if isinstance(most, int) else ceil(int(str(most).rstrip("%")) * expected / 100)
        return expected, max(0, expected - count)

    def _scale(self, pod: RawObject) -> tuple[str, int]:
        """Return the uid of the object that scales the pod's controller, so that it counts once, and its replicas."""
        owner, space = controller(pod), pod["metadata"]["namespace"]
        found = None
        if owner["kind"] in ("ReplicaSet", "StatefulSet", "Deployment"):
            found = self.server.find(_OWNERS[owner["kind"]], owner["name"], space)
        if found and uid(found) == owner["uid"]:
            above = controller(found)
            if owner["kind"] != "ReplicaSet" or above.get("kind") != "Deployment":
                return uid(found), found["spec"]["replicas"]
            found = self.server.find("deployments", above["name"], space)
            if found and uid(found) == above["uid"]:
                return uid(found), found["spec"]["replicas"]
        raise NoScaleError(f"found no controllers for pod {name(pod)!r}")


WORKLOADS: tuple[Callable[[Server, random.Random], Controller], ...] = (
    Deployments,
    ReplicaSets,
    StatefulSets,
    DaemonSets,
    Garbage,
    Budgets,
)
