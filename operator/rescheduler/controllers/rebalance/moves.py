"""Has single pods moved for the sake of evenness, by the engine that moves them for pools too.

Nobody asked for such a move: whatever is in its way ends it, and the pod is given back.
"""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from rescheduler.api.drains import BlockerClass
from rescheduler.controllers.migration.manager import MigrationManager
from rescheduler.controllers.migration.node_task import MigrationRequests
from rescheduler.core.model.pods import Pod
from rescheduler.core.rebalance.node_groups import NodeGroup
from rescheduler.core.rebalance.selection import Candidate

REQUESTER = "rebalance"
CAUSE_PREFIX = "ReschedulePolicy/"
_MOVE_TIMEOUT_MARGIN = 60.0  # seconds; the replacement has had its time, and time to be given back
_TEMPORARY_BLOCKERS = (BlockerClass.BUDGET_EXHAUSTED, BlockerClass.BUDGET_NOT_OBSERVED, BlockerClass.THROTTLED)


class MoveOutcome(StrEnum):
    """What became of a move."""

    MOVED = "Moved"  # it has left its node
    RETURNED = "Returned"  # it stays: no replacement came up, or none elsewhere, or something refused
    WITHDRAWN = "Withdrawn"  # it was not to be moved any more


@dataclass(frozen=True, slots=True, eq=False)
class _ActiveMove:
    """One that is under way."""

    candidate: Candidate
    cause: str
    outcome: asyncio.Future[MoveOutcome]

    def finish(self, outcome: MoveOutcome) -> None:
        """What became of it; the first word counts."""
        if not self.outcome.done():
            self.outcome.set_result(outcome)


class RebalanceMoves:
    """All moves under way for the sake of evenness."""

    def __init__(self, migrations: MigrationManager) -> None:
        self._migrations = migrations
        self._moves: dict[str, _ActiveMove] = {}  # by uid

    def start(self) -> None:
        """Nothing is wanted yet: what a process before us has begun comes to its end."""
        self._publish_requests()

    async def move(self, candidate: Candidate, group: NodeGroup) -> MoveOutcome:
        """Have it moved; what became of that, once it is over."""
        cause = CAUSE_PREFIX + group.policy.name
        mine = _ActiveMove(candidate, cause, asyncio.get_running_loop().create_future())
        self._moves[candidate.pod.uid] = mine
        self._publish_requests()
        limit = 2 * group.policy.spec.drain.replacement_timeout.total_seconds() + _MOVE_TIMEOUT_MARGIN
        try:
            async with asyncio.timeout(limit):
                return await mine.outcome
        except TimeoutError:
            return MoveOutcome.RETURNED
        finally:
            del self._moves[candidate.pod.uid]
            self._publish_requests()

    def restrict_to_nodes(self, nodes: Collection[str]) -> None:
        """Only off these nodes pods may still be moved."""
        for move in self._moves.values():
            if move.candidate.pod.node not in nodes:
                move.finish(MoveOutcome.WITHDRAWN)

    def on_pod_moved(self, pod: Pod, cause: str) -> None:
        """A pod has left its node."""
        move = self._moves.get(pod.uid)
        if move and move.cause == cause:
            move.finish(MoveOutcome.MOVED)

    def end_blocked_moves(self) -> None:
        """Who is held may be otherwise."""
        held = {
            (each.blocker.namespace, each.blocker.pod): each.blocker.class_
            for each in self._migrations.blocked_migrations()
            if each.cause.startswith(CAUSE_PREFIX)
        }
        for move in self._moves.values():
            pod = move.candidate.pod
            why = held.get((pod.namespace, pod.name))
            # A budget that is full for a moment does not undo a replacement that is Ready.
            if why and not (move.candidate.can_be_replaced_first and why in _TEMPORARY_BLOCKERS):
                move.finish(MoveOutcome.RETURNED)

    def _publish_requests(self) -> None:
        wanted: dict[str, dict[str, str]] = {}
        for uid, move in self._moves.items():
            wanted.setdefault(move.candidate.pod.node, {})[uid] = move.cause
        errands: dict[str, MigrationRequests] = dict(wanted)
        self._migrations.set_requests(REQUESTER, errands)
