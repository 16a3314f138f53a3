"""What pods of a plan are to each other, and to those that stay: affinity both ways, host ports, spread.

Only what is there before is worked into the board here; what each pod adds when it is placed, a packing counts.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping

from rescheduler.core.placement.pod_requirements import PodRequirements, host_ports_conflict
from rescheduler.core.placement.problem import BLOCKED_BY_PODS, EquivalenceGroup, PlacementProblem, SpreadDomains
from rescheduler.core.placement.topology_spread import SpreadConstraint


class PodConstraints:
    """Works them into the groups of a board."""

    def __init__(self, problem: PlacementProblem) -> None:
        self._problem, self._node_snapshot, self._namespace_labels = (
            problem,
            problem.node_snapshot,
            problem.inputs.namespace_labels,
        )
        self._node_labels = self._node_snapshot.node_labels

    def apply(self) -> None:
        """All of them."""
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

    # -- those that stay ----------------------------------------------------------------------------------------------

    def _exclude_blocked_nodes(self, group: EquivalenceGroup) -> None:
        """Take the nodes out that pods which stay keep the group off."""
        taken, bound, labels = (
            self._blocked_label_values(group.requirements),
            self._nodes_with_port_conflict(group.requirements),
            self._node_labels,
        )
        if not taken and not bound:
            return
        before, left = len(group.possible_nodes), [n for n in group.possible_nodes if n not in bound]
        for key, values in taken.items():
            left = [n for n in left if labels[n].get(key) not in values]
        group.restrict_nodes(left)
        group.rejected_by_reason[BLOCKED_BY_PODS] += before - len(left)

    def _blocked_label_values(self, requirements: PodRequirements) -> Mapping[str, set[str]]:
        """Where pods that stay keep these off, or are what these keep off: by label of nodes, the values."""
        found: dict[str, set[str]] = defaultdict(set)
        for key, presence in self._node_snapshot.anti_affinity_conflicts(requirements, self._namespace_labels):
            for n, _ in self._problem.remaining_by_node(presence):
                if key in self._node_labels[n]:
                    found[key].add(self._node_labels[n][key])
        return found

    def _nodes_with_port_conflict(self, requirements: PodRequirements) -> set[int]:
        """Nodes whose host ports are taken."""
        colliding = (
            p
            for p in self._node_snapshot.pods_with_host_ports
            if requirements.host_ports and host_ports_conflict(requirements.host_ports, p.host_ports)
        )
        return {n for presence in colliding for n, _ in self._problem.remaining_by_node(presence)}

    def _affinity_counts(self, group: EquivalenceGroup) -> Counter[tuple[str, str]]:
        found: Counter[tuple[str, str]] = Counter()
        if group.requirements.affinity_terms:
            for presence in self._node_snapshot.matching_pods(
                group.requirements.affinity_terms, self._namespace_labels
            ):
                for n, count in self._problem.remaining_by_node(presence):
                    found.update(affinity_counts(group, self._node_labels[n], count))
        return found

    def _spread_domains(self, group: EquivalenceGroup) -> Iterator[SpreadDomains]:
        ask = group.requirements
        for number, spread in enumerate(ask.spread_constraints):
            of = self._domain_by_node(ask, spread)
            filled = Counter(dict.fromkeys(of.values(), 0))
            for presence in self._node_snapshot.pods_counted_for_spread(ask, number):
                for n, count in self._problem.remaining_by_node(presence):
                    if n in of:
                        filled[of[n]] += count
            yield SpreadDomains(of, filled)

    def _domain_by_node(self, requirements: PodRequirements, spread: SpreadConstraint) -> Mapping[int, str]:
        """The nodes that count for a constraint, with their domains."""
        found = self._node_snapshot.spread_domains(
            requirements,
            spread.topology_key,
            frozenset(each.topology_key for each in requirements.spread_constraints),
            honors_node_affinity=spread.honors_node_affinity,
        )
        if spread.honors_node_taints:
            return {n: domain for n, domain in found.items() if self._problem.is_tolerated(n, requirements)}
        return found

    # -- each other ---------------------------------------------------------------------------------------------------

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
    """What a pod that the group's affinity asks for counts for, on a node with these labels."""
    found: Counter[tuple[str, str]] = Counter()
    for term in group.requirements.affinity_terms:
        if term.topology_key in node_labels:
            found[term.topology_key, node_labels[term.topology_key]] += count
    return found
