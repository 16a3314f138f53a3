"""Has pods that are out of place moved, as far as they may be, and knows why the others stay."""

from datetime import datetime

from rescheduler.api.policies import Suspend
from rescheduler.api.pools import PoolBlocker
from rescheduler.controllers.migration.manager import MigrationManager
from rescheduler.controllers.pools.admission_check import AdmissionCheck
from rescheduler.controllers.pools.pod_counter import PoolPodCounter
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.store import Store
from rescheduler.core.drain import migration
from rescheduler.core.eligibility import cluster_state
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.wait_reasons import WaitReason
from rescheduler.core.pools import move_selection
from rescheduler.core.pools.misplaced_pods import MembershipSnapshot
from rescheduler.core.pools.move_selection import (
    CAUSE_PREFIX,
    LABEL_PROPAGATION_DELAY,
    MoveSelectionInput,
    PoolMoveHistory,
)

REQUESTER = "pools"
_PoolSince = tuple[str | None, datetime]
"""A pool, and since when it is seen."""


class PoolMoveController:
    """Between what is counted and what is moved."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        admission: AdmissionCheck,
        pod_counter: PoolPodCounter,
        migrations: MigrationManager,
    ) -> None:
        self._store, self._clock = store, clock
        self._admission, self._pod_counter, self._migrations = admission, pod_counter, migrations
        self._move_history = PoolMoveHistory()
        self._blockers: dict[str, list[PoolBlocker]] = {}
        # By namespace its label, by node the pool that has it; and since when it is seen so. Not forgotten while none
        # is out of place: one that comes up wrong a moment later came back.
        self._namespace_pools: dict[str, _PoolSince] = {}
        self._node_pools: dict[str, _PoolSince] = {}

    def reconcile(self) -> None:
        """The counts are new: who is to be moved now?"""
        now, sums = self._clock.now(), self._pod_counter.totals
        if sums is None or not self._admission.state.is_enforced_everywhere(now):
            self._blockers = {}
            self._migrations.set_requests(REQUESTER, {})
            return
        misplaced = self._pod_counter.misplaced.pods_to_move
        spaces = {pod.namespace for pod in misplaced}
        for name in spaces:
            space = self._store.namespaces.get(name)
            self._namespace_pools[name] = _pool_since(
                self._namespace_pools.get(name), space.pool if space else None, now
            )
        self._namespace_pools = {
            name: seen for name, seen in self._namespace_pools.items() if name in self._store.namespaces
        }
        ground = MembershipSnapshot.of(self._store.memberships).pool_of_node
        self._node_pools = {
            name: _pool_since(self._node_pools.get(name), ground.get(name), now) for name in self._store.nodes
        }
        site = MoveSelectionInput(
            now=now,
            nodes=self._store.nodes,
            pool_of_node=ground,
            requests_by_node=sums.requests_by_node,
            is_label_propagated=lambda name: self._is_label_propagated(name, now),
            mapped_since=self._mapped_since,
            wait_reason=self._wait_reason,
            suspend=self._suspend,
            move_history=self._move_history,
        )
        plan = move_selection.select(misplaced, site)
        self._blockers = plan.blockers
        self._migrations.set_requests(REQUESTER, plan.migration_requests)

    def _is_label_propagated(self, name: str, now: datetime) -> bool:
        if name not in self._namespace_pools:
            return False
        label, since = self._namespace_pools[name]
        return label == self._store.memberships.pool_of_namespace(name) and now - since >= LABEL_PROPAGATION_DELAY

    def _mapped_since(self, namespace: str, node: str) -> datetime:
        return max(self._namespace_pools[namespace][1], self._node_pools[node][1])

    def _wait_reason(self, node: Node) -> WaitReason | None:
        return migration.why_no_migration(
            node,
            self._store.policy(node),
            cluster_state.stale_view_reason(self._store.cluster_state(), self._clock.now()),
        )

    def _suspend(self, node: Node) -> Suspend:
        policy = self._store.policy(node)
        return policy.spec.suspend if policy else Suspend.NONE

    def on_pod_moved(self, pod: Pod, cause: str) -> None:
        """A pod has left for its pool, or away from one."""
        if cause.startswith(CAUSE_PREFIX) and pod.owner:
            home = self._store.memberships.pool_of_namespace(pod.namespace)
            self._move_history.record_move(pod.owner.uid, home, self._clock.now())

    def blockers(self, pool: str) -> list[PoolBlocker]:
        """Pods of this pool that cannot be moved, by namespace and name."""
        found = list(self._blockers.get(pool, ()))
        found += [
            PoolBlocker(namespace=b.namespace, pod=b.pod, class_=b.class_, message=b.message)
            for held in self._migrations.blocked_migrations()
            if held.cause == CAUSE_PREFIX + pool
            for b in (held.blocker,)
        ]
        return sorted(found, key=lambda b: (b.namespace, b.pod, b.class_))


def _pool_since(known: _PoolSince | None, pool: str | None, now: datetime) -> _PoolSince:
    return known if known and known[0] == pool else (pool, now)
