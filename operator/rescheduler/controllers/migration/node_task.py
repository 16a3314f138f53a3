"""Moves single pods off one node that is not drained, as a drain would: within their budgets, replacement first.

The node is tainted PreferNoSchedule for that time. A drain that begins on it takes over; a pod that cannot be moved
stays, and is named.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rescheduler.api.drains import Blocker, BlockerClass, NodeDrainStatus
from rescheduler.api.policies import DrainSettings, ReschedulePolicy, Suspend
from rescheduler.controllers.evacuation.pod_mover import REFUSAL_REPORTED_AFTER, EvacuationDependencies, PodMover
from rescheduler.controllers.evacuation.related_objects import RelatedObjects
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.conflicts import is_outdated, reread
from rescheduler.controllers.runtime.store import ResourceKind, Store
from rescheduler.controllers.runtime.tasks import Supervisor
from rescheduler.core.drain import migration
from rescheduler.core.drain.node_patches import Patch
from rescheduler.core.drain.pod_summary import PodSummary
from rescheduler.core.eligibility import cluster_state
from rescheduler.core.eviction.pod_actions import EvictionContext, PodDecision
from rescheduler.core.model.nodes import Node, parse_node
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.wait_reasons import ProgressingReason
from rescheduler.kube import paths
from rescheduler.kube.client import TRANSIENT_ERRORS, Client

_RECHECK_INTERVAL = 10.0  # seconds, where nothing happens
_WAKE_DEBOUNCE = 0.05  # seconds; a burst of pod events is one look
_STALLED_AFTER = 60.0  # seconds without a move, all blocked: others have their turn

MigrationRequests = Mapping[str, str]
"""Pods of one node that are to be moved: by uid, what for (`NamespacePool/shop`)."""
OnPodGone = Callable[[str, Pod | None, str], None]
"""Told that a pod is not there any more: its uid, itself (None: it never was), and what it was to be moved for."""
OnNodeEvaluated = Callable[[], None]
"""Told that a node was looked at: who is held may be otherwise."""
SUBSCRIBER_PREFIX = "shift/"
"""As a holder of mirrors; no drain has a name like this."""


@dataclass(frozen=True, slots=True)
class BlockedMigration:
    """A pod that could not be moved so far, and what for it was to be."""

    cause: str
    blocker: Blocker


@dataclass(frozen=True, slots=True)
class MigrationDependencies:
    """What every shift shares."""

    client: Client
    store: Store
    clock: Clock
    evacuation: EvacuationDependencies
    related_objects: RelatedObjects
    supervisor: Supervisor


async def _confirm_always(_pod: Pod, _verdict: PodDecision) -> str:
    """Nothing is deleted past its budget here, so nothing rests on a premise."""
    return ""


class MigrationTask:
    """One node's task.

    Attributes:
        errand: what is to be moved; nothing: whatever was begun is brought to an end.
        held: pods that cannot be moved now.
    """

    def __init__(
        self, node_name: str, deps: MigrationDependencies, on_pod_gone: OnPodGone, on_evaluated: OnNodeEvaluated
    ) -> None:
        self.node_name, self.requests = node_name, dict[str, str]()
        self.blocked: tuple[BlockedMigration, ...] = ()
        self.stalled = False
        self._deps, self._on_pod_gone, self._on_evaluated = deps, on_pod_gone, on_evaluated
        self._wake = asyncio.Event()
        self._pods = PodMover(SUBSCRIBER_PREFIX + node_name, deps.evacuation, self.wake, _confirm_always)
        self._tracked_pods: dict[
            str, tuple[Pod, str]
        ] = {}  # by uid, until they are gone: what was wanted, and what for
        self._previous_summary: PodSummary | None = None
        self._last_progress_at = deps.clock.monotonic()

    def wake(self) -> None:
        """Look now."""
        self._wake.set()

    @property
    def has_released_pods(self) -> bool:
        """Whether a released pod is on its node, as far as was seen."""
        return self._pods.has_released_pods

    async def run(self) -> None:
        """Until nothing is left to be done here, or nothing can be."""
        try:
            await self._deps.supervisor.run_loop(
                "shift", self._step, subject=self.node_name, wake=self._wake, debounce=lambda: _WAKE_DEBOUNCE
            )
        finally:
            self._deps.related_objects.unsubscribe(SUBSCRIBER_PREFIX + self.node_name)
            self._pods.close()

    async def _step(self) -> float | None:
        try:
            return await self._reconcile()
        except TRANSIENT_ERRORS as error:
            if is_outdated(error):
                await reread(self._deps.client, self._deps.store, ResourceKind.NODE, paths.node(self.node_name))
            raise

    async def _reconcile(self) -> float | None:
        """One step; seconds until the next where nothing happens, None: this was the last."""
        here, drain = self._deps.store.node(self.node_name), self._deps.store.drain(self.node_name)
        if here is None:
            return None
        if drain and drain.status.started_at:
            # Its pods are the drain's now, the released ones too; the cordon is stronger than the taint.
            await self._patch_node(here, None if migration.drain_owns_taint(drain) else migration.untaint_patch(here))
            return None
        policy = self._deps.store.policy(here)
        held = migration.why_no_migration(
            here, policy, cluster_state.stale_view_reason(self._deps.store.cluster_state(), self._deps.clock.now())
        )
        if held and held.reason is ProgressingReason.STALE_VIEW:
            return _RECHECK_INTERVAL
        self._pods.watch(self.node_name)
        settings = migration.settings(policy.spec.drain if policy else DrainSettings())
        goes_on = held is None or (policy is not None and policy.spec.suspend is Suspend.NEW)
        self._pods.migration_requests = self._effective_requests(only_begun=held is not None)
        tally = self._evaluate(here, settings, may_move=goes_on)
        if tally is None:
            return _RECHECK_INTERVAL
        self._update_progress(tally)
        if self._tracked_pods and held is None:
            here = await self._patch_node(here, migration.taint_patch(here))
        return await self._apply(here, tally, policy if goes_on else None, settings)

    def _effective_requests(self, *, only_begun: bool) -> dict[str, str]:
        begun = {pod.uid for pod in self._pods.node_pods() if pod.release_record}
        return {uid: cause for uid, cause in self.requests.items() if not only_begun or uid in begun}

    def _evaluate(self, source_node: Node, settings: DrainSettings, *, may_move: bool) -> PodSummary | None:
        seen = EvictionContext(now=self._deps.clock.now())
        rows = self._pods.node_pods()
        known = self._deps.related_objects.complete_context(
            SUBSCRIBER_PREFIX + self.node_name, source_node.name, seen, settings, rows, needs_attachments=False
        )
        if known is None:
            return None
        status = NodeDrainStatus(blockers=tuple(each.blocker for each in self.blocked)[:50])
        return self._pods.evaluate(status, settings, known, may_move=may_move)

    def _update_progress(self, summary: PodSummary) -> None:
        """Who has left since, and who is held."""
        self._update_tracked_pods({pod.uid: pod for pod in self._pods.node_pods()})
        if (
            summary.in_flight
            or self._previous_summary is None
            or summary.leaving_uids != self._previous_summary.leaving_uids
        ):
            self._last_progress_at = self._deps.clock.monotonic()
        self._previous_summary = summary
        causes = {pod.key: cause for pod, cause in self._tracked_pods.values()}
        found = [(causes.get(f"{b.namespace}/{b.pod}"), b) for b in summary.blockers]
        self.blocked = (
            *(BlockedMigration(cause, blocker) for cause, blocker in found if cause),
            *self._skipped_by_policy(summary),
        )
        self._on_evaluated()

    def _update_tracked_pods(self, pods_by_uid: Mapping[str, Pod]) -> None:
        """One that is Terminating is wanted no more by whoever looks for pods to move; its move is not over yet."""
        for uid in [uid for uid in self.requests if uid not in pods_by_uid]:
            known = self._tracked_pods.pop(uid, None)
            self._on_pod_gone(uid, *(known or (None, self.requests[uid])))
            del self.requests[uid]
        for uid, (pod, cause) in list(self._tracked_pods.items()):
            if uid not in pods_by_uid:
                self._on_pod_gone(uid, pod, cause)
            if uid not in pods_by_uid or (uid not in self.requests and not pods_by_uid[uid].deletion_timestamp):
                del self._tracked_pods[uid]
        for uid, pod in pods_by_uid.items():
            if cause := self.requests.get(uid) or (self._tracked_pods[uid][1] if uid in self._tracked_pods else ""):
                self._tracked_pods[uid] = (pod, cause)

    def _skipped_by_policy(self, summary: PodSummary) -> list[BlockedMigration]:
        """Pods that its policy leaves where they are."""
        asked, now = self._pods.migration_requests or {}, self._deps.clock.now()
        return [
            BlockedMigration(
                cause,
                Blocker(
                    namespace=pod.namespace,
                    pod=pod.name,
                    class_=BlockerClass.DO_NOT_DISRUPT,
                    message="a rule of its node's policy says Skip, or it tolerates cordoned nodes",
                    since=now,
                ),
            )
            for uid, (pod, cause) in self._tracked_pods.items()
            if uid in asked and uid not in summary.leaving_uids
        ]

    async def _apply(
        self, source_node: Node, summary: PodSummary, policy: ReschedulePolicy | None, settings: DrainSettings
    ) -> float | None:
        pause: float | None = None
        if policy is not None:
            pause = self._pods.move(summary, policy, settings)
        else:
            self._pods.return_pods()
        if not summary.leaving_uids and self._pods.has_release_records:
            self._pods.evict_unreturnable(policy.name if policy else "")
        # Pods that cannot be returned are looked after elsewhere: no node waits for them.
        if self._is_finished(summary) and self._pods.are_releases_held:
            drain = self._deps.store.drain(self.node_name)
            await self._patch_node(
                source_node, None if migration.drain_owns_taint(drain) else migration.untaint_patch(source_node)
            )
            return None
        patience = REFUSAL_REPORTED_AFTER.total_seconds() if self._pods.has_refusals else _RECHECK_INTERVAL
        return min(patience, pause if pause is not None else _RECHECK_INTERVAL)

    def _is_finished(self, summary: PodSummary) -> bool:
        if not self._tracked_pods:
            return True
        idle = self._deps.clock.monotonic() - self._last_progress_at >= _STALLED_AFTER
        self.stalled = idle and summary.in_flight == 0
        return self.stalled

    async def _patch_node(self, source_node: Node, patch: Patch | None) -> Node:
        if patch is None:
            return source_node
        raw = await self._deps.client.patch(paths.node(source_node.name), patch)
        self._deps.store.put(ResourceKind.NODE, raw)
        return parse_node(raw)
