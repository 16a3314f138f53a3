"""Single moves for the sake of evenness: how each ends."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from rescheduler.api.drains import Blocker, BlockerClass
from rescheduler.api.policies import Policy, ReschedulePolicySpec
from rescheduler.controllers.migration.manager import Shifts
from rescheduler.controllers.migration.node_task import Errand, Held
from rescheduler.controllers.rebalance.moves import Outcome, RebalanceMoves
from rescheduler.core.model.pods import Pod
from rescheduler.core.rebalance.node_groups import Arena
from rescheduler.core.rebalance.selection import Candidate

POD = Pod("s", "p", "uid", node="n")


class Wanted:
    """Stands for the shifts: remembers what is wanted, and says who is held."""

    def __init__(self) -> None:
        self.errands: Mapping[str, Errand] = {}
        self.blockers: list[Held] = []

    def want(self, source: str, errands: Mapping[str, Errand]) -> None:
        assert source == "rebalance"
        self.errands = errands

    def held(self) -> list[Held]:
        return self.blockers

    def hold(self, class_: BlockerClass, cause: str = "ReschedulePolicy/p") -> None:
        now = datetime(2026, 1, 1, tzinfo=UTC)
        self.blockers = [Held(cause, Blocker(namespace="s", pod="p", class_=class_, message="", since=now))]


def arena(timeout: str = "5m") -> Arena:
    spec = ReschedulePolicySpec.model_validate({"drain": {"replacementTimeout": timeout}})
    return Arena("", Policy("p", "p", 1, spec), ())


async def begin(first: bool = True) -> tuple[Wanted, RebalanceMoves, asyncio.Task[Outcome]]:
    wanted = Wanted()
    moves = RebalanceMoves(cast("Shifts", wanted))
    moves.begin()
    task = asyncio.create_task(moves.move(Candidate(POD, {}, first=first), arena()))
    await asyncio.sleep(0)
    assert wanted.errands == {"n": {"uid": "ReschedulePolicy/p"}}
    return wanted, moves, task


async def test_a_pod_is_wanted_until_it_has_left() -> None:
    wanted, moves, task = await begin()
    moves.looked()
    moves.left(POD, "NamespacePool/shop")
    await asyncio.sleep(0)
    assert not task.done()
    moves.left(POD, "ReschedulePolicy/p")
    assert await task is Outcome.MOVED
    assert wanted.errands == {}


@pytest.mark.parametrize("why", [BlockerClass.REPLACEMENT_NOT_READY, BlockerClass.NO_ROOM_IN_POOL])
async def test_whatever_is_in_its_way_ends_the_move(why: BlockerClass) -> None:
    wanted, moves, task = await begin()
    wanted.hold(why)
    moves.looked()
    assert await task is Outcome.RETURNED
    assert wanted.errands == {}


async def test_a_budget_that_is_full_ends_only_the_move_of_a_pod_that_has_no_replacement() -> None:
    wanted, moves, task = await begin()
    wanted.hold(BlockerClass.BUDGET_EXHAUSTED)
    moves.looked()
    await asyncio.sleep(0)
    assert not task.done()
    task.cancel()
    wanted, moves, task = await begin(first=False)
    wanted.hold(BlockerClass.BUDGET_EXHAUSTED)
    moves.looked()
    assert await task is Outcome.RETURNED


async def test_what_others_want_of_the_pod_is_no_word_on_this_move() -> None:
    wanted, moves, task = await begin()
    wanted.hold(BlockerClass.NO_ROOM_IN_POOL, "NamespacePool/shop")
    moves.looked()
    await asyncio.sleep(0)
    assert not task.done()
    task.cancel()


async def test_off_a_node_that_takes_no_part_any_more_nothing_is_moved() -> None:
    _, moves, task = await begin()
    moves.keep({"n"})
    await asyncio.sleep(0)
    assert not task.done()
    moves.keep({"other"})
    assert await task is Outcome.WITHDRAWN


async def test_a_move_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rescheduler.controllers.rebalance.moves._MARGIN", 0.0)
    wanted = Wanted()
    moves = RebalanceMoves(cast("Shifts", wanted))
    assert await moves.move(Candidate(POD, {}), arena("10ms")) is Outcome.RETURNED
    assert wanted.errands == {}


async def test_a_process_that_ends_wants_nothing_more() -> None:
    wanted, _, task = await begin()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    errands: Any = wanted.errands
    assert errands == {}
