"""Move the pods of one node: evaluate which pods leave now, and release, evict, delete or return them."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from rescheduler.api.drains import BlockerClass, NodeDrainStatus
from rescheduler.api.policies import DrainSettings, ReschedulePolicy
from rescheduler.controllers.evacuation import messages
from rescheduler.controllers.evacuation.budget_watch import BudgetWatch
from rescheduler.controllers.evacuation.eviction_queue import EvictionQueue, EvictionSession
from rescheduler.controllers.evacuation.planner import EvacuationPlanner
from rescheduler.controllers.evacuation.replacer import Replacer
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.core.drain import capacity, pod_summary
from rescheduler.core.drain.eta import EvictionRates
from rescheduler.core.drain.pod_summary import PodSummary
from rescheduler.core.drain.state_machine import BLOCKED_AFTER
from rescheduler.core.eviction import pod_actions
from rescheduler.core.eviction.api_responses import EvictionOutcome, EvictionResult
from rescheduler.core.eviction.pod_actions import EvictionContext, PodAction, PodDecision, RequiredProof
from rescheduler.core.model import pods
from rescheduler.core.model.disruption_budgets import DisruptionBudget
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.volumes import DETACH_STUCK_AFTER, NodeVolumes
from rescheduler.core.pools import move_selection
from rescheduler.core.replacement.decisions import ReplacementDecision, ReplacementStep
from rescheduler.core.replacement.move_history import MoveHistory
from rescheduler.kube import paths
from rescheduler.kube.client import Client
from rescheduler.kube.informers import Informer

REFUSAL_REPORTED_AFTER = timedelta(seconds=5)
"""A refusal of a budget is no blocker before: the budget may only wait for the replacement of the last pod."""
_UNREADY_CONFIRMED_AFTER = timedelta(seconds=15)
"""The node controller marks all pods of an unhealthy node as not Ready; a running kubelet resets them within 10 s."""
_SENDING_STEPS = (ReplacementStep.PLAIN_EVICTION, ReplacementStep.EVICT, ReplacementStep.DELETE)
_MAX_REMOVED_REMEMBERED = 50  # removed pods for the Event; more would not fit into its message


@dataclass(frozen=True, slots=True)
class EvacuationDependencies:
    """Dependencies that all drains, or all migrations, share."""

    client: Client
    clock: Clock
    budgets: BudgetWatch
    eviction_queue: EvictionQueue
    replacer: Replacer
    metrics: Metrics
    move_history: MoveHistory
    planner: EvacuationPlanner


class PodMover:
    """Pods of one node that leave: all pods for a drain, or the requested pods for a migration.

    Attributes:
        migration_requests: cause of the move by pod uid, such as `NamespacePool/shop`; None for a drain.
        moved_count: number of pods that have left; None before the first evaluation.
        last_move_at: last time at which a pod left or a request was in flight; None if there was none.
        unsynced_reason: which list was missing at the last evaluation; empty if none was.
    """

    def __init__(
        self,
        subscriber: str,
        deps: EvacuationDependencies,
        wake: Callable[[], None],
        confirm: Callable[[Pod, PodDecision], Awaitable[str]] | None = None,
    ) -> None:
        self._subscriber, self._deps, self._wake = subscriber, deps, wake
        self._session = EvictionSession(wake, confirm)
        self._informer: Informer[Pod] | None = None
        self._watch_task: asyncio.Task[None] | None = None
        self._leaving: dict[str, Pod] = {}
        self._decisions: Mapping[str, ReplacementDecision] = {}
        self._refused_since: dict[str, datetime] = {}
        self._unready_since: dict[str, datetime] = {}  # by pod uid: first evaluation at which it was not Ready
        self._removed_by_others: list[Pod] = []  # released pods that another client removed
        self._unused_since: dict[str, datetime] = {}  # by attached volume: first evaluation at which no pod used it
        self._volumes = NodeVolumes()
        self._eviction_rates = EvictionRates()
        self.migration_requests: Mapping[str, str] | None = None
        self.moved_count: int | None = None
        self.last_move_at: datetime | None = None
        self.unsynced_reason = ""

    @property
    def is_synced(self) -> bool:
        """Whether the pods of the node are listed."""
        return self._informer is not None and self._informer.synced

    @property
    def has_refusals(self) -> bool:
        """Whether a budget refuses an eviction; only time makes the refusal a blocker."""
        return bool(self._refused_since)

    def seconds_until_reported(self, now: datetime) -> float:
        """Return the seconds until the next refusal becomes a blocker."""
        waits = [
            REFUSAL_REPORTED_AFTER - (now - since)
            for since in self._refused_since.values()
            if now - since < REFUSAL_REPORTED_AFTER
        ]
        return min(waits, default=REFUSAL_REPORTED_AFTER).total_seconds()

    @property
    def has_release_records(self) -> bool:
        """Whether a running pod of the node has a move record."""
        return any(pod.release_record and not pod.deletion_timestamp and not pod.finished for pod in self.node_pods())

    @property
    def are_releases_held(self) -> bool:
        """Whether no pod with a move record can be returned now."""
        return all(
            (decision := self._decisions.get(pod.uid)) and decision.step is ReplacementStep.HOLD
            for pod in self._pods_with_record()
        )

    @property
    def has_released_pods(self) -> bool:
        """Whether a pod of the node is released, so that another task must manage it after this one."""
        return any(pod.released and not pod.deletion_timestamp for pod in self.node_pods())

    def pods_to_return(self) -> tuple[str, ...]:
        """Return the running pods with a move record, as sorted namespace/name."""
        return tuple(sorted(pod.key for pod in self._pods_with_record()))

    def _pods_with_record(self) -> list[Pod]:
        return [
            pod for pod in self.node_pods() if pod.release_record and not pod.deletion_timestamp and not pod.finished
        ]

    def uids_by_pod(self) -> Mapping[str, str]:
        """Return the uids of the pods by namespace/name."""
        return {pod.key: pod.uid for pod in self.node_pods()}

    def owners_by_pod(self) -> Mapping[str, pods.Owner]:
        """Return the controllers of the pods by namespace/name of the pod."""
        return {pod.key: pod.owner for pod in self.node_pods() if pod.owner}

    def node_pods(self) -> Collection[Pod]:
        """Return the listed pods of the node; empty before the first list."""
        return self._informer.items.values() if self._informer else ()

    def is_node_in_use(self, volumes: NodeVolumes) -> bool:
        """Whether a pod is Terminating or an unused volume is attached; True if the pods are not listed."""
        return (
            not self.is_synced
            or any(pod.deletion_timestamp for pod in self.node_pods())
            or bool(volumes.awaiting_detach(self.node_pods()))
        )

    def node_in_use_by(self, volumes: NodeVolumes) -> tuple[str, ...]:
        """Return what still uses the node: Terminating pods and attached volumes."""
        terminating = sorted(messages.pod_terminating(pod) for pod in self.node_pods() if pod.deletion_timestamp)
        attached = sorted(messages.volume_attached(name) for name in volumes.awaiting_detach(self.node_pods()))
        return (*terminating, *attached)

    def watch(self, node_name: str) -> None:
        """Watch the pods of the node, if they are not watched yet."""
        if self._informer is None:
            params = {"fieldSelector": f"spec.nodeName={node_name}"}
            self._informer = Informer(self._deps.client, paths.PODS, pods.parse_pod, self._wake, params=params)
            self._watch_task = asyncio.create_task(self._informer.run(), name=f"pods of {node_name}")

    def close(self) -> None:
        """Cancel all requests and watches."""
        self._deps.budgets.subscribe(self._subscriber, ())
        self._deps.replacer.close(self._subscriber)
        self._deps.planner.close(self._subscriber)
        self._deps.eviction_queue.close(self._session)
        self._deps.budgets.forget({pod.uid for pod in self.node_pods()})
        if self._watch_task:
            self._watch_task.cancel()

    # -- evaluation ---------------------------------------------------------------------------------------------------

    def evaluate(
        self,
        status: NodeDrainStatus,
        settings: DrainSettings,
        context: EvictionContext,
        *,
        may_move: bool,
        release_only: bool = False,
    ) -> PodSummary | None:
        """Decide for every pod; return None while a list is missing.

        `may_move`: the drain may move pods. `release_only`: the node is only suspected.
        """
        if self._informer is None or not self._informer.synced:
            self.unsynced_reason = messages.pods_not_listed((self._informer and self._informer.error) or "")
            return None
        self._decisions = {}
        pod_decisions = [
            (pod, self._decide_action(pod, settings, context))
            for pod in self._informer.items.values()
            if self._move_cause(pod)
        ]
        pod_decisions.sort(key=lambda row: (row[1].order, row[0].priority, row[0].key))
        namespaces = {
            pod.namespace for pod, decision in pod_decisions if decision.action is PodAction.EVICT or pod.release_record
        }
        self._deps.budgets.subscribe(self._subscriber, namespaces)
        if not self._deps.budgets.is_synced(namespaces):
            self.unsynced_reason = self._deps.budgets.why_not_synced(sorted(namespaces))
            return None
        reported_blockers = {f"{blocker.namespace}/{blocker.pod}": blocker for blocker in status.blockers}
        forecasts = self._forecasts(pod_decisions, context, wait_for_plan=may_move and not release_only)
        if forecasts is None:
            self.unsynced_reason = messages.PLAN_NOT_READY
            return None
        decisions = self._deps.replacer.evaluate(
            self._subscriber,
            pod_decisions,
            settings,
            context.now,
            may_move=may_move,
            blockers=reported_blockers,
            release_only=release_only,
            forecasts=forecasts,
        )
        if decisions is None:
            self.unsynced_reason = self._deps.replacer.why_not_synced(self._subscriber)
            return None
        self.unsynced_reason = ""
        if may_move:
            decisions |= capacity.hold_without_room(
                pod_decisions, decisions, forecasts, settings, may_stay=self.migration_requests is not None
            )
        self._decisions = decisions
        pod_decisions = [(pod, _apply_step(decision, decisions.get(pod.uid))) for pod, decision in pod_decisions]
        pod_decisions = self._bypass_budgets(pod_decisions, decisions, context)
        reported_uids = {pod.uid for pod, _ in pod_decisions if pod.key in reported_blockers}
        refusals = self._lasting_refusals(self._refusals(pod_decisions, decisions), reported_uids, context.now)
        blocked_since = {
            (blocker.namespace, blocker.pod, str(blocker.class_)): blocker.since for blocker in status.blockers
        }
        waiting_uids = {
            uid
            for uid, decision in decisions.items()
            if decision.step not in _SENDING_STEPS and decision.step is not ReplacementStep.HOLD
        }
        detaching, stuck = self._unused_volumes(context)
        self._record_removals(settings, context.now)
        summary = pod_summary.summarize(
            pod_decisions,
            self._session.attempts,
            refusals,
            blocked_since,
            context.now,
            unreachable=context.node_unreachable,
            waiting_uids=frozenset(waiting_uids),
            replacement_timeout=settings.replacement_timeout,
        )
        leaving = [(pod, decision) for pod, decision in pod_decisions if pod.uid in summary.leaving_uids]
        eviction_groups = self._eviction_rates.group_pods(
            leaving,
            self._single_budgets(pod for pod, _ in leaving),
            context.active_for,
            grace_period_seconds=settings.grace_period_seconds,
        )
        summary = replace(
            summary,
            detaching_volumes=detaching,
            stuck_volumes=stuck,
            eviction_groups=eviction_groups,
            removed_released_pods=tuple(self._removed_by_others),
        )
        if self.migration_requests is None and (unreadable := self._informer.unreadable):
            summary = pod_summary.with_unreadable(summary, unreadable, blocked_since, context.now)
        self._volumes = context.volumes
        self._count_moved(status, summary, context.now)
        return summary

    def _record_removals(self, settings: DrainSettings, now: datetime) -> None:
        """Record the released pods that are gone without an eviction by the operator."""
        present_uids = {pod.uid for pod in self.node_pods()} | (
            self._informer.unreadable_uids if self._informer else frozenset()
        )
        gone = [self._deps.replacer.as_released(pod) for pod in self._leaving.values() if pod.uid not in present_uids]
        self._deps.replacer.record_removals(gone, settings, now)
        recorded_uids = {pod.uid for pod in self._removed_by_others}
        removed = [
            pod
            for pod in self._leaving.values()
            if self._deps.replacer.was_removed_by_others(pod.uid) and pod.uid not in recorded_uids
        ]
        self._removed_by_others = [*self._removed_by_others, *removed][-_MAX_REMOVED_REMEMBERED:]

    def _forecasts(
        self, pod_decisions: list[tuple[Pod, PodDecision]], context: EvictionContext, *, wait_for_plan: bool
    ) -> capacity.Forecasts | None:
        """Return the forecasts of the plan, by uid; None while the plan is awaited.

        Pods that serve no traffic leave even without room: all pods of an unreachable node, and the pods of a failed
        node that are not Ready. They get no forecast.
        """
        if context.node_unreachable:
            return {}
        pods_to_place = [
            pod
            for pod, decision in pod_decisions
            if self._needs_plan(pod) and pod_actions.needs_placement(pod, decision)
        ]
        forecasts = self._deps.planner.forecast(
            self._subscriber, pods_to_place, context.volumes, wait_for_plan=wait_for_plan and not context.node_failing
        )
        if forecasts is None or not context.node_failing:
            return forecasts
        return {pod.uid: forecasts[pod.uid] for pod in pods_to_place if pod.ready and pod.uid in forecasts}

    def _needs_plan(self, pod: Pod) -> bool:
        """Whether the pod needs a plan; rebalancing has checked the room of its pods already."""
        return self.migration_requests is None or self._move_cause(pod).startswith(move_selection.CAUSE_PREFIX)

    def _decide_action(self, pod: Pod, settings: DrainSettings, context: EvictionContext) -> PodDecision:
        if (
            self.migration_requests is not None
            and pod.uid not in self.migration_requests
            and not pod.deletion_timestamp
        ):
            return PodDecision(PodAction.SKIP)  # the request of a released pod has ended, so the pod is returned
        return pod_actions.decide_action(pod, settings, context)

    def _move_cause(self, pod: Pod) -> str:
        """Return the cause of the move; empty if the pod does not move. A released pod keeps its cause until the end."""
        if self.migration_requests is None:
            return f"NodeDrain/{self._subscriber}"
        return self.migration_requests.get(pod.uid) or (pod.release_record.cause if pod.release_record else "")

    def _unused_volumes(self, context: EvictionContext) -> tuple[frozenset[str], frozenset[str]]:
        """Return the attached volumes without a pod: those to wait for, and those that are stuck."""
        # Without proof, no volume of an unreachable node is detached. A wait would have no end.
        cannot_detach = context.node_unreachable and not context.boot_dead
        unused = frozenset() if cannot_detach else context.volumes.awaiting_detach(self.node_pods())
        self._unused_since = {name: self._unused_since.get(name, context.now) for name in unused}
        stuck = frozenset(
            name for name, since in self._unused_since.items() if context.now - since >= DETACH_STUCK_AFTER
        )
        return unused - stuck, stuck

    def _bypass_budgets(
        self,
        pod_decisions: list[tuple[Pod, PodDecision]],
        decisions: Mapping[str, ReplacementDecision],
        context: EvictionContext,
    ) -> list[tuple[Pod, PodDecision]]:
        """Return the decisions, with a plain delete for lost pods of a failed but reachable node."""
        self._unready_since = {
            pod.uid: self._unready_since.get(pod.uid, context.now) for pod, _ in pod_decisions if not pod.ready
        }
        if not context.node_failing or context.node_unreachable:
            return pod_decisions
        to_send = [
            row for row in pod_decisions if row[0].uid not in decisions or decisions[row[0].uid].step in _SENDING_STEPS
        ]
        refused_uids = self._deps.eviction_queue.predicted_refusals(to_send).keys()
        lost_uids = {
            uid
            for uid, since in self._unready_since.items()
            if context.now - since >= _UNREADY_CONFIRMED_AFTER and uid in refused_uids
        }
        return [
            (pod, pod_actions.bypass_budget(pod, decision, context) if pod.uid in lost_uids else decision)
            for pod, decision in pod_decisions
        ]

    def _refusals(
        self, pod_decisions: list[tuple[Pod, PodDecision]], decisions: Mapping[str, ReplacementDecision]
    ) -> dict[str, tuple[EvictionResult, timedelta]]:
        """Return the expected refusals by pod uid, each with the time after which it becomes a blocker."""
        to_send = [
            row for row in pod_decisions if row[0].uid not in decisions or decisions[row[0].uid].step in _SENDING_STEPS
        ]
        refusals = {
            uid: (refusal, REFUSAL_REPORTED_AFTER)
            for uid, refusal in self._deps.eviction_queue.predicted_refusals(to_send).items()
        }
        for uid, decision in decisions.items():
            if decision.blocker_class:
                refusal = EvictionResult(
                    EvictionOutcome.REFUSED, decision.blocker_class, decision.message, decision.hint
                )
                refusals[uid] = (refusal, timedelta())
            elif decision.step is ReplacementStep.WAIT and decision.waiting_for:
                refusal = EvictionResult(
                    EvictionOutcome.REFUSED,
                    BlockerClass.REPLACEMENT_NOT_READY,
                    decision.waiting_for,
                    messages.OWNER_HINT,
                )
                refusals[uid] = (refusal, BLOCKED_AFTER)
        return refusals

    def _lasting_refusals(
        self, refusals: dict[str, tuple[EvictionResult, timedelta]], reported_uids: Collection[str], now: datetime
    ) -> dict[str, EvictionResult]:
        """Return the refusals that have lasted: most budgets have room again as soon as a replacement is Ready.

        `reported_uids`: uids of the blockers in the status, which may be older than this process.
        """
        self._refused_since = {
            uid: self._refused_since.get(uid, now - REFUSAL_REPORTED_AFTER if uid in reported_uids else now)
            for uid in refusals
        }
        return {uid: refusal for uid, (refusal, wait) in refusals.items() if now - self._refused_since[uid] >= wait}

    def _single_budgets(self, rows: Iterable[Pod]) -> dict[str, DisruptionBudget]:
        """Return the budget of each pod with exactly one budget, by pod uid."""
        budgets_by_uid = {pod.uid: self._deps.budgets.for_pod(pod) or () for pod in rows}
        return {uid: budgets[0] for uid, budgets in budgets_by_uid.items() if len(budgets) == 1}

    def _count_moved(self, status: NodeDrainStatus, summary: PodSummary, now: datetime) -> None:
        """Count the leaving pods that are gone since the last evaluation."""
        if self.moved_count is None:
            # The count of the status includes Terminating pods, which would count twice once they are gone.
            reported_count = status.pods.moved if status.pods else 0
            self.moved_count = max(0, reported_count - (summary.existing - summary.remaining))
        gone = (
            self._leaving.keys()
            - summary.leaving_uids
            - (self._informer.unreadable_uids if self._informer else frozenset())
        )
        if gone:
            moved_uids = {uid for uid in gone if not self._deps.replacer.was_removed_by_others(uid)}
            self.moved_count += len(moved_uids)
            budgets = self._single_budgets(self._leaving[uid] for uid in gone)
            for uid in gone:
                self._eviction_rates.record_moved(budgets.get(uid))
            for uid in moved_uids:
                self._deps.replacer.record_replacement(self._deps.replacer.as_released(self._leaving[uid]))
            self._deps.metrics.pods_moved.inc(len(moved_uids))
            self._deps.metrics.pods_moved_again.inc(
                sum(self._deps.move_history.record_move(self._leaving[uid], now) for uid in gone)
            )
            self._deps.eviction_queue.forget(self._session, list(gone))
            self._deps.budgets.forget(gone)
            self._deps.replacer.forget(gone)
        if gone or summary.in_flight:
            self.last_move_at = now
        self._leaving = {pod.uid: pod for pod in self.node_pods() if pod.uid in summary.leaving_uids}

    # -- requests -----------------------------------------------------------------------------------------------------

    def move(
        self, summary: PodSummary, policy: ReschedulePolicy, settings: DrainSettings, *, begun_only: bool = False
    ) -> float | None:
        """Start the requests that are due; return the seconds until the next is due, None if only an event can tell.

        `begun_only`: move only pods with a move record.
        """
        to_send = []
        is_detaching = bool(summary.detaching_volumes) or any(
            self._volumes.has_volume_to_detach(pod) for pod in self.node_pods() if self._is_leaving(pod)
        )
        # The highest priority first: otherwise the volumes of important pods would be attached last.
        for pod, pod_decision in sorted(
            summary.next_pods, key=lambda row: -row[0].priority if row[0].all_claims else 0
        ):
            if begun_only and not pod.release_record:
                continue
            # One volume after another, so that the cloud API does not throttle. With proof, all are detached at once.
            if (
                self._volumes.has_volume_to_detach(pod)
                and not pod_decision.forced
                and pod_decision.required_proof is not RequiredProof.BOOT_DEAD
            ):
                if is_detaching and not self._is_leaving(pod):
                    continue
                is_detaching = True
            decision = self._decisions.get(pod.uid)
            if decision:
                self._deps.replacer.start(self._subscriber, pod, decision, self._move_cause(pod))
            if decision is None or decision.step in _SENDING_STEPS:
                to_send.append((pod, pod_decision))
        self._return_others(summary)
        self._session.grace_seconds = settings.grace_period_seconds
        rate = settings.max_evictions_per_second
        return self._deps.eviction_queue.send(self._session, to_send, policy=policy.name, rate=rate)

    def release(self) -> None:
        """Release pods, so that replacements start; evict and delete no pod."""
        for pod in self.node_pods():
            if (decision := self._decisions.get(pod.uid)) and decision.step in (
                ReplacementStep.RELEASE,
                ReplacementStep.CLEAR_RECORD,
            ):
                self._deps.replacer.start(self._subscriber, pod, decision, self._move_cause(pod))

    def _is_leaving(self, pod: Pod) -> bool:
        return pod.deletion_timestamp is not None or pod.uid in self._deps.eviction_queue.evicting_uids()

    def _return_others(self, summary: PodSummary) -> None:
        """Return released pods, and clear the records of returned pods, except for the pods that leave next."""
        next_uids = {pod.uid for pod, _ in summary.next_pods}
        self.return_pods(lambda pod: pod.uid not in next_uids)

    def return_pods(self, selected: Callable[[Pod], bool] = lambda _: True) -> None:
        """Return released pods, and clear the records of returned pods; move no other pod."""
        for pod in self.node_pods():
            decision = self._decisions.get(pod.uid)
            if (
                decision
                and pod.release_record
                and selected(pod)
                and decision.step in (ReplacementStep.RETURN, ReplacementStep.CLEAR_RECORD)
            ):
                self._deps.replacer.start(self._subscriber, pod, decision)

    def evict_unreturnable(self, policy: str) -> None:
        """Evict or delete the released pods of an ending drain that cannot be returned."""
        unreturnable = [
            (pod, PodDecision(PodAction.DELETE if decision.step is ReplacementStep.DELETE else PodAction.EVICT))
            for pod in self.node_pods()
            if (decision := self._decisions.get(pod.uid))
            and pod.release_record
            and decision.step in (ReplacementStep.DELETE, ReplacementStep.EVICT)
        ]
        self._deps.eviction_queue.send(self._session, unreturnable, policy=policy, rate=20)


def _apply_step(pod_decision: PodDecision, decision: ReplacementDecision | None) -> PodDecision:
    """Return a plain delete for a surplus pod: a budget that expects 0 pods would refuse its eviction forever."""
    if decision and decision.step is ReplacementStep.DELETE and pod_decision.action is PodAction.EVICT:
        return PodDecision(PodAction.DELETE, pod_decision.order)
    return pod_decision
