"""Send evictions: one in flight for each budget, in parallel over budgets, within the rate of the policy.

The API server sleeps 500 ms if two evictions meet on one budget. So evictions of one budget are sent one after another.
A budget without room is not polled, because its watch shows when it has room. But some webhooks, such as that of
KubeVirt, move pods themselves. Such a webhook learns of a pod only through a real eviction. Therefore an exhausted
budget is probed: its pods are evicted for real now and then, and the API server refuses these evictions.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog

from rescheduler.controllers.evacuation import messages
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

log = structlog.get_logger("rescheduler.evacuation.eviction_queue")

MAX_EVICTIONS_IN_FLIGHT = EVICTION_CONNECTIONS
"""Evictions in flight over all drains. With more, a pod that waits for a connection would count as gone."""
MAX_DELETES_IN_FLIGHT = 6
"""Plain deletes in flight. They have their own limit, so that a failed node never waits for an eviction webhook."""
_EVICTION_TIMEOUT = 40.0  # seconds; the API server may hold an eviction for 10 s while budgets collide
_PROBE_AFTER = 12.0
"""Seconds until the first probe of a pod whose budget allows no eviction; the docs promise 15 s."""
_BUDGET_ACTIVE_FOR = 60.0
"""Seconds after an eviction during which the other pods of the budget are not probed: a replacement takes time."""
_PROBE_INTERVAL = 30.0  # seconds between two probes of one pod
_PROBE_GAPS = {True: 0.1, False: 15.0}
"""Seconds between two probes under one budget, by whether it is the first probe of the pod."""


ConfirmProof = Callable[[Pod, PodDecision], Awaitable[str | None]]
"""Returns why the proof that a decision requires no longer holds, from a live read; None if it holds."""


async def refuse_unproven(_pod: Pod, _decision: PodDecision) -> str:
    """Return that the required proof is not checked: for callers whose decisions require none."""
    return messages.PROOF_NOT_CHECKED


@dataclass(slots=True, eq=False)
class EvictionSession:
    """Requests of one drain, one node migration, or the orphaned pods.

    Attributes:
        wake: called when a request ends.
        grace_seconds: grace period for all requests; None means the pod's own.
        attempts: requests so far, by pod uid.
        blocked_since: start of the refusal by a budget, by pod uid; monotonic, in seconds.
        requested_uids: uids of pods with at least one request.
        sent: decision of the last accepted request, by pod uid.
        tasks: requests in flight, by pod uid.
    """

    wake: Callable[[], None]
    grace_seconds: int | None = None
    attempts: dict[str, EvictionAttempts] = field(default_factory=dict)
    blocked_since: dict[str, float] = field(default_factory=dict)
    requested_uids: set[str] = field(default_factory=set)
    sent: dict[str, PodDecision] = field(default_factory=dict)
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _EvictionRequest:
    """Eviction or plain delete of one pod.

    Attributes:
        budgets: budgets that cover the pod; empty for a plain delete, and for a pod that budgets do not count.
        confirm: checks the required proof just before the request.
        is_probe: the budgets allow no eviction; the request is for webhooks only.
        is_repeat: an earlier request was accepted, and the pod is not Terminating.
    """

    session: EvictionSession
    pod: Pod
    decision: PodDecision
    budgets: tuple[DisruptionBudget, ...]
    confirm: ConfirmProof
    is_probe: bool = False
    is_repeat: bool = False

    @property
    def is_delete(self) -> bool:
        return self.decision.action is PodAction.DELETE

    @property
    def budget(self) -> DisruptionBudget | None:
        """The only budget of the pod; None under several budgets, because the API server then checks none."""
        return self.budgets[0] if len(self.budgets) == 1 else None

    @property
    def slot_keys(self) -> tuple[str, str]:
        """Keys of the slot: the namespace and the drain, so that each gets a fair share."""
        return f"namespace {self.pod.namespace}", f"drain {id(self.session)}"


def _delete_options(request: _EvictionRequest, resource_version: str) -> dict[str, object]:
    """Return the DeleteOptions; `resource_version`: of the pod when it was read, or after our last write."""
    pod, decision = request.pod, request.decision
    unchanged = {"resourceVersion": resource_version} if decision.only_if_unchanged else {}
    options: dict[str, object] = {"preconditions": {"uid": pod.uid, **unchanged}}
    # A grace period of 0 would remove the pod from the API while its containers still run.
    own_minimum = 1 if pod.grace_period_seconds < 1 else None
    if grace := decision.grace_seconds or request.session.grace_seconds or own_minimum:
        options["gracePeriodSeconds"] = max(1, grace)
    return options


class EvictionQueue:
    """Evictions of the whole process: shares budgets, limits on requests in flight, and rates."""

    def __init__(self, client: Client, clock: Clock, budgets: BudgetWatch, metrics: Metrics) -> None:
        self._client, self._clock, self._budgets, self._metrics = client, clock, budgets, metrics
        # By uid of each budget with an eviction in flight: whether the eviction is no probe.
        self._budgets_in_flight: dict[str, bool] = {}
        self._in_flight: set[str] = set()  # uids of pods with a request in flight
        self._accepted_until: dict[str, float] = {}  # by pod uid: end of the validity of an accepted eviction
        self._refusal_messages: dict[str, str] = {}  # by pod uid
        self._retries = RetrySchedule()
        self._probed_at: dict[str, float] = {}  # by pod uid: time of the last probe
        self._next_probe_at: dict[tuple[str, bool], float] = {}  # by budget uid, and whether the pod was never probed
        self._last_accepted_at: dict[str, float] = {}  # by budget uid: time of the last accepted eviction
        self._budgets_awaited: set[str] = set()  # uids of exhausted budgets with pods that wait for them
        self._budgets_opened_at: dict[str, float] = {}  # by uid: when such a budget was seen to allow an eviction
        self._eviction_slots, self._delete_slots = (
            InFlightSlots(MAX_EVICTIONS_IN_FLIGHT),
            InFlightSlots(MAX_DELETES_IN_FLIGHT),
        )
        self._waiting_sessions: set[EvictionSession] = set()  # wait for requests of other sessions
        self._buckets: dict[tuple[str, bool], TokenBucket] = {}

    def evicting_uids(self) -> frozenset[str]:
        """Return the uids of pods whose eviction is in flight or was just accepted: these pods count as gone.

        A pod that is not Terminating some seconds after its accepted eviction counts again.
        """
        now = self._clock.monotonic()
        return frozenset(self._in_flight).union(uid for uid, until in self._accepted_until.items() if now < until)

    def refusal_message(self, uid: str) -> str | None:
        """Return why the last eviction of this pod was refused, apart from budgets; None if it was not."""
        return self._refusal_messages.get(uid)

    def forget(self, session: EvictionSession, uids: Iterable[str]) -> None:
        """Drop pods that are gone."""
        uids = list(uids)
        self._retries.forget(uids)
        for uid in uids:
            session.attempts.pop(uid, None)
            session.blocked_since.pop(uid, None)
            session.requested_uids.discard(uid)
            session.sent.pop(uid, None)
            self._accepted_until.pop(uid, None)
            self._refusal_messages.pop(uid, None)
            self._probed_at.pop(uid, None)

    def close(self, session: EvictionSession) -> None:
        """Cancel the requests of this session, and drop its pods."""
        for task in list(session.tasks.values()):
            task.cancel()
        self.forget(session, session.requested_uids.union(session.blocked_since))
        self._waiting_sessions.discard(session)
        now = self._clock.monotonic()
        self._budgets_awaited.clear()  # only a metric needs them, and no event would remove them
        self._budgets_opened_at.clear()
        self._next_probe_at = {key: until for key, until in self._next_probe_at.items() if now < until}
        self._last_accepted_at = {
            uid: at for uid, at in self._last_accepted_at.items() if now < at + _BUDGET_ACTIVE_FOR
        }

    def predicted_refusals(self, pods: Sequence[tuple[Pod, PodDecision]]) -> dict[str, EvictionResult]:
        """Return the refusals that the watched budgets predict, by pod uid, without a request."""
        refusals: dict[str, EvictionResult] = {}
        for pod, decision in pods:
            if decision.action is not PodAction.EVICT:
                continue
            budgets = self._budgets.for_pod(pod) or ()
            if (refusal := api_responses.predict_refusal(pod, budgets)) and not any(
                self._budgets_in_flight.get(budget.uid) for budget in budgets
            ):
                refusals[pod.uid] = refusal
        return refusals

    # -- requests that are due ----------------------------------------------------------------------------------------

    def send(
        self,
        session: EvictionSession,
        pods: Sequence[tuple[Pod, PodDecision]],
        *,
        policy: str,
        rate: float,
        confirm: ConfirmProof,
    ) -> float | None:
        """Start the requests that are due; return the seconds until the next is due, None if only an event can tell.

        `confirm` checks the proof just before each request that requires proof.
        """
        waits: list[float] = []
        probes: list[_EvictionRequest] = []
        for pod, decision in pods:
            if pod.uid in self._in_flight:
                self._waiting_sessions.add(session)
                continue
            if (wait := self._delay(session, pod)) > 0:
                waits.append(wait)
                continue
            budgets = self._checked_budgets(pod, decision)
            if budgets is None:
                continue  # the watch wakes the drain when the budgets are listed
            is_repeat = pod.uid in session.attempts and session.attempts[pod.uid].accepted_at is not None
            is_probe = api_responses.predict_refusal(pod, budgets) is not None
            request = _EvictionRequest(session, pod, decision, budgets, confirm, is_probe, is_repeat)
            if request.is_probe:
                self._budgets_awaited.update(budget.uid for budget in budgets)
                probes.append(request)
                continue
            for budget in budgets:
                if budget.uid in self._budgets_awaited:
                    self._budgets_opened_at.setdefault(budget.uid, self._clock.monotonic())
            session.blocked_since.pop(pod.uid, None)
            waits.append(self._try_start(request, policy, rate))
        # Probes come last: otherwise they would use up the rate of pods that can leave.
        for request in sorted(probes, key=lambda probe: probe.pod.uid in self._probed_at):
            wait = self._probe_delay(request)
            waits.append(wait if wait > 0 else self._try_start(request, policy, rate))
        return min((wait for wait in waits if wait > 0), default=None)

    def _delay(self, session: EvictionSession, pod: Pod) -> float:
        """Return the seconds until the next request for the pod is due."""
        attempt = session.attempts.get(pod.uid)
        accepted_at = attempt.accepted_at if attempt else None
        valid_for = accepted_at + ACCEPTED_EVICTION_VALID_FOR - self._clock.now() if accepted_at else timedelta()
        return max(valid_for.total_seconds(), self._retries.seconds_until_due(pod.uid, self._clock.monotonic()))

    def _checked_budgets(self, pod: Pod, decision: PodDecision) -> tuple[DisruptionBudget, ...] | None:
        """Return the budgets that the API server checks for this request; None while they are not listed."""
        if decision.action is PodAction.DELETE or not pod.counts_in_budgets:
            return ()
        return self._budgets.for_pod(pod)

    def _probe_delay(self, request: _EvictionRequest) -> float:
        """Return the seconds until the probe of a pod whose budgets allow no eviction.

        A budget that allows one eviction after another is only slow, so its pods are not probed for a while.
        """
        pod, now = request.pod, self._clock.monotonic()
        since = request.session.blocked_since.setdefault(pod.uid, now)
        key = request.budgets[0].uid
        due = max(since + _PROBE_AFTER, self._last_accepted_at.get(key, -_BUDGET_ACTIVE_FOR) + _BUDGET_ACTIVE_FOR)
        if pod.uid in self._probed_at:
            due = max(due, self._probed_at[pod.uid] + _PROBE_INTERVAL)
        return max(due, self._next_probe_at.get((key, pod.uid not in self._probed_at), due)) - now

    def _try_start(self, request: _EvictionRequest, policy: str, rate: float) -> float:
        """Start the request if the limits allow it; return the seconds to wait, 0 if started or if an event decides."""
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
            is_first_probe = pod.uid not in self._probed_at
            self._next_probe_at[request.budgets[0].uid, is_first_probe] = now + _PROBE_GAPS[is_first_probe]
            self._probed_at[pod.uid] = now
        request.session.requested_uids.add(pod.uid)
        self._in_flight.add(pod.uid)
        self._accepted_until.pop(pod.uid, None)
        task = asyncio.create_task(self._run(request), name=f"evict {pod.key}")
        request.session.tasks[pod.uid] = task
        # A `finally` in the task would not run if the task is cancelled before its first step.
        task.add_done_callback(lambda _: self._finish(request))

    # -- sending ------------------------------------------------------------------------------------------------------

    async def _run(self, request: _EvictionRequest) -> None:
        pod = request.pod
        try:
            result = await self._send_request(request)
        except Exception as error:
            # A bug costs this pod one attempt. Otherwise it would stop the evictions of all pods.
            log.exception("pod.eviction_failed", pod=pod.key, uid=pod.uid, node=pod.node)
            result = api_responses.no_response(f"{type(error).__name__}: {error}")
        self._handle_result(request, result, self._clock.now())

    def _finish(self, request: _EvictionRequest) -> None:
        """Free the slots of a request that has ended or was cancelled; the pod shows the result of a cancelled one."""
        (self._delete_slots if request.is_delete else self._eviction_slots).release(*request.slot_keys)
        self._in_flight.discard(request.pod.uid)
        request.session.tasks.pop(request.pod.uid, None)
        if request.budget:
            self._budgets_in_flight.pop(request.budget.uid, None)
        self._wake_sessions(request.session)

    def _wake_sessions(self, session: EvictionSession) -> None:
        sessions, self._waiting_sessions = self._waiting_sessions | {session}, set()
        for waiting in sessions:
            waiting.wake()

    async def _send_request(self, request: _EvictionRequest) -> EvictionResult:
        try:
            if (why := await self._confirm(request)) is not None:
                return api_responses.not_confirmed(why)
            if request.is_repeat and await self._is_gone(request.pod):
                return api_responses.GONE  # the watch lags behind the API server
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
            # An admission policy that refuses the condition must not keep the pod on a dead node.
            log.warning("pod.disruption_target_not_set", pod=pod.key, uid=pod.uid, node=pod.node, error=str(error))
        options = {"apiVersion": "v1", "kind": "DeleteOptions", **_delete_options(request, version)}
        await self._client.delete(paths.pod(pod.namespace, pod.name), options)

    async def _set_disruption_target(self, pod: Pod) -> str:
        """Set the condition DisruptionTarget, as the Eviction API does; return the new resourceVersion of the pod.

        Without the condition, a Job that ignores disruptions counts the delete as a failure of the pod.
        """
        path = f"{paths.pod(pod.namespace, pod.name)}/status"
        patch = disruption_target.condition_patch(pod, self._clock.now())
        raw = await self._client.patch(path, patch, kind=STRATEGIC_PATCH)
        return str(raw["metadata"]["resourceVersion"])

    async def _confirm(self, request: _EvictionRequest) -> str | None:
        """Return why the required proof no longer holds; None if it holds or none is required."""
        if request.decision.required_proof is RequiredProof.NONE:
            return None
        return await request.confirm(request.pod, request.decision)

    async def _is_gone(self, pod: Pod) -> bool:
        """Whether a live read shows that the pod is Terminating or gone."""
        path = paths.in_namespace("v1", pod.namespace, "pods")
        async for page in self._client.list(path, fieldSelector=f"metadata.name={pod.name}"):
            for raw in page["items"]:
                if raw["metadata"]["uid"] == pod.uid:
                    return "deletionTimestamp" in raw["metadata"]
        return True

    # -- results ------------------------------------------------------------------------------------------------------

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
        previous = request.session.attempts.get(pod.uid, EvictionAttempts())
        failing_since = previous.failing_since if previous.failures else now
        request.session.attempts[pod.uid] = EvictionAttempts(None, result, previous.failures + 1, failing_since)
        self._retries.record_failure(pod.uid, result, self._clock.monotonic())

    def _record_accepted(self, request: _EvictionRequest, result: EvictionResult, now: datetime) -> None:
        """Record an accepted eviction; a repeat means that the earlier eviction had no effect."""
        pod, monotonic = request.pod, self._clock.monotonic()
        if result.outcome is EvictionOutcome.ACCEPTED:
            request.session.sent[pod.uid] = request.decision
        self._accepted_until[pod.uid] = monotonic + ACCEPTED_EVICTION_VALID_FOR.total_seconds()
        if result.outcome is EvictionOutcome.ACCEPTED and request.is_repeat:
            previous = request.session.attempts.get(pod.uid, EvictionAttempts())
            without_effect = api_responses.eviction_without_effect(pod)
            request.session.attempts[pod.uid] = EvictionAttempts(
                now, without_effect, previous.failures + 1, previous.failing_since or now
            )
            self._retries.record_failure(pod.uid, without_effect, monotonic)
        else:
            request.session.attempts[pod.uid] = EvictionAttempts(now)
            self._retries.postpone(pod.uid, monotonic + (_PROBE_INTERVAL if request.is_repeat else 0.0))
        if request.budget and result.outcome is EvictionOutcome.ACCEPTED:
            self._budgets_awaited.discard(request.budget.uid)
            if (opened_at := self._budgets_opened_at.pop(request.budget.uid, None)) is not None:
                self._metrics.slot_seconds.observe(monotonic - opened_at)
            self._last_accepted_at[request.budget.uid] = monotonic
            if request.budget.counts_eviction_of(pod):
                self._budgets.record_eviction(request.budget)

    def _record_probe_refusal(self, request: _EvictionRequest, result: EvictionResult) -> None:
        """Record that no webhook moves the pod; the watch of its budgets shows when it can leave."""
        request.session.attempts.pop(request.pod.uid, None)
        if result.retry_after:
            self._retries.postpone(request.pod.uid, self._clock.monotonic() + result.retry_after)
