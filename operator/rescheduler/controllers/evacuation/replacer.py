"""Carry out replacement first: release and return pods, and remember failed replacements by owner.

One process decides for all drains. It stores the response to each write before the next evaluation. Therefore two
drains never release pods of one owner on the same outdated state.
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
from rescheduler.controllers.evacuation import messages
from rescheduler.controllers.evacuation.budget_watch import BudgetWatch
from rescheduler.controllers.evacuation.workload_watch import OwnerPodsKey, ReplicaSetIndex, WorkloadWatch
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.core.drain import capacity
from rescheduler.core.drain.capacity import Forecasts
from rescheduler.core.drain.pod_evaluation import MoveMode
from rescheduler.core.eviction import api_responses, write_refusals
from rescheduler.core.eviction.api_responses import EvictionOutcome, EvictionResult
from rescheduler.core.eviction.pod_actions import PodAction, PodDecision
from rescheduler.core.model import pods, release_record
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.release_record import ReleaseRecord
from rescheduler.core.model.workloads import Workload
from rescheduler.core.placement.planner import Fit, Forecast
from rescheduler.core.replacement import decisions, new_pods
from rescheduler.core.replacement.decisions import (
    PodWriteRefusal,
    ReplacementDecision,
    ReplacementInput,
    ReplacementStep,
)
from rescheduler.core.replacement.failures import EVICTION_REASONS, ReplacementBackoff, ReplacementFailure
from rescheduler.core.replacement.new_pods import NewPods
from rescheduler.core.replacement.slow_start import SlowStart
from rescheduler.kube import paths
from rescheduler.kube.client import TRANSIENT_ERRORS, ApiError, Client

log = structlog.get_logger("rescheduler.evacuation.replacer")

_REPLICA_SET_LAG = timedelta(seconds=5)  # the watch may bring a pod before its ReplicaSet
_REPORTED_FAILURES = 3  # failures in a row; fewer would report each short outage
_BACKOFF_EXPIRES_AFTER = timedelta(minutes=30)  # after the pause; an old failure must not lengthen a new pause
_EVICTION_TIMEOUT = 40.0  # seconds; the API server may hold an eviction for 10 s while budgets collide


@dataclass(frozen=True, slots=True)
class _RequestFailure:
    """Failed request for a pod.

    Attributes:
        retry_at: earliest time of the next request for the pod.
        failures: number of failures in a row.
        since: time of the first of them.
    """

    retry_at: datetime
    result: EvictionResult
    failures: int
    since: datetime

    def is_active(self, now: datetime) -> bool:
        """Whether the failure still counts and has lasted long enough to be reported."""
        return now < self.retry_at and (
            self.result.outcome is EvictionOutcome.REFUSED or self.failures >= _REPORTED_FAILURES
        )


class Replacer:
    """Replacements of the whole process.

    `evicting_uids` returns the uids of pods that count as gone. `refusal_message` returns why the eviction of a pod
    (by uid) is refused, None if it is not.
    """

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
        refusal_message: Callable[[str], str | None],
    ) -> None:
        self._client, self._clock, self._budgets, self._workloads = client, clock, budgets, workloads
        self._metrics, self._on_change, self._evicting_uids, self._refusal_message = (
            metrics,
            on_change,
            evicting_uids,
            refusal_message,
        )
        self._backoffs: dict[str, ReplacementBackoff] = {}  # by uid of the Deployment
        self._slow_start = SlowStart()
        self._new_pods: dict[str, NewPods] = {}  # by uid of the Deployment, while one of its pods is released
        self._observed: set[str] = set()  # uids of the Deployments whose new pods the current evaluation has observed
        self._replaced: dict[str, str] = {}  # by uid of a released pod with a Ready replacement: uid of its Deployment
        self._new_pod_by_uid: dict[
            str, Pod
        ] = {}  # by uid of a released pod: the Ready pod that counts as its replacement
        self._succeeded: set[str] = set()  # uids of released pods that ended such a count already
        self._without_room: set[str] = set()  # uids of Deployments with a backoff that the plan also has no room for
        self._first_seen_at: dict[str, datetime] = {}  # by pod uid
        self._rollouts: dict[str, datetime] = {}  # by uid of the Deployment: when its rollout was first seen
        self._logged_reasons: dict[str, str] = {}  # by pod uid: the reason that was last logged
        self._dry_run_failures: dict[str, _RequestFailure] = {}  # by pod uid: of dry-run evictions
        self._write_failures: dict[str, _RequestFailure] = {}  # by pod uid: of patches
        self._tasks: dict[str, asyncio.Task[None]] = {}  # by pod uid
        self._removed_by_others: set[str] = set()  # uids of released pods that another client removed
        self._released: dict[str, Pod] = {}  # by uid, as in the response to the release: the watch may never bring it
        self._active_subscribers: set[str] = set()  # subscribers that could move pods at their last evaluation
        self._index, self._leaving_uids = ReplicaSetIndex(), set[str]()  # of the current evaluation
        self._releasing: dict[str, str] = {}  # by pod uid: the uid of its Deployment

    def evaluate(
        self,
        subscriber: str,
        pod_decisions: Sequence[tuple[Pod, PodDecision]],
        drain: DrainSettings,
        now: datetime,
        mode: MoveMode,
        *,
        blockers: Mapping[str, Blocker],
        forecasts: Forecasts | None = None,
        is_drain: bool = False,
    ) -> dict[str, ReplacementDecision] | None:
        """Return the decision for each pod of a Deployment, by uid; None while their workloads are not listed.

        `blockers`: those of the status, by namespace/name of the pod. `forecasts`: of the plan, by uid; None means
        that there is no plan. `is_drain`: whether the node is cordoned for a drain.
        """
        # Before `subscribe`: it drops the workload of the last pod to leave, which this needs.
        self.record_removals([pod for pod, _ in pod_decisions if pod.released and pod.deletion_timestamp], drain, now)
        may_move = mode is not MoveMode.NONE
        (self._active_subscribers.add if may_move else self._active_subscribers.discard)(subscriber)
        settings = {pod.uid: drain.with_rule(decision.rule) for pod, decision in pod_decisions}
        bound_uids = {pod.uid for pod, decision in pod_decisions if decision.is_bound_to_node}
        replaceable = [
            pod
            for pod, decision in pod_decisions
            if _needs_decision(pod, decision, settings[pod.uid], may_move=may_move)
        ]
        known_forecasts = forecasts or {}
        replaceable.sort(key=lambda pod: capacity.plan_sort_key(known_forecasts.get(pod.uid)))
        self._workloads.subscribe(subscriber, replaceable)
        if not all(self._workloads.is_synced(namespace) for namespace in {pod.namespace for pod in replaceable}):
            return None
        staying_uids = {pod.uid for pod, decision in pod_decisions if decision.action is not PodAction.EVICT}
        replacement_decisions: dict[str, ReplacementDecision] = {}
        self._index, self._leaving_uids = ReplicaSetIndex(), set(self._evicting_uids())
        self._observed = set()
        self._forget_removed_new_pods()
        releases: Counter[str] = Counter(self._releasing.values())
        for pod in replaceable:
            self._load_backoff(pod, blockers.get(pod.key), drain, now)
            pod_mode = MoveMode.NONE if pod.uid in staying_uids else mode
            forecast = known_forecasts.get(pod.uid)
            decision = self._decide(
                pod,
                settings[pod.uid],
                now,
                releases,
                pod_mode,
                forecast,
                is_bound_to_node=pod.uid in bound_uids,
                is_drain=is_drain,
            )
            decision = capacity.with_no_room_message(decision, forecast) if pod_mode is not MoveMode.NONE else decision
            record = self.as_released(pod).release_record
            if decision.step is ReplacementStep.EVICT and record and not pod.finished:
                if pod.uid not in self._replaced:
                    self._metrics.replacement_seconds.observe((now - record.released_at).total_seconds())
                self._replaced[pod.uid] = record.deployment_uid
                self._match_new_pod(pod, record)
            if decision.step is ReplacementStep.EVICT or (
                decision.step is ReplacementStep.PLAIN_EVICTION and decision.reason in EVICTION_REASONS
            ):
                self._leaving_uids.add(pod.uid)
            replacement_decisions[pod.uid] = decision
        return replacement_decisions

    def _match_new_pod(self, pod: Pod, record: ReleaseRecord) -> None:
        """Record which new pod counts as the replacement of a released pod; the pods of one owner are equal."""
        workload = self._workloads.workload(pod, self._leaving_uids, self._index)
        if pod.uid not in self._new_pod_by_uid and workload:
            taken = {new.uid for new in self._new_pod_by_uid.values()}
            if new := new_pods.replacement(workload, record.released_at, pod.node, taken):
                self._new_pod_by_uid[pod.uid] = new

    def new_pod(self, uid: str) -> Pod | None:
        """Return the pod that counts as the replacement of a released pod; None if none is known."""
        return self._new_pod_by_uid.get(uid)

    def _decide(
        self,
        pod: Pod,
        drain: DrainSettings,
        now: datetime,
        releases: Counter[str],
        mode: MoveMode,
        forecast: Forecast | None,
        *,
        is_bound_to_node: bool,
        is_drain: bool,
    ) -> ReplacementDecision:
        first_seen_at = self._first_seen_at.setdefault(pod.uid, now)
        budgets = self._budgets.for_pod(pod)
        if budgets is None or pod.uid in self._tasks:
            return ReplacementDecision(ReplacementStep.WAIT)
        left_selector, key = self._workloads.has_left_selector(pod), self._workloads.owner_key(pod)
        if key and not left_selector:
            latest = self._workloads.latest_pod(key, pod)
            if latest is None:
                return ReplacementDecision(
                    ReplacementStep.WAIT,
                    waiting_for=self._workloads.why_pods_not_synced(key) or messages.OWNER_PODS_NOT_SYNCED,
                )
            pod = latest
        elif not pod.released and now - first_seen_at < _REPLICA_SET_LAG:
            return ReplacementDecision(ReplacementStep.WAIT)
        workload = self._workloads.workload(pod, self._leaving_uids, self._index)
        if workload and key:
            self._observe_new_pods(_owner_uid(pod, workload), workload, key, now)
        write_refusal = self._write_refusal(pod, now)
        if mode is MoveMode.NONE:
            return decisions.decide_return(pod, workload, now, write_refusal)
        failure = self._dry_run_failures.get(pod.uid)
        if failure and failure.is_active(now) and not pod.released:
            result = failure.result
            if result.by_webhook:
                # A webhook that moves pods itself ignores dry runs, so only a real eviction shows its answer.
                return ReplacementDecision(ReplacementStep.PLAIN_EVICTION, "Delegated")
            return ReplacementDecision(
                ReplacementStep.HOLD, blocker_class=result.blocker_class, message=result.message, hint=result.hint
            )
        owner = _owner_uid(pod, workload)
        current = workload.current_replica_set if workload else None
        if current and current.replica_failure:
            self._slow_start.record_setback(owner)
        inputs = ReplacementInput(
            drain,
            now,
            budgets=budgets,
            has_single_node_volume=self._workloads.has_single_node_volume(pod),
            is_bound_to_node=is_bound_to_node,
            is_drain=is_drain,
            is_colocated=capacity.is_colocated(forecast),
            left_selector=left_selector,
            write_refusal=write_refusal,
            backoff=self._backoff(owner, forecast, now),
            rollout_since=self._rollout_since(owner, workload, now),
            releases_in_flight=releases[owner],
            max_released=self._slow_start.max_released(owner, now),
            release_only=mode is MoveMode.RELEASE_ONLY,
            eviction_refusal=self._refusal_message(pod.uid),
            no_room_reason=capacity.no_room_reason(forecast),
            blocked_by_pods_reason=capacity.blocked_by_pods_reason(forecast),
        )
        decision = decisions.decide(pod, workload, inputs)
        releases[owner] += decision.step is ReplacementStep.RELEASE
        return decision

    def _write_refusal(self, pod: Pod, now: datetime) -> PodWriteRefusal | None:
        failure = self._write_failures.get(pod.uid)
        if failure is None or not failure.is_active(now):
            return None
        result = failure.result
        return PodWriteRefusal(
            result.blocker_class or BlockerClass.THROTTLED, result.message, result.hint, failure.since
        )

    def record_removals(self, released_pods: Iterable[Pod], drain: DrainSettings, now: datetime) -> None:
        """Record a backoff for the owner of each leaving or gone pod that another client removed."""
        evicting_uids = self._evicting_uids()
        for pod in released_pods:
            if pod.uid in evicting_uids or pod.evicted or pod.finished or pod.uid in self._removed_by_others:
                continue
            workload = self._workloads.workload(pod, frozenset(), ReplicaSetIndex())
            if workload is None or workload.deployment is None or workload.deployment.deleting:
                continue  # garbage collection removes the pod with its Deployment
            if decisions.is_surplus(pod, workload):
                continue
            owner = _owner_uid(pod, workload)
            if backoff := decisions.backoff_after_removal(pod, drain, self._backoffs.get(owner), now):
                self._removed_by_others.add(pod.uid)
                self._set_backoff(owner, backoff)
                self._metrics.released_pods_taken.inc()
                log.warning("pod.removed_by_others", pod=pod.key, uid=pod.uid, node=pod.node, why=backoff.message)

    def as_released(self, pod: Pod) -> Pod:
        """Return the pod as in the response to its release, or the given pod if this process did not release it."""
        return self._released.get(pod.uid, pod)

    def was_removed_by_others(self, uid: str) -> bool:
        """Whether another client removed this released pod."""
        return uid in self._removed_by_others

    def _backoff(self, owner: str, forecast: Forecast | None, now: datetime) -> ReplacementBackoff | None:
        """Return the backoff of an owner; None if there is none.

        A backoff for lack of room ends when the plan finds room where it found none before. Each backoff expires some
        time after its pause. Otherwise a failure of last month would lengthen the pause of today.
        """
        backoff = self._backoffs.get(owner)
        if backoff and now >= backoff.retry_at + _BACKOFF_EXPIRES_AFTER:
            self._clear_backoff(owner)
            return None
        if backoff is None or backoff.failure is not ReplacementFailure.NO_ROOM or forecast is None:
            return backoff
        if capacity.no_room_reason(forecast):
            self._without_room.add(owner)
        elif forecast.fit is Fit.FITS and owner in self._without_room:
            self._clear_backoff(owner)
            return None
        return backoff

    def _forget_removed_new_pods(self) -> None:
        """End the count of removed new pods of an owner when one of its pods leaves after its replacement was Ready."""
        for uid in (self._replaced.keys() & self._leaving_uids) - self._succeeded:
            self._new_pods.pop(self._replaced[uid], None)
            self._succeeded.add(uid)

    def _observe_new_pods(self, owner: str, workload: Workload, key: OwnerPodsKey, now: datetime) -> None:
        """Count the new pods of an owner that other clients remove, and let the owner back off after the third."""
        if owner in self._observed:
            return
        self._observed.add(owner)
        backoff = self._backoffs.get(owner)
        is_paused = backoff is not None and now < backoff.retry_at
        previous = self._new_pods.pop(owner, None)
        observed = new_pods.observe(previous, workload, lambda pod: self._workloads.latest_pod(key, pod))
        if observed is None or is_paused:
            return
        if not observed.must_back_off:
            self._new_pods[owner] = observed
            if not (observed.removed or observed.missing):
                self._slow_start.record_placed(owner, observed.placed_uids(workload), now)
            return
        backoff = decisions.backoff_after_removals(observed, backoff, now)
        self._set_backoff(owner, backoff)
        log.warning("new_pods.removed_by_others", deployment=owner, removed=observed.removed, why=backoff.message)

    def _set_backoff(self, owner: str, backoff: ReplacementBackoff) -> None:
        """Record a failed replacement of an owner."""
        self._backoffs[owner] = backoff
        self._metrics.replacement_failures.labels(backoff.failure).inc()
        self._slow_start.record_setback(owner)

    def _clear_backoff(self, owner: str) -> None:
        """Drop the backoff of an owner, which then no longer affects its next release."""
        self._backoffs.pop(owner, None)
        self._without_room.discard(owner)

    def _load_backoff(self, pod: Pod, blocker: Blocker | None, drain: DrainSettings, now: datetime) -> None:
        """Take over the backoff that the last process recorded in a blocker, once for each pod.

        Later blockers come from this process, whose own backoffs are newer.
        """
        if pod.uid in self._first_seen_at:
            return
        workload = self._workloads.workload(pod, frozenset(), self._index) if blocker else None
        if blocker is None or workload is None or (owner := _owner_uid(pod, workload)) in self._backoffs:
            return
        if backoff := decisions.backoff_from_blocker(blocker, drain, now):
            self._set_backoff(owner, backoff)

    def _rollout_since(self, owner: str, workload: Workload | None, now: datetime) -> datetime:
        if workload and workload.is_rolling_out:
            return self._rollouts.setdefault(owner, now)
        self._rollouts.pop(owner, None)
        return now

    def close(self, subscriber: str) -> None:
        """Watch no workload for this subscriber."""
        self._active_subscribers.discard(subscriber)
        if not self._active_subscribers:
            self._new_pods.clear()
        self._workloads.subscribe(subscriber, ())

    def why_not_synced(self, subscriber: str) -> str:
        """Return the first list of this subscriber that is missing, and the cause; empty if none is missing."""
        return self._workloads.why_not_synced(subscriber)

    def latest_pod(self, pod: Pod) -> Pod:
        """Return the pod as last watched or written."""
        key = self._workloads.owner_key(pod)
        return (self._workloads.latest_pod(key, pod) if key else None) or pod

    def record_replacement(self, pod: Pod) -> None:
        """Drop the backoff of the owner of a released pod that left after its replacement was Ready."""
        if pod.release_record:
            self._clear_backoff(pod.release_record.deployment_uid)

    def forget(self, uids: Iterable[str]) -> None:
        """Drop these pods, which are gone or no longer belong to a subscriber."""
        for uid in uids:
            for by_uid in (
                self._first_seen_at,
                self._logged_reasons,
                self._dry_run_failures,
                self._write_failures,
                self._released,
                self._replaced,
                self._new_pod_by_uid,
            ):
                by_uid.pop(uid, None)
            self._removed_by_others.discard(uid)
            self._succeeded.discard(uid)

    def start(self, subscriber: str, pod: Pod, decision: ReplacementDecision, cause: str = "") -> None:
        """Start the step of the decision, unless a request for this pod is in flight; `cause`: of a release."""
        if decision.step is ReplacementStep.PLAIN_EVICTION and self._logged_reasons.get(pod.uid) != decision.reason:
            self._logged_reasons[pod.uid] = decision.reason
            self._metrics.not_replaced_first.labels(decision.reason).inc()
            log.info(
                "pod.not_replaced_first",
                pod=pod.key,
                uid=pod.uid,
                node=pod.node,
                reason=decision.reason,
                why=decision.message,
            )
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
            latest = pod  # the pod has no known ReplicaSet or has left its selector, so no other version is newer
        if latest:
            if decision.step is ReplacementStep.RELEASE:
                self._releasing[pod.uid] = _owner_uid(
                    latest, self._workloads.workload(latest, frozenset(), ReplicaSetIndex())
                )
            work = self._run(subscriber, key, latest, decision, cause)
            self._tasks[pod.uid] = asyncio.create_task(work, name=f"{decision.step} {pod.key}")

    def _is_backing_off(self, pod: Pod) -> bool:
        """Whether the pause after a failed request still lasts; its end wakes the subscriber."""
        now = self._clock.now()
        failures = (self._dry_run_failures.get(pod.uid), self._write_failures.get(pod.uid))
        return any(failure is not None and now < failure.retry_at for failure in failures)

    async def _run(
        self, subscriber: str, key: OwnerPodsKey | None, pod: Pod, decision: ReplacementDecision, cause: str
    ) -> None:
        try:
            await self._apply(subscriber, key, pod, decision, cause)
        except TRANSIENT_ERRORS as error:
            self._delay_retry(self._write_failures, pod, _eviction_result(error), subscriber)
            is_conflict = isinstance(error, ApiError) and write_refusals.is_conflict(error.response)
            if not is_conflict or self._write_failures[pod.uid].failures > 1:
                log.warning("pod.write_failed", pod=pod.key, uid=pod.uid, way=decision.step, error=str(error))
        except Exception as error:  # without this, a bug in one pod would stop the others, or repeat without a pause
            log.exception("task.failed", task="release", object=pod.key)
            self._delay_retry(
                self._write_failures, pod, api_responses.no_response(messages.internal_error(error)), subscriber
            )
        finally:
            self._tasks.pop(pod.uid, None)
            self._releasing.pop(pod.uid, None)
            self._on_change((subscriber,))

    def _delay_retry(
        self, failures_by_uid: dict[str, _RequestFailure], pod: Pod, result: EvictionResult, subscriber: str
    ) -> None:
        """Record a failure, and wake the subscriber after a pause that grows with each failure."""
        previous = failures_by_uid.get(pod.uid)
        failures = previous.failures + 1 if previous else 1
        wait, now = api_responses.retry_delay(result, failures - 1), self._clock.now()
        failures_by_uid[pod.uid] = _RequestFailure(
            now + timedelta(seconds=wait), result, failures, previous.since if previous else now
        )
        asyncio.get_running_loop().call_later(wait, self._on_change, (subscriber,))

    async def _apply(
        self, subscriber: str, key: OwnerPodsKey | None, pod: Pod, decision: ReplacementDecision, cause: str
    ) -> None:
        workload = self._workloads.workload(pod, self._evicting_uids(), ReplicaSetIndex())
        match decision.step:
            case ReplacementStep.RELEASE if workload and workload.deployment:
                if not await self._dry_run_eviction(pod, subscriber) or subscriber not in self._active_subscribers:
                    return  # the policy may have been suspended during the request
                patch = release_record.release_patch(
                    pod.uid, pod.resource_version, pod.other_owner_references, self._build_record(cause, pod, workload)
                )
            case ReplacementStep.RETURN if pod.release_record and workload:
                if not await self._may_return(pod, workload):
                    refusal = EvictionResult(
                        EvictionOutcome.RETRY,
                        BlockerClass.REPLACEMENT_NOT_READY,
                        messages.REPLICA_SET_GONE,
                        messages.REPLICA_SET_HINT,
                    )
                    self._delay_retry(self._write_failures, pod, refusal, subscriber)
                    return
                if decision.backoff:
                    self._set_backoff(_owner_uid(pod, workload), decision.backoff)
                patch = release_record.return_patch(
                    pod.uid, pod.resource_version, pod.other_owner_references, pod.release_record
                )
            case ReplacementStep.CLEAR_RECORD if pod.release_record:
                patch = release_record.clear_patch(pod.uid, pod.resource_version, pod.release_record)
            case _:
                return
        response = await self._client.patch(paths.pod(pod.namespace, pod.name), patch)
        if key:
            self._workloads.put(key, response)
        if decision.step is ReplacementStep.RELEASE:
            self._released[pod.uid] = pods.parse_pod(response)
        else:
            self._released.pop(pod.uid, None)
        self._replaced.pop(pod.uid, None)
        self._new_pod_by_uid.pop(pod.uid, None)
        self._succeeded.discard(pod.uid)
        self._write_failures.pop(pod.uid, None)
        self._dry_run_failures.pop(pod.uid, None)
        self._metrics.replacements.labels(decision.step).inc()
        why = decision.backoff.message if decision.backoff else ""
        log.info(_LOG_EVENTS[decision.step], pod=pod.key, uid=pod.uid, node=pod.node, drain=subscriber, why=why)

    async def _dry_run_eviction(self, pod: Pod, subscriber: str) -> bool:
        """Whether the API server would accept the eviction, apart from budgets; checked before the release."""
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
            result = _eviction_result(error)
            if (
                result.outcome is EvictionOutcome.REFUSED
                and result.blocker_class in api_responses.TEMPORARY_BUDGET_CLASSES
            ):
                return True
            self._delay_retry(self._dry_run_failures, pod, result, subscriber)
            return False
        return True

    async def _may_return(self, pod: Pod, workload: Workload) -> bool:
        """Whether a live read shows a ReplicaSet with replicas; any other would delete the returned pod at once."""
        rs = workload.replica_set(pod.release_record.replica_set_uid) if pod.release_record else None
        if rs is None:
            return False
        raw = await self._client.find(paths.replica_set(rs.namespace, rs.name))
        return raw is not None and raw["metadata"]["uid"] == rs.uid and (raw["spec"].get("replicas", 1) or 0) > 0

    def _build_record(self, cause: str, pod: Pod, workload: Workload) -> ReleaseRecord:
        deployment = workload.deployment
        backoff = self._backoffs.get(_owner_uid(pod, workload))
        return ReleaseRecord(
            cause=cause,
            deletion_cost=pod.annotations.get(names.POD_DELETION_COST),
            ready_pods=decisions.ready_before_release(workload) or workload.serving_count,
            released_at=self._clock.now(),
            attempt=backoff.attempts + 1 if backoff else 1,
            deployment=deployment.name if deployment else "",
            deployment_uid=deployment.uid if deployment else "",
            replica_set=pod.owner.name if pod.owner else "",
            replica_set_uid=pod.owner.uid if pod.owner else "",
        )


_LOG_EVENTS = {
    ReplacementStep.RELEASE: "pod.released",
    ReplacementStep.RETURN: "pod.returned",
    ReplacementStep.CLEAR_RECORD: "pod.record_cleared",
}


def _eviction_result(error: Exception) -> EvictionResult:
    """Return the result of a failed request for a pod."""
    if isinstance(error, ApiError):
        return api_responses.classify(error.response, None)
    return api_responses.no_response(str(error))


def _needs_decision(pod: Pod, pod_decision: PodDecision, drain: DrainSettings, *, may_move: bool) -> bool:
    """Whether the pod needs a decision here: pods of ReplicaSets, and pods with a move record."""
    if pod.deletion_timestamp:
        return False
    if pod.release_record:
        # If no pod may move, also the record of a pod that was to be deleted at the timeout is cleared.
        return not may_move or pod_decision.action in (PodAction.EVICT, PodAction.BLOCK, PodAction.SKIP)
    has_replica_set = pod.owner is not None and pod.owner.kind == "ReplicaSet"
    return (
        may_move
        and has_replica_set
        and pod_decision.action is PodAction.EVICT
        and decisions.replacement_mode(pod, drain) is not ReplacementMode.NEVER
    )


def _owner_uid(pod: Pod, workload: Workload | None) -> str:
    if workload and workload.deployment:
        return workload.deployment.uid
    return pod.release_record.deployment_uid if pod.release_record else pod.uid
