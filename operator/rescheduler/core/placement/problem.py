"""The fixed part of a plan: groups of pods to place, nodes that may take them, and constraints of pods that stay.

Pods with equal requirements are one group, and a plan counts them only: 250 pods usually form about ten groups.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rescheduler.core.model.nodes import Node
from rescheduler.core.model.resource_fit import RequestVector, request_vector
from rescheduler.core.model.resource_requests import ResourceList
from rescheduler.core.model.volume_topology import ClusterVolumes, VolumeTopology
from rescheduler.core.placement import messages
from rescheduler.core.placement.node_snapshot import NodeSnapshot
from rescheduler.core.placement.pod_affinity import Labels
from rescheduler.core.placement.pod_requirements import PodRequirements
from rescheduler.core.placement.pod_snapshot import PodSnapshot, PodTraits, ScheduledPod

_MAX_COMPETING_GROUPS = 200  # groups of pending pods; with more, the cluster has no free capacity


@dataclass(frozen=True, slots=True)
class MovablePod:
    """Pod of a node that is not drained. A chain move may move it to another node, so that a pod without room fits.

    Attributes:
        pod: the pod, with the requirements of its replacement.
        allocated: what becomes free on its node when the pod leaves, with 1 of the resource `pods`.
    """

    pod: ScheduledPod
    allocated: ResourceList


@dataclass(frozen=True, slots=True)
class ChainStage:
    """Chain moves that a plan includes: pods of other nodes that move first.

    Attributes:
        moving: the pods that move, by uid; they are among the pods to place.
        have_left: whether their old places are free; otherwise only their new places count.
        turns: of pods, by uid: pods with a lower turn come to the scheduler first; all other pods have turn 0.
    """

    moving: Mapping[str, MovablePod] = field(default_factory=dict)
    have_left: bool = False
    turns: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PlacementInput:
    """Input of a plan.

    Attributes:
        excluded_nodes: nodes that take no pods although they are not cordoned yet: their drain has started or is due.
        competing_pods: number of pending pods by requirements; the scheduler may place them first.
        namespace_labels: labels by name of the namespace, if an affinity term selects namespaces by labels.
        cluster_volumes: claims and volumes of the pods to place.
        device_resources: extended resources that a DeviceClass may serve on nodes that do not offer them.
        node_snapshot: shared by several plans on the same nodes and pods; None: the plan builds its own.
        chain: chain moves that the plan includes.
    """

    nodes: Mapping[str, Node]
    pod_snapshot: PodSnapshot
    excluded_nodes: Collection[str] = ()
    competing_pods: Mapping[PodRequirements, int] = field(default_factory=dict)
    namespace_labels: Mapping[str, Labels] = field(default_factory=dict)
    cluster_volumes: ClusterVolumes = field(default_factory=ClusterVolumes)
    device_resources: Collection[str] = frozenset()
    node_snapshot: NodeSnapshot | None = None
    chain: ChainStage = field(default_factory=ChainStage)


@dataclass(slots=True)
class SpreadDomains:
    """Topology domains of one spread constraint of a group.

    Attributes:
        domain_by_node: domain of each node that counts, by index of the node.
        pods_by_domain: number of running pods that count, by domain.
    """

    domain_by_node: Mapping[int, str]
    pods_by_domain: Counter[str]


@dataclass(slots=True, eq=False)
class EquivalenceGroup:
    """Pods with equal requirements and equal volume topologies.

    Attributes:
        unknown_reason: why only the scheduler can decide; None if the plan can decide.
        left_node: node that takes no pod of the group, because a chain move takes the pod away from it; empty if none.
        pod_indexes: indexes of its pods in the list of pods to place.
        competing_count: number of pending pods of this group, which the scheduler may place first.
        requests: what one pod takes of a node, by the index of the resource.
        certain_nodes: nodes that take one pod if they have room.
        possible_nodes: `certain_nodes`, and nodes for which only the scheduler can decide.
        rejected_by_reason: number of nodes that take no pod whatever room they have, by reason.
        spread_domains: domains of its spread constraints, in their order.
        affinity_counts: number of running pods that its affinity selects, by topology key and value.
        matches_own_affinity: whether its affinity selects its own pods.
        counted_by_constraints: pairs of a group and the index of a spread constraint that counts pods of this group.
        blocked_groups: pairs of a topology key and a group. A pod of this group blocks that group on all nodes with
            the same value; None for the key: on its own node.
        attracted_groups: groups whose affinity selects pods of this group.
    """

    requirements: PodRequirements
    volume_topologies: frozenset[VolumeTopology]
    unknown_reason: str | None
    left_node: str = ""
    pod_indexes: list[int] = field(default_factory=list)
    competing_count: int = 0
    requests: RequestVector = ()
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
        """Keep only these nodes."""
        if self.certain_nodes is self.possible_nodes:
            self.certain_nodes = self.possible_nodes = nodes
        else:
            allowed = set(nodes)
            self.possible_nodes, self.certain_nodes = nodes, [n for n in self.certain_nodes if n in allowed]


class PlacementProblem:
    """Groups and nodes of one plan. Scheduling runs do not change it.

    Attributes:
        source_nodes: names of the nodes that are emptied.
        turns: place of each pod to place in the order, by its index.
        excluded_nodes: names of the source nodes and of all other nodes that take no pods.
    """

    def __init__(self, inputs: PlacementInput, pods_to_place: Sequence[ScheduledPod]) -> None:
        """`pods_to_place`: the displaced pods; their nodes take no pods, except for nodes of chain moves."""
        self.inputs, self.node_snapshot = (
            inputs,
            inputs.node_snapshot or NodeSnapshot(inputs.nodes, inputs.pod_snapshot),
        )
        self.nodes, self.resource_names = self.node_snapshot.nodes, self.node_snapshot.resource_names
        self.allocatable, self.free = self.node_snapshot.allocatable, self._free_resources()
        self.source_nodes = {pod.node for pod in pods_to_place if pod.uid not in inputs.chain.moving}
        self.turns = [inputs.chain.turns.get(pod.uid, 0) for pod in pods_to_place]
        self.excluded_nodes = {*inputs.excluded_nodes, *self.source_nodes}
        self.groups = _group_pods(pods_to_place, inputs)
        self._excluded_indexes = {
            self.node_snapshot.index_by_name[name]
            for name in self.excluded_nodes
            if name in self.node_snapshot.index_by_name
        }
        self._leaving_by_traits: dict[PodTraits, Counter[str]] = defaultdict(Counter)
        for pod in pods_to_place:
            if inputs.chain.have_left or pod.uid not in inputs.chain.moving:
                self._leaving_by_traits[pod.traits][pod.node] += 1
        self._volumes_by_driver = Counter(
            topology.csi_driver
            for group in self.groups
            for topology in group.volume_topologies
            for _ in group.pod_indexes
        )
        self._allowed_nodes: dict[str, list[int]] = {}
        for group in self.groups:
            self._find_candidate_nodes(group)

    def _free_resources(self) -> list[list[int]]:
        """Return the free amounts of each node, after chain moves have left."""
        free, chain = self.node_snapshot.free, self.inputs.chain
        if not chain.have_left or not chain.moving:
            return free
        free = list(free)
        for movable in chain.moving.values():
            n = self.node_snapshot.index_by_name[movable.pod.node]
            free[n] = [
                amount + movable.allocated.get(kind, 0)
                for amount, kind in zip(free[n], self.resource_names, strict=True)
            ]
        return free

    def remaining_by_node(self, traits: PodTraits) -> Iterator[tuple[int, int]]:
        """Yield the index of each node with pods of these traits that stay, and their number."""
        leaving = self._leaving_by_traits.get(traits) or Counter()
        for name, count in self.inputs.pod_snapshot.node_counts_by_traits[traits].items():
            remaining = count - leaving[name]
            if remaining > 0 and name in self.node_snapshot.index_by_name:
                yield self.node_snapshot.index_by_name[name], remaining

    def _find_candidate_nodes(self, group: EquivalenceGroup) -> None:
        """Set the nodes that may take a pod of the group, by node constraints and volumes."""
        index = {kind: k for k, kind in enumerate(self.resource_names)}
        not_offered = sorted(name for name in group.requirements.requests if name not in index)
        group.unknown_reason = (
            group.unknown_reason
            or (messages.resources_not_offered(not_offered) if not_offered else None)
            or self._unknown_reason(group.requirements)
        )
        group.requests = request_vector(group.requirements.requests, index)
        group.possible_nodes = group.certain_nodes = self.allowed_nodes(group.requirements)
        if group.left_node:
            left = self.node_snapshot.index_by_name.get(group.left_node)
            group.restrict_nodes([n for n in group.possible_nodes if n != left])
        if group.volume_topologies:
            accessible = [
                n
                for n in group.possible_nodes
                if all(topology.is_accessible_from(self.nodes[n]) for topology in group.volume_topologies)
            ]
            group.rejected_by_reason[messages.VOLUME_TOPOLOGY_CONFLICT] += len(group.possible_nodes) - len(accessible)
            exceeds_limit = self.inputs.cluster_volumes.exceeds_attach_limit
            group.possible_nodes = accessible
            group.certain_nodes = [
                n
                for n in accessible
                if not exceeds_limit(group.volume_topologies, self.nodes[n].name, self._volumes_by_driver)
            ]

    def _unknown_reason(self, requirements: PodRequirements) -> str | None:
        """Return why only the scheduler knows which of the nodes take the pod; None if the plan knows."""
        if of_devices := sorted(set(requirements.requests).intersection(self.inputs.device_resources)):
            return messages.resources_of_devices(of_devices)
        if requirements.node_constraints.has_unknown_toleration and any(
            requirements.node_constraints.may_tolerate(self.nodes[n].taints)
            for n in self.node_snapshot.matching_nodes(requirements)
            if n not in self._excluded_indexes
        ):
            return messages.UNKNOWN_TOLERATION
        return None

    def allowed_nodes(self, requirements: PodRequirements) -> list[int]:
        """Return the nodes that may run the pod, by name, labels and taints, without the excluded nodes."""
        key = requirements.node_constraints_key
        if key not in self._allowed_nodes:
            self._allowed_nodes[key] = [
                n for n in self.node_snapshot.eligible_nodes(requirements) if n not in self._excluded_indexes
            ]
        return self._allowed_nodes[key]

    def is_tolerated(self, node_index: int, requirements: PodRequirements) -> bool:
        """Whether the pod tolerates the taints of the node, the taint of a cordon included."""
        node, constraints = self.nodes[node_index], requirements.node_constraints
        cordoned = node.unschedulable or node_index in self._excluded_indexes
        if cordoned and not constraints.tolerates_cordon:
            return False
        return not node.taints or constraints.tolerates(node.taints)


def _group_pods(pods_to_place: Sequence[ScheduledPod], inputs: PlacementInput) -> list[EquivalenceGroup]:
    groups: dict[tuple[PodRequirements, frozenset[VolumeTopology], str | None, str], EquivalenceGroup] = {}
    for position, pod in enumerate(pods_to_place):
        topologies, unknown_reason = inputs.cluster_volumes.topologies_of(pod.requirements.namespace, pod.claim_names)
        left_node = pod.node if pod.uid in inputs.chain.moving else ""
        key = (pod.requirements, topologies, unknown_reason, left_node)
        group = groups.get(key) or groups.setdefault(
            key,
            EquivalenceGroup(
                pod.requirements, topologies, pod.requirements.unknown_reason or unknown_reason, left_node
            ),
        )
        group.pod_indexes.append(position)
    for requirements, count in Counter(inputs.competing_pods).most_common(_MAX_COMPETING_GROUPS):
        key = (requirements, frozenset(), None, "")
        group = groups.get(key) or groups.setdefault(
            key, EquivalenceGroup(requirements, frozenset(), requirements.unknown_reason)
        )
        group.competing_count += count
    return list(groups.values())
