"""The slots of `failure.maxConcurrent`: how many drains for failures are under way at once, and whose turn it is.

The most certain failure comes first, and never waits for one that is less certain: what a bad detector says of one node
must not keep a dead one waiting. Failed nodes do not queue behind maintenance.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from rescheduler.api.drains import BlockerClass, NodeDrain, Phase
from rescheduler.api.scalars import NumberOrPercent
from rescheduler.core.eligibility.concurrency import is_blocked_for_long
from rescheduler.core.failure.causes import Certainty, FailureCause
from rescheduler.core.model.wait_reasons import ProgressingReason, WaitReason

_SUSPECTED_KEEPS_SLOT_FOR = timedelta(minutes=5)
"""A suspicion that is neither confirmed nor over after so long keeps nobody waiting."""
_UNMOVABLE_BLOCKER_CLASSES = frozenset(
    {
        BlockerClass.WAITING_FOR_PROOF,
        BlockerClass.STUCK_TERMINATING,
        BlockerClass.UNMANAGED,
        BlockerClass.EMPTY_DIR,
        BlockerClass.LOCAL_VOLUME,
    }
)
"""Pods held back so do not leave by anything that the drain does."""


@dataclass(frozen=True, slots=True)
class FailureDrain:
    """One drain for a failure, as far as its turn depends on it."""

    name: str
    cause: FailureCause

    @classmethod
    def of(cls, drain: NodeDrain, cause: FailureCause) -> "FailureDrain":
        """The drain, and by what it is or would be drained."""
        return cls(drain.name, cause)

    def sort_key(self) -> tuple[tuple[int, datetime], str]:
        """Where it stands in the line."""
        return self.cause.sort_key, self.name


@dataclass(frozen=True, slots=True)
class FailureQueue:
    """The drains for failures under one policy.

    Attributes:
        nodes: how many nodes the policy decides for.
        running: those under way.
        waiting: those that have not begun, and wait for a slot and for nothing else, in the order of their turn.
    """

    node_count: int
    running: tuple[FailureDrain, ...]
    waiting: tuple[FailureDrain, ...]

    def wait_reason(self, candidate: FailureDrain, limit: NumberOrPercent) -> WaitReason | None:
        """Why this one may not begin yet; None: it may."""
        slots = max(1, limit.of(self.node_count))
        taken = [other.name for other in self.running if _counts_against(other, candidate)]
        ahead = [
            other.name
            for other in self.waiting
            if other.name != candidate.name and other.sort_key() < candidate.sort_key()
        ]
        if len(taken) + len(ahead) < slots:
            return None
        share = f"failure.maxConcurrent {limit} ({slots} of {self.node_count} nodes)"
        before = f"; before this one comes {_join_names(ahead)}" if ahead else ""
        words = f"is taken by {_join_names(taken)}{before}" if taken else f"goes first to {_join_names(ahead)}"
        then = "it starts when one of them is Drained or has no pod left that can move"
        return WaitReason(ProgressingReason.MAX_CONCURRENT, f"{share} {words}: {then}")


def _counts_against(other: FailureDrain, candidate: FailureDrain) -> bool:
    return other.name != candidate.name and other.cause.certainty <= candidate.cause.certainty


def _join_names(names: Iterable[str]) -> str:
    found = sorted(names)
    return ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")


def holds_slot(drain: NodeDrain, cause: FailureCause, now: datetime) -> bool:
    """Whether a drain that has begun holds a slot.

    One that rests, is Drained, has been Blocked for long, or has no pod left that it can move holds none: a node that
    waits for proof for days must not keep the next dead node waiting.
    """
    started = drain.status.started_at
    if started is None or drain.status.phase not in (Phase.DRAINING, Phase.BLOCKED):
        return False
    if cause.certainty is Certainty.SUSPECTED and now - started >= _SUSPECTED_KEEPS_SLOT_FOR:
        return False
    return not (drain.status.drained_at or is_blocked_for_long(drain, now) or has_no_movable_pods(drain))


def has_no_movable_pods(drain: NodeDrain) -> bool:
    """Whether all that may move has moved: pods that are left wait for proof, for their kubelet or for their owners."""
    pods = drain.status.pods
    if pods is None or pods.remaining > pods.blocked or pods.waiting_for_replacement:
        return False
    return all(blocker.class_ in _UNMOVABLE_BLOCKER_CLASSES for blocker in drain.status.blockers)
