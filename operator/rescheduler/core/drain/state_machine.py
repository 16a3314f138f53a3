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
    FENCED = "Fenced"  # nobody asks for it any more, and the node must stay out of service for now
    RETURNING = "Returning"  # nobody asks for it any more, and pods are still to be given back
    WITHDRAWN = "Withdrawn"  # nobody asks for it any more
    RESTORED = "Restored"  # withdrawn, and nothing of ours is left on the node
    EMPTY = "Empty"  # begun, and no pod is left that must leave
    EMPTY_AND_HELD = "EmptyAndHeld"  # the same, and it may not go on: what others change on the node stays changed
    EXPIRED = "Expired"  # its time is up, and it is to be cancelled then
    FROZEN = "Frozen"  # what is known of the cluster is too old to act on
    RETREATING = "Retreating"  # steps back for another drain, and pods are still to be given back
    STEPPING_BACK = "SteppingBack"  # steps back for another drain
    SET_ASIDE = "SetAside"  # its node stays cordoned, and nothing is moved
    HELD = "Held"  # may not go on now
    SUSPECTED = "Suspected"  # its node is silent, and not known to have failed
    YIELDED = "Yielded"  # begun, without a slot: what is on its way goes on, and nothing new begins
    GRANTED = "Granted"  # may begin, and has not
    UNSEEN = "Unseen"  # begun, and the node's pods are not known yet: so after every start of ours
    LEAVING = "Leaving"  # begun, pods left
    STUCK = "Stuck"  # begun, a blocker, and nothing has moved for a while


class Command(StrEnum):
    """What the engine is to do, in the order given."""

    RECORD = "Record"  # write into status what is about to be added to the node
    CORDON = "Cordon"  # cordon, and add what the record names
    MOVE = "Move"  # pods may be moved; without it none is
    FINISH = "Finish"  # pods let go of may go; no other is moved
    RELEASE = "Release"  # pods are let go of, so that their replacements come up; none goes
    STEP_BACK = "StepBack"  # the node is put back as it was; the drain will begin anew
    GIVE_BACK = "GiveBack"  # pods let go of go back to their ReplicaSets
    CANCEL = "Cancel"  # delete the NodeDrain: restoring follows
    RESTORE = "Restore"  # take off the node what the record names
    FORGET = "Forget"  # drop the finalizer: the NodeDrain goes


_GOES_ON = (Command.RECORD, Command.CORDON, Command.MOVE)
_HOLDS_ON = (Command.RECORD, Command.CORDON)
_Row = dict[Fact, tuple[Phase, tuple[Command, ...]]]
_BEGUN: _Row = {
    Fact.GRANTED: (Phase.DRAINING, _GOES_ON),
    Fact.UNSEEN: (Phase.DRAINING, _HOLDS_ON),
    Fact.LEAVING: (Phase.DRAINING, _GOES_ON),
    Fact.STUCK: (Phase.BLOCKED, _GOES_ON),
    Fact.EMPTY: (Phase.DRAINED, _GOES_ON),
    Fact.EMPTY_AND_HELD: (Phase.DRAINED, ()),
    Fact.EXPIRED: (Phase.DRAINING, (Command.CANCEL,)),
    Fact.FROZEN: (Phase.WAITING, ()),
    Fact.RETREATING: (Phase.WAITING, (Command.GIVE_BACK,)),
    Fact.STEPPING_BACK: (Phase.WAITING, (Command.STEP_BACK,)),
    Fact.SET_ASIDE: (Phase.WAITING, (*_HOLDS_ON, Command.GIVE_BACK)),
    Fact.HELD: (Phase.WAITING, (Command.GIVE_BACK,)),
    Fact.SUSPECTED: (Phase.DRAINING, (*_HOLDS_ON, Command.RELEASE)),
    Fact.YIELDED: (Phase.WAITING, (*_HOLDS_ON, Command.FINISH)),
}
_OVER: _Row = {
    Fact.NODE_GONE: (Phase.RESTORING, (Command.FORGET,)),
    Fact.RETURNING: (Phase.RESTORING, (Command.GIVE_BACK,)),
    Fact.FENCED: (Phase.RESTORING, ()),
    Fact.WITHDRAWN: (Phase.RESTORING, (Command.RESTORE,)),
    Fact.RESTORED: (Phase.RESTORING, (Command.FORGET,)),
}

TRANSITIONS: dict[Phase, _Row] = {
    Phase.WAITING: _BEGUN | _OVER,
    Phase.DRAINING: _BEGUN | _OVER,
    Phase.BLOCKED: _BEGUN | _OVER | {Fact.UNSEEN: (Phase.BLOCKED, _HOLDS_ON)},
    Phase.DRAINED: _BEGUN | _OVER | {Fact.UNSEEN: (Phase.DRAINED, _HOLDS_ON), Fact.FROZEN: (Phase.DRAINED, ())},
    # No way back: what is being restored is restored to its end; a new request makes a new NodeDrain.
    Phase.RESTORING: _OVER | {Fact.FROZEN: (Phase.RESTORING, ())},
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
        cordoned: when the node was cordoned; None while it was not seen cordoned.
        frozen: the view of the cluster is stale.
        yields: what holds it is the want of a slot that it once had.
        fenced: our out-of-service taint is on the node and may not go.
        steps_back: it is to let go of its node for another drain.
        set_aside: what holds it keeps its node cordoned.
        suspected: nothing but a silent Lease speaks for it.
        traces: released pods are left on the node, or it is not known that none are.
        expired: the drain's time is up, and it is to be cancelled then.
        remaining: pods that must leave; None while the node's pods have not been listed.
        blocked: pods that cannot leave, and writes without which none may.
        last_move: when a pod last left or an eviction was last in flight, on our clock.
    """

    now: datetime
    same_node: bool
    withdrawn: bool
    restored: bool
    held: bool
    frozen: bool = False
    yields: bool = False
    fenced: bool = False
    steps_back: bool = False
    set_aside: bool = False
    suspected: bool = False
    traces: bool = False
    expired: bool = False
    begun: datetime | None = None
    cordoned: datetime | None = None
    remaining: int | None = None
    blocked: int = 0
    last_move: datetime | None = None


def fact(s: Situation) -> Fact:
    """The first fact that holds."""
    # A suspicion moves no pod, so nothing holds it up: without a slot it must not go on as a blocked drain does.
    quiet = s.begun and s.now >= max(s.begun, s.last_move or s.begun) + QUIET
    stuck = quiet and s.blocked and not s.suspected
    empty = s.begun and s.remaining == 0 and s.cordoned and s.now >= s.cordoned + SETTLE
    facts = (
        (not s.same_node, Fact.NODE_GONE),
        (s.frozen, Fact.FROZEN),
        (s.withdrawn and s.traces, Fact.RETURNING),
        (s.withdrawn and s.fenced, Fact.FENCED),
        (s.withdrawn, Fact.RESTORED if s.restored else Fact.WITHDRAWN),
        (empty, Fact.EMPTY_AND_HELD if s.held and not (s.yields or s.set_aside) else Fact.EMPTY),
        (s.expired, Fact.EXPIRED),
        (s.steps_back and s.begun and not s.fenced, Fact.RETREATING if s.traces else Fact.STEPPING_BACK),
        (s.held and s.set_aside, Fact.SET_ASIDE),
        (s.held and not s.yields, Fact.HELD),
        (s.suspected and not s.held, Fact.SUSPECTED),
        (s.begun is None, Fact.GRANTED),
        (s.remaining is None, Fact.UNSEEN),
        (stuck, Fact.STUCK),
        (s.yields, Fact.YIELDED),
    )
    return next((found for holds, found in facts if holds), Fact.LEAVING)
