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
from rescheduler.api.policies import Drain, Replacement
from rescheduler.controllers.evacuation.budget_watch import Budgets
from rescheduler.controllers.evacuation.workload_watch import Key, Memo, Owners
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.core.drain import capacity
from rescheduler.core.drain.capacity import Forecasts
from rescheduler.core.eviction import api_responses
from rescheduler.core.eviction.api_responses import Answer, Outcome
from rescheduler.core.eviction.pod_actions import Fate, Verdict
from rescheduler.core.model import pods, release_record
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.release_record import Move
from rescheduler.core.model.workloads import Workload
from rescheduler.core.placement.planner import Fit, Forecast
from rescheduler.core.replacement import decisions
from rescheduler.core.replacement.decisions import Choice, Refused, Setback, Setting, Trouble, Way
from rescheduler.kube import paths
from rescheduler.kube.client import TRANSIENT, ApiError, Client

log = structlog.get_logger("rescheduler.replacements")

_LAG = timedelta(seconds=5)  # a pod may be seen before its ReplicaSet, but not for longer
_NAMED_AFTER = 3  # failures in a row: a single one is no news
_FORGOTTEN = timedelta(minutes=30)  # after its pause a setback says nothing about the next attempt
_TIMEOUT = 40.0  # seconds; the server itself may hold an eviction for 10 s while budgets collide


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A request for a pod that did not succeed.

    Attributes:
        until: the pod is not asked for again before.
        failures: in a row.
    """

    until: datetime
    answer: Answer
    failures: int

    def standing(self, now: datetime) -> bool:
        """Whether it stands, and is more than a hiccup."""
        return now < self.until and (self.answer.outcome is Outcome.REFUSED or self.failures >= _NAMED_AFTER)


class Replacements:
    """One for the process; `going`: uids of pods whose eviction is under way; `refused`: why one is refused, by uid."""

    def __init__(
        self,
        client: Client,
        clock: Clock,
        budgets: Budgets,
        owners: Owners,
        metrics: Metrics,
        changed: Callable[[Iterable[str]], None],
        going: Callable[[], frozenset[str]],
        *,
        refused: Callable[[str], str],
    ) -> None:
        self._client, self._clock, self._budgets, self._owners = client, clock, budgets, owners
        self._metrics, self._changed, self._going, self._refused = metrics, changed, going, refused
        self._setbacks: dict[str, Setback] = {}  # by uid of the Deployment
        self._roomless: set[str] = set()  # uids of Deployments that the plan has no room for, while a setback stands
        self._asked: dict[str, datetime] = {}  # by pod uid
        self._rolling: dict[str, datetime] = {}  # by uid of the Deployment: since when a rollout was seen
        self._told: dict[str, str] = {}  # by pod uid: the reason that was logged
        self._refusals: dict[str, _Refusal] = {}  # by pod uid: of the rehearsed eviction
        self._unwritable: dict[str, _Refusal] = {}  # by pod uid: of a patch
        self._tasks: dict[str, asyncio.Task[None]] = {}  # by pod uid
        self._taken: set[str] = set()  # uids of released pods that somebody else removed
        self._released: dict[str, Pod] = {}  # by uid, as released by this process: it may be gone before it is seen so
        self._moving: set[str] = set()  # holders whose drain may go on, as of their last look
        self._memo, self._gone = Memo(), set[str]()  # of the look that is under way
        self._releasing: dict[str, str] = {}  # by pod uid: the uid of its Deployment

    def look(
        self,
        holder: str,
        judged: Sequence[tuple[Pod, Verdict]],
        drain: Drain,
        now: datetime,
        *,
        may_move: bool,
        said: Mapping[str, Blocker],
        early: bool = False,
        forecasts: Forecasts | None = None,
    ) -> dict[str, Choice] | None:
        """What to do with each pod that replacement first concerns, by uid; None while their owners are not known.

        `may_move`: the drain may go on. `said`: the blockers that its status names, by namespace/name of the pod.
        `early`: its node is only suspected. `forecasts`: what the plan says of its pods.
        """
        # First: the owner of the last pod to go is not held in view any more.
        self.note_taken([pod for pod, _ in judged if pod.released and pod.deleting], drain, now)
        (self._moving.add if may_move else self._moving.discard)(holder)
        rows = [pod for pod, verdict in judged if _concerned(pod, verdict, drain, may_move=may_move)]
        planned = forecasts or {}
        rows.sort(key=lambda pod: capacity.turn(planned.get(pod.uid)))
        self._owners.hold(holder, rows)
        if not all(self._owners.known(namespace) for namespace in {pod.namespace for pod in rows}):
            return None
        kept = {pod.uid for pod, verdict in judged if verdict.fate is not Fate.EVICT}
        choices: dict[str, Choice] = {}
        self._memo, self._gone = Memo(), set(self._going())
        letting: Counter[str] = Counter(self._releasing.values())
        for pod in rows:
            self._recall(pod, said.get(pod.key), drain, now)
            may = may_move and pod.uid not in kept
            forecast = planned.get(pod.uid)
            choice = self._choose(pod, drain, now, letting, may_move=may, early=early, forecast=forecast)
            choice = capacity.named(choice, forecast) if may else choice
            if choice.way is Way.EVICT or (choice.way is Way.PLAIN and choice.reason in decisions.BUT_THE_LAST):
                self._gone.add(pod.uid)
            choices[pod.uid] = choice
        return choices

    def _choose(
        self,
        pod: Pod,
        drain: Drain,
        now: datetime,
        letting: Counter[str],
        *,
        may_move: bool,
        early: bool,
        forecast: Forecast | None,
    ) -> Choice:
        asked = self._asked.setdefault(pod.uid, now)
        budgets = self._budgets.of(pod)
        if budgets is None or pod.uid in self._tasks:
            return Choice(Way.WAIT)
        left, key = self._owners.has_left(pod), self._owners.key(pod)
        if key and not left:
            latest = self._owners.latest(key, pod)
            if latest is None:
                return Choice(Way.WAIT, why=self._owners.unlisted(key) or "the pods of its owner are not known yet")
            pod = latest
        elif not pod.released and now - asked < _LAG:
            return Choice(Way.WAIT)
        workload = self._owners.workload(pod, self._gone, self._memo)
        unwritable = self._why_unwritable(pod, now)
        if not may_move:
            return decisions.give_back(pod, workload, now, unwritable)
        refused = self._refusals.get(pod.uid)
        if refused and refused.standing(now) and not pod.released:
            answer = refused.answer
            if answer.by_webhook:
                # A webhook that takes evictions over does nothing on a rehearsal: only the real request tells.
                return Choice(Way.PLAIN, "Delegated")
            return Choice(Way.HOLD, cause=answer.cause, message=answer.message, hint=answer.hint)
        owner = _owner_uid(pod, workload)
        setting = Setting(
            drain,
            now,
            budgets=budgets,
            exclusive=self._owners.exclusive(pod),
            left=left,
            unwritable=unwritable,
            setback=self._setback(owner, forecast, now),
            rolling_since=self._rolling_since(owner, workload, now),
            releasing=letting[owner],
            early=early,
            refused=self._refused(pod.uid),
            short=capacity.short(forecast),
            crowded=capacity.crowded(forecast),
        )
        choice = decisions.choose(pod, workload, setting)
        letting[owner] += choice.way is Way.RELEASE
        return choice

    def _why_unwritable(self, pod: Pod, now: datetime) -> Refused | None:
        found = self._unwritable.get(pod.uid)
        if found is None or not found.standing(now):
            return None
        answer = found.answer
        return Refused(answer.cause or BlockerClass.THROTTLED, answer.message, answer.hint)

    def note_taken(self, rows: Iterable[Pod], drain: Drain, now: datetime) -> None:
        """Note which of these released pods, which go or are gone, somebody else removed: a setback of their owner."""
        going = self._going()
        for pod in rows:
            if pod.uid in going or pod.evicted or pod.finished or pod.uid in self._taken:
                continue
            workload = self._owners.workload(pod, frozenset(), Memo())
            if workload is None or workload.deployment is None or workload.deployment.deleting:
                continue  # it goes with its Deployment
            if decisions.is_unwanted(pod, workload):
                continue
            owner = _owner_uid(pod, workload)
            if setback := decisions.taken(pod, drain, self._setbacks.get(owner), now):
                self._taken.add(pod.uid)
                self._setbacks[owner] = setback
                self._metrics.taken.inc()
                log.warning("pod.taken", pod=pod.key, uid=pod.uid, node=pod.node, why=setback.message)

    def last_seen(self, pod: Pod) -> Pod:
        """Return the pod as it was released, if that came after what was seen of it."""
        return self._released.get(pod.uid, pod)

    def taken(self, uid: str) -> bool:
        """Whether somebody else removed this released pod."""
        return uid in self._taken

    def _setback(self, owner: str, forecast: Forecast | None, now: datetime) -> Setback | None:
        """Return the setback of an owner.

        One for want of room ends when the plan, which had no room either, finds some. Any ends some time after its
        pause: the first failure of next month is a first one.
        """
        setback = self._setbacks.get(owner)
        if setback and now >= setback.until + _FORGOTTEN:
            self._forgive(owner)
            return None
        if setback is None or setback.trouble is not Trouble.NO_ROOM or forecast is None:
            return setback
        if capacity.short(forecast):
            self._roomless.add(owner)
        elif forecast.fit is Fit.FITS and owner in self._roomless:
            self._forgive(owner)
            return None
        return setback

    def _forgive(self, owner: str) -> None:
        """Forget the setback of an owner: it does not speak of its next release."""
        self._setbacks.pop(owner, None)
        self._roomless.discard(owner)

    def _recall(self, pod: Pod, blocker: Blocker | None, drain: Drain, now: datetime) -> None:
        """Take over what the last process came to know of the pod's owner; once, for what is known here is newer."""
        if pod.uid in self._asked:
            return
        workload = self._owners.workload(pod, frozenset(), self._memo) if blocker else None
        if blocker is None or workload is None or (owner := _owner_uid(pod, workload)) in self._setbacks:
            return
        if setback := decisions.recall(blocker, drain, now):
            self._setbacks[owner] = setback

    def _rolling_since(self, owner: str, workload: Workload | None, now: datetime) -> datetime:
        if workload and workload.rolling:
            return self._rolling.setdefault(owner, now)
        self._rolling.pop(owner, None)
        return now

    def close(self, holder: str) -> None:
        """Let go of what this holder had in view."""
        self._moving.discard(holder)
        self._owners.hold(holder, ())

    def missing(self, holder: str) -> str:
        """Return which view of owners that this holder asked for is not there, and why; empty if all are."""
        return self._owners.missing(holder)

    def latest(self, pod: Pod) -> Pod:
        """The pod as last seen or written."""
        key = self._owners.key(pod)
        return (self._owners.latest(key, pod) if key else None) or pod

    def replaced(self, pod: Pod) -> None:
        """Forget the setback of the owner of a released pod that has left as it was to."""
        if pod.move:
            self._forgive(pod.move.deployment_uid)

    def forget(self, uids: Iterable[str]) -> None:
        """These pods are gone, or their holder looks after them no more."""
        for uid in uids:
            for known in (self._asked, self._told, self._refusals, self._unwritable, self._released):
                known.pop(uid, None)
            self._taken.discard(uid)

    def act(self, holder: str, pod: Pod, choice: Choice, cause: str = "") -> None:
        """Start what the choice says, unless something is under way for this pod; `cause`: of a release."""
        if choice.way is Way.PLAIN and self._told.get(pod.uid) != choice.reason:
            self._told[pod.uid] = choice.reason
            self._metrics.not_replaced.labels(choice.reason).inc()
            log.info("pod.not_replaced_first", pod=pod.key, uid=pod.uid, node=pod.node, reason=choice.reason)
        key = self._owners.key(pod)
        latest = self._owners.latest(key, pod) if key else None
        if choice.way not in (Way.RELEASE, Way.RETURN, Way.CLEAR) or pod.uid in self._tasks:
            return
        if self._is_paused(pod):
            return
        if latest is None and choice.way is Way.CLEAR:
            latest = pod  # no ReplicaSet of it is in view, or it has left that one's selector
        if latest:
            if choice.way is Way.RELEASE:
                self._releasing[pod.uid] = _owner_uid(latest, self._owners.workload(latest, frozenset(), Memo()))
            work = self._write(holder, key, latest, choice, cause)
            self._tasks[pod.uid] = asyncio.create_task(work, name=f"{choice.way} {pod.key}")

    def _is_paused(self, pod: Pod) -> bool:
        """Whether its last request failed a moment ago; the holder is woken when it may be asked for again."""
        now = self._clock.now()
        return any(
            found is not None and now < found.until
            for found in (self._refusals.get(pod.uid), self._unwritable.get(pod.uid))
        )

    async def _write(self, holder: str, key: Key | None, pod: Pod, choice: Choice, cause: str) -> None:
        try:
            await self._carry_out(holder, key, pod, choice, cause)
        except TRANSIENT as error:
            self._pause(self._unwritable, pod, _answer(error), holder)
            found = self._unwritable[pod.uid]
            conflict = isinstance(error, ApiError) and error.code in (404, 409)
            if not conflict or found.failures > 1:
                log.warning("pod.write_failed", pod=pod.key, uid=pod.uid, way=choice.way, error=str(error))
        except Exception as error:  # whatever it is, it costs this pod only, and is not repeated at once
            log.exception("task.failed", task="release", object=pod.key)
            self._pause(
                self._unwritable, pod, api_responses.unanswered(f"internal error ({type(error).__name__})"), holder
            )
        finally:
            self._tasks.pop(pod.uid, None)
            self._releasing.pop(pod.uid, None)
            self._changed((holder,))

    def _pause(self, known: dict[str, _Refusal], pod: Pod, answer: Answer, holder: str) -> None:
        """Ask for this pod again only after a pause: longer with each failure, and as long as the server asks for."""
        before = known.get(pod.uid)
        failures = before.failures + 1 if before else 1
        wait = api_responses.pause(answer, failures - 1)
        known[pod.uid] = _Refusal(self._clock.now() + timedelta(seconds=wait), answer, failures)
        asyncio.get_running_loop().call_later(wait, self._changed, (holder,))

    async def _carry_out(self, holder: str, key: Key | None, pod: Pod, choice: Choice, cause: str) -> None:
        workload = self._owners.workload(pod, self._going(), Memo())
        match choice.way:
            case Way.RELEASE if workload and workload.deployment:
                if not await self._would_be_evicted(pod, holder) or holder not in self._moving:
                    return  # it may have been suspended while the server was asked
                patch = release_record.release_patch(
                    pod.uid, pod.version, pod.references, self._move(cause, pod, workload)
                )
            case Way.RETURN if pod.move and workload:
                if not await self._may_return(pod, workload):
                    gone = "its ReplicaSet is gone or scaled to 0"
                    refusal = Answer(Outcome.RETRY, BlockerClass.REPLACEMENT_NOT_READY, gone, _LOOK_AT_OWNER)
                    self._pause(self._unwritable, pod, refusal, holder)
                    return
                if choice.setback:
                    self._setbacks[_owner_uid(pod, workload)] = choice.setback
                patch = release_record.return_patch(pod.uid, pod.version, pod.references, pod.move)
            case Way.CLEAR if pod.move:
                patch = release_record.clear_patch(pod.uid, pod.version, pod.move)
            case _:
                return
        answer = await self._client.patch(paths.pod(pod.namespace, pod.name), patch)
        if key:
            self._owners.put(key, answer)
        if choice.way is Way.RELEASE:
            self._released[pod.uid] = pods.pod(answer)
        else:
            self._released.pop(pod.uid, None)
        self._unwritable.pop(pod.uid, None)
        self._refusals.pop(pod.uid, None)
        self._metrics.moves.labels(choice.way).inc()
        why = choice.setback.message if choice.setback else ""
        log.info(_SAID[choice.way], pod=pod.key, uid=pod.uid, node=pod.node, drain=holder, why=why)

    async def _would_be_evicted(self, pod: Pod, holder: str) -> bool:
        """Whether anything but a budget would refuse the eviction: asked before the release, not after it."""
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod.name, "namespace": pod.namespace},
            "deleteOptions": {"preconditions": {"uid": pod.uid}, "dryRun": ["All"]},
        }
        try:
            await self._client.create(
                f"{paths.pod(pod.namespace, pod.name)}/eviction?dryRun=All", body, timeout=_TIMEOUT
            )
        except TRANSIENT as error:
            answer = _answer(error)
            if answer.outcome is Outcome.REFUSED and answer.cause in api_responses.OF_BUDGETS:
                return True
            self._pause(self._refusals, pod, answer, holder)
            return False
        return True

    async def _may_return(self, pod: Pod, workload: Workload) -> bool:
        """Read live: a ReplicaSet that is scaled down would kill the pod at once."""
        rs = workload.replica_set(pod.move.replica_set_uid) if pod.move else None
        if rs is None:
            return False
        raw = await self._client.find(paths.replica_set(rs.namespace, rs.name))
        return raw is not None and raw["metadata"]["uid"] == rs.uid and (raw["spec"].get("replicas", 1) or 0) > 0

    def _move(self, cause: str, pod: Pod, workload: Workload) -> Move:
        now, found = self._clock.now(), workload.deployment
        setback = self._setbacks.get(_owner_uid(pod, workload))
        return Move(
            cause=cause,
            cost=pod.annotations.get(names.DELETION_COST),
            ready=decisions.ready_before(workload) or workload.serving,
            since=now,
            attempt=setback.attempts + 1 if setback else 1,
            deployment=found.name if found else "",
            deployment_uid=found.uid if found else "",
            replica_set=pod.owner.name if pod.owner else "",
            replica_set_uid=pod.owner.uid if pod.owner else "",
        )


_SAID = {Way.RELEASE: "pod.released", Way.RETURN: "pod.returned", Way.CLEAR: "pod.record_cleared"}
_LOOK_AT_OWNER = "look at the ReplicaSets of its Deployment"


def _answer(error: Exception) -> Answer:
    """What a failed request for a pod means."""
    if isinstance(error, ApiError):
        return api_responses.judge(error.refusal, None)
    return api_responses.unanswered(str(error))


def _concerned(pod: Pod, verdict: Verdict, drain: Drain, *, may_move: bool) -> bool:
    """Whether replacement first has a say: pods of ReplicaSets, and all that carry the traces of a move."""
    if pod.deleting:
        return False
    if pod.move:
        return verdict.fate in (Fate.EVICT, Fate.BLOCK, Fate.STAY)
    of_set = pod.owner is not None and pod.owner.kind == "ReplicaSet"
    return may_move and of_set and verdict.fate is Fate.EVICT and decisions.wanted(pod, drain) is not Replacement.NEVER


def _owner_uid(pod: Pod, workload: Workload | None) -> str:
    if workload and workload.deployment:
        return workload.deployment.uid
    return pod.move.deployment_uid if pod.move else pod.uid
