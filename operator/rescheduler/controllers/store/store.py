"""The store: the operator's view of the cluster. It has no pods, so memory does not grow with them.

It has three parts: the cache of objects, the history of nodes, and the builder of the cluster state. The store passes
each change to the parts that it affects, and then tells the subscribers.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rescheduler.api import names
from rescheduler.api.drains import NodeDrain, Phase, RequestReason
from rescheduler.api.policies import ReschedulePolicy
from rescheduler.api.pools import NamespacePool
from rescheduler.controllers.store.cluster_state_builder import ClusterStateBuilder
from rescheduler.controllers.store.node_history import NodeHistory
from rescheduler.controllers.store.object_cache import ObjectCache, ResourceKind
from rescheduler.core.drain.triggers import TriggerContext
from rescheduler.core.eligibility import failure_concurrency
from rescheduler.core.eligibility.cluster_state import ClusterState
from rescheduler.core.failure.condition_history import ConditionHistory
from rescheduler.core.model.namespaces import Namespace
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.raw import RawObject
from rescheduler.core.pools.membership import MembershipChanges, PoolMemberships


@dataclass(frozen=True, slots=True)
class StoreListener:
    """Callbacks of a subscriber of the store.

    Attributes:
        on_change: gets the name of the node to reconcile after each change; None means all nodes.
        on_eligibility_change: called when a change may allow a waiting drain to start.
        on_membership_change: gets the changes of pools, their namespaces and their nodes.
        on_unreadable_change: called when an object becomes unreadable or readable.
    """

    on_change: Callable[[str | None], None]
    on_eligibility_change: Callable[[], None]
    on_membership_change: Callable[[MembershipChanges], None]
    on_unreadable_change: Callable[[], None]


class Store:
    """The parts of the operator's view, and its subscribers.

    Attributes:
        cache: objects by kind and name.
        history: what was observed of each node.
        state_builder: builder of the cluster state.
        memberships: namespaces and nodes of each pool.
        nodes: Nodes of the cache by name.
        drains: NodeDrains of the cache by name.
        namespaces: Namespaces of the cache by name.
    """

    def __init__(self, now: Callable[[], datetime], exempt_namespaces: Collection[str] = ()) -> None:
        """Create an empty store; `exempt_namespaces`: namespaces besides kube-system that no pool can have."""
        self._listeners: list[StoreListener] = []
        self.cache = ObjectCache(self._notify_unreadable_change)
        self.history = NodeHistory(now)
        self.memberships = PoolMemberships(exempt_namespaces)
        self.state_builder = ClusterStateBuilder(self.cache, self.memberships, self.history, now)
        self.nodes: Mapping[str, Node] = self.cache.nodes
        self.drains: Mapping[str, NodeDrain] = self.cache.drains
        self.namespaces: Mapping[str, Namespace] = self.cache.namespaces
        self._undeletable_drains: set[str] = set()

    # -- subscribers --------------------------------------------------------------------------------------------------

    def subscribe(
        self,
        *,
        on_change: Callable[[str | None], None] = lambda _: None,
        on_eligibility_change: Callable[[], None] = lambda: None,
        on_membership_change: Callable[[MembershipChanges], None] = lambda _: None,
        on_unreadable_change: Callable[[], None] = lambda: None,
    ) -> None:
        """Add callbacks; `ControllerManager` and `PoolController` do so before the start."""
        self._listeners.append(
            StoreListener(on_change, on_eligibility_change, on_membership_change, on_unreadable_change)
        )

    def _notify_change(self, name: str | None) -> None:
        for listener in self._listeners:
            listener.on_change(name)

    def _notify_membership_change(self, changes: MembershipChanges) -> None:
        for listener in self._listeners:
            listener.on_membership_change(changes)

    def _notify_unreadable_change(self) -> None:
        for listener in self._listeners:
            listener.on_unreadable_change()

    def _invalidate_cluster_state(self) -> None:
        self.state_builder.invalidate()
        for listener in self._listeners:
            listener.on_eligibility_change()

    # -- changes of objects -------------------------------------------------------------------------------------------

    def put(self, kind: ResourceKind, raw: RawObject) -> None:
        """Add or update an object, unless the store has a newer version."""
        update = self.cache.put(kind, raw)
        if update is None:
            return
        before, after = update
        match kind:
            case ResourceKind.POOL:
                self._apply_pool(after)
            case ResourceKind.NAMESPACE:
                self._apply_namespace(before, after)
            case ResourceKind.POLICY:
                self.state_builder.select_policies_again()
                self._invalidate_cluster_state()
                self._notify_change(None)
            case ResourceKind.NODE:
                self._apply_node(before, after)
            case ResourceKind.DRAIN:
                if not before or _eligibility_fields(before) != _eligibility_fields(after):
                    self._invalidate_cluster_state()
                self._notify_change(after.name)

    def _apply_node(self, before: Node | None, node: Node) -> None:
        self.history.observe(before, node, self.policy(node))
        if not before or _relevant_fields(before) != _relevant_fields(node):
            changes = self.memberships.put_node(node)
            self._invalidate_cluster_state()
            self._notify_change(node.name)
            self._notify_membership_change(changes)

    def _apply_pool(self, pool: NamespacePool) -> None:
        known = self.memberships.revision
        changes = self.memberships.put_pool(pool)
        if self.memberships.revision != known:
            self._invalidate_cluster_state()
        self._notify_membership_change(changes)

    def _apply_namespace(self, before: Namespace | None, now: Namespace) -> None:
        changes = self.memberships.put_namespace(now)
        if before is None or (before.pool, before.terminating, before.labels) != (
            now.pool,
            now.terminating,
            now.labels,
        ):
            self._notify_membership_change(changes)

    def drop(self, kind: ResourceKind, name: str, *, not_after: int | None = None) -> None:
        """Remove a deleted object, unless the store has a version newer than `not_after`."""
        was_readable = name in self.cache.objects(kind)
        if not self.cache.drop(kind, name, not_after=not_after):
            return
        if kind is ResourceKind.POOL:
            changes = self.memberships.drop_pool(name)
            self._invalidate_cluster_state()
            self._notify_membership_change(changes)
            return
        if not was_readable:
            self._notify_change(name if kind in (ResourceKind.NODE, ResourceKind.DRAIN) else None)
            return
        if kind is ResourceKind.NAMESPACE:
            self._notify_membership_change(self.memberships.drop_namespace(name))
            return
        if kind is ResourceKind.NODE:
            self.history.forget(name)
            self.state_builder.forget_node(name)
            self._notify_membership_change(self.memberships.drop_node(name))
        if kind is ResourceKind.POLICY:
            self.state_builder.select_policies_again()
        self._invalidate_cluster_state()
        self._notify_change(None if kind is ResourceKind.POLICY else name)

    def resync(self, kind: ResourceKind, listed: Iterable[str], version: int) -> None:
        """Drop the objects that a full list at this resourceVersion does not have; Kopf misses some deletions."""
        for name in self.cache.unlisted(kind, listed):
            self.drop(kind, name, not_after=version)

    # -- changes of the view ------------------------------------------------------------------------------------------

    def set_suspected_nodes(
        self,
        suspected: frozenset[str],
        with_late_lease: frozenset[str],
        with_renewed_lease: frozenset[str] = frozenset(),
    ) -> None:
        """Replace the sets of suspected nodes.

        `suspected`: nodes whose Lease is not renewed. `with_late_lease`: these nodes and nodes that may follow.
        `with_renewed_lease`: nodes whose Ready condition is Unknown although their Lease is renewed.
        """
        changed = self.history.suspected_nodes ^ suspected
        if not self.history.set_suspected_nodes(suspected, with_late_lease, with_renewed_lease):
            return
        for name in changed:
            self.refresh_history(name)
        self._invalidate_cluster_state()
        for name in changed:
            self._notify_change(name)

    def set_blackout(self, reason: str) -> None:
        """Set why the state of nodes is not reliable; empty: it is reliable again, and every `for` starts again."""
        if self.state_builder.set_blackout(reason):
            self._apply_view_change(is_good=not reason)

    def set_failing_view_task(self, failure: str) -> None:
        """Set the failing task that keeps the view current; empty: it works again, and every `for` starts again."""
        if self.state_builder.set_failing_view_task(failure):
            self._apply_view_change(is_good=not failure)

    def set_served(self, kind: ResourceKind, *, served: bool) -> None:
        """Record whether the CRD of a kind serves our version. If not, the view is stale."""
        if self.cache.set_served(kind, served=served):
            self._apply_view_change(is_good=not self.cache.version_not_served)

    def _apply_view_change(self, *, is_good: bool) -> None:
        if is_good:
            self.history.restart_condition_timers()
        self._invalidate_cluster_state()
        self._notify_change(None)

    def set_listed(self, when: datetime) -> None:
        """Record a full list of all kinds; after a long time without one, every `for` starts again."""
        if self.state_builder.set_listed(when):
            self.history.restart_condition_timers()

    # -- queries ------------------------------------------------------------------------------------------------------

    def node(self, name: str) -> Node | None:
        """Return a node; None if it does not exist."""
        return self.nodes.get(name)

    def drain(self, name: str) -> NodeDrain | None:
        """Return a NodeDrain; None if it does not exist."""
        return self.drains.get(name)

    def is_unreadable(self, kind: ResourceKind, name: str) -> bool:
        """Whether the object exists but is unreadable: its known version is old or missing, so do not act on it."""
        return (kind, name) in self.cache.unreadable_objects

    def is_undeletable(self, name: str) -> bool:
        """Whether the NodeDrain has no request and cannot be deleted."""
        return name in self._undeletable_drains

    def set_undeletable(self, name: str, *, undeletable: bool) -> None:
        """Record whether a NodeDrain without a request cannot be deleted."""
        if undeletable:
            self._undeletable_drains.add(name)
        else:
            self._undeletable_drains.discard(name)

    @property
    def draining_count(self) -> int:
        """Number of NodeDrains in the phase Draining."""
        return sum(drain.status.phase is Phase.DRAINING for drain in self.drains.values())

    def policy(self, node: Node) -> ReschedulePolicy | None:
        """Return the winning policy of a node; None if no policy selects it."""
        return self.state_builder.policy(node)

    def refresh_history(self, name: str) -> ConditionHistory | None:
        """Return the condition history of a node, updated to now; None if the node does not exist."""
        node = self.node(name)
        return self.history.refresh_conditions(node, self.policy(node)) if node else None

    def trigger_context(self, name: str, existing_requests: Mapping[RequestReason, str]) -> TriggerContext:
        """Return the context of the triggers of a node; `existing_requests`: requests of its NodeDrain by reason."""
        return TriggerContext(
            existing_requests,
            name in self.history.suspected_nodes,
            name in self.history.nodes_with_renewed_lease,
            self.state_builder.is_view_stale(),
        )

    def cluster_state(self) -> ClusterState:
        """Return the state of the cluster now."""
        return self.state_builder.state()


def _relevant_fields(node: Node) -> tuple[Any, ...]:
    """Return the fields of a node whose change matters. Heartbeats of thousands of nodes must not wake any task."""
    conditions = tuple((c.type, c.status, c.reason, c.last_transition) for c in node.conditions)
    return (node.uid, node.boot_id, node.unschedulable, node.labels, node.annotations, node.taints, conditions)


def _eligibility_fields(drain: NodeDrain) -> tuple[Any, ...]:
    """Return the fields of a drain that decide whether other drains may start. Its progress does not."""
    status = drain.status
    conditions = tuple((c.type, c.status, c.reason) for c in status.conditions)
    stepped_back = drain.annotations.get(names.STEPPED_BACK)
    return (
        drain.spec,
        status.started_at,
        status.drained_at,
        status.phase,
        drain.deletion_timestamp,
        conditions,
        stepped_back,
        failure_concurrency.has_no_movable_pods(drain),
    )
