"""Which pods that are out of place are moved now, and why the others are not.

A pod that has nowhere to go stays where it is; so does one whose replacement came up out of place again: whatever is
wrong there, moving it once more would not mend it.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from rescheduler.api import names
from rescheduler.api.policies import Suspend
from rescheduler.api.pools import PoolBlocker
from rescheduler.core.model.node_affinity import may_run_on
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.quantities import PODS, format_quantity
from rescheduler.core.model.resource_requests import ResourceList
from rescheduler.core.model.wait_reasons import WaitReason
from rescheduler.core.pools import labels_and_taints
from rescheduler.core.pools.misplaced_pods import MisplacedPod

CAUSE_PREFIX = "NamespacePool/"
LABEL_PROPAGATION_DELAY = timedelta(seconds=5)
"""Every API server must have read a namespace's new label before the replacement of one of its pods is created."""
_CAME_BACK_WINDOW = timedelta(minutes=15)
_MAX_OWNERS = 10_000  # owners remembered


class PoolMoveHistory:
    """When the first pod of an owner left for a pool: a pod of it that was made later and is out of place came back."""

    def __init__(self) -> None:
        self._first_moves: OrderedDict[tuple[str, str | None], datetime] = OrderedDict()

    def record_move(self, owner_uid: str, target_pool: str | None, now: datetime) -> None:
        """A pod of this owner has left for this pool (None: for any node of none)."""
        first = self._first_moves.get((owner_uid, target_pool))
        if first is None or now - first > _CAME_BACK_WINDOW:
            self._first_moves[owner_uid, target_pool] = now
            self._first_moves.move_to_end((owner_uid, target_pool))
        while len(self._first_moves) > _MAX_OWNERS:
            self._first_moves.popitem(last=False)

    def hold_until(self, pod: MisplacedPod, mapped_since: datetime, now: datetime) -> datetime | None:
        """Until when a pod that came back is left where it is; None where it did not.

        `mapped`: since when its namespace and its node are mapped as they are. A pod that was there before stands where
        it was right to come up.
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
    """All that the choice depends on.

    Attributes:
        ground: by node, the pool that has it.
        used: by node, what its pods hold.
        settled: whether a namespace carries its pool's label, and has for long enough.
        mapped: since when a namespace and a node, by name, are in the pools that have them.
        held: why nothing may be moved off a node.
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
    """What is to be moved now, by node and uid; and by pool what cannot be, and why."""

    migration_requests: dict[str, dict[str, str]] = field(default_factory=dict)
    blockers: dict[str, list[PoolBlocker]] = field(default_factory=dict)


def select(misplaced: Iterable[MisplacedPod], inputs: MoveSelectionInput) -> MoveSelection:
    """Those already let go of come first: they have their room."""
    found, room = MoveSelection(), _FreeCapacity(inputs)
    for pod in sorted(misplaced, key=lambda pod: (not pod.released, pod.namespace, pod.name)):
        here = inputs.nodes.get(pod.node)
        if here is None or not inputs.is_label_propagated(pod.namespace):
            continue
        why = _why_blocked(pod, here, inputs) or room.reserve(pod)
        if why:
            blocker = PoolBlocker(namespace=pod.namespace, pod=pod.name, class_=why[0], message=why[1])
            found.blockers.setdefault(pod.requesting_pool, []).append(blocker)
        else:
            found.migration_requests.setdefault(pod.node, {})[pod.uid] = CAUSE_PREFIX + pod.requesting_pool
    return found


BlockerReason = tuple[str, str]
"""A blocker's class and message."""


def _why_blocked(pod: MisplacedPod, node: Node, inputs: MoveSelectionInput) -> BlockerReason | None:
    """Why it may not leave."""
    held = inputs.wait_reason(node)
    if held and not (pod.released and inputs.suspend(node) is Suspend.NEW):
        return str(held.reason), held.message
    if node.ready_status != "True":
        return "NodeNotReady", f"its node {node.name} is not Ready: that is for its drain to mend"
    if pod.target_pool != pod.requesting_pool and labels_and_taints.pool_of_taint(node) != pod.requesting_pool:
        return "TaintHeldBack", f"node {node.name} does not have the pool's taint: it would come back"
    if until := inputs.move_history.hold_until(pod, inputs.mapped_since(pod.namespace, pod.node), inputs.now):
        return (
            "CameBack",
            f"a pod of its owner was moved, and this one came up out of place again: left until {until:%H:%M:%S} UTC",
        )
    return None


class _FreeCapacity:
    """Which nodes would take which pods, and how much is left on them."""

    def __init__(self, inputs: MoveSelectionInput) -> None:
        self._inputs = inputs
        self._schedulable_nodes = [
            n for n in inputs.nodes.values() if n.ready_status == "True" and not n.unschedulable and not n.deleting
        ]
        self._allocated: dict[str, Counter[str]] = {}
        self._eligible_cache: dict[str, list[Node]] = {}  # by what a pod asks of a node

    def reserve(self, pod: MisplacedPod) -> BlockerReason | None:
        """Why there is no place for it; None: there is, and it is taken."""
        whither = f"pool {pod.target_pool}" if pod.target_pool else "other nodes"
        nodes = [node for node in self._eligible_nodes(pod) if node.name != pod.node]
        if not nodes:
            return (
                "NoRoomInPool",
                f"no open node of {whither} meets what it asks for (nodeSelector, affinity, tolerations)",
            )
        if pod.released:
            return None
        asked = {**pod.resource_requests, PODS: 1}
        for node in nodes:
            taken = self._allocated.setdefault(node.name, Counter(self._inputs.requests_by_node.get(node.name, {})))
            if all(node.allocatable.get(kind, 0) - taken[kind] >= size for kind, size in asked.items()):
                taken.update(asked)
                return None
        sizes = (
            ", ".join(f"{kind} {format_quantity(kind, size)}" for kind, size in pod.resource_requests.items())
            or "one more pod"
        )
        return "NoRoomInPool", f"none of the open nodes of {whither} has room for it ({sizes})"

    def _eligible_nodes(self, pod: MisplacedPod) -> Sequence[Node]:
        key = f"{pod.target_pool} {pod.scheduling_constraints}"
        if key not in self._eligible_cache:
            where = _constraints_in_target_pool(pod)
            self._eligible_cache[key] = [
                node
                for node in self._schedulable_nodes
                if self._is_in_target_pool(node, pod) and may_run_on(where, node)
            ]
        return self._eligible_cache[key]

    def _is_in_target_pool(self, node: Node, pod: MisplacedPod) -> bool:
        """Whether it belongs there; whoever is at home nowhere may be on any node whose taints let it."""
        if pod.target_pool is None:
            return True
        return (
            self._inputs.pool_of_node.get(node.name) == pod.target_pool
            and node.labels.get(names.NODE_POOL) == pod.target_pool
        )


def _constraints_in_target_pool(pod: MisplacedPod) -> Mapping[str, Any]:
    """What its replacement asks of a node: admission adds what its pool asks."""
    if pod.target_pool is None:
        return pod.scheduling_constraints
    pool = {"key": names.POOL, "operator": "Equal", "value": pod.target_pool, "effect": labels_and_taints.TAINT_EFFECT}
    # The selector that a pod was given for another pool is not in its owner's template.
    selector = {**(pod.scheduling_constraints.get("nodeSelector") or {}), names.NODE_POOL: pod.target_pool}
    return {
        **pod.scheduling_constraints,
        "nodeSelector": selector,
        "tolerations": [*(pod.scheduling_constraints.get("tolerations") or ()), pool],
    }
