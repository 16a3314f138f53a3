"""Writes to nodes and NodeDrains that the API server refuses, in simulated time."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from harness import workloads
from invariants.objects import Json
from invariants.records import Call
from rescheduler.api import names
from rescheduler.api.drains import NodeDrain
from rescheduler.controllers.drain.drain_task import DrainTask
from simulation.clusters import SPACE
from simulation.refusals import RefusedError
from simulation.scenarios import World, play

NEVER = {"annotations": {"rescheduler.dev/replacement": "Never"}}
DENIED = "admission webhook denied the request: nodes are frozen until Monday"


class Refusing(World):
    """A test bed in which some writes of the operator are refused.

    Attributes:
        refuse: returns a code for each write of the operator; 0 accepts it.
        tries: times of refused writes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.refuse: Callable[[Call], int] = lambda _: 0
        self.tries: list[float] = []
        self.retry_after = 0.0

    def call(self, call: Call) -> None:
        super().call(call)
        if call.user.startswith("operator") and (code := self.refuse(call)):
            self.tries.append(self.now)
            raise RefusedError(code, DENIED, retry_after=self.retry_after)

    async def release_one_for_good(self) -> None:
        """Let a drain of n1 wait for the only replacement, and refuse the return of the released pod."""
        await self.settle(workloads.deployment("web", 1, SPACE))
        for node in ("n2", "n3"):
            self.cluster.machines[node].slow = 3000.0
        self.cluster.annotate("n1", maintenance="test")
        await self.until(lambda: self.status().get("pods", {}).get("waitingForReplacement"))
        self.refuse = lambda call: 403 * (call.place.resource == "pods" and call.verb == "patch")

    def condition(self, type_: str, node: str = "n1") -> Json:
        found: list[Json] = self.status(node).get("conditions", [])
        return next((c for c in found if c["type"] == type_), {"status": "", "reason": "", "message": ""})

    def node(self, name: str = "n1") -> Json:
        found = self.server.find("nodes", name)
        assert found
        return found

    def frozen(self, name: str = "n1") -> bool:
        return bool(self.node(name)["spec"].get("unschedulable"))

    def gone(self, node: str = "n1") -> bool:
        return self.server.find("nodedrains", node) is None

    def events(self) -> set[str]:
        return {event["reason"] for event in self.server.all("events")}


def on_node(call: Call, subresource: str = "") -> bool:
    return call.place.resource == "nodes" and call.place.subresource == subresource


def spec_of(call: Call) -> dict[str, Any]:
    return call.body.get("spec") or {}


def meta_of(call: Call, kind: str) -> dict[str, Any]:
    return (call.body.get("metadata") or {}).get(kind) or {}


async def drained(world: Refusing) -> None:
    await world.settle(workloads.deployment("web", 3, SPACE, **NEVER))
    world.cluster.annotate("n1", maintenance="test")
    await world.until(lambda: world.status().get("phase") == "Drained")


def test_a_refused_cordon_moves_no_pod_is_named_and_gives_its_slot_up() -> None:
    async def scene(world: Refusing) -> None:
        await world.settle(workloads.deployment("web", 3, SPACE, **NEVER), maintenance={"maxUnavailable": "100%"})
        world.refuse = lambda call: 403 * (on_node(call) and call.place.name == "n1")
        world.cluster.annotate("n1", maintenance="test")
        asked = world.now
        await world.until(lambda: "cannot be cordoned" in world.condition("Progressing")["message"])
        assert world.now - asked <= 10
        assert DENIED in world.condition("Progressing")["message"]
        assert world.condition("Cordoned")["status"] == "False"
        await world.until(lambda: world.status()["phase"] == "Blocked", limit=75)
        assert DENIED in world.condition("Blocked")["message"]
        assert not world.moves()
        world.cluster.annotate("n2", maintenance="test")
        await world.until(lambda: world.status("n2").get("phase") == "Drained", limit=330)
        # With its labels and annotations and on its own, each two times a minute.
        assert 2 * (world.now - asked) / 30 - 4 <= len(world.tries) <= 2 * (world.now - asked) / 30 + 4
        world.refuse = lambda _: 0
        allowed = world.now
        await world.until(lambda: world.status().get("phase") == "Drained", limit=90)
        assert world.frozen()
        assert world.now - allowed >= 5
        assert "cannot be cordoned" not in world.condition("Progressing")["message"]

    play(Refusing, scene)


def test_what_was_refused_and_is_not_wanted_any_more_costs_nothing_and_is_not_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[float] = []

    async def scene(world: Refusing) -> None:
        look = DrainTask._reconcile

        async def counted(self: DrainTask, drain: NodeDrain) -> float:
            looks.append(world.now)
            return await look(self, drain)

        monkeypatch.setattr(DrainTask, "_reconcile", counted)
        await world.settle(workloads.deployment("web", 3, SPACE, **NEVER))
        world.refuse = lambda call: 403 * on_node(call)
        world.cluster.annotate("n1", maintenance="test")
        await world.until(lambda: "cannot be cordoned" in world.condition("Progressing")["message"])
        world.cluster.edit("reschedulepolicies", "default", lambda policy: policy["spec"].update(suspend="All"))
        await world.until(lambda: world.condition("Progressing")["reason"] == "Suspended")
        before = len(looks)
        await asyncio.sleep(300)
        assert len(looks) - before <= 60
        world.cluster.edit("reschedulepolicies", "default", lambda policy: policy["spec"].pop("suspend"))
        world.cordon("n1", cordoned=True)  # by hand
        await world.until(lambda: world.status()["phase"] == "Drained")
        assert "cannot be cordoned" not in world.condition("Progressing")["message"]

    play(Refusing, scene)


def test_a_node_is_cordoned_without_the_labels_and_annotations_that_are_refused() -> None:
    async def scene(world: Refusing) -> None:
        await world.settle(workloads.deployment("web", 3, SPACE, **NEVER), drain={"excludeFromLoadBalancers": True})
        world.refuse = lambda call: 422 * (on_node(call) and bool(meta_of(call, "labels")))
        world.cluster.annotate("n1", maintenance="test")
        await world.until(lambda: world.status().get("phase") == "Drained", limit=30)
        assert "the drain continues without them" in world.condition("Progressing")["message"]
        world.refuse = lambda _: 0
        await world.until(lambda: names.SCALE_DOWN_DISABLED in world.node()["metadata"]["annotations"], limit=60)
        await world.until(lambda: "continues without" not in world.condition("Progressing")["message"], limit=30)
        world.cluster.annotate("n1", maintenance=None)
        await world.until(world.gone, limit=30)
        assert names.SCALE_DOWN_DISABLED not in world.node()["metadata"]["annotations"]

    play(Refusing, scene)


def test_refused_conditions_stop_neither_the_drain_nor_the_restore() -> None:
    async def scene(world: Refusing) -> None:
        world.refuse = lambda call: 403 * on_node(call, "status")
        await drained(world)
        await asyncio.sleep(120)
        assert len(world.tries) <= 8
        assert "conditions cannot be written" in world.condition("Progressing")["message"]
        world.cluster.annotate("n1", maintenance=None)
        await world.until(world.gone, limit=60)
        assert not world.frozen()

    play(Refusing, scene)


def test_conditions_that_may_not_be_removed_are_left_to_later() -> None:
    async def scene(world: Refusing) -> None:
        def ours() -> set[str]:
            return {c["type"] for c in world.node()["status"]["conditions"]} & set(names.NODE_CONDITIONS)

        await drained(world)
        await world.until(ours)
        world.refuse = lambda call: 403 * on_node(call, "status")
        world.cluster.annotate("n1", maintenance=None)
        await world.until(world.gone, limit=60)
        assert not world.frozen()
        assert ours()
        world.refuse = lambda _: 0
        await world.until(lambda: not ours(), limit=60)

    play(Refusing, scene)


def test_a_refused_restore_uncordons_what_it_may_and_names_the_rest() -> None:
    async def scene(world: Refusing) -> None:
        await drained(world)
        world.refuse = lambda call: 403 * (on_node(call) and bool(meta_of(call, "annotations")))
        world.cluster.annotate("n1", maintenance=None)
        await world.until(lambda: not world.frozen(), limit=10)
        await world.until(lambda: "cannot be removed from the node" in world.condition("Progressing")["message"])
        assert world.status()["phase"] == "Restoring"
        assert DENIED in world.condition("Progressing")["message"]
        tries, at = len(world.tries), world.now
        await asyncio.sleep(300)
        assert len(world.tries) - tries <= 2 * (world.now - at) / 60 + 1
        world.refuse = lambda _: 0
        await world.until(world.gone, limit=35)
        assert names.SCALE_DOWN_DISABLED not in world.node()["metadata"]["annotations"]
        assert "Restored" in world.events()

    play(Refusing, scene)


def test_a_node_too_full_for_a_note_of_the_cancellation_is_uncordoned_and_not_drained_again() -> None:
    async def scene(world: Refusing) -> None:
        await drained(world)
        world.refuse = lambda call: 422 * (on_node(call) and names.CANCELLED in meta_of(call, "annotations"))
        drain = world.server.find("nodedrains", "n1")
        assert drain
        world.server.remove("nodedrains", drain, user="human")
        await world.until(lambda: not world.frozen(), limit=10)
        await asyncio.sleep(120)
        assert "remove rescheduler.dev/maintenance from the node" in world.condition("Progressing")["message"]
        assert not world.frozen()
        world.cluster.annotate("n1", maintenance=None)
        await world.until(world.gone, limit=35)

    play(Refusing, scene)


def test_a_status_that_cannot_be_written_is_told_by_an_event_and_stops_no_restore() -> None:
    async def scene(world: Refusing) -> None:
        await drained(world)
        world.refuse = lambda call: 403 * (call.place.resource == "nodedrains" and call.place.subresource == "status")
        world.cluster.annotate("n1", maintenance=None)
        await world.until(world.gone, limit=30)
        assert not world.frozen()
        world.cluster.annotate("n1", maintenance="again")
        await world.until(lambda: "WriteFailed" in world.events(), limit=30)
        assert not world.frozen()  # nothing is written on a node before the status says so
        tries, at = len(world.tries), world.now
        await asyncio.sleep(300)
        assert len(world.tries) - tries <= 2 * (world.now - at) / 60 + 1

    play(Refusing, scene)


def test_a_finalizer_that_cannot_be_removed_is_named() -> None:
    async def scene(world: Refusing) -> None:
        await drained(world)
        world.refuse = lambda call: (
            403 * (call.place.resource == "nodedrains" and "finalizers" in (call.body.get("metadata") or {}))
        )
        world.cluster.annotate("n1", maintenance=None)
        await world.until(lambda: "finalizer of the NodeDrain" in world.condition("Progressing")["message"], limit=30)
        assert not world.frozen()
        tries, at = len(world.tries), world.now
        await asyncio.sleep(300)
        assert len(world.tries) - tries <= 2 * (world.now - at) / 60 + 1
        world.refuse = lambda _: 0
        await world.until(world.gone, limit=35)

    play(Refusing, scene)


def test_a_node_drain_that_cannot_be_created_is_told_by_an_event() -> None:
    async def scene(world: Refusing) -> None:
        await world.settle(workloads.deployment("web", 3, SPACE, **NEVER))
        world.refuse = lambda call: 403 * (call.place.resource == "nodedrains" and call.verb == "create")
        world.cluster.annotate("n1", maintenance="test")
        await world.until(lambda: "WriteFailed" in world.events(), limit=30)
        tries, at = len(world.tries), world.now
        await asyncio.sleep(300)
        assert len(world.tries) - tries <= 2 * (world.now - at) / 60 + 1
        world.refuse = lambda _: 0
        await world.until(lambda: world.status().get("phase") == "Drained", limit=60)

    play(Refusing, scene)


def test_a_drain_that_nothing_asks_for_moves_no_pod_though_it_cannot_be_deleted() -> None:
    async def scene(world: Refusing) -> None:
        slow = {"maxEvictionsPerSecond": 1}
        await world.settle(workloads.deployment("web", 20, SPACE, **NEVER), drain=slow)
        world.refuse = lambda call: 403 * (call.place.resource == "nodedrains" and call.verb == "delete")
        world.cluster.annotate("n1", maintenance="test")
        await world.until(lambda: len(world.moves()) >= 3)
        world.cluster.annotate("n1", maintenance=None)
        await asyncio.sleep(3)
        moved = len(world.moves())
        await asyncio.sleep(120)
        assert len(world.moves()) == moved < 20
        assert world.frozen()
        assert world.condition("Progressing")["reason"] == "Cancelled"
        assert "cannot be deleted" in world.condition("Progressing")["message"]
        assert "WriteFailed" in world.events()
        world.refuse = lambda _: 0
        await world.until(world.gone, limit=35)
        assert not world.frozen()

    play(Refusing, scene)


def test_a_server_that_asks_for_time_is_given_it() -> None:
    async def scene(world: Refusing) -> None:
        await world.settle(workloads.deployment("web", 3, SPACE, **NEVER))
        world.retry_after = 60.0
        world.refuse = lambda call: 429 * on_node(call)
        world.cluster.annotate("n1", maintenance="test")
        await world.until(lambda: len(world.tries) >= 3)
        assert all(later - before >= 60 for before, later in zip(world.tries, world.tries[1:], strict=False))
        await world.until(lambda: "429" in world.condition("Progressing")["message"], limit=10)
        world.refuse = lambda _: 0
        await world.until(lambda: world.status().get("phase") == "Drained", limit=90)

    play(Refusing, scene)


def test_conditions_that_another_component_keeps_writing_start_no_fight() -> None:
    async def scene(world: Refusing) -> None:
        await world.settle(workloads.deployment("web", 3, SPACE, **NEVER))

        def theirs(raw: Json) -> None:
            kept = [c for c in raw["status"]["conditions"] if c["type"] not in names.NODE_CONDITIONS]
            raw["status"]["conditions"] = kept + [
                {"type": type_, "status": "True", "reason": reason}
                for type_ in names.NODE_CONDITIONS
                for reason in (world.reason,)
            ]

        async def fight() -> None:
            while True:
                world.cluster.edit_node("n1", theirs)
                await asyncio.sleep(1)

        for reason in ("KubeletShutdown", "Draining"):  # conditions equal to the operator's and different ones
            world.reason = reason  # type: ignore[attr-defined]
            rival = asyncio.create_task(fight())
            world.cluster.annotate("n1", maintenance="test")
            await world.until(lambda: world.status().get("phase") == "Drained")
            before = len(world.calls)
            await asyncio.sleep(300)
            most = 0 if reason == "KubeletShutdown" else 12
            assert sum(on_node(call, "status") for _, call in world.calls[before:]) <= most
            world.cluster.annotate("n1", maintenance=None)
            await world.until(world.gone, limit=30)
            assert not world.frozen()
            rival.cancel()

    play(Refusing, scene)


def test_drained_is_never_said_within_five_seconds_of_a_second_cordon() -> None:
    async def scene(world: Refusing) -> None:
        await world.settle(workloads.deployment("web", 1, SPACE, **NEVER))
        world.cluster.annotate("n2", maintenance="test")
        await world.until(lambda: world.condition("Cordoned", "n2")["status"] == "True")
        await asyncio.sleep(4)
        world.cordon("n2", cordoned=False)
        await world.until(lambda: world.status("n2").get("recordonedAt"))
        again = max(c.at for c in world.changes if c.cordons and c.place.name == "n2" and c.call.user != "human")
        await world.until(lambda: world.status("n2").get("phase") == "Drained")
        assert world.now - again >= 5

    play(Refusing, scene)


def test_a_node_from_which_a_label_is_taken_again_and_again_is_not_written_on_all_the_time() -> None:
    async def scene(world: Refusing) -> None:
        def strip(raw: Json) -> None:
            raw["metadata"]["annotations"].pop(names.SCALE_DOWN_DISABLED, None)

        await drained(world)
        before = world.now

        async def fight() -> None:
            while True:
                if names.SCALE_DOWN_DISABLED in world.node()["metadata"]["annotations"]:
                    world.cluster.edit_node("n1", strip)
                await asyncio.sleep(0.1)

        rival = asyncio.create_task(fight())
        await asyncio.sleep(300)
        rival.cancel()
        assert sum(at > before and on_node(call) for at, call in world.calls) <= 12

    play(Refusing, scene)


def test_a_maintenance_annotation_of_200_kb_is_cancelled_and_stays_so() -> None:
    async def scene(world: Refusing) -> None:
        await world.settle(workloads.deployment("web", 1, SPACE, **NEVER))
        world.cluster.annotate("n2", maintenance="x" * 200_000)
        await world.until(lambda: world.status("n2").get("phase") == "Drained")
        drain = world.server.find("nodedrains", "n2")
        assert drain
        world.server.remove("nodedrains", drain, user="human")
        await world.until(lambda: world.gone("n2"), limit=30)
        assert len(world.node("n2")["metadata"]["annotations"][names.CANCELLED]) < 200
        assert json.loads(world.node("n2")["metadata"]["annotations"][names.CANCELLED])["Maintenance"].startswith("sha")
        await asyncio.sleep(120)
        assert world.gone("n2")

    play(Refusing, scene)


def test_a_drain_that_is_over_names_the_pods_that_cannot_be_returned_and_ends_without_them() -> None:
    async def scene(world: Refusing) -> None:
        await world.release_one_for_good()
        world.cluster.annotate("n1", maintenance=None)
        await world.until(
            lambda: "after the return of 1 released pod" in world.condition("Progressing")["message"], limit=10
        )
        assert f"{SPACE}/web-" in world.condition("Progressing")["message"]
        assert world.frozen()
        begun = world.now
        await world.until(world.gone, limit=700)
        assert world.now - begun >= 590
        assert not world.frozen()

    play(Refusing, scene)


def test_a_view_that_is_missing_is_named_with_its_error() -> None:
    async def scene(world: Refusing) -> None:
        await world.settle(workloads.deployment("web", 1, SPACE, **NEVER))
        request = world.server.request

        def forbidden(user: str, method: str, target: str, *rest: Any) -> Json:
            if user.startswith("operator") and target.endswith("/poddisruptionbudgets"):
                raise RefusedError(403, "poddisruptionbudgets.policy is forbidden")
            return request(user, method, target, *rest)

        world.server.request = forbidden  # type: ignore[method-assign]
        world.cluster.annotate("n1", maintenance="test")
        await world.until(lambda: "poddisruptionbudgets" in world.condition("Progressing")["message"], limit=30)
        assert "is forbidden" in world.condition("Progressing")["message"]
        world.server.request = request  # type: ignore[method-assign]
        await world.until(lambda: world.status().get("phase") == "Drained", limit=60)

    play(Refusing, scene)


def test_a_live_read_that_fails_is_named() -> None:
    async def scene(world: Refusing) -> None:
        await world.settle(workloads.deployment("web", 1, SPACE, **NEVER))
        request = world.server.request

        def failing(user: str, method: str, target: str, *rest: Any) -> Json:
            if user.startswith("operator") and "leases/node-n1" in target:
                raise RefusedError(500, "etcdserver: leader changed")
            return request(user, method, target, *rest)

        world.server.request = failing  # type: ignore[method-assign]
        world.cluster.annotate("n1", maintenance="test")
        await world.until(lambda: "leader changed" in world.condition("Progressing")["message"], limit=30)
        assert world.status()["phase"] == "Waiting"
        world.server.request = request  # type: ignore[method-assign]
        await world.until(lambda: world.status().get("phase") == "Drained", limit=60)

    play(Refusing, scene)
