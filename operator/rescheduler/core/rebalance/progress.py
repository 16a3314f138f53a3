"""Progress of rebalancing in one node group: larger rounds while moves help, and a stop if they do not.

The scheduler chooses the nodes of the moved pods. A scheduler that fills nodes one by one would undo every move, without
an end. Therefore the first round moves one pod, and each round that helps doubles the next. After a round that does not
help, the next round moves one pod of another owner. After two such rounds, rebalancing stops until the group changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from rescheduler.core.rebalance.selection import NodeClassification, NodeRoles, PlannedMove
from rescheduler.core.rebalance.utilization import CpuMemory, NodeLoad, imbalance

MAX_BATCH_SIZE = 8
"""Limit on the moves of one round."""
_MAX_FAILED_ROUNDS = 2
_MIN_ACHIEVED_RATIO = 0.5  # share of the expected gain that a round must achieve
_RESET_THRESHOLD = 0.05  # share of the group's capacity; a larger change of its requests resets the progress


@dataclass(frozen=True, slots=True)
class RebalanceProgress:
    """Progress of rebalancing in one node group.

    Attributes:
        nodes: names of the nodes of the group.
        policy_generation: `metadata.generation` of the policy.
        requested_utilization: requests of all nodes as a share of their capacity, when this progress began.
        roles: roles of the nodes, kept until nothing is left to move.
        batch_size: limit on the moves of the next round.
        failed_rounds: number of rounds in a row that have not helped.
        skipped_owners: UIDs of owners of pods in rounds that have not helped.
        imbalance_before: imbalance by requests before the current round; None if there is no current round.
        completed_moves: completed moves of the current round.
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
        """Whether rebalancing has stopped because moves have not helped."""
        return self.failed_rounds >= _MAX_FAILED_ROUNDS

    def begin_round(self, classification: NodeClassification) -> "RebalanceProgress":
        """Return the progress at the start of a round."""
        return replace(
            self, imbalance_before=imbalance(classification.loads), completed_moves=(), roles=classification.roles
        )

    def end_round(self, completed: Sequence[PlannedMove]) -> "RebalanceProgress":
        """Return the progress at the end of a round; a round without completed moves does not count."""
        return replace(self, completed_moves=tuple(completed)) if completed else replace(self, imbalance_before=None)

    def clear_roles(self) -> "RebalanceProgress":
        """Return the progress if nothing is left to move: only a node above `high` or below `low` starts moves again."""
        return replace(self, roles=NodeRoles())


def evaluate_round(previous: RebalanceProgress | None, loads: Sequence[NodeLoad], generation: int) -> RebalanceProgress:
    """Return the progress with the result of the last round; a new progress if the group has changed."""
    nodes, requested = frozenset(load.name for load in loads), _requested_utilization(loads)
    if (
        previous is None
        or (previous.nodes, previous.policy_generation) != (nodes, generation)
        or _differs_significantly(requested, previous.requested_utilization)
    ):
        return RebalanceProgress(nodes, generation, requested)
    if previous.imbalance_before is None:
        return previous
    between_rounds = replace(previous, imbalance_before=None, completed_moves=())
    if previous.imbalance_before - imbalance(loads) >= sum(
        move.balance_gain_by_requests - (1 - _MIN_ACHIEVED_RATIO) * move.balance_gain
        for move in previous.completed_moves
    ):
        return replace(between_rounds, batch_size=min(2 * previous.batch_size, MAX_BATCH_SIZE), failed_rounds=0)
    owners = frozenset(move.candidate.owner_uid for move in previous.completed_moves)
    return replace(
        between_rounds,
        batch_size=1,
        failed_rounds=previous.failed_rounds + 1,
        skipped_owners=previous.skipped_owners | owners,
    )


def _requested_utilization(loads: Sequence[NodeLoad]) -> CpuMemory:
    requested = allocatable = CpuMemory()
    for load in loads:
        requested, allocatable = requested + load.requested, allocatable + load.allocatable
    return requested / allocatable


def _differs_significantly(first: CpuMemory, second: CpuMemory) -> bool:
    return max(abs(first.cpu - second.cpu), abs(first.memory - second.memory)) > _RESET_THRESHOLD
