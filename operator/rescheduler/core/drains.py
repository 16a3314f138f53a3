"""The life of a drain, as one table.

Rule 1: everything that changes a drain's phase is in `TRANSITIONS`; code elsewhere only finds the fact and runs
the commands. Rule 2: every command can be repeated. Rule 3: a fact that the table does not have for a phase is a
bug, and raises.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from rescheduler.api.drains import Phase

SETTLE = timedelta(seconds=5)
"""After the cordon the scheduler may still bind a pod to the node for so long: nothing is Drained before."""
QUIET = timedelta(minutes=1)
"""With a blocker, and nothing moving for so long, a drain is Blocked."""


class Fact(StrEnum):
    """What is true of a drain now; the first that holds."""

    NODE_GONE = "NodeGone"  # or another machine under its name
    RETURNING = "Returning"  # nobody asks for it any more, and pods are still to be given back
    WITHDRAWN = "Withdrawn"  # nobody asks for it any more
    RESTORED = "Restored"  # withdrawn, and nothing of ours is left on the node
    EMPTY = "Empty"  # begun, and no pod is left that must leave
    EXPIRED = "Expired"  # its time is up, and it is to be cancelled then
    HELD = "Held"  # may not go on now
    GRANTED = "Granted"  # may begin, and has not
    LEAVING = "Leaving"  # begun, pods left
    STUCK = "Stuck"  # begun, a blocker, and nothing has moved for a while


class Command(StrEnum):
    """What the engine is to do, in the order given."""

    RECORD = "Record"  # write into status what is about to be added to the node
    CORDON = "Cordon"  # cordon, and add what the record names
    MOVE = "Move"  # pods may be moved; without it none is
    GIVE_BACK = "GiveBack"  # pods let go of go back to their ReplicaSets
    CANCEL = "Cancel"  # delete the NodeDrain: restoring follows
    RESTORE = "Restore"  # take off the node what the record names
    FORGET = "Forget"  # drop the finalizer: the NodeDrain goes


_GOES_ON = (Command.RECORD, Command.CORDON, Command.MOVE)
_Row = dict[Fact, tuple[Phase, tuple[Command, ...]]]
_BEGUN: _Row = {
    Fact.GRANTED: (Phase.DRAINING, _GOES_ON),
    Fact.LEAVING: (Phase.DRAINING, _GOES_ON),
    Fact.STUCK: (Phase.BLOCKED, _GOES_ON),
    Fact.EMPTY: (Phase.DRAINED, _GOES_ON),
    Fact.EXPIRED: (Phase.DRAINING, (Command.CANCEL,)),
    Fact.HELD: (Phase.WAITING, (Command.GIVE_BACK,)),
}
_OVER: _Row = {
    Fact.NODE_GONE: (Phase.RESTORING, (Command.FORGET,)),
    Fact.RETURNING: (Phase.RESTORING, (Command.GIVE_BACK,)),
    Fact.WITHDRAWN: (Phase.RESTORING, (Command.RESTORE,)),
    Fact.RESTORED: (Phase.RESTORING, (Command.FORGET,)),
}

TRANSITIONS: dict[Phase, _Row] = {
    Phase.WAITING: _BEGUN | _OVER,
    Phase.DRAINING: _BEGUN | _OVER,
    Phase.BLOCKED: _BEGUN | _OVER,
    Phase.DRAINED: _BEGUN | _OVER,
    # No way back: what is being restored is restored to its end; a new request makes a new NodeDrain.
    Phase.RESTORING: _OVER,
}


def step(phase: Phase, fact: Fact) -> tuple[Phase, tuple[Command, ...]]:
    """The next phase, and what to do in it. Raises LookupError for a fact that the phase does not know."""
    try:
        return TRANSITIONS[phase][fact]
    except KeyError:
        raise LookupError(f"a drain that is {phase} knows no fact {fact}") from None


@dataclass(frozen=True, slots=True)
class Situation:
    """All that the choice of the fact depends on.

    Attributes:
        same_node: the node exists with the UID that the drain was recorded for.
        begun: status.startedAt.
        traces: released pods are left on the node, or it is not known that none are.
        expired: the drain's time is up, and it is to be cancelled then.
        remaining: pods that must leave; None while the node's pods have not been listed.
        last_move: when a pod last left or an eviction was last in flight, on our clock.
    """

    now: datetime
    same_node: bool
    withdrawn: bool
    restored: bool
    held: bool
    traces: bool = False
    expired: bool = False
    begun: datetime | None = None
    remaining: int | None = None
    blocked: int = 0
    last_move: datetime | None = None


def fact(s: Situation) -> Fact:
    """The first fact that holds."""
    if not s.same_node:
        return Fact.NODE_GONE
    if s.withdrawn and s.traces:
        return Fact.RETURNING
    if s.withdrawn:
        return Fact.RESTORED if s.restored else Fact.WITHDRAWN
    if s.begun and s.remaining == 0 and s.now >= s.begun + SETTLE:
        return Fact.EMPTY
    if s.expired:
        return Fact.EXPIRED
    if s.held:
        return Fact.HELD
    if s.begun is None:
        return Fact.GRANTED
    if s.blocked and s.now >= max(s.begun, s.last_move or s.begun) + QUIET:
        return Fact.STUCK
    return Fact.LEAVING
