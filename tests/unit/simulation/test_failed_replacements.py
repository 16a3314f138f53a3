"""Replacements that do not come up: each drain ends or names the cause, in simulated time."""

import asyncio
from typing import Any

from harness import workloads
from invariants.objects import controller, deleting, is_ready, labels, node_of
from invariants.records import Change
from rescheduler.core.model.raw import RawObject
from simulation.clusters import SPACE
from simulation.controllers import BROKEN, VERSION, ReplicaSets
from simulation.scenarios import Sandbox, releases, run_scenario

TIMEOUT = 60
DRAIN = {"replacementTimeout": f"{TIMEOUT}s"}


class Counting(Sandbox):
    """A sandbox that counts Ready pods.

    Attributes:
        least: fewest Ready pods of `web` since `count`.
    """

    least: int | None = None

    def change(self, change: Change) -> None:
        super().change(change)
        if change.place.resource == "pods" and self.least is not None:
            self.count()

    def count(self) -> None:
        ready = sum(labels(p).get("app") == "web" and is_ready(p) and not deleting(p) for p in self.pods())
        self.least = ready if self.least is None else min(self.least, ready)

    def begin(self) -> float:
        """Begin to count and to drain; return the time."""
        self.count()
        self.cluster.annotate("n1", maintenance="test")
        return self.now

    def blockers(self) -> list[RawObject]:
        return list(self.status().get("blockers") or ())

    async def drained(self, limit: float) -> float:
        return await self.until(lambda: self.status().get("phase") == "Drained", limit=limit)


def test_a_replacement_that_is_never_ready_ends_after_three_attempts() -> None:
    async def scenario(sandbox: Counting) -> None:
        await sandbox.settle(workloads.deployment("web", 1, SPACE), drain=DRAIN)
        for node in ("n2", "n3"):
            sandbox.cluster.machines[node].slow = 1e6
        begun = sandbox.begin()
        await sandbox.until(sandbox.blockers, limit=2 * TIMEOUT)
        (blocker,) = sandbox.blockers()
        assert blocker["message"].startswith("no replacement became Ready in 1 of 3 attempts: pod web-")
        await asyncio.sleep(begun + 2.75 * TIMEOUT - 5 - sandbox.now)
        assert sandbox.least == 1
        assert await sandbox.drained(limit=60) <= begun + 3 * TIMEOUT
        assert sum(releases(call) for _, call in sandbox.calls) == 3

    run_scenario(Counting, scenario)


def test_nothing_is_evicted_while_the_controllers_are_away() -> None:
    async def scenario(sandbox: Counting) -> None:
        await sandbox.settle(workloads.deployment("web", 4, SPACE), drain=DRAIN)
        (controllers,) = (c for c in sandbox.cluster.controllers if isinstance(c, ReplicaSets))
        work = controllers.reconcile
        controllers.reconcile = lambda: None  # type: ignore[method-assign]
        sandbox.begin()
        await asyncio.sleep(10 * TIMEOUT)
        assert sandbox.least == 4
        assert len(sandbox.pods("n1")) == 4
        assert any("its controller may not be at work" in b["message"] for b in sandbox.blockers())
        controllers.reconcile = work  # type: ignore[method-assign]
        await sandbox.drained(limit=5 * TIMEOUT)
        assert sandbox.least == 4

    run_scenario(Counting, scenario)


def test_the_old_replica_set_of_a_rollout_that_does_not_end_replaces_its_pods() -> None:
    async def scenario(sandbox: Counting) -> None:
        await sandbox.settle(workloads.deployment("web", 2, SPACE), drain=DRAIN)

        def broken(raw: dict[str, Any]) -> None:
            raw["spec"]["template"]["metadata"].setdefault("annotations", {}).update({VERSION: "2", BROKEN: "true"})

        sandbox.cluster.edit("deployments", "web", broken, SPACE)
        await sandbox.until(lambda: len(sandbox.pods()) == 3)
        await asyncio.sleep(20)
        begun = sandbox.begin()
        assert await sandbox.drained(limit=3 * TIMEOUT) >= begun + TIMEOUT
        assert sandbox.least == 2
        serving = [pod for pod in sandbox.pods() if is_ready(pod)]
        assert {controller(pod)["name"] for pod in serving} == {"web-rs"}
        assert "n1" not in map(node_of, serving)

    run_scenario(Counting, scenario)
