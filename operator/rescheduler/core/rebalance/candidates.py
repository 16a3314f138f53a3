"""Pods that rebalancing may move. The rules are stricter than those of a drain.

No user requested this move. Pods that could lose data or availability stay. Pods whose destination only the scheduler
can decide stay too. docs/guides/rebalancing.md lists them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import timedelta

from rescheduler.api.policies import DrainSettings, ReplacementMode
from rescheduler.core.eviction.opt_outs import opt_outs
from rescheduler.core.eviction.pod_actions import EvictionContext, PodAction, decide_action
from rescheduler.core.model.disruption_budgets import DisruptionBudget, budgets_for
from rescheduler.core.model.listed_pods import ListedPod
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.workloads import Deployment
from rescheduler.core.rebalance.selection import Candidate
from rescheduler.core.replacement import decisions
from rescheduler.core.replacement.movers import has_mover

COOLDOWN_AFTER_MOVE = timedelta(minutes=2)
"""Time between a move and the next move of the same owner."""
COOLDOWN_AFTER_FAILED_MOVE = timedelta(minutes=30)
"""The same after a move that failed."""
_MOVABLE_OWNER_KINDS = ("ReplicaSet", "StatefulSet", "ReplicationController")
_SYSTEM_CRITICAL_PRIORITY = 2_000_000_000
"""Priority of system-cluster-critical; system-node-critical is higher."""


def candidate_from_pod(listed: ListedPod, drain: DrainSettings, context: EvictionContext) -> Candidate | None:
    """Return a pod as a candidate; None if it must stay. Raises UnreadableError without a UID."""
    pod = listed.to_pod()
    must_stay = _must_stay(pod, context) or listed.has_constraints_beyond_nodes
    decision = decide_action(pod, drain, context)
    if must_stay or decision.action is not PodAction.EVICT:
        return None
    can_be_replaced_first = _can_be_replaced_first(pod, drain.with_rule(decision.rule))
    return Candidate(pod, listed.requested, listed.node_constraints, can_be_replaced_first)


def is_deployment_stable(deployment: Deployment) -> bool:
    """Whether all pods of a Deployment are current and Ready, and a rolling update may add a pod."""
    can_change = deployment.allows_surge and deployment.observed and not deployment.paused and not deployment.deleting
    return can_change and deployment.rolled_out


def check_deployment(candidate: Candidate, stable_by_deployment: Mapping[tuple[str, str], bool]) -> Candidate | None:
    """Return the candidate with its Deployment considered; None if the pod must stay.

    `stable_by_deployment`: by namespace and name. A ReplicaSet may have no Deployment.
    """
    pod = candidate.pod
    if not candidate.can_be_replaced_first or pod.owner is None:
        return candidate
    is_stable = stable_by_deployment.get((pod.namespace, pod.owner.name.removesuffix(f"-{pod.pod_template_hash}")))
    if is_stable is None:
        return replace(candidate, can_be_replaced_first=False)
    return candidate if is_stable else None


def is_allowed_by_budgets(candidate: Candidate, budgets: Iterable[DisruptionBudget]) -> bool:
    """Whether the PodDisruptionBudgets allow the move.

    A pod without a replacement first moves only if it has a budget, and the budget allows an eviction now.
    """
    if candidate.can_be_replaced_first:
        return True
    matching = budgets_for(candidate.pod, budgets)
    return len(matching) == 1 and matching[0].allows_eviction_of(candidate.pod)


def may_move_first(candidate: Candidate, budgets: Iterable[DisruptionBudget]) -> bool:
    """Whether a chain move may move the pod: its replacement comes first, and at most one budget covers it."""
    return candidate.can_be_replaced_first and len(budgets_for(candidate.pod, budgets)) <= 1


def _must_stay(pod: Pod, context: EvictionContext) -> bool:
    if (
        pod.owner is None
        or pod.owner.kind not in _MOVABLE_OWNER_KINDS
        or not pod.ready
        or pod.deletion_timestamp
        or pod.release_record
    ):
        return True
    if pod.priority >= _SYSTEM_CRITICAL_PRIORITY or pod.key == context.own_pod:
        return True
    is_bound = bool(pod.claims or pod.host_paths or pod.pinned_to_node)
    return is_bound or pod.finished or has_mover(pod) or bool(opt_outs(pod, context.now))


def _can_be_replaced_first(pod: Pod, drain: DrainSettings) -> bool:
    """Whether owner and replacement mode of the pod allow a replacement first; the Deployment is not read here."""
    of_deployment = pod.owner is not None and pod.owner.kind == "ReplicaSet" and bool(pod.pod_template_hash)
    return of_deployment and decisions.replacement_mode(pod, drain) in (
        ReplacementMode.REQUIRED,
        ReplacementMode.PREFERRED,
    )
