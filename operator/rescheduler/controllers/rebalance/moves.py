"""Moves of single pods for rebalancing, through the migrations that also serve pools.

No user requested these moves. Therefore any lasting blocker ends a move, and the pod is returned.
"""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from rescheduler.controllers.migration.manager import MigrationManager
from rescheduler.controllers.migration.node_task import MigrationRequests
from rescheduler.core.drain.migration import TEMPORARY_BLOCKERS
from rescheduler.core.model.pods import Pod
from rescheduler.core.rebalance.node_groups import NodeGroup
from rescheduler.core.rebalance.selection import Candidate

REQUESTER = "rebalance"
CAUSE_PREFIX = "ReschedulePolicy/"
_MOVE_TIMEOUT_MARGIN = 60.0  # seconds after two replacement timeouts: one to start it, one to return the pod


class MoveOutcome(StrEnum):
    """Outcome of a move."""

    MOVED = "Moved"  # the pod has left its node
    RETURNED = "Returned"  # the pod stays: no replacement became Ready on another node, or a blocker came
    WITHDRAWN = "Withdrawn"  # the pod stays: its node left the group, or the policy no longer allows moves


@dataclass(frozen=True, slots=True, eq=False)
class _ActiveMove:
    """Move in progress."""

    candidate: Candidate
    cause: str
    outcome: asyncio.Future[MoveOutcome]

    def finish(self, outcome: MoveOutcome) -> None:
        """Set the outcome; the first outcome counts."""
        if not self.outcome.done():
            self.outcome.set_result(outcome)


class RebalanceMoves:
    """All moves in progress for rebalancing."""

    def __init__(self, migrations: MigrationManager) -> None:
        self._migrations = migrations
        self._moves: dict[str, _ActiveMove] = {}  # by UID of the pod

    def start(self) -> None:
        """Withdraw the moves of an earlier process, so that migrations return its released pods."""
        self._publish_requests()

    async def move(self, candidate: Candidate, group: NodeGroup) -> MoveOutcome:
        """Move the pod, wait for the end of the move, and return its outcome."""
        cause = CAUSE_PREFIX + group.policy.name
        move = _ActiveMove(candidate, cause, asyncio.get_running_loop().create_future())
        self._moves[candidate.pod.uid] = move
        self._publish_requests()
        limit = 2 * group.policy.spec.drain.replacement_timeout.total_seconds() + _MOVE_TIMEOUT_MARGIN
        try:
            async with asyncio.timeout(limit):
                return await move.outcome
        except TimeoutError:
            return MoveOutcome.RETURNED
        finally:
            del self._moves[candidate.pod.uid]
            self._publish_requests()

    def restrict_to_nodes(self, nodes: Collection[str]) -> None:
        """Withdraw the moves of pods on all other nodes."""
        for move in self._moves.values():
            if move.candidate.pod.node not in nodes:
                move.finish(MoveOutcome.WITHDRAWN)

    def on_pod_moved(self, pod: Pod, cause: str) -> None:
        """Finish the move of a pod that has left its node."""
        move = self._moves.get(pod.uid)
        if move and move.cause == cause:
            move.finish(MoveOutcome.MOVED)

    def end_blocked_moves(self) -> None:
        """Finish the moves of pods with a lasting blocker."""
        blocker_by_pod = {
            (blocked.blocker.namespace, blocked.blocker.pod): blocked.blocker.class_
            for blocked in self._migrations.blocked_migrations()
            if blocked.cause.startswith(CAUSE_PREFIX)
        }
        for move in self._moves.values():
            pod = move.candidate.pod
            blocker = blocker_by_pod.get((pod.namespace, pod.name))
            if blocker and not (move.candidate.can_be_replaced_first and blocker in TEMPORARY_BLOCKERS):
                move.finish(MoveOutcome.RETURNED)

    def _publish_requests(self) -> None:
        causes_by_node: dict[str, dict[str, str]] = {}
        for uid, move in self._moves.items():
            causes_by_node.setdefault(move.candidate.pod.node, {})[uid] = move.cause
        requests: dict[str, MigrationRequests] = dict(causes_by_node)
        self._migrations.set_requests(REQUESTER, requests)
