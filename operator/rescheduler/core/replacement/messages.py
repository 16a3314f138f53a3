"""Texts of core.replacement for users: why a pod waits for its replacement, and how to unblock it.

Each function takes facts and returns one text. docs/reference/blockers.md lists these texts.
`decisions.backoff_from_blocker` reads the cause after the first colon of a blocker message.
"""

from collections.abc import Sequence

from rescheduler.api import names
from rescheduler.core.model.pods import Owner

NO_ROOM_PREFIX = "the plan finds no room for this pod on another node: "
PENDING_PREFIX = "the replacement is Pending: "
NO_ROOM_HINT = "add a node or lower the requests of the pod; or set drain.noRoom: Evict"
LAST_READY_SUFFIX = "; this pod is the last Ready pod of its owner"

ROLLOUT_RUNNING = "a rollout of the Deployment is running"
ROLLOUT_NOT_ENDING = "the rollout of the Deployment does not end"
ROLLOUT_INCOMPLETE = "a rollout has replaced the ReplicaSet of this pod, and too few of the new pods are Ready"
ROLLOUT_INCOMPLETE_HINT = "finish the rollout or roll it back: kubectl rollout status deployment"
RECORD_NOT_CLEARED = "the move record of this pod cannot be removed"
NOT_RETURNED = "this pod cannot be returned to its ReplicaSet"
BUDGET_STILL_REFUSES = "the budget refuses the eviction although a replacement is Ready"
NO_POD_CREATED = (
    "the ReplicaSet created no new pod in time, and reports no reason: check kube-controller-manager, and whether "
    "admission lets pods in"
)
OWNER_HINT = "check the Deployment and the ReplicaSet of the pod: kubectl describe deployment,replicaset"
FIND_DELETER_HINT = (
    "find out who deletes pods of this workload, such as a cleanup script; or annotate the pod "
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


def with_cause(state: str, cause: str) -> str:
    """Return a state with its cause after the colon."""
    return f"{state}: {cause}"


def not_released(cause: str, *, is_last_ready: bool) -> str:
    """Return why a pod stays whose release the API server refuses."""
    return f"this pod cannot be released for a replacement: {cause}" + (LAST_READY_SUFFIX if is_last_ready else "")


def no_room_for_replacement(cause: str) -> str:
    """Return why a pod stays whose replacement no node can run."""
    return f"no node has room for the replacement: {cause}"


def no_replacement(cause: str, *, is_last_ready: bool) -> str:
    """Return why a pod stays whose replacement did not become Ready."""
    return f"no replacement became Ready: {cause}" + (LAST_READY_SUFFIX if is_last_ready else "")


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
