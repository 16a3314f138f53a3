"""The replacer: which requests a decision leads to, and what a refusal, a conflict or a lost answer leads to."""

import asyncio
import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from rescheduler.api import names
from rescheduler.api.drains import Blocker, BlockerClass
from rescheduler.api.policies import DrainRule, DrainSettings, ReplacementMode
from rescheduler.controllers.evacuation.replacer import Replacer
from rescheduler.controllers.evacuation.workload_watch import WorkloadWatch
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.core.drain.pod_evaluation import MoveMode
from rescheduler.core.eviction.pod_actions import PodAction, PodDecision
from rescheduler.core.model.disruption_budgets import DisruptionBudget
from rescheduler.core.model.pods import Pod, parse_pod
from rescheduler.core.model.raw import RawObject
from rescheduler.core.model.release_record import RETURNED_POD_DELETION_COST
from rescheduler.core.placement.planner import Fit, Forecast
from rescheduler.core.replacement.decisions import (
    ReplacementDecision,
    ReplacementStep,
)
from rescheduler.core.replacement.failures import ReplacementBackoff, ReplacementFailure
from rescheduler.kube.client import UnreachableError
from unit.builders import NOW, raw_deployment, raw_replica, raw_replica_set, release_record
from unit.fakes import FakeClock, FakeClusterClient, settle
from unit.supervision import silent, simulated

RELEASE, RETURN = ReplacementDecision(ReplacementStep.RELEASE), ReplacementDecision(ReplacementStep.RETURN)
CLEAR = ReplacementDecision(ReplacementStep.CLEAR_RECORD)
BUDGET = (("DisruptionBudget", "The disruption budget b needs 3 healthy pods and has 3 currently"),)
DENIED = 'admission webhook "guard" denied the request: not now'
POD_A, POD_B = "/api/v1/namespaces/s/pods/a", "/api/v1/namespaces/s/pods/b"
EVICTION_OF_A = f"{POD_A}/eviction?dryRun=All"
MISSING_ROOM = Forecast(Fit.DOES_NOT_FIT, reason="Insufficient cpu")
NO_ROOM_BACKOFF = ReplacementBackoff(ReplacementFailure.NO_ROOM, "Insufficient cpu", NOW + timedelta(minutes=10))


class FakeBudgets:
    """Budgets that cover each pod; `covering`: None while they are not listed."""

    covering: tuple[DisruptionBudget, ...] | None = ()

    def for_pod(self, _pod: Pod) -> tuple[DisruptionBudget, ...] | None:
        return self.covering


class World:
    """Deployment `web` with pods in ReplicaSet `web-a`, watched workloads, and the replacer.

    Attributes:
        evicting: UIDs of pods that count as gone.
        woken: subscribers, in the order in which the replacer woke them; `wakes` is set each time.
    """

    def __init__(self, *pods: RawObject, replicas: int = 3, clock: Clock | None = None) -> None:
        self.client, self.time, self.budgets, self.metrics = FakeClusterClient(), FakeClock(), FakeBudgets(), Metrics()
        self.clock = clock or self.time
        self.client.put("deployments", raw_deployment(replicas=replicas))
        self.client.put("replicasets", raw_replica_set(replicas=replicas))
        self.client.put("pods", *pods)
        self.pods = {raw["metadata"]["name"]: parse_pod(raw) for raw in pods}
        self.evicting: frozenset[str] = frozenset()
        self.woken: list[str] = []
        self.wakes = asyncio.Event()
        self.workloads = WorkloadWatch(self.client, lambda _: None)
        self.replacer = Replacer(
            self.client,
            self.clock,
            self.budgets,  # type: ignore[arg-type]
            self.workloads,
            self.metrics,
            self._wake,
            lambda: self.evicting,
            refusal_message=lambda _: None,
        )

    def _wake(self, subscribers: Iterable[str]) -> None:
        self.woken += subscribers
        self.wakes.set()

    def ask(
        self,
        *pods: str,
        subscriber: str = "n",
        mode: MoveMode = MoveMode.ALL,
        action: PodAction = PodAction.EVICT,
        drain: DrainSettings | None = None,
        blockers: dict[str, Blocker] | None = None,
        forecast: Forecast | None = None,
    ) -> dict[str, ReplacementDecision] | None:
        """Return the decisions for these pods; all pods if none is named."""
        asked = [(self.pods[name], PodDecision(action)) for name in pods or self.pods]
        forecasts = {pod.uid: forecast for pod, _ in asked} if forecast else None
        return self.replacer.evaluate(
            subscriber,
            asked,
            drain or DrainSettings(),
            self.clock.now(),
            mode,
            blockers=blockers or {},
            forecasts=forecasts,
        )

    async def decide(self, pod: str = "a", **asked: Any) -> ReplacementDecision:
        """Return the decision for one pod once all lists are there."""
        for _ in range(2):
            self.ask(pod, **asked)
            await settle()
        found = self.ask(pod, **asked)
        assert found is not None
        return found[pod]

    async def start(
        self, decision: ReplacementDecision, pod: str = "a", subscriber: str = "n", cause: str = "NodeDrain/n"
    ) -> None:
        """Start a decision for a pod, and let its requests end."""
        self.replacer.start(subscriber, self.pods[pod], decision, cause)
        await settle()

    @property
    def written(self) -> list[str]:
        """Method and path of each write."""
        return [f"{method} {path}" for method, path, _ in self.client.written]

    @property
    def patches(self) -> list[RawObject]:
        return [body["metadata"] for method, _, body in self.client.written if method == "PATCH"]


async def ready_world(*pods: RawObject, **options: Any) -> World:
    """Return a world whose workloads are listed for these pods."""
    world = World(*pods, **options)
    for name in world.pods:
        await world.decide(name)
    for _ in range(2):
        world.ask()
        await settle()
    world.woken.clear()
    return world


def three(**options: Any) -> list[RawObject]:
    return [raw_replica("a", **options), raw_replica("b"), raw_replica("c")]


def annotated(pods: list[RawObject], **annotations: str) -> list[RawObject]:
    pods[0]["metadata"]["annotations"] |= annotations
    return pods


RELEASED: dict[str, Any] = {"record": release_record()}
RETURNED: dict[str, Any] = {
    "annotations": {
        names.MOVE: release_record(deletion_cost="7").to_annotation(),
        names.POD_DELETION_COST: RETURNED_POD_DELETION_COST,
    }
}
STEPS = [
    pytest.param(RELEASE, {}, id="release"),
    pytest.param(RETURN, RELEASED, id="return"),
    pytest.param(CLEAR, RETURNED, id="clear"),
]


# -- what is written ---------------------------------------------------------------------------------------------------


async def test_release_is_rehearsed_before_the_pod_is_patched() -> None:
    world = await ready_world(*three())
    await world.start(RELEASE)
    assert world.written == [f"POST {EVICTION_OF_A}", f"PATCH {POD_A}"]
    _, _, eviction = world.client.written[0]
    assert eviction["deleteOptions"] == {"preconditions": {"uid": "a"}, "dryRun": ["All"]}


@pytest.mark.parametrize(("decision", "pod"), STEPS)
async def test_patch_has_uid_and_latest_version_as_precondition(decision: ReplacementDecision, pod: RawObject) -> None:
    world = await ready_world(*three(**pod))
    world.client.put("pods", raw_replica("a", **pod))
    await settle()
    latest = await world.client.find(POD_A)
    assert latest is not None
    await world.start(decision)
    (patch,) = world.patches
    assert (patch["uid"], patch["resourceVersion"]) == ("a", latest["metadata"]["resourceVersion"])


async def test_release_makes_the_deployment_the_controller_and_writes_a_record() -> None:
    world = await ready_world(*annotated(three(), **{names.POD_DELETION_COST: "7"}))
    await world.start(RELEASE, cause="NodeDrain/n")
    (patch,) = world.patches
    (owner,) = patch["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("Deployment", "web", True)
    assert json.loads(patch["annotations"][names.MOVE]) == {
        "cause": "NodeDrain/n",
        "cost": "7",
        "ready": 3,
        "since": NOW.isoformat(),
        "attempt": 1,
        "deployment": "web",
        "deploymentUID": "web",
        "replicaSet": "web-a",
        "replicaSetUID": "web-a",
    }


async def test_second_release_records_the_ready_pods_before_the_first() -> None:
    world = await ready_world(raw_replica("a"), raw_replica("b", record=release_record(ready_pods=5)), raw_replica("c"))
    await world.start(RELEASE)
    assert json.loads(world.patches[0]["annotations"][names.MOVE])["ready"] == 5


async def test_return_makes_the_replica_set_the_controller_and_protects_the_pod() -> None:
    world = await ready_world(*three(**RELEASED))
    await world.start(RETURN)
    (patch,) = world.patches
    assert [(owner["kind"], owner["uid"]) for owner in patch["ownerReferences"]] == [("ReplicaSet", "web-a")]
    assert patch["annotations"] == {names.POD_DELETION_COST: RETURNED_POD_DELETION_COST}


async def test_cleared_record_restores_the_deletion_cost() -> None:
    world = await ready_world(*three(**RETURNED))
    await world.start(CLEAR)
    (patch,) = world.patches
    assert patch["annotations"] == {names.MOVE: None, names.POD_DELETION_COST: "7"}
    assert "ownerReferences" not in patch


@pytest.mark.parametrize(
    "step",
    sorted(set(ReplacementStep) - {ReplacementStep.RELEASE, ReplacementStep.RETURN, ReplacementStep.CLEAR_RECORD}),
)
async def test_other_steps_write_nothing(step: ReplacementStep) -> None:
    world = await ready_world(*three(**RELEASED))
    await world.start(ReplacementDecision(step))
    assert world.written == []


async def test_pod_whose_record_and_controller_disagree_is_not_returned() -> None:
    forged = {"annotations": {names.MOVE: release_record().to_annotation()}}
    world = await ready_world(*three(**forged))
    decisions = world.ask("a", mode=MoveMode.NONE)
    await world.start(RETURN)
    await world.start(CLEAR)
    assert (decisions, world.written) == ({}, [])


async def test_released_pod_counts_as_released_before_the_watch_shows_it() -> None:
    world = await ready_world(*three())
    await world.start(RELEASE)
    assert world.replacer.as_released(world.pods["a"]).released
    assert (await world.decide("b", subscriber="n2")).step is ReplacementStep.WAIT


async def test_record_of_a_pod_without_a_known_replica_set_is_cleared() -> None:
    lost = raw_replica("a", record=release_record(replica_set="old", replica_set_uid="old", deployment_uid="old"))
    lost["metadata"]["ownerReferences"][0]["uid"] = "old"
    world = await ready_world(lost)
    world.pods["a"] = parse_pod((await world.client.find(POD_A)) or {})
    await world.start(CLEAR)
    assert world.written == [f"PATCH {POD_A}"]


# -- the rehearsed eviction --------------------------------------------------------------------------------------------


async def test_budget_that_refuses_the_rehearsal_does_not_prevent_the_release() -> None:
    world = await ready_world(*three())
    world.client.refuse("POST eviction", 429, "Cannot evict pod", causes=BUDGET)
    await world.start(RELEASE)
    assert world.written[-1] == f"PATCH {POD_A}"


@pytest.mark.parametrize(
    ("code", "message", "step"),
    [
        (403, "denied by policy", ReplacementStep.HOLD),
        (403, DENIED, ReplacementStep.PLAIN_EVICTION),
        (429, DENIED, ReplacementStep.PLAIN_EVICTION),
        (500, 'failed calling webhook "guard": EOF', ReplacementStep.PLAIN_EVICTION),
    ],
)
async def test_refused_rehearsal_releases_nothing(code: int, message: str, step: ReplacementStep) -> None:
    world = await ready_world(*three())
    world.client.refuse("POST eviction", code, message)
    await world.start(RELEASE)
    assert world.patches == []
    assert (await world.decide()).step is step


async def test_refusal_of_the_rehearsal_is_shown_in_its_words() -> None:
    world = await ready_world(*three())
    world.client.refuse("POST eviction", 403, "denied by policy")
    await world.start(RELEASE)
    shown = await world.decide()
    assert (shown.blocker_class, shown.message) == (BlockerClass.ADMISSION_DENIED, "denied by policy")


async def test_rehearsal_without_an_answer_is_reported_only_after_three_failures() -> None:
    world = await ready_world(*three())
    world.client.refused["POST eviction"] = UnreachableError("no answer")
    steps = []
    for _ in range(3):
        await world.start(RELEASE)
        steps.append((await world.decide()).step)
        world.time.seconds += 1
    assert steps == [ReplacementStep.RELEASE, ReplacementStep.RELEASE, ReplacementStep.HOLD]
    assert world.patches == []


async def test_drain_that_is_suspended_during_the_rehearsal_releases_nothing() -> None:
    world = await ready_world(*three())
    world.client.stalled = asyncio.Event()
    await world.start(RELEASE)
    world.ask(mode=MoveMode.NONE)
    world.client.stalled.set()
    await settle()
    assert world.written == [f"POST {EVICTION_OF_A}"]


# -- failed writes -----------------------------------------------------------------------------------------------------


async def test_pod_whose_release_is_forbidden_is_evicted_plainly() -> None:
    world = await ready_world(*three())
    world.client.refuse("PATCH pods", 403, "denied by policy")
    await world.start(RELEASE)
    decision = await world.decide()
    assert (decision.step, decision.reason) == (ReplacementStep.PLAIN_EVICTION, "ReleaseRefused")


async def test_last_ready_pod_whose_release_is_forbidden_is_held_in_those_words() -> None:
    world = await ready_world(raw_replica("a"), replicas=1)
    world.client.refuse("PATCH pods", 403, "denied by policy")
    await world.start(RELEASE)
    decision = await world.decide()
    assert (decision.step, decision.blocker_class) == (ReplacementStep.HOLD, BlockerClass.ADMISSION_DENIED)
    assert "denied by policy" in decision.message


@pytest.mark.parametrize(
    "error",
    [
        pytest.param((409, "the object has been modified"), id="conflict"),
        pytest.param((404, "not found"), id="gone"),
        pytest.param((429, "too many requests"), id="throttled"),
        pytest.param((0, "no answer"), id="timeout"),
    ],
)
async def test_write_that_fails_for_a_moment_is_repeated_and_not_reported(error: tuple[int, str]) -> None:
    world = await ready_world(*three())
    world.client.refuse("PATCH pods", *error)
    await world.start(RELEASE)
    assert (await world.decide()).step is ReplacementStep.RELEASE
    world.client.refused.clear()
    world.time.seconds += 1
    await world.start(RELEASE)
    assert (await world.client.find(POD_A) or {})["metadata"]["ownerReferences"][0]["kind"] == "Deployment"


async def test_pod_that_changed_meanwhile_is_not_overwritten() -> None:
    world = await ready_world(*three())
    world.client.stalled = asyncio.Event()
    await world.start(RELEASE)
    world.client.put("pods", raw_replica("a", annotations={"other": "write"}))
    world.client.stalled.set()
    await settle()
    found = await world.client.find(POD_A) or {}
    assert names.MOVE not in found["metadata"]["annotations"]
    assert world.replacer.as_released(world.pods["a"]).released is False


@pytest.mark.parametrize("request_name", ["PATCH pods", "POST eviction"])
async def test_no_request_is_sent_during_the_pause_after_a_failure(request_name: str) -> None:
    world = await ready_world(*three())
    world.client.refuse(request_name, 403, "denied by policy")
    await world.start(RELEASE)
    sent = len(world.written)
    world.time.seconds = 29.9
    await world.start(RELEASE)
    assert len(world.written) == sent
    world.time.seconds = 30
    await world.start(RELEASE)
    assert len(world.written) > sent


@pytest.mark.parametrize("request_name", ["PATCH pods", "POST eviction"])
async def test_refusal_counts_until_its_pause_ends(request_name: str) -> None:
    world = await ready_world(*three())
    world.client.refuse(request_name, 403, "denied by policy")
    await world.start(RELEASE)
    world.time.seconds = 29.9
    assert (await world.decide()).step is not ReplacementStep.RELEASE
    world.time.seconds = 30
    assert (await world.decide()).step is ReplacementStep.RELEASE


def test_pause_grows_with_each_failure_and_its_end_wakes_the_subscriber() -> None:
    async def story() -> list[float]:
        loop = asyncio.get_running_loop()
        world = await ready_world(*three(), clock=Clock(NOW.timestamp, loop.time))
        world.client.refused["PATCH pods"] = UnreachableError("no answer")
        pauses = []
        for _ in range(4):
            await world.start(RELEASE)
            world.wakes.clear()
            failed_at = loop.time()
            async with asyncio.timeout(60):
                await world.wakes.wait()
            pauses.append(loop.time() - failed_at)
        return pauses

    assert simulated(story()) == [0.5, 1.0, 2.0, 4.0]


async def test_success_ends_the_count_of_failures() -> None:
    world = await ready_world(*three())
    lost: dict[str, Exception] = {"PATCH pods": UnreachableError("no answer")}
    for world.client.refused in (lost, lost, {}):
        await world.start(RELEASE)
        world.time.seconds += 1
    world.client.refused = lost
    await world.start(RETURN)
    world.pods["a"] = world.replacer.as_released(world.pods["a"])
    assert (await world.decide(mode=MoveMode.NONE)).step is ReplacementStep.RETURN


async def test_bug_in_one_pod_pauses_only_that_pod() -> None:
    with silent():
        world = await ready_world(*three())
        world.client.refused["PATCH pods"] = KeyError("bug")
        await world.start(RELEASE)
        world.client.refused.clear()
        await world.start(RELEASE)
        await world.start(RELEASE, "b")
    assert [path for path in world.written if path.startswith("PATCH")] == [f"PATCH {POD_A}", f"PATCH {POD_B}"]


# -- one request at a time ---------------------------------------------------------------------------------------------


async def test_pod_with_a_request_in_flight_gets_no_second_one() -> None:
    world = await ready_world(*three(**RELEASED))
    world.client.stalled = asyncio.Event()
    await world.start(RETURN)
    await world.start(RETURN)
    assert len(world.written) == 1
    assert (await world.decide(mode=MoveMode.NONE)).step is ReplacementStep.WAIT


async def test_two_drains_share_the_limit_of_an_owner_during_a_release() -> None:
    world = await ready_world(*three())
    world.client.stalled = asyncio.Event()
    assert (await world.decide("b", subscriber="n2")).step is ReplacementStep.RELEASE
    await world.start(RELEASE, "a", subscriber="n1")
    assert (await world.decide("b", subscriber="n2")).step is ReplacementStep.WAIT


async def replaced_world() -> World:
    """Return a world in which two new pods have a place while the pod `x` is released: three more may be released."""
    pods = (*(raw_replica(name) for name in "abcdef"), raw_replica("x", record=release_record(ready_pods=7)))
    world = await ready_world(*pods, raw_new_pod("new1"), raw_new_pod("new2"), replicas=7)
    assert (await world.decide("x")).step is ReplacementStep.WAIT
    return world


async def place_new_pod(world: World, name: str, node: str = "n2") -> None:
    new = raw_new_pod(name)
    new["spec"]["nodeName"] = node
    world.client.put("pods", new)
    await settle()


def released_together(world: World, *pods: str, subscriber: str = "n") -> list[str]:
    """Return the pods that the next evaluation releases."""
    decisions = world.ask(*pods, subscriber=subscriber) or {}
    return [uid for uid, decision in decisions.items() if decision.step is ReplacementStep.RELEASE]


async def test_one_evaluation_releases_only_as_many_pods_as_slow_start_allows() -> None:
    world = await ready_world(*three())
    assert released_together(world) == ["a"]
    world = await replaced_world()
    assert released_together(world) == ["a", "b", "c"]


async def test_new_pod_on_the_drained_node_is_no_success() -> None:
    world = await ready_world(*three(), raw_replica("x", record=release_record(ready_pods=4)), replicas=4)
    await place_new_pod(world, "new", "n")
    assert released_together(world) == []
    await place_new_pod(world, "new")
    assert released_together(world) == ["a"]


async def test_drains_share_the_successes_and_the_limit_of_an_owner() -> None:
    world = await replaced_world()
    await world.decide("c", subscriber="n2")
    assert released_together(world, "c", "d", "e", subscriber="n2") == ["c", "d", "e"]
    world.client.stalled = asyncio.Event()
    await world.start(RELEASE, "a", subscriber="n")
    assert released_together(world, "c", "d", "e", subscriber="n2") == ["c", "d"]


async def test_refused_replacement_lets_slow_start_begin_again() -> None:
    world = await replaced_world()
    refused = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}
    for conditions in ([refused], []):
        world.client.put("replicasets", {**raw_replica_set(replicas=7), "status": {"conditions": conditions}})
        await settle()
        assert released_together(world) == []
    await place_new_pod(world, "new3")
    assert released_together(world) == ["a"]


async def test_failed_replacement_lets_slow_start_begin_again() -> None:
    world = await replaced_world()
    world.replacer.record_removals([replace(leaving(), uid="y")], DrainSettings(), NOW)
    assert released_together(world) == []
    world.replacer.record_replacement(parse_pod(raw_replica("z", record=release_record())))
    assert released_together(world) == []
    await place_new_pod(world, "new3")
    assert released_together(world) == ["a"]


async def test_new_pods_that_others_remove_are_no_success() -> None:
    world = await replaced_world()
    world.client.remove("pods", "new2")
    await settle()
    await world.decide("x")
    await place_new_pod(world, "new3")
    await place_new_pod(world, "new4")
    assert released_together(world) == ["a", "b", "c"]


async def test_pod_that_is_evicted_plainly_is_no_success() -> None:
    world = await ready_world(*three())
    world.evicting = frozenset({"a"})
    world.ask()
    assert released_together(world, "b", "c") == ["b"]


async def test_pod_that_fits_elsewhere_is_released_before_the_others() -> None:
    world = await ready_world(*three())
    asked = [(pod, PodDecision(PodAction.EVICT)) for pod in world.pods.values()]
    forecasts = {"a": MISSING_ROOM, "b": Forecast(Fit.FITS, rank=1), "c": Forecast(Fit.FITS, rank=0)}
    found = world.replacer.evaluate("n", asked, DrainSettings(), NOW, MoveMode.ALL, blockers={}, forecasts=forecasts)
    assert [uid for uid, decision in (found or {}).items() if decision.step is ReplacementStep.RELEASE] == ["c"]


@pytest.mark.parametrize("refused", [False, True])
async def test_end_of_a_request_wakes_its_subscriber_only(refused: bool) -> None:
    world = await ready_world(*three())
    if refused:
        world.client.refuse("PATCH pods", 403)
    await world.start(RELEASE, subscriber="n1")
    assert world.woken == ["n1"]


# -- lists that are missing --------------------------------------------------------------------------------------------


async def test_nothing_is_decided_before_the_workloads_are_listed() -> None:
    world = World(*three())
    assert world.ask() is None
    world.client.refuse("LIST deployments", 403, "not allowed")
    await settle()
    assert world.ask() is None
    assert "deployments" in world.replacer.why_not_synced("n")


async def test_pod_waits_while_its_budgets_are_not_listed() -> None:
    world = await ready_world(*three())
    world.budgets.covering = None
    assert (await world.decide()).step is ReplacementStep.WAIT


async def test_pod_waits_while_the_pods_of_its_owner_are_not_listed() -> None:
    world = World(*three())
    world.client.refuse("LIST pods", 403, "not allowed")
    decision = await world.decide()
    assert decision.step is ReplacementStep.WAIT
    assert "not allowed" in decision.waiting_for


async def test_pod_that_the_watch_brings_before_its_replica_set_waits_for_it() -> None:
    world = await ready_world(raw_replica("a", replica_set="new-b"))
    assert (await world.decide()).step is ReplacementStep.WAIT
    world.time.seconds = 5
    decision = await world.decide()
    assert (decision.step, decision.reason) == (ReplacementStep.PLAIN_EVICTION, "NoDeployment")


async def test_closed_subscriber_watches_no_workload() -> None:
    world = await ready_world(*three())
    world.replacer.close("n")
    assert not world.workloads.is_synced("s")


# -- pods that must not move -------------------------------------------------------------------------------------------


async def test_drain_that_must_not_move_pods_only_returns_released_ones() -> None:
    world = await ready_world(*three(**RELEASED))
    decisions = world.ask(mode=MoveMode.NONE) or {}
    assert {uid: decision.step for uid, decision in decisions.items()} == {"a": ReplacementStep.RETURN}


async def test_released_pod_that_must_stay_is_returned() -> None:
    world = await ready_world(*three(**RELEASED))
    assert (await world.decide(action=PodAction.SKIP)).step is ReplacementStep.RETURN


async def test_released_pod_that_was_to_be_deleted_at_the_timeout_is_returned() -> None:
    world = await ready_world(*three(**RELEASED))
    assert (await world.decide(mode=MoveMode.NONE, action=PodAction.DELETE)).step is ReplacementStep.RETURN


async def test_pod_with_replacement_never_needs_no_decision() -> None:
    world = await ready_world(*three())
    assert world.ask(drain=DrainSettings(replacement=ReplacementMode.NEVER)) == {}


# -- the return --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("found", ["nothing", "no replicas", "another ReplicaSet of this name"])
async def test_pod_is_not_returned_to_a_replica_set_that_would_delete_it(found: str) -> None:
    world = await ready_world(*three(**RELEASED))
    live = {"nothing": None, "no replicas": raw_replica_set(replicas=0)}.get(found, raw_replica_set())
    if live and found.startswith("another"):
        live["metadata"]["uid"] = "newer"

    async def find(*_: object, **__: object) -> RawObject | None:
        return live

    world.client.find = find  # type: ignore[method-assign]
    await world.start(RETURN)
    assert world.written == []


async def test_failed_return_of_a_replacement_sets_a_backoff_for_its_owner() -> None:
    world = await ready_world(*three(**RELEASED))
    await world.start(replace(RETURN, backoff=NO_ROOM_BACKOFF))
    decision = await world.decide("b")
    assert (decision.step, decision.blocker_class) == (ReplacementStep.HOLD, BlockerClass.NO_ROOM_IN_POOL)


async def test_return_whose_live_read_fails_sets_no_backoff() -> None:
    world = await ready_world(*three(**RELEASED))
    world.client.refuse("GET replicasets", 403, "not allowed")
    await world.start(replace(RETURN, backoff=NO_ROOM_BACKOFF))
    assert world.patches == []
    assert (await world.decide("b")).backoff is None


# -- back-offs of owners -----------------------------------------------------------------------------------------------


async def in_backoff(backoff: ReplacementBackoff = NO_ROOM_BACKOFF) -> World:
    """Return a world whose Deployment has a backoff after the return of pod `a`."""
    world = await ready_world(*three(**RELEASED))
    await world.start(replace(RETURN, backoff=backoff))
    await world.start(CLEAR)
    assert (await world.decide("b")).backoff == backoff
    return world


@pytest.mark.parametrize(("minutes", "attempt"), [(39, 2), (40, 1)])
async def test_backoff_counts_until_half_an_hour_after_its_pause(minutes: int, attempt: int) -> None:
    world = await in_backoff()
    world.time.seconds = minutes * 60
    world.ask("b")
    await world.start(RELEASE, "b")
    assert json.loads(world.patches[-1]["annotations"][names.MOVE])["attempt"] == attempt


async def test_new_room_ends_a_backoff_for_lack_of_room() -> None:
    world = await in_backoff()
    assert (await world.decide("b", forecast=MISSING_ROOM)).step is ReplacementStep.HOLD
    assert (await world.decide("b", forecast=Forecast(Fit.FITS))).step is ReplacementStep.RELEASE


async def test_colocated_pod_is_evicted_plainly_at_once() -> None:
    world = await ready_world(*three())
    together = Forecast(Fit.FITS, colocated_uids=frozenset({"a"}))
    decision = await world.decide("a", forecast=together)
    assert (decision.step, decision.reason) == (ReplacementStep.PLAIN_EVICTION, "Colocated")


async def test_plan_that_always_found_room_ends_no_backoff() -> None:
    world = await in_backoff()
    assert (await world.decide("b", forecast=Forecast(Fit.FITS))).step is ReplacementStep.HOLD


async def test_new_room_ends_no_backoff_for_another_cause() -> None:
    world = await in_backoff(replace(NO_ROOM_BACKOFF, failure=ReplacementFailure.NOT_READY))
    await world.decide("b", forecast=MISSING_ROOM)
    assert (await world.decide("b", forecast=Forecast(Fit.FITS))).step is ReplacementStep.HOLD


async def test_pod_that_left_after_its_replacement_was_ready_ends_the_backoff() -> None:
    world = await in_backoff()
    world.replacer.record_replacement(parse_pod(raw_replica("x", record=release_record())))
    assert (await world.decide("b")).step is ReplacementStep.RELEASE


LATE = "no replacement became Ready: late"


async def test_backoff_of_the_last_process_is_taken_over_from_the_blocker_once() -> None:
    world = World(*three())
    recorded = Blocker.model_validate(
        {"namespace": "s", "pod": "a", "class": "ReplacementNotReady", "message": LATE, "since": NOW}
    )
    await ready_lists(world)
    assert (await world.decide(blockers={"s/a": recorded})).step is ReplacementStep.HOLD
    world.replacer.record_replacement(parse_pod(raw_replica("x", record=release_record())))
    assert (await world.decide(blockers={"s/a": recorded})).step is ReplacementStep.RELEASE


async def ready_lists(world: World) -> None:
    """Let the lists of the workloads end, before the first evaluation of a pod."""
    for _ in range(2):
        world.workloads.subscribe("n", world.pods.values())
        await settle()


# -- pods that others remove -------------------------------------------------------------------------------------------


def leaving(**changes: Any) -> Pod:
    return replace(parse_pod(raw_replica("a", **RELEASED)), deletion_timestamp=NOW, **changes)


async def test_released_pod_that_others_remove_sets_one_backoff() -> None:
    world = await ready_world(*three(**RELEASED))
    for _ in range(2):
        world.replacer.record_removals([leaving()], DrainSettings(), NOW)
    assert world.replacer.was_removed_by_others("a")
    assert world.metrics.released_pods_taken._value.get() == 1
    assert world.replacer._backoffs["web"].failure is ReplacementFailure.REMOVED_BY_OTHERS


@pytest.mark.parametrize("exempt", ["evicting", "evicted", "finished", "deployment deleting", "surplus"])
async def test_pod_that_leaves_as_expected_is_not_removed_by_others(exempt: str) -> None:
    world = await ready_world(*three(**RELEASED))
    pod = leaving(evicted=exempt == "evicted", phase="Succeeded" if exempt == "finished" else "Running")
    if exempt == "evicting":
        world.evicting = frozenset({"a"})
    elif exempt == "deployment deleting":
        deleting = raw_deployment()
        deleting["metadata"]["deletionTimestamp"] = NOW.isoformat()
        world.client.put("deployments", deleting)
    elif exempt == "surplus":
        world.client.put("deployments", raw_deployment(replicas=0))
    await settle()
    world.replacer.record_removals([pod], DrainSettings(), NOW)
    assert not world.replacer.was_removed_by_others("a")


def raw_new_pod(name: str) -> RawObject:
    """Return a raw pod that is created at the time of the release."""
    new = raw_replica(name, node="n2", ready=False)
    new["metadata"]["creationTimestamp"] = release_record().released_at.isoformat()
    return new


async def test_third_new_pod_that_others_remove_lets_the_owner_back_off() -> None:
    world = await ready_world(*three(**RELEASED))
    for number in range(4):
        world.client.put("pods", raw_new_pod(f"new{number}"))
        await settle()
        decision = await world.decide("a")
        assert (decision.step is ReplacementStep.RETURN) == (number == 3)
        world.client.remove("pods", f"new{number}")
        await settle()
    assert decision.backoff is not None
    assert decision.backoff.failure is ReplacementFailure.NEW_PODS_REMOVED
    assert "the last one was new2" in decision.backoff.message


async def test_success_ends_the_count_of_removed_new_pods() -> None:
    record = release_record(ready_pods=4)
    world = await ready_world(*three(record=record), raw_replica("x", record=record), replicas=4)
    for number in range(5):
        world.client.put("pods", raw_new_pod(f"new{number}"))
        await settle()
        if number == 2:
            world.replacer._replaced["x"] = "web"
            world.evicting = frozenset({"x"})
        assert (await world.decide("a")).step is ReplacementStep.WAIT
        world.client.remove("pods", f"new{number}")
        await settle()


async def test_pods_that_are_gone_are_forgotten() -> None:
    world = await ready_world(*three())
    await world.start(RELEASE)
    world.replacer.forget(["a"])
    assert not world.replacer.as_released(world.pods["a"]).released


async def test_a_rule_decides_whether_its_pods_are_replaced_first() -> None:
    world = await ready_world(raw_replica())

    def step(rule: DrainRule, *, is_bound_to_node: bool = False) -> ReplacementStep | None:
        decision = PodDecision(PodAction.EVICT, rule=rule, is_bound_to_node=is_bound_to_node)
        found = world.replacer.evaluate(
            "n", [(world.pods["a"], decision)], DrainSettings(), NOW, MoveMode.ALL, blockers={}
        )
        assert found is not None
        return found["a"].step if found else None

    assert step(DrainRule()) is ReplacementStep.RELEASE
    assert step(DrainRule(), is_bound_to_node=True) is ReplacementStep.PLAIN_EVICTION
    assert step(DrainRule(replacement=ReplacementMode.NEVER)) is None
