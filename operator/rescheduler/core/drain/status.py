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
    RequestReason,
)
from rescheduler.api.policies import DrainSettings, OnTimeout, ReschedulePolicy
from rescheduler.api.scalars import format_duration
from rescheduler.api.untrusted import parse_seconds, parse_time
from rescheduler.core.drain import eta as drain_eta
from rescheduler.core.drain.node_patches import MAINTENANCE_REASON
from rescheduler.core.drain.pod_summary import MAX_REPORTED_BLOCKERS, PodSummary
from rescheduler.core.drain.state_machine import Fact
from rescheduler.core.eligibility.windows import window_state
from rescheduler.core.eviction.write_refusals import WriteFailure, WriteOperation
from rescheduler.core.failure import fencing
from rescheduler.core.failure.fencing import FencingState
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.wait_reasons import SUSPECTED, ProgressingReason, WaitReason


@dataclass(frozen=True, slots=True)
class StatusInput:
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
    policy: ReschedulePolicy | None
    phase: Phase
    fact: Fact
    wait: WaitReason | None
    node_record: NodeRecord | None
    started_at: datetime | None
    pod_summary: PodSummary | None
    moved: int
    now: datetime
    settings: DrainSettings = field(default_factory=DrainSettings)
    fencing_state: FencingState = field(default_factory=FencingState)
    recordoned_at: datetime | None = None
    write_failures: tuple[WriteFailure, ...] = ()
    pods_to_return: tuple[str, ...] = ()
    node_in_use_by: tuple[str, ...] = ()
    unsynced_reason: str = ""
    last_move_at: datetime | None = None


def is_cordoned(status: NodeDrainStatus) -> bool:
    """Whether the status says that the node was seen cordoned."""
    return any(c.type == "Cordoned" and c.status == "True" for c in status.conditions)


def cordoned_at(status: NodeDrainStatus, cordoned_by_us_at: datetime | None) -> datetime | None:
    """Return when the node was cordoned, rather late than early; None while it was not seen cordoned.

    `known`: when this process saw it being cordoned. The times of a status are cut to seconds.
    """
    seen = [c.last_transition_time for c in status.conditions if c.type == "Cordoned" and c.status == "True"]
    if not seen:
        return None
    last = max(*seen, status.recordoned_at or seen[0])
    return cordoned_by_us_at if cordoned_by_us_at and cordoned_by_us_at >= last else last + timedelta(seconds=1)


def paused_duration(status: NodeDrainStatus, now: datetime) -> timedelta:
    """How much of the time since the drain began does not count."""
    standing = now - status.paused_at if status.paused_at else timedelta()
    return parse_seconds(status.paused_seconds) + max(standing, timedelta())


def deadline(status_input: StatusInput) -> datetime | None:
    """When the time of the whole drain is up."""
    timeout = status_input.settings.timeout
    return (
        status_input.started_at + paused_duration(status_input.drain.status, status_input.now) + timeout
        if timeout and status_input.started_at
        else None
    )


_ON_TIMEOUT_MESSAGES = {
    OnTimeout.HOLD: "pods are tried on (drain.onTimeout: Hold)",
    OnTimeout.DELETE: "pods are deleted past their budgets (drain.onTimeout: Delete)",
    OnTimeout.CANCEL: "the drain is cancelled (drain.onTimeout: Cancel)",
}


def _pause_fields(status_input: StatusInput) -> dict[str, object]:
    """A drain that has begun and may not go on is paused; what it spent so is kept."""
    before = status_input.drain.status
    stopped = status_input.started_at is not None and status_input.fact in (
        Fact.WAITING,
        Fact.CORDONED_ONLY,
        Fact.FROZEN,
        Fact.WITHOUT_SLOT,
    )
    if stopped:
        return {"paused_at": before.paused_at or status_input.now}
    if before.paused_at:
        return {"paused_at": None, "paused_seconds": int(paused_duration(before, status_input.now).total_seconds())}
    return {}


def build(status_input: StatusInput) -> NodeDrainStatus:
    """The whole status, as it should be now; conditions that others set are kept as they are."""
    before, tally = status_input.drain.status, status_input.pod_summary
    update: dict[str, object] = {
        "phase": status_input.phase,
        "observed_generation": status_input.drain.generation,
        "reasons": ", ".join(request.reason for request in status_input.drain.spec.requests),
        "node": status_input.node_record,
        "started_at": status_input.started_at,
        "recordoned_at": status_input.recordoned_at or before.recordoned_at,
        "policy": PolicyRef(
            name=status_input.policy.name, uid=status_input.policy.uid, generation=status_input.policy.generation
        )
        if status_input.policy
        else None,
        "drained_at": (before.drained_at or status_input.now) if status_input.phase is Phase.DRAINED else None,
        "conditions": (conditions := _conditions(status_input)),
        "waiting": waiting(conditions),
    }
    update |= _pause_fields(status_input)
    if tally is not None:
        total = status_input.moved + tally.remaining
        blockers = _blockers(status_input, tally)
        blocked = len(blockers)
        update |= {
            "pods": PodCounts(
                total=total,
                moved=status_input.moved,
                remaining=tally.remaining,
                waiting_for_replacement=tally.waiting_for_replacement,
                blocked=blocked,
                skipped=tally.skipped,
            ),
            "progress": f"{status_input.moved}/{total}",
            "blockers": blockers[:MAX_REPORTED_BLOCKERS],
            "blockers_total": blocked,
            "estimated_completion": f"{eta:%Y-%m-%dT%H:%M:%SZ}"
            if (eta := _reported_completion(status_input))
            else None,
        }
    return before.model_copy(update=update)


def waiting(conditions: Iterable[Condition]) -> str | None:
    """Return the reason of Progressing=False; None if the drain goes on."""
    return next((c.reason for c in conditions if c.type == "Progressing" and c.status == "False"), None)


def _blockers(status_input: StatusInput, pod_summary: PodSummary) -> tuple[Blocker, ...]:
    """Of a drain that is over only what keeps released pods from being returned: nothing else waits for a budget."""
    if status_input.phase is not Phase.RESTORING:
        return pod_summary.blockers
    return tuple(b for b in pod_summary.blockers if f"{b.namespace}/{b.pod}" in status_input.pods_to_return)


def with_write_failures(drain: NodeDrain, write_failures: Sequence[WriteFailure], now: datetime) -> NodeDrainStatus:
    """The status as it is, with what fails named: of a look that failed nothing else is known."""
    known = {c.type: c for c in drain.status.conditions}
    before = known.get("Progressing")
    words = "; ".join(map(str, write_failures))
    if not words or (before and before.message == words):
        return drain.status
    known["Progressing"] = Condition(
        type="Progressing",
        status=before.status if before else "False",
        reason=before.reason if before else ProgressingReason.STALE_VIEW,
        message=words,
        observed_generation=drain.generation,
        last_transition_time=before.last_transition_time if before else now,
    )
    conditions, phase = tuple(known.values()), drain.status.phase or Phase.WAITING
    return drain.status.model_copy(update={"conditions": conditions, "waiting": waiting(conditions), "phase": phase})


def _estimated_completion(status_input: StatusInput) -> datetime | None:
    """When it should be done; None where nobody knows: nothing moves, or what blocks a pod ends by no clock of ours."""
    tally = status_input.pod_summary
    if (
        tally is None
        or status_input.started_at is None
        or status_input.phase is not Phase.DRAINING
        or status_input.wait
    ):
        return None
    if any(blocker.class_ not in drain_eta.TEMPORARY_BLOCKER_CLASSES for blocker in tally.blockers):
        return None
    return drain_eta.completion(
        tally.eviction_groups,
        active_time=status_input.now
        - status_input.started_at
        - paused_duration(status_input.drain.status, status_input.now),
        moved=status_input.moved,
        now=status_input.now,
        rate=status_input.settings.max_evictions_per_second,
    )


def _reported_completion(status_input: StatusInput) -> datetime | None:
    """The estimate as it is said: the one from before where it is hardly another, for each is a write."""
    eta, before = _estimated_completion(status_input), status_input.drain.status.estimated_completion
    if eta is None or before is None:
        return eta
    known = parse_time(before)
    return known if known and status_input.now < known and abs(known - eta) <= (eta - status_input.now) / 10 else eta


def _fits_window_condition(status_input: StatusInput) -> tuple[str, str, str] | None:
    """Whether the drain will be done before its window closes; None where that cannot be said."""
    found = status_input.policy.spec.maintenance.windows if status_input.policy else ()
    if (
        not found
        or not (eta := _reported_completion(status_input))
        or not (until := window_state(found, status_input.now).open_until)
    ):
        return None
    when = f"done at {eta:%H:%M:%S} UTC by its pace so far, and the window closes at {until:%H:%M:%S} UTC"
    return ("True", "Fits", when) if eta <= until else ("False", "WillNotFit", when)


def _is_bounded_by_window(status_input: StatusInput) -> bool:
    """Whether a window bounds the drain: those of maintenance alone, while there is something left to do."""
    windows = status_input.policy is not None and bool(status_input.policy.spec.maintenance.windows)
    asked = {request.reason for request in status_input.drain.spec.requests}
    return (
        windows and asked == {RequestReason.MAINTENANCE} and status_input.phase not in (Phase.DRAINED, Phase.RESTORING)
    )


def has_unreported_local_volume(before: NodeDrainStatus, pod_summary: PodSummary) -> bool:
    """Whether a pod on a local volume is not named yet: that is done before anything is evicted."""
    named = {(b.namespace, b.pod) for b in before.blockers if b.class_ is BlockerClass.LOCAL_VOLUME}
    local = {
        (b.namespace, b.pod)
        for b in pod_summary.blockers[:MAX_REPORTED_BLOCKERS]
        if b.class_ is BlockerClass.LOCAL_VOLUME
    }
    return not local <= named


def _conditions(status_input: StatusInput) -> tuple[Condition, ...]:
    ours = {
        "Progressing": _progressing_condition(status_input),
        "Cordoned": _cordoned_condition(status_input),
        "Drained": _drained_condition(status_input),
        "Blocked": _blocked_condition(status_input),
    }
    known = {c.type: c for c in status_input.drain.status.conditions}
    if status_input.fact is Fact.PODS_UNKNOWN:  # of its pods nothing is known yet that the status does not say
        ours = {type_: said for type_, said in ours.items() if type_ in _CONDITIONS_WITHOUT_PODS or type_ not in known}
    if not _is_bounded_by_window(status_input):
        known.pop("FitsWindow", None)
    elif fits := _fits_window_condition(status_input):
        ours["FitsWindow"] = fits
    if status_input.pod_summary and status_input.node:
        if fenced := _fenced_condition(status_input, status_input.pod_summary, status_input.node, known.get("Fenced")):
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
            observed_generation=status_input.drain.generation,
            last_transition_time=old.last_transition_time if old and old.status == state else status_input.now,
        )
    return tuple(known.values())


def _fenced_condition(
    status_input: StatusInput, pod_summary: PodSummary, node: Node, before: Condition | None
) -> tuple[str, str, str] | None:
    """Whether the node is proven dead; None where nothing needs that."""
    stood = before is not None and before.status == "True"
    needed = stood or pod_summary.proven > 0 or fencing.is_taint_recorded(node, status_input.node_record)
    return fencing.fenced_condition(
        status_input.fencing_state, pods_waiting=pod_summary.waiting_for_proof, proof_used=needed
    )


_CONDITIONS_WITHOUT_PODS = ("Progressing", "Cordoned")
_IDLE_REPORTED_AFTER = timedelta(seconds=10)
"""Between two pods of one budget nothing may be on its way for a moment: that is not worth a word."""


def _progressing_condition(status_input: StatusInput) -> tuple[str, str, str]:
    status, reason, message = _progressing_state(status_input)
    return status, reason, "; ".join((message, *map(str, status_input.write_failures)))


def _progressing_state(status_input: StatusInput) -> tuple[str, str, str]:
    """Whether the drain goes on; the message names what it waits for, whatever that is."""
    if status_input.phase is Phase.RESTORING:
        reason = "OutOfService" if status_input.fact is Fact.OUT_OF_SERVICE else "Restoring"
        return "True", reason, _restoring_message(status_input)
    if status_input.phase is Phase.DRAINED:
        return "False", "Drained", "nothing is left to do until the request ends"
    if status_input.wait:
        back = (
            f"; {len(status_input.pods_to_return)} released pods are returned before: {_join_names(status_input.pods_to_return)}"
            if status_input.pods_to_return
            else ""
        )
        return "False", status_input.wait.reason, status_input.wait.message + back
    if status_input.started_at and (end := deadline(status_input)) and status_input.now >= end:
        late = format_duration(status_input.settings.timeout)
        return (
            "True",
            "TimedOut",
            f"the timeout of {late} has passed: {_ON_TIMEOUT_MESSAGES[status_input.settings.on_timeout]}",
        )
    if status_input.fact is Fact.SUSPECTED:
        return "True", SUSPECTED, "replacements are brought up; nothing goes before the node is known to have failed"
    if status_input.phase is Phase.BLOCKED:
        return "True", "Blocked", "pods are tried again as soon as what blocks them changes"
    return "True", "Draining", _moving_message(status_input)


def _restoring_message(status_input: StatusInput) -> str:
    """What is left of a drain that is over, and what it waits for."""
    if status_input.fact is Fact.FROZEN and status_input.wait:
        return f"the node is not restored for now: {status_input.wait.message}"
    if status_input.fact is Fact.OUT_OF_SERVICE:
        words = "the node is put back once it has booted anew, or nothing there is Terminating or attached any more"
        return f"{words}: {_join_names(status_input.node_in_use_by)}" if status_input.node_in_use_by else words
    if status_input.fact is Fact.RETURNING_PODS:
        if not status_input.pods_to_return:
            unseen = f": {status_input.unsynced_reason}" if status_input.unsynced_reason else ""
            return f"the node is restored once it is known which of its pods are released{unseen}"
        count = f"{len(status_input.pods_to_return)} released pod{'' if len(status_input.pods_to_return) == 1 else 's'}"
        why = {
            f"{b.namespace}/{b.pod}": b.message
            for b in (status_input.pod_summary.blockers if status_input.pod_summary else ())
        }
        named = [f"{pod} ({why[pod]})" if why.get(pod) else pod for pod in status_input.pods_to_return]
        return f"the node is restored after the return of {count}: {_join_names(named)}"
    return "the node is being put back as it was"


def _moving_message(status_input: StatusInput) -> str:
    """What moves, or why nothing has for a while: each change of the words is a write."""
    tally = status_input.pod_summary
    if status_input.fact is Fact.PODS_UNKNOWN and status_input.unsynced_reason:
        return f"nothing is moved yet: {status_input.unsynced_reason}"
    last = max((t for t in (status_input.started_at, status_input.last_move_at) if t), default=status_input.now)
    if tally is None or tally.in_flight or status_input.now - last < _IDLE_REPORTED_AFTER:
        return "pods are being moved"
    if not tally.existing:
        if tally.detaching_volumes:
            return f"volumes are still attached: {_join_names(sorted(tally.detaching_volumes))}"
        return "no pod is left; a pod that the scheduler has just bound may still appear"
    rest = tally.existing - tally.waiting_for_replacement - len(tally.blockers)
    parts = (
        (tally.waiting_for_replacement, "wait for a replacement that is Ready"),
        (len(tally.blockers), "cannot leave (status.blockers)"),
        (rest, "wait for their turn"),
    )
    return "no pod is on its way: " + ", ".join(f"{count} {words}" for count, words in parts if count > 0)


def _join_names(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _cordoned_condition(status_input: StatusInput) -> tuple[str, str, str]:
    if status_input.node is None:
        return "Unknown", "NodeGone", "the node is gone"
    if status_input.started_at is None or status_input.phase is Phase.RESTORING:
        return "False", "NotHeld", "this drain does not hold the node"
    if not status_input.node.unschedulable:
        return "False", "NotCordoned", "the node is not cordoned"
    if status_input.node_record and not status_input.node_record.cordoned_by_us:
        return "True", "CordonedBefore", "somebody else had cordoned it: it will stay cordoned"
    return "True", "Cordoned", "cordoned by this drain"


def _drained_condition(status_input: StatusInput) -> tuple[str, str, str]:
    if status_input.phase is Phase.DRAINED:
        hanging = sorted(status_input.pod_summary.stuck_volumes)[:5] if status_input.pod_summary else ()
        still = f"; still attached, and not waited for any more: {', '.join(hanging)}" if hanging else ""
        return "True", "Drained", f"no pod is left but those that stay{still}"
    if (
        status_input.pod_summary
        and not status_input.pod_summary.existing
        and status_input.pod_summary.detaching_volumes
    ):
        return (
            "False",
            "VolumesAttached",
            f"volumes are still attached: {', '.join(sorted(status_input.pod_summary.detaching_volumes)[:5])}",
        )
    count = status_input.pod_summary.existing if status_input.pod_summary else 0
    left = (
        f"{count} pod{'' if count == 1 else 's'} left" if status_input.pod_summary else "the pods are not counted yet"
    )
    return (
        "False",
        "PodsLeft" if status_input.started_at else "NotBegun",
        left if status_input.started_at else "the drain has not begun",
    )


def _blocked_condition(status_input: StatusInput) -> tuple[str, str, str]:
    blockers = status_input.pod_summary.blockers if status_input.pod_summary else ()
    if status_input.phase is not Phase.BLOCKED:
        return "False", "NotBlocked", "something moves, or nothing needs to"
    stops = tuple(str(trouble) for trouble in status_input.write_failures if trouble.operation is WriteOperation.CORDON)
    first = "; ".join((*stops, *(f"{b.namespace}/{b.pod}: {b.class_}: {b.message}" for b in blockers[:3])))
    more = f"; and {len(blockers) - 3} more" if len(blockers) > 3 else ""
    return "True", blockers[0].class_ if blockers and not stops else "Blocked", first + more


def node_conditions(
    phase: Phase, started_at: datetime | None, reasons: Iterable[RequestReason]
) -> Mapping[str, tuple[str, str, str]]:
    """Our conditions on the node: type to status, reason, message (names of KEP-5683); none before the drain begins."""
    if started_at is None or phase is Phase.RESTORING:
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
    if set(reasons) & {RequestReason.MAINTENANCE, RequestReason.MANUAL}:
        wanted[names.MAINTENANCE_IN_PROGRESS] = ("True", MAINTENANCE_REASON, "the node is held for maintenance")
    return wanted
