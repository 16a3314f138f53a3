"""Evictions as they are sent: how many, how often, and what each says."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from rescheduler.core.answers import Refusal
from rescheduler.core.budgets import Budget
from rescheduler.core.pods import Pod
from rescheduler.core.verdicts import Fate, Verdict
from rescheduler.engine.evictions import Evictions, Sender
from rescheduler.engine.metrics import Metrics
from rescheduler.kube.client import ApiError

TWO = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
NOT_YET = (("DisruptionBudget", "is still being processed by the server"),)


class World:
    """An API server that says what it is told to, budgets as watched, and a clock that is set by hand."""

    def __init__(self, refusal: Refusal | None = None, budgets: Mapping[str, Budget] | None = None) -> None:
        self.refusal, self.budgets = refusal, budgets or {}
        self.asked: list[tuple[float, str, Mapping[str, Any]]] = []
        self.time = 0.0
        self.hangs: asyncio.Event | None = None
        self.evictions = Evictions(self, self, self, Metrics())  # type: ignore[arg-type]
        self.sender = Sender(lambda: None)

    def monotonic(self) -> float:
        return self.time

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.time)

    def of(self, pod: Pod) -> tuple[Budget, ...]:
        return (self.budgets[pod.uid],) if pod.uid in self.budgets else ()

    def spend(self, budget: Budget) -> None:
        """The watch says it soon enough."""

    async def create(self, path: str, body: Mapping[str, Any], *, timeout: float = 30) -> dict[str, Any]:
        return await self._answer(path, body)

    async def delete(self, path: str, options: Mapping[str, Any]) -> dict[str, Any]:
        return await self._answer(path, options)

    async def _answer(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        self.asked.append((self.time, path, body))
        if self.hangs:
            await self.hangs.wait()
        if self.refusal:
            raise ApiError("POST", path, self.refusal)
        return {}

    async def send(self, *rows: tuple[Pod, Verdict], rate: float = 1000) -> None:
        self.evictions.send(self.sender, rows, policy="p", rate=rate)
        for _ in range(20):
            await asyncio.sleep(0)

    async def seconds(self, count: int, *rows: tuple[Pod, Verdict], rate: float = 1000) -> None:
        for _ in range(count):
            await self.send(*rows, rate=rate)
            self.time += 1


def pod(name: str) -> Pod:
    return Pod("s", name, name, node="n", ready=True)


EVICT = Verdict(Fate.EVICT)


@pytest.mark.parametrize(
    "refusal",
    [
        Refusal(403, "Forbidden", "denied by policy"),
        Refusal(403, "Forbidden", "x", (("NamespaceTerminating", ""),)),
        Refusal(403, "Forbidden", "x", (("DisruptionBudget", "too many unconfirmed"),)),
        Refusal(429, "TooManyRequests", "Cannot evict", (("DisruptionBudget", "needs 2 healthy pods"),)),
        Refusal(429, "TooManyRequests", 'admission webhook "virt" denied the request: evacuation has begun'),
        Refusal(500, "InternalError", TWO),
        Refusal(500, "InternalError", 'failed calling webhook "x": EOF'),
    ],
)
async def test_a_blocked_pod_costs_at_most_two_requests_a_minute(refusal: Refusal) -> None:
    world = World(refusal)
    await world.seconds(600, (pod("a"), EVICT))
    assert len(world.asked) == 20


async def test_a_busy_server_is_asked_ever_more_seldom_and_nothing_is_deleted() -> None:
    world = World(Refusal(429, "TooManyRequests", "too many requests", (), 1))
    await world.seconds(600, (pod("a"), EVICT))
    times = [at for at, _, _ in world.asked]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps == sorted(gaps)
    assert gaps[-1] == 30
    assert all(path.endswith("/eviction") for _, path, _ in world.asked)


async def test_what_the_server_asks_to_wait_is_waited() -> None:
    world = World(Refusal(429, "TooManyRequests", "Cannot evict", NOT_YET, 10))
    await world.seconds(11, (pod("a"), EVICT))
    assert [at for at, _, _ in world.asked] == [0, 10]


@pytest.mark.parametrize(
    "refusal", [Refusal(404, "NotFound"), Refusal(409, "Conflict", "Precondition failed: UID in precondition")]
)
async def test_a_pod_that_is_gone_is_done(refusal: Refusal) -> None:
    world = World(refusal)
    await world.seconds(100, (pod("a"), EVICT))
    assert len(world.asked) == 1
    assert world.sender.attempts["a"].accepted


async def test_each_asks_for_its_pod_alone_and_for_a_grace_above_nothing() -> None:
    world = World()
    world.sender.grace = 7
    await world.send((pod("a"), EVICT), (pod("b"), Verdict(Fate.DELETE, grace=1)))
    (_, path, body), (_, other, options) = world.asked
    assert path == "/api/v1/namespaces/s/pods/a/eviction"
    assert body["deleteOptions"] == {"preconditions": {"uid": "a"}, "gracePeriodSeconds": 7}
    assert other == "/api/v1/namespaces/s/pods/b"
    assert (options["preconditions"], options["gracePeriodSeconds"]) == ({"uid": "b"}, 1)


async def test_one_in_flight_for_each_budget_and_those_of_others_beside_it() -> None:
    one, two = Budget("s", "one", "1", allowed=9), Budget("s", "two", "2", allowed=9)
    world = World(budgets={"a": one, "b": one, "c": two})
    world.hangs = asyncio.Event()  # a slow webhook: nobody waits for it but its own budget's pods
    rows = [(pod(name), EVICT) for name in "abcd"]
    await world.send(*rows)
    assert sorted(path.split("/")[-2] for _, path, _ in world.asked) == ["a", "c", "d"]
    world.hangs.set()
    await world.send(*rows)
    await world.send(*rows)
    assert sorted(path.split("/")[-2] for _, path, _ in world.asked) == ["a", "b", "c", "d"]


async def test_a_budget_without_room_is_not_asked() -> None:
    world = World(budgets={"a": Budget("s", "one", "1", allowed=0, healthy=1, needed=1)})
    await world.seconds(100, (pod("a"), EVICT))
    assert not world.asked


async def test_no_more_a_second_than_the_policy_says() -> None:
    world = World()
    rows = [(pod(f"p{i}"), EVICT) for i in range(100)]
    await world.seconds(15, *rows, rate=5)
    by_second = [sum(at == second for at, _, _ in world.asked) for second in range(15)]
    assert by_second == [5] * 15
