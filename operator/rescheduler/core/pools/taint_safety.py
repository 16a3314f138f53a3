"""Who would lose its last place by the taint of an exclusive pool.

A NoSchedule taint ends no pod; but a pod that restarts, a DaemonSet's most of all, does not come back past it. While
anything stands to lose so the taint is not set, and what stands to lose is named.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rescheduler.api import names
from rescheduler.core.model import object_schemas
from rescheduler.core.model.node_affinity import may_run_on, selects_node, tolerates
from rescheduler.core.model.nodes import Node, Taint
from rescheduler.core.model.pods import TERMINAL_PHASES
from rescheduler.core.model.volumes import Volume, VolumeClaim
from rescheduler.core.pools.labels_and_taints import pool_taint

_NODE_CONDITION_TAINT_PREFIX = "node.kubernetes.io/"
"""Taints of a node's passing states, which DaemonSets tolerate by themselves."""


@dataclass(frozen=True)
class PlannedTaint:
    """The taint that is to be set.

    Attributes:
        pool: its name.
        nodes: those that are to have it.
        others: all nodes that take pods now and are not among them.
        homeless: whether a namespace is in no pool.
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
    """The taint of this pool on those of its members that are bare; a node that takes no pods is nobody's last place."""
    rows = tuple(nodes)
    others = (
        n for n in rows if n.name not in members and n.ready_status == "True" and not n.unschedulable and not n.deleting
    )
    return PlannedTaint(pool, tuple(n for n in rows if n.name in untainted), tuple(others), is_in_no_pool)


def unschedulable_daemon_sets(raws: Iterable[Mapping[str, Any]], planned_taint: PlannedTaint) -> list[str]:
    """The (raw) DaemonSets that have pods on nodes of the pool and would have none there any more."""
    return [
        f"DaemonSet {raw['metadata']['namespace']}/{raw['metadata']['name']}"
        for raw in map(object_schemas.sanitize_daemon_set, raws)
        if _would_lose_nodes((raw["spec"].get("template") or {}).get("spec") or {}, planned_taint)
    ]


def _would_lose_nodes(spec: Mapping[str, Any], planned_taint: PlannedTaint) -> bool:
    tolerations = spec.get("tolerations") or ()
    if tolerates(tolerations, [planned_taint.taint]):
        return False
    return any(
        selects_node(spec, node) and tolerates(tolerations, _lasting_taints(node)) for node in planned_taint.nodes
    )


def _lasting_taints(node: Node) -> list[Taint]:
    return [t for t in node.taints if not t.key.startswith(_NODE_CONDITION_TAINT_PREFIX) and t.key != names.POOL]


def unschedulable_pods(raws: Iterable[Mapping[str, Any]], planned_taint: PlannedTaint) -> list[str]:
    """Those of these (raw) pods, on the pool's nodes or on none yet, that no other node would take."""
    rows = map(object_schemas.sanitize_pod, raws)
    return [
        _name(raw)
        for raw in rows
        if _is_affected(raw, planned_taint) and _has_no_other_node(raw["spec"], planned_taint)
    ]


def claims_of_affected_pods(
    raws: Iterable[Mapping[str, Any]], planned_taint: PlannedTaint
) -> dict[str, tuple[tuple[str, str], ...]]:
    """Claims (namespace and name) of those of these (raw) pods that could not come back past the taint, by the pod.

    One whose data is on a node of the pool alone has no other place, whatever nodes there are.
    """
    return {
        _name(raw): tuple((raw["metadata"]["namespace"], name) for name in claimed)
        for raw in map(object_schemas.sanitize_pod, raws)
        if (claimed := _claim_names(raw)) and raw["spec"].get("nodeName") and _is_affected(raw, planned_taint)
    }


def pods_with_local_volumes(
    claims_by_pod: Mapping[str, tuple[tuple[str, str], ...]], claims: Iterable[VolumeClaim], volumes: Iterable[Volume]
) -> list[str]:
    """Those of these pods that mount a volume whose data is on one node."""
    local = {volume.name for volume in volumes if volume.local}
    there = {(claim.namespace, claim.name) for claim in claims if claim.volume in local}
    return [pod for pod, mounted_ in claims_by_pod.items() if there.intersection(mounted_)]


def _name(raw: Mapping[str, Any]) -> str:
    return f"pod {raw['metadata']['namespace']}/{raw['metadata']['name']}"


def _claim_names(raw: Mapping[str, Any]) -> list[str]:
    found = (volume.get("persistentVolumeClaim") for volume in raw["spec"].get("volumes") or ())
    return [claim["claimName"] for claim in found if claim]


def _is_affected(raw: Mapping[str, Any], planned_taint: PlannedTaint) -> bool:
    """Whether it wants a place in future, is in no pool, and could not come back past the taint."""
    tolerations = raw["spec"].get("tolerations") or ()
    return (
        _may_be_scheduled_again(raw)
        and planned_taint.is_in_no_pool(raw["metadata"]["namespace"])
        and not tolerates(tolerations, [planned_taint.taint])
    )


def _may_be_scheduled_again(raw: Mapping[str, Any]) -> bool:
    """Whether it, or its like, will want a place: not what has ended, nor what runs and would not be made again."""
    meta = raw["metadata"]
    if names.MIRROR_POD in (meta.get("annotations") or {}) or (raw.get("status") or {}).get("phase") in TERMINAL_PHASES:
        return False
    owner = next((o for o in meta.get("ownerReferences") or () if o.get("controller")), None)
    if owner is None:
        return not raw["spec"].get("nodeName")
    return bool(owner["kind"] != "DaemonSet")


def _has_no_other_node(spec: Mapping[str, Any], planned_taint: PlannedTaint) -> bool:
    if not spec.get("nodeName") and not any(
        may_run_on(spec, _without_pool_taint(node)) for node in planned_taint.nodes
    ):
        return False  # it has no place here to lose
    return not any(may_run_on(spec, node) for node in planned_taint.other_nodes)


def _without_pool_taint(node: Node) -> Node:
    """The node as it is without our taint, which it may have on some of the pool's nodes already."""
    return replace(node, taints=tuple(t for t in node.taints if t.key != names.POOL))


def listing(items: Sequence[str], limit: int = 10) -> str:
    """Who they are, in words."""
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more
