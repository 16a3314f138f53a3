"""Count the pods of pools, sum their requests, and list the misplaced pods.

Raw pods are added one by one and never kept, so that memory grows with pools and nodes and not with pods. Pods that have
ended are not counted. Pods of DaemonSets, mirror pods, and pods of kube-system and the operator's own namespace are never
misplaced. A foreign pod that tolerates the taint is counted but not moved, because it would come back.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from rescheduler.api import names
from rescheduler.api.pools import ExistingPods
from rescheduler.api.untrusted import parse_time
from rescheduler.core.model import object_schemas
from rescheduler.core.model.node_affinity import scheduling_constraints, tolerates
from rescheduler.core.model.pods import TERMINAL_PHASES
from rescheduler.core.model.raw import RawPod, RawPodSpec, controller_reference
from rescheduler.core.model.release_record import read_record
from rescheduler.core.model.resource_requests import ResourceList, allocated_resources, allocated_with_pod
from rescheduler.core.pools.labels_and_taints import pool_taint
from rescheduler.core.pools.membership import PoolMemberships

MAX_LISTED_PER_POOL = 500
"""Misplaced pods of one pool that are listed by name at once; when they have moved, others take their place."""

ListScope = tuple[str, str]
"""One list of pods that finds misplaced pods: `namespace` and its name, or `node` and its name."""


@dataclass(frozen=True, slots=True)
class MisplacedPod:
    """A pod that is outside its pool, or foreign on a node of an exclusive pool.

    Attributes:
        requesting_pool: the pool for which the pod leaves: its own pool, or the exclusive pool of its node.
        target_pool: the pool of its namespace; None: no pool, and any node without a pool will do.
        owner_uid: the UID of its controller, or its own UID without a controller.
        created: its creationTimestamp; None if unreadable.
        released: whether the pod is released already.
        resource_requests: its requests, by resource.
        scheduling_constraints: nodeSelector, node affinity and tolerations of its spec.
    """

    namespace: str
    name: str
    uid: str
    node: str
    requesting_pool: str
    target_pool: str | None = None
    owner_uid: str = ""
    created: datetime | None = None
    released: bool = False
    resource_requests: ResourceList = field(default_factory=dict)
    scheduling_constraints: RawPodSpec = field(default_factory=dict)


@dataclass(slots=True)
class MisplacementReport:
    """The misplaced pods of one list, or of all lists.

    Attributes:
        pods_outside: by pool, the number of its pods on nodes of no or another pool.
        pods_foreign: by pool, the number of pods of other namespaces on its nodes.
        pods_to_move: the pods to move, at most `MAX_LISTED_PER_POOL` of a pool.
    """

    pods_outside: Counter[str] = field(default_factory=Counter)
    pods_foreign: Counter[str] = field(default_factory=Counter)
    pods_to_move: list[MisplacedPod] = field(default_factory=list)

    def merge(self, report: "MisplacementReport") -> None:
        """Add the pods of another list."""
        self.pods_outside.update(report.pods_outside)
        self.pods_foreign.update(report.pods_foreign)
        self.pods_to_move += report.pods_to_move


@dataclass(frozen=True)
class MembershipSnapshot:
    """The members of all pools at one moment.

    Attributes:
        pools_by_namespace: by namespace, the pools that have it or in mode Audit would have it.
        pools_by_node: by node, the pools that have it or in mode Audit would have it.
        pool_of_namespace: by namespace, the pool that has it; None: no pool has it.
        pool_of_node: by node, the pool that has it; None: no pool has it.
        exclusive_pools: pools with `exclusive: true`.
        moving_pools: pools with `existingPods: Move`.
        exempt_namespaces: namespaces that no pool can have.
        listed_counts: by pool, the number of pods to move that are listed so far.
    """

    pools_by_namespace: Mapping[str, tuple[str, ...]]
    pools_by_node: Mapping[str, tuple[str, ...]]
    pool_of_namespace: Mapping[str, str | None]
    pool_of_node: Mapping[str, str | None]
    exclusive_pools: frozenset[str]
    moving_pools: frozenset[str]
    exempt_namespaces: frozenset[str]
    listed_counts: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, memberships: PoolMemberships) -> "MembershipSnapshot":
        """Return the members as they are now."""
        namespaces, nodes = memberships.pools_by_namespace(), memberships.pools_by_node()
        return cls(
            namespaces,
            nodes,
            {name: memberships.pool_of_namespace(name) for name in namespaces},
            {name: memberships.pool_of_node(name) for name in nodes},
            frozenset(name for name, pool in memberships.pools.items() if pool.spec.exclusive),
            frozenset(n for n, p in memberships.pools.items() if p.spec.existing_pods is ExistingPods.MOVE),
            memberships.exempt_namespaces,
        )


def is_exempt(raw: RawPod, exempt_namespaces: Iterable[str]) -> bool:
    """Whether pools do not apply to this raw pod."""
    meta = object_schemas.sanitize_pod(raw)["metadata"]
    return (
        meta["namespace"] in exempt_namespaces
        or names.MIRROR_POD in (meta.get("annotations") or {})
        or any(o["kind"] == "DaemonSet" and o.get("controller") for o in meta.get("ownerReferences") or ())
    )


def list_scope(raw: RawPod, snapshot: MembershipSnapshot) -> ListScope | None:
    """Return the list that finds a misplaced raw pod, so that each pod is found once; None if it is not misplaced.

    A pod without the label of its pool is older than the pool: a list of its namespace finds it. A list of their node
    finds all other pods.
    """
    raw = object_schemas.sanitize_pod(raw)
    if not is_misplaced(raw, snapshot):
        return None
    meta = raw["metadata"]
    pools, label = snapshot.pools_by_namespace.get(meta["namespace"], ()), (meta.get("labels") or {}).get(names.POOL)
    node_pools = snapshot.pools_by_node.get(raw["spec"]["nodeName"], ())
    if any(pool != label and pool not in node_pools for pool in pools):
        return ("namespace", meta["namespace"])
    return ("node", raw["spec"]["nodeName"])


def is_misplaced(raw: RawPod, snapshot: MembershipSnapshot) -> bool:
    """Whether a raw pod is outside its pool, or foreign on a node of an exclusive pool."""
    raw = object_schemas.sanitize_pod(raw)
    node = raw["spec"].get("nodeName")
    if not node or raw["status"].get("phase") in TERMINAL_PHASES or is_exempt(raw, snapshot.exempt_namespaces):
        return False
    pools = snapshot.pools_by_namespace.get(raw["metadata"]["namespace"], ())
    node_pools = snapshot.pools_by_node.get(node, ())
    return any(pool not in node_pools for pool in pools) or any(
        pool in snapshot.exclusive_pools and pool not in pools for pool in node_pools
    )


def add_to_report(raw: RawPod, snapshot: MembershipSnapshot, report: MisplacementReport) -> None:
    """Count a misplaced raw pod, and list it if its pool moves pods."""
    raw = object_schemas.sanitize_pod(raw)
    meta, node = raw["metadata"], raw["spec"]["nodeName"]
    pools, node_pools = snapshot.pools_by_namespace.get(meta["namespace"], ()), snapshot.pools_by_node.get(node, ())
    outside = [pool for pool in pools if pool not in node_pools]
    foreign = [pool for pool in node_pools if pool in snapshot.exclusive_pools and pool not in pools]
    report.pods_outside.update(outside)
    report.pods_foreign.update(foreign)
    own_pool, node_pool = snapshot.pool_of_namespace.get(meta["namespace"]), snapshot.pool_of_node.get(node)
    pool = own_pool if own_pool in outside else node_pool if node_pool in foreign else None
    if pool not in snapshot.moving_pools or "deletionTimestamp" in meta:
        return
    # A released pod that is not listed would be returned to its ReplicaSet.
    if snapshot.listed_counts[pool] >= MAX_LISTED_PER_POOL and not read_record(meta)[1]:
        return
    if pool == own_pool or not tolerates(raw["spec"].get("tolerations") or (), [pool_taint(pool)]):
        snapshot.listed_counts[pool] += 1
        report.pods_to_move.append(_to_misplaced_pod(raw, pool, own_pool))


def _to_misplaced_pod(raw: RawPod, requesting_pool: str, target_pool: str | None) -> MisplacedPod:
    meta, spec = raw["metadata"], raw["spec"]
    record, released = read_record(meta)
    owner_uid = (controller_reference(meta) or meta).get("uid", "")
    return MisplacedPod(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta.get("uid", ""),
        node=spec["nodeName"],
        requesting_pool=requesting_pool,
        target_pool=target_pool,
        owner_uid=record.replica_set_uid if record else owner_uid,
        created=parse_time(meta.get("creationTimestamp")),
        released=released,
        resource_requests=allocated_resources(raw),
        scheduling_constraints=scheduling_constraints(spec),
    )


@dataclass(slots=True)
class PodTotals:
    """Sums over all pods of the cluster.

    Attributes:
        pods_by_pool: by pool, the number of pods of its namespaces without exempt pods.
        requests_by_pool: by pool, the requests of its pods on any node, and of all other pods on its nodes.
        requests_by_node: by node, the requests of all its pods.
        exempt_requests_by_node: by node, the requests of exempt pods, which go with the node.
        misplaced_by_scope: the misplaced pods, by the list that finds them again.
    """

    pods_by_pool: Counter[str] = field(default_factory=Counter)
    requests_by_pool: dict[str, Counter[str]] = field(default_factory=dict)
    requests_by_node: dict[str, Counter[str]] = field(default_factory=dict)
    exempt_requests_by_node: dict[str, Counter[str]] = field(default_factory=dict)
    misplaced_by_scope: dict[ListScope, MisplacementReport] = field(default_factory=dict)

    def add(self, raw: RawPod, snapshot: MembershipSnapshot) -> None:
        """Add a raw pod. Raises UnreadableError if the object is no pod."""
        raw = object_schemas.sanitize_pod(raw)
        if raw["status"].get("phase") in TERMINAL_PHASES:
            return
        meta, node = raw["metadata"], raw["spec"].get("nodeName", "")
        requests = allocated_with_pod(raw)
        exempt = is_exempt(raw, snapshot.exempt_namespaces)
        pools = () if exempt else snapshot.pools_by_namespace.get(meta["namespace"], ())
        self.pods_by_pool.update(pools)
        for pool in {*pools, *snapshot.pools_by_node.get(node, ())}:
            self.requests_by_pool.setdefault(pool, Counter()).update(requests)
        if node:
            self.requests_by_node.setdefault(node, Counter()).update(requests)
            if exempt:
                self.exempt_requests_by_node.setdefault(node, Counter()).update(requests)
        if scope := list_scope(raw, snapshot):
            add_to_report(raw, snapshot, self.misplaced_by_scope.setdefault(scope, MisplacementReport()))
