"""Keeps the labels of pools on namespaces and nodes, their taint on exclusive ones' nodes, and their status.

Level-triggered, by keys such as `namespace/shop`: what a key should carry is worked out when it is written. What the
cluster cannot tell now (a pool that this version cannot read, admission that cannot be looked at) is left as it is.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import structlog

from rescheduler.api.pools import NamespacePool, PoolBlocker
from rescheduler.api.scalars import merge_patch
from rescheduler.controllers.pools.admission_check import AdmissionCheck
from rescheduler.controllers.pools.events import PoolEvents
from rescheduler.controllers.pools.pod_counter import PoolPodCounter
from rescheduler.controllers.pools.taint_safety import find_unschedulable, pods_requiring_pool
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.conflicts import is_outdated, reread
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.controllers.runtime.store import ResourceKind, Store
from rescheduler.controllers.runtime.work_queue import WorkQueue
from rescheduler.core.eviction import write_refusals
from rescheduler.core.model.nodes import Node
from rescheduler.core.pools import admission_params, labels_and_taints, status, taint_safety
from rescheduler.core.pools.labels_and_taints import PoolAssignment
from rescheduler.core.pools.membership import MembershipChanges, PoolMemberships
from rescheduler.kube import paths
from rescheduler.kube.client import TRANSIENT_ERRORS, ApiError, Client

log = structlog.get_logger("rescheduler.pools")

_TAINT_CHECK_INTERVAL, _TAINT_CHECK_PAUSE_FACTOR = (
    30.0,
    20,
)  # seconds until it is asked again who would lose their last place, or 20 times what it took
_KEPT_LABEL_CHECK_INTERVAL = 60.0  # seconds until it is asked again whether pods still select a label
_NAMESPACES_FIRST_DELAY = 1.0  # seconds; a node keeps its label until the namespaces have lost theirs
_MIN_STATUS_WRITE_INTERVAL = 1.0  # seconds between writes of mere numbers


@dataclass(frozen=True, slots=True)
class _TaintCheck:
    """Who would lose their last place by a taint on these nodes, as it was last asked; `until`: monotonic."""

    nodes: frozenset[str]
    unschedulable: tuple[str, ...]
    valid_until: float


class PoolReconciler:
    """One for the process; `blockers`: of one pool, pods that cannot be moved."""

    def __init__(
        self,
        client: Client,
        store: Store,
        clock: Clock,
        admission: AdmissionCheck,
        pod_counter: PoolPodCounter,
        events: PoolEvents,
        metrics: Metrics,
    ) -> None:
        self.queue = WorkQueue()
        self.list_blockers: Callable[[str], Sequence[PoolBlocker]] = lambda _: ()
        self._client, self._store, self._clock = client, store, clock
        self._admission, self._pod_counter = admission, pod_counter
        self._events, self._metrics = events, metrics
        self._taint_checks: dict[str, _TaintCheck] = {}  # by pool
        self._pods_keeping_label: dict[
            str, tuple[str, ...]
        ] = {}  # by node: pods that keep the label of a pool that is gone
        self._status_written_at: dict[str, float] = {}  # by pool
        self._refused_writes: dict[
            str, tuple[float, str]
        ] = {}  # by key: until when it is not tried again, and the cause
        self._counted_revision = 0  # the revision of the memberships that a count was asked for

    @property
    def _memberships(self) -> PoolMemberships:
        return self._store.memberships

    # -- what to look at ----------------------------------------------------------------------------------------------

    def enqueue(self, changes: MembershipChanges) -> None:
        """A change: look at what may be otherwise now."""
        spaces = [name for name in changes.namespaces if self._namespace_needs_patch(name)]
        nodes = [name for name in changes.nodes if self._node_needs_patch(name)]
        for name in spaces:
            self.queue.add(f"namespace/{name}")
        for name in nodes:
            self.queue.add(f"node/{name}")
        for name in changes.pools:
            self.queue.add(f"pool/{name}")
        if self._counted_revision != self._memberships.revision:
            self._counted_revision = self._memberships.revision
            self._pod_counter.request_recount()

    def enqueue_all(self) -> None:
        """After a full re-sync, a change of leader, or another answer of admission."""
        names = frozenset(self._store.namespaces), frozenset(self._store.nodes), frozenset(self._memberships.pools)
        self.enqueue(MembershipChanges(*names))

    def enqueue_pools(self) -> None:
        """The counts are new."""
        for name in self._memberships.pools:
            self.queue.add(f"pool/{name}")

    def _namespace_needs_patch(self, name: str) -> bool:
        found = self._store.namespaces.get(name)
        return found is not None and not found.terminating and found.pool != self._desired_namespace_pool(name)

    def _node_needs_patch(self, name: str) -> bool:
        node = self._store.node(name)
        return node is not None and labels_and_taints.node_patch(node, self._desired_assignment(node)) is not None

    def _desired_namespace_pool(self, name: str) -> str | None:
        """The pool whose label this namespace should have."""
        have, owner = self._store.namespaces[name].pool, self._memberships.pool_of_namespace(name)
        return have if owner is None and self._is_unreadable(have) else owner

    def _is_unreadable(self, pool: str | None) -> bool:
        return pool is not None and self._store.is_unreadable(ResourceKind.POOL, pool)

    def _desired_assignment(self, node: Node) -> PoolAssignment:
        """What this node should carry."""
        have, owner = labels_and_taints.current_assignment(node), self._memberships.pool_of_node(node.name)
        if owner is None:
            return have if self._is_unreadable(have.pool) else PoolAssignment()
        if not self._memberships.pools[owner].spec.exclusive:
            return PoolAssignment(owner)
        if self._admission.state.status == "Unknown":
            return PoolAssignment(owner, tainted=labels_and_taints.pool_of_taint(node) == owner)
        return PoolAssignment(owner, tainted=self._admission.state.is_enforced and self._may_taint(owner, node))

    def _may_taint(self, owner: str, node: Node) -> bool:
        asked = self._taint_checks.get(owner)
        cleared = asked is not None and not asked.unschedulable and node.name in asked.nodes
        return cleared or labels_and_taints.pool_of_taint(node) == owner

    # -- looking ------------------------------------------------------------------------------------------------------

    async def reconcile(self, key: str) -> bool:
        """Look at one key; whether nothing went wrong (the queue tries again with back-off)."""
        kind, _, name = key.partition("/")
        if (again := self._refused_writes.get(key, (0.0, ""))[0] - self._clock.monotonic()) > 0:
            self.queue.add_after(key, again)
            return True
        looks = {"namespace": self._reconcile_namespace, "node": self._reconcile_node, "pool": self._reconcile_pool}
        try:
            await looks[kind](name)
        except TRANSIENT_ERRORS as error:
            log.warning("pools.reconcile_failed", kind=kind, name=name, error=str(error))
            self._metrics.reconcile_total.labels("pool", "error").inc()
            if is_outdated(error):
                await self._reread(kind, name)
            return self._record_refusal(key, error)
        if self._refused_writes.pop(key, None) and (pool := self._pool_of(kind, name)):
            self.queue.add(f"pool/{pool}")
        self._metrics.reconcile_total.labels("pool", "success").inc()
        return True

    def _record_refusal(self, key: str, error: Exception) -> bool:
        """Remember a write that only a person can make possible, and try it twice a minute; whether it is one."""
        if not isinstance(error, ApiError) or not write_refusals.is_permanent(error.response):
            return False
        kind, _, name = key.partition("/")
        self._refused_writes[key] = (
            self._clock.monotonic() + write_refusals.MAX_RETRY_DELAY,
            f"{kind} {name} cannot be written: {write_refusals.describe(error.response)}",
        )
        self.queue.add_after(key, write_refusals.MAX_RETRY_DELAY)
        if pool := self._pool_of(kind, name):
            self.queue.add(f"pool/{pool}")
        return True

    def _pool_of(self, kind: str, name: str) -> str | None:
        """The pool that tells what became of a namespace or node."""
        of = {"namespace": self._memberships.pool_of_namespace, "node": self._memberships.pool_of_node}
        return of[kind](name) if kind in of else None

    async def _reread(self, kind: str, name: str) -> None:
        where = {"namespace": paths.namespace, "node": paths.node, "pool": paths.pool}[kind]
        of = {"namespace": ResourceKind.NAMESPACE, "node": ResourceKind.NODE, "pool": ResourceKind.POOL}[kind]
        await reread(self._client, self._store, of, where(name))

    async def _reconcile_namespace(self, name: str) -> None:
        if not self._namespace_needs_patch(name):
            return
        found, pool = self._store.namespaces[name], self._desired_namespace_pool(name)
        if patch := labels_and_taints.namespace_patch(found, pool):
            self._store.put(ResourceKind.NAMESPACE, await self._client.patch(paths.namespace(name), patch))
            log.info("namespace.labelled", namespace=name, pool=pool, before=found.pool)
            self._request_recount([("namespace", name)])

    async def _reconcile_node(self, name: str) -> None:
        node = self._store.node(name)
        if node is None:
            return
        mark = await self._keep_required_label(node, self._desired_assignment(node))
        if patch := labels_and_taints.node_patch(node, mark):
            self._store.put(ResourceKind.NODE, await self._client.patch(paths.node(name), patch))
            log.info(
                "node.pool_updated",
                node=name,
                pool=mark.pool,
                tainted=mark.tainted,
                before=labels_and_taints.current_assignment(node).pool,
            )
            self._request_recount([("node", name)])

    async def _keep_required_label(self, node: Node, assignment: PoolAssignment) -> PoolAssignment:
        """The label of a pool that is gone stays while a pod can be nowhere else; it must be on no namespace first."""
        have = labels_and_taints.current_assignment(node).pool
        if have is None or assignment.pool is not None or self._memberships.is_enforcing(have):
            self._pods_keeping_label.pop(node.name, None)
            return assignment
        if any(space.pool == have and not space.terminating for space in self._store.namespaces.values()):
            self.queue.add_after(f"node/{node.name}", _NAMESPACES_FIRST_DELAY)
            return PoolAssignment(have)
        selecting = tuple(await pods_requiring_pool(self._client, node.name, have))
        if not selecting:
            self._pods_keeping_label.pop(node.name, None)
            return assignment
        self.queue.add_after(f"node/{node.name}", _KEPT_LABEL_CHECK_INTERVAL)
        if self._pods_keeping_label.get(node.name) != selecting:
            self._pods_keeping_label[node.name] = selecting
            self._events.publish_label_kept(node, have, selecting)
        return PoolAssignment(have)

    def _request_recount(self, scopes: Iterable[tuple[str, str]]) -> None:
        self._pod_counter.request_recheck(scopes)
        self._pod_counter.request_recount()

    # -- a pool -------------------------------------------------------------------------------------------------------

    async def _reconcile_pool(self, name: str) -> None:
        pool = self._memberships.pools.get(name)
        if pool is None:
            self._taint_checks.pop(name, None)
            self._status_written_at.pop(name, None)
            return
        await self._check_taint_safety(pool)
        spoken = name in admission_params.skipped_pools(self._memberships.pools.values())
        if patch := admission_params.skip_label_patch(pool, skip=spoken):
            self._store.put(ResourceKind.POOL, await self._client.patch(paths.pool(name), patch))
            return  # it is looked at again for this
        await self._write_status(pool)

    def _member_nodes(self, pool: str) -> list[Node]:
        return [node for name in self._memberships.nodes(pool) if (node := self._store.node(name))]

    async def _check_taint_safety(self, pool: NamespacePool) -> None:
        """Before nodes are tainted; in mode Audit too, to say it."""
        members = self._member_nodes(pool.name)
        bare = frozenset(node.name for node in members if labels_and_taints.pool_of_taint(node) != pool.name)
        if not pool.spec.exclusive or not bare:
            self._taint_checks.pop(pool.name, None)
            return
        now, asked = self._clock.monotonic(), self._taint_checks.get(pool.name)
        if asked and bare <= asked.nodes and now < asked.valid_until:
            # A look for another reason may have taken the place of the one that was to be then.
            self.queue.add_after(f"pool/{pool.name}", asked.valid_until - now)
            return
        everywhere = [self._with_planned_taint(node) for node in self._store.nodes.values()]
        found = taint_safety.plan_taint(pool.name, bare, [n.name for n in members], everywhere, self._is_in_no_pool)
        lost = tuple(await find_unschedulable(self._client, found))
        ended = self._clock.monotonic()
        wait = max(_TAINT_CHECK_INTERVAL, (ended - now) * _TAINT_CHECK_PAUSE_FACTOR)
        self._taint_checks[pool.name] = _TaintCheck(bare, lost, ended + wait)
        self.queue.add_after(f"pool/{pool.name}", wait)
        for name in bare:
            if self._node_needs_patch(name):
                self.queue.add(f"node/{name}")

    def _with_planned_taint(self, node: Node) -> Node:
        """With the taint that it is to have: of two pools each must not count on the other's nodes."""
        owner = self._memberships.pool_of_node(node.name)
        if owner is None or labels_and_taints.pool_of_taint(node) or not self._memberships.pools[owner].spec.exclusive:
            return node
        return replace(node, taints=(*node.taints, labels_and_taints.pool_taint(owner)))

    def _is_in_no_pool(self, namespace: str) -> bool:
        return self._memberships.pool_of_namespace(namespace) is None

    async def _write_status(self, pool: NamespacePool) -> None:
        """Write the status where it differs; mere numbers at most once a second."""
        before = pool.status
        wanted = status.build(self._status_input(pool))
        if wanted == before:
            return
        now, key = self._clock.monotonic(), f"pool/{pool.name}"
        wait = self._status_written_at.get(pool.name, float("-inf")) + _MIN_STATUS_WRITE_INTERVAL - now
        if wait > 0 and status.urgent_part(wanted) == status.urgent_part(before):
            self.queue.add_after(key, wait)
            return
        self._status_written_at[pool.name] = now
        body = {
            "metadata": {"resourceVersion": pool.resource_version, "uid": pool.uid},
            "status": merge_patch(before, wanted),
        }
        self._store.put(ResourceKind.POOL, await self._client.patch(f"{paths.pool(pool.name)}/status", body))
        self._events.publish_status_change(pool, before, wanted)

    def _status_input(self, pool: NamespacePool) -> status.PoolStatusInput:
        name, where = pool.name, self._memberships
        nodes, spaces = self._member_nodes(name), where.namespaces(name)
        keys = [*(f"namespace/{space}" for space in spaces), *(f"node/{node.name}" for node in nodes)]
        unmarked = 0
        if where.is_enforcing(name):
            unmarked = sum(labels_and_taints.current_assignment(node).pool != name for node in nodes)
            unmarked += sum(self._store.namespaces[space].pool != name for space in spaces)
        return status.PoolStatusInput(
            pool=pool,
            nodes=nodes,
            namespaces=spaces,
            unlabelled_count=unmarked,
            conflicts=[
                *(("namespace", dispute) for dispute in where.namespace_conflicts(name)),
                *(("node", dispute) for dispute in where.node_conflicts(name)),
            ],
            admission=self._admission.state,
            unschedulable_by_taint=self._taint_checks[name].unschedulable if name in self._taint_checks else None,
            tainted_node_count=sum(labels_and_taints.pool_of_taint(node) == name for node in nodes),
            totals=self._pod_counter.totals,
            misplaced=self._pod_counter.misplaced,
            now=self._clock.now(),
            blockers=self.list_blockers(name),
            node_loss=self._pod_counter.node_losses.get(name),
            refused_writes=[self._refused_writes[key][1] for key in keys if key in self._refused_writes],
        )
