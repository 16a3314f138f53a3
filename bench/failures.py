"""Measure failed nodes: seconds until their pods run elsewhere, compared with Kubernetes, and false alarms."""

import json
import random
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from bench.common import OPERATOR, audit, say, session, spread, stamp
from harness import ControlPlane, workloads
from harness.observer import Observer
from harness.operators import Operator
from harness.waiting import until

PODS, EACH, APART = 30, 3, 15.0  # pods of a node, nodes of each way, seconds between two failures
_TUNED = 60  # seconds
_SHORT = ("default", "lease", "alone", "tuned")
_OFF: dict[str, Any] = {"maxUnhealthy": "100%", "maxConcurrent": "100%"}
_QUICK: dict[str, Any] = {"leaseTimeout": "20s", **_OFF}
WAYS: dict[str, dict[str, Any] | None] = {
    "default policy": _OFF,
    "leaseTimeout: 20s": _QUICK,
    "Kubernetes alone": None,
    "Kubernetes tuned to 60 s": None,
}


def _tolerations(way: str) -> dict[str, Any]:
    if "tuned" not in way:
        return {}
    keys = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
    common = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": _TUNED}
    return {"tolerations": [{"key": key, **common} for key in keys]}


def _group(
    plane: ControlPlane, observer: Observer, name: str, pods: int, spec: dict[str, Any] | None, **more: Any
) -> None:
    """Add a node that will fail with these pods, and a spare node; the policy selects both."""
    labels = {"bench": name}
    (dying,) = plane.add_nodes(1, prefix=f"{name}-dying", labels=labels, own_kwok=True)
    (spare,) = plane.add_nodes(1, prefix=f"{name}-spare", labels=labels)
    if spec is not None:
        plane.apply(workloads.policy(name, nodeSelector={"matchLabels": labels}, failure=spec))
    plane.kubectl("cordon", spare)
    plane.apply(workloads.namespace(name), workloads.deployment("web", pods, name, nodeSelector=labels, **more))
    until(lambda: observer.ready(name, "web") == pods, f"the pods of {name}", seconds=120)
    plane.kubectl("uncordon", spare)
    assert {p["spec"]["nodeName"] for p in observer.pods(name)} == {dying}


def _elsewhere(observer: Observer, name: str) -> int:
    """Return the number of Ready pods that are not on the failed node."""
    return sum(
        "-dying" not in pod["spec"].get("nodeName", "-dying")
        and "deletionTimestamp" not in pod["metadata"]
        and _ready(pod)
        for pod in observer.pods(name)
    )


def _ready(pod: dict[str, Any]) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions", []))


def _await(observer: Observer, name: str, pods: int, died: float, found: dict[str, float]) -> None:
    until(lambda: _elsewhere(observer, name) >= pods, f"the replacements of {name}", seconds=600, every=0.25)
    found[name] = time.monotonic() - died


def replaced(plane: ControlPlane) -> dict[str, Any]:
    """Return seconds from a node's silence to all replacements Ready, by way; one node fails after another."""
    rows = [(way, f"{short}{index}") for index in range(EACH) for way, short in zip(WAYS, _SHORT, strict=True)]
    for way, name in rows:
        _group(plane, Observer(plane.kubeconfig), name, PODS, WAYS[way], **_tolerations(way))
    found: dict[str, float] = {}
    watching = []
    for _, name in rows:
        say(f"{name} fails")
        plane.fail_node(f"{name}-dying1")
        work = threading.Thread(target=_await, args=(Observer(plane.kubeconfig), name, PODS, time.monotonic(), found))
        work.start()
        watching.append(work)
        time.sleep(APART)
    for work in watching:
        work.join()
    return {way: spread(found[name] for each, name in rows if each == way) for way in WAYS}


def _all_ready_in(observer: Observer, space: str, count: int) -> bool:
    return observer.ready(space, "web") == count


def together(plane: ControlPlane, observer: Observer) -> dict[str, Any]:
    """Fail one node of 10 pods, and ten of them at once: return seconds to the last replacement Ready."""
    labels, count = {"bench": "many"}, 10
    plane.apply(workloads.policy("many", nodeSelector={"matchLabels": labels}, failure=_OFF))
    spares = plane.add_nodes(2, prefix="many-spare", labels=labels)
    plane.kubectl("cordon", *spares)
    names = []
    for rack, nodes in (("one", 1), ("ten", count)):
        dying = plane.add_nodes(nodes, prefix=f"{rack}-dying", labels={**labels, "rack": rack}, rack=rack)
        plane.apply(workloads.namespace(rack))
        anti = {"topologySpreadConstraints": [_spread()]}
        here = {"nodeSelector": labels, **anti}
        if rack == "ten":
            plane.kubectl("cordon", "one-dying1")
        plane.apply(workloads.deployment("web", 10 * nodes, rack, **here))
        until(partial(_all_ready_in, observer, rack, 10 * nodes), f"the pods of {rack}", seconds=120)
        names += dying
    plane.kubectl("uncordon", "one-dying1", *spares)
    found: dict[str, float] = {}
    died = time.monotonic()
    for rack in ("one", "ten"):
        plane.fail_rack(rack)
    work = [
        threading.Thread(target=_await, args=(Observer(plane.kubeconfig), rack, 10 * nodes, died, found))
        for rack, nodes in (("one", 1), ("ten", count))
    ]
    for each in work:
        each.start()
    for each in work:
        each.join()
    return {"one node of 10 pods, s": found["one"], "ten nodes of 10 pods, s": found["ten"]}


def _spread() -> dict[str, Any]:
    match = {"labelSelector": {"matchLabels": {"app": "web"}}}
    return {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway", **match}


class Slow:
    """Living kubelets that renew their Leases late: after 10 s, and 5 to 15 s more at random."""

    def __init__(self, plane: ControlPlane, names: Sequence[str], seed: int = 10) -> None:
        self._url = f"{plane.server}/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        self._session, self._random = session(plane), random.Random(seed)
        self.gaps: list[float] = []
        self._names = names

    def run(self, seconds: float) -> None:
        """Renew Leases for these seconds."""
        end = time.monotonic() + seconds
        due = dict.fromkeys(self._names, (time.monotonic(), 0.0))
        while time.monotonic() < end:
            name, (when, gap) = min(due.items(), key=lambda row: row[1][0])
            time.sleep(max(0.0, when - time.monotonic()))
            body = {"spec": {"renewTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")}}
            headers = {"Content-Type": "application/merge-patch+json"}
            self._session.patch(f"{self._url}/{name}", data=json.dumps(body), headers=headers).raise_for_status()
            self.gaps += [gap] if gap else []
            gap = 10 + self._random.uniform(5, 15)
            due[name] = (time.monotonic() + gap, gap)


def false_alarms(plane: ControlPlane, operator: Operator, seconds: float = 300) -> dict[str, Any]:
    """Count how often a slow but living kubelet was suspected, at two timeouts."""
    found: dict[str, Any] = {}
    names = {limit: [f"slow{limit}-{index}" for index in range(10)] for limit in (20, 30)}
    for limit, group in names.items():
        labels = {"bench": f"slow{limit}"}
        spec = {**_OFF, "leaseTimeout": f"{limit}s", "recoverAfter": "1s"}
        plane.apply(workloads.policy(f"slow{limit}", nodeSelector={"matchLabels": labels}, failure=spec))
        for name in group:
            plane.apply(_unmanaged(name, labels), _lease(name))
            plane.kubectl("patch", "node", name, "--subresource=status", "-p", json.dumps(_healthy()))
    slow = Slow(plane, [name for group in names.values() for name in group])
    slow.run(seconds)
    cordons = [json.loads(line) for line in operator.log.read_text().splitlines() if '"node.cordoned"' in line]
    for limit, group in names.items():
        late = sum(gap >= limit for gap in slow.gaps) / 2  # half of the gaps are of each group
        alarms = sum(event["node"] in group for event in cordons)
        found[f"leaseTimeout: {limit}s"] = {
            "renewals": len(slow.gaps) // 2,
            "alarms": alarms,
            "longer than it": round(late),
        }
    return found


def _unmanaged(name: str, labels: dict[str, str]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}


def _healthy() -> dict[str, Any]:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    condition = {"type": "Ready", "status": "True", "reason": "Simulated", "lastHeartbeatTime": now}
    return {"status": {"conditions": [condition | {"lastTransitionTime": now}]}}


def _lease(name: str) -> dict[str, Any]:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": now}
    meta = {"name": name, "namespace": "kube-node-lease"}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}


def first_move(plane: ControlPlane, observer: Observer, tries: int) -> dict[str, float]:
    """Return ms from the end of a condition's `for` to the first request for a pod, among many nodes."""
    labels, hold = {"bench": "broken"}, 2.0
    names = plane.add_nodes(tries, prefix="broken", labels=labels)
    failure = {**_OFF, "conditions": [{"type": "Broken", "status": ["True"], "for": f"{hold:.0f}s"}]}
    drain = {"replacement": "Never", "maxEvictionsPerSecond": 1000}
    plane.apply(workloads.policy("broken", nodeSelector={"matchLabels": labels}, failure=failure, drain=drain))
    spread_out = {
        "nodeSelector": labels,
        "topologySpreadConstraints": [_spread() | {"whenUnsatisfiable": "DoNotSchedule"}],
    }
    plane.apply(workloads.namespace("broken"), workloads.deployment("web", tries, "broken", **spread_out))
    until(lambda: observer.ready("broken", "web") == tries, "a pod on each node", seconds=180)
    where = {pod["metadata"]["name"]: pod["spec"]["nodeName"] for pod in observer.pods("broken")}
    client, asked = session(plane), {}
    headers = {"Content-Type": "application/strategic-merge-patch+json"}
    for name in names:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        condition = {"type": "Broken", "status": "True", "reason": "Bench", "lastTransitionTime": now}
        body = json.dumps({"status": {"conditions": [condition]}})
        client.patch(f"{plane.server}/api/v1/nodes/{name}/status", data=body, headers=headers).raise_for_status()
        asked[name] = time.time()
        time.sleep(0.5)
    until(lambda: all(observer.drain(name) for name in names), "every node to have a drain", seconds=60)
    until(
        lambda: not {p["spec"].get("nodeName") for p in observer.pods("broken")} & set(names[-1:]),
        "the last",
        seconds=60,
    )
    went: dict[str, float] = {}
    for event in audit(plane, OPERATOR):
        reference = event.get("objectRef", {})
        if reference.get("resource") == "pods" and reference.get("namespace") == "broken" and event["verb"] == "create":
            went.setdefault(where.get(reference["name"], ""), stamp(event["requestReceivedTimestamp"]))
    times = [(went[name] - asked[name] - hold) * 1000 for name in names if name in went]
    say(f"{len(times)} of {tries} nodes had a pod when they failed")
    return spread(times)
