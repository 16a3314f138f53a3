"""The pods of a cluster, summed by node and by the traits that constraints of other pods select.

The snapshot takes raw pods one by one and must not keep them. Its size grows with the nodes and the different traits,
hardly with the number of pods.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from rescheduler.core.model import object_schemas
from rescheduler.core.model.pods import TERMINAL_PHASES
from rescheduler.core.model.raw import RawPod, claim_names, controller_reference
from rescheduler.core.model.resource_requests import allocated_with_pod
from rescheduler.core.placement.pod_affinity import Labels, PodAffinityTerm, required_terms
from rescheduler.core.placement.pod_requirements import (
    HostPort,
    PodRequirements,
    PodRequirementsParser,
    host_ports,
    template_labels,
)
from rescheduler.core.placement.successors import OwnerTemplate, successor

_KINDS_WITHOUT_POD_IDENTITY = ("ReplicaSet", "Deployment")
"""Controllers of pods without identity. A Deployment is the controller of its released pods."""


@dataclass(frozen=True, eq=False)
class PodTraits:
    """Traits of a running pod that constraints of other pods refer to; equal traits are the same object.

    Attributes:
        labels: without the labels that differ between pods of one owner.
        anti_affinity_terms: its required anti-affinity, which also blocks other pods.
        terminating: whether the pod is Terminating; affinity counts such a pod, topology spread does not.
    """

    namespace: str
    labels: Labels = field(default_factory=dict)
    anti_affinity_terms: tuple[PodAffinityTerm, ...] = ()
    host_ports: tuple[HostPort, ...] = ()
    terminating: bool = False


@dataclass(frozen=True, slots=True)
class ScheduledPod:
    """Pod on a node that a plan empties.

    Attributes:
        key: `namespace/name` of the pod.
        traits: traits of the pod while it runs.
        requirements: requirements of its replacement; `claim_names`: claims of the replacement.
        owner_uid: UID of its controller; empty if it has none.
    """

    key: str
    uid: str
    node: str
    traits: PodTraits
    requirements: PodRequirements
    claim_names: tuple[str, ...] = ()
    owner_uid: str = ""


class PodSnapshot:
    """The pods of a cluster, as plans use them.

    Attributes:
        allocated_by_node: requests of the pods on each node, with their number as resource `pods`.
        node_counts_by_traits: number of pods with these traits, by node.
        pods_by_node: pods of the planned nodes, by node.
        pending: number of pods without a node, by requirements.
        owner_uids_in_transition: UIDs of controllers with a pod that is Terminating or has no node. The node of the
            next pod is not known. Without ReplicaSets and Deployments.
    """

    def __init__(
        self,
        parser: PodRequirementsParser,
        planned_nodes: Collection[str] = (),
        templates: Mapping[str, OwnerTemplate] | None = None,
    ) -> None:
        """Create a snapshot without pods.

        `planned_nodes`: nodes whose pods are kept one by one. `templates`: by UID of the owner; the caller may add
        templates later.
        """
        self.allocated_by_node: dict[str, Counter[str]] = defaultdict(Counter)
        self.node_counts_by_traits: dict[PodTraits, Counter[str]] = defaultdict(Counter)
        self.pods_by_node: dict[str, list[ScheduledPod]] = defaultdict(list)
        self.pending: Counter[PodRequirements] = Counter()
        self.owner_uids_in_transition: set[str] = set()
        self._parser, self._planned_nodes, self._templates = (
            parser,
            planned_nodes,
            {} if templates is None else templates,
        )
        self._traits_by_key: dict[str, PodTraits] = {}

    def add(self, raw: RawPod) -> None:
        """Add a raw pod. Raises UnreadableError without name or namespace."""
        raw = object_schemas.sanitize_pod(raw)
        spec = raw["spec"]
        if raw["status"].get("phase") in TERMINAL_PHASES:
            return
        node, owner = spec.get("nodeName"), controller_reference(raw["metadata"])
        if (
            owner
            and owner["kind"] not in _KINDS_WITHOUT_POD_IDENTITY
            and (not node or "deletionTimestamp" in raw["metadata"])
        ):
            self.owner_uids_in_transition.add(owner["uid"])
        if not node:
            if not spec.get("schedulingGates") and "deletionTimestamp" not in raw["metadata"]:
                self.pending[self._parser.parse(raw)] += 1
            return
        traits, allocated = self._traits(raw), self.allocated_by_node[node]
        for name, value in allocated_with_pod(raw).items():
            allocated[name] += value
        self.node_counts_by_traits[traits][node] += 1
        if node in self._planned_nodes:
            self.pods_by_node[node].append(self._scheduled_pod(raw, traits))

    def scheduled_pod(self, raw: RawPod) -> ScheduledPod:
        """Return a raw pod of a node that is not planned, without counting it. Raises UnreadableError without a name."""
        raw = object_schemas.sanitize_pod(raw)
        return self._scheduled_pod(raw, self._traits(raw))

    def _scheduled_pod(self, raw: RawPod, traits: PodTraits) -> ScheduledPod:
        meta = raw["metadata"]
        key = f"{meta['namespace']}/{meta['name']}"
        owner_uid = (controller_reference(raw["metadata"]) or {}).get("uid", "")
        next_pod = successor(raw, self._templates.get(owner_uid))
        requirements = self._parser.parse(next_pod.raw, unknown_reason=next_pod.unknown_reason, note=next_pod.note)
        claims = claim_names(raw["spec"])
        return ScheduledPod(key, meta.get("uid", ""), raw["spec"]["nodeName"], traits, requirements, claims, owner_uid)

    def _traits(self, raw: RawPod) -> PodTraits:
        meta, spec = raw["metadata"], raw["spec"]
        labels, ports = template_labels(meta), host_ports(spec)
        anti_affinity = (spec.get("affinity") or {}).get("podAntiAffinity")
        terminating = "deletionTimestamp" in meta
        key = repr((meta["namespace"], sorted(labels.items()), anti_affinity, ports, terminating))
        if (traits := self._traits_by_key.get(key)) is None:
            terms = required_terms(spec, meta["namespace"], "podAntiAffinity")
            traits = self._traits_by_key[key] = PodTraits(meta["namespace"], labels, terms, ports, terminating)
        return traits
