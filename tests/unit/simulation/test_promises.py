"""What is promised in seconds and requests, kept to the second by the real engine in simulated time."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from typing import Any

import looptime
import pytest
import structlog

from cluster import workloads
from invariants.objects import Json, is_ready, name, node_of
from invariants.records import Call, Change
from simulation.clusters import NAMESPACE, SPACE, Cluster
from simulation.refusals import RefusedError

NEVER = {"annotations": {"rescheduler.dev/replacement": "Never"}}


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    def drop(*_: Any) -> Any:
        raise structlog.DropEvent

    structlog.configure(processors=[drop], cache_logger_on_first_use=False)
    yield
    structlog.reset_defaults()


class World:
    """A cluster of three machines whose pods all run on the first, and a record of who wrote what, and when.

    Attributes:
        denied: names of pods whose eviction a webhook denies.
    """

    def __init__(self) -> None:
        self.cluster = Cluster(random.Random(5))
        self.server = self.cluster.server
        self.calls: list[tuple[float, Call]] = []
        self.changes: list[Change] = []
        self.denied: set[str] = set()
        self.server.judges.append(self)
        for index in (1, 2, 3):
            self.cluster.add_node(f"n{index}", {}, pods=50)
        lease = {"metadata": {"name": "rescheduler", "namespace": NAMESPACE}, "spec": {"holderIdentity": ""}}
        self.server.make("leases", lease)

    @property
    def now(self) -> float:
        return self.cluster.now().timestamp()

    def call(self, call: Call) -> None:
        """A judge of the server's: told of each request that writes."""
        if call.user.startswith("operator"):
            self.calls.append((self.now, call))
        if call.verb == "evict" and call.place.name in self.denied:
            raise RefusedError(403, 'admission webhook "x" denied the request: ask the database team')

    def change(self, change: Change) -> None:
        """A judge of the server's: told of each change."""
        self.changes.append(change)

    async def settle(self, *objects: Json, **spec: Any) -> None:
        """All pods run on the first machine."""
        for other in ("n2", "n3"):
            self.cordon(other, cordoned=True)
        self.cluster.deploy(workloads.policy("default", **spec), *objects)
        self.cluster.start()
        await self.until(lambda: self.pods() and all(is_ready(p) and node_of(p) == "n1" for p in self.pods()))
        await asyncio.sleep(5)
        for other in ("n2", "n3"):
            self.cordon(other, cordoned=False)

    def cordon(self, node: str, *, cordoned: bool) -> None:
        self.cluster.edit_node(node, lambda raw: raw["spec"].update(unschedulable=cordoned))

    def pods(self, node: str = "") -> list[Json]:
        return [p for p in self.server.all("pods", SPACE) if not node or node_of(p) == node]

    def status(self, node: str = "n1") -> Json:
        drain = self.server.find("nodedrains", node)
        return dict(drain.get("status") or {}) if drain else {}

    def moves(self, after: float = 0.0) -> list[tuple[float, str]]:
        """Requests of the operator on pods: when, and on which."""
        return [(at, c.place.name) for at, c in self.calls if c.place.resource == "pods" and at > after]

    def writes_of_status(self, after: float) -> int:
        place = ("nodedrains", "status")
        return sum(at > after and (c.place.resource, c.place.subresource) == place for at, c in self.calls)

    def cordoned_at(self, node: str = "n1") -> float:
        return next(
            c.at for c in self.changes if c.cordons and c.place.name == node and c.call and c.call.user != "human"
        )

    def said_at(self, class_: str) -> float:
        """When a blocker of this class was first in the status."""
        for change in self.changes:
            status = (change.after or {}).get("status") or {}
            if change.place.resource == "nodedrains" and class_ in {b["class"] for b in status.get("blockers") or ()}:
                return change.at
        raise LookupError(f"{class_} was never said")

    async def until(self, condition: Callable[[], Any], limit: float = 1200) -> float:
        """Wait in simulated time; when it became true."""
        end = self.now + limit
        while not condition():
            assert self.now < end, self.status()
            await asyncio.sleep(0.5)
        return self.now


def play(scene: Callable[[World], Awaitable[None]]) -> None:
    """Carry out a scene in simulated time."""

    async def act() -> None:
        world = World()
        try:
            await scene(world)
        finally:
            await world.cluster.stop()

    random.seed(5)
    with asyncio.Runner(loop_factory=lambda: looptime.new_event_loop(start=1000.0, noop_cycles=0)) as runner:
        runner.run(act())


def test_every_blocked_pod_is_named_within_ten_seconds_and_costs_two_requests_a_minute() -> None:
    async def scene(world: World) -> None:
        second = {"metadata": {"name": "two-more", "namespace": SPACE}}
        kept = {"annotations": {"rescheduler.dev/do-not-disrupt": "true"}}
        await world.settle(
            workloads.deployment("tight", 2, SPACE, **NEVER),
            workloads.budget("tight", SPACE, maxUnavailable=0),
            workloads.stateful_set("two", 1, SPACE),
            workloads.budget("two", SPACE, maxUnavailable=1),
            workloads.budget("two", SPACE, maxUnavailable=1) | second,
            workloads.stateful_set("db", 1, SPACE),
            workloads.deployment("kept", 1, SPACE, **kept),
            workloads.bare_pod("alone", SPACE),
            workloads.deployment("free", 4, SPACE, **NEVER),
            maintenance={"maxUnavailable": "100%"},
        )
        world.denied = {"db-0"}
        world.cluster.annotate("n1", maintenance="test")
        await world.until(lambda: world.status().get("phase") == "Blocked")
        begun = world.cordoned_at()
        for class_ in ("BudgetMisconfigured", "SeveralBudgets", "AdmissionDenied", "DoNotDisrupt", "Unmanaged"):
            assert world.said_at(class_) - begun <= 10, class_
        assert all(b["hint"] and b["message"] for b in world.status()["blockers"])
        assert len(world.pods("n1")) == world.status()["blockersTotal"] == 6
        # One minute after the last move it is Blocked; five minutes later its slot goes to who waits.
        world.cluster.annotate("n2", maintenance="test")
        blocked = world.now
        await world.until(lambda: world.status("n2").get("startedAt"))
        assert 295 <= world.now - blocked <= 315
        await world.until(lambda: world.status("n2").get("phase") == "Drained")
        quiet = world.now
        await asyncio.sleep(600)
        assert {name for _, name in world.moves(quiet)} == {"db-0"}
        assert len(world.moves(quiet)) <= 20
        assert world.writes_of_status(quiet + 30) == 0
        for budget in world.server.all("poddisruptionbudgets"):
            world.server.remove("poddisruptionbudgets", budget, user="human")
        left = await world.until(lambda: not {n for n in map(name, world.pods("n1")) if n.startswith(("tight", "two"))})
        assert left - quiet - 600 <= 15
        await world.until(lambda: world.status()["blockersTotal"] == 3, limit=10)

    play(scene)


def test_suspended_in_the_middle_no_pod_is_asked_to_move_a_second_later() -> None:
    async def scene(world: World) -> None:
        await world.settle(
            workloads.deployment("web", 8, SPACE, **NEVER),
            workloads.deployment("first", 8, SPACE),
            drain={"maxEvictionsPerSecond": 1},
        )
        world.cluster.annotate("n1", maintenance="test")
        await world.until(lambda: len(world.moves()) >= 4)

        def suspend(policy: Json) -> None:
            policy["spec"]["suspend"] = "All"

        world.cluster.edit("reschedulepolicies", "default", suspend)
        suspended = world.now
        await asyncio.sleep(120)
        late = [c for at, c in world.calls if at > suspended + 1 and c.place.resource == "pods"]
        assert not [c for c in late if c.verb in ("evict", "delete")]
        assert all("rescheduler-released" not in str(c.body) for c in late)  # given back, and nothing released
        assert world.pods("n1")
        assert world.status()["phase"] == "Waiting"

    play(scene)


def test_the_estimate_comes_true_and_says_that_the_window_is_too_short() -> None:
    """Ten free pods leave at once, and eight one by one: the pace of all would be far too fast."""

    async def scene(world: World) -> None:
        window = {"schedule": "* * * * *", "duration": "2m"}
        await world.settle(
            workloads.deployment("free", 10, SPACE, **NEVER),
            workloads.deployment("slow", 8, SPACE, **NEVER),
            workloads.budget("slow", SPACE, maxUnavailable=1),
            maintenance={"windows": [window]},
        )
        for node in ("n2", "n3"):
            world.cluster.machines[node].slow = 30.0
        world.cluster.annotate("n1", maintenance="test")
        await world.until(lambda: len(world.pods("n1")) == 5)
        estimated = datetime.fromisoformat(world.status()["estimatedCompletion"]).timestamp()
        asked = world.now
        fits = {c["type"]: c for c in world.status()["conditions"]}["FitsWindow"]
        assert (fits["status"], fits["reason"]) == ("False", "WillNotFit")
        await world.until(lambda: world.status().get("phase") == "Drained")
        assert 0.6 <= (estimated - asked) / (world.now - asked) <= 1.4
        assert "FitsWindow" not in {c["type"] for c in world.status()["conditions"]}

    play(scene)


def test_at_the_timeout_each_pod_goes_at_its_own_grace_before_it_whatever_holds_it_or_its_order() -> None:
    async def scene(world: World) -> None:
        rules = [
            {"podSelector": {"matchLabels": {"app": "last"}}, "order": 5},
            {"podSelector": {"matchLabels": {"app": "job"}}, "action": "WaitCompleted"},
        ]
        kept = {"rescheduler.dev/do-not-disrupt": "true"}
        await world.settle(
            workloads.deployment("tight", 1, SPACE, grace=40, **NEVER),
            workloads.budget("tight", SPACE, maxUnavailable=0),
            workloads.deployment("kept", 1, SPACE, grace=20, annotations=kept),
            workloads.deployment("job", 1, SPACE, grace=30),
            workloads.deployment(
                "short", 1, SPACE, grace=8, annotations=kept
            ),  # until it goes, nothing of order 5 does
            workloads.deployment("last", 1, SPACE, grace=10),
            workloads.deployment("long", 1, SPACE, grace=3600, annotations=kept),
            drain={"timeout": "2m", "onTimeout": "Delete", "rules": rules},
        )
        world.cluster.annotate("n1", maintenance="test")
        await world.until(lambda: world.status().get("phase") == "Drained")
        # A status has whole seconds.
        begun = datetime.fromisoformat(world.status()["startedAt"]).timestamp()
        deletes = {c.place.name.split("-")[0]: (at - begun, c) for at, c in world.calls if c.verb == "delete"}
        expected = {"long": 60, "tight": 80, "job": 90, "kept": 100, "last": 110, "short": 112}
        assert deletes.keys() == expected.keys()
        for app, due in expected.items():
            assert due <= deletes[app][0] <= due + 3, app
            assert deletes[app][1].body["gracePeriodSeconds"] >= 120 - deletes[app][0] - 2
        assert world.now - begun <= 130

    play(scene)


def test_without_a_deadline_a_blocked_pod_is_never_deleted_and_what_is_held_is_tried_on() -> None:
    async def scene(world: World) -> None:
        await world.settle(
            workloads.deployment("tight", 1, SPACE, **NEVER),
            workloads.budget("tight", SPACE, maxUnavailable=0),
            drain={"timeout": "1m", "onTimeout": "Hold"},
        )
        world.cluster.annotate("n1", maintenance="test")
        await world.until(lambda: world.status().get("phase") == "Blocked")
        await asyncio.sleep(7200)
        assert not [c for _, c in world.calls if c.verb in ("delete", "evict")]
        progressing = {c["type"]: c for c in world.status()["conditions"]}["Progressing"]
        assert progressing["reason"] in ("TimedOut", "MaxConcurrent")
        for budget in world.server.all("poddisruptionbudgets"):
            world.server.remove("poddisruptionbudgets", budget, user="human")
        await world.until(lambda: world.status().get("phase") == "Drained")

    play(scene)


def test_a_volume_that_hangs_is_waited_for_two_minutes_and_then_said() -> None:
    async def scene(world: World) -> None:
        database = workloads.stateful_set("db", 1, SPACE, grace=1)
        database["spec"]["volumeClaimTemplates"] = [{"metadata": {"name": "data"}}]
        await world.settle(database)
        (attachment,) = world.server.all("volumeattachments")
        driver = {"finalizers": ["example.com/csi"]}  # which never says that it is done
        world.server.edit("volumeattachments", attachment, lambda raw: raw["metadata"].update(driver))
        world.cluster.annotate("n1", maintenance="test")
        gone = await world.until(lambda: not world.pods("n1"))
        await asyncio.sleep(60)
        drained = {c["type"]: c for c in world.status()["conditions"]}["Drained"]
        assert (drained["status"], drained["reason"]) == ("False", "VolumesAttached")
        await world.until(lambda: world.status().get("phase") == "Drained")
        assert 115 <= world.now - gone <= 135
        said = [e for e in world.server.all("events") if e["reason"] == "VolumeStuck"]
        assert {e["involvedObject"]["kind"] for e in said} == {"Node", "NodeDrain"}
        assert "pv-data-db-0" in said[0]["message"]

    play(scene)
