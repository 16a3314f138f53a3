"""Select the misplaced pods to move now, and report why the others stay.

A pod without a place to go stays. So does a pod that came up misplaced after another pod of its owner was moved: a
second move would not fix the cause.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from rescheduler.api import names
from rescheduler.api.policies import Suspend
from rescheduler.api.pools import PoolBlocker
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.quantities import PODS
from rescheduler.core.model.resource_fit import fits_by_requests, free_resources
from rescheduler.core.model.resource_requests import ResourceList
from rescheduler.core.model.wait_reasons import WaitReason
from rescheduler.core.pools import labels_and_taints, messages
from rescheduler.core.pools.misplaced_pods import MisplacedPod

CAUSE_PREFIX = "NamespacePool/"
LABEL_PROPAGATION_DELAY = timedelta(seconds=5)
"""The time until every API server has read the new label of a namespace; earlier replacements would miss the pool."""
_CAME_BACK_WINDOW = timedelta(minutes=15)
_MAX_OWNERS = 10_000  # bounds the memory


class PoolMoveHistory:
    """The time of the first move of each owner into a pool; a later misplaced pod of that owner came back."""

    def __init__(self) -> None:
        self._first_moves: OrderedDict[tuple[str, str | None], datetime] = OrderedDict()

    def record_move(self, owner_uid: str, target_pool: str | None, now: datetime) -> None:
        """Record that a pod of this owner has left for this pool; None: for a node without a pool."""
        first = self._first_moves.get((owner_uid, target_pool))
        if first is None or now - first > _CAME_BACK_WINDOW:
            self._first_moves[owner_uid, target_pool] = now
            self._first_moves.move_to_end((owner_uid, target_pool))
        while len(self._first_moves) > _MAX_OWNERS:
            self._first_moves.popitem(last=False)

    def hold_until(self, pod: MisplacedPod, mapped_since: datetime, now: datetime) -> datetime | None:
        """Return until when a pod that came back stays; None if it did not come back.

        `mapped_since`: since when its namespace and its node have their pools. An older pod was in place when it was
        created.
        """
        first = self._first_moves.get((pod.owner_uid, pod.target_pool))
        if (
            first is None
            or now - first > _CAME_BACK_WINDOW
            or pod.created is None
            or pod.created < first.replace(microsecond=0)
        ):
            return None
        return first + _CAME_BACK_WINDOW if pod.created >= mapped_since.replace(microsecond=0) else None


@dataclass(frozen=True)
class MoveSelectionInput:
    """The facts from which pods are selected.

    Attributes:
        now: the time of the selection.
        nodes: all nodes, by name.
        pool_of_node: by node, the pool that has it; None: no pool has it.
        requests_by_node: by node, the requests of its pods.
        is_label_propagated: whether every API server has read the pool label of a namespace.
        mapped_since: since when a namespace and a node, by name, have their pools.
        wait_reason: why no pod may be moved off a node; None: pods may be moved.
        suspend: the `suspend` of the policy of a node.
        move_history: the moves of the last minutes.
    """

    now: datetime
    nodes: Mapping[str, Node]
    pool_of_node: Mapping[str, str | None]
    requests_by_node: Mapping[str, ResourceList]
    is_label_propagated: Callable[[str], bool]
    mapped_since: Callable[[str, str], datetime]
    wait_reason: Callable[[Node], WaitReason | None]
    suspend: Callable[[Node], Suspend]
    move_history: PoolMoveHistory


@dataclass(slots=True)
class MoveSelection:
    """The pods to move, and the blockers.

    Attributes:
        migration_requests: by node, the cause of each move by the pod's UID.
        blockers: by pool, the pods that cannot be moved.
    """

    migration_requests: dict[str, dict[str, str]] = field(default_factory=dict)
    blockers: dict[str, list[PoolBlocker]] = field(default_factory=dict)


def select(misplaced: Iterable[MisplacedPod], inputs: MoveSelectionInput) -> MoveSelection:
    """Return the moves and blockers; released pods come first, because their replacements have their room already."""
    selection, capacity = MoveSelection(), _FreeCapacity(inputs)
    for pod in sorted(misplaced, key=lambda pod: (not pod.released, pod.namespace, pod.name)):
        node = inputs.nodes.get(pod.node)
        if node is None or not inputs.is_label_propagated(pod.namespace):
            continue
        reason = _why_blocked(pod, node, inputs) or capacity.reserve(pod)
        if reason:
            blocker = PoolBlocker(namespace=pod.namespace, pod=pod.name, class_=reason[0], message=reason[1])
            selection.blockers.setdefault(pod.requesting_pool, []).append(blocker)
        else:
            selection.migration_requests.setdefault(pod.node, {})[pod.uid] = CAUSE_PREFIX + pod.requesting_pool
    return selection


BlockerReason = tuple[str, str]
"""The class and the message of a blocker."""


def _why_blocked(pod: MisplacedPod, node: Node, inputs: MoveSelectionInput) -> BlockerReason | None:
    """Return why the pod may not leave its node; None if it may."""
    wait_reason = inputs.wait_reason(node)
    if wait_reason and not (pod.released and inputs.suspend(node) is Suspend.NEW):
        return str(wait_reason.reason), wait_reason.message
    if node.ready_status != "True":
        return "NodeNotReady", messages.node_not_ready(node.name)
    if pod.target_pool != pod.requesting_pool and labels_and_taints.pool_of_taint(node) != pod.requesting_pool:
        return "TaintHeldBack", messages.node_not_tainted(node.name)
    if until := inputs.move_history.hold_until(pod, inputs.mapped_since(pod.namespace, pod.node), inputs.now):
        return "CameBack", messages.came_back(until)
    return None


class _FreeCapacity:
    """The nodes that would take each pod, and the capacity that is left on them."""

    def __init__(self, inputs: MoveSelectionInput) -> None:
        self._inputs = inputs
        self._schedulable_nodes = [
            n for n in inputs.nodes.values() if n.ready_status == "True" and not n.unschedulable and not n.deleting
        ]
        self._free: dict[str, dict[str, int]] = {}  # by node
        self._eligible_cache: dict[str, list[Node]] = {}  # by target pool and node constraints

    def reserve(self, pod: MisplacedPod) -> BlockerReason | None:
        """Reserve room for the pod on a node, and return None; return why no node has room otherwise."""
        nodes = [node for node in self._eligible_nodes(pod) if node.name != pod.node]
        if not nodes:
            return "NoRoomInPool", messages.no_matching_node(pod.target_pool)
        if pod.released:
            return None
        for node in nodes:
            if node.name not in self._free:
                allocated = self._inputs.requests_by_node.get(node.name, {})
                self._free[node.name] = free_resources(node.allocatable, allocated)
            free = self._free[node.name]
            if fits_by_requests(free, pod.resource_requests):
                for resource, amount in {**pod.resource_requests, PODS: 1}.items():
                    free[resource] = free.get(resource, 0) - amount
                return None
        return "NoRoomInPool", messages.no_room_in_pool(pod.target_pool, pod.resource_requests)

    def _eligible_nodes(self, pod: MisplacedPod) -> Sequence[Node]:
        key = f"{pod.target_pool} {pod.node_constraints}"
        if key not in self._eligible_cache:
            # The replacement gets the selector and the toleration of the target pool from admission.
            constraints = pod.node_constraints
            if pod.target_pool is not None:
                constraints = constraints.in_pool(pod.target_pool)
            self._eligible_cache[key] = [
                node
                for node in self._schedulable_nodes
                if self._is_in_target_pool(node, pod) and constraints.allows_node(node)
            ]
        return self._eligible_cache[key]

    def _is_in_target_pool(self, node: Node, pod: MisplacedPod) -> bool:
        """Whether the node is in the target pool of the pod; a pod without a pool may be on any node that it tolerates."""
        if pod.target_pool is None:
            return True
        return (
            self._inputs.pool_of_node.get(node.name) == pod.target_pool
            and node.labels.get(names.NODE_POOL) == pod.target_pool
        )
