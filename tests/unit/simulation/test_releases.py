"""Releases that other clients refuse, undo or forge, in simulated time."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from harness import workloads
from invariants.objects import controller, deleting, is_ready, labels, name
from invariants.records import Call, Change
from rescheduler.core.model.raw import RawObject
from simulation.clusters import SPACE
from simulation.refusals import RefusedError
from simulation.scenarios import Sandbox, releases, run_scenario

DENIED = 'admission webhook "guard" denied the request: pods are frozen'
MOVE = "rescheduler.dev/move"


class Guarded(Sandbox):
    """A sandbox in which another client refuses requests of the operator, or deletes released pods.

    Attributes:
        refuse: returns a code for each request of the operator; 0 accepts it.
        takes: whether released pods are deleted; `takes_new`: whether new pods are deleted.
        least: by app, fewest Ready pods since all were Ready.
    """

    def __init__(self) -> None:
        super().__init__()
        self.refuse: Callable[[Call], int] = lambda _: 0
        self.takes = self.takes_new = False
        self.asked: list[float] = []
        self.least: dict[str, int] = {}

    def call(self, call: Call) -> None:
        super().call(call)
        if call.user.startswith("operator") and (code := self.refuse(call)):
            self.asked.append(self.now)
            raise RefusedError(code, DENIED)

    def change(self, change: Change) -> None:
        super().change(change)
        if change.place.resource != "pods":
            return
        for app in self.least:
            self.least[app] = min(self.least[app], self.ready(app))
        pod = change.after
        if self.takes_new and pod and change.before is None:
            asyncio.get_running_loop().call_later(0.5, self.server.remove, "pods", pod)
        if self.takes and pod and not deleting(pod) and controller(pod).get("kind") == "Deployment":
            asyncio.get_running_loop().call_soon(self.server.remove, "pods", pod)

    def ready(self, app: str) -> int:
        return sum(labels(pod).get("app") == app and is_ready(pod) and not deleting(pod) for pod in self.pods())

    def watch(self, *apps: str) -> None:
        """Count Ready pods from now on."""
        self.least = {app: self.ready(app) for app in apps}

    def blockers(self) -> dict[str, RawObject]:
        return {b["pod"]: b for b in self.status().get("blockers") or ()}

    def events(self, reason: str) -> list[str]:
        return [event["message"] for event in self.server.all("events") if event["reason"] == reason]


def clears(call: Call) -> bool:
    return MOVE in ((call.body.get("metadata") or {}).get("annotations") or {})


def test_pods_whose_release_is_refused_leave_within_their_budget_and_the_last_one_after_the_timeout() -> None:
    async def scenario(sandbox: Guarded) -> None:
        await sandbox.settle(
            workloads.deployment("web", 3, SPACE),
            workloads.budget("web", SPACE, maxUnavailable=1),
            workloads.deployment("lone", 1, SPACE),
            workloads.deployment("free", 3, SPACE),
        )
        sandbox.refuse = lambda call: 403 * (call.place.resource == "pods" and call.verb == "patch")
        for node in ("n2", "n3"):
            sandbox.cluster.machines[node].slow = 10.0
        sandbox.watch("web", "lone", "free")
        sandbox.cluster.annotate("n1", maintenance="test")
        await sandbox.until(lambda: {labels(pod).get("app") for pod in sandbox.pods("n1")} == {"lone"}, limit=200)
        assert sandbox.least["web"] == 2
        assert sandbox.least["lone"] == 1
        assert sandbox.least["free"] >= 1
        await sandbox.until(sandbox.blockers, limit=30)
        (blocker,) = sandbox.blockers().values()
        assert blocker["class"] == "AdmissionDenied"
        assert "pods are frozen" in blocker["message"]
        begun, before = sandbox.now, len(sandbox.asked)
        await asyncio.sleep(200)
        assert sandbox.least["lone"] == 1
        assert len(sandbox.asked) - before <= 2 * (sandbox.now - begun) / 60 + 1
        await sandbox.until(lambda: sandbox.status().get("phase") == "Drained", limit=200)
        assert any("pods are frozen" in message for message in sandbox.events("NotReplacedFirst"))

    run_scenario(Guarded, scenario)


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_rehearsal_that_gets_no_answer_is_repeated_at_a_pace(code: int) -> None:
    async def scenario(sandbox: Guarded) -> None:
        await sandbox.settle(workloads.deployment("web", 1, SPACE), workloads.budget("web", SPACE, minAvailable=1))
        request = sandbox.server.request

        def busy(user: str, method: str, target: str, *rest: Any) -> RawObject:
            if "/eviction" in target:
                sandbox.asked.append(sandbox.now)
                raise RefusedError(code, "the server is busy", retry_after=10.0)
            return request(user, method, target, *rest)

        sandbox.server.request = busy  # type: ignore[method-assign, assignment]
        sandbox.cluster.annotate("n1", maintenance="test")
        await sandbox.until(lambda: sandbox.asked)
        await asyncio.sleep(120)
        assert 2 <= len(sandbox.asked) <= 13  # every 10 s
        (blocker,) = sandbox.blockers().values()
        assert blocker["class"] == "Throttled"
        assert len(sandbox.pods()) == 1
        sandbox.server.request = request  # type: ignore[method-assign]
        await sandbox.until(lambda: sandbox.status().get("phase") == "Drained", limit=90)

    run_scenario(Guarded, scenario)


def test_whoever_deletes_released_pods_costs_one_pod_and_not_the_service() -> None:
    async def scenario(sandbox: Guarded) -> None:
        await sandbox.settle(workloads.deployment("web", 4, SPACE), workloads.budget("web", SPACE, minAvailable=4))
        for node in ("n2", "n3"):
            sandbox.cluster.machines[node].slow = 20.0
        sandbox.takes = True
        sandbox.watch("web")
        sandbox.cluster.annotate("n1", maintenance="test")
        await sandbox.until(lambda: sandbox.events("ReleasedPodRemoved"), limit=60)
        await asyncio.sleep(600)
        assert sandbox.least["web"] == 3
        assert sandbox.status()["pods"]["moved"] == 0
        sandbox.takes = False
        await sandbox.until(lambda: sandbox.status().get("phase") == "Drained", limit=900)
        assert sandbox.least["web"] == 3

    run_scenario(Guarded, scenario)


def test_whoever_deletes_new_pods_is_not_fed_and_costs_no_ready_pod() -> None:
    async def scenario(sandbox: Guarded) -> None:
        await sandbox.settle(workloads.deployment("web", 4, SPACE), workloads.budget("web", SPACE, maxUnavailable=1))
        sandbox.takes_new = True
        sandbox.watch("web")
        begun = len(sandbox.changes)
        sandbox.cluster.annotate("n1", maintenance="test")
        await asyncio.sleep(300)
        created = [c for c in sandbox.changes[begun:] if c.place.resource == "pods" and c.before is None]
        assert 3 <= len(created) <= 40  # 8 attempts; without a pause it would be two each second
        assert sandbox.least["web"] == 4
        await sandbox.until(sandbox.blockers, limit=200)
        texts = {blocker["message"] for blocker in sandbox.blockers().values()}
        assert any(
            "other clients removed 3 new pods of ReplicaSet web-rs, the last one was web-rs-" in t for t in texts
        )
        sandbox.takes_new = False
        await sandbox.until(lambda: sandbox.status().get("phase") == "Drained", limit=400)
        assert sandbox.least["web"] == 4

    run_scenario(Guarded, scenario)


def test_a_node_that_dies_in_the_middle_of_its_drain_has_all_replacements_on_their_way() -> None:
    """New pods are Ready after 6 s, and the node dies 3 s after the request."""

    async def scenario(sandbox: Guarded) -> None:
        await sandbox.settle(workloads.deployment("web", 8, SPACE), workloads.budget("web", SPACE, maxUnavailable=2))
        for node in ("n2", "n3"):
            sandbox.cluster.machines[node].slow = 6.0
        sandbox.cluster.annotate("n1", maintenance="test")
        begun = sandbox.now
        await asyncio.sleep(3)
        sandbox.cluster.machines["n1"].on = False

        def ready_elsewhere() -> int:
            return sum(is_ready(pod) and not deleting(pod) for pod in (*sandbox.pods("n2"), *sandbox.pods("n3")))

        assert await sandbox.until(lambda: ready_elsewhere() >= 8, limit=60) < begun + 15

    run_scenario(Guarded, scenario)


def test_the_ten_pods_of_an_owner_are_released_before_the_first_new_pod_is_ready() -> None:
    """If the node dies in the middle of its drain, each pod has a replacement on its way. New pods take 20 s."""

    async def scenario(sandbox: Guarded) -> None:
        await sandbox.settle(workloads.deployment("web", 10, SPACE), workloads.budget("web", SPACE, maxUnavailable=1))
        for node in ("n2", "n3"):
            sandbox.cluster.machines[node].slow = 20.0
        sandbox.watch("web")
        sandbox.cluster.annotate("n1", maintenance="test")
        await sandbox.until(lambda: sandbox.status().get("phase") == "Drained", limit=300)
        released = [at for at, call in sandbox.calls if releases(call)]
        assert (len(released), released[-1] - released[0] < 5) == (10, True)
        assert sandbox.least["web"] == 10

    run_scenario(Guarded, scenario)


def forged(**changes: Any) -> dict[str, str]:
    """Return a forged record of a move."""
    record = {
        "cause": "NodeDrain/n1",
        "ready": 0,
        "since": "2026-01-01T00:00:00+00:00",
        "attempt": 1,
        "deployment": "web",
        "deploymentUID": "d",
        "replicaSet": "web-1",
        "replicaSetUID": "r",
    }
    return {MOVE: json.dumps(record | changes)}


def test_a_record_that_nobody_made_moves_nothing_holds_nothing_and_is_reported() -> None:
    async def scenario(sandbox: Guarded) -> None:
        bare = workloads.bare_pod("bare", SPACE)
        bare["metadata"]["annotations"] = forged()
        await sandbox.settle(
            workloads.stateful_set("db", 1, SPACE, annotations=forged()),
            workloads.deployment("web", 2, SPACE, annotations=forged(ready=1e9)),
            bare,
        )
        sandbox.cluster.annotate("n1", maintenance="test")
        await sandbox.until(lambda: {name(pod) for pod in sandbox.pods("n1")} == {"bare"}, limit=120)
        await sandbox.until(lambda: sandbox.blockers().get("bare", {}).get("class") == "Unmanaged", limit=30)
        assert sandbox.events("AnnotationIgnored")
        # Nothing was deleted plainly, and the records stay.
        assert not [call for _, call in sandbox.calls if call.verb == "delete" and call.place.resource == "pods"]
        assert not [call for _, call in sandbox.calls if clears(call) and call.place.name == "bare"]
        sandbox.cluster.annotate("n1", maintenance=None)
        await sandbox.until(lambda: sandbox.server.find("nodedrains", "n1") is None, limit=60)
        await asyncio.sleep(60)
        (left,) = sandbox.pods("n1")
        assert name(left) == "bare"

    run_scenario(Guarded, scenario)


@pytest.mark.parametrize("seed", range(1, 13))
def test_a_released_pod_whose_records_of_a_drain_were_removed_by_force_is_found_and_returned(seed: int) -> None:
    async def scenario(sandbox: Guarded) -> None:
        await sandbox.settle(workloads.deployment("web", 2, SPACE))
        for node in ("n2", "n3"):
            sandbox.cluster.machines[node].slow = 3000.0
        old = {pod["metadata"]["uid"] for pod in sandbox.pods()}
        sandbox.cluster.annotate("n1", maintenance="test")
        await sandbox.until(lambda: any(releases(call) for _, call in sandbox.calls))
        sandbox.cluster.annotate("n1", maintenance=None)
        drain = sandbox.server.find("nodedrains", "n1")
        assert drain
        sandbox.server.edit("nodedrains", drain, lambda raw: raw["metadata"].pop("finalizers"), user="human")
        if drain := sandbox.server.find("nodedrains", "n1"):
            sandbox.server.remove("nodedrains", drain, user="human")
        await sandbox.until(
            lambda: all(controller(p).get("kind") == "ReplicaSet" for p in sandbox.pods()) and len(sandbox.pods()) == 2,
            limit=120,
        )
        await sandbox.until(lambda: not any(MOVE in (p["metadata"].get("annotations") or {}) for p in sandbox.pods()))
        assert {pod["metadata"]["uid"] for pod in sandbox.pods()} == old

    run_scenario(Guarded, scenario, seed=seed)
