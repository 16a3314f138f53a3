"""The state machine of a drain: the phases, the facts that change them, and the commands of each step.

Theory of operation
===================

A NodeDrain is the durable record of a drain, and each step starts from the cluster only. A step has three parts. The
controller observes the cluster and fills a `DrainState`. `fact` chooses one fact, and `step` looks up the row of the
table. The controller then runs the commands of the row, in the order of `Command`. Nothing is remembered between two
steps that a restart of the operator could lose.

Rule 1: everything that changes the phase, and every act of a drain, is a row of `TRANSITIONS`. Controllers never branch
on a fact. They branch on commands, and on the `Report` of the row.
Rule 2: every command can be repeated. The operator may crash after any write, and it repeats the step then.
Rule 3: a fact without a row for the phase is a bug, and `step` raises.

Facts
-----

A fact is the first true answer to a list of questions. Many answers can be true at once, so their order is a rule:

1. Is the node gone? Then there is no node to write on: the NodeDrain ends (NODE_GONE).
2. Is the view of the cluster stale? Every later answer would rest on old data, so nothing is decided (FROZEN).
3. Is the drain withdrawn? Then only the restore matters. Released pods are returned first, because no drain watches
   them after the end (RETURNING_PODS). A fenced node is restored only when its taint may go (OUT_OF_SERVICE). The
   restore itself follows (WITHDRAWN), and then the end (RESTORED).
4. Is the node empty, and does no pod come back? This comes before the timeout and before any wait: a drain that is done
   has nothing left to cancel or to delay (EMPTY, EMPTY_AND_WAITING).
5. Has the timeout passed with `onTimeout: Cancel`? This comes before the waits: a drain that waits must still end
   (TIMED_OUT).
6. Does the drain step back for another drain? This comes before the other waits, because only this wait uncordons the
   node (RETURNING_PODS_TO_STEP_BACK, STEPPING_BACK).
7. Must the drain wait? A wait that keeps the cordon (CORDONED_ONLY), the wait of a started drain (PAUSED), the wait for
   a turn (QUEUED), and every other wait (WAITING) differ in what they do to the node.
8. Is the node only suspected? Then replacements start, and no pod is evicted (SUSPECTED). This comes before BLOCKED,
   because a Blocked drain keeps evicting.
9. Has the drain not started? Then it starts (MAY_START), after its step back is cleared (STEP_BACK_ENDED).
10. Are the pods unknown? After a start of the operator, nothing may be concluded from "no pod known" (PODS_UNKNOWN).
11. Is the drain blocked? This comes before the missing slot: a blocked drain gives up its slot and keeps retrying
    (BLOCKED). As soon as a pod moves, the drain needs a slot again, and only finishes what it began (WITHOUT_SLOT).
12. Otherwise pods are left, and they move (PODS_REMAINING).

The cordon is the only command that can find out more: it reads live what the decision could not know. The facts
TURN_LOST, RECOVERED and UNCORDONED are its results. `fact` never returns them.

Phases
------

A phase is a summary for people; every decision uses facts. Each phase has a promise:

- Waiting: no pod moves, except that released pods are returned or, without a slot, evicted.
- Draining: the node is cordoned or about to be, and pods move when their turn comes.
- Blocked: the same, but a blocker exists and no pod has moved for `BLOCKED_AFTER`. The drain keeps retrying.
- Drained: no pod is left that must leave. The operator watches the node until the request ends.
- Restoring: no request is left. The operator removes what it added, and then its finalizer. There is no way back: a new
  request creates a new NodeDrain.

A drain keeps its phase while nothing is known: Blocked and Drained survive PODS_UNKNOWN, and Drained and Restoring
survive FROZEN. Otherwise every restart of the operator would show a drain that starts again.

Commands
--------

Why each command can be repeated:

- CORDON and KEEP_CORDON write the record of an addition before the addition. A crash between both leaves a record that
  names too much, and a restore removes only what is there. The record keeps who cordoned the node first.
- TAINT_QUEUED_NODE works in the same way.
- RELEASE, RETURN_PODS, MOVE, EVICT_RELEASED and EVICT_UNRETURNABLE start requests with a precondition on the UID and
  the version of the pod. A repeated request finds the pod changed or gone.
- FENCE sets or removes the out-of-service taint. The record comes first, and a live read precedes the write.
- RESOLVE_DEADLOCK and CLEAR_STEP_BACK write an annotation with the version of the NodeDrain.
- WRITE_CONDITIONS writes the node conditions that follow from the phase, if they differ.
- RESTORE and STEP_BACK remove only what the record names and what is still as the drain left it.
- CANCEL deletes the NodeDrain with its UID as precondition. The finalizer keeps it until RESTORED.
- REMOVE_FINALIZER is the last command: the NodeDrain is gone after it.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from rescheduler.api import names
from rescheduler.api.drains import NodeDrain, Phase
from rescheduler.core.model.wait_reasons import QUEUED_REASONS, ProgressingReason, WaitReason

MIN_TIME_CORDONED = timedelta(seconds=5)
"""The scheduler may still bind a pod to the node for this long after the cordon: no drain is Drained before."""
BLOCKED_AFTER = timedelta(minutes=1)
"""A drain is Blocked if it has a blocker and no pod has moved for this long."""


class Fact(StrEnum):
    """The state of a drain now: the first fact that holds, in the order of `fact`."""

    NODE_GONE = "NodeGone"  # the Node is gone, or its name belongs to a Node with another UID
    FROZEN = "Frozen"  # the view of the cluster is stale
    RETURNING_PODS = "ReturningPods"  # no request is left, and released pods must be returned first
    OUT_OF_SERVICE = "OutOfService"  # no request is left, and the out-of-service taint must stay for now
    WITHDRAWN = "Withdrawn"  # no request is left
    RESTORED = "Restored"  # no request is left, and nothing that the drain added is on the node
    EMPTY = "Empty"  # started, and no pod is left that must leave
    EMPTY_AND_WAITING = "EmptyAndWaiting"  # the same, but the drain must wait: no command cordons the node again
    TIMED_OUT = "TimedOut"  # the timeout has passed, and drain.onTimeout is Cancel
    RETURNING_PODS_TO_STEP_BACK = "ReturningPodsToStepBack"  # steps back, and released pods must be returned first
    STEPPING_BACK = "SteppingBack"  # steps back for another drain
    CORDONED_ONLY = "CordonedOnly"  # must wait; the node is cordoned, and no pod moves
    PAUSED = "Paused"  # started, and must wait
    QUEUED = "Queued"  # has not started, and waits for its turn
    WAITING = "Waiting"  # has not started, and waits for something else
    SUSPECTED = "Suspected"  # the Lease of the node is silent, and the failure is not confirmed
    STEP_BACK_ENDED = "StepBackEnded"  # may start again after a step back
    MAY_START = "MayStart"  # has not started, and may start
    PODS_UNKNOWN = "PodsUnknown"  # started, and the pods of the node are not listed yet
    BLOCKED = "Blocked"  # started, with a blocker, and no pod has moved for a minute
    WITHOUT_SLOT = "WithoutSlot"  # started, and gave up its slot: only released pods are evicted
    PODS_REMAINING = "PodsRemaining"  # started, and pods are left
    TURN_LOST = "TurnLost"  # found by the cordon: another drain has started in its place
    RECOVERED = "Recovered"  # found by the cordon: the node has recovered or is gone
    UNCORDONED = "Uncordoned"  # found by the cordon: somebody uncordoned the node


class Command(StrEnum):
    """The acts of one step. The controller runs them in this order."""

    REMOVE_FINALIZER = "RemoveFinalizer"  # remove the finalizer, so that the NodeDrain goes; ends the step
    RESTORE = "Restore"  # remove from the node what the record names; ends the step
    CANCEL = "Cancel"  # delete the NodeDrain, and the restore follows; ends the step
    STEP_BACK = "StepBack"  # restore the node, and start again later; ends the step
    CLEAR_STEP_BACK = "ClearStepBack"  # remove the record of a step back; ends the step
    RETURN_PODS = "ReturnPods"  # return released pods to their ReplicaSets
    EVICT_UNRETURNABLE = "EvictUnreturnable"  # evict released pods that cannot be returned
    TAINT_QUEUED_NODE = "TaintQueuedNode"  # keep evicted pods of other nodes off this node
    CORDON = "Cordon"  # record what the drain adds to the node, then cordon the node and add it
    KEEP_CORDON = "KeepCordon"  # the same, without proof that the node is failing at this moment
    RELEASE = "Release"  # release pods, so that their replacements start; no pod is evicted
    MOVE = "Move"  # move pods
    EVICT_RELEASED = "EvictReleased"  # evict released pods; no other pod moves
    FENCE = "Fence"  # set or remove the out-of-service taint; it is only set together with Move
    RESOLVE_DEADLOCK = "ResolveDeadlock"  # record a step back if two drains block each other
    WRITE_CONDITIONS = "WriteConditions"  # write the conditions of the Node


class Report(StrEnum):
    """Parts of the status that do not follow from the phase."""

    PHASE = "Phase"  # nothing more
    PAUSED = "Paused"  # the time of a started drain does not count
    FROZEN = "Frozen"  # the same, and nothing is written
    PODS_UNKNOWN = "PodsUnknown"  # conditions about pods stay as they are
    SUSPECTED = "Suspected"  # the failure is not confirmed
    STEPPING_BACK = "SteppingBack"  # released pods are returned before the node is uncordoned
    RETURNING_PODS = "ReturningPods"  # the restore waits for released pods
    OUT_OF_SERVICE = "OutOfService"  # the restore waits for the out-of-service taint


@dataclass(frozen=True, slots=True)
class Step:
    """A row of the table.

    Attributes:
        phase: the next phase.
        commands: the acts, in the order of `Command`.
        report: what the status reports beyond the phase.
    """

    phase: Phase
    commands: tuple[Command, ...] = ()
    report: Report = Report.PHASE


_AFTERWARDS = (Command.FENCE, Command.WRITE_CONDITIONS)
_MOVE = (Command.CORDON, Command.MOVE, *_AFTERWARDS)

_Rows = dict[Fact, Step]
_REQUESTED: _Rows = {
    Fact.FROZEN: Step(Phase.WAITING, (), Report.FROZEN),
    Fact.EMPTY: Step(Phase.DRAINED, _MOVE),
    Fact.EMPTY_AND_WAITING: Step(Phase.DRAINED, _AFTERWARDS),
    Fact.TIMED_OUT: Step(Phase.DRAINING, (Command.CANCEL,)),
    Fact.RETURNING_PODS_TO_STEP_BACK: Step(Phase.WAITING, (Command.RETURN_PODS, *_AFTERWARDS), Report.STEPPING_BACK),
    Fact.STEPPING_BACK: Step(Phase.WAITING, (Command.STEP_BACK,), Report.STEPPING_BACK),
    Fact.CORDONED_ONLY: Step(Phase.WAITING, (Command.RETURN_PODS, Command.KEEP_CORDON, *_AFTERWARDS), Report.PAUSED),
    Fact.PAUSED: Step(Phase.WAITING, (Command.RETURN_PODS, *_AFTERWARDS), Report.PAUSED),
    Fact.QUEUED: Step(Phase.WAITING, (Command.RETURN_PODS, Command.TAINT_QUEUED_NODE)),
    Fact.WAITING: Step(Phase.WAITING, (Command.RETURN_PODS,)),
    Fact.SUSPECTED: Step(Phase.DRAINING, (Command.CORDON, Command.RELEASE, *_AFTERWARDS), Report.SUSPECTED),
    Fact.STEP_BACK_ENDED: Step(Phase.DRAINING, (Command.CLEAR_STEP_BACK,)),
    Fact.MAY_START: Step(Phase.DRAINING, _MOVE),
    Fact.PODS_UNKNOWN: Step(Phase.DRAINING, (Command.CORDON, Command.FENCE), Report.PODS_UNKNOWN),
    Fact.BLOCKED: Step(
        Phase.BLOCKED,
        (Command.CORDON, Command.MOVE, Command.FENCE, Command.RESOLVE_DEADLOCK, Command.WRITE_CONDITIONS),
    ),
    Fact.WITHOUT_SLOT: Step(Phase.WAITING, (Command.CORDON, Command.EVICT_RELEASED, *_AFTERWARDS), Report.PAUSED),
    Fact.PODS_REMAINING: Step(Phase.DRAINING, _MOVE),
    Fact.TURN_LOST: Step(Phase.WAITING),
    Fact.RECOVERED: Step(Phase.WAITING),
}
_ENDING: _Rows = {
    Fact.NODE_GONE: Step(Phase.RESTORING, (Command.REMOVE_FINALIZER,)),
    Fact.RETURNING_PODS: Step(
        Phase.RESTORING, (Command.RETURN_PODS, Command.EVICT_UNRETURNABLE, *_AFTERWARDS), Report.RETURNING_PODS
    ),
    Fact.OUT_OF_SERVICE: Step(Phase.RESTORING, _AFTERWARDS, Report.OUT_OF_SERVICE),
    Fact.WITHDRAWN: Step(Phase.RESTORING, (Command.RESTORE,)),
    Fact.RESTORED: Step(Phase.RESTORING, (Command.REMOVE_FINALIZER,)),
}


def _kept(phase: Phase, fact: Fact) -> _Rows:
    """Return the row of the fact that keeps this phase."""
    row = _REQUESTED[fact]
    return {fact: Step(phase, row.commands, row.report)}


TRANSITIONS: dict[Phase, _Rows] = {
    Phase.WAITING: _REQUESTED | _ENDING | {Fact.UNCORDONED: Step(Phase.WAITING)},
    Phase.DRAINING: _REQUESTED | _ENDING | {Fact.UNCORDONED: Step(Phase.DRAINING)},
    Phase.BLOCKED: _REQUESTED
    | _ENDING
    | _kept(Phase.BLOCKED, Fact.PODS_UNKNOWN)
    | {Fact.UNCORDONED: Step(Phase.BLOCKED)},
    Phase.DRAINED: _REQUESTED
    | _ENDING
    | _kept(Phase.DRAINED, Fact.PODS_UNKNOWN)
    | _kept(Phase.DRAINED, Fact.FROZEN)
    | {Fact.UNCORDONED: Step(Phase.DRAINING)},
    # A restore runs to its end: a new request creates a new NodeDrain.
    Phase.RESTORING: _ENDING | _kept(Phase.RESTORING, Fact.FROZEN),
}


def step(phase: Phase, fact: Fact) -> Step:
    """Return the row of the table.

    Raises:
        LookupError: the table does not have the fact for this phase.
    """
    try:
        return TRANSITIONS[phase][fact]
    except KeyError:
        raise LookupError(f"a drain in phase {phase} has no row for the fact {fact}") from None


class Permission(StrEnum):
    """Acts that a reason to wait allows."""

    MAY_MOVE = "MayMove"  # no reason to wait
    FROZEN = "Frozen"  # the view of the cluster is stale
    STEPS_BACK = "StepsBack"  # started, and releases its node for another drain
    KEEPS_CORDON = "KeepsCordon"  # the node stays cordoned
    YIELDS = "Yields"  # started, and waits only for a slot that it gave up
    QUEUES = "Queues"  # has not started, and waits for its turn
    WAITS = "Waits"  # every other reason


def permission(drain: NodeDrain, wait: WaitReason | None, *, out_of_service: bool = False) -> Permission:
    """Return what the reason to wait allows; `out_of_service`: the taint must stay, so the drain cannot step back."""
    if wait is None:
        return Permission.MAY_MOVE
    has_started = drain.status.started_at is not None
    has_step_back = names.STEPPED_BACK in drain.annotations
    if wait.reason is ProgressingReason.STALE_VIEW:
        return Permission.FROZEN
    if has_step_back and has_started and not out_of_service:
        return Permission.STEPS_BACK
    # A flapping node is cordoned before the start too, so that no pod comes to it.
    if wait.reason is ProgressingReason.FLAPPING or (wait.reason is ProgressingReason.CANCELLED and has_started):
        return Permission.KEEPS_CORDON
    if has_started and wait.reason is ProgressingReason.MAX_CONCURRENT and not has_step_back:
        return Permission.YIELDS
    return Permission.QUEUES if wait.reason in QUEUED_REASONS and not has_started else Permission.WAITS


@dataclass(frozen=True, slots=True)
class DrainState:
    """The input of `fact`.

    Attributes:
        now: the time of this step.
        same_node: the node exists with the UID that the drain recorded.
        withdrawn: the NodeDrain is being deleted.
        restored: nothing that the drain added is left on the node.
        permission: what the reason to wait allows.
        out_of_service: the drain set the out-of-service taint, and the taint must stay.
        suspected: a silent Lease is the only sign of failure.
        has_pods_to_return: released pods are left on the node, or the pods of the node are not known.
        has_step_back: the NodeDrain records a step back.
        timed_out: the timeout has passed, and the drain must be cancelled.
        started_at: `status.startedAt`.
        cordoned_at: when the node was cordoned; None if no cordon was observed.
        remaining: pods that must leave; None while the pods of the node are not listed.
        may_come_back: a pod came back a moment ago, or the next one is due.
        blocker_count: pods that cannot leave, and refused writes that stop every pod.
        last_move_at: when a pod last left or was in flight, on the operator's clock.
    """

    now: datetime
    same_node: bool
    withdrawn: bool
    restored: bool
    permission: Permission = Permission.MAY_MOVE
    out_of_service: bool = False
    suspected: bool = False
    has_pods_to_return: bool = False
    has_step_back: bool = False
    timed_out: bool = False
    started_at: datetime | None = None
    cordoned_at: datetime | None = None
    remaining: int | None = None
    may_come_back: bool = False
    blocker_count: int = 0
    last_move_at: datetime | None = None


def fact(state: DrainState) -> Fact:
    """Return the first fact that holds. The theory at the top of this module gives the reasons for the order."""
    facts = (
        (not state.same_node, Fact.NODE_GONE),
        (state.permission is Permission.FROZEN, Fact.FROZEN),
        (state.withdrawn, _withdrawn_fact(state)),
        (_is_empty(state), _empty_fact(state)),
        (state.timed_out, Fact.TIMED_OUT),
        (
            state.permission is Permission.STEPS_BACK,
            Fact.RETURNING_PODS_TO_STEP_BACK if state.has_pods_to_return else Fact.STEPPING_BACK,
        ),
        (state.permission is Permission.KEEPS_CORDON, Fact.CORDONED_ONLY),
        (state.permission is Permission.QUEUES, Fact.QUEUED),
        (state.permission is Permission.WAITS, Fact.PAUSED if state.started_at else Fact.WAITING),
        (state.suspected and state.permission is Permission.MAY_MOVE, Fact.SUSPECTED),
        (state.started_at is None, Fact.STEP_BACK_ENDED if state.has_step_back else Fact.MAY_START),
        (state.remaining is None, Fact.PODS_UNKNOWN),
        (_is_blocked(state), Fact.BLOCKED),
        (state.permission is Permission.YIELDS, Fact.WITHOUT_SLOT),
    )
    return next((first for holds, first in facts if holds), Fact.PODS_REMAINING)


def _withdrawn_fact(state: DrainState) -> Fact:
    if state.has_pods_to_return:
        return Fact.RETURNING_PODS
    if state.out_of_service:
        return Fact.OUT_OF_SERVICE
    return Fact.RESTORED if state.restored else Fact.WITHDRAWN


def _empty_fact(state: DrainState) -> Fact:
    # A drain without a slot, or with a cordon to keep, may still repair its cordon; no other waiting drain may.
    can_repair = state.permission in (Permission.MAY_MOVE, Permission.YIELDS, Permission.KEEPS_CORDON)
    return Fact.EMPTY if can_repair else Fact.EMPTY_AND_WAITING


def _is_empty(state: DrainState) -> bool:
    return (
        state.started_at is not None
        and state.remaining == 0
        and state.cordoned_at is not None
        and state.now >= state.cordoned_at + MIN_TIME_CORDONED
        and not state.may_come_back
    )


def _is_blocked(state: DrainState) -> bool:
    # A suspected node moves no pod, so nothing blocks it: as Blocked it would keep moving pods without a slot.
    if state.started_at is None or not state.blocker_count or state.suspected:
        return False
    return state.now >= max(state.started_at, state.last_move_at or state.started_at) + BLOCKED_AFTER
