"""Requirements of a pod: the fields that decide on which nodes the scheduler may place it.

Equal requirements are one object: 250 pods of a node usually have about ten.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from rescheduler.core.model import object_schemas
from rescheduler.core.model.node_affinity import NodeConstraints, has_unknown_operator, parse_node_constraints
from rescheduler.core.model.raw import DEFAULT_SCHEDULER, RawMetadata, RawPod, RawPodSpec, required_node_terms
from rescheduler.core.model.resource_requests import ResourceList, requested_resources
from rescheduler.core.placement import messages
from rescheduler.core.placement.pod_affinity import UNKNOWN_SELECTOR, Labels, PodAffinityTerm, required_terms
from rescheduler.core.placement.topology_spread import SpreadConstraint, hard_spread_constraints

_PER_POD_LABELS = (
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/job-completion-index",
)
"""Labels that differ between pods of one owner. If a constraint selects by them, only the scheduler can decide."""
_KUEUE_MANAGED = "kueue.x-k8s.io/managed"
"""Label of pods that Kueue gates at creation. The gate is gone from a pod that runs."""
_SPREAD_VALUES = (
    ("whenUnsatisfiable", ("DoNotSchedule", "ScheduleAnyway")),
    ("nodeAffinityPolicy", ("Honor", "Ignore")),
    ("nodeTaintsPolicy", ("Honor", "Ignore")),
)
_MAX_CONSTRAINTS = 1000
_SCHEDULING_FIELDS = ("nodeSelector", "affinity", "tolerations", "topologySpreadConstraints")
_INLINE_DISK_SOURCES = ("gcePersistentDisk", "awsElasticBlockStore", "iscsi", "rbd")
_ANY_IP = "0.0.0.0"  # noqa: S104 - address of a host port on all addresses in the API

HostPort = tuple[str, str, int]
"""Address, protocol and number of a host port."""


@dataclass(frozen=True, eq=False)
class PodRequirements:
    """Requirements of a pod; equal requirements are the same object.

    Attributes:
        labels: without the labels that differ between pods of one owner.
        requests: requested resources.
        node_constraints: with the pool that admission policies add.
        host_ports: host ports of containers and sidecars.
        spread_constraints: hard topology spread constraints.
        affinity_terms: required affinity to other pods; `anti_affinity_terms`: required anti-affinity.
        unknown_reason: why only the scheduler can decide; None if a plan can decide.
        note: how the pod differs from the one that runs; None if it does not.
    """

    namespace: str
    labels: Labels = field(default_factory=dict)
    requests: ResourceList = field(default_factory=dict)
    node_constraints: NodeConstraints = field(default_factory=NodeConstraints)
    host_ports: tuple[HostPort, ...] = ()
    spread_constraints: tuple[SpreadConstraint, ...] = ()
    affinity_terms: tuple[PodAffinityTerm, ...] = ()
    anti_affinity_terms: tuple[PodAffinityTerm, ...] = ()
    priority: int = 0
    unknown_reason: str | None = None
    note: str | None = None

    @property
    def requests_extended_resource(self) -> bool:
        """Whether the pod requests a resource with a domain, such as `example.com/gpu`."""
        return any("/" in name for name in self.requests)

    @cached_property
    def node_constraints_key(self) -> str:
        """Return a key that is equal for equal node constraints."""
        return repr(self.node_constraints)


def template_labels(meta: RawMetadata) -> dict[str, str]:
    """Return the labels in a raw pod's metadata that all pods of its owner have."""
    return {key: value for key, value in (meta.get("labels") or {}).items() if key not in _PER_POD_LABELS}


def host_ports(spec: RawPodSpec) -> tuple[HostPort, ...]:
    """Return the host ports of containers and sidecars in a raw pod spec."""
    sidecars = (c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always")
    return tuple(
        (port.get("hostIP") or _ANY_IP, port.get("protocol") or "TCP", port["hostPort"])
        for container in (*(spec.get("containers") or ()), *sidecars)
        for port in container.get("ports") or ()
        if port.get("hostPort")
    )


def host_ports_conflict(first: Iterable[HostPort], second: Iterable[HostPort]) -> bool:
    """Whether pods with these host ports cannot share a node."""
    return any(a[1:] == b[1:] and (a[0] == b[0] or _ANY_IP in (a[0], b[0])) for a in first for b in second)


class PodRequirementsParser:
    """Parses raw pods and returns the same object for equal requirements."""

    def __init__(self, pool_by_namespace: Mapping[str, str] | None = None) -> None:
        """`pool_by_namespace`: the pool that admission policies add to new pods of a namespace."""
        self._pool_by_namespace = pool_by_namespace or {}
        self._parsed_by_key: dict[str, PodRequirements] = {}

    def parse(self, raw: RawPod, *, unknown_reason: str | None = None, note: str | None = None) -> PodRequirements:
        """Parse the requirements of a raw pod. Raises UnreadableError without name or namespace.

        `unknown_reason`, `note`: of the successor that this pod is.
        """
        raw = object_schemas.sanitize_pod(raw)
        meta, spec = raw["metadata"], raw["spec"]
        labels = template_labels(meta)
        parts = [spec.get(name) for name in _KEY_FIELDS]
        containers = [
            (c.get("resources"), c.get("restartPolicy"), [p for p in c.get("ports") or () if "hostPort" in p])
            for kind in ("containers", "initContainers")
            for c in spec.get(kind) or ()
        ]
        unknown = (
            unknown_reason or _unknown_reason(spec) or (messages.GATED_BY_KUEUE if _KUEUE_MANAGED in labels else None)
        )
        key = repr(
            (
                meta["namespace"],
                sorted(labels.items()),
                len(spec.get("containers") or ()),
                containers,
                parts,
                unknown,
                note,
            )
        )
        if (requirements := self._parsed_by_key.get(key)) is None:
            requirements = self._parsed_by_key[key] = _parse_requirements(
                meta["namespace"], labels, spec, unknown, self._pool_by_namespace.get(meta["namespace"]), note
            )
        return requirements


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
    namespace: str, labels: Labels, spec: RawPodSpec, unknown_reason: str | None, pool: str | None, note: str | None
) -> PodRequirements:
    if _has_too_many_constraints(spec):
        unknown_reason = unknown_reason or messages.too_many_constraints(_MAX_CONSTRAINTS)
        spec = {key: value for key, value in spec.items() if key not in _SCHEDULING_FIELDS}
    affinity = required_terms(spec, namespace, "podAffinity")
    anti_affinity = required_terms(spec, namespace, "podAntiAffinity")
    terms = (*affinity, *anti_affinity)
    spread = hard_spread_constraints(spec, labels)
    selectors = [
        selector for selector in (*(t.selector for t in terms), *(s.selector for s in spread)) if selector is not None
    ]
    if not unknown_reason and any(
        selector is UNKNOWN_SELECTOR for selector in (*selectors, *(t.namespace_selector for t in terms))
    ):
        unknown_reason = messages.UNKNOWN_POD_SELECTOR
    keys = {key for s in selectors for key in (*s.match_labels, *(r.key for r in s.match_expressions))}
    if not unknown_reason and keys & set(_PER_POD_LABELS):
        unknown_reason = messages.SELECTS_BY_POD_IDENTITY
    return PodRequirements(
        namespace=namespace,
        labels=labels,
        requests=requested_resources(spec),
        node_constraints=_node_constraints(spec, pool),
        host_ports=host_ports(spec),
        spread_constraints=spread,
        affinity_terms=affinity,
        anti_affinity_terms=anti_affinity,
        priority=spec.get("priority") or 0,
        unknown_reason=unknown_reason,
        note=note,
    )


def _has_too_many_constraints(spec: RawPodSpec) -> bool:
    """Whether a raw pod spec has so many constraints for each node that a plan would not end in time."""
    terms = required_node_terms(spec) or ()
    expressions = sum(len(term.get(kind) or ()) for term in terms for kind in ("matchExpressions", "matchFields"))
    lists = (len(spec.get(name) or ()) for name in ("nodeSelector", "tolerations", "topologySpreadConstraints"))
    return len(terms) + expressions + sum(lists) > _MAX_CONSTRAINTS


def _node_constraints(spec: RawPodSpec, pool: str | None) -> NodeConstraints:
    """Return the node constraints of the replacement, with the pool that admission policies add."""
    constraints = parse_node_constraints(spec)
    return constraints.in_pool(pool) if pool else constraints


def _unknown_reason(spec: RawPodSpec) -> str | None:
    """Return why only the scheduler can place a pod of this raw spec; None if a plan can decide."""
    containers = (*(spec.get("containers") or ()), *(spec.get("initContainers") or ()))
    rules = [rule for c in containers for rule in c.get("restartPolicyRules") or ()]
    checks = (
        (
            spec.get("schedulerName", DEFAULT_SCHEDULER) != DEFAULT_SCHEDULER,
            messages.uses_other_scheduler(spec.get("schedulerName", DEFAULT_SCHEDULER)),
        ),
        (bool(spec.get("resourceClaims")), messages.HAS_RESOURCE_CLAIMS),
        (bool(spec.get("schedulingGates")), messages.HAS_SCHEDULING_GATES),
        (has_unknown_operator(required_node_terms(spec)), messages.UNKNOWN_NODE_AFFINITY),
        (_has_unknown_spread_value(spec), messages.UNKNOWN_SPREAD_POLICY),
        (bool(spec.get("workloadRef") or spec.get("schedulingGroup")), messages.SCHEDULED_IN_GROUP),
        (
            any(disk in volume for volume in spec.get("volumes") or () for disk in _INLINE_DISK_SOURCES),
            messages.HAS_INLINE_DISK,
        ),
        (
            any("ephemeral" in volume for volume in spec.get("volumes") or ()),
            messages.HAS_EPHEMERAL_VOLUME,
        ),
        (
            any(rule.get("action") == "RestartAllContainers" for rule in rules)
            or (spec.get("hostNetwork") and spec.get("hostUsers") is False)
            or any(mount.get("bindMountOptions") for c in containers for mount in c.get("volumeMounts") or ()),
            messages.NEEDS_NODE_FEATURE,
        ),
    )
    return next((reason for applies, reason in checks if applies), None)


def _has_unknown_spread_value(spec: RawPodSpec) -> bool:
    return any(
        constraint.get(name, known[0]) not in known
        for constraint in spec.get("topologySpreadConstraints") or ()
        for name, known in _SPREAD_VALUES
    )
