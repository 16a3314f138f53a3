"""Replacement first: the new pod is Ready before the old one goes (DESIGN 4).

The gate is ours, not the budget's: under `maxUnavailable: 1` the server takes an eviction with no replacement at
all. Each question is asked anew at every look, from what the cluster says then; only the clock of a release is kept,
on the pod.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from math import ceil

from rescheduler.api import names
from rescheduler.api.drains import Blocker, BlockerClass
from rescheduler.api.policies import OWNERS_WORDS, Drain, NoRoom, Replacement
from rescheduler.core.budgets import Budget
from rescheduler.core.moves import Move
from rescheduler.core.pods import Pod
from rescheduler.core.workloads import ReplicaSet, Workload

_SHARE = 0.25  # of an owner's replicas are released at once
_LEAST_PAUSE = timedelta(minutes=1)
_LONGEST_PAUSE = timedelta(minutes=30)
_DOUBLINGS = 10  # more would overflow a duration, in days of failures
_LAST = "; it is the last Ready pod of its owner"
_RESOURCES = ("Insufficient ", "Too many pods")
PLANNED = "the plan finds no room for it elsewhere: "
PENDING = "its replacement is Pending: "
NO_ROOM_HINT = "add a node or lower requests; or set drain.noRoom: Evict"


class Way(StrEnum):
    """How a pod is moved now."""

    PLAIN = "Plain"  # evicted as far as its budget allows
    WAIT = "Wait"  # its turn, or its replacement, has not come
    RELEASE = "Release"  # its ReplicaSet is made to let go of it, and starts another
    EVICT = "Evict"  # released, and the gate is open
    DELETE = "Delete"  # released, and its ReplicaSet would have deleted it
    GIVE_BACK = "GiveBack"  # released, and its ReplicaSet gets it back
    SETTLE = "Settle"  # given back: the last traces come off
    HOLD = "Hold"  # blocked: a blocker says why


class Trouble(StrEnum):
    """Why a replacement did not come up."""

    CANNOT_BE_HAD = "CannotBeHad"  # beside the old pod: quota, anti-affinity, spread, a rollout without end
    NOT_READY = "NotReady"  # placed or refused, and not Ready: another would not be either
    NO_ROOM = "NoRoom"  # no node has the resources
    CAME_BACK = "CameBack"  # it came up on the very node that the pod was to leave


@dataclass(frozen=True, slots=True)
class Setback:
    """What the last attempt to replace a pod of one owner came to.

    Attributes:
        until: nothing of the owner is released again before.
        attempts: in a row that failed for want of room, or came back.
    """

    trouble: Trouble
    message: str
    until: datetime
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Choice:
    """What is to be done with one pod.

    Attributes:
        reason: why not replacement first, for log and metric, where the way is PLAIN.
        cause, message, hint: of the blocker, where there is one.
        setback: to be remembered of the owner.
    """

    way: Way
    reason: str = ""
    cause: BlockerClass | None = None
    message: str = ""
    hint: str = ""
    setback: Setback | None = None


@dataclass(frozen=True, slots=True)
class Setting:
    """All that the choice for one pod depends on beside its workload.

    Attributes:
        budgets: the PodDisruptionBudgets that cover it.
        exclusive: it mounts a claim that one node alone can have.
        named: what selects pods by `pod-template-hash` here and would lose a released pod; empty where nothing does.
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
    named: str = ""
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
    return Choice(Way.WAIT) if setting.early and found.way not in (Way.RELEASE, Way.SETTLE) else found


def _choose(pod: Pod, workload: Workload | None, setting: Setting) -> Choice:
    if pod.deleting:
        return Choice(Way.WAIT)
    if pod.move and not pod.released:
        return _settle(pod, pod.move, workload)
    if pod.released and pod.move and workload:
        return _released(pod, workload, setting)
    if reason := ineligible(pod, workload, setting):
        return _plain(reason, setting)
    return _unreleased(pod, workload, setting) if workload else _plain("NoDeployment", setting)


def _plain(reason: str, setting: Setting) -> Choice:
    """Evicted without a replacement beside it, unless it would find no place at all."""
    if setting.short and setting.drain.no_room is NoRoom.HOLD:
        message = PLANNED + setting.short
        return Choice(Way.HOLD, reason, BlockerClass.NO_ROOM_IN_POOL, message, NO_ROOM_HINT)
    return Choice(Way.PLAIN, reason)


def _settle(pod: Pod, move: Move, workload: Workload | None) -> Choice:
    """Once its ReplicaSet has it again, and none too many: until then the deletion cost alone says which is to go."""
    found = workload.replica_set(move.replica_set_uid) if workload else None
    if pod.owner is None:
        return Choice(Way.WAIT)
    if workload and found:
        coming = any(p.move and p.move.cause == move.cause for p in workload.released)
        if coming or len(workload.own(found)) > found.replicas:
            return Choice(Way.WAIT)
    return Choice(Way.SETTLE)


def give_back(pod: Pod, workload: Workload | None, now: datetime) -> Choice:
    """What becomes of a released pod whose drain may not go on; DELETE and EVICT are for a drain that ends."""
    if pod.deleting or pod.move is None:
        return Choice(Way.WAIT)
    if not pod.released:
        return _settle(pod, pod.move, workload)
    if workload is None:
        return Choice(Way.WAIT)
    if _switched_off(pod, workload):
        return Choice(Way.DELETE)
    # A ReplicaSet that a rollout has scaled down would kill the pod at once, whatever its budget says.
    if _superseded(pod, workload):
        found = workload.deployment
        ready = found is not None and _gate_is_open(pod, workload, None, found.min_ready, now)
        return Choice(Way.EVICT if ready else Way.WAIT)
    return Choice(Way.GIVE_BACK)


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
        (bool(setting.named), "HashSelected"),
        (mode is Replacement.WHEN_BLOCKED and _has_room(pod, setting.budgets), "NotBlocked"),
    )
    return next((reason for holds, reason in checks if holds), "")


def _has_room(pod: Pod, budgets: Sequence[Budget]) -> bool:
    return all(budget.would_allow(pod) for budget in budgets)


def _unreleased(pod: Pod, workload: Workload, setting: Setting) -> Choice:
    drain, now, setback = setting.drain, setting.now, setting.setback
    if setback and now < setback.until:
        return _after(setback, pod, workload, setting)
    if workload.rolling:
        if now < (setting.rolling_since or now) + drain.replacement_timeout:
            return Choice(Way.WAIT)
        until = now + _pause(drain)
        return _after(
            Setback(Trouble.CANNOT_BE_HAD, "a rollout of its Deployment does not end", until), pod, workload, setting
        )
    if setting.crowded and not setting.early:
        return _after(Setback(Trouble.CANNOT_BE_HAD, setting.crowded, now), pod, workload, setting)
    # Without room they are released one at a time: a Pending replacement is what an autoscaler acts on.
    alone = setting.short or (setback and setback.trouble is Trouble.NO_ROOM)
    most = 1 if alone else max(1, ceil(_SHARE * workload.replicas))
    if not setting.early and len(workload.released) + setting.releasing >= most:
        return Choice(Way.WAIT)
    return Choice(Way.RELEASE)


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
    last = "" if required or setback.trouble is Trouble.NOT_READY else _LAST
    return Choice(
        Way.HOLD,
        cause=BlockerClass.REPLACEMENT_NOT_READY,
        message=f"no replacement came up beside it: {setback.message}{last}",
        hint="mend what keeps new pods of its owner from being Ready, or annotate the pod "
        f"{names.REPLACEMENT}: Never to have it evicted without",
        setback=setback,
    )


def _switched_off(pod: Pod, workload: Workload) -> bool:
    """Its owner wants no such pod any more: it is deleted, as its ReplicaSet would have done."""
    found, move = workload.deployment, pod.move
    rs = workload.replica_set(move.replica_set_uid) if move else None
    gone = found is None or found.deleting
    if gone and rs is None:
        return True
    if found and not gone and found.replicas == 0:
        return True
    if rs is None or _superseded(pod, workload):
        return False
    wanted_pods = found.replicas if found and not gone else rs.replicas
    return sum(p.ready for p in workload.own(rs)) > wanted_pods


def _superseded(pod: Pod, workload: Workload) -> bool:
    """A rollout has put another ReplicaSet in the place of the one that the pod came from."""
    found, move = workload.deployment, pod.move
    if found is None or found.deleting or move is None:
        return False
    rs = workload.replica_set(move.replica_set_uid)
    return rs is None or (workload.current is not None and rs.uid != workload.current.uid)


def _released(pod: Pod, workload: Workload, setting: Setting) -> Choice:
    move, now, drain = pod.move, setting.now, setting.drain
    if move is None or _switched_off(pod, workload):
        return Choice(Way.DELETE)
    superseded = _superseded(pod, workload)
    rs = None if superseded else workload.replica_set(move.replica_set_uid)
    found = workload.deployment
    min_ready = found.min_ready if found else rs.min_ready if rs else timedelta()
    late = now >= move.since + min_ready + drain.replacement_timeout
    if not move.of_drain and any(p.node == pod.node and _is_new(p, move.since) for p in workload.own(rs)):
        return _returned(Trouble.CAME_BACK, f"it was put on node {pod.node} again", setting)
    if _gate_is_open(pod, workload, rs, min_ready, now):
        # Open since the first timeout at the latest: what is refused now has been for one more.
        for_long = now >= move.since + min_ready + 2 * drain.replacement_timeout
        if for_long and not superseded and (refused := _refused(pod, setting)):
            return _returned(Trouble.NOT_READY, refused, setting)
        return Choice(Way.EVICT)
    if superseded:
        return _behind_a_rollout() if late else Choice(Way.WAIT)
    if rs and rs.refused:
        trouble = Trouble.CANNOT_BE_HAD if "exceeded quota" in rs.refused else Trouble.NOT_READY
        return _returned(trouble, rs.refused, setting)
    if late:
        return _returned(*_diagnosis(workload, rs, move.since), setting)
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
    before = min((p.move for p in released if p.move), key=lambda move: move.since, default=pod.move)
    needed = min(workload.replicas, before.ready if before else workload.replicas)
    left = workload.ready(workload.own(rs), now, min_ready) + workload.ready(released, now) - (1 if pod.ready else 0)
    return left >= needed


def _diagnosis(workload: Workload, rs: ReplicaSet | None, since: datetime) -> tuple[Trouble, str]:
    """Why the replacement is not there."""
    new = [p for p in workload.own(rs) if not p.ready and (p.created is None or p.created >= since - _LEAST_PAUSE)]
    waiting = next((p for p in new if p.unschedulable), None)
    if waiting:
        short = any(word in waiting.unschedulable for word in _RESOURCES)
        return (Trouble.NO_ROOM if short else Trouble.CANNOT_BE_HAD), waiting.unschedulable
    if new:
        return Trouble.NOT_READY, f"pod {new[0].name} is not Ready in time"
    return Trouble.CANNOT_BE_HAD, "no new pod was created in time"


def _is_new(pod: Pod, since: datetime) -> bool:
    """Whether it came into being after a release; both times are in whole seconds."""
    return pod.created is not None and pod.created >= since.replace(microsecond=0)


def _pause(drain: Drain) -> timedelta:
    return max(drain.replacement_timeout, _LEAST_PAUSE)


def _returned(trouble: Trouble, message: str, setting: Setting) -> Choice:
    """Give the pod back, and remember why."""
    before = setting.setback
    attempts = before.attempts + 1 if before and before.trouble is trouble else 1
    pause = _pause(setting.drain)
    if trouble in (Trouble.NO_ROOM, Trouble.CAME_BACK):
        pause = min(pause * 2 ** min(attempts - 1, _DOUBLINGS), max(pause, _LONGEST_PAUSE))
    return Choice(Way.GIVE_BACK, setback=Setback(trouble, message, setting.now + pause, attempts))
