"""The pods of one drain, counted and sorted: who goes next, who blocks, how far it is."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from rescheduler.api import names
from rescheduler.api.drains import Blocker, BlockerClass
from rescheduler.core.drain.eta import Line
from rescheduler.core.eviction.api_responses import BY_BUDGETS, OF_BUDGETS, Answer, Outcome
from rescheduler.core.eviction.pod_actions import Fate, Premise, Verdict
from rescheduler.core.model.pods import Pod

MOST_BLOCKERS = 50
"""So many are named in status; `blockersTotal` counts all."""
_FOREIGN_MOVE = (
    f"The annotation {names.MOVE} is ignored: it counts only on a pod that Rescheduler released itself, whose controller is "
    f"the Deployment that it names. Remove it: kubectl annotate pod NAME {names.MOVE}-"
)
_REPORTED_RETRIES = 3  # a retry so often in a row is worth a blocker; before that it is noise
_REPORTED_AFTER = timedelta(seconds=10)  # or one that has failed for so long: a request may take 40 s
STANDS = timedelta(seconds=15)
"""So long an accepted eviction counts although the pod is not Terminating: the watch may be behind."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What became of the evictions of one pod so far.

    Attributes:
        accepted: when the server took one; None while it has not.
        answer: its last answer that was no success; beside `accepted`: what came of an earlier one.
        failures: such answers in a row; `since`: when the first of them came.
    """

    accepted: datetime | None = None
    answer: Answer | None = None
    failures: int = 0
    since: datetime | None = None

    def stands(self, now: datetime) -> bool:
        """Whether the pod is on its way by it; one that had no effect before is not believed again."""
        return self.accepted is not None and self.answer is None and now - self.accepted < STANDS

    def refusal(self, now: datetime) -> Answer | None:
        """The last answer, if it is worth a blocker: retries are for a moment, and so is what a budget refuses."""
        answer = self.answer
        if answer is None or (answer.outcome is Outcome.REFUSED and answer.cause not in OF_BUDGETS):
            return answer
        long = self.since is not None and now - self.since >= _REPORTED_AFTER
        return answer if self.failures >= _REPORTED_RETRIES or long else None


@dataclass(frozen=True, slots=True)
class Tally:
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

    next: tuple[tuple[Pod, Verdict], ...] = ()
    leaving: frozenset[str] = frozenset()
    objects: int = 0
    remaining: int = 0
    in_flight: int = 0
    waiting: int = 0
    lines: tuple[Line, ...] = ()
    unproven: int = 0
    proven: int = 0
    unsent: int = 0
    lost: tuple[Pod, ...] = ()
    detaching: frozenset[str] = frozenset()
    hanging: frozenset[str] = frozenset()
    notes: tuple[tuple[Pod, str], ...] = ()
    taken: tuple[Pod, ...] = ()
    skipped: int = 0
    blockers: tuple[Blocker, ...] = field(default_factory=tuple)


def tally(
    judged: Iterable[tuple[Pod, Verdict]],
    attempts: Mapping[str, Attempt],
    refusals: Mapping[str, Answer],
    since: Mapping[tuple[str, str, str], datetime],
    now: datetime,
    *,
    unreachable: bool,
    waiting: frozenset[str] = frozenset(),
    replacement_timeout: timedelta = timedelta(minutes=5),
) -> Tally:
    """Count and sort.

    `refusals`: what budgets as watched would answer, by uid, without a request. `since`: when known blockers
    began, by namespace, pod and class. `waiting`: uids of pods that wait for their turn or their replacement.
    """
    late = now - replacement_timeout
    rows = list(judged)
    must = [(pod, verdict) for pod, verdict in rows if verdict.fate is not Fate.STAY]
    # On an unreachable node a Terminating pod may stay so for ever: for order and progress it is gone.
    here = [(pod, v) for pod, v in must if not (unreachable and _leaves(v))]
    proven = [(pod, v) for pod, v in must if v.premise is Premise.DEAD]
    first = min((v.order for _, v in here), default=0)
    # At its deadline a pod goes at once: behind a lower order that is still ending it would be late.
    turn = [(p, v) for p, v in here if (v.order == first or v.forced) and v.fate in (Fate.EVICT, Fate.DELETE)]
    blockers = [
        Blocker(
            namespace=pod.namespace,
            pod=pod.name,
            class_=answer.cause,
            message=answer.message,
            hint=answer.hint,
            since=since.get((pod.namespace, pod.name, str(answer.cause)), now),
            pdb=answer.budget.name if answer.budget else None,
            healthy=answer.budget.healthy if answer.budget else None,
            needed=answer.budget.needed if answer.budget else None,
        )
        for pod, verdict in must
        if (pod.finished or not (unreachable and _leaves(verdict)))
        and (answer := _refusal(verdict, attempts.get(pod.uid, Attempt()), refusals.get(pod.uid), now))
        and answer.cause
    ]
    return Tally(
        next=tuple(sorted(turn, key=lambda row: (row[0].priority, row[0].key))),
        leaving=frozenset(pod.uid for pod, _ in must),
        objects=len(must),
        remaining=len(here),
        in_flight=sum(_in_flight(p, v, attempts.get(p.uid, Attempt()), now, late) for p, v in must),
        waiting=sum(p.released and p.uid in waiting for p, _ in must),
        unproven=sum(v.cause is BlockerClass.WAITING_FOR_PROOF for _, v in must),
        proven=len(proven),
        unsent=sum(
            v.fate is not Fate.LEAVING and not _refused(v, attempts.get(p.uid, Attempt()), refusals.get(p.uid), now)
            for p, v in proven
        ),
        lost=tuple(p for p, v in proven if v.fate is Fate.LEAVING),
        notes=(
            *((pod, verdict.note) for pod, verdict in here if verdict.note),
            *((pod, _FOREIGN_MOVE) for pod, _ in rows if pod.foreign_move),
        ),
        skipped=len(rows) - len(must),
        blockers=tuple(sorted(blockers, key=lambda b: (b.since, b.namespace, b.pod))),
    )


def with_unreadable(
    found: Tally, pods: Mapping[str, str], since: Mapping[tuple[str, str, str], datetime], now: datetime
) -> Tally:
    """Count pods that are there and cannot be read, by namespace/name and with the reason: each blocks.

    Nothing is known of them, but that the node is not empty.
    """
    blockers = []
    for key, reason in sorted(pods.items()):
        namespace, _, name = key.partition("/")
        known = since.get((namespace, name, str(BlockerClass.UNREADABLE)), now)
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
        found,
        objects=found.objects + len(pods),
        remaining=found.remaining + len(pods),
        blockers=tuple(sorted((*found.blockers, *blockers), key=lambda b: (b.since, b.namespace, b.pod))),
    )


def _leaves(verdict: Verdict) -> bool:
    """It is Terminating, and nothing but its kubelet keeps it."""
    return verdict.fate is Fate.LEAVING and verdict.cause is not BlockerClass.WAITING_FOR_PROOF


def _refused(verdict: Verdict, attempt: Attempt, foreseen: Answer | None, now: datetime) -> bool:
    answer = _refusal(verdict, attempt, foreseen, now)
    return answer is not None and answer.outcome is Outcome.REFUSED


def _in_flight(pod: Pod, verdict: Verdict, attempt: Attempt, now: datetime, late: datetime) -> bool:
    """Whether the pod is on its way: what is stuck, or was let go before `late`, moves no more by itself."""
    if verdict.fate is Fate.LEAVING:
        return verdict.cause is None
    return attempt.stands(now) or (pod.released and pod.move is not None and pod.move.since > late)


def _refusal(verdict: Verdict, attempt: Attempt, foreseen: Answer | None, now: datetime) -> Answer | None:
    """What holds the pod: what the server answered of it, if that is more than its budgets say."""
    if verdict.cause:
        return Answer(Outcome.REFUSED, verdict.cause, verdict.message, verdict.hint)
    if verdict.fate is Fate.LEAVING or attempt.stands(now):
        return None
    answered = attempt.refusal(now)
    if foreseen and foreseen.cause in BY_BUDGETS and answered and answered.cause not in BY_BUDGETS:
        return answered
    return foreseen or answered
