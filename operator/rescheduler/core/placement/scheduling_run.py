"""Simulation of the scheduler: one possible order and choice of nodes for the pods of a plan.

The scheduler's choice of a node depends on its configuration, on ties and on chance. The number of pods that fit may
depend on these choices. Therefore a plan repeats the simulation.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from random import Random

from rescheduler.core.model.resource_fit import insufficient_resource
from rescheduler.core.placement.pod_constraints import affinity_counts
from rescheduler.core.placement.problem import EquivalenceGroup, PlacementProblem

_MAX_SCORED_NODES = 50  # feasible nodes that are scored; the scheduler also scores only some of many nodes
_DEFAULT_CPU_REQUEST = 100  # thousandths of a core; the scheduler scores a pod without a CPU request by this
_DEFAULT_MEMORY_REQUEST = 200 * 1024**2  # bytes; the same for memory

ScoreFunction = Callable[[list[int], list[int], tuple[int, int]], float]
"""Score of a node from its free and its allocatable amounts and the requested CPU and memory; the highest wins."""


class _SpreadCounter:
    """Counter for one spread constraint of a group: pods in each domain, and the fewest in any domain."""

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
        """Whether the constraint allows one more pod of the group on the node."""
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
    """Simulated scheduling of pods, one after another.

    Attributes:
        problem: the state before the run.
        placed: number of placed pods of each group.
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
        """`score`: None picks a random feasible node; `certain_only`: use only the certain nodes of a group.

        `nodes_with_room`: nodes with room for one pod of a group before the run; for other groups all possible nodes.
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
        """Place one pod of each listed group, in this order; a pod without a node is retried after later pods."""
        while order:
            unplaced = [group for group in order if not self._try_place(group)]
            order = [group for group in unplaced if group not in self._unschedulable]

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
        """Return the free amount of each resource on the node, after the pods placed so far."""
        return self._free_by_node.get(node_index) or self.problem.free[node_index]

    # -- choice of a node ---------------------------------------------------------------------------------------------

    def _select_node(self, group: EquivalenceGroup) -> int | None:
        """Return the node for one pod of the group; None if no node can take it."""
        candidates, best_score, best_node, scored = self._candidate_nodes[group], float("-inf"), None, 0
        if not candidates:
            return None
        requests, requested = group.requests, self._requested[group]
        may_be_blocked = group in self._blocked_nodes or group in self._blocked_label_values
        position = self._random.randrange(len(candidates))
        for _ in range(len(candidates)):
            position = position if position < len(candidates) else 0
            n = candidates[position]
            free = self.free_resources(n)
            if insufficient_resource(free, requests) is not None or (may_be_blocked and self._is_blocked(group, n)):
                # A full or blocked node stays so for the whole run.
                candidates[position] = candidates[-1]
                candidates.pop()
                continue
            position += 1
            if not self._satisfies_spread_and_affinity(group, n):
                continue
            if self._score is None:
                return n
            score = self._score(free, self.problem.allocatable[n], requested)
            if score > best_score:
                best_score, best_node = score, n
            scored += 1
            if scored >= _MAX_SCORED_NODES:
                break
        return best_node

    def _is_blocked(self, group: EquivalenceGroup, node_index: int) -> bool:
        """Whether anti-affinity or host ports of the pods placed so far keep the group off the node."""
        if node_index in self._blocked_nodes.get(group, ()):
            return True
        if blocked_values := self._blocked_label_values.get(group):
            labels = self.problem.nodes[node_index].labels
            return any(labels.get(key) in values for key, values in blocked_values.items())
        return False

    def _satisfies_spread_and_affinity(self, group: EquivalenceGroup, node_index: int) -> bool:
        """Whether spread and affinity of the group allow the node, after the pods placed so far."""
        for counter in self._spread_counters.get(group, ()):
            if not counter.may_add(node_index):
                return False
        if not group.requirements.affinity_terms:
            return True
        labels, counts = self.problem.nodes[node_index].labels, self._affinity_counts[group]
        if any(term.topology_key not in labels for term in group.requirements.affinity_terms):
            return False
        if not counts:
            return group.matches_own_affinity
        return all(
            counts[term.topology_key, labels[term.topology_key]] > 0 for term in group.requirements.affinity_terms
        )

    # -- assignment ---------------------------------------------------------------------------------------------------

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
    certain = set(group.certain_nodes)
    return [n for n in nodes if n in certain]


def _requested_cpu_and_memory(group: EquivalenceGroup) -> tuple[int, int]:
    """Return the CPU and the memory that one pod of the group requests."""
    requests = dict(group.requests)
    return requests.get(1, 0), requests.get(2, 0)


def default_score(free: list[int], allocatable: list[int], requested: tuple[int, int]) -> float:
    """Score a node by the scheduler's defaults: LeastAllocated, and whether the pod balances CPU and memory."""
    all_cpu, all_memory = allocatable[1] or 1, allocatable[2] or 1
    cpu, memory = free[1] / all_cpu, free[2] / all_memory
    remaining = (
        cpu
        + memory
        - (requested[0] or _DEFAULT_CPU_REQUEST) / all_cpu
        - (requested[1] or _DEFAULT_MEMORY_REQUEST) / all_memory
    )
    imbalance_after = abs(cpu - memory - requested[0] / all_cpu + requested[1] / all_memory)
    return remaining + (abs(cpu - memory) - imbalance_after) / 2


def default_score_before_1_35(free: list[int], allocatable: list[int], requested: tuple[int, int]) -> float:
    """Score a node by the defaults before Kubernetes 1.35: the balance after the pod counts, not its change."""
    cpu, memory = (free[1] - requested[0]) / (allocatable[1] or 1), (free[2] - requested[1]) / (allocatable[2] or 1)
    return cpu + memory - abs(cpu - memory)
