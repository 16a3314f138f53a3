"""Which pods may be moved for the sake of evenness alone: fewer than a drain may move.

Nobody asked for this move: whoever might lose something by it stays, and whoever only the scheduler could place too.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from rescheduler.api.policies import DrainSettings, ReplacementMode
from rescheduler.core.eviction.pod_actions import EvictionContext, PodAction, decide_action
from rescheduler.core.model import object_schemas, pods, workloads
from rescheduler.core.model.disruption_budgets import DisruptionBudget, budgets_for
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.resource_requests import requested_resources
from rescheduler.core.rebalance.selection import Candidate
from rescheduler.core.replacement import decisions

COOLDOWN_AFTER_MOVE = timedelta(minutes=2)
"""Nothing of an owner is moved again so soon."""
COOLDOWN_AFTER_FAILED_MOVE = timedelta(minutes=30)
"""The same, where a move has come to nothing."""
_MOVABLE_OWNER_KINDS = ("ReplicaSet", "StatefulSet", "ReplicationController")
_SYSTEM_CRITICAL_PRIORITY = 2_000_000_000
"""Priority of system-cluster-critical, the lower of the two."""
_DEFAULT_SCHEDULER = "default-scheduler"
_REQUIRED_AFFINITY = "requiredDuringSchedulingIgnoredDuringExecution"


def candidate_from_pod(raw: Mapping[str, Any], drain: DrainSettings, context: EvictionContext) -> Candidate | None:
    """The raw pod as one that may be moved; None where it stays."""
    raw = object_schemas.sanitize_pod(raw)
    pod, spec = pods.parse_pod(raw), raw["spec"]
    if _must_stay(pod, spec, context) or decide_action(pod, drain, context).action is not PodAction.EVICT:
        return None
    return Candidate(pod, requested_resources(spec), _node_constraints(spec), _can_be_replaced_first(pod, drain))


def is_deployment_stable(deployment: Mapping[str, Any]) -> bool:
    """Whether all pods of a raw Deployment are as they should be, and two of one may run side by side."""
    deployment = object_schemas.sanitize_deployment(deployment)
    found, spec, status = workloads.parse_deployment(deployment), deployment["spec"], deployment["status"]
    wanted = spec.get("replicas", 1)
    counts = [status.get(name, 0) for name in ("replicas", "updatedReplicas", "readyReplicas")]
    return found.allows_surge and found.observed and not found.paused and not found.deleting and counts == [wanted] * 3


def check_deployment(candidate: Candidate, stable_by_deployment: Mapping[tuple[str, str], bool]) -> Candidate | None:
    """The candidate, once its Deployment is known; None where it stays.

    `deployments`: by namespace and name, whether they are calm. A ReplicaSet may have none behind it.
    """
    pod = candidate.pod
    if not candidate.can_be_replaced_first or pod.owner is None:
        return candidate
    is_calm = stable_by_deployment.get((pod.namespace, pod.owner.name.removesuffix(f"-{pod.pod_template_hash}")))
    if is_calm is None:
        return replace(candidate, can_be_replaced_first=False)
    return candidate if is_calm else None


def is_allowed_by_budgets(candidate: Candidate, budgets: Iterable[DisruptionBudget]) -> bool:
    """Whether it may be moved after all: a pod that cannot be replaced first only where its budget says so.

    Its owner has said how many may be missing, and that is not used up; without a word of theirs it stays.
    """
    if candidate.can_be_replaced_first:
        return True
    over = budgets_for(candidate.pod, budgets)
    return len(over) == 1 and over[0].allows_eviction_of(candidate.pod)


def _must_stay(pod: Pod, spec: Mapping[str, Any], context: EvictionContext) -> bool:
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
    held = pod.claims or pod.has_host_path or pod.pinned_to_node or pod.finished
    return bool(held) or _has_unsupported_constraints(spec)


def _has_unsupported_constraints(spec: Mapping[str, Any]) -> bool:
    """Where the pod may run depends on more than its node's labels, taints and room."""
    affinity = spec.get("affinity") or {}
    return bool(
        (affinity.get("podAffinity") or {}).get(_REQUIRED_AFFINITY)
        or (affinity.get("podAntiAffinity") or {}).get(_REQUIRED_AFFINITY)
        or any(c.get("whenUnsatisfiable") == "DoNotSchedule" for c in spec.get("topologySpreadConstraints") or ())
        or any(
            port.get("hostPort") for container in spec.get("containers") or () for port in container.get("ports") or ()
        )
        or spec.get("hostNetwork")
        or spec.get("resourceClaims")
        or spec.get("schedulerName", _DEFAULT_SCHEDULER) != _DEFAULT_SCHEDULER
    )


def _can_be_replaced_first(pod: Pod, drain: DrainSettings) -> bool:
    """As far as the pod itself tells."""
    of_deployment = pod.owner is not None and pod.owner.kind == "ReplicaSet" and bool(pod.pod_template_hash)
    return of_deployment and decisions.replacement_mode(pod, drain) in (
        ReplacementMode.REQUIRED,
        ReplacementMode.PREFERRED,
    )


def _node_constraints(spec: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: spec[name] for name in ("nodeSelector", "tolerations") if spec.get(name)}
    affinity = (spec.get("affinity") or {}).get("nodeAffinity")
    return found | ({"affinity": {"nodeAffinity": affinity}} if affinity else {})
