"""Invariants of pods that are released, evicted or deleted."""

from collections.abc import Iterator
from datetime import timedelta

from invariants.objects import (
    OUT_OF_SERVICE,
    SHUNS,
    SHUTDOWN,
    annotations,
    claims,
    controller,
    deleting,
    finished,
    has_taint,
    is_ready,
    labels,
    move,
    name,
    node_of,
    proof,
    required_affinity,
    seconds,
    selects,
    uid,
)
from invariants.records import Change
from invariants.state import RecordedState, reasons
from rescheduler.api.policies import EvictOrBlock, NoRoom, OnTimeout, ReplacementMode, ReschedulePolicy
from rescheduler.core.model.raw import RawObject

_GROUP = "rescheduler.dev"
_LONGEST = 10**9  # seconds; a longer grace period is garbage
_REFUSAL = 75.0  # seconds; a refused release is retried each 30 s
_LOST = 60.0  # seconds that an owner rests after others removed its released pod
Violations = Iterator[str]


def only_pods_of_a_drain_go(state: RecordedState, change: Change) -> Violations:
    pod = change.ends
    if pod is None:
        return
    node, drain = state.node(node_of(pod)), state.drain(node_of(pod))
    if controller(pod).get("kind") == "DaemonSet" or "kubernetes.io/config.mirror" in annotations(pod):
        yield "ends a pod that stays on its node"
    evicts = node and any(
        EvictOrBlock.EVICT in (p.spec.drain.unmanaged, *(rule.unmanaged for rule in p.spec.drain.rules))
        for p in state.policies(node)
    )
    if not controller(pod) and not state.released(pod) and not finished(pod) and not evicts:
        yield "ends a pod that no controller would recreate"
    if state.released(pod):
        return  # includes a pod whose drain has ended and that cannot be returned
    if node and has_taint(node, SHUNS) and state.may_migrate(node):
        return  # a single pod is moved off a node that is not drained
    if drain is None or True not in state.recent_values("begun", node_of(pod)):
        yield "ends a pod of a node without a drain that has begun"
        return
    if True not in state.recent_values("cordoned", node_of(pod)):
        yield "ends a pod of a node that is not cordoned"
    asked = reasons(drain)
    maintained = "Maintenance" in asked and any(v is not None for v in state.recent_values("maintenance", node_of(pod)))
    if "Manual" in asked or maintained or node is None:
        return
    slack = state.lag + 1
    if not any(state.failing(node_of(pod), policy, slack) for policy in state.policies(node)):
        past = state.past("ready", node_of(pod))[-4:]
        yield f"ends a pod for {asked}, which no request names: {past} (now {state.at:.0f})"


def nothing_is_forced_without_right(state: RecordedState, change: Change) -> Violations:
    """Check that a plain delete is allowed: it ignores budgets, and the container may still run on a silent node."""
    pod = change.ends
    node = state.node(node_of(pod)) if pod else None
    if pod is None or node is None or finished(pod):
        return
    unreachable = "Unknown" in state.recent_values("ready", name(node))
    ill = "False" in state.recent_values("ready", name(node))
    gone_dark = state.recent_values("ready", name(node)) == ["Unknown"]
    proven = proof(node) or has_taint(node, OUT_OF_SERVICE) or has_taint(node, SHUTDOWN)
    twice = may_run_twice(state, pod)
    if gone_dark and not twice and not proven:
        yield "ends a pod that must not run twice on a node that may be alive"
    if change.call is None or change.call.verb != "delete":
        return
    lost = False in state.recent_values("pod", uid(pod))
    if not (
        (lost and unreachable and (twice or proven))
        or (lost and ill and twice)
        or (state.released(pod) and _switched_off(state, pod))
        or _overdue(state, pod, node)
    ):
        words = f", released: {move(pod)}" if state.released(pod) else ""
        yield f"deletes without a budget, and the node was {state.recent_values('ready', name(node))}, proof: {proven}{words}"


def may_run_twice(state: RecordedState, pod: RawObject) -> bool:
    kind = "ReplicaSet" if state.released(pod) else controller(pod).get("kind")
    return kind in ("ReplicaSet", "ReplicationController", "Job") and not claims(pod)


def _switched_off(state: RecordedState, pod: RawObject) -> bool:
    """Whether the owner no longer wants the pod: the owner is gone, or is scaled below its count without this pod."""
    deployment = state.deployment_of(pod)
    if deployment is None or deleting(deployment):
        return True
    wanted = min(state.recent_values("replicas", uid(deployment)))
    # An owner that is scaled down deletes its surplus at the same moment: pods deleted just now may still count.
    family = (*state.family(deployment), *state.recently_deleted(deployment))
    others = [p for p in family if not state.released(p) and True in state.recent_values("pod", uid(p))]
    return bool(wanted == 0 or len(others) > wanted)


def _overdue(state: RecordedState, pod: RawObject, node: RawObject) -> bool:
    drain = state.drain(name(node))
    started = seconds((drain.get("status") or {}).get("startedAt")) if drain else None
    for policy in state.policies(node):
        settings = policy.spec.drain
        if started and settings.on_timeout is OnTimeout.DELETE and settings.timeout:
            own = min(pod["spec"].get("terminationGracePeriodSeconds", 30), _LONGEST)
            grace = min(timedelta(seconds=own), settings.timeout / 2)
            if state.at >= started + (settings.timeout - grace).total_seconds() - state.lag:
                return True
    return False


def pods_leave_after_the_pod_that_controls_them(state: RecordedState, change: Change) -> Violations:
    """Check that a pod whose controller is a pod of its node does not leave first; an unreachable node has no order."""
    pod = change.ends
    node = state.node(node_of(pod)) if pod else None
    if pod is None or node is None or controller(pod).get("kind") != "Pod" or finished(pod):
        return
    space, above = pod["metadata"]["namespace"], controller(pod)
    controlling = next((p for p in state.all("pods", space) if uid(p) == above.get("uid")), None)
    if "Unknown" in state.recent_values("ready", name(node)) or _overdue(state, pod, node):
        return
    if controlling and not deleting(controlling) and node_of(controlling) == node_of(pod):
        yield f"ends a pod before {name(controlling)}, which controls it"


def served_as_before(state: RecordedState, change: Change) -> Violations:
    """Check that with replacement first no Ready pod leaves before its replacement is Ready.

    After a failed attempt, or if its release is refused, the last Ready pod of an owner may leave.
    """
    pod = change.ends
    if pod is None or not is_ready(pod) or deleting(pod):
        return
    deployment = state.deployment_of(pod)
    node = state.node(node_of(pod))
    if deployment is None or node is None or deleting(deployment) or _overdue(state, pod, node):
        return
    others = [p for p in state.family(deployment) if uid(p) != uid(pod)]
    ready = sum(True in state.recent_values("pod", uid(p)) for p in others)
    wanted = min(state.recent_values("replicas", uid(deployment)))
    if state.released(pod):
        # Pods that are already evicted may have another count.
        before = min(move(p)["ready"] for p in [pod, *others] if state.released(p))
        if ready < min(wanted, before) and not _switched_off(state, pod):
            yield f"a released pod leaves, and {ready} Ready pods are left of {before}, of {wanted} wanted"
    elif ready == 0 and wanted and _replaced_first(state, pod, state.policies(node)):
        refused_at = state.refused.get((pod["metadata"]["namespace"], name(pod)), float("-inf"))
        if uid(deployment) not in state.returned and state.at - refused_at > _REFUSAL:
            yield "the last Ready pod of an owner leaves without a replacement, and without an attempt"


def _replaced_first(state: RecordedState, pod: RawObject, policies: list[ReschedulePolicy]) -> bool:
    given = annotations(pod).get(f"{_GROUP}/replacement")
    modes = (
        {ReplacementMode(given)}
        if given in ("Required", "Preferred", "Never")
        else {p.spec.drain.replacement for p in policies}
        | {rule.replacement for p in policies for rule in p.spec.drain.rules if rule.replacement}
    )
    waits = all(p.spec.drain.no_room is NoRoom.HOLD for p in policies)
    return (
        waits
        and not _may_be_bound(pod)
        and not is_colocated(state, pod)
        and may_run_twice(state, pod)
        and modes <= {ReplacementMode.PREFERRED, ReplacementMode.REQUIRED}
    )


def is_colocated(state: RecordedState, pod: RawObject) -> bool:
    """Whether the scheduler places no new pod elsewhere while this pod, or one that requires it, is on its node."""

    def requires(one: RawObject, other: RawObject) -> bool:
        wanted = required_affinity(one)
        return bool(wanted) and all(selects(selector, labels(other)) for selector in wanted)

    found = [other for other in state.all("pods", pod["metadata"]["namespace"]) if requires(pod, other)]
    near = [other for other in found if node_of(other) == node_of(pod)]
    far = [o for o in found if node_of(o) != node_of(pod) and True not in state.recent_values("cordoned", node_of(o))]
    is_tied = any(uid(other) == uid(pod) or requires(other, pod) for other in near)
    return is_tied and not any(map(node_of, far))


def _may_be_bound(pod: RawObject) -> bool:
    """Whether the pod names its node or mounts a path of the node, so that it is not replaced first."""
    by_name = "kubernetes.io/hostname" in (pod["spec"].get("nodeSelector") or {})
    return by_name or any("hostPath" in volume for volume in pod["spec"].get("volumes") or ())


def releases_are_few(state: RecordedState, change: Change) -> Violations:
    """Check that few pods of an owner are released together, all Ready and on a cordoned node.

    The first is released without others. Each new pod with a place doubles their number.
    Only a suspected node may have more.
    """
    pod = change.before
    if pod is None or not change.releases:
        return
    node, deployment = state.node(node_of(pod)), state.deployment_of(pod)
    if node is None or deployment is None:
        yield "releases a pod of no Deployment, or of no node"
        return
    if True not in state.recent_values("cordoned", name(node)) and not (
        has_taint(node, SHUNS) and state.may_migrate(node)
    ):
        yield "releases a pod of a node that is not cordoned"
    if True not in state.recent_values("pod", uid(pod)) or claims(pod):
        yield "releases a pod that is not Ready, or has a volume of its own"
    suspicions = any(p.spec.failure.lease_timeout for p in state.policies(node))
    family, wanted = state.family(deployment), max(state.recent_values("replicas", uid(deployment)))
    out = [p for p in family if state.released(p)]
    before = min((move(p)["ready"] for p in out), default=wanted)
    surplus = sum(map(is_ready, family)) - min(wanted, before)  # that many evictions are on their way
    if len(out) - max(0, surplus) >= 2 ** state.placements(deployment) and not suspicions:
        yield f"releases a pod in addition to {[name(p) for p in out]}"


def none_follows_one_that_is_not_replaced(state: RecordedState, change: Change) -> Violations:
    """Check that no pod of an owner is released while fewer are Ready than at its first open or lost release."""
    pod = change.before
    deployment = state.deployment_of(pod) if pod and change.releases else None
    if pod is None or deployment is None:
        return
    family = state.family(deployment)
    records = [move(p) for p in family if state.released(p) and uid(p) != uid(pod)]
    taken, record = state.lost.get(uid(deployment), (float("-inf"), {}))
    if state.at - taken < _LOST:
        records.append(record)
    if not records:
        return
    first = min(records, key=lambda found: seconds(found["since"]) or 0)
    needed = min(first["ready"], *state.recent_values("replicas", uid(deployment)))
    ready = sum(True in state.recent_values("pod", uid(p)) for p in (*family, *state.recently_deleted(deployment)))
    if ready < needed:
        yield f"releases a pod while {ready} are Ready, and {needed} were at the first release"
