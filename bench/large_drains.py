"""Measure large drains against the limit of the machine, and what other clients of the API server feel of them.

One drain of 250 pods under 250 budgets in 100 namespaces, and 100 nodes of 30 pods at once.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from bench import loads
from bench.common import Departures, drained, operated, say, session, spread
from bench.loads import LIMITS, Pace
from bench.meters import requests_since
from harness import ControlPlane, workloads
from harness.observer import Observer
from harness.waiting import until

_PROBE_INTERVAL, _QUIET = 0.1, 20.0  # seconds


class LargeDrains:
    """Measures on one control plane. All pods of the cluster are on the nodes to drain.

    Args:
        namespaces: number of namespaces.
        replicas: pods of each app, under a budget that lets all of them go.
    """

    def __init__(
        self, plane: ControlPlane, observer: Observer, nodes: int, spare: int, pods: int, namespaces: int, replicas: int
    ) -> None:
        self._plane, self._observer, self._pods = plane, observer, pods
        self._nodes, self._spare = drained(nodes), [f"spare{index + 1}" for index in range(spare)]
        self._namespaces, self._replicas, self._count = namespaces, replicas, 0

    def measure(self) -> dict[str, Any]:
        """Return the seconds of the bare load and of the operator, its requests, and the times of other clients."""
        found: dict[str, Any] = {"pods": self._pods, "nodes": len(self._nodes), "bare load, s": {}}
        with probed(self._plane) as quiet:
            time.sleep(_QUIET)
        best: dict[str, float] = {}
        for pace in LIMITS[1:]:
            seconds, best = self._timed(self._bare(pace))
            found["bare load, s"][pace.name] = seconds
        audit = self._plane.audit_log
        assert audit is not None
        start = audit.stat().st_size
        found["seconds"], ours = self._timed(self._annotate, done=True)
        time.sleep(2)
        requests = requests_since(audit, start)
        mine = {name: count for name, count in requests.items() if not name.endswith(" leases")}
        on_pods = sum(count for name, count in mine.items() if name.split()[1].split("/")[0] == "pods")
        found["requests a pod"] = {
            "on pods": on_pods / self._pods,
            "in all but Leases": sum(mine.values()) / self._pods,
        }
        found["by request"] = dict(requests.most_common(12))
        found["other clients, ms"] = {"quiet": spread(quiet), "bare load": best, "rescheduler": ours}
        return found

    def _timed(self, start: Callable[[], None], *, done: bool = False) -> tuple[float, dict[str, float]]:
        """Return the seconds until the last pod is gone, and the times of the probe."""
        self._fill()
        leaving = Departures(self._plane)
        with probed(self._plane) as times:
            threading.Thread(target=start, daemon=True).start()
            seconds = leaving.wait()
        say(f"{leaving.total} pods: {seconds:.1f} s, others {spread(times)}")
        if done:
            until(lambda: self._phases() == ["Drained"] * len(self._nodes), "Drained", seconds=120, every=1)
            self._plane.kubectl("annotate", "node", *self._nodes, "rescheduler.dev/maintenance-")
            until(lambda: not self._phases(), "the nodes to be restored", seconds=120, every=1)
        self._plane.kubectl("uncordon", *self._nodes)
        names = [f"bench-{self._count}-{index}" for index in range(self._namespaces)]
        self._plane.kubectl("delete", "namespace", *names, "--wait=false")
        until(lambda: not self._listed(), "the namespaces to be empty", seconds=240, every=1)
        return seconds, spread(times)

    def _phases(self) -> list[str]:
        return [drain.get("status", {}).get("phase", "") for drain in self._plane.get("nodedrains")["items"]]

    def _listed(self) -> list[dict[str, Any]]:
        answer = session(self._plane).get(f"{self._plane.server}/api/v1/pods", timeout=60)
        return list(answer.json()["items"])

    def _fill(self) -> None:
        """Create the apps, all on the nodes to drain."""
        self._count += 1
        self._plane.kubectl("cordon", *self._spare)
        objects = [workloads.namespace(f"bench-{self._count}-{index}") for index in range(self._namespaces)]
        for index in range(self._pods // self._replicas):
            space = f"bench-{self._count}-{index % self._namespaces}"
            objects += [
                workloads.deployment(f"app{index}", self._replicas, space, nodeSelector={"bench": "drain"}),
                workloads.budget(f"app{index}", space, maxUnavailable=self._replicas),
            ]
        self._plane.apply(*objects)

        def settled() -> bool:
            budgets = self._plane.get("pdb", "-A")["items"]
            return all(
                b.get("status", {}).get("disruptionsAllowed", 0) >= min(self._replicas, 1) for b in budgets
            ) and (sum("nodeName" in pod["spec"] for pod in self._listed()) == self._pods)

        until(settled, "the pods to be Ready and counted", seconds=300, every=1)
        self._plane.kubectl("uncordon", *self._spare)

    def _annotate(self) -> None:
        self._plane.kubectl("annotate", "node", *self._nodes, "rescheduler.dev/maintenance=bench")

    def _bare(self, pace: Pace) -> Callable[[], None]:
        def start() -> None:
            self._plane.kubectl("cordon", *self._nodes)
            loads.evict(self._plane, self._listed(), pace)

        return start


@contextmanager
def probed(plane: ControlPlane) -> Iterator[list[float]]:
    """Yield the ms of requests of another client, a GET and a PATCH in turn, while the block runs."""
    times: list[float] = []
    done, client = threading.Event(), session(plane)
    url = f"{plane.server}/api/v1/namespaces/default"
    headers = {"Content-Type": "application/merge-patch+json"}

    def probe() -> None:
        while not done.wait(_PROBE_INTERVAL):
            began = time.monotonic()
            if len(times) % 2:
                client.get(url, timeout=30).raise_for_status()
            else:
                body = json.dumps({"metadata": {"annotations": {"bench/probe": str(len(times))}}})
                client.patch(url, data=body, headers=headers, timeout=30).raise_for_status()
            times.append((time.monotonic() - began) * 1000)

    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    try:
        yield times
    finally:
        done.set()
        thread.join()


def one_drain() -> dict[str, Any]:
    """Measure one drain of 250 pods under 250 budgets in 100 namespaces."""
    with operated(1) as (plane, observer, _):
        return LargeDrains(plane, observer, 1, 1, 250, 100, 1).measure()


def many_drains() -> dict[str, Any]:
    """Measure 100 nodes of 30 pods at once."""
    with operated(1, drained=100, spare=13) as (plane, observer, _):
        return LargeDrains(plane, observer, 100, 13, 3000, 20, 5).measure()
