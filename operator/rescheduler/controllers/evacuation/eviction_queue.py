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

from rescheduler.controllers.evacuation.budget_watch import BudgetWatch
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.controllers.runtime.rate_limits import InFlightSlots, TokenBucket
from rescheduler.core.drain.pod_summary import ACCEPTED_EVICTION_VALID_FOR, EvictionAttempts
from rescheduler.core.eviction import api_responses, disruption_target
from rescheduler.core.eviction.api_responses import EvictionOutcome, EvictionResult
from rescheduler.core.eviction.pod_actions import PodAction, PodDecision, RequiredProof
from rescheduler.core.eviction.retries import RetrySchedule
from rescheduler.core.model.disruption_budgets import DisruptionBudget
from rescheduler.core.model.pods import Pod
from rescheduler.kube import paths
from rescheduler.kube.client import STRATEGIC_PATCH, TRANSIENT_ERRORS, ApiError, Client
from rescheduler.kube.connection_limits import EVICTION_CONNECTIONS

log = structlog.get_logger("rescheduler.evictions")

MAX_EVICTIONS_IN_FLIGHT = EVICTION_CONNECTIONS
"""Evictions at once over all drains: one that waits for a connection would count as gone meanwhile."""
MAX_DELETES_IN_FLIGHT = 6
"""Plain deletes at once: apart, so that a failed node waits for nobody's eviction webhook; few, because they are quick."""
_EVICTION_TIMEOUT = 40.0  # seconds; the server itself may hold an eviction for 10 s while budgets collide
_PROBE_AFTER = 12.0
"""Seconds after which a pod is asked about though its budget allows none (docs: within 15 s)."""
_BUDGET_ACTIVE_FOR = 60.0
"""Seconds after a budget has let a pod go in which those behind it wait for their turn: a replacement takes its time."""
_PROBE_INTERVAL = 30.0  # seconds, for one pod
_PROBE_GAPS = {True: 0.1, False: 15.0}
"""Seconds between two such requests under one budget: for pods asked about for the first time, and for all others."""


@dataclass(slots=True, eq=False)
class EvictionSession:
    """What is in flight of one drain.

    Attributes:
        attempts: by pod uid.
        stuck: by pod uid, monotonic: since when its budgets do not let it go.
        asked: uids of pods that were asked about.
        confirm: says why a pod may not go after all (empty: it may), from what the cluster says then.
    """

    wake: Callable[[], None]
    confirm: Callable[[Pod, PodDecision], Awaitable[str]] | None = None
    grace_seconds: int | None = None
    attempts: dict[str, EvictionAttempts] = field(default_factory=dict)
    blocked_since: dict[str, float] = field(default_factory=dict)
    requested_uids: set[str] = field(default_factory=set)
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _EvictionRequest:
    """One eviction or delete.

    Attributes:
        over: budgets that cover the pod, as far as they count it.
        hopeless: the budgets allow none; it is sent for the webhooks.
        again: an earlier one was answered as done, and the pod is still there.
    """

    session: EvictionSession
    pod: Pod
    decision: PodDecision
    budgets: tuple[DisruptionBudget, ...]
    is_probe: bool = False
    is_repeat: bool = False

    @property
    def is_delete(self) -> bool:
        return self.decision.action is PodAction.DELETE

    @property
    def budget(self) -> DisruptionBudget | None:
        """The budget that it may spend; under several the server refuses before it looks at any."""
        return self.budgets[0] if len(self.budgets) == 1 else None

    @property
    def slot_keys(self) -> tuple[str, str]:
        """Who has its slot: the namespace, and the drain."""
        return f"namespace {self.pod.namespace}", f"drain {id(self.session)}"


def _delete_options(request: _EvictionRequest, resource_version: str) -> dict[str, object]:
    """Options of the delete; `version`: the pod's resourceVersion as it was judged, or as we marked it since."""
    pod, verdict = request.pod, request.decision
    as_seen = {"resourceVersion": resource_version} if verdict.only_if_unchanged else {}
    options: dict[str, object] = {"preconditions": {"uid": pod.uid, **as_seen}}
    # A pod's own grace may be 0: that would take it out of the API while its containers still run.
    if grace := verdict.grace_seconds or request.session.grace_seconds or (1 if pod.grace_period_seconds < 1 else None):
        options["gracePeriodSeconds"] = max(1, grace)
    return options


class EvictionQueue:
    """One for the process: shares budgets, the bounds on what is in flight, and the rates."""

    def __init__(self, client: Client, clock: Clock, budgets: BudgetWatch, metrics: Metrics) -> None:
        self._client, self._clock, self._budgets, self._metrics = client, clock, budgets, metrics
        self._budgets_in_flight: dict[
            str, bool
        ] = {}  # by uid of a budget with an eviction in flight: whether that has hope
        self._in_flight: set[str] = set()  # uids of pods with a request in flight
        self._accepted_until: dict[str, float] = {}  # by pod uid: until when that counts
        self._refusal_messages: dict[str, str] = {}  # by pod uid
        self._retries = RetrySchedule()
        self._probed_at: dict[str, float] = {}  # by pod uid: when it was last asked about without hope
        self._next_probe_at: dict[
            tuple[str, bool], float
        ] = {}  # by budget's uid and whether for the first time: not before
        self._last_accepted_at: dict[str, float] = {}  # by budget's uid: when it last let a pod go
        self._eviction_slots, self._delete_slots = (
            InFlightSlots(MAX_EVICTIONS_IN_FLIGHT),
            InFlightSlots(MAX_DELETES_IN_FLIGHT),
        )
        self._waiting_sessions: set[EvictionSession] = set()  # for what another drain has in flight
        self._buckets: dict[tuple[str, bool], TokenBucket] = {}

    def evicting_uids(self) -> frozenset[str]:
        """Uids of pods whose eviction is in flight, or was accepted just now: they count as gone.

        Whoever is not Terminating some seconds after that was not evicted, and counts again.
        """
        now = self._clock.monotonic()
        return frozenset(self._in_flight).union(uid for uid, until in self._accepted_until.items() if now < until)

    def refusal_message(self, uid: str) -> str:
        """Why the server refused the last eviction of this pod, where no budget was short; empty where it did not."""
        return self._refusal_messages.get(uid, "")

    def forget(self, session: EvictionSession, uids: Iterable[str]) -> None:
        """Drop pods that are gone."""
        uids = list(uids)
        self._retries.forget(uids)
        for uid in uids:
            session.attempts.pop(uid, None)
            session.blocked_since.pop(uid, None)
            session.requested_uids.discard(uid)
            self._accepted_until.pop(uid, None)
            self._refusal_messages.pop(uid, None)
            self._probed_at.pop(uid, None)

    def close(self, session: EvictionSession) -> None:
        """Send nothing more of this drain, and drop what is known of its pods."""
        for task in list(session.tasks.values()):
            task.cancel()
        self.forget(session, session.requested_uids.union(session.blocked_since))
        self._waiting_sessions.discard(session)
        now = self._clock.monotonic()
        self._next_probe_at = {key: until for key, until in self._next_probe_at.items() if now < until}
        self._last_accepted_at = {
            uid: at for uid, at in self._last_accepted_at.items() if now < at + _BUDGET_ACTIVE_FOR
        }

    def predicted_refusals(self, pods: Sequence[tuple[Pod, PodDecision]]) -> dict[str, EvictionResult]:
        """What the budgets, as watched, would answer now, without asking the server."""
        found: dict[str, EvictionResult] = {}
        for pod, verdict in pods:
            if verdict.action is not PodAction.EVICT:
                continue
            over = self._budgets.for_pod(pod) or ()
            if (answer := api_responses.predict_refusal(pod, over)) and not any(
                self._budgets_in_flight.get(budget.uid) for budget in over
            ):
                found[pod.uid] = answer
        return found

    # -- what may be sent ---------------------------------------------------------------------------------------------

    def send(
        self, session: EvictionSession, pods: Sequence[tuple[Pod, PodDecision]], *, policy: str, rate: float
    ) -> float | None:
        """Start what may be started now; seconds until more may be, None where only an event can tell."""
        waits: list[float] = []
        hopeless: list[_EvictionRequest] = []
        for pod, verdict in pods:
            if pod.uid in self._in_flight:
                self._waiting_sessions.add(session)
                continue
            if (wait := self._delay(session, pod)) > 0:
                waits.append(wait)
                continue
            over = self._checked_budgets(pod, verdict)
            if over is None:
                continue  # its watch wakes the drain when the budgets are known
            again = pod.uid in session.attempts and session.attempts[pod.uid].accepted_at is not None
            request = _EvictionRequest(
                session, pod, verdict, over, api_responses.predict_refusal(pod, over) is not None, again
            )
            if request.is_probe:
                hopeless.append(request)
                continue
            session.blocked_since.pop(pod.uid, None)
            waits.append(self._try_start(request, policy, rate))
        # What can go goes first: the others share what is left of the rate.
        for request in sorted(hopeless, key=lambda each: each.pod.uid in self._probed_at):
            wait = self._probe_delay(request)
            waits.append(wait if wait > 0 else self._try_start(request, policy, rate))
        return min((wait for wait in waits if wait > 0), default=None)

    def _delay(self, session: EvictionSession, pod: Pod) -> float:
        """Seconds until the pod may be asked about."""
        attempt = session.attempts.get(pod.uid)
        accepted = attempt.accepted_at if attempt else None
        left = (accepted + ACCEPTED_EVICTION_VALID_FOR - self._clock.now()).total_seconds() if accepted else 0.0
        return max(left, self._retries.seconds_until_due(pod.uid, self._clock.monotonic()))

    def _checked_budgets(self, pod: Pod, decision: PodDecision) -> tuple[DisruptionBudget, ...] | None:
        """The budgets that the server asks before it lets the pod go; None while they are not known for sure."""
        if decision.action is PodAction.DELETE or not pod.counts_in_budgets:
            return ()
        return self._budgets.for_pod(pod)

    def _probe_delay(self, request: _EvictionRequest) -> float:
        """Seconds until a pod whose budgets allow none is asked about.

        A budget that lets pods go one by one is only slow: its pods are not asked about before their turn.
        """
        pod, now = request.pod, self._clock.monotonic()
        since = request.session.blocked_since.setdefault(pod.uid, now)
        key = request.budgets[0].uid
        due = max(since + _PROBE_AFTER, self._last_accepted_at.get(key, -_BUDGET_ACTIVE_FOR) + _BUDGET_ACTIVE_FOR)
        if pod.uid in self._probed_at:
            due = max(due, self._probed_at[pod.uid] + _PROBE_INTERVAL)
        return max(due, self._next_probe_at.get((key, pod.uid not in self._probed_at), due)) - now

    def _try_start(self, request: _EvictionRequest, policy: str, rate: float) -> float:
        """Start it if there is room for it; else the seconds until there may be, 0 where only an event can tell."""
        slots = self._delete_slots if request.is_delete else self._eviction_slots
        if any(budget.uid in self._budgets_in_flight for budget in request.budgets) or not slots.acquire(
            *request.slot_keys
        ):
            self._waiting_sessions.add(request.session)
            return 0.0
        bucket = self._buckets.setdefault((policy, request.is_delete), TokenBucket(self._clock.monotonic))
        if (wait := bucket.take(rate)) > 0:
            slots.release(*request.slot_keys)
            return wait
        self._start(request)
        return 0.0

    def _start(self, request: _EvictionRequest) -> None:
        pod, now = request.pod, self._clock.monotonic()
        if request.budget:
            self._budgets_in_flight[request.budget.uid] = not request.is_probe
        if request.is_probe:
            first = pod.uid not in self._probed_at
            self._next_probe_at[request.budgets[0].uid, first] = now + _PROBE_GAPS[first]
            self._probed_at[pod.uid] = now
        request.session.requested_uids.add(pod.uid)
        self._in_flight.add(pod.uid)
        self._accepted_until.pop(pod.uid, None)
        task = asyncio.create_task(self._run(request), name=f"evict {pod.key}")
        request.session.tasks[pod.uid] = task
        # Not in the task itself: one that is cancelled before its first step never runs.
        task.add_done_callback(lambda _: self._finish(request))

    # -- sending ------------------------------------------------------------------------------------------------------

    async def _run(self, request: _EvictionRequest) -> None:
        pod = request.pod
        try:
            answer = await self._send_request(request)
        except Exception as error:
            # A fault of ours costs this pod a try, and shows.
            log.exception("pod.eviction_failed", pod=pod.key, uid=pod.uid, node=pod.node)
            answer = api_responses.no_response(f"{type(error).__name__}: {error}")
        self._handle_result(request, answer, self._clock.now())

    def _finish(self, request: _EvictionRequest) -> None:
        """The request is over, or was cancelled: then what came of it is seen on the pod."""
        (self._delete_slots if request.is_delete else self._eviction_slots).release(*request.slot_keys)
        self._in_flight.discard(request.pod.uid)
        request.session.tasks.pop(request.pod.uid, None)
        if request.budget:
            self._budgets_in_flight.pop(request.budget.uid, None)
        self._wake_sessions(request.session)

    def _wake_sessions(self, session: EvictionSession) -> None:
        waiting, self._waiting_sessions = self._waiting_sessions | {session}, set()
        for each in waiting:
            each.wake()

    async def _send_request(self, request: _EvictionRequest) -> EvictionResult:
        try:
            if why := await self._confirm(request):
                return api_responses.not_confirmed(why)
            if request.is_repeat and await self._is_gone(request.pod):
                return api_responses.GONE  # our watch is behind
        except TRANSIENT_ERRORS as error:
            return api_responses.no_response(str(error))
        try:
            await (self._delete(request) if request.is_delete else self._evict(request))
        except ApiError as error:
            return api_responses.classify(error.response, request.budget)
        except TRANSIENT_ERRORS as error:
            return api_responses.no_response(str(error))
        return api_responses.ACCEPTED

    async def _evict(self, request: _EvictionRequest) -> None:
        pod = request.pod
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod.name, "namespace": pod.namespace},
            "deleteOptions": _delete_options(request, pod.resource_version),
        }
        await self._client.create(f"{paths.pod(pod.namespace, pod.name)}/eviction", body, timeout=_EVICTION_TIMEOUT)

    async def _delete(self, request: _EvictionRequest) -> None:
        pod, version = request.pod, request.pod.resource_version
        try:
            version = await self._set_disruption_target(pod)
        except ApiError as error:
            if api_responses.classify(error.response, None).outcome is not EvictionOutcome.REFUSED:
                raise
            # Whoever refuses the mark must not keep the pod of a dead node.
            log.warning("pod.disruption_target_not_set", pod=pod.key, uid=pod.uid, node=pod.node, error=str(error))
        options = {"apiVersion": "v1", "kind": "DeleteOptions", **_delete_options(request, version)}
        await self._client.delete(paths.pod(pod.namespace, pod.name), options)

    async def _set_disruption_target(self, pod: Pod) -> str:
        """Set the condition DisruptionTarget, as the eviction API does; the pod's resourceVersion after that.

        Without it a Job that ignores disruptions counts the delete as a failure of its own.
        """
        path = f"{paths.pod(pod.namespace, pod.name)}/status"
        patch = disruption_target.condition_patch(pod, self._clock.now())
        raw = await self._client.patch(path, patch, kind=STRATEGIC_PATCH)
        return str(raw["metadata"]["resourceVersion"])

    async def _confirm(self, request: _EvictionRequest) -> str:
        """Why the pod may not go after all; empty where it may."""
        sender, verdict = request.session, request.decision
        if verdict.required_proof is RequiredProof.NONE or sender.confirm is None:
            return ""
        return await sender.confirm(request.pod, verdict)

    async def _is_gone(self, pod: Pod) -> bool:
        """Whether the pod, read live, is Terminating or not there any more."""
        path = paths.in_namespace("v1", pod.namespace, "pods")
        async for page in self._client.list(path, fieldSelector=f"metadata.name={pod.name}"):
            for raw in page["items"]:
                if raw["metadata"]["uid"] == pod.uid:
                    return "deletionTimestamp" in raw["metadata"]
        return True

    # -- what came of it ----------------------------------------------------------------------------------------------

    def _handle_result(self, request: _EvictionRequest, result: EvictionResult, now: datetime) -> None:
        pod = request.pod
        self._metrics.evictions.labels(result.outcome, result.blocker_class or "").inc()
        self._refusal_messages.pop(pod.uid, None)
        if result.outcome in (EvictionOutcome.ACCEPTED, EvictionOutcome.GONE):
            log.info("pod.evicted", pod=pod.key, uid=pod.uid, node=pod.node, outcome=result.outcome)
            self._record_accepted(request, result, now)
            return
        log.info(
            "pod.eviction_refused",
            pod=pod.key,
            uid=pod.uid,
            node=pod.node,
            cause=result.blocker_class,
            message=result.message,
        )
        if (
            result.outcome is EvictionOutcome.REFUSED
            and result.blocker_class not in api_responses.TEMPORARY_BUDGET_CLASSES
        ):
            self._refusal_messages[pod.uid] = result.message
        if request.is_probe and result.blocker_class in api_responses.BUDGET_CLASSES:
            self._record_probe_refusal(request, result)
            return
        if request.budget and result.blocker_class in api_responses.TEMPORARY_BUDGET_CLASSES:
            self._budgets.mark_exhausted(request.budget)
            self._probed_at[pod.uid] = self._clock.monotonic()
        before = request.session.attempts.get(pod.uid, EvictionAttempts())
        since = before.failing_since if before.failures else now
        request.session.attempts[pod.uid] = EvictionAttempts(None, result, before.failures + 1, since)
        self._retries.record_failure(pod.uid, result, self._clock.monotonic())

    def _record_accepted(self, request: _EvictionRequest, result: EvictionResult, now: datetime) -> None:
        """The pod is on its way; one that was so before and is still there was not evicted then."""
        pod, monotonic = request.pod, self._clock.monotonic()
        self._accepted_until[pod.uid] = monotonic + ACCEPTED_EVICTION_VALID_FOR.total_seconds()
        if result.outcome is EvictionOutcome.ACCEPTED and request.is_repeat:
            before, vain = (
                request.session.attempts.get(pod.uid, EvictionAttempts()),
                api_responses.eviction_without_effect(pod),
            )
            request.session.attempts[pod.uid] = EvictionAttempts(
                now, vain, before.failures + 1, before.failing_since or now
            )
            self._retries.record_failure(pod.uid, vain, monotonic)
        else:
            request.session.attempts[pod.uid] = EvictionAttempts(now)
            self._retries.postpone(pod.uid, monotonic + (_PROBE_INTERVAL if request.is_repeat else 0.0))
        if request.budget and result.outcome is EvictionOutcome.ACCEPTED:
            self._last_accepted_at[request.budget.uid] = monotonic
            if request.budget.counts_eviction_of(pod):
                self._budgets.record_eviction(request.budget)

    def _record_probe_refusal(self, request: _EvictionRequest, result: EvictionResult) -> None:
        """No webhook took the pod over: its budgets hold it, as their watch shows, and let it go when they can."""
        request.session.attempts.pop(request.pod.uid, None)
        if result.retry_after:
            self._retries.postpone(request.pod.uid, self._clock.monotonic() + result.retry_after)
