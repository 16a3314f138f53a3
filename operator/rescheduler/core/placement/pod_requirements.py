"""What a pod asks of the node that it is put on: all that decides where the scheduler may put its like.

Equal asks are one object: of 250 pods there are some ten.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from rescheduler.api import names
from rescheduler.core.model import object_schemas
from rescheduler.core.model.resource_requests import Amounts, asked
from rescheduler.core.placement.pod_affinity import UNKNOWN, Labels, Term, terms
from rescheduler.core.placement.topology_spread import Spread, spreads

_OWN = (
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/job-completion-index",
)
"""Labels that tell pods of one owner apart; whoever selects by them asks something that only the scheduler can say."""
_MOST_ASKED = 1000
_PLACING = ("nodeSelector", "affinity", "tolerations", "topologySpreadConstraints")
_SCHEDULER = "default-scheduler"
_TIED_DISKS = ("gcePersistentDisk", "awsElasticBlockStore", "iscsi", "rbd")
_ANY_IP = "0.0.0.0"  # noqa: S104 - what the API means by a host port on all addresses

Port = tuple[str, str, int]
"""Address, protocol and number of a host port."""


@dataclass(frozen=True, eq=False)
class Ask:
    """What one pod asks; equal ones are the same object.

    Attributes:
        labels: without those that tell pods of one owner apart.
        demand: resources.
        where: the parts of its raw spec that `core.placement` reads.
        near, apart: required affinity and anti-affinity to other pods.
        doubt: why only the scheduler can say; empty where the plan can.
    """

    namespace: str
    labels: Labels = field(default_factory=dict)
    demand: Amounts = field(default_factory=dict)
    where: Mapping[str, Any] = field(default_factory=dict)
    ports: tuple[Port, ...] = ()
    spreads: tuple[Spread, ...] = ()
    near: tuple[Term, ...] = ()
    apart: tuple[Term, ...] = ()
    priority: int = 0
    doubt: str = ""

    @cached_property
    def place_key(self) -> str:
        """The same for all that ask for the same nodes."""
        return repr(self.where)


def claims(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the claims that a raw spec mounts."""
    found = (volume.get("persistentVolumeClaim") for volume in spec.get("volumes") or ())
    return tuple(claim["claimName"] for claim in found if claim)


def shared_labels(meta: Mapping[str, Any]) -> dict[str, str]:
    """The labels of a raw pod that all pods of its owner have."""
    return {key: value for key, value in (meta.get("labels") or {}).items() if key not in _OWN}


def ports(spec: Mapping[str, Any]) -> tuple[Port, ...]:
    """Host ports of containers that run as long as the pod."""
    sidecars = (c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always")
    return tuple(
        (port.get("hostIP") or _ANY_IP, port.get("protocol") or "TCP", port["hostPort"])
        for container in (*(spec.get("containers") or ()), *sidecars)
        for port in container.get("ports") or ()
        if port.get("hostPort")
    )


def collide(one: Iterable[Port], other: Iterable[Port]) -> bool:
    """Whether the two cannot share a node."""
    return any(a[1:] == b[1:] and (a[0] == b[0] or _ANY_IP in (a[0], b[0])) for a in one for b in other)


class Asks:
    """Projects raw pods, and gives equal ones the same object."""

    def __init__(self, pools: Mapping[str, str] | None = None) -> None:
        """`pools`: by namespace, the pool that new pods of it are put into at creation."""
        self._pools = pools or {}
        self._known: dict[str, Ask] = {}

    def of(self, raw: Mapping[str, Any]) -> Ask:
        """What the pod's replacement will ask. Raises UnreadableError for what is no pod."""
        raw = object_schemas.pod(raw)
        meta, spec = raw["metadata"], raw["spec"]
        labels = shared_labels(meta)
        parts = [spec.get(name) for name in _PARTS]
        boxes = [
            (c.get("resources"), c.get("restartPolicy"), [p for p in c.get("ports") or () if "hostPort" in p])
            for kind in ("containers", "initContainers")
            for c in spec.get(kind) or ()
        ]
        doubt = _doubt(spec)
        key = repr((meta["namespace"], sorted(labels.items()), len(spec.get("containers") or ()), boxes, parts, doubt))
        if (found := self._known.get(key)) is None:
            found = self._known[key] = _ask(meta["namespace"], labels, spec, doubt, self._pools.get(meta["namespace"]))
        return found


_PARTS = (
    "nodeSelector",
    "affinity",
    "tolerations",
    "topologySpreadConstraints",
    "priority",
    "overhead",
    "resources",
)


def _ask(namespace: str, labels: Labels, spec: Mapping[str, Any], doubt: str, pool: str | None) -> Ask:
    if _is_too_long(spec):
        doubt = doubt or f"it asks more than {_MOST_ASKED} things of its node"
        spec = {key: value for key, value in spec.items() if key not in _PLACING}
    near, apart = terms(spec, namespace, "podAffinity"), terms(spec, namespace, "podAntiAffinity")
    spread = spreads(spec, labels)
    selectors = [found for found in (*(t.selector for t in (*near, *apart)), *(s.selector for s in spread)) if found]
    if not doubt and any(each is UNKNOWN for each in (*selectors, *(t.spaces for t in (*near, *apart)))):
        doubt = "its affinity or spread has a selector that is not known here"
    keys = {key for s in selectors for key in (*s.match_labels, *(r.key for r in s.match_expressions))}
    if not doubt and keys & set(_OWN):
        doubt = "its affinity or spread selects by a label that tells pods of one owner apart"
    return Ask(
        namespace=namespace,
        labels=labels,
        demand=asked(spec),
        where=_where(spec, pool),
        ports=ports(spec),
        spreads=spread,
        near=near,
        apart=apart,
        priority=spec.get("priority") or 0,
        doubt=doubt,
    )


def _is_too_long(spec: Mapping[str, Any]) -> bool:
    """Whether there is so much to look at for each node that a plan would not end in time."""
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    terms_ = (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or ()
    asked_for = sum(len(term.get(kind) or ()) for term in terms_ for kind in ("matchExpressions", "matchFields"))
    rest = (len(spec.get(name) or ()) for name in ("nodeSelector", "tolerations", "topologySpreadConstraints"))
    return len(terms_) + asked_for + sum(rest) > _MOST_ASKED


def _where(spec: Mapping[str, Any], pool: str | None) -> dict[str, Any]:
    """Where the replacement may be put; admission policies put it into its namespace's pool."""
    affinity = (spec.get("affinity") or {}).get("nodeAffinity")
    selector, tolerations = dict(spec.get("nodeSelector") or {}), list(spec.get("tolerations") or ())
    if pool:
        # That of a pool which its namespace was in before is not in its owner's template.
        selector[names.NODE_POOL] = pool
        tolerations.append({"key": names.POOL, "operator": "Equal", "value": pool, "effect": "NoSchedule"})
    found: dict[str, Any] = {"nodeSelector": selector, "tolerations": tolerations}
    return found | ({"affinity": {"nodeAffinity": affinity}} if affinity else {})


def _doubt(spec: Mapping[str, Any]) -> str:
    """Why only the scheduler can say where a pod of this raw spec fits; empty where the plan can."""
    containers = (*(spec.get("containers") or ()), *(spec.get("initContainers") or ()))
    rules = [rule for c in containers for rule in c.get("restartPolicyRules") or ()]
    checks = (
        (spec.get("schedulerName", _SCHEDULER) != _SCHEDULER, f"the scheduler {spec.get('schedulerName')} places it"),
        (bool(spec.get("resourceClaims")), "it has resource claims"),
        (bool(spec.get("schedulingGates")), "it has scheduling gates"),
        (bool(spec.get("workloadRef") or spec.get("schedulingGroup")), "it is scheduled as one of a group"),
        (
            any(disk in volume for volume in spec.get("volumes") or () for disk in _TIED_DISKS),
            "it mounts a disk that is named in its spec",
        ),
        (
            any("ephemeral" in volume for volume in spec.get("volumes") or ()),
            "it has a volume that is provisioned where it is put",
        ),
        (
            any(rule.get("action") == "RestartAllContainers" for rule in rules)
            or (spec.get("hostNetwork") and spec.get("hostUsers") is False)
            or any(mount.get("bindMountOptions") for c in containers for mount in c.get("volumeMounts") or ()),
            "it asks for a feature that nodes declare",
        ),
    )
    return next((why for holds, why in checks if holds), "")
