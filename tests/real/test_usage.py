"""Memory and CPU of the operator's containers from their cgroups: idle, and while nodes are drained."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.real import maintenance
from harness.real.applications import service
from harness.real.installation import Installation
from harness.real.lab import Lab

IDLE = 60  # seconds
_CGROUPS = Path("/sys/fs/cgroup")
Record = Callable[[str, dict[str, Any]], None]


def cgroup(lab: Lab, pod: dict[str, Any], controller: str) -> Path:
    """Return the folder of the pod's container in the hierarchy of a controller; cgroup v2 has only one hierarchy."""
    (process,) = lab.processes(pod)
    for line in (process / "cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if (_CGROUPS / "cgroup.controllers").exists():
            return _CGROUPS / path.lstrip("/")
        if controller in names.split(","):
            return _CGROUPS / controller / path.lstrip("/")
    raise AssertionError(f"no cgroup of {controller}")


def memory(lab: Lab, pod: dict[str, Any]) -> float:
    """Return the working set in MB: all memory without file pages that nobody used lately, as Kubernetes counts it."""
    folder = cgroup(lab, pod, "memory")
    stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    usage = next(file for name in ("memory.current", "memory.usage_in_bytes") if (file := folder / name).exists())
    unused = stat.get("total_inactive_file") or stat["inactive_file"]
    return (int(usage.read_text()) - int(unused)) / 1e6


def cpu(lab: Lab, pod: dict[str, Any]) -> float:
    """Return the CPU time in seconds."""
    usage = cgroup(lab, pod, "cpuacct") / "cpuacct.usage"
    if usage.exists():
        return int(usage.read_text()) / 1e9
    stat = dict(line.split() for line in (cgroup(lab, pod, "cpuacct") / "cpu.stat").read_text().splitlines())
    return int(stat["usage_usec"]) / 1e6


def test_memory_and_cpu_idle_and_while_nodes_are_drained(
    lab: Lab, operator: Installation, space: str, record: Record
) -> None:
    service(lab, space, replicas=12, budget={"maxUnavailable": 1})
    leader = operator.settled()
    (standby,) = [pod for pod in operator.ready() if pod["metadata"]["name"] != leader["metadata"]["name"]]
    nodes = [node for node in lab.nodes if node != leader["spec"]["nodeName"]]

    def measure(state: str, work: Callable[[], object], pods: dict[str, dict[str, Any]]) -> None:
        before, begun = {role: cpu(lab, pod) for role, pod in pods.items()}, time.monotonic()
        work()
        seconds = time.monotonic() - begun
        for role, pod in pods.items():
            used = (cpu(lab, pod) - before[role]) / seconds
            result = {"state": state, "pod": role, "memory MB": round(memory(lab, pod), 1)}
            record("usage", {**result, "CPU in % of a core": round(used * 100, 2), "seconds": round(seconds, 1)})

    def drain() -> None:
        for node in nodes:
            maintenance.request(lab, node)
            maintenance.drained(lab, node)
            maintenance.restored(lab, node)

    measure("idle", lambda: time.sleep(IDLE), {"leader": leader, "standby": standby})
    measure("two nodes drained", drain, {"leader": leader})
