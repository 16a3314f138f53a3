"""Groups of a plan that fit in any case: a lower bound shows it, without simulated scheduling.

A slot is room for one pod of a group. Each other pod that the scheduler may place first takes a limited number of
slots. If enough slots remain, the whole group fits. In a cluster with free capacity this holds for all groups.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import inf

from rescheduler.core.model.resource_fit import max_pods_with_room, nodes_with_room
from rescheduler.core.placement.problem import EquivalenceGroup, PlacementProblem, SpreadDomains
from rescheduler.core.placement.topology_spread import SpreadConstraint, placeable_pods

_EMPTIEST_NODES = 200  # nodes that are read before the full nodes are filtered out
_MAX_SUMMED_NODES = 1000  # nodes that are summed; the other nodes have less free capacity and change little


def guaranteed_groups(problem: PlacementProblem) -> set[EquivalenceGroup]:
    """Return the groups that fit completely, whichever nodes the scheduler chooses."""
    dependent = _groups_depending_on_others(problem.groups)
    sizes = {group: len(group.pod_indexes) + group.competing_count for group in problem.groups}
    total_requests: Counter[int] = Counter()
    for group, size in sizes.items():
        total_requests.update({kind: size * amount for kind, amount in group.requests})
    guaranteed = set()
    for group in problem.groups:
        if (
            not group.unknown_reason
            and group not in dependent
            and _GroupCapacity(problem, group, sizes, total_requests).is_sufficient(sizes[group])
        ):
            guaranteed.add(group)
    return guaranteed


def _groups_depending_on_others(groups: Iterable[EquivalenceGroup]) -> set[EquivalenceGroup]:
    """Return the groups with a constraint on pods of other groups, or with affinity to pods that do not run yet."""
    dependent = {group for group in groups if group.requirements.affinity_terms and not group.affinity_counts}
    for group in groups:
        dependent.update(other for _, other in group.blocked_groups if other is not group)
        dependent.update(other for other, _ in group.counted_by_constraints if other is not group)
    return dependent


@dataclass(frozen=True, slots=True)
class _DomainLimit:
    """Limit on the pods of a group in each topology domain, by the group's own constraints.

    Attributes:
        domain_of: returns the domain of a node; None if the node takes no pod of the group.
        max_pods: returns how many pods of the group a domain takes.
        domains: all domains; None if each node is a domain.
    """

    domain_of: Callable[[int], str | None]
    max_pods: Callable[[str], float]
    domains: Collection[str] | None


class _GroupCapacity:
    """Capacity for the pods of one group after the pods of all other groups."""

    def __init__(
        self,
        problem: PlacementProblem,
        group: EquivalenceGroup,
        group_sizes: Mapping[EquivalenceGroup, int],
        total_requests: Mapping[int, int],
    ) -> None:
        """`group_sizes`: pods of each group; `total_requests`: sum over all groups by index of the resource."""
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
        """Return how many slots of the group one pod of the other group can take."""
        slots = 1  # a pod takes one of the pods that a node may have
        for kind, amount in other.requests:
            if kind in self._requests:
                slots = max(slots, -(-amount // self._requests[kind]))
        return slots

    def _own_conflict_limits(self) -> Iterator[_DomainLimit]:
        """Yield limits of one pod: its own anti-affinity by domain, its own host ports by node."""
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
            named = self._multi_node_domains(spread.topology_key, domains.pods_by_domain)
            yield _DomainLimit(domains.domain_by_node.get, self._max_pods_by_skew(domains, spread), named)

    def _multi_node_domains(self, topology_key: str, domains: Collection[str]) -> Collection[str] | None:
        return None if self._problem.node_snapshot.is_unique_per_node(topology_key) else domains

    def _max_pods_by_skew(self, domains: SpreadDomains, spread: SpreadConstraint) -> Callable[[str], float]:
        """Return how many pods a domain takes while the emptiest domains get no pod."""
        labels, pods_by_domain = self._group.requirements.labels, domains.pods_by_domain
        fewest = 0 if len(pods_by_domain) < spread.min_domains else min(pods_by_domain.values(), default=0)
        if spread.counts_pod(labels):
            return lambda domain: max(0, fewest + spread.max_skew - pods_by_domain[domain])
        own_pod = spread.matches_own_pod(labels)
        return lambda domain: inf if fewest + spread.max_skew - pods_by_domain[domain] >= own_pod else 0

    def is_sufficient(self, pod_count: int) -> bool:
        """Whether this number of pods fits."""
        if len(self._domain_limits) > 1:
            return False
        needed, total, open_slots = pod_count + self._taken_by_others, 0.0, dict[str, float]()
        for limit in self._domain_limits:
            open_slots = {domain: limit.max_pods(domain) for domain in limit.domains or ()}
        for n in self._usable_nodes() if not self._domain_limits or sum(open_slots.values()) >= needed else ():
            count = self._max_pods_on(n)
            for limit in self._domain_limits:
                domain = limit.domain_of(n)
                count = min(count, open_slots.get(domain, 0)) if domain is not None else 0
                if count:
                    open_slots[domain or ""] -= count
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
        """Yield nodes, the emptiest first. The full nodes are filtered out only if the emptiest do not suffice."""
        yield from self._group.certain_nodes[:_EMPTIEST_NODES]
        if self._remaining_nodes is None:
            self._remaining_nodes = nodes_with_room(
                self._group.certain_nodes[_EMPTIEST_NODES:], self._problem.free, self._group.requests
            )
        yield from self._remaining_nodes

    def _max_pods_on(self, node_index: int) -> float:
        count: float = max_pods_with_room(self._problem.free[node_index], self._group.requests)
        for limit in self._node_limits:
            domain = limit.domain_of(node_index)
            count = min(count, 0 if domain is None else limit.max_pods(domain))
        return count

    def _fits_while_domains_fill(self, pod_count: int) -> bool:
        """Whether the pods fit under a single spread constraint, if the other domains take more as the emptiest fill."""
        spreads = self._group.requirements.spread_constraints
        if (
            len(spreads) != 1
            or not self._domain_limits
            or self._node_limits
            or not spreads[0].counts_pod(self._group.requirements.labels)
        ):
            return False
        domains, slots = self._group.spread_domains[0], Counter[str]()
        limiting = set(domains.pods_by_domain)
        for n in self._usable_nodes():
            if (domain := domains.domain_by_node.get(n)) in limiting:
                slots[domain] += int(self._max_pods_on(n))
                if slots[domain] >= pod_count + self._taken_by_others:
                    limiting.discard(domain)  # the domain has room for all pods
                    if not limiting:
                        break
        capacity = {domain: max(0, count - self._taken_by_others) for domain, count in slots.items()}
        placeable = placeable_pods(domains.pods_by_domain, capacity, spreads[0].max_skew, spreads[0].min_domains)
        return placeable >= pod_count

    def _others_cannot_fill_all_nodes(self, pod_count: int) -> bool:
        """Whether the pods of all groups together cannot fill every node, or every node of a domain.

        To fill a node, pods must use up its free amount of one resource: a share of their total request of it. The
        shares of one resource add up to 1 at most.
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
        blocked_by_own_pods = pod_count - 1 if self._node_limits else 0  # nodes
        max_share = len(self._requests)
        return bool(shares) and all(
            sum(sorted(domain_shares, reverse=True)[blocked_by_own_pods:]) > max_share
            for domain_shares in shares.values()
        )

    def _share_to_fill(self, node_index: int) -> float:
        row = self._problem.free[node_index]
        return min(
            (row[kind] - amount + 1) / max(1, self._total_requests[kind]) for kind, amount in self._group.requests
        )
