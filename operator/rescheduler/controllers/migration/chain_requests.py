"""Request the chain moves of drains as migrations of single pods.

The requests come from the status of each NodeDrain, so they are the same after a restart. A drain that must not move
pods has no request: its released pods are returned.
"""

from rescheduler.api.drains import ChainMoveStatus, NodeDrain
from rescheduler.controllers.evacuation.chain_outcomes import ChainOutcomes
from rescheduler.controllers.migration.manager import MigrationManager
from rescheduler.controllers.migration.node_task import MigrationRequests
from rescheduler.controllers.store.store import Store
from rescheduler.core.drain import chain_progress, messages
from rescheduler.core.drain.migration import TEMPORARY_BLOCKERS
from rescheduler.core.model.wait_reasons import ProgressingReason
from rescheduler.core.rebalance import node_groups

REQUESTER = "chain moves"
CAUSE_PREFIX = "ChainMove/"


class ChainMoveRequests:
    """Chain moves of all drains."""

    def __init__(self, store: Store, migrations: MigrationManager, outcomes: ChainOutcomes) -> None:
        self._store, self._migrations, self._outcomes = store, migrations, outcomes
        self._requests: dict[str, dict[str, str]] | None = None  # None before the first request
        self._moving: dict[str, tuple[ChainMoveStatus, str]] = {}  # by uid of the pod: the move and its drain
        migrations.subscribe(on_pod_gone=self._on_pod_gone, on_node_evaluated=self._end_blocked_moves)

    def reset(self) -> None:
        """Request everything again, because this process has begun to lead."""
        self._requests = None

    def reconcile(self) -> None:
        """Request the moves that the drains have begun."""
        self._moving = {
            move.uid: (move, drain.name)
            for drain in self._store.drains.values()
            if (move := chain_progress.moving(drain.status.chain_moves))
        }
        self._outcomes.keep(self._moving.keys())
        requests: dict[str, dict[str, str]] = {}
        for uid, (move, drain_name) in self._moving.items():
            drain = self._store.drain(drain_name)
            if drain and uid not in self._outcomes.causes and self._may_continue(drain, move):
                requests.setdefault(move.node, {})[uid] = CAUSE_PREFIX + drain_name
        if requests != self._requests:
            self._requests = requests
            published: dict[str, MigrationRequests] = dict(requests)
            self._migrations.set_requests(REQUESTER, published)

    def _may_continue(self, drain: NodeDrain, move: ChainMoveStatus) -> bool:
        """Whether the drain may move pods now; a move ends if its node must no longer give pods."""
        node = self._store.node(drain.spec.node_name)
        # A drain that lost its slot finishes its moves.
        waits = drain.status.waiting not in (None, ProgressingReason.MAX_CONCURRENT)
        if node is None or drain.deletion_timestamp or drain.status.started_at is None or waits:
            return False
        if move.node not in node_groups.nodes_for_chain_moves(node, self._store.cluster_state()):
            self._outcomes.record(move.uid, drain.name, messages.chain_move_withdrawn(move.node))
            return False
        return True

    def _on_pod_gone(self, uid: str) -> None:
        if uid in self._moving:
            self._outcomes.record(uid, self._moving[uid][1])

    def _end_blocked_moves(self) -> None:
        """End the moves of pods with a lasting blocker; no user requested them."""
        blockers = {
            (blocked.blocker.namespace, blocked.blocker.pod): blocked.blocker
            for blocked in self._migrations.blocked_migrations()
            if blocked.cause.startswith(CAUSE_PREFIX)
        }
        for uid, (move, drain) in self._moving.items():
            blocker = blockers.get((move.namespace, move.pod))
            if blocker and blocker.class_ not in TEMPORARY_BLOCKERS and uid not in self._outcomes.causes:
                self._outcomes.record(uid, drain, f"{blocker.class_}: {blocker.message}")
                self.reconcile()
                return
