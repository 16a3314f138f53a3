"""Find the pods and DaemonSets that would lose their last place by the taint of an exclusive pool.

A NoSchedule taint ends no pod. But a pod that is created again, above all a pod of a DaemonSet, does not come back if it
does not tolerate the taint. The taint is held back while there is such a pod, and the status names the pods.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from rescheduler.api import names
from rescheduler.core.model.listed_pods import ListedPod
from rescheduler.core.model.node_affinity import NodeConstraints
from rescheduler.core.model.nodes import Node, Taint
from rescheduler.core.model.volumes import Volume, VolumeClaim
from rescheduler.core.model.workloads import DaemonSet
from rescheduler.core.pools.labels_and_taints import pool_taint

_NODE_CONDITION_TAINT_PREFIX = "node.kubernetes.io/"
"""Prefix of taints for passing conditions of a node, which pods of DaemonSets always tolerate."""


@dataclass(frozen=True)
class PlannedTaint:
    """The taint that is to be set.

    Attributes:
        pool: the name of the pool.
        nodes: the nodes of the pool without the taint.
        other_nodes: all nodes outside the pool that take pods now.
        is_in_no_pool: whether the namespace of this name is in no pool.
    """

    pool: str
    nodes: tuple[Node, ...]
    other_nodes: tuple[Node, ...]
    is_in_no_pool: Callable[[str], bool]

    @property
    def taint(self) -> Taint:
        """The taint itself."""
        return pool_taint(self.pool)


def plan_taint(
    pool: str,
    untainted: Collection[str],
    members: Collection[str],
    nodes: Iterable[Node],
    is_in_no_pool: Callable[[str], bool],
) -> PlannedTaint:
    """Return the taint of this pool on its untainted members; a node that takes no pods now is no place for a pod."""
    all_nodes = tuple(nodes)
    others = (
        node
        for node in all_nodes
        if node.name not in members and node.ready_status == "True" and not node.unschedulable and not node.deleting
    )
    return PlannedTaint(pool, tuple(n for n in all_nodes if n.name in untainted), tuple(others), is_in_no_pool)


def unschedulable_daemon_sets(daemon_sets: Iterable[DaemonSet], planned_taint: PlannedTaint) -> list[str]:
    """Return the DaemonSets, by name, that have pods on nodes of the pool and could have none there."""
    return [
        f"DaemonSet {daemon_set.namespace}/{daemon_set.name}"
        for daemon_set in daemon_sets
        if _would_lose_nodes(daemon_set.node_constraints, planned_taint)
    ]


def _would_lose_nodes(constraints: NodeConstraints, planned_taint: PlannedTaint) -> bool:
    return not constraints.tolerates([planned_taint.taint]) and any(
        constraints.selects_node(node) and constraints.tolerates(_lasting_taints(node)) for node in planned_taint.nodes
    )


def _lasting_taints(node: Node) -> list[Taint]:
    return [t for t in node.taints if not t.key.startswith(_NODE_CONDITION_TAINT_PREFIX) and t.key != names.POOL]


def unschedulable_pods(pods: Iterable[ListedPod], planned_taint: PlannedTaint) -> list[str]:
    """Return the pods, by name, that no other node would take: pods on the pool's nodes, and pods without a node."""
    return [_name(pod) for pod in pods if _is_affected(pod, planned_taint) and _has_no_other_node(pod, planned_taint)]


def claims_of_affected_pods(
    pods: Iterable[ListedPod], planned_taint: PlannedTaint
) -> dict[str, tuple[tuple[str, str], ...]]:
    """Return the claims (namespace and name) of pods that the taint would shut out, by the pod's name.

    A pod whose data is only on a node of the pool has no other place, even if other nodes have room.
    """
    return {
        _name(pod): tuple((pod.namespace, name) for name in claims)
        for pod in pods
        if pod.node and (claims := pod.claims) and _is_affected(pod, planned_taint)
    }


def pods_with_local_volumes(
    claims_by_pod: Mapping[str, tuple[tuple[str, str], ...]], claims: Iterable[VolumeClaim], volumes: Iterable[Volume]
) -> list[str]:
    """Return the pods that mount a volume whose data is on one node."""
    local_volumes = {volume.name for volume in volumes if volume.local}
    local_claims = {(claim.namespace, claim.name) for claim in claims if claim.volume in local_volumes}
    return [pod for pod, pod_claims in claims_by_pod.items() if local_claims.intersection(pod_claims)]


def _name(pod: ListedPod) -> str:
    return f"pod {pod.key}"


def _is_affected(pod: ListedPod, planned_taint: PlannedTaint) -> bool:
    """Whether a pod needs a place later, is in no pool, and does not tolerate the taint."""
    return (
        _may_be_scheduled_again(pod)
        and planned_taint.is_in_no_pool(pod.namespace)
        and not pod.node_constraints.tolerates([planned_taint.taint])
    )


def _may_be_scheduled_again(pod: ListedPod) -> bool:
    """Whether a pod or its successor needs a place: not pods that have ended, or run without a controller."""
    if pod.is_mirror or pod.finished:
        return False
    if pod.controller_kind is None:
        return not pod.node
    return pod.controller_kind != "DaemonSet"


def _has_no_other_node(pod: ListedPod, planned_taint: PlannedTaint) -> bool:
    constraints = pod.node_constraints
    if not pod.node and not any(constraints.allows_node(_without_pool_taint(node)) for node in planned_taint.nodes):
        return False  # a pod that fits on no node of the pool has no place there to lose
    return not any(constraints.allows_node(node) for node in planned_taint.other_nodes)


def _without_pool_taint(node: Node) -> Node:
    """Return the node without the pool taint; the pool's other nodes may have it already."""
    return replace(node, taints=tuple(t for t in node.taints if t.key != names.POOL))
