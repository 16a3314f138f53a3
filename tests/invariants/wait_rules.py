"""Invariants of waiting: no drain waits without a reported reason, and the reported reason is true."""

import re
from collections.abc import Callable, Iterator

from invariants.objects import (
    annotations,
    condition,
    controller,
    deleting,
    is_ready,
    labels,
    move,
    name,
    node_of,
    required_affinity,
    seconds,
    selects,
    uid,
)
from invariants.records import Place
from invariants.state import CONTROL_PLANE, RENEWED, RecordedState
from rescheduler.api.policies import Mode, Suspend
from rescheduler.core.model.raw import RawObject

QUIET = 75.0
"""Seconds without a pod in flight and without a write: a minute, and a margin for the write of the status."""
_NAMELESS = re.compile(r"|pods are being moved|the node is being restored|no pod is leaving now: \d+ queued")
"""Messages of `Progressing=True` that name no cause."""
_POD = re.compile(r"[\w-]+/[\w.-]+")
_EVERY = 5.0
_REMEMBERED = 660.0
Violations = Iterator[str]


class WaitingDrains:
    """Check all drains of a record every few seconds.

    Attributes:
        refused: by place, when a write was last refused.
    """

    def __init__(self) -> None:
        self.refused: dict[Place, float] = {}
        self._busy: dict[str, float] = {}  # by uid of the NodeDrain: when a pod was last in flight
        self._unnamed: dict[str, float] = {}  # by uid of the NodeDrain: since when its status names no cause
        self._roomy: dict[str, float] = {}  # by uid of the NodeDrain: since when its pods without room have room
        self._looked, self._found = 0.0, set[tuple[str, str]]()

    def check(self, state: RecordedState) -> Violations:
        """Yield the current violations, once for each drain and kind."""
        if state.at - self._looked < _EVERY:
            return
        self._looked = state.at
        for drain in list(state.all("nodedrains")):
            for words in self._one(state, drain):
                kind = words.partition(":")[0]
                if (uid(drain), kind) not in self._found:
                    self._found.add((uid(drain), kind))
                    yield f"at {state.at:.0f}: NodeDrain {name(drain)} {words}"

    def _one(self, state: RecordedState, drain: RawObject) -> Violations:
        self._see_room(state, drain)
        if in_flight(state, drain):
            self._busy[uid(drain)] = state.at
        born = seconds(drain["metadata"]["creationTimestamp"]) or 0
        last = max(self._busy.get(uid(drain), 0), state.acted.get(name(drain), 0), state.led, state.born, born)
        # If the write of the status was refused, the status cannot name the cause.
        mute = max(self.refused.get(Place("nodedrains", "", name(drain), sub), 0) for sub in ("", "status"))
        patience = max(QUIET, state.lag)  # the view may be late because of a fault
        quiet = not state.leaderless and state.at - max(last, mute) >= patience
        found = list(silence(drain))
        since = self._unnamed.setdefault(uid(drain), state.at) if found else self._unnamed.pop(uid(drain), None)
        if quiet and found and since and state.at - since >= patience:
            yield from found
        if quiet and not found:
            yield from self._untruths(state, drain)

    def _see_room(self, state: RecordedState, drain: RawObject) -> None:
        short = sum(b["class"] == "NoRoomInPool" for b in (drain.get("status") or {}).get("blockers") or ())
        if short and state.room(name(drain)) >= short:
            self._roomy.setdefault(uid(drain), state.at)
        else:
            self._roomy.pop(uid(drain), None)

    def _untruths(self, state: RecordedState, drain: RawObject) -> Violations:
        """Yield causes in the status that are not true."""
        progressing = condition(drain, "Progressing")
        reason = progressing.get("reason", "") if progressing.get("status") == "False" else ""
        if (check := _REASONS.get(reason)) and not check(state, drain):
            yield f"names {reason}, which is not true: {progressing.get('message')}"
        if reason:
            return  # pods on hold are not tried: the blockers are those of an earlier moment
        if (drain.get("status") or {}).get("phase") == "Restoring":
            yield from _untrue_names(state, drain, progressing.get("message", ""))
        for blocker in (drain.get("status") or {}).get("blockers") or ():
            pod = state.objects["pods"].get((blocker["namespace"], blocker["pod"]))
            if pod is None or node_of(pod) != name(drain):
                yield f"names a blocker that is not on the node: {blocker}"
            elif drain["status"].get("phase") == "Restoring" and uid(pod) not in state.released_uids:
                yield f"names a blocker that holds no restore: {blocker}"
            elif not self._blocks(state, pod, blocker["class"], drain):
                yield f"names a blocker {blocker['class']} that does not block: {blocker}"

    def _blocks(self, state: RecordedState, pod: RawObject, class_: str, drain: RawObject) -> bool:
        space = pod["metadata"]["namespace"]
        there = state.all("poddisruptionbudgets", space)
        budgets = [raw for raw in there if selects(raw["spec"].get("selector"), labels(pod))]
        if required_affinity(pod):
            return True  # a colocated pod has the blocker of the pod that it waits for
        match class_:
            case "BudgetExhausted" | "BudgetMisconfigured" | "BudgetNotObserved":
                return any(False in state.recent_values("allowed", uid(raw), QUIET) for raw in budgets)
            case "SeveralBudgets":
                return len(budgets) > 1
            case "Unmanaged":
                return False in state.recent_values("controlled", uid(pod), QUIET)
            case "AdmissionDenied" | "Delegated" | "Throttled":
                refusals = (at for place, at in self.refused.items() if place.name == name(pod))
                return state.at - max(refusals, default=0) < 2 * QUIET
            case "StuckTerminating":
                return deleting(pod)
            case "DoNotDisrupt":
                return "rescheduler.dev/do-not-disrupt" in annotations(pod)
            case "NoRoomInPool":
                return state.at - self._roomy.get(uid(drain), state.at) < QUIET
        return True


def _untrue_names(state: RecordedState, drain: RawObject, message: str) -> Violations:
    """Yield pods that are reported to hold a restore and were never released."""
    keys = (word.partition("/") for word in _POD.findall(message))
    named = [state.objects["pods"].get((namespace, pod_name)) for namespace, _, pod_name in keys]
    there = [pod for pod in named if pod and node_of(pod) == name(drain)]
    if there and not any(uid(pod) in state.released_uids for pod in there):
        yield f"names pods that hold no restore: {message}"


def in_flight(state: RecordedState, drain: RawObject) -> bool:
    """Whether a pod of the node is in flight: it is Terminating, or was released recently."""
    node = state.node(name(drain))
    policies = state.policies(node) if node else []
    patience = 2 * max((p.spec.drain.replacement_timeout.total_seconds() for p in policies), default=0.0)
    for pod in state.pods_on(name(drain)):
        if deleting(pod):
            ends = seconds(pod["metadata"]["deletionTimestamp"]) or 0
            if node is None or not is_ready(node) or state.at < ends + QUIET:
                return True
        elif state.released(pod) and state.at < (seconds(move(pod).get("since")) or 0) + patience:
            return True
    return False


def silence(drain: RawObject) -> Violations:
    """Yield a violation if a drain has nothing in flight, no recent write and no named cause."""
    status = drain.get("status") or {}
    progressing = condition(drain, "Progressing")
    if progressing.get("status") == "False":
        named = progressing.get("reason") and progressing.get("message")
    else:
        attached = condition(drain, "Drained").get("reason") == "VolumesAttached"
        named = attached or status.get("blockers") or not _NAMELESS.fullmatch(progressing.get("message", ""))
    if not named:
        yield f"waits without a reported reason: phase {status.get('phase')}, {progressing}"
    for blocker in status.get("blockers") or ():
        if not (blocker.get("message") and blocker.get("hint")):
            yield f"names a blocker without a message and a hint: {blocker}"


def _others(state: RecordedState, drain: RawObject) -> list[RawObject]:
    """Return NodeDrains of other nodes that have begun, now or within the last minute."""

    def begun(node: str) -> bool:
        found = (state.drain(node) or {}).get("status") or {}
        return bool(found.get("startedAt")) or True in state.recent_values("begun", node, QUIET)

    return [n for n in state.all("nodes") if name(n) != name(drain) and begun(name(n))]


def _is_in_line(state: RecordedState, drain: RawObject) -> bool:
    """Whether another failed node may start first, in the next moment."""
    failed = [name(d) for d in state.all("nodedrains") if any(r["reason"] == "Failure" for r in d["spec"]["requests"])]
    return name(drain) in failed and len(failed) > 1


def _policies(state: RecordedState, drain: RawObject) -> list[RawObject | None]:
    """Return policies that select the node at any time of the last minute; None for a moment without a policy."""
    node = state.node(name(drain))
    found: list[RawObject | None] = []
    for then in state.recent_values("policies", "", QUIET):
        fits = [raw for raw in then if node and selects(raw["spec"].get("nodeSelector") or {}, labels(node))]
        found += fits or [None]
    return found


def _is_empty(state: RecordedState, drain: RawObject) -> bool:
    for pod in state.pods_on(name(drain)):
        stays = controller(pod).get("kind") == "DaemonSet" or "kubernetes.io/config.mirror" in annotations(pod)
        stays = stays or _tolerates_cordon(pod)
        bound = seconds(condition(pod, "PodScheduled").get("lastTransitionTime")) or 0
        if not stays and not deleting(pod) and state.at - bound > QUIET:
            return False
    return True


def _tolerates_cordon(pod: RawObject) -> bool:
    """Whether the pod may start on the cordoned node again, so that a drain may leave it after some attempts."""
    found = pod["spec"].get("tolerations") or ()
    return any(t.get("key", "") in ("", "node.kubernetes.io/unschedulable") for t in found)


def _is_unhealthy(state: RecordedState, node: str) -> bool:
    # A flapping node counts for as long as the policy remembers flaps.
    return set(state.recent_values("ready", node, _REMEMBERED)) != {"True"} or state.silence(node) > RENEWED


_REASONS: dict[str, Callable[[RecordedState, RawObject], bool]] = {
    "NoPolicy": lambda p, d: None in _policies(p, d),
    "Suspended": lambda p, d: any(
        x and x["spec"].get("suspend", Suspend.NONE) != Suspend.NONE for x in _policies(p, d)
    ),
    "Audit": lambda p, d: any(x and x["spec"].get("mode") == Mode.AUDIT for x in _policies(p, d)),
    "MaxConcurrent": lambda p, d: bool(_others(p, d)) or _is_in_line(p, d),
    "MaxUnavailable": lambda p, d: bool(_others(p, d)),
    "ControlPlane": lambda p, d: any(CONTROL_PLANE in labels(node) for node in _others(p, d)),
    "Storm": lambda p, d: sum(_is_unhealthy(p, name(n)) for n in p.all("nodes")) >= 2,
    "OwnedElsewhere": lambda p, d: True in p.recent_values("owned", name(d), QUIET),
    "Uncordoned": lambda p, d: False in p.recent_values("cordoned", name(d), QUIET),
    "Drained": _is_empty,
}
