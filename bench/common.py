"""Common parts of the measures: a control plane with an operator, pods to drain, and times from the audit log."""

import json
import statistics
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import requests

from harness import ControlPlane, workloads
from harness.observer import Observer
from harness.operators import Operator, install
from harness.waiting import until
from harness.watches import watch_events

HERE = Path(__file__).parent
OPERATOR = "system:serviceaccount:rescheduler-system:rescheduler"
_METADATA = "application/json;as=PartialObjectMetadata{};g=meta.k8s.io;v=v1"


def say(text: str) -> None:
    """Print progress to stderr."""
    sys.stderr.write(f"bench: {text}\n")


def spread(values: Iterable[float]) -> dict[str, float]:
    """Return minimum, median, 99th percentile and maximum."""
    ordered = sorted(values)
    high = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return {"min": ordered[0], "median": statistics.median(ordered), "p99": high, "max": ordered[-1]}


def stamp(text: str) -> float:
    """Return the seconds of an audit time."""
    return datetime.fromisoformat(text).timestamp()


def audit(plane: ControlPlane, user: str = OPERATOR) -> list[dict[str, Any]]:
    """Return all audited requests of one user."""
    if plane.audit_log is None:
        raise RuntimeError("the control plane keeps no audit log")
    return [
        event
        for line in plane.audit_log.read_text().splitlines()
        if (event := json.loads(line))["user"]["username"] == user
    ]


@contextmanager
def operated(nodes: int, drained: int = 1, spare: int = 1) -> Iterator[tuple[ControlPlane, Observer, Operator]]:
    """Yield a control plane with idle nodes, nodes to drain and spare nodes, and an operator that leads.

    Limits of the controllers' own clients would hide the measured times; they are the same for all sides.
    """
    with ControlPlane.start(audit=True, open_limits=True, node_monitor_grace_period="50s") as plane:
        identity, observer = install(plane), Observer(plane.kubeconfig)
        say(f"adding {nodes + drained + spare} nodes")
        plane.add_nodes(nodes, prefix="idle")
        plane.add_nodes(drained, prefix="drain", labels={"bench": "drain"})
        plane.add_nodes(spare, prefix="spare", labels={"bench": "drain"})
        policy(plane, maxEvictionsPerSecond=1000)
        with Operator(identity, plane.workdir / "operator.log") as operator:
            until(lambda: "leader.working" in operator.log.read_text(), "the operator to lead")
            yield plane, observer, operator


def policy(plane: ControlPlane, **drain: Any) -> None:
    """Apply the policy for the measures: as many nodes at once as are requested."""
    fast = {"maxConcurrent": "100%", "maxUnavailable": "100%"}
    plane.apply(workloads.policy("bench", maintenance=fast, drain={"replacement": "Never", **drain}))


def fill(  # noqa: PLR0913 - what a workload is made of
    plane: ControlPlane,
    observer: Observer,
    space: str,
    *,
    apps: int,
    replicas: int,
    room: int,
    nodes: int = 1,
    spare: int = 1,
    annotations: dict[str, str] | None = None,
) -> None:
    """Create apps under a budget of `room` pods each, all on the nodes to drain."""
    others = [f"spare{index + 1}" for index in range(spare)]
    plane.kubectl("cordon", *others)
    here = {"nodeSelector": {"bench": "drain"}, "annotations": annotations}
    deploy_apps(plane, space, apps=apps, replicas=replicas, room=room, **here)
    plane.kubectl("uncordon", *others)
    until(
        lambda: sum(len(on(observer, space, n)) for n in drained(nodes)) == apps * replicas,
        "all pods to be on the drained nodes",
    )


def deploy_apps(plane: ControlPlane, space: str, *, apps: int, replicas: int, room: int, **template: Any) -> None:
    """Create a namespace of apps under a budget of `room` pods each, and wait until their pods are Ready and counted."""
    objects = [workloads.namespace(space)]
    for index in range(apps):
        objects.append(workloads.deployment(f"app{index}", replicas, space, **template))
        objects.append(workloads.budget(f"app{index}", space, maxUnavailable=room))
    plane.apply(*objects)

    def settled() -> bool:
        budgets = plane.get("pdb", "-n", space)["items"]
        return all(b.get("status", {}).get("disruptionsAllowed") == room for b in budgets)

    until(settled, f"{apps * replicas} pods of {space} to be Ready and counted", seconds=300, every=0.5)


def drained(nodes: int) -> list[str]:
    """Return names of the nodes to drain."""
    return [f"drain{index + 1}" for index in range(nodes)]


def on(observer: Observer, space: str, node: str) -> list[dict[str, Any]]:
    """Return pods of a namespace on a node."""
    return observer.pods(space, node=node)


def restore(plane: ControlPlane, observer: Observer, space: str, nodes: Sequence[str]) -> None:
    """Uncordon the nodes, and empty the namespace."""
    plane.kubectl("annotate", "node", *nodes, "rescheduler.dev/maintenance-")
    until(lambda: not plane.get("nodedrains")["items"], "the nodes to be restored", seconds=60)
    plane.kubectl("uncordon", *nodes)
    plane.kubectl("delete", "namespace", space, "--wait=false")
    until(lambda: not observer.pods(space), "the namespace to be empty", seconds=120)


def session(plane: ControlPlane) -> requests.Session:
    """Return an HTTP session with the administrator's rights."""
    opened: requests.Session = Observer(plane.kubeconfig).api.session
    return opened


class Departures:
    """Watch the pods that exist at the start, of one namespace or of all: by pod, seconds until it is gone."""

    def __init__(self, plane: ControlPlane, space: str = "") -> None:
        place = f"namespaces/{space}/pods" if space else "pods"
        self._url, self._session = f"{plane.server}/api/v1/{place}", session(plane)
        self._left, version = self._list()
        self.total, self.gone = len(self._left), list[float]()
        self._done = threading.Event()
        self.began = time.monotonic()
        threading.Thread(target=self._follow, args=(version,), daemon=True).start()

    def _list(self) -> tuple[set[str], str]:
        """Return UIDs of the existing pods, and the version to watch from."""
        found = self._session.get(self._url, headers={"Accept": _METADATA.format("List")}, timeout=30).json()
        return {item["metadata"]["uid"] for item in found["items"]}, found["metadata"]["resourceVersion"]

    def _follow(self, version: str) -> None:
        while self._left:
            self._watch(version)
            # The server ends a watch that is too slow: the next list shows the pods that went meanwhile.
            there, version = self._list()
            for uid in self._left - there:
                self._leaves(uid)
        self._done.set()

    def _watch(self, version: str) -> None:
        for event in watch_events(self._session, self._url, version=version, accept=_METADATA.format("")):
            if event["type"] == "DELETED":
                self._leaves(event["object"]["metadata"]["uid"])
            if not self._left:
                return

    def _leaves(self, uid: str) -> None:
        if uid in self._left:
            self._left.discard(uid)
            self.gone.append(time.monotonic() - self.began)

    def wait(self, seconds: float = 400) -> float:
        """Return the seconds until the last pod was gone."""
        if not self._done.wait(seconds):
            raise TimeoutError(f"{len(self._left)} of {self.total} pods still exist after {seconds:.0f} s")
        return self.gone[-1]
