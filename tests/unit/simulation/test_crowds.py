"""With more watches than connections, or with unreadable pods, drains continue and name what they wait for."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from harness import workloads
from invariants.objects import name
from rescheduler.core.model import pods
from rescheduler.core.model.pods import Pod
from rescheduler.kube.client import Client
from rescheduler.kube.connection_limits import WatchLimiter
from simulation.clusters import SPACE
from simulation.scenarios import Sandbox, run_scenario


def test_with_few_connections_all_owners_have_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some watches keep their connections, and owners of blocked pods need a watch forever: other pods still leave."""
    made: list[WatchLimiter] = []

    def turns(client: Client) -> WatchLimiter:
        found: WatchLimiter | None = client.__dict__.get("_few")
        if found is None:
            found = client.__dict__["_few"] = WatchLimiter(20, 1.0)
            made.append(found)
        return found

    monkeypatch.setattr(Client, "watch_limiter", property(turns))

    async def scenario(sandbox: Sandbox) -> None:
        most = 0
        opened = sandbox.server.open

        def counted(*arguments: Any) -> Any:
            nonlocal most
            stream = opened(*arguments)
            most = max(most, len(sandbox.server._streams))
            return stream

        monkeypatch.setattr(sandbox.server, "open", counted)
        held = [f"a-held-{number}" for number in range(12)]
        budgets = [workloads.budget(app, SPACE, maxUnavailable=1) for app in held]
        more = [budget | {"metadata": {"namespace": SPACE, "name": f"{name(budget)}-2"}} for budget in budgets]
        free = [f"web-{number}" for number in range(12)]
        deployments = (workloads.deployment(app, 1, SPACE) for app in (*held, *free))
        await sandbox.settle(*budgets, *more, *deployments)
        sandbox.cluster.annotate("n1", maintenance="test")
        await sandbox.until(lambda: any(each.waiting for each in made))
        left = await sandbox.until(lambda: len(sandbox.pods("n1")) == len(held), limit=300)
        assert left - sandbox.cordoned_at() < 180
        await sandbox.until(lambda: sandbox.status().get("phase") == "Blocked")
        assert {blocker["class"] for blocker in sandbox.status()["blockers"]} == {"SeveralBudgets"}
        assert most <= 20 * len(made)

    run_scenario(Sandbox, scenario)


def test_a_pod_that_cannot_be_read_is_named_and_its_node_is_not_drained(monkeypatch: pytest.MonkeyPatch) -> None:
    read = pods.parse_pod
    bad = {"unhealthy-0"}

    def project(raw: Mapping[str, Any]) -> Pod:
        if raw["metadata"]["name"] in bad:
            raise OverflowError("cannot convert float infinity to integer")
        return read(raw)

    monkeypatch.setattr(pods, "parse_pod", project)

    async def scenario(sandbox: Sandbox) -> None:
        await sandbox.settle(workloads.deployment("web", 2, SPACE), workloads.stateful_set("unhealthy", 1, SPACE))
        sandbox.cluster.annotate("n1", maintenance="test")
        await sandbox.until(lambda: sandbox.status().get("phase") == "Blocked")
        assert [name(pod) for pod in sandbox.pods("n1")] == ["unhealthy-0"]
        (blocker,) = sandbox.status()["blockers"]
        assert (blocker["pod"], blocker["class"]) == ("unhealthy-0", "Unreadable")
        assert "cannot convert float infinity" in blocker["message"]
        assert sandbox.status()["pods"]["moved"] == 2
        await asyncio.sleep(600)
        assert sandbox.status()["phase"] == "Blocked"
        bad.clear()
        sandbox.cluster.edit(
            "pods", "unhealthy-0", lambda raw: raw["metadata"].setdefault("labels", {}).update(now="well"), SPACE
        )
        await sandbox.until(lambda: sandbox.status().get("phase") == "Drained")
        assert not sandbox.pods("n1")

    run_scenario(Sandbox, scenario)
