"""Drained comes at least five seconds after the last cordon of any author, in simulated time."""

import asyncio
from collections.abc import Callable

from harness import workloads
from invariants.records import Change
from simulation.clusters import SPACE
from simulation.scenarios import Sandbox, run_scenario

_SETTLE = 5.0


class Cordons(Sandbox):
    """The drain of n2, a node without pods, by one operator.

    Attributes:
        cordons: times of the node's cordons.
        drained: time at which the status became Drained.
        crash_at: number of the operator's cordons after which it is killed and restarted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cordons: list[float] = []
        self.drained: list[float] = []
        self.crash_at = 0
        self._crashes: list[asyncio.Task[None]] = []

    def change(self, change: Change) -> None:
        super().change(change)
        if change.place.name != "n2":
            return
        if change.cordons:
            self.cordons.append(change.at)
            if change.call and change.call.user == "operator-a" and len(self.cordons) == self.crash_at:
                self._crashes.append(asyncio.create_task(self.restart()))
        if change.place.resource == "nodedrains" and _is_drained(change.after) and not _is_drained(change.before):
            self.drained.append(change.at)

    async def restart(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Kill the operator; start it again."""
        (operator,) = self.cluster.operators
        await operator.kill()
        meanwhile()
        operator.start()

    async def begin(self) -> None:
        """Begin the drain; only cordons from now on count."""
        del self.cluster.operators[1:]
        await self.settle(workloads.deployment("web", 2, SPACE))
        self.cordons.clear()
        self.cluster.annotate("n2", maintenance="test")

    async def cordoned(self, times: int) -> None:
        await self.until(lambda: len(self.cordons) >= times, limit=60)

    async def ends(self) -> None:
        """Check that Drained stays until the end, and comes neither early nor late."""
        await asyncio.sleep(60)
        assert self.status("n2")["phase"] == "Drained"
        assert self.cordons[-1] + _SETTLE <= self.drained[-1] <= self.cordons[-1] + _SETTLE + 5

    def toggle(self) -> None:
        """Uncordon the node as a person, and cordon it at once."""
        self.cordon("n2", cordoned=False)
        self.cordon("n2", cordoned=True)


def _is_drained(drain: object) -> bool:
    return isinstance(drain, dict) and (drain.get("status") or {}).get("phase") == "Drained"


def test_after_the_cordon() -> None:
    async def scenario(sandbox: Cordons) -> None:
        await sandbox.begin()
        await sandbox.ends()
        assert len(sandbox.drained) == 1

    run_scenario(Cordons, scenario)


def test_after_a_crash_right_after_the_cordon() -> None:
    async def scenario(sandbox: Cordons) -> None:
        sandbox.crash_at = 1
        await sandbox.begin()
        await sandbox.ends()
        assert len(sandbox.drained) == 1

    run_scenario(Cordons, scenario)


def test_after_a_second_cordon_before_it_was_drained() -> None:
    async def scenario(sandbox: Cordons) -> None:
        await sandbox.begin()
        await sandbox.cordoned(1)
        await asyncio.sleep(3)
        sandbox.cordon("n2", cordoned=False)
        await sandbox.ends()
        assert len(sandbox.cordons) == 2
        assert len(sandbox.drained) == 1

    run_scenario(Cordons, scenario)


def test_after_a_crash_right_after_a_second_cordon() -> None:
    async def scenario(sandbox: Cordons) -> None:
        sandbox.crash_at = 2
        await sandbox.begin()
        await sandbox.cordoned(1)
        await asyncio.sleep(3)
        sandbox.cordon("n2", cordoned=False)
        await sandbox.ends()
        assert len(sandbox.cordons) == 2

    run_scenario(Cordons, scenario)


def test_after_a_crash_right_after_the_second_cordon_of_a_drained_node() -> None:
    async def scenario(sandbox: Cordons) -> None:
        sandbox.crash_at = 2
        await sandbox.begin()
        await sandbox.ends()
        sandbox.cordon("n2", cordoned=False)
        await sandbox.ends()
        assert len(sandbox.cordons) == len(sandbox.drained) == 2

    run_scenario(Cordons, scenario)


def test_after_somebody_uncordoned_and_cordoned_at_once() -> None:
    async def scenario(sandbox: Cordons) -> None:
        await sandbox.begin()
        await sandbox.cordoned(1)
        await asyncio.sleep(3)
        sandbox.toggle()
        await sandbox.ends()
        assert len(sandbox.cordons) == 2
        assert len(sandbox.drained) == 1

    run_scenario(Cordons, scenario)


def test_after_somebody_uncordoned_and_cordoned_while_the_operator_was_away() -> None:
    async def scenario(sandbox: Cordons) -> None:
        await sandbox.begin()
        await sandbox.cordoned(1)
        await asyncio.sleep(3)
        await sandbox.restart(sandbox.toggle)
        await sandbox.ends()
        assert len(sandbox.cordons) == 2

    run_scenario(Cordons, scenario)


def test_a_restart_of_the_operator_leaves_a_drained_node_drained() -> None:
    async def scenario(sandbox: Cordons) -> None:
        await sandbox.begin()
        await sandbox.ends()
        await sandbox.restart()
        await asyncio.sleep(60)
        assert sandbox.status("n2")["phase"] == "Drained"
        assert len(sandbox.drained) == 1

    run_scenario(Cordons, scenario)
