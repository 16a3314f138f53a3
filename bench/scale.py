"""Measure the operator in large clusters, next to a cache of pods and nodes of controller-runtime in the same run.

`SCALE=1000:10000 SCALE_DRAINS=10,100` chooses the sizes (nodes:pods, several by commas) and the numbers of nodes that
are drained at once. Each size is a control plane of its own. `1000:10000:0` is a size without budgets.
"""

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from bench import loads, scale_cluster
from bench.common import HERE, policy, say, session
from bench.meters import cpu_seconds, measured, resident
from bench.scale_cluster import LargeCluster
from harness import ControlPlane
from harness.operators import Operator, install
from harness.waiting import until

_SIZES, _DRAINS = "1000:0,1000:10000,5000:100000", "10,100,500"
_SETTLED, _IDLE, _LONGEST_DRAIN = 45.0, 130.0, 150.0  # seconds
_BARE = 10  # nodes that the bare load empties, and the operator after it
_INFORMERS = Path(__file__).parent / "informers"
_ON_DEMAND = ("rich", "pygments", "pykube")
"""Packages of the development environment that the image lacks, and that other packages import if they are there."""


def scale() -> dict[str, Any]:
    """Measure each size; the sizes of earlier runs stay in the results."""
    drains = [int(text) for text in os.environ.get("SCALE_DRAINS", _DRAINS).split(",") if text]
    path = HERE / "results.json"
    found: dict[str, Any] = json.loads(path.read_text()).get("scale", {}) if path.exists() else {}
    for size in os.environ.get("SCALE", _SIZES).split(","):
        nodes, pods, budgets = (*map(int, size.split(":")), 1)[:3]
        load = os.getloadavg()[0]
        drained = [count for count in drains if pods and count <= nodes // 2]
        found[size] = {"load before": round(load, 1)} | _measure(nodes, pods, drained, budgets=bool(budgets))
    return found


class _Leader(Operator):
    """An operator with the packages of the image."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        hidden = "; ".join(f"sys.modules[{name!r}] = None" for name in _ON_DEMAND)
        start = f"import sys; {hidden}; from rescheduler.cli.operator import main; main()"
        self._command[1:3] = ["-c", start]


def _measure(nodes: int, pods: int, drains: Sequence[int], *, budgets: bool) -> dict[str, Any]:
    more = {"kube-controller-manager": {"controllers": scale_cluster.CONTROLLERS}, "etcd": scale_cluster.ETCD}
    with ControlPlane.start(open_limits=True, extra_args=more) as plane:
        identity = install(plane)
        policy(plane, maxEvictionsPerSecond=1000)
        drained = sum(drains) + (2 * _BARE if drains else 0)
        cluster = LargeCluster(plane, nodes, pods, drained)
        operator = _Leader(identity, plane.workdir / "operator.log")
        say(f"{nodes} nodes, {pods} pods in {cluster.namespaces} namespaces: writing")
        began = time.monotonic()
        # Their views of pods and owners would not be of one moment: they would create pods that exist already.
        try:
            with plane.stopped("kube-controller-manager", "kube-scheduler"):
                cluster.write(budgets=budgets)
                say(f"written in {time.monotonic() - began:.0f} s")
                if not drains:  # nothing else needs them
                    return _phases(plane, cluster, identity, operator, drains)
            return _phases(plane, cluster, identity, operator, drains)
        finally:
            operator.kill()
            cluster.stop()


def _phases(
    plane: ControlPlane,
    cluster: LargeCluster,
    identity: Path,
    operator: Operator,
    drains: Sequence[int],
) -> dict[str, Any]:
    found: dict[str, Any] = {"nodes": cluster.nodes, "pods": cluster.pods, "namespaces": cluster.namespaces}
    with _informers(plane) as informers:  # they are synced: the API server has read what was written to etcd
        found["start"] = _started(plane, operator)
        time.sleep(_SETTLED)
        before, renewals, reports = cpu_seconds(informers.pid), cluster.renewals, cluster.reports
        say("idle")
        with measured(plane, operator) as span:
            time.sleep(_IDLE)
        share = (cpu_seconds(informers.pid) - before) / span.seconds
        beside = {"memory, MB": round(resident(informers.pid), 1), "share of a core": round(share, 4)}
    found["controller-runtime"] = beside
    found["idle"] = span.numbers()
    found["idle"]["renewals a second"] = round((cluster.renewals - renewals) / span.seconds, 1)
    found["idle"]["node reports a second"] = round((cluster.reports - reports) / span.seconds, 1)
    say(f"{found['idle']}, {beside}")
    names = iter(cluster.drained)
    if drains:
        found["drain of 10"] = _beside_bare_load(plane, [next(names) for _ in range(2 * _BARE)])
        say(f"{found['drain of 10']}")
    found["drains"] = {}
    for count in drains:
        found["drains"][str(count)] = _drained(plane, operator, [next(names) for _ in range(count)])
        say(f"{count} nodes: {found['drains'][str(count)]}")
    found["failover"] = _failed_over(plane, operator, identity)
    say(f"{found['failover']}")
    return found


def _is_leading(operator: Operator) -> bool:
    return "leader.working" in operator.log.read_text()


def _started(plane: ControlPlane, operator: Operator) -> dict[str, Any]:
    """Measure from the start of the process until it leads."""
    began = time.monotonic()
    operator.start(ready=False)
    with measured(plane, operator) as span:
        until(lambda: _is_leading(operator), "the operator to lead", seconds=120)
        taken = time.monotonic() - began
        time.sleep(5)
    return span.numbers() | {"seconds to lead": round(taken, 2)}


def _pods(plane: ControlPlane, reader: requests.Session, nodes: Sequence[str]) -> list[dict[str, Any]]:
    """Return the pods on these nodes."""
    found = []
    for name in nodes:
        answer = reader.get(f"{plane.server}/api/v1/pods?fieldSelector=spec.nodeName={name}", timeout=30)
        found += answer.json()["items"]
    return found


def _beside_bare_load(plane: ControlPlane, names: Sequence[str]) -> dict[str, Any]:
    """Empty 10 nodes by bare load, and then 10 others by the operator; return both times."""
    bare, ours = names[:_BARE], names[_BARE:]
    reader = session(plane)
    pods = _pods(plane, reader, bare)
    plane.kubectl("cordon", *bare)
    began = time.monotonic()
    threading.Thread(target=loads.evict, args=(plane, pods, loads.LIMITS[1]), daemon=True).start()
    until(lambda: not _pods(plane, reader, bare), "the bare load", seconds=300)
    limit = time.monotonic() - began
    began = time.monotonic()
    plane.kubectl("annotate", "node", *ours, "rescheduler.dev/maintenance=bench")
    until(lambda: not _pods(plane, reader, ours), "the drains", seconds=300)
    return {"pods": len(pods), "bare load, s": round(limit, 1), "seconds": round(time.monotonic() - began, 1)}


def _drained(plane: ControlPlane, operator: Operator, names: Sequence[str]) -> dict[str, Any]:
    """Measure while these nodes drain, for a limited time; restore them afterwards."""
    say(f"{len(names)} nodes")

    def phases() -> list[str]:
        paths = "jsonpath={range .items[*]}{.metadata.name}={.status.phase} {end}"
        found = dict(pair.split("=") for pair in plane.kubectl("get", "nodedrains", "-o", paths).split())
        return [found.get(name, "") for name in names]

    began = time.monotonic()
    with measured(plane, operator) as span:
        for start in range(0, len(names), 100):
            plane.kubectl("annotate", "node", *names[start : start + 100], "rescheduler.dev/maintenance=bench")
        while time.monotonic() - began < _LONGEST_DRAIN and (found := phases()).count("Drained") < len(names):
            time.sleep(2)
    result = span.numbers() | {"drained": found.count("Drained")}
    for start in range(0, len(names), 100):
        plane.kubectl("annotate", "node", *names[start : start + 100], "rescheduler.dev/maintenance-")
    until(lambda: not any(phases()), "the nodes to be restored", seconds=180, every=2)
    return result | {"memory after, MB": round(resident(operator.pid), 1)}


def _failed_over(plane: ControlPlane, operator: Operator, identity: Path) -> dict[str, Any]:
    """Kill the leader; measure the standby until it leads."""
    standby = _Leader(identity, plane.workdir / "standby.log", identity="operator-1").start()
    try:
        time.sleep(20)
        idle = round(resident(standby.pid), 1)
        with measured(plane, standby) as span:
            began = time.monotonic()
            operator.kill()
            until(lambda: _is_leading(standby), "the standby to lead", seconds=60)
            taken = time.monotonic() - began
            time.sleep(5)
    finally:
        standby.stop()
    return span.numbers() | {"seconds to lead": round(taken, 2), "standby, MB": idle}


@contextmanager
def _informers(plane: ControlPlane) -> Iterator[subprocess.Popen[str]]:
    """Run the cache of controller-runtime as the administrator, once it has all pods."""
    program = _built()
    environment = {**os.environ, "KUBECONFIG": str(plane.kubeconfig)}
    process = subprocess.Popen(
        [str(program)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        if not process.stdout or process.stdout.readline() != "synced\n":
            raise RuntimeError("the cache of controller-runtime ended")
        yield process
    finally:
        process.kill()
        process.wait()


def _built() -> Path:
    """Return the program with the cache, which is built once."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rescheduler" / "scale-informers"
    if not home.exists():
        say("building the cache of controller-runtime")
        command = ["go", "build", "-trimpath", "-ldflags", "-s -w", "-o", str(home), "."]
        subprocess.run(command, cwd=_INFORMERS, check=True)
    return home
