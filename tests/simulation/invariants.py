"""What must be true of every write of the operator, whatever happened before: the design, said a second time.

Nothing here knows how the operator decides. A rule is a function of the picture before a change, and of the change;
it answers what is wrong, in words, or nothing.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from math import ceil

from rescheduler.api.policies import Mode, OnTimeout, Policy, Replacement, Suspend
from simulation.objects import (
    MOVE,
    Json,
    annotations,
    claims,
    condition,
    controller,
    deleting,
    finished,
    is_ready,
    labels,
    name,
    node_of,
    released,
    seconds,
    uid,
)
from simulation.pictures import CONTROL_PLANE, SHARE, SILENCE, Picture, reasons
from simulation.records import Call, Change

_GROUP = "rescheduler.dev"
_COST = "controller.kubernetes.io/pod-deletion-cost"
_OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
_FENCED, _SHUTDOWN = f"{_GROUP}/fenced", "node.cloudprovider.kubernetes.io/shutdown"
_TAINTS = ((f"{_GROUP}/drain", "PreferNoSchedule"), (_OUT_OF_SERVICE, "NoSchedule"))
_CONDITIONS = ("DrainInProgress", "Drained", "MaintenanceInProgress")
_NODE_WORDS = {
    f"{_GROUP}/cancelled",
    "cluster-autoscaler.kubernetes.io/scale-down-disabled",
    "karpenter.sh/do-not-disrupt",
    "node.kubernetes.io/exclude-from-external-load-balancers",
}
_ALLOWED = {
    "nodes": {"patch"},
    "nodes/status": {"patch"},
    "pods": {"patch", "delete"},
    "pods/eviction": {"evict"},
    "nodedrains": {"create", "patch", "delete"},
    "nodedrains/status": {"patch"},
    "events": {"create", "patch"},
    "leases": {"create", "update"},
}
Said = Iterator[str]


# -- of requests, granted or not ------------------------------------------------------------------------------------


def only_what_is_granted(call: Call) -> Said:
    what = call.place.resource + (f"/{call.place.subresource}" if call.place.subresource else "")
    if call.verb not in _ALLOWED.get(what, ()):
        yield f"may not {call.verb} {what}"
    if what == "leases" and call.place.namespace == "kube-node-lease":
        yield "touches a kubelet's Lease"


def every_write_has_its_precondition(call: Call) -> Said:
    meta = call.body.get("metadata") or {}
    options = call.body.get("deleteOptions", {}) if call.verb == "evict" else call.body
    match call.place.resource, call.verb:
        case _, "evict" | "delete":
            if not (options.get("preconditions") or {}).get("uid"):
                yield "has no UID precondition"
        case "pods", _:
            if not (meta.get("uid") and meta.get("resourceVersion")):
                yield "has no UID and resourceVersion"
        case "nodes", _ if call.place.subresource != "status":
            if not (meta.get("uid") and meta.get("resourceVersion")):
                yield "has no UID and resourceVersion"
        case ("nodedrains", "patch") | ("leases", "update"):
            if not meta.get("resourceVersion"):
                yield "has no resourceVersion"


def grace_is_never_0(call: Call) -> Said:
    options = call.body.get("deleteOptions", {}) if call.verb == "evict" else call.body
    if call.verb in ("evict", "delete") and (options or {}).get("gracePeriodSeconds", 1) < 1:
        yield "has grace 0"


# -- of what was changed ----------------------------------------------------------------------------------------------


def differing(before: object, after: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of what differs; lists are one thing."""
    if before == after:
        return
    if isinstance(before, dict) or isinstance(after, dict):
        old, new = (value if isinstance(value, dict) else {} for value in (before, after))
        for key in old.keys() | new.keys():
            yield from differing(old.get(key), new.get(key), (*path, key))
    else:
        yield path


def nothing_of_others_is_touched(picture: Picture, change: Change) -> Said:
    before, after = change.before, change.after
    if before is None or after is None or change.place.resource not in ("nodes", "pods"):
        return
    ending = ("deletionTimestamp", "deletionGracePeriodSeconds")
    for path in differing(before, after):
        match path:
            case ("metadata", "resourceVersion" | "generation" | "managedFields"):
                continue
            case ("metadata", word) if word in ending and change.place.resource == "pods":
                continue
            case ("metadata", "labels" | "annotations", word):
                ours = {"pods": {"pod-template-hash", MOVE, _COST}, "nodes": _NODE_WORDS}
                if word in ours[change.place.resource]:
                    continue
            case ("spec", "unschedulable"):
                continue
            case ("spec", "taints"):
                old, new = ({_taint(t) for t in raw["spec"].get("taints") or ()} for raw in (before, after))
                if all((key, effect) in _TAINTS and not value for key, value, effect in old ^ new):
                    continue
            case ("status", "conditions"):
                changed = [c for raw in (before, after) for c in raw["status"]["conditions"]]
                kept = [c for c in changed if c["type"] not in _CONDITIONS]
                if kept == 2 * kept[: len(kept) // 2]:
                    continue
        yield f"changes {'.'.join(path)}"


def _taint(taint: Json) -> tuple[str, str, str]:
    return taint["key"], taint.get("value", ""), taint["effect"]


def what_is_added_was_recorded(picture: Picture, change: Change) -> Said:
    """A crash between the two writes must leave a promise, never a gap."""
    before, after = change.before, change.after
    if change.place.resource != "nodes" or before is None or after is None:
        return
    record = ((picture.drain(name(after)) or {}).get("status") or {}).get("node") or {}
    if _cordons(change) and not (record.get("uid") == uid(after) and record.get("cordonedByUs")):
        yield "cordons without a record of it"
    named = {(t["key"], t["effect"]) for t in record.get("addedTaints") or ()}
    old, new = ({(t["key"], t["effect"]) for t in raw["spec"].get("taints") or ()} for raw in (before, after))
    if new - old - named:
        yield f"sets the taint {new - old - named} without a record of it"


def _cordons(change: Change) -> bool:
    before, after = change.before, change.after
    return bool(
        change.place.resource == "nodes"
        and before
        and after
        and after["spec"].get("unschedulable")
        and not before["spec"].get("unschedulable")
    )


def only_our_cordon_is_undone(picture: Picture, change: Change) -> Said:
    before, after = change.before, change.after
    if change.place.resource != "nodes" or before is None or after is None:
        return
    if not before["spec"].get("unschedulable") or after["spec"].get("unschedulable"):
        return
    drain = picture.drain(name(after)) or {"metadata": {}}
    if not ((drain.get("status") or {}).get("node") or {}).get("cordonedByUs"):
        yield "takes off a cordon that is not ours"
    if not deleting(drain) and f"{_GROUP}/stepped-back" not in annotations(drain):
        yield "uncordons a node whose requests stand"


# -- of what is begun -------------------------------------------------------------------------------------------------


def _started(drain: Json) -> float | None:
    return seconds((drain.get("status") or {}).get("startedAt"))


def _begins(picture: Picture, change: Change) -> Json | None:
    """The NodeDrain that this change makes begin: its first cordon; None where it is none."""
    drain = picture.drain(change.place.name)
    started = _started(drain) if drain and change.place.resource == "nodes" and _cordons(change) else None
    return drain if started and picture.at - started <= picture.lag + 1 else None


def policies_are_obeyed(picture: Picture, change: Change) -> Said:
    """Whatever is written to nodes and pods, but for undoing, is written under a policy that lets it."""
    node = _written_for(picture, change)
    if node is None:
        return
    policies = picture.policies(node)
    if not any(p.spec.mode is Mode.ENFORCE and p.spec.suspend is not Suspend.ALL for p in policies):
        yield f"acts under {[(p.name, p.spec.mode, p.spec.suspend) for p in policies]}"
    if _begins(picture, change) and not any(p.spec.suspend is Suspend.NONE for p in policies):
        yield "begins while new drains are suspended"
    if picture.lately("owned", name(node)) == [True] and _begins(picture, change):
        yield "begins on a node that somebody else is about to remove"


def nothing_is_done_blindly(picture: Picture, change: Change) -> Said:
    young = picture.at - picture.born <= SILENCE + picture.lag
    unknown = [n for n in picture.all("nodes") if picture.lately("ready", name(n)) == ["Unknown"]]
    # Who has just begun cannot know, unless the node controller does.
    if young and len(unknown) < SHARE * len(picture.renewals):
        return
    if picture.blackout(picture.lag) and _written_for(picture, change):
        yield "acts while most Leases are silent"


def _written_for(picture: Picture, change: Change) -> Json | None:
    """The node for which something new is done here: a cordon, a release, an eviction; undoing is none."""
    if _cordons(change):
        return change.before
    pod = change.before
    if change.place.resource != "pods" or pod is None or change.call is None:
        return None
    lets_go = change.after is not None and released(change.after) and not released(pod)
    if lets_go or (change.call.verb in ("evict", "delete") and not released(pod)):
        return picture.node(node_of(pod))
    return None


def no_storm_begins_a_failure(picture: Picture, change: Change) -> Said:
    drain = _begins(picture, change)
    if drain is None or reasons(drain) != {"Failure"} or change.after is None:
        return
    node = change.after
    for policy in picture.policies(node)[-1:]:
        mine = [n for n in picture.all("nodes") if picture.policies(n)[-1:] == [policy]]
        sick = [n for n in mine if picture.sick(n, policy) and not _emptied(picture, n)]
        limit = policy.spec.failure.max_unhealthy
        if len(sick) >= 2 and len(sick) > limit.of(len(mine)):
            yield f"begins though {len(sick)} of {len(mine)} nodes are unhealthy, more than {limit}"
        for key in ("topology.kubernetes.io/zone", "rescheduler.node-restriction.kubernetes.io/pool"):
            if here := labels(node).get(key):
                beside = [n for n in mine if labels(n).get(key) == here]
                ill = [n for n in sick if labels(n).get(key) == here]
                if len(ill) >= 3 and len(ill) > limit.of(len(beside)):
                    yield f"begins though {len(ill)} of {len(beside)} nodes of {here} are unhealthy"


def _emptied(picture: Picture, node: Json) -> bool:
    drain = picture.drain(name(node))
    return bool(drain and (drain.get("status") or {}).get("drainedAt") and reasons(drain) != {"Failure"})


def a_failure_is_one(picture: Picture, change: Change) -> Said:
    """Nothing begins for a failure before its time, but for a node that is suspected or flaps."""
    drain = _begins(picture, change)
    if drain is None or reasons(drain) != {"Failure"} or change.after is None:
        return
    node, slack = name(change.after), picture.lag + 1
    for policy in picture.policies(change.after):
        failure = policy.spec.failure
        begins = [at for at, status in picture.past("ready", node) if status != "True"]
        often = [at for at in begins if picture.at - at <= failure.flapping.within.total_seconds()]
        suspected = failure.lease_timeout and picture.silence(node) + slack >= failure.lease_timeout.total_seconds()
        if picture.failing(node, policy, slack) or suspected or len(often) >= failure.flapping.changes:
            return
    yield f"begins for a failure, and the node was {picture.past('ready', node)[-4:]} (now {picture.at:.0f})"


def one_control_plane_node_at_a_time(picture: Picture, change: Change) -> Said:
    node = change.after
    if not _cordons(change) or node is None or CONTROL_PLANE not in labels(node):
        return
    for other in picture.all("nodes"):
        drain = picture.drain(name(other))
        held = drain and _started(drain) and other["spec"].get("unschedulable")
        if CONTROL_PLANE in labels(other) and name(other) != name(node) and held:
            yield f"cordons a control-plane node while {name(other)} is held"


def slots_are_kept(picture: Picture, change: Change) -> Said:
    """Never more nodes drained or held for maintenance than the policy lets."""
    drain = _begins(picture, change)
    if drain is None or "Failure" in reasons(drain) or change.after is None:
        return
    for policy in picture.policies(change.after)[-1:]:
        members = [n for n in picture.all("nodes") if picture.policies(n)[-1:] == [policy]]
        there = [d for n in members if name(n) != change.place.name and (d := picture.drain(name(n)))]
        held = [d for d in there if _started(d) and "Failure" not in reasons(d) and not deleting(d)]
        running = [d for d in held if not d["status"].get("drainedAt") and not _gave_up(d, picture.at)]
        spec = policy.spec.maintenance
        slots = spec.max_concurrent.of(len(members))
        most = spec.max_unavailable.of(len(members))
        most = max(most, slots) if spec.max_unavailable.is_percent else most
        if len(running) >= slots:
            yield f"begins beside {[name(d) for d in running]} with maxConcurrent {slots}"
        if len(held) >= most:
            yield f"begins beside {[name(d) for d in held]} with maxUnavailable {most}"


def _gave_up(drain: Json, now: float) -> bool:
    """Its slot: it waits for one, or has been Blocked for five minutes."""
    waits = condition(drain, "Progressing").get("reason") == "MaxConcurrent"
    blocked = condition(drain, "Blocked")
    return waits or (blocked.get("status") == "True" and now - (seconds(blocked["lastTransitionTime"]) or now) >= 298)


# -- of pods that go --------------------------------------------------------------------------------------------------


def _ends(change: Change) -> Json | None:
    """The pod that this change evicts or deletes."""
    verb = change.call.verb if change.call else ""
    return change.before if change.place.resource == "pods" and verb in ("evict", "delete") else None


def only_pods_of_a_drain_go(picture: Picture, change: Change) -> Said:
    pod = _ends(change)
    if pod is None:
        return
    node, drain = picture.node(node_of(pod)), picture.drain(node_of(pod))
    if controller(pod).get("kind") == "DaemonSet" or "kubernetes.io/config.mirror" in annotations(pod):
        yield "ends a pod that belongs to its node"
    if not controller(pod) and not released(pod) and not finished(pod):
        yield "ends a pod that nothing would recreate"
    if released(pod):
        return  # also one whose drain has ended, and that cannot be given back
    if drain is None or True not in picture.lately("begun", node_of(pod)):
        yield "ends a pod of a node without a drain that has begun"
        return
    if True not in picture.lately("cordoned", node_of(pod)):
        yield "ends a pod of a node that is not cordoned"
    asked = reasons(drain)
    maintained = "Maintenance" in asked and any(v is not None for v in picture.lately("maintenance", node_of(pod)))
    if "Manual" in asked or maintained or node is None:
        return
    slack = picture.lag + 1
    if not any(picture.failing(node_of(pod), policy, slack) for policy in picture.policies(node)):
        past = picture.past("ready", node_of(pod))[-4:]
        yield f"ends a pod for {asked}, which nothing asks for: {past} (now {picture.at:.0f})"


def nothing_is_forced_without_right(picture: Picture, change: Change) -> Said:
    """A plain DELETE goes past budgets, and what must not run twice may run on where nobody can look."""
    pod = _ends(change)
    node = picture.node(node_of(pod)) if pod else None
    if pod is None or node is None or finished(pod):
        return
    unreachable = "Unknown" in picture.lately("ready", name(node))
    ill = "False" in picture.lately("ready", name(node))
    gone_dark = picture.lately("ready", name(node)) == ["Unknown"]
    proven = proof(node) or any(t["key"] in (_OUT_OF_SERVICE, _SHUTDOWN) for t in node["spec"].get("taints") or ())
    twice = may_run_twice(pod)
    if gone_dark and not twice and not proven:
        yield "ends a pod that must not run twice on a node that may be alive"
    if change.call is None or change.call.verb != "delete":
        return
    lost = False in picture.lately("pod", uid(pod))
    if not (
        (lost and unreachable and (twice or proven))
        or (lost and ill and twice)
        or (released(pod) and _switched_off(picture, pod))
        or _overdue(picture, pod, node)
    ):
        yield f"deletes past any budget, and the node was {picture.lately('ready', name(node))}, proof: {proven}"


def may_run_twice(pod: Json) -> bool:
    kind = "ReplicaSet" if released(pod) else controller(pod).get("kind")
    return kind in ("ReplicaSet", "ReplicationController", "Job") and not claims(pod)


def proof(node: Json) -> bool:
    """Whether somebody attests that this very boot of this very machine is dead."""
    try:
        said = json.loads(annotations(node).get(_FENCED, "{}"))
    except ValueError:
        return False
    boot = node["status"].get("nodeInfo", {}).get("bootID")
    return bool(said.get("nodeUID") == uid(node) and said.get("bootID") == boot)


def _move(pod: Json) -> Json | None:
    text = annotations(pod).get(MOVE)
    return json.loads(text) if text else None


def _switched_off(picture: Picture, pod: Json) -> bool:
    """Whether its owner wants it no more: it is gone, or scaled to less than it has without this one."""
    deployment = picture.deployment_of(pod, _move(pod))
    if deployment is None or deleting(deployment):
        return True
    wanted = min(picture.lately("replicas", uid(deployment)))
    others = [p for p in picture.family(deployment) if not released(p) and True in picture.lately("pod", uid(p))]
    return wanted == 0 or len(others) > wanted


def _overdue(picture: Picture, pod: Json, node: Json) -> bool:
    drain = picture.drain(name(node))
    started = _started(drain) if drain else None
    for policy in picture.policies(node):
        settings = policy.spec.drain
        if started and settings.on_timeout is OnTimeout.DELETE and settings.timeout:
            grace = min(timedelta(seconds=pod["spec"].get("terminationGracePeriodSeconds", 30)), settings.timeout / 2)
            if picture.at >= started + (settings.timeout - grace).total_seconds() - picture.lag:
                return True
    return False


def served_as_before(picture: Picture, change: Change) -> Said:
    """Where the new pod comes first, no Ready pod goes before its place is taken."""
    pod = _ends(change)
    if pod is None or not is_ready(pod) or deleting(pod):
        return
    move = _move(pod) if released(pod) else None
    deployment = picture.deployment_of(pod, move)
    node = picture.node(node_of(pod))
    if deployment is None or node is None or deleting(deployment) or _overdue(picture, pod, node):
        return
    others = [p for p in picture.family(deployment) if uid(p) != uid(pod)]
    ready = sum(True in picture.lately("pod", uid(p)) for p in others)
    wanted = min(picture.lately("replicas", uid(deployment)))
    if move:
        moves = [m for p in [pod, *others] if released(p) and (m := _move(p))]
        before = min(moves, key=lambda m: m["since"])["ready"]
        if ready < min(wanted, before) and not _switched_off(picture, pod):
            yield f"a released pod goes, and {ready} Ready pods are left of {before}, of {wanted} wanted"
    elif ready == 0 and wanted and _replaced_first(pod, picture.policies(node)):
        yield "the last Ready pod of an owner goes without a replacement"


def _replaced_first(pod: Json, policies: list[Policy]) -> bool:
    given = annotations(pod).get(f"{_GROUP}/replacement")
    modes = {Replacement(given)} if given else {p.spec.drain.replacement for p in policies}
    return may_run_twice(pod) and modes <= {Replacement.PREFERRED, Replacement.REQUIRED}


def releases_are_few(picture: Picture, change: Change) -> Said:
    """A quarter of an owner's pods at once, all of them serving, on a cordoned node; more only of a suspected node."""
    pod, after = change.before, change.after
    if change.place.resource != "pods" or pod is None or after is None or not released(after) or released(pod):
        return
    node, deployment = picture.node(node_of(pod)), picture.deployment_of(pod, None)
    if node is None or deployment is None:
        yield "releases a pod of no Deployment, or of no node"
        return
    if True not in picture.lately("cordoned", name(node)):
        yield "releases a pod of a node that is not cordoned"
    if True not in picture.lately("pod", uid(pod)) or claims(pod):
        yield "releases a pod that is not Ready, or has a volume of its own"
    suspicions = any(p.spec.failure.lease_timeout for p in picture.policies(node))
    family, wanted = picture.family(deployment), max(picture.lately("replicas", uid(deployment)))
    out = [p for p in family if released(p)]
    before = min((m for p in out if (m := _move(p))), key=lambda m: m["since"], default={"ready": wanted})["ready"]
    surplus = sum(map(is_ready, family)) - min(wanted, before)  # the evictions of so many are on their way
    if len(out) - max(0, surplus) >= max(1, ceil(0.25 * wanted)) and not suspicions:
        yield f"releases one more beside {[name(p) for p in out]}"


# -- of what is said ----------------------------------------------------------------------------------------------------


def status_is_true(picture: Picture, change: Change) -> Said:
    """Drained only where nothing is left that must leave and has been there for a moment."""
    after = change.after
    if change.place.resource != "nodedrains" or after is None:
        return
    observed = (after.get("status") or {}).get("observedGeneration", 0)
    if observed > after["metadata"].get("generation", 1):
        yield "observes a generation that is not there"
    now_drained = condition(after, "Drained").get("status") == "True"
    if not now_drained or (change.before and condition(change.before, "Drained").get("status") == "True"):
        return
    for pod in picture.pods_on(name(after)):
        stays = controller(pod).get("kind") == "DaemonSet" or "kubernetes.io/config.mirror" in annotations(pod)
        bound = seconds(condition(pod, "PodScheduled").get("lastTransitionTime")) or 0
        if not stays and picture.at - bound > picture.lag + 1:
            yield f"says Drained while {name(pod)} is there"


CALLS: tuple[Callable[[Call], Said], ...] = (
    only_what_is_granted,
    every_write_has_its_precondition,
    grace_is_never_0,
)
CHANGES: tuple[Callable[[Picture, Change], Said], ...] = (
    nothing_of_others_is_touched,
    what_is_added_was_recorded,
    only_our_cordon_is_undone,
    policies_are_obeyed,
    nothing_is_done_blindly,
    no_storm_begins_a_failure,
    a_failure_is_one,
    one_control_plane_node_at_a_time,
    slots_are_kept,
    only_pods_of_a_drain_go,
    nothing_is_forced_without_right,
    served_as_before,
    releases_are_few,
    status_is_true,
)


@dataclass
class Judge:
    """Follows a record and holds the operator to all of this.

    Attributes:
        ours: the users that are the operator.
        leader: where its Lease tells which of them may write; None: all are one user.
        broken: what was found.
    """

    picture: Picture
    ours: frozenset[str]
    leader: tuple[str, str] | None = None
    broken: list[str] = field(default_factory=list)
    ended: set[str] = field(default_factory=set)
    writes: int = 0

    def call(self, call: Call) -> None:
        """A request, before it is known what became of it."""
        if call.user in self.ours:
            self._say(call, (words for rule in CALLS for words in rule(call)))

    def change(self, change: Change) -> None:
        """What became of one."""
        if change.call and change.call.user in self.ours and change.place.resource not in ("leases", "events"):
            self.writes += 1
            self._say(change, (words for rule in CHANGES for words in rule(self.picture, change)))
            self._say(change, self._once(change))
        if change.call and change.call.user in self.ours and change.place.resource != "leases":
            self._say(change, self._leads(change))
        self.picture.take(change)

    def _once(self, change: Change) -> Said:
        if pod := _ends(change):
            if uid(pod) in self.ended:
                yield "ends the same pod a second time"
            self.ended.add(uid(pod))

    def _leads(self, change: Change) -> Said:
        lease = self.picture.objects["leases"].get(self.leader) if self.leader else None
        if lease and change.call and lease["spec"]["holderIdentity"] != change.call.user:
            yield f"writes while {lease['spec']['holderIdentity'] or 'nobody'} holds the Lease"

    def _say(self, about: object, found: Said) -> None:
        self.broken += [f"{about}: {words}" for words in found]


