"""The pods of pools: counted, summed and dropped, and those named that are not where they belong.

Raw pods are taken in one by one and must not be kept: what is left grows with pools and nodes, not with pods. Never
counted: what has ended. Never out of place: pods of DaemonSets, mirror pods, kube-system and our own namespace. Counted
but never to be moved as strangers: pods that tolerate the taint; they would come back.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rescheduler.api import names
from rescheduler.api.pools import ExistingPods
from rescheduler.api.untrusted import parse_time
from rescheduler.core.model import object_schemas
from rescheduler.core.model.node_affinity import tolerates
from rescheduler.core.model.pods import TERMINAL_PHASES
from rescheduler.core.model.quantities import PODS
from rescheduler.core.model.release_record import controller_reference, read_record
from rescheduler.core.model.resource_requests import ResourceList, allocated_resources
from rescheduler.core.pools.labels_and_taints import pool_taint
from rescheduler.core.pools.membership import PoolMemberships

MAX_LISTED_PER_POOL = 500
"""So many of one pool are known by name at once: when these have moved, others take their place."""

ListScope = tuple[str, str]
"""Where pods out of place are looked for: `namespace` and its name, or `node` and its name."""


@dataclass(frozen=True, slots=True)
class MisplacedPod:
    """A pod that is not where it belongs.

    Attributes:
        pool: on whose behalf it is to leave: its own pool's, or that of the exclusive pool whose node it is on.
        home: the pool of its namespace; None: it is in none, and any node of no pool will do.
        owner: the uid of its controller, else its own.
        released: it is released already.
        asked: its requests; `where`: the parts of its spec that say which nodes will do.
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
    scheduling_constraints: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class MisplacementReport:
    """What was found out of place, somewhere or everywhere.

    Attributes:
        outside: by pool, how many of its pods are on other nodes; `foreign`: how many of others on its nodes.
        named: those to be moved, as far as they may be named.
    """

    pods_outside: Counter[str] = field(default_factory=Counter)
    pods_foreign: Counter[str] = field(default_factory=Counter)
    pods_to_move: list[MisplacedPod] = field(default_factory=list)

    def merge(self, report: "MisplacementReport") -> None:
        """Take in what was found elsewhere."""
        self.pods_outside.update(report.pods_outside)
        self.pods_foreign.update(report.pods_foreign)
        self.pods_to_move += report.pods_to_move


@dataclass(frozen=True)
class MembershipSnapshot:
    """What a pod's place is judged by: a picture of one moment.

    Attributes:
        spaces, nodes: by name, the pools that have it, or in mode Audit would have it.
        home, ground: by name of a namespace, of a node: the pool that has it.
        exclusive: pools that keep strangers off; `moving`: those that have their pods moved.
        named: how many of each pool have been named since this picture was made.
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
        """As things are now."""
        spaces, nodes = memberships.pools_by_namespace(), memberships.pools_by_node()
        return cls(
            spaces,
            nodes,
            {name: memberships.pool_of_namespace(name) for name in spaces},
            {name: memberships.pool_of_node(name) for name in nodes},
            frozenset(name for name, pool in memberships.pools.items() if pool.spec.exclusive),
            frozenset(n for n, p in memberships.pools.items() if p.spec.existing_pods is ExistingPods.MOVE),
            memberships.exempt_namespaces,
        )


def is_exempt(raw: Mapping[str, Any], exempt_namespaces: Iterable[str]) -> bool:
    """Whether pools have no say in where this raw pod is."""
    meta = object_schemas.sanitize_pod(raw)["metadata"]
    return (
        meta["namespace"] in exempt_namespaces
        or names.MIRROR_POD in (meta.get("annotations") or {})
        or any(o["kind"] == "DaemonSet" and o.get("controller") for o in meta.get("ownerReferences") or ())
    )


def list_scope(raw: Mapping[str, Any], snapshot: MembershipSnapshot) -> ListScope | None:
    """Where a raw pod that is out of place is looked for, so that each is found once; None where it is in place.

    A pod without the label of its pool was made before its namespace was in it: those are found by the namespace. All
    others stand out on their nodes alone.
    """
    raw = object_schemas.sanitize_pod(raw)
    if not is_misplaced(raw, snapshot):
        return None
    meta = raw["metadata"]
    pools, label = snapshot.pools_by_namespace.get(meta["namespace"], ()), (meta.get("labels") or {}).get(names.POOL)
    on = snapshot.pools_by_node.get(raw["spec"]["nodeName"], ())
    if any(pool != label and pool not in on for pool in pools):
        return ("namespace", meta["namespace"])
    return ("node", raw["spec"]["nodeName"])


def is_misplaced(raw: Mapping[str, Any], snapshot: MembershipSnapshot) -> bool:
    """Whether a raw pod is outside its pool, or a stranger on an exclusive one's node."""
    raw = object_schemas.sanitize_pod(raw)
    node = raw["spec"].get("nodeName")
    if not node or raw["status"].get("phase") in TERMINAL_PHASES or is_exempt(raw, snapshot.exempt_namespaces):
        return False
    pools, on = snapshot.pools_by_namespace.get(raw["metadata"]["namespace"], ()), snapshot.pools_by_node.get(node, ())
    return any(pool not in on for pool in pools) or any(p in snapshot.exclusive_pools and p not in pools for p in on)


def add_to_report(raw: Mapping[str, Any], snapshot: MembershipSnapshot, report: MisplacementReport) -> None:
    """Count a raw pod that is out of place, and name it."""
    raw = object_schemas.sanitize_pod(raw)
    meta, node = raw["metadata"], raw["spec"]["nodeName"]
    pools, on = snapshot.pools_by_namespace.get(meta["namespace"], ()), snapshot.pools_by_node.get(node, ())
    outside = [pool for pool in pools if pool not in on]
    foreign = [pool for pool in on if pool in snapshot.exclusive_pools and pool not in pools]
    report.pods_outside.update(outside)
    report.pods_foreign.update(foreign)
    home, ground = snapshot.pool_of_namespace.get(meta["namespace"]), snapshot.pool_of_node.get(node)
    pool = home if home in outside else ground if ground in foreign else None
    if pool not in snapshot.moving_pools or "deletionTimestamp" in meta:
        return
    # Released pods always stay in sight: they would be returned.
    if snapshot.listed_counts[pool] >= MAX_LISTED_PER_POOL and not read_record(meta)[1]:
        return
    if pool == home or not tolerates(raw["spec"].get("tolerations") or (), [pool_taint(pool)]):
        snapshot.listed_counts[pool] += 1
        report.pods_to_move.append(_to_misplaced_pod(raw, pool, home))


def _to_misplaced_pod(raw: Mapping[str, Any], requesting_pool: str, target_pool: str | None) -> MisplacedPod:
    meta, spec = raw["metadata"], raw["spec"]
    where = {key: spec[key] for key in ("nodeSelector", "affinity", "tolerations") if spec.get(key)}
    move, released = read_record(meta)
    owner = (controller_reference(meta) or meta).get("uid", "")
    return MisplacedPod(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta.get("uid", ""),
        node=spec["nodeName"],
        requesting_pool=requesting_pool,
        target_pool=target_pool,
        owner_uid=move.replica_set_uid if move else owner,
        created=parse_time(meta.get("creationTimestamp")),
        released=released,
        resource_requests=allocated_resources(raw),
        scheduling_constraints=where,
    )


@dataclass(slots=True)
class PodTotals:
    """All pods of the cluster, summed.

    Attributes:
        pods: by pool, the pods of its namespaces that it has a say in.
        requested: by pool, what those ask for wherever they are, and all others on its nodes.
        used: by node, what the pods there hold; `fixed`: those of them that go with the node.
        places: what is out of place, by where to look for it again.
    """

    pods_by_pool: Counter[str] = field(default_factory=Counter)
    requests_by_pool: dict[str, Counter[str]] = field(default_factory=dict)
    requests_by_node: dict[str, Counter[str]] = field(default_factory=dict)
    exempt_requests_by_node: dict[str, Counter[str]] = field(default_factory=dict)
    misplaced_by_scope: dict[ListScope, MisplacementReport] = field(default_factory=dict)

    def add(self, raw: Mapping[str, Any], snapshot: MembershipSnapshot) -> None:
        """Take a raw pod in. Raises UnreadableError for what is no pod."""
        raw = object_schemas.sanitize_pod(raw)
        if raw["status"].get("phase") in TERMINAL_PHASES:
            return
        meta, node = raw["metadata"], raw["spec"].get("nodeName", "")
        asked = {**allocated_resources(raw), PODS: 1}
        fixed = is_exempt(raw, snapshot.exempt_namespaces)
        pools = () if fixed else snapshot.pools_by_namespace.get(meta["namespace"], ())
        self.pods_by_pool.update(pools)
        for pool in {*pools, *snapshot.pools_by_node.get(node, ())}:
            self.requests_by_pool.setdefault(pool, Counter()).update(asked)
        if node:
            self.requests_by_node.setdefault(node, Counter()).update(asked)
            if fixed:
                self.exempt_requests_by_node.setdefault(node, Counter()).update(asked)
        if where := list_scope(raw, snapshot):
            add_to_report(raw, snapshot, self.misplaced_by_scope.setdefault(where, MisplacementReport()))
