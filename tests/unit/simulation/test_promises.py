"""Limits in seconds and requests that the documentation promises, in simulated time."""

import asyncio
from collections import Counter
from datetime import datetime

from harness import workloads
from invariants.objects import Json, name
from simulation.clusters import SPACE
from simulation.scenarios import World, lets_go, play

NEVER = {"annotations": {"rescheduler.dev/replacement": "Never"}}


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
        # One minute after the last move it is Blocked; five minutes later its slot goes to a waiting drain.
        world.cluster.annotate("n2", maintenance="test")
        blocked = world.now
        await world.until(lambda: world.status("n2").get("startedAt"))
        assert 295 <= world.now - blocked <= 315
        await world.until(lambda: world.status("n2").get("phase") == "Drained")
        quiet = world.now
        await asyncio.sleep(600)
        asked = Counter(name for _, name in world.moves(quiet))
        assert {name.split("-")[0] for name in asked} == {"db", "tight", "two"}
        assert max(asked.values()) <= 20
        assert world.writes_of_status(quiet + 30) == 0
        for budget in world.server.all("poddisruptionbudgets"):
            world.server.remove("poddisruptionbudgets", budget, user="human")
        left = await world.until(lambda: not {n for n in map(name, world.pods("n1")) if n.startswith(("tight", "two"))})
        assert left - quiet - 600 <= 15
        await world.until(lambda: world.status()["blockersTotal"] == 3, limit=10)

    play(World, scene)


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
        assert not any(lets_go(c) for c in late)  # returned, and nothing released
        assert world.pods("n1")
        assert world.status()["phase"] == "Waiting"

    play(World, scene)


def test_the_estimate_comes_true_and_says_that_the_window_is_too_short() -> None:
    """Ten free pods leave at once, and eight one by one: an estimate by the mean pace would be too fast."""

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
        await asyncio.sleep(15)  # the estimate varies while a pod leaves
        estimated = datetime.fromisoformat(world.status()["estimatedCompletion"]).timestamp()
        asked = world.now
        fits = {c["type"]: c for c in world.status()["conditions"]}["FitsWindow"]
        assert (fits["status"], fits["reason"]) == ("False", "WillNotFit")
        await world.until(lambda: world.status().get("phase") == "Drained")
        assert 0.6 <= (estimated - asked) / (world.now - asked) <= 1.4
        assert "FitsWindow" not in {c["type"] for c in world.status()["conditions"]}

    play(World, scene)


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
            workloads.deployment("short", 1, SPACE, grace=8, annotations=kept),  # pods of order 5 wait for this pod
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

    play(World, scene)


def test_without_a_deadline_a_blocked_pod_is_never_deleted_and_what_is_held_is_tried_on() -> None:
    async def scene(world: World) -> None:
        await world.settle(
            workloads.deployment("tight", 1, SPACE, **NEVER),
            workloads.budget("tight", SPACE, maxUnavailable=0),
            drain={"timeout": "1m", "onTimeout": "Hold"},
        )
        world.cluster.annotate("n1", maintenance="test")
        await world.until(lambda: world.status().get("phase") == "Blocked")
        (uid,) = (pod["metadata"]["uid"] for pod in world.pods("n1"))
        await asyncio.sleep(7200)
        assert not [c for _, c in world.calls if c.verb == "delete"]
        assert len(world.moves()) <= 2 * 7200 / 60 + 10
        assert [pod["metadata"]["uid"] for pod in world.pods("n1")] == [uid]
        progressing = {c["type"]: c for c in world.status()["conditions"]}["Progressing"]
        assert progressing["reason"] in ("TimedOut", "MaxConcurrent")
        for budget in world.server.all("poddisruptionbudgets"):
            world.server.remove("poddisruptionbudgets", budget, user="human")
        await world.until(lambda: world.status().get("phase") == "Drained")

    play(World, scene)


def test_a_volume_that_hangs_is_waited_for_two_minutes_and_then_said() -> None:
    async def scene(world: World) -> None:
        database = workloads.stateful_set("db", 1, SPACE, grace=1)
        database["spec"]["volumeClaimTemplates"] = [{"metadata": {"name": "data"}}]
        await world.settle(database)
        (attachment,) = world.server.all("volumeattachments")
        driver = {"finalizers": ["example.com/csi"]}  # a driver that never finishes
        world.server.edit("volumeattachments", attachment, lambda raw: raw["metadata"].update(driver))
        world.cluster.annotate("n1", maintenance="test")
        gone = await world.until(lambda: not world.pods("n1"))
        await asyncio.sleep(60)
        drained = {c["type"]: c for c in world.status()["conditions"]}["Drained"]
        assert (drained["status"], drained["reason"]) == ("False", "VolumesAttached")
        await world.until(lambda: world.status().get("phase") == "Drained")
        assert 115 <= world.now - gone <= 135

        def said() -> dict[str, str]:
            stuck = (e for e in world.server.all("events") if e["reason"] == "VolumeStuck")
            return {e["involvedObject"]["kind"]: e["message"] for e in stuck}

        await world.until(lambda: said().keys() == {"Node", "NodeDrain"}, 10)  # Events are written in the background
        assert "pv-data-db-0" in said()["Node"]

    play(World, scene)
