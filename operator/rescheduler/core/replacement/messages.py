"""Texts of core.replacement for users: why a pod waits for its replacement, and how to unblock it.

Each function takes facts and returns one text. docs/reference/blockers.md lists these texts.
`decisions.backoff_from_blocker` reads the attempts and the cause from the messages of `no_replacement` and
`no_room_for_replacement`.
"""

import re
from collections.abc import Sequence

from rescheduler.api import names
from rescheduler.core.model.messages import listing
from rescheduler.core.model.pods import Owner

NO_ROOM_PREFIX = "the plan finds no room for this pod on another node: "
PENDING_PREFIX = "the replacement is Pending: "
NO_ROOM_HINT = "add a node or lower the requests of the pod; or set drain.noRoom: Evict"
LAST_READY_SUFFIX = "; this pod is the last Ready pod of its owner"
_NO_ROOM_FOR_REPLACEMENT = "no node has room for the replacement: "
_NO_REPLACEMENT = "no replacement became Ready"
_NO_REPLACEMENT_PATTERN = re.compile(rf"{_NO_REPLACEMENT}(?: in (\d{{1,4}}) of \d{{1,4}} attempts)?: (.*)", re.DOTALL)

ROLLOUT_RUNNING = "a rollout of the Deployment is running"
ROLLOUT_INCOMPLETE = "a rollout has replaced the ReplicaSet of this pod, and too few of the new pods are Ready"
RECORD_NOT_CLEARED = "the move record of this pod cannot be removed"
NOT_RETURNED = "this pod cannot be returned to its ReplicaSet"
BUDGET_STILL_REFUSES = "the budget refuses the eviction although a replacement is Ready"
NO_POD_CREATED = "the ReplicaSet has created no new pod and reports no reason, so its controller may not be at work"
NO_POD_CREATED_YET = "the ReplicaSet has created no new pod yet"
LEAVING_PODS_COUNT = "pods of the owner that are leaving still count in the quota"
_MAX_LISTED = 3
_NOT_REPLACED_CAUSES = {
    "NoDeployment": "no Deployment controls it",
    "NoSurge": "its Deployment allows no additional pod",
    "Pinned": "only this node can have it",
    "Colocated": "its required pod affinity lets a new pod run elsewhere only after this pod has left",
    "ExclusiveVolume": "its volume can be attached to one node only",
    "NotReady": "it is not Ready",
    "LeftSelector": "its labels no longer match its ReplicaSet",
}
_NOT_REPLACED_HINTS = {
    "NoSurge": "set strategy RollingUpdate with maxSurge above 0 in the Deployment",
    "HostPath": "mount single files read-only, with type: File in the hostPath volume",
}
OWNER_HINT = "check the Deployment and the ReplicaSet of the pod: kubectl describe deployment,replicaset"
FIND_DELETER_HINT = (
    "find out who deletes pods of this workload, such as a cleanup script; or annotate the pod "
    f"{names.REPLACEMENT}: Never to evict it without a replacement"
)
BLOCKED_BY_PODS_HINT = (
    "add a node, or relax the constraint: a topology spread with nodeTaintsPolicy: Honor does not count a drained node"
)
QUOTA_HINT = "raise the ResourceQuota that the message names: kubectl describe resourcequota"
GATED_HINT = "ask the owner of the scheduling gate to admit the new pod: kubectl describe pod"
NOT_CREATED_HINT = "check kube-controller-manager, which creates the pods of a ReplicaSet: kubectl describe replicaset"
CREATION_REFUSED_HINT = "ask the owner of the policy or webhook that the message names: kubectl describe replicaset"
NOT_STARTING_HINT = (
    "fix the image, the command or the configuration of the new pods (kubectl describe pod); or annotate the pod "
    f"{names.REPLACEMENT}: Never to evict it without a replacement"
)
NOT_READY_HINT = (
    "fix why new pods of this workload do not become Ready; or annotate the pod "
    f"{names.REPLACEMENT}: Never to evict it without a replacement"
)


def released_pods_first(count: int) -> str:
    """Return what a pod waits for while released pods of its owner have no replacement."""
    return f"{count} released pods of the same owner are replaced first"


def too_few_ready(ready: int, needed: int) -> str:
    """Return what a pod waits for while its owner has too few Ready pods."""
    return f"{ready} of {needed} pods of the owner are Ready"


def removed_and_too_few_ready(cause: str, ready: int, needed: int) -> str:
    """Return why no other pod is released after a released pod was removed."""
    return f"{cause}; {too_few_ready(ready, needed)}"


def surplus_pod_left(replica_set: str) -> str:
    """Return what a returned pod waits for while its ReplicaSet has one pod too many."""
    return f"returned to ReplicaSet {replica_set}, which has not deleted its surplus pod yet"


def not_replaced_first(cause: str, *, required: bool = False) -> str:
    """Return why the pod is not replaced first, such as an addition to the message of a blocker.

    `required`: the owner or the policy asks for a replacement first.
    """
    state = "replacement: Required cannot be honoured" if required else "this pod is not replaced first"
    return f"{state}, because {cause}"


def not_replaced_cause(reason: str, host_paths: Sequence[str]) -> str:
    """Return the cause of a `reason` of `decisions.ineligible_reason`; empty if the blocker needs no more words."""
    if reason == "HostPath":
        return f"it mounts hostPath {listing(host_paths, _MAX_LISTED)} of its node"
    return _NOT_REPLACED_CAUSES.get(reason, "")


def not_replaced_hint(reason: str) -> str:
    """Return how a pod with this reason becomes eligible for a replacement first; empty if nothing simple helps."""
    return _NOT_REPLACED_HINTS.get(reason, "")


def required_not_honoured(cause: str) -> str:
    """Return the warning on an annotation `replacement: Required` of a pod that cannot be replaced first."""
    return (
        f"The annotation {names.REPLACEMENT}: Required cannot be honoured, because {cause}: "
        "the pod is evicted within its PodDisruptionBudget."
    )


def with_cause(state: str, cause: str) -> str:
    """Return a state with its cause after the colon."""
    return f"{state}: {cause}"


def not_released(cause: str, *, is_last_ready: bool) -> str:
    """Return why a pod stays whose release the API server refuses."""
    return f"this pod cannot be released for a replacement: {cause}" + (LAST_READY_SUFFIX if is_last_ready else "")


def no_room_for_replacement(cause: str) -> str:
    """Return why a pod stays whose replacement no node can run."""
    return _NO_ROOM_FOR_REPLACEMENT + cause


def no_replacement(cause: str, *, attempts: int, of_attempts: int | None, is_last_ready: bool) -> str:
    """Return why a pod stays whose replacement did not become Ready.

    `of_attempts`: after this number of attempts the pod is evicted without a replacement; None: never.
    """
    counted = f" in {attempts} of {of_attempts} attempts" if of_attempts else ""
    return f"{_NO_REPLACEMENT}{counted}: {cause}" + (LAST_READY_SUFFIX if is_last_ready else "")


def failed_attempts(message: str) -> tuple[int, str] | None:
    """Return the attempts and the cause from a message of `no_replacement`; None for any other message."""
    found = _NO_REPLACEMENT_PATTERN.fullmatch(message)
    return (int(found[1] or 1), found[2].removesuffix(LAST_READY_SUFFIX)) if found else None


def cause_without_room(message: str) -> str | None:
    """Return the cause from a message of `no_room_for_replacement`; None for any other message."""
    prefix, _, cause = message.partition(_NO_ROOM_FOR_REPLACEMENT)
    return cause if cause and not prefix else None


def with_refusal(refusal: str, state: str) -> str:
    """Return the refusal of an eviction together with the reason why the pod is not replaced first."""
    return f"{refusal}; {state}"


def creation_refused(refusal: str) -> str:
    """Return what a released pod waits for while the new pod is refused."""
    return f"the ReplicaSet cannot create the replacement: {refusal}"


def replacement_pending(cause: str) -> str:
    """Return what a released pod waits for while its replacement is not Ready."""
    return f"the replacement is not Ready yet: {cause}"


def rollout_hint(namespace: str, deployment: str, *, paused: bool) -> str:
    """Return how to end a rollout."""
    verb = "resume" if paused else "status"
    return (
        f"finish the rollout (kubectl rollout {verb} deployment -n {namespace} {deployment}), "
        f"or roll it back: kubectl rollout undo deployment -n {namespace} {deployment}"
    )


def removed_by_others(pod: str) -> str:
    """Return the cause of a backoff after another client removed a released pod; `pod`: with its remover, if known."""
    return f"another client removed the released pod {pod} before its replacement was Ready"


def removed_pod(name: str, adopter: Owner | None, disruption: str) -> str:
    """Return a removed pod, with the remover if it is known: another controller, or the cause in a condition."""
    remover = f"{adopter.kind} {adopter.name} is its controller now" if adopter else disruption
    return f"{name} ({remover})" if remover else name


def new_pods_removed(replica_set: str, removed: Sequence[str]) -> str:
    """Return the cause of a backoff after other clients removed new pods; `removed`: the pods, at least one."""
    return f"other clients removed {len(removed)} new pods of ReplicaSet {replica_set}, the last one was {removed[-1]}"


def replaced_on_same_node(node: str) -> str:
    """Return the cause of a backoff after the replacement started on the node that the pod leaves."""
    return f"the replacement started on node {node} again"


def eviction_still_refused(cause: str) -> str:
    """Return the cause of a backoff after the eviction of a replaced pod was refused."""
    return f"the eviction is refused: {cause}"


def new_pod_not_ready(name: str) -> str:
    """Return the cause of a backoff after a new pod did not become Ready."""
    return f"pod {name} is not Ready in time"


def new_pod_gated(name: str, gates: Sequence[str]) -> str:
    """Return the cause of a backoff while scheduling gates keep a new pod from the scheduler."""
    return f"pod {name} waits for its scheduling gates {listing(gates)}"


def new_pod_not_starting(name: str, cause: str) -> str:
    """Return the cause of a backoff after a new pod did not start."""
    return f"pod {name} does not start: {cause}"
