"""Who would lose its last place by the taint of an exclusive pool.

A NoSchedule taint ends no pod; but a pod that restarts, a DaemonSet's most of all, does not come back past it. While
anything stands to lose so the taint is not set, and what stands to lose is named.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rescheduler.api import names
from rescheduler.core.model import object_schemas
from rescheduler.core.model.node_affinity import may_run_on, selects, tolerates
from rescheduler.core.model.nodes import Node, Taint
from rescheduler.core.model.pods import FINISHED
from rescheduler.core.model.volumes import Claim, Volume
from rescheduler.core.pools.labels_and_taints import taint

_TRANSIENT = "node.kubernetes.io/"
"""Taints of a node's passing states, which DaemonSets tolerate by themselves."""


@dataclass(frozen=True)
class Exclusion:
    """The taint that is to be set.

    Attributes:
        pool: its name.
        nodes: those that are to have it.
        others: all nodes that take pods now and are not among them.
        homeless: whether a namespace is in no pool.
    """

    pool: str
    nodes: tuple[Node, ...]
    others: tuple[Node, ...]
    homeless: Callable[[str], bool]

    @property
    def taint(self) -> Taint:
        """The taint itself."""
        return taint(self.pool)


def exclusion(
    pool: str, bare: Collection[str], members: Collection[str], nodes: Iterable[Node], homeless: Callable[[str], bool]
) -> Exclusion:
    """The taint of this pool on those of its members that are bare; a node that takes no pods is nobody's last place."""
    rows = tuple(nodes)
    others = (n for n in rows if n.name not in members and n.ready == "True" and not n.unschedulable and not n.deleting)
    return Exclusion(pool, tuple(n for n in rows if n.name in bare), tuple(others), homeless)


def daemon_sets(raws: Iterable[Mapping[str, Any]], exclusion: Exclusion) -> list[str]:
    """The (raw) DaemonSets that have pods on nodes of the pool and would have none there any more."""
    return [
        f"DaemonSet {raw['metadata']['namespace']}/{raw['metadata']['name']}"
        for raw in map(object_schemas.daemon_set, raws)
        if _loses_pods((raw["spec"].get("template") or {}).get("spec") or {}, exclusion)
    ]


def _loses_pods(spec: Mapping[str, Any], exclusion: Exclusion) -> bool:
    tolerations = spec.get("tolerations") or ()
    if tolerates(tolerations, [exclusion.taint]):
        return False
    return any(selects(spec, node) and tolerates(tolerations, _lasting(node)) for node in exclusion.nodes)


def _lasting(node: Node) -> list[Taint]:
    return [t for t in node.taints if not t.key.startswith(_TRANSIENT) and t.key != names.POOL]


def pods(raws: Iterable[Mapping[str, Any]], exclusion: Exclusion) -> list[str]:
    """Those of these (raw) pods, on the pool's nodes or on none yet, that no other node would take."""
    rows = map(object_schemas.pod, raws)
    return [_name(raw) for raw in rows if _is_concerned(raw, exclusion) and _loses_place(raw["spec"], exclusion)]


def mounted(raws: Iterable[Mapping[str, Any]], exclusion: Exclusion) -> dict[str, tuple[tuple[str, str], ...]]:
    """Claims (namespace and name) of those of these (raw) pods that could not come back past the taint, by the pod.

    One whose data is on a node of the pool alone has no other place, whatever nodes there are.
    """
    return {
        _name(raw): tuple((raw["metadata"]["namespace"], name) for name in claimed)
        for raw in map(object_schemas.pod, raws)
        if (claimed := _claims(raw)) and raw["spec"].get("nodeName") and _is_concerned(raw, exclusion)
    }


def tied(
    mounts: Mapping[str, tuple[tuple[str, str], ...]], claims: Iterable[Claim], volumes: Iterable[Volume]
) -> list[str]:
    """Those of these pods that mount a volume whose data is on one node."""
    local = {volume.name for volume in volumes if volume.local}
    there = {(claim.namespace, claim.name) for claim in claims if claim.volume in local}
    return [pod for pod, mounted_ in mounts.items() if there.intersection(mounted_)]


def _name(raw: Mapping[str, Any]) -> str:
    return f"pod {raw['metadata']['namespace']}/{raw['metadata']['name']}"


def _claims(raw: Mapping[str, Any]) -> list[str]:
    found = (volume.get("persistentVolumeClaim") for volume in raw["spec"].get("volumes") or ())
    return [claim["claimName"] for claim in found if claim]


def _is_concerned(raw: Mapping[str, Any], exclusion: Exclusion) -> bool:
    """Whether it wants a place in future, is in no pool, and could not come back past the taint."""
    tolerations = raw["spec"].get("tolerations") or ()
    return (
        _comes_back(raw)
        and exclusion.homeless(raw["metadata"]["namespace"])
        and not tolerates(tolerations, [exclusion.taint])
    )


def _comes_back(raw: Mapping[str, Any]) -> bool:
    """Whether it, or its like, will want a place: not what has ended, nor what runs and would not be made again."""
    meta = raw["metadata"]
    if names.MIRROR in (meta.get("annotations") or {}) or (raw.get("status") or {}).get("phase") in FINISHED:
        return False
    owner = next((o for o in meta.get("ownerReferences") or () if o.get("controller")), None)
    if owner is None:
        return not raw["spec"].get("nodeName")
    return bool(owner["kind"] != "DaemonSet")


def _loses_place(spec: Mapping[str, Any], exclusion: Exclusion) -> bool:
    if not spec.get("nodeName") and not any(may_run_on(spec, _without(node)) for node in exclusion.nodes):
        return False  # it has no place here to lose
    return not any(may_run_on(spec, node) for node in exclusion.others)


def _without(node: Node) -> Node:
    """The node as it is without our taint, which it may have on some of the pool's nodes already."""
    return replace(node, taints=tuple(t for t in node.taints if t.key != names.POOL))


def summary(lost: Sequence[str], most: int = 10) -> str:
    """Who they are, in words."""
    more = f" and {len(lost) - most} more" if len(lost) > most else ""
    return ", ".join(lost[:most]) + more
