"""Nodes with their capacity and their pods, computed once for all plans of one moment."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain

from rescheduler.core.model.nodes import Node
from rescheduler.core.model.quantities import CPU, MEMORY, PODS
from rescheduler.core.model.raw import HOSTNAME_LABEL, NAME_FIELD
from rescheduler.core.placement.pod_affinity import Labels, PodAffinityTerm
from rescheduler.core.placement.pod_requirements import PodRequirements
from rescheduler.core.placement.pod_snapshot import PodSnapshot, PodTraits


class NodeSnapshot:
    """The nodes of a cluster. Other modules refer to a node by its index in `nodes`.

    Attributes:
        nodes: sorted by free CPU, the emptiest node first, so that a search for room ends early.
        node_labels: labels of each node, by its index.
        index_by_name: index of each node.
        resource_names: resources that any node offers; pods, CPU and memory come first.
        allocatable: amounts of each node, in the order of `resource_names`.
        free: the same, minus the requests of its pods.
    """

    def __init__(self, nodes: Mapping[str, Node], pod_snapshot: PodSnapshot) -> None:
        self._pod_snapshot = pod_snapshot
        self.nodes = sorted(nodes.values(), key=self._by_free_cpu)
        self.node_labels = [node.labels for node in self.nodes]
        self.index_by_name = {node.name: n for n, node in enumerate(self.nodes)}
        offered = {name for node in self.nodes for name, value in node.allocatable.items() if value}
        self.resource_names = [PODS, CPU, MEMORY, *sorted(offered - {PODS, CPU, MEMORY})]
        self.allocatable = [[node.allocatable.get(kind, 0) for kind in self.resource_names] for node in self.nodes]
        self.free = [
            self._free_resources(node, amounts) for node, amounts in zip(self.nodes, self.allocatable, strict=True)
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
        return [amount - used[kind] for amount, kind in zip(allocatable, self.resource_names, strict=True)]

    # -- nodes --------------------------------------------------------------------------------------------------------

    def matching_nodes(self, requirements: PodRequirements) -> Iterator[int]:
        """Yield the nodes with the name and the labels that the pod requires."""
        label_keys = requirements.node_constraints.referenced_node_labels
        if label_keys & {NAME_FIELD, HOSTNAME_LABEL}:
            yield from (n for n, node in enumerate(self.nodes) if requirements.node_constraints.selects_node(node))
            return
        if label_keys not in self._nodes_by_label_values:
            self._nodes_by_label_values[label_keys] = self._group_by_label_values(sorted(label_keys))
        for equal_nodes in self._nodes_by_label_values[label_keys]:
            if requirements.node_constraints.selects_node(self.nodes[equal_nodes[0]]):
                yield from equal_nodes

    def _group_by_label_values(self, label_keys: Sequence[str]) -> list[list[int]]:
        """Return the nodes in groups with equal values of these labels."""
        groups: dict[tuple[str | None, ...], list[int]] = defaultdict(list)
        for n, labels in enumerate(self.node_labels):
            groups[tuple(map(labels.get, label_keys))].append(n)
        return list(groups.values())

    def label_value_counts(self, label_key: str) -> Counter[str]:
        """Return the number of nodes with each value of a label."""
        if label_key not in self._label_values:
            self._label_values[label_key] = Counter(
                labels[label_key] for labels in self.node_labels if label_key in labels
            )
        return self._label_values[label_key]

    def is_unique_per_node(self, label_key: str) -> bool:
        """Whether no two nodes have the same value of a label."""
        counts = self.label_value_counts(label_key)
        return len(counts) == counts.total()

    def eligible_nodes(self, requirements: PodRequirements) -> list[int]:
        """Return the nodes that may run the pod, by name, labels, cordon and taints."""
        key = requirements.node_constraints_key
        if key not in self._eligible_nodes:
            self._eligible_nodes[key] = sorted(
                n for n in self.matching_nodes(requirements) if self.is_schedulable(n, requirements)
            )
        return self._eligible_nodes[key]

    def is_schedulable(self, node_index: int, requirements: PodRequirements) -> bool:
        """Whether cordon and taints of the node let the pod in."""
        node, constraints = self.nodes[node_index], requirements.node_constraints
        if node.deleting or (node.unschedulable and not constraints.tolerates_cordon):
            return False
        return not node.taints or constraints.tolerates(node.taints)

    def spread_domains(
        self,
        requirements: PodRequirements,
        topology_key: str,
        required_keys: frozenset[str],
        *,
        honors_node_affinity: bool,
    ) -> Mapping[int, str]:
        """Return the value of the topology label of each node that has all required labels.

        `honors_node_affinity`: only nodes that the pod's nodeSelector and node affinity allow.
        """
        key = (topology_key, required_keys, requirements.node_constraints_key if honors_node_affinity else "")
        if key not in self._domains_by_node:
            nodes: Iterable[int] = self.matching_nodes(requirements) if honors_node_affinity else range(len(self.nodes))
            labelled = ((n, self.node_labels[n]) for n in nodes)
            self._domains_by_node[key] = {
                n: labels[topology_key]
                for n, labels in labelled
                if all(required in labels for required in required_keys)
            }
        return self._domains_by_node[key]

    # -- pods ---------------------------------------------------------------------------------------------------------

    @cached_property
    def traits_by_namespace(self) -> Mapping[str, list[PodTraits]]:
        """Return the traits of running pods by namespace."""
        by_namespace: dict[str, list[PodTraits]] = defaultdict(list)
        for traits in self._pod_snapshot.node_counts_by_traits:
            by_namespace[traits.namespace].append(traits)
        return by_namespace

    @cached_property
    def _anti_affinity_by_namespace(self) -> Mapping[str, list[tuple[PodAffinityTerm, PodTraits]]]:
        """Return the anti-affinity of running pods by selected namespace; "" for terms with a namespace selector."""
        by_namespace: dict[str, list[tuple[PodAffinityTerm, PodTraits]]] = defaultdict(list)
        for traits in self._pod_snapshot.node_counts_by_traits:
            for term in traits.anti_affinity_terms:
                for namespace in ("",) if term.namespace_selector is not None else term.namespaces:
                    by_namespace[namespace].append((term, traits))
        return by_namespace

    def matching_pods(
        self, terms: Sequence[PodAffinityTerm], namespace_labels: Mapping[str, Labels]
    ) -> Iterator[PodTraits]:
        """Yield the traits of running pods that all of these terms select."""
        first = terms[0]
        for namespace in self.traits_by_namespace if first.namespace_selector is not None else first.namespaces:
            for traits in self.traits_by_namespace.get(namespace, ()):
                if all(term.selects(namespace, traits.labels, namespace_labels) for term in terms):
                    yield traits

    def anti_affinity_conflicts(
        self, requirements: PodRequirements, namespace_labels: Mapping[str, Labels]
    ) -> Sequence[tuple[str, PodTraits]]:
        """Return the running pods that must not share a domain with the pod, with the topology key of the term."""
        if requirements not in self._anti_affinity_conflicts:
            candidates = chain(
                self._anti_affinity_by_namespace.get(requirements.namespace, ()),
                self._anti_affinity_by_namespace.get("", ()),
            )
            from_running_pods = [
                (term.topology_key, traits)
                for term, traits in candidates
                if term.selects(requirements.namespace, requirements.labels, namespace_labels)
            ]
            from_own_terms = [
                (term.topology_key, traits)
                for term in requirements.anti_affinity_terms
                for traits in self.matching_pods((term,), namespace_labels)
            ]
            self._anti_affinity_conflicts[requirements] = [*from_running_pods, *from_own_terms]
        return self._anti_affinity_conflicts[requirements]

    def pods_counted_for_spread(self, requirements: PodRequirements, constraint_index: int) -> Sequence[PodTraits]:
        """Return the traits of running pods that count for one spread constraint of the pod."""
        if (requirements, constraint_index) not in self._spread_pods:
            spread = requirements.spread_constraints[constraint_index]
            same_namespace = self.traits_by_namespace.get(requirements.namespace, ())
            self._spread_pods[requirements, constraint_index] = [
                traits for traits in same_namespace if not traits.terminating and spread.counts_pod(traits.labels)
            ]
        return self._spread_pods[requirements, constraint_index]

    @cached_property
    def pods_with_host_ports(self) -> list[PodTraits]:
        """Return the traits of running pods with host ports."""
        return [traits for traits in self._pod_snapshot.node_counts_by_traits if traits.host_ports]
