"""The eviction queue: rate, order and retries of evictions, and the result of each response."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rescheduler.api.drains import BlockerClass
from rescheduler.controllers.evacuation.eviction_queue import (
    MAX_EVICTIONS_IN_FLIGHT,
    ConfirmProof,
    EvictionQueue,
    EvictionSession,
    refuse_unproven,
)
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.controllers.runtime.rate_limits import InFlightSlots
from rescheduler.core.eviction.api_responses import ErrorResponse
from rescheduler.core.eviction.pod_actions import PodAction, PodDecision, RequiredProof
from rescheduler.core.model.disruption_budgets import DisruptionBudget
from rescheduler.core.model.pods import Pod
from rescheduler.kube.client import ApiError, UnreachableError
from unit.builders import pod
from unit.fakes import FakeClock

TWO = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
NOT_YET = (("DisruptionBudget", "is still being processed by the server"),)
NEEDS = (("DisruptionBudget", "needs 2 healthy pods"),)
TAKEN = 'admission webhook "virt" denied the request: evacuation has begun'


class World:
    """An API server with given responses, watched budgets, and a clock that the test sets."""

    def __init__(
        self, refusal: ErrorResponse | None = None, budgets: Mapping[str, DisruptionBudget] | None = None
    ) -> None:
        self.refusal = refusal
        self.budgets: dict[str, tuple[DisruptionBudget, ...]] = {
            uid: (budget,) for uid, budget in (budgets or {}).items()
        }
        self.asked: list[tuple[float, str, Mapping[str, Any]]] = []
        self.spent: list[str] = []
        self.exhausted: list[str] = []
        self.clock = FakeClock()
        self.hangs: asyncio.Event | None = None
        self.slow: Callable[[str], bool] = lambda _: True
        self.live: dict[str, Any] | None = None
        self.error: Exception | None = None
        self.marked: list[tuple[str, Mapping[str, Any], str]] = []
        self.mark: Exception | None = None
        self.metrics = Metrics()
        self.evictions = EvictionQueue(self, self.clock, self, self.metrics)  # type: ignore[arg-type]
        self.sender = EvictionSession(lambda: None)

    def for_pod(self, pod: Pod) -> tuple[DisruptionBudget, ...]:
        return self.budgets.get(pod.uid, ())

    def record_eviction(self, budget: DisruptionBudget) -> None:
        self.spent.append(budget.name)

    def mark_exhausted(self, budget: DisruptionBudget) -> None:
        self.exhausted.append(budget.name)

    async def create(self, path: str, body: Mapping[str, Any], *, timeout: float = 30) -> dict[str, Any]:
        return await self._answer(path, body)

    async def delete(self, path: str, options: Mapping[str, Any]) -> dict[str, Any]:
        return await self._answer(path, options)

    async def patch(self, path: str, body: Mapping[str, Any], *, kind: str) -> dict[str, Any]:
        self.marked.append((path, body, kind))
        if self.mark:
            raise self.mark
        return {"metadata": {"resourceVersion": "8"}}

    async def _answer(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        self.asked.append((self.clock.seconds, path, body))
        if self.hangs and self.slow(path):
            await self.hangs.wait()
        if self.error:
            raise self.error
        if self.refusal:
            raise ApiError("POST", path, self.refusal)
        return {}

    async def send(
        self,
        *rows: tuple[Pod, PodDecision],
        rate: float = 1000,
        sender: EvictionSession | None = None,
        confirm: ConfirmProof = refuse_unproven,
    ) -> float | None:
        wait = self.evictions.send(sender or self.sender, rows, policy="p", rate=rate, confirm=confirm)
        for _ in range(20):
            await asyncio.sleep(0)
        return wait

    async def seconds(self, count: int, *rows: tuple[Pod, PodDecision], rate: float = 1000) -> None:
        for _ in range(count):
            await self.send(*rows, rate=rate)
            self.clock.seconds += 1

    @property
    def times(self) -> list[float]:
        return [at for at, _, _ in self.asked]

    def names(self) -> list[str]:
        return [path.removesuffix("/eviction").rpartition("/")[2] for _, path, _ in self.asked]

    async def list(self, path: str, **params: str) -> AsyncIterator[dict[str, Any]]:
        assert (path, params) == ("/api/v1/namespaces/s/pods", {"fieldSelector": "metadata.name=a"})
        yield {"items": [self.live] if self.live else []}


EVICT, DELETE = PodDecision(PodAction.EVICT), PodDecision(PodAction.DELETE)
NONE = DisruptionBudget("s", "one", "1", allowed=0, healthy=1, needed=1, expected=1)


@pytest.mark.parametrize(
    "refusal",
    [
        ErrorResponse(403, "Forbidden", "denied by policy"),
        ErrorResponse(403, "Forbidden", "x", (("NamespaceTerminating", ""),)),
        ErrorResponse(403, "Forbidden", "x", (("DisruptionBudget", "too many unconfirmed"),)),
        ErrorResponse(429, "TooManyRequests", "Cannot evict", NEEDS),
        ErrorResponse(429, "TooManyRequests", TAKEN),
        ErrorResponse(500, "InternalError", TWO),
        ErrorResponse(500, "InternalError", 'failed calling webhook "x": EOF'),
    ],
)
async def test_a_blocked_pod_costs_at_most_two_requests_a_minute(refusal: ErrorResponse) -> None:
    world = World(refusal)
    await world.seconds(600, (pod("a"), EVICT))
    assert len(world.asked) == 20


async def test_a_busy_server_is_asked_less_and_less_and_nothing_is_deleted() -> None:
    world = World(ErrorResponse(429, "TooManyRequests", "too many requests", (), 1))
    await world.seconds(600, (pod("a"), EVICT))
    gaps = [later - earlier for earlier, later in pairwise(world.times)]
    assert gaps == sorted(gaps)
    assert gaps[-1] == 30
    assert all(path.endswith("/eviction") for _, path, _ in world.asked)


async def test_a_server_that_is_busy_for_days_is_asked_on() -> None:
    world = World(ErrorResponse(503))
    for _ in range(1100):
        await world.send((pod("a"), EVICT))
        world.clock.seconds += 31
    assert len(world.asked) == 1100


@pytest.mark.parametrize(
    "refusal",
    [ErrorResponse(429, "", "x", NOT_YET, 45), ErrorResponse(403, "", "x", (), 45), ErrorResponse(503, "", "", (), 45)],
)
async def test_what_the_server_asks_to_wait_is_waited(refusal: ErrorResponse) -> None:
    world = World(refusal)
    await world.seconds(91, (pod("a"), EVICT))
    assert world.times == [0, 45, 90]


async def test_no_answer_at_all_is_named_and_tried_again() -> None:
    world = World()
    world.error = UnreachableError("POST: TimeoutError")
    await world.send((pod("a"), EVICT))
    answer = world.sender.attempts["a"].last_result
    assert answer
    assert (answer.blocker_class, answer.message) == (BlockerClass.THROTTLED, "POST: TimeoutError")
    assert world.evictions.evicting_uids() == frozenset()


async def test_a_bug_costs_one_attempt_and_no_slot() -> None:
    world = World(budgets={"a": replace(NONE, allowed=1)})
    world.error = ValueError("a bug")
    await world.send((pod("a"), EVICT))
    assert world.evictions.evicting_uids() == frozenset()
    assert "a bug" in world.sender.attempts["a"].last_result.message  # type: ignore[union-attr]
    world.error = None
    world.clock.seconds += 1
    await world.send((pod("a"), EVICT))
    assert world.sender.attempts["a"].accepted_at


@pytest.mark.parametrize(
    "refusal",
    [ErrorResponse(404, "NotFound"), ErrorResponse(409, "Conflict", "Precondition failed: UID in precondition")],
)
async def test_a_pod_that_is_gone_is_done(refusal: ErrorResponse) -> None:
    world = World(refusal)
    await world.seconds(100, (pod("a"), EVICT))
    assert len(world.asked) == 1
    assert world.sender.attempts["a"].accepted_at


async def test_each_asks_for_its_pod_only_and_for_a_grace_above_nothing() -> None:
    world = World()
    world.sender.grace_seconds = 7
    await world.send((pod("a"), EVICT), (pod("b"), PodDecision(PodAction.DELETE, grace_seconds=1)))
    (_, path, body), (_, other, options) = world.asked
    assert path == "/api/v1/namespaces/s/pods/a/eviction"
    assert body["deleteOptions"] == {"preconditions": {"uid": "a"}, "gracePeriodSeconds": 7}
    assert other == "/api/v1/namespaces/s/pods/b"
    assert (options["preconditions"], options["gracePeriodSeconds"]) == ({"uid": "b"}, 1)


async def test_one_in_flight_for_each_budget_and_those_of_others_beside_it() -> None:
    one, two = DisruptionBudget("s", "one", "1", allowed=9), DisruptionBudget("s", "two", "2", allowed=9)
    world = World(budgets={"a": one, "b": one, "c": two})
    world.hangs = asyncio.Event()  # a slow webhook: nobody waits for it but its own budget's pods
    rows = [(pod(name), EVICT) for name in "abcd"]
    await world.send(*rows)
    assert sorted(world.names()) == ["a", "c", "d"]
    world.hangs.set()
    await world.send(*rows)
    await world.send(*rows)
    assert sorted(world.names()) == ["a", "b", "c", "d"]


async def test_no_more_a_second_than_the_policy_says() -> None:
    world = World()
    rows = [(pod(f"p{i}"), EVICT) for i in range(100)]
    await world.seconds(15, *rows, rate=5)
    assert [world.times.count(second) for second in range(15)] == [5] * 15


# -- budgets that let nobody go ----------------------------------------------------------------------------------------


async def test_an_exhausted_budget_is_probed_within_15_s_then_twice_a_minute() -> None:
    """A webhook that moves pods itself learns of a pod only through a real eviction."""
    world = World(ErrorResponse(429, "", "Cannot evict", NEEDS), {"a": NONE})
    await world.seconds(120, (pod("a"), EVICT))
    assert world.times == [12, 42, 72, 102]
    assert not world.exhausted
    assert "a" not in world.sender.attempts  # its budget says it all


async def test_a_blocker_stays_while_its_pod_is_asked_about() -> None:
    """A blocker that comes and goes would cost a status write each time."""
    world = World(budgets={"a": NONE})
    world.hangs = asyncio.Event()
    rows = [(pod("a"), EVICT)]
    await world.seconds(14, *rows)
    assert world.evictions.evicting_uids() == {"a"}
    assert world.evictions.predicted_refusals(rows).keys() == {"a"}
    world.evictions.close(world.sender)


async def test_a_pod_under_several_budgets_is_probed() -> None:
    world = World(ErrorResponse(500, "", TWO))
    world.budgets["a"] = (NONE, replace(NONE, uid="2", name="two"))
    await world.seconds(60, (pod("a"), EVICT))
    assert world.times == [12, 42]


async def test_a_webhook_that_takes_it_over_is_believed_and_not_its_budget() -> None:
    world = World(ErrorResponse(429, "", TAKEN), {"a": NONE})
    await world.seconds(100, (pod("a"), EVICT))
    assert world.times == [12, 42, 72]
    answer = world.sender.attempts["a"].last_result
    assert answer
    assert answer.blocker_class is BlockerClass.DELEGATED
    assert world.evictions.refusal_message("a")


async def test_it_is_asked_for_real_and_by_its_uid() -> None:
    world = World(ErrorResponse(429, "", "Cannot evict", NEEDS), {"a": NONE})
    await world.seconds(13, (pod("a"), EVICT))
    ((_, path, body),) = world.asked
    assert path.endswith("/eviction")
    assert body["deleteOptions"] == {"preconditions": {"uid": "a"}}


async def test_room_in_a_budget_is_used_at_once_by_one_that_was_refused() -> None:
    world = World(ErrorResponse(429, "", "Cannot evict", NEEDS), {"a": NONE})
    await world.seconds(14, (pod("a"), EVICT))
    world.refusal = None
    world.budgets["a"] = (replace(NONE, allowed=1),)
    await world.send((pod("a"), EVICT))
    assert world.times == [12, 14]


async def test_slot_latency_counts_from_a_budget_that_opens_for_a_waiting_pod() -> None:
    world = World(budgets={"a": NONE, "b": NONE})
    await world.send((pod("a"), EVICT))
    world.budgets["a"] = (replace(NONE, allowed=1),)
    world.hangs = asyncio.Event()
    await world.send((pod("a"), EVICT))
    world.clock.seconds += 3
    world.hangs.set()
    await world.send()
    registry = world.metrics.registry
    assert registry.get_sample_value("rescheduler_slot_latency_seconds_count") == 1
    assert registry.get_sample_value("rescheduler_slot_latency_seconds_sum") == 3


async def test_pods_of_an_active_budget_are_not_probed_before_their_turn() -> None:
    world = World(budgets=dict.fromkeys("abcdef", NONE))
    rows = [(pod(name), EVICT) for name in "abcdef"]
    for name in "abcdef":
        await world.seconds(50, *rows)
        world.budgets[name] = (replace(NONE, allowed=1),)
        await world.send(*rows)
        world.budgets[name] = (NONE,)
        rows = [row for row in rows if row[0].name != name]
    assert world.names() == list("abcdef")


async def test_a_hundred_pods_of_one_budget_are_probed_one_after_another() -> None:
    world = World(ErrorResponse(429, "", "Cannot evict", NEEDS), {f"p{i}": NONE for i in range(100)})
    rows = [(pod(f"p{i}"), EVICT) for i in range(100)]
    for _ in range(1200):
        await world.send(*rows, rate=20)
        world.clock.seconds += 0.1
    first = {name: at for at, name in reversed(list(zip(world.times, world.names(), strict=True)))}
    assert len(first) == 100
    assert max(first.values()) < 25
    assert max(sum(start <= at < start + 1 for at in world.times) for start in world.times) <= 11
    # Each once, and then now and then one of them.
    assert len(world.asked) <= 100 + 120 / 15


async def test_what_can_go_goes_before_what_can_not() -> None:
    world = World(ErrorResponse(429, "", "Cannot evict", NEEDS), {"a": NONE})
    await world.seconds(12, (pod("a"), EVICT))
    await world.send((pod("a"), EVICT), (pod("b"), EVICT), rate=1)
    assert world.names() == ["b"]


async def test_pods_that_no_budget_counts_do_not_wait_for_any_and_spend_none() -> None:
    world = World()
    rows = [
        (replace(pod(name), phase=phase, ready=False), EVICT) for name, phase in (("a", "Failed"), ("b", "Pending"))
    ]
    world.budgets = {"a": (NONE,), "b": (NONE, replace(NONE, uid="2"))}
    await world.send(*rows)
    assert (world.names(), world.spent) == (["a", "b"], [])
    assert not world.evictions.predicted_refusals(rows)


@pytest.mark.parametrize(("ready", "spent"), [(True, ["one"]), (False, [])])
async def test_an_eviction_is_counted_if_the_server_counts_it(ready: bool, spent: list[str]) -> None:
    world = World(budgets={"a": DisruptionBudget("s", "one", "1", allowed=1, healthy=2, needed=2, expected=3)})
    await world.send((replace(pod("a"), ready=ready), EVICT))
    assert world.spent == spent


async def test_a_refusal_of_a_budget_with_room_counts_and_costs_few_requests() -> None:
    world = World(ErrorResponse(429, "", "Cannot evict", NEEDS), {"a": replace(NONE, allowed=1)})
    await world.send((pod("a"), EVICT))
    assert world.exhausted == ["one"]
    world.refusal = None
    world.clock.seconds = 0.5
    await world.send((pod("a"), EVICT))
    assert world.sender.attempts["a"].accepted_at


WORDS = st.sampled_from(["", TAKEN, TWO, "UID in precondition", "failed calling webhook"])
REFUSALS = st.builds(
    ErrorResponse, st.integers(0, 599), st.just(""), WORDS, st.sampled_from([(), NEEDS, NOT_YET]), st.integers(0, 400)
)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.none() | REFUSALS, st.integers(0, 2)), min_size=1, max_size=40))
def test_no_responses_and_no_budget_cost_many_requests_a_minute(
    stream: list[tuple[ErrorResponse | None, int]],
) -> None:
    """Accepted evictions have no effect, budgets vary, and the API server returns any response."""
    world = World()
    world.live = {"metadata": {"uid": "a"}}

    async def story() -> None:
        for second in range(600):
            world.refusal, kind = stream[len(world.asked) % len(stream)]
            shown = replace(NONE, allowed=second % 2)  # it never settles
            world.budgets["a"] = ((shown,), (NONE,), (NONE, replace(NONE, uid="2")))[kind]
            await world.send((pod("a"), EVICT))
            world.clock.seconds += 1

    asyncio.run(story())
    assert max((sum(start <= at < start + 60 for at in world.times) for start in world.times), default=0) <= 8
    later = world.times[10:]
    assert all(sum(start <= at < start + 60 for at in later) <= 4 for start in later)


# -- accepted, and still there ----------------------------------------------------------------------------------------


async def test_an_eviction_without_effect_is_repeated_after_15_s_and_reported() -> None:
    world = World()
    world.live = {"metadata": {"uid": "a"}}
    await world.send((pod("a"), EVICT))
    assert world.evictions.evicting_uids() == {"a"}
    world.clock.seconds = 14.9
    assert await world.send((pod("a"), EVICT)) == pytest.approx(0.1)
    assert world.evictions.evicting_uids() == {"a"}
    world.clock.seconds = 15
    assert world.evictions.evicting_uids() == frozenset()
    await world.seconds(75, (pod("a"), EVICT))
    assert world.times == [0, 15, 45, 75]
    attempt = world.sender.attempts["a"]
    assert attempt.last_result
    assert attempt.last_result.blocker_class is BlockerClass.DELEGATED
    assert not attempt.is_in_progress(world.clock.now())


@pytest.mark.parametrize(
    "live", [None, {"metadata": {"uid": "b"}}, {"metadata": {"uid": "a", "deletionTimestamp": "2026"}}]
)
async def test_it_is_not_sent_again_if_only_our_watch_is_behind(live: dict[str, Any] | None) -> None:
    world = World()
    world.live = live
    await world.seconds(100, (pod("a"), EVICT))
    assert world.times == [0]
    assert world.sender.attempts["a"].last_result is None


# -- who waits for whom ------------------------------------------------------------------------------------------------


async def test_a_slow_webhook_of_one_namespace_leaves_room_for_others() -> None:
    world = World()
    world.hangs, world.slow = asyncio.Event(), lambda path: "/slow/" in path
    other = EvictionSession(lambda: None)
    await world.send(*[(pod(f"p{i}", namespace="slow"), EVICT) for i in range(200)])
    assert len(world.asked) == -(-2 * MAX_EVICTIONS_IN_FLIGHT // 3)
    for count in range(5):
        await world.send((pod(f"quick{count}", namespace="other"), EVICT), sender=other)
    assert world.names()[-5:] == [f"quick{count}" for count in range(5)]
    assert all(f"quick{count}" in other.attempts for count in range(5))
    world.evictions.close(world.sender)


async def test_deletes_do_not_queue_behind_evictions_nor_share_their_rate() -> None:
    world = World()
    world.hangs, world.slow = asyncio.Event(), lambda path: path.endswith("/eviction")
    senders = [EvictionSession(lambda: None) for _ in range(60)]
    for index, sender in enumerate(senders):
        await world.send(*[(pod(f"p{index}-{i}", namespace=f"s{index}"), EVICT) for i in range(9)], sender=sender)
    assert len(world.asked) == MAX_EVICTIONS_IN_FLIGHT
    rows = [(pod(f"p{i}"), EVICT) for i in range(50)]
    await world.send(*rows, (pod("dead"), DELETE), rate=1)
    assert world.names()[-1] == "dead"
    for sender in (world.sender, *senders):
        world.evictions.close(sender)


def test_slots_are_shared_and_given_up() -> None:
    slots = InFlightSlots(9)
    assert [slots.acquire("a") for _ in range(9)].count(True) == 6
    assert slots.acquire("b")
    assert not slots.acquire("a", "b")
    slots.release("b")
    for _ in range(6):
        slots.release("a")
    assert [slots.acquire("a") for _ in range(9)].count(True) == 6


async def test_a_session_that_waits_for_a_slot_is_woken() -> None:
    world = World()
    world.hangs, woken = asyncio.Event(), []
    other = EvictionSession(lambda: woken.append(1))
    world.budgets = {"a": (replace(NONE, allowed=2),), "b": (replace(NONE, allowed=2),)}
    await world.send((pod("a"), EVICT))
    await world.send((pod("b"), EVICT), sender=other)
    assert (world.names(), woken) == (["a"], [])
    world.hangs.set()
    await world.send()
    assert woken


async def test_a_pod_has_one_request_in_flight_over_all_sessions() -> None:
    world = World()
    world.hangs = asyncio.Event()
    await world.send((pod("a"), EVICT))
    await world.send((pod("a"), EVICT), sender=EvictionSession(lambda: None))
    assert world.names() == ["a"]
    world.evictions.close(world.sender)


async def test_a_drain_that_closes_leaves_nothing_behind() -> None:
    world = World(ErrorResponse(429, "", TAKEN), {"b": NONE, "c": NONE})
    world.hangs, world.slow = asyncio.Event(), lambda path: "/d/" in path
    rows = [(pod(name), EVICT) for name in "abcd"]
    await world.seconds(60, *rows)
    world.evictions.close(world.sender)
    for _ in range(5):
        await asyncio.sleep(0)
    world.clock.seconds += 60
    world.evictions.close(world.sender)
    left = {key: value for key, value in vars(world.evictions).items() if isinstance(value, dict | set) and value}
    assert left.keys() <= {"_buckets"}
    assert not world.evictions._retries._schedule
    assert not any((world.sender.attempts, world.sender.blocked_since, world.sender.requested_uids, world.sender.tasks))
    assert world.evictions._eviction_slots._free == MAX_EVICTIONS_IN_FLIGHT


async def test_a_request_that_is_cancelled_before_it_begins_keeps_nothing() -> None:
    world = World(budgets={"a": replace(NONE, allowed=1)})
    world.evictions.send(world.sender, [(pod("a"), EVICT)], policy="p", rate=9, confirm=refuse_unproven)
    world.evictions.close(world.sender)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not world.asked
    assert world.evictions.evicting_uids() == frozenset()
    await world.send((pod("a"), EVICT))
    assert world.sender.attempts["a"].accepted_at


async def test_a_pod_whose_proof_no_longer_holds_is_reported_and_not_sent() -> None:
    world = World()

    async def doubt(pod: Pod, verdict: PodDecision) -> str:
        return "its node answers again"

    await world.send((pod("a"), PodDecision(PodAction.DELETE, required_proof=RequiredProof.BOOT_DEAD)), confirm=doubt)
    answer = world.sender.attempts["a"].last_result
    assert answer
    assert (answer.blocker_class, answer.message) == (BlockerClass.WAITING_FOR_PROOF, "its node answers again")
    assert not world.asked


@pytest.mark.parametrize("action", [PodAction.EVICT, PodAction.DELETE])
@pytest.mark.parametrize("proof", [proof for proof in RequiredProof if proof is not RequiredProof.NONE])
async def test_a_caller_without_proof_sends_only_what_requires_none(action: PodAction, proof: RequiredProof) -> None:
    world = World()
    needs_proof = PodDecision(action, required_proof=proof)
    await world.send((pod("a"), needs_proof), (pod("b"), PodDecision(action)), confirm=refuse_unproven)
    assert world.names() == ["b"]
    answer = world.sender.attempts["a"].last_result
    assert answer
    assert answer.blocker_class is BlockerClass.WAITING_FOR_PROOF
    assert "only a drain checks proof" in answer.message


async def test_a_confirmation_without_words_is_no_confirmation() -> None:
    world = World()

    async def doubt(pod: Pod, verdict: PodDecision) -> str:
        return ""

    await world.send((pod("a"), PodDecision(PodAction.DELETE, required_proof=RequiredProof.BOOT_DEAD)), confirm=doubt)
    assert not world.asked


async def test_a_node_that_cannot_be_read_does_not_make_its_pods_gone() -> None:
    world = World()

    async def fails(pod: Pod, verdict: PodDecision) -> str:
        raise ApiError("GET", "/api/v1/nodes/n", ErrorResponse(404, "NotFound", "not found"))

    await world.send((pod("a"), PodDecision(PodAction.DELETE, required_proof=RequiredProof.BOOT_DEAD)), confirm=fails)
    assert world.sender.attempts["a"].accepted_at is None
    assert not world.asked


# -- deletes are disruptions -------------------------------------------------------------------------------------------

DISRUPTED = PodDecision(PodAction.DELETE, only_if_unchanged=True)


async def test_a_delete_sets_the_disruption_target_and_an_eviction_does_not() -> None:
    world = World()
    await world.send((replace(pod("a"), resource_version="7"), DISRUPTED), (pod("b"), EVICT))
    ((path, body, kind),) = world.marked
    assert (path, kind) == ("/api/v1/namespaces/s/pods/a/status", "application/strategic-merge-patch+json")
    assert body["metadata"] == {"uid": "a", "resourceVersion": "7"}
    assert [(c["type"], c["status"]) for c in body["status"]["conditions"]] == [("DisruptionTarget", "True")]
    # The mark changes the pod: what holds for the pod as it was seen holds for it as it is marked.
    assert [b["preconditions"] for _, p, b in world.asked if p.endswith("/a")] == [{"uid": "a", "resourceVersion": "8"}]


@pytest.mark.parametrize(
    ("refusal", "sent", "accepted"),
    [
        (ErrorResponse(404, "NotFound"), False, True),
        (ErrorResponse(409, "Conflict", "Precondition failed: UID in precondition"), False, True),
        (ErrorResponse(409, "Conflict", "the object has been modified"), False, False),
        (ErrorResponse(503), False, False),
        (ErrorResponse(403, "Forbidden", "denied by policy"), True, True),  # the pod of a dead node goes all the same
    ],
)
async def test_what_a_refused_mark_means_for_the_delete(refusal: ErrorResponse, sent: bool, accepted: bool) -> None:
    world = World()
    world.mark = ApiError("PATCH", "/", refusal)
    await world.send((replace(pod("a"), resource_version="7"), DISRUPTED))
    assert bool(world.asked) is sent
    assert (world.sender.attempts["a"].accepted_at is not None) is accepted
    assert all(body["preconditions"] == {"uid": "a", "resourceVersion": "7"} for _, _, body in world.asked)
