"""Invariants of what the operator changes in objects, and of what it reports in its own."""

from collections.abc import Iterator

from invariants.objects import (
    MOVE,
    OUT_OF_SERVICE,
    SHUNS,
    SHUTDOWN,
    annotations,
    condition,
    controller,
    deleting,
    has_taint,
    is_ready,
    move,
    name,
    proof,
    seconds,
    uid,
)
from invariants.records import Change
from invariants.state import RecordedState
from rescheduler.core.model.raw import RawObject

_GROUP = "rescheduler.dev"
_TAINTS = ((SHUNS, "PreferNoSchedule"), (OUT_OF_SERVICE, "NoSchedule"))
_CONDITIONS = {"nodes": ("DrainInProgress", "Drained", "MaintenanceInProgress"), "pods": ("DisruptionTarget",)}
_WORDS = {
    "pods": {MOVE, "controller.kubernetes.io/pod-deletion-cost"},
    "nodes": {
        f"{_GROUP}/cancelled",
        "cluster-autoscaler.kubernetes.io/scale-down-disabled",
        "karpenter.sh/do-not-disrupt",
        "node.kubernetes.io/exclude-from-external-load-balancers",
    },
}
_BOOKKEEPING = ("resourceVersion", "generation", "managedFields")
_ENDING = ("deletionTimestamp", "deletionGracePeriodSeconds")
Violations = Iterator[str]


def differing(before: object, after: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield paths of differences; a list counts as one value."""
    if before == after:
        return
    if isinstance(before, dict) or isinstance(after, dict):
        old, new = (value if isinstance(value, dict) else {} for value in (before, after))
        for key in old.keys() | new.keys():
            yield from differing(old.get(key), new.get(key), (*path, key))
    else:
        yield path


def nothing_of_others_is_touched(state: RecordedState, change: Change) -> Violations:
    before, after, resource = change.before, change.after, change.place.resource
    if before is None or after is None or resource not in _WORDS:
        return
    for path in differing(before, after):
        match path:
            case ("metadata", "ownerReferences") if resource == "pods":
                ours = _changes_controller(state, before, after)
            case ("metadata", word):
                ours = word in _BOOKKEEPING or (resource == "pods" and word in _ENDING)
            case ("metadata", "labels" | "annotations", word):
                ours = word in _WORDS[resource]
            case ("spec", "unschedulable"):
                ours = True
            case ("spec", "taints"):
                old, new = ({_taint(t) for t in raw["spec"].get("taints") or ()} for raw in (before, after))
                ours = all((key, effect) in _TAINTS and not value for key, value, effect in old ^ new)
            case ("status", "conditions"):
                ours = _others(resource, before) == _others(resource, after)
            case _:
                ours = False
        if not ours:
            yield f"changes {'.'.join(path)}"


def _others(resource: str, raw: RawObject) -> list[RawObject]:
    """Return conditions that the operator does not own."""
    return [c for c in raw["status"].get("conditions") or () if c["type"] not in _CONDITIONS[resource]]


def _taint(taint: RawObject) -> tuple[str, str, str]:
    return taint["key"], taint.get("value", ""), taint["effect"]


def _changes_controller(state: RecordedState, before: RawObject, after: RawObject) -> bool:
    """Whether a pod changes between its ReplicaSet and its Deployment, and always has a controller."""
    old, new = (raw["metadata"].get("ownerReferences") or [] for raw in (before, after))
    was, now = controller(before), controller(after)
    if [o for o in old if not o.get("controller")] != [o for o in new if not o.get("controller")]:
        return False
    if (sum(bool(o.get("controller")) for o in old), sum(bool(o.get("controller")) for o in new)) != (1, 1):
        return False
    below, above = (was, now) if was.get("kind") == "ReplicaSet" else (now, was)
    found = next((rs for rs in state.all("replicasets") if uid(rs) == below.get("uid")), None)
    same = found is not None and controller(found).get("uid") == above.get("uid")
    return same and (below["kind"], above["kind"]) == ("ReplicaSet", "Deployment")


def no_other_pod_is_written(state: RecordedState, change: Change) -> Violations:
    """Check that the operator writes only to pods that it released: it must not touch a record on any other pod."""
    call = change.call
    if change.place.resource != "pods" or change.after is None or call is None or call.verb != "patch":
        return
    if change.releases or uid(change.after) in state.released_uids or call.place.subresource:
        return
    if not (change.before and _is_record_of_a_return(change.before)):
        yield "writes on a pod that it never released"


def _is_record_of_a_return(pod: RawObject) -> bool:
    """Whether the pod carries the record of a return that nobody can tell from one of the operator."""
    record, owner = move(pod), controller(pod)
    kept = annotations(pod).get("controller.kubernetes.io/pod-deletion-cost") == "2147483647"
    return kept and (record.get("replicaSet"), record.get("replicaSetUID")) == (owner.get("name"), owner.get("uid"))


def what_is_added_was_recorded(state: RecordedState, change: Change) -> Violations:
    """Check that a crash between two writes leaves a record without its effect, never an effect without its record."""
    before, after = change.before, change.after
    if change.place.resource != "nodes" or before is None or after is None:
        return
    record = ((state.drain(name(after)) or {}).get("status") or {}).get("node") or {}
    if change.cordons and not (record.get("uid") == uid(after) and record.get("cordonedByUs")):
        yield "cordons without a record of it"
    named = {(t["key"], t["effect"]) for t in record.get("addedTaints") or ()}
    if state.may_migrate(after):
        named.add((SHUNS, "PreferNoSchedule"))
    old, new = ({(t["key"], t["effect"]) for t in raw["spec"].get("taints") or ()} for raw in (before, after))
    if new - old - named:
        yield f"sets the taint {new - old - named} without a record of it"


def out_of_service_needs_proof(state: RecordedState, change: Change) -> Violations:
    """Check that the out-of-service taint is set only with proof, and only while the boot is dead.

    The taint makes Kubernetes detach every volume of the node.
    """
    before, after = change.before, change.after
    if change.place.resource != "nodes" or before is None or after is None:
        return
    was, now = has_taint(before, OUT_OF_SERVICE), has_taint(after, OUT_OF_SERVICE)
    if now and not was and (is_ready(before) or not (proof(before) or has_taint(before, SHUTDOWN))):
        yield "puts a node out of service that is not proven dead"
    if was and not now:
        record = ((state.drain(name(after)) or {}).get("status") or {}).get("node") or {}
        same_boot = record.get("bootID") == before["status"].get("nodeInfo", {}).get("bootID")
        ending = [name(p) for p in state.pods_on(name(after)) if deleting(p) and state.at - _ended(p) > state.lag]
        if same_boot and (state.recent_values("ready", name(after)) == ["Unknown"] or ending):
            yield f"puts a node back into service without a new boot: {ending}"


def _ended(pod: RawObject) -> float:
    """Return the latest time at which the deletion of a pod began."""
    meta = pod["metadata"]
    return (seconds(meta.get("deletionTimestamp")) or 0) - float(meta.get("deletionGracePeriodSeconds", 0))


def only_our_cordon_is_undone(state: RecordedState, change: Change) -> Violations:
    before, after = change.before, change.after
    if change.place.resource != "nodes" or before is None or after is None:
        return
    if not before["spec"].get("unschedulable") or after["spec"].get("unschedulable"):
        return
    drain = state.drain(name(after)) or {"metadata": {}}
    if not state.cordoned.get(name(after)):
        yield "removes a cordon of another client"
    if not deleting(drain) and f"{_GROUP}/stepped-back" not in annotations(drain):
        yield "uncordons a node that still has requests"


def status_is_true(state: RecordedState, change: Change) -> Violations:
    """Check that a drain is Drained only if no pod that must leave has been on the node for a moment."""
    after = change.after
    if change.place.resource != "nodedrains" or after is None:
        return
    observed = (after.get("status") or {}).get("observedGeneration", 0)
    if observed > after["metadata"].get("generation", 1):
        yield "observes a generation that does not exist"
    now_drained = condition(after, "Drained").get("status") == "True"
    if not now_drained or (change.before and condition(change.before, "Drained").get("status") == "True"):
        return
    for pod in state.pods_on(name(after)):
        stays = controller(pod).get("kind") == "DaemonSet" or "kubernetes.io/config.mirror" in annotations(pod)
        bound = seconds(condition(pod, "PodScheduled").get("lastTransitionTime")) or 0
        if not stays and state.at - bound > state.lag + 1:
            yield f"reports Drained while {name(pod)} is on the node"
