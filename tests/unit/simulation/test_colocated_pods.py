"""Drains of pods that must share a node, in simulated time."""

import random

from harness import workloads
from invariants.objects import is_ready, labels, node_of
from rescheduler.core.model.raw import RawObject
from simulation.clusters import SPACE
from simulation.neighbours import Attacher, pair
from simulation.scenarios import Sandbox, run_scenario


def of(sandbox: Sandbox, app: str, node: str = "") -> list[RawObject]:
    return [pod for pod in sandbox.pods(node) if labels(pod).get("app") == app]


def test_pods_that_must_share_a_node_leave_together_and_at_once() -> None:
    async def scenario(sandbox: Sandbox) -> None:
        await sandbox.settle(*pair(), drain={"replacementTimeout": "5m"})
        sandbox.cluster.annotate("n1", maintenance="test")
        asked = sandbox.now
        await sandbox.until(lambda: sandbox.status().get("phase") == "Drained")
        assert sandbox.now - asked < 60
        await sandbox.until(lambda: all(is_ready(pod) for pod in (*of(sandbox, "left"), *of(sandbox, "right"))))
        assert len({node_of(pod) for pod in (*of(sandbox, "left"), *of(sandbox, "right"))} - {"n1"}) == 1

    run_scenario(Sandbox, scenario)


def test_pods_that_must_share_a_node_stay_while_a_budget_lets_only_one_go() -> None:
    async def scenario(sandbox: Sandbox) -> None:
        await sandbox.settle(*pair(), workloads.budget("right", SPACE, maxUnavailable=0))
        sandbox.cluster.annotate("n1", maintenance="test")
        await sandbox.until(lambda: len(sandbox.status().get("blockers") or ()) == 2)
        await sandbox.until(lambda: sandbox.status().get("phase") == "Blocked")
        assert all(is_ready(pod) for pod in (*of(sandbox, "left", "n1"), *of(sandbox, "right", "n1")))
        assert len(of(sandbox, "left", "n1")) == 1

    run_scenario(Sandbox, scenario)


def test_a_pod_that_another_pod_controls_leaves_with_it() -> None:
    async def scenario(sandbox: Sandbox) -> None:
        sandbox.cluster.controllers.append(Attacher(sandbox.server, random.Random(1)))
        await sandbox.settle(workloads.deployment("single", 1, SPACE))
        await sandbox.until(lambda: len(of(sandbox, "attached-" + name_of(sandbox), "n1")) == 1)
        sandbox.cluster.annotate("n1", maintenance="test")
        await sandbox.until(lambda: sandbox.status().get("phase") == "Drained")
        sent = [c.place.name for _, c in sandbox.calls if c.verb in ("evict", "delete") and "dryRun" not in str(c.body)]
        assert [name.startswith("single") for name in sent] == [True]

    def name_of(sandbox: Sandbox) -> str:
        return str(of(sandbox, "single")[0]["metadata"]["name"])

    run_scenario(Sandbox, scenario)
