"""Machines that fall silent, by the real engine in simulated time."""

import asyncio
import random

from cluster import workloads
from invariants.records import Change
from simulation.clusters import NAMESPACE, SPACE, Cluster
from simulation.scenes import World, play, simulated

MACHINES = [f"n{index + 1}" for index in range(10)]


class Cordons:
    """Who is cordoned, as it happens."""

    def __init__(self) -> None:
        self.nodes: list[str] = []

    def call(self, call: object) -> None:
        """Only what came of it counts."""

    def change(self, change: Change) -> None:
        if change.cordons:
            self.nodes.append(change.place.name)


def cordoned(*cut: str) -> list[str]:
    """The nodes that are cordoned while these machines are cut off and the node controller is not sure of it yet."""

    async def act() -> list[str]:
        cluster, found = Cluster(random.Random(1)), Cordons()
        for node in MACHINES:
            cluster.add_node(node, {}, pods=10)
        cluster.server.make("leases", {"metadata": {"name": "rescheduler", "namespace": NAMESPACE}, "spec": {}})
        failure = {"leaseTimeout": "20s", "maxUnhealthy": "20%"}
        cluster.deploy(workloads.policy("default", failure=failure), workloads.deployment("web", 20, SPACE))
        cluster.server.judges.append(found)
        cluster.start()
        try:
            await asyncio.sleep(60)
            for node in cut:
                cluster.machines[node].cut = True
            await asyncio.sleep(30)
        finally:
            await cluster.stop()
        return found.nodes

    return simulated(act(), 1)


def test_a_machine_that_falls_silent_alone_is_suspected() -> None:
    assert cordoned("n3") == ["n3"]


def test_of_an_outage_none_is_though_their_leases_expire_one_after_another() -> None:
    assert cordoned("n1", "n2", "n3", "n4") == []


def test_who_is_found_alive_when_its_lease_is_read_is_not_touched() -> None:
    """A Lease that is renewed every 10 s is late after 4, and no sign of a failure yet."""

    async def scene(world: World) -> None:
        failure = {"leaseTimeout": "4s", "maxUnhealthy": "100%"}
        world.cluster.deploy(workloads.policy("default", failure=failure), workloads.deployment("web", 30, SPACE))
        world.cluster.start()
        await asyncio.sleep(60)
        assert any(call.verb == "create" and call.place.resource == "nodedrains" for _, call in world.calls)
        assert not world.moves()
        assert not [change for change in world.changes if change.cordons]

    play(World, scene)
