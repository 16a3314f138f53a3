"""Of two installations in one cluster one faults; the other reports it and does nothing."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from harness import workloads
from rescheduler.kube.election_rules import INSTALLATION_TIMINGS
from simulation.clusters import NAMESPACE, SPACE
from simulation.processes import Process
from simulation.scenarios import Sandbox, run_scenario

SECOND = "second-system"
TAKE_OVER = INSTALLATION_TIMINGS.lease_duration + 30


class Towns(Sandbox):
    """Three nodes, and two installations of two replicas each; none is started."""

    def __init__(self, seed: int = 5) -> None:
        super().__init__()
        server, chance = self.server, random.Random(seed)
        self.chance = chance
        lease = {"metadata": {"name": "rescheduler", "namespace": SECOND}, "spec": {"holderIdentity": ""}}
        server.make("leases", lease)
        self.first = [Process(server, f"operator-{name}", chance, NAMESPACE) for name in "ab"]
        self.second = [Process(server, f"operator-{name}", chance, SECOND) for name in "cd"]
        self.cluster.operators = []
        self.cluster.deploy(workloads.policy("default"), workloads.deployment("web", 4, SPACE))
        self.cluster.start()
        self.cluster.operators = [*self.first, *self.second]

    def acting(self) -> list[str]:
        """Return processes that may write now."""
        return [o.name for o in self.cluster.operators if o.app and o.app._may_write()]

    def faults(self, those: list[Process]) -> bool:
        return any(o.app and o.app._may_write() and o.app.manager._leading for o in those)

    def complaints(self, those: list[Process]) -> list[str]:
        return [why for o in those if o.app and (why := o.app._ready()) and "listed yet" not in why]

    async def ready(self) -> None:
        await self.until(lambda: len(self.pods()) == 4 and not self.cluster.unready())

    def events(self, reason: str) -> list[str]:
        return [e["message"] for e in self.server.all("events") if e["reason"] == reason]


def test_the_second_does_nothing_and_says_why_and_acts_when_the_first_is_gone() -> None:
    async def scenario(towns: Towns) -> None:
        for operator in towns.first:
            operator.start()
        await towns.ready()
        await towns.until(lambda: towns.faults(towns.first))
        for operator in towns.second:
            operator.start()
        await towns.until(lambda: towns.complaints(towns.second), 60)
        (why,) = towns.complaints(towns.second)
        assert f"in namespace {NAMESPACE}, leads this cluster" in why
        assert towns.complaints(towns.first) == []
        await towns.until(lambda: towns.events("OtherInstallation"), 60)
        for operator in towns.first:
            await operator.stop()  # as in an upgrade
        await asyncio.sleep(20)
        towns.first[0].start()
        await asyncio.sleep(30)
        assert towns.faults(towns.first)
        assert not towns.faults(towns.second)
        await towns.first[0].kill()
        gone = towns.now
        taken = await towns.until(lambda: towns.faults(towns.second))
        assert INSTALLATION_TIMINGS.renew_deadline < taken - gone <= TAKE_OVER
        assert towns.complaints(towns.second) == []
        towns.cluster.annotate("n1", maintenance="x")
        await towns.until(lambda: towns.status().get("phase") == "Drained")
        towns.first[0].start()
        await towns.until(lambda: towns.complaints(towns.first), 60)
        assert not any(o.crashed for o in towns.cluster.operators)

    run_scenario(Towns, scenario)


@pytest.mark.parametrize("seed", range(6))
def test_at_no_time_two_processes_may_write_whatever_starts_ends_or_is_cut_off(seed: int) -> None:
    async def scenario(towns: Towns) -> None:
        chance, both, rounds = towns.chance, False, 0

        async def look(seconds: float) -> None:
            end = towns.now + seconds
            while towns.now < end:
                assert len(towns.acting()) <= 1, towns.acting()
                await asyncio.sleep(0.25)

        while rounds < 40 or (not both and rounds < 200):
            rounds += 1
            operator = chance.choice(towns.cluster.operators)
            if operator.app is None:
                operator.start()
            elif operator.client and chance.random() < 0.4:
                operator.client.cut = not operator.client.cut
            else:
                await chance.choice((operator.kill, operator.stop))()
            await look(chance.choice((1.0, 10.0, 70.0, 130.0)))
            both |= towns.faults(towns.second)
        for operator in towns.cluster.operators:
            if operator.app is None:
                operator.start()
            assert operator.client
            operator.client.cut = False
        await look(TAKE_OVER)
        assert len(towns.acting()) == 1
        assert not any(o.crashed for o in towns.cluster.operators)
        assert both  # the second installation led for some time, too

    run_scenario(lambda: Towns(seed), scenario)


def _cleans(fault: Callable[[Towns, Process], Awaitable[None]]) -> None:
    """Run a scenario: the first installation has drained a node, and a cleanup of the second is ready."""

    async def scenario(towns: Towns) -> None:
        towns.first[0].start()
        await towns.ready()
        towns.cluster.annotate("n1", maintenance="x")
        await towns.until(lambda: towns.status().get("phase") == "Drained")
        cleaner = Process(towns.server, "cleanup-of-second", towns.chance, SECOND)
        cleaner.cleanup = True
        towns.server.make("deployments", workloads.deployment("rescheduler", 0, SECOND))
        await fault(towns, cleaner)

    run_scenario(Towns, scenario)


def test_the_cleanup_of_an_installation_that_does_not_act_undoes_nothing_and_succeeds() -> None:
    async def fault(towns: Towns, cleaner: Process) -> None:
        cleaner.start()
        app = cleaner.app
        assert app
        await towns.until(app.stop_flag.is_set, 120)
        assert app.failure_reason() == ""
        await asyncio.sleep(30)
        assert towns.status().get("phase") == "Drained"
        assert towns.faults(towns.first)

    _cleans(fault)


def test_the_cleanup_of_the_only_one_left_undoes_all_and_lets_the_next_act_at_once() -> None:
    async def fault(towns: Towns, cleaner: Process) -> None:
        await towns.first[0].kill()
        towns.cluster.annotate("n1", maintenance=None)
        cleaner.start()
        app = cleaner.app
        assert app
        await towns.until(app.stop_flag.is_set, 2 * TAKE_OVER)
        assert app.failure_reason() == ""
        assert not towns.cluster.drains()
        await cleaner.stop()
        towns.first[1].start()
        began = towns.now
        assert await towns.until(lambda: towns.faults(towns.first)) - began < 20  # its own Lease expires

    _cleans(fault)
