"""Limits in seconds and requests that the documentation promises, in simulated time."""

import asyncio
from collections import Counter
from datetime import datetime

from harness import workloads
from invariants.objects import name
from rescheduler.core.model.raw import RawObject
from simulation.clusters import SPACE
from simulation.scenarios import Sandbox, releases, run_scenario

NEVER = {"annotations": {"rescheduler.dev/replacement": "Never"}}


def test_every_blocked_pod_is_named_within_ten_seconds_and_costs_two_requests_a_minute() -> None:
    async def scenario(sandbox: Sandbox) -> None:
        second = {"metadata": {"name": "two-more", "namespace": SPACE}}
        kept = {"annotations": {"rescheduler.dev/do-not-disrupt": "true"}}
        await sandbox.settle(
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
        sandbox.denied = {"db-0"}
        sandbox.cluster.annotate("n1", maintenance="test")
        await sandbox.until(lambda: sandbox.status().get("phase") == "Blocked")
        begun = sandbox.cordoned_at()
        for class_ in ("BudgetMisconfigured", "SeveralBudgets", "AdmissionDenied", "DoNotDisrupt", "Unmanaged"):
            assert sandbox.reported_at(class_) - begun <= 10, class_
        assert all(b["hint"] and b["message"] for b in sandbox.status()["blockers"])
        assert len(sandbox.pods("n1")) == sandbox.status()["blockersTotal"] == 6
        # One minute after the last move it is Blocked; five minutes later its slot goes to a waiting drain.
        sandbox.cluster.annotate("n2", maintenance="test")
        blocked = sandbox.now
        await sandbox.until(lambda: sandbox.status("n2").get("startedAt"))
        assert 295 <= sandbox.now - blocked <= 315
        await sandbox.until(lambda: sandbox.status("n2").get("phase") == "Drained")
        quiet = sandbox.now
        await asyncio.sleep(600)
        asked = Counter(name for _, name in sandbox.moves(quiet))
        assert {name.split("-")[0] for name in asked} == {"db", "tight", "two"}
        assert max(asked.values()) <= 20
        assert sandbox.writes_of_status(quiet + 30) == 0
        for budget in sandbox.server.all("poddisruptionbudgets"):
            sandbox.server.remove("poddisruptionbudgets", budget, user="human")
        left = await sandbox.until(
            lambda: not {n for n in map(name, sandbox.pods("n1")) if n.startswith(("tight", "two"))}
        )
        assert left - quiet - 600 <= 15
        await sandbox.until(lambda: sandbox.status()["blockersTotal"] == 3, limit=10)

    run_scenario(Sandbox, scenario)


def test_suspended_in_the_middle_no_pod_is_asked_to_move_a_second_later() -> None:
    async def scenario(sandbox: Sandbox) -> None:
        await sandbox.settle(
            workloads.deployment("web", 8, SPACE, **NEVER),
            workloads.deployment("first", 8, SPACE),
            drain={"maxEvictionsPerSecond": 1},
        )
        sandbox.cluster.annotate("n1", maintenance="test")
        await sandbox.until(lambda: len(sandbox.moves()) >= 4)

        def suspend(policy: RawObject) -> None:
            policy["spec"]["suspend"] = "All"

        sandbox.cluster.edit("reschedulepolicies", "default", suspend)
        suspended = sandbox.now
        await asyncio.sleep(120)
        late = [c for at, c in sandbox.calls if at > suspended + 1 and c.place.resource == "pods"]
        assert not [c for c in late if c.verb in ("evict", "delete")]
        assert not any(releases(c) for c in late)  # returned, and nothing released
        assert sandbox.pods("n1")
        assert sandbox.status()["phase"] == "Waiting"

    run_scenario(Sandbox, scenario)


def test_the_estimate_comes_true_and_says_that_the_window_is_too_short() -> None:
    """Ten free pods leave at once, and eight one by one: an estimate by the mean pace would be too fast."""

    async def scenario(sandbox: Sandbox) -> None:
        window = {"schedule": "* * * * *", "duration": "2m"}
        await sandbox.settle(
            workloads.deployment("free", 10, SPACE, **NEVER),
            workloads.deployment("slow", 8, SPACE, **NEVER),
            workloads.budget("slow", SPACE, maxUnavailable=1),
            maintenance={"windows": [window]},
        )
        for node in ("n2", "n3"):
            sandbox.cluster.machines[node].slow = 30.0
        sandbox.cluster.annotate("n1", maintenance="test")
        await sandbox.until(lambda: len(sandbox.pods("n1")) == 5)
        await asyncio.sleep(15)  # the estimate varies while a pod leaves
        estimated = datetime.fromisoformat(sandbox.status()["estimatedCompletion"]).timestamp()
        asked = sandbox.now
        fits = {c["type"]: c for c in sandbox.status()["conditions"]}["FitsWindow"]
        assert (fits["status"], fits["reason"]) == ("False", "WillNotFit")
        await sandbox.until(lambda: sandbox.status().get("phase") == "Drained")
        assert 0.6 <= (estimated - asked) / (sandbox.now - asked) <= 1.4
        assert "FitsWindow" not in {c["type"] for c in sandbox.status()["conditions"]}

    run_scenario(Sandbox, scenario)


def test_at_the_timeout_each_pod_goes_at_its_own_grace_before_it_whatever_holds_it_or_its_order() -> None:
    async def scenario(sandbox: Sandbox) -> None:
        rules = [
            {"podSelector": {"matchLabels": {"app": "last"}}, "order": 5},
            {"podSelector": {"matchLabels": {"app": "job"}}, "action": "WaitCompleted"},
        ]
        kept = {"rescheduler.dev/do-not-disrupt": "true"}
        await sandbox.settle(
            workloads.deployment("tight", 1, SPACE, grace=40, **NEVER),
            workloads.budget("tight", SPACE, maxUnavailable=0),
            workloads.deployment("kept", 1, SPACE, grace=20, annotations=kept),
            workloads.deployment("job", 1, SPACE, grace=30),
            workloads.deployment("short", 1, SPACE, grace=8, annotations=kept),  # pods of order 5 wait for this pod
            workloads.deployment("last", 1, SPACE, grace=10),
            workloads.deployment("long", 1, SPACE, grace=3600, annotations=kept),
            drain={"timeout": "2m", "onTimeout": "Delete", "rules": rules},
        )
        sandbox.cluster.annotate("n1", maintenance="test")
        await sandbox.until(lambda: sandbox.status().get("phase") == "Drained")
        # A status has whole seconds.
        begun = datetime.fromisoformat(sandbox.status()["startedAt"]).timestamp()
        deletes = {c.place.name.split("-")[0]: (at - begun, c) for at, c in sandbox.calls if c.verb == "delete"}
        expected = {"long": 60, "tight": 80, "job": 90, "kept": 100, "last": 110, "short": 112}
        assert deletes.keys() == expected.keys()
        for app, due in expected.items():
            assert due <= deletes[app][0] <= due + 3, app
            assert deletes[app][1].body["gracePeriodSeconds"] >= 120 - deletes[app][0] - 2
        assert sandbox.now - begun <= 130

    run_scenario(Sandbox, scenario)


def test_without_a_deadline_a_blocked_pod_is_never_deleted_and_what_is_held_is_tried_on() -> None:
    async def scenario(sandbox: Sandbox) -> None:
        await sandbox.settle(
            workloads.deployment("tight", 1, SPACE, **NEVER),
            workloads.budget("tight", SPACE, maxUnavailable=0),
            drain={"timeout": "1m", "onTimeout": "Hold"},
        )
        sandbox.cluster.annotate("n1", maintenance="test")
        await sandbox.until(lambda: sandbox.status().get("phase") == "Blocked")
        (uid,) = (pod["metadata"]["uid"] for pod in sandbox.pods("n1"))
        await asyncio.sleep(1800)
        assert not [c for _, c in sandbox.calls if c.verb == "delete"]
        assert len(sandbox.moves()) <= 2 * 1800 / 60 + 10
        assert [pod["metadata"]["uid"] for pod in sandbox.pods("n1")] == [uid]
        progressing = {c["type"]: c for c in sandbox.status()["conditions"]}["Progressing"]
        assert progressing["reason"] in ("TimedOut", "MaxConcurrent")
        for budget in sandbox.server.all("poddisruptionbudgets"):
            sandbox.server.remove("poddisruptionbudgets", budget, user="human")
        await sandbox.until(lambda: sandbox.status().get("phase") == "Drained")

    run_scenario(Sandbox, scenario)


def test_a_volume_that_hangs_is_waited_for_two_minutes_and_then_said() -> None:
    async def scenario(sandbox: Sandbox) -> None:
        database = workloads.stateful_set("db", 1, SPACE, grace=1)
        database["spec"]["volumeClaimTemplates"] = [{"metadata": {"name": "data"}}]
        await sandbox.settle(database)
        (attachment,) = sandbox.server.all("volumeattachments")
        driver = {"finalizers": ["example.com/csi"]}  # a driver that never finishes
        sandbox.server.edit("volumeattachments", attachment, lambda raw: raw["metadata"].update(driver))
        sandbox.cluster.annotate("n1", maintenance="test")
        gone = await sandbox.until(lambda: not sandbox.pods("n1"))
        await asyncio.sleep(60)
        drained = {c["type"]: c for c in sandbox.status()["conditions"]}["Drained"]
        assert (drained["status"], drained["reason"]) == ("False", "VolumesAttached")
        await sandbox.until(lambda: sandbox.status().get("phase") == "Drained")
        assert 115 <= sandbox.now - gone <= 135

        def said() -> dict[str, str]:
            stuck = (e for e in sandbox.server.all("events") if e["reason"] == "VolumeStuck")
            return {e["involvedObject"]["kind"]: e["message"] for e in stuck}

        await sandbox.until(lambda: said().keys() == {"Node", "NodeDrain"}, 10)  # Events are written in the background
        assert "pv-data-db-0" in said()["Node"]

    run_scenario(Sandbox, scenario)
