"""What a NodeDrain's status and its node's conditions say of a drain: for people, and for machines."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from rescheduler.api import names
from rescheduler.api.conditions import Condition
from rescheduler.api.drains import (
    Blocker,
    BlockerClass,
    NodeDrain,
    NodeDrainStatus,
    NodeRecord,
    Phase,
    PodCounts,
    PolicyRef,
    Reason,
)
from rescheduler.api.policies import Drain, OnTimeout, Policy
from rescheduler.api.scalars import format_duration
from rescheduler.api.untrusted import seconds, time
from rescheduler.core.drain import eta as drain_eta
from rescheduler.core.drain.node_patches import MAINTENANCE_REASON
from rescheduler.core.drain.pod_summary import MOST_BLOCKERS, Tally
from rescheduler.core.drain.state_machine import Fact
from rescheduler.core.eligibility.windows import look
from rescheduler.core.eviction.write_refusals import Act, Trouble
from rescheduler.core.failure import fencing
from rescheduler.core.failure.fencing import Standing
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.wait_reasons import SUSPECTED, Held, Hold


@dataclass(frozen=True, slots=True)
class Scene:
    """All that a report is made from.

    Attributes:
        record: what is ours on the node, once the commands of this step are through.
        tally: None while the node's pods are not known.
        settings: the policy's `drain`, with the NodeDrain's own words over it.
        moved: pods that have left so far.
        standing: where it stands with the failure of its node.
        recordoned: when the node was cordoned again after somebody had uncordoned it.
        troubles: writes that fail, and why.
        traces: released pods that are not returned yet, by namespace/name.
        busy: pods that are Terminating and volumes that are attached, on a node that must stay out of service.
        unseen: which view of the cluster is missing.
        last_move: when a pod last left or was on its way.
    """

    drain: NodeDrain
    node: Node | None
    policy: Policy | None
    phase: Phase
    fact: Fact
    held: Held | None
    record: NodeRecord | None
    begun: datetime | None
    tally: Tally | None
    moved: int
    now: datetime
    settings: Drain = field(default_factory=Drain)
    standing: Standing = field(default_factory=Standing)
    recordoned: datetime | None = None
    troubles: tuple[Trouble, ...] = ()
    traces: tuple[str, ...] = ()
    busy: tuple[str, ...] = ()
    unseen: str = ""
    last_move: datetime | None = None


def cordoned(status: NodeDrainStatus) -> bool:
    """Whether the status says that the node was seen cordoned."""
    return any(c.type == "Cordoned" and c.status == "True" for c in status.conditions)


def cordoned_at(status: NodeDrainStatus, known: datetime | None) -> datetime | None:
    """Return when the node was cordoned, rather late than early; None while it was not seen cordoned.

    `known`: when this process saw it being cordoned. The times of a status are cut to seconds.
    """
    seen = [c.last_transition_time for c in status.conditions if c.type == "Cordoned" and c.status == "True"]
    if not seen:
        return None
    last = max(*seen, status.recordoned_at or seen[0])
    return known if known and known >= last else last + timedelta(seconds=1)


def paused(status: NodeDrainStatus, now: datetime) -> timedelta:
    """How much of the time since the drain began does not count."""
    standing = now - status.paused_at if status.paused_at else timedelta()
    return seconds(status.paused_seconds) + max(standing, timedelta())


def deadline(scene: Scene) -> datetime | None:
    """When the time of the whole drain is up."""
    timeout = scene.settings.timeout
    return scene.begun + paused(scene.drain.status, scene.now) + timeout if timeout and scene.begun else None


_AT_TIMEOUT = {
    OnTimeout.HOLD: "pods are tried on (drain.onTimeout: Hold)",
    OnTimeout.DELETE: "pods are deleted past their budgets (drain.onTimeout: Delete)",
    OnTimeout.CANCEL: "the drain is cancelled (drain.onTimeout: Cancel)",
}


def _pause(scene: Scene) -> dict[str, object]:
    """A drain that has begun and may not go on is paused; what it spent so is kept."""
    before = scene.drain.status
    stopped = scene.begun is not None and scene.fact in (Fact.HELD, Fact.SET_ASIDE, Fact.FROZEN, Fact.YIELDED)
    if stopped:
        return {"paused_at": before.paused_at or scene.now}
    if before.paused_at:
        return {"paused_at": None, "paused_seconds": int(paused(before, scene.now).total_seconds())}
    return {}


def status(scene: Scene) -> NodeDrainStatus:
    """The whole status, as it should be now; conditions that others set are kept as they are."""
    before, tally = scene.drain.status, scene.tally
    update: dict[str, object] = {
        "phase": scene.phase,
        "observed_generation": scene.drain.generation,
        "reasons": ", ".join(request.reason for request in scene.drain.spec.requests),
        "node": scene.record,
        "started_at": scene.begun,
        "recordoned_at": scene.recordoned or before.recordoned_at,
        "policy": PolicyRef(name=scene.policy.name, uid=scene.policy.uid, generation=scene.policy.generation)
        if scene.policy
        else None,
        "drained_at": (before.drained_at or scene.now) if scene.phase is Phase.DRAINED else None,
        "conditions": (conditions := _conditions(scene)),
        "waiting": waiting(conditions),
    }
    update |= _pause(scene)
    if tally is not None:
        total = scene.moved + tally.remaining
        blockers = _blockers(scene, tally)
        blocked = len(blockers)
        update |= {
            "pods": PodCounts(
                total=total,
                moved=scene.moved,
                remaining=tally.remaining,
                waiting_for_replacement=tally.waiting,
                blocked=blocked,
                skipped=tally.skipped,
            ),
            "progress": f"{scene.moved}/{total}",
            "blockers": blockers[:MOST_BLOCKERS],
            "blockers_total": blocked,
            "estimated_completion": f"{eta:%Y-%m-%dT%H:%M:%SZ}" if (eta := _eta(scene)) else None,
        }
    return before.model_copy(update=update)


def waiting(conditions: Iterable[Condition]) -> str | None:
    """Return the reason of Progressing=False; None if the drain goes on."""
    return next((c.reason for c in conditions if c.type == "Progressing" and c.status == "False"), None)


def _blockers(scene: Scene, tally: Tally) -> tuple[Blocker, ...]:
    """Of a drain that is over only what keeps released pods from being returned: nothing else waits for a budget."""
    if scene.phase is not Phase.RESTORING:
        return tally.blockers
    return tuple(b for b in tally.blockers if f"{b.namespace}/{b.pod}" in scene.traces)


def failing(drain: NodeDrain, troubles: Sequence[Trouble], now: datetime) -> NodeDrainStatus:
    """The status as it is, with what fails named: of a look that failed nothing else is known."""
    known = {c.type: c for c in drain.status.conditions}
    before = known.get("Progressing")
    words = "; ".join(map(str, troubles))
    if not words or (before and before.message == words):
        return drain.status
    known["Progressing"] = Condition(
        type="Progressing",
        status=before.status if before else "False",
        reason=before.reason if before else Hold.STALE_VIEW,
        message=words,
        observed_generation=drain.generation,
        last_transition_time=before.last_transition_time if before else now,
    )
    conditions, phase = tuple(known.values()), drain.status.phase or Phase.WAITING
    return drain.status.model_copy(update={"conditions": conditions, "waiting": waiting(conditions), "phase": phase})


def _estimate(scene: Scene) -> datetime | None:
    """When it should be done; None where nobody knows: nothing moves, or what blocks a pod ends by no clock of ours."""
    tally = scene.tally
    if tally is None or scene.begun is None or scene.phase is not Phase.DRAINING or scene.held:
        return None
    if any(blocker.class_ not in drain_eta.ENDS_BY_ITSELF for blocker in tally.blockers):
        return None
    return drain_eta.completion(
        tally.lines,
        active=scene.now - scene.begun - paused(scene.drain.status, scene.now),
        moved=scene.moved,
        now=scene.now,
        rate=scene.settings.max_evictions_per_second,
    )


def _eta(scene: Scene) -> datetime | None:
    """The estimate as it is said: the one from before where it is hardly another, for each is a write."""
    eta, before = _estimate(scene), scene.drain.status.estimated_completion
    if eta is None or before is None:
        return eta
    known = time(before)
    return known if known and scene.now < known and abs(known - eta) <= (eta - scene.now) / 10 else eta


def _fits_window(scene: Scene) -> tuple[str, str, str] | None:
    """Whether the drain will be done before its window closes; None where that cannot be said."""
    found = scene.policy.spec.maintenance.windows if scene.policy else ()
    if not found or not (eta := _eta(scene)) or not (until := look(found, scene.now).until):
        return None
    when = f"done at {eta:%H:%M:%S} UTC by its pace so far, and the window closes at {until:%H:%M:%S} UTC"
    return ("True", "Fits", when) if eta <= until else ("False", "WillNotFit", when)


def _bounded(scene: Scene) -> bool:
    """Whether a window bounds the drain: those of maintenance alone, while there is something left to do."""
    windows = scene.policy is not None and bool(scene.policy.spec.maintenance.windows)
    asked = {request.reason for request in scene.drain.spec.requests}
    return windows and asked == {Reason.MAINTENANCE} and scene.phase not in (Phase.DRAINED, Phase.RESTORING)


def unsaid(before: NodeDrainStatus, tally: Tally) -> bool:
    """Whether a pod on a local volume is not named yet: that is done before anything is evicted."""
    named = {(b.namespace, b.pod) for b in before.blockers if b.class_ is BlockerClass.LOCAL_VOLUME}
    local = {(b.namespace, b.pod) for b in tally.blockers[:MOST_BLOCKERS] if b.class_ is BlockerClass.LOCAL_VOLUME}
    return not local <= named


def _conditions(scene: Scene) -> tuple[Condition, ...]:
    ours = {
        "Progressing": _progressing(scene),
        "Cordoned": _cordoned(scene),
        "Drained": _drained(scene),
        "Blocked": _blocked(scene),
    }
    known = {c.type: c for c in scene.drain.status.conditions}
    if scene.fact is Fact.UNSEEN:  # of its pods nothing is known yet that the status does not say
        ours = {type_: said for type_, said in ours.items() if type_ in _OF_NODE or type_ not in known}
    if not _bounded(scene):
        known.pop("FitsWindow", None)
    elif fits := _fits_window(scene):
        ours["FitsWindow"] = fits
    if scene.tally and scene.node:
        if fenced := _fenced(scene, scene.tally, scene.node, known.get("Fenced")):
            ours["Fenced"] = fenced
        else:
            known.pop("Fenced", None)  # said of a node that is back, it would be wrong
    for type_, (state, reason, message) in ours.items():
        old = known.get(type_)
        known[type_] = Condition(
            type=type_,
            status=state,
            reason=reason,
            message=message,
            observed_generation=scene.drain.generation,
            last_transition_time=old.last_transition_time if old and old.status == state else scene.now,
        )
    return tuple(known.values())


def _fenced(scene: Scene, tally: Tally, node: Node, before: Condition | None) -> tuple[str, str, str] | None:
    """Whether the node is proven dead; None where nothing needs that."""
    stood = before is not None and before.status == "True"
    needed = stood or tally.proven > 0 or fencing.recorded(node, scene.record)
    return fencing.condition(scene.standing, waiting=tally.unproven, needed=needed)


_OF_NODE = ("Progressing", "Cordoned")
_PAUSE = timedelta(seconds=10)
"""Between two pods of one budget nothing may be on its way for a moment: that is not worth a word."""


def _progressing(scene: Scene) -> tuple[str, str, str]:
    status, reason, message = _progress(scene)
    return status, reason, "; ".join((message, *map(str, scene.troubles)))


def _progress(scene: Scene) -> tuple[str, str, str]:
    """Whether the drain goes on; the message names what it waits for, whatever that is."""
    if scene.phase is Phase.RESTORING:
        reason = "OutOfService" if scene.fact is Fact.FENCED else "Restoring"
        return "True", reason, _restoring(scene)
    if scene.phase is Phase.DRAINED:
        return "False", "Drained", "nothing is left to do until the request ends"
    if scene.held:
        back = (
            f"; {len(scene.traces)} released pods are returned before: {_named(scene.traces)}" if scene.traces else ""
        )
        return "False", scene.held.reason, scene.held.message + back
    if scene.begun and (end := deadline(scene)) and scene.now >= end:
        late = format_duration(scene.settings.timeout)
        return "True", "TimedOut", f"the timeout of {late} has passed: {_AT_TIMEOUT[scene.settings.on_timeout]}"
    if scene.fact is Fact.SUSPECTED:
        return "True", SUSPECTED, "replacements are brought up; nothing goes before the node is known to have failed"
    if scene.phase is Phase.BLOCKED:
        return "True", "Blocked", "pods are tried again as soon as what blocks them changes"
    return "True", "Draining", _moving(scene)


def _restoring(scene: Scene) -> str:
    """What is left of a drain that is over, and what it waits for."""
    if scene.fact is Fact.FROZEN and scene.held:
        return f"the node is not restored for now: {scene.held.message}"
    if scene.fact is Fact.FENCED:
        words = "the node is put back once it has booted anew, or nothing there is Terminating or attached any more"
        return f"{words}: {_named(scene.busy)}" if scene.busy else words
    if scene.fact is Fact.RETURNING:
        if not scene.traces:
            unseen = f": {scene.unseen}" if scene.unseen else ""
            return f"the node is restored once it is known which of its pods are released{unseen}"
        count = f"{len(scene.traces)} released pod{'' if len(scene.traces) == 1 else 's'}"
        why = {f"{b.namespace}/{b.pod}": b.message for b in (scene.tally.blockers if scene.tally else ())}
        named = [f"{pod} ({why[pod]})" if why.get(pod) else pod for pod in scene.traces]
        return f"the node is restored after the return of {count}: {_named(named)}"
    return "the node is being put back as it was"


def _moving(scene: Scene) -> str:
    """What moves, or why nothing has for a while: each change of the words is a write."""
    tally = scene.tally
    if scene.fact is Fact.UNSEEN and scene.unseen:
        return f"nothing is moved yet: {scene.unseen}"
    last = max((t for t in (scene.begun, scene.last_move) if t), default=scene.now)
    if tally is None or tally.in_flight or scene.now - last < _PAUSE:
        return "pods are being moved"
    if not tally.objects:
        if tally.detaching:
            return f"volumes are still attached: {_named(sorted(tally.detaching))}"
        return "no pod is left; a pod that the scheduler has just bound may still appear"
    rest = tally.objects - tally.waiting - len(tally.blockers)
    parts = (
        (tally.waiting, "wait for a replacement that is Ready"),
        (len(tally.blockers), "cannot leave (status.blockers)"),
        (rest, "wait for their turn"),
    )
    return "no pod is on its way: " + ", ".join(f"{count} {words}" for count, words in parts if count > 0)


def _named(what: Sequence[str]) -> str:
    return ", ".join(what[:5]) + (f" and {len(what) - 5} more" if len(what) > 5 else "")


def _cordoned(scene: Scene) -> tuple[str, str, str]:
    if scene.node is None:
        return "Unknown", "NodeGone", "the node is gone"
    if scene.begun is None or scene.phase is Phase.RESTORING:
        return "False", "NotHeld", "this drain does not hold the node"
    if not scene.node.unschedulable:
        return "False", "NotCordoned", "the node is not cordoned"
    if scene.record and not scene.record.cordoned_by_us:
        return "True", "CordonedBefore", "somebody else had cordoned it: it will stay cordoned"
    return "True", "Cordoned", "cordoned by this drain"


def _drained(scene: Scene) -> tuple[str, str, str]:
    if scene.phase is Phase.DRAINED:
        hanging = sorted(scene.tally.hanging)[:5] if scene.tally else ()
        still = f"; still attached, and not waited for any more: {', '.join(hanging)}" if hanging else ""
        return "True", "Drained", f"no pod is left but those that stay{still}"
    if scene.tally and not scene.tally.objects and scene.tally.detaching:
        return "False", "VolumesAttached", f"volumes are still attached: {', '.join(sorted(scene.tally.detaching)[:5])}"
    count = scene.tally.objects if scene.tally else 0
    left = f"{count} pod{'' if count == 1 else 's'} left" if scene.tally else "the pods are not counted yet"
    return "False", "PodsLeft" if scene.begun else "NotBegun", left if scene.begun else "the drain has not begun"


def _blocked(scene: Scene) -> tuple[str, str, str]:
    blockers = scene.tally.blockers if scene.tally else ()
    if scene.phase is not Phase.BLOCKED:
        return "False", "NotBlocked", "something moves, or nothing needs to"
    stops = tuple(str(trouble) for trouble in scene.troubles if trouble.act is Act.CORDON)
    first = "; ".join((*stops, *(f"{b.namespace}/{b.pod}: {b.class_}: {b.message}" for b in blockers[:3])))
    more = f"; and {len(blockers) - 3} more" if len(blockers) > 3 else ""
    return "True", blockers[0].class_ if blockers and not stops else "Blocked", first + more


def node_conditions(
    phase: Phase, begun: datetime | None, reasons: Iterable[Reason]
) -> Mapping[str, tuple[str, str, str]]:
    """Our conditions on the node: type to status, reason, message (names of KEP-5683); none before the drain begins."""
    if begun is None or phase is Phase.RESTORING:
        return {}
    drained = phase is Phase.DRAINED
    wanted = {
        names.DRAIN_IN_PROGRESS: (
            "False" if drained else "True",
            str(phase),
            "Rescheduler has moved the pods away" if drained else "Rescheduler is moving the pods away",
        ),
        names.DRAINED: ("True" if drained else "False", str(phase), "see the NodeDrain of this name"),
    }
    if set(reasons) & {Reason.MAINTENANCE, Reason.MANUAL}:
        wanted[names.MAINTENANCE_IN_PROGRESS] = ("True", MAINTENANCE_REASON, "the node is held for maintenance")
    return wanted
