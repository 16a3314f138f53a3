"""Sends evictions: one in flight for each budget, others side by side, within the policy's rate.

The API server sleeps 500 ms where two evictions meet on one budget, so they go one after another; those of
different budgets do not wait for each other. A budget without room is not asked: its watch says when it has some.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from rescheduler.api.drains import BlockerClass
from rescheduler.core import answers
from rescheduler.core.answers import Answer, Outcome
from rescheduler.core.budgets import Budget
from rescheduler.core.pods import Pod
from rescheduler.core.tallies import Attempt
from rescheduler.core.verdicts import Fate, Premise, Verdict
from rescheduler.engine.budgets import Budgets
from rescheduler.engine.clock import Clock
from rescheduler.engine.metrics import Metrics
from rescheduler.kube import paths
from rescheduler.kube.client import TRANSIENT, ApiError, Client

log = structlog.get_logger("rescheduler.evictions")

MOST_IN_FLIGHT = 48
"""Requests at once over all drains: beyond that the API server only queues them (measured, `make bench`)."""
_TIMEOUT = 40.0  # seconds; the server itself may hold an eviction for 10 s while budgets collide
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0  # seconds between attempts; a blocked pod costs at most 2 requests a minute


@dataclass(slots=True)
class Bucket:
    """A token bucket: `rate` a second, one second's worth at once."""

    clock: Callable[[], float]
    rate: float = 20.0
    level: float = 20.0
    filled: float | None = None

    def wait(self, rate: float) -> float:
        """Take a token at this rate: 0.0; or the seconds until there is one."""
        now = self.clock()
        if self.filled is None:
            self.level = rate
        else:
            self.level = min(max(rate, 1.0), self.level + (now - self.filled) * rate)
        self.filled = now
        if self.level >= 1:
            self.level -= 1
            return 0.0
        return (1 - self.level) / rate


@dataclass(slots=True, eq=False)
class Sender:
    """What is in flight of one drain.

    Attributes:
        attempts: by pod uid.
        due: monotonic time before which a pod is not tried again.
        confirm: says why a pod may not go after all (empty: it may), from what the cluster says then.
    """

    wake: Callable[[], None]
    confirm: Callable[[Pod, Verdict], Awaitable[str]] | None = None
    grace: int | None = None
    attempts: dict[str, Attempt] = field(default_factory=dict)
    due: dict[str, float] = field(default_factory=dict)
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)


class Evictions:
    """One for the process: shares budgets, the bound on what is in flight, and the rates."""

    def __init__(self, client: Client, clock: Clock, budgets: Budgets, metrics: Metrics) -> None:
        self._client, self._clock, self._budgets, self._metrics = client, clock, budgets, metrics
        self._busy: set[str] = set()  # uids of budgets with an eviction in flight
        self._going: set[str] = set()
        self._refused: dict[str, str] = {}  # by pod uid
        self._in_flight = 0
        self._waiting: set[Sender] = set()  # for what another drain has in flight
        self._buckets: dict[str, Bucket] = {}

    def going(self) -> frozenset[str]:
        """Uids of pods whose eviction is in flight or accepted: they count as gone."""
        return frozenset(self._going)

    def refused(self, uid: str) -> str:
        """Why the server refused the last eviction of this pod, where no budget was short; empty where it did not."""
        return self._refused.get(uid, "")

    def forget(self, sender: Sender, uids: Iterable[str]) -> None:
        """Drop pods that are gone."""
        for uid in uids:
            sender.attempts.pop(uid, None)
            sender.due.pop(uid, None)
            self._going.discard(uid)
            self._refused.pop(uid, None)

    def refusals(self, pods: Sequence[tuple[Pod, Verdict]]) -> dict[str, Answer]:
        """What the budgets, as watched, would answer now, without asking the server."""
        found: dict[str, Answer] = {}
        for pod, verdict in pods:
            if verdict.fate is not Fate.EVICT:
                continue
            covering = self._budgets.of(pod) or ()
            if len(covering) > 1:
                names = " and ".join(b.name for b in covering)
                found[pod.uid] = Answer(
                    Outcome.REFUSED,
                    BlockerClass.SEVERAL_BUDGETS,
                    f"it is under the PodDisruptionBudgets {names}",
                    "the API server evicts no pod under two budgets: narrow one selector",
                )
            elif covering and not covering[0].would_allow(pod) and covering[0].uid not in self._busy:
                budget = covering[0]
                says = f"PodDisruptionBudget {budget.name} needs {budget.needed} healthy pods and has {budget.healthy}"
                found[pod.uid] = answers.exhausted(budget, says)
        return found

    def send(self, sender: Sender, pods: Sequence[tuple[Pod, Verdict]], *, policy: str, rate: float) -> float | None:
        """Start what may be started now; seconds until more may be, None where only an event can tell."""
        bucket = self._buckets.setdefault(policy, Bucket(self._clock.monotonic))
        soonest: float | None = None
        for pod, verdict in pods:
            attempt = sender.attempts.get(pod.uid)
            if pod.uid in sender.tasks or (attempt and attempt.accepted):
                continue
            wait = sender.due.get(pod.uid, 0.0) - self._clock.monotonic()
            if wait > 0:
                soonest = wait if soonest is None else min(soonest, wait)
                continue
            budget = self._free(pod, verdict)
            if budget is False or self._in_flight >= MOST_IN_FLIGHT:
                self._waiting.add(sender)
                continue
            if (wait := bucket.wait(rate)) > 0:
                return wait if soonest is None else min(soonest, wait)
            self._start(sender, pod, verdict, budget)
        return soonest

    def _free(self, pod: Pod, verdict: Verdict) -> Budget | bool | None:
        """The budget to spend (None: none covers the pod); False where the pod has to wait for one."""
        if verdict.fate is Fate.DELETE:
            return None
        covering = self._budgets.of(pod)
        if covering is None or len(covering) > 1:
            return False
        if not covering:
            return None
        budget = covering[0]
        return budget if budget.uid not in self._busy and budget.would_allow(pod) else False

    def _start(self, sender: Sender, pod: Pod, verdict: Verdict, budget: Budget | bool | None) -> None:
        held = budget if isinstance(budget, Budget) else None
        if held:
            self._busy.add(held.uid)
        self._in_flight += 1
        self._going.add(pod.uid)
        sender.tasks[pod.uid] = asyncio.create_task(self._run(sender, pod, verdict, held), name=f"evict {pod.key}")

    async def _run(self, sender: Sender, pod: Pod, verdict: Verdict, budget: Budget | None) -> None:
        try:
            answer = await self._ask(sender, pod, verdict, budget)
        except asyncio.CancelledError:
            # What came of it is seen on the pod; "going" for ever it would never count again.
            self._going.discard(pod.uid)
            raise
        finally:
            self._in_flight -= 1
            sender.tasks.pop(pod.uid, None)
            if budget:
                self._busy.discard(budget.uid)
            self._wake(sender)
        self._settle(sender, pod, answer, budget, self._clock.now())

    def _wake(self, sender: Sender) -> None:
        waiting, self._waiting = self._waiting | {sender}, set()
        for each in waiting:
            each.wake()

    async def _ask(self, sender: Sender, pod: Pod, verdict: Verdict, budget: Budget | None) -> Answer:
        as_seen = {"resourceVersion": pod.version} if verdict.as_seen else {}
        options: dict[str, object] = {"preconditions": {"uid": pod.uid, **as_seen}}
        # A pod's own grace may be 0: that would take it out of the API while its containers still run.
        if grace := verdict.grace or sender.grace or (1 if pod.grace < 1 else None):
            options["gracePeriodSeconds"] = max(1, grace)
        path = paths.pod(pod.namespace, pod.name)
        try:
            if (
                verdict.premise is not Premise.NOTHING
                and sender.confirm
                and (why := await sender.confirm(pod, verdict))
            ):
                return Answer(Outcome.RETRY, None, why)
            if verdict.fate is Fate.DELETE:
                await self._client.delete(path, {"apiVersion": "v1", "kind": "DeleteOptions", **options})
            else:
                body = {
                    "apiVersion": "policy/v1",
                    "kind": "Eviction",
                    "metadata": {"name": pod.name, "namespace": pod.namespace},
                    "deleteOptions": options,
                }
                await self._client.create(f"{path}/eviction", body, timeout=_TIMEOUT)
        except ApiError as error:
            return answers.judge(error.refusal, budget)
        except TRANSIENT as error:
            return Answer(Outcome.RETRY, None, str(error))
        return answers.ACCEPTED

    def _settle(self, sender: Sender, pod: Pod, answer: Answer, budget: Budget | None, now: datetime) -> None:
        before = sender.attempts.get(pod.uid, Attempt())
        self._metrics.evictions.labels(answer.outcome, answer.cause or "").inc()
        self._refused.pop(pod.uid, None)
        if answer.outcome in (Outcome.ACCEPTED, Outcome.GONE):
            log.info("pod.evicted", pod=pod.key, uid=pod.uid, node=pod.node, outcome=answer.outcome)
            sender.attempts[pod.uid] = Attempt(accepted=now)
            if budget and answer.outcome is Outcome.ACCEPTED:
                self._budgets.spend(budget)
            return
        self._going.discard(pod.uid)
        log.info("pod.refused", pod=pod.key, uid=pod.uid, node=pod.node, cause=answer.cause, message=answer.message)
        sender.attempts[pod.uid] = Attempt(None, answer, before.failures + 1)
        refused = answer.outcome is Outcome.REFUSED
        if refused and answer.cause not in answers.OF_BUDGETS:
            self._refused[pod.uid] = answer.message
        wait = _LONGEST_WAIT if refused else min(_FIRST_WAIT * 2**before.failures, _LONGEST_WAIT)
        sender.due[pod.uid] = self._clock.monotonic() + max(wait, answer.retry_after)
