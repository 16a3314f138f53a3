"""The pods of one node being drained: which go now, how, and what holds the others."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from rescheduler.api.drains import BlockerClass, NodeDrainStatus
from rescheduler.api.policies import DrainSettings, ReschedulePolicy
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

log = structlog.get_logger("rescheduler.node_pods")

REFUSAL_REPORTED_AFTER = timedelta(seconds=5)
"""A budget that waits for the last pod's replacement is no blocker yet."""
_UNREADY_CONFIRMED_AFTER = timedelta(seconds=15)
"""The node controller marks all pods of a node that turns ill; a living kubelet sets them back within 10 s."""
_SENDING_STEPS = (ReplacementStep.PLAIN_EVICTION, ReplacementStep.EVICT, ReplacementStep.DELETE)
_CHECK_OWNER_HINT = "look at the owner of the pod: kubectl describe its Deployment and ReplicaSet"
_MAX_REMOVED_REMEMBERED = 50  # remembered, to be named


@dataclass(frozen=True, slots=True)
class EvacuationDependencies:
    """What moves pods, shared by all drains."""

    client: Client
    clock: Clock
    budgets: BudgetWatch
    eviction_queue: EvictionQueue
    replacer: Replacer
    metrics: Metrics
    move_history: MoveHistory
    planner: EvacuationPlanner


class PodMover:
    """The pods of one drain's node, from the cordon on; or those of them that an errand names.

    Attributes:
        errand: by uid, what the pods are moved for that are to be moved; None: all of them, for the drain.
        moved: how many have left so far.
        last_move: when one last left or was on its way.
        unseen: which view was missing at the last look; empty if none was.
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
        self._unready_since: dict[str, datetime] = {}  # by pod uid: since when it was seen not to be Ready
        self._removed_by_others: list[Pod] = []  # released pods that somebody else removed
        self._unused_since: dict[str, datetime] = {}  # by volume: since when no pod uses it
        self._volumes = NodeVolumes()
        self._eviction_rates = EvictionRates()
        self.migration_requests: Mapping[str, str] | None = None
        self.moved_count: int | None = None
        self.last_move_at: datetime | None = None
        self.unsynced_reason = ""

    @property
    def is_synced(self) -> bool:
        """The node's pods are known for sure."""
        return self._informer is not None and self._informer.synced

    @property
    def has_refusals(self) -> bool:
        """A budget refuses and is no blocker yet: time alone makes it one."""
        return bool(self._refused_since)

    def seconds_until_reported(self, now: datetime) -> float:
        """Return the seconds until a refusal has lasted for so long that it is a blocker."""
        left = [
            REFUSAL_REPORTED_AFTER - (now - since)
            for since in self._refused_since.values()
            if now - since < REFUSAL_REPORTED_AFTER
        ]
        return min(left, default=REFUSAL_REPORTED_AFTER).total_seconds()

    @property
    def has_release_records(self) -> bool:
        """Whether a pod here is released, or returned and still has the record; one that has ended is not waited for."""
        return any(pod.release_record and not pod.deletion_timestamp and not pod.finished for pod in self.node_pods())

    @property
    def are_releases_held(self) -> bool:
        """Whether none of these can be returned for now."""
        rows = [
            pod for pod in self.node_pods() if pod.release_record and not pod.deletion_timestamp and not pod.finished
        ]
        return all((choice := self._decisions.get(pod.uid)) and choice.step is ReplacementStep.HOLD for pod in rows)

    @property
    def has_released_pods(self) -> bool:
        """Whether a pod here is released: whoever stops looking after this node hands it on."""
        return any(pod.released and not pod.deletion_timestamp for pod in self.node_pods())

    def pods_to_return(self) -> tuple[str, ...]:
        """Return those pods by namespace/name."""
        return tuple(
            sorted(
                pod.key
                for pod in self.node_pods()
                if pod.release_record and not pod.deletion_timestamp and not pod.finished
            )
        )

    def uids_by_pod(self) -> Mapping[str, str]:
        """UIDs by namespace/name."""
        return {pod.key: pod.uid for pod in self._informer.items.values()} if self._informer else {}

    def owners_by_pod(self) -> Mapping[str, pods.Owner]:
        """Controllers by namespace/name of their pod."""
        rows = self._informer.items.values() if self._informer else ()
        return {pod.key: pod.owner for pod in rows if pod.owner}

    def node_pods(self) -> Collection[Pod]:
        """The node's pods, as far as they are known."""
        return self._informer.items.values() if self._informer else ()

    def is_node_in_use(self, volumes: NodeVolumes) -> bool:
        """Whether something here is Terminating, or attached though no pod uses it; or that is not known."""
        return (
            not self.is_synced
            or any(pod.deletion_timestamp for pod in self.node_pods())
            or bool(volumes.awaiting_detach(self.node_pods()))
        )

    def node_in_use_by(self, volumes: NodeVolumes) -> tuple[str, ...]:
        """Return what keeps the node busy: Terminating pods and attached volumes."""
        ending = sorted(f"pod {pod.key} is Terminating" for pod in self.node_pods() if pod.deletion_timestamp)
        return (*ending, *sorted(f"volume {name} is attached" for name in volumes.awaiting_detach(self.node_pods())))

    def watch(self, node_name: str) -> None:
        """Keep the pods of the node in view."""
        if self._informer is None:
            here = {"fieldSelector": f"spec.nodeName={node_name}"}
            self._informer = Informer(self._deps.client, paths.PODS, pods.parse_pod, self._wake, params=here)
            self._watch_task = asyncio.create_task(self._informer.run(), name=f"pods of {node_name}")

    def close(self) -> None:
        """Let go of everything; nothing is sent any more."""
        self._deps.budgets.subscribe(self._subscriber, ())
        self._deps.replacer.close(self._subscriber)
        self._deps.planner.close(self._subscriber)
        self._deps.eviction_queue.close(self._session)
        self._deps.budgets.forget({pod.uid for pod in self.node_pods()})
        if self._watch_task:
            self._watch_task.cancel()

    # -- looking ------------------------------------------------------------------------------------------------------

    def evaluate(
        self,
        status: NodeDrainStatus,
        settings: DrainSettings,
        context: EvictionContext,
        *,
        may_move: bool,
        release_only: bool = False,
    ) -> PodSummary | None:
        """Judge every pod; None while they are not known. `may_move`: the drain may go on; `early`: by a suspicion."""
        if self._informer is None or not self._informer.synced:
            why = f" ({self._informer.error})" if self._informer and self._informer.error else ""
            self.unsynced_reason = f"the pods of the node are not listed yet{why}"
            return None
        self._decisions = {}
        judged = [
            (pod, self._decide_action(pod, settings, context))
            for pod in self._informer.items.values()
            if self._move_cause(pod)
        ]
        judged.sort(key=lambda row: (row[1].order, row[0].priority, row[0].key))
        held = {pod.namespace for pod, verdict in judged if verdict.action is PodAction.EVICT or pod.release_record}
        self._deps.budgets.subscribe(self._subscriber, held)
        if not self._deps.budgets.is_synced(held):
            self.unsynced_reason = self._deps.budgets.why_not_synced(sorted(held))
            return None
        said = {f"{b.namespace}/{b.pod}": b for b in status.blockers}
        forecasts = self._forecasts(judged, context, wait_for_plan=may_move and not release_only)
        if forecasts is None:
            self.unsynced_reason = "the plan for its pods is not made yet"
            return None
        choices = self._deps.replacer.evaluate(
            self._subscriber,
            judged,
            settings,
            context.now,
            may_move=may_move,
            blockers=said,
            release_only=release_only,
            forecasts=forecasts,
        )
        if choices is None:
            self.unsynced_reason = self._deps.replacer.why_not_synced(self._subscriber)
            return None
        self.unsynced_reason = ""
        if may_move:
            choices |= capacity.hold_without_room(
                judged, choices, forecasts, settings, may_stay=self.migration_requests is not None
            )
        self._decisions = choices
        judged = [(pod, _apply_step(verdict, choices.get(pod.uid))) for pod, verdict in judged]
        judged = self._bypass_budgets(judged, choices, context)
        known = {pod.uid for pod, _ in judged if pod.key in said}
        refusals = self._lasting_refusals(self._refusals(judged, choices), known, context.now)
        since = {(b.namespace, b.pod, str(b.class_)): b.since for b in status.blockers}
        waiting = {
            uid
            for uid, choice in choices.items()
            if choice.step not in _SENDING_STEPS and choice.step is not ReplacementStep.HOLD
        }
        detaching, hanging = self._unused_volumes(context)
        self._record_removals(settings, context.now)
        tally = pod_summary.summarize(
            judged,
            self._session.attempts,
            refusals,
            since,
            context.now,
            unreachable=context.node_unreachable,
            waiting_uids=frozenset(waiting),
            replacement_timeout=settings.replacement_timeout,
        )
        must = [(pod, v) for pod, v in judged if pod.uid in tally.leaving_uids]
        lines = self._eviction_rates.group_pods(
            must,
            self._single_budgets(pod for pod, _ in must),
            context.active_for,
            grace_period_seconds=settings.grace_period_seconds,
        )
        tally = replace(
            tally,
            detaching_volumes=detaching,
            stuck_volumes=hanging,
            eviction_groups=lines,
            removed_released_pods=tuple(self._removed_by_others),
        )
        if self.migration_requests is None and (unreadable := self._informer.unreadable):
            tally = pod_summary.with_unreadable(tally, unreadable, since, context.now)
        self._volumes = context.volumes
        self._count_moved(status, tally, context.now)
        return tally

    def _record_removals(self, settings: DrainSettings, now: datetime) -> None:
        """Note released pods that have gone though nobody was asked to evict them."""
        here = {pod.uid for pod in self.node_pods()} | (
            self._informer.unreadable_uids if self._informer else frozenset()
        )
        gone = [self._deps.replacer.as_released(pod) for pod in self._leaving.values() if pod.uid not in here]
        self._deps.replacer.record_removals(gone, settings, now)
        known = {pod.uid for pod in self._removed_by_others}
        lost = [
            pod
            for pod in self._leaving.values()
            if self._deps.replacer.was_removed_by_others(pod.uid) and pod.uid not in known
        ]
        self._removed_by_others = [*self._removed_by_others, *lost][-_MAX_REMOVED_REMEMBERED:]

    def _forecasts(
        self, pod_decisions: list[tuple[Pod, PodDecision]], context: EvictionContext, *, wait_for_plan: bool
    ) -> capacity.Forecasts | None:
        """What the plan says of the pods; None while it is worth waiting for.

        Those of a node that does not answer serve nobody: they go, room or not, and so do those that serve nobody on
        one that is ill.
        """
        if context.node_unreachable:
            return {}
        homeless = [
            pod for pod, verdict in pod_decisions if self._needs_plan(pod) and pod_actions.needs_placement(pod, verdict)
        ]
        found = self._deps.planner.forecast(
            self._subscriber, homeless, context.volumes, wait_for_plan=wait_for_plan and not context.node_failing
        )
        if found is None or not context.node_failing:
            return found
        return {pod.uid: found[pod.uid] for pod in homeless if pod.ready and pod.uid in found}

    def _needs_plan(self, pod: Pod) -> bool:
        """Whoever moves pods for the sake of evenness has looked at their places already."""
        return self.migration_requests is None or self._move_cause(pod).startswith(move_selection.CAUSE_PREFIX)

    def _decide_action(self, pod: Pod, settings: DrainSettings, context: EvictionContext) -> PodDecision:
        if (
            self.migration_requests is not None
            and pod.uid not in self.migration_requests
            and not pod.deletion_timestamp
        ):
            return PodDecision(PodAction.SKIP)  # released, and not wanted any more: it is returned
        return pod_actions.decide_action(pod, settings, context)

    def _move_cause(self, pod: Pod) -> str:
        """What the pod is moved for; empty where it is none of those. Whoever was let go of is looked after to the end."""
        if self.migration_requests is None:
            return f"NodeDrain/{self._subscriber}"
        return self.migration_requests.get(pod.uid) or (pod.release_record.cause if pod.release_record else "")

    def _unused_volumes(self, context: EvictionContext) -> tuple[frozenset[str], frozenset[str]]:
        """Volumes that pods have left behind: those to wait for, and those that have hung for too long."""
        silent = context.node_unreachable and not context.boot_dead  # nobody detaches anything there
        found = frozenset() if silent else context.volumes.awaiting_detach(self.node_pods())
        self._unused_since = {name: self._unused_since.get(name, context.now) for name in found}
        hanging = frozenset(
            name for name, since in self._unused_since.items() if context.now - since >= DETACH_STUCK_AFTER
        )
        return found - hanging, hanging

    def _bypass_budgets(
        self,
        pod_decisions: list[tuple[Pod, PodDecision]],
        decisions: Mapping[str, ReplacementDecision],
        context: EvictionContext,
    ) -> list[tuple[Pod, PodDecision]]:
        """On a failed node that is alive a pod that serves nobody, and may run twice, does not wait for its budget."""
        self._unready_since = {
            pod.uid: self._unready_since.get(pod.uid, context.now) for pod, _ in pod_decisions if not pod.ready
        }
        if not context.node_failing or context.node_unreachable:
            return pod_decisions
        sent = [
            row for row in pod_decisions if row[0].uid not in decisions or decisions[row[0].uid].step in _SENDING_STEPS
        ]
        refused = self._deps.eviction_queue.predicted_refusals(sent).keys()
        lost = {
            uid
            for uid, since in self._unready_since.items()
            if context.now - since >= _UNREADY_CONFIRMED_AFTER and uid in refused
        }
        return [(pod, pod_actions.bypass_budget(pod, v, context) if pod.uid in lost else v) for pod, v in pod_decisions]

    def _refusals(
        self, pod_decisions: list[tuple[Pod, PodDecision]], decisions: Mapping[str, ReplacementDecision]
    ) -> dict[str, tuple[EvictionResult, timedelta]]:
        """What would be refused now, and how long it may be before it is said."""
        sent = [(p, v) for p, v in pod_decisions if p.uid not in decisions or decisions[p.uid].step in _SENDING_STEPS]
        found = {
            uid: (answer, REFUSAL_REPORTED_AFTER)
            for uid, answer in self._deps.eviction_queue.predicted_refusals(sent).items()
        }
        for uid, choice in decisions.items():
            if choice.blocker_class:
                answer = EvictionResult(EvictionOutcome.REFUSED, choice.blocker_class, choice.message, choice.hint)
                found[uid] = (answer, timedelta())
            elif choice.step is ReplacementStep.WAIT and choice.waiting_for:
                answer = EvictionResult(
                    EvictionOutcome.REFUSED, BlockerClass.REPLACEMENT_NOT_READY, choice.waiting_for, _CHECK_OWNER_HINT
                )
                found[uid] = (answer, BLOCKED_AFTER)
        return found

    def _lasting_refusals(
        self, refusals: dict[str, tuple[EvictionResult, timedelta]], known: Collection[str], now: datetime
    ) -> dict[str, EvictionResult]:
        """Those refusals that have lasted: most budgets have room again as soon as a replacement is Ready.

        `known`: uids of those that the status names already, perhaps since before our start.
        """
        self._refused_since = {
            uid: self._refused_since.get(uid, now - REFUSAL_REPORTED_AFTER if uid in known else now) for uid in refusals
        }
        return {uid: answer for uid, (answer, wait) in refusals.items() if now - self._refused_since[uid] >= wait}

    def _single_budgets(self, rows: Iterable[Pod]) -> dict[str, DisruptionBudget]:
        """The budget of each pod that has just one, by the pod's uid."""
        return {
            pod.uid: found[0] for pod in rows if (found := self._deps.budgets.for_pod(pod) or ()) and len(found) == 1
        }

    def _count_moved(self, status: NodeDrainStatus, summary: PodSummary, now: datetime) -> None:
        """How many have left: those that had to go and are not there any more."""
        if self.moved_count is None:
            # What is Terminating for good was counted there, and is counted again.
            before = status.pods.moved if status.pods else 0
            self.moved_count = max(0, before - (summary.existing - summary.remaining))
        gone = (
            self._leaving.keys()
            - summary.leaving_uids
            - (self._informer.unreadable_uids if self._informer else frozenset())
        )
        if gone:
            moved = {uid for uid in gone if not self._deps.replacer.was_removed_by_others(uid)}
            self.moved_count += len(moved)
            left = self._single_budgets(self._leaving[uid] for uid in gone)
            for uid in gone:
                self._eviction_rates.record_moved(left.get(uid))
            for uid in moved:
                self._deps.replacer.record_replacement(self._deps.replacer.as_released(self._leaving[uid]))
            self._deps.metrics.pods_moved.inc(len(moved))
            self._deps.metrics.pods_moved_again.inc(
                sum(self._deps.move_history.record_move(self._leaving[uid], now) for uid in gone)
            )
            self._deps.eviction_queue.forget(self._session, list(gone))
            self._deps.budgets.forget(gone)
            self._deps.replacer.forget(gone)
        if gone or summary.in_flight:
            self.last_move_at = now
        self._leaving = {pod.uid: pod for pod in self.node_pods() if pod.uid in summary.leaving_uids}

    # -- acting -------------------------------------------------------------------------------------------------------

    def move(
        self, summary: PodSummary, policy: ReschedulePolicy, settings: DrainSettings, *, begun_only: bool = False
    ) -> float | None:
        """Start what may be started now; seconds until more may be, None where only an event can tell.

        `begun`: only pods that were let go of are moved, and no other.
        """
        turn = []
        busy = bool(summary.detaching_volumes) or any(
            self._volumes.has_volume_to_detach(pod) for pod in self.node_pods() if self._is_leaving(pod)
        )
        # By priority, the highest first: what matters most is attached elsewhere first.
        for pod, verdict in sorted(summary.next_pods, key=lambda row: -row[0].priority if row[0].all_claims else 0):
            if begun_only and not pod.release_record:
                continue
            # By proof all volumes are let go at once: none waits for another's.
            if (
                self._volumes.has_volume_to_detach(pod)
                and not verdict.forced
                and verdict.required_proof is not RequiredProof.BOOT_DEAD
            ):
                if busy and not self._is_leaving(pod):
                    continue
                busy = True
            choice = self._decisions.get(pod.uid)
            if choice:
                self._deps.replacer.start(self._subscriber, pod, choice, self._move_cause(pod))
            if choice is None or choice.step in _SENDING_STEPS:
                turn.append((pod, verdict))
        self._return_others(summary)
        self._session.grace_seconds = settings.grace_period_seconds
        rate = settings.max_evictions_per_second
        return self._deps.eviction_queue.send(self._session, turn, policy=policy.name, rate=rate)

    def release(self) -> None:
        """Release pods so that their replacements come up; none is evicted or deleted."""
        for pod in self.node_pods():
            if (choice := self._decisions.get(pod.uid)) and choice.step in (
                ReplacementStep.RELEASE,
                ReplacementStep.CLEAR_RECORD,
            ):
                self._deps.replacer.start(self._subscriber, pod, choice, self._move_cause(pod))

    def _is_leaving(self, pod: Pod) -> bool:
        return pod.deletion_timestamp is not None or pod.uid in self._deps.eviction_queue.evicting_uids()

    def _return_others(self, summary: PodSummary) -> None:
        """What a move left on pods whose turn it is not."""
        turn = {pod.uid for pod, _ in summary.next_pods}
        self.return_pods(lambda pod: pod.uid not in turn)

    def return_pods(self, selected: Callable[[Pod], bool] = lambda _: True) -> None:
        """Return released pods, and clear the records of those returned; nothing else is moved."""
        for pod in self._informer.items.values() if self._informer else ():
            choice = self._decisions.get(pod.uid)
            if (
                choice
                and pod.release_record
                and selected(pod)
                and choice.step in (ReplacementStep.RETURN, ReplacementStep.CLEAR_RECORD)
            ):
                self._deps.replacer.start(self._subscriber, pod, choice)

    def evict_unreturnable(self, policy: str) -> None:
        """Of a drain that ends: pods that cannot be returned go as those of their ReplicaSets would have gone."""
        rest = [
            (pod, PodDecision(PodAction.DELETE if choice.step is ReplacementStep.DELETE else PodAction.EVICT))
            for pod in (self._informer.items.values() if self._informer else ())
            if (choice := self._decisions.get(pod.uid))
            and pod.release_record
            and choice.step in (ReplacementStep.DELETE, ReplacementStep.EVICT)
        ]
        self._deps.eviction_queue.send(self._session, rest, policy=policy, rate=20)


def _apply_step(pod_decision: PodDecision, decision: ReplacementDecision | None) -> PodDecision:
    """A pod that its owner wants no more is deleted plainly: eviction is refused for ever where a budget expects 0."""
    if decision and decision.step is ReplacementStep.DELETE and pod_decision.action is PodAction.EVICT:
        return PodDecision(PodAction.DELETE, pod_decision.order)
    return pod_decision
