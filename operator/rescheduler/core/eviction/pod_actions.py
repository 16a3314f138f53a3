"""Whether a pod on a node being drained leaves, stays, or blocks.

The order of the questions matters: what stays is decided before what blocks, so that a DaemonSet's pod with
an emptyDir never appears as a blocker.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from rescheduler.api import names
from rescheduler.api.drains import BlockerClass
from rescheduler.api.policies import OWNERS_WORDS, Drain, EvictOrBlock, OnTimeout, Rule, RuleAction
from rescheduler.api.scalars import parse_duration
from rescheduler.api.untrusted import EARLIEST
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.volumes import Volumes

_CRITICAL = ("system-cluster-critical", "system-node-critical")
CRITICAL_ORDER = 1_000_000
"""Order of system-*-critical pods that no rule names: they leave after all others."""
OWN_ORDER = 2**31
"""Order of the operator's own pod: after everything that a rule can say."""
_RUN_TWICE = ("ReplicaSet", "ReplicationController")
"""Owners that start another pod as soon as one is Terminating, under another name."""
FOR_GOOD = datetime.max.replace(tzinfo=UTC)
_LAG = timedelta(seconds=10)
_LONG = timedelta(days=1)
"""A drain that waits for so long a grace period names it."""
_OVERDUE = timedelta(seconds=10)
"""So long past its deletionTimestamp, which has the grace in it already, a Terminating pod is stuck."""


class Fate(StrEnum):
    """What a drain does with a pod."""

    EVICT = "Evict"  # by the Eviction API, within its budget
    DELETE = "Delete"  # plain DELETE with UID and its own grace: on an unreachable node
    LEAVING = "Leaving"  # Terminating already: wait
    STAY = "Stay"  # skipped: not part of the drain
    BLOCK = "Block"  # must leave, and may not: a blocker says why


class Premise(StrEnum):
    """What a verdict rests on beside the pod: looked at live, just before."""

    NOTHING = "Nothing"
    SILENT = "Silent"  # its node is unreachable
    DEAD = "Dead"  # its node's boot is proven dead


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do with one pod, and when among the others (lower `order` first).

    Attributes:
        cause: the blocker's class, where `fate` is BLOCK.
        message, hint: for the blocker: why, and what would unblock it.
        grace: for DELETE, instead of the pod's own; seconds.
        forced: the deadline has come: nothing that could wait holds the pod any more.
        note: a word for the pod's owner.
        as_seen: only while the pod is as it was seen: one that is Ready again keeps its budget.
    """

    fate: Fate
    order: int = 0
    cause: BlockerClass | None = None
    message: str = ""
    hint: str = ""
    grace: int | None = None
    forced: bool = False
    note: str = ""
    premise: Premise = Premise.NOTHING
    as_seen: bool = False


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What of a drain's surroundings its verdicts depend on.

    Attributes:
        started: when the drain began; `paused`: how much of the time since does not count.
        unreachable: the node is `Ready=Unknown`, or proven dead.
        failing: its failure was asked about, and holds: what serves nobody any more may go past its budget.
        dead: its boot is proven dead; `proof_hint`: what would prove it.
        jobs: uids of Jobs that replace a pod as soon as it is Terminating.
        labels: of namespaces, by name; those that no rule asks for may be absent.
        daemon_sets: uids of those that exist, by namespace; None where not known.
        own: this process' own pod, as namespace/name.
    """

    now: datetime
    started: datetime | None = None
    paused: timedelta = timedelta()
    unreachable: bool = False
    failing: bool = False
    dead: bool = False
    proof_hint: str = ""
    jobs: frozenset[str] = frozenset()
    labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    daemon_sets: Mapping[str, frozenset[str]] = field(default_factory=dict)
    own: str = ""
    volumes: Volumes = field(default_factory=Volumes)

    @property
    def active(self) -> timedelta:
        """How long the drain has been at work, pauses left out."""
        return self.now - self.started - self.paused if self.started else timedelta()

    def orphaned(self, pod: Pod) -> bool:
        """Whether the pod's DaemonSet is gone; one that was made just now may not be in view yet."""
        known = self.daemon_sets.get(pod.namespace)
        old = pod.created is not None and self.now - pod.created >= _LAG
        return known is not None and pod.owner is not None and pod.owner.uid not in known and old


_NO_OTHER_PLACE = (BlockerClass.LOCAL_VOLUME, BlockerClass.WAIT_COMPLETED)
"""Who is held so asks for no other place: it has none, or ends where it is."""


def needs_a_place(pod: Pod, verdict: Verdict) -> bool:
    """Whether another is made in its stead, and has to be put somewhere."""
    if verdict.fate in (Fate.STAY, Fate.LEAVING) or pod.owner is None or pod.owner.kind == "DaemonSet":
        return False
    return not pod.finished and verdict.cause not in _NO_OTHER_PLACE


def rule_for(pod: Pod, rules: Sequence[Rule], labels: Mapping[str, Mapping[str, str]]) -> Rule | None:
    """The first rule that selects the pod; None where none does."""
    own = labels.get(pod.namespace, {})
    return next((r for r in rules if r.namespace_selector.matches(own) and r.pod_selector.matches(pod.labels)), None)


def deadline(timeout: timedelta, seen: Circumstances) -> datetime | None:
    """When the time for a pod or a drain is up, pauses not counted; None where it has no end."""
    return seen.started + seen.paused + timeout if timeout and seen.started else None


def protected_until(pod: Pod, now: datetime) -> datetime | None:
    """Until when `do-not-disrupt` protects the pod (FOR_GOOD: no end); None where it does not.

    Raises ValueError for a value that makes no sense: it protects nothing.
    """
    value = pod.annotations.get(names.DO_NOT_DISRUPT)
    if value is None or value == "false":
        return None
    if value == "true":
        return FOR_GOOD
    if not (span := parse_duration(value)):
        raise ValueError(f"{value!r:.60} protects for no time at all")
    until = pod.started + span if pod.started else FOR_GOOD
    return until if until > now else None


def judge(pod: Pod, drain: Drain, seen: Circumstances) -> Verdict:
    """What the drain does with this pod."""
    found = _judge(pod, drain, seen)
    note = "" if found.fate in (Fate.STAY, Fate.LEAVING) else misread(pod)
    return replace(found, note=note) if note else found


def misread(pod: Pod) -> str:
    """Return words for the pod's owner about annotations that are ignored because nobody can read them; else nothing."""
    words = []
    try:
        protected_until(pod, EARLIEST)
    except ValueError as error:
        words.append(f"The annotation {names.DO_NOT_DISRUPT} protects nothing: {error}.")
    given = pod.annotations.get(names.REPLACEMENT)
    if given is not None and given not in OWNERS_WORDS:
        allowed = ", ".join(OWNERS_WORDS)
        words.append(
            f"The annotation {names.REPLACEMENT} is ignored: it is {given!r:.60}, and must be one of {allowed}."
        )
    return " ".join(words)


def _judge(pod: Pod, drain: Drain, seen: Circumstances) -> Verdict:
    if pod.mirror or (_of_daemon_set(pod) and not pod.finished and not seen.orphaned(pod)):
        return Verdict(Fate.STAY)
    rule = rule_for(pod, drain.rules, seen.labels)
    if rule and rule.action is RuleAction.SKIP:
        return Verdict(Fate.STAY)
    order = _order(pod, rule, seen)
    if pod.deleting:
        return _leaving(pod, order, seen)
    if pod.finished:
        return Verdict(Fate.EVICT, order)
    if pod.tolerates_cordon and not _of_daemon_set(pod):
        return Verdict(Fate.STAY)
    if (pod.owner is None or _of_daemon_set(pod)) and drain.unmanaged is EvictOrBlock.BLOCK:
        gone = f"its DaemonSet {pod.owner.name} is gone: " if pod.owner else ""
        return _block(
            BlockerClass.UNMANAGED,
            order,
            f"{gone}no controller would recreate this pod",
            "delete the pod by hand, or set drain.unmanaged: Evict",
        )
    if seen.unreachable:
        return _local(pod, order, seen) or _unreachable(pod, drain, rule, order, seen)
    return _alive(pod, drain, rule, order, seen)


def may_run_twice(pod: Pod, seen: Circumstances) -> bool:
    """Whether a second copy beside one that may still run harms nobody."""
    if pod.owner is None or seen.volumes.exclusive(pod):
        return False
    return pod.owner.kind in _RUN_TWICE or (pod.owner.kind == "Job" and pod.owner.uid in seen.jobs)


def past_budget(pod: Pod, verdict: Verdict, seen: Circumstances) -> Verdict:
    """Of a pod that its budget holds back, on a failed node that is alive: one that serves nobody need not wait.

    Its kubelet ends it, so no proof is needed; others, such as a member of a quorum, keep their budget.
    """
    lost = seen.failing and not seen.unreachable and not pod.ready and not pod.finished
    if verdict.fate is not Fate.EVICT or not lost or not may_run_twice(pod, seen):
        return verdict
    return Verdict(Fate.DELETE, verdict.order, as_seen=True)


def _of_daemon_set(pod: Pod) -> bool:
    return pod.owner is not None and pod.owner.kind == "DaemonSet"


def _order(pod: Pod, rule: Rule | None, seen: Circumstances) -> int:
    if pod.key == seen.own:
        return OWN_ORDER
    if rule:
        return rule.order
    return CRITICAL_ORDER if pod.priority_class in _CRITICAL else 0


def _alive(pod: Pod, drain: Drain, rule: Rule | None, order: int, seen: Circumstances) -> Verdict:
    """A pod whose kubelet answers."""
    if pod.empty_dir and drain.empty_dir is EvictOrBlock.BLOCK:
        return _block(
            BlockerClass.EMPTY_DIR,
            order,
            "its emptyDir volume would be lost",
            "save the data and delete the pod by hand, or set drain.emptyDir: Evict",
        )
    if held := _local(pod, order, seen):
        return held
    if forced := _at_timeout(pod, drain, rule, order, seen):
        return forced
    if rule and rule.action is RuleAction.WAIT_COMPLETED:
        return _block(
            BlockerClass.WAIT_COMPLETED,
            order,
            "a rule lets this pod run to its end",
            "wait until it has completed, or change the rule",
        )
    until = None
    with contextlib.suppress(ValueError):  # judge says so
        until = protected_until(pod, seen.now)
    if until:
        end = "" if until == FOR_GOOD else f" until {until:%Y-%m-%d %H:%M:%SZ}"
        return _block(
            BlockerClass.DO_NOT_DISRUPT,
            order,
            f"its owner asks by the annotation {names.DO_NOT_DISRUPT} not to disrupt it{end}",
            "ask the owner to take the annotation off, or wait",
        )
    return Verdict(Fate.EVICT, order)


def _local(pod: Pod, order: int, seen: Circumstances) -> Verdict | None:
    if not seen.volumes.on_this_node_alone(pod):
        return None
    return _block(
        BlockerClass.LOCAL_VOLUME,
        order,
        "its data is on a volume of this node alone: elsewhere it would stay Pending",
        "save the data and delete the pod and its claim by hand, or let a rule Skip it",
    )


def _at_timeout(pod: Pod, drain: Drain, rule: Rule | None, order: int, seen: Circumstances) -> Verdict | None:
    """At its deadline less its grace a pod is deleted, so that it is gone by the deadline; grace is never 0."""
    timeout = rule.timeout if rule and rule.timeout is not None else drain.timeout
    end = deadline(timeout, seen)
    if end is None or drain.on_timeout is not OnTimeout.DELETE:
        return None
    own = timedelta(seconds=drain.grace_period_seconds if drain.grace_period_seconds is not None else pod.grace)
    grace = min(own, timeout / 2)
    if seen.now < end - grace:
        return None
    left = min(grace, end - seen.now)
    return Verdict(Fate.DELETE, order, grace=max(1, int(left.total_seconds())), forced=True)


def _block(cause: BlockerClass, order: int, message: str, hint: str) -> Verdict:
    return Verdict(Fate.BLOCK, order, cause, message, hint)


def _leaving(pod: Pod, order: int, seen: Circumstances) -> Verdict:
    if seen.unreachable and not pod.finished and not may_run_twice(pod, seen):
        dead = Verdict(Fate.LEAVING, order, premise=Premise.DEAD)
        return dead if seen.dead else _waits_for_proof(pod, order, seen)
    if pod.deleting is not None and pod.deleting - seen.now >= _LONG:
        return Verdict(
            Fate.LEAVING,
            order,
            BlockerClass.STUCK_TERMINATING,
            f"its grace period lets it run until {pod.deleting:%Y-%m-%d %H:%MZ}",
            f"wait, or end it sooner: kubectl delete pod -n {pod.namespace} {pod.name} --grace-period=30",
        )
    if pod.deleting is None or seen.now - pod.deleting < _OVERDUE:
        return Verdict(Fate.LEAVING, order)
    held = f" and has the finalizers {', '.join(pod.finalizers)}" if pod.finalizers else ""
    return Verdict(
        Fate.LEAVING,
        order,
        BlockerClass.STUCK_TERMINATING,
        # Not how long ago: words that change with every look would be written with every look.
        f"should have ended at {pod.deleting:%Y-%m-%d %H:%M:%SZ}{held}",
        "ask whoever set the finalizers to finish" if pod.finalizers else "look at the kubelet and at its volumes",
    )


def _unreachable(pod: Pod, drain: Drain, rule: Rule | None, order: int, seen: Circumstances) -> Verdict:
    """On an unreachable node only what may run twice goes without proof that the node is dead."""
    twice = may_run_twice(pod, seen)
    if not twice and not seen.dead:
        return _waits_for_proof(pod, order, seen)
    premise = Premise.SILENT if twice else Premise.DEAD
    if forced := _at_timeout(pod, drain, rule, order, seen):
        return replace(forced, premise=premise)
    # One that still counts as healthy is never deleted past its budget.
    if pod.ready or not seen.failing:
        return Verdict(Fate.EVICT, order, premise=premise)
    return Verdict(Fate.DELETE, order, premise=premise, as_seen=True)


def _waits_for_proof(pod: Pod, order: int, seen: Circumstances) -> Verdict:
    """A pod that must not run twice: nothing is written to it until its node is proven dead."""
    why = "its volume can be had by one node alone" if seen.volumes.exclusive(pod) else "it must not run twice"
    message = f"its node is unreachable, where it may still run, and {why}"
    fate = Fate.LEAVING if pod.deleting else Fate.BLOCK
    return Verdict(fate, order, BlockerClass.WAITING_FOR_PROOF, message, seen.proof_hint)
