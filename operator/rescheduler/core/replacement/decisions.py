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
from rescheduler.api.policies import REPLACEMENT_ANNOTATION_VALUES, DrainSettings, NoRoom, ReplacementMode
from rescheduler.core.model.disruption_budgets import DisruptionBudget
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.release_record import ReleaseRecord
from rescheduler.core.model.workloads import ReplicaSet, Workload

_MAX_RELEASED_FRACTION = 0.25  # of an owner's replicas are released at once
_MIN_BACKOFF = timedelta(minutes=1)
_MAX_BACKOFF = timedelta(minutes=30)
_MAX_DOUBLINGS = 10  # more would overflow a duration, in days of failures
_LAST_READY_SUFFIX = "; it is the last Ready pod of its owner"
KEEP_LAST_READY_REASONS = ("CannotBeHad", "ReleaseRefused")
"""Reasons for which the pods of an owner go plainly, one judged after the other, but for its last Ready pod."""
_FIND_DELETER_HINT = (
    "find out who deletes pods of this workload, such as a pruner or a cleanup script; or annotate the pod "
    f"{names.REPLACEMENT}: Never to have it evicted without a replacement"
)
_RESOURCE_MESSAGES = ("Insufficient ", "Too many pods")
_OTHER_POD_MESSAGES = ("anti-affinity", "topology spread", "pod affinity")
"""In the scheduler's words: other pods keep it off, though some node may have room for it."""
_CHECK_CONTROLLER_HINT = ": see whether kube-controller-manager works, and whether admission lets pods in"
_RECORD_NOT_CLEARED = "the record of its move cannot be removed"
NO_ROOM_PREFIX = "the plan finds no room for it elsewhere: "
PENDING_PREFIX = "its replacement is Pending: "
NO_ROOM_HINT = "add a node or lower requests; or set drain.noRoom: Evict"


class ReplacementStep(StrEnum):
    """How a pod is moved now; the values are labels of a metric."""

    PLAIN_EVICTION = "Plain"  # evicted as far as its budget allows
    WAIT = "Wait"  # its turn, or its replacement, has not come
    RELEASE = "Release"  # its Deployment becomes its controller, and its ReplicaSet starts another
    EVICT = "Evict"  # released, and the gate is open
    DELETE = "Delete"  # released, and its ReplicaSet would have deleted it
    RETURN = "GiveBack"  # released, and its ReplicaSet becomes its controller again
    CLEAR_RECORD = "Settle"  # returned, and the record of the move is removed
    HOLD = "Hold"  # blocked: a blocker says why


class ReplacementFailure(StrEnum):
    """Why a replacement did not come up."""

    NOT_POSSIBLE = "CannotBeHad"  # beside the old pod: quota, anti-affinity, spread, a rollout without end
    NOT_READY = "NotReady"  # placed or refused, and not Ready: another would not be either
    NO_ROOM = "NoRoom"  # no node has the resources
    SAME_NODE = "CameBack"  # it came up on the very node that the pod was to leave
    REMOVED_BY_OTHERS = "Taken"  # somebody else removed the released pod before its replacement was Ready


@dataclass(frozen=True, slots=True)
class ReplacementBackoff:
    """What the last attempt to replace a pod of one owner came to.

    Attributes:
        until: nothing of the owner is released again before.
        attempts: in a row that failed for want of room, came back, or were taken.
        ready: of TAKEN: Ready pods of the owner before; no other pod of it is released while fewer are Ready.
    """

    failure: ReplacementFailure
    message: str
    retry_at: datetime
    attempts: int = 1
    required_ready: int = 0


@dataclass(frozen=True, slots=True)
class ReplacementDecision:
    """What is to be done with one pod.

    Attributes:
        reason: why not replacement first, for log and metric, where the way is PLAIN.
        cause, message, hint: of the blocker, where there is one.
        setback: to be remembered of the owner.
        why: what a pod waits for that nothing is in flight of: a blocker, once it has lasted.
    """

    step: ReplacementStep
    reason: str = ""
    blocker_class: BlockerClass | None = None
    message: str = ""
    hint: str = ""
    backoff: ReplacementBackoff | None = None
    waiting_for: str = ""


@dataclass(frozen=True, slots=True)
class PodWriteRefusal:
    """A write on a pod that the server refused: what the blocker says, if the pod has to stay because of it."""

    blocker_class: BlockerClass
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class ReplacementInput:
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

    drain: DrainSettings
    now: datetime
    budgets: Sequence[DisruptionBudget] = ()
    has_single_node_volume: bool = False
    left_selector: bool = False
    write_refusal: PodWriteRefusal | None = None
    backoff: ReplacementBackoff | None = None
    rollout_since: datetime | None = None
    releases_in_flight: int = 0
    release_only: bool = False
    eviction_refusal: str = ""
    no_room_reason: str = ""
    blocked_by_pods_reason: str = ""


def replacement_mode(pod: Pod, drain: DrainSettings) -> ReplacementMode:
    """The owner's word, on the pod, is stronger than the drain's."""
    given = pod.annotations.get(names.REPLACEMENT)
    return ReplacementMode(given) if given in REPLACEMENT_ANNOTATION_VALUES else drain.replacement


def decide(pod: Pod, workload: Workload | None, inputs: ReplacementInput) -> ReplacementDecision:
    """How this pod is moved now; `workload` is None where no Deployment stands behind it."""
    found = _decide(pod, workload, inputs)
    return (
        ReplacementDecision(ReplacementStep.WAIT)
        if inputs.release_only and found.step not in (ReplacementStep.RELEASE, ReplacementStep.CLEAR_RECORD)
        else found
    )


def _decide(pod: Pod, workload: Workload | None, inputs: ReplacementInput) -> ReplacementDecision:
    if pod.deletion_timestamp:
        return ReplacementDecision(ReplacementStep.WAIT)
    if pod.returned and pod.release_record and not inputs.write_refusal:
        return _decide_returned(pod, pod.release_record, workload)
    if pod.released and (found := _decide_uncounted(pod, workload, inputs)):
        return found
    if pod.released and workload:
        found = _decide_released(pod, workload, inputs)
        refused = inputs.write_refusal if found.step is ReplacementStep.RETURN else None
        return replace(_hold_refused_write(refused), backoff=found.backoff) if refused else found
    if reason := ineligible_reason(pod, workload, inputs):
        return _plain_eviction(reason, inputs)
    return _decide_unreleased(pod, workload, inputs) if workload else _plain_eviction("NoDeployment", inputs)


def _decide_uncounted(pod: Pod, workload: Workload | None, inputs: ReplacementInput) -> ReplacementDecision | None:
    """A released pod that no count of Ready pods depends on: it goes as every other pod; None if some do.

    It has ended, or left the selector of its owner, or its owner is gone: garbage collection is about to take it.
    """
    if pod.finished:
        return ReplacementDecision(ReplacementStep.EVICT)
    if inputs.left_selector:
        return _plain_eviction("LeftSelector", inputs)
    if workload is None or (workload.deployment is None and _source_replica_set(pod, workload) is None):
        return _plain_eviction("NoDeployment", inputs)
    return None


def _plain_eviction(reason: str, inputs: ReplacementInput) -> ReplacementDecision:
    """Evicted without a replacement beside it, unless it would find no place at all."""
    if inputs.no_room_reason and inputs.drain.no_room is NoRoom.HOLD:
        message = NO_ROOM_PREFIX + inputs.no_room_reason
        return ReplacementDecision(ReplacementStep.HOLD, reason, BlockerClass.NO_ROOM_IN_POOL, message, NO_ROOM_HINT)
    return ReplacementDecision(ReplacementStep.PLAIN_EVICTION, reason)


def _decide_returned(pod: Pod, move: ReleaseRecord, workload: Workload | None) -> ReplacementDecision:
    """Keep the deletion cost while its ReplicaSet has a pod too many: until then the cost says which is to go."""
    found = _source_replica_set(pod, workload) if workload else None
    if workload and found and not pod.finished:
        coming = any(p.release_record and p.release_record.cause == move.cause for p in workload.released_pods)
        if coming or len(workload.controlled_pods(found)) > found.replicas:
            surplus = f"returned to ReplicaSet {found.name}, which has not deleted its surplus pod yet"
            return ReplacementDecision(ReplacementStep.WAIT, waiting_for=surplus)
    return ReplacementDecision(ReplacementStep.CLEAR_RECORD)


def decide_return(
    pod: Pod, workload: Workload | None, now: datetime, write_refusal: PodWriteRefusal | None = None
) -> ReplacementDecision:
    """What becomes of a pod with the record of a move whose drain may not go on.

    DELETE and EVICT are for a drain that ends. HOLD: nothing can be done for now, and the blocker says why.
    """
    if pod.deletion_timestamp or pod.release_record is None:
        return ReplacementDecision(ReplacementStep.WAIT)
    if pod.returned:
        return (
            _hold_refused_write(write_refusal, _RECORD_NOT_CLEARED)
            if write_refusal
            else _decide_returned(pod, pod.release_record, workload)
        )
    if pod.finished:
        return ReplacementDecision(ReplacementStep.EVICT)
    rs = _source_replica_set(pod, workload) if workload else None
    left = rs is not None and not rs.selects(pod)
    if workload is None or left or (workload.deployment is None and rs is None):
        # No ReplicaSet would take it: it stays with its Deployment, and goes when that goes.
        return (
            _hold_refused_write(write_refusal, _RECORD_NOT_CLEARED)
            if write_refusal
            else ReplacementDecision(ReplacementStep.CLEAR_RECORD)
        )
    if is_surplus(pod, workload):
        return ReplacementDecision(ReplacementStep.DELETE)
    found = workload.deployment
    min_ready = found.min_ready_time if found else rs.min_ready_time if rs else timedelta()
    # A ReplicaSet that a rollout has scaled down would kill the pod at once, whatever its budget says.
    if _is_superseded(pod, workload):
        return (
            ReplacementDecision(ReplacementStep.EVICT)
            if _is_release_gate_open(pod, workload, None, min_ready, now)
            else _hold_for_rollout()
        )
    if write_refusal:
        return (
            ReplacementDecision(ReplacementStep.EVICT)
            if _is_release_gate_open(pod, workload, rs, min_ready, now)
            else _hold_refused_write(write_refusal)
        )
    return ReplacementDecision(ReplacementStep.RETURN)


def _hold_refused_write(
    write_refusal: PodWriteRefusal, what: str = "it cannot be returned to its ReplicaSet"
) -> ReplacementDecision:
    message = f"{what}: {write_refusal.message}"
    return ReplacementDecision(
        ReplacementStep.HOLD, blocker_class=write_refusal.blocker_class, message=message, hint=write_refusal.hint
    )


def _source_replica_set(pod: Pod, workload: Workload) -> ReplicaSet | None:
    """The ReplicaSet that the pod was released from, if it is still there and belongs to the Deployment of its record."""
    found = workload.replica_set(pod.release_record.replica_set_uid) if pod.release_record else None
    if found is None or (
        found.deployment_uid and pod.release_record and found.deployment_uid != pod.release_record.deployment_uid
    ):
        return None
    return found


def backoff_after_removal(
    pod: Pod, drain: DrainSettings, previous: ReplacementBackoff | None, now: datetime
) -> ReplacementBackoff | None:
    """The setback of an owner whose released pod somebody else removed; None if the pod was no released one.

    It bounds what an unknown deleter of released pods can do: to one pod at a time.
    """
    if not pod.released or pod.release_record is None:
        return None
    message = f"somebody else removed the released pod {pod.name} before its replacement was Ready"
    attempts = previous.attempts + 1 if previous and previous.failure is ReplacementFailure.REMOVED_BY_OTHERS else 1
    ready = max(pod.release_record.ready_pods, previous.required_ready if previous else 0)
    pause = min(_MIN_BACKOFF * 2 ** min(attempts - 1, 5), max(_first_backoff(drain), _MIN_BACKOFF))
    return ReplacementBackoff(ReplacementFailure.REMOVED_BY_OTHERS, message, now + pause, attempts, ready)


def backoff_from_blocker(blocker: Blocker, drain: DrainSettings, now: datetime) -> ReplacementBackoff | None:
    """The setback that a blocker of the status speaks of: a restart may lengthen a pause, and must not forget it."""
    trouble = {
        BlockerClass.REPLACEMENT_NOT_READY: ReplacementFailure.NOT_READY,
        BlockerClass.NO_ROOM_IN_POOL: ReplacementFailure.NO_ROOM,
    }.get(blocker.class_)
    if trouble is None or blocker.message.startswith((NO_ROOM_PREFIX, PENDING_PREFIX)):
        return None  # what a plan says has not been tried to the end
    why = blocker.message.partition(": ")[2].removesuffix(_LAST_READY_SUFFIX)
    return ReplacementBackoff(trouble, why, now + _first_backoff(drain))


def ineligible_reason(pod: Pod, workload: Workload | None, inputs: ReplacementInput) -> str:
    """Why this pod cannot be replaced first; empty where it can."""
    found = workload.deployment if workload else None
    if workload is None or found is None or found.deleting:
        return "NoDeployment"
    mode = replacement_mode(pod, inputs.drain)
    checks = (
        (mode is ReplacementMode.NEVER, "Never"),
        (not found.allows_surge, "NoSurge"),
        (inputs.has_single_node_volume, "ExclusiveVolume"),
        (pod.has_host_path, "HostPath"),
        (pod.pinned_to_node, "Pinned"),
        (not pod.ready, "NotReady"),
        (len(inputs.budgets) > 1, "SeveralBudgets"),
        (inputs.left_selector, "LeftSelector"),
        (mode is ReplacementMode.WHEN_BLOCKED and _budgets_allow(pod, inputs.budgets), "NotBlocked"),
    )
    return next((reason for holds, reason in checks if holds), "")


def _budgets_allow(pod: Pod, budgets: Sequence[DisruptionBudget]) -> bool:
    return all(budget.allows_eviction_of(pod) for budget in budgets)


def _decide_unreleased(pod: Pod, workload: Workload, inputs: ReplacementInput) -> ReplacementDecision:
    drain, now, setback = inputs.drain, inputs.now, inputs.backoff
    if inputs.write_refusal:
        return _decide_release_refused(inputs.write_refusal, pod, workload, inputs)
    if found := _wait_for_ready(workload, setback):
        return found
    if setback and now < setback.retry_at:
        return _decide_in_backoff(setback, pod, workload, inputs)
    if workload.is_rolling_out:
        if now < (inputs.rollout_since or now) + drain.replacement_timeout:
            return ReplacementDecision(ReplacementStep.WAIT, waiting_for="a rollout of its Deployment is under way")
        until = now + _first_backoff(drain)
        return _decide_in_backoff(
            ReplacementBackoff(ReplacementFailure.NOT_POSSIBLE, "a rollout of its Deployment does not end", until),
            pod,
            workload,
            inputs,
        )
    if inputs.blocked_by_pods_reason and not inputs.release_only:
        return _decide_in_backoff(
            ReplacementBackoff(ReplacementFailure.NOT_POSSIBLE, inputs.blocked_by_pods_reason, now),
            pod,
            workload,
            inputs,
        )
    # Without room they are released one at a time: a Pending replacement is what an autoscaler acts on.
    alone = inputs.no_room_reason or (
        setback and setback.failure in (ReplacementFailure.NO_ROOM, ReplacementFailure.REMOVED_BY_OTHERS)
    )
    most = 1 if alone else max(1, ceil(_MAX_RELEASED_FRACTION * workload.replicas))
    under_way = len(workload.released_pods) + inputs.releases_in_flight
    if not inputs.release_only and under_way >= most:
        return ReplacementDecision(
            ReplacementStep.WAIT, waiting_for=f"{under_way} released pods of its owner are replaced first"
        )
    return ReplacementDecision(ReplacementStep.RELEASE)


def _wait_for_ready(workload: Workload, backoff: ReplacementBackoff | None) -> ReplacementDecision | None:
    """Nothing more is released while fewer pods of the owner are Ready than when the first one was.

    Whoever deletes released pods then costs one pod, and not the service.
    """
    first = min(workload.replicas, ready_before_release(workload))
    if workload.serving_count < first:
        return ReplacementDecision(
            ReplacementStep.WAIT, waiting_for=f"{workload.serving_count} of {first} pods of its owner are Ready"
        )
    needed = (
        min(workload.replicas, backoff.required_ready)
        if backoff and backoff.failure is ReplacementFailure.REMOVED_BY_OTHERS
        else 0
    )
    if backoff is None or workload.serving_count >= needed:
        return None
    return ReplacementDecision(
        ReplacementStep.HOLD,
        blocker_class=BlockerClass.REPLACEMENT_NOT_READY,
        message=f"{backoff.message}; {workload.serving_count} of {needed} pods of its owner are Ready",
        hint=_FIND_DELETER_HINT,
        backoff=backoff,
    )


def ready_before_release(workload: Workload) -> int:
    """Ready pods of the owner when the first of its released pods was released; 0 if none is released.

    Each release of a wave takes the number over, so they agree; the highest is the safe one if somebody changed one.
    """
    return max((p.release_record.ready_pods for p in workload.released_pods if p.release_record), default=0)


def _decide_release_refused(
    write_refusal: PodWriteRefusal, pod: Pod, workload: Workload, inputs: ReplacementInput
) -> ReplacementDecision:
    """The server refuses the write that releases the pod: it goes plainly, unless it is the last Ready one."""
    required = replacement_mode(pod, inputs.drain) is ReplacementMode.REQUIRED
    if not required and workload.serving_count > 1:
        return _plain_eviction("ReleaseRefused", inputs)
    return ReplacementDecision(
        ReplacementStep.HOLD,
        "ReleaseRefused",
        write_refusal.blocker_class,
        f"it cannot be released for a replacement: {write_refusal.message}" + ("" if required else _LAST_READY_SUFFIX),
        write_refusal.hint,
    )


def _decide_in_backoff(
    backoff: ReplacementBackoff, pod: Pod, workload: Workload, inputs: ReplacementInput
) -> ReplacementDecision:
    """While a setback stands."""
    required = replacement_mode(pod, inputs.drain) is ReplacementMode.REQUIRED
    if backoff.failure is ReplacementFailure.NO_ROOM:
        if inputs.drain.no_room is NoRoom.EVICT:
            return ReplacementDecision(ReplacementStep.PLAIN_EVICTION, "NoRoom", backoff=backoff)
        return ReplacementDecision(
            ReplacementStep.HOLD,
            blocker_class=BlockerClass.NO_ROOM_IN_POOL,
            message=f"no node has room for its replacement: {backoff.message}",
            hint=NO_ROOM_HINT,
            backoff=backoff,
        )
    if backoff.failure is ReplacementFailure.NOT_POSSIBLE and not required and workload.serving_count > 1:
        return ReplacementDecision(ReplacementStep.PLAIN_EVICTION, "CannotBeHad", backoff=backoff)
    if backoff.failure is ReplacementFailure.REMOVED_BY_OTHERS:
        return ReplacementDecision(
            ReplacementStep.HOLD,
            blocker_class=BlockerClass.REPLACEMENT_NOT_READY,
            message=backoff.message,
            hint=_FIND_DELETER_HINT,
            backoff=backoff,
        )
    last = "" if required or backoff.failure is ReplacementFailure.NOT_READY else _LAST_READY_SUFFIX
    return ReplacementDecision(
        ReplacementStep.HOLD,
        blocker_class=BlockerClass.REPLACEMENT_NOT_READY,
        message=f"no replacement came up beside it: {backoff.message}{last}",
        hint="mend what keeps new pods of its owner from being Ready, or annotate the pod "
        f"{names.REPLACEMENT}: Never to have it evicted without",
        backoff=backoff,
    )


def is_surplus(pod: Pod, workload: Workload) -> bool:
    """Its owner wants no such pod any more: it is deleted, as its ReplicaSet would have done.

    Only if the Deployment and the ReplicaSet of its record exist and belong together: a record that somebody else wrote
    never leads to a delete. The pods of a Deployment that is gone are left to garbage collection.
    """
    found, rs = workload.deployment, _source_replica_set(pod, workload)
    if found is None or pod.release_record is None or found.uid != pod.release_record.deployment_uid or rs is None:
        return False
    if found.deleting or rs.deployment_uid != found.uid:
        return False
    if found.replicas == 0:
        return True
    return not _is_superseded(pod, workload) and sum(p.ready for p in workload.controlled_pods(rs)) > found.replicas


def _is_superseded(pod: Pod, workload: Workload) -> bool:
    """A rollout has put another ReplicaSet in the place of the one that the pod came from."""
    found = workload.deployment
    if found is None or found.deleting:
        return False
    rs = _source_replica_set(pod, workload)
    return rs is None or (workload.current_replica_set is not None and rs.uid != workload.current_replica_set.uid)


def _decide_released(pod: Pod, workload: Workload, inputs: ReplacementInput) -> ReplacementDecision:
    move, now, drain = pod.release_record, inputs.now, inputs.drain
    if move is None or is_surplus(pod, workload):
        return ReplacementDecision(ReplacementStep.DELETE)
    superseded = _is_superseded(pod, workload)
    rs = None if superseded else _source_replica_set(pod, workload)
    found = workload.deployment
    min_ready = found.min_ready_time if found else rs.min_ready_time if rs else timedelta()
    late = now >= move.released_at + min_ready + drain.replacement_timeout
    if not move.is_for_drain and any(
        p.node == pod.node and _is_created_after(p, move.released_at) for p in workload.controlled_pods(rs)
    ):
        return _return_with_backoff(ReplacementFailure.SAME_NODE, f"it was put on node {pod.node} again", inputs)
    if _is_release_gate_open(pod, workload, rs, min_ready, now):
        # Open since the first timeout at the latest: what is refused now has been for one more.
        for_long = now >= move.released_at + min_ready + 2 * drain.replacement_timeout
        if for_long and not superseded and (refused := _eviction_refusal(pod, inputs)):
            return _return_with_backoff(ReplacementFailure.NOT_READY, refused, inputs)
        return ReplacementDecision(ReplacementStep.EVICT)
    if superseded:
        return _hold_for_rollout() if late else ReplacementDecision(ReplacementStep.WAIT)
    if rs and rs.replica_failure:
        trouble = (
            ReplacementFailure.NOT_POSSIBLE if "exceeded quota" in rs.replica_failure else ReplacementFailure.NOT_READY
        )
        return _return_with_backoff(trouble, rs.replica_failure, inputs)
    if late:
        return _return_with_backoff(*_diagnose(workload, rs, move.released_at), inputs)
    return ReplacementDecision(
        ReplacementStep.WAIT,
        message=next((p.unschedulable_message for p in workload.controlled_pods(rs) if p.unschedulable_message), ""),
    )


def _eviction_refusal(pod: Pod, inputs: ReplacementInput) -> str:
    """Why the eviction is refused though a replacement stands beside the pod; empty where it is not."""
    if inputs.budgets and not _budgets_allow(pod, inputs.budgets):
        return "its budget refuses the eviction all the same"
    return f"its eviction is refused: {inputs.eviction_refusal}" if inputs.eviction_refusal else ""


def _hold_for_rollout() -> ReplacementDecision:
    return ReplacementDecision(
        ReplacementStep.HOLD,
        blocker_class=BlockerClass.REPLACEMENT_NOT_READY,
        message="a rollout has replaced its ReplicaSet, and too few of the new pods are Ready",
        hint="finish the rollout or roll it back: see kubectl rollout status",
    )


def _is_release_gate_open(
    pod: Pod, workload: Workload, rs: ReplicaSet | None, min_ready: timedelta, now: datetime
) -> bool:
    """Whether enough Ready pods are left without this one; `rs` None counts those of all ReplicaSets."""
    released = workload.released_pods
    before = ready_before_release(workload) or (
        pod.release_record.ready_pods if pod.release_record else workload.replicas
    )
    needed = min(workload.replicas, before)
    left = (
        workload.count_ready(workload.controlled_pods(rs), now, min_ready)
        + workload.count_ready(released, now)
        - (1 if pod.ready else 0)
    )
    return left >= needed


def _diagnose(workload: Workload, rs: ReplicaSet | None, since: datetime) -> tuple[ReplacementFailure, str]:
    """Why the replacement is not there."""
    new = [
        p
        for p in workload.controlled_pods(rs)
        if not p.ready and (p.created is None or p.created >= since - _MIN_BACKOFF)
    ]
    waiting = next((p for p in new if p.unschedulable_message), None)
    if waiting:
        words = waiting.unschedulable_message
        kept_off = any(word in words for word in _OTHER_POD_MESSAGES) and not any(
            word in words for word in _RESOURCE_MESSAGES
        )
        return (ReplacementFailure.NOT_POSSIBLE if kept_off else ReplacementFailure.NO_ROOM), words
    if new:
        return ReplacementFailure.NOT_READY, f"pod {new[0].name} is not Ready in time"
    # Nothing is evicted while nothing can replace it.
    return (
        ReplacementFailure.NOT_READY,
        "no new pod was created in time, and its ReplicaSet gives no reason" + _CHECK_CONTROLLER_HINT,
    )


def _is_created_after(pod: Pod, since: datetime) -> bool:
    """Whether it came into being after a release; both times are in whole seconds."""
    return pod.created is not None and pod.created >= since.replace(microsecond=0)


def _first_backoff(drain: DrainSettings) -> timedelta:
    return max(drain.replacement_timeout, _MIN_BACKOFF)


def _return_with_backoff(failure: ReplacementFailure, message: str, inputs: ReplacementInput) -> ReplacementDecision:
    """Return the pod, and remember why."""
    before = inputs.backoff
    attempts = before.attempts + 1 if before and before.failure is failure else 1
    pause = _first_backoff(inputs.drain)
    if failure in (ReplacementFailure.NO_ROOM, ReplacementFailure.SAME_NODE):
        pause = min(pause * 2 ** min(attempts - 1, _MAX_DOUBLINGS), max(pause, _MAX_BACKOFF))
    return ReplacementDecision(
        ReplacementStep.RETURN, backoff=ReplacementBackoff(failure, message, inputs.now + pause, attempts)
    )
