"""Let pods that another pod controls leave with that pod, such as the pods that attach hotplugged disks of KubeVirt.

The controlling pod needs them as long as it runs, and would create them again. When it is gone, garbage collection
deletes them. A controlling pod that stays keeps them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from rescheduler.core.eviction.pod_actions import (
    EvictionContext,
    PodAction,
    PodDecision,
    PodWithDecision,
    is_controlled_by_pod,
)
from rescheduler.core.model.pods import Pod

GARBAGE_COLLECTED_AFTER = timedelta(seconds=30)
"""Time after the controlling pod is gone in which garbage collection deletes the pod; after that, the drain does."""


def controlling_pods_seen(
    node_pods: Iterable[Pod], previous: Mapping[str, datetime], now: datetime
) -> dict[str, datetime]:
    """Return when the controlling pod of each pod was last on the node, by uid of the pod; absent if it never was."""
    pods = {pod.uid: pod for pod in node_pods}
    seen = {uid: now if _controlling_pod(pod, pods) else previous.get(uid) for uid, pod in pods.items()}
    return {uid: at for uid, at in seen.items() if at}


def follow_controlling_pods(
    pod_decisions: Sequence[PodWithDecision], seen: Mapping[str, datetime], context: EvictionContext
) -> list[PodWithDecision]:
    """Return the decisions, in which a pod waits for its controlling pod, or stays with it.

    `seen`: of `controlling_pods_seen`. A pod whose controlling pod is on another node leaves like any other pod. So does
    each pod of an unreachable node: nobody there creates it again, and each pod has its own proof.
    """
    if context.node_unreachable:
        return list(pod_decisions)
    decisions = {pod.uid: decision for pod, decision in pod_decisions}
    pods = {pod.uid: pod for pod, _ in pod_decisions}
    return [(pod, _follow(pod, decision, decisions, pods, seen, context)) for pod, decision in pod_decisions]


def _follow(
    pod: Pod,
    decision: PodDecision,
    decisions: Mapping[str, PodDecision],
    pods: Mapping[str, Pod],
    seen: Mapping[str, datetime],
    context: EvictionContext,
) -> PodDecision:
    first = _first_controlling_pod(pod, pods)
    if first is None:
        is_collected_soon = pod.uid in seen and context.now - seen[pod.uid] < GARBAGE_COLLECTED_AFTER
        may_wait = decision.action is PodAction.EVICT and not pod.finished
        return replace(decision, action=PodAction.WAIT_CONTROLLER) if is_collected_soon and may_wait else decision
    followed = decisions[first.uid]
    if followed.action is PodAction.SKIP and decision.action is not PodAction.WAIT_TERMINATING:
        return PodDecision(PodAction.SKIP)
    if decision.action is not PodAction.EVICT or pod.finished:
        return decision
    # With a lower order of its own, the pod would keep its controlling pod from ever leaving.
    return replace(decision, action=PodAction.WAIT_CONTROLLER, order=followed.order)


def _first_controlling_pod(pod: Pod, pods: Mapping[str, Pod]) -> Pod | None:
    """Return the pod of the node that controls this pod, directly or through others; None if none does.

    Owner references are input of others: pods that control each other have no first one.
    """
    seen, current = {pod.uid}, pod
    while (controlling := _controlling_pod(current, pods)) and controlling.uid not in seen:
        seen.add(controlling.uid)
        current = controlling
    return None if controlling or current is pod else current


def _controlling_pod(pod: Pod, pods: Mapping[str, Pod]) -> Pod | None:
    """Return the pod that controls this pod, if it is one of these pods, by uid; a controller has the same namespace."""
    found = pods.get(pod.owner.uid) if pod.owner and is_controlled_by_pod(pod) else None
    return found if found and found.namespace == pod.namespace else None
