"""Many failures at once, in simulated time."""

import asyncio
import random
from collections.abc import Awaitable, Callable

from harness import workloads
from invariants.objects import condition, deleting, is_ready, node_of, set_condition
from invariants.records import Change
from rescheduler.api.drains import Phase
from rescheduler.core.model.raw import RawObject
from simulation.clusters import NAMESPACE, SPACE, Cluster
from simulation.scenarios import simulated

MACHINES = [f"n{index + 1}" for index in range(10)]
_POLICY = {
    "conditions": [
        {"type": "GpuBad", "status": ["True"], "for": "3s"},
        {"type": "Ready", "status": ["Unknown"], "for": "60s"},
    ],
    "recoverAfter": "30s",
}


class Many:
    """Ten machines with twenty pods."""

    def __init__(self, **failure: object) -> None:
        self.cluster = Cluster(random.Random(1))
        self.server = self.cluster.server
        self.cordoned: list[str] = []
        self.under_way: list[int] = []
        for node in MACHINES:
            self.cluster.add_node(node, {}, pods=10)
        self.server.make("leases", {"metadata": {"name": "rescheduler", "namespace": NAMESPACE}, "spec": {}})
        policy = workloads.policy("default", failure={**_POLICY, **failure})
        self.cluster.deploy(policy, workloads.deployment("web", 20, SPACE))
        self.server.checkers.append(self)
        self.cluster.start()

    def call(self, call: object) -> None:
        """Ignore requests: only their results count."""

    def change(self, change: Change) -> None:
        if change.cordons:
            self.cordoned.append(change.place.name)
        found = (drain.get("status") or {} for drain in self.server.all("nodedrains"))
        left = [d for d in found if d.get("phase") == Phase.DRAINING and d.get("pods", {}).get("remaining", 1)]
        self.under_way.append(len(left))

    def flag(self, *nodes: str, status: str = "True") -> None:
        """Set the condition of a detector."""
        for node in nodes:
            self.cluster.edit_node(node, lambda raw: set_condition(raw, "GpuBad", status, "Xid", self.cluster.now()))

    def pods(self) -> list[RawObject]:
        return [pod for pod in self.server.all("pods", SPACE) if not deleting(pod)]

    def says(self, node: str) -> str:
        drain = self.server.find("nodedrains", node)
        return str(condition(drain, "Progressing").get("reason", "")) if drain else ""

    async def until(self, true: Callable[[], bool], limit: float = 900) -> float:
        began = self.cluster.now().timestamp()
        while not true():
            assert self.cluster.now().timestamp() < began + limit, [(n, self.says(n)) for n in MACHINES]
            await asyncio.sleep(0.5)
        return self.cluster.now().timestamp() - began


def run_scenario(scenario: Callable[[Many], Awaitable[float]], **failure: object) -> tuple[float, Many]:
    async def fault() -> tuple[float, Many]:
        sandbox = Many(**failure)
        try:
            await sandbox.until(lambda: len(sandbox.pods()) == 20 and all(map(is_ready, sandbox.pods())))
            await asyncio.sleep(20)
            return await scenario(sandbox), sandbox
        finally:
            await sandbox.cluster.stop()

    return simulated(fault(), 1)


def evacuation(*flagged: str) -> tuple[float, Many]:
    """Return the time until no pod is on a machine that lost power, while these nodes are flagged falsely."""

    async def scenario(sandbox: Many) -> float:
        sandbox.flag(*flagged)
        await sandbox.until(lambda: {sandbox.says(node) for node in flagged} <= {"Storm"})
        await asyncio.sleep(60)
        sandbox.cluster.machines["n10"].power_off()
        return await sandbox.until(lambda: all(node_of(p) != "n10" and is_ready(p) for p in sandbox.pods()))

    return run_scenario(scenario)


def test_a_dead_node_is_evacuated_in_its_usual_time_whatever_a_bad_detector_flags() -> None:
    usual, _ = evacuation()
    beside, sandbox = evacuation("n1", "n2", "n3")
    assert beside <= usual + 1
    assert sandbox.cordoned == ["n10"]


def test_when_the_brake_opens_the_nodes_start_one_after_another() -> None:
    async def scenario(sandbox: Many) -> float:
        sandbox.flag("n1", "n2", "n3")
        await sandbox.until(lambda: {sandbox.says(node) for node in ("n1", "n2", "n3")} == {"Storm"})
        policy = {"failure": {**_POLICY, "maxUnhealthy": "100%"}}
        sandbox.cluster.edit("reschedulepolicies", "default", lambda raw: raw["spec"].update(policy))
        return await sandbox.until(lambda: all(sandbox.says(node) == "Drained" for node in ("n1", "n2", "n3")))

    _, sandbox = run_scenario(scenario)
    assert sorted(sandbox.cordoned) == ["n1", "n2", "n3"]
    assert max(sandbox.under_way) == 1


def test_nodes_that_die_together_do_not_wait_for_each_others_proof() -> None:
    """Pods that may run twice are deleted at once; other pods wait for the kubelet, and hold no slot."""

    async def scenario(sandbox: Many) -> float:
        for node in ("n1", "n2"):
            sandbox.cluster.machines[node].power_off()
        return await sandbox.until(lambda: all(node_of(p) not in ("n1", "n2") for p in sandbox.pods()))

    took, sandbox = run_scenario(scenario)
    assert sorted(sandbox.cordoned) == ["n1", "n2"]
    assert took <= evacuation()[0] + 5
