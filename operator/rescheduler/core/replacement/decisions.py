"""Replacement first: the new pod is Ready before the old one goes.

The gate is ours, not the budget's: under `maxUnavailable: 1` the server accepts an eviction with no replacement at
all. Each look decides from what the cluster says then; only the record of a release is kept, on the pod.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from math import ceil

from rescheduler.api import names
from rescheduler.api.drains import Blocker, BlockerClass
from rescheduler.api.policies import OWNERS_WORDS, Drain, NoRoom, Replacement
from rescheduler.core.model.disruption_budgets import Budget
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.release_record import Move
from rescheduler.core.model.workloads import ReplicaSet, Workload

_SHARE = 0.25  # of an owner's replicas are released at once
_LEAST_PAUSE = timedelta(minutes=1)
_LONGEST_PAUSE = timedelta(minutes=30)
_DOUBLINGS = 10  # more would overflow a duration, in days of failures
_LAST = "; it is the last Ready pod of its owner"
BUT_THE_LAST = ("CannotBeHad", "ReleaseRefused")
"""Reasons for which the pods of an owner go plainly, one judged after the other, but for its last Ready pod."""
_WHO_DELETES = (
    "find out who deletes pods of this workload, such as a pruner or a cleanup script; or annotate the pod "
    f"{names.REPLACEMENT}: Never to have it evicted without a replacement"
)
_RESOURCES = ("Insufficient ", "Too many pods")
_OTHER_PODS = ("anti-affinity", "topology spread", "pod affinity")
"""In the scheduler's words: other pods keep it off, though some node may have room for it."""
_CONTROLLERS = ": see whether kube-controller-manager works, and whether admission lets pods in"
_RECORD_STAYS = "the record of its move cannot be removed"
PLANNED = "the plan finds no room for it elsewhere: "
PENDING = "its replacement is Pending: "
NO_ROOM_HINT = "add a node or lower requests; or set drain.noRoom: Evict"


class Way(StrEnum):
    """How a pod is moved now; the values are labels of a metric."""

    PLAIN = "Plain"  # evicted as far as its budget allows
    WAIT = "Wait"  # its turn, or its replacement, has not come
    RELEASE = "Release"  # its Deployment becomes its controller, and its ReplicaSet starts another
    EVICT = "Evict"  # released, and the gate is open
    DELETE = "Delete"  # released, and its ReplicaSet would have deleted it
    RETURN = "GiveBack"  # released, and its ReplicaSet becomes its controller again
    CLEAR = "Settle"  # returned, and the record of the move is removed
    HOLD = "Hold"  # blocked: a blocker says why


class Trouble(StrEnum):
    """Why a replacement did not come up."""

    CANNOT_BE_HAD = "CannotBeHad"  # beside the old pod: quota, anti-affinity, spread, a rollout without end
    NOT_READY = "NotReady"  # placed or refused, and not Ready: another would not be either
    NO_ROOM = "NoRoom"  # no node has the resources
    CAME_BACK = "CameBack"  # it came up on the very node that the pod was to leave
    TAKEN = "Taken"  # somebody else removed the released pod before its replacement was Ready


@dataclass(frozen=True, slots=True)
class Setback:
    """What the last attempt to replace a pod of one owner came to.

    Attributes:
        until: nothing of the owner is released again before.
        attempts: in a row that failed for want of room, came back, or were taken.
        ready: of TAKEN: Ready pods of the owner before; no other pod of it is released while fewer are Ready.
    """

    trouble: Trouble
    message: str
    until: datetime
    attempts: int = 1
    ready: int = 0


@dataclass(frozen=True, slots=True)
class Choice:
    """What is to be done with one pod.

    Attributes:
        reason: why not replacement first, for log and metric, where the way is PLAIN.
        cause, message, hint: of the blocker, where there is one.
        setback: to be remembered of the owner.
        why: what a pod waits for that nothing is in flight of: a blocker, once it has lasted.
    """

    way: Way
    reason: str = ""
    cause: BlockerClass | None = None
    message: str = ""
    hint: str = ""
    setback: Setback | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """A write on a pod that the server refused: what the blocker says, if the pod has to stay because of it."""

    cause: BlockerClass
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Setting:
    """All that the choice for one pod depends on beside its workload.

    Attributes:
        budgets: the PodDisruptionBudgets that cover it.
        exclusive: it mounts a claim that one node alone can have.
        left: its labels no longer match its ReplicaSet.
        unwritable: why the server refuses to change the controller of the pod, or its record; None while it does not.
        setback: of its owner, still standing or not.
        rolling_since: since when a rollout of its owner is under way.
        releasing: pods of its owner that are being released just now.
        early: its node is only suspected: replacements come up at once, and nothing goes.
        refused: why the server refuses its eviction, where that is no budget's doing; empty where it does not.
        short: why the plan finds no room for it; `crowded`: why other pods keep it off everywhere; empty where not so.
    """

    drain: Drain
    now: datetime
    budgets: Sequence[Budget] = ()
    exclusive: bool = False
    left: bool = False
    unwritable: Refused | None = None
    setback: Setback | None = None
    rolling_since: datetime | None = None
    releasing: int = 0
    early: bool = False
    refused: str = ""
    short: str = ""
    crowded: str = ""


def wanted(pod: Pod, drain: Drain) -> Replacement:
    """The owner's word, on the pod, is stronger than the drain's."""
    given = pod.annotations.get(names.REPLACEMENT)
    return Replacement(given) if given in OWNERS_WORDS else drain.replacement


def choose(pod: Pod, workload: Workload | None, setting: Setting) -> Choice:
    """How this pod is moved now; `workload` is None where no Deployment stands behind it."""
    found = _choose(pod, workload, setting)
    return Choice(Way.WAIT) if setting.early and found.way not in (Way.RELEASE, Way.CLEAR) else found


def _choose(pod: Pod, workload: Workload | None, setting: Setting) -> Choice:
    if pod.deleting:
        return Choice(Way.WAIT)
    if pod.returned and pod.move and not setting.unwritable:
        return _returned_pod(pod, pod.move, workload)
    if pod.released and (found := _unaccounted(pod, workload, setting)):
        return found
    if pod.released and workload:
        found = _released(pod, workload, setting)
        refused = setting.unwritable if found.way is Way.RETURN else None
        return replace(_held(refused), setback=found.setback) if refused else found
    if reason := ineligible(pod, workload, setting):
        return _plain(reason, setting)
    return _unreleased(pod, workload, setting) if workload else _plain("NoDeployment", setting)


def _unaccounted(pod: Pod, workload: Workload | None, setting: Setting) -> Choice | None:
    """A released pod that no count of Ready pods depends on: it goes as every other pod; None if some do.

    It has ended, or left the selector of its owner, or its owner is gone: garbage collection is about to take it.
    """
    if pod.finished:
        return Choice(Way.EVICT)
    if setting.left:
        return _plain("LeftSelector", setting)
    if workload is None or (workload.deployment is None and _replica_set(pod, workload) is None):
        return _plain("NoDeployment", setting)
    return None


def _plain(reason: str, setting: Setting) -> Choice:
    """Evicted without a replacement beside it, unless it would find no place at all."""
    if setting.short and setting.drain.no_room is NoRoom.HOLD:
        message = PLANNED + setting.short
        return Choice(Way.HOLD, reason, BlockerClass.NO_ROOM_IN_POOL, message, NO_ROOM_HINT)
    return Choice(Way.PLAIN, reason)


def _returned_pod(pod: Pod, move: Move, workload: Workload | None) -> Choice:
    """Keep the deletion cost while its ReplicaSet has a pod too many: until then the cost says which is to go."""
    found = _replica_set(pod, workload) if workload else None
    if workload and found and not pod.finished:
        coming = any(p.move and p.move.cause == move.cause for p in workload.released)
        if coming or len(workload.own(found)) > found.replicas:
            surplus = f"returned to ReplicaSet {found.name}, which has not deleted its surplus pod yet"
            return Choice(Way.WAIT, why=surplus)
    return Choice(Way.CLEAR)


def give_back(pod: Pod, workload: Workload | None, now: datetime, unwritable: Refused | None = None) -> Choice:
    """What becomes of a pod with the record of a move whose drain may not go on.

    DELETE and EVICT are for a drain that ends. HOLD: nothing can be done for now, and the blocker says why.
    """
    if pod.deleting or pod.move is None:
        return Choice(Way.WAIT)
    if pod.returned:
        return _held(unwritable, _RECORD_STAYS) if unwritable else _returned_pod(pod, pod.move, workload)
    if pod.finished:
        return Choice(Way.EVICT)
    rs = _replica_set(pod, workload) if workload else None
    left = rs is not None and not rs.selects(pod)
    if workload is None or left or (workload.deployment is None and rs is None):
        # No ReplicaSet would take it: it stays with its Deployment, and goes when that goes.
        return _held(unwritable, _RECORD_STAYS) if unwritable else Choice(Way.CLEAR)
    if is_unwanted(pod, workload):
        return Choice(Way.DELETE)
    found = workload.deployment
    min_ready = found.min_ready if found else rs.min_ready if rs else timedelta()
    # A ReplicaSet that a rollout has scaled down would kill the pod at once, whatever its budget says.
    if _superseded(pod, workload):
        return Choice(Way.EVICT) if _gate_is_open(pod, workload, None, min_ready, now) else _behind_a_rollout()
    if unwritable:
        return Choice(Way.EVICT) if _gate_is_open(pod, workload, rs, min_ready, now) else _held(unwritable)
    return Choice(Way.RETURN)


def _held(refused: Refused, what: str = "it cannot be returned to its ReplicaSet") -> Choice:
    message = f"{what}: {refused.message}"
    return Choice(Way.HOLD, cause=refused.cause, message=message, hint=refused.hint)


def _replica_set(pod: Pod, workload: Workload) -> ReplicaSet | None:
    """The ReplicaSet that the pod was released from, if it is still there and belongs to the Deployment of its record."""
    found = workload.replica_set(pod.move.replica_set_uid) if pod.move else None
    if found is None or (found.deployment_uid and pod.move and found.deployment_uid != pod.move.deployment_uid):
        return None
    return found


def taken(pod: Pod, drain: Drain, before: Setback | None, now: datetime) -> Setback | None:
    """The setback of an owner whose released pod somebody else removed; None if the pod was no released one.

    It bounds what an unknown deleter of released pods can do: to one pod at a time.
    """
    if not pod.released or pod.move is None:
        return None
    message = f"somebody else removed the released pod {pod.name} before its replacement was Ready"
    attempts = before.attempts + 1 if before and before.trouble is Trouble.TAKEN else 1
    ready = max(pod.move.ready, before.ready if before else 0)
    pause = min(_LEAST_PAUSE * 2 ** min(attempts - 1, 5), max(_pause(drain), _LEAST_PAUSE))
    return Setback(Trouble.TAKEN, message, now + pause, attempts, ready)


def recall(blocker: Blocker, drain: Drain, now: datetime) -> Setback | None:
    """The setback that a blocker of the status speaks of: a restart may lengthen a pause, and must not forget it."""
    trouble = {
        BlockerClass.REPLACEMENT_NOT_READY: Trouble.NOT_READY,
        BlockerClass.NO_ROOM_IN_POOL: Trouble.NO_ROOM,
    }.get(blocker.class_)
    if trouble is None or blocker.message.startswith((PLANNED, PENDING)):
        return None  # what a plan says has not been tried to the end
    why = blocker.message.partition(": ")[2].removesuffix(_LAST)
    return Setback(trouble, why, now + _pause(drain))


def ineligible(pod: Pod, workload: Workload | None, setting: Setting) -> str:
    """Why this pod cannot be replaced first; empty where it can."""
    found = workload.deployment if workload else None
    if workload is None or found is None or found.deleting:
        return "NoDeployment"
    mode = wanted(pod, setting.drain)
    checks = (
        (mode is Replacement.NEVER, "Never"),
        (not found.surges, "NoSurge"),
        (setting.exclusive, "ExclusiveVolume"),
        (pod.host_path, "HostPath"),
        (pod.pinned, "Pinned"),
        (not pod.ready, "NotReady"),
        (len(setting.budgets) > 1, "SeveralBudgets"),
        (setting.left, "LeftSelector"),
        (mode is Replacement.WHEN_BLOCKED and _has_room(pod, setting.budgets), "NotBlocked"),
    )
    return next((reason for holds, reason in checks if holds), "")


def _has_room(pod: Pod, budgets: Sequence[Budget]) -> bool:
    return all(budget.would_allow(pod) for budget in budgets)


def _unreleased(pod: Pod, workload: Workload, setting: Setting) -> Choice:
    drain, now, setback = setting.drain, setting.now, setting.setback
    if setting.unwritable:
        return _not_released(setting.unwritable, pod, workload, setting)
    if found := _waits_for_ready(workload, setback):
        return found
    if setback and now < setback.until:
        return _after(setback, pod, workload, setting)
    if workload.rolling:
        if now < (setting.rolling_since or now) + drain.replacement_timeout:
            return Choice(Way.WAIT, why="a rollout of its Deployment is under way")
        until = now + _pause(drain)
        return _after(
            Setback(Trouble.CANNOT_BE_HAD, "a rollout of its Deployment does not end", until), pod, workload, setting
        )
    if setting.crowded and not setting.early:
        return _after(Setback(Trouble.CANNOT_BE_HAD, setting.crowded, now), pod, workload, setting)
    # Without room they are released one at a time: a Pending replacement is what an autoscaler acts on.
    alone = setting.short or (setback and setback.trouble in (Trouble.NO_ROOM, Trouble.TAKEN))
    most = 1 if alone else max(1, ceil(_SHARE * workload.replicas))
    under_way = len(workload.released) + setting.releasing
    if not setting.early and under_way >= most:
        return Choice(Way.WAIT, why=f"{under_way} released pods of its owner are replaced first")
    return Choice(Way.RELEASE)


def _waits_for_ready(workload: Workload, setback: Setback | None) -> Choice | None:
    """Nothing more is released while fewer pods of the owner are Ready than when the first one was.

    Whoever deletes released pods then costs one pod, and not the service.
    """
    first = min(workload.replicas, ready_before(workload))
    if workload.serving < first:
        return Choice(Way.WAIT, why=f"{workload.serving} of {first} pods of its owner are Ready")
    needed = min(workload.replicas, setback.ready) if setback and setback.trouble is Trouble.TAKEN else 0
    if setback is None or workload.serving >= needed:
        return None
    return Choice(
        Way.HOLD,
        cause=BlockerClass.REPLACEMENT_NOT_READY,
        message=f"{setback.message}; {workload.serving} of {needed} pods of its owner are Ready",
        hint=_WHO_DELETES,
        setback=setback,
    )


def ready_before(workload: Workload) -> int:
    """Ready pods of the owner when the first of its released pods was released; 0 if none is released.

    Each release of a wave takes the number over, so they agree; the highest is the safe one if somebody changed one.
    """
    return max((p.move.ready for p in workload.released if p.move), default=0)


def _not_released(refused: Refused, pod: Pod, workload: Workload, setting: Setting) -> Choice:
    """The server refuses the write that releases the pod: it goes plainly, unless it is the last Ready one."""
    required = wanted(pod, setting.drain) is Replacement.REQUIRED
    if not required and workload.serving > 1:
        return _plain("ReleaseRefused", setting)
    return Choice(
        Way.HOLD,
        "ReleaseRefused",
        refused.cause,
        f"it cannot be released for a replacement: {refused.message}" + ("" if required else _LAST),
        refused.hint,
    )


def _after(setback: Setback, pod: Pod, workload: Workload, setting: Setting) -> Choice:
    """While a setback stands."""
    required = wanted(pod, setting.drain) is Replacement.REQUIRED
    if setback.trouble is Trouble.NO_ROOM:
        if setting.drain.no_room is NoRoom.EVICT:
            return Choice(Way.PLAIN, "NoRoom", setback=setback)
        return Choice(
            Way.HOLD,
            cause=BlockerClass.NO_ROOM_IN_POOL,
            message=f"no node has room for its replacement: {setback.message}",
            hint=NO_ROOM_HINT,
            setback=setback,
        )
    if setback.trouble is Trouble.CANNOT_BE_HAD and not required and workload.serving > 1:
        return Choice(Way.PLAIN, "CannotBeHad", setback=setback)
    if setback.trouble is Trouble.TAKEN:
        return Choice(
            Way.HOLD,
            cause=BlockerClass.REPLACEMENT_NOT_READY,
            message=setback.message,
            hint=_WHO_DELETES,
            setback=setback,
        )
    last = "" if required or setback.trouble is Trouble.NOT_READY else _LAST
    return Choice(
        Way.HOLD,
        cause=BlockerClass.REPLACEMENT_NOT_READY,
        message=f"no replacement came up beside it: {setback.message}{last}",
        hint="mend what keeps new pods of its owner from being Ready, or annotate the pod "
        f"{names.REPLACEMENT}: Never to have it evicted without",
        setback=setback,
    )


def is_unwanted(pod: Pod, workload: Workload) -> bool:
    """Its owner wants no such pod any more: it is deleted, as its ReplicaSet would have done.

    Only if the Deployment and the ReplicaSet of its record exist and belong together: a record that somebody else wrote
    never leads to a delete. The pods of a Deployment that is gone are left to garbage collection.
    """
    found, rs = workload.deployment, _replica_set(pod, workload)
    if found is None or pod.move is None or found.uid != pod.move.deployment_uid or rs is None:
        return False
    if found.deleting or rs.deployment_uid != found.uid:
        return False
    if found.replicas == 0:
        return True
    return not _superseded(pod, workload) and sum(p.ready for p in workload.own(rs)) > found.replicas


def _superseded(pod: Pod, workload: Workload) -> bool:
    """A rollout has put another ReplicaSet in the place of the one that the pod came from."""
    found = workload.deployment
    if found is None or found.deleting:
        return False
    rs = _replica_set(pod, workload)
    return rs is None or (workload.current is not None and rs.uid != workload.current.uid)


def _released(pod: Pod, workload: Workload, setting: Setting) -> Choice:
    move, now, drain = pod.move, setting.now, setting.drain
    if move is None or is_unwanted(pod, workload):
        return Choice(Way.DELETE)
    superseded = _superseded(pod, workload)
    rs = None if superseded else _replica_set(pod, workload)
    found = workload.deployment
    min_ready = found.min_ready if found else rs.min_ready if rs else timedelta()
    late = now >= move.since + min_ready + drain.replacement_timeout
    if not move.of_drain and any(p.node == pod.node and _is_new(p, move.since) for p in workload.own(rs)):
        return _undo(Trouble.CAME_BACK, f"it was put on node {pod.node} again", setting)
    if _gate_is_open(pod, workload, rs, min_ready, now):
        # Open since the first timeout at the latest: what is refused now has been for one more.
        for_long = now >= move.since + min_ready + 2 * drain.replacement_timeout
        if for_long and not superseded and (refused := _refused(pod, setting)):
            return _undo(Trouble.NOT_READY, refused, setting)
        return Choice(Way.EVICT)
    if superseded:
        return _behind_a_rollout() if late else Choice(Way.WAIT)
    if rs and rs.refused:
        trouble = Trouble.CANNOT_BE_HAD if "exceeded quota" in rs.refused else Trouble.NOT_READY
        return _undo(trouble, rs.refused, setting)
    if late:
        return _undo(*_diagnosis(workload, rs, move.since), setting)
    return Choice(Way.WAIT, message=next((p.unschedulable for p in workload.own(rs) if p.unschedulable), ""))


def _refused(pod: Pod, setting: Setting) -> str:
    """Why the eviction is refused though a replacement stands beside the pod; empty where it is not."""
    if setting.budgets and not _has_room(pod, setting.budgets):
        return "its budget refuses the eviction all the same"
    return f"its eviction is refused: {setting.refused}" if setting.refused else ""


def _behind_a_rollout() -> Choice:
    return Choice(
        Way.HOLD,
        cause=BlockerClass.REPLACEMENT_NOT_READY,
        message="a rollout has replaced its ReplicaSet, and too few of the new pods are Ready",
        hint="finish the rollout or roll it back: see kubectl rollout status",
    )


def _gate_is_open(pod: Pod, workload: Workload, rs: ReplicaSet | None, min_ready: timedelta, now: datetime) -> bool:
    """Whether enough Ready pods are left without this one; `rs` None counts those of all ReplicaSets."""
    released = workload.released
    before = ready_before(workload) or (pod.move.ready if pod.move else workload.replicas)
    needed = min(workload.replicas, before)
    left = workload.ready(workload.own(rs), now, min_ready) + workload.ready(released, now) - (1 if pod.ready else 0)
    return left >= needed


def _diagnosis(workload: Workload, rs: ReplicaSet | None, since: datetime) -> tuple[Trouble, str]:
    """Why the replacement is not there."""
    new = [p for p in workload.own(rs) if not p.ready and (p.created is None or p.created >= since - _LEAST_PAUSE)]
    waiting = next((p for p in new if p.unschedulable), None)
    if waiting:
        words = waiting.unschedulable
        kept_off = any(word in words for word in _OTHER_PODS) and not any(word in words for word in _RESOURCES)
        return (Trouble.CANNOT_BE_HAD if kept_off else Trouble.NO_ROOM), words
    if new:
        return Trouble.NOT_READY, f"pod {new[0].name} is not Ready in time"
    # Nothing is evicted while nothing can replace it.
    return Trouble.NOT_READY, "no new pod was created in time, and its ReplicaSet gives no reason" + _CONTROLLERS


def _is_new(pod: Pod, since: datetime) -> bool:
    """Whether it came into being after a release; both times are in whole seconds."""
    return pod.created is not None and pod.created >= since.replace(microsecond=0)


def _pause(drain: Drain) -> timedelta:
    return max(drain.replacement_timeout, _LEAST_PAUSE)


def _undo(trouble: Trouble, message: str, setting: Setting) -> Choice:
    """Return the pod, and remember why."""
    before = setting.setback
    attempts = before.attempts + 1 if before and before.trouble is trouble else 1
    pause = _pause(setting.drain)
    if trouble in (Trouble.NO_ROOM, Trouble.CAME_BACK):
        pause = min(pause * 2 ** min(attempts - 1, _DOUBLINGS), max(pause, _LONGEST_PAUSE))
    return Choice(Way.RETURN, setback=Setback(trouble, message, setting.now + pause, attempts))
