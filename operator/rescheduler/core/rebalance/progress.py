"""How far the evening out of one pool may go on: more at once while it helps, not at all once it does not.

Where pods land is the scheduler's business. One that packs nodes full instead of evening them out would undo every
move for ever: the first round is one pod, each that helped doubles the next, one that did not is followed by one pod
of another owner, and two of these in a row end it until the pool itself has changed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from rescheduler.core.rebalance.selection import NodeClassification, NodeRoles, PlannedMove
from rescheduler.core.rebalance.utilization import CpuMemory, NodeLoad, imbalance

MAX_BATCH_SIZE = 8
"""Moves of one round at most."""
_MAX_FAILED_ROUNDS = 2
_MIN_ACHIEVED_RATIO = 0.5  # so much of what a round promised must have come true
_RESET_THRESHOLD = 0.05  # of all that the pool has: so much more or less is requested


@dataclass(frozen=True, slots=True)
class RebalanceProgress:
    """What is remembered of one pool.

    Attributes:
        nodes: those that could give or take, and `generation` of their policy.
        requested: how full they were together, by requests, when this course began.
        roles: of its nodes, until nothing is left to move.
        allowance: moves of the next round; `failures`: rounds in a row that have not helped.
        spared: uids of owners whose pods landed where that did not help.
        before: the spread, by requests, before the round that is under way; None: none is.
        moved: what that round has moved.
    """

    nodes: frozenset[str]
    policy_generation: int
    requested_utilization: CpuMemory
    roles: NodeRoles = field(default_factory=NodeRoles)
    batch_size: int = 1
    failed_rounds: int = 0
    skipped_owners: frozenset[str] = frozenset()
    imbalance_before: float | None = None
    completed_moves: tuple[PlannedMove, ...] = ()

    @property
    def is_stopped(self) -> bool:
        """Moves have not helped: nothing is tried again before something changes."""
        return self.failed_rounds >= _MAX_FAILED_ROUNDS

    def begin_round(self, classification: NodeClassification) -> "RebalanceProgress":
        """A round of moves begins."""
        return replace(
            self, imbalance_before=imbalance(classification.loads), completed_moves=(), roles=classification.roles
        )

    def end_round(self, completed: Sequence[PlannedMove]) -> "RebalanceProgress":
        """The round is over, and has moved these; one that has moved nothing says nothing."""
        return replace(self, completed_moves=tuple(completed)) if completed else replace(self, imbalance_before=None)

    def clear_roles(self) -> "RebalanceProgress":
        """Nothing is left to move: only a node above `high` or below `low` begins it anew."""
        return replace(self, roles=NodeRoles())


def evaluate_round(previous: RebalanceProgress | None, loads: Sequence[NodeLoad], generation: int) -> RebalanceProgress:
    """The course as of now: begun anew where the pool has changed, else with what the last round came to."""
    nodes, requested = frozenset(load.name for load in loads), _requested_utilization(loads)
    if (
        previous is None
        or (previous.nodes, previous.policy_generation) != (nodes, generation)
        or _differs_significantly(requested, previous.requested_utilization)
    ):
        return RebalanceProgress(nodes, generation, requested)
    if previous.imbalance_before is None:
        return previous
    done = replace(previous, imbalance_before=None, completed_moves=())
    if previous.imbalance_before - imbalance(loads) >= sum(
        shift.balance_gain_by_requests - (1 - _MIN_ACHIEVED_RATIO) * shift.balance_gain
        for shift in previous.completed_moves
    ):
        return replace(done, batch_size=min(2 * previous.batch_size, MAX_BATCH_SIZE), failed_rounds=0)
    owners = frozenset(shift.candidate.owner_uid for shift in previous.completed_moves)
    return replace(
        done, batch_size=1, failed_rounds=previous.failed_rounds + 1, skipped_owners=previous.skipped_owners | owners
    )


def _requested_utilization(loads: Sequence[NodeLoad]) -> CpuMemory:
    asked = whole = CpuMemory()
    for load in loads:
        asked, whole = asked + load.requested, whole + load.allocatable
    return asked / whole


def _differs_significantly(first: CpuMemory, second: CpuMemory) -> bool:
    return max(abs(first.cpu - second.cpu), abs(first.memory - second.memory)) > _RESET_THRESHOLD
