"""Drains without room elsewhere, in simulated time."""

import asyncio
from itertools import pairwise
from typing import Any

from harness import workloads
from invariants.objects import Json, is_ready, name, node_of
from simulation.clusters import SPACE
from simulation.scenarios import World, lets_go, play


class Full(World):
    """The other two machines have room for `room` more pods in all."""

    def __init__(self, room: int) -> None:
        super().__init__()
        for node in ("n2", "n3"):
            self.resize(node, 0)
        self.resize("n2", room)

    def resize(self, node: str, pods: int) -> None:
        self.cluster.edit_node(node, lambda raw: raw["status"]["allocatable"].update(pods=str(pods)))

    def blockers(self) -> dict[str, Json]:
        """Return blockers without room, by pod."""
        found = self.status().get("blockers") or ()
        return {b["pod"]: b for b in found if b["class"] == "NoRoomInPool"}

    def sent(self) -> list[str]:
        """Return names of evicted or deleted pods, in order."""
        return [c.place.name for _, c in self.calls if c.verb in ("evict", "delete") and "dryRun" not in str(c.body)]

    def releases(self) -> list[tuple[float, str]]:
        """Return times and names of released pods."""
        return [(at, c.place.name) for at, c in self.calls if lets_go(c)]


def test_what_cannot_be_replaced_first_is_held_and_goes_when_there_is_room() -> None:
    async def scene(world: Full) -> None:
        await world.settle(workloads.stateful_set("db", 2, SPACE))
        world.cluster.annotate("n1", maintenance="test")
        await world.until(lambda: len(world.blockers()) == 2)
        assert all("0 of 2 other nodes can take the pod" in b["message"] for b in world.blockers().values())
        assert all("noRoom: Evict" in b["hint"] for b in world.blockers().values())
        await world.until(lambda: world.status()["phase"] == "Blocked")
        assert world.sent() == []
        world.resize("n3", 10)
        added = world.now
        await world.until(lambda: world.status()["phase"] == "Drained")
        assert world.now - added < 60

    play(lambda: Full(0), scene)


def test_where_the_policy_says_so_it_is_evicted_all_the_same() -> None:
    async def scene(world: Full) -> None:
        await world.settle(workloads.stateful_set("db", 2, SPACE), drain={"noRoom": "Evict"})
        world.cluster.annotate("n1", maintenance="test")
        await world.until(lambda: world.status().get("phase") == "Drained")
        assert sorted(world.sent()) == ["db-0", "db-1"]

    play(lambda: Full(0), scene)


def test_those_that_fit_go_first_and_the_others_are_let_go_one_by_one() -> None:
    async def scene(world: Full) -> None:
        await world.settle(workloads.deployment("web", 8, SPACE), drain={"replacementTimeout": "2m"})
        world.cluster.annotate("n1", maintenance="test")
        await world.until(lambda: world.status().get("phase") == "Blocked")
        # Two of eight at once, twice: as many as there is room for.
        assert len(set(world.sent())) == 4
        assert len(world.blockers()) == 4
        alone = [at for at, _ in world.releases()][4:]
        assert len(alone) >= 1
        assert all(later - at >= 120 for at, later in pairwise(alone))
        (waiting,) = {b["message"] for b in world.blockers().values()}
        assert waiting.startswith("no node has room for the replacement: 0/3 nodes are available")
        world.resize("n3", 10)
        added = world.now
        await world.until(lambda: world.status()["phase"] == "Drained")
        assert world.now - added < 180

    play(lambda: Full(4), scene)


def test_the_schedulers_own_words_stand_in_the_blocker_once_it_has_spoken() -> None:
    async def scene(world: Full) -> None:
        await world.settle(workloads.deployment("web", 1, SPACE))
        world.cluster.annotate("n1", maintenance="test")
        await world.until(lambda: len(world.blockers()) == 1)
        first = next(iter(world.blockers().values()))
        assert first["message"].startswith("the plan finds no room for this pod on another node: 0 of 2 other nodes")
        assert world.sent() == []
        await world.until(lambda: "the replacement is Pending: 0/3" in next(iter(world.blockers().values()))["message"])
        (pod,) = [p for p in world.pods("n1") if is_ready(p)]
        assert name(pod) == first["pod"]

    play(lambda: Full(0), scene)


def test_room_for_a_replacement_that_is_pending_ends_the_wait_at_once() -> None:
    async def scene(world: Full) -> None:
        await world.settle(workloads.deployment("web", 1, SPACE))
        world.cluster.annotate("n1", maintenance="test")
        await world.until(lambda: any(not node_of(p) for p in world.pods()))
        world.resize("n3", 5)
        added = world.now
        await world.until(lambda: world.status().get("phase") == "Drained")
        assert world.now - added < 90

    play(lambda: Full(0), scene)


def test_with_room_nothing_of_it_is_said_and_a_plan_costs_one_list() -> None:
    async def scene(world: Full) -> None:
        lists: list[str] = []
        original = world.server.request

        def request(user: str, method: str, target: str, query: Any, body: Any, kind: str) -> Any:
            if (
                user.startswith("operator")
                and method == "GET"
                and target == "/api/v1/pods"
                and "fieldSelector" not in query
            ):
                lists.append(target)
            return original(user, method, target, query, body, kind)

        await world.settle(workloads.deployment("web", 8, SPACE), workloads.stateful_set("db", 2, SPACE))
        world.server.request = request  # type: ignore[method-assign]
        world.cluster.annotate("n1", maintenance="test")
        await world.until(lambda: world.status().get("phase") == "Drained")
        said = [c for c in world.changes if "NoRoomInPool" in str(c.after)]
        assert said == []
        assert len([one for one in lists if one]) <= 3  # two of them look for released pods

    play(lambda: Full(20), scene)


def test_of_two_drains_that_have_room_on_each_others_node_alone_the_younger_steps_back() -> None:
    async def scene(world: Full) -> None:
        await world.settle(
            workloads.stateful_set("a", 2, SPACE), maintenance={"maxConcurrent": "100%", "maxUnavailable": "100%"}
        )
        world.resize("n2", 10)
        for node, cordoned in (("n1", True), ("n2", False)):
            world.cordon(node, cordoned=cordoned)
        world.cluster.deploy(workloads.stateful_set("b", 2, SPACE))
        await world.until(lambda: len([p for p in world.pods("n2") if is_ready(p)]) == 2)
        world.cordon("n1", cordoned=False)
        world.cluster.annotate("n1", maintenance="test")
        await asyncio.sleep(1)
        world.cluster.annotate("n2", maintenance="test")
        await world.until(lambda: world.status("n2").get("phase") == "Blocked")
        await world.until(lambda: world.status("n1").get("phase") == "Drained")
        assert sorted(world.sent()) == ["a-0", "a-1"]

    play(lambda: Full(0), scene)
