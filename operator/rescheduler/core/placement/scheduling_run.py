"""One way in which the scheduler may place the pods of a plan, pod after pod.

Which of the nodes that can take a pod it chooses depends on its configuration, on ties and on chance, and so may how
many find a place. One packing is one such course of events; a plan tries several.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from random import Random

from rescheduler.core.placement.pod_constraints import affinity_counts
from rescheduler.core.placement.problem import EquivalenceGroup, PlacementProblem

_MAX_SCORED_NODES = 50  # nodes that can take a pod; of more than so many the scheduler looks at some alone
_DEFAULT_CPU_REQUEST, _DEFAULT_MEMORY_REQUEST = (
    100,
    200 * 1024**2,
)  # what the scheduler reckons with for pods that ask for none

ScoreFunction = Callable[[list[int], list[int], tuple[int, int]], float]
"""How gladly a node is taken: by what is free of it, what it offers, and the CPU and memory asked; the highest is."""


class _SpreadCounter:
    """One spread constraint of a group: pods in each domain, and the fewest of them."""

    def __init__(self, group: EquivalenceGroup, constraint_index: int) -> None:
        spread, domains = (
            group.requirements.spread_constraints[constraint_index],
            group.spread_domains[constraint_index],
        )
        self._domain_by_node, self._allowed_excess = (
            domains.domain_by_node,
            spread.max_skew - spread.matches_own_pod(group.requirements.labels),
        )
        self._pods_by_domain = Counter(domains.pods_by_domain)
        self._domains_by_pod_count = Counter(domains.pods_by_domain.values())
        self._has_too_few_domains = len(domains.pods_by_domain) < spread.min_domains
        self._min_pods = min(self._domains_by_pod_count, default=0)

    def may_add(self, node_index: int) -> bool:
        """Whether the node may have one more of the group."""
        domain = self._domain_by_node.get(node_index)
        if domain is None:
            return False
        return (
            self._pods_by_domain[domain] - (0 if self._has_too_few_domains else self._min_pods) <= self._allowed_excess
        )

    def add(self, domain: str) -> None:
        before = self._pods_by_domain[domain]
        self._pods_by_domain[domain] = before + 1
        self._domains_by_pod_count[before] -= 1
        self._domains_by_pod_count[before + 1] += 1
        while not self._domains_by_pod_count[self._min_pods]:
            self._min_pods += 1


class SchedulingRun:
    """Nodes being filled.

    Attributes:
        board: what it starts from.
        placed: how many of each group have a place.
    """

    def __init__(
        self,
        problem: PlacementProblem,
        random: Random,
        score: ScoreFunction | None,
        *,
        certain_only: bool,
        nodes_with_room: Mapping[EquivalenceGroup, Sequence[int]] | None = None,
    ) -> None:
        """`weigh`: None chooses by chance; `sure`: nodes of which only the scheduler knows count as full.

        `rooms`: of each group, the nodes that have room at first, where that is known.
        """
        self.problem, self._random, self._score = problem, random, score
        self.placed: Counter[EquivalenceGroup] = Counter()
        self._free_by_node: dict[int, list[int]] = {}  # nodes that pods were placed on
        self._candidate_nodes = {
            group: _candidate_nodes(group, nodes_with_room or {}, certain_only=certain_only) for group in problem.groups
        }
        self._requested = {group: _requested_cpu_and_memory(group) for group in problem.groups}
        self._blocked_nodes: dict[EquivalenceGroup, set[int]] = defaultdict(set)
        self._blocked_label_values: dict[EquivalenceGroup, dict[str, set[str]]] = {}
        self._affinity_counts = {
            group: Counter(group.affinity_counts) for group in problem.groups if group.requirements.affinity_terms
        }
        self._spread_counters = {
            group: [_SpreadCounter(group, number) for number in range(len(group.spread_domains))]
            for group in problem.groups
            if group.spread_domains
        }
        self._unschedulable: set[EquivalenceGroup] = set()

    def place(self, order: Sequence[EquivalenceGroup]) -> None:
        """Place one pod of each of these, in turn; those that find no place try again when others have one."""
        while order:
            left = [group for group in order if not self._try_place(group)]
            order = [group for group in left if group not in self._unschedulable]

    def _try_place(self, group: EquivalenceGroup) -> bool:
        if group in self._unschedulable:
            return False
        n = self._select_node(group)
        if n is None:
            self._unschedulable.add(group)
            return False
        self._assign(group, n)
        return True

    def free_resources(self, node_index: int) -> list[int]:
        """What is free of each resource on the node now."""
        return self._free_by_node.get(node_index) or self.problem.free[node_index]

    def insufficient_resource(self, group: EquivalenceGroup, node_index: int) -> str:
        """The first resource that the node has too little of for one more of the group; empty where it has enough."""
        row = self.free_resources(node_index)
        return next((self.problem.resource_names[kind] for kind, amount in group.requests if row[kind] < amount), "")

    # -- choosing -----------------------------------------------------------------------------------------------------

    def _select_node(self, group: EquivalenceGroup) -> int | None:
        """A node that can take one; None where none can."""
        pool, best, chosen, seen, at = self._candidate_nodes[group], float("-inf"), None, 0, 0
        if not pool:
            return None
        size = self._requested[group]
        at = self._random.randrange(len(pool))
        for _ in range(len(pool)):
            at = at if at < len(pool) else 0
            n = pool[at]
            if not self._is_available(group, n):
                # What is full, or kept off, stays so: it is not looked at again.
                pool[at] = pool[-1]
                pool.pop()
                continue
            at += 1
            if not self._satisfies_spread_and_affinity(group, n):
                continue
            if self._score is None:
                return n
            weight = self._score(self.free_resources(n), self.problem.allocatable[n], size)
            if weight > best:
                best, chosen = weight, n
            seen += 1
            if seen >= _MAX_SCORED_NODES:
                break
        return chosen

    def _is_available(self, group: EquivalenceGroup, node_index: int) -> bool:
        row = self._free_by_node.get(node_index) or self.problem.free[node_index]
        for kind, amount in group.requests:
            if row[kind] < amount:
                return False
        if node_index in self._blocked_nodes.get(group, ()):
            return False
        if off := self._blocked_label_values.get(group):
            labels = self.problem.nodes[node_index].labels
            return all(labels.get(key) not in values for key, values in off.items())
        return True

    def _satisfies_spread_and_affinity(self, group: EquivalenceGroup, node_index: int) -> bool:
        """Whether spread and affinity let it in as things are now."""
        for level in self._spread_counters.get(group, ()):
            if not level.may_add(node_index):
                return False
        if not group.requirements.affinity_terms:
            return True
        labels, near = self.problem.nodes[node_index].labels, self._affinity_counts[group]
        if any(term.topology_key not in labels for term in group.requirements.affinity_terms):
            return False
        if not near:
            return group.matches_own_affinity
        return all(near[term.topology_key, labels[term.topology_key]] > 0 for term in group.requirements.affinity_terms)

    # -- taking -------------------------------------------------------------------------------------------------------

    def _assign(self, group: EquivalenceGroup, node_index: int) -> None:
        row = self._free_by_node.get(node_index)
        if row is None:
            row = self._free_by_node[node_index] = list(self.problem.free[node_index])
        for kind, amount in group.requests:
            row[kind] -= amount
        self.placed[group] += 1
        labels = self.problem.nodes[node_index].labels
        for key, other in group.blocked_groups:
            if key is None:
                self._blocked_nodes[other].add(node_index)
            elif key in labels:
                self._blocked_label_values.setdefault(other, {}).setdefault(key, set()).add(labels[key])
        for other, number in group.counted_by_constraints:
            if (domain := other.spread_domains[number].domain_by_node.get(node_index)) is not None:
                self._spread_counters[other][number].add(domain)
                self._unschedulable.discard(other)
        for other in group.attracted_groups:
            self._affinity_counts[other].update(affinity_counts(other, labels))
            self._unschedulable.discard(other)


def _candidate_nodes(
    group: EquivalenceGroup, nodes_with_room: Mapping[EquivalenceGroup, Sequence[int]], *, certain_only: bool
) -> list[int]:
    nodes = nodes_with_room.get(group, group.possible_nodes)
    if not certain_only or group.certain_nodes is group.possible_nodes:
        return list(nodes)
    left = set(group.certain_nodes)
    return [n for n in nodes if n in left]


def _requested_cpu_and_memory(group: EquivalenceGroup) -> tuple[int, int]:
    """CPU and memory that one of it asks for."""
    asked = dict(group.requests)
    return asked.get(1, 0), asked.get(2, 0)


def default_score(free: list[int], allocatable: list[int], requested: tuple[int, int]) -> float:
    """The scheduler's default: where most is left, and where CPU and memory even out."""
    whole_cpu, whole_memory = allocatable[1] or 1, allocatable[2] or 1
    cpu, memory = free[1] / whole_cpu, free[2] / whole_memory
    left = (
        cpu
        + memory
        - (requested[0] or _DEFAULT_CPU_REQUEST) / whole_cpu
        - (requested[1] or _DEFAULT_MEMORY_REQUEST) / whole_memory
    )
    uneven = abs(cpu - memory - requested[0] / whole_cpu + requested[1] / whole_memory)
    return left + (abs(cpu - memory) - uneven) / 2


def default_score_before_1_35(free: list[int], allocatable: list[int], requested: tuple[int, int]) -> float:
    """The same before Kubernetes 1.35: how even they are counts, not whether they become it."""
    cpu, memory = (free[1] - requested[0]) / (allocatable[1] or 1), (free[2] - requested[1]) / (allocatable[2] or 1)
    return cpu + memory - abs(cpu - memory)
