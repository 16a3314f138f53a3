"""Colocated pods: groups of pods whose required affinity makes them share a node.

As long as one of them is on a cordoned node, the scheduler places no new pod of the group elsewhere. Therefore these
pods cannot be replaced first: they leave together, and one other node must have room for all of them. Source:
kube-scheduler, interpodaffinity. The first pod of a group may go anywhere, but only if no running pod matches its
affinity, and its affinity selects the pod itself.
"""

from collections import Counter

from rescheduler.core.model.resource_fit import insufficient_resource
from rescheduler.core.placement.messages import BLOCKED_BY_PODS
from rescheduler.core.placement.pod_constraints import affinity_counts
from rescheduler.core.placement.problem import EquivalenceGroup, PlacementProblem

ColocatedGroups = frozenset[EquivalenceGroup]
_Links = dict[EquivalenceGroup, list[EquivalenceGroup]]


def find_colocated_groups(problem: PlacementProblem) -> list[ColocatedGroups]:
    """Return the sets of groups whose pods must leave together; the constraints of the problem must be applied."""
    tied = {group: None for group in problem.groups if _is_tied_to_leaving_pods(problem, group)}
    required_by: _Links = {group: [other for other in group.attracted_groups if other in tied] for group in tied}
    required: _Links = {group: [] for group in tied}
    for group, others in required_by.items():
        for other in others:
            required[other].append(group)
    found: list[ColocatedGroups] = []
    for group in tied:
        if not any(group in colocated for colocated in found):
            found.append(frozenset(_reachable(group, required) & _reachable(group, required_by)))
    return [colocated for colocated in found if colocated]


def _is_tied_to_leaving_pods(problem: PlacementProblem, group: EquivalenceGroup) -> bool:
    """Whether running pods match the affinity of the group, but none where a new pod could go."""
    terms, labels = group.requirements.affinity_terms, problem.node_snapshot.node_labels
    if not terms or group.unknown_reason:
        return False
    counts: Counter[tuple[str, str]] = Counter()
    index_by_name = problem.node_snapshot.index_by_name
    for traits in problem.node_snapshot.matching_pods(terms, problem.inputs.namespace_labels):
        for name, count in problem.inputs.pod_snapshot.node_counts_by_traits[traits].items():
            if name in index_by_name:
                counts.update(affinity_counts(group, labels[index_by_name[name]], count))
    keys = {term.topology_key for term in terms}
    return bool(counts) and not any(
        all(counts[key, labels[n].get(key, "")] for key in keys) for n in group.possible_nodes
    )


def _reachable(group: EquivalenceGroup, links: _Links) -> set[EquivalenceGroup]:
    """Return the groups to which links lead from this group, directly or through others; itself only by a cycle."""
    found, pending = set[EquivalenceGroup](), list(links[group])
    while pending:
        other = pending.pop()
        if other not in found:
            found.add(other)
            pending += links[other]
    return found


def has_node_for_all(problem: PlacementProblem, colocated: ColocatedGroups) -> bool:
    """Whether a node has room for the new pods of all these groups together, and one of them can be the first there."""
    total: Counter[int] = Counter()
    for group in colocated:
        total.update({kind: amount * len(group.pod_indexes) for kind, amount in group.requests})
    requests = tuple((kind, amount) for kind, amount in total.items() if amount)
    nodes = set.intersection(*(set(group.possible_nodes) for group in colocated))
    return _can_start(colocated) and any(insufficient_resource(problem.free[n], requests) is None for n in nodes)


def is_kept_off_by_pods(colocated: ColocatedGroups) -> bool:
    """Whether more room may not help: pods that stay keep these pods off, or none of these pods can be the first."""
    return not _can_start(colocated) or any(group.rejected_by_reason[BLOCKED_BY_PODS] for group in colocated)


def _can_start(colocated: ColocatedGroups) -> bool:
    """Whether the affinity of one of these groups selects its own pods, so that its pod can be the first."""
    return any(group.matches_own_affinity for group in colocated)
