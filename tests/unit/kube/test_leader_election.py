"""Lease election: acquire, wait, lose and release."""

import asyncio
import copy
from datetime import UTC, datetime

import pytest

from rescheduler.core.eviction.api_responses import ErrorResponse
from rescheduler.core.model.raw import RawObject
from rescheduler.kube.client import ApiError
from rescheduler.kube.election_rules import INSTALLATION_TIMINGS, PROCESS_TIMINGS, LeaseTimings
from rescheduler.kube.leader_election import Election
from unit.supervision import simulated


class Server:
    """Server with one Lease; `refuses`: it answers each request with 403; `no_namespace`: nothing can be created."""

    def __init__(self, lease: RawObject | None = None, *, no_namespace: bool = False) -> None:
        self.lease, self.version, self.refuses, self.no_namespace = lease, 1, False, no_namespace

    def _answer(self) -> RawObject:
        if self.refuses:
            raise ApiError("GET", "/", ErrorResponse(403, message="RBAC knows no rights yet"))
        assert self.lease is not None
        return copy.deepcopy(self.lease)

    async def find(self, _: str, **__: object) -> RawObject | None:
        return self._answer() if self.lease or self.refuses else None

    async def get(self, _: str, **__: object) -> RawObject:
        return self._answer()

    async def create(self, _: str, body: RawObject, *, election: bool) -> RawObject:
        assert election
        if self.no_namespace:
            raise ApiError("POST", "/", ErrorResponse(404, "NotFound", 'namespaces "x" not found'))
        self.lease = {**body, "metadata": {**body["metadata"], "resourceVersion": "1"}}
        return self._answer()

    async def replace(self, _: str, body: RawObject, *, election: bool) -> RawObject:
        now = self._answer()
        assert election
        if body["metadata"].get("resourceVersion") != now["metadata"].get("resourceVersion"):
            raise ApiError("PUT", "/", ErrorResponse(409))
        self.version += 1
        self.lease = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version)}}
        return self._answer()

    def candidate(
        self, identity: str, terms: LeaseTimings = PROCESS_TIMINGS, *, needs_namespace: bool = True
    ) -> Election:
        loop = asyncio.get_running_loop()
        return Election(
            self,  # type: ignore[arg-type]
            namespace="x",
            identity=identity,
            now=lambda: datetime.fromtimestamp(loop.time(), UTC),
            monotonic=loop.time,
            timings=terms,
            needs_namespace=needs_namespace,
        )

    @property
    def holder(self) -> str:
        return str((self.lease or {})["spec"]["holderIdentity"])


async def taken(election: Election) -> float:
    """Return the seconds until the election holds the Lease."""
    began = asyncio.get_running_loop().time()
    await election.acquire()
    return asyncio.get_running_loop().time() - began


def test_a_lease_that_is_not_there_or_empty_is_taken_at_once() -> None:
    async def act() -> None:
        for lease in (None, {"metadata": {"name": "x"}}, {"metadata": {"name": "x"}, "spec": {}}):
            server = Server(lease)
            assert await taken(server.candidate("a")) < 1
            assert server.holder == "a"

    simulated(act())


def test_the_next_waits_for_the_duration_and_not_after_a_release() -> None:
    async def act() -> None:
        for terms in (PROCESS_TIMINGS, INSTALLATION_TIMINGS):
            server = Server()
            first, second = server.candidate("a", terms), server.candidate("b", terms)
            await first.acquire()
            waited = await taken(second)
            assert terms.lease_duration <= waited < terms.lease_duration + 1
            assert not first.holds_lease()
            await second.release()
            assert not second.holds_lease()
            assert await taken(first) <= terms.retry_period + 1

    simulated(act())


def test_while_one_renews_the_other_waits_and_sees_that_it_is_alive() -> None:
    async def act() -> None:
        server = Server()
        first, second = server.candidate("a"), server.candidate("b")
        await first.acquire()
        holding = asyncio.create_task(first.renew_until_lost())
        states = list[tuple[str, bool]]()
        waiting = asyncio.create_task(
            second.acquire(lambda: states.append((second.other_holder, second.other_holder_is_alive)))
        )
        await asyncio.sleep(600)
        assert first.holds_lease()
        assert not second.holds_lease()
        assert states == [("a", False), ("a", True)]  # only changes are reported
        holding.cancel()
        waiting.cancel()
        await asyncio.gather(holding, waiting, return_exceptions=True)

    simulated(act())


def test_a_holder_that_cannot_renew_stops_in_time_and_says_why() -> None:
    async def act() -> None:
        server, loop = Server(), asyncio.get_running_loop()
        election = server.candidate("a")
        await election.acquire()
        server.refuses = True
        began = loop.time()
        await election.renew_until_lost()
        assert loop.time() - began <= PROCESS_TIMINGS.renew_deadline + PROCESS_TIMINGS.retry_period
        assert not election.holds_lease()
        assert "RBAC knows no rights yet" in election.error
        server.refuses = False
        assert await taken(election) < 1
        assert election.error == ""

    simulated(act())


def test_a_cleanup_needs_no_lease_in_a_namespace_that_is_gone() -> None:
    async def act() -> None:
        server = Server(no_namespace=True)
        cleanup, operator = server.candidate("a", needs_namespace=False), server.candidate("b")
        assert await taken(cleanup) < 1
        holding = asyncio.create_task(cleanup.renew_until_lost())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(operator.acquire(), 600)
        assert cleanup.holds_lease()
        assert "not found" in operator.error
        server.no_namespace = False  # a new namespace: the Lease counts again
        await asyncio.sleep(PROCESS_TIMINGS.renew_deadline)
        assert server.holder == "a"
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)

    simulated(act())


def test_a_process_that_may_not_lead_takes_no_lease() -> None:
    async def act() -> None:
        server, fit = Server(), [False]
        election = server.candidate("a")
        task = asyncio.create_task(election.acquire(may_lead=lambda: fit[0]))
        await asyncio.sleep(60)
        assert server.lease is None
        fit[0] = True
        await asyncio.sleep(3)
        assert election.holds_lease()
        await task

    simulated(act())


@pytest.mark.parametrize("turns", range(10))
def test_a_holder_cancelled_during_a_renewal_stops_renewing(turns: int) -> None:
    """Otherwise it would renew forever, and the process would neither end nor lead."""

    async def act() -> None:
        election = Server().candidate("a")
        await election.acquire()
        task = asyncio.create_task(election.renew_until_lost())
        await asyncio.sleep(PROCESS_TIMINGS.retry_period)
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=1)
        assert task.cancelled()

    simulated(act())


def test_the_same_identity_takes_over_at_once() -> None:
    """For the Lease of an installation: its next process keeps the Lease."""

    async def act() -> None:
        server = Server()
        await server.candidate("a", INSTALLATION_TIMINGS).acquire()
        assert await taken(server.candidate("a", INSTALLATION_TIMINGS)) < 1

    simulated(act())
