"""Causes of a replacement that did not come up, and what follows from each.

The cause is read from the new pod and its ReplicaSet. Some causes end with a plain eviction after some attempts, as
`kubectl drain` would evict at once. The other causes hold the pod: an eviction would not help, or nothing would create
the next pod.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from rescheduler.api.policies import DrainSettings
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.workloads import ReplicaSet, Workload
from rescheduler.core.replacement import messages, new_pods

MIN_BACKOFF = timedelta(minutes=1)
_MAX_BACKOFF = timedelta(minutes=30)
_MAX_DOUBLINGS = 10  # after days of failures, more would overflow a timedelta
QUOTA_RETRIED_FOR = timedelta(seconds=5)
"""A quota counts a pod for a moment after the pod is gone; the ReplicaSet retries meanwhile."""
_QUOTA_PAUSE = timedelta(seconds=1)
_FIRST_PAUSE_FRACTION = 1 / 8  # of `replacementTimeout`; the second pause is twice as long
_LATER_ATTEMPT_FRACTION = 7 / 8  # of `replacementTimeout`, for an attempt after the first one, with its pause
_RESOURCE_MESSAGES = ("Insufficient ", "Too many pods")
_OTHER_POD_MESSAGES = ("anti-affinity", "topology spread", "pod affinity")
"""Parts of a message of the scheduler: other pods prevent the placement, although a node may have room."""


class ReplacementFailure(StrEnum):
    """Cause of a failed replacement; the values are reasons of a plain eviction."""

    NO_ROOM = "NoRoom"  # no node takes the pod, whatever other pods do
    BLOCKED_BY_PODS = "BlockedByPods"  # other pods keep it off: anti-affinity, topology spread
    QUOTA = "Quota"  # a ResourceQuota allows no second pod
    GATED = "Gated"  # scheduling gates keep the new pod from the scheduler
    NOT_CREATED = "NotCreated"  # the ReplicaSet creates no pod and reports nothing: its controller is not at work
    CREATION_REFUSED = "CreationRefused"  # admission refuses the new pod
    NOT_STARTING = "NotStarting"  # image, crash, configuration
    NOT_READY = "ReplacementNotReady"  # the new pod runs and is not Ready in time, or the eviction is refused
    SAME_NODE = "CameBack"  # the replacement started on the node that the pod leaves
    NEW_PODS_REMOVED = "NewPodsRemoved"  # other clients remove the new pods of the owner
    REMOVED_BY_OTHERS = "Taken"  # another client removed the released pod before its replacement was Ready


_COUNTED_TOGETHER = {
    ReplacementFailure.BLOCKED_BY_PODS: 1,
    ReplacementFailure.QUOTA: 2,
    ReplacementFailure.GATED: 1,
    ReplacementFailure.NOT_READY: 3,
}
"""Attempts before a plain eviction. Causes that alternate count together: otherwise they would never end."""
_ATTEMPTS = _COUNTED_TOGETHER | {ReplacementFailure.NEW_PODS_REMOVED: new_pods.ATTEMPTS_BEFORE_LONGEST_PAUSE}
"""Number of attempts before the pod is evicted without a replacement. All other causes hold the pod."""
EVICTION_REASONS = frozenset(failure.value for failure in _ATTEMPTS) | {"ReleaseRefused"}
"""Reasons of a plain eviction after a failure.

Such a pod counts as gone in the next decision for its owner. Otherwise all Ready pods would leave at once.
"""
_HELD_LONGER_EACH_TIME = (
    ReplacementFailure.NO_ROOM,
    ReplacementFailure.SAME_NODE,
    ReplacementFailure.NOT_STARTING,
    ReplacementFailure.CREATION_REFUSED,
)
_HINTS = {
    ReplacementFailure.NO_ROOM: messages.NO_ROOM_HINT,
    ReplacementFailure.BLOCKED_BY_PODS: messages.BLOCKED_BY_PODS_HINT,
    ReplacementFailure.QUOTA: messages.QUOTA_HINT,
    ReplacementFailure.GATED: messages.GATED_HINT,
    ReplacementFailure.NOT_CREATED: messages.NOT_CREATED_HINT,
    ReplacementFailure.CREATION_REFUSED: messages.CREATION_REFUSED_HINT,
    ReplacementFailure.NOT_STARTING: messages.NOT_STARTING_HINT,
    ReplacementFailure.NOT_READY: messages.NOT_READY_HINT,
    ReplacementFailure.SAME_NODE: messages.NOT_READY_HINT,
    ReplacementFailure.NEW_PODS_REMOVED: messages.FIND_DELETER_HINT,
    ReplacementFailure.REMOVED_BY_OTHERS: messages.FIND_DELETER_HINT,
}


@dataclass(frozen=True, slots=True)
class ReplacementBackoff:
    """Failure of the last replacement of a pod of one owner.

    Attributes:
        message: cause of the failure, for a blocker.
        retry_at: no pod of the owner is released before this time.
        attempts: failures in a row, with the same cause or with other causes that end with a plain eviction.
        required_ready: for REMOVED_BY_OTHERS, the Ready pods of the owner before; no pod is released with fewer.
            0 for any other cause.
    """

    failure: ReplacementFailure
    message: str
    retry_at: datetime
    attempts: int = 1
    required_ready: int = 0

    @property
    def hint(self) -> str:
        """Return how to unblock the pod."""
        return hint(self.failure)


def hint(failure: ReplacementFailure) -> str:
    """Return how a user can remove this cause."""
    return _HINTS[failure]


def attempts_before_eviction(failure: ReplacementFailure, workload: Workload) -> int | None:
    """Return the number of attempts after which a pod is evicted without a replacement; None: it is held.

    The last Ready pod of several needs one more attempt: the new pods of the others may become Ready first.
    """
    attempts = _ATTEMPTS.get(failure)
    is_last_of_several = workload.serving_count <= 1 < workload.replicas
    return attempts + is_last_of_several if attempts else None


def ends_with_eviction(backoff: ReplacementBackoff, workload: Workload) -> bool:
    """Whether the attempts so far allow to evict a pod without a replacement."""
    attempts = attempts_before_eviction(backoff.failure, workload)
    return attempts is not None and backoff.attempts >= attempts


def is_held_as_last(backoff: ReplacementBackoff, workload: Workload) -> bool:
    """Whether only the last Ready pod of the owner is held: the attempts suffice to evict any other pod."""
    is_enough = backoff.attempts >= _ATTEMPTS.get(backoff.failure, backoff.attempts + 1)
    return is_enough and not ends_with_eviction(backoff, workload)


def next_backoff(
    failure: ReplacementFailure,
    message: str,
    previous: ReplacementBackoff | None,
    drain: DrainSettings,
    now: datetime,
    *,
    required: bool,
    same_attempt: bool = False,
) -> ReplacementBackoff:
    """Return the backoff after a failed attempt.

    `required`: no failure leads to a plain eviction. `same_attempt`: `previous` is of a pod that was released together
    with this one.
    """
    counts = previous is not None and (
        previous.failure is failure or (previous.failure in _COUNTED_TOGETHER and failure in _COUNTED_TOGETHER)
    )
    attempts = previous.attempts + (not same_attempt) if previous and counts else 1
    return ReplacementBackoff(failure, message, now + _pause(failure, attempts, drain, required=required), attempts)


def attempt_duration(previous: ReplacementBackoff | None, drain: DrainSettings, *, required: bool) -> timedelta:
    """Return how long to wait for a replacement.

    The pauses between attempts count, and three attempts end within three timeouts, with the time of their requests.
    """
    if previous is None or required or not _is_between_attempts(previous.failure, previous.attempts):
        return drain.replacement_timeout
    attempt = drain.replacement_timeout * _LATER_ATTEMPT_FRACTION
    return attempt - _pause(previous.failure, previous.attempts, drain, required=required)


def first_backoff(drain: DrainSettings) -> timedelta:
    """Return the shortest pause of an owner after a replacement that was not Ready in time."""
    return max(drain.replacement_timeout, MIN_BACKOFF)


def _is_between_attempts(failure: ReplacementFailure, attempts: int) -> bool:
    """Whether the next attempt with a new pod that is not Ready is due before a plain eviction."""
    return failure is ReplacementFailure.NOT_READY and attempts < _ATTEMPTS[ReplacementFailure.NOT_READY]


def _pause(failure: ReplacementFailure, attempts: int, drain: DrainSettings, *, required: bool) -> timedelta:
    first = first_backoff(drain)
    if required and failure in _ATTEMPTS:
        return first
    if failure is ReplacementFailure.QUOTA and attempts < _ATTEMPTS[failure]:
        return _QUOTA_PAUSE
    if _is_between_attempts(failure, attempts):
        return drain.replacement_timeout * _FIRST_PAUSE_FRACTION * 2.0 ** (attempts - 1)
    doublings = attempts - 1 if failure in _HELD_LONGER_EACH_TIME else attempts - _ATTEMPTS.get(failure, attempts)
    return min(first * 2.0 ** min(max(doublings, 0), _MAX_DOUBLINGS), max(first, _MAX_BACKOFF))


def exceeds_quota(refusal: str | None) -> bool:
    """Whether a ResourceQuota refuses the new pod; `refusal`: as the ReplicaSet reports it."""
    return refusal is not None and "exceeded quota" in refusal


def diagnose(workload: Workload, rs: ReplicaSet | None, since: datetime) -> tuple[ReplacementFailure, str]:
    """Return why no replacement is Ready, and the cause as text; `since`: time of the release."""
    controlled = workload.controlled_pods(rs)
    new_pods = [
        new for new in controlled if not new.ready and (new.created is None or new.created >= since - MIN_BACKOFF)
    ]
    if found := pending_cause(new_pods):
        return found
    if new_pods:
        return ReplacementFailure.NOT_READY, messages.new_pod_not_ready(new_pods[0].name)
    if rs and len(controlled) >= rs.replicas:
        ready = sum(pod.ready for pod in controlled)
        return ReplacementFailure.NOT_READY, messages.too_few_ready(ready, len(controlled))
    if rs and rs.replica_failure:
        quota = exceeds_quota(rs.replica_failure)
        return ReplacementFailure.QUOTA if quota else ReplacementFailure.CREATION_REFUSED, rs.replica_failure
    return ReplacementFailure.NOT_CREATED, messages.NO_POD_CREATED


def pending_cause(new_pods: Sequence[Pod]) -> tuple[ReplacementFailure, str] | None:
    """Return why one of these pods is not placed or does not start; None if none shows a cause."""
    for pod in new_pods:
        if pod.unschedulable_message:
            cause = pod.unschedulable_message
            by_pods = any(part in cause for part in _OTHER_POD_MESSAGES) and not any(
                part in cause for part in _RESOURCE_MESSAGES
            )
            return (ReplacementFailure.BLOCKED_BY_PODS if by_pods else ReplacementFailure.NO_ROOM), cause
    for pod in new_pods:
        if pod.scheduling_gates and not pod.node:
            return ReplacementFailure.GATED, messages.new_pod_gated(pod.name, pod.scheduling_gates)
    for pod in new_pods:
        if pod.start_failure:
            return ReplacementFailure.NOT_STARTING, messages.new_pod_not_starting(pod.name, pod.start_failure)
    return None
