"""`make bench`: what is claimed, measured side by side in one run; results to bench/results.{json,md}.

Numbers of shared machines are noisy: ratios with their spread are what counts.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from cluster import ControlPlane, binaries, workloads
from cluster.observer import Observer
from cluster.operators import Operator, install
from cluster.waiting import until

HERE = Path(__file__).parent
OPERATOR = "system:serviceaccount:rescheduler-system:rescheduler"
TRIES, NODES, PODS, APPS, RUNS = 200, 1000, 100, 20, 5
_IMPORTS = ("aiohttp", "kopf", "kubernetes.aio.config", "structlog", "prometheus_client", "rescheduler.app")


def say(text: str) -> None:
    """Progress, to stderr."""
    sys.stderr.write(f"bench: {text}\n")


def spread(values: list[float]) -> dict[str, float]:
    """Minimum, median, 99th percentile, maximum."""
    ordered = sorted(values)
    high = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return {"min": ordered[0], "median": statistics.median(ordered), "p99": high, "max": ordered[-1]}


def stamp(text: str) -> float:
    """Seconds of an audit time."""
    return datetime.fromisoformat(text).timestamp()


def audit(plane: ControlPlane) -> list[dict[str, Any]]:
    """All audited requests."""
    if plane.audit_log is None:
        raise RuntimeError("the control plane keeps no audit log")
    return [json.loads(line) for line in plane.audit_log.read_text().splitlines()]


# -- annotation to cordon --------------------------------------------------------------------------------------------


def reaction(plane: ControlPlane, observer: Observer) -> dict[str, Any]:
    """From sending the annotation to the cordon's answer, by this machine's one clock; ms."""
    say(f"annotation to cordon, {TRIES} tries among {NODES} nodes")
    names = [f"idle{index + 1}" for index in range(TRIES)]
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
        if reference.get("resource") != "nodes" or event["verb"] != "patch" or "subresource" in reference:
            continue
        if event["user"]["username"] == OPERATOR:
            cordoned.setdefault(reference["name"], stamp(event["stageTimestamp"]))
    times = [(cordoned[name] - asked[name]) * 1000 for name in names]
    plane.kubectl("annotate", "node", *names, "rescheduler.dev/maintenance-")
    until(lambda: not plane.get("nodedrains")["items"], "all to be restored", seconds=120, every=1)
    return spread(times)


# -- a drain of 100 pods ------------------------------------------------------------------------------------------------


def fill(plane: ControlPlane, observer: Observer, node: str, space: str) -> None:
    """100 pods of 20 Deployments under 20 budgets with room, all on one node."""
    plane.apply(workloads.namespace(space))
    objects = []
    for index in range(APPS):
        name = f"app{index}"
        objects += [
            workloads.deployment(name, PODS // APPS, space, nodeSelector={"bench": "drain"}),
            workloads.budget(name, space, maxUnavailable=PODS // APPS),
        ]
    others = [n for n in ("drain1", "drain2") if n != node]
    plane.kubectl("cordon", *others)
    plane.apply(*objects)
    until(lambda: _running(observer, space, node) == PODS, f"{PODS} pods on {node}", seconds=120)
    plane.kubectl("uncordon", *others)

    def settled() -> bool:
        budgets = plane.get("pdb", "-n", space)["items"]
        return all(b.get("status", {}).get("disruptionsAllowed") == PODS // APPS for b in budgets)

    until(settled, "the budgets to be observed", seconds=60)


def _running(observer: Observer, space: str, node: str) -> int:
    return sum(p.get("status", {}).get("phase") == "Running" for p in observer.pods(space, node=node))


def timed(plane: ControlPlane, observer: Observer, start: Callable[[str], None], space: str) -> float:
    """Seconds from `start` to the last pod gone from the node."""
    node = "drain1"
    fill(plane, observer, node, space)
    began = time.monotonic()
    start(node)
    until(lambda: not observer.pods(space, node=node), "the last pod to go", seconds=180, every=0.05)
    taken = time.monotonic() - began
    plane.kubectl("annotate", "node", node, "rescheduler.dev/maintenance-")
    until(lambda: observer.drain(node) is None, "the node to be restored")
    plane.kubectl("uncordon", node)
    plane.kubectl("delete", "namespace", space, "--wait=false")
    until(lambda: not observer.pods(space), "the namespace to be empty", seconds=120)
    return taken


def drains(plane: ControlPlane, observer: Observer) -> dict[str, Any]:
    """Ours and `kubectl drain` in turn."""
    jobs: list[subprocess.Popen[bytes]] = []

    def ours(node: str) -> None:
        plane.kubectl("annotate", "node", node, "rescheduler.dev/maintenance=bench")

    def kubectl(node: str) -> None:
        command = [str(binaries.path("kubectl")), "--kubeconfig", str(plane.kubeconfig), "drain", node]
        jobs.append(
            subprocess.Popen([*command, "--ignore-daemonsets"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )

    results: dict[str, list[float]] = {"rescheduler": [], "kubectl drain": []}
    for run in range(RUNS):
        for name, start in (("rescheduler", ours), ("kubectl drain", kubectl)):
            taken = timed(plane, observer, start, f"bench-{run}-{name.split()[0]}")
            say(f"a drain of {PODS} pods by {name}: {taken:.1f} s")
            results[name].append(taken)
    for job in jobs:
        job.wait(60)
    ratios = [k / o for k, o in zip(results["kubectl drain"], results["rescheduler"], strict=True)]
    return {"seconds": results, "times as fast": spread(ratios)}


# -- replacement first ------------------------------------------------------------------------------------------------


def replacements(plane: ControlPlane, observer: Observer) -> dict[str, Any]:
    """10 apps of 10, each under `maxUnavailable: 1`, moved with and without replacement first; pods Ready after 2 s."""
    results: dict[str, Any] = {}
    for mode in ("Preferred", "Never"):
        space = f"bench-{mode.lower()}"
        patch = json.dumps({"spec": {"drain": {"replacement": mode}}})
        plane.kubectl("patch", "rsp", "bench", "--type=merge", "-p", patch)
        plane.kubectl("cordon", "drain2")
        plane.apply(workloads.namespace(space))
        slow = {"cluster/ready-after": "2s"}
        for index in range(10):
            app = workloads.deployment(f"app{index}", 10, space, nodeSelector={"bench": "drain"}, annotations=slow)
            plane.apply(app, workloads.budget(f"app{index}", space, maxUnavailable=1))
        until(lambda space=space: _serving(observer, space) == 100, "100 pods to be Ready", seconds=120)  # type: ignore[misc]
        plane.kubectl("uncordon", "drain2")
        time.sleep(3)
        lowest, began = 100, time.monotonic()
        plane.kubectl("annotate", "node", "drain1", "rescheduler.dev/maintenance=bench")
        while observer.pods(space, node="drain1") and time.monotonic() < began + 300:
            lowest = min(lowest, _serving(observer, space))
            time.sleep(0.1)
        results[mode] = {"seconds": time.monotonic() - began, "lowest ready of 100": lowest}
        say(f"10 apps of 10 under maxUnavailable 1, replacement {mode}: {results[mode]}")
        plane.kubectl("annotate", "node", "drain1", "rescheduler.dev/maintenance-")
        until(lambda: observer.drain("drain1") is None, "the node to be restored")
        plane.kubectl("delete", "namespace", space, "--wait=false")
        until(lambda space=space: not observer.pods(space), "the namespace to be empty", seconds=120)  # type: ignore[misc]
    return results


def _serving(observer: Observer, space: str) -> int:
    return sum(
        "deletionTimestamp" not in pod["metadata"]
        and any(c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions", []))
        for pod in observer.pods(space)
    )


def requests_a_pod(plane: ControlPlane, since: float) -> dict[str, float]:
    """The operator's requests on pods for each pod drained, by the audit log; `since`: when the drains began."""
    mine = [
        (event["verb"], event["objectRef"].get("subresource", ""))
        for event in audit(plane)
        if event["user"]["username"] == OPERATOR
        and event.get("objectRef", {}).get("resource") == "pods"
        and stamp(event["requestReceivedTimestamp"]) >= since
    ]
    pods = RUNS * PODS
    evictions = sum(subresource == "eviction" for _, subresource in mine)
    return {"evictions": evictions / pods, "list and watch": (len(mine) - evictions) / pods}


# -- memory ------------------------------------------------------------------------------------------------------------


def imports() -> dict[str, float]:
    """MB of resident memory that each import adds, in their order."""
    script = (
        "import importlib, json, os, sys\n"
        "size = lambda: int(open('/proc/self/statm').read().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 1e6\n"
        "before, costs = size(), {'python': size()}\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    costs[name], before = size() - before, size()\n"
        "print(json.dumps(costs))\n"
    )
    result = subprocess.run([sys.executable, "-c", script, *_IMPORTS], check=True, capture_output=True, text=True)
    return dict(json.loads(result.stdout))


def table(results: dict[str, Any]) -> str:
    """The results for people."""
    reaction_, drain, memory = results["annotation to cordon, ms"], results["drain of 100 pods"], results["memory, MB"]
    first, never = (results["replacement first"][mode] for mode in ("Preferred", "Never"))
    ratio, seconds = drain["times as fast"], drain["seconds"]
    lines = [
        "# Results of `make bench`",
        "",
        "Two shared cores, client and servers together; the control plane is real, the kubelets are simulated",
        "(a pod is gone 1 s after it was told to end).",
        "",
        "| what | result | goal |",
        "|---|---|---|",
        f"| annotation to cordon, {NODES} nodes, {TRIES} tries, median | {reaction_['median']:.0f} ms | < 50 ms |",
        f"| the same, 99th percentile | {reaction_['p99']:.0f} ms | < 165 ms |",
        f"| drain of {PODS} pods under {APPS} budgets with room | {', '.join(f'{s:.1f}' for s in seconds['rescheduler'])} s | |",
        f"| `kubectl drain` of an equal node, same run | {', '.join(f'{s:.1f}' for s in seconds['kubectl drain'])} s | |",
        f"| times as fast, median (min to max) | {ratio['median']:.1f} ({ratio['min']:.1f} to {ratio['max']:.1f}) | >= 4 |",
        f"| requests on pods for each pod: evictions | {results['requests a pod']['evictions']:.2f} | 1 |",
        f"| the same: list and watch | {results['requests a pod']['list and watch']:.2f} | |",
        (
            f"| 10 apps of 10 under `maxUnavailable: 1`, pods Ready after 2 s, plainly | {never['seconds']:.0f} s, "
            f"lowest Ready {never['lowest ready of 100']} of 100 | |"
        ),
        (
            f"| the same, replacement first | {first['seconds']:.0f} s, lowest Ready {first['lowest ready of 100']} of 100 | "
            "faster, 100 |"
        ),
        f"| idle operator, {NODES} nodes, resident | {memory['idle']:.0f} MB | < 120 MB |",
        "",
        "What each import costs, MB: " + ", ".join(f"{k} {v:.0f}" for k, v in memory["imports"].items()) + ".",
        "",
    ]
    return "\n".join(lines)


@contextmanager
def operated(nodes: int) -> Iterator[tuple[ControlPlane, Observer, Operator]]:
    """A control plane with so many nodes, and an operator that leads on it.

    Limits of the controllers' own clients would hide what is measured here; they are the same for both sides.
    """
    with ControlPlane.start(audit=True, open_limits=True, node_monitor_grace_period="50s") as plane:
        identity, observer = install(plane), Observer(plane.kubeconfig)
        say(f"adding {nodes} nodes")
        plane.add_nodes(nodes, prefix="idle")
        plane.add_nodes(2, prefix="drain", labels={"bench": "drain"})
        fast = {"maxConcurrent": "100%", "maxUnavailable": "100%"}
        plane.apply(
            workloads.policy("bench", maintenance=fast, drain={"replacement": "Never", "maxEvictionsPerSecond": 1000})
        )
        with Operator(identity, plane.workdir / "operator.log") as operator:
            until(lambda: "leader.working" in operator.log.read_text(), "the operator to lead")
            yield plane, observer, operator


def main() -> None:
    """Measure, print, write down."""
    results: dict[str, Any] = {}
    with operated(NODES) as (plane, observer, operator):
        time.sleep(10)
        results["memory, MB"] = {"idle": operator.memory(), "imports": imports()}
        results["annotation to cordon, ms"] = reaction(plane, observer)
    with operated(20) as (plane, observer, operator):
        since = time.time()
        results["drain of 100 pods"] = drains(plane, observer)
        results["requests a pod"] = requests_a_pod(plane, since)
        results["replacement first"] = replacements(plane, observer)
        results["memory, MB"]["after the drains"] = operator.memory()
    (HERE / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    (HERE / "results.md").write_text(table(results))
    sys.stdout.write(table(results))


if __name__ == "__main__":
    main()
