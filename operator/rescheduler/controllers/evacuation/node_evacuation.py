"""Move the pods of one node: watch and evaluate them, and release, evict, delete or return them.

Drains and migrations share this. A migration is an evacuation of the requested pods only, and cordons no node.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from rescheduler.api.drains import CameBackPods, NodeDrainStatus
from rescheduler.api.history import MAX_RECORDED_PODS, Force, Move, MoveRecord, MoveWay
from rescheduler.api.policies import DrainSettings, ReschedulePolicy
from rescheduler.api.scalars import dump
from rescheduler.controllers.evacuation import messages
from rescheduler.controllers.evacuation.budget_watch import BudgetWatch
from rescheduler.controllers.evacuation.chain_outcomes import ChainOutcomes
from rescheduler.controllers.evacuation.eviction_queue import (
    ConfirmProof,
    EvictionQueue,
    EvictionSession,
    refuse_unproven,
)
from rescheduler.controllers.evacuation.planner import ChainRequest, EvacuationPlanner
from rescheduler.controllers.evacuation.related_objects import RelatedObjects
from rescheduler.controllers.evacuation.replacer import Replacer
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.core.drain import came_back, capacity, chain_progress, history, pod_evaluation, pod_summary
from rescheduler.core.drain.chain_progress import ChainMoves
from rescheduler.core.drain.colocated_pods import hold_for_colocated_pods, with_common_order
from rescheduler.core.drain.eta import EvictionRates
from rescheduler.core.drain.pod_evaluation import MoveMode, PodEvaluation, PodTimers
from rescheduler.core.drain.pod_summary import PodSummary
from rescheduler.core.eviction.api_responses import EvictionResult
from rescheduler.core.eviction.controlling_pods import controlling_pods_seen, follow_controlling_pods
from rescheduler.core.eviction.pod_actions import EvictionContext, OwnerKey, PodAction, PodDecision
from rescheduler.core.model import pods
from rescheduler.core.model.disruption_budgets import DisruptionBudget
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.volumes import NodeVolumes
from rescheduler.core.replacement.decisions import ReplacementDecision, ReplacementStep
from rescheduler.core.replacement.move_history import MoveHistory
from rescheduler.kube import paths
from rescheduler.kube.client import Client
from rescheduler.kube.informers import Informer

audit_log = structlog.get_logger("rescheduler.audit")

RECHECK_INTERVAL = 10.0
"""Seconds between two reconciles without an event: some facts change only by time."""
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
    related_objects: RelatedObjects
    chain_outcomes: ChainOutcomes


class NodeEvacuation:
    """Evacuation of one node: all pods leave for a drain, or the requested pods for a migration.

    `subscriber` is the name of the task in all shared watches.

    Attributes:
        moved_count: number of pods that have left; None before the first evaluation.
        last_move_at: last time at which a pod left or a request was in flight; None if there was none.
        unsynced_reason: which list was missing at the last evaluation; None if none was.
    """

    def __init__(
        self,
        subscriber: str,
        node_name: str,
        deps: EvacuationDependencies,
        wake: Callable[[], None],
    ) -> None:
        self._subscriber, self._node_name, self._deps, self._wake = subscriber, node_name, deps, wake
        self._session = EvictionSession(wake)
        self._informer: Informer[Pod] | None = None
        self._watch_task: asyncio.Task[None] | None = None
        self._volumes: NodeVolumes | None = None  # as of the last evaluation; None if they were unknown
        self._leaving: dict[str, Pod] = {}
        self._leaving_decisions: dict[str, tuple[PodDecision, str]] = {}  # by uid: the last decision, and its cause
        self._moves: tuple[Move, ...] | None = None  # None before the first evaluation
        self._moves_total = 0
        self._begun: dict[str, Move] = {}  # by namespace/name: pods whose move the last process began
        self._policy = ""  # that the last requests were sent by
        self._removed_by_others: list[Pod] = []  # released pods that another client removed
        self._waiting_for_node: tuple[str, ...] | None = None  # namespace/name; None before the first evaluation
        self._decide_again_at: datetime | None = None  # when time alone may change the step of a pod
        self._came_back: tuple[CameBackPods, ...] | None = None  # None before the first evaluation
        self._chain_moves: ChainMoves | None = None  # the same
        self._left_tolerating: dict[OwnerKey, datetime] = {}  # by owner: when a pod that tolerates the cordon left
        self._seen: dict[str, OwnerKey] = {}  # owners of all pods of the node so far, by uid of the pod
        self._timers = PodTimers()
        self._eviction_rates = EvictionRates()
        self.moved_count: int | None = None
        self.last_move_at: datetime | None = None
        self.unsynced_reason: str | None = None

    @property
    def is_synced(self) -> bool:
        """Whether the pods of the node are listed."""
        return self._informer is not None and self._informer.synced

    @property
    def has_released_pods(self) -> bool:
        """Whether a pod of the node is released, so that another task must manage it after this one."""
        # A release that the watch has not brought yet counts.
        latest_pods = (self._deps.replacer.as_released(pod) for pod in self.node_pods())
        return any(pod.released and not pod.deletion_timestamp for pod in latest_pods)

    def pods_to_return(self) -> tuple[str, ...]:
        """Return the running pods with a move record, as sorted namespace/name."""
        return tuple(sorted(pod.key for pod in pod_evaluation.pods_with_record(self.node_pods())))

    def uids_by_pod(self) -> Mapping[str, str]:
        """Return the uids of the pods by namespace/name."""
        return {pod.key: pod.uid for pod in self.node_pods()}

    def owners_by_pod(self) -> Mapping[str, pods.Owner]:
        """Return the controllers of the pods by namespace/name of the pod."""
        return {pod.key: pod.owner for pod in self.node_pods() if pod.owner}

    def node_pods(self) -> Collection[Pod]:
        """Return the listed pods of the node; empty before the first list."""
        return self._informer.items.values() if self._informer else ()

    def is_node_in_use(self) -> bool:
        """Whether a pod is Terminating or an unused volume is attached; True if pods or volumes are unknown."""
        return (
            not self.is_synced
            or self._volumes is None
            or any(pod.deletion_timestamp for pod in self.node_pods())
            or bool(self._volumes.awaiting_detach(self.node_pods()))
        )

    def node_in_use_by(self) -> tuple[str, ...]:
        """Return what still uses the node: Terminating pods and attached volumes; nothing if volumes are unknown."""
        if self._volumes is None:
            return ()
        terminating = sorted(messages.pod_terminating(pod) for pod in self.node_pods() if pod.deletion_timestamp)
        attached = sorted(messages.volume_attached(name) for name in self._volumes.awaiting_detach(self.node_pods()))
        return (*terminating, *attached)

    def seconds_until_recheck(self, now: datetime, until_request: float | None) -> float:
        """Return the seconds until time alone may change an evaluation; `until_request`: until the next request."""
        until_reported = self._timers.seconds_until_reported(now) if self._timers.refused_since else RECHECK_INTERVAL
        return min(
            until_reported,
            came_back.seconds_until_successor(self._tolerating_left_at, now) or RECHECK_INTERVAL,
            RECHECK_INTERVAL if until_request is None else until_request,
            (self._decide_again_at - now).total_seconds() if self._decide_again_at else RECHECK_INTERVAL,
        )

    @property
    def _tolerating_left_at(self) -> datetime | None:
        """When a pod that tolerates the cordon last left, and its owner may put the next one on the node."""
        settled = came_back.settled_owners(self._came_back or ())
        return max((at for owner, at in self._left_tolerating.items() if owner not in settled), default=None)

    def watch(self) -> None:
        """Watch the pods of the node, if they are not watched yet."""
        if self._informer is None:
            params = {"fieldSelector": f"spec.nodeName={self._node_name}"}
            self._informer = Informer(self._deps.client, paths.PODS, pods.parse_pod, self._wake, params=params)
            self._watch_task = asyncio.create_task(self._informer.run(), name=f"pods of {self._node_name}")

    def close(self) -> None:
        """Cancel all requests and watches."""
        self._deps.related_objects.unsubscribe(self._subscriber)
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
        mode: MoveMode,
        migration_requests: Mapping[str, str] | None = None,
        *,
        needs_attachments: bool = False,
    ) -> PodEvaluation | None:
        """Decide for every pod; return None while a list is missing (`unsynced_reason`).

        `context`: the facts of the node; the related objects are added here.
        `migration_requests`: cause of the move by pod uid, such as `NamespacePool/shop`; None for a drain.
        `needs_attachments`: look for attached volumes even if no pod with a claim is left on the node.
        """
        completed = self._deps.related_objects.complete_context(
            self._subscriber, self._node_name, context, settings, self.node_pods(), needs_attachments=needs_attachments
        )
        self._volumes = completed.volumes if completed else None
        if completed is None:
            self.unsynced_reason = self._deps.related_objects.why_not_synced(self._subscriber)
            return None
        if self._informer is None or not self._informer.synced:
            self.unsynced_reason = messages.pods_not_listed((self._informer and self._informer.error) or "")
            return None
        context = self._observe_came_back(status, completed)
        move_causes = {
            pod.uid: cause
            for pod in self._informer.items.values()
            if (cause := pod_evaluation.move_cause(pod, self._subscriber, migration_requests))
        }
        pod_decisions = self._decide_pods(settings, context, move_causes, migration_requests)
        pod_decisions.sort(key=lambda row: (row[1].order, row[0].priority, row[0].key))
        namespaces = {
            pod.namespace for pod, decision in pod_decisions if decision.action is PodAction.EVICT or pod.release_record
        }
        self._deps.budgets.subscribe(self._subscriber, namespaces)
        if not self._deps.budgets.is_synced(namespaces):
            self.unsynced_reason = self._deps.budgets.why_not_synced(sorted(namespaces))
            return None
        pods_to_place = pod_evaluation.pods_for_plan(pod_decisions, move_causes, is_drain=migration_requests is None)
        forecasts = self._forecasts(
            pods_to_place,
            context,
            wait_for_plan=mode in (MoveMode.BEGUN_ONLY, MoveMode.ALL),
            chain=self._end_chain_moves(
                status, settings, context.now, may_begin=_may_chain(mode, context, migration_requests)
            ),
        )
        if forecasts is None:
            self.unsynced_reason = messages.PLAN_NOT_READY
            return None
        uids_without_room = (
            capacity.host_data_without_room(forecasts, pods_to_place) if migration_requests is None else frozenset()
        )
        forecasts = {uid: forecast for uid, forecast in forecasts.items() if uid not in uids_without_room}
        pod_decisions.sort(key=lambda row: capacity.plan_sort_key(forecasts.get(row[0].uid)))
        reported_blockers = {f"{blocker.namespace}/{blocker.pod}": blocker for blocker in status.blockers}
        decisions = self._deps.replacer.evaluate(
            self._subscriber,
            pod_decisions,
            settings,
            context.now,
            mode,
            blockers=reported_blockers,
            forecasts=forecasts,
            is_drain=migration_requests is None,
        )
        if decisions is None:
            self.unsynced_reason = self._deps.replacer.why_not_synced(self._subscriber)
            return None
        self.unsynced_reason = None
        self._decide_again_at = pod_evaluation.decide_again_at(decisions.values())
        if mode is not MoveMode.NONE:
            decisions |= self._holds(
                pod_decisions,
                decisions,
                forecasts,
                settings,
                may_stay=migration_requests is not None,
                chain_moves_at=context.now if _may_chain(mode, context, migration_requests) else None,
            )
        pod_decisions = [
            (pod, pod_evaluation.with_replacement_step(pod, decision, decisions.get(pod.uid)))
            for pod, decision in with_common_order(pod_decisions, forecasts)
        ]
        evaluation = PodEvaluation(PodSummary(), decisions, move_causes, context.volumes)
        pod_decisions = self._bypass_budgets(pod_decisions, evaluation, context)
        reported_uids = {pod.uid for pod, _ in pod_decisions if pod.key in reported_blockers}
        refusals = self._lasting_refusals(pod_decisions, evaluation, settings, reported_uids, context.now)
        unused = pod_evaluation.unused_volumes(self.node_pods(), context)
        unused_since = pod_evaluation.timers_since(self._timers.unused_since, unused, context.now)
        self._timers = replace(self._timers, unused_since=unused_since)
        self._record_removals(settings, context.now)
        blocked_since = {
            (blocker.namespace, blocker.pod, str(blocker.class_)): blocker.since for blocker in status.blockers
        }
        summary = pod_summary.summarize(
            pod_decisions,
            self._session.attempts,
            refusals,
            blocked_since,
            context.now,
            unreachable=context.node_unreachable,
            waiting_uids=pod_evaluation.waiting_uids(decisions),
            replacement_timeout=settings.replacement_timeout,
        )
        leaving = [(pod, decision) for pod, decision in pod_decisions if pod.uid in summary.leaving_uids]
        eviction_groups = self._eviction_rates.group_pods(
            leaving,
            self._single_budgets(pod for pod, _ in leaving),
            context.active_for,
            grace_period_seconds=settings.grace_period_seconds,
        )
        if self._waiting_for_node is None:
            self._waiting_for_node = status.waits_for_node if status.started_at else ()
        self._waiting_for_node = pod_evaluation.waiting_for_node(
            pod_decisions, uids_without_room, self._waiting_for_node
        )
        summary = replace(
            pod_evaluation.with_unused_volumes(summary, unused_since, context.now),
            eviction_groups=eviction_groups,
            waits_for_node=self._waiting_for_node,
            came_back=self._came_back or (),
            chain_moves=self._chain_moves or (),
            removed_released_pods=tuple(self._removed_by_others),
            not_replaced_first=evaluation.pods_without_replacement(self.node_pods()),
        )
        if migration_requests is None and (unreadable := self._informer.unreadable):
            summary = pod_summary.with_unreadable(summary, unreadable, blocked_since, context.now)
        self._count_moved(status, summary, context)
        return replace(evaluation, summary=self._with_moves(summary, pod_decisions, move_causes))

    def _observe_came_back(self, status: NodeDrainStatus, context: EvictionContext) -> EvictionContext:
        """Count the pods that came back since the last evaluation; return the context with their owners."""
        if self._came_back is None:
            self._came_back = status.came_back if status.started_at else ()
        self._came_back = came_back.observe(self._came_back, self.node_pods(), self._seen, context.cordoned_at)
        self._seen |= came_back.owners_by_uid(self.node_pods())
        return replace(context, came_back=came_back.settled_owners(self._came_back))

    def _end_chain_moves(
        self, status: NodeDrainStatus, settings: DrainSettings, now: datetime, *, may_begin: bool
    ) -> ChainRequest:
        """Record the chain moves that have ended; return what the plan must know of the others."""
        before = self._chain_moves
        if before is None:
            before = status.chain_moves if status.started_at else ()
        moves = self._chain_moves = chain_progress.end_moves(before, self._deps.chain_outcomes.causes, settings, now)
        if moves != before:
            self._deps.planner.replan(self._subscriber)
        moves_left = chain_progress.moves_left(moves, settings, now) if may_begin else 0
        return ChainRequest(moves_left, chain_progress.moving_uids(moves))

    def _chain_waits(
        self,
        pod_decisions: list[tuple[Pod, PodDecision]],
        decisions: Mapping[str, ReplacementDecision],
        forecasts: capacity.Forecasts,
        settings: DrainSettings,
        now: datetime,
    ) -> dict[str, ReplacementDecision]:
        """Begin the chain move that the plan offers; return the decisions for the pods that wait for one."""
        offer = self._deps.planner.chain_offer(self._node_name)
        if offer and not chain_progress.is_needed(offer, (pod for pod, _ in pod_decisions), forecasts):
            offer = None
        self._chain_moves = chain_progress.begin_move(self._chain_moves or (), offer, settings, now)
        planned_at = self._deps.planner.planned_at
        return chain_progress.waits(self._chain_moves, pod_decisions, decisions, forecasts, now, planned_at)

    def _decide_pods(
        self,
        settings: DrainSettings,
        context: EvictionContext,
        move_causes: Mapping[str, str],
        migration_requests: Mapping[str, str] | None,
    ) -> list[tuple[Pod, PodDecision]]:
        """Return the decision for each pod that moves; a pod that another pod controls leaves with that pod."""
        seen = controlling_pods_seen(self.node_pods(), self._timers.controlling_pods_seen, context.now)
        self._timers = replace(self._timers, controlling_pods_seen=seen)
        decided = [
            (pod, pod_evaluation.decide_pod(pod, settings, context, migration_requests))
            for pod in self.node_pods()
            if pod.uid in move_causes
        ]
        return follow_controlling_pods(decided, seen, context)

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
        self, pods_to_place: list[Pod], context: EvictionContext, *, wait_for_plan: bool, chain: ChainRequest
    ) -> capacity.Forecasts | None:
        """Return the forecasts in effect, by uid; None while the plan is awaited."""
        if context.node_unreachable:
            return {}
        forecasts = self._deps.planner.forecast(
            self._subscriber,
            pods_to_place,
            context.volumes,
            wait_for_plan=wait_for_plan and not context.node_failing,
            chain=chain,
        )
        return None if forecasts is None else pod_evaluation.forecasts_in_effect(forecasts, pods_to_place, context)

    def _holds(
        self,
        pod_decisions: list[tuple[Pod, PodDecision]],
        decisions: Mapping[str, ReplacementDecision],
        forecasts: capacity.Forecasts,
        settings: DrainSettings,
        *,
        may_stay: bool,
        chain_moves_at: datetime | None,
    ) -> dict[str, ReplacementDecision]:
        """Return the decisions for pods that stay for lack of room, because of colocated pods, or for a chain move.

        `chain_moves_at`: None if no chain move may begin.
        """
        held = capacity.hold_without_room(pod_decisions, decisions, forecasts, settings, may_stay=may_stay)
        held |= hold_for_colocated_pods(
            pod_decisions,
            {**decisions, **held},
            forecasts,
            lambda pod: self._deps.budgets.for_pod(pod) or (),
            self._deps.eviction_queue.evicting_uids(),
        )
        if chain_moves_at:
            held |= self._chain_waits(pod_decisions, {**decisions, **held}, forecasts, settings, chain_moves_at)
        return held

    def _bypass_budgets(
        self, pod_decisions: list[tuple[Pod, PodDecision]], evaluation: PodEvaluation, context: EvictionContext
    ) -> list[tuple[Pod, PodDecision]]:
        """Return the decisions, with a plain delete for lost pods of a failed but reachable node."""
        unready_uids = (pod.uid for pod, _ in pod_decisions if not pod.ready)
        unready_since = pod_evaluation.timers_since(self._timers.unready_since, unready_uids, context.now)
        self._timers = replace(self._timers, unready_since=unready_since)
        if not context.node_failing or context.node_unreachable:
            return pod_decisions
        refused_uids = self._predicted_refusals(pod_decisions, evaluation).keys()
        return pod_evaluation.bypass_budgets(pod_decisions, unready_since, refused_uids, context)

    def _predicted_refusals(
        self, pod_decisions: list[tuple[Pod, PodDecision]], evaluation: PodEvaluation
    ) -> dict[str, EvictionResult]:
        to_send = [(pod, decision) for pod, decision in pod_decisions if evaluation.sends(pod)]
        return self._deps.eviction_queue.predicted_refusals(to_send)

    def _lasting_refusals(
        self,
        pod_decisions: list[tuple[Pod, PodDecision]],
        evaluation: PodEvaluation,
        settings: DrainSettings,
        reported_uids: Collection[str],
        now: datetime,
    ) -> dict[str, EvictionResult]:
        """Return the refusals that have lasted, by pod uid; `reported_uids`: uids of the blockers in the status."""
        refusals = pod_evaluation.expected_refusals(
            pod_decisions,
            self._predicted_refusals(pod_decisions, evaluation),
            evaluation.replacement_decisions,
            settings,
        )
        refused_since = pod_evaluation.refusal_timers(self._timers.refused_since, refusals, reported_uids, now)
        self._timers = replace(self._timers, refused_since=refused_since)
        return pod_evaluation.lasting_refusals(refusals, refused_since, now)

    def _single_budgets(self, rows: Iterable[Pod]) -> dict[str, DisruptionBudget]:
        """Return the budget of each pod with exactly one budget, by pod uid."""
        budgets_by_uid = {pod.uid: self._deps.budgets.for_pod(pod) or () for pod in rows}
        return {uid: budgets[0] for uid, budgets in budgets_by_uid.items() if len(budgets) == 1}

    def _count_moved(self, status: NodeDrainStatus, summary: PodSummary, context: EvictionContext) -> None:
        """Count the leaving pods that are gone since the last evaluation."""
        now = context.now
        if self._moves is None:
            self._continue_history(status, context)
        if self.moved_count is None:
            # The count of the status includes Terminating pods, which would count twice once they are gone.
            reported_count = status.pods.moved if status.pods else 0
            self.moved_count = max(0, reported_count - (summary.existing - summary.remaining))
        gone = (
            self._leaving.keys()
            - summary.leaving_uids
            - (self._informer.unreadable_uids if self._informer else frozenset())
        )
        stays = self._leaving.keys() & {pod.uid for pod in self.node_pods()} - summary.leaving_uids
        self._forget(stays)  # these pods are still on the node, and the drain leaves them there
        gone -= stays
        if gone:
            for pod in sorted((self._leaving[uid] for uid in gone), key=lambda pod: pod.key):
                self._record_move(pod, status, context)
            moved_uids = {uid for uid in gone if not self._deps.replacer.was_removed_by_others(uid)}
            self.moved_count += len(moved_uids)
            budgets = self._single_budgets(self._leaving[uid] for uid in gone)
            for uid in gone:
                self._eviction_rates.record_moved(budgets.get(uid))
            for uid in moved_uids:
                self._deps.replacer.record_replacement(self._deps.replacer.as_released(self._leaving[uid]))
            self._deps.metrics.pods_moved.inc(len(moved_uids))
            for uid in gone:
                again = self._deps.move_history.record_move(self._leaving[uid], now)
                new_pod = self._deps.replacer.new_pod(uid)
                number = self._deps.move_history.move_number(
                    self._leaving[uid], new_pod.uid if new_pod else "", again=again
                )
                self._deps.metrics.pods_moved_again.inc(again)
                self._deps.metrics.moves_per_pod.observe(number)
            # A released pod leaves no gap: its replacement is on its node already.
            left = (
                self._leaving[uid] for uid in gone if not self._deps.replacer.as_released(self._leaving[uid]).released
            )
            tolerating = came_back.owners_by_uid(pod for pod in left if pod.tolerates_cordon)
            self._left_tolerating |= dict.fromkeys(tolerating.values(), now)
            self._forget(gone)
        if gone or summary.in_flight:
            self.last_move_at = now
        self._leaving = {pod.uid: pod for pod in self.node_pods() if pod.uid in summary.leaving_uids}

    def _continue_history(self, status: NodeDrainStatus, context: EvictionContext) -> None:
        """Take over the history of the drain; pods whose move had begun may have left while no operator ran."""
        known = status.history
        self._moves, self._moves_total = tuple(move for move in known.moves if move.left_at), known.moves_total
        self._begun = {f"{move.namespace}/{move.pod}": move for move in known.moves if not move.left_at}
        for key in self._begun.keys() - {pod.key for pod in self.node_pods()}:
            move = history.ended_unseen(self._begun[key], context.now)
            self._add_move(
                move,
                MoveRecord(**history.move_fields(move), node=self._node_name, cause=f"NodeDrain/{self._subscriber}"),
            )

    def _with_moves(
        self, summary: PodSummary, pod_decisions: Iterable[tuple[Pod, PodDecision]], move_causes: Mapping[str, str]
    ) -> PodSummary:
        """Return the summary with the pods that have left and those that leave.

        If this process ends, the next one knows from the status which of them have left meanwhile.
        """
        self._leaving_decisions = {pod.uid: (decision, move_causes[pod.uid]) for pod, decision in pod_decisions}
        begun = (pod for pod in self._leaving.values() if self._has_begun(pod))
        moves = [*(self._moves or ()), *map(self._move_of, begun)]
        return replace(
            summary,
            tolerating_left_at=self._tolerating_left_at,
            moves=tuple(moves[:MAX_RECORDED_PODS]),
            moves_total=self._moves_total,
        )

    def _has_begun(self, pod: Pod) -> bool:
        released = self._deps.replacer.as_released(pod).released
        return released or pod.deletion_timestamp is not None or pod.uid in self._session.sent

    def _move_of(self, pod: Pod) -> Move:
        """Return the move of a leaving pod so far."""
        pod, sent = self._deps.replacer.as_released(pod), self._session.sent.get(pod.uid)
        last, _ = self._leaving_decisions.get(pod.uid, (None, ""))
        new_pod, begun = self._deps.replacer.new_pod(pod.uid), self._begun.get(pod.key)
        way = history.way_of(pod, sent)
        if way is MoveWay.LEFT and begun:
            way = begun.way
        return Move(
            namespace=pod.namespace,
            pod=pod.name,
            owner=history.owner_text(pod),
            way=way,
            new_pod=new_pod.name if new_pod else begun.new_pod if begun else "",
            new_node=new_pod.node if new_pod else begun.new_node if begun else "",
            forced=history.force_of(sent, last) or (begun.forced if begun else None),
        )

    def _record_move(self, pod: Pod, status: NodeDrainStatus, context: EvictionContext) -> None:
        """Log a pod that has left, and add it to the history of the drain."""
        _, cause = self._leaving_decisions.get(pod.uid, (None, ""))
        if context.started_at is None and cause.startswith("NodeDrain/"):
            return  # in mode Audit, the pod left for another reason
        blocked = history.blocked_by(pod, status, context.now)
        # As the API stores it: microseconds would be a change of the status at each evaluation.
        update = {"left_at": context.now.replace(microsecond=0), "blocked_seconds": sum(blocked.values())}
        move = self._move_of(pod).model_copy(update=update)
        release = self._deps.replacer.as_released(pod).release_record
        details = MoveRecord(
            **history.move_fields(move),
            node=self._node_name,
            pod_uid=pod.uid,
            cause=cause,
            policy=self._policy if pod.uid in self._session.sent else "",
            requested_by=tuple(f"{who.reason} {who.manager}".strip() for who in status.history.requested_by),
            released_at=release.released_at if release else None,
            blocked_by=tuple(blocked),
            proof=context.proof if move.forced is Force.BOOT_DEAD else "",
        )
        self._add_move(move, details)

    def _add_move(self, move: Move, details: MoveRecord) -> None:
        self._moves, self._moves_total = history.with_move(self._moves or (), move), self._moves_total + 1
        audit_log.info("audit.move", **dump(details))

    def _forget(self, uids: Collection[str]) -> None:
        """Drop pods that are gone or stay."""
        self._deps.eviction_queue.forget(self._session, list(uids))
        self._deps.budgets.forget(uids)
        self._deps.replacer.forget(uids)

    # -- requests -----------------------------------------------------------------------------------------------------

    def move(
        self,
        evaluation: PodEvaluation,
        mode: MoveMode,
        policy: ReschedulePolicy,
        settings: DrainSettings,
        confirm: ConfirmProof,
    ) -> float | None:
        """Start the requests that are due; return the seconds until the next is due, None if only an event can tell.

        `confirm` checks the proof just before each request that requires proof.
        """
        to_send = []
        turn = evaluation.pods_in_turn(self.node_pods(), self._deps.eviction_queue.evicting_uids(), mode)
        for pod, pod_decision in turn:
            if decision := evaluation.replacement_decisions.get(pod.uid):
                self._start(pod, decision, evaluation)
            if evaluation.sends(pod):
                to_send.append((pod, pod_decision))
        self._return_others(evaluation)
        self._session.grace_seconds = settings.grace_period_seconds
        self._policy = policy.name
        rate = settings.max_evictions_per_second
        return self._deps.eviction_queue.send(self._session, to_send, policy=policy.name, rate=rate, confirm=confirm)

    def release(self, evaluation: PodEvaluation) -> None:
        """Release pods, so that replacements start; evict and delete no pod."""
        steps = (ReplacementStep.RELEASE, ReplacementStep.CLEAR_RECORD)
        for pod, decision in evaluation.pods_with_step(self.node_pods(), steps):
            self._start(pod, decision, evaluation)

    def _start(self, pod: Pod, decision: ReplacementDecision, evaluation: PodEvaluation) -> None:
        self._deps.replacer.start(self._subscriber, pod, decision, evaluation.move_causes.get(pod.uid, ""))

    def _return_others(self, evaluation: PodEvaluation) -> None:
        """Return released pods, and clear the records of returned pods, except for the pods that leave next."""
        next_uids = {pod.uid for pod, _ in evaluation.summary.next_pods}
        self.return_pods(evaluation, lambda pod: pod.uid not in next_uids)

    def return_pods(self, evaluation: PodEvaluation, selected: Callable[[Pod], bool] = lambda _: True) -> None:
        """Return released pods, and clear the records of returned pods; move no other pod."""
        steps = (ReplacementStep.RETURN, ReplacementStep.CLEAR_RECORD)
        for pod, decision in evaluation.pods_with_step(self.node_pods(), steps):
            if pod.release_record and selected(pod):
                self._deps.replacer.start(self._subscriber, pod, decision)

    def evict_unreturnable(self, evaluation: PodEvaluation, policy: str) -> None:
        """Evict or delete the released pods of an ending drain that cannot be returned."""
        steps = (ReplacementStep.DELETE, ReplacementStep.EVICT)
        unreturnable = [
            (pod, PodDecision(PodAction.DELETE if decision.step is ReplacementStep.DELETE else PodAction.EVICT))
            for pod, decision in evaluation.pods_with_step(self.node_pods(), steps)
            if pod.release_record
        ]
        self._deps.eviction_queue.send(self._session, unreturnable, policy=policy, rate=20, confirm=refuse_unproven)


def _may_chain(mode: MoveMode, context: EvictionContext, migration_requests: Mapping[str, str] | None) -> bool:
    """Whether this is a drain that may move all pods, of a node that has not failed."""
    return migration_requests is None and mode is MoveMode.ALL and not context.node_failing
