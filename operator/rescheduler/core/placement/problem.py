"""What stands still while a plan is made: which nodes could take which pods, and what already keeps them off.

Pods that ask the same are one group, and are told apart nowhere: of 250 pods there are some ten groups.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rescheduler.core.model import node_affinity
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.volume_topology import ClusterVolumes, VolumeTopology
from rescheduler.core.placement.node_snapshot import NodeSnapshot
from rescheduler.core.placement.pod_affinity import Labels
from rescheduler.core.placement.pod_requirements import PodRequirements
from rescheduler.core.placement.pod_snapshot import PodSnapshot, PodTraits, ScheduledPod

VOLUME_TOPOLOGY_CONFLICT = "out of reach of its volume"
_MAX_COMPETING_GROUPS = 200  # kinds of pods; with more that wait there is no room for any
BLOCKED_BY_PODS = "kept off by affinity, anti-affinity, spread or host ports of other pods"


@dataclass(frozen=True, slots=True)
class PlacementInput:
    """What a plan is made on.

    Attributes:
        closed: nodes that take no pod although they may look as if they did: drained now, or about to be.
        rivals: pods that need a place too, and may have it first.
        spaces: labels of namespaces by name, where a term asks for them.
        floor: of these nodes and this census, where several plans are made on it; None: it is worked out for each.
    """

    nodes: Mapping[str, Node]
    pod_snapshot: PodSnapshot
    excluded_nodes: Collection[str] = ()
    competing_pods: Mapping[PodRequirements, int] = field(default_factory=dict)
    namespace_labels: Mapping[str, Labels] = field(default_factory=dict)
    cluster_volumes: ClusterVolumes = field(default_factory=ClusterVolumes)
    node_snapshot: NodeSnapshot | None = None


@dataclass(slots=True)
class SpreadDomains:
    """One spread constraint of a group, on these nodes.

    Attributes:
        of: the domain of each node that counts, by the node's index.
        filled: pods that count, by domain.
    """

    domain_by_node: Mapping[int, str]
    pods_by_domain: Counter[str]


@dataclass(slots=True, eq=False)
class EquivalenceGroup:
    """Pods that ask the same and have their data in the same places.

    Attributes:
        members: which of the pods that need a place; `rivals`: how many more may have one first.
        need: how much of which resource, by its index.
        sure: nodes that take one if they have room; `maybe`: those of which only the scheduler knows, too.
        lost: how many nodes take none whatever room they have, by the reason.
        domains: of its spread constraints, in their order.
        near: pods that its affinity asks for, by label of nodes and value.
        meets_itself: it is what its own affinity asks for.
        fills: placed, it counts for these constraints of these groups.
        blocks: placed, it keeps these groups off the nodes with the same value of a label; None: off its node.
        draws: placed, it is what the affinity of these groups asks for.
    """

    requirements: PodRequirements
    volume_topologies: frozenset[VolumeTopology]
    unknown_reason: str
    pod_indexes: list[int] = field(default_factory=list)
    competing_count: int = 0
    requests: tuple[tuple[int, int], ...] = ()
    certain_nodes: list[int] = field(default_factory=list)
    possible_nodes: list[int] = field(default_factory=list)
    rejected_by_reason: Counter[str] = field(default_factory=Counter)
    spread_domains: list[SpreadDomains] = field(default_factory=list)
    affinity_counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    matches_own_affinity: bool = False
    counted_by_constraints: list[tuple["EquivalenceGroup", int]] = field(default_factory=list)
    blocked_groups: list[tuple[str | None, "EquivalenceGroup"]] = field(default_factory=list)
    attracted_groups: list["EquivalenceGroup"] = field(default_factory=list)

    def restrict_nodes(self, nodes: list[int]) -> None:
        """Keep these nodes alone."""
        if self.certain_nodes is self.possible_nodes:
            self.certain_nodes = self.possible_nodes = nodes
        else:
            left = set(nodes)
            self.possible_nodes, self.certain_nodes = nodes, [n for n in self.certain_nodes if n in left]


class PlacementProblem:
    """Groups and nodes of one plan; nothing of it changes once it is made.

    Attributes:
        homes: where the pods are that need a place; `closed`: these, and all others that take no pods.
    """

    def __init__(self, inputs: PlacementInput, pods_to_place: Sequence[ScheduledPod]) -> None:
        """`leaving`: the pods that need a place; their nodes take none."""
        self.inputs, self.node_snapshot = (
            inputs,
            inputs.node_snapshot or NodeSnapshot(inputs.nodes, inputs.pod_snapshot),
        )
        self.nodes, self.resource_names = self.node_snapshot.nodes, self.node_snapshot.resource_names
        self.allocatable, self.free = self.node_snapshot.allocatable, self.node_snapshot.free
        self.source_nodes = {resident.node for resident in pods_to_place}
        self.excluded_nodes = {*inputs.excluded_nodes, *self.source_nodes}
        self.groups = _group_pods(pods_to_place, inputs)
        self._excluded_indexes = {
            self.node_snapshot.index_by_name[name]
            for name in self.excluded_nodes
            if name in self.node_snapshot.index_by_name
        }
        self._leaving_by_traits: dict[PodTraits, Counter[str]] = defaultdict(Counter)
        for resident in pods_to_place:
            self._leaving_by_traits[resident.traits][resident.node] += 1
        self._volumes_by_driver = Counter(
            r.csi_driver for group in self.groups for r in group.volume_topologies for _ in group.pod_indexes
        )
        self._allowed_nodes: dict[str, list[int]] = {}
        for group in self.groups:
            self._find_candidate_nodes(group)

    def remaining_by_node(self, traits: PodTraits) -> Iterator[tuple[int, int]]:
        """Nodes with pods of this presence that stay, and how many."""
        gone = self._leaving_by_traits.get(traits) or Counter()
        for name, count in self.inputs.pod_snapshot.node_counts_by_traits[traits].items():
            left = count - gone[name]
            if left > 0 and name in self.node_snapshot.index_by_name:
                yield self.node_snapshot.index_by_name[name], left

    def _find_candidate_nodes(self, group: EquivalenceGroup) -> None:
        """Find out which nodes could take one of the group as things are."""
        index = {kind: k for k, kind in enumerate(self.resource_names)}
        unknown = sorted(name for name in group.requirements.requests if name not in index)
        if unknown and not group.unknown_reason:
            group.unknown_reason = f"no node offers {', '.join(unknown)}: a device driver may"
        known = ((name, value) for name, value in group.requirements.requests.items() if name in index)
        group.requests = ((0, 1), *((index[name], value) for name, value in known))
        group.possible_nodes = group.certain_nodes = self.allowed_nodes(group.requirements)
        if group.volume_topologies:
            found = [
                n
                for n in group.possible_nodes
                if all(reach.is_accessible_from(self.nodes[n]) for reach in group.volume_topologies)
            ]
            group.rejected_by_reason[VOLUME_TOPOLOGY_CONFLICT] += len(group.possible_nodes) - len(found)
            crowded = self.inputs.cluster_volumes.exceeds_attach_limit
            group.possible_nodes = found
            group.certain_nodes = [
                n for n in found if not crowded(group.volume_topologies, self.nodes[n].name, self._volumes_by_driver)
            ]

    def allowed_nodes(self, requirements: PodRequirements) -> list[int]:
        """Nodes that a pod of this ask may be put on by name, labels and taints."""
        key = requirements.node_constraints_key
        if key not in self._allowed_nodes:
            self._allowed_nodes[key] = [
                n for n in self.node_snapshot.eligible_nodes(requirements) if n not in self._excluded_indexes
            ]
        return self._allowed_nodes[key]

    def filter_by_free_resources(self, nodes: Sequence[int], group: EquivalenceGroup) -> Sequence[int]:
        """Those of the nodes that have room for one of the group as things are."""
        free = self.free
        for kind, amount in group.requests:
            nodes = [n for n in nodes if free[n][kind] >= amount]
        return nodes

    def is_tolerated(self, node_index: int, requirements: PodRequirements) -> bool:
        """Whether the node's taints let these pods in, its cordon's among them."""
        node, tolerations = self.nodes[node_index], requirements.node_constraints["tolerations"]
        cordoned = node.unschedulable or node_index in self._excluded_indexes
        if cordoned and not node_affinity.tolerates_cordon(tolerations):
            return False
        return not node.taints or node_affinity.tolerates(tolerations, node.taints)


def _group_pods(pods_to_place: Sequence[ScheduledPod], inputs: PlacementInput) -> list[EquivalenceGroup]:
    found: dict[tuple[PodRequirements, frozenset[VolumeTopology], str], EquivalenceGroup] = {}
    for position, resident in enumerate(pods_to_place):
        reaches, doubt = inputs.cluster_volumes.topologies_of(resident.requirements.namespace, resident.claim_names)
        key = (resident.requirements, reaches, doubt)
        group = found.get(key) or found.setdefault(
            key, EquivalenceGroup(resident.requirements, reaches, resident.requirements.unknown_reason or doubt)
        )
        group.pod_indexes.append(position)
    for ask, count in Counter(inputs.competing_pods).most_common(_MAX_COMPETING_GROUPS):
        key = (ask, frozenset(), "")
        group = found.get(key) or found.setdefault(key, EquivalenceGroup(ask, frozenset(), ask.unknown_reason))
        group.competing_count += count
    return list(found.values())
