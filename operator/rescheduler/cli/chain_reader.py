"""Read the pods of other nodes whose move would give room to the pods of a node.

Only the pods of a few nodes are read, and only if the plan of the node lacks room.
"""

from collections.abc import Mapping

from rescheduler.api.policies import DrainSettings
from rescheduler.cli.cluster_api import ClusterApi
from rescheduler.cli.cluster_reader import LivePolicies
from rescheduler.core.drain.preview import NodePlan, PreviewInput
from rescheduler.core.eviction.pod_actions import EvictionContext
from rescheduler.core.model import workloads
from rescheduler.core.model.listed_pods import ListedPod, parse_listed_pod
from rescheduler.core.model.nodes import Node
from rescheduler.core.placement import chain_moves
from rescheduler.core.placement.chain_moves import ChainPlan
from rescheduler.core.placement.problem import MovablePod
from rescheduler.core.rebalance import candidates as rebalance_candidates
from rescheduler.core.rebalance import node_groups
from rescheduler.core.rebalance.selection import Candidate


def find_chain_plan(
    api: ClusterApi, node: Node, policies: LivePolicies, inputs: PreviewInput, node_plan: NodePlan, max_moves: int
) -> ChainPlan:
    """Return the moves of other pods that would give room to the pods of this node, at most `max_moves`."""
    nodes = inputs.placement_input.nodes
    allowed = node_groups.nodes_of_same_group(
        node, nodes.values(), lambda other: policies.drain_for(other)[0], policies.overrides
    )
    plan = (node_plan.pods_to_place, node_plan.forecasts, node_plan.placement_input)
    asked = chain_moves.nodes_to_ask(*plan, {node.name: allowed})
    movable = _read_movable_pods(api, {name: policies.drain_for(nodes[name])[1] for name in asked}, inputs)
    return chain_moves.find_chain_moves(*plan, {node.name: movable}, {node.name: max_moves})


def _read_movable_pods(
    api: ClusterApi, settings_by_node: Mapping[str, DrainSettings], inputs: PreviewInput
) -> list[MovablePod]:
    """Read the pods of these nodes that may move; `settings_by_node`: settings for the pods of each node."""
    context = EvictionContext(inputs.now, namespace_labels=inputs.placement_input.namespace_labels)
    found: list[tuple[ListedPod, Candidate]] = []
    for name, settings in sorted(settings_by_node.items()):
        for raw in api.list_items("v1", "pods", fieldSelector=f"spec.nodeName={name}"):
            listed = parse_listed_pod(raw)
            if candidate := rebalance_candidates.candidate_from_pod(listed, settings, context):
                found.append((listed, candidate))
    stable = _read_stable_deployments(api) if found else {}
    snapshot = inputs.placement_input.pod_snapshot
    return [
        MovablePod(snapshot.scheduled_pod(listed.raw), listed.allocated_with_pod)
        for listed, candidate in found
        if (checked := rebalance_candidates.check_deployment(candidate, stable))
        and rebalance_candidates.may_move_first(checked, inputs.budgets.get(listed.namespace, ()))
    ]


def _read_stable_deployments(api: ClusterApi) -> dict[tuple[str, str], bool]:
    """Return whether each Deployment is stable, by namespace and name."""
    deployments = map(workloads.parse_deployment, api.list_items("apps/v1", "deployments"))
    return {(row.namespace, row.name): rebalance_candidates.is_deployment_stable(row) for row in deployments}
