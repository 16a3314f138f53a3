"""Machines that stop reporting, in simulated time."""

import asyncio
import random

import pytest

from harness import workloads
from invariants.records import Change
from rescheduler.controllers.failure.lease_monitor import LeaseMonitor
from simulation.clusters import NAMESPACE, SPACE, Cluster
from simulation.scenarios import Sandbox, run_scenario, simulated

MACHINES = [f"n{index + 1}" for index in range(10)]


class Cordons:
    """Records cordons in order."""

    def __init__(self) -> None:
        self.nodes: list[str] = []

    def call(self, call: object) -> None:
        """Ignore requests: only their results count."""

    def change(self, change: Change) -> None:
        if change.cordons:
            self.nodes.append(change.place.name)


def cordoned(*cut: str) -> list[str]:
    """Return the nodes that are cordoned while these machines are cut off and the node controller is not yet sure."""

    async def fault() -> list[str]:
        cluster, found = Cluster(random.Random(1)), Cordons()
        for node in MACHINES:
            cluster.add_node(node, {}, pods=10)
        cluster.server.make("leases", {"metadata": {"name": "rescheduler", "namespace": NAMESPACE}, "spec": {}})
        failure = {"leaseTimeout": "20s", "maxUnhealthy": "20%"}
        cluster.deploy(workloads.policy("default", failure=failure), workloads.deployment("web", 20, SPACE))
        cluster.server.checkers.append(found)
        cluster.start()
        try:
            await asyncio.sleep(60)
            for node in cut:
                cluster.machines[node].cut = True
            await asyncio.sleep(30)
        finally:
            await cluster.stop()
        return found.nodes

    return simulated(fault(), 1)


def test_a_machine_that_falls_silent_alone_is_suspected() -> None:
    assert cordoned("n3") == ["n3"]


def test_of_an_outage_none_is_though_their_leases_expire_one_after_another() -> None:
    assert cordoned("n1", "n2", "n3", "n4") == []


def test_who_is_found_alive_when_its_lease_is_read_is_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch of Leases may lag: the live read just before the first fault decides."""

    async def renewed(*_: object) -> bool:
        return False

    async def scenario(sandbox: Sandbox) -> None:
        await sandbox.settle(workloads.deployment("web", 4, SPACE), failure={"leaseTimeout": "20s"})
        monkeypatch.setattr(LeaseMonitor, "is_silent", renewed)
        sandbox.cluster.machines["n1"].cut = True
        began = sandbox.now
        await asyncio.sleep(30)
        assert sandbox.server.find("nodedrains", "n1")
        assert not sandbox.moves(after=began)
        assert not [change for change in sandbox.changes if change.cordons and change.at > began]

    run_scenario(Sandbox, scenario)


def test_a_lease_is_not_late_before_a_kubelet_would_have_renewed_it() -> None:
    async def scenario(sandbox: Sandbox) -> None:
        await sandbox.settle(workloads.deployment("web", 4, SPACE), failure={"leaseTimeout": "5s"})
        await asyncio.sleep(60)
        assert not [call for _, call in sandbox.calls if call.place.resource == "nodedrains"]

    run_scenario(Sandbox, scenario)
