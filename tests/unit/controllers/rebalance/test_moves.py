"""Outcomes of single moves for rebalancing."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from rescheduler.api.drains import Blocker, BlockerClass
from rescheduler.api.policies import ReschedulePolicy, ReschedulePolicySpec
from rescheduler.controllers.migration.manager import MigrationManager
from rescheduler.controllers.migration.node_task import BlockedMigration, MigrationRequests
from rescheduler.controllers.rebalance.moves import MoveOutcome, RebalanceMoves
from rescheduler.core.model.pods import Pod
from rescheduler.core.rebalance.node_groups import NodeGroup
from rescheduler.core.rebalance.selection import Candidate

POD = Pod("s", "p", "uid", node="n")


class Wanted:
    """Fake of the migrations: records the requests, and reports blocked migrations."""

    def __init__(self) -> None:
        self.requests: Mapping[str, MigrationRequests] = {}
        self.blockers: list[BlockedMigration] = []

    def set_requests(self, requester: str, requests: Mapping[str, MigrationRequests]) -> None:
        assert requester == "rebalance"
        self.requests = requests

    def blocked_migrations(self) -> list[BlockedMigration]:
        return self.blockers

    def hold(self, class_: BlockerClass, cause: str = "ReschedulePolicy/p") -> None:
        now = datetime(2026, 1, 1, tzinfo=UTC)
        self.blockers = [BlockedMigration(cause, Blocker(namespace="s", pod="p", class_=class_, message="", since=now))]


def arena(timeout: str = "5m") -> NodeGroup:
    spec = ReschedulePolicySpec.model_validate({"drain": {"replacementTimeout": timeout}})
    return NodeGroup("", ReschedulePolicy("p", "p", 1, spec), ())


async def begin(first: bool = True) -> tuple[Wanted, RebalanceMoves, asyncio.Task[MoveOutcome]]:
    wanted = Wanted()
    moves = RebalanceMoves(cast("MigrationManager", wanted))
    moves.start()
    task = asyncio.create_task(moves.move(Candidate(POD, {}, can_be_replaced_first=first), arena()))
    await asyncio.sleep(0)
    assert wanted.requests == {"n": {"uid": "ReschedulePolicy/p"}}
    return wanted, moves, task


async def test_a_request_stays_until_the_pod_has_left() -> None:
    wanted, moves, task = await begin()
    moves.end_blocked_moves()
    moves.on_pod_moved(POD, "NamespacePool/shop")
    await asyncio.sleep(0)
    assert not task.done()
    moves.on_pod_moved(POD, "ReschedulePolicy/p")
    assert await task is MoveOutcome.MOVED
    assert wanted.requests == {}


@pytest.mark.parametrize("why", [BlockerClass.REPLACEMENT_NOT_READY, BlockerClass.NO_ROOM_IN_POOL])
async def test_a_lasting_blocker_ends_the_move(why: BlockerClass) -> None:
    wanted, moves, task = await begin()
    wanted.hold(why)
    moves.end_blocked_moves()
    assert await task is MoveOutcome.RETURNED
    assert wanted.requests == {}


async def test_an_exhausted_budget_ends_only_moves_without_replacement() -> None:
    wanted, moves, task = await begin()
    wanted.hold(BlockerClass.BUDGET_EXHAUSTED)
    moves.end_blocked_moves()
    await asyncio.sleep(0)
    assert not task.done()
    task.cancel()
    wanted, moves, task = await begin(first=False)
    wanted.hold(BlockerClass.BUDGET_EXHAUSTED)
    moves.end_blocked_moves()
    assert await task is MoveOutcome.RETURNED


async def test_a_blocker_of_another_requester_does_not_end_the_move() -> None:
    wanted, moves, task = await begin()
    wanted.hold(BlockerClass.NO_ROOM_IN_POOL, "NamespacePool/shop")
    moves.end_blocked_moves()
    await asyncio.sleep(0)
    assert not task.done()
    task.cancel()


async def test_moves_off_a_node_outside_the_groups_are_withdrawn() -> None:
    _, moves, task = await begin()
    moves.restrict_to_nodes({"n"})
    await asyncio.sleep(0)
    assert not task.done()
    moves.restrict_to_nodes({"other"})
    assert await task is MoveOutcome.WITHDRAWN


async def test_a_move_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rescheduler.controllers.rebalance.moves._MOVE_TIMEOUT_MARGIN", 0.0)
    wanted = Wanted()
    moves = RebalanceMoves(cast("MigrationManager", wanted))
    assert await moves.move(Candidate(POD, {}), arena("10ms")) is MoveOutcome.RETURNED
    assert wanted.requests == {}


async def test_a_process_that_ends_withdraws_its_requests() -> None:
    wanted, _, task = await begin()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    errands: Any = wanted.requests
    assert errands == {}
