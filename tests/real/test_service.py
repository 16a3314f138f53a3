"""No request fails while all nodes are drained, one after another: an HTTP service on real kubelets, and two clients.

One client follows the endpoints, the other one uses the cluster IP. Each sends 50 requests a second, each on a new
connection without a retry. The app starts in 2 s and waits for 3 s in its preStop hook. An app whose preStop is shorter
than its router's lag loses requests under any tool.
"""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from harness import binaries
from harness.real import maintenance
from harness.real.applications import Client, failures, fullest, service
from harness.real.installation import Installation
from harness.real.lab import Lab

ONE, MOST = {"minAvailable": 1}, {"maxUnavailable": 1}
KUBECTL_TIMEOUT = "30s"
Record = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True)
class Scenario:
    """Drains by one tool; `lag`: seconds after which the client gets a change of endpoints."""

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
    Scenario("one replica, minAvailable 1", "kubectl drain", budget=ONE),
    Scenario("three replicas, maxUnavailable 1", "kubectl drain", 3, MOST),
)


def drain(lab: Lab, node: str) -> bool:
    """Drain the node with Rescheduler, and restore it; whether the drain ended."""
    maintenance.request(lab, node)
    maintenance.drained(lab, node)
    maintenance.restored(lab, node)
    return True


def drain_with_kubectl(lab: Lab, node: str) -> bool:
    """Drain the node with kubectl, and restore it; whether the drain ended."""
    program = [str(binaries.path("kubectl")), "--kubeconfig", str(lab.plane.kubeconfig)]
    command = [*program, "drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout", KUBECTL_TIMEOUT]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    lab.plane.kubectl("uncordon", node)
    return ended.returncode == 0


@contextmanager
def clients(lab: Lab, space: str, lag: str) -> Iterator[dict[str, list[dict[str, Any]]]]:
    """Run both clients while the block runs; afterwards, the dictionary has their requests."""
    requests: dict[str, list[dict[str, Any]]] = {}
    running = {"endpoints": Client(lab, space, lag=lag), "cluster IP": Client(lab, space, node="n1")}
    try:
        yield requests
    finally:
        requests |= {name: client.end() for name, client in running.items()}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: f"{s.way}: {s.name}")
def test_requests_while_all_nodes_are_drained_in_turn(
    lab: Lab, operator: Installation, space: str, record: Record, scenario: Scenario
) -> None:
    service(lab, space, replicas=scenario.replicas, budget=scenario.budget)
    order = sorted(lab.nodes, key=lambda node: node != fullest(lab, space))
    with clients(lab, space, scenario.lag) as requests:
        if scenario.way == "rescheduler":
            ended = [drain(lab, node) for node in order]
        else:
            ended = [drain_with_kubectl(lab, node) for node in order]
    for client, answers in requests.items():
        failed = [answer for answer in answers if answer["error"]]
        begun = answers[0]["at"]
        result = {"name": scenario.name, "way": scenario.way, "client": client, "requests": len(answers)}
        result |= {"failed": len(failed), "failed at": [round(answer["at"] - begun, 2) for answer in failed]}
        result |= {"errors": sorted({answer["error"] for answer in failed}), "drains that ended": sum(ended)}
        record("requests", result)
    operator.settled()
    if scenario.way == "rescheduler":
        assert [failures(answers) for answers in requests.values()] == [{}, {}]
