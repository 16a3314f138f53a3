"""Count the pods of pools, sum their requests, and list the misplaced pods.

Pods are added one by one and never kept, so that memory grows with pools and nodes and not with pods. Pods that have
ended are not counted. Pods of DaemonSets, mirror pods, and pods of kube-system and the operator's own namespace are never
misplaced. A foreign pod that tolerates the taint is counted but not moved, because it would come back.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from rescheduler.api import names
from rescheduler.api.pools import ExistingPods
from rescheduler.core.model.listed_pods import ListedPod
from rescheduler.core.model.node_affinity import NodeConstraints
from rescheduler.core.model.resource_requests import ResourceList
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
    node_constraints: NodeConstraints = field(default_factory=NodeConstraints)


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


def is_exempt(pod: ListedPod, exempt_namespaces: Collection[str]) -> bool:
    """Whether pools do not apply to this pod."""
    return pod.namespace in exempt_namespaces or pod.is_mirror or pod.controller_kind == "DaemonSet"


def list_scope(pod: ListedPod, snapshot: MembershipSnapshot) -> ListScope | None:
    """Return the list that finds a misplaced pod, so that each pod is found once; None if it is not misplaced.

    A pod without the label of its pool is older than the pool: a list of its namespace finds it. A list of their node
    finds all other pods.
    """
    if not is_misplaced(pod, snapshot):
        return None
    pools, label = snapshot.pools_by_namespace.get(pod.namespace, ()), pod.labels.get(names.POOL)
    node_pools = snapshot.pools_by_node.get(pod.node, ())
    if any(pool != label and pool not in node_pools for pool in pools):
        return ("namespace", pod.namespace)
    return ("node", pod.node)


def is_misplaced(pod: ListedPod, snapshot: MembershipSnapshot) -> bool:
    """Whether a pod is outside its pool, or foreign on a node of an exclusive pool."""
    if not pod.node or pod.finished or is_exempt(pod, snapshot.exempt_namespaces):
        return False
    pools = snapshot.pools_by_namespace.get(pod.namespace, ())
    node_pools = snapshot.pools_by_node.get(pod.node, ())
    return any(pool not in node_pools for pool in pools) or any(
        pool in snapshot.exclusive_pools and pool not in pools for pool in node_pools
    )


def add_to_report(pod: ListedPod, snapshot: MembershipSnapshot, report: MisplacementReport) -> None:
    """Count a misplaced pod, and list it if its pool moves pods."""
    pools, node_pools = snapshot.pools_by_namespace.get(pod.namespace, ()), snapshot.pools_by_node.get(pod.node, ())
    outside = [pool for pool in pools if pool not in node_pools]
    foreign = [pool for pool in node_pools if pool in snapshot.exclusive_pools and pool not in pools]
    report.pods_outside.update(outside)
    report.pods_foreign.update(foreign)
    own_pool, node_pool = snapshot.pool_of_namespace.get(pod.namespace), snapshot.pool_of_node.get(pod.node)
    pool = own_pool if own_pool in outside else node_pool if node_pool in foreign else None
    if pool not in snapshot.moving_pools or pod.terminating:
        return
    # A released pod that is not listed would be returned to its ReplicaSet.
    if snapshot.listed_counts[pool] >= MAX_LISTED_PER_POOL and not pod.released:
        return
    if pool == own_pool or not pod.node_constraints.tolerates([pool_taint(pool)]):
        snapshot.listed_counts[pool] += 1
        report.pods_to_move.append(_to_misplaced_pod(pod, pool, own_pool))


def _to_misplaced_pod(pod: ListedPod, requesting_pool: str, target_pool: str | None) -> MisplacedPod:
    return MisplacedPod(
        namespace=pod.namespace,
        name=pod.name,
        uid=pod.uid,
        node=pod.node,
        requesting_pool=requesting_pool,
        target_pool=target_pool,
        owner_uid=pod.owner_uid,
        created=pod.created,
        released=pod.released,
        resource_requests=pod.allocated,
        node_constraints=pod.node_constraints,
    )


@dataclass(slots=True)
class PodTotals:
    """Sums over all pods of the cluster.

    Attributes:
        counted_at: when the count began; later pods may be missing.
        pool_uids: the UIDs of the counted pools.
        pods_by_pool: by pool, the number of pods of its namespaces without exempt pods.
        unschedulable_by_pool: by pool, the number of these pods for which the scheduler has found no node.
        requests_by_pool: by pool, the requests of its pods on any node, and of all other pods on its nodes.
        requests_by_node: by node, the requests of all its pods.
        exempt_requests_by_node: by node, the requests of exempt pods, which go with the node.
        misplaced_by_scope: the misplaced pods, by the list that finds them again.
    """

    counted_at: datetime
    pool_uids: frozenset[str]
    pods_by_pool: Counter[str] = field(default_factory=Counter)
    unschedulable_by_pool: Counter[str] = field(default_factory=Counter)
    requests_by_pool: dict[str, Counter[str]] = field(default_factory=dict)
    requests_by_node: dict[str, Counter[str]] = field(default_factory=dict)
    exempt_requests_by_node: dict[str, Counter[str]] = field(default_factory=dict)
    misplaced_by_scope: dict[ListScope, MisplacementReport] = field(default_factory=dict)

    def add(self, pod: ListedPod, snapshot: MembershipSnapshot) -> None:
        """Add a pod."""
        if pod.finished:
            return
        requests = pod.allocated_with_pod
        exempt = is_exempt(pod, snapshot.exempt_namespaces)
        pools = () if exempt else snapshot.pools_by_namespace.get(pod.namespace, ())
        self.pods_by_pool.update(pools)
        if pools and pod.is_unschedulable:
            self.unschedulable_by_pool.update(pools)
        for pool in {*pools, *snapshot.pools_by_node.get(pod.node, ())}:
            self.requests_by_pool.setdefault(pool, Counter()).update(requests)
        if pod.node:
            self.requests_by_node.setdefault(pod.node, Counter()).update(requests)
            if exempt:
                self.exempt_requests_by_node.setdefault(pod.node, Counter()).update(requests)
        if scope := list_scope(pod, snapshot):
            add_to_report(pod, snapshot, self.misplaced_by_scope.setdefault(scope, MisplacementReport()))
