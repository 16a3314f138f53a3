"""Measure how fast nodes are emptied: by bare load, the operator, `kubectl drain`, and other tools' settings."""

import json
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from bench import loads
from bench.common import Departures, audit, drained, fill, on, policy, restore, say, spread, stamp
from bench.loads import Pace
from harness import ControlPlane, binaries
from harness.observer import Observer
from harness.waiting import until

APPS, REPLICAS = 20, 5  # of one node: 100 pods
Start = Callable[[list[str], str], None]


class Drains:
    """Measures on one control plane; each of `nodes` has 100 pods."""

    def __init__(self, plane: ControlPlane, observer: Observer, nodes: int) -> None:
        self._plane, self._observer, self._nodes = plane, observer, nodes
        self._count = 0
        self.requests: list[dict[str, float]] = []
        self.curves: dict[str, list[float]] = {}

    def timed(self, name: str, start: Start, *, nodes: int | None = None, done: bool = False) -> float:
        """Return seconds from `start` to the last pod gone; with `done` also count the operator's requests until
        Drained.
        """
        self._count += 1
        space, names = f"bench-{self._nodes}-{self._count}", drained(nodes or self._nodes)
        fill(
            self._plane,
            self._observer,
            space,
            apps=APPS * len(names),
            replicas=REPLICAS,
            room=REPLICAS,
            nodes=self._nodes,
            spare=self._nodes,
        )
        began, leaving = time.time(), Departures(self._plane, space)
        threading.Thread(target=start, args=(names, space), daemon=True).start()
        taken = leaving.wait()
        self.curves.setdefault(name, leaving.gone)
        if done:
            until(lambda: all(self._observer.phase(node) == "Drained" for node in names), "Drained", seconds=60)
            self.requests.append(self._requests(began, leaving.total))
        say(f"{len(names)} x {APPS * REPLICAS} pods, {name}: {taken:.1f} s")
        restore(self._plane, self._observer, space, names)
        return taken

    def _requests(self, since: float, pods: int) -> dict[str, float]:
        """Return the operator's requests for each pod, from the annotation to Drained."""
        asked = [e for e in audit(self._plane) if stamp(e["requestReceivedTimestamp"]) >= since]
        about = [event.get("objectRef", {}).get("resource", "") for event in asked]  # some requests have no object
        mine = [resource for resource in about if resource != "leases"]
        return {"on pods": mine.count("pods") / pods, "in all but Leases": len(mine) / pods}

    def ours(self, names: list[str], _: str) -> None:
        """Request maintenance by the annotation."""
        self._plane.kubectl("annotate", "node", *names, "rescheduler.dev/maintenance=bench")

    def kubectl(self, names: list[str], _: str) -> None:
        """Drain node by node with kubectl, as people do it."""
        program = [str(binaries.path("kubectl")), "--kubeconfig", str(self._plane.kubeconfig), "drain"]
        for name in names:
            subprocess.run([*program, name, "--ignore-daemonsets"], capture_output=True, check=False)

    def bare(self, pace: Pace) -> Start:
        """Return a start of the bare load at a pace, on cordoned nodes."""

        def start(names: list[str], space: str) -> None:
            self._plane.kubectl("cordon", *names)
            loads.evict(self._plane, [pod for name in names for pod in on(self._observer, space, name)], pace)

        return start

    def limit(self, paces: Sequence[Pace]) -> tuple[dict[str, float], Pace]:
        """Return the seconds at each pace of the bare load, and the best pace."""
        found = {pace: self.timed(f"bare: {pace.name}", self.bare(pace)) for pace in paces}
        return {pace.name: seconds for pace, seconds in found.items()}, min(found, key=found.__getitem__)


def one_node(plane: ControlPlane, observer: Observer, runs: int) -> dict[str, Any]:
    """Drain one node of 100 pods, under budgets with room."""
    drains = Drains(plane, observer, 1)
    limits, best = drains.limit(loads.LIMITS)
    seconds: dict[str, list[float]] = {"limit": [], "rescheduler": [], "kubectl drain": []}
    for _ in range(runs):
        seconds["limit"].append(drains.timed("limit", drains.bare(best)))
        seconds["rescheduler"].append(drains.timed("rescheduler", drains.ours, done=True))
        seconds["kubectl drain"].append(drains.timed("kubectl drain", drains.kubectl))
    return _result(drains, limits, best, seconds) | {
        "requests a pod": {key: spread(r[key] for r in drains.requests) for key in drains.requests[0]},
        **_others(drains, plane),
    }


def many_nodes(plane: ControlPlane, observer: Observer, nodes: int) -> dict[str, Any]:
    """Drain many nodes at once; `kubectl drain` goes node by node."""
    drains = Drains(plane, observer, nodes)
    limits, best = drains.limit(loads.LIMITS[1:])
    seconds = {
        "limit": [min(limits.values())],
        "rescheduler": [drains.timed("rescheduler", drains.ours) for _ in range(2)],
        "kubectl drain": [drains.timed("kubectl drain", drains.kubectl)],
    }
    return _result(drains, limits, best, seconds) | _others(drains, plane)


def _result(drains: Drains, limits: dict[str, float], best: Pace, seconds: dict[str, list[float]]) -> dict[str, Any]:
    ours = seconds["rescheduler"]
    return {
        "bare load, s": limits,
        "best pace": best.name,
        "seconds": seconds,
        "share of the limit": spread(min(seconds["limit"]) / s for s in ours),
        "times as fast as kubectl": spread(k / o for k in seconds["kubectl drain"] for o in ours),
        "curves": drains.curves,
    }


def _others(drains: Drains, plane: ControlPlane) -> dict[str, Any]:
    """Measure the operator's defaults, and other tools' settings on the bare load."""
    policy(plane, maxEvictionsPerSecond=20)
    defaults = drains.timed("rescheduler, 20 a second", drains.ours)
    policy(plane, maxEvictionsPerSecond=1000)
    return {
        "with the default rate of 20/s, s": defaults,
        "Karpenter's settings, s": drains.timed("Karpenter's settings", drains.bare(loads.KARPENTER)),
        "Cluster API's settings, s": drains.timed("Cluster API's settings", drains.bare(loads.CLUSTER_API)),
    }


def reaction(plane: ControlPlane, observer: Observer, tries: int) -> dict[str, Any]:
    """Return ms from sending the annotation to the cordon's answer, by one clock."""
    say(f"annotation to cordon, {tries} tries")
    names = [f"idle{index + 1}" for index in range(tries)]
    session, asked = observer.api.session, {}
    body = json.dumps({"metadata": {"annotations": {"rescheduler.dev/maintenance": "bench"}}})
    headers = {"Content-Type": "application/merge-patch+json"}
    for name in names:
        asked[name] = time.time()
        session.patch(f"{plane.server}/api/v1/nodes/{name}", data=body, headers=headers).raise_for_status()
        time.sleep(0.3)
    until(lambda: all(observer.node(n)["spec"].get("unschedulable") for n in names[-3:]), "the last cordon")
    cordoned: dict[str, float] = {}
    for event in audit(plane):
        reference = event.get("objectRef", {})
        if reference.get("resource") == "nodes" and event["verb"] == "patch" and "subresource" not in reference:
            cordoned.setdefault(reference["name"], stamp(event["stageTimestamp"]))
    times = [(cordoned[name] - asked[name]) * 1000 for name in names]
    plane.kubectl("annotate", "node", *names, "rescheduler.dev/maintenance-")
    until(lambda: not plane.get("nodedrains")["items"], "all nodes to be restored", seconds=120, every=1)
    return spread(times)
