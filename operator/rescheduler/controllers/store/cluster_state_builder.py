"""Builder of the ClusterState: the facts of one moment that decide whether a drain may continue."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

import structlog

from rescheduler.api.drains import NodeDrain, Phase
from rescheduler.api.policies import ReschedulePolicy
from rescheduler.controllers.store.node_history import NodeHistory
from rescheduler.controllers.store.object_cache import ObjectCache
from rescheduler.core.eligibility import cluster_state
from rescheduler.core.eligibility.cluster_state import ClusterState
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.policy_selection import PolicySelector
from rescheduler.core.pools import max_unavailable
from rescheduler.core.pools.max_unavailable import PoolBudget
from rescheduler.core.pools.membership import PoolMemberships

log = structlog.get_logger("rescheduler.store.cluster_state_builder")
_STATE_MAX_AGE = timedelta(seconds=10)


class ClusterStateBuilder:
    """Build the state of the cluster, and keep it until something changes.

    Attributes:
        listed_at: when all kinds were last listed in full; None before the first list.
        blackout_reason: why the reported state of nodes is not reliable now; empty if it is reliable.
        failing_view_task: the failing task that keeps the view current; empty if none fails.
    """

    def __init__(
        self, cache: ObjectCache, memberships: PoolMemberships, history: NodeHistory, now: Callable[[], datetime]
    ) -> None:
        """Create a builder that reads these parts; `now` gives the operator's time."""
        self._cache, self._memberships, self._history, self._now = cache, memberships, history, now
        self.listed_at: datetime | None = None
        self.blackout_reason, self.failing_view_task = "", ""
        self._reserved_slots: dict[str, datetime] = {}
        self._policy_selector = PolicySelector(())
        self._cached_state: ClusterState | None = None
        self._cached_pool_budgets: tuple[int, Mapping[str, PoolBudget]] = (0, {})

    def invalidate(self) -> None:
        """Build the state again when it is next read."""
        self._cached_state = None

    def policy(self, node: Node) -> ReschedulePolicy | None:
        """Return the winning policy of a node; None if no policy selects it."""
        return self._policy_selector.policy_for(node)

    def select_policies_again(self) -> None:
        """Select the winning policy of every node again, because a policy has changed."""
        self._policy_selector = PolicySelector(self._cache.policies.values())
        self.invalidate()

    def forget_node(self, name: str) -> None:
        """Drop the winning policy of a deleted node."""
        self._policy_selector.forget(name)
        self.invalidate()

    def set_blackout(self, reason: str) -> bool:
        """Set why the state of nodes is not reliable, empty if it is; return whether that has changed."""
        if bool(reason) == bool(self.blackout_reason):
            return False
        log.warning("view.blackout" if reason else "view.recovered", why=reason or self.blackout_reason)
        self.blackout_reason = reason
        self.invalidate()
        return True

    def set_failing_view_task(self, failure: str) -> bool:
        """Set the failing task that keeps the view current, empty if it works; return whether that has changed."""
        before, self.failing_view_task = self.failing_view_task, failure
        if bool(failure) == bool(before):
            return False
        log.warning("view.stale" if failure else "view.current", why=failure or before)
        self.invalidate()
        return True

    def seconds_list_stale(self, now: datetime) -> float:
        """Return the seconds since the last full list if that is too long ago to act; 0 if it is not."""
        age = now - self.listed_at if self.listed_at else timedelta(0)
        return age.total_seconds() if age >= cluster_state.LIST_STALE_AFTER else 0.0

    def set_listed(self, when: datetime) -> bool:
        """Record a full list of all kinds; return whether the view was stale before it."""
        was_stale = bool(self.seconds_list_stale(when))
        self.listed_at = when
        self.invalidate()
        return was_stale

    @property
    def view_failure(self) -> str:
        """Return why the operator does not see all objects: a task, or a version that is not served; empty if it does."""
        return self.failing_view_task or self._cache.version_not_served

    def is_view_stale(self) -> bool:
        """Whether the view of the cluster is stale, so that the operator must not act."""
        return bool(cluster_state.stale_view_reason(self.state(), self._now()))

    def reserve_slot(self, name: str, started_at: datetime | None) -> None:
        """Reserve a slot until the status has `startedAt`, so that two drains do not take one slot; None: release it."""
        if self._reserved_slots.get(name) == started_at:
            return
        if started_at is None:
            del self._reserved_slots[name]
        else:
            self._reserved_slots[name] = started_at
        self.invalidate()

    def state(self) -> ClusterState:
        """Return the state of the cluster now, in which drains with a reserved slot have started."""
        # Maintenance windows open and close without an event: an old state would miss that.
        if self._cached_state is None or self._now() - self._cached_state.now > _STATE_MAX_AGE:
            self._cached_state = ClusterState(
                self._cache.nodes,
                self._policy_selector,
                {**self._cache.drains, **self._drains_with_reserved_slot()},
                self._now(),
                self.listed_at,
                self._history.conditions,
                self._history.suspected_nodes,
                self._history.nodes_with_late_lease,
                self.blackout_reason or self.view_failure or None,
                self._pool_budgets(),
                self._history.nodes_with_renewed_lease,
            )
        return self._cached_state

    def _pool_budgets(self) -> Mapping[str, PoolBudget]:
        """Return the pool budgets by node, computed again after a change of pool memberships."""
        if self._cached_pool_budgets[0] != self._memberships.revision:
            budgets = max_unavailable.budgets_by_node(self._memberships)
            self._cached_pool_budgets = self._memberships.revision, budgets
        return self._cached_pool_budgets[1]

    def _drains_with_reserved_slot(self) -> dict[str, NodeDrain]:
        """Return the drains with a reserved slot and without `startedAt`, as if they had started."""
        reserved = {}
        for name, when in self._reserved_slots.items():
            drain = self._cache.drains.get(name)
            if drain and drain.status.started_at is None:
                conditions = tuple(c for c in drain.status.conditions if c.type != "Progressing")
                started = {"started_at": when, "phase": Phase.DRAINING, "conditions": conditions}
                status = drain.status.model_copy(update=started)
                reserved[name] = drain.model_copy(update={"status": status})
        return reserved
