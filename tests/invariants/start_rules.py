"""Invariants of drains that begin, and of every write under a policy."""

from collections.abc import Iterator

from invariants.objects import condition, deleting, labels, name, node_of, seconds
from invariants.records import Change
from invariants.state import CONTROL_PLANE, SHARE, SILENCE, RecordedState, reasons
from rescheduler.api.policies import Mode, ReschedulePolicy, Suspend
from rescheduler.core.model.raw import RawObject

Violations = Iterator[str]


def _started(drain: RawObject) -> float | None:
    return seconds((drain.get("status") or {}).get("startedAt"))


def _begins(state: RecordedState, change: Change) -> RawObject | None:
    """Return the NodeDrain that this change begins with its first cordon; None if there is none."""
    drain = state.drain(change.place.name)
    started = _started(drain) if drain and change.place.resource == "nodes" and change.cordons else None
    return drain if started and state.at - started <= state.lag + 1 else None


def policies_are_obeyed(state: RecordedState, change: Change) -> Violations:
    """Check that every write to nodes and pods, except an undo, has a policy that allows it."""
    node = _written_for(state, change)
    if node is None:
        return
    policies = state.policies(node)
    if not any(p.spec.mode is Mode.ENFORCE and p.spec.suspend is not Suspend.ALL for p in policies):
        yield f"faults under {[(p.name, p.spec.mode, p.spec.suspend) for p in policies]}"
    if _begins(state, change) and not any(p.spec.suspend is Suspend.NONE for p in policies):
        yield "begins while new drains are suspended"
    if state.recent_values("owned", name(node)) == [True] and _begins(state, change):
        yield "begins on a node that somebody else is about to remove"


def nothing_is_done_blindly(state: RecordedState, change: Change) -> Violations:
    young = state.at - state.born <= SILENCE + state.lag
    unknown = [n for n in state.all("nodes") if state.recent_values("ready", name(n)) == ["Unknown"]]
    # A new leader cannot know yet, unless the node controller does.
    if young and len(unknown) < SHARE * len(state.renewals):
        return
    if state.blackout(state.lag) and _written_for(state, change):
        yield "faults while most Leases are silent"


def _written_for(state: RecordedState, change: Change) -> RawObject | None:
    """Return the node of a new act: a cordon, a release or an eviction; None for an undo."""
    if change.cordons:
        return change.before
    pod = change.before
    if change.place.resource != "pods" or pod is None or change.call is None:
        return None
    if change.releases or (change.call.verb in ("evict", "delete") and not state.released(pod)):
        return state.node(node_of(pod))
    return None


def no_storm_begins_a_failure(state: RecordedState, change: Change) -> Violations:
    """Check each cause separately: no drain begins if every possible cause is in a storm."""
    drain = _begins(state, change)
    if drain is None or reasons(drain) != {"Failure"} or change.after is None:
        return
    for policy in state.policies(change.after)[-1:]:
        storms = [_storm(state, change.after, policy, cause) for cause in _causes(state, change.after, policy)]
        if storms and all(storms):
            yield f"begins in a storm: {'; '.join(storms)}"


def _causes(state: RecordedState, node: RawObject, policy: ReschedulePolicy) -> list[str]:
    """Return the values of Ready, now or recently, that may make the node fail; of a flapping node, those of its flaps."""
    failure, timeout = policy.spec.failure, policy.spec.failure.lease_timeout
    found = {*state.recent_values("ready", name(node))} - {"True"}
    if timeout and state.silence(name(node)) + state.lag + 1 >= timeout.total_seconds():
        found.add("Unknown")
    if not found:
        since = state.at - failure.flapping.within.total_seconds()
        found = {status for at, status in state.past("ready", name(node)) if status != "True" and at > since}
    return sorted(found)


def _storm(state: RecordedState, node: RawObject, policy: ReschedulePolicy, cause: str) -> str:
    """Return the message that too many nodes fail for this cause; empty if there is no storm."""
    mine = [n for n in state.all("nodes") if state.policies(n)[-1:] == [policy]]
    unhealthy = [
        n for n in mine if state.unhealthy(n, policy, cause) and True not in state.recent_values("emptied", name(n))
    ]
    limit = policy.spec.failure.max_unhealthy
    if len(unhealthy) >= 2 and len(unhealthy) > limit.of(len(mine)):
        return f"{len(unhealthy)} of {len(mine)} nodes are unhealthy ({cause}), more than {limit}"
    for key in ("topology.kubernetes.io/zone", "rescheduler.node-restriction.kubernetes.io/pool"):
        if here := labels(node).get(key):
            beside = [n for n in mine if labels(n).get(key) == here]
            ill = [n for n in unhealthy if labels(n).get(key) == here]
            if len(ill) >= 3 and len(ill) > limit.of(len(beside)):
                return f"{len(ill)} of {len(beside)} nodes of {here} are unhealthy ({cause})"
    return ""


def failures_start_within_their_limit(state: RecordedState, change: Change) -> Violations:
    """Check that no more drains for failures are under way than the policy allows, counting those of equal certainty."""
    drain = _begins(state, change)
    if drain is None or reasons(drain) != {"Failure"} or change.after is None:
        return
    ready = state.recent_values("ready", change.place.name)
    for policy in state.policies(change.after)[-1:]:
        members = [name(n) for n in state.all("nodes") if state.policies(n)[-1:] == [policy]]
        alike = [n for n in members if n != change.place.name and state.recent_values("ready", n) == ready != ["True"]]
        running = [n for n in alike if (d := state.drain(n)) and _under_way(d)]
        timeout = policy.spec.failure.lease_timeout
        if timeout and state.silence(change.place.name) + state.lag + 1 >= timeout.total_seconds():
            return  # a node that is also suspected is more certain than the status of Ready
        slots = max(1, policy.spec.failure.max_concurrent.of(len(members)))
        if len(ready) == 1 and len(running) >= slots:
            yield f"begins in addition to {running} with failure.maxConcurrent {slots}"


def _under_way(drain: RawObject) -> bool:
    status = drain.get("status") or {}
    pods = status.get("pods") or {"remaining": 1, "blocked": 0}
    moves = status.get("phase") == "Draining" and pods["remaining"] > pods["blocked"]
    return moves and _started(drain) is not None and "Failure" in reasons(drain) and not deleting(drain)


def a_failure_is_one(state: RecordedState, change: Change) -> Violations:
    """Check that no drain begins for a failure before its time, except for a suspected or flapping node."""
    drain = _begins(state, change)
    if drain is None or reasons(drain) != {"Failure"} or change.after is None:
        return
    node, slack = name(change.after), state.lag + 1
    for policy in state.policies(change.after):
        failure = policy.spec.failure
        begins = [at for at, status in state.past("ready", node) if status != "True"]
        # The oldest of them may have left the window since the operator read the node.
        often = [at for at in begins if state.at - at <= failure.flapping.within.total_seconds() + slack]
        suspected = failure.lease_timeout and state.silence(node) + slack >= failure.lease_timeout.total_seconds()
        if state.failing(node, policy, slack) or suspected or len(often) >= failure.flapping.changes:
            return
    yield f"begins for a failure, and the node was {state.past('ready', node)[-4:]} (now {state.at:.0f})"


def one_control_plane_node_at_a_time(state: RecordedState, change: Change) -> Violations:
    node = change.after
    if not change.cordons or node is None or CONTROL_PLANE not in labels(node):
        return
    for other in state.all("nodes"):
        drain = state.drain(name(other))
        held = drain and _started(drain) and other["spec"].get("unschedulable")
        if CONTROL_PLANE in labels(other) and name(other) != name(node) and held:
            yield f"cordons a control-plane node while {name(other)} is held"


def slots_are_kept(state: RecordedState, change: Change) -> Violations:
    """Check that no more nodes are drained or held for maintenance than the policy allows."""
    drain = _begins(state, change)
    if drain is None or "Failure" in reasons(drain) or change.after is None:
        return
    for policy in state.policies(change.after)[-1:]:
        members = [n for n in state.all("nodes") if state.policies(n)[-1:] == [policy]]
        there = [d for n in members if name(n) != change.place.name and (d := state.drain(name(n)))]
        held = [d for d in there if _started(d) and "Failure" not in reasons(d) and not deleting(d)]
        running = [d for d in held if not d["status"].get("drainedAt") and not _gave_up(d, state.at)]
        spec = policy.spec.maintenance
        slots = spec.max_concurrent.of(len(members))
        most = spec.max_unavailable.of(len(members))
        most = max(most, slots) if spec.max_unavailable.is_percent else most
        if len(running) >= slots:
            yield f"begins in addition to {[name(d) for d in running]} with maxConcurrent {slots}"
        if len(held) >= most:
            yield f"begins in addition to {[name(d) for d in held]} with maxUnavailable {most}"


def _gave_up(drain: RawObject, now: float) -> bool:
    """Whether the drain gave its slot up: it waits for a slot, or has been Blocked for five minutes."""
    waits = condition(drain, "Progressing").get("reason") == "MaxConcurrent"
    blocked = condition(drain, "Blocked")
    return waits or (blocked.get("status") == "True" and now - (seconds(blocked["lastTransitionTime"]) or now) >= 298)
