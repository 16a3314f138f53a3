"""Reconcile the pool labels of namespaces and nodes, the taint of exclusive pools, and the status of pools.

The queue has keys such as `namespace/shop`, and the desired state is computed when a key is reconciled. Facts that are
unknown now change nothing: a pool that this version cannot read keeps its labels, and without an answer about admission
the taints stay.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import structlog

from rescheduler.api.pools import NamespacePool, NamespacePoolStatus, PoolBlocker
from rescheduler.api.scalars import merge_patch
from rescheduler.controllers.pools.admission_check import AdmissionCheck
from rescheduler.controllers.pools.events import PoolEvents
from rescheduler.controllers.pools.pod_counter import PoolPodCounter
from rescheduler.controllers.pools.taint_safety import find_unschedulable, pods_requiring_pool
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.controllers.runtime.work_queue import WorkQueue
from rescheduler.controllers.store.conflicts import may_be_outdated, reread
from rescheduler.controllers.store.object_cache import ResourceKind
from rescheduler.controllers.store.store import Store
from rescheduler.controllers.store.unstored_fields import UnstoredFields
from rescheduler.core.eviction import write_refusals
from rescheduler.core.model.nodes import Node
from rescheduler.core.pools import (
    admission_params,
    labels_and_taints,
    messages,
    repeated_writes,
    status,
    taint_safety,
)
from rescheduler.core.pools.labels_and_taints import PoolAssignment
from rescheduler.core.pools.membership import MembershipChanges, PoolMemberships
from rescheduler.core.pools.repeated_writes import RepeatedWrite
from rescheduler.kube import paths
from rescheduler.kube.client import TRANSIENT_ERRORS, ApiError, Client

log = structlog.get_logger("rescheduler.pools.reconciler")

_TAINT_CHECK_INTERVAL = 30.0  # seconds between checks of the pods that would lose their last place
_TAINT_CHECK_PAUSE_FACTOR = 20  # a check may take 1/20 of the time
_KEPT_LABEL_CHECK_INTERVAL = 60.0  # seconds between checks of the pods that require a label
_NAMESPACES_FIRST_DELAY = 1.0  # seconds; a node keeps its label until the namespaces have lost theirs
_MIN_STATUS_WRITE_INTERVAL = 1.0  # seconds between writes that change only numbers


@dataclass(frozen=True, slots=True)
class _TaintCheck:
    """The last check of the pods that would lose their last place by a taint.

    Attributes:
        nodes: the names of the untainted nodes that were checked.
        unschedulable: the pods and DaemonSets that would lose their last place.
        valid_until: when the check must run again, in monotonic seconds.
    """

    nodes: frozenset[str]
    unschedulable: tuple[str, ...]
    valid_until: float


class PoolReconciler:
    """Reconcile namespaces, nodes and pools from one queue.

    Attributes:
        queue: the keys to reconcile.
        list_blockers: returns the pods of one pool that cannot be moved.
    """

    def __init__(
        self,
        client: Client,
        store: Store,
        clock: Clock,
        admission: AdmissionCheck,
        pod_counter: PoolPodCounter,
        events: PoolEvents,
        metrics: Metrics,
        *,
        list_blockers: Callable[[str], Sequence[PoolBlocker]] = lambda _: (),
    ) -> None:
        self.queue = WorkQueue("pool", metrics)
        self._list_blockers = list_blockers
        self._client, self._store, self._clock = client, store, clock
        self._admission, self._pod_counter = admission, pod_counter
        self._events, self._metrics = events, metrics
        self._taint_checks: dict[str, _TaintCheck] = {}  # by pool
        self._pods_keeping_label: dict[str, tuple[str, ...]] = {}  # by node: pods that require a deleted pool's label
        self._status_written_at: dict[str, float] = {}  # by pool
        self._unstored: dict[str, UnstoredFields[NamespacePoolStatus]] = {}  # by pool
        self._refused_writes: dict[str, tuple[float, str]] = {}  # by key: the time of the next try, and the message
        # By key and value: the writes of labels and taints. Label and taint may come one after the other, and so alternate.
        self._repeated_writes: dict[str, dict[object, RepeatedWrite]] = {}
        self._counted_revision = 0  # the revision of the memberships for which a count was requested

    @property
    def _memberships(self) -> PoolMemberships:
        return self._store.memberships

    # -- the queue ----------------------------------------------------------------------------------------------------

    def enqueue(self, changes: MembershipChanges) -> None:
        """Add the keys that a change may affect."""
        namespaces = [name for name in changes.namespaces if self._namespace_needs_patch(name)]
        nodes = [name for name in changes.nodes if self._node_needs_patch(name)]
        for name in namespaces:
            self.queue.add(f"namespace/{name}")
        for name in nodes:
            self.queue.add(f"node/{name}")
        for name in changes.pools:
            self.queue.add(f"pool/{name}")
        if self._counted_revision != self._memberships.revision:
            self._counted_revision = self._memberships.revision
            self._pod_counter.request_recount()

    def enqueue_all(self) -> None:
        """Add all keys, after a full list, a change of leader, or a change of admission."""
        now = self._clock.monotonic()
        self._repeated_writes = {
            key: known
            for key, writes in self._repeated_writes.items()
            if (known := {wanted: w for wanted, w in writes.items() if w.seconds_until_forgotten(now) > 0})
        }
        names = frozenset(self._store.namespaces), frozenset(self._store.nodes), frozenset(self._memberships.pools)
        self.enqueue(MembershipChanges(*names))

    def enqueue_pools(self) -> None:
        """Add all pools, after a count of pods."""
        for name in self._memberships.pools:
            self.queue.add(f"pool/{name}")

    def _namespace_needs_patch(self, name: str) -> bool:
        namespace = self._store.namespaces.get(name)
        return (
            namespace is not None and not namespace.terminating and namespace.pool != self._desired_namespace_pool(name)
        )

    def _node_needs_patch(self, name: str) -> bool:
        node = self._store.node(name)
        return node is not None and labels_and_taints.node_patch(node, self._desired_assignment(node)) is not None

    def _desired_namespace_pool(self, name: str) -> str | None:
        """Return the pool whose label this namespace should have; None: no label."""
        current, owner = self._store.namespaces[name].pool, self._memberships.pool_of_namespace(name)
        return labels_and_taints.desired_namespace_pool(current, owner, is_unreadable=self._is_unreadable)

    def _is_unreadable(self, pool: str) -> bool:
        return self._store.is_unreadable(ResourceKind.POOL, pool)

    def _desired_assignment(self, node: Node) -> PoolAssignment:
        """Return the label and taint that this node should have."""
        owner, admission = self._memberships.pool_of_node(node.name), self._admission.state
        check = self._taint_checks.get(owner) if owner else None
        return labels_and_taints.desired_assignment(
            labels_and_taints.current_assignment(node),
            owner,
            exclusive=owner is not None and self._memberships.pools[owner].spec.exclusive,
            enforced=None if admission.status == "Unknown" else admission.is_enforced,
            has_taint=owner is not None and labels_and_taints.pool_of_taint(node) == owner,
            is_taint_safe=check is not None and not check.unschedulable and node.name in check.nodes,
            is_unreadable=self._is_unreadable,
        )

    # -- one key ------------------------------------------------------------------------------------------------------

    async def reconcile(self, key: str) -> bool:
        """Reconcile one key; return whether it succeeded. After a failure the queue retries with back-off."""
        kind, _, name = key.partition("/")
        if (delay := self._refused_writes.get(key, (0.0, ""))[0] - self._clock.monotonic()) > 0:
            self.queue.add_after(key, delay)
            return True
        steps = {"namespace": self._reconcile_namespace, "node": self._reconcile_node, "pool": self._reconcile_pool}
        try:
            await steps[kind](name)
        except TRANSIENT_ERRORS as error:
            log.warning("pools.reconcile_failed", kind=kind, name=name, error=str(error))
            self._metrics.reconcile_total.labels("pool", "error").inc()
            if may_be_outdated(error):
                await self._reread(kind, name)
            return self._record_refusal(key, error)
        if self._refused_writes.pop(key, None) and (pool := self._pool_of(kind, name)):
            self.queue.add(f"pool/{pool}")
        self._metrics.reconcile_total.labels("pool", "success").inc()
        return True

    def _record_refusal(self, key: str, error: Exception) -> bool:
        """Whether the API server refused the write until a person acts; the key is then retried twice a minute."""
        if not isinstance(error, ApiError) or not write_refusals.is_permanent(error.response):
            return False
        kind, _, name = key.partition("/")
        self._refused_writes[key] = (
            self._clock.monotonic() + write_refusals.MAX_RETRY_DELAY,
            messages.write_refused(kind, name, write_refusals.describe(error.response)),
        )
        self.queue.add_after(key, write_refusals.MAX_RETRY_DELAY)
        if pool := self._pool_of(kind, name):
            self.queue.add(f"pool/{pool}")
        return True

    def _pool_of(self, kind: str, name: str) -> str | None:
        """Return the pool whose status reports a refused write on this namespace or node; None if there is none."""
        lookups = {"namespace": self._memberships.pool_of_namespace, "node": self._memberships.pool_of_node}
        return lookups[kind](name) if kind in lookups else None

    def _is_due(self, key: str, wanted: object) -> bool:
        """Whether this write is due; if other clients keep undoing it, the key is added again when it is."""
        last = self._repeated_writes.get(key, {}).get(wanted)
        if last is None or (wait := last.seconds_until_due(self._clock.monotonic())) <= 0:
            return True
        self.queue.add_after(key, wait)
        return False

    def _record_write(self, key: str, wanted: object) -> None:
        now, writes = self._clock.monotonic(), self._repeated_writes.setdefault(key, {})
        write = writes[wanted] = repeated_writes.after_write(writes.get(wanted), now)
        kind, _, name = key.partition("/")
        if write.is_reported(now) and (pool := self._pool_of(kind, name)):
            self.queue.add(f"pool/{pool}")

    async def _reread(self, kind: str, name: str) -> None:
        path_of = {"namespace": paths.namespace, "node": paths.node, "pool": paths.pool}[kind]
        resource = {"namespace": ResourceKind.NAMESPACE, "node": ResourceKind.NODE, "pool": ResourceKind.POOL}[kind]
        await reread(self._client, self._store, resource, path_of(name))

    async def _reconcile_namespace(self, name: str) -> None:
        if not self._namespace_needs_patch(name):
            return
        namespace, pool = self._store.namespaces[name], self._desired_namespace_pool(name)
        patch, key, wanted = (
            labels_and_taints.namespace_patch(namespace, pool),
            f"namespace/{name}",
            (namespace.uid, pool),
        )
        if patch and self._is_due(key, wanted):
            self._store.put(ResourceKind.NAMESPACE, await self._client.patch(paths.namespace(name), patch))
            self._record_write(key, wanted)
            log.info("namespace.labelled", namespace=name, pool=pool, before=namespace.pool)
            self._request_recount([("namespace", name)])

    async def _reconcile_node(self, name: str) -> None:
        node = self._store.node(name)
        if node is None:
            return
        assignment = await self._keep_required_label(node, self._desired_assignment(node))
        patch, key, wanted = labels_and_taints.node_patch(node, assignment), f"node/{name}", (node.uid, assignment)
        if patch and self._is_due(key, wanted):
            self._store.put(ResourceKind.NODE, await self._client.patch(paths.node(name), patch))
            self._record_write(key, wanted)
            log.info(
                "node.pool_updated",
                node=name,
                pool=assignment.pool,
                tainted=assignment.tainted,
                before=labels_and_taints.current_assignment(node).pool,
            )
            self._request_recount([("node", name)])

    async def _keep_required_label(self, node: Node, assignment: PoolAssignment) -> PoolAssignment:
        """Return the assignment, with the label of a deleted pool if pods on the node require it.

        Namespaces lose their label first: admission would give a new pod a selector that no node matches.
        """
        current = labels_and_taints.current_assignment(node).pool
        if current is None or assignment.pool is not None or self._memberships.is_enforcing(current):
            self._pods_keeping_label.pop(node.name, None)
            return assignment
        if any(ns.pool == current and not ns.terminating for ns in self._store.namespaces.values()):
            self.queue.add_after(f"node/{node.name}", _NAMESPACES_FIRST_DELAY)
            return PoolAssignment(current)
        pods = tuple(await pods_requiring_pool(self._client, node.name, current))
        if not pods:
            self._pods_keeping_label.pop(node.name, None)
            return assignment
        self.queue.add_after(f"node/{node.name}", _KEPT_LABEL_CHECK_INTERVAL)
        if self._pods_keeping_label.get(node.name) != pods:
            self._pods_keeping_label[node.name] = pods
            self._events.publish_label_kept(node, current, pods)
        return PoolAssignment(current)

    def _request_recount(self, scopes: Iterable[tuple[str, str]]) -> None:
        self._pod_counter.request_recheck(scopes)
        self._pod_counter.request_recount()

    # -- a pool -------------------------------------------------------------------------------------------------------

    async def _reconcile_pool(self, name: str) -> None:
        pool = self._memberships.pools.get(name)
        if pool is None:
            self._taint_checks.pop(name, None)
            self._status_written_at.pop(name, None)
            self._unstored.pop(name, None)
            return
        await self._check_taint_safety(pool)
        skip = name in admission_params.skipped_pools(self._memberships.pools.values())
        patch, key, wanted = admission_params.skip_label_patch(pool, skip=skip), f"pool/{name}", (pool.uid, skip)
        if patch and self._is_due(key, wanted):
            self._store.put(ResourceKind.POOL, await self._client.patch(paths.pool(name), patch))
            self._record_write(key, wanted)
            return  # this change adds the key again; the status would be refused with the old resourceVersion
        await self._write_status(pool)

    def _member_nodes(self, pool: str) -> list[Node]:
        return [node for name in self._memberships.nodes(pool) if (node := self._store.node(name))]

    async def _check_taint_safety(self, pool: NamespacePool) -> None:
        """Check who would lose the last place by the taint, before nodes are tainted; in mode Audit for the status."""
        members = self._member_nodes(pool.name)
        untainted = frozenset(node.name for node in members if labels_and_taints.pool_of_taint(node) != pool.name)
        if not pool.spec.exclusive or not untainted:
            self._taint_checks.pop(pool.name, None)
            return
        now, check = self._clock.monotonic(), self._taint_checks.get(pool.name)
        if check and untainted <= check.nodes and now < check.valid_until:
            # The key was reconciled early, which removed the timer of the next check.
            self.queue.add_after(f"pool/{pool.name}", check.valid_until - now)
            return
        nodes = [self._with_planned_taint(node) for node in self._store.nodes.values()]
        member_names = [node.name for node in members]
        planned = taint_safety.plan_taint(pool.name, untainted, member_names, nodes, self._is_in_no_pool)
        unschedulable = tuple(await find_unschedulable(self._client, planned))
        ended = self._clock.monotonic()
        wait = max(_TAINT_CHECK_INTERVAL, (ended - now) * _TAINT_CHECK_PAUSE_FACTOR)
        self._taint_checks[pool.name] = _TaintCheck(untainted, unschedulable, ended + wait)
        self.queue.add_after(f"pool/{pool.name}", wait)
        for name in untainted:
            if self._node_needs_patch(name):
                self.queue.add(f"node/{name}")

    def _with_planned_taint(self, node: Node) -> Node:
        """Return the node with the taint that it gets; otherwise two new pools would each count on the other's nodes."""
        owner = self._memberships.pool_of_node(node.name)
        if owner is None or labels_and_taints.pool_of_taint(node) or not self._memberships.pools[owner].spec.exclusive:
            return node
        return replace(node, taints=(*node.taints, labels_and_taints.pool_taint(owner)))

    def _is_in_no_pool(self, namespace: str) -> bool:
        return self._memberships.pool_of_namespace(namespace) is None

    async def _write_status(self, pool: NamespacePool) -> None:
        """Write the status if it differs; a change of numbers at most once a second."""
        unstored = self._unstored.setdefault(pool.name, UnstoredFields())
        before = unstored.add_to(pool.status)
        desired = status.build(self._status_input(replace(pool, status=before)))
        if desired == before:
            return
        now, key = self._clock.monotonic(), f"pool/{pool.name}"
        wait = self._status_written_at.get(pool.name, float("-inf")) + _MIN_STATUS_WRITE_INTERVAL - now
        if wait > 0 and status.urgent_part(desired) == status.urgent_part(before):
            self.queue.add_after(key, wait)
            return
        self._status_written_at[pool.name] = now
        body = {
            "metadata": {"resourceVersion": pool.resource_version, "uid": pool.uid},
            "status": merge_patch(before, desired),
        }
        raw = await self._client.patch(f"{paths.pool(pool.name)}/status", body)
        unstored.record(desired, raw)
        self._store.put(ResourceKind.POOL, raw)
        self._events.publish_status_change(pool, before, desired)

    def _status_input(self, pool: NamespacePool) -> status.PoolStatusInput:
        name, memberships = pool.name, self._memberships
        nodes, namespaces = self._member_nodes(name), memberships.namespaces(name)
        keys = [*(f"namespace/{namespace}" for namespace in namespaces), *(f"node/{node.name}" for node in nodes)]
        unlabelled_count = 0
        if memberships.is_enforcing(name):
            unlabelled_count = sum(labels_and_taints.current_assignment(node).pool != name for node in nodes)
            unlabelled_count += sum(self._store.namespaces[namespace].pool != name for namespace in namespaces)
        monotonic = self._clock.monotonic()
        undone = {
            key: max(write.seconds_until_forgotten(monotonic) for write in reported)
            for key in keys
            if (reported := [w for w in self._repeated_writes.get(key, {}).values() if w.is_reported(monotonic)])
        }
        if undone:
            self.queue.add_after(f"pool/{name}", min(undone.values()))
        return status.PoolStatusInput(
            pool=pool,
            nodes=nodes,
            namespaces=namespaces,
            unlabelled_count=unlabelled_count,
            conflicts=[
                *(("namespace", conflict) for conflict in memberships.namespace_conflicts(name)),
                *(("node", conflict) for conflict in memberships.node_conflicts(name)),
            ],
            admission=self._admission.state,
            unschedulable_by_taint=self._taint_checks[name].unschedulable if name in self._taint_checks else None,
            tainted_node_count=sum(labels_and_taints.pool_of_taint(node) == name for node in nodes),
            totals=self._pod_counter.totals,
            misplaced=self._pod_counter.misplaced,
            now=self._clock.now(),
            blockers=self._list_blockers(name),
            node_loss=self._pod_counter.node_losses.get(name),
            refused_writes=[self._refused_writes[key][1] for key in keys if key in self._refused_writes],
            undone_writes=[key.replace("/", " ", 1) for key in undone],
            outdated_crds=self._store.cache.outdated_crds,
        )
