"""Texts of controllers.evacuation for users: what a drain waits for before it can move pods.

docs/reference/blockers.md and docs/reference/conditions.md list these texts.
"""

from rescheduler.core.model.pods import Pod

OWNER_PODS_NOT_SYNCED = "the pods of the owner are not listed yet"
PLAN_NOT_READY = "the plan for the pods is not made yet"
REPLICA_SET_GONE = "the ReplicaSet of this pod is gone or scaled to 0"
REPLICA_SET_HINT = "check the ReplicaSets of the Deployment: kubectl get replicaset"
PROOF_NOT_CHECKED = "its removal requires proof about its node, and only a drain checks proof"
OWNER_POD_PENDING = "the node of another new pod of the same owner is not known yet"


def pods_not_listed(error: str) -> str:
    """Return what a drain waits for while the pods of its node are not listed; `error`: empty if there is none."""
    return "the pods of the node are not listed yet" + (f" ({error})" if error else "")


def internal_error(error: Exception) -> str:
    """Return the state of a pod whose request failed because of a bug."""
    return f"internal error ({type(error).__name__})"


def pod_terminating(pod: Pod) -> str:
    """Return how a Terminating pod uses its node."""
    return f"pod {pod.key} is Terminating"


def volume_attached(volume: str) -> str:
    """Return how an attached volume uses its node."""
    return f"volume {volume} is attached"
