"""Carries out replacement first: releases and returns pods, and remembers what went wrong for an owner.

One decision an owner at a time over all drains: all of them are made in one process, and the answer to each write is
taken in before the next look.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from rescheduler.api import names
from rescheduler.api.drains import Blocker, BlockerClass
from rescheduler.api.policies import DrainSettings, ReplacementMode
from rescheduler.controllers.evacuation.budget_watch import BudgetWatch
from rescheduler.controllers.evacuation.workload_watch import OwnerPodsKey, ReplicaSetIndex, WorkloadWatch
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.core.drain import capacity
from rescheduler.core.drain.capacity import Forecasts
from rescheduler.core.eviction import api_responses
from rescheduler.core.eviction.api_responses import EvictionOutcome, EvictionResult
from rescheduler.core.eviction.pod_actions import PodAction, PodDecision
from rescheduler.core.model import pods, release_record
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.release_record import ReleaseRecord
from rescheduler.core.model.workloads import Workload
from rescheduler.core.placement.planner import Fit, Forecast
from rescheduler.core.replacement import decisions
from rescheduler.core.replacement.decisions import (
    PodWriteRefusal,
    ReplacementBackoff,
    ReplacementDecision,
    ReplacementFailure,
    ReplacementInput,
    ReplacementStep,
)
from rescheduler.kube import paths
from rescheduler.kube.client import TRANSIENT_ERRORS, ApiError, Client

log = structlog.get_logger("rescheduler.replacements")

_REPLICA_SET_LAG = timedelta(seconds=5)  # a pod may be seen before its ReplicaSet, but not for longer
_REPORTED_FAILURES = 3  # failures in a row: a single one is no news
_BACKOFF_EXPIRES_AFTER = timedelta(minutes=30)  # after its pause a setback says nothing about the next attempt
_EVICTION_TIMEOUT = 40.0  # seconds; the server itself may hold an eviction for 10 s while budgets collide


@dataclass(frozen=True, slots=True)
class _RequestFailure:
    """A request for a pod that did not succeed.

    Attributes:
        until: the pod is not asked for again before.
        failures: in a row.
    """

    retry_at: datetime
    result: EvictionResult
    failures: int

    def is_active(self, now: datetime) -> bool:
        """Whether it stands, and is more than a hiccup."""
        return now < self.retry_at and (
            self.result.outcome is EvictionOutcome.REFUSED or self.failures >= _REPORTED_FAILURES
        )


class Replacer:
    """One for the process; `going`: uids of pods whose eviction is under way; `refused`: why one is refused, by uid."""

    def __init__(
        self,
        client: Client,
        clock: Clock,
        budgets: BudgetWatch,
        workloads: WorkloadWatch,
        metrics: Metrics,
        on_change: Callable[[Iterable[str]], None],
        evicting_uids: Callable[[], frozenset[str]],
        *,
        refusal_message: Callable[[str], str],
    ) -> None:
        self._client, self._clock, self._budgets, self._workloads = client, clock, budgets, workloads
        self._metrics, self._on_change, self._evicting_uids, self._refusal_message = (
            metrics,
            on_change,
            evicting_uids,
            refusal_message,
        )
        self._backoffs: dict[str, ReplacementBackoff] = {}  # by uid of the Deployment
        self._without_room: set[str] = (
            set()
        )  # uids of Deployments that the plan has no room for, while a setback stands
        self._first_seen_at: dict[str, datetime] = {}  # by pod uid
        self._rollouts: dict[str, datetime] = {}  # by uid of the Deployment: since when a rollout was seen
        self._logged_reasons: dict[str, str] = {}  # by pod uid: the reason that was logged
        self._dry_run_failures: dict[str, _RequestFailure] = {}  # by pod uid: of the rehearsed eviction
        self._write_failures: dict[str, _RequestFailure] = {}  # by pod uid: of a patch
        self._tasks: dict[str, asyncio.Task[None]] = {}  # by pod uid
        self._removed_by_others: set[str] = set()  # uids of released pods that somebody else removed
        self._released: dict[str, Pod] = {}  # by uid, as released by this process: it may be gone before it is seen so
        self._active_subscribers: set[str] = set()  # holders whose drain may go on, as of their last look
        self._index, self._leaving_uids = ReplicaSetIndex(), set[str]()  # of the look that is under way
        self._releasing: dict[str, str] = {}  # by pod uid: the uid of its Deployment

    def evaluate(
        self,
        subscriber: str,
        pod_decisions: Sequence[tuple[Pod, PodDecision]],
        drain: DrainSettings,
        now: datetime,
        *,
        may_move: bool,
        blockers: Mapping[str, Blocker],
        release_only: bool = False,
        forecasts: Forecasts | None = None,
    ) -> dict[str, ReplacementDecision] | None:
        """What to do with each pod that replacement first concerns, by uid; None while their owners are not known.

        `may_move`: the drain may go on. `said`: the blockers that its status names, by namespace/name of the pod.
        `early`: its node is only suspected. `forecasts`: what the plan says of its pods.
        """
        # First: the owner of the last pod to go is not held in view any more.
        self.record_removals([pod for pod, _ in pod_decisions if pod.released and pod.deletion_timestamp], drain, now)
        (self._active_subscribers.add if may_move else self._active_subscribers.discard)(subscriber)
        rows = [pod for pod, verdict in pod_decisions if _needs_decision(pod, verdict, drain, may_move=may_move)]
        planned = forecasts or {}
        rows.sort(key=lambda pod: capacity.plan_sort_key(planned.get(pod.uid)))
        self._workloads.subscribe(subscriber, rows)
        if not all(self._workloads.is_synced(namespace) for namespace in {pod.namespace for pod in rows}):
            return None
        kept = {pod.uid for pod, verdict in pod_decisions if verdict.action is not PodAction.EVICT}
        choices: dict[str, ReplacementDecision] = {}
        self._index, self._leaving_uids = ReplicaSetIndex(), set(self._evicting_uids())
        letting: Counter[str] = Counter(self._releasing.values())
        for pod in rows:
            self._load_backoff(pod, blockers.get(pod.key), drain, now)
            may = may_move and pod.uid not in kept
            forecast = planned.get(pod.uid)
            choice = self._decide(pod, drain, now, letting, may_move=may, release_only=release_only, forecast=forecast)
            choice = capacity.with_no_room_message(choice, forecast) if may else choice
            if choice.step is ReplacementStep.EVICT or (
                choice.step is ReplacementStep.PLAIN_EVICTION and choice.reason in decisions.KEEP_LAST_READY_REASONS
            ):
                self._leaving_uids.add(pod.uid)
            choices[pod.uid] = choice
        return choices

    def _decide(
        self,
        pod: Pod,
        drain: DrainSettings,
        now: datetime,
        releases: Counter[str],
        *,
        may_move: bool,
        release_only: bool,
        forecast: Forecast | None,
    ) -> ReplacementDecision:
        asked = self._first_seen_at.setdefault(pod.uid, now)
        budgets = self._budgets.for_pod(pod)
        if budgets is None or pod.uid in self._tasks:
            return ReplacementDecision(ReplacementStep.WAIT)
        left, key = self._workloads.has_left_selector(pod), self._workloads.owner_key(pod)
        if key and not left:
            latest = self._workloads.latest_pod(key, pod)
            if latest is None:
                return ReplacementDecision(
                    ReplacementStep.WAIT,
                    waiting_for=self._workloads.why_pods_not_synced(key) or "the pods of its owner are not known yet",
                )
            pod = latest
        elif not pod.released and now - asked < _REPLICA_SET_LAG:
            return ReplacementDecision(ReplacementStep.WAIT)
        workload = self._workloads.workload(pod, self._leaving_uids, self._index)
        unwritable = self._write_refusal(pod, now)
        if not may_move:
            return decisions.decide_return(pod, workload, now, unwritable)
        refused = self._dry_run_failures.get(pod.uid)
        if refused and refused.is_active(now) and not pod.released:
            answer = refused.result
            if answer.by_webhook:
                # A webhook that takes evictions over does nothing on a rehearsal: only the real request tells.
                return ReplacementDecision(ReplacementStep.PLAIN_EVICTION, "Delegated")
            return ReplacementDecision(
                ReplacementStep.HOLD, blocker_class=answer.blocker_class, message=answer.message, hint=answer.hint
            )
        owner = _owner_uid(pod, workload)
        setting = ReplacementInput(
            drain,
            now,
            budgets=budgets,
            has_single_node_volume=self._workloads.has_single_node_volume(pod),
            left_selector=left,
            write_refusal=unwritable,
            backoff=self._backoff(owner, forecast, now),
            rollout_since=self._rollout_since(owner, workload, now),
            releases_in_flight=releases[owner],
            release_only=release_only,
            eviction_refusal=self._refusal_message(pod.uid),
            no_room_reason=capacity.no_room_reason(forecast),
            blocked_by_pods_reason=capacity.blocked_by_pods_reason(forecast),
        )
        choice = decisions.decide(pod, workload, setting)
        releases[owner] += choice.step is ReplacementStep.RELEASE
        return choice

    def _write_refusal(self, pod: Pod, now: datetime) -> PodWriteRefusal | None:
        found = self._write_failures.get(pod.uid)
        if found is None or not found.is_active(now):
            return None
        answer = found.result
        return PodWriteRefusal(answer.blocker_class or BlockerClass.THROTTLED, answer.message, answer.hint)

    def record_removals(self, released_pods: Iterable[Pod], drain: DrainSettings, now: datetime) -> None:
        """Note which of these released pods, which go or are gone, somebody else removed: a setback of their owner."""
        going = self._evicting_uids()
        for pod in released_pods:
            if pod.uid in going or pod.evicted or pod.finished or pod.uid in self._removed_by_others:
                continue
            workload = self._workloads.workload(pod, frozenset(), ReplicaSetIndex())
            if workload is None or workload.deployment is None or workload.deployment.deleting:
                continue  # it goes with its Deployment
            if decisions.is_surplus(pod, workload):
                continue
            owner = _owner_uid(pod, workload)
            if setback := decisions.backoff_after_removal(pod, drain, self._backoffs.get(owner), now):
                self._removed_by_others.add(pod.uid)
                self._backoffs[owner] = setback
                self._metrics.released_pods_taken.inc()
                log.warning("pod.removed_by_others", pod=pod.key, uid=pod.uid, node=pod.node, why=setback.message)

    def as_released(self, pod: Pod) -> Pod:
        """Return the pod as it was released, if that came after what was seen of it."""
        return self._released.get(pod.uid, pod)

    def was_removed_by_others(self, uid: str) -> bool:
        """Whether somebody else removed this released pod."""
        return uid in self._removed_by_others

    def _backoff(self, owner: str, forecast: Forecast | None, now: datetime) -> ReplacementBackoff | None:
        """Return the setback of an owner.

        One for want of room ends when the plan, which had no room either, finds some. Any ends some time after its
        pause: the first failure of next month is a first one.
        """
        setback = self._backoffs.get(owner)
        if setback and now >= setback.retry_at + _BACKOFF_EXPIRES_AFTER:
            self._clear_backoff(owner)
            return None
        if setback is None or setback.failure is not ReplacementFailure.NO_ROOM or forecast is None:
            return setback
        if capacity.no_room_reason(forecast):
            self._without_room.add(owner)
        elif forecast.fit is Fit.FITS and owner in self._without_room:
            self._clear_backoff(owner)
            return None
        return setback

    def _clear_backoff(self, owner: str) -> None:
        """Forget the setback of an owner: it does not speak of its next release."""
        self._backoffs.pop(owner, None)
        self._without_room.discard(owner)

    def _load_backoff(self, pod: Pod, blocker: Blocker | None, drain: DrainSettings, now: datetime) -> None:
        """Take over what the last process came to know of the pod's owner; once, for what is known here is newer."""
        if pod.uid in self._first_seen_at:
            return
        workload = self._workloads.workload(pod, frozenset(), self._index) if blocker else None
        if blocker is None or workload is None or (owner := _owner_uid(pod, workload)) in self._backoffs:
            return
        if setback := decisions.backoff_from_blocker(blocker, drain, now):
            self._backoffs[owner] = setback

    def _rollout_since(self, owner: str, workload: Workload | None, now: datetime) -> datetime:
        if workload and workload.is_rolling_out:
            return self._rollouts.setdefault(owner, now)
        self._rollouts.pop(owner, None)
        return now

    def close(self, subscriber: str) -> None:
        """Let go of what this holder had in view."""
        self._active_subscribers.discard(subscriber)
        self._workloads.subscribe(subscriber, ())

    def why_not_synced(self, subscriber: str) -> str:
        """Return which view of owners that this holder asked for is not there, and why; empty if all are."""
        return self._workloads.why_not_synced(subscriber)

    def latest_pod(self, pod: Pod) -> Pod:
        """The pod as last seen or written."""
        key = self._workloads.owner_key(pod)
        return (self._workloads.latest_pod(key, pod) if key else None) or pod

    def record_replacement(self, pod: Pod) -> None:
        """Forget the setback of the owner of a released pod that has left as it was to."""
        if pod.release_record:
            self._clear_backoff(pod.release_record.deployment_uid)

    def forget(self, uids: Iterable[str]) -> None:
        """These pods are gone, or their holder looks after them no more."""
        for uid in uids:
            for known in (
                self._first_seen_at,
                self._logged_reasons,
                self._dry_run_failures,
                self._write_failures,
                self._released,
            ):
                known.pop(uid, None)
            self._removed_by_others.discard(uid)

    def start(self, subscriber: str, pod: Pod, decision: ReplacementDecision, cause: str = "") -> None:
        """Start what the choice says, unless something is under way for this pod; `cause`: of a release."""
        if decision.step is ReplacementStep.PLAIN_EVICTION and self._logged_reasons.get(pod.uid) != decision.reason:
            self._logged_reasons[pod.uid] = decision.reason
            self._metrics.not_replaced_first.labels(decision.reason).inc()
            log.info("pod.not_replaced_first", pod=pod.key, uid=pod.uid, node=pod.node, reason=decision.reason)
        key = self._workloads.owner_key(pod)
        latest = self._workloads.latest_pod(key, pod) if key else None
        if (
            decision.step not in (ReplacementStep.RELEASE, ReplacementStep.RETURN, ReplacementStep.CLEAR_RECORD)
            or pod.uid in self._tasks
        ):
            return
        if self._is_backing_off(pod):
            return
        if latest is None and decision.step is ReplacementStep.CLEAR_RECORD:
            latest = pod  # no ReplicaSet of it is in view, or it has left that one's selector
        if latest:
            if decision.step is ReplacementStep.RELEASE:
                self._releasing[pod.uid] = _owner_uid(
                    latest, self._workloads.workload(latest, frozenset(), ReplicaSetIndex())
                )
            work = self._run(subscriber, key, latest, decision, cause)
            self._tasks[pod.uid] = asyncio.create_task(work, name=f"{decision.step} {pod.key}")

    def _is_backing_off(self, pod: Pod) -> bool:
        """Whether its last request failed a moment ago; the holder is woken when it may be asked for again."""
        now = self._clock.now()
        return any(
            found is not None and now < found.retry_at
            for found in (self._dry_run_failures.get(pod.uid), self._write_failures.get(pod.uid))
        )

    async def _run(
        self, subscriber: str, key: OwnerPodsKey | None, pod: Pod, decision: ReplacementDecision, cause: str
    ) -> None:
        try:
            await self._apply(subscriber, key, pod, decision, cause)
        except TRANSIENT_ERRORS as error:
            self._delay_retry(self._write_failures, pod, _eviction_result(error), subscriber)
            found = self._write_failures[pod.uid]
            conflict = isinstance(error, ApiError) and error.code in (404, 409)
            if not conflict or found.failures > 1:
                log.warning("pod.write_failed", pod=pod.key, uid=pod.uid, way=decision.step, error=str(error))
        except Exception as error:  # whatever it is, it costs this pod only, and is not repeated at once
            log.exception("task.failed", task="release", object=pod.key)
            self._delay_retry(
                self._write_failures,
                pod,
                api_responses.no_response(f"internal error ({type(error).__name__})"),
                subscriber,
            )
        finally:
            self._tasks.pop(pod.uid, None)
            self._releasing.pop(pod.uid, None)
            self._on_change((subscriber,))

    def _delay_retry(
        self, failures_by_uid: dict[str, _RequestFailure], pod: Pod, result: EvictionResult, subscriber: str
    ) -> None:
        """Ask for this pod again only after a pause: longer with each failure, and as long as the server asks for."""
        before = failures_by_uid.get(pod.uid)
        failures = before.failures + 1 if before else 1
        wait = api_responses.retry_delay(result, failures - 1)
        failures_by_uid[pod.uid] = _RequestFailure(self._clock.now() + timedelta(seconds=wait), result, failures)
        asyncio.get_running_loop().call_later(wait, self._on_change, (subscriber,))

    async def _apply(
        self, subscriber: str, key: OwnerPodsKey | None, pod: Pod, decision: ReplacementDecision, cause: str
    ) -> None:
        workload = self._workloads.workload(pod, self._evicting_uids(), ReplicaSetIndex())
        match decision.step:
            case ReplacementStep.RELEASE if workload and workload.deployment:
                if not await self._dry_run_eviction(pod, subscriber) or subscriber not in self._active_subscribers:
                    return  # it may have been suspended while the server was asked
                patch = release_record.release_patch(
                    pod.uid, pod.resource_version, pod.other_owner_references, self._build_record(cause, pod, workload)
                )
            case ReplacementStep.RETURN if pod.release_record and workload:
                if not await self._may_return(pod, workload):
                    gone = "its ReplicaSet is gone or scaled to 0"
                    refusal = EvictionResult(
                        EvictionOutcome.RETRY, BlockerClass.REPLACEMENT_NOT_READY, gone, _CHECK_OWNER_HINT
                    )
                    self._delay_retry(self._write_failures, pod, refusal, subscriber)
                    return
                if decision.backoff:
                    self._backoffs[_owner_uid(pod, workload)] = decision.backoff
                patch = release_record.return_patch(
                    pod.uid, pod.resource_version, pod.other_owner_references, pod.release_record
                )
            case ReplacementStep.CLEAR_RECORD if pod.release_record:
                patch = release_record.clear_patch(pod.uid, pod.resource_version, pod.release_record)
            case _:
                return
        answer = await self._client.patch(paths.pod(pod.namespace, pod.name), patch)
        if key:
            self._workloads.put(key, answer)
        if decision.step is ReplacementStep.RELEASE:
            self._released[pod.uid] = pods.parse_pod(answer)
        else:
            self._released.pop(pod.uid, None)
        self._write_failures.pop(pod.uid, None)
        self._dry_run_failures.pop(pod.uid, None)
        self._metrics.replacements.labels(decision.step).inc()
        why = decision.backoff.message if decision.backoff else ""
        log.info(_LOG_EVENTS[decision.step], pod=pod.key, uid=pod.uid, node=pod.node, drain=subscriber, why=why)

    async def _dry_run_eviction(self, pod: Pod, subscriber: str) -> bool:
        """Whether anything but a budget would refuse the eviction: asked before the release, not after it."""
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod.name, "namespace": pod.namespace},
            "deleteOptions": {"preconditions": {"uid": pod.uid}, "dryRun": ["All"]},
        }
        try:
            await self._client.create(
                f"{paths.pod(pod.namespace, pod.name)}/eviction?dryRun=All", body, timeout=_EVICTION_TIMEOUT
            )
        except TRANSIENT_ERRORS as error:
            answer = _eviction_result(error)
            if (
                answer.outcome is EvictionOutcome.REFUSED
                and answer.blocker_class in api_responses.TEMPORARY_BUDGET_CLASSES
            ):
                return True
            self._delay_retry(self._dry_run_failures, pod, answer, subscriber)
            return False
        return True

    async def _may_return(self, pod: Pod, workload: Workload) -> bool:
        """Read live: a ReplicaSet that is scaled down would kill the pod at once."""
        rs = workload.replica_set(pod.release_record.replica_set_uid) if pod.release_record else None
        if rs is None:
            return False
        raw = await self._client.find(paths.replica_set(rs.namespace, rs.name))
        return raw is not None and raw["metadata"]["uid"] == rs.uid and (raw["spec"].get("replicas", 1) or 0) > 0

    def _build_record(self, cause: str, pod: Pod, workload: Workload) -> ReleaseRecord:
        now, found = self._clock.now(), workload.deployment
        setback = self._backoffs.get(_owner_uid(pod, workload))
        return ReleaseRecord(
            cause=cause,
            deletion_cost=pod.annotations.get(names.POD_DELETION_COST),
            ready_pods=decisions.ready_before_release(workload) or workload.serving_count,
            released_at=now,
            attempt=setback.attempts + 1 if setback else 1,
            deployment=found.name if found else "",
            deployment_uid=found.uid if found else "",
            replica_set=pod.owner.name if pod.owner else "",
            replica_set_uid=pod.owner.uid if pod.owner else "",
        )


_LOG_EVENTS = {
    ReplacementStep.RELEASE: "pod.released",
    ReplacementStep.RETURN: "pod.returned",
    ReplacementStep.CLEAR_RECORD: "pod.record_cleared",
}
_CHECK_OWNER_HINT = "look at the ReplicaSets of its Deployment"


def _eviction_result(error: Exception) -> EvictionResult:
    """What a failed request for a pod means."""
    if isinstance(error, ApiError):
        return api_responses.classify(error.response, None)
    return api_responses.no_response(str(error))


def _needs_decision(pod: Pod, pod_decision: PodDecision, drain: DrainSettings, *, may_move: bool) -> bool:
    """Whether replacement first has a say: pods of ReplicaSets, and all that carry the traces of a move."""
    if pod.deletion_timestamp:
        return False
    if pod.release_record:
        return pod_decision.action in (PodAction.EVICT, PodAction.BLOCK, PodAction.SKIP)
    of_set = pod.owner is not None and pod.owner.kind == "ReplicaSet"
    return (
        may_move
        and of_set
        and pod_decision.action is PodAction.EVICT
        and decisions.replacement_mode(pod, drain) is not ReplacementMode.NEVER
    )


def _owner_uid(pod: Pod, workload: Workload | None) -> str:
    if workload and workload.deployment:
        return workload.deployment.uid
    return pod.release_record.deployment_uid if pod.release_record else pod.uid
