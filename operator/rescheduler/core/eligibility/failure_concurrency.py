"""The slots of `failure.maxConcurrent`: how many drains for failures are under way at once, and whose turn it is.

The most certain failure comes first, and never waits for one that is less certain: what a bad detector says of one node
must not keep a dead one waiting. Failed nodes do not queue behind maintenance.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from rescheduler.api.drains import BlockerClass, NodeDrain, Phase
from rescheduler.api.scalars import NumberOrPercent
from rescheduler.core.eligibility.concurrency import blocked_for_long
from rescheduler.core.failure.causes import Cause, Certainty
from rescheduler.core.model.wait_reasons import Held, Hold

_SUSPECTED_FOR = timedelta(minutes=5)
"""A suspicion that is neither confirmed nor over after so long keeps nobody waiting."""
_OUTLASTS = frozenset(
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
class Patient:
    """One drain for a failure, as far as its turn depends on it."""

    name: str
    cause: Cause

    @classmethod
    def of(cls, drain: NodeDrain, cause: Cause) -> "Patient":
        """The drain, and by what it is or would be drained."""
        return cls(drain.name, cause)

    def turn(self) -> tuple[tuple[int, datetime], str]:
        """Where it stands in the line."""
        return self.cause.rank, self.name


@dataclass(frozen=True, slots=True)
class Line:
    """The drains for failures under one policy.

    Attributes:
        nodes: how many nodes the policy decides for.
        running: those under way.
        waiting: those that have not begun, and wait for a slot and for nothing else, in the order of their turn.
    """

    nodes: int
    running: tuple[Patient, ...]
    waiting: tuple[Patient, ...]

    def wait(self, mine: Patient, limit: NumberOrPercent) -> Held | None:
        """Why this one may not begin yet; None: it may."""
        slots = max(1, limit.of(self.nodes))
        taken = [other.name for other in self.running if _counts(other, mine)]
        ahead = [other.name for other in self.waiting if other.name != mine.name and other.turn() < mine.turn()]
        if len(taken) + len(ahead) < slots:
            return None
        share = f"failure.maxConcurrent {limit} ({slots} of {self.nodes} nodes)"
        before = f"; before this one comes {_listed(ahead)}" if ahead else ""
        words = f"is taken by {_listed(taken)}{before}" if taken else f"goes first to {_listed(ahead)}"
        then = "it starts when one of them is Drained or has no pod left that can move"
        return Held(Hold.MAX_CONCURRENT, f"{share} {words}: {then}")


def _counts(other: Patient, mine: Patient) -> bool:
    return other.name != mine.name and other.cause.certainty <= mine.cause.certainty


def _listed(names: Iterable[str]) -> str:
    found = sorted(names)
    return ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")


def under_way(drain: NodeDrain, cause: Cause, now: datetime) -> bool:
    """Whether a drain that has begun holds a slot.

    One that rests, is Drained, has been Blocked for long, or has no pod left that it can move holds none: a node that
    waits for proof for days must not keep the next dead node waiting.
    """
    started = drain.status.started_at
    if started is None or drain.status.phase not in (Phase.DRAINING, Phase.BLOCKED):
        return False
    if cause.certainty is Certainty.SUSPECTED and now - started >= _SUSPECTED_FOR:
        return False
    return not (drain.status.drained_at or blocked_for_long(drain, now) or settled(drain))


def settled(drain: NodeDrain) -> bool:
    """Whether all that may move has moved: pods that are left wait for proof, for their kubelet or for their owners."""
    pods = drain.status.pods
    if pods is None or pods.remaining > pods.blocked or pods.waiting_for_replacement:
        return False
    return all(blocker.class_ in _OUTLASTS for blocker in drain.status.blockers)
