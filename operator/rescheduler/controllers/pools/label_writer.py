"""Keeps the labels of pools on namespaces and nodes, their taint on exclusive ones' nodes, and their status.

Level-triggered, by keys such as `namespace/shop`: what a key should carry is worked out when it is written. What the
cluster cannot tell now (a pool that this version cannot read, admission that cannot be looked at) is left as it is.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import structlog

from rescheduler.api.pools import NamespacePool, PoolBlocker
from rescheduler.api.scalars import replacing
from rescheduler.controllers.pools.admission_check import Enforcements
from rescheduler.controllers.pools.events import PoolAnnouncer
from rescheduler.controllers.pools.pod_counter import PoolCounts
from rescheduler.controllers.pools.taint_safety import bound_to, losers
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.conflicts import is_outdated, reread
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.controllers.runtime.store import Kind, Store
from rescheduler.controllers.runtime.work_queue import KeyedQueue
from rescheduler.core.eviction import write_refusals
from rescheduler.core.model.nodes import Node
from rescheduler.core.pools import admission_params, labels_and_taints, status, taint_safety
from rescheduler.core.pools.labels_and_taints import Mark
from rescheduler.core.pools.membership import Memberships, Touched
from rescheduler.kube import paths
from rescheduler.kube.client import TRANSIENT, ApiError, Client

log = structlog.get_logger("rescheduler.pools")

_ASKED, _SHARE = 30.0, 20  # seconds until it is asked again who would lose their last place, or 20 times what it took
_SELECTED = 60.0  # seconds until it is asked again whether pods still select a label
_ORDER = 1.0  # seconds; a node keeps its label until the namespaces have lost theirs
_WRITE_EVERY = 1.0  # seconds between writes of mere numbers


@dataclass(frozen=True, slots=True)
class _Lost:
    """Who would lose their last place by a taint on these nodes, as it was last asked; `until`: monotonic."""

    nodes: frozenset[str]
    names: tuple[str, ...]
    until: float


class Pools:
    """One for the process; `blockers`: of one pool, pods that cannot be moved."""

    def __init__(
        self,
        client: Client,
        store: Store,
        clock: Clock,
        enforcements: Enforcements,
        counts: PoolCounts,
        announcer: PoolAnnouncer,
        metrics: Metrics,
    ) -> None:
        self.queue = KeyedQueue()
        self.blockers: Callable[[str], Sequence[PoolBlocker]] = lambda _: ()
        self._client, self._store, self._clock = client, store, clock
        self._enforcements, self._counts = enforcements, counts
        self._announcer, self._metrics = announcer, metrics
        self._lost: dict[str, _Lost] = {}  # by pool
        self._kept: dict[str, tuple[str, ...]] = {}  # by node: pods that keep the label of a pool that is gone
        self._written: dict[str, float] = {}  # by pool
        self._refused: dict[str, tuple[float, str]] = {}  # by key: until when it is not tried again, and the cause
        self._counted = 0  # the revision of the memberships that a count was asked for

    @property
    def _memberships(self) -> Memberships:
        return self._store.memberships

    # -- what to look at ----------------------------------------------------------------------------------------------

    def touched(self, touched: Touched) -> None:
        """A change: look at what may be otherwise now."""
        spaces = [name for name in touched.namespaces if self._is_mislabelled(name)]
        nodes = [name for name in touched.nodes if self._is_mismarked(name)]
        for name in spaces:
            self.queue.add(f"namespace/{name}")
        for name in nodes:
            self.queue.add(f"node/{name}")
        for name in touched.pools:
            self.queue.add(f"pool/{name}")
        if self._counted != self._memberships.revision:
            self._counted = self._memberships.revision
            self._counts.recount()

    def look_at_all(self) -> None:
        """After a full re-sync, a change of leader, or another answer of admission."""
        names = frozenset(self._store.namespaces), frozenset(self._store.nodes), frozenset(self._memberships.pools)
        self.touched(Touched(*names))

    def tell(self) -> None:
        """The counts are new."""
        for name in self._memberships.pools:
            self.queue.add(f"pool/{name}")

    def _is_mislabelled(self, name: str) -> bool:
        found = self._store.namespaces.get(name)
        return found is not None and not found.ending and found.pool != self._label(name)

    def _is_mismarked(self, name: str) -> bool:
        node = self._store.node(name)
        return node is not None and labels_and_taints.node_patch(node, self._mark(node)) is not None

    def _label(self, name: str) -> str | None:
        """The pool whose label this namespace should have."""
        have, owner = self._store.namespaces[name].pool, self._memberships.of_namespace(name)
        return have if owner is None and self._cannot_read(have) else owner

    def _cannot_read(self, pool: str | None) -> bool:
        return pool is not None and self._store.cannot_read(Kind.POOL, pool)

    def _mark(self, node: Node) -> Mark:
        """What this node should carry."""
        have, owner = labels_and_taints.marked(node), self._memberships.of_node(node.name)
        if owner is None:
            return have if self._cannot_read(have.pool) else Mark()
        if not self._memberships.pools[owner].spec.exclusive:
            return Mark(owner)
        if self._enforcements.now.status == "Unknown":
            return Mark(owner, tainted=labels_and_taints.tainted(node) == owner)
        return Mark(owner, tainted=self._enforcements.now.holds and self._may_taint(owner, node))

    def _may_taint(self, owner: str, node: Node) -> bool:
        asked = self._lost.get(owner)
        cleared = asked is not None and not asked.names and node.name in asked.nodes
        return cleared or labels_and_taints.tainted(node) == owner

    # -- looking ------------------------------------------------------------------------------------------------------

    async def look(self, key: str) -> bool:
        """Look at one key; whether nothing went wrong (the queue tries again with back-off)."""
        kind, _, name = key.partition("/")
        if (again := self._refused.get(key, (0.0, ""))[0] - self._clock.monotonic()) > 0:
            self.queue.add_after(key, again)
            return True
        looks = {"namespace": self._look_at_namespace, "node": self._look_at_node, "pool": self._look_at_pool}
        try:
            await looks[kind](name)
        except TRANSIENT as error:
            log.warning("pools.reconcile_failed", kind=kind, name=name, error=str(error))
            self._metrics.reconcile_total.labels("pool", "error").inc()
            if is_outdated(error):
                await self._reread(kind, name)
            return self._note(key, error)
        if self._refused.pop(key, None) and (pool := self._pool_of(kind, name)):
            self.queue.add(f"pool/{pool}")
        self._metrics.reconcile_total.labels("pool", "success").inc()
        return True

    def _note(self, key: str, error: Exception) -> bool:
        """Remember a write that only a person can make possible, and try it twice a minute; whether it is one."""
        if not isinstance(error, ApiError) or not write_refusals.is_lasting(error.refusal):
            return False
        kind, _, name = key.partition("/")
        self._refused[key] = (
            self._clock.monotonic() + write_refusals.PACE,
            f"{kind} {name} cannot be written: {write_refusals.cause(error.refusal)}",
        )
        self.queue.add_after(key, write_refusals.PACE)
        if pool := self._pool_of(kind, name):
            self.queue.add(f"pool/{pool}")
        return True

    def _pool_of(self, kind: str, name: str) -> str | None:
        """The pool that tells what became of a namespace or node."""
        of = {"namespace": self._memberships.of_namespace, "node": self._memberships.of_node}
        return of[kind](name) if kind in of else None

    async def _reread(self, kind: str, name: str) -> None:
        where = {"namespace": paths.namespace, "node": paths.node, "pool": paths.pool}[kind]
        of = {"namespace": Kind.NAMESPACE, "node": Kind.NODE, "pool": Kind.POOL}[kind]
        await reread(self._client, self._store, of, where(name))

    async def _look_at_namespace(self, name: str) -> None:
        if not self._is_mislabelled(name):
            return
        found, pool = self._store.namespaces[name], self._label(name)
        if patch := labels_and_taints.namespace_patch(found, pool):
            self._store.put(Kind.NAMESPACE, await self._client.patch(paths.namespace(name), patch))
            log.info("namespace.labelled", namespace=name, pool=pool, before=found.pool)
            self._recount([("namespace", name)])

    async def _look_at_node(self, name: str) -> None:
        node = self._store.node(name)
        if node is None:
            return
        mark = await self._unless_selected(node, self._mark(node))
        if patch := labels_and_taints.node_patch(node, mark):
            self._store.put(Kind.NODE, await self._client.patch(paths.node(name), patch))
            log.info(
                "node.marked",
                node=name,
                pool=mark.pool,
                tainted=mark.tainted,
                before=labels_and_taints.marked(node).pool,
            )
            self._recount([("node", name)])

    async def _unless_selected(self, node: Node, mark: Mark) -> Mark:
        """The label of a pool that is gone stays while a pod can be nowhere else; it must be on no namespace first."""
        have = labels_and_taints.marked(node).pool
        if have is None or mark.pool is not None or self._memberships.enforces(have):
            self._kept.pop(node.name, None)
            return mark
        if any(space.pool == have and not space.ending for space in self._store.namespaces.values()):
            self.queue.add_after(f"node/{node.name}", _ORDER)
            return Mark(have)
        selecting = tuple(await bound_to(self._client, node.name, have))
        if not selecting:
            self._kept.pop(node.name, None)
            return mark
        self.queue.add_after(f"node/{node.name}", _SELECTED)
        if self._kept.get(node.name) != selecting:
            self._kept[node.name] = selecting
            self._announcer.label_kept(node, have, selecting)
        return Mark(have)

    def _recount(self, places: Iterable[tuple[str, str]]) -> None:
        self._counts.glance(places)
        self._counts.recount()

    # -- a pool -------------------------------------------------------------------------------------------------------

    async def _look_at_pool(self, name: str) -> None:
        pool = self._memberships.pools.get(name)
        if pool is None:
            self._lost.pop(name, None)
            self._written.pop(name, None)
            return
        await self._ask_who_loses(pool)
        spoken = name in admission_params.spoken_for(self._memberships.pools.values())
        if patch := admission_params.patch(pool, spoken=spoken):
            self._store.put(Kind.POOL, await self._client.patch(paths.pool(name), patch))
            return  # it is looked at again for this
        await self._write(pool)

    def _members(self, pool: str) -> list[Node]:
        return [node for name in self._memberships.nodes(pool) if (node := self._store.node(name))]

    async def _ask_who_loses(self, pool: NamespacePool) -> None:
        """Before nodes are tainted; in mode Audit too, to say it."""
        members = self._members(pool.name)
        bare = frozenset(node.name for node in members if labels_and_taints.tainted(node) != pool.name)
        if not pool.spec.exclusive or not bare:
            self._lost.pop(pool.name, None)
            return
        now, asked = self._clock.monotonic(), self._lost.get(pool.name)
        if asked and bare <= asked.nodes and now < asked.until:
            # A look for another reason may have taken the place of the one that was to be then.
            self.queue.add_after(f"pool/{pool.name}", asked.until - now)
            return
        everywhere = [self._as_it_will_be(node) for node in self._store.nodes.values()]
        found = taint_safety.exclusion(pool.name, bare, [n.name for n in members], everywhere, self._is_homeless)
        lost = tuple(await losers(self._client, found))
        ended = self._clock.monotonic()
        wait = max(_ASKED, (ended - now) * _SHARE)
        self._lost[pool.name] = _Lost(bare, lost, ended + wait)
        self.queue.add_after(f"pool/{pool.name}", wait)
        for name in bare:
            if self._is_mismarked(name):
                self.queue.add(f"node/{name}")

    def _as_it_will_be(self, node: Node) -> Node:
        """With the taint that it is to have: of two pools each must not count on the other's nodes."""
        owner = self._memberships.of_node(node.name)
        if owner is None or labels_and_taints.tainted(node) or not self._memberships.pools[owner].spec.exclusive:
            return node
        return replace(node, taints=(*node.taints, labels_and_taints.taint(owner)))

    def _is_homeless(self, namespace: str) -> bool:
        return self._memberships.of_namespace(namespace) is None

    async def _write(self, pool: NamespacePool) -> None:
        """Write the status where it differs; mere numbers at most once a second."""
        before = pool.status
        wanted = status.status(self._scene(pool))
        if wanted == before:
            return
        now, key = self._clock.monotonic(), f"pool/{pool.name}"
        wait = self._written.get(pool.name, float("-inf")) + _WRITE_EVERY - now
        if wait > 0 and status.gist(wanted) == status.gist(before):
            self.queue.add_after(key, wait)
            return
        self._written[pool.name] = now
        body = {"metadata": {"resourceVersion": pool.version, "uid": pool.uid}, "status": replacing(before, wanted)}
        self._store.put(Kind.POOL, await self._client.patch(f"{paths.pool(pool.name)}/status", body))
        self._announcer.changed(pool, before, wanted)

    def _scene(self, pool: NamespacePool) -> status.Scene:
        name, where = pool.name, self._memberships
        nodes, spaces = self._members(name), where.namespaces(name)
        keys = [*(f"namespace/{space}" for space in spaces), *(f"node/{node.name}" for node in nodes)]
        unmarked = 0
        if where.enforces(name):
            unmarked = sum(labels_and_taints.marked(node).pool != name for node in nodes)
            unmarked += sum(self._store.namespaces[space].pool != name for space in spaces)
        return status.Scene(
            pool=pool,
            nodes=nodes,
            namespaces=spaces,
            unmarked=unmarked,
            disputes=[
                *(("namespace", dispute) for dispute in where.disputed_namespaces(name)),
                *(("node", dispute) for dispute in where.disputed_nodes(name)),
            ],
            enforcement=self._enforcements.now,
            lost=self._lost[name].names if name in self._lost else None,
            tainted=sum(labels_and_taints.tainted(node) == name for node in nodes),
            sums=self._counts.sums,
            finds=self._counts.finds,
            now=self._clock.now(),
            blockers=self.blockers(name),
            loss=self._counts.losses.get(name),
            refused=[self._refused[key][1] for key in keys if key in self._refused],
        )
