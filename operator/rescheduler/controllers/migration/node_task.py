"""Move single pods off one node that is not drained, as a drain would: within their budgets, replacement first.

The node has a taint with the effect PreferNoSchedule meanwhile. If a drain of the node starts, the drain takes over. A
pod that cannot move stays and is reported.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rescheduler.api.drains import Blocker, BlockerClass, NodeDrainStatus
from rescheduler.api.policies import DrainSettings, ReschedulePolicy, Suspend
from rescheduler.controllers.evacuation.eviction_queue import refuse_unproven
from rescheduler.controllers.evacuation.node_evacuation import RECHECK_INTERVAL, EvacuationDependencies, NodeEvacuation
from rescheduler.controllers.migration import messages
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.tasks import Supervisor
from rescheduler.controllers.store.conflicts import may_be_outdated, reread
from rescheduler.controllers.store.object_cache import ResourceKind
from rescheduler.controllers.store.store import Store
from rescheduler.core.drain import migration
from rescheduler.core.drain.pod_evaluation import MoveMode, PodEvaluation
from rescheduler.core.drain.pod_summary import PodSummary
from rescheduler.core.eligibility import cluster_state
from rescheduler.core.eviction.pod_actions import EvictionContext
from rescheduler.core.model.nodes import Node, parse_node
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.raw import RawObject
from rescheduler.core.model.wait_reasons import ProgressingReason
from rescheduler.kube import paths
from rescheduler.kube.client import TRANSIENT_ERRORS, Client

_WAKE_DEBOUNCE = 0.05  # seconds; without it, each event of a burst would cost a reconcile
_STALLED_AFTER = 60.0  # seconds without progress; a stalled node would keep other nodes from their migration

MigrationRequests = Mapping[str, str]
"""Pods of one node to move: the cause by pod uid, such as `NamespacePool/shop`."""
OnPodGone = Callable[[str, Pod | None, str], None]
"""Called when a requested pod is gone: its uid, the pod (None: the pod was never listed), and the cause of its move."""
OnNodeEvaluated = Callable[[], None]
"""Called after each evaluation of a node, which may change the blocked pods."""
SUBSCRIBER_PREFIX = "migration/"
"""Prefix of the subscribers of the informers. The slash makes the names differ from those of all drains."""


@dataclass(frozen=True, slots=True)
class BlockedMigration:
    """Pod that cannot move now, and the cause of its move."""

    cause: str
    blocker: Blocker


@dataclass(frozen=True, slots=True)
class MigrationDependencies:
    """Dependencies that all migrations share."""

    client: Client
    store: Store
    clock: Clock
    evacuation: EvacuationDependencies
    supervisor: Supervisor


class MigrationTask:
    """Migration of one node.

    Attributes:
        requests: cause of the move by uid of each pod to move; empty: return the released pods and end.
        blocked: pods that cannot move now.
        stalled: no pod has moved for a while, and no request is in flight.
    """

    def __init__(
        self, node_name: str, deps: MigrationDependencies, on_pod_gone: OnPodGone, on_evaluated: OnNodeEvaluated
    ) -> None:
        self.node_name, self.requests = node_name, dict[str, str]()
        self.blocked: tuple[BlockedMigration, ...] = ()
        self.stalled = False
        self._deps, self._on_pod_gone, self._on_evaluated = deps, on_pod_gone, on_evaluated
        self._wake = asyncio.Event()
        self._evacuation = NodeEvacuation(SUBSCRIBER_PREFIX + node_name, node_name, deps.evacuation, self.wake)
        self._tracked_pods: dict[str, tuple[Pod, str]] = {}  # by uid, until the pod is gone: requested pod and cause
        self._previous_summary: PodSummary | None = None
        self._last_progress_at = deps.clock.monotonic()

    def wake(self) -> None:
        """Reconcile now."""
        self._wake.set()

    @property
    def has_released_pods(self) -> bool:
        """Whether a released pod is on the node, by the last list."""
        return self._evacuation.has_released_pods

    async def run(self) -> None:
        """Reconcile until all pods have moved, or no pod can move."""
        try:
            await self._deps.supervisor.run_loop(
                "migration", self._step, subject=self.node_name, wake=self._wake, debounce=lambda: _WAKE_DEBOUNCE
            )
        finally:
            self._evacuation.close()

    async def _step(self) -> float | None:
        try:
            return await self._reconcile()
        except TRANSIENT_ERRORS as error:
            if may_be_outdated(error):
                await reread(self._deps.client, self._deps.store, ResourceKind.NODE, paths.node(self.node_name))
            raise

    async def _reconcile(self) -> float | None:
        """Reconcile once; return the seconds until the next time, or None if the migration has ended."""
        node, drain = self._deps.store.node(self.node_name), self._deps.store.drain(self.node_name)
        if node is None:
            return None
        if drain and drain.status.started_at:
            # The drain manages all pods of the node, also the released ones. Its cordon makes the taint needless.
            await self._patch_node(node, None if migration.drain_owns_taint(drain) else migration.untaint_patch(node))
            return None
        policy = self._deps.store.policy(node)
        wait = migration.why_no_migration(
            node, policy, cluster_state.stale_view_reason(self._deps.store.cluster_state(), self._deps.clock.now())
        )
        if wait and wait.reason is ProgressingReason.STALE_VIEW:
            return RECHECK_INTERVAL
        self._evacuation.watch()
        settings = migration.settings(policy.spec.drain if policy else DrainSettings())
        requests = self._effective_requests(begun_only=wait is not None)
        may_move = wait is None or (policy is not None and policy.spec.suspend is Suspend.NEW)
        mode = MoveMode.ALL if may_move else MoveMode.NONE
        evaluation = self._evaluate(settings, mode, requests)
        if evaluation is None:
            return RECHECK_INTERVAL
        self._update_progress(evaluation.summary, requests)
        if self._tracked_pods and wait is None and (patch := migration.taint_patch(node)):
            node = await self._patch_node(node, patch)
            # A decision from before an awaited write may be wrong now: it is made again.
            evaluation = self._evaluate(settings, mode, requests)
            if evaluation is None:
                return RECHECK_INTERVAL
        return await self._apply(node, evaluation, policy if may_move else None, settings)

    def _evaluate(self, settings: DrainSettings, mode: MoveMode, requests: Mapping[str, str]) -> PodEvaluation | None:
        """Return the decisions of this moment; None while a list is missing."""
        return self._evacuation.evaluate(
            NodeDrainStatus(blockers=tuple(blocked.blocker for blocked in self.blocked)[:50]),
            settings,
            EvictionContext(now=self._deps.clock.now()),  # no failure of the node: no decision requires proof
            mode,
            requests,
        )

    def _effective_requests(self, *, begun_only: bool) -> dict[str, str]:
        begun_uids = {pod.uid for pod in self._evacuation.node_pods() if pod.release_record}
        return {uid: cause for uid, cause in self.requests.items() if not begun_only or uid in begun_uids}

    def _update_progress(self, summary: PodSummary, requests: MigrationRequests) -> None:
        """Update the tracked pods, the blocked pods and the time of the last progress."""
        self._update_tracked_pods({pod.uid: pod for pod in self._evacuation.node_pods()})
        if (
            summary.in_flight
            or self._previous_summary is None
            or summary.leaving_uids != self._previous_summary.leaving_uids
        ):
            self._last_progress_at = self._deps.clock.monotonic()
        self._previous_summary = summary
        causes = {pod.key: cause for pod, cause in self._tracked_pods.values()}
        blockers = [(causes.get(f"{blocker.namespace}/{blocker.pod}"), blocker) for blocker in summary.blockers]
        self.blocked = (
            *(BlockedMigration(cause, blocker) for cause, blocker in blockers if cause),
            *self._skipped_by_policy(summary, requests),
        )
        self._on_evaluated()

    def _update_tracked_pods(self, pods_by_uid: Mapping[str, Pod]) -> None:
        """Track the requested pods until they are gone; a requester drops a Terminating pod before its move ends."""
        for uid in [uid for uid in self.requests if uid not in pods_by_uid]:
            tracked = self._tracked_pods.pop(uid, None)
            self._on_pod_gone(uid, *(tracked or (None, self.requests[uid])))
            del self.requests[uid]
        for uid, (pod, cause) in list(self._tracked_pods.items()):
            if uid not in pods_by_uid:
                self._on_pod_gone(uid, pod, cause)
            if uid not in pods_by_uid or (uid not in self.requests and not pods_by_uid[uid].deletion_timestamp):
                del self._tracked_pods[uid]
        for uid, pod in pods_by_uid.items():
            if cause := self.requests.get(uid) or (self._tracked_pods[uid][1] if uid in self._tracked_pods else ""):
                self._tracked_pods[uid] = (pod, cause)

    def _skipped_by_policy(self, summary: PodSummary, requests: MigrationRequests) -> list[BlockedMigration]:
        """Return the requested pods that the policy of the node does not move."""
        now = self._deps.clock.now()
        return [
            BlockedMigration(
                cause,
                Blocker(
                    namespace=pod.namespace,
                    pod=pod.name,
                    class_=BlockerClass.DO_NOT_DISRUPT,
                    message=messages.SKIPPED_BY_POLICY,
                    since=now,
                ),
            )
            for uid, (pod, cause) in self._tracked_pods.items()
            if uid in requests and uid not in summary.leaving_uids
        ]

    async def _apply(
        self, source_node: Node, evaluation: PodEvaluation, policy: ReschedulePolicy | None, settings: DrainSettings
    ) -> float | None:
        pause: float | None = None
        if policy is not None:
            pause = self._evacuation.move(evaluation, MoveMode.ALL, policy, settings, refuse_unproven)
        else:
            self._evacuation.return_pods(evaluation)
        if not evaluation.summary.leaving_uids and self._evacuation.pods_to_return():
            self._evacuation.evict_unreturnable(evaluation, policy.name if policy else "")
        # The orphaned-pods controller manages pods that cannot be returned. Otherwise the node would keep its taint.
        if self._is_finished(evaluation.summary) and evaluation.are_releases_held(self._evacuation.node_pods()):
            drain = self._deps.store.drain(self.node_name)
            await self._patch_node(
                source_node, None if migration.drain_owns_taint(drain) else migration.untaint_patch(source_node)
            )
            return None
        return self._evacuation.seconds_until_recheck(self._deps.clock.now(), pause)

    def _is_finished(self, summary: PodSummary) -> bool:
        if not self._tracked_pods:
            return True
        is_idle = self._deps.clock.monotonic() - self._last_progress_at >= _STALLED_AFTER
        self.stalled = is_idle and summary.in_flight == 0
        return self.stalled

    async def _patch_node(self, source_node: Node, patch: RawObject | None) -> Node:
        if patch is None:
            return source_node
        raw = await self._deps.client.patch(paths.node(source_node.name), patch)
        self._deps.store.put(ResourceKind.NODE, raw)
        return parse_node(raw)
