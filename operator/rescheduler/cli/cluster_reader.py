"""Read the objects that a plan needs. Each object is parsed at once, to keep only the fields of a plan in memory."""

import contextlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from rescheduler.api import API_VERSION, names
from rescheduler.api.drains import DrainOverrides, NodeDrain
from rescheduler.api.policies import DrainSettings, ReschedulePolicy
from rescheduler.cli import messages
from rescheduler.cli.cluster_api import ClusterApi, PluginError
from rescheduler.core.drain.came_back import settled_owners
from rescheduler.core.drain.preview import PreviewInput
from rescheduler.core.eviction.pod_actions import OwnerKey
from rescheduler.core.model import disruption_budgets, object_schemas, pods, resource_requests, volumes, workloads
from rescheduler.core.model import nodes as model_nodes
from rescheduler.core.model.disruption_budgets import DisruptionBudget
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.policy_selection import PolicySelector
from rescheduler.core.model.raw import RawObject, RawPod, controller_reference
from rescheduler.core.model.volume_topology import ClusterVolumes, VolumeTopology, parse_volume_topology
from rescheduler.core.model.volumes import NodeVolumes, VolumeClaim
from rescheduler.core.model.workloads import Deployment, ReplicaSet
from rescheduler.core.placement import successors
from rescheduler.core.placement.node_snapshot import NodeSnapshot
from rescheduler.core.placement.pod_requirements import PodRequirementsParser
from rescheduler.core.placement.pod_snapshot import PodSnapshot
from rescheduler.core.placement.problem import PlacementInput
from rescheduler.core.placement.successors import OwnerTemplate

_DEVICE_API = "resource.k8s.io/v1"


@dataclass(frozen=True, slots=True)
class LivePolicies:
    """The policies and NodeDrains of the cluster, which decide how a node is drained.

    Attributes:
        policy_selector: finds the winning policy of a node. None: the cluster has no policy.
        overrides: the `spec.drain` of each NodeDrain, by node.
        came_back: owners whose pods came back onto their drained node, by node.
    """

    policy_selector: PolicySelector | None
    overrides: Mapping[str, DrainOverrides]
    came_back: Mapping[str, frozenset[OwnerKey]]

    def drain_for(self, node: Node) -> tuple[str, DrainSettings]:
        """Return the name of the winning policy, empty for none, and the drain settings of the node."""
        policy = self.policy_selector.policy_for(node) if self.policy_selector else None
        drain = policy.spec.drain if policy else DrainSettings()
        overrides = self.overrides.get(node.name)
        return policy.name if policy else "", overrides.apply_to(drain) if overrides else drain


def read_policies(api: ClusterApi) -> LivePolicies:
    """Read the policies and NodeDrains. Raises PluginError if one of them cannot be parsed."""
    try:
        policies = [ReschedulePolicy.from_object(raw) for raw in _custom_resources(api, "reschedulepolicies")]
        drains = [NodeDrain.from_object(raw) for raw in _custom_resources(api, "nodedrains")]
    except ValueError as error:
        raise PluginError(messages.unreadable_object(" ".join(str(error).split()))) from error
    return LivePolicies(
        PolicySelector(policies) if policies else None,
        {drain.spec.node_name: drain.spec.drain for drain in drains},
        {drain.spec.node_name: settled_owners(drain.status.came_back) for drain in drains},
    )


def read_preview_input(api: ClusterApi, policies: LivePolicies, node_names: Collection[str] | None) -> PreviewInput:
    """Read the input of plans for these nodes; None means all nodes. Raises PluginError if a node does not exist."""
    nodes = {node.name: node for node in map(model_nodes.parse_node, api.list_items("v1", "nodes"))}
    for name in node_names or ():
        if name not in nodes:
            raise PluginError(messages.node_missing(name))
    draining = {name: policies.drain_for(nodes[name])[1] for name in policies.overrides if name in nodes}
    planned = nodes.keys() if node_names is None else {*node_names, *draining}
    labels = {
        raw["metadata"]["name"]: raw["metadata"].get("labels") or {} for raw in api.list_items("v1", "namespaces")
    }
    replica_sets = _read_replica_sets(api)
    templates = successors.replica_set_templates(replica_sets.values())
    snapshot = PodSnapshot(PodRequirementsParser(_read_enforced_pools(api, labels)), planned, templates)
    pods_by_node: dict[str, list[Pod]] = defaultdict(list)
    for raw in map(object_schemas.sanitize_pod, api.list_items("v1", "pods")):
        if (node := raw["spec"].get("nodeName")) in planned:
            pods_by_node[node].append(pods.parse_pod(raw))
            _read_stateful_set_template(api, raw, templates)
        snapshot.add(raw)
    planned_pods = [pod for node_pods in pods_by_node.values() for pod in node_pods]
    claim_namespaces = {pod.namespace for pod in planned_pods if pod.all_claims}
    cluster_volumes, node_volumes = _read_volumes(api, claim_namespaces, nodes)
    owners = (replica_sets.get(pod.owner.uid) for pod in planned_pods if pod.owner)
    deployment_uids = {replica_set.deployment_uid for replica_set in owners if replica_set}
    return PreviewInput(
        datetime.now(UTC),
        PlacementInput(
            nodes,
            snapshot,
            namespace_labels=labels,
            cluster_volumes=cluster_volumes,
            device_resources=_read_device_resources(api, snapshot),
            node_snapshot=NodeSnapshot(nodes, snapshot),
        ),
        pods_by_node,
        draining,
        _read_budgets(api),
        replica_sets,
        _read_deployments(api, deployment_uids),
        node_volumes,
        _read_daemon_sets(api, planned_pods),
        policies.came_back,
    )


def _custom_resources(api: ClusterApi, resource: str) -> Iterator[RawObject]:
    """Yield the objects of a Rescheduler kind; none if Rescheduler is not installed."""
    if api.serves_group(API_VERSION):
        yield from api.list_items(API_VERSION, resource)


def _read_stateful_set_template(api: ClusterApi, raw: RawPod, templates: dict[str, OwnerTemplate]) -> None:
    """Add the template of the StatefulSet of a raw pod, if the pod was changed after its creation."""
    name = successors.stateful_set_to_read(raw)
    uid = (controller_reference(raw["metadata"]) or {}).get("uid")
    if name is None or uid in templates:
        return
    if owner := api.get("apps/v1", f"namespaces/{raw['metadata']['namespace']}/statefulsets/{name}"):
        templates[owner["metadata"]["uid"]] = successors.stateful_set_template(owner)


def _read_replica_sets(api: ClusterApi) -> dict[str, ReplicaSet]:
    """Return the ReplicaSets by UID, without those that cannot be parsed.

    A plan judges the pods of an unreadable ReplicaSet like pods whose owner has no template.
    """
    replica_sets: dict[str, ReplicaSet] = {}
    for raw in api.list_items("apps/v1", "replicasets"):
        with contextlib.suppress(ValueError):
            replica_sets[raw["metadata"]["uid"]] = workloads.parse_replica_set(raw)
    return replica_sets


def _read_deployments(api: ClusterApi, uids: Collection[str]) -> dict[str, Deployment]:
    """Return the Deployments with these UIDs, by UID."""
    raws = api.list_items("apps/v1", "deployments") if uids else ()
    return {raw["metadata"]["uid"]: workloads.parse_deployment(raw) for raw in raws if raw["metadata"]["uid"] in uids}


def _read_budgets(api: ClusterApi) -> Mapping[str, list[DisruptionBudget]]:
    budgets: dict[str, list[DisruptionBudget]] = defaultdict(list)
    for budget in map(disruption_budgets.parse_budget, api.list_items("policy/v1", "poddisruptionbudgets")):
        budgets[budget.namespace].append(budget)
    return budgets


def _read_daemon_sets(api: ClusterApi, planned_pods: Iterable[Pod]) -> Mapping[str, frozenset[str]]:
    """Return the UIDs of existing DaemonSets by namespace, for the namespaces of DaemonSet pods."""
    namespaces = {pod.namespace for pod in planned_pods if pod.owner and pod.owner.kind == "DaemonSet"}
    uids: dict[str, set[str]] = {namespace: set() for namespace in namespaces}
    for raw in api.list_items("apps/v1", "daemonsets") if uids else ():
        if raw["metadata"]["namespace"] in uids:
            uids[raw["metadata"]["namespace"]].add(raw["metadata"]["uid"])
    return {namespace: frozenset(existing) for namespace, existing in uids.items()}


def _read_enforced_pools(api: ClusterApi, labels: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return, by namespace, the pool into which admission puts new pods."""
    enforced = {
        raw["metadata"]["name"]
        for raw in _custom_resources(api, "namespacepools")
        if any(
            condition["type"] == "Enforced" and condition["status"] == "True"
            for condition in (raw.get("status") or {}).get("conditions") or ()
        )
    }
    return {
        namespace: pool
        for namespace, namespace_labels in labels.items()
        if (pool := namespace_labels.get(names.POOL, "")) in enforced
    }


def _read_device_resources(api: ClusterApi, snapshot: PodSnapshot) -> frozenset[str]:
    """Return the resources that DeviceClasses serve; empty if no planned pod requests an extended resource."""
    node_pods = (pod for node_pods in snapshot.pods_by_node.values() for pod in node_pods)
    if not any(pod.requirements.requests_extended_resource for pod in node_pods) or not api.serves_group(_DEVICE_API):
        return frozenset()
    return resource_requests.device_resources(
        object_schemas.sanitize_device_class(raw) for raw in api.list_items(_DEVICE_API, "deviceclasses")
    )


def _read_volumes(
    api: ClusterApi, namespaces: Collection[str], node_names: Collection[str]
) -> tuple[ClusterVolumes, NodeVolumes]:
    """Return claims and volumes for placement and for pod actions. Without namespaces nothing is read."""
    if not namespaces:
        return ClusterVolumes(), NodeVolumes()
    claims: dict[tuple[str, str], VolumeClaim] = {}
    for raw in api.list_items("v1", "persistentvolumeclaims"):
        if raw["metadata"]["namespace"] in namespaces:
            claim = volumes.parse_volume_claim(raw)
            claims[claim.namespace, claim.name] = claim
    topologies: dict[str, VolumeTopology] = {}
    local: set[str] = set()
    for raw in api.list_items("v1", "persistentvolumes"):
        volume = volumes.parse_volume(raw)
        topologies[volume.name] = parse_volume_topology(raw)
        if volume.is_local_to(node_names):
            local.add(volume.name)
    bound = {key: claim.volume for key, claim in claims.items()}
    return ClusterVolumes(bound, topologies, _read_free_attachments(api)), NodeVolumes(claims, frozenset(local))


def _read_free_attachments(api: ClusterApi) -> Mapping[str, Mapping[str, int]]:
    """Return, by node and CSI driver, the number of volumes that can still be attached."""
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
