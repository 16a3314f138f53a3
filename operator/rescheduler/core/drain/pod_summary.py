"""The pods of one drain, counted and sorted: who goes next, who blocks, how far it is."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from rescheduler.api import names
from rescheduler.api.drains import Blocker, BlockerClass
from rescheduler.core.drain.eta import EvictionGroup
from rescheduler.core.eviction.api_responses import (
    BUDGET_CLASSES,
    TEMPORARY_BUDGET_CLASSES,
    EvictionOutcome,
    EvictionResult,
)
from rescheduler.core.eviction.pod_actions import PodAction, PodDecision, RequiredProof
from rescheduler.core.model.pods import Pod

MAX_REPORTED_BLOCKERS = 50
"""So many are named in status; `blockersTotal` counts all."""
_FOREIGN_RECORD_MESSAGE = (
    f"The annotation {names.MOVE} is ignored: it counts only on a pod that Rescheduler released itself, whose controller is "
    f"the Deployment that it names. Remove it: kubectl annotate pod NAME {names.MOVE}-"
)
_REPORTED_AFTER_RETRIES = 3  # a retry so often in a row is worth a blocker; before that it is noise
_REPORTED_AFTER = timedelta(seconds=10)  # or one that has failed for so long: a request may take 40 s
ACCEPTED_EVICTION_VALID_FOR = timedelta(seconds=15)
"""So long an accepted eviction counts although the pod is not Terminating: the watch may be behind."""


@dataclass(frozen=True, slots=True)
class EvictionAttempts:
    """What became of the evictions of one pod so far.

    Attributes:
        accepted: when the server took one; None while it has not.
        answer: its last answer that was no success; beside `accepted`: what came of an earlier one.
        failures: such answers in a row; `since`: when the first of them came.
    """

    accepted_at: datetime | None = None
    last_result: EvictionResult | None = None
    failures: int = 0
    failing_since: datetime | None = None

    def is_in_progress(self, now: datetime) -> bool:
        """Whether the pod is on its way by it; one that had no effect before is not believed again."""
        return (
            self.accepted_at is not None
            and self.last_result is None
            and now - self.accepted_at < ACCEPTED_EVICTION_VALID_FOR
        )

    def reportable_result(self, now: datetime) -> EvictionResult | None:
        """The last answer, if it is worth a blocker: retries are for a moment, and so is what a budget refuses."""
        answer = self.last_result
        if answer is None or (
            answer.outcome is EvictionOutcome.REFUSED and answer.blocker_class not in TEMPORARY_BUDGET_CLASSES
        ):
            return answer
        long = self.failing_since is not None and now - self.failing_since >= _REPORTED_AFTER
        return answer if self.failures >= _REPORTED_AFTER_RETRIES or long else None


@dataclass(frozen=True, slots=True)
class PodSummary:
    """One look at a node's pods.

    Attributes:
        next: pods whose turn it is, with their verdicts: the lowest order that is not gone yet.
        leaving: uids of the pods that must leave and are still there.
        objects: pods that must leave and still exist, Terminating ones included.
        remaining: those not counted as moved.
        notes: words for the owners of pods.
        taken: released pods that somebody else removed; they do not count as moved.
        detaching: volumes still attached here, of pods that have left.
        hanging: those for so long that nothing waits for them any more.
        lines: those left, in the lines in which they leave.
        waiting: those released whose replacement is not Ready.
        unproven: those that wait for proof that their node is dead.
        proven: those that go by such proof; `unsent`: of these, those neither Terminating nor refused; `lost`: of
            these, those Terminating.
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
    removed_released_pods: tuple[Pod, ...] = ()
    skipped: int = 0
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
    """Count and sort.

    `refusals`: what budgets as watched would answer, by uid, without a request. `since`: when known blockers
    began, by namespace, pod and class. `waiting`: uids of pods that wait for their turn or their replacement.
    """
    late = now - replacement_timeout
    rows = list(pod_decisions)
    must = [(pod, verdict) for pod, verdict in rows if verdict.action is not PodAction.SKIP]
    # On an unreachable node a Terminating pod may stay so for ever: for order and progress it is gone.
    here = [(pod, v) for pod, v in must if not (unreachable and _waits_only_for_kubelet(v))]
    proven = [(pod, v) for pod, v in must if v.required_proof is RequiredProof.BOOT_DEAD]
    first = min((v.order for _, v in here), default=0)
    # At its deadline a pod goes at once: behind a lower order that is still ending it would be late.
    turn = [
        (p, v) for p, v in here if (v.order == first or v.forced) and v.action in (PodAction.EVICT, PodAction.DELETE)
    ]
    blockers = [
        Blocker(
            namespace=pod.namespace,
            pod=pod.name,
            class_=answer.blocker_class,
            message=answer.message,
            hint=answer.hint,
            since=blocked_since.get((pod.namespace, pod.name, str(answer.blocker_class)), now),
            pdb=answer.budget.name if answer.budget else None,
            healthy=answer.budget.healthy if answer.budget else None,
            needed=answer.budget.needed if answer.budget else None,
        )
        for pod, verdict in must
        if (pod.finished or not (unreachable and _waits_only_for_kubelet(verdict)))
        and (
            answer := _blocking_result(
                verdict, attempts.get(pod.uid, EvictionAttempts()), predicted_refusals.get(pod.uid), now
            )
        )
        and answer.blocker_class
    ]
    return PodSummary(
        next_pods=tuple(sorted(turn, key=lambda row: (row[0].priority, row[0].key))),
        leaving_uids=frozenset(pod.uid for pod, _ in must),
        existing=len(must),
        remaining=len(here),
        in_flight=sum(_is_in_flight(p, v, attempts.get(p.uid, EvictionAttempts()), now, late) for p, v in must),
        waiting_for_replacement=sum(p.released and p.uid in waiting_uids for p, _ in must),
        waiting_for_proof=sum(v.blocker_class is BlockerClass.WAITING_FOR_PROOF for _, v in must),
        proven=len(proven),
        proven_unsent=sum(
            v.action is not PodAction.WAIT_TERMINATING
            and not _is_refused(v, attempts.get(p.uid, EvictionAttempts()), predicted_refusals.get(p.uid), now)
            for p, v in proven
        ),
        proven_terminating=tuple(p for p, v in proven if v.action is PodAction.WAIT_TERMINATING),
        notes=(
            *((pod, verdict.owner_message) for pod, verdict in here if verdict.owner_message),
            *((pod, _FOREIGN_RECORD_MESSAGE) for pod, _ in rows if pod.has_foreign_record),
        ),
        skipped=len(rows) - len(must),
        blockers=tuple(sorted(blockers, key=lambda b: (b.since, b.namespace, b.pod))),
    )


def with_unreadable(
    summary: PodSummary, pods: Mapping[str, str], blocked_since: Mapping[tuple[str, str, str], datetime], now: datetime
) -> PodSummary:
    """Count pods that are there and cannot be read, by namespace/name and with the reason: each blocks.

    Nothing is known of them, but that the node is not empty.
    """
    blockers = []
    for key, reason in sorted(pods.items()):
        namespace, _, name = key.partition("/")
        known = blocked_since.get((namespace, name, str(BlockerClass.UNREADABLE)), now)
        message = f"the operator cannot read this pod: {reason}"
        hint = (
            f"kubectl -n {namespace} get pod {name} -o yaml, mend what is named or delete the pod; and report this bug"
        )
        blockers.append(
            Blocker(
                namespace=namespace, pod=name, class_=BlockerClass.UNREADABLE, message=message, hint=hint, since=known
            )
        )
    return replace(
        summary,
        existing=summary.existing + len(pods),
        remaining=summary.remaining + len(pods),
        blockers=tuple(sorted((*summary.blockers, *blockers), key=lambda b: (b.since, b.namespace, b.pod))),
    )


def _waits_only_for_kubelet(decision: PodDecision) -> bool:
    """It is Terminating, and nothing but its kubelet keeps it."""
    return (
        decision.action is PodAction.WAIT_TERMINATING and decision.blocker_class is not BlockerClass.WAITING_FOR_PROOF
    )


def _is_refused(
    decision: PodDecision, attempt: EvictionAttempts, predicted: EvictionResult | None, now: datetime
) -> bool:
    answer = _blocking_result(decision, attempt, predicted, now)
    return answer is not None and answer.outcome is EvictionOutcome.REFUSED


def _is_in_flight(
    pod: Pod, decision: PodDecision, attempt: EvictionAttempts, now: datetime, earliest_release: datetime
) -> bool:
    """Whether the pod is on its way: what is stuck, or was let go before `late`, moves no more by itself."""
    if decision.action is PodAction.WAIT_TERMINATING:
        return decision.blocker_class is None
    return attempt.is_in_progress(now) or (
        pod.released and pod.release_record is not None and pod.release_record.released_at > earliest_release
    )


def _blocking_result(
    decision: PodDecision, attempt: EvictionAttempts, predicted: EvictionResult | None, now: datetime
) -> EvictionResult | None:
    """What holds the pod: what the server answered of it, if that is more than its budgets say."""
    if decision.blocker_class:
        return EvictionResult(EvictionOutcome.REFUSED, decision.blocker_class, decision.message, decision.hint)
    if decision.action is PodAction.WAIT_TERMINATING or attempt.is_in_progress(now):
        return None
    answered = attempt.reportable_result(now)
    if (
        predicted
        and predicted.blocker_class in BUDGET_CLASSES
        and answered
        and answered.blocker_class not in BUDGET_CLASSES
    ):
        return answered
    return predicted or answered
