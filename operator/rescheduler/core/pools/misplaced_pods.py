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
from rescheduler.api.untrusted import time
from rescheduler.core.model import object_schemas
from rescheduler.core.model.node_affinity import tolerates
from rescheduler.core.model.pods import FINISHED
from rescheduler.core.model.quantities import PODS
from rescheduler.core.model.release_record import controller, record
from rescheduler.core.model.resource_requests import Amounts, held
from rescheduler.core.pools.labels_and_taints import taint
from rescheduler.core.pools.membership import Memberships

MOST_NAMED = 500
"""So many of one pool are known by name at once: when these have moved, others take their place."""

Place = tuple[str, str]
"""Where pods out of place are looked for: `namespace` and its name, or `node` and its name."""


@dataclass(frozen=True, slots=True)
class Misplaced:
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
    pool: str
    home: str | None = None
    owner: str = ""
    created: datetime | None = None
    released: bool = False
    asked: Amounts = field(default_factory=dict)
    where: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Finds:
    """What was found out of place, somewhere or everywhere.

    Attributes:
        outside: by pool, how many of its pods are on other nodes; `foreign`: how many of others on its nodes.
        named: those to be moved, as far as they may be named.
    """

    outside: Counter[str] = field(default_factory=Counter)
    foreign: Counter[str] = field(default_factory=Counter)
    named: list[Misplaced] = field(default_factory=list)

    def add(self, other: "Finds") -> None:
        """Take in what was found elsewhere."""
        self.outside.update(other.outside)
        self.foreign.update(other.foreign)
        self.named += other.named


@dataclass(frozen=True)
class View:
    """What a pod's place is judged by: a picture of one moment.

    Attributes:
        spaces, nodes: by name, the pools that have it, or in mode Audit would have it.
        home, ground: by name of a namespace, of a node: the pool that has it.
        exclusive: pools that keep strangers off; `moving`: those that have their pods moved.
        named: how many of each pool have been named since this picture was made.
    """

    spaces: Mapping[str, tuple[str, ...]]
    nodes: Mapping[str, tuple[str, ...]]
    home: Mapping[str, str | None]
    ground: Mapping[str, str | None]
    exclusive: frozenset[str]
    moving: frozenset[str]
    exempt: frozenset[str]
    named: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, memberships: Memberships) -> "View":
        """As things are now."""
        spaces, nodes = memberships.concerned_with_namespaces(), memberships.concerned_with_nodes()
        return cls(
            spaces,
            nodes,
            {name: memberships.of_namespace(name) for name in spaces},
            {name: memberships.of_node(name) for name in nodes},
            frozenset(name for name, pool in memberships.pools.items() if pool.spec.exclusive),
            frozenset(n for n, p in memberships.pools.items() if p.spec.existing_pods is ExistingPods.MOVE),
            memberships.exempt,
        )


def is_fixed(raw: Mapping[str, Any], exempt: Iterable[str]) -> bool:
    """Whether pools have no say in where this raw pod is."""
    meta = object_schemas.pod(raw)["metadata"]
    return (
        meta["namespace"] in exempt
        or names.MIRROR in (meta.get("annotations") or {})
        or any(o["kind"] == "DaemonSet" and o.get("controller") for o in meta.get("ownerReferences") or ())
    )


def place(raw: Mapping[str, Any], view: View) -> Place | None:
    """Where a raw pod that is out of place is looked for, so that each is found once; None where it is in place.

    A pod without the label of its pool was made before its namespace was in it: those are found by the namespace. All
    others stand out on their nodes alone.
    """
    raw = object_schemas.pod(raw)
    if not out_of_place(raw, view):
        return None
    meta = raw["metadata"]
    pools, label = view.spaces.get(meta["namespace"], ()), (meta.get("labels") or {}).get(names.POOL)
    on = view.nodes.get(raw["spec"]["nodeName"], ())
    if any(pool != label and pool not in on for pool in pools):
        return ("namespace", meta["namespace"])
    return ("node", raw["spec"]["nodeName"])


def out_of_place(raw: Mapping[str, Any], view: View) -> bool:
    """Whether a raw pod is outside its pool, or a stranger on an exclusive one's node."""
    raw = object_schemas.pod(raw)
    node = raw["spec"].get("nodeName")
    if not node or raw["status"].get("phase") in FINISHED or is_fixed(raw, view.exempt):
        return False
    pools, on = view.spaces.get(raw["metadata"]["namespace"], ()), view.nodes.get(node, ())
    return any(pool not in on for pool in pools) or any(p in view.exclusive and p not in pools for p in on)


def find(raw: Mapping[str, Any], view: View, finds: Finds) -> None:
    """Count a raw pod that is out of place, and name it."""
    raw = object_schemas.pod(raw)
    meta, node = raw["metadata"], raw["spec"]["nodeName"]
    pools, on = view.spaces.get(meta["namespace"], ()), view.nodes.get(node, ())
    outside = [pool for pool in pools if pool not in on]
    foreign = [pool for pool in on if pool in view.exclusive and pool not in pools]
    finds.outside.update(outside)
    finds.foreign.update(foreign)
    home, ground = view.home.get(meta["namespace"]), view.ground.get(node)
    pool = home if home in outside else ground if ground in foreign else None
    if pool not in view.moving or "deletionTimestamp" in meta:
        return
    # Released pods always stay in sight: they would be returned.
    if view.named[pool] >= MOST_NAMED and not record(meta)[1]:
        return
    if pool == home or not tolerates(raw["spec"].get("tolerations") or (), [taint(pool)]):
        view.named[pool] += 1
        finds.named.append(_misplaced(raw, pool, home))


def _misplaced(raw: Mapping[str, Any], pool: str, home: str | None) -> Misplaced:
    meta, spec = raw["metadata"], raw["spec"]
    where = {key: spec[key] for key in ("nodeSelector", "affinity", "tolerations") if spec.get(key)}
    move, released = record(meta)
    owner = (controller(meta) or meta).get("uid", "")
    return Misplaced(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta.get("uid", ""),
        node=spec["nodeName"],
        pool=pool,
        home=home,
        owner=move.replica_set_uid if move else owner,
        created=time(meta.get("creationTimestamp")),
        released=released,
        asked=held(raw),
        where=where,
    )


@dataclass(slots=True)
class Sums:
    """All pods of the cluster, summed.

    Attributes:
        pods: by pool, the pods of its namespaces that it has a say in.
        requested: by pool, what those ask for wherever they are, and all others on its nodes.
        used: by node, what the pods there hold; `fixed`: those of them that go with the node.
        places: what is out of place, by where to look for it again.
    """

    pods: Counter[str] = field(default_factory=Counter)
    requested: dict[str, Counter[str]] = field(default_factory=dict)
    used: dict[str, Counter[str]] = field(default_factory=dict)
    fixed: dict[str, Counter[str]] = field(default_factory=dict)
    places: dict[Place, Finds] = field(default_factory=dict)

    def add(self, raw: Mapping[str, Any], view: View) -> None:
        """Take a raw pod in. Raises UnreadableError for what is no pod."""
        raw = object_schemas.pod(raw)
        if raw["status"].get("phase") in FINISHED:
            return
        meta, node = raw["metadata"], raw["spec"].get("nodeName", "")
        asked = {**held(raw), PODS: 1}
        fixed = is_fixed(raw, view.exempt)
        pools = () if fixed else view.spaces.get(meta["namespace"], ())
        self.pods.update(pools)
        for pool in {*pools, *view.nodes.get(node, ())}:
            self.requested.setdefault(pool, Counter()).update(asked)
        if node:
            self.used.setdefault(node, Counter()).update(asked)
            if fixed:
                self.fixed.setdefault(node, Counter()).update(asked)
        if where := place(raw, view):
            find(raw, view, self.places.setdefault(where, Finds()))
