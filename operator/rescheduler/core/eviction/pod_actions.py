"""Decide whether a pod on a drained node leaves, stays or blocks (docs/reference/nodedrain.md).

The order of the checks matters. Pods that stay are decided before pods that block. Otherwise a pod of a DaemonSet
with an emptyDir volume would be a blocker.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
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
from rescheduler.api.untrusted import EARLIEST_TIME
from rescheduler.core.eviction import messages
from rescheduler.core.eviction.helpers import HELPER_ORDER, is_helper
from rescheduler.core.eviction.opt_outs import FOREVER, opt_outs, protected_until
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.volumes import NodeVolumes

_CRITICAL_PRIORITY_CLASSES = ("system-cluster-critical", "system-node-critical")
CRITICAL_ORDER = 1_000_000
"""Order of `system-*-critical` pods without a matching rule, which leave after all other pods."""
OWN_POD_ORDER = 2**31
"""Order of the operator's own pod, higher than any order of a rule."""
_DUPLICATE_SAFE_KINDS = ("ReplicaSet", "ReplicationController")
"""Kinds of owners that replace a Terminating pod at once, under a new name."""
_CACHE_LAG = timedelta(seconds=10)  # a new DaemonSet may be missing in the cache for this time
_LONG_GRACE_PERIOD = timedelta(days=1)
"""A Terminating pod whose grace period lasts this much longer is reported."""
_STUCK_TERMINATING_AFTER = timedelta(seconds=10)
"""Time after `deletionTimestamp`, which includes the grace period, until a Terminating pod counts as stuck."""
MAX_CAME_BACK = 3
"""Number of new pods of an owner that start on a cordoned node, after which an eviction would move nothing."""
OwnerKey = tuple[str, str]
"""Namespace and uid of the controller of pods. A pod of another namespace may name any uid."""


class PodAction(StrEnum):
    """Action of a drain for one pod."""

    EVICT = "Evict"  # plain eviction, within the budget of the pod
    DELETE = "Delete"  # plain delete, with the UID as precondition
    WAIT_TERMINATING = "WaitTerminating"  # the pod is Terminating: wait
    WAIT_CONTROLLER = "WaitController"  # the pod that controls the pod leaves first: wait
    SKIP = "Skip"  # the pod is not part of the drain
    BLOCK = "Block"  # the pod must leave, but may not: report a blocker


class RequiredProof(StrEnum):
    """State of the node that an action requires; a live read confirms it just before the request."""

    NONE = "None"
    NODE_UNREACHABLE = "NodeUnreachable"
    BOOT_DEAD = "BootDead"  # the boot of the node is proven dead


@dataclass(frozen=True, slots=True)
class PodDecision:
    """Decision for one pod.

    Attributes:
        order: pods with a lower order leave first.
        blocker_class: class of the blocker; None if there is no blocker. Always set for BLOCK.
        message, hint: texts of the blocker. For SKIP, why the pod stays; empty if such pods always stay.
        grace_seconds: grace period for DELETE; None means the pod's own.
        forced: the timeout has passed, so the pod no longer waits for budgets or rules.
        owner_message: warning for the owner of the pod; None if there is none.
        required_proof: state of the node to confirm before the request.
        only_if_unchanged: delete the pod only in the version that was read. A pod that is Ready again keeps its budget.
        rule: the rule that selects the pod; None if none does.
        is_bound_to_node: whether only this node can have a new pod in its place.
    """

    action: PodAction
    order: int = 0
    blocker_class: BlockerClass | None = None
    message: str = ""
    hint: str = ""
    grace_seconds: int | None = None
    forced: bool = False
    owner_message: str | None = None
    required_proof: RequiredProof = RequiredProof.NONE
    only_if_unchanged: bool = False
    rule: DrainRule | None = None
    is_bound_to_node: bool = False

    @property
    def waits_for_node(self) -> bool:
        """Whether the pod leaves, and a new pod in its place waits for this node."""
        return self.is_bound_to_node and self.action in (PodAction.EVICT, PodAction.DELETE, PodAction.WAIT_TERMINATING)


PodWithDecision = tuple[Pod, PodDecision]


@dataclass(frozen=True, slots=True)
class EvictionContext:
    """State of the cluster on which the decisions for the pods of one node depend.

    Attributes:
        started_at: start of the drain; None before the start.
        paused_for: time since the start that does not count.
        node_unreachable: the node is `Ready=Unknown`, or its boot is proven dead.
        node_failing: the drain has a Failure request, and the node has failed. Pods that are not Ready may then bypass
            their budgets.
        boot_dead: the boot of the node is proven dead.
        proof: the proof that the boot is dead; empty if there is none.
        proof_hint: how to prove that the boot is dead; empty if unknown.
        replacing_jobs: uids of Jobs that replace a pod as soon as it is Terminating.
        namespace_labels: labels by namespace; may lack namespaces if no rule has a namespaceSelector.
        daemon_set_uids: uids of the existing DaemonSets, by namespace; unknown for absent namespaces.
        own_pod: the pod of this process, as namespace/name; empty if unknown.
        cordoned_at: when the node was cordoned, rather late than early; None without a cordon.
        came_back: owners of which `MAX_CAME_BACK` new pods started on the node after its cordon.
        volumes: claims, volumes and attachments of the node.
    """

    now: datetime
    started_at: datetime | None = None
    paused_for: timedelta = timedelta()
    node_unreachable: bool = False
    node_failing: bool = False
    boot_dead: bool = False
    proof: str = ""
    proof_hint: str = ""
    replacing_jobs: frozenset[str] = frozenset()
    namespace_labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    daemon_set_uids: Mapping[str, frozenset[str]] = field(default_factory=dict)
    own_pod: str = ""
    cordoned_at: datetime | None = None
    came_back: frozenset[OwnerKey] = frozenset()
    volumes: NodeVolumes = field(default_factory=NodeVolumes)

    @property
    def active_for(self) -> timedelta:
        """Return the time since the start of the drain, without pauses."""
        return self.now - self.started_at - self.paused_for if self.started_at else timedelta()

    def is_daemon_set_gone(self, pod: Pod) -> bool:
        """Whether the DaemonSet of the pod is gone; False for a new pod, whose DaemonSet may not be in the cache."""
        existing = self.daemon_set_uids.get(pod.namespace)
        is_cached = pod.created is not None and self.now - pod.created >= _CACHE_LAG
        return existing is not None and pod.owner is not None and pod.owner.uid not in existing and is_cached


_PLACEMENT_NOT_NEEDED = (BlockerClass.LOCAL_VOLUME, BlockerClass.WAIT_COMPLETED)
"""Pods with these blockers need no other node: their data is on this node, or they complete on it."""


def needs_placement(pod: Pod, decision: PodDecision) -> bool:
    """Whether the owner creates a new pod for this pod, which needs room on another node."""
    without_new_pod = (PodAction.SKIP, PodAction.WAIT_TERMINATING, PodAction.WAIT_CONTROLLER)
    if decision.action in without_new_pod or decision.is_bound_to_node:
        return False
    if not is_recreated(pod):
        return False
    return not pod.finished and decision.blocker_class not in _PLACEMENT_NOT_NEEDED


def rule_for(
    pod: Pod, rules: Sequence[DrainRule], namespace_labels: Mapping[str, Mapping[str, str]]
) -> DrainRule | None:
    """Return the first rule that selects the pod, or None."""
    labels = namespace_labels.get(pod.namespace, {})
    return next(
        (rule for rule in rules if rule.namespace_selector.matches(labels) and rule.pod_selector.matches(pod.labels)),
        None,
    )


def deadline(timeout: timedelta, context: EvictionContext) -> datetime | None:
    """Return the end of a timeout of the drain, without pauses; None if there is no timeout or no start."""
    return context.started_at + context.paused_for + timeout if timeout and context.started_at else None


def decide_action(pod: Pod, drain: DrainSettings, context: EvictionContext) -> PodDecision:
    """Return the decision of the drain for this pod."""
    rule = rule_for(pod, drain.rules, context.namespace_labels)
    decision = _decide_action(pod, drain.with_rule(rule), rule, context)
    if decision.action is PodAction.SKIP:
        return decision
    return replace(
        decision,
        owner_message=None if decision.action is PodAction.WAIT_TERMINATING else annotation_warning(pod),
        rule=rule,
        is_bound_to_node=_is_bound_to_node(pod, context),
    )


def _is_bound_to_node(pod: Pod, context: EvictionContext) -> bool:
    """Whether only this node can have a new pod in place of this pod."""
    if is_controlled_by_pod(pod):
        return False  # the next controlling pod creates the next pod, on its own node
    is_bound = pod.pinned_to_node or context.volumes.needs_local_volume(pod)
    return is_bound and is_recreated(pod) and not pod.finished


def is_recreated(pod: Pod) -> bool:
    """Whether a controller may create a new pod for this pod on another node; a DaemonSet has one for each node."""
    return pod.owner is not None and not _is_daemon_set_pod(pod)


def annotation_warning(pod: Pod) -> str | None:
    """Return a warning for the owner of the pod about annotations with invalid values; None if there are none."""
    warnings = []
    try:
        protected_until(pod, EARLIEST_TIME)
    except ValueError as error:
        warnings.append(messages.do_not_disrupt_ignored(error))
    value = pod.annotations.get(names.REPLACEMENT)
    if value is not None and value not in REPLACEMENT_ANNOTATION_VALUES:
        warnings.append(messages.replacement_ignored(value, REPLACEMENT_ANNOTATION_VALUES))
    return " ".join(warnings) or None


def _decide_action(pod: Pod, drain: DrainSettings, rule: DrainRule | None, context: EvictionContext) -> PodDecision:
    """Return the decision; `drain`: with the fields of the rule."""
    if pod.is_mirror or (_is_daemon_set_pod(pod) and not pod.finished and not context.is_daemon_set_gone(pod)):
        return PodDecision(PodAction.SKIP)
    if rule and rule.action is RuleAction.SKIP:
        return PodDecision(PodAction.SKIP, message=messages.SKIPPED_BY_RULE)
    order = _order(pod, rule, context)
    if pod.deletion_timestamp:
        return _decide_terminating(pod, order, context)
    if pod.finished:
        return PodDecision(PodAction.EVICT, order)
    if decision := _decide_immovable(pod, order, context):
        return decision
    if context.node_unreachable:
        blocked = _block_unmanaged(pod, drain, order) or _block_local_volume(pod, drain, order, context)
        return blocked or _decide_unreachable(pod, drain, order, context)
    return _decide_reachable(pod, drain, rule, order, context)


def _decide_immovable(pod: Pod, order: int, context: EvictionContext) -> PodDecision | None:
    """Return the decision for a pod that an eviction does not move off the node; None for any other pod."""
    if pod.owner is None or not is_recreated(pod):
        return None
    if (pod.namespace, pod.owner.uid) in context.came_back:
        if pod.tolerates_cordon:
            return PodDecision(PodAction.SKIP, order, message=messages.came_back_tolerating(pod.owner, MAX_CAME_BACK))
        return _block(
            BlockerClass.REPLACEMENT_NOT_READY,
            order,
            messages.came_back_message(pod.owner, MAX_CAME_BACK),
            messages.came_back_hint(pod, pod.owner),
        )
    if not pod.tolerates_cordon:
        return None
    if pod.pinned_to_node:
        return PodDecision(PodAction.SKIP, order, message=messages.TOLERATING_AND_BOUND)
    # Such a pod may also tolerate the taints of an unreachable node, and Kubernetes then leaves the pod alone. The move
    # of a released pod goes on: a return would cost its replacement.
    if context.node_unreachable and not context.boot_dead and not pod.released:
        return PodDecision(PodAction.SKIP, order, message=messages.TOLERATING_AND_UNREACHABLE)
    return None


def may_run_twice(pod: Pod, context: EvictionContext) -> bool:
    """Whether a second copy of the pod can run without harm while this pod may still run."""
    if pod.owner is None or context.volumes.has_single_node_volume(pod):
        return False
    return pod.owner.kind in _DUPLICATE_SAFE_KINDS or (
        pod.owner.kind == "Job" and pod.owner.uid in context.replacing_jobs
    )


def bypass_budget(pod: Pod, decision: PodDecision, context: EvictionContext) -> PodDecision:
    """Return a plain delete for a pod that is not Ready on a failed but reachable node; else the same decision.

    The kubelet stops the pod, so no proof is needed. Pods that must not run twice, such as members of a quorum, keep
    their budget.
    """
    is_lost = context.node_failing and not context.node_unreachable and not pod.ready and not pod.finished
    if decision.action is not PodAction.EVICT or not is_lost or not may_run_twice(pod, context):
        return decision
    return replace(decision, action=PodAction.DELETE, only_if_unchanged=True)


def is_controlled_by_pod(pod: Pod) -> bool:
    """Whether the controller of the pod is another pod."""
    return pod.owner is not None and pod.owner.kind == "Pod"


def _is_daemon_set_pod(pod: Pod) -> bool:
    return pod.owner is not None and pod.owner.kind == "DaemonSet"


def _order(pod: Pod, rule: DrainRule | None, context: EvictionContext) -> int:
    if pod.key == context.own_pod:
        return OWN_POD_ORDER
    if rule:
        return rule.order
    if is_helper(pod):
        return HELPER_ORDER
    return CRITICAL_ORDER if pod.priority_class in _CRITICAL_PRIORITY_CLASSES else 0


def _decide_reachable(
    pod: Pod, drain: DrainSettings, rule: DrainRule | None, order: int, context: EvictionContext
) -> PodDecision:
    """Decide for a pod whose kubelet answers.

    A pod that may complete is not reported as one that somebody must delete. At its timeout it is like any other pod.
    """
    forced = _delete_at_timeout(pod, drain, order, context)
    if rule and rule.action is RuleAction.WAIT_COMPLETED and not forced:
        return _block(BlockerClass.WAIT_COMPLETED, order, messages.WAIT_COMPLETED_MESSAGE, messages.WAIT_COMPLETED_HINT)
    if blocked := _block_unmanaged(pod, drain, order):
        return blocked
    if pod.has_empty_dir and drain.empty_dir is EvictOrBlock.BLOCK:
        return _block(BlockerClass.EMPTY_DIR, order, messages.EMPTY_DIR_MESSAGE, messages.empty_dir_hint(pod))
    if blocked := _block_local_volume(pod, drain, order, context):
        return blocked
    if forced:
        return forced
    return _block_protected(pod, drain, order, context) or PodDecision(PodAction.EVICT, order)


def _block_protected(pod: Pod, drain: DrainSettings, order: int, context: EvictionContext) -> PodDecision | None:
    """Return a blocker for a pod that must not be disrupted now; None if the drain may move it."""
    with contextlib.suppress(ValueError):  # `annotation_warning` reports the invalid value
        if until := protected_until(pod, context.now):
            message = messages.do_not_disrupt_message(names.DO_NOT_DISRUPT, None if until == FOREVER else until)
            return _block(BlockerClass.DO_NOT_DISRUPT, order, message, messages.do_not_disrupt_hint(pod))
    honoured = [found for found in opt_outs(pod, context.now) if found.tool in drain.honour] if drain.honour else []
    if not honoured:
        return None
    last = max(honoured, key=lambda found: found.until)
    message = messages.do_not_disrupt_message(last.annotation, None if last.until == FOREVER else last.until)
    return _block(BlockerClass.DO_NOT_DISRUPT, order, message, messages.opt_out_hint(pod, last.annotation, last.tool))


def _block_unmanaged(pod: Pod, drain: DrainSettings, order: int) -> PodDecision | None:
    # A helper is created on demand. It leaves last, and its tool often deletes the helper before its turn.
    if is_recreated(pod) or is_helper(pod) or drain.unmanaged is EvictOrBlock.EVICT:
        return None
    return _block(BlockerClass.UNMANAGED, order, messages.unmanaged_message(pod), messages.unmanaged_hint(pod))


def _block_local_volume(pod: Pod, drain: DrainSettings, order: int, context: EvictionContext) -> PodDecision | None:
    if drain.local_volume is EvictOrBlock.EVICT or not context.volumes.has_local_volume(pod):
        return None
    return _block(BlockerClass.LOCAL_VOLUME, order, messages.LOCAL_VOLUME_MESSAGE, messages.local_volume_hint(pod))


def _delete_at_timeout(pod: Pod, drain: DrainSettings, order: int, context: EvictionContext) -> PodDecision | None:
    """Return a plain delete from the deadline minus the grace period on, or None; the grace period is never 0."""
    timeout = drain.timeout
    end = deadline(timeout, context)
    if end is None or drain.on_timeout is not OnTimeout.DELETE:
        return None
    grace_period = timedelta(
        seconds=drain.grace_period_seconds if drain.grace_period_seconds is not None else pod.grace_period_seconds
    )
    grace = min(grace_period, timeout / 2)
    if context.now < end - grace:
        return None
    remaining = min(grace, end - context.now)
    return PodDecision(PodAction.DELETE, order, grace_seconds=max(1, int(remaining.total_seconds())), forced=True)


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
            messages.long_grace_period_message(pod.deletion_timestamp),
            messages.long_grace_period_hint(pod),
        )
    if pod.deletion_timestamp is None or context.now - pod.deletion_timestamp < _STUCK_TERMINATING_AFTER:
        return PodDecision(PodAction.WAIT_TERMINATING, order)
    return PodDecision(
        PodAction.WAIT_TERMINATING,
        order,
        BlockerClass.STUCK_TERMINATING,
        messages.stuck_terminating_message(pod.deletion_timestamp, pod.finalizers),
        messages.stuck_terminating_hint(pod),
    )


def _decide_unreachable(pod: Pod, drain: DrainSettings, order: int, context: EvictionContext) -> PodDecision:
    """Decide for a pod of an unreachable node: without proof, only a pod that may run twice leaves."""
    is_duplicate_safe = may_run_twice(pod, context)
    if not is_duplicate_safe and not context.boot_dead:
        return _wait_for_proof(pod, order, context)
    proof = RequiredProof.NODE_UNREACHABLE if is_duplicate_safe else RequiredProof.BOOT_DEAD
    if forced := _delete_at_timeout(pod, drain, order, context):
        return replace(forced, required_proof=proof)
    # A plain delete of a Ready pod would bypass its budget.
    if pod.ready or not context.node_failing:
        return PodDecision(PodAction.EVICT, order, required_proof=proof)
    return PodDecision(PodAction.DELETE, order, required_proof=proof, only_if_unchanged=True)


def _wait_for_proof(pod: Pod, order: int, context: EvictionContext) -> PodDecision:
    """Return a blocker for a pod that must not run twice: no write to the pod before its boot is proven dead."""
    message = messages.waiting_for_proof_message(has_single_node_volume=context.volumes.has_single_node_volume(pod))
    action = PodAction.WAIT_TERMINATING if pod.deletion_timestamp else PodAction.BLOCK
    return PodDecision(action, order, BlockerClass.WAITING_FOR_PROOF, message, context.proof_hint)
