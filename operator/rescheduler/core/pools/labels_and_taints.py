"""Patches of namespaces and nodes for pools: the labels, and the taint of exclusive pools.

A patch has the UID and resourceVersion of the object as last read. Taints are one list, so the API server must refuse
the patch if another party has changed the object since. A patch sets and removes only the pool's own label and taint.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rescheduler.api import names
from rescheduler.core.model.namespaces import Namespace
from rescheduler.core.model.nodes import Node, Taint
from rescheduler.core.model.raw import RawObject

TAINT_EFFECT = "NoSchedule"


@dataclass(frozen=True, slots=True)
class PoolAssignment:
    """The label and taint of a node.

    Attributes:
        pool: the pool of the label; None: no label.
        tainted: whether the node has the taint of the pool.
    """

    pool: str | None = None
    tainted: bool = False


def pool_taint(pool: str) -> Taint:
    """Return the taint that keeps pods of other namespaces off the nodes of an exclusive pool."""
    return Taint(names.POOL, pool, TAINT_EFFECT)


def pool_of_taint(node: Node) -> str | None:
    """Return the pool whose taint the node has; None if it has no such taint."""
    return next((t.value for t in node.taints if (t.key, t.effect) == (names.POOL, TAINT_EFFECT)), None)


def current_assignment(node: Node) -> PoolAssignment:
    """Return the label and taint that the node has now."""
    pool = node.labels.get(names.NODE_POOL)
    return PoolAssignment(pool, tainted=pool_of_taint(node) is not None)


def desired_namespace_pool(
    current: str | None, owner: str | None, *, is_unreadable: Callable[[str], bool]
) -> str | None:
    """Return the pool whose label a namespace should have; None: no label.

    `owner`: the pool that has the namespace. An unreadable pool may have it too, so its label stays without an owner.
    """
    return current if owner is None and current is not None and is_unreadable(current) else owner


def desired_assignment(
    current: PoolAssignment,
    owner: str | None,
    *,
    exclusive: bool,
    enforced: bool | None,
    has_taint: bool,
    is_taint_safe: bool,
    is_unreadable: Callable[[str], bool],
) -> PoolAssignment:
    """Return the label and taint that a node should have.

    `owner`: the pool that has the node, and `exclusive`: whether it is an exclusive pool. `enforced`: whether admission
    enforces pools; None: unknown, and the taint stays as it is. `has_taint`: the node has the taint of the owner.
    `is_taint_safe`: no pod would lose its last place by the taint.
    """
    if owner is None:
        return current if current.pool is not None and is_unreadable(current.pool) else PoolAssignment()
    if not exclusive:
        return PoolAssignment(owner)
    if enforced is None:
        return PoolAssignment(owner, tainted=has_taint)
    return PoolAssignment(owner, tainted=enforced and (is_taint_safe or has_taint))


def namespace_patch(namespace: Namespace, pool: str | None) -> RawObject | None:
    """Return the patch that gives the namespace the label of this pool, or removes it; None if it is right."""
    if namespace.pool == pool:
        return None
    guard = {"resourceVersion": namespace.resource_version, "uid": namespace.uid}
    return {"metadata": {"labels": {names.POOL: pool}, **guard}}


def node_patch(node: Node, assignment: PoolAssignment) -> RawObject | None:
    """Return the patch that gives the node this label and taint; None if it has them."""
    patch: dict[str, Any] = {}
    metadata: dict[str, Any] = {"resourceVersion": node.resource_version, "uid": node.uid}
    if node.labels.get(names.NODE_POOL) != assignment.pool:
        metadata["labels"] = {names.NODE_POOL: assignment.pool}
    wanted = pool_taint(assignment.pool) if assignment.pool and assignment.tainted else None
    pool_taints = [t for t in node.taints if (t.key, t.effect) == (names.POOL, TAINT_EFFECT)]
    if [t.value for t in pool_taints] != ([wanted.value] if wanted else []):
        other_taints = [t.as_json() for t in node.taints if t not in pool_taints]
        patch["spec"] = {"taints": [*other_taints, *([wanted.as_json()] if wanted else [])] or None}
    return patch | {"metadata": metadata} if patch or "labels" in metadata else None
