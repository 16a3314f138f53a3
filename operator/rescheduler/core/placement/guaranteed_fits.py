"""Groups of a plan that find their places whatever happens: no course of events needs to be tried for them.

Each other pod that may be placed first takes at most so many slots of a group away; where even that leaves enough,
all of the group fit. On a cluster with room that is all groups, after a look at some of the nodes.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import inf

from rescheduler.core.placement.problem import EquivalenceGroup, PlacementProblem, SpreadDomains
from rescheduler.core.placement.topology_spread import SpreadConstraint, placeable_pods

_EMPTIEST_NODES = 200  # nodes
_MAX_SUMMED_NODES = 1000  # nodes that are added up; the others are fuller, and add little


def guaranteed_groups(problem: PlacementProblem) -> set[EquivalenceGroup]:
    """The groups all of which find a place, wherever the scheduler puts each pod."""
    troubled = _groups_depending_on_others(problem.groups)
    sizes = {group: len(group.pod_indexes) + group.competing_count for group in problem.groups}
    asked: Counter[int] = Counter()
    for group, size in sizes.items():
        asked.update({kind: size * amount for kind, amount in group.requests})
    found = set()
    for group in problem.groups:
        if (
            not group.unknown_reason
            and group not in troubled
            and _GroupCapacity(problem, group, sizes, asked).is_sufficient(sizes[group])
        ):
            found.add(group)
    return found


def _groups_depending_on_others(groups: Iterable[EquivalenceGroup]) -> set[EquivalenceGroup]:
    """Groups that others can keep off otherwise than by taking room, or whose affinity asks for pods not there yet."""
    found = {group for group in groups if group.requirements.affinity_terms and not group.affinity_counts}
    for group in groups:
        found.update(other for _, other in group.blocked_groups if other is not group)
        found.update(other for other, _ in group.counted_by_constraints if other is not group)
    return found


@dataclass(frozen=True, slots=True)
class _DomainLimit:
    """What the group's own pods let in of it.

    Attributes:
        of: the domain of a node; None: the node takes none.
        allowed: how many a domain lets in.
        domains: all that there are; None: each node is one.
    """

    domain_of: Callable[[int], str | None]
    max_pods: Callable[[str], float]
    domains: Collection[str] | None


class _GroupCapacity:
    """For how many of one group there is room, when all others come first."""

    def __init__(
        self,
        problem: PlacementProblem,
        group: EquivalenceGroup,
        group_sizes: Mapping[EquivalenceGroup, int],
        total_requests: Mapping[int, int],
    ) -> None:
        """`sizes`: pods of each group; `asked`: what all of them ask of each resource."""
        self._problem, self._group = problem, group
        self._requests = dict(group.requests)
        self._total_requests = total_requests
        self._remaining_nodes: Sequence[int] | None = None
        self._taken_by_others = sum(
            size * self._pods_displaced_by(other) for other, size in group_sizes.items() if other is not group
        )
        limits = (*self._spread_limits(), *self._own_conflict_limits())
        self._domain_limits = [limit for limit in limits if limit.domains is not None]
        self._node_limits = [limit for limit in limits if limit.domains is None]

    def _pods_displaced_by(self, other: EquivalenceGroup) -> int:
        """How many slots of the group one pod of the other can take away."""
        most = 1  # of the pods that a node may have
        for kind, amount in other.requests:
            if kind in self._requests:
                most = max(most, -(-amount // self._requests[kind]))
        return most

    def _own_conflict_limits(self) -> Iterator[_DomainLimit]:
        """Its own anti-affinity and host ports: one in each place; nodes without the label are no place."""
        labels = self._problem.node_snapshot.node_labels
        for key, other in self._group.blocked_groups:
            if other is self._group and key is None:
                yield _DomainLimit(str, lambda _: 1, None)
            elif other is self._group and key is not None:
                yield _DomainLimit(
                    lambda n, key=key: labels[n].get(key, ""),  # type: ignore[misc]
                    lambda domain: 1 if domain else inf,
                    self._multi_node_domains(key, ("", *self._problem.node_snapshot.label_value_counts(key))),
                )

    def _spread_limits(self) -> Iterator[_DomainLimit]:
        for domains, spread in zip(
            self._group.spread_domains, self._group.requirements.spread_constraints, strict=True
        ):
            known = self._multi_node_domains(spread.topology_key, domains.pods_by_domain)
            yield _DomainLimit(domains.domain_by_node.get, self._max_pods_by_skew(domains, spread), known)

    def _multi_node_domains(self, topology_key: str, domains: Collection[str]) -> Collection[str] | None:
        return None if self._problem.node_snapshot.is_unique_per_node(topology_key) else domains

    def _max_pods_by_skew(self, domains: SpreadDomains, spread: SpreadConstraint) -> Callable[[str], float]:
        """How many a domain lets in while the emptiest stay as they are."""
        labels, filled = self._group.requirements.labels, domains.pods_by_domain
        floor = 0 if len(filled) < spread.min_domains else min(filled.values(), default=0)
        if spread.counts_pod(labels):
            return lambda domain: max(0, floor + spread.max_skew - filled[domain])
        itself = spread.matches_own_pod(labels)
        return lambda domain: inf if floor + spread.max_skew - filled[domain] >= itself else 0

    def is_sufficient(self, pod_count: int) -> bool:
        """Whether so many find a place."""
        if len(self._domain_limits) > 1:
            return False
        needed, total, left = pod_count + self._taken_by_others, 0.0, dict[str, float]()
        for limit in self._domain_limits:
            left = {domain: limit.max_pods(domain) for domain in limit.domains or ()}
        for n in self._usable_nodes() if not self._domain_limits or sum(left.values()) >= needed else ():
            count = self._max_pods_on(n)
            for limit in self._domain_limits:
                domain = limit.domain_of(n)
                count = min(count, left.get(domain, 0)) if domain is not None else 0
                if count:
                    left[domain or ""] -= count
            total += count
            if total >= needed:
                return True
        return self._fits_while_domains_fill(pod_count) or self._others_cannot_fill_all_nodes(pod_count)

    def _usable_nodes(self) -> Iterator[int]:
        group, labels = self._group, self._problem.node_snapshot.node_labels
        keys = [term.topology_key for term in group.requirements.affinity_terms]
        for n in self._nodes_with_room():
            if all(group.affinity_counts[key, labels[n].get(key, "")] > 0 for key in keys):
                yield n

    def _nodes_with_room(self) -> Iterator[int]:
        """The emptiest first, and most often enough; of the others those alone that have room."""
        yield from self._group.certain_nodes[:_EMPTIEST_NODES]
        if self._remaining_nodes is None:
            self._remaining_nodes = self._problem.filter_by_free_resources(
                self._group.certain_nodes[_EMPTIEST_NODES:], self._group
            )
        yield from self._remaining_nodes

    def _max_pods_on(self, node_index: int) -> float:
        row = self._problem.free[node_index]
        count = inf
        for kind, amount in self._group.requests:
            count = min(count, row[kind] // amount)
        for limit in self._node_limits:
            domain = limit.domain_of(node_index)
            count = min(count, 0 if domain is None else limit.max_pods(domain))
        return max(0, count)

    def _fits_while_domains_fill(self, pod_count: int) -> bool:
        """For one spread over zones alone: as the emptiest fill up, the others may take more."""
        spreads = self._group.requirements.spread_constraints
        if (
            len(spreads) != 1
            or not self._domain_limits
            or self._node_limits
            or not spreads[0].counts_pod(self._group.requirements.labels)
        ):
            return False
        domains, slots = self._group.spread_domains[0], Counter[str]()
        open_ = set(domains.pods_by_domain)
        for n in self._usable_nodes():
            if (domain := domains.domain_by_node.get(n)) in open_:
                slots[domain] += int(self._max_pods_on(n))
                if slots[domain] >= pod_count + self._taken_by_others:
                    open_.discard(domain)  # it holds nobody back
                    if not open_:
                        break
        left = {domain: max(0, count - self._taken_by_others) for domain, count in slots.items()}
        return placeable_pods(domains.pods_by_domain, left, spreads[0].max_skew, spreads[0].min_domains) >= pod_count

    def _others_cannot_fill_all_nodes(self, pod_count: int) -> bool:
        """Whether all pods together are too few to leave it no node, or no node of one of its domains.

        To fill a node they must take what is free there of one resource: a share of all that they ask for of it. No
        more than all of each resource can be taken.
        """
        shares: dict[str, list[float]] = defaultdict(list)
        spreads, limit = self._group.requirements.spread_constraints, next(iter(self._domain_limits), None)
        if limit:
            if len(spreads) != 1 or self._node_limits or not spreads[0].counts_pod(self._group.requirements.labels):
                return False
            if len(limit.domains or ()) < spreads[0].min_domains:
                return False
            shares |= {domain: [] for domain in limit.domains or ()}
        for n in islice(self._usable_nodes(), _MAX_SUMMED_NODES):
            domain = limit.domain_of(n) if limit else ""
            if domain is not None and self._max_pods_on(n) > 0:
                shares[domain].append(self._share_to_fill(n))
        itself = pod_count - 1 if self._node_limits else 0  # each node that its own pods may keep it off
        most = len(self._requests)
        return bool(shares) and all(sum(sorted(each, reverse=True)[itself:]) > most for each in shares.values())

    def _share_to_fill(self, node_index: int) -> float:
        row = self._problem.free[node_index]
        return min(
            (row[kind] - amount + 1) / max(1, self._total_requests[kind]) for kind, amount in self._group.requests
        )
