"""Sentences of `kubectl reschedule why`: pure functions and constants, from facts to text."""

from rescheduler.core.model.messages import listing

OUTCOME_TEXTS = {
    "Stays": "it stays",
    "Blocked": "it blocks the drain",
    "LeavesAlready": "it is Terminating already, and the drain waits until it is gone",
    "FollowsController": "it leaves when the pod that controls it has left",
    "WaitsForNode": "it is evicted within its PodDisruptionBudget, and its new pod waits for this node",
    "StaysPending": "it is evicted within its PodDisruptionBudget, and its new pod stays Pending",
    "ReplacedFirst": "a new pod starts first, and it is evicted when the new pod is Ready",
    "Evicted": "it is evicted within its PodDisruptionBudget, without a replacement first",
    "Deleted": "it is deleted, because it is lost on this node",
}
_FIT_TEXTS = {
    "Fits": "its new pod fits on another node",
    "DoesNotFit": "its new pod fits on no other node",
    "Unknown": "only the scheduler can decide whether its new pod fits",
}
_NOT_REPLACED_CAUSES = {
    "NoDeployment": "no Deployment controls it",
    "Never": "replacement is Never",
    "Mover": "another tool moves it when it is evicted",
    "NoSurge": "its Deployment allows no additional pod",
    "Pinned": "only this node can have it",
    "Colocated": "its required pod affinity lets a new pod run elsewhere only after it has left",
    "ExclusiveVolume": "its volume can be attached to one node only",
    "HostPath": "it mounts a hostPath of this node",
    "NotReady": "it is not Ready",
    "SeveralBudgets": "several PodDisruptionBudgets cover it",
    "LeftSelector": "its labels no longer match its ReplicaSet",
    "NotBlocked": "replacement is WhenBlocked, and its PodDisruptionBudget allows the eviction",
}
STAYS_BY_KIND = "pods of a DaemonSet and mirror pods belong to their node"
NO_DRAIN = "No drain of this node is requested"
NO_NODE = "It has no node, so no drain concerns it"
NOT_A_POD_NAME = "name the pod as NAMESPACE/POD"


def pod_missing(pod: str) -> str:
    """Return the error for a pod that does not exist. `pod`: namespace/name."""
    return f"pod {pod} does not exist: list the pods with `kubectl get pods -A`"


def pod_gone(pod: str, node: str) -> str:
    """Return the error for a pod that has left its node during the reads."""
    return f"pod {pod} has left node {node} in this moment: run the command again"


def headline(pod: str, node: str, owner: str) -> str:
    """Return the first line: the pod, its node and its controller; both may be empty."""
    place = f" on {node}" if node else ""
    return f"{pod}{place}, {f'of {owner}' if owner else 'without a controller'}"


def on_drain(outcome: str, blocker_class: str) -> str:
    """Return what a drain of the node would do with the pod."""
    suffix = f": {blocker_class}" if blocker_class else ""
    return f"If the node is drained, {OUTCOME_TEXTS[outcome]}{suffix}"


def not_replaced(reason: str) -> str:
    """Return why the pod is not replaced first."""
    return f"It is not replaced first, because {_NOT_REPLACED_CAUSES.get(reason, reason)}"


def fit(value: str, reason: str) -> str:
    """Return whether the new pod finds a place."""
    text = _FIT_TEXTS[value]
    return f"{text[0].upper()}{text[1:]}" + (f": {reason}" if reason else "")


def opted_out(annotations: tuple[str, ...]) -> str:
    """Return that the pod asks other tools not to disrupt it."""
    return f"It asks other tools not to disrupt it: {listing(annotations)}. Only drain.honour makes a drain wait"


def drain_state(node: str, phase: str, requests: str, since: str) -> str:
    """Return the state of the drain that runs. `since`: a time span, empty before the start."""
    started = f", for {since}" if since else ""
    return f"{node} is being drained ({requests}): {phase}{started}"


def drain_waits(reason: str, message: str) -> str:
    """Return why the drain waits as a whole."""
    return f"The drain waits: {reason}: {message}"


def blocked_for(blocker_class: str, span: str, message: str) -> str:
    """Return that the pod is a blocker of the drain that runs."""
    return f"This pod blocks it for {span}: {blocker_class}" + (f": {message}" if message else "")


def released_for(span: str, attempt: int) -> str:
    """Return that the pod waits for its replacement."""
    tries = f" (attempt {attempt})" if attempt > 1 else ""
    return f"This pod is released for {span}, and is evicted when its replacement is Ready{tries}"


def terminating(span: str) -> str:
    """Return that the pod is Terminating. `span`: the time until its grace period ends; empty if it is over."""
    return "This pod is Terminating" + (f", for at most {span} more" if span else ", and its grace period is over")


WAITS_FOR_NODE = "This pod leaves, and its new pod waits for the node"
IN_TURN = "This pod waits for its turn, or its eviction is on its way"
NOT_CONCERNED = "This pod stays"
