"""What a pod asks of the node that it is put on: all that decides where the scheduler may put its like.

Equal asks are one object: of 250 pods there are some ten.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from rescheduler.api import names
from rescheduler.core.model import object_schemas
from rescheduler.core.model.resource_requests import ResourceList, requested_resources
from rescheduler.core.placement.pod_affinity import UNKNOWN_SELECTOR, Labels, PodAffinityTerm, required_terms
from rescheduler.core.placement.topology_spread import SpreadConstraint, hard_spread_constraints

_PER_POD_LABELS = (
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/job-completion-index",
)
"""Labels that tell pods of one owner apart; whoever selects by them asks something that only the scheduler can say."""
_MAX_CONSTRAINTS = 1000
_SCHEDULING_FIELDS = ("nodeSelector", "affinity", "tolerations", "topologySpreadConstraints")
_DEFAULT_SCHEDULER = "default-scheduler"
_INLINE_DISK_SOURCES = ("gcePersistentDisk", "awsElasticBlockStore", "iscsi", "rbd")
_ANY_IP = "0.0.0.0"  # noqa: S104 - what the API means by a host port on all addresses

HostPort = tuple[str, str, int]
"""Address, protocol and number of a host port."""


@dataclass(frozen=True, eq=False)
class PodRequirements:
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
    requests: ResourceList = field(default_factory=dict)
    node_constraints: Mapping[str, Any] = field(default_factory=dict)
    host_ports: tuple[HostPort, ...] = ()
    spread_constraints: tuple[SpreadConstraint, ...] = ()
    affinity_terms: tuple[PodAffinityTerm, ...] = ()
    anti_affinity_terms: tuple[PodAffinityTerm, ...] = ()
    priority: int = 0
    unknown_reason: str = ""

    @cached_property
    def node_constraints_key(self) -> str:
        """The same for all that ask for the same nodes."""
        return repr(self.node_constraints)


def claim_names(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the claims that a raw spec mounts."""
    found = (volume.get("persistentVolumeClaim") for volume in spec.get("volumes") or ())
    return tuple(claim["claimName"] for claim in found if claim)


def template_labels(meta: Mapping[str, Any]) -> dict[str, str]:
    """The labels of a raw pod that all pods of its owner have."""
    return {key: value for key, value in (meta.get("labels") or {}).items() if key not in _PER_POD_LABELS}


def host_ports(spec: Mapping[str, Any]) -> tuple[HostPort, ...]:
    """Host ports of containers that run as long as the pod."""
    sidecars = (c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always")
    return tuple(
        (port.get("hostIP") or _ANY_IP, port.get("protocol") or "TCP", port["hostPort"])
        for container in (*(spec.get("containers") or ()), *sidecars)
        for port in container.get("ports") or ()
        if port.get("hostPort")
    )


def host_ports_conflict(first: Iterable[HostPort], second: Iterable[HostPort]) -> bool:
    """Whether the two cannot share a node."""
    return any(a[1:] == b[1:] and (a[0] == b[0] or _ANY_IP in (a[0], b[0])) for a in first for b in second)


class PodRequirementsParser:
    """Projects raw pods, and gives equal ones the same object."""

    def __init__(self, pool_by_namespace: Mapping[str, str] | None = None) -> None:
        """`pools`: by namespace, the pool that new pods of it are put into at creation."""
        self._pool_by_namespace = pool_by_namespace or {}
        self._parsed_by_key: dict[str, PodRequirements] = {}

    def parse(self, raw: Mapping[str, Any]) -> PodRequirements:
        """What the pod's replacement will ask. Raises UnreadableError for what is no pod."""
        raw = object_schemas.sanitize_pod(raw)
        meta, spec = raw["metadata"], raw["spec"]
        labels = template_labels(meta)
        parts = [spec.get(name) for name in _KEY_FIELDS]
        boxes = [
            (c.get("resources"), c.get("restartPolicy"), [p for p in c.get("ports") or () if "hostPort" in p])
            for kind in ("containers", "initContainers")
            for c in spec.get(kind) or ()
        ]
        doubt = _unknown_reason(spec)
        key = repr((meta["namespace"], sorted(labels.items()), len(spec.get("containers") or ()), boxes, parts, doubt))
        if (found := self._parsed_by_key.get(key)) is None:
            found = self._parsed_by_key[key] = _parse_requirements(
                meta["namespace"], labels, spec, doubt, self._pool_by_namespace.get(meta["namespace"])
            )
        return found


_KEY_FIELDS = (
    "nodeSelector",
    "affinity",
    "tolerations",
    "topologySpreadConstraints",
    "priority",
    "overhead",
    "resources",
)


def _parse_requirements(
    namespace: str, labels: Labels, spec: Mapping[str, Any], unknown_reason: str, pool: str | None
) -> PodRequirements:
    if _has_too_many_constraints(spec):
        unknown_reason = unknown_reason or f"it asks more than {_MAX_CONSTRAINTS} things of its node"
        spec = {key: value for key, value in spec.items() if key not in _SCHEDULING_FIELDS}
    near, apart = required_terms(spec, namespace, "podAffinity"), required_terms(spec, namespace, "podAntiAffinity")
    spread = hard_spread_constraints(spec, labels)
    selectors = [found for found in (*(t.selector for t in (*near, *apart)), *(s.selector for s in spread)) if found]
    if not unknown_reason and any(
        each is UNKNOWN_SELECTOR for each in (*selectors, *(t.namespace_selector for t in (*near, *apart)))
    ):
        unknown_reason = "its affinity or spread has a selector that is not known here"
    keys = {key for s in selectors for key in (*s.match_labels, *(r.key for r in s.match_expressions))}
    if not unknown_reason and keys & set(_PER_POD_LABELS):
        unknown_reason = "its affinity or spread selects by a label that tells pods of one owner apart"
    return PodRequirements(
        namespace=namespace,
        labels=labels,
        requests=requested_resources(spec),
        node_constraints=_node_constraints(spec, pool),
        host_ports=host_ports(spec),
        spread_constraints=spread,
        affinity_terms=near,
        anti_affinity_terms=apart,
        priority=spec.get("priority") or 0,
        unknown_reason=unknown_reason,
    )


def _has_too_many_constraints(spec: Mapping[str, Any]) -> bool:
    """Whether there is so much to look at for each node that a plan would not end in time."""
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    terms_ = (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or ()
    asked_for = sum(len(term.get(kind) or ()) for term in terms_ for kind in ("matchExpressions", "matchFields"))
    rest = (len(spec.get(name) or ()) for name in ("nodeSelector", "tolerations", "topologySpreadConstraints"))
    return len(terms_) + asked_for + sum(rest) > _MAX_CONSTRAINTS


def _node_constraints(spec: Mapping[str, Any], pool: str | None) -> dict[str, Any]:
    """Where the replacement may be put; admission policies put it into its namespace's pool."""
    affinity = (spec.get("affinity") or {}).get("nodeAffinity")
    selector, tolerations = dict(spec.get("nodeSelector") or {}), list(spec.get("tolerations") or ())
    if pool:
        # That of a pool which its namespace was in before is not in its owner's template.
        selector[names.NODE_POOL] = pool
        tolerations.append({"key": names.POOL, "operator": "Equal", "value": pool, "effect": "NoSchedule"})
    found: dict[str, Any] = {"nodeSelector": selector, "tolerations": tolerations}
    return found | ({"affinity": {"nodeAffinity": affinity}} if affinity else {})


def _unknown_reason(spec: Mapping[str, Any]) -> str:
    """Why only the scheduler can say where a pod of this raw spec fits; empty where the plan can."""
    containers = (*(spec.get("containers") or ()), *(spec.get("initContainers") or ()))
    rules = [rule for c in containers for rule in c.get("restartPolicyRules") or ()]
    checks = (
        (
            spec.get("schedulerName", _DEFAULT_SCHEDULER) != _DEFAULT_SCHEDULER,
            f"the scheduler {spec.get('schedulerName')} places it",
        ),
        (bool(spec.get("resourceClaims")), "it has resource claims"),
        (bool(spec.get("schedulingGates")), "it has scheduling gates"),
        (bool(spec.get("workloadRef") or spec.get("schedulingGroup")), "it is scheduled as one of a group"),
        (
            any(disk in volume for volume in spec.get("volumes") or () for disk in _INLINE_DISK_SOURCES),
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
