"""Reads what plans are made from; projected as it comes, so that no more is kept than a plan looks at."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from rescheduler.api import API_VERSION, names
from rescheduler.api.drains import DrainOverrides, NodeDrain
from rescheduler.api.policies import DrainSettings, ReschedulePolicy
from rescheduler.cli.cluster_api import ClusterApi, PluginError
from rescheduler.core.drain.preview import PreviewInput
from rescheduler.core.model import disruption_budgets, object_schemas, pods, volumes, workloads
from rescheduler.core.model import nodes as model_nodes
from rescheduler.core.model.disruption_budgets import DisruptionBudget
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.policy_selection import PolicySelector
from rescheduler.core.model.volume_topology import ClusterVolumes, VolumeTopology, parse_volume_topology
from rescheduler.core.model.volumes import NodeVolumes, VolumeClaim
from rescheduler.core.placement.node_snapshot import NodeSnapshot
from rescheduler.core.placement.pod_requirements import PodRequirementsParser
from rescheduler.core.placement.pod_snapshot import PodSnapshot
from rescheduler.core.placement.problem import PlacementInput

T = TypeVar("T")
Raw = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LivePolicies:
    """How nodes would be drained.

    Attributes:
        winners: None where nothing of ours is installed.
        overrides: what NodeDrains that are there say otherwise, by node.
    """

    policy_selector: PolicySelector | None
    overrides: Mapping[str, DrainOverrides]

    def drain_for(self, node: Node) -> tuple[str, DrainSettings]:
        """Name of the policy that decides, empty where none does, and how the node is drained."""
        policy = self.policy_selector.policy_for(node) if self.policy_selector else None
        drain = policy.spec.drain if policy else DrainSettings()
        own = self.overrides.get(node.name)
        return policy.name if policy else "", own.apply_to(drain) if own else drain


def read_policies(api: ClusterApi) -> LivePolicies:
    """The live policies and NodeDrains, where there are any."""
    try:
        found = [ReschedulePolicy.from_object(raw) for raw in _custom_resources(api, "reschedulepolicies")]
        drains = [NodeDrain.from_object(raw).spec for raw in _custom_resources(api, "nodedrains")]
    except ValueError as error:
        raise PluginError(f"an object of ours makes no sense to this version: {error}") from error
    return LivePolicies(PolicySelector(found) if found else None, {spec.node_name: spec.drain for spec in drains})


def read_preview_input(api: ClusterApi, policies: LivePolicies, node_names: Collection[str] | None) -> PreviewInput:
    """Everything about the nodes of these names; None: about all nodes."""
    nodes = {node.name: node for node in map(model_nodes.parse_node, api.list_items("v1", "nodes"))}
    for name in node_names or ():
        if name not in nodes:
            raise PluginError(f"there is no node {name}")
    draining = {name: policies.drain_for(nodes[name])[1] for name in policies.overrides if name in nodes}
    wanted = nodes.keys() if node_names is None else {*node_names, *draining}
    labels = {
        raw["metadata"]["name"]: raw["metadata"].get("labels") or {} for raw in api.list_items("v1", "namespaces")
    }
    census = PodSnapshot(PodRequirementsParser(_read_enforced_pools(api, labels)), wanted)
    tenants: dict[str, list[Pod]] = defaultdict(list)
    for raw in map(object_schemas.sanitize_pod, api.list_items("v1", "pods")):
        census.add(raw)
        if (node := raw["spec"].get("nodeName")) in wanted:
            tenants[node].append(pods.parse_pod(raw))
    owners = {pod.owner.uid for found in tenants.values() for pod in found if pod.owner}
    claimed = {pod.namespace for found in tenants.values() for pod in found if pod.all_claims}
    storage, around = _read_volumes(api, claimed)
    sets = _read_apps_by_uid(api, "replicasets", owners, workloads.parse_replica_set)
    behind = {found.deployment_uid for found in sets.values()}
    return PreviewInput(
        datetime.now(UTC),
        PlacementInput(
            nodes, census, namespace_labels=labels, cluster_volumes=storage, node_snapshot=NodeSnapshot(nodes, census)
        ),
        tenants,
        draining,
        _read_budgets(api),
        sets,
        _read_apps_by_uid(api, "deployments", behind, workloads.parse_deployment),
        around,
        _read_daemon_sets(api, tenants.values()),
    )


def _custom_resources(api: ClusterApi, resource: str) -> Iterator[Raw]:
    """Objects of a kind of ours; none where nothing of ours is installed."""
    if api.serves_group(API_VERSION):
        yield from api.list_items(API_VERSION, resource)


def _read_apps_by_uid(
    api: ClusterApi, resource: str, uids: Collection[str], project: Callable[[Raw], T]
) -> dict[str, T]:
    """Those of a resource of `apps` with these uids, by uid."""
    raws = api.list_items("apps/v1", resource) if uids else ()
    return {raw["metadata"]["uid"]: project(raw) for raw in raws if raw["metadata"]["uid"] in uids}


def _read_budgets(api: ClusterApi) -> Mapping[str, list[DisruptionBudget]]:
    found: dict[str, list[DisruptionBudget]] = defaultdict(list)
    for each in map(disruption_budgets.parse_budget, api.list_items("policy/v1", "poddisruptionbudgets")):
        found[each.namespace].append(each)
    return found


def _read_daemon_sets(api: ClusterApi, pods_by_node: Iterable[Iterable[Pod]]) -> Mapping[str, frozenset[str]]:
    """Uids of those that exist, by namespace, for the namespaces whose pods are of one."""
    rows = [pod for found in pods_by_node for pod in found if pod.owner and pod.owner.kind == "DaemonSet"]
    known: dict[str, set[str]] = {pod.namespace: set() for pod in rows}
    for raw in api.list_items("apps/v1", "daemonsets") if known else ():
        if raw["metadata"]["namespace"] in known:
            known[raw["metadata"]["namespace"]].add(raw["metadata"]["uid"])
    return {space: frozenset(uids) for space, uids in known.items()}


def _read_enforced_pools(api: ClusterApi, labels: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """By namespace, the pool that admission puts new pods of it into."""
    enforced = {
        raw["metadata"]["name"]
        for raw in _custom_resources(api, "namespacepools")
        if any(
            condition["type"] == "Enforced" and condition["status"] == "True"
            for condition in (raw.get("status") or {}).get("conditions") or ()
        )
    }
    return {space: pool for space, found in labels.items() if (pool := found.get(names.POOL, "")) in enforced}


def _read_volumes(api: ClusterApi, namespaces: Collection[str]) -> tuple[ClusterVolumes, NodeVolumes]:
    """Claims and volumes, for the plan and for the verdicts; nothing is read where no pod has any."""
    if not namespaces:
        return ClusterVolumes(), NodeVolumes()
    claims: dict[tuple[str, str], VolumeClaim] = {}
    for raw in api.list_items("v1", "persistentvolumeclaims"):
        if raw["metadata"]["namespace"] in namespaces:
            found = volumes.parse_volume_claim(raw)
            claims[found.namespace, found.name] = found
    reaches: dict[str, VolumeTopology] = {}
    local: set[str] = set()
    for raw in api.list_items("v1", "persistentvolumes"):
        found_reach, volume = parse_volume_topology(raw), volumes.parse_volume(raw)
        reaches[volume.name] = found_reach
        if volume.local:
            local.add(volume.name)
    bound = {key: claim.volume for key, claim in claims.items()}
    return ClusterVolumes(bound, reaches, _read_free_attachments(api)), NodeVolumes(claims, frozenset(local))


def _read_free_attachments(api: ClusterApi) -> Mapping[str, Mapping[str, int]]:
    """By node and CSI driver, how many more volumes can be attached."""
    attached: Counter[tuple[str, str]] = Counter()
    for spec in (
        object_schemas.sanitize_volume_attachment(raw)["spec"]
        for raw in api.list_items("storage.k8s.io/v1", "volumeattachments")
    ):
        attached[spec.get("nodeName", ""), spec.get("attacher", "")] += 1
    return {
        raw["metadata"]["name"]: {
            driver["name"]: driver["allocatable"]["count"] - attached[raw["metadata"]["name"], driver["name"]]
            for driver in raw["spec"].get("drivers") or ()
            if "count" in (driver.get("allocatable") or {})
        }
        for raw in map(object_schemas.sanitize_csi_node, api.list_items("storage.k8s.io/v1", "csinodes"))
    }
