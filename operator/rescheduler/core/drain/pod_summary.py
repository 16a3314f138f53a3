"""Summarize the pods of one drain: which pods are next, which pods block, and how far the drain is."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from rescheduler.api.drains import Blocker, BlockerClass, CameBackPods, ChainMoveStatus, OptedOutPod
from rescheduler.api.history import Move
from rescheduler.core.drain import messages
from rescheduler.core.drain.eta import EvictionGroup
from rescheduler.core.eviction.api_responses import (
    BUDGET_CLASSES,
    TEMPORARY_BUDGET_CLASSES,
    EvictionOutcome,
    EvictionResult,
)
from rescheduler.core.eviction.opt_outs import opt_outs
from rescheduler.core.eviction.pod_actions import PodAction, PodDecision, RequiredProof
from rescheduler.core.model.pods import Pod
from rescheduler.core.replacement.decisions import ReplacementDecision

MAX_REPORTED_BLOCKERS = 50
"""The status names at most this many blockers; `blockersTotal` counts all."""
_REPORTED_AFTER_RETRIES = 3  # retries in a row before a blocker is reported
_REPORTED_AFTER = timedelta(seconds=10)  # or failing for this long: one request may take 40 s
ACCEPTED_EVICTION_VALID_FOR = timedelta(seconds=15)
"""An accepted eviction counts for this long before the pod is Terminating: the watch may lag."""


@dataclass(frozen=True, slots=True)
class EvictionAttempts:
    """The evictions of one pod so far.

    Attributes:
        accepted_at: when the API server accepted an eviction; None if it accepted none.
        last_result: the last response without success; next to `accepted_at`, the result of an earlier eviction.
        failures: such responses in a row.
        failing_since: when the first of them came; None without a failure.
    """

    accepted_at: datetime | None = None
    last_result: EvictionResult | None = None
    failures: int = 0
    failing_since: datetime | None = None

    def is_in_progress(self, now: datetime) -> bool:
        """Whether an accepted eviction is in progress; after an eviction without effect, a new one does not count."""
        return (
            self.accepted_at is not None
            and self.last_result is None
            and now - self.accepted_at < ACCEPTED_EVICTION_VALID_FOR
        )

    def reportable_result(self, now: datetime) -> EvictionResult | None:
        """Return the last response if it is worth a blocker; temporary failures are not, until they last."""
        result = self.last_result
        if result is None or (
            result.outcome is EvictionOutcome.REFUSED and result.blocker_class not in TEMPORARY_BUDGET_CLASSES
        ):
            return result
        is_lasting = self.failing_since is not None and now - self.failing_since >= _REPORTED_AFTER
        return result if self.failures >= _REPORTED_AFTER_RETRIES or is_lasting else None


@dataclass(frozen=True, slots=True)
class PodSummary:
    """The pods of a node at one moment.

    Attributes:
        next_pods: pods that may leave now, with their decisions: those of the lowest order that is left. The lowest
            priority comes first; pods of equal priority keep the order in which they were summarized.
        leaving_uids: UIDs of the pods that must leave and still exist.
        existing: pods that must leave and still exist, including Terminating ones.
        remaining: pods that do not count as moved.
        in_flight: pods that are leaving or were released recently.
        waiting_for_replacement: released pods whose replacement is not Ready.
        eviction_groups: the remaining pods, grouped for the estimate.
        waiting_for_proof: pods that wait for proof that their boot is dead.
        proven: pods that leave by such a proof.
        proven_unsent: of these, pods that are neither Terminating nor refused.
        proven_terminating: of these, pods that are Terminating.
        detaching_volumes: volumes of moved pods that are still attached to the node.
        stuck_volumes: of these, volumes that hang and no longer delay the drain.
        notes: pods with an ignored annotation, and the message for their owner.
        waits_for_node: pods that only this node can have, on the node or gone, as sorted namespace/name.
        removed_released_pods: released pods that somebody else removed; they do not count as moved.
        not_replaced_first: pods that leave without a replacement because none could be had, with the cause.
        skipped: pods that stay.
        staying: of these, the pods that could leave under other settings, with the reason.
        came_back: new pods that started on the node after its cordon, by owner.
        tolerating_left_at: when a pod that tolerates the cordon last left; None if none did.
        chain_moves: pods of other nodes that the drain moves first.
        opted_out: pods that leave although they ask another tool not to disrupt them.
        moves: pods that have left, the first ones; `moves_total` counts all.
        blockers: pods that cannot leave, oldest first.
    """

    next_pods: tuple[tuple[Pod, PodDecision], ...] = ()
    leaving_uids: frozenset[str] = frozenset()
    existing: int = 0
    remaining: int = 0
    in_flight: int = 0
    waiting_for_replacement: int = 0
    eviction_groups: tuple[EvictionGroup, ...] = ()
    waiting_for_proof: int = 0
    proven: int = 0
    proven_unsent: int = 0
    proven_terminating: tuple[Pod, ...] = ()
    detaching_volumes: frozenset[str] = frozenset()
    stuck_volumes: frozenset[str] = frozenset()
    notes: tuple[tuple[Pod, str], ...] = ()
    waits_for_node: tuple[str, ...] = ()
    removed_released_pods: tuple[Pod, ...] = ()
    not_replaced_first: tuple[tuple[Pod, ReplacementDecision], ...] = ()
    skipped: int = 0
    staying: tuple[tuple[Pod, str], ...] = ()
    came_back: tuple[CameBackPods, ...] = ()
    tolerating_left_at: datetime | None = None
    chain_moves: tuple[ChainMoveStatus, ...] = ()
    opted_out: tuple[OptedOutPod, ...] = ()
    moves: tuple[Move, ...] = ()
    moves_total: int = 0
    blockers: tuple[Blocker, ...] = field(default_factory=tuple)


def summarize(
    pod_decisions: Iterable[tuple[Pod, PodDecision]],
    attempts: Mapping[str, EvictionAttempts],
    predicted_refusals: Mapping[str, EvictionResult],
    blocked_since: Mapping[tuple[str, str, str], datetime],
    now: datetime,
    *,
    unreachable: bool,
    waiting_uids: frozenset[str] = frozenset(),
    replacement_timeout: timedelta = timedelta(minutes=5),
) -> PodSummary:
    """Summarize the pods of a node.

    `predicted_refusals`: the response that the watched budgets imply, by pod UID. `blocked_since`: when known blockers
    began, by namespace, pod and class. `waiting_uids`: UIDs of pods that wait for their turn or their replacement.
    """
    earliest_release = now - replacement_timeout
    rows = list(pod_decisions)
    must_leave = [(pod, decision) for pod, decision in rows if decision.action is not PodAction.SKIP]
    # A Terminating pod may stay on an unreachable node forever: it must not delay later orders.
    present = [(pod, v) for pod, v in must_leave if not (unreachable and _waits_only_for_kubelet(v))]
    proven = [(pod, v) for pod, v in must_leave if v.required_proof is RequiredProof.BOOT_DEAD]
    lowest_order = min((v.order for _, v in present), default=0)
    # A pod at its deadline leaves at once: waiting for a lower order would make it late.
    next_rows = [
        (p, v)
        for p, v in present
        if (v.order == lowest_order or v.forced) and v.action in (PodAction.EVICT, PodAction.DELETE)
    ]
    blockers = [
        Blocker(
            namespace=pod.namespace,
            pod=pod.name,
            class_=result.blocker_class,
            message=result.message,
            hint=result.hint,
            since=blocked_since.get((pod.namespace, pod.name, str(result.blocker_class)), now),
            pdb=result.budget.name if result.budget else None,
            healthy=result.budget.healthy if result.budget else None,
            needed=result.budget.needed if result.budget else None,
        )
        for pod, decision in must_leave
        if (pod.finished or not (unreachable and _waits_only_for_kubelet(decision)))
        and (
            result := _blocking_result(
                decision, attempts.get(pod.uid, EvictionAttempts()), predicted_refusals.get(pod.uid), now
            )
        )
        and result.blocker_class
    ]
    return PodSummary(
        next_pods=tuple(sorted(next_rows, key=lambda row: row[0].priority)),
        leaving_uids=frozenset(pod.uid for pod, _ in must_leave),
        existing=len(must_leave),
        remaining=len(present),
        in_flight=sum(
            _is_in_flight(p, v, attempts.get(p.uid, EvictionAttempts()), now, earliest_release) for p, v in must_leave
        ),
        waiting_for_replacement=sum(p.released and p.uid in waiting_uids for p, _ in must_leave),
        waiting_for_proof=sum(v.blocker_class is BlockerClass.WAITING_FOR_PROOF for _, v in must_leave),
        proven=len(proven),
        proven_unsent=sum(
            v.action is not PodAction.WAIT_TERMINATING
            and not _is_refused(v, attempts.get(p.uid, EvictionAttempts()), predicted_refusals.get(p.uid), now)
            for p, v in proven
        ),
        proven_terminating=tuple(p for p, v in proven if v.action is PodAction.WAIT_TERMINATING),
        notes=(
            *((pod, decision.owner_message) for pod, decision in present if decision.owner_message),
            *((pod, messages.FOREIGN_RELEASE_RECORD) for pod, _ in rows if pod.has_foreign_record),
        ),
        skipped=len(rows) - len(must_leave),
        staying=tuple(staying_pods(rows)),
        opted_out=tuple(opted_out_pods(must_leave, now)),
        blockers=tuple(sorted(blockers, key=lambda b: (b.since, b.namespace, b.pod))),
    )


def staying_pods(pod_decisions: Iterable[tuple[Pod, PodDecision]]) -> list[tuple[Pod, str]]:
    """Return the pods that a drain leaves, and that could leave under other settings, with the reason, by name."""
    named = ((pod, d.message) for pod, d in pod_decisions if d.action is PodAction.SKIP and d.message)
    return sorted(named, key=lambda row: row[0].key)


def opted_out_pods(pod_decisions: Iterable[tuple[Pod, PodDecision]], now: datetime) -> list[OptedOutPod]:
    """Return the pods that leave although they ask another tool not to disrupt them, sorted by name.

    A pod that the drain leaves in place for such a wish is a blocker, and is not in the list.
    """
    return sorted(
        (
            OptedOutPod(namespace=pod.namespace, pod=pod.name, annotations=tuple(o.annotation for o in found))
            for pod, decision in pod_decisions
            if decision.action in (PodAction.EVICT, PodAction.DELETE) and (found := opt_outs(pod, now))
        ),
        key=lambda row: (row.namespace, row.pod),
    )


def with_unreadable(
    summary: PodSummary, pods: Mapping[str, str], blocked_since: Mapping[tuple[str, str, str], datetime], now: datetime
) -> PodSummary:
    """Count the pods of the node that cannot be parsed: each one is a blocker.

    `pods`: the reason by namespace/name. Such a pod still means that the node is not empty.
    """
    blockers = []
    for key, reason in sorted(pods.items()):
        namespace, _, name = key.partition("/")
        since = blocked_since.get((namespace, name, str(BlockerClass.UNREADABLE)), now)
        message, hint = messages.unreadable_pod(namespace, name, reason)
        blockers.append(
            Blocker(
                namespace=namespace, pod=name, class_=BlockerClass.UNREADABLE, message=message, hint=hint, since=since
            )
        )
    return replace(
        summary,
        existing=summary.existing + len(pods),
        remaining=summary.remaining + len(pods),
        blockers=tuple(sorted((*summary.blockers, *blockers), key=lambda b: (b.since, b.namespace, b.pod))),
    )


def _waits_only_for_kubelet(decision: PodDecision) -> bool:
    """Whether the pod is Terminating and waits only for its kubelet."""
    return (
        decision.action is PodAction.WAIT_TERMINATING and decision.blocker_class is not BlockerClass.WAITING_FOR_PROOF
    )


def _is_refused(
    decision: PodDecision, attempt: EvictionAttempts, predicted: EvictionResult | None, now: datetime
) -> bool:
    result = _blocking_result(decision, attempt, predicted, now)
    return result is not None and result.outcome is EvictionOutcome.REFUSED


def _is_in_flight(
    pod: Pod, decision: PodDecision, attempt: EvictionAttempts, now: datetime, earliest_release: datetime
) -> bool:
    """Whether the pod is leaving; a stuck pod, or one released before `earliest_release`, is not."""
    if decision.action is PodAction.WAIT_TERMINATING:
        return decision.blocker_class is None
    return attempt.is_in_progress(now) or (
        pod.released and pod.release_record is not None and pod.release_record.released_at > earliest_release
    )


def _blocking_result(
    decision: PodDecision, attempt: EvictionAttempts, predicted: EvictionResult | None, now: datetime
) -> EvictionResult | None:
    """Return the result that blocks the pod; a response of the API server outranks a prediction if it says more."""
    if decision.blocker_class:
        return EvictionResult(EvictionOutcome.REFUSED, decision.blocker_class, decision.message, decision.hint)
    if decision.action is PodAction.WAIT_TERMINATING or attempt.is_in_progress(now):
        return None
    reported = attempt.reportable_result(now)
    if (
        predicted
        and predicted.blocker_class in BUDGET_CLASSES
        and reported
        and reported.blocker_class not in BUDGET_CLASSES
    ):
        return reported
    return predicted or reported
