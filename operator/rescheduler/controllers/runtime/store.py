"""The facts in memory: nodes, namespaces, and our own kinds. No pods: memory must not grow with them.

Kopf's events, watches of ours and the full re-sync feed it, in any order; the newer resourceVersion wins. Deletions that
Kopf loses across a re-list are found by the re-sync.
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

log = structlog.get_logger("rescheduler.store")
_STATE_MAX_AGE = timedelta(seconds=10)


class ResourceKind(StrEnum):
    """What the store holds."""

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
"""What a projection may raise of an object of another version."""


@dataclass(frozen=True, slots=True)
class UnreadableObject:
    """An object that this version cannot read; `known`: an earlier version of it could be read, and holds on."""

    kind: ResourceKind
    name: str
    uid: str
    reason: str
    last_version_kept: bool


class Store:
    """Small facts by kind and name.

    Attributes:
        changed: told the name of the node to look at after each change; None means all of them.
        turned: told when a change may give a waiting drain its turn.
        touched: told what of pools, their namespaces and nodes may be otherwise after each change.
        memberships: which pool has which namespace and node.
        unreadable: objects that this version cannot read, by kind and name: their last good version holds on.
        told: called when an object cannot be read any more, or can again.
        absent: kinds of ours that are not installed.
        listed: when all kinds were last listed in full.
        unwanted: NodeDrains that nothing asks for any more, and that cannot be deleted.
        suspects: nodes whose Lease is silent.
        late: while there are suspects, all nodes whose Lease is late.
        heard: nodes that are Unknown though their Lease is renewed.
        blackout: why what is seen of nodes is not to be believed now; empty where it is.
        doubt: which task that keeps the view current fails; empty if none does.
    """

    def __init__(self, now: Callable[[], datetime], exempt_namespaces: Collection[str] = ()) -> None:
        """`exempt`: namespaces that no pool can have, besides kube-system."""
        self.on_change: Callable[[str | None], None] = lambda _: None
        self.on_eligibility_change: Callable[[], None] = lambda: None
        self.on_membership_change: Callable[[MembershipChanges], None] = lambda _: None
        self.memberships = PoolMemberships(exempt_namespaces)
        self.unreadable_objects: dict[tuple[ResourceKind, str], UnreadableObject] = {}
        self.on_unreadable_change: Callable[[], None] = lambda: None
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
        """Take in an object as it is now; an older one than known changes nothing."""
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
            self.on_unreadable_change()
        before = self._objects(kind).get(name)
        if kind is not ResourceKind.POOL:
            self._objects(kind)[name] = value
        self._apply(kind, name, before, value)

    def _record_unreadable(self, kind: ResourceKind, raw: Mapping[str, Any], error: Exception) -> None:
        """An object of another version than ours, or that makes no sense: its last good version holds on.

        If it was treated as gone, a drain would end, nodes would be uncordoned and labels taken off.
        """
        meta = raw["metadata"]
        name, why = meta["name"], truncate(f"{type(error).__name__}: {error}", 400)
        known = self.unreadable_objects.get((kind, name))
        found = UnreadableObject(kind, name, meta.get("uid", ""), why, last_version_kept=name in self._objects(kind))
        self.unreadable_objects[kind, name] = found
        if known != found:
            log.error(
                "object.unreadable",
                kind=kind,
                name=name,
                uid=found.uid,
                last_good_kept=found.last_version_kept,
                error=why,
            )
            self.on_unreadable_change()

    def is_unreadable(self, kind: ResourceKind, name: str) -> bool:
        """Whether the object is there, and is not to be acted on: what is known of it is old, or nothing."""
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
                self.on_change(None)
            case ResourceKind.NODE:
                self._boot_histories[name] = fencing.observe_boot(self._boot_histories.get(name), value)
                self._note_cordon(name, before, value)
                if before != value:
                    self.refresh_history(name)  # the first time too: a standby must know that a node was Ready once
                if not before or _relevant_fields(before) != _relevant_fields(value):
                    touched = self.memberships.put_node(value)
                    self._invalidate_cluster_state()
                    self.on_change(name)
                    self.on_membership_change(touched)
            case ResourceKind.DRAIN:
                if not before or _eligibility_fields(before) != _eligibility_fields(value):
                    self._invalidate_cluster_state()
                self.on_change(name)

    def _note_cordon(self, name: str, before: Node | None, now: Node) -> None:
        """Each change counts: a task that looks later does not see that the node was uncordoned in between."""
        if not now.unschedulable:
            self._cordons.pop(name, None)
        elif before and not before.unschedulable:
            self._cordons[name] = self._now()

    def _apply_pool(self, pool: NamespacePool) -> None:
        known = self.memberships.revision
        touched = self.memberships.put_pool(pool)
        if self.memberships.revision != known:
            self._invalidate_cluster_state()
        self.on_membership_change(touched)

    def _apply_namespace(self, before: Namespace | None, now: Namespace) -> None:
        touched = self.memberships.put_namespace(now)
        if before is None or (before.pool, before.terminating, before.labels) != (
            now.pool,
            now.terminating,
            now.labels,
        ):
            self.on_membership_change(touched)

    def drop(self, kind: ResourceKind, name: str, *, not_after: int | None = None) -> None:
        """Forget a deleted object, unless it was seen after `not_after`."""
        known = self._versions[kind].get(name)
        if known is None or (not_after is not None and known > not_after):
            return
        del self._versions[kind][name]
        if self.unreadable_objects.pop((kind, name), None):
            self.on_unreadable_change()
        if kind is ResourceKind.POOL:
            touched = self.memberships.drop_pool(name)
            self._invalidate_cluster_state()
            self.on_membership_change(touched)
            return
        if self._objects(kind).pop(name, None) is None:
            self.on_change(name if kind in (ResourceKind.NODE, ResourceKind.DRAIN) else None)
            return  # it never could be read
        if kind is ResourceKind.NAMESPACE:
            self.on_membership_change(self.memberships.drop_namespace(name))
            return
        if kind is ResourceKind.NODE:
            self._condition_histories.pop(name, None)
            self._boot_histories.pop(name, None)
            self._cordons.pop(name, None)
            self._policy_selector.forget(name)
            self.on_membership_change(self.memberships.drop_node(name))
        if kind is ResourceKind.POLICY:
            self._policy_selector = PolicySelector(self._policies.values())
        self._invalidate_cluster_state()
        self.on_change(None if kind is ResourceKind.POLICY else name)

    def _invalidate_cluster_state(self) -> None:
        self._cluster_state = None
        self.on_eligibility_change()

    def resync(self, kind: ResourceKind, names: Iterable[str], version: int) -> None:
        """Drop what a full list at this version did not have."""
        for name in self._versions[kind].keys() - set(names):
            self.drop(kind, name, not_after=version)

    @property
    def nodes(self) -> Mapping[str, Node]:
        """Nodes by name."""
        return self._nodes

    def node(self, name: str) -> Node | None:
        """One node; None where it is not there."""
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
        """How many of them move pods."""
        return sum(drain.status.phase is Phase.DRAINING for drain in self._drains.values())

    def drain(self, name: str) -> NodeDrain | None:
        """One NodeDrain; None where it is not there."""
        return self._drains.get(name)

    def policy(self, node: Node) -> ReschedulePolicy | None:
        """The policy that decides for this node."""
        return self._policy_selector.policy_for(node)

    def refresh_history(self, name: str) -> ConditionHistory | None:
        """The sighting of a node, brought up to now."""
        node = self.node(name)
        if node is None:
            return None
        suspected = name in self.suspected_nodes
        seen = condition_history.observe(
            self._condition_histories.get(name), node, self.policy(node), self._now(), suspected=suspected
        )
        self._condition_histories[name] = seen
        return seen

    def boot_history(self, name: str) -> BootHistory | None:
        """What was seen of a node's boot, as far as it tells news from what is left of an earlier failure."""
        return self._boot_histories.get(name)

    def cordoned_at(self, name: str) -> datetime | None:
        """When this process saw the node being cordoned; None if it is not cordoned, or was from the first sight."""
        return self._cordons.get(name)

    def amend_history(self, name: str, change: Callable[[ConditionHistory], ConditionHistory]) -> ConditionHistory:
        """Its NodeDrain tells of the time before our start."""
        self._condition_histories[name] = change(self._condition_histories[name])
        return self._condition_histories[name]

    def trigger_context(self, name: str, existing_requests: Mapping[RequestReason, str]) -> TriggerContext:
        """What beside a node itself decides over what it asks for; `standing`: the requests of its NodeDrain."""
        return TriggerContext(
            existing_requests, name in self.suspected_nodes, name in self.nodes_with_renewed_lease, self.is_view_stale()
        )

    def set_suspected_nodes(
        self,
        suspected: frozenset[str],
        with_late_lease: frozenset[str],
        with_renewed_lease: frozenset[str] = frozenset(),
    ) -> None:
        """These nodes are silent, and no others; `late`: they, and those that may be about to be; `heard`: nodes whose
        Lease is renewed, of those that are Unknown.
        """
        changed, known = self.suspected_nodes ^ suspected, (self.nodes_with_late_lease, self.nodes_with_renewed_lease)
        self.suspected_nodes, self.nodes_with_late_lease, self.nodes_with_renewed_lease = (
            suspected,
            with_late_lease,
            with_renewed_lease,
        )
        for name in changed:
            self.refresh_history(name)
        if changed or (with_late_lease, with_renewed_lease) != known:
            self._invalidate_cluster_state()
        for name in changed:
            self.on_change(name)

    def set_blackout(self, reason: str) -> None:
        """What is seen of nodes is not to be believed, or (empty) is again: then every `for` starts anew."""
        if bool(reason) != bool(self.blackout_reason):
            log.warning("view.blackout" if reason else "view.recovered", why=reason or self.blackout_reason)
            self.blackout_reason = reason
            if not reason:
                self._restart_condition_timers()
            self._invalidate_cluster_state()
            self.on_change(None)

    def set_failing_view_task(self, failure: str) -> None:
        """A task that keeps the view current fails, or (empty) works again: then every `for` starts again."""
        before, self.failing_view_task = self.failing_view_task, failure
        if bool(failure) != bool(before):
            log.warning("view.stale" if failure else "view.current", why=failure or before)
            if not failure:
                self._restart_condition_timers()
            self._invalidate_cluster_state()
            self.on_change(None)

    def set_listed(self, when: datetime) -> None:
        """All kinds have been listed in full; after a long time without, every `for` starts anew."""
        if self.listed_at and when - self.listed_at >= cluster_state.LIST_STALE_AFTER:
            self._restart_condition_timers()
        self.listed_at = when
        self._cluster_state = None

    def _restart_condition_timers(self) -> None:
        now = self._now()
        self._condition_histories = {
            name: condition_history.restart_timers(seen, now) for name, seen in self._condition_histories.items()
        }

    def is_view_stale(self) -> bool:
        """Whether what we know of the cluster is not to be acted on."""
        return bool(cluster_state.stale_view_reason(self.cluster_state(), self._now()))

    def reserve_slot(self, name: str, started_at: datetime | None) -> None:
        """Count a drain as begun before its status says so: two must not take one slot. None takes it back."""
        if self._reserved_slots.get(name) == started_at:
            return
        if started_at is None:
            del self._reserved_slots[name]
        else:
            self._reserved_slots[name] = started_at
        self._cluster_state = None

    def cluster_state(self) -> ClusterState:
        """All facts of this moment, promises counted as kept."""
        # Windows open and close by time alone: what was worked out long ago is worked out anew.
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
                self.blackout_reason or self.failing_view_task,
                self._pool_budgets(),
                self.nodes_with_renewed_lease,
            )
        return self._cluster_state

    def _pool_budgets(self) -> Mapping[str, PoolBudget]:
        """Worked out anew where a pool, or what one has, may be otherwise."""
        if self._cached_pool_budgets[0] != self.memberships.revision:
            self._cached_pool_budgets = self.memberships.revision, max_unavailable.budgets_by_node(self.memberships)
        return self._cached_pool_budgets[1]

    def _drains_with_reserved_slot(self) -> dict[str, NodeDrain]:
        """Drains whose beginning is promised and not in their status yet."""
        found = {}
        for name, when in self._reserved_slots.items():
            drain = self._drains.get(name)
            if drain and drain.status.started_at is None:
                waits = tuple(c for c in drain.status.conditions if c.type != "Progressing")
                begun = {"started_at": when, "phase": Phase.DRAINING, "conditions": waits}
                status = drain.status.model_copy(update=begun)
                found[name] = drain.model_copy(update={"status": status})
        return found


def _relevant_fields(node: Node) -> tuple[Any, ...]:
    """What of a node is news: heartbeats of thousands of nodes are none."""
    conditions = tuple((c.type, c.status, c.reason, c.last_transition) for c in node.conditions)
    return (node.uid, node.boot_id, node.unschedulable, node.labels, node.annotations, node.taints, conditions)


def _eligibility_fields(drain: NodeDrain) -> tuple[Any, ...]:
    """What of a drain decides over the turn of others; its progress does not."""
    status = drain.status
    conditions = tuple((c.type, c.status, c.reason) for c in status.conditions)
    stepped = drain.annotations.get(names.STEPPED_BACK)
    return (
        drain.spec,
        status.started_at,
        status.drained_at,
        status.phase,
        drain.deletion_timestamp,
        conditions,
        stepped,
        failure_concurrency.has_no_movable_pods(drain),
    )
