"""Request the moves of misplaced pods, and report why the others stay."""

from datetime import datetime

from rescheduler.api.policies import Suspend
from rescheduler.api.pools import PoolBlocker
from rescheduler.controllers.migration.manager import MigrationManager
from rescheduler.controllers.pools.admission_check import AdmissionCheck
from rescheduler.controllers.pools.pod_counter import PoolPodCounter
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.store.store import Store
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
"""A pool, and the time of its first observation; None: no pool."""


class PoolMoveController:
    """Turn each count of misplaced pods into requests of migrations."""

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
        # Kept while no pod is misplaced: otherwise a pod that comes back a moment later would look like an old one.
        self._namespace_pools: dict[str, _PoolSince] = {}  # by namespace: its label
        self._node_pools: dict[str, _PoolSince] = {}  # by node: the pool that has it

    def reconcile(self) -> None:
        """Select the pods to move now, after a count."""
        now, totals = self._clock.now(), self._pod_counter.totals
        if totals is None or not self._admission.state.is_enforced_everywhere(now):
            self._blockers = {}
            self._migrations.set_requests(REQUESTER, {})
            return
        misplaced = self._pod_counter.misplaced.pods_to_move
        for name in {pod.namespace for pod in misplaced}:
            namespace = self._store.namespaces.get(name)
            self._namespace_pools[name] = _pool_since(
                self._namespace_pools.get(name), namespace.pool if namespace else None, now
            )
        self._namespace_pools = {
            name: pool_since for name, pool_since in self._namespace_pools.items() if name in self._store.namespaces
        }
        pool_of_node = MembershipSnapshot.of(self._store.memberships).pool_of_node
        self._node_pools = {
            name: _pool_since(self._node_pools.get(name), pool_of_node.get(name), now) for name in self._store.nodes
        }
        inputs = MoveSelectionInput(
            now=now,
            nodes=self._store.nodes,
            pool_of_node=pool_of_node,
            requests_by_node=totals.requests_by_node,
            is_label_propagated=lambda name: self._is_label_propagated(name, now),
            mapped_since=self._mapped_since,
            wait_reason=self._wait_reason,
            suspend=self._suspend,
            move_history=self._move_history,
        )
        selection = move_selection.select(misplaced, inputs)
        self._blockers = selection.blockers
        self._migrations.set_requests(REQUESTER, selection.migration_requests)

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
        """Record the move if it was for a pool."""
        if cause.startswith(CAUSE_PREFIX) and pod.owner:
            target_pool = self._store.memberships.pool_of_namespace(pod.namespace)
            self._move_history.record_move(pod.owner.uid, target_pool, self._clock.now())

    def blockers(self, pool: str) -> list[PoolBlocker]:
        """Return the pods of this pool that cannot be moved, sorted by namespace and name."""
        blockers = list(self._blockers.get(pool, ()))
        blockers += [
            PoolBlocker(namespace=b.namespace, pod=b.pod, class_=b.class_, message=b.message)
            for migration in self._migrations.blocked_migrations()
            if migration.cause == CAUSE_PREFIX + pool
            for b in (migration.blocker,)
        ]
        return sorted(blockers, key=lambda b: (b.namespace, b.pod, b.class_))


def _pool_since(known: _PoolSince | None, pool: str | None, now: datetime) -> _PoolSince:
    return known if known and known[0] == pool else (pool, now)
