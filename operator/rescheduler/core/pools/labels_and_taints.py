"""What pools write on namespaces and nodes, as patches: the labels, and the taint of exclusive ones.

Made from the object as just read, with its UID and resourceVersion: taints are one list, and what others changed
meanwhile makes the patch fail. Only the pool's own label and taint are ever written or taken off.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rescheduler.api import names
from rescheduler.core.model import object_schemas
from rescheduler.core.model.namespaces import Namespace
from rescheduler.core.model.nodes import Node, Taint

Patch = dict[str, Any]
TAINT_EFFECT = "NoSchedule"


@dataclass(frozen=True, slots=True)
class PoolAssignment:
    """What a node should carry: the label of its pool (None: of no pool), and whether strangers are kept off."""

    pool: str | None = None
    tainted: bool = False


def pool_taint(pool: str) -> Taint:
    """What keeps strangers off the nodes of an exclusive pool."""
    return Taint(names.POOL, pool, TAINT_EFFECT)


def pool_of_taint(node: Node) -> str | None:
    """The pool whose taint the node has."""
    return next((t.value for t in node.taints if (t.key, t.effect) == (names.POOL, TAINT_EFFECT)), None)


def current_assignment(node: Node) -> PoolAssignment:
    """What the node carries now."""
    pool = node.labels.get(names.NODE_POOL)
    return PoolAssignment(pool, tainted=pool_of_taint(node) is not None)


def namespace_patch(namespace: Namespace, pool: str | None) -> Patch | None:
    """Label the namespace so; None where it is."""
    if namespace.pool == pool:
        return None
    guard = {"resourceVersion": namespace.resource_version, "uid": namespace.uid}
    return {"metadata": {"labels": {names.POOL: pool}, **guard}}


def node_patch(node: Node, assignment: PoolAssignment) -> Patch | None:
    """Make the node carry this; None where it does."""
    patch: Patch = {}
    metadata: dict[str, Any] = {"resourceVersion": node.resource_version, "uid": node.uid}
    if node.labels.get(names.NODE_POOL) != assignment.pool:
        metadata["labels"] = {names.NODE_POOL: assignment.pool}
    wanted = pool_taint(assignment.pool) if assignment.pool and assignment.tainted else None
    ours = [t for t in node.taints if (t.key, t.effect) == (names.POOL, TAINT_EFFECT)]
    if [t.value for t in ours] != ([wanted.value] if wanted else []):
        kept = [t.as_json() for t in node.taints if t not in ours]
        patch["spec"] = {"taints": [*kept, *([wanted.as_json()] if wanted else [])] or None}
    return patch | {"metadata": metadata} if patch or "labels" in metadata else None


def requires_pool(raw: Mapping[str, Any], pool: str) -> bool:
    """Whether a raw pod can be on no node but those labelled with this pool.

    A kubelet that restarts fails such a pod where the label is gone, and no node would take it again.
    """
    spec = object_schemas.sanitize_unnamed_pod(raw)["spec"]
    if (spec.get("nodeSelector") or {}).get(names.NODE_POOL) == pool:
        return True
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    terms = (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or ()
    return any(
        expression.get("key") == names.NODE_POOL and pool in (expression.get("values") or ())
        for term in terms
        for expression in term.get("matchExpressions") or ()
    )
