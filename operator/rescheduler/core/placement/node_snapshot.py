"""Nodes with what they offer and hold: the same for all plans that are made of one moment, and worked out once."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain

from rescheduler.core.model import node_affinity
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.quantities import CPU, MEMORY, PODS
from rescheduler.core.placement.pod_affinity import Labels, PodAffinityTerm
from rescheduler.core.placement.pod_requirements import PodRequirements
from rescheduler.core.placement.pod_snapshot import PodSnapshot, PodTraits

_NAME_FIELD, _HOSTNAME_LABEL = "metadata.name", "kubernetes.io/hostname"


class NodeSnapshot:
    """The nodes of a cluster, by index.

    Attributes:
        nodes: the emptiest first: whoever only wants to know whether there is room enough need not look far.
        kinds: the resources that any node offers, by index; pods, CPU and memory first.
        offered, free: how much of each every node has in all, and left.
    """

    def __init__(self, nodes: Mapping[str, Node], pod_snapshot: PodSnapshot) -> None:
        self._pod_snapshot = pod_snapshot
        self.nodes = sorted(nodes.values(), key=self._by_free_cpu)
        self.node_labels = [node.labels for node in self.nodes]
        self.index_by_name = {node.name: n for n, node in enumerate(self.nodes)}
        named = {name for node in self.nodes for name, value in node.allocatable.items() if value}
        self.resource_names = [PODS, CPU, MEMORY, *sorted(named - {PODS, CPU, MEMORY})]
        self.allocatable = [[node.allocatable.get(kind, 0) for kind in self.resource_names] for node in self.nodes]
        self.free = [
            self._free_resources(node, offered) for node, offered in zip(self.nodes, self.allocatable, strict=True)
        ]
        self._nodes_by_label_values: dict[frozenset[str], list[list[int]]] = {}
        self._eligible_nodes: dict[str, list[int]] = {}
        self._domains_by_node: dict[tuple[str, frozenset[str], str], dict[int, str]] = {}
        self._label_values: dict[str, Counter[str]] = {}
        self._anti_affinity_conflicts: dict[PodRequirements, list[tuple[str, PodTraits]]] = {}
        self._spread_pods: dict[tuple[PodRequirements, int], list[PodTraits]] = {}

    def _by_free_cpu(self, node: Node) -> tuple[int, str]:
        used = self._pod_snapshot.allocated_by_node.get(node.name) or Counter()
        return used[CPU] - node.allocatable.get(CPU, 0), node.name

    def _free_resources(self, node: Node, allocatable: Sequence[int]) -> list[int]:
        used = self._pod_snapshot.allocated_by_node.get(node.name) or Counter()
        return [have - used[kind] for have, kind in zip(allocatable, self.resource_names, strict=True)]

    # -- which nodes --------------------------------------------------------------------------------------------------

    def matching_nodes(self, requirements: PodRequirements) -> Iterator[int]:
        """Nodes with the name and the labels that it asks for."""
        asked = node_affinity.referenced_node_labels(requirements.node_constraints)
        if asked & {_NAME_FIELD, _HOSTNAME_LABEL}:
            yield from (
                n
                for n, node in enumerate(self.nodes)
                if node_affinity.selects_node(requirements.node_constraints, node)
            )
            return
        if asked not in self._nodes_by_label_values:
            self._nodes_by_label_values[asked] = self._group_by_label_values(sorted(asked))
        for alike in self._nodes_by_label_values[asked]:
            if node_affinity.selects_node(requirements.node_constraints, self.nodes[alike[0]]):
                yield from alike

    def _group_by_label_values(self, label_keys: Sequence[str]) -> list[list[int]]:
        """Nodes that have the same values of these labels."""
        found: dict[tuple[str | None, ...], list[int]] = defaultdict(list)
        for n, have in enumerate(self.node_labels):
            found[tuple(map(have.get, label_keys))].append(n)
        return list(found.values())

    def label_value_counts(self, label_key: str) -> Counter[str]:
        """The values of a label, and how many nodes have each."""
        if label_key not in self._label_values:
            self._label_values[label_key] = Counter(have[label_key] for have in self.node_labels if label_key in have)
        return self._label_values[label_key]

    def is_unique_per_node(self, label_key: str) -> bool:
        """Whether no two nodes have the same value of a label."""
        found = self.label_value_counts(label_key)
        return len(found) == found.total()

    def eligible_nodes(self, requirements: PodRequirements) -> list[int]:
        """Nodes that may have a pod of this ask, by name, labels, cordon and taints."""
        key = requirements.node_constraints_key
        if key not in self._eligible_nodes:
            self._eligible_nodes[key] = sorted(
                n for n in self.matching_nodes(requirements) if self.is_schedulable(n, requirements)
            )
        return self._eligible_nodes[key]

    def is_schedulable(self, node_index: int, requirements: PodRequirements) -> bool:
        """Whether the node takes pods, and these: by its cordon and taints."""
        node = self.nodes[node_index]
        if node.deleting or (
            node.unschedulable and not node_affinity.tolerates_cordon(requirements.node_constraints["tolerations"])
        ):
            return False
        return not node.taints or node_affinity.tolerates(requirements.node_constraints["tolerations"], node.taints)

    def spread_domains(
        self,
        requirements: PodRequirements,
        topology_key: str,
        required_keys: frozenset[str],
        *,
        honors_node_affinity: bool,
    ) -> Mapping[int, str]:
        """The nodes with all these labels, and their values of one; `affine`: of those that it asks for."""
        known = (topology_key, required_keys, requirements.node_constraints_key if honors_node_affinity else "")
        if known not in self._domains_by_node:
            nodes: Iterable[int] = self.matching_nodes(requirements) if honors_node_affinity else range(len(self.nodes))
            have = ((n, self.node_labels[n]) for n in nodes)
            self._domains_by_node[known] = {
                n: labels[topology_key] for n, labels in have if all(each in labels for each in required_keys)
            }
        return self._domains_by_node[known]

    # -- which pods ---------------------------------------------------------------------------------------------------

    @cached_property
    def traits_by_namespace(self) -> Mapping[str, list[PodTraits]]:
        """Pods that are there, by namespace."""
        found: dict[str, list[PodTraits]] = defaultdict(list)
        for presence in self._pod_snapshot.node_counts_by_traits:
            found[presence.namespace].append(presence)
        return found

    @cached_property
    def _anti_affinity_by_namespace(self) -> Mapping[str, list[tuple[PodAffinityTerm, PodTraits]]]:
        """Anti-affinity of those that are there, by the namespaces that it means; under "" what may mean others too."""
        found: dict[str, list[tuple[PodAffinityTerm, PodTraits]]] = defaultdict(list)
        for presence in self._pod_snapshot.node_counts_by_traits:
            for term in presence.anti_affinity_terms:
                for space in ("",) if term.namespace_selector is not None else term.namespaces:
                    found[space].append((term, presence))
        return found

    def matching_pods(
        self, terms: Sequence[PodAffinityTerm], namespace_labels: Mapping[str, Labels]
    ) -> Iterator[PodTraits]:
        """Pods that all of these terms mean."""
        first = terms[0]
        for space in self.traits_by_namespace if first.namespace_selector is not None else first.namespaces:
            for presence in self.traits_by_namespace.get(space, ()):
                if all(term.selects(space, presence.labels, namespace_labels) for term in terms):
                    yield presence

    def anti_affinity_conflicts(
        self, requirements: PodRequirements, namespace_labels: Mapping[str, Labels]
    ) -> Sequence[tuple[str, PodTraits]]:
        """Pods that keep these off, or that these keep off, with the label of nodes that it is about."""
        if requirements not in self._anti_affinity_conflicts:
            candidates = chain(
                self._anti_affinity_by_namespace.get(requirements.namespace, ()),
                self._anti_affinity_by_namespace.get("", ()),
            )
            theirs = [
                (t.topology_key, presence)
                for t, presence in candidates
                if t.selects(requirements.namespace, requirements.labels, namespace_labels)
            ]
            ours = [
                (term.topology_key, presence)
                for term in requirements.anti_affinity_terms
                for presence in self.matching_pods((term,), namespace_labels)
            ]
            self._anti_affinity_conflicts[requirements] = [*theirs, *ours]
        return self._anti_affinity_conflicts[requirements]

    def pods_counted_for_spread(self, requirements: PodRequirements, constraint_index: int) -> Sequence[PodTraits]:
        """Pods that count for one of its spread constraints."""
        if (requirements, constraint_index) not in self._spread_pods:
            spread = requirements.spread_constraints[constraint_index]
            rows = self.traits_by_namespace.get(requirements.namespace, ())
            self._spread_pods[requirements, constraint_index] = [
                p for p in rows if not p.terminating and spread.counts_pod(p.labels)
            ]
        return self._spread_pods[requirements, constraint_index]

    @cached_property
    def pods_with_host_ports(self) -> list[PodTraits]:
        """Those that have host ports."""
        return [presence for presence in self._pod_snapshot.node_counts_by_traits if presence.host_ports]
