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
from rescheduler.api.policies import (
    REPLACEMENT_ANNOTATION_VALUES,
    DrainRule,
    DrainSettings,
    EvictOrBlock,
    OnTimeout,
    RuleAction,
)
from rescheduler.api.scalars import parse_duration
from rescheduler.api.untrusted import EARLIEST_TIME
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.volumes import NodeVolumes

_CRITICAL_PRIORITY_CLASSES = ("system-cluster-critical", "system-node-critical")
CRITICAL_ORDER = 1_000_000
"""Order of system-*-critical pods that no rule names: they leave after all others."""
OWN_POD_ORDER = 2**31
"""Order of the operator's own pod: after everything that a rule can say."""
_DUPLICATE_SAFE_KINDS = ("ReplicaSet", "ReplicationController")
"""Owners that start another pod as soon as one is Terminating, under another name."""
FOREVER = datetime.max.replace(tzinfo=UTC)
_CACHE_LAG = timedelta(seconds=10)
_LONG_GRACE_PERIOD = timedelta(days=1)
"""A drain that waits for so long a grace period names it."""
_STUCK_TERMINATING_AFTER = timedelta(seconds=10)
"""So long past its deletionTimestamp, which has the grace in it already, a Terminating pod is stuck."""


class PodAction(StrEnum):
    """What a drain does with a pod."""

    EVICT = "Evict"  # by the Eviction API, within its budget
    DELETE = "Delete"  # plain DELETE with UID and its own grace: on an unreachable node
    WAIT_TERMINATING = "Leaving"  # Terminating already: wait
    SKIP = "Stay"  # skipped: not part of the drain
    BLOCK = "Block"  # must leave, and may not: a blocker says why


class RequiredProof(StrEnum):
    """What a verdict rests on beside the pod: looked at live, just before."""

    NONE = "Nothing"
    NODE_UNREACHABLE = "Silent"  # its node is unreachable
    BOOT_DEAD = "Dead"  # its node's boot is proven dead


@dataclass(frozen=True, slots=True)
class PodDecision:
    """What to do with one pod, and when among the others (lower `order` first).

    Attributes:
        cause: the blocker's class, where `fate` is BLOCK.
        message, hint: for the blocker: why, and what would unblock it.
        grace: for DELETE, instead of the pod's own; seconds.
        forced: the deadline has come: nothing that could wait holds the pod any more.
        note: a word for the pod's owner.
        as_seen: only while the pod is as it was seen: one that is Ready again keeps its budget.
    """

    action: PodAction
    order: int = 0
    blocker_class: BlockerClass | None = None
    message: str = ""
    hint: str = ""
    grace_seconds: int | None = None
    forced: bool = False
    owner_message: str = ""
    required_proof: RequiredProof = RequiredProof.NONE
    only_if_unchanged: bool = False


@dataclass(frozen=True, slots=True)
class EvictionContext:
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
    started_at: datetime | None = None
    paused_for: timedelta = timedelta()
    node_unreachable: bool = False
    node_failing: bool = False
    boot_dead: bool = False
    proof_hint: str = ""
    replacing_jobs: frozenset[str] = frozenset()
    namespace_labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    daemon_set_uids: Mapping[str, frozenset[str]] = field(default_factory=dict)
    own_pod: str = ""
    volumes: NodeVolumes = field(default_factory=NodeVolumes)

    @property
    def active_for(self) -> timedelta:
        """How long the drain has been at work, pauses left out."""
        return self.now - self.started_at - self.paused_for if self.started_at else timedelta()

    def is_daemon_set_gone(self, pod: Pod) -> bool:
        """Whether the pod's DaemonSet is gone; one that was made just now may not be in view yet."""
        known = self.daemon_set_uids.get(pod.namespace)
        old = pod.created is not None and self.now - pod.created >= _CACHE_LAG
        return known is not None and pod.owner is not None and pod.owner.uid not in known and old


_PLACEMENT_NOT_NEEDED = (BlockerClass.LOCAL_VOLUME, BlockerClass.WAIT_COMPLETED)
"""Who is held so asks for no other place: it has none, or ends where it is."""


def needs_placement(pod: Pod, decision: PodDecision) -> bool:
    """Whether another is made in its stead, and has to be put somewhere."""
    if (
        decision.action in (PodAction.SKIP, PodAction.WAIT_TERMINATING)
        or pod.owner is None
        or pod.owner.kind == "DaemonSet"
    ):
        return False
    return not pod.finished and decision.blocker_class not in _PLACEMENT_NOT_NEEDED


def rule_for(
    pod: Pod, rules: Sequence[DrainRule], namespace_labels: Mapping[str, Mapping[str, str]]
) -> DrainRule | None:
    """The first rule that selects the pod; None where none does."""
    own = namespace_labels.get(pod.namespace, {})
    return next((r for r in rules if r.namespace_selector.matches(own) and r.pod_selector.matches(pod.labels)), None)


def deadline(timeout: timedelta, context: EvictionContext) -> datetime | None:
    """When the time for a pod or a drain is up, pauses not counted; None where it has no end."""
    return context.started_at + context.paused_for + timeout if timeout and context.started_at else None


def protected_until(pod: Pod, now: datetime) -> datetime | None:
    """Until when `do-not-disrupt` protects the pod (FOR_GOOD: no end); None where it does not.

    Raises ValueError for a value that makes no sense: it protects nothing.
    """
    value = pod.annotations.get(names.DO_NOT_DISRUPT)
    if value is None or value == "false":
        return None
    if value == "true":
        return FOREVER
    if not (span := parse_duration(value)):
        raise ValueError(f"{value!r:.60} protects for no time at all")
    until = pod.started + span if pod.started else FOREVER
    return until if until > now else None


def decide_action(pod: Pod, drain: DrainSettings, context: EvictionContext) -> PodDecision:
    """What the drain does with this pod."""
    found = _decide_action(pod, drain, context)
    note = "" if found.action in (PodAction.SKIP, PodAction.WAIT_TERMINATING) else annotation_warning(pod)
    return replace(found, owner_message=note) if note else found


def annotation_warning(pod: Pod) -> str:
    """Return words for the pod's owner about annotations that are ignored because nobody can read them; else nothing."""
    words = []
    try:
        protected_until(pod, EARLIEST_TIME)
    except ValueError as error:
        words.append(f"The annotation {names.DO_NOT_DISRUPT} protects nothing: {error}.")
    given = pod.annotations.get(names.REPLACEMENT)
    if given is not None and given not in REPLACEMENT_ANNOTATION_VALUES:
        allowed = ", ".join(REPLACEMENT_ANNOTATION_VALUES)
        words.append(
            f"The annotation {names.REPLACEMENT} is ignored: it is {given!r:.60}, and must be one of {allowed}."
        )
    return " ".join(words)


def _decide_action(pod: Pod, drain: DrainSettings, context: EvictionContext) -> PodDecision:
    if pod.is_mirror or (_is_daemon_set_pod(pod) and not pod.finished and not context.is_daemon_set_gone(pod)):
        return PodDecision(PodAction.SKIP)
    rule = rule_for(pod, drain.rules, context.namespace_labels)
    if rule and rule.action is RuleAction.SKIP:
        return PodDecision(PodAction.SKIP)
    order = _order(pod, rule, context)
    if pod.deletion_timestamp:
        return _decide_terminating(pod, order, context)
    if pod.finished:
        return PodDecision(PodAction.EVICT, order)
    if pod.tolerates_cordon and not _is_daemon_set_pod(pod):
        return PodDecision(PodAction.SKIP)
    if (pod.owner is None or _is_daemon_set_pod(pod)) and drain.unmanaged is EvictOrBlock.BLOCK:
        gone = f"its DaemonSet {pod.owner.name} is gone: " if pod.owner else ""
        return _block(
            BlockerClass.UNMANAGED,
            order,
            f"{gone}no controller would recreate this pod",
            "delete the pod by hand, or set drain.unmanaged: Evict",
        )
    if context.node_unreachable:
        return _block_local_volume(pod, order, context) or _decide_unreachable(pod, drain, rule, order, context)
    return _decide_reachable(pod, drain, rule, order, context)


def may_run_twice(pod: Pod, context: EvictionContext) -> bool:
    """Whether a second copy beside one that may still run harms nobody."""
    if pod.owner is None or context.volumes.has_single_node_volume(pod):
        return False
    return pod.owner.kind in _DUPLICATE_SAFE_KINDS or (
        pod.owner.kind == "Job" and pod.owner.uid in context.replacing_jobs
    )


def bypass_budget(pod: Pod, decision: PodDecision, context: EvictionContext) -> PodDecision:
    """Of a pod that its budget holds back, on a failed node that is alive: one that serves nobody need not wait.

    Its kubelet ends it, so no proof is needed; others, such as a member of a quorum, keep their budget.
    """
    lost = context.node_failing and not context.node_unreachable and not pod.ready and not pod.finished
    if decision.action is not PodAction.EVICT or not lost or not may_run_twice(pod, context):
        return decision
    return PodDecision(PodAction.DELETE, decision.order, only_if_unchanged=True)


def _is_daemon_set_pod(pod: Pod) -> bool:
    return pod.owner is not None and pod.owner.kind == "DaemonSet"


def _order(pod: Pod, rule: DrainRule | None, context: EvictionContext) -> int:
    if pod.key == context.own_pod:
        return OWN_POD_ORDER
    if rule:
        return rule.order
    return CRITICAL_ORDER if pod.priority_class in _CRITICAL_PRIORITY_CLASSES else 0


def _decide_reachable(
    pod: Pod, drain: DrainSettings, rule: DrainRule | None, order: int, context: EvictionContext
) -> PodDecision:
    """A pod whose kubelet answers."""
    if pod.has_empty_dir and drain.empty_dir is EvictOrBlock.BLOCK:
        return _block(
            BlockerClass.EMPTY_DIR,
            order,
            "its emptyDir volume would be lost",
            "save the data and delete the pod by hand, or set drain.emptyDir: Evict",
        )
    if held := _block_local_volume(pod, order, context):
        return held
    if forced := _delete_at_timeout(pod, drain, rule, order, context):
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
        until = protected_until(pod, context.now)
    if until:
        end = "" if until == FOREVER else f" until {until:%Y-%m-%d %H:%M:%SZ}"
        return _block(
            BlockerClass.DO_NOT_DISRUPT,
            order,
            f"its owner asks by the annotation {names.DO_NOT_DISRUPT} not to disrupt it{end}",
            "ask the owner to take the annotation off, or wait",
        )
    return PodDecision(PodAction.EVICT, order)


def _block_local_volume(pod: Pod, order: int, context: EvictionContext) -> PodDecision | None:
    if not context.volumes.has_local_volume(pod):
        return None
    return _block(
        BlockerClass.LOCAL_VOLUME,
        order,
        "its data is on a volume of this node alone: elsewhere it would stay Pending",
        "save the data and delete the pod and its claim by hand, or let a rule Skip it",
    )


def _delete_at_timeout(
    pod: Pod, drain: DrainSettings, rule: DrainRule | None, order: int, context: EvictionContext
) -> PodDecision | None:
    """At its deadline less its grace a pod is deleted, so that it is gone by the deadline; grace is never 0."""
    timeout = rule.timeout if rule and rule.timeout is not None else drain.timeout
    end = deadline(timeout, context)
    if end is None or drain.on_timeout is not OnTimeout.DELETE:
        return None
    own = timedelta(
        seconds=drain.grace_period_seconds if drain.grace_period_seconds is not None else pod.grace_period_seconds
    )
    grace = min(own, timeout / 2)
    if context.now < end - grace:
        return None
    left = min(grace, end - context.now)
    return PodDecision(PodAction.DELETE, order, grace_seconds=max(1, int(left.total_seconds())), forced=True)


def _block(blocker_class: BlockerClass, order: int, message: str, hint: str) -> PodDecision:
    return PodDecision(PodAction.BLOCK, order, blocker_class, message, hint)


def _decide_terminating(pod: Pod, order: int, context: EvictionContext) -> PodDecision:
    if context.node_unreachable and not pod.finished and not may_run_twice(pod, context):
        dead = PodDecision(PodAction.WAIT_TERMINATING, order, required_proof=RequiredProof.BOOT_DEAD)
        return dead if context.boot_dead else _wait_for_proof(pod, order, context)
    if pod.deletion_timestamp is not None and pod.deletion_timestamp - context.now >= _LONG_GRACE_PERIOD:
        return PodDecision(
            PodAction.WAIT_TERMINATING,
            order,
            BlockerClass.STUCK_TERMINATING,
            f"its grace period lets it run until {pod.deletion_timestamp:%Y-%m-%d %H:%MZ}",
            f"wait, or end it sooner: kubectl delete pod -n {pod.namespace} {pod.name} --grace-period=30",
        )
    if pod.deletion_timestamp is None or context.now - pod.deletion_timestamp < _STUCK_TERMINATING_AFTER:
        return PodDecision(PodAction.WAIT_TERMINATING, order)
    held = f" and has the finalizers {', '.join(pod.finalizers)}" if pod.finalizers else ""
    return PodDecision(
        PodAction.WAIT_TERMINATING,
        order,
        BlockerClass.STUCK_TERMINATING,
        # Not how long ago: words that change with every look would be written with every look.
        f"should have ended at {pod.deletion_timestamp:%Y-%m-%d %H:%M:%SZ}{held}",
        "ask whoever set the finalizers to finish" if pod.finalizers else "look at the kubelet and at its volumes",
    )


def _decide_unreachable(
    pod: Pod, drain: DrainSettings, rule: DrainRule | None, order: int, context: EvictionContext
) -> PodDecision:
    """On an unreachable node only what may run twice goes without proof that the node is dead."""
    twice = may_run_twice(pod, context)
    if not twice and not context.boot_dead:
        return _wait_for_proof(pod, order, context)
    premise = RequiredProof.NODE_UNREACHABLE if twice else RequiredProof.BOOT_DEAD
    if forced := _delete_at_timeout(pod, drain, rule, order, context):
        return replace(forced, required_proof=premise)
    # One that still counts as healthy is never deleted past its budget.
    if pod.ready or not context.node_failing:
        return PodDecision(PodAction.EVICT, order, required_proof=premise)
    return PodDecision(PodAction.DELETE, order, required_proof=premise, only_if_unchanged=True)


def _wait_for_proof(pod: Pod, order: int, context: EvictionContext) -> PodDecision:
    """A pod that must not run twice: nothing is written to it until its node is proven dead."""
    why = (
        "its volume can be had by one node alone"
        if context.volumes.has_single_node_volume(pod)
        else "it must not run twice"
    )
    message = f"its node is unreachable, where it may still run, and {why}"
    fate = PodAction.WAIT_TERMINATING if pod.deletion_timestamp else PodAction.BLOCK
    return PodDecision(fate, order, BlockerClass.WAITING_FOR_PROOF, message, context.proof_hint)
