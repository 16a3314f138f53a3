"""The life of a drain, as one table.

Rule 1: everything that changes a drain's phase is in `TRANSITIONS`; code elsewhere only finds the fact and runs
the commands. Rule 2: every command can be repeated. Rule 3: a fact that the table does not have for a phase is a
bug, and raises.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from rescheduler.api.drains import Phase

MIN_TIME_CORDONED = timedelta(seconds=5)
"""After the cordon the scheduler may still bind a pod to the node for so long: nothing is Drained before."""
BLOCKED_AFTER = timedelta(minutes=1)
"""With a blocker, and nothing moving for so long, a drain is Blocked."""


class Fact(StrEnum):
    """What is true of a drain now; the first that holds."""

    NODE_GONE = "NodeGone"  # or another machine under its name
    OUT_OF_SERVICE = "Fenced"  # nobody asks for it any more, and the node must stay out of service for now
    RETURNING_PODS = "Returning"  # nobody asks for it any more, and pods are still to be given back
    WITHDRAWN = "Withdrawn"  # nobody asks for it any more
    RESTORED = "Restored"  # withdrawn, and nothing of ours is left on the node
    EMPTY = "Empty"  # begun, and no pod is left that must leave
    EMPTY_AND_WAITING = "EmptyAndHeld"  # the same, and it may not go on: what others change on the node stays changed
    TIMED_OUT = "Expired"  # its time is up, and it is to be cancelled then
    FROZEN = "Frozen"  # what is known of the cluster is too old to act on
    RETURNING_PODS_TO_STEP_BACK = "Retreating"  # steps back for another drain, and pods are still to be given back
    STEPPING_BACK = "SteppingBack"  # steps back for another drain
    CORDONED_ONLY = "SetAside"  # its node stays cordoned, and nothing is moved
    WAITING = "Held"  # may not go on now
    SUSPECTED = "Suspected"  # its node is silent, and not known to have failed
    WITHOUT_SLOT = "Yielded"  # begun, without a slot: what is on its way goes on, and nothing new begins
    MAY_START = "Granted"  # may begin, and has not
    PODS_UNKNOWN = "Unseen"  # begun, and the node's pods are not known yet: so after every start of ours
    PODS_REMAINING = "Leaving"  # begun, pods left
    BLOCKED = "Stuck"  # begun, a blocker, and nothing has moved for a while


class Command(StrEnum):
    """What the engine is to do, in the order given."""

    RECORD = "Record"  # write into status what is about to be added to the node
    CORDON = "Cordon"  # cordon, and add what the record names
    MOVE = "Move"  # pods may be moved; without it none is
    EVICT_RELEASED = "Finish"  # pods let go of may go; no other is moved
    RELEASE = "Release"  # pods are let go of, so that their replacements come up; none goes
    STEP_BACK = "StepBack"  # the node is put back as it was; the drain will begin anew
    RETURN_PODS = "GiveBack"  # pods let go of go back to their ReplicaSets
    CANCEL = "Cancel"  # delete the NodeDrain: restoring follows
    RESTORE = "Restore"  # take off the node what the record names
    REMOVE_FINALIZER = "Forget"  # drop the finalizer: the NodeDrain goes


_CORDON_AND_MOVE = (Command.RECORD, Command.CORDON, Command.MOVE)
_CORDON_ONLY = (Command.RECORD, Command.CORDON)
_PhaseTransitions = dict[Fact, tuple[Phase, tuple[Command, ...]]]
_REQUESTED: _PhaseTransitions = {
    Fact.MAY_START: (Phase.DRAINING, _CORDON_AND_MOVE),
    Fact.PODS_UNKNOWN: (Phase.DRAINING, _CORDON_ONLY),
    Fact.PODS_REMAINING: (Phase.DRAINING, _CORDON_AND_MOVE),
    Fact.BLOCKED: (Phase.BLOCKED, _CORDON_AND_MOVE),
    Fact.EMPTY: (Phase.DRAINED, _CORDON_AND_MOVE),
    Fact.EMPTY_AND_WAITING: (Phase.DRAINED, ()),
    Fact.TIMED_OUT: (Phase.DRAINING, (Command.CANCEL,)),
    Fact.FROZEN: (Phase.WAITING, ()),
    Fact.RETURNING_PODS_TO_STEP_BACK: (Phase.WAITING, (Command.RETURN_PODS,)),
    Fact.STEPPING_BACK: (Phase.WAITING, (Command.STEP_BACK,)),
    Fact.CORDONED_ONLY: (Phase.WAITING, (*_CORDON_ONLY, Command.RETURN_PODS)),
    Fact.WAITING: (Phase.WAITING, (Command.RETURN_PODS,)),
    Fact.SUSPECTED: (Phase.DRAINING, (*_CORDON_ONLY, Command.RELEASE)),
    Fact.WITHOUT_SLOT: (Phase.WAITING, (*_CORDON_ONLY, Command.EVICT_RELEASED)),
}
_ENDING: _PhaseTransitions = {
    Fact.NODE_GONE: (Phase.RESTORING, (Command.REMOVE_FINALIZER,)),
    Fact.RETURNING_PODS: (Phase.RESTORING, (Command.RETURN_PODS,)),
    Fact.OUT_OF_SERVICE: (Phase.RESTORING, ()),
    Fact.WITHDRAWN: (Phase.RESTORING, (Command.RESTORE,)),
    Fact.RESTORED: (Phase.RESTORING, (Command.REMOVE_FINALIZER,)),
}

TRANSITIONS: dict[Phase, _PhaseTransitions] = {
    Phase.WAITING: _REQUESTED | _ENDING,
    Phase.DRAINING: _REQUESTED | _ENDING,
    Phase.BLOCKED: _REQUESTED | _ENDING | {Fact.PODS_UNKNOWN: (Phase.BLOCKED, _CORDON_ONLY)},
    Phase.DRAINED: _REQUESTED
    | _ENDING
    | {Fact.PODS_UNKNOWN: (Phase.DRAINED, _CORDON_ONLY), Fact.FROZEN: (Phase.DRAINED, ())},
    # No way back: what is being restored is restored to its end; a new request makes a new NodeDrain.
    Phase.RESTORING: _ENDING | {Fact.FROZEN: (Phase.RESTORING, ())},
}


def step(phase: Phase, fact: Fact) -> tuple[Phase, tuple[Command, ...]]:
    """The next phase, and what to do in it. Raises LookupError for a fact that the phase does not know."""
    try:
        return TRANSITIONS[phase][fact]
    except KeyError:
        raise LookupError(f"a drain that is {phase} knows no fact {fact}") from None


@dataclass(frozen=True, slots=True)
class DrainState:
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
    must_wait: bool
    frozen: bool = False
    without_slot: bool = False
    out_of_service: bool = False
    steps_back: bool = False
    cordoned_only: bool = False
    suspected: bool = False
    has_pods_to_return: bool = False
    timed_out: bool = False
    started_at: datetime | None = None
    cordoned_at: datetime | None = None
    remaining: int | None = None
    blocker_count: int = 0
    last_move_at: datetime | None = None


def fact(state: DrainState) -> Fact:
    """The first fact that holds."""
    # A suspicion moves no pod, so nothing holds it up: without a slot it must not go on as a blocked drain does.
    quiet = (
        state.started_at and state.now >= max(state.started_at, state.last_move_at or state.started_at) + BLOCKED_AFTER
    )
    stuck = quiet and state.blocker_count and not state.suspected
    empty = (
        state.started_at
        and state.remaining == 0
        and state.cordoned_at
        and state.now >= state.cordoned_at + MIN_TIME_CORDONED
    )
    facts = (
        (not state.same_node, Fact.NODE_GONE),
        (state.frozen, Fact.FROZEN),
        (state.withdrawn and state.has_pods_to_return, Fact.RETURNING_PODS),
        (state.withdrawn and state.out_of_service, Fact.OUT_OF_SERVICE),
        (state.withdrawn, Fact.RESTORED if state.restored else Fact.WITHDRAWN),
        (
            empty,
            Fact.EMPTY_AND_WAITING
            if state.must_wait and not (state.without_slot or state.cordoned_only)
            else Fact.EMPTY,
        ),
        (state.timed_out, Fact.TIMED_OUT),
        (
            state.steps_back and state.started_at and not state.out_of_service,
            Fact.RETURNING_PODS_TO_STEP_BACK if state.has_pods_to_return else Fact.STEPPING_BACK,
        ),
        (state.must_wait and state.cordoned_only, Fact.CORDONED_ONLY),
        (state.must_wait and not state.without_slot, Fact.WAITING),
        (state.suspected and not state.must_wait, Fact.SUSPECTED),
        (state.started_at is None, Fact.MAY_START),
        (state.remaining is None, Fact.PODS_UNKNOWN),
        (stuck, Fact.BLOCKED),
        (state.without_slot, Fact.WITHOUT_SLOT),
    )
    return next((found for holds, found in facts if holds), Fact.PODS_REMAINING)
