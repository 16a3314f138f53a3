"""List what decides which pods may move without a request of a user: for rebalancing, and for chain moves of drains."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime

from rescheduler.api.policies import DrainSettings
from rescheduler.controllers.runtime.readable import readable_objects
from rescheduler.core.eviction.pod_actions import EvictionContext
from rescheduler.core.model import disruption_budgets, object_schemas
from rescheduler.core.model.disruption_budgets import DisruptionBudget
from rescheduler.core.model.listed_pods import parse_listed_pod
from rescheduler.core.model.workloads import parse_deployment
from rescheduler.core.placement.pod_snapshot import PodSnapshot
from rescheduler.core.placement.problem import MovablePod
from rescheduler.core.rebalance import candidates as rebalance_candidates
from rescheduler.core.rebalance.selection import Candidate
from rescheduler.kube import paths
from rescheduler.kube.client import Client


async def list_movable_pods(
    client: Client,
    settings_by_node: Mapping[str, DrainSettings],
    snapshot: PodSnapshot,
    now: datetime,
    *,
    own_pod: str,
) -> list[MovablePod]:
    """List the pods that a chain move may move; `settings_by_node`: settings for the pods of each node."""
    found: list[tuple[Candidate, MovablePod]] = []
    namespace_labels = await list_namespace_labels(client, *settings_by_node.values())
    context = EvictionContext(now, namespace_labels=namespace_labels, own_pod=own_pod)
    for name, settings in sorted(settings_by_node.items()):
        async for page in client.list(paths.PODS, fieldSelector=f"spec.nodeName={name}"):
            for listed in readable_objects(page["items"], parse_listed_pod):
                if candidate := rebalance_candidates.candidate_from_pod(listed, settings, context):
                    movable = MovablePod(snapshot.scheduled_pod(listed.raw), listed.allocated_with_pod)
                    found.append((candidate, movable))
    namespaces = {candidate.pod.namespace for candidate, _ in found}
    stable, budgets = await list_deployment_stability(client, namespaces), await list_budgets(client, namespaces)
    return [
        movable
        for candidate, movable in found
        if (checked := rebalance_candidates.check_deployment(candidate, stable))
        and rebalance_candidates.may_move_first(checked, budgets)
    ]


async def list_namespace_labels(client: Client, *drains: DrainSettings) -> Mapping[str, Mapping[str, str]]:
    """List the labels of namespaces, if a rule of these settings selects namespaces; empty otherwise."""
    labels_by_namespace: dict[str, Mapping[str, str]] = {}
    if any(not rule.namespace_selector.is_empty for drain in drains for rule in drain.rules):
        async for page in client.list(paths.NAMESPACES):
            metas = [raw["metadata"] for raw in readable_objects(page["items"], object_schemas.sanitize_metadata)]
            labels_by_namespace |= {meta["name"]: meta.get("labels") or {} for meta in metas}
    return labels_by_namespace


async def list_budgets(client: Client, namespaces: Iterable[str]) -> list[DisruptionBudget]:
    """List the PodDisruptionBudgets of these namespaces."""
    return [
        budget
        for namespace in sorted(namespaces)
        async for page in client.list(paths.disruption_budgets(namespace))
        for budget in readable_objects(page["items"], disruption_budgets.parse_budget)
    ]


async def list_deployment_stability(client: Client, namespaces: Collection[str]) -> dict[tuple[str, str], bool]:
    """List whether each Deployment of these namespaces is stable, by namespace and name."""
    return {
        (namespace, deployment.name): rebalance_candidates.is_deployment_stable(deployment)
        for namespace in sorted(namespaces)
        async for page in client.list(paths.in_namespace("apps/v1", namespace, "deployments"))
        for deployment in readable_objects(page["items"], parse_deployment)
    }
