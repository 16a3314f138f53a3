"""User-facing reasons of a plan: why no node takes a pod, and why only the scheduler can decide (docs/reference/blockers.md)."""

from collections.abc import Iterable, Sequence

from rescheduler.core.model.messages import listing

_MAX_LISTED = 3
NO_OTHER_NODE = "there is no other node"
POD_LIMIT_REACHED = "full (number of pods)"
CORDONED_OR_DRAINING = "cordoned or being drained"
NODE_AFFINITY_MISMATCH = "ruled out by its nodeSelector or node affinity"
UNTOLERATED_TAINT = "with a taint that the pod does not tolerate"
VOLUME_TOPOLOGY_CONFLICT = "without access to its volume"
BLOCKED_BY_PODS = "blocked by affinity, anti-affinity, spread or host ports of other pods"

DEPENDS_ON_OTHER_PODS = "depends on where the scheduler places other pods"
UNKNOWN_POD_SELECTOR = "a selector of its affinity or spread is not known here"
SELECTS_BY_POD_IDENTITY = "its affinity or spread selects by a label that differs between pods of one owner"
HAS_RESOURCE_CLAIMS = "the pod has resource claims"
HAS_SCHEDULING_GATES = "the pod has scheduling gates"
GATED_BY_KUEUE = "Kueue holds the new pod back until its queue admits it (a scheduling gate)"
UNKNOWN_NODE_AFFINITY = "its node affinity has an operator that Rescheduler does not know"
UNKNOWN_SPREAD_POLICY = "its topology spread has a value that Rescheduler does not know"
UNKNOWN_TOLERATION = "a toleration for a taint of a node has an operator that Rescheduler does not know"
CHANGED_POD = "the pod was changed after its creation, and the next pod of its owner is not known"
ROLLOUT = "a rollout is under way, and the next pod of its owner is another one"
REQUESTS_OF_VPA = "the Vertical Pod Autoscaler sets the requests of the next pod"
SCHEDULED_IN_GROUP = "the pod is scheduled as part of a group"
HAS_INLINE_DISK = "the pod mounts a disk that its spec names"
HAS_EPHEMERAL_VOLUME = "the pod has a volume that is provisioned after the pod is placed"
NEEDS_NODE_FEATURE = "the pod needs a feature that nodes declare"


def no_node_takes_pod(node_count: int, rejections: Iterable[tuple[str, int]]) -> str:
    """Return why no other node takes a pod; `rejections`: texts with their number of nodes."""
    parts = ", ".join(f"{count} {text}" for text, count in rejections)
    return f"0 of {node_count} other nodes can take the pod: {parts}"


def no_room_for_all(pods: Sequence[str]) -> str:
    """Return that no node has room for all of the colocated pods; `pods`: `namespace/name` of each."""
    return f"no other node has room for all {len(pods)} pods that must share it: {listing(pods, _MAX_LISTED)}"


def insufficient_resource(resource: str, requested: str, max_free: str) -> str:
    """Return that nodes lack a resource; both amounts in the notation of Kubernetes."""
    return f"with too little {resource} ({requested} requested, at most {max_free} free)"


def outside_pool(pool: str) -> str:
    """Return that nodes belong to another pool, or to none."""
    return f"not in pool {pool}"


def resources_not_offered(resources: Sequence[str]) -> str:
    """Return that no node offers these resources now."""
    return f"no node offers {', '.join(resources)}; a device driver may add it"


def resources_of_devices(resources: Sequence[str]) -> str:
    """Return that a DeviceClass may serve these resources on nodes that do not offer them."""
    return f"a DeviceClass may serve {', '.join(resources)} on nodes that do not offer it"


def resized(parts: Iterable[tuple[str, str, str]]) -> str:
    """Return how the requests of a template differ from those of the pod; `parts`: resource, template and pod."""
    listed = ", ".join(
        f"{resource} {requested} (the pod runs with {running})" for resource, requested, running in parts
    )
    return f"the template of its owner requests {listed}"


def with_note(reason: str, note: str | None) -> str:
    """Return a reason with the note on the requests of the template."""
    return f"{reason}; {note}" if note else reason


def too_many_constraints(limit: int) -> str:
    """Return that the scheduling constraints of the pod exceed the limit of a plan."""
    return f"the pod has more than {limit} scheduling constraints"


def uses_other_scheduler(scheduler: str) -> str:
    """Return that another scheduler places the pod."""
    return f"the scheduler {scheduler} places the pod"
