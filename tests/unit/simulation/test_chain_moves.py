"""Chain moves of drains, in simulated time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from harness import workloads
from invariants.checker import Checker
from invariants.objects import is_ready, name, node_of
from invariants.state import RecordedState
from rescheduler.core.model.raw import RawObject
from simulation.clusters import NAMESPACE, SPACE
from simulation.scenarios import Sandbox, releases, run_scenario

_LAG = 20.0  # seconds by which the operator may know less than the checker
TOLERANT: Any = {"tolerations": [{"key": "only-small", "operator": "Exists"}]}


class Chained(Sandbox):
    """The pod of `large` runs on n1, and no taint keeps it off n2. The pod of `small` fills n2, and n3 has room for it."""

    def __init__(self) -> None:
        super().__init__()
        self.checker = Checker(RecordedState(_LAG), frozenset(("operator-a", "operator-b")), (NAMESPACE, "rescheduler"))
        self.server.checkers.insert(0, self.checker)
        self.server.answered.append(self.checker.answer)
        for operator in self.cluster.operators:
            operator.began = lambda at: setattr(self.checker.state, "born", at)
        taint = {"key": "only-small", "effect": "NoSchedule"}
        self.cluster.edit_node("n3", lambda raw: raw["spec"].update(taints=[taint]))

    async def begin(self, *, denied: bool = False, **spec: Any) -> None:
        """Start the pods, and drain n1. `denied`: a webhook denies the eviction of the pod of `small`."""
        await self.settle(
            workloads.deployment("large", 1, SPACE),
            workloads.deployment("web", 2, SPACE, **TOLERANT),
            **spec,
        )
        for node, cordoned in (("n1", True), ("n3", True)):
            self.cordon(node, cordoned=cordoned)
        # The simulation counts no pods in the status of a Deployment, and names ReplicaSets without their hash. This
        # empty Deployment stands for the one that rebalancing would ask for.
        self.cluster.deploy(
            workloads.deployment("small", 1, SPACE, **TOLERANT), workloads.deployment("small-rs", 0, SPACE)
        )
        await self.until(lambda: self.at("small") == {"n2"})
        for node in ("n1", "n3"):
            self.cordon(node, cordoned=False)
        self.cluster.edit_node("n2", lambda raw: raw["status"]["allocatable"].update(pods="1"))
        self.denied.update(name(p) for p in self.pods("n2") if denied)
        await asyncio.sleep(5)
        self.cluster.annotate("n1", maintenance="test")

    def at(self, app: str) -> set[str]:
        """Return the nodes of the Ready pods of an app."""
        return {node_of(p) for p in self.pods() if name(p).startswith(app) and is_ready(p)}

    def chain(self) -> list[RawObject]:
        return list(self.status().get("chainMoves") or ())

    def released(self) -> list[str]:
        """Return the apps of the released pods, in order."""
        return [c.place.name.split("-")[0] for _, c in self.calls if releases(c)]


def run_checked(scenario: Callable[[Chained], Awaitable[None]]) -> None:
    """Run a scenario; no invariant may break."""

    async def checked(sandbox: Chained) -> None:
        await scenario(sandbox)
        assert sandbox.checker.broken == []

    run_scenario(Chained, checked)


def test_other_pod_moves_first_and_the_pod_without_room_follows() -> None:
    async def scenario(sandbox: Chained) -> None:
        await sandbox.begin(drain={"chainMoves": 1})
        await sandbox.until(lambda: sandbox.status().get("phase") == "Drained")
        assert [(move["state"], move["node"]) for move in sandbox.chain()] == [("Moved", "n2")]
        assert sandbox.at("small") == {"n3"}
        assert sandbox.at("large") == {"n2"}
        released = sandbox.released()
        assert released.index("small") < released.index("large")
        assert released.count("small") == 1
        taints = sandbox.server.find("nodes", "n2") or {}
        await sandbox.until(lambda: not (sandbox.server.find("nodes", "n2") or taints)["spec"].get("taints"))

    run_checked(scenario)


def test_no_other_pod_moves_without_the_setting() -> None:
    async def scenario(sandbox: Chained) -> None:
        await sandbox.begin(drain={"replacementTimeout": "1m"})
        await sandbox.until(lambda: sandbox.status().get("phase") == "Blocked")
        await asyncio.sleep(300)
        assert sandbox.at("small") == {"n2"}
        assert sandbox.chain() == []
        assert "small" not in sandbox.released()
        assert [b["class"] for b in sandbox.status()["blockers"]] == ["NoRoomInPool"]

    run_checked(scenario)


def test_restart_in_the_middle_moves_nothing_twice() -> None:
    async def scenario(sandbox: Chained) -> None:
        await sandbox.begin(drain={"chainMoves": 1})
        await sandbox.until(lambda: [move["state"] for move in sandbox.chain()] == ["Moving"])
        await sandbox.until(lambda: "small" in sandbox.released())
        for operator in sandbox.cluster.operators:
            await operator.kill()
        for operator in sandbox.cluster.operators:
            operator.start()
        await sandbox.until(lambda: sandbox.status().get("phase") == "Drained")
        assert sandbox.released().count("small") == 1
        assert [move["state"] for move in sandbox.chain()] == ["Moved"]

    run_checked(scenario)


def test_failed_chain_move_is_given_up_and_the_drain_continues() -> None:
    async def scenario(sandbox: Chained) -> None:
        await sandbox.begin(denied=True, drain={"chainMoves": 1, "replacementTimeout": "1m"})
        await sandbox.until(lambda: [move["state"] for move in sandbox.chain()] == ["Failed"])
        assert "ask the database team" in sandbox.chain()[0]["message"]
        await sandbox.until(lambda: sandbox.at("web") == {"n3"})
        await asyncio.sleep(600)
        assert sandbox.at("small") == {"n2"}
        assert len(sandbox.chain()) == 1
        await sandbox.until(lambda: sandbox.status()["phase"] == "Blocked")

    run_checked(scenario)


def test_cancelled_drain_returns_the_pod_of_its_chain_move() -> None:
    async def scenario(sandbox: Chained) -> None:
        await sandbox.begin(drain={"chainMoves": 1})
        await sandbox.until(lambda: "small" in sandbox.released())
        sandbox.cluster.annotate("n1", maintenance=None)
        await sandbox.until(lambda: not sandbox.cluster.drains())
        await asyncio.sleep(120)
        assert len([p for p in sandbox.pods() if name(p).startswith("small")]) == 1
        assert "large" not in sandbox.released()
        assert not (sandbox.server.find("nodes", "n2") or {})["spec"].get("taints")

    run_checked(scenario)
