"""Which pods may be moved for the sake of evenness alone: fewer than a drain may move.

Nobody asked for this move: whoever might lose something by it stays, and whoever only the scheduler could place too.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from rescheduler.api.policies import Drain, Replacement
from rescheduler.core.eviction.pod_actions import Circumstances, Fate, judge
from rescheduler.core.model import object_schemas, pods, workloads
from rescheduler.core.model.disruption_budgets import Budget, covering
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.resource_requests import asked
from rescheduler.core.rebalance.selection import Candidate
from rescheduler.core.replacement import decisions

COOL_DOWN = timedelta(minutes=2)
"""Nothing of an owner is moved again so soon."""
SETBACK = timedelta(minutes=30)
"""The same, where a move has come to nothing."""
_MANAGED = ("ReplicaSet", "StatefulSet", "ReplicationController")
_SYSTEM_CRITICAL = 2_000_000_000
"""Priority of system-cluster-critical, the lower of the two."""
_SCHEDULER = "default-scheduler"
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def candidate(raw: Mapping[str, Any], drain: Drain, seen: Circumstances) -> Candidate | None:
    """The raw pod as one that may be moved; None where it stays."""
    raw = object_schemas.pod(raw)
    pod, spec = pods.pod(raw), raw["spec"]
    if _stays(pod, spec, seen) or judge(pod, drain, seen).fate is not Fate.EVICT:
        return None
    return Candidate(pod, asked(spec), _asks(spec), _can_be_replaced_first(pod, drain))


def calm(deployment: Mapping[str, Any]) -> bool:
    """Whether all pods of a raw Deployment are as they should be, and two of one may run side by side."""
    deployment = object_schemas.deployment(deployment)
    found, spec, status = workloads.deployment(deployment), deployment["spec"], deployment["status"]
    wanted = spec.get("replicas", 1)
    counts = [status.get(name, 0) for name in ("replicas", "updatedReplicas", "readyReplicas")]
    return found.surges and found.observed and not found.paused and not found.deleting and counts == [wanted] * 3


def confirmed(found: Candidate, deployments: Mapping[tuple[str, str], bool]) -> Candidate | None:
    """The candidate, once its Deployment is known; None where it stays.

    `deployments`: by namespace and name, whether they are calm. A ReplicaSet may have none behind it.
    """
    pod = found.pod
    if not found.first or pod.owner is None:
        return found
    is_calm = deployments.get((pod.namespace, pod.owner.name.removesuffix(f"-{pod.hash}")))
    if is_calm is None:
        return replace(found, first=False)
    return found if is_calm else None


def permitted(found: Candidate, budgets: Iterable[Budget]) -> bool:
    """Whether it may be moved after all: a pod that cannot be replaced first only where its budget says so.

    Its owner has said how many may be missing, and that is not used up; without a word of theirs it stays.
    """
    if found.first:
        return True
    over = covering(found.pod, budgets)
    return len(over) == 1 and over[0].would_allow(found.pod)


def _stays(pod: Pod, spec: Mapping[str, Any], seen: Circumstances) -> bool:
    if pod.owner is None or pod.owner.kind not in _MANAGED or not pod.ready or pod.deleting or pod.move:
        return True
    if pod.priority >= _SYSTEM_CRITICAL or pod.key == seen.own:
        return True
    held = pod.claims or pod.host_path or pod.pinned or pod.finished
    return bool(held) or _only_the_scheduler_knows(spec)


def _only_the_scheduler_knows(spec: Mapping[str, Any]) -> bool:
    """Where the pod may run depends on more than its node's labels, taints and room."""
    affinity = spec.get("affinity") or {}
    return bool(
        (affinity.get("podAffinity") or {}).get(_REQUIRED)
        or (affinity.get("podAntiAffinity") or {}).get(_REQUIRED)
        or any(c.get("whenUnsatisfiable") == "DoNotSchedule" for c in spec.get("topologySpreadConstraints") or ())
        or any(
            port.get("hostPort") for container in spec.get("containers") or () for port in container.get("ports") or ()
        )
        or spec.get("hostNetwork")
        or spec.get("resourceClaims")
        or spec.get("schedulerName", _SCHEDULER) != _SCHEDULER
    )


def _can_be_replaced_first(pod: Pod, drain: Drain) -> bool:
    """As far as the pod itself tells."""
    of_deployment = pod.owner is not None and pod.owner.kind == "ReplicaSet" and bool(pod.hash)
    return of_deployment and decisions.wanted(pod, drain) in (Replacement.REQUIRED, Replacement.PREFERRED)


def _asks(spec: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: spec[name] for name in ("nodeSelector", "tolerations") if spec.get(name)}
    affinity = (spec.get("affinity") or {}).get("nodeAffinity")
    return found | ({"affinity": {"nodeAffinity": affinity}} if affinity else {})
