"""Reasons why no node takes a pod: the number of nodes for each reason (docs/reference/blockers.md)."""

from collections import Counter
from dataclasses import dataclass

from rescheduler.api import names
from rescheduler.core.model.quantities import PODS, format_quantity
from rescheduler.core.model.resource_fit import insufficient_resource, split_by_room
from rescheduler.core.placement import messages
from rescheduler.core.placement.messages import BLOCKED_BY_PODS
from rescheduler.core.placement.pod_requirements import PodRequirements
from rescheduler.core.placement.problem import EquivalenceGroup, PlacementProblem
from rescheduler.core.placement.scheduling_run import SchedulingRun


@dataclass(frozen=True, slots=True)
class UnschedulableReason:
    """Reason why no node takes a pod.

    Attributes:
        message: the reason for users; None if the pod fits.
        blocked_by_pods: whether a node has room for the pod, but constraints of other pods block it there.
    """

    message: str | None = None
    blocked_by_pods: bool = False


class UnschedulableExplainer:
    """Explains the pods that do not fit, from a completed scheduling run."""

    def __init__(self, run: SchedulingRun) -> None:
        self._run, self._problem = run, run.problem
        self._rejections_by_key: dict[str, Counter[str]] = {}

    def explain(self, group: EquivalenceGroup) -> UnschedulableReason:
        """Return why no node takes one more pod of the group."""
        key = group.requirements.node_constraints_key
        if key not in self._rejections_by_key:
            self._rejections_by_key[key] = _count_rejecting_nodes(self._problem, group.requirements)
        rejections, max_free = self._rejections_by_key[key] + group.rejected_by_reason, Counter[str]()
        free, resources = self._problem.free, self._problem.resource_names
        full_nodes, roomy_nodes = split_by_room(group.possible_nodes, free, group.requests)
        for kind, nodes in full_nodes.items():
            rejections[resources[kind]] += len(nodes)
            max_free[resources[kind]] = max(free[n][kind] for n in nodes)
        for n in roomy_nodes:
            free_row = self._run.free_resources(n)
            insufficient = insufficient_resource(free_row, group.requests)
            if insufficient is None:
                rejections[BLOCKED_BY_PODS] += 1
                continue
            resource = resources[insufficient]
            rejections[resource] += 1
            max_free[resource] = max(max_free[resource], free_row[insufficient])
        parts = [(self._describe(group, why, max_free), count) for why, count in rejections.most_common() if count]
        if not parts:
            return UnschedulableReason(messages.NO_OTHER_NODE)
        reason = messages.no_node_takes_pod(rejections.total(), parts)
        return UnschedulableReason(messages.with_note(reason, group.requirements.note), rejections[BLOCKED_BY_PODS] > 0)

    def _describe(self, group: EquivalenceGroup, reason: str, max_free: Counter[str]) -> str:
        if reason == PODS:
            return messages.POD_LIMIT_REACHED
        if reason not in self._problem.resource_names:
            return reason
        return messages.insufficient_resource(
            reason,
            format_quantity(reason, group.requirements.requests[reason]),
            format_quantity(reason, max(0, max_free[reason])),
        )


def _count_rejecting_nodes(problem: PlacementProblem, requirements: PodRequirements) -> Counter[str]:
    """Return the number of nodes that take no such pod whatever room they have, by reason."""
    allowed = set(problem.allowed_nodes(requirements))
    rejecting = (
        n for n, node in enumerate(problem.nodes) if n not in allowed and node.name not in problem.source_nodes
    )
    return Counter(_rejection_reason(problem, requirements, n) for n in rejecting)


def _rejection_reason(problem: PlacementProblem, requirements: PodRequirements, node_index: int) -> str:
    node = problem.nodes[node_index]
    if (
        node.name in problem.excluded_nodes
        or node.deleting
        or (node.unschedulable and not problem.node_snapshot.is_schedulable(node_index, requirements))
    ):
        return messages.CORDONED_OR_DRAINING
    if not requirements.node_constraints.selects_node(node):
        pool = requirements.node_constraints.selected_pool
        if pool and node.labels.get(names.NODE_POOL) != pool:
            return messages.outside_pool(pool)
        return messages.NODE_AFFINITY_MISMATCH
    return messages.UNTOLERATED_TAINT
