"""Has single pods moved for the sake of evenness, by the engine that moves them for pools too.

Nobody asked for such a move: whatever is in its way ends it, and the pod is given back.
"""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from rescheduler.api.drains import BlockerClass
from rescheduler.controllers.migration.manager import Shifts
from rescheduler.controllers.migration.node_task import Errand
from rescheduler.core.model.pods import Pod
from rescheduler.core.rebalance.node_groups import Arena
from rescheduler.core.rebalance.selection import Candidate

SOURCE = "rebalance"
CAUSE = "ReschedulePolicy/"
_MARGIN = 60.0  # seconds; the replacement has had its time, and time to be given back
_BUDGET = (BlockerClass.BUDGET_EXHAUSTED, BlockerClass.BUDGET_NOT_OBSERVED, BlockerClass.THROTTLED)


class Outcome(StrEnum):
    """What became of a move."""

    MOVED = "Moved"  # it has left its node
    RETURNED = "Returned"  # it stays: no replacement came up, or none elsewhere, or something refused
    WITHDRAWN = "Withdrawn"  # it was not to be moved any more


@dataclass(frozen=True, slots=True, eq=False)
class _Move:
    """One that is under way."""

    candidate: Candidate
    cause: str
    outcome: asyncio.Future[Outcome]

    def end(self, outcome: Outcome) -> None:
        """What became of it; the first word counts."""
        if not self.outcome.done():
            self.outcome.set_result(outcome)


class RebalanceMoves:
    """All moves under way for the sake of evenness."""

    def __init__(self, shifts: Shifts) -> None:
        self._shifts = shifts
        self._moves: dict[str, _Move] = {}  # by uid

    def begin(self) -> None:
        """Nothing is wanted yet: what a process before us has begun comes to its end."""
        self._tell()

    async def move(self, candidate: Candidate, arena: Arena) -> Outcome:
        """Have it moved; what became of that, once it is over."""
        cause = CAUSE + arena.policy.name
        mine = _Move(candidate, cause, asyncio.get_running_loop().create_future())
        self._moves[candidate.pod.uid] = mine
        self._tell()
        limit = 2 * arena.policy.spec.drain.replacement_timeout.total_seconds() + _MARGIN
        try:
            async with asyncio.timeout(limit):
                return await mine.outcome
        except TimeoutError:
            return Outcome.RETURNED
        finally:
            del self._moves[candidate.pod.uid]
            self._tell()

    def keep(self, nodes: Collection[str]) -> None:
        """Only off these nodes pods may still be moved."""
        for move in self._moves.values():
            if move.candidate.pod.node not in nodes:
                move.end(Outcome.WITHDRAWN)

    def left(self, pod: Pod, cause: str) -> None:
        """A pod has left its node."""
        move = self._moves.get(pod.uid)
        if move and move.cause == cause:
            move.end(Outcome.MOVED)

    def looked(self) -> None:
        """Who is held may be otherwise."""
        held = {
            (each.blocker.namespace, each.blocker.pod): each.blocker.class_
            for each in self._shifts.held()
            if each.cause.startswith(CAUSE)
        }
        for move in self._moves.values():
            pod = move.candidate.pod
            why = held.get((pod.namespace, pod.name))
            # A budget that is full for a moment does not undo a replacement that is Ready.
            if why and not (move.candidate.first and why in _BUDGET):
                move.end(Outcome.RETURNED)

    def _tell(self) -> None:
        wanted: dict[str, dict[str, str]] = {}
        for uid, move in self._moves.items():
            wanted.setdefault(move.candidate.pod.node, {})[uid] = move.cause
        errands: dict[str, Errand] = dict(wanted)
        self._shifts.want(SOURCE, errands)
