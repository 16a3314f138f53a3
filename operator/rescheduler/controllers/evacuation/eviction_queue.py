"""Sends evictions: one in flight for each budget, others side by side, within the policy's rate.

The API server sleeps 500 ms if two evictions meet on one budget, so they go one after another; those of different
budgets do not wait for each other. A budget without room is not polled: its watch shows when it has some. But a webhook
that takes evictions over, as KubeVirt's does, hears of a pod only by a real eviction, whatever its budget allows: so a
pod whose budget lets nobody go for a while is asked about all the same, once, and then now and then.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from rescheduler.controllers.evacuation.budget_watch import Budgets
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.controllers.runtime.rate_limits import Bucket, Slots
from rescheduler.core.drain.pod_summary import STANDS, Attempt
from rescheduler.core.eviction import api_responses, disruption_target
from rescheduler.core.eviction.api_responses import Answer, Outcome
from rescheduler.core.eviction.pod_actions import Fate, Premise, Verdict
from rescheduler.core.eviction.retries import Retries
from rescheduler.core.model.disruption_budgets import Budget
from rescheduler.core.model.pods import Pod
from rescheduler.kube import paths
from rescheduler.kube.client import STRATEGIC_PATCH, TRANSIENT, ApiError, Client
from rescheduler.kube.connection_limits import EVICTIONS

log = structlog.get_logger("rescheduler.evictions")

MOST_IN_FLIGHT = EVICTIONS
"""Evictions at once over all drains: one that waits for a connection would count as gone meanwhile."""
MOST_DELETES = 6
"""Plain deletes at once: apart, so that a failed node waits for nobody's eviction webhook; few, because they are quick."""
_TIMEOUT = 40.0  # seconds; the server itself may hold an eviction for 10 s while budgets collide
_FIRST_ASK = 12.0
"""Seconds after which a pod is asked about though its budget allows none (docs: within 15 s)."""
_IN_MOTION = 60.0
"""Seconds after a budget has let a pod go in which those behind it wait for their turn: a replacement takes its time."""
_ASK_AGAIN = 30.0  # seconds, for one pod
_GAPS = {True: 0.1, False: 15.0}
"""Seconds between two such requests under one budget: for pods asked about for the first time, and for all others."""


@dataclass(slots=True, eq=False)
class Sender:
    """What is in flight of one drain.

    Attributes:
        attempts: by pod uid.
        stuck: by pod uid, monotonic: since when its budgets do not let it go.
        asked: uids of pods that were asked about.
        confirm: says why a pod may not go after all (empty: it may), from what the cluster says then.
    """

    wake: Callable[[], None]
    confirm: Callable[[Pod, Verdict], Awaitable[str]] | None = None
    grace: int | None = None
    attempts: dict[str, Attempt] = field(default_factory=dict)
    stuck: dict[str, float] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Request:
    """One eviction or delete.

    Attributes:
        over: budgets that cover the pod, as far as they count it.
        hopeless: the budgets allow none; it is sent for the webhooks.
        again: an earlier one was answered as done, and the pod is still there.
    """

    sender: Sender
    pod: Pod
    verdict: Verdict
    over: tuple[Budget, ...]
    hopeless: bool = False
    again: bool = False

    @property
    def deletes(self) -> bool:
        return self.verdict.fate is Fate.DELETE

    @property
    def budget(self) -> Budget | None:
        """The budget that it may spend; under several the server refuses before it looks at any."""
        return self.over[0] if len(self.over) == 1 else None

    @property
    def keys(self) -> tuple[str, str]:
        """Who has its slot: the namespace, and the drain."""
        return f"namespace {self.pod.namespace}", f"drain {id(self.sender)}"


def _options(request: _Request, version: str) -> dict[str, object]:
    """Options of the delete; `version`: the pod's resourceVersion as it was judged, or as we marked it since."""
    pod, verdict = request.pod, request.verdict
    as_seen = {"resourceVersion": version} if verdict.as_seen else {}
    options: dict[str, object] = {"preconditions": {"uid": pod.uid, **as_seen}}
    # A pod's own grace may be 0: that would take it out of the API while its containers still run.
    if grace := verdict.grace or request.sender.grace or (1 if pod.grace < 1 else None):
        options["gracePeriodSeconds"] = max(1, grace)
    return options


class Evictions:
    """One for the process: shares budgets, the bounds on what is in flight, and the rates."""

    def __init__(self, client: Client, clock: Clock, budgets: Budgets, metrics: Metrics) -> None:
        self._client, self._clock, self._budgets, self._metrics = client, clock, budgets, metrics
        self._busy: dict[str, bool] = {}  # by uid of a budget with an eviction in flight: whether that has hope
        self._flying: set[str] = set()  # uids of pods with a request in flight
        self._accepted: dict[str, float] = {}  # by pod uid: until when that counts
        self._refused: dict[str, str] = {}  # by pod uid
        self._retries = Retries()
        self._asked: dict[str, float] = {}  # by pod uid: when it was last asked about without hope
        self._gaps: dict[tuple[str, bool], float] = {}  # by budget's uid and whether for the first time: not before
        self._let_go: dict[str, float] = {}  # by budget's uid: when it last let a pod go
        self._evictions, self._deletes = Slots(MOST_IN_FLIGHT), Slots(MOST_DELETES)
        self._waiting: set[Sender] = set()  # for what another drain has in flight
        self._buckets: dict[tuple[str, bool], Bucket] = {}

    def going(self) -> frozenset[str]:
        """Uids of pods whose eviction is in flight, or was accepted just now: they count as gone.

        Whoever is not Terminating some seconds after that was not evicted, and counts again.
        """
        now = self._clock.monotonic()
        return frozenset(self._flying).union(uid for uid, until in self._accepted.items() if now < until)

    def refused(self, uid: str) -> str:
        """Why the server refused the last eviction of this pod, where no budget was short; empty where it did not."""
        return self._refused.get(uid, "")

    def forget(self, sender: Sender, uids: Iterable[str]) -> None:
        """Drop pods that are gone."""
        uids = list(uids)
        self._retries.forget(uids)
        for uid in uids:
            sender.attempts.pop(uid, None)
            sender.stuck.pop(uid, None)
            sender.asked.discard(uid)
            self._accepted.pop(uid, None)
            self._refused.pop(uid, None)
            self._asked.pop(uid, None)

    def close(self, sender: Sender) -> None:
        """Send nothing more of this drain, and drop what is known of its pods."""
        for task in list(sender.tasks.values()):
            task.cancel()
        self.forget(sender, sender.asked.union(sender.stuck))
        self._waiting.discard(sender)
        now = self._clock.monotonic()
        self._gaps = {key: until for key, until in self._gaps.items() if now < until}
        self._let_go = {uid: at for uid, at in self._let_go.items() if now < at + _IN_MOTION}

    def refusals(self, pods: Sequence[tuple[Pod, Verdict]]) -> dict[str, Answer]:
        """What the budgets, as watched, would answer now, without asking the server."""
        found: dict[str, Answer] = {}
        for pod, verdict in pods:
            if verdict.fate is not Fate.EVICT:
                continue
            over = self._budgets.of(pod) or ()
            if (answer := api_responses.foresee(pod, over)) and not any(self._busy.get(budget.uid) for budget in over):
                found[pod.uid] = answer
        return found

    # -- what may be sent ---------------------------------------------------------------------------------------------

    def send(self, sender: Sender, pods: Sequence[tuple[Pod, Verdict]], *, policy: str, rate: float) -> float | None:
        """Start what may be started now; seconds until more may be, None where only an event can tell."""
        waits: list[float] = []
        hopeless: list[_Request] = []
        for pod, verdict in pods:
            if pod.uid in self._flying:
                self._waiting.add(sender)
                continue
            if (wait := self._wait(sender, pod)) > 0:
                waits.append(wait)
                continue
            over = self._over(pod, verdict)
            if over is None:
                continue  # its watch wakes the drain when the budgets are known
            again = pod.uid in sender.attempts and sender.attempts[pod.uid].accepted is not None
            request = _Request(sender, pod, verdict, over, api_responses.foresee(pod, over) is not None, again)
            if request.hopeless:
                hopeless.append(request)
                continue
            sender.stuck.pop(pod.uid, None)
            waits.append(self._try(request, policy, rate))
        # What can go goes first: the others share what is left of the rate.
        for request in sorted(hopeless, key=lambda each: each.pod.uid in self._asked):
            wait = self._until_asked(request)
            waits.append(wait if wait > 0 else self._try(request, policy, rate))
        return min((wait for wait in waits if wait > 0), default=None)

    def _wait(self, sender: Sender, pod: Pod) -> float:
        """Seconds until the pod may be asked about."""
        attempt = sender.attempts.get(pod.uid)
        accepted = attempt.accepted if attempt else None
        left = (accepted + STANDS - self._clock.now()).total_seconds() if accepted else 0.0
        return max(left, self._retries.wait(pod.uid, self._clock.monotonic()))

    def _over(self, pod: Pod, verdict: Verdict) -> tuple[Budget, ...] | None:
        """The budgets that the server asks before it lets the pod go; None while they are not known for sure."""
        if verdict.fate is Fate.DELETE or not pod.counts_in_budgets:
            return ()
        return self._budgets.of(pod)

    def _until_asked(self, request: _Request) -> float:
        """Seconds until a pod whose budgets allow none is asked about.

        A budget that lets pods go one by one is only slow: its pods are not asked about before their turn.
        """
        pod, now = request.pod, self._clock.monotonic()
        since = request.sender.stuck.setdefault(pod.uid, now)
        key = request.over[0].uid
        due = max(since + _FIRST_ASK, self._let_go.get(key, -_IN_MOTION) + _IN_MOTION)
        if pod.uid in self._asked:
            due = max(due, self._asked[pod.uid] + _ASK_AGAIN)
        return max(due, self._gaps.get((key, pod.uid not in self._asked), due)) - now

    def _try(self, request: _Request, policy: str, rate: float) -> float:
        """Start it if there is room for it; else the seconds until there may be, 0 where only an event can tell."""
        slots = self._deletes if request.deletes else self._evictions
        if any(budget.uid in self._busy for budget in request.over) or not slots.take(*request.keys):
            self._waiting.add(request.sender)
            return 0.0
        bucket = self._buckets.setdefault((policy, request.deletes), Bucket(self._clock.monotonic))
        if (wait := bucket.wait(rate)) > 0:
            slots.leave(*request.keys)
            return wait
        self._start(request)
        return 0.0

    def _start(self, request: _Request) -> None:
        pod, now = request.pod, self._clock.monotonic()
        if request.budget:
            self._busy[request.budget.uid] = not request.hopeless
        if request.hopeless:
            first = pod.uid not in self._asked
            self._gaps[request.over[0].uid, first] = now + _GAPS[first]
            self._asked[pod.uid] = now
        request.sender.asked.add(pod.uid)
        self._flying.add(pod.uid)
        self._accepted.pop(pod.uid, None)
        task = asyncio.create_task(self._run(request), name=f"evict {pod.key}")
        request.sender.tasks[pod.uid] = task
        # Not in the task itself: one that is cancelled before its first step never runs.
        task.add_done_callback(lambda _: self._end(request))

    # -- sending ------------------------------------------------------------------------------------------------------

    async def _run(self, request: _Request) -> None:
        pod = request.pod
        try:
            answer = await self._ask(request)
        except Exception as error:
            # A fault of ours costs this pod a try, and shows.
            log.exception("pod.eviction_failed", pod=pod.key, uid=pod.uid, node=pod.node)
            answer = api_responses.unanswered(f"{type(error).__name__}: {error}")
        self._settle(request, answer, self._clock.now())

    def _end(self, request: _Request) -> None:
        """The request is over, or was cancelled: then what came of it is seen on the pod."""
        (self._deletes if request.deletes else self._evictions).leave(*request.keys)
        self._flying.discard(request.pod.uid)
        request.sender.tasks.pop(request.pod.uid, None)
        if request.budget:
            self._busy.pop(request.budget.uid, None)
        self._wake(request.sender)

    def _wake(self, sender: Sender) -> None:
        waiting, self._waiting = self._waiting | {sender}, set()
        for each in waiting:
            each.wake()

    async def _ask(self, request: _Request) -> Answer:
        try:
            if why := await self._doubt(request):
                return api_responses.unconfirmed(why)
            if request.again and await self._is_gone(request.pod):
                return api_responses.GONE  # our watch is behind
        except TRANSIENT as error:
            return api_responses.unanswered(str(error))
        try:
            await (self._delete(request) if request.deletes else self._evict(request))
        except ApiError as error:
            return api_responses.judge(error.refusal, request.budget)
        except TRANSIENT as error:
            return api_responses.unanswered(str(error))
        return api_responses.ACCEPTED

    async def _evict(self, request: _Request) -> None:
        pod = request.pod
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod.name, "namespace": pod.namespace},
            "deleteOptions": _options(request, pod.version),
        }
        await self._client.create(f"{paths.pod(pod.namespace, pod.name)}/eviction", body, timeout=_TIMEOUT)

    async def _delete(self, request: _Request) -> None:
        pod, version = request.pod, request.pod.version
        try:
            version = await self._mark(pod)
        except ApiError as error:
            if api_responses.judge(error.refusal, None).outcome is not Outcome.REFUSED:
                raise
            # Whoever refuses the mark must not keep the pod of a dead node.
            log.warning("pod.not_marked", pod=pod.key, uid=pod.uid, node=pod.node, error=str(error))
        options = {"apiVersion": "v1", "kind": "DeleteOptions", **_options(request, version)}
        await self._client.delete(paths.pod(pod.namespace, pod.name), options)

    async def _mark(self, pod: Pod) -> str:
        """Set the condition DisruptionTarget, as the eviction API does; the pod's resourceVersion after that.

        Without it a Job that ignores disruptions counts the delete as a failure of its own.
        """
        path = f"{paths.pod(pod.namespace, pod.name)}/status"
        patch = disruption_target.target_patch(pod, self._clock.now())
        raw = await self._client.patch(path, patch, kind=STRATEGIC_PATCH)
        return str(raw["metadata"]["resourceVersion"])

    async def _doubt(self, request: _Request) -> str:
        """Why the pod may not go after all; empty where it may."""
        sender, verdict = request.sender, request.verdict
        if verdict.premise is Premise.NOTHING or sender.confirm is None:
            return ""
        return await sender.confirm(request.pod, verdict)

    async def _is_gone(self, pod: Pod) -> bool:
        """Whether the pod, read live, is Terminating or not there any more."""
        path = paths.namespaced("v1", pod.namespace, "pods")
        async for page in self._client.list(path, fieldSelector=f"metadata.name={pod.name}"):
            for raw in page["items"]:
                if raw["metadata"]["uid"] == pod.uid:
                    return "deletionTimestamp" in raw["metadata"]
        return True

    # -- what came of it ----------------------------------------------------------------------------------------------

    def _settle(self, request: _Request, answer: Answer, now: datetime) -> None:
        pod = request.pod
        self._metrics.evictions.labels(answer.outcome, answer.cause or "").inc()
        self._refused.pop(pod.uid, None)
        if answer.outcome in (Outcome.ACCEPTED, Outcome.GONE):
            log.info("pod.evicted", pod=pod.key, uid=pod.uid, node=pod.node, outcome=answer.outcome)
            self._accept(request, answer, now)
            return
        log.info("pod.refused", pod=pod.key, uid=pod.uid, node=pod.node, cause=answer.cause, message=answer.message)
        if answer.outcome is Outcome.REFUSED and answer.cause not in api_responses.OF_BUDGETS:
            self._refused[pod.uid] = answer.message
        if request.hopeless and answer.cause in api_responses.BY_BUDGETS:
            self._disappoint(request, answer)
            return
        if request.budget and answer.cause in api_responses.OF_BUDGETS:
            self._budgets.exhaust(request.budget)
            self._asked[pod.uid] = self._clock.monotonic()
        before = request.sender.attempts.get(pod.uid, Attempt())
        since = before.since if before.failures else now
        request.sender.attempts[pod.uid] = Attempt(None, answer, before.failures + 1, since)
        self._retries.failed(pod.uid, answer, self._clock.monotonic())

    def _accept(self, request: _Request, answer: Answer, now: datetime) -> None:
        """The pod is on its way; one that was so before and is still there was not evicted then."""
        pod, monotonic = request.pod, self._clock.monotonic()
        self._accepted[pod.uid] = monotonic + STANDS.total_seconds()
        if answer.outcome is Outcome.ACCEPTED and request.again:
            before, vain = request.sender.attempts.get(pod.uid, Attempt()), api_responses.unfulfilled(pod)
            request.sender.attempts[pod.uid] = Attempt(now, vain, before.failures + 1, before.since or now)
            self._retries.failed(pod.uid, vain, monotonic)
        else:
            request.sender.attempts[pod.uid] = Attempt(now)
            self._retries.rest(pod.uid, monotonic + (_ASK_AGAIN if request.again else 0.0))
        if request.budget and answer.outcome is Outcome.ACCEPTED:
            self._let_go[request.budget.uid] = monotonic
            if request.budget.spends(pod):
                self._budgets.spend(request.budget)

    def _disappoint(self, request: _Request, answer: Answer) -> None:
        """No webhook took the pod over: its budgets hold it, as their watch shows, and let it go when they can."""
        request.sender.attempts.pop(request.pod.uid, None)
        if answer.retry_after:
            self._retries.rest(request.pod.uid, self._clock.monotonic() + answer.retry_after)
