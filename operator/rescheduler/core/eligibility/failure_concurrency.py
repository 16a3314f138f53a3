"""Assign the slots of `failure.maxConcurrent`: how many drains for failures run at once, and which come next.

The most certain failure comes first, and never waits for a less certain failure: a wrong detector on one node must not
hold back the drain of a dead node. Failed nodes do not queue behind maintenance.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from rescheduler.api.drains import BlockerClass, NodeDrain, Phase
from rescheduler.api.scalars import NumberOrPercent
from rescheduler.core.eligibility import messages
from rescheduler.core.eligibility.concurrency import is_blocked_for_long
from rescheduler.core.failure.causes import Certainty, FailureCause
from rescheduler.core.model.wait_reasons import ProgressingReason, WaitReason

_SUSPECTED_KEEPS_SLOT_FOR = timedelta(minutes=5)
"""A suspicion that is neither confirmed nor over after this time gives up its slot."""
_UNMOVABLE_BLOCKER_CLASSES = frozenset(
    {
        BlockerClass.WAITING_FOR_PROOF,
        BlockerClass.STUCK_TERMINATING,
        BlockerClass.UNMANAGED,
        BlockerClass.EMPTY_DIR,
        BlockerClass.LOCAL_VOLUME,
    }
)
"""Classes of blockers that the drain cannot remove."""


@dataclass(frozen=True, slots=True)
class FailureDrain:
    """A drain for a failure, with the facts that decide its place in the queue."""

    name: str
    cause: FailureCause

    @classmethod
    def of(cls, drain: NodeDrain, cause: FailureCause) -> "FailureDrain":
        """Return the entry of this drain; `cause`: the most certain cause for which the node is or would be drained."""
        return cls(drain.name, cause)

    def sort_key(self) -> tuple[tuple[int, datetime], str]:
        """Return the sort key in the queue: the most certain cause first, then the longest, then the name."""
        return self.cause.sort_key, self.name


@dataclass(frozen=True, slots=True)
class FailureQueue:
    """The drains for failures under one policy.

    Attributes:
        node_count: the number of nodes that the policy decides for.
        running: the drains that hold a slot.
        waiting: the drains that wait only for a slot, in the order in which they start.
    """

    node_count: int
    running: tuple[FailureDrain, ...]
    waiting: tuple[FailureDrain, ...]

    def wait_reason(self, candidate: FailureDrain, limit: NumberOrPercent) -> WaitReason | None:
        """Return why the candidate may not begin yet; None if it may."""
        slots = max(1, limit.of(self.node_count))
        taken = [running.name for running in self.running if _counts_against(running, candidate)]
        ahead = [
            waiting.name
            for waiting in self.waiting
            if waiting.name != candidate.name and waiting.sort_key() < candidate.sort_key()
        ]
        if len(taken) + len(ahead) < slots:
            return None
        message = messages.failure_limit_taken(limit, slots, self.node_count, taken, ahead)
        return WaitReason(ProgressingReason.MAX_CONCURRENT, message)


def _counts_against(running: FailureDrain, candidate: FailureDrain) -> bool:
    return running.name != candidate.name and running.cause.certainty <= candidate.cause.certainty


def holds_slot(drain: NodeDrain, cause: FailureCause, now: datetime) -> bool:
    """Whether a drain that has begun holds a slot.

    A drain that waits, is Drained, has been Blocked for long, or has no movable pod holds no slot. Otherwise a node that
    waits days for proof would hold back the next dead node.
    """
    started = drain.status.started_at
    if started is None or drain.status.phase not in (Phase.DRAINING, Phase.BLOCKED):
        return False
    if cause.certainty is Certainty.SUSPECTED and now - started >= _SUSPECTED_KEEPS_SLOT_FOR:
        return False
    return not (drain.status.drained_at or is_blocked_for_long(drain, now) or has_no_movable_pods(drain))


def has_no_movable_pods(drain: NodeDrain) -> bool:
    """Whether all pods that are left wait for proof, for their kubelet or for their owners."""
    pods = drain.status.pods
    if pods is None or pods.remaining > pods.blocked or pods.waiting_for_replacement:
        return False
    return all(blocker.class_ in _UNMOVABLE_BLOCKER_CLASSES for blocker in drain.status.blockers)
