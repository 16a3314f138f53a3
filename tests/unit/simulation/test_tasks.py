"""A task that fails affects only itself."""

from typing import Any

import pytest

from harness import workloads
from rescheduler.controllers.drain.drain_task import DrainTask
from rescheduler.controllers.drain.node_controller import NodeController
from rescheduler.controllers.failure.lease_monitor import LeaseMonitor
from rescheduler.core.rebalance import node_groups
from simulation.clusters import SPACE
from simulation.scenarios import Sandbox, run_scenario

BROKEN = "broken for this test"


class Town(Sandbox):
    """Four nodes with two small apps; two may be drained together."""

    def __init__(self) -> None:
        super().__init__()
        policy = workloads.policy("default", maintenance={"maxConcurrent": 2, "maxUnavailable": 2})
        self.cluster.deploy(policy, *(workloads.deployment(app, 4, SPACE) for app in ("web", "api")))
        self.cluster.start()

    def progressing(self, node: str) -> tuple[str, str]:
        found = (c for c in self.status(node).get("conditions", []) if c["type"] == "Progressing")
        return next(((c["reason"], c["message"]) for c in found), ("", ""))

    def complaint(self) -> str:
        """Return the message of the leader's `/readyz`; empty if it is ready."""
        leaders = (
            operator.app for operator in self.cluster.operators if operator.app and operator.app.election.holds_lease()
        )
        return next((app._ready() or "" for app in leaders), "")


def breaks(monkeypatch: pytest.MonkeyPatch, where: Any, name: str, *, only: str = "") -> list[str]:
    """Let a method raise while the returned list is not empty; `only`: for the object of this name."""
    whole, broken = getattr(where, name), [BROKEN]

    async def method(self: Any, *args: Any) -> Any:
        if broken and (not only or only in (getattr(self, "name", ""), *map(str, args))):
            raise OverflowError(BROKEN)
        return await whole(self, *args)

    monkeypatch.setattr(where, name, method)
    return broken


def test_a_drain_whose_look_raises_costs_that_drain_only_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = breaks(monkeypatch, DrainTask, "_reconcile", only="n1")

    async def scenario(town: Town) -> None:
        await town.until(lambda: len(town.pods()) == 8 and not town.cluster.unready())
        for node in ("n1", "n2"):
            town.cluster.annotate(node, maintenance="x")
        await town.until(lambda: town.status("n2").get("phase") == "Drained")
        await town.until(lambda: town.progressing("n1")[0] == "InternalError", 120)
        assert "OverflowError" in town.progressing("n1")[1]
        assert "task drain of n1 failed" in town.complaint()
        broken.clear()
        await town.until(lambda: town.status("n1").get("phase") == "Drained")
        assert town.complaint() == ""

    run_scenario(Town, scenario)


def test_a_node_that_cannot_be_looked_at_costs_that_node_only(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = breaks(monkeypatch, NodeController, "_reconcile", only="n1")

    async def scenario(town: Town) -> None:
        await town.until(lambda: len(town.pods()) == 8 and not town.cluster.unready())
        for node in ("n1", "n2"):
            town.cluster.annotate(node, maintenance="x")
        await town.until(lambda: town.status("n2").get("phase") == "Drained")
        assert not town.status("n1")
        assert "task node of n1 failed" in town.complaint()
        broken.clear()
        await town.until(lambda: town.status("n1").get("phase") == "Drained")

    run_scenario(Town, scenario)


def test_a_rebalancer_that_fails_stops_no_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any) -> Any:
        raise OverflowError(BROKEN)

    monkeypatch.setattr(node_groups, "build_groups", fail)

    async def scenario(town: Town) -> None:
        await town.until(lambda: len(town.pods()) == 8 and not town.cluster.unready())
        town.cluster.annotate("n1", maintenance="x")
        await town.until(lambda: town.status("n1").get("phase") == "Drained")
        assert "task rebalance failed" in town.complaint()

    run_scenario(Town, scenario)


def test_a_leader_that_cannot_hear_the_nodes_acts_on_nothing_and_then_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both replicas fail here; each ends, so that a healthy one can lead."""

    def fail(_: Any) -> Any:
        raise OverflowError(BROKEN)

    async def scenario(town: Town) -> None:
        await town.until(lambda: len(town.pods()) == 8 and not town.cluster.unready())
        monkeypatch.setattr(LeaseMonitor, "evaluate", fail)
        await town.until(
            lambda: all(o.app and o.app.store.state_builder.is_view_stale() for o in town.cluster.operators), 60
        )
        town.cluster.annotate("n1", maintenance="x")
        await town.until(lambda: all(o.crashed for o in town.cluster.operators), 300)
        assert not any(change.cordons for change in town.changes)
        assert all("task node_leases failed" in o.app.failure for o in town.cluster.operators if o.app)

    run_scenario(Town, scenario)
