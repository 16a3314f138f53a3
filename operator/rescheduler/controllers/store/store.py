"""The store: nodes, namespaces and the kinds of this operator in memory. It has no pods, so memory does not grow with them.

Kopf's events, the informers and the resync feed the store in any order. The newer resourceVersion wins. The resync also
finds deletions that Kopf misses.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import structlog

from rescheduler.api import names
from rescheduler.api.drains import NodeDrain, Phase, RequestReason
from rescheduler.api.policies import ReschedulePolicy
from rescheduler.api.pools import NamespacePool
from rescheduler.api.scalars import truncate
from rescheduler.core.drain.triggers import TriggerContext
from rescheduler.core.eligibility import cluster_state, failure_concurrency
from rescheduler.core.eligibility.cluster_state import ClusterState
from rescheduler.core.failure import condition_history, fencing
from rescheduler.core.failure.condition_history import ConditionHistory
from rescheduler.core.failure.fencing import BootHistory
from rescheduler.core.model import namespaces
from rescheduler.core.model import nodes as model_nodes
from rescheduler.core.model.namespaces import Namespace
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.policy_selection import PolicySelector
from rescheduler.core.pools import max_unavailable
from rescheduler.core.pools.max_unavailable import PoolBudget
from rescheduler.core.pools.membership import MembershipChanges, PoolMemberships

log = structlog.get_logger("rescheduler.store.store")
_STATE_MAX_AGE = timedelta(seconds=10)


class ResourceKind(StrEnum):
    """Kinds of objects in the store, by resource name."""

    NODE = "nodes"
    POLICY = "reschedulepolicies"
    DRAIN = "nodedrains"
    POOL = "namespacepools"
    NAMESPACE = "namespaces"


_PARSERS: Mapping[ResourceKind, Callable[[Mapping[str, Any]], Any]] = {
    ResourceKind.NODE: model_nodes.parse_node,
    ResourceKind.POLICY: ReschedulePolicy.from_object,
    ResourceKind.DRAIN: NodeDrain.from_object,
    ResourceKind.POOL: NamespacePool.from_object,
    ResourceKind.NAMESPACE: namespaces.parse_namespace,
}


_PARSE_ERRORS = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""Errors that a parser may raise for an object of another version."""


@dataclass(frozen=True, slots=True)
class UnreadableObject:
    """Object that this version of the operator cannot read.

    Attributes:
        kind: its kind.
        name: its name.
        uid: its uid; empty if it has none.
        reason: error text of the parser.
        last_version_kept: an earlier version was readable and stays in effect.
    """

    kind: ResourceKind
    name: str
    uid: str
    reason: str
    last_version_kept: bool


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
    """Objects in memory by kind and name.

    Attributes:
        memberships: namespaces and nodes of each pool.
        unreadable_objects: objects that this version cannot read, by kind and name. The last readable version stays.
        not_installed: kinds of this operator whose CRD is not installed.
        listed_at: when all kinds were last listed in full; None before the first list.
        undeletable_drains: names of NodeDrains that have no request and cannot be deleted.
        suspected_nodes: nodes whose Lease is not renewed.
        nodes_with_late_lease: nodes whose Lease is late, while there are suspected nodes.
        nodes_with_renewed_lease: nodes whose Ready condition is Unknown although their Lease is renewed.
        blackout_reason: why the reported state of nodes is not reliable now; empty if it is reliable.
        failing_view_task: the failing task that keeps the view current; empty if none fails.
    """

    def __init__(self, now: Callable[[], datetime], exempt_namespaces: Collection[str] = ()) -> None:
        """Create an empty store; `exempt_namespaces`: namespaces besides kube-system that no pool can have."""
        self._listeners: list[StoreListener] = []
        self.memberships = PoolMemberships(exempt_namespaces)
        self.unreadable_objects: dict[tuple[ResourceKind, str], UnreadableObject] = {}
        self.not_installed: set[ResourceKind] = set()
        self.listed_at: datetime | None = None
        self.undeletable_drains: set[str] = set()
        self.suspected_nodes: frozenset[str] = frozenset()
        self.nodes_with_late_lease: frozenset[str] = frozenset()
        self.nodes_with_renewed_lease: frozenset[str] = frozenset()
        self.blackout_reason, self.failing_view_task = "", ""
        self._now = now
        self._versions: dict[ResourceKind, dict[str, int]] = {kind: {} for kind in ResourceKind}
        self._nodes: dict[str, Node] = {}
        self._policies: dict[str, ReschedulePolicy] = {}
        self._drains: dict[str, NodeDrain] = {}
        self._namespaces: dict[str, Namespace] = {}
        self._condition_histories: dict[str, ConditionHistory] = {}
        self._boot_histories: dict[str, BootHistory] = {}
        self._cordons: dict[str, datetime] = {}
        self._reserved_slots: dict[str, datetime] = {}
        self._policy_selector = PolicySelector(())
        self._cluster_state: ClusterState | None = None
        self._cached_pool_budgets: tuple[int, Mapping[str, PoolBudget]] = (0, {})

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

    def _objects(self, kind: ResourceKind) -> dict[str, Any]:
        kept: dict[ResourceKind, dict[str, Any]] = {
            ResourceKind.NODE: self._nodes,
            ResourceKind.POLICY: self._policies,
            ResourceKind.DRAIN: self._drains,
            ResourceKind.POOL: self.memberships.pools,
            ResourceKind.NAMESPACE: self._namespaces,
        }
        return kept[kind]

    def put(self, kind: ResourceKind, raw: Mapping[str, Any]) -> None:
        """Add or update an object, unless the store has a newer version."""
        name, version = raw["metadata"]["name"], int(raw["metadata"]["resourceVersion"])
        if self._versions[kind].get(name, -1) >= version:
            return
        self._versions[kind][name] = version
        try:
            value = _PARSERS[kind](raw)
        except _PARSE_ERRORS as error:
            self._record_unreadable(kind, raw, error)
            return
        if known := self.unreadable_objects.pop((kind, name), None):
            log.info("object.readable", kind=kind, name=name, uid=known.uid)
            self._notify_unreadable_change()
        before = self._objects(kind).get(name)
        if kind is not ResourceKind.POOL:
            self._objects(kind)[name] = value
        self._apply(kind, name, before, value)

    def _record_unreadable(self, kind: ResourceKind, raw: Mapping[str, Any], error: Exception) -> None:
        """Record an unreadable object; its last readable version stays in effect.

        Without this a drain would end, nodes would be uncordoned, and labels would be removed.
        """
        meta = raw["metadata"]
        name, reason = meta["name"], truncate(f"{type(error).__name__}: {error}", 400)
        known = self.unreadable_objects.get((kind, name))
        unreadable = UnreadableObject(
            kind, name, meta.get("uid", ""), reason, last_version_kept=name in self._objects(kind)
        )
        self.unreadable_objects[kind, name] = unreadable
        if known != unreadable:
            log.error(
                "object.unreadable",
                kind=kind,
                name=name,
                uid=unreadable.uid,
                last_good_kept=unreadable.last_version_kept,
                error=reason,
            )
            self._notify_unreadable_change()

    def is_unreadable(self, kind: ResourceKind, name: str) -> bool:
        """Whether the object exists but is unreadable: its known version is old or missing, so do not act on it."""
        return (kind, name) in self.unreadable_objects

    def _apply(self, kind: ResourceKind, name: str, before: Any, value: Any) -> None:
        match kind:
            case ResourceKind.POOL:
                self._apply_pool(value)
            case ResourceKind.NAMESPACE:
                self._apply_namespace(before, value)
            case ResourceKind.POLICY:
                self._policy_selector = PolicySelector(self._policies.values())
                self._invalidate_cluster_state()
                self._notify_change(None)
            case ResourceKind.NODE:
                self._boot_histories[name] = fencing.observe_boot(self._boot_histories.get(name), value)
                self._note_cordon(name, before, value)
                if before != value:
                    self.refresh_history(name)  # also for a new node: a standby must know that a node was Ready once
                if not before or _relevant_fields(before) != _relevant_fields(value):
                    changes = self.memberships.put_node(value)
                    self._invalidate_cluster_state()
                    self._notify_change(name)
                    self._notify_membership_change(changes)
            case ResourceKind.DRAIN:
                if not before or _eligibility_fields(before) != _eligibility_fields(value):
                    self._invalidate_cluster_state()
                self._notify_change(name)

    def _note_cordon(self, name: str, before: Node | None, now: Node) -> None:
        """Record the time of a cordon. A task that reads the node later would miss an uncordon in between."""
        if not now.unschedulable:
            self._cordons.pop(name, None)
        elif before and not before.unschedulable:
            self._cordons[name] = self._now()

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
        known = self._versions[kind].get(name)
        if known is None or (not_after is not None and known > not_after):
            return
        del self._versions[kind][name]
        if self.unreadable_objects.pop((kind, name), None):
            self._notify_unreadable_change()
        if kind is ResourceKind.POOL:
            changes = self.memberships.drop_pool(name)
            self._invalidate_cluster_state()
            self._notify_membership_change(changes)
            return
        if self._objects(kind).pop(name, None) is None:
            self._notify_change(name if kind in (ResourceKind.NODE, ResourceKind.DRAIN) else None)
            return  # it was never readable
        if kind is ResourceKind.NAMESPACE:
            self._notify_membership_change(self.memberships.drop_namespace(name))
            return
        if kind is ResourceKind.NODE:
            self._condition_histories.pop(name, None)
            self._boot_histories.pop(name, None)
            self._cordons.pop(name, None)
            self._policy_selector.forget(name)
            self._notify_membership_change(self.memberships.drop_node(name))
        if kind is ResourceKind.POLICY:
            self._policy_selector = PolicySelector(self._policies.values())
        self._invalidate_cluster_state()
        self._notify_change(None if kind is ResourceKind.POLICY else name)

    def _invalidate_cluster_state(self) -> None:
        self._cluster_state = None
        for listener in self._listeners:
            listener.on_eligibility_change()

    def resync(self, kind: ResourceKind, names: Iterable[str], version: int) -> None:
        """Drop the objects that a full list at this resourceVersion does not have."""
        for name in self._versions[kind].keys() - set(names):
            self.drop(kind, name, not_after=version)

    @property
    def nodes(self) -> Mapping[str, Node]:
        """Nodes by name."""
        return self._nodes

    def node(self, name: str) -> Node | None:
        """Return a node; None if it does not exist."""
        return self._nodes.get(name)

    @property
    def namespaces(self) -> Mapping[str, Namespace]:
        """Namespaces by name."""
        return self._namespaces

    @property
    def drains(self) -> Mapping[str, NodeDrain]:
        """NodeDrains by name."""
        return self._drains

    @property
    def draining_count(self) -> int:
        """Number of NodeDrains in the phase Draining."""
        return sum(drain.status.phase is Phase.DRAINING for drain in self._drains.values())

    def drain(self, name: str) -> NodeDrain | None:
        """Return a NodeDrain; None if it does not exist."""
        return self._drains.get(name)

    def policy(self, node: Node) -> ReschedulePolicy | None:
        """Return the winning policy of a node; None if no policy selects it."""
        return self._policy_selector.policy_for(node)

    def refresh_history(self, name: str) -> ConditionHistory | None:
        """Return the condition history of a node, updated to now; None if the node does not exist."""
        node = self.node(name)
        if node is None:
            return None
        suspected = name in self.suspected_nodes
        history = condition_history.observe(
            self._condition_histories.get(name), node, self.policy(node), self._now(), suspected=suspected
        )
        self._condition_histories[name] = history
        return history

    def boot_history(self, name: str) -> BootHistory | None:
        """Return the boots of a node that this process has observed; None for an unknown node."""
        return self._boot_histories.get(name)

    def cordoned_at(self, name: str) -> datetime | None:
        """Return when this process saw the cordon of a node; None without cordon, or if the cordon is older."""
        return self._cordons.get(name)

    def amend_history(self, name: str, change: Callable[[ConditionHistory], ConditionHistory]) -> ConditionHistory:
        """Change the history of a node by the record in its NodeDrain, which covers the time before this process."""
        self._condition_histories[name] = change(self._condition_histories[name])
        return self._condition_histories[name]

    def trigger_context(self, name: str, existing_requests: Mapping[RequestReason, str]) -> TriggerContext:
        """Return the context of the triggers of a node; `existing_requests`: requests of its NodeDrain by reason."""
        return TriggerContext(
            existing_requests, name in self.suspected_nodes, name in self.nodes_with_renewed_lease, self.is_view_stale()
        )

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
        changed, previous = (
            self.suspected_nodes ^ suspected,
            (self.nodes_with_late_lease, self.nodes_with_renewed_lease),
        )
        self.suspected_nodes, self.nodes_with_late_lease, self.nodes_with_renewed_lease = (
            suspected,
            with_late_lease,
            with_renewed_lease,
        )
        for name in changed:
            self.refresh_history(name)
        if changed or (with_late_lease, with_renewed_lease) != previous:
            self._invalidate_cluster_state()
        for name in changed:
            self._notify_change(name)

    def set_blackout(self, reason: str) -> None:
        """Set why the state of nodes is not reliable; empty: it is reliable again, and every `for` starts again."""
        if bool(reason) != bool(self.blackout_reason):
            log.warning("view.blackout" if reason else "view.recovered", why=reason or self.blackout_reason)
            self.blackout_reason = reason
            if not reason:
                self._restart_condition_timers()
            self._invalidate_cluster_state()
            self._notify_change(None)

    def set_failing_view_task(self, failure: str) -> None:
        """Set the failing task that keeps the view current; empty: it works again, and every `for` starts again."""
        before, self.failing_view_task = self.failing_view_task, failure
        if bool(failure) != bool(before):
            log.warning("view.stale" if failure else "view.current", why=failure or before)
            if not failure:
                self._restart_condition_timers()
            self._invalidate_cluster_state()
            self._notify_change(None)

    def set_listed(self, when: datetime) -> None:
        """Record a full list of all kinds; after a long time without one, every `for` starts again."""
        if self.listed_at and when - self.listed_at >= cluster_state.LIST_STALE_AFTER:
            self._restart_condition_timers()
        self.listed_at = when
        self._cluster_state = None

    def _restart_condition_timers(self) -> None:
        now = self._now()
        self._condition_histories = {
            name: condition_history.restart_timers(history, now) for name, history in self._condition_histories.items()
        }

    def is_view_stale(self) -> bool:
        """Whether the view of the cluster is stale, so that the operator must not act."""
        return bool(cluster_state.stale_view_reason(self.cluster_state(), self._now()))

    def reserve_slot(self, name: str, started_at: datetime | None) -> None:
        """Reserve a slot until the status has `startedAt`, so that two drains do not take one slot; None: release it."""
        if self._reserved_slots.get(name) == started_at:
            return
        if started_at is None:
            del self._reserved_slots[name]
        else:
            self._reserved_slots[name] = started_at
        self._cluster_state = None

    def cluster_state(self) -> ClusterState:
        """Return the state of the cluster now, in which drains with a reserved slot have started."""
        # Maintenance windows open and close without an event: an old state would miss that.
        if self._cluster_state is None or self._now() - self._cluster_state.now > _STATE_MAX_AGE:
            self._cluster_state = ClusterState(
                self._nodes,
                self._policy_selector,
                {**self._drains, **self._drains_with_reserved_slot()},
                self._now(),
                self.listed_at,
                self._condition_histories,
                self.suspected_nodes,
                self.nodes_with_late_lease,
                self.blackout_reason or self.failing_view_task or None,
                self._pool_budgets(),
                self.nodes_with_renewed_lease,
            )
        return self._cluster_state

    def _pool_budgets(self) -> Mapping[str, PoolBudget]:
        """Return the pool budgets by node, computed again after a change of pool memberships."""
        if self._cached_pool_budgets[0] != self.memberships.revision:
            self._cached_pool_budgets = self.memberships.revision, max_unavailable.budgets_by_node(self.memberships)
        return self._cached_pool_budgets[1]

    def _drains_with_reserved_slot(self) -> dict[str, NodeDrain]:
        """Return the drains with a reserved slot and without `startedAt`, as if they had started."""
        reserved = {}
        for name, when in self._reserved_slots.items():
            drain = self._drains.get(name)
            if drain and drain.status.started_at is None:
                conditions = tuple(c for c in drain.status.conditions if c.type != "Progressing")
                started = {"started_at": when, "phase": Phase.DRAINING, "conditions": conditions}
                status = drain.status.model_copy(update=started)
                reserved[name] = drain.model_copy(update={"status": status})
        return reserved


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
