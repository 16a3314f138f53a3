"""Reads what plans are made from; projected as it comes, so that no more is kept than a plan looks at."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from rescheduler.api import API_VERSION, names
from rescheduler.api.drains import DrainOverrides, NodeDrain
from rescheduler.api.policies import Drain, Policy
from rescheduler.cli.api import Reader, ReadError
from rescheduler.core.drain.preview import World
from rescheduler.core.model import disruption_budgets, object_schemas, pods, volumes, workloads
from rescheduler.core.model import nodes as model_nodes
from rescheduler.core.model.disruption_budgets import Budget
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.policy_selection import Winners
from rescheduler.core.model.volume_topology import Reach, Storage, reach
from rescheduler.core.model.volumes import Claim, Volumes
from rescheduler.core.placement.node_snapshot import Floor
from rescheduler.core.placement.pod_requirements import Asks
from rescheduler.core.placement.pod_snapshot import Census
from rescheduler.core.placement.problem import Ground

T = TypeVar("T")
Raw = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Settings:
    """How nodes would be drained.

    Attributes:
        winners: None where nothing of ours is installed.
        overrides: what NodeDrains that are there say otherwise, by node.
    """

    winners: Winners | None
    overrides: Mapping[str, DrainOverrides]

    def of(self, node: Node) -> tuple[str, Drain]:
        """Name of the policy that decides, empty where none does, and how the node is drained."""
        policy = self.winners.of(node) if self.winners else None
        drain = policy.spec.drain if policy else Drain()
        own = self.overrides.get(node.name)
        return policy.name if policy else "", own.over(drain) if own else drain


def settings(reader: Reader) -> Settings:
    """The live policies and NodeDrains, where there are any."""
    try:
        found = [Policy.from_object(raw) for raw in _ours(reader, "reschedulepolicies")]
        drains = [NodeDrain.from_object(raw).spec for raw in _ours(reader, "nodedrains")]
    except ValueError as error:
        raise ReadError(f"an object of ours makes no sense to this version: {error}") from error
    return Settings(Winners(found) if found else None, {spec.node_name: spec.drain for spec in drains})


def world(reader: Reader, live: Settings, planned: Collection[str] | None) -> World:
    """Everything about the nodes of these names; None: about all nodes."""
    nodes = {node.name: node for node in map(model_nodes.node, reader.each("v1", "nodes"))}
    for name in planned or ():
        if name not in nodes:
            raise ReadError(f"there is no node {name}")
    draining = {name: live.of(nodes[name])[1] for name in live.overrides if name in nodes}
    wanted = nodes.keys() if planned is None else {*planned, *draining}
    labels = {raw["metadata"]["name"]: raw["metadata"].get("labels") or {} for raw in reader.each("v1", "namespaces")}
    census = Census(Asks(_pools(reader, labels)), wanted)
    tenants: dict[str, list[Pod]] = defaultdict(list)
    for raw in map(object_schemas.pod, reader.each("v1", "pods")):
        census.add(raw)
        if (node := raw["spec"].get("nodeName")) in wanted:
            tenants[node].append(pods.pod(raw))
    owners = {pod.owner.uid for found in tenants.values() for pod in found if pod.owner}
    claimed = {pod.namespace for found in tenants.values() for pod in found if pod.volume_claims}
    storage, around = _stored(reader, claimed)
    sets = _of(reader, "replicasets", owners, workloads.replica_set)
    behind = {found.deployment_uid for found in sets.values()}
    return World(
        datetime.now(UTC),
        Ground(nodes, census, spaces=labels, storage=storage, floor=Floor(nodes, census)),
        tenants,
        draining,
        _budgets(reader),
        sets,
        _of(reader, "deployments", behind, workloads.deployment),
        around,
        _daemon_sets(reader, tenants.values()),
    )


def _ours(reader: Reader, resource: str) -> Iterator[Raw]:
    """Objects of a kind of ours; none where nothing of ours is installed."""
    if reader.serves(API_VERSION):
        yield from reader.each(API_VERSION, resource)


def _of(reader: Reader, resource: str, uids: Collection[str], project: Callable[[Raw], T]) -> dict[str, T]:
    """Those of a resource of `apps` with these uids, by uid."""
    raws = reader.each("apps/v1", resource) if uids else ()
    return {raw["metadata"]["uid"]: project(raw) for raw in raws if raw["metadata"]["uid"] in uids}


def _budgets(reader: Reader) -> Mapping[str, list[Budget]]:
    found: dict[str, list[Budget]] = defaultdict(list)
    for each in map(disruption_budgets.budget, reader.each("policy/v1", "poddisruptionbudgets")):
        found[each.namespace].append(each)
    return found


def _daemon_sets(reader: Reader, tenants: Iterable[Iterable[Pod]]) -> Mapping[str, frozenset[str]]:
    """Uids of those that exist, by namespace, for the namespaces whose pods are of one."""
    rows = [pod for found in tenants for pod in found if pod.owner and pod.owner.kind == "DaemonSet"]
    known: dict[str, set[str]] = {pod.namespace: set() for pod in rows}
    for raw in reader.each("apps/v1", "daemonsets") if known else ():
        if raw["metadata"]["namespace"] in known:
            known[raw["metadata"]["namespace"]].add(raw["metadata"]["uid"])
    return {space: frozenset(uids) for space, uids in known.items()}


def _pools(reader: Reader, labels: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """By namespace, the pool that admission puts new pods of it into."""
    enforced = {
        raw["metadata"]["name"]
        for raw in _ours(reader, "namespacepools")
        if any(
            condition["type"] == "Enforced" and condition["status"] == "True"
            for condition in (raw.get("status") or {}).get("conditions") or ()
        )
    }
    return {space: pool for space, found in labels.items() if (pool := found.get(names.POOL, "")) in enforced}


def _stored(reader: Reader, claimed: Collection[str]) -> tuple[Storage, Volumes]:
    """Claims and volumes, for the plan and for the verdicts; nothing is read where no pod has any."""
    if not claimed:
        return Storage(), Volumes()
    claims: dict[tuple[str, str], Claim] = {}
    for raw in reader.each("v1", "persistentvolumeclaims"):
        if raw["metadata"]["namespace"] in claimed:
            found = volumes.claim(raw)
            claims[found.namespace, found.name] = found
    reaches: dict[str, Reach] = {}
    local: set[str] = set()
    for raw in reader.each("v1", "persistentvolumes"):
        found_reach, volume = reach(raw), volumes.volume(raw)
        reaches[volume.name] = found_reach
        if volume.local:
            local.add(volume.name)
    bound = {key: claim.volume for key, claim in claims.items()}
    return Storage(bound, reaches, _limits(reader)), Volumes(claims, frozenset(local))


def _limits(reader: Reader) -> Mapping[str, Mapping[str, int]]:
    """By node and CSI driver, how many more volumes can be attached."""
    attached: Counter[tuple[str, str]] = Counter()
    for spec in (
        object_schemas.attachment(raw)["spec"] for raw in reader.each("storage.k8s.io/v1", "volumeattachments")
    ):
        attached[spec.get("nodeName", ""), spec.get("attacher", "")] += 1
    return {
        raw["metadata"]["name"]: {
            driver["name"]: driver["allocatable"]["count"] - attached[raw["metadata"]["name"], driver["name"]]
            for driver in raw["spec"].get("drivers") or ()
            if "count" in (driver.get("allocatable") or {})
        }
        for raw in map(object_schemas.csi_node, reader.each("storage.k8s.io/v1", "csinodes"))
    }
