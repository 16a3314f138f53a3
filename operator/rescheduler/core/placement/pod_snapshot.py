"""The pods of a cluster in small sums: what each node holds, and what other pods' rules can see of them.

Raw pods are taken in one by one, page after page, and must not be kept: what is left grows with the nodes and with
the kinds of pods, hardly with their number.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from rescheduler.core.model import object_schemas
from rescheduler.core.model.pods import TERMINAL_PHASES
from rescheduler.core.model.quantities import PODS
from rescheduler.core.model.resource_requests import allocated_resources
from rescheduler.core.placement.pod_affinity import Labels, PodAffinityTerm, required_terms
from rescheduler.core.placement.pod_requirements import (
    HostPort,
    PodRequirements,
    PodRequirementsParser,
    claim_names,
    host_ports,
    template_labels,
)

_KINDS_WITHOUT_POD_IDENTITY = ("ReplicaSet", "Deployment")
"""Controllers whose pods have no identity: a Deployment is the controller of its released pods."""


@dataclass(frozen=True, eq=False)
class PodTraits:
    """What other pods can see of a pod; equal ones are the same object.

    Attributes:
        apart: its required anti-affinity: it keeps others off.
        ending: it is Terminating: spread does not count it, affinity does.
    """

    namespace: str
    labels: Labels = field(default_factory=dict)
    anti_affinity_terms: tuple[PodAffinityTerm, ...] = ()
    host_ports: tuple[HostPort, ...] = ()
    terminating: bool = False


@dataclass(frozen=True, slots=True)
class ScheduledPod:
    """A pod on a node that is planned for.

    Attributes:
        presence: what it counts for while it is there.
        ask, claims: what its replacement will ask for.
        owner: uid of its controller; empty: it has none.
    """

    key: str
    uid: str
    node: str
    traits: PodTraits
    requirements: PodRequirements
    claim_names: tuple[str, ...] = ()
    owner_uid: str = ""


class PodSnapshot:
    """Everything that a plan needs to know of pods.

    Attributes:
        used: what the pods on each node hold, `pods` among it.
        places: how many pods of each presence are on which node.
        residents: pods of the nodes that are planned for, by node.
        waiting: pods without a node, by what they ask.
        under_way: uids of the controllers, but for ReplicaSets and Deployments, of pods that are Terminating or have no
            node: where those will be is not known yet.
    """

    def __init__(self, parser: PodRequirementsParser, planned_nodes: Collection[str] = ()) -> None:
        """`planned`: the nodes whose pods are to be known one by one."""
        self.allocated_by_node: dict[str, Counter[str]] = defaultdict(Counter)
        self.node_counts_by_traits: dict[PodTraits, Counter[str]] = defaultdict(Counter)
        self.pods_by_node: dict[str, list[ScheduledPod]] = defaultdict(list)
        self.pending: Counter[PodRequirements] = Counter()
        self.owner_uids_in_transition: set[str] = set()
        self._parser, self._planned_nodes = parser, planned_nodes
        self._traits_by_key: dict[str, PodTraits] = {}

    def add(self, raw: Mapping[str, Any]) -> None:
        """Take a raw pod in. Raises UnreadableError for what is no pod."""
        raw = object_schemas.sanitize_pod(raw)
        spec = raw["spec"]
        if raw["status"].get("phase") in TERMINAL_PHASES:
            return
        node, owner = spec.get("nodeName"), _controller_ref(raw)
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
        presence, used = self._traits(raw), self.allocated_by_node[node]
        for name, value in allocated_resources(raw).items():
            used[name] += value
        used[PODS] += 1
        self.node_counts_by_traits[presence][node] += 1
        if node in self._planned_nodes:
            self.pods_by_node[node].append(self._scheduled_pod(raw, presence))

    def _scheduled_pod(self, raw: Mapping[str, Any], traits: PodTraits) -> ScheduledPod:
        meta = raw["metadata"]
        key = f"{meta['namespace']}/{meta['name']}"
        ask, mounted = self._parser.parse(raw), claim_names(raw["spec"])
        owner = (_controller_ref(raw) or {}).get("uid", "")
        return ScheduledPod(key, meta.get("uid", ""), raw["spec"]["nodeName"], traits, ask, mounted, owner)

    def _traits(self, raw: Mapping[str, Any]) -> PodTraits:
        meta, spec = raw["metadata"], raw["spec"]
        labels, bound = template_labels(meta), host_ports(spec)
        repels = (spec.get("affinity") or {}).get("podAntiAffinity")
        ending = "deletionTimestamp" in meta
        key = repr((meta["namespace"], sorted(labels.items()), repels, bound, ending))
        if (found := self._traits_by_key.get(key)) is None:
            apart = required_terms(spec, meta["namespace"], "podAntiAffinity")
            found = self._traits_by_key[key] = PodTraits(meta["namespace"], labels, apart, bound, ending)
        return found


def _controller_ref(raw: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The controller that a raw pod names."""
    return next((o for o in raw["metadata"].get("ownerReferences") or () if o.get("controller")), None)
