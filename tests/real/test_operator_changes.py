"""The operator is upgraded, deleted, killed or uninstalled in the middle of a drain: no pod is lost, and nothing is left.

A pod that its budget holds keeps the drain in its middle.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from harness.observer import Observer
from harness.operators import NAMESPACE
from harness.processes import kill
from harness.real import maintenance
from harness.real.applications import Client, failures, held, let_go, service
from harness.real.installation import Installation
from harness.real.lab import Lab
from harness.waiting import until
from harness.workloads import is_released

PODS = 4


@contextmanager
def drain_in_the_middle(lab: Lab, observer: Observer, space: str) -> Iterator[str]:
    """Begin a drain of a node with the pods of a service, and yield the node when a budget holds the last pod there.

    No request to the service fails meanwhile.
    """
    node = "n1"
    held(lab, space, node)
    service(lab, space, replicas=PODS, budget={"minAvailable": PODS}, nodes=(node,))
    client = Client(lab, space)
    maintenance.request(lab, node)
    until(
        lambda: any("held-0" in blocker["pod"] for blocker in observer.blockers(node)),
        lambda: f"the pod to be held: {observer.drain(node)}",
    )
    yield node
    assert failures(client.end()) == {}


def untouched(lab: Lab, node: str) -> bool:
    """Whether nothing of the operator is on a node."""
    found = lab.plane.get("node", node)
    words = [*found["metadata"].get("annotations", {}), *found["metadata"]["labels"]]
    words += [taint["key"] for taint in found["spec"].get("taints", ())]
    return not found["spec"].get("unschedulable") and not [word for word in words if "rescheduler" in word]


def complete(lab: Lab, observer: Observer, space: str) -> bool:
    """Whether the service has all its pods and no other, and each belongs to its ReplicaSet."""
    pods = [pod for pod in lab.pods(space) if pod["metadata"]["labels"]["app"] == "web"]
    return observer.ready(space, "web") == len(pods) == PODS and not any(map(is_released, pods))


def upgrade(lab: Lab, operator: Installation) -> None:
    operator.upgrade()
    images = {pod["spec"]["containers"][0]["image"] for pod in operator.pods()}
    assert [image.endswith("-next") for image in images] == [True]


def delete_leader(lab: Lab, operator: Installation) -> None:
    leader = operator.leading()
    lab.plane.kubectl("delete", "pod", leader["metadata"]["name"], "-n", NAMESPACE, "--wait=false")


def kill_leader(lab: Lab, operator: Installation) -> None:
    (process,) = lab.processes(operator.leading())
    kill(int(process.name), signal.SIGKILL)


def drain_node_of_leader(lab: Lab, operator: Installation) -> None:
    leader = operator.leading()
    maintenance.request(lab, leader["spec"]["nodeName"])


@pytest.mark.parametrize("change", [upgrade, delete_leader, kill_leader, drain_node_of_leader])
def test_a_drain_goes_on_when_the_operator_changes(
    lab: Lab,
    operator: Installation,
    observer: Observer,
    space: str,
    change: Callable[[Lab, Installation], Any],
) -> None:
    with drain_in_the_middle(lab, observer, space) as node:
        change(lab, operator)
        let_go(lab, space)
        maintenance.drained(lab, node)
        until(lambda: complete(lab, observer, space), "the service to be complete")
    assert node not in {pod["spec"]["nodeName"] for pod in operator.pods()}
    maintenance.withdraw(lab, *lab.nodes)
    until(lambda: all(untouched(lab, name) for name in lab.nodes), "nothing to be left on the nodes")
    operator.settled()


def test_the_node_of_the_leader_is_drained_and_the_other_replica_leads(lab: Lab, operator: Installation) -> None:
    leader = operator.settled()
    node = leader["spec"]["nodeName"]
    maintenance.request(lab, node)
    maintenance.drained(lab, node)
    following = operator.settled()
    assert following["metadata"]["name"] != leader["metadata"]["name"]
    assert node not in {pod["spec"]["nodeName"] for pod in operator.pods()}


def test_an_uninstall_in_the_middle_of_a_drain_leaves_nothing_behind(
    lab: Lab, operator: Installation, observer: Observer, space: str
) -> None:
    with drain_in_the_middle(lab, observer, space):
        operator.uninstall()
        assert lab.plane.get("nodedrains")["items"] == []
        until(lambda: complete(lab, observer, space), "the service to be complete")
    maintenance.withdraw(lab, *lab.nodes)
    assert all(untouched(lab, name) for name in lab.nodes)
    until(lambda: not lab.plane.get("pods", "-n", NAMESPACE)["items"], "the pods of the operator to be gone")
