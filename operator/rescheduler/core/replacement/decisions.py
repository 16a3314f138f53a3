"""Replacement first: the new pod is Ready before the old pod leaves.

The release gate counts Ready pods. A budget cannot replace the gate: under `maxUnavailable: 1` the API server accepts
an eviction without any replacement. Each decision uses only the current state of the cluster and the move record on
the pod.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from rescheduler.api import names
from rescheduler.api.drains import Blocker, BlockerClass
from rescheduler.api.policies import REPLACEMENT_ANNOTATION_VALUES, DrainSettings, NoRoom, ReplacementMode
from rescheduler.core.model.disruption_budgets import DisruptionBudget
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.release_record import ReleaseRecord
from rescheduler.core.model.workloads import ReplicaSet, Workload
from rescheduler.core.replacement import failures, messages
from rescheduler.core.replacement.failures import MIN_BACKOFF, ReplacementBackoff, ReplacementFailure
from rescheduler.core.replacement.movers import has_mover
from rescheduler.core.replacement.new_pods import NewPods, pause_after_removals

_SAME_NODE_PAUSE_OF_DRAIN = timedelta(seconds=2)
"""Pause of an owner after a replacement on the drained node; its ReplicaSet deletes the surplus pod meanwhile."""


class ReplacementStep(StrEnum):
    """Next step for one pod; the values are label values of a metric."""

    PLAIN_EVICTION = "Plain"  # evict the pod within its budget, without a replacement first
    WAIT = "Wait"  # wait for the replacement, or for other pods of the owner
    RELEASE = "Release"  # make the Deployment the controller, so that the ReplicaSet creates a replacement
    EVICT = "Evict"  # evict the released pod: the release gate is open
    DELETE = "Delete"  # delete the released pod: its ReplicaSet would have deleted it
    RETURN = "GiveBack"  # make the ReplicaSet the controller again
    CLEAR_RECORD = "Settle"  # remove the move record of the returned pod
    HOLD = "Hold"  # leave the pod in place and report a blocker


@dataclass(frozen=True, slots=True)
class ReplacementDecision:
    """Decision for one pod.

    Attributes:
        reason: why the pod is not replaced first, for the log and the metric; empty if it is.
        blocker_class, message, hint: of the blocker; None and empty if there is no blocker. With a plain eviction:
            why the pod is not replaced first after attempts, and how to change that.
        backoff: the failure to remember for the owner; None if there is none.
        waiting_for: what the pod waits for without any request in flight; a blocker once the wait has lasted. Empty if
            the pod does not wait, or waits for a request.
        decide_again_at: when time alone may change the step; None if only an event can.
    """

    step: ReplacementStep
    reason: str = ""
    blocker_class: BlockerClass | None = None
    message: str = ""
    hint: str = ""
    backoff: ReplacementBackoff | None = None
    waiting_for: str = ""
    decide_again_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class PodWriteRefusal:
    """Refused write on a pod, with the blocker to report if the pod stays because of the refusal.

    `since`: time of the first refusal in a row.
    """

    blocker_class: BlockerClass
    message: str
    hint: str
    since: datetime


@dataclass(frozen=True, slots=True)
class ReplacementInput:
    """Facts about one pod for `decide`, in addition to the pod and its workload.

    Attributes:
        budgets: the PodDisruptionBudgets that cover the pod.
        has_single_node_volume: the pod mounts a claim that only one node can attach.
        is_bound_to_node: only this node can have a new pod in place of the pod.
        is_colocated: its required affinity lets a new pod run elsewhere only after this pod has left.
        left_selector: the labels of the pod no longer match its ReplicaSet.
        write_refusal: how the API server refuses writes on the pod; None if it does not.
        backoff: the last failure of the owner, even if its pause is over; None if there is none.
        rollout_since: when the operator first saw the running rollout; None if no rollout is known.
        releases_in_flight: number of pods of the owner with a release request in flight.
        max_released: number of pods of the owner that may be released together, by slow start.
        is_drain: whether the node is cordoned for a drain; False for a move of single pods.
        release_only: the node is only suspected: release pods at once, and evict none.
        eviction_refusal: why the API server refuses the eviction, apart from budgets; None if it does not.
        no_room_reason: why no other node has room for the pod; None if one has room, or if unknown.
        blocked_by_pods_reason: why other pods prevent the placement on every node; None if they do not.
    """

    drain: DrainSettings
    now: datetime
    budgets: Sequence[DisruptionBudget] = ()
    has_single_node_volume: bool = False
    is_bound_to_node: bool = False
    is_colocated: bool = False
    left_selector: bool = False
    write_refusal: PodWriteRefusal | None = None
    backoff: ReplacementBackoff | None = None
    rollout_since: datetime | None = None
    releases_in_flight: int = 0
    max_released: int = 1
    release_only: bool = False
    is_drain: bool = False
    eviction_refusal: str | None = None
    no_room_reason: str | None = None
    blocked_by_pods_reason: str | None = None


def replacement_mode(pod: Pod, drain: DrainSettings) -> ReplacementMode:
    """Return the mode for this pod: its annotation, or else the setting of the drain, with the rule of the pod."""
    annotation = pod.annotations.get(names.REPLACEMENT)
    return ReplacementMode(annotation) if annotation in REPLACEMENT_ANNOTATION_VALUES else drain.replacement


def decide(pod: Pod, workload: Workload | None, inputs: ReplacementInput) -> ReplacementDecision:
    """Return the next step for this pod; `workload`: None if the pod has no Deployment and no ReplicaSet."""
    if inputs.is_drain and inputs.backoff and inputs.backoff.failure is ReplacementFailure.SAME_NODE:
        # Of a move without a cordon: now the cordon keeps the next replacement off the node.
        inputs = inputs if pod.tolerates_cordon else replace(inputs, backoff=None)
    decision = _decide(pod, workload, inputs)
    if inputs.release_only and decision.step not in (ReplacementStep.RELEASE, ReplacementStep.CLEAR_RECORD):
        decision = ReplacementDecision(ReplacementStep.WAIT)
    return replace(decision, decide_again_at=_decide_again_at(pod, workload, inputs)) if workload else decision


def _decide(pod: Pod, workload: Workload | None, inputs: ReplacementInput) -> ReplacementDecision:
    if pod.deletion_timestamp:
        return ReplacementDecision(ReplacementStep.WAIT)
    if pod.returned and pod.release_record and not inputs.write_refusal:
        return _decide_returned(pod, pod.release_record, workload)
    if pod.released and (decision := _decide_uncounted(pod, workload, inputs)):
        return decision
    if pod.released and workload:
        decision = _decide_released(pod, workload, inputs)
        refusal = inputs.write_refusal if decision.step is ReplacementStep.RETURN else None
        return replace(_hold_refused_write(refusal), backoff=decision.backoff) if refusal else decision
    if reason := ineligible_reason(pod, workload, inputs):
        return _plain_eviction(reason, inputs)
    return _decide_unreleased(pod, workload, inputs) if workload else _plain_eviction("NoDeployment", inputs)


def _decide_uncounted(pod: Pod, workload: Workload | None, inputs: ReplacementInput) -> ReplacementDecision | None:
    """Return the step for a released pod that does not count for the release gate; None if the pod counts.

    Such a pod has ended, has left the selector of its owner, or has no owner and awaits garbage collection.
    """
    if pod.finished:
        return ReplacementDecision(ReplacementStep.EVICT)
    if inputs.left_selector:
        return _plain_eviction("LeftSelector", inputs)
    if workload is None or (workload.deployment is None and _source_replica_set(pod, workload) is None):
        return _plain_eviction("NoDeployment", inputs)
    return None


def _plain_eviction(reason: str, inputs: ReplacementInput, cause: str = "", hint: str = "") -> ReplacementDecision:
    """Return a plain eviction, or a hold if no node has room for the pod.

    `cause`: why no replacement could be had, for users; empty if the pod is not eligible.
    """
    if inputs.no_room_reason and inputs.drain.no_room is NoRoom.HOLD:
        message = messages.NO_ROOM_PREFIX + inputs.no_room_reason
        return ReplacementDecision(
            ReplacementStep.HOLD, reason, BlockerClass.NO_ROOM_IN_POOL, message, messages.NO_ROOM_HINT
        )
    message = messages.not_replaced_first(cause) if cause else ""
    return ReplacementDecision(ReplacementStep.PLAIN_EVICTION, reason, message=message, hint=hint)


def _decide_returned(pod: Pod, record: ReleaseRecord, workload: Workload | None) -> ReplacementDecision:
    """Keep the record, and so the deletion cost, while the ReplicaSet has a surplus pod to delete."""
    rs = _source_replica_set(pod, workload) if workload else None
    if workload and rs and not pod.finished:
        returns_pending = any(
            released.release_record and released.release_record.cause == record.cause
            for released in workload.released_pods
        )
        if returns_pending or len(workload.controlled_pods(rs)) > rs.replicas:
            return ReplacementDecision(ReplacementStep.WAIT, waiting_for=messages.surplus_pod_left(rs.name))
    return ReplacementDecision(ReplacementStep.CLEAR_RECORD)


def decide_return(
    pod: Pod, workload: Workload | None, now: datetime, write_refusal: PodWriteRefusal | None = None
) -> ReplacementDecision:
    """Return the step for a pod with a move record whose drain must not move pods now.

    DELETE and EVICT apply only when the drain ends. HOLD: the pod cannot be returned now, and a blocker names the cause.
    """
    if pod.deletion_timestamp or pod.release_record is None:
        return ReplacementDecision(ReplacementStep.WAIT)
    if pod.returned:
        return (
            _hold_refused_write(write_refusal, messages.RECORD_NOT_CLEARED)
            if write_refusal
            else _decide_returned(pod, pod.release_record, workload)
        )
    if pod.finished:
        return ReplacementDecision(ReplacementStep.EVICT)
    rs = _source_replica_set(pod, workload) if workload else None
    left_selector = rs is not None and not rs.selects(pod)
    if workload is None or left_selector or (workload.deployment is None and rs is None):
        # No ReplicaSet would adopt the pod. A return would leave it without any controller.
        return (
            _hold_refused_write(write_refusal, messages.RECORD_NOT_CLEARED)
            if write_refusal
            else ReplacementDecision(ReplacementStep.CLEAR_RECORD)
        )
    if is_surplus(pod, workload):
        return ReplacementDecision(ReplacementStep.DELETE)
    deployment = workload.deployment
    min_ready = deployment.min_ready_time if deployment else rs.min_ready_time if rs else timedelta()
    # A ReplicaSet that a rollout scaled down would delete a returned pod at once, without regard to its budget.
    if _is_superseded(pod, workload):
        return (
            ReplacementDecision(ReplacementStep.EVICT)
            if _is_release_gate_open(pod, workload, None, min_ready, now)
            else _hold_for_rollout(workload)
        )
    if write_refusal:
        return (
            ReplacementDecision(ReplacementStep.EVICT)
            if _is_release_gate_open(pod, workload, _counted_replica_set(rs, workload), min_ready, now)
            else _hold_refused_write(write_refusal)
        )
    return ReplacementDecision(ReplacementStep.RETURN)


def _hold_refused_write(write_refusal: PodWriteRefusal, state: str = messages.NOT_RETURNED) -> ReplacementDecision:
    message = messages.with_cause(state, write_refusal.message)
    return ReplacementDecision(
        ReplacementStep.HOLD, blocker_class=write_refusal.blocker_class, message=message, hint=write_refusal.hint
    )


def _source_replica_set(pod: Pod, workload: Workload) -> ReplicaSet | None:
    """Return the ReplicaSet from which the pod was released, if it exists and belongs to the recorded Deployment."""
    rs = workload.replica_set(pod.release_record.replica_set_uid) if pod.release_record else None
    if rs is None or (
        rs.deployment_uid and pod.release_record and rs.deployment_uid != pod.release_record.deployment_uid
    ):
        return None
    return rs


def backoff_after_removal(
    pod: Pod, drain: DrainSettings, previous: ReplacementBackoff | None, now: datetime
) -> ReplacementBackoff | None:
    """Return the backoff after another client removed this pod; None if the pod was not released.

    The backoff limits the damage of an unknown deleter of released pods to one pod at a time.
    """
    if not pod.released or pod.release_record is None:
        return None
    message = messages.removed_by_others(messages.removed_pod(pod.name, None, pod.disruption))
    attempts = previous.attempts + 1 if previous and previous.failure is ReplacementFailure.REMOVED_BY_OTHERS else 1
    ready = max(pod.release_record.ready_pods, previous.required_ready if previous else 0)
    pause = min(MIN_BACKOFF * 2 ** min(attempts - 1, 5), failures.first_backoff(drain))
    return ReplacementBackoff(ReplacementFailure.REMOVED_BY_OTHERS, message, now + pause, attempts, ready)


def backoff_after_removals(new_pods: NewPods, previous: ReplacementBackoff | None, now: datetime) -> ReplacementBackoff:
    """Return the backoff after other clients removed the new pods of an owner."""
    failure = ReplacementFailure.NEW_PODS_REMOVED
    attempts = previous.attempts + 1 if previous and previous.failure is failure else 1
    message = messages.new_pods_removed(new_pods.replica_set, new_pods.removed)
    return ReplacementBackoff(failure, message, now + pause_after_removals(attempts), attempts)


def backoff_from_blocker(blocker: Blocker, drain: DrainSettings, now: datetime) -> ReplacementBackoff | None:
    """Return the backoff that a blocker of the status records; None if it records none.

    Without this, a restart of the operator would end the pause of an owner.
    """
    retry_at = now + failures.first_backoff(drain)
    if blocker.class_ is BlockerClass.REPLACEMENT_NOT_READY and (found := messages.failed_attempts(blocker.message)):
        attempts, cause = found
        return ReplacementBackoff(ReplacementFailure.NOT_READY, cause, retry_at, attempts)
    without_room = messages.cause_without_room(blocker.message)
    if blocker.class_ is BlockerClass.NO_ROOM_IN_POOL and without_room:
        return ReplacementBackoff(ReplacementFailure.NO_ROOM, without_room, retry_at)
    return None  # a forecast or a wait is no failed attempt: a pause would delay the first one


def ineligible_reason(pod: Pod, workload: Workload | None, inputs: ReplacementInput) -> str:
    """Return why this pod cannot be replaced first; empty if it can."""
    deployment = workload.deployment if workload else None
    if workload is None or deployment is None or deployment.deleting:
        return "NoDeployment"
    mode = replacement_mode(pod, inputs.drain)
    checks = (
        (mode is ReplacementMode.NEVER, "Never"),
        (has_mover(pod), "Mover"),
        (not deployment.allows_surge, "NoSurge"),
        (pod.pinned_to_node or inputs.is_bound_to_node, "Pinned"),
        (inputs.is_colocated, "Colocated"),
        (inputs.has_single_node_volume, "ExclusiveVolume"),
        (bool(pod.host_paths), "HostPath"),
        (not pod.ready, "NotReady"),
        (len(inputs.budgets) > 1, "SeveralBudgets"),
        (inputs.left_selector, "LeftSelector"),
        (mode is ReplacementMode.WHEN_BLOCKED and _budgets_allow(pod, inputs.budgets), "NotBlocked"),
    )
    return next((reason for holds, reason in checks if holds), "")


def _budgets_allow(pod: Pod, budgets: Sequence[DisruptionBudget]) -> bool:
    return all(budget.allows_eviction_of(pod) for budget in budgets)


def _decide_unreleased(pod: Pod, workload: Workload, inputs: ReplacementInput) -> ReplacementDecision:
    drain, now, backoff = inputs.drain, inputs.now, inputs.backoff
    if inputs.write_refusal:
        return _decide_release_refused(inputs.write_refusal, pod, workload, inputs)
    if decision := _wait_for_ready(workload, backoff) or _wait_for_quota(workload, inputs):
        return decision
    if backoff and now < backoff.retry_at:
        return _decide_in_backoff(backoff, pod, workload, inputs)
    if workload.is_rolling_out and (decision := _decide_in_rollout(pod, workload, inputs)):
        return decision
    if (cause := inputs.blocked_by_pods_reason) and not inputs.release_only:
        forecast = ReplacementBackoff(ReplacementFailure.BLOCKED_BY_PODS, cause, now)
        # The plan may be wrong: the last Ready pod leaves only after an attempt.
        if workload.serving_count > 1 or replacement_mode(pod, drain) is ReplacementMode.REQUIRED:
            return _decide_in_backoff(forecast, pod, workload, inputs)
    released_count = len(workload.released_pods) + inputs.releases_in_flight
    if not inputs.release_only and released_count >= _max_released(workload, inputs):
        return ReplacementDecision(ReplacementStep.WAIT, waiting_for=messages.released_pods_first(released_count))
    return ReplacementDecision(ReplacementStep.RELEASE)


def _max_released(workload: Workload, inputs: ReplacementInput) -> int:
    """Return how many pods of the owner may be released together: one without room and after a setback.

    An autoscaler acts on a Pending replacement, so one pod is released even without room. More would only be at risk.
    """
    rs = workload.current_replica_set
    has_pending = any(new.unschedulable_message and not new.ready for new in workload.controlled_pods(rs))
    one_at_a_time = inputs.no_room_reason or has_pending or inputs.backoff or (rs and rs.replica_failure)
    return 1 if one_at_a_time else inputs.max_released


def _wait_for_quota(workload: Workload, inputs: ReplacementInput) -> ReplacementDecision | None:
    """Return a wait while pods that leave still count in a quota that refused a replacement; else None."""
    backoff = inputs.backoff
    if backoff is None or backoff.failure is not ReplacementFailure.QUOTA:
        return None
    if not workload.released_pods and not workload.has_leaving_pods(inputs.now, inputs.drain.replacement_timeout):
        return None
    waiting_for = messages.with_cause(messages.LEAVING_PODS_COUNT, backoff.message)
    return ReplacementDecision(ReplacementStep.WAIT, waiting_for=waiting_for, hint=backoff.hint)


def _decide_in_rollout(pod: Pod, workload: Workload, inputs: ReplacementInput) -> ReplacementDecision | None:
    """Return the step for an unreleased pod during a rollout; None: its own ReplicaSet can replace it."""
    if inputs.now < (inputs.rollout_since or inputs.now) + inputs.drain.replacement_timeout:
        return ReplacementDecision(
            ReplacementStep.WAIT, waiting_for=messages.ROLLOUT_RUNNING, hint=_rollout_hint(workload)
        )
    rs = workload.replica_set(pod.owner.uid) if pod.owner else None
    return None if rs and rs.replicas > 0 else _plain_eviction("Superseded", inputs)


def _wait_for_ready(workload: Workload, backoff: ReplacementBackoff | None) -> ReplacementDecision | None:
    """Return a wait or a hold while fewer pods of the owner are Ready than at the first release; else None.

    Without this rule, a client that deletes released pods could remove all pods of the owner.
    """
    ready_at_first_release = min(workload.replicas, ready_before_release(workload))
    if workload.serving_count < ready_at_first_release:
        return ReplacementDecision(
            ReplacementStep.WAIT,
            waiting_for=messages.too_few_ready(workload.serving_count, ready_at_first_release),
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
        message=messages.removed_and_too_few_ready(backoff.message, workload.serving_count, needed),
        hint=messages.FIND_DELETER_HINT,
        backoff=backoff,
    )


def ready_before_release(workload: Workload) -> int:
    """Return the number of Ready pods of the owner at its first release; 0 if no pod is released.

    All records of a wave have the same number. If a client changed one, the highest number is the safe one.
    """
    return max((p.release_record.ready_pods for p in workload.released_pods if p.release_record), default=0)


def _decide_release_refused(
    write_refusal: PodWriteRefusal, pod: Pod, workload: Workload, inputs: ReplacementInput
) -> ReplacementDecision:
    """Return the step for a pod whose release the API server refuses: a plain eviction, or a hold of the last Ready pod."""
    required = replacement_mode(pod, inputs.drain) is ReplacementMode.REQUIRED
    has_lasted = inputs.now >= write_refusal.since + inputs.drain.replacement_timeout
    if not required and (workload.serving_count > 1 or has_lasted):
        return _plain_eviction("ReleaseRefused", inputs, write_refusal.message, write_refusal.hint)
    return ReplacementDecision(
        ReplacementStep.HOLD,
        "ReleaseRefused",
        write_refusal.blocker_class,
        messages.not_released(write_refusal.message, is_last_ready=not required),
        write_refusal.hint,
    )


def _decide_in_backoff(
    backoff: ReplacementBackoff, pod: Pod, workload: Workload, inputs: ReplacementInput
) -> ReplacementDecision:
    """Return the step for a pod while the backoff of its owner lasts."""
    required = replacement_mode(pod, inputs.drain) is ReplacementMode.REQUIRED
    if backoff.failure is ReplacementFailure.NO_ROOM:
        if inputs.drain.no_room is NoRoom.EVICT:
            return ReplacementDecision(ReplacementStep.PLAIN_EVICTION, backoff.failure, backoff=backoff)
        return ReplacementDecision(
            ReplacementStep.HOLD,
            blocker_class=BlockerClass.NO_ROOM_IN_POOL,
            message=messages.no_room_for_replacement(backoff.message),
            hint=backoff.hint,
            backoff=backoff,
        )
    if not required and failures.ends_with_eviction(backoff, workload):
        return replace(_plain_eviction(backoff.failure, inputs, backoff.message, backoff.hint), backoff=backoff)
    message = backoff.message
    if backoff.failure is not ReplacementFailure.REMOVED_BY_OTHERS:
        attempts = None if required else failures.attempts_before_eviction(backoff.failure, workload)
        message = messages.no_replacement(
            backoff.message,
            attempts=backoff.attempts,
            of_attempts=attempts,
            is_last_ready=not required and failures.is_held_as_last(backoff, workload),
        )
    return ReplacementDecision(
        ReplacementStep.HOLD,
        blocker_class=BlockerClass.REPLACEMENT_NOT_READY,
        message=message,
        hint=backoff.hint,
        backoff=backoff,
    )


def is_surplus(pod: Pod, workload: Workload) -> bool:
    """Whether the ReplicaSet of a released pod would delete this pod, because its owner wants fewer pods.

    The Deployment and the ReplicaSet of the record must exist and belong together. Otherwise a record that another
    client wrote could lead to a delete. Garbage collection removes the pods of a Deployment that is gone.
    """
    deployment, rs = workload.deployment, _source_replica_set(pod, workload)
    if (
        deployment is None
        or pod.release_record is None
        or deployment.uid != pod.release_record.deployment_uid
        or rs is None
    ):
        return False
    if deployment.deleting or rs.deployment_uid != deployment.uid:
        return False
    if deployment.replicas == 0:
        return True
    ready_count = sum(controlled.ready for controlled in workload.controlled_pods(rs))
    return not _is_superseded(pod, workload) and ready_count > deployment.replicas


def _is_superseded(pod: Pod, workload: Workload) -> bool:
    """Whether a rollout has replaced the ReplicaSet from which the pod was released.

    The ReplicaSet of a rollout that does not end still has replicas, and replaces its own pods.
    """
    if workload.deployment is None or workload.deployment.deleting:
        return False
    rs, current = _source_replica_set(pod, workload), workload.current_replica_set
    return rs is None or (current is not None and rs.uid != current.uid and rs.replicas == 0)


def _counted_replica_set(rs: ReplicaSet | None, workload: Workload) -> ReplicaSet | None:
    """Return the ReplicaSet whose pods the release gate counts; None during a rollout, which moves pods between them."""
    return None if rs is None or workload.has_pods_besides(rs) else rs


def _decide_released(pod: Pod, workload: Workload, inputs: ReplacementInput) -> ReplacementDecision:
    record, now, drain = pod.release_record, inputs.now, inputs.drain
    if record is None or is_surplus(pod, workload):
        return ReplacementDecision(ReplacementStep.DELETE)
    superseded = _is_superseded(pod, workload)
    rs = None if superseded else _source_replica_set(pod, workload)
    min_ready = _min_ready_time(rs, workload)
    timed_out = now >= _attempt_ends_at(pod, record, min_ready, inputs)
    # In a drain, a pod that does not tolerate the cordon was bound just before the cordon: it moves later.
    if (
        not superseded
        and (not record.is_for_drain or pod.tolerates_cordon)
        and any(
            new.node == pod.node and _is_created_after(new, record.released_at) for new in workload.controlled_pods(rs)
        )
    ):
        return _return_after_same_node(pod, record, inputs)
    if _is_release_gate_open(pod, workload, _counted_replica_set(rs, workload), min_ready, now):
        # The gate opened within the first timeout, so the refusal has lasted for at least one more timeout.
        refused_for_long = now >= record.released_at + min_ready + 2 * drain.replacement_timeout
        if refused_for_long and not superseded and (cause := _eviction_refusal(pod, inputs)):
            return _return_with_backoff(ReplacementFailure.NOT_READY, cause, pod, inputs)
        return ReplacementDecision(ReplacementStep.EVICT)
    if superseded:
        return _hold_for_rollout(workload) if timed_out else ReplacementDecision(ReplacementStep.WAIT)
    return _decide_without_replacement(pod, record, rs, workload, inputs, timed_out=timed_out)


def _min_ready_time(rs: ReplicaSet | None, workload: Workload) -> timedelta:
    if workload.deployment:
        return workload.deployment.min_ready_time
    return rs.min_ready_time if rs else timedelta()


def _attempt_ends_at(pod: Pod, record: ReleaseRecord, min_ready: timedelta, inputs: ReplacementInput) -> datetime:
    """Return when the released pod is returned unless its replacement is Ready."""
    required = replacement_mode(pod, inputs.drain) is ReplacementMode.REQUIRED
    previous = None if _is_same_attempt(record, inputs.backoff) else inputs.backoff
    return record.released_at + min_ready + failures.attempt_duration(previous, inputs.drain, required=required)


def _decide_again_at(pod: Pod, workload: Workload, inputs: ReplacementInput) -> datetime | None:
    """Return the next time at which the step of a pod may change without an event; None if there is none."""
    min_ready = _min_ready_time(_source_replica_set(pod, workload), workload)
    starting = workload.pods if min_ready else ()  # most owners have no minReadySeconds, and some have many pods
    times = [new.ready_since + min_ready for new in starting if new.ready and new.ready_since]
    if inputs.backoff:
        times.append(inputs.backoff.retry_at)
    if workload.is_rolling_out and inputs.rollout_since:
        times.append(inputs.rollout_since + inputs.drain.replacement_timeout)
    if pod.released and pod.release_record:
        times.append(_attempt_ends_at(pod, pod.release_record, min_ready, inputs))
    return min((time for time in times if time > inputs.now), default=None)


def _decide_without_replacement(
    pod: Pod,
    record: ReleaseRecord,
    rs: ReplicaSet | None,
    workload: Workload,
    inputs: ReplacementInput,
    *,
    timed_out: bool,
) -> ReplacementDecision:
    """Return the step for a released pod whose replacement is not Ready: wait, or return the pod with the cause."""
    now, backoff = inputs.now, inputs.backoff
    if backoff and backoff.failure is ReplacementFailure.NEW_PODS_REMOVED and now < backoff.retry_at:
        return ReplacementDecision(ReplacementStep.RETURN, backoff=backoff)
    if workload.is_rolling_out and now < (inputs.rollout_since or now) + inputs.drain.replacement_timeout:
        return ReplacementDecision(  # the rollout may soon scale the ReplicaSet down, and with it a returned pod
            ReplacementStep.WAIT, waiting_for=messages.ROLLOUT_RUNNING, hint=_rollout_hint(workload)
        )
    if rs and failures.exceeds_quota(rs.replica_failure) and _is_without_new_pod(pod, rs, workload):
        is_recounted = now >= record.released_at + failures.QUOTA_RETRIED_FOR
        waits = workload.has_leaving_pods(now, inputs.drain.replacement_timeout) or (
            not timed_out and _has_new_pod_on_its_way(workload, rs, record)
        )
        if waits or not is_recounted:
            return _wait_refused(rs.replica_failure or "", messages.QUOTA_HINT)
        return _return_with_backoff(ReplacementFailure.QUOTA, rs.replica_failure or "", pod, inputs)
    if timed_out:
        return _return_with_backoff(*failures.diagnose(workload, rs, record.released_at), pod, inputs)
    return _wait_for_replacement(workload, rs, record)


def _is_without_new_pod(pod: Pod, rs: ReplicaSet, workload: Workload) -> bool:
    """Whether the ReplicaSet could create no new pod for this one; the new pods stand for those released first."""
    released = sorted(
        (p for p in workload.released_pods if p.release_record and p.release_record.replica_set_uid == rs.uid),
        key=lambda p: (p.release_record.released_at if p.release_record else p.created, p.uid),
    )
    missing = rs.replicas - len(workload.controlled_pods(rs))
    return missing > 0 and pod.uid in {p.uid for p in released[-missing:]}


def _wait_refused(refusal: str, hint: str) -> ReplacementDecision:
    return ReplacementDecision(
        ReplacementStep.WAIT,
        blocker_class=BlockerClass.REPLACEMENT_NOT_READY,
        message=messages.creation_refused(refusal),
        hint=hint,
    )


def _wait_for_replacement(workload: Workload, rs: ReplicaSet | None, record: ReleaseRecord) -> ReplacementDecision:
    """Wait for the replacement, and report what is known about it."""
    controlled = workload.controlled_pods(rs)
    new_pods = [new for new in controlled if not new.ready and _is_created_after(new, record.released_at)]
    if rs and rs.replica_failure and len(controlled) < rs.replicas:
        return _wait_refused(rs.replica_failure, messages.CREATION_REFUSED_HINT)
    pending = next((new for new in controlled if new.unschedulable_message), None)
    cause = failures.pending_cause(new_pods)
    if cause is None and rs and len(controlled) < rs.replicas:
        cause = (ReplacementFailure.NOT_CREATED, messages.NO_POD_CREATED_YET)
    if cause is None:
        return ReplacementDecision(ReplacementStep.WAIT, message=pending.unschedulable_message if pending else "")
    return ReplacementDecision(
        ReplacementStep.WAIT,
        message=pending.unschedulable_message if pending else "",
        hint=failures.hint(cause[0]),
        waiting_for=messages.replacement_pending(cause[1]),
    )


def _has_new_pod_on_its_way(workload: Workload, rs: ReplicaSet, record: ReleaseRecord) -> bool:
    """Whether a new pod, created since the first release, may still become Ready and let a released pod leave.

    More pods may be released together than a quota allows new pods. The others then wait for the room of that pod.
    """
    releases = (released.release_record or record for released in workload.released_pods)
    first_release = min((release.released_at for release in releases), default=record.released_at)
    return any(not new.ready and _is_created_after(new, first_release) for new in workload.controlled_pods(rs))


def _eviction_refusal(pod: Pod, inputs: ReplacementInput) -> str | None:
    """Return why the eviction is refused although a replacement is Ready; None if it is not refused."""
    if inputs.budgets and not _budgets_allow(pod, inputs.budgets):
        return messages.BUDGET_STILL_REFUSES
    return messages.eviction_still_refused(inputs.eviction_refusal) if inputs.eviction_refusal else None


def _rollout_hint(workload: Workload) -> str:
    deployment = workload.deployment
    if deployment is None:
        return messages.OWNER_HINT
    return messages.rollout_hint(deployment.namespace, deployment.name, paused=deployment.paused)


def _hold_for_rollout(workload: Workload) -> ReplacementDecision:
    return ReplacementDecision(
        ReplacementStep.HOLD,
        blocker_class=BlockerClass.REPLACEMENT_NOT_READY,
        message=messages.ROLLOUT_INCOMPLETE,
        hint=_rollout_hint(workload),
    )


def _is_release_gate_open(
    pod: Pod, workload: Workload, rs: ReplicaSet | None, min_ready: timedelta, now: datetime
) -> bool:
    """Whether enough Ready pods remain without this pod; `rs` None: count the pods of all ReplicaSets."""
    ready_before = ready_before_release(workload) or (
        pod.release_record.ready_pods if pod.release_record else workload.replicas
    )
    needed = min(workload.replicas, ready_before)
    remaining = (
        workload.count_ready(workload.controlled_pods(rs), now, min_ready)
        + workload.count_ready(workload.released_pods, now)
        - (1 if pod.ready else 0)
    )
    return remaining >= needed


def _is_created_after(pod: Pod, since: datetime) -> bool:
    """Whether the pod was created after a release, at the precision of whole seconds."""
    return pod.created is not None and pod.created >= since.replace(microsecond=0)


def _is_same_attempt(record: ReleaseRecord | None, backoff: ReplacementBackoff | None) -> bool:
    """Whether the pod was released together with the pod whose failure the backoff records."""
    # The time of a release has whole seconds: with fractions, the next release would belong to the attempt before.
    return backoff is not None and record is not None and record.released_at + timedelta(seconds=1) <= backoff.retry_at


def _return_after_same_node(pod: Pod, record: ReleaseRecord, inputs: ReplacementInput) -> ReplacementDecision:
    """Decide to return a pod whose replacement started on the node that the pod leaves.

    A drain tries again soon: after a few such replacements, the pods of the owner stay.
    """
    cause = messages.replaced_on_same_node(pod.node)
    decision = _return_with_backoff(ReplacementFailure.SAME_NODE, cause, pod, inputs)
    if not record.is_for_drain or decision.backoff is None:
        return decision
    retry_at = inputs.now + _SAME_NODE_PAUSE_OF_DRAIN
    return replace(decision, backoff=replace(decision.backoff, retry_at=retry_at))


def _return_with_backoff(
    failure: ReplacementFailure, message: str, pod: Pod, inputs: ReplacementInput
) -> ReplacementDecision:
    """Decide to return the pod to its ReplicaSet, with a backoff for its owner."""
    backoff = failures.next_backoff(
        failure,
        message,
        inputs.backoff,
        inputs.drain,
        inputs.now,
        required=replacement_mode(pod, inputs.drain) is ReplacementMode.REQUIRED,
        same_attempt=_is_same_attempt(pod.release_record, inputs.backoff),
    )
    return ReplacementDecision(ReplacementStep.RETURN, backoff=backoff)
