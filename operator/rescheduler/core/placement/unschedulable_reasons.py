"""Why no node takes a pod, in words that a person can act on."""

from collections import Counter
from dataclasses import dataclass

from rescheduler.api import names
from rescheduler.core.model import node_affinity
from rescheduler.core.model.quantities import PODS, format_quantity
from rescheduler.core.placement.pod_requirements import PodRequirements
from rescheduler.core.placement.problem import BLOCKED_BY_PODS, EquivalenceGroup, PlacementProblem
from rescheduler.core.placement.scheduling_run import SchedulingRun

_CORDONED_OR_DRAINING = "cordoned or being drained"
_NODE_AFFINITY_MISMATCH = "ruled out by its nodeSelector or node affinity"


@dataclass(frozen=True, slots=True)
class UnschedulableReason:
    """Why a pod finds no place.

    Attributes:
        crowded: somewhere there is room, and other pods keep it off.
    """

    message: str = ""
    blocked_by_pods: bool = False


class UnschedulableExplainer:
    """Of one plan, after one packing."""

    def __init__(self, run: SchedulingRun) -> None:
        self._run, self._problem = run, run.problem
        self._rejections_by_key: dict[str, Counter[str]] = {}

    def explain(self, group: EquivalenceGroup) -> UnschedulableReason:
        """Why one more of the group finds no place."""
        key = group.requirements.node_constraints_key
        if key not in self._rejections_by_key:
            self._rejections_by_key[key] = _count_rejecting_nodes(self._problem, group.requirements)
        lost, most, nodes = (
            self._rejections_by_key[key] + group.rejected_by_reason,
            Counter[str](),
            group.possible_nodes,
        )
        free, kinds = self._problem.free, self._problem.resource_names
        for kind, amount in group.requests:
            full = [n for n in nodes if free[n][kind] < amount]
            if full:
                lost[kinds[kind]] += len(full)
                most[kinds[kind]] = max(free[n][kind] for n in full)
                nodes = [n for n in nodes if free[n][kind] >= amount]
        for n in nodes:
            name = self._run.insufficient_resource(group, n)
            lost[name or BLOCKED_BY_PODS] += 1
            if name:
                most[name] = max(most[name], self._run.free_resources(n)[kinds.index(name)])
        parts = [f"{count} {self._describe(group, why, most)}" for why, count in lost.most_common() if count]
        if not parts:
            return UnschedulableReason("there is no other node")
        return UnschedulableReason(
            f"of {lost.total()} other nodes none takes it: {', '.join(parts)}", lost[BLOCKED_BY_PODS] > 0
        )

    def _describe(self, group: EquivalenceGroup, reason: str, max_free: Counter[str]) -> str:
        if reason == PODS:
            return "full (number of pods)"
        if reason not in self._problem.resource_names:
            return reason
        asked, free = (
            format_quantity(reason, group.requirements.requests[reason]),
            format_quantity(reason, max(0, max_free[reason])),
        )
        return f"with too little {reason} ({asked} asked for, at most {free} free)"


def _count_rejecting_nodes(problem: PlacementProblem, requirements: PodRequirements) -> Counter[str]:
    """How many nodes take none of these pods whatever they hold, by the reason."""
    allowed = set(problem.allowed_nodes(requirements))
    others = (n for n, node in enumerate(problem.nodes) if n not in allowed and node.name not in problem.source_nodes)
    return Counter(_rejection_reason(problem, requirements, n) for n in others)


def _rejection_reason(problem: PlacementProblem, requirements: PodRequirements, node_index: int) -> str:
    node = problem.nodes[node_index]
    if (
        node.name in problem.excluded_nodes
        or node.deleting
        or (node.unschedulable and not problem.node_snapshot.is_schedulable(node_index, requirements))
    ):
        return _CORDONED_OR_DRAINING
    if not node_affinity.selects_node(requirements.node_constraints, node):
        pool = requirements.node_constraints["nodeSelector"].get(names.NODE_POOL)
        return f"not of pool {pool}" if pool and node.labels.get(names.NODE_POOL) != pool else _NODE_AFFINITY_MISMATCH
    return "with a taint that it does not tolerate"
