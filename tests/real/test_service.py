"""No request fails while a node is drained: an HTTP service on real kubelets, and a client that follows its endpoints.

The client sends 50 requests a second, each on a new connection without a retry. The app starts in 2 s and waits for 3 s
in its preStop hook. An app whose preStop is shorter than its router's lag loses requests under any tool.
"""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness import binaries, workloads
from harness.observer import Observer
from harness.operators import Operator
from harness.real.images import SERVER
from harness.real.lab import Lab
from harness.waiting import until

RATE, COUNT, LEAD = 50, 1500, 5  # requests a second, requests in all, and seconds before the drain
ONE, MOST = {"minAvailable": 1}, {"maxUnavailable": 1}
FOUND: list[dict[str, Any]] = []


@pytest.fixture(scope="module", autouse=True)
def written(results: Path) -> Iterator[None]:
    """Write the results for bench/."""
    FOUND.clear()
    yield
    results.write_text(json.dumps(FOUND) + "\n")


def service(lab: Lab, space: str, replicas: int, budget: dict[str, Any] | None) -> None:
    container = {
        "name": "app",
        "image": SERVER,
        "imagePullPolicy": "Never",
        "args": ["-startup=2s", "-work=10ms"],
        "ports": [{"containerPort": 8080, "name": "http"}],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 1, "failureThreshold": 1},
        "lifecycle": {"preStop": {"sleep": {"seconds": 3}}},
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
    }
    app = workloads.deployment(
        "web", replicas, space, grace=20, containers=[container], automountServiceAccountToken=False
    )
    http = workloads.service("web", space)
    http["spec"]["ports"] = [{"port": 80, "targetPort": "http", "name": "http"}]
    lab.plane.apply(workloads.namespace(space), app, http)
    if budget:
        lab.plane.apply(workloads.budget("web", space, **budget))
    lab.plane.kubectl("rollout", "status", "deploy/web", "-n", space, "--timeout=90s")


def fullest(lab: Lab, space: str) -> str:
    """Return the node with most of the pods."""
    where: list[str] = [pod["spec"]["nodeName"] for pod in Observer(lab.plane.kubeconfig).pods(space)]
    return max(sorted(set(where)), key=where.count)


def load(lab: Lab, space: str, lag: str) -> subprocess.Popen[str]:
    command = [str(lab.folder / "load"), "-server", lab.plane.server, "-pki", str(lab.plane.pki)]
    command += ["-namespace", space, "-service", "web", "-rate", str(RATE), "-count", str(COUNT), "-lag", lag]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@dataclass(frozen=True)
class Scenario:
    """A drain by one tool; `lag`: seconds after which the client gets a change of endpoints."""

    name: str
    way: str
    replicas: int = 1
    budget: dict[str, Any] | None = None
    lag: str = "0s"


SCENARIOS = (
    Scenario("one replica", "rescheduler"),
    Scenario("one replica, minAvailable 1", "rescheduler", budget=ONE),
    Scenario("one replica, minAvailable 1, client 1 s late", "rescheduler", budget=ONE, lag="1s"),
    Scenario("three replicas, maxUnavailable 1", "rescheduler", 3, MOST),
    Scenario("one replica", "kubectl drain"),
    Scenario("three replicas, maxUnavailable 1", "kubectl drain", 3, MOST),
)


def drain(lab: Lab, node: str, way: str) -> None:
    """Drain the node to its end."""
    if way == "rescheduler":
        lab.plane.kubectl("annotate", "node", node, "rescheduler.dev/maintenance=test")
        observer = Observer(lab.plane.kubeconfig)
        until(lambda: observer.phase(node) == "Drained", "the drain to end", seconds=60)
    else:
        program = [str(binaries.path("kubectl")), "--kubeconfig", str(lab.plane.kubeconfig)]
        subprocess.run([*program, "drain", node, "--ignore-daemonsets"], check=True, capture_output=True, timeout=60)


def restore(lab: Lab, node: str, space: str) -> None:
    lab.plane.kubectl("annotate", "node", node, "rescheduler.dev/maintenance-")
    observer = Observer(lab.plane.kubeconfig)
    until(lambda: observer.drain(node) is None, "the node to be restored")
    lab.plane.kubectl("uncordon", node)
    lab.plane.kubectl("delete", "namespace", space, "--wait=false")


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: f"{s.way}: {s.name}")
def test_requests_while_a_node_is_drained(lab: Lab, operator: Operator, scenario: Scenario) -> None:
    space = f"s{len(FOUND)}"
    service(lab, space, scenario.replicas, scenario.budget)
    node = fullest(lab, space)
    client = load(lab, space, scenario.lag)
    with contextlib.suppress(subprocess.TimeoutExpired):
        client.wait(LEAD)
    drain(lab, node, scenario.way)
    output, _ = client.communicate(timeout=60)
    answers = json.loads(output)
    failed = [answer for answer in answers if answer["error"]]
    begun = answers[0]["at"]
    FOUND.append(
        {
            "name": scenario.name,
            "way": scenario.way,
            "requests": len(answers),
            "failed": len(failed),
            "failed at": [round(answer["at"] - begun, 2) for answer in failed],
            "errors": sorted({answer["error"] for answer in failed}),
        }
    )
    restore(lab, node, space)
    assert len(answers) == COUNT
    if scenario.way == "rescheduler":
        assert not failed
    assert operator.running
