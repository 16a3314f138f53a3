"""Constraints between pods: affinity, anti-affinity, host ports and topology spread.

This module adds the constraints of pods that stay, and the links between groups, to a placement problem. A scheduling
run counts the pods that it places itself.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping

from rescheduler.core.placement.messages import BLOCKED_BY_PODS
from rescheduler.core.placement.pod_requirements import PodRequirements, host_ports_conflict
from rescheduler.core.placement.problem import EquivalenceGroup, PlacementProblem, SpreadDomains
from rescheduler.core.placement.topology_spread import SpreadConstraint


class PodConstraints:
    """Adds the constraints between pods to the groups of a placement problem."""

    def __init__(self, problem: PlacementProblem) -> None:
        self._problem, self._node_snapshot, self._namespace_labels = (
            problem,
            problem.node_snapshot,
            problem.inputs.namespace_labels,
        )
        self._node_labels = self._node_snapshot.node_labels

    def apply(self) -> None:
        """Add all constraints."""
        groups = self._problem.groups
        for group in groups:
            self._exclude_blocked_nodes(group)
            group.affinity_counts = self._affinity_counts(group)
            group.spread_domains = list(self._spread_domains(group))
        for group in groups:
            if group.requirements.affinity_terms:
                self._link_attracted_groups(group, groups)
            for number, spread in enumerate(group.requirements.spread_constraints):
                for other in groups:
                    if other.requirements.namespace == group.requirements.namespace and spread.counts_pod(
                        other.requirements.labels
                    ):
                        other.counted_by_constraints.append((group, number))
        self._link_blocked_groups(groups)

    # -- pods that stay -----------------------------------------------------------------------------------------------

    def _exclude_blocked_nodes(self, group: EquivalenceGroup) -> None:
        """Remove the nodes on which pods that stay block the group."""
        blocked_values, port_conflicts, labels = (
            self._blocked_label_values(group.requirements),
            self._nodes_with_port_conflict(group.requirements),
            self._node_labels,
        )
        if not blocked_values and not port_conflicts:
            return
        before, possible = len(group.possible_nodes), [n for n in group.possible_nodes if n not in port_conflicts]
        for key, values in blocked_values.items():
            possible = [n for n in possible if labels[n].get(key) not in values]
        group.restrict_nodes(possible)
        group.rejected_by_reason[BLOCKED_BY_PODS] += before - len(possible)

    def _blocked_label_values(self, requirements: PodRequirements) -> Mapping[str, set[str]]:
        """Return the values of each topology key that anti-affinity with pods that stay blocks, in either direction."""
        blocked: dict[str, set[str]] = defaultdict(set)
        for key, traits in self._node_snapshot.anti_affinity_conflicts(requirements, self._namespace_labels):
            for n, _ in self._problem.remaining_by_node(traits):
                if key in self._node_labels[n]:
                    blocked[key].add(self._node_labels[n][key])
        return blocked

    def _nodes_with_port_conflict(self, requirements: PodRequirements) -> set[int]:
        """Return the nodes on which pods that stay use the host ports of the pod."""
        conflicting = (
            traits
            for traits in self._node_snapshot.pods_with_host_ports
            if requirements.host_ports and host_ports_conflict(requirements.host_ports, traits.host_ports)
        )
        return {n for traits in conflicting for n, _ in self._problem.remaining_by_node(traits)}

    def _affinity_counts(self, group: EquivalenceGroup) -> Counter[tuple[str, str]]:
        counts: Counter[tuple[str, str]] = Counter()
        if group.requirements.affinity_terms:
            for traits in self._node_snapshot.matching_pods(group.requirements.affinity_terms, self._namespace_labels):
                for n, count in self._problem.remaining_by_node(traits):
                    counts.update(affinity_counts(group, self._node_labels[n], count))
        return counts

    def _spread_domains(self, group: EquivalenceGroup) -> Iterator[SpreadDomains]:
        requirements = group.requirements
        for number, spread in enumerate(requirements.spread_constraints):
            domain_by_node = self._domain_by_node(requirements, spread)
            pods_by_domain = Counter(dict.fromkeys(domain_by_node.values(), 0))
            for traits in self._node_snapshot.pods_counted_for_spread(requirements, number):
                for n, count in self._problem.remaining_by_node(traits):
                    if n in domain_by_node:
                        pods_by_domain[domain_by_node[n]] += count
            yield SpreadDomains(domain_by_node, pods_by_domain)

    def _domain_by_node(self, requirements: PodRequirements, spread: SpreadConstraint) -> Mapping[int, str]:
        """Return the domain of each node that counts for a spread constraint."""
        domains = self._node_snapshot.spread_domains(
            requirements,
            spread.topology_key,
            frozenset(constraint.topology_key for constraint in requirements.spread_constraints),
            honors_node_affinity=spread.honors_node_affinity,
        )
        if spread.honors_node_taints:
            return {n: domain for n, domain in domains.items() if self._problem.is_tolerated(n, requirements)}
        return domains

    # -- groups of the plan -------------------------------------------------------------------------------------------

    def _link_attracted_groups(self, group: EquivalenceGroup, groups: Iterable[EquivalenceGroup]) -> None:
        for other in groups:
            if all(
                t.selects(other.requirements.namespace, other.requirements.labels, self._namespace_labels)
                for t in group.requirements.affinity_terms
            ):
                other.attracted_groups.append(group)
                group.matches_own_affinity = group.matches_own_affinity or other is group

    def _link_blocked_groups(self, groups: list[EquivalenceGroup]) -> None:
        for group in groups:
            for term in group.requirements.anti_affinity_terms:
                for other in groups:
                    if term.selects(other.requirements.namespace, other.requirements.labels, self._namespace_labels):
                        group.blocked_groups.append((term.topology_key, other))
                        if other is not group:
                            other.blocked_groups.append((term.topology_key, group))
            for other in groups if group.requirements.host_ports else ():
                if other.requirements.host_ports and host_ports_conflict(
                    group.requirements.host_ports, other.requirements.host_ports
                ):
                    group.blocked_groups.append((None, other))


def affinity_counts(
    group: EquivalenceGroup, node_labels: Mapping[str, str], count: int = 1
) -> dict[tuple[str, str], int]:
    """Return how pods on a node with these labels count for the group's affinity, by topology key and value."""
    counts: Counter[tuple[str, str]] = Counter()
    for term in group.requirements.affinity_terms:
        if term.topology_key in node_labels:
            counts[term.topology_key, node_labels[term.topology_key]] += count
    return counts
