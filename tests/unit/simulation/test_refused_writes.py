"""Writes to nodes and NodeDrains that the API server refuses, in simulated time."""

import asyncio
import json
from typing import Any

import pytest

from harness import workloads
from invariants.records import Call
from rescheduler.api import names
from rescheduler.api.drains import NodeDrain
from rescheduler.controllers.drain.drain_task import DrainTask
from rescheduler.core.model.raw import RawObject
from simulation.clusters import SPACE
from simulation.refusals import RefusedError
from simulation.scenarios import run_scenario
from unit.simulation.refusing import DENIED, NEVER, Refusing, on_node


def spec_of(call: Call) -> dict[str, Any]:
    return call.body.get("spec") or {}


def meta_of(call: Call, kind: str) -> dict[str, Any]:
    return (call.body.get("metadata") or {}).get(kind) or {}


async def drained(sandbox: Refusing) -> None:
    await sandbox.settle(workloads.deployment("web", 3, SPACE, **NEVER))
    sandbox.cluster.annotate("n1", maintenance="test")
    await sandbox.until(lambda: sandbox.status().get("phase") == "Drained")


def test_a_refused_cordon_moves_no_pod_is_named_and_gives_its_slot_up() -> None:
    async def scenario(sandbox: Refusing) -> None:
        await sandbox.settle(workloads.deployment("web", 3, SPACE, **NEVER), maintenance={"maxUnavailable": "100%"})
        sandbox.refuse = lambda call: 403 * (on_node(call) and call.place.name == "n1")
        sandbox.cluster.annotate("n1", maintenance="test")
        asked = sandbox.now
        await sandbox.until(lambda: "cannot be cordoned" in sandbox.condition("Progressing")["message"])
        assert sandbox.now - asked <= 10
        assert DENIED in sandbox.condition("Progressing")["message"]
        assert sandbox.condition("Cordoned")["status"] == "False"
        await sandbox.until(lambda: sandbox.status()["phase"] == "Blocked", limit=75)
        assert DENIED in sandbox.condition("Blocked")["message"]
        assert not sandbox.moves()
        sandbox.cluster.annotate("n2", maintenance="test")
        await sandbox.until(lambda: sandbox.status("n2").get("phase") == "Drained", limit=330)
        # With its labels and annotations and on its own, each two times a minute.
        assert 2 * (sandbox.now - asked) / 30 - 4 <= len(sandbox.tries) <= 2 * (sandbox.now - asked) / 30 + 4
        sandbox.refuse = lambda _: 0
        allowed = sandbox.now
        await sandbox.until(lambda: sandbox.status().get("phase") == "Drained", limit=90)
        assert sandbox.frozen()
        assert sandbox.now - allowed >= 5
        assert "cannot be cordoned" not in sandbox.condition("Progressing")["message"]

    run_scenario(Refusing, scenario)


def test_what_was_refused_and_is_not_wanted_any_more_costs_nothing_and_is_not_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[float] = []

    async def scenario(sandbox: Refusing) -> None:
        look = DrainTask._reconcile

        async def counted(self: DrainTask, drain: NodeDrain) -> float:
            looks.append(sandbox.now)
            return await look(self, drain)

        monkeypatch.setattr(DrainTask, "_reconcile", counted)
        await sandbox.settle(workloads.deployment("web", 3, SPACE, **NEVER))
        sandbox.refuse = lambda call: 403 * on_node(call)
        sandbox.cluster.annotate("n1", maintenance="test")
        await sandbox.until(lambda: "cannot be cordoned" in sandbox.condition("Progressing")["message"])
        sandbox.cluster.edit("reschedulepolicies", "default", lambda policy: policy["spec"].update(suspend="All"))
        await sandbox.until(lambda: sandbox.condition("Progressing")["reason"] == "Suspended")
        before = len(looks)
        await asyncio.sleep(300)
        assert len(looks) - before <= 60
        sandbox.cluster.edit("reschedulepolicies", "default", lambda policy: policy["spec"].pop("suspend"))
        sandbox.cordon("n1", cordoned=True)  # by hand
        await sandbox.until(lambda: sandbox.status()["phase"] == "Drained")
        assert "cannot be cordoned" not in sandbox.condition("Progressing")["message"]

    run_scenario(Refusing, scenario)


def test_a_node_is_cordoned_without_the_labels_and_annotations_that_are_refused() -> None:
    async def scenario(sandbox: Refusing) -> None:
        await sandbox.settle(workloads.deployment("web", 3, SPACE, **NEVER), drain={"excludeFromLoadBalancers": True})
        sandbox.refuse = lambda call: 422 * (on_node(call) and bool(meta_of(call, "labels")))
        sandbox.cluster.annotate("n1", maintenance="test")
        await sandbox.until(lambda: sandbox.status().get("phase") == "Drained", limit=30)
        assert "the drain continues without them" in sandbox.condition("Progressing")["message"]
        sandbox.refuse = lambda _: 0
        await sandbox.until(lambda: names.SCALE_DOWN_DISABLED in sandbox.node()["metadata"]["annotations"], limit=60)
        await sandbox.until(lambda: "continues without" not in sandbox.condition("Progressing")["message"], limit=30)
        sandbox.cluster.annotate("n1", maintenance=None)
        await sandbox.until(sandbox.gone, limit=30)
        assert names.SCALE_DOWN_DISABLED not in sandbox.node()["metadata"]["annotations"]

    run_scenario(Refusing, scenario)


def test_refused_conditions_stop_neither_the_drain_nor_the_restore() -> None:
    async def scenario(sandbox: Refusing) -> None:
        sandbox.refuse = lambda call: 403 * on_node(call, "status")
        await drained(sandbox)
        await asyncio.sleep(120)
        assert len(sandbox.tries) <= 8
        assert "conditions cannot be written" in sandbox.condition("Progressing")["message"]
        sandbox.cluster.annotate("n1", maintenance=None)
        await sandbox.until(sandbox.gone, limit=60)
        assert not sandbox.frozen()

    run_scenario(Refusing, scenario)


def test_conditions_that_may_not_be_removed_are_left_to_later() -> None:
    async def scenario(sandbox: Refusing) -> None:
        def ours() -> set[str]:
            return {c["type"] for c in sandbox.node()["status"]["conditions"]} & set(names.NODE_CONDITIONS)

        await drained(sandbox)
        await sandbox.until(ours)
        sandbox.refuse = lambda call: 403 * on_node(call, "status")
        sandbox.cluster.annotate("n1", maintenance=None)
        await sandbox.until(sandbox.gone, limit=60)
        assert not sandbox.frozen()
        assert ours()
        sandbox.refuse = lambda _: 0
        await sandbox.until(lambda: not ours(), limit=60)

    run_scenario(Refusing, scenario)


def test_a_refused_restore_uncordons_what_it_may_and_names_the_rest() -> None:
    async def scenario(sandbox: Refusing) -> None:
        await drained(sandbox)
        sandbox.refuse = lambda call: 403 * (on_node(call) and bool(meta_of(call, "annotations")))
        sandbox.cluster.annotate("n1", maintenance=None)
        await sandbox.until(lambda: not sandbox.frozen(), limit=10)
        await sandbox.until(lambda: "cannot be removed from the node" in sandbox.condition("Progressing")["message"])
        assert sandbox.status()["phase"] == "Restoring"
        assert DENIED in sandbox.condition("Progressing")["message"]
        tries, at = len(sandbox.tries), sandbox.now
        await asyncio.sleep(300)
        assert len(sandbox.tries) - tries <= 2 * (sandbox.now - at) / 60 + 1
        sandbox.refuse = lambda _: 0
        await sandbox.until(sandbox.gone, limit=35)
        assert names.SCALE_DOWN_DISABLED not in sandbox.node()["metadata"]["annotations"]
        assert "Restored" in sandbox.events()

    run_scenario(Refusing, scenario)


def test_a_node_too_full_for_a_note_of_the_cancellation_is_uncordoned_and_not_drained_again() -> None:
    async def scenario(sandbox: Refusing) -> None:
        await drained(sandbox)
        sandbox.refuse = lambda call: 422 * (on_node(call) and names.CANCELLED in meta_of(call, "annotations"))
        drain = sandbox.server.find("nodedrains", "n1")
        assert drain
        sandbox.server.remove("nodedrains", drain, user="human")
        await sandbox.until(lambda: not sandbox.frozen(), limit=10)
        await asyncio.sleep(120)
        assert "remove rescheduler.dev/maintenance from the node" in sandbox.condition("Progressing")["message"]
        assert not sandbox.frozen()
        sandbox.cluster.annotate("n1", maintenance=None)
        await sandbox.until(sandbox.gone, limit=35)

    run_scenario(Refusing, scenario)


def test_a_status_that_cannot_be_written_is_told_by_an_event_and_stops_no_restore() -> None:
    async def scenario(sandbox: Refusing) -> None:
        await drained(sandbox)
        sandbox.refuse = lambda call: 403 * (call.place.resource == "nodedrains" and call.place.subresource == "status")
        sandbox.cluster.annotate("n1", maintenance=None)
        await sandbox.until(sandbox.gone, limit=30)
        assert not sandbox.frozen()
        sandbox.cluster.annotate("n1", maintenance="again")
        await sandbox.until(lambda: "WriteFailed" in sandbox.events(), limit=30)
        assert not sandbox.frozen()  # nothing is written on a node before the status says so
        tries, at = len(sandbox.tries), sandbox.now
        await asyncio.sleep(300)
        assert len(sandbox.tries) - tries <= 2 * (sandbox.now - at) / 60 + 1

    run_scenario(Refusing, scenario)


def test_a_finalizer_that_cannot_be_removed_is_named() -> None:
    async def scenario(sandbox: Refusing) -> None:
        await drained(sandbox)
        sandbox.refuse = lambda call: (
            403 * (call.place.resource == "nodedrains" and "finalizers" in (call.body.get("metadata") or {}))
        )
        sandbox.cluster.annotate("n1", maintenance=None)
        await sandbox.until(
            lambda: "finalizer of the NodeDrain" in sandbox.condition("Progressing")["message"], limit=30
        )
        assert not sandbox.frozen()
        tries, at = len(sandbox.tries), sandbox.now
        await asyncio.sleep(300)
        assert len(sandbox.tries) - tries <= 2 * (sandbox.now - at) / 60 + 1
        sandbox.refuse = lambda _: 0
        await sandbox.until(sandbox.gone, limit=35)

    run_scenario(Refusing, scenario)


def test_a_node_drain_that_cannot_be_created_is_told_by_an_event() -> None:
    async def scenario(sandbox: Refusing) -> None:
        await sandbox.settle(workloads.deployment("web", 3, SPACE, **NEVER))
        sandbox.refuse = lambda call: 403 * (call.place.resource == "nodedrains" and call.verb == "create")
        sandbox.cluster.annotate("n1", maintenance="test")
        await sandbox.until(lambda: "WriteFailed" in sandbox.events(), limit=30)
        tries, at = len(sandbox.tries), sandbox.now
        await asyncio.sleep(300)
        assert len(sandbox.tries) - tries <= 2 * (sandbox.now - at) / 60 + 1
        sandbox.refuse = lambda _: 0
        await sandbox.until(lambda: sandbox.status().get("phase") == "Drained", limit=60)

    run_scenario(Refusing, scenario)


@pytest.mark.parametrize("code", [403, 500, 504])
def test_a_drain_that_nothing_asks_for_moves_no_pod_though_it_cannot_be_deleted(code: int) -> None:
    async def scenario(sandbox: Refusing) -> None:
        slow = {"maxEvictionsPerSecond": 1}
        await sandbox.settle(workloads.deployment("web", 20, SPACE, **NEVER), drain=slow)
        sandbox.refuse = lambda call: code * (call.place.resource == "nodedrains" and call.verb == "delete")
        sandbox.cluster.annotate("n1", maintenance="test")
        await sandbox.until(lambda: len(sandbox.moves()) >= 3)
        sandbox.cluster.annotate("n1", maintenance=None)
        await asyncio.sleep(3)
        moved = len(sandbox.moves())
        await asyncio.sleep(120)
        assert len(sandbox.moves()) == moved < 20
        assert sandbox.frozen()
        assert sandbox.condition("Progressing")["reason"] == "Cancelled"
        assert "cannot be deleted" in sandbox.condition("Progressing")["message"]
        assert "WriteFailed" in sandbox.events()
        sandbox.refuse = lambda _: 0
        await sandbox.until(sandbox.gone, limit=35)
        assert not sandbox.frozen()

    run_scenario(Refusing, scenario)


def test_a_drain_whose_deletion_waits_for_a_webhook_does_not_reach_its_timeout() -> None:
    async def scenario(sandbox: Refusing) -> None:
        await sandbox.settle(
            workloads.deployment("tight", 1, SPACE, **NEVER),
            workloads.budget("tight", SPACE, maxUnavailable=0),
            drain={"timeout": "1m", "onTimeout": "Delete"},
        )
        sandbox.cluster.annotate("n1", maintenance="test")
        begun = sandbox.now
        await sandbox.until(lambda: sandbox.status().get("blockers"))
        await asyncio.sleep(begun + 50 - sandbox.now)
        sandbox.refuse = lambda call: 504 * (call.place.resource == "nodedrains" and call.verb == "delete")
        sandbox.delay = 20.0
        sandbox.cluster.annotate("n1", maintenance=None)
        await asyncio.sleep(60)
        assert sandbox.tries
        assert not [call for _, call in sandbox.calls if call.place.resource == "pods" and call.verb == "delete"]
        sandbox.refuse = lambda _: 0
        await sandbox.until(sandbox.gone, limit=60)

    run_scenario(Refusing, scenario)


def test_a_server_that_asks_for_time_is_given_it() -> None:
    async def scenario(sandbox: Refusing) -> None:
        await sandbox.settle(workloads.deployment("web", 3, SPACE, **NEVER))
        sandbox.retry_after = 60.0
        sandbox.refuse = lambda call: 429 * on_node(call)
        sandbox.cluster.annotate("n1", maintenance="test")
        await sandbox.until(lambda: len(sandbox.tries) >= 3)
        assert all(later - before >= 60 for before, later in zip(sandbox.tries, sandbox.tries[1:], strict=False))
        await sandbox.until(lambda: "429" in sandbox.condition("Progressing")["message"], limit=10)
        sandbox.refuse = lambda _: 0
        await sandbox.until(lambda: sandbox.status().get("phase") == "Drained", limit=90)

    run_scenario(Refusing, scenario)


def test_conditions_that_another_component_keeps_writing_start_no_fight() -> None:
    async def scenario(sandbox: Refusing) -> None:
        await sandbox.settle(workloads.deployment("web", 3, SPACE, **NEVER))

        reasons: list[str] = []

        def theirs(raw: RawObject) -> None:
            kept = [c for c in raw["status"]["conditions"] if c["type"] not in names.NODE_CONDITIONS]
            raw["status"]["conditions"] = kept + [
                {"type": type_, "status": "True", "reason": reason}
                for type_ in names.NODE_CONDITIONS
                for reason in reasons[-1:]
            ]

        async def fight() -> None:
            while True:
                sandbox.cluster.edit_node("n1", theirs)
                await asyncio.sleep(1)

        for reason in ("KubeletShutdown", "Draining"):  # conditions equal to the operator's and different ones
            reasons.append(reason)
            rival = asyncio.create_task(fight())
            sandbox.cluster.annotate("n1", maintenance="test")
            await sandbox.until(lambda: sandbox.status().get("phase") == "Drained")
            before = len(sandbox.calls)
            await asyncio.sleep(300)
            most = 0 if reason == "KubeletShutdown" else 12
            assert sum(on_node(call, "status") for _, call in sandbox.calls[before:]) <= most
            sandbox.cluster.annotate("n1", maintenance=None)
            await sandbox.until(sandbox.gone, limit=30)
            assert not sandbox.frozen()
            rival.cancel()

    run_scenario(Refusing, scenario)


def test_drained_is_never_said_within_five_seconds_of_a_second_cordon() -> None:
    async def scenario(sandbox: Refusing) -> None:
        await sandbox.settle(workloads.deployment("web", 1, SPACE, **NEVER))
        sandbox.cluster.annotate("n2", maintenance="test")
        await sandbox.until(lambda: sandbox.condition("Cordoned", "n2")["status"] == "True")
        await asyncio.sleep(4)
        sandbox.cordon("n2", cordoned=False)
        await sandbox.until(lambda: sandbox.status("n2").get("recordonedAt"))
        again = max(
            c.at for c in sandbox.changes if c.cordons and c.place.name == "n2" and c.call and c.call.user != "human"
        )
        await sandbox.until(lambda: sandbox.status("n2").get("phase") == "Drained")
        assert sandbox.now - again >= 5

    run_scenario(Refusing, scenario)


def test_a_node_from_which_a_label_is_taken_again_and_again_is_not_written_on_all_the_time() -> None:
    async def scenario(sandbox: Refusing) -> None:
        def strip(raw: RawObject) -> None:
            raw["metadata"]["annotations"].pop(names.SCALE_DOWN_DISABLED, None)

        await drained(sandbox)
        before = sandbox.now

        async def fight() -> None:
            while True:
                if names.SCALE_DOWN_DISABLED in sandbox.node()["metadata"]["annotations"]:
                    sandbox.cluster.edit_node("n1", strip)
                await asyncio.sleep(0.1)

        rival = asyncio.create_task(fight())
        await asyncio.sleep(300)
        rival.cancel()
        assert sum(at > before and on_node(call) for at, call in sandbox.calls) <= 12

    run_scenario(Refusing, scenario)


def test_a_maintenance_annotation_of_200_kb_is_cancelled_and_stays_so() -> None:
    async def scenario(sandbox: Refusing) -> None:
        await sandbox.settle(workloads.deployment("web", 1, SPACE, **NEVER))
        sandbox.cluster.annotate("n2", maintenance="x" * 200_000)
        await sandbox.until(lambda: sandbox.status("n2").get("phase") == "Drained")
        drain = sandbox.server.find("nodedrains", "n2")
        assert drain
        sandbox.server.remove("nodedrains", drain, user="human")
        await sandbox.until(lambda: sandbox.gone("n2"), limit=30)
        assert len(sandbox.node("n2")["metadata"]["annotations"][names.CANCELLED]) < 200
        assert json.loads(sandbox.node("n2")["metadata"]["annotations"][names.CANCELLED])["Maintenance"].startswith(
            "sha"
        )
        await asyncio.sleep(120)
        assert sandbox.gone("n2")

    run_scenario(Refusing, scenario)


def test_a_drain_that_is_over_names_the_pods_that_cannot_be_returned_and_ends_without_them() -> None:
    async def scenario(sandbox: Refusing) -> None:
        await sandbox.release_one_for_good()
        sandbox.cluster.annotate("n1", maintenance=None)
        await sandbox.until(
            lambda: "after the return of 1 released pod" in sandbox.condition("Progressing")["message"], limit=10
        )
        assert f"{SPACE}/web-" in sandbox.condition("Progressing")["message"]
        assert sandbox.frozen()
        begun = sandbox.now
        await sandbox.until(sandbox.gone, limit=700)
        assert sandbox.now - begun >= 590
        assert not sandbox.frozen()

    run_scenario(Refusing, scenario)


def test_a_view_that_is_missing_is_named_with_its_error() -> None:
    async def scenario(sandbox: Refusing) -> None:
        await sandbox.settle(workloads.deployment("web", 1, SPACE, **NEVER))
        request = sandbox.server.request

        def forbidden(user: str, method: str, target: str, *rest: Any) -> RawObject:
            if user.startswith("operator") and target.endswith("/poddisruptionbudgets"):
                raise RefusedError(403, "poddisruptionbudgets.policy is forbidden")
            return request(user, method, target, *rest)

        sandbox.server.request = forbidden  # type: ignore[method-assign, assignment]
        sandbox.cluster.annotate("n1", maintenance="test")
        await sandbox.until(lambda: "poddisruptionbudgets" in sandbox.condition("Progressing")["message"], limit=30)
        assert "is forbidden" in sandbox.condition("Progressing")["message"]
        sandbox.server.request = request  # type: ignore[method-assign]
        await sandbox.until(lambda: sandbox.status().get("phase") == "Drained", limit=60)

    run_scenario(Refusing, scenario)


def test_a_live_read_that_fails_is_named() -> None:
    async def scenario(sandbox: Refusing) -> None:
        await sandbox.settle(workloads.deployment("web", 1, SPACE, **NEVER))
        request = sandbox.server.request

        def failing(user: str, method: str, target: str, *rest: Any) -> RawObject:
            if user.startswith("operator") and "leases/node-n1" in target:
                raise RefusedError(500, "etcdserver: leader changed")
            return request(user, method, target, *rest)

        sandbox.server.request = failing  # type: ignore[method-assign, assignment]
        sandbox.cluster.annotate("n1", maintenance="test")
        await sandbox.until(lambda: "leader changed" in sandbox.condition("Progressing")["message"], limit=30)
        assert sandbox.status()["phase"] == "Waiting"
        sandbox.server.request = request  # type: ignore[method-assign]
        await sandbox.until(lambda: sandbox.status().get("phase") == "Drained", limit=60)

    run_scenario(Refusing, scenario)
