"""Drains without room elsewhere, in simulated time."""

import asyncio
from itertools import pairwise
from typing import Any

from harness import workloads
from invariants.objects import is_ready, name, node_of
from rescheduler.core.model.raw import RawObject
from simulation.clusters import SPACE
from simulation.scenarios import Sandbox, releases, run_scenario


class Full(Sandbox):
    """The other two machines have room for `room` more pods in all."""

    def __init__(self, room: int) -> None:
        super().__init__()
        for node in ("n2", "n3"):
            self.resize(node, 0)
        self.resize("n2", room)

    def resize(self, node: str, pods: int) -> None:
        self.cluster.edit_node(node, lambda raw: raw["status"]["allocatable"].update(pods=str(pods)))

    def blockers(self) -> dict[str, RawObject]:
        """Return blockers without room, by pod."""
        found = self.status().get("blockers") or ()
        return {b["pod"]: b for b in found if b["class"] == "NoRoomInPool"}

    def sent(self) -> list[str]:
        """Return names of evicted or deleted pods, in order."""
        return [c.place.name for _, c in self.calls if c.verb in ("evict", "delete") and "dryRun" not in str(c.body)]

    def releases(self) -> list[tuple[float, str]]:
        """Return times and names of released pods."""
        return [(at, c.place.name) for at, c in self.calls if releases(c)]


def test_what_cannot_be_replaced_first_is_held_and_goes_when_there_is_room() -> None:
    async def scenario(sandbox: Full) -> None:
        await sandbox.settle(workloads.stateful_set("db", 2, SPACE))
        sandbox.cluster.annotate("n1", maintenance="test")
        await sandbox.until(lambda: len(sandbox.blockers()) == 2)
        assert all("0 of 2 other nodes can take the pod" in b["message"] for b in sandbox.blockers().values())
        assert all("noRoom: Evict" in b["hint"] for b in sandbox.blockers().values())
        await sandbox.until(lambda: sandbox.status()["phase"] == "Blocked")
        assert sandbox.sent() == []
        sandbox.resize("n3", 10)
        added = sandbox.now
        await sandbox.until(lambda: sandbox.status()["phase"] == "Drained")
        assert sandbox.now - added < 60

    run_scenario(lambda: Full(0), scenario)


def test_where_the_policy_says_so_it_is_evicted_all_the_same() -> None:
    async def scenario(sandbox: Full) -> None:
        await sandbox.settle(workloads.stateful_set("db", 2, SPACE), drain={"noRoom": "Evict"})
        sandbox.cluster.annotate("n1", maintenance="test")
        await sandbox.until(lambda: sandbox.status().get("phase") == "Drained")
        assert sorted(sandbox.sent()) == ["db-0", "db-1"]

    run_scenario(lambda: Full(0), scenario)


def test_those_that_fit_go_first_and_the_others_are_let_go_one_by_one() -> None:
    async def scenario(sandbox: Full) -> None:
        await sandbox.settle(workloads.deployment("web", 8, SPACE), drain={"replacementTimeout": "2m"})
        sandbox.cluster.annotate("n1", maintenance="test")
        await sandbox.until(lambda: sandbox.status().get("phase") == "Blocked")
        # Two of eight at once, twice: as many as there is room for.
        assert len(set(sandbox.sent())) == 4
        assert len(sandbox.blockers()) == 4
        alone = [at for at, _ in sandbox.releases()][4:]
        assert len(alone) >= 1
        assert all(later - at >= 120 for at, later in pairwise(alone))
        (waiting,) = {b["message"] for b in sandbox.blockers().values()}
        assert waiting.startswith("no node has room for the replacement: 0/3 nodes are available")
        sandbox.resize("n3", 10)
        added = sandbox.now
        await sandbox.until(lambda: sandbox.status()["phase"] == "Drained")
        assert sandbox.now - added < 180

    run_scenario(lambda: Full(4), scenario)


def test_the_schedulers_own_words_stand_in_the_blocker_once_it_has_spoken() -> None:
    async def scenario(sandbox: Full) -> None:
        await sandbox.settle(workloads.deployment("web", 1, SPACE))
        sandbox.cluster.annotate("n1", maintenance="test")
        await sandbox.until(lambda: len(sandbox.blockers()) == 1)
        first = next(iter(sandbox.blockers().values()))
        assert first["message"].startswith("the plan finds no room for this pod on another node: 0 of 2 other nodes")
        assert sandbox.sent() == []
        await sandbox.until(
            lambda: "the replacement is Pending: 0/3" in next(iter(sandbox.blockers().values()))["message"]
        )
        (pod,) = [p for p in sandbox.pods("n1") if is_ready(p)]
        assert name(pod) == first["pod"]

    run_scenario(lambda: Full(0), scenario)


def test_room_for_a_replacement_that_is_pending_ends_the_wait_at_once() -> None:
    async def scenario(sandbox: Full) -> None:
        await sandbox.settle(workloads.deployment("web", 1, SPACE))
        sandbox.cluster.annotate("n1", maintenance="test")
        await sandbox.until(lambda: any(not node_of(p) for p in sandbox.pods()))
        sandbox.resize("n3", 5)
        added = sandbox.now
        await sandbox.until(lambda: sandbox.status().get("phase") == "Drained")
        assert sandbox.now - added < 90

    run_scenario(lambda: Full(0), scenario)


def test_with_room_nothing_of_it_is_said_and_a_plan_costs_one_list() -> None:
    async def scenario(sandbox: Full) -> None:
        lists: list[str] = []
        original = sandbox.server.request

        def request(user: str, method: str, target: str, query: Any, body: Any, kind: str) -> Any:
            if (
                user.startswith("operator")
                and method == "GET"
                and target == "/api/v1/pods"
                and "fieldSelector" not in query
            ):
                lists.append(target)
            return original(user, method, target, query, body, kind)

        await sandbox.settle(workloads.deployment("web", 8, SPACE), workloads.stateful_set("db", 2, SPACE))
        sandbox.server.request = request  # type: ignore[method-assign]
        sandbox.cluster.annotate("n1", maintenance="test")
        await sandbox.until(lambda: sandbox.status().get("phase") == "Drained")
        said = [c for c in sandbox.changes if "NoRoomInPool" in str(c.after)]
        assert said == []
        assert len([one for one in lists if one]) <= 3  # two of them look for released pods

    run_scenario(lambda: Full(20), scenario)


def test_of_two_drains_that_have_room_on_each_others_node_alone_the_younger_steps_back() -> None:
    async def scenario(sandbox: Full) -> None:
        await sandbox.settle(
            workloads.stateful_set("a", 2, SPACE), maintenance={"maxConcurrent": "100%", "maxUnavailable": "100%"}
        )
        sandbox.resize("n2", 10)
        for node, cordoned in (("n1", True), ("n2", False)):
            sandbox.cordon(node, cordoned=cordoned)
        sandbox.cluster.deploy(workloads.stateful_set("b", 2, SPACE))
        await sandbox.until(lambda: len([p for p in sandbox.pods("n2") if is_ready(p)]) == 2)
        sandbox.cordon("n1", cordoned=False)
        sandbox.cluster.annotate("n1", maintenance="test")
        await asyncio.sleep(1)
        sandbox.cluster.annotate("n2", maintenance="test")
        await sandbox.until(lambda: sandbox.status("n2").get("phase") == "Blocked")
        await sandbox.until(lambda: sandbox.status("n1").get("phase") == "Drained")
        assert sorted(sandbox.sent()) == ["a-0", "a-1"]

    run_scenario(lambda: Full(0), scenario)
