"""Decide the phase of a drain and the commands of each step, from one table.

Rule 1: `TRANSITIONS` has every change of a phase; other code only collects the facts and runs the commands.
Rule 2: every command can be repeated. Rule 3: a fact that the table does not have for a phase is a bug, and raises.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from rescheduler.api.drains import Phase

MIN_TIME_CORDONED = timedelta(seconds=5)
"""The scheduler may still bind a pod to the node for this long after the cordon: no drain is Drained before."""
BLOCKED_AFTER = timedelta(minutes=1)
"""A drain is Blocked if it has a blocker and no pod has moved for this long."""


class Fact(StrEnum):
    """The state of a drain now: the first fact that holds, in the order of `fact`."""

    NODE_GONE = "NodeGone"  # or the name belongs to a Node with another UID
    OUT_OF_SERVICE = "Fenced"  # no request is left, and the out-of-service taint must stay for now
    RETURNING_PODS = "Returning"  # no request is left, and released pods must be returned first
    WITHDRAWN = "Withdrawn"  # no request is left
    RESTORED = "Restored"  # withdrawn, and nothing that the drain added is left on the node
    EMPTY = "Empty"  # started, and no pod is left that must leave
    EMPTY_AND_WAITING = "EmptyAndHeld"  # the same, but the drain must wait: no command repairs the node
    TIMED_OUT = "Expired"  # the timeout has passed, and drain.onTimeout is Cancel
    FROZEN = "Frozen"  # the view of the cluster is stale
    RETURNING_PODS_TO_STEP_BACK = "Retreating"  # steps back for another drain, and released pods must be returned first
    STEPPING_BACK = "SteppingBack"  # steps back for another drain
    CORDONED_ONLY = "SetAside"  # the node stays cordoned, and no pod moves
    WAITING = "Held"  # must wait
    SUSPECTED = "Suspected"  # the Lease of the node is silent, and the failure is not confirmed
    WITHOUT_SLOT = "Yielded"  # started, and has no slot: released pods are evicted, and no other pod moves
    MAY_START = "Granted"  # has not started, and may start
    PODS_UNKNOWN = (
        "Unseen"  # started, and the pods of the node are not listed yet: so after every start of the operator
    )
    PODS_REMAINING = "Leaving"  # started, and pods are left
    BLOCKED = "Stuck"  # started, with a blocker, and no pod has moved for `BLOCKED_AFTER`


class Command(StrEnum):
    """The writes of one step, in this order."""

    RECORD = "Record"  # write into the status what the drain is about to add to the node
    CORDON = "Cordon"  # cordon the node, and add what the record names
    MOVE = "Move"  # pods may move; without this command no pod moves
    EVICT_RELEASED = "Finish"  # released pods may be evicted; no other pod moves
    RELEASE = "Release"  # pods are released, so that their replacements start; no pod is evicted
    STEP_BACK = "StepBack"  # restore the node; the drain starts again later
    RETURN_PODS = "GiveBack"  # return released pods to their ReplicaSets
    CANCEL = "Cancel"  # delete the NodeDrain; the restore follows
    RESTORE = "Restore"  # remove from the node what the record names
    REMOVE_FINALIZER = "Forget"  # remove the finalizer, so that the NodeDrain goes


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
    # A restore runs to its end: a new request creates a new NodeDrain.
    Phase.RESTORING: _ENDING | {Fact.FROZEN: (Phase.RESTORING, ())},
}


def step(phase: Phase, fact: Fact) -> tuple[Phase, tuple[Command, ...]]:
    """Return the next phase and its commands.

    Raises:
        LookupError: the table does not have the fact for this phase.
    """
    try:
        return TRANSITIONS[phase][fact]
    except KeyError:
        raise LookupError(f"a drain that is {phase} knows no fact {fact}") from None


@dataclass(frozen=True, slots=True)
class DrainState:
    """The input of `fact`.

    Attributes:
        same_node: the node exists with the UID that the drain recorded.
        withdrawn: the NodeDrain is being deleted.
        restored: nothing that the drain added is left on the node.
        must_wait: `Progressing=False` has a reason.
        frozen: the view of the cluster is stale.
        without_slot: the drain waits only for a slot that it gave up.
        out_of_service: the drain set the out-of-service taint, and the taint must stay.
        steps_back: the drain releases its node for another drain.
        cordoned_only: the reason for waiting keeps the node cordoned.
        suspected: a silent Lease is the only sign of failure.
        has_pods_to_return: released pods are left on the node, or the pods of the node are not known.
        timed_out: the timeout has passed, and the drain must be cancelled.
        started_at: `status.startedAt`.
        cordoned_at: when the node was cordoned; None if no cordon was observed.
        remaining: pods that must leave; None while the pods of the node are not listed.
        blocker_count: pods that cannot leave, and refused writes that stop every pod.
        last_move_at: when a pod last left or was in flight, on the operator's clock.
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
    """Return the first fact that holds."""
    # A suspected node moves no pod, so nothing blocks it: as Blocked it would keep moving pods without a slot.
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
    return next((first for holds, first in facts if holds), Fact.PODS_REMAINING)
