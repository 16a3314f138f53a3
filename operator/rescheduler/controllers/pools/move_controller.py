"""Has pods that are out of place moved, as far as they may be, and knows why the others stay."""

from datetime import datetime

from rescheduler.api.policies import Suspend
from rescheduler.api.pools import PoolBlocker
from rescheduler.controllers.migration.manager import Shifts
from rescheduler.controllers.pools.admission_check import Enforcements
from rescheduler.controllers.pools.pod_counter import PoolCounts
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.store import Store
from rescheduler.core.drain import migration
from rescheduler.core.eligibility import cluster_state
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.wait_reasons import Held
from rescheduler.core.pools import move_selection
from rescheduler.core.pools.misplaced_pods import View
from rescheduler.core.pools.move_selection import CAUSE, SETTLE, Journeys, Site

SOURCE = "pools"
_Seen = tuple[str | None, datetime]
"""A pool, and since when it is seen."""


class PoolMoves:
    """Between what is counted and what is moved."""

    def __init__(
        self, store: Store, clock: Clock, enforcements: Enforcements, counts: PoolCounts, shifts: Shifts
    ) -> None:
        self._store, self._clock = store, clock
        self._enforcements, self._counts, self._shifts = enforcements, counts, shifts
        self._journeys = Journeys()
        self._blockers: dict[str, list[PoolBlocker]] = {}
        # By namespace its label, by node the pool that has it; and since when it is seen so. Not forgotten while none
        # is out of place: one that comes up wrong a moment later came back.
        self._labelled: dict[str, _Seen] = {}
        self._ground: dict[str, _Seen] = {}

    def look(self) -> None:
        """The counts are new: who is to be moved now?"""
        now, sums = self._clock.now(), self._counts.sums
        if sums is None or not self._enforcements.now.settled(now):
            self._blockers = {}
            self._shifts.want(SOURCE, {})
            return
        misplaced = self._counts.finds.named
        spaces = {pod.namespace for pod in misplaced}
        for name in spaces:
            space = self._store.namespaces.get(name)
            self._labelled[name] = _since(self._labelled.get(name), space.pool if space else None, now)
        self._labelled = {name: seen for name, seen in self._labelled.items() if name in self._store.namespaces}
        ground = View.of(self._store.memberships).ground
        self._ground = {name: _since(self._ground.get(name), ground.get(name), now) for name in self._store.nodes}
        site = Site(
            now=now,
            nodes=self._store.nodes,
            ground=ground,
            used=sums.used,
            settled=lambda name: self._settled(name, now),
            mapped=self._mapped,
            held=self._held,
            suspend=self._suspend,
            journeys=self._journeys,
        )
        plan = move_selection.plan(misplaced, site)
        self._blockers = plan.blockers
        self._shifts.want(SOURCE, plan.errands)

    def _settled(self, name: str, now: datetime) -> bool:
        if name not in self._labelled:
            return False
        label, since = self._labelled[name]
        return label == self._store.memberships.of_namespace(name) and now - since >= SETTLE

    def _mapped(self, space: str, node: str) -> datetime:
        return max(self._labelled[space][1], self._ground[node][1])

    def _held(self, node: Node) -> Held | None:
        return migration.held(
            node, self._store.policy(node), cluster_state.blind(self._store.world(), self._clock.now())
        )

    def _suspend(self, node: Node) -> Suspend:
        policy = self._store.policy(node)
        return policy.spec.suspend if policy else Suspend.NONE

    def left(self, pod: Pod, cause: str) -> None:
        """A pod has left for its pool, or away from one."""
        if cause.startswith(CAUSE) and pod.owner:
            home = self._store.memberships.of_namespace(pod.namespace)
            self._journeys.left(pod.owner.uid, home, self._clock.now())

    def blockers(self, pool: str) -> list[PoolBlocker]:
        """Pods of this pool that cannot be moved, by namespace and name."""
        found = list(self._blockers.get(pool, ()))
        found += [
            PoolBlocker(namespace=b.namespace, pod=b.pod, class_=b.class_, message=b.message)
            for held in self._shifts.held()
            if held.cause == CAUSE + pool
            for b in (held.blocker,)
        ]
        return sorted(found, key=lambda b: (b.namespace, b.pod, b.class_))


def _since(known: _Seen | None, pool: str | None, now: datetime) -> _Seen:
    return known if known and known[0] == pool else (pool, now)
