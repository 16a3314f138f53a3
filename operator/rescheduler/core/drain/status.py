"""Build the status of a NodeDrain and the conditions of its Node."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from rescheduler.api import names
from rescheduler.api.conditions import Condition, ConditionState, merge, with_crds_outdated
from rescheduler.api.drains import (
    MAX_PODS_WAITING_FOR_NODE,
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
from rescheduler.api.policies import DrainSettings, ReschedulePolicy
from rescheduler.api.untrusted import parse_seconds, parse_time
from rescheduler.core.drain import came_back, history, messages
from rescheduler.core.drain import eta as drain_eta
from rescheduler.core.drain.node_patches import MAINTENANCE_REASON
from rescheduler.core.drain.pod_summary import MAX_REPORTED_BLOCKERS, PodSummary
from rescheduler.core.drain.state_machine import Report
from rescheduler.core.eligibility.windows import window_state
from rescheduler.core.eviction.write_refusals import WriteFailure, WriteOperation
from rescheduler.core.failure import fencing
from rescheduler.core.failure.fencing import FencingState
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.wait_reasons import SUSPECTED, ProgressingReason, WaitReason


@dataclass(frozen=True, slots=True)
class StatusInput:
    """The input of `build`.

    Attributes:
        drain: the NodeDrain.
        node: the Node; None if it is gone.
        policy: the winning policy; None without one.
        phase: the phase after this step.
        report: what to report beyond the phase.
        wait: why the drain waits; None if it continues.
        node_record: the additions to the node, after the commands of this step.
        started_at: `status.startedAt`; None before the cordon.
        pod_summary: None while the pods of the node are not known.
        moved: pods that have left so far.
        now: the time of this step.
        settings: `drain` of the policy, with the overrides of the NodeDrain.
        fencing_state: what is known about the death of the node.
        recordoned_at: when the node was cordoned again in this step, after somebody uncordoned it; None if it was not.
        write_failures: writes that fail, with their causes.
        pods_to_return: released pods that are not returned yet, by namespace/name.
        node_in_use_by: Terminating pods and attached volumes on a node that must stay out of service.
        unsynced_reason: which list of the cluster is missing; None if none is.
        last_move_at: when a pod last left or was in flight; None if never.
        outdated_crds: which CRDs are older than the operator; empty if none is, None while that is not known.
    """

    drain: NodeDrain
    node: Node | None
    policy: ReschedulePolicy | None
    phase: Phase
    report: Report
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
    unsynced_reason: str | None = None
    last_move_at: datetime | None = None
    outdated_crds: str | None = None


def is_cordoned(status: NodeDrainStatus) -> bool:
    """Whether the status reports an observed cordon."""
    return any(c.type == "Cordoned" and c.status == "True" for c in status.conditions)


def cordoned_at(status: NodeDrainStatus, cordoned_by_us_at: datetime | None) -> datetime | None:
    """Return when the node was cordoned, rather late than early; None if no cordon was observed.

    `cordoned_by_us_at`: when this process observed the cordon. Times in a status have whole seconds.
    """
    cordon_times = [c.last_transition_time for c in status.conditions if c.type == "Cordoned" and c.status == "True"]
    if not cordon_times:
        return None
    last_cordon = max(*cordon_times, status.recordoned_at or cordon_times[0])
    return (
        cordoned_by_us_at
        if cordoned_by_us_at and cordoned_by_us_at >= last_cordon
        else last_cordon + timedelta(seconds=1)
    )


def paused_duration(status: NodeDrainStatus, now: datetime) -> timedelta:
    """Return the paused part of the time since the start of the drain."""
    current_pause = now - status.paused_at if status.paused_at else timedelta()
    return parse_seconds(status.paused_seconds) + max(current_pause, timedelta())


def deadline(status_input: StatusInput) -> datetime | None:
    """Return when the timeout of the whole drain passes; None without a timeout or a start."""
    timeout = status_input.settings.timeout
    return (
        status_input.started_at + paused_duration(status_input.drain.status, status_input.now) + timeout
        if timeout and status_input.started_at
        else None
    )


def _pause_fields(status_input: StatusInput) -> dict[str, object]:
    """Return the fields of a pause: a drain that has started and must wait is paused."""
    before = status_input.drain.status
    is_paused = status_input.started_at is not None and status_input.report in (Report.PAUSED, Report.FROZEN)
    if is_paused:
        return {"paused_at": before.paused_at or status_input.now}
    if before.paused_at:
        return {"paused_at": None, "paused_seconds": int(paused_duration(before, status_input.now).total_seconds())}
    return {}


def build(status_input: StatusInput) -> NodeDrainStatus:
    """Return the whole status as it should be now; conditions of other parties stay."""
    before, summary = status_input.drain.status, status_input.pod_summary
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
    if status_input.started_at is None:
        update |= {"came_back": (), "chain_moves": ()}
    if summary is not None:
        total = status_input.moved + summary.remaining
        blockers = _blockers(status_input, summary)
        blocked = len(blockers)
        update |= {
            "pods": PodCounts(
                total=total,
                moved=status_input.moved,
                remaining=summary.remaining,
                waiting_for_replacement=summary.waiting_for_replacement,
                blocked=blocked,
                skipped=summary.skipped,
                opted_out=len(summary.opted_out),
                waits_for_node=len(summary.waits_for_node),
            ),
            "opted_out": summary.opted_out[:MAX_REPORTED_BLOCKERS],
            "progress": f"{status_input.moved}/{total}",
            "blockers": blockers[:MAX_REPORTED_BLOCKERS],
            "blockers_total": blocked,
            "waits_for_node": summary.waits_for_node[:MAX_PODS_WAITING_FOR_NODE],
            "came_back": summary.came_back,
            "chain_moves": summary.chain_moves,
            "estimated_completion": f"{eta:%Y-%m-%dT%H:%M:%SZ}"
            if (eta := _reported_completion(status_input))
            else None,
        }
    after = before.model_copy(update=update)
    observed = history.observe(
        after,
        status_input.drain,
        status_input.node,
        conditions=conditions,
        moves=(summary.moves, summary.moves_total) if summary and status_input.started_at else None,
        now=status_input.now,
    )
    return after.model_copy(update={"history": observed})


def waiting(conditions: Iterable[Condition]) -> str | None:
    """Return the reason of Progressing=False; None if the drain continues."""
    return next((c.reason for c in conditions if c.type == "Progressing" and c.status == "False"), None)


def _blockers(status_input: StatusInput, pod_summary: PodSummary) -> tuple[Blocker, ...]:
    """Return the blockers; during a restore, only those of released pods that must be returned."""
    if status_input.phase is not Phase.RESTORING:
        return pod_summary.blockers
    return tuple(b for b in pod_summary.blockers if f"{b.namespace}/{b.pod}" in status_input.pods_to_return)


def with_write_failures(drain: NodeDrain, write_failures: Sequence[WriteFailure], now: datetime) -> NodeDrainStatus:
    """Return the current status with the failing writes in `Progressing`; a failed reconcile knows nothing else."""
    before = next((c for c in drain.status.conditions if c.type == "Progressing"), None)
    message = "; ".join(map(str, write_failures))
    if not message or (before and before.message == message):
        return drain.status
    state, reason = (before.status, before.reason) if before else ("False", ProgressingReason.STALE_VIEW)
    status = with_progressing(drain, (state, reason, message), now)
    return status.model_copy(update={"phase": status.phase or Phase.WAITING})


def with_progressing(drain: NodeDrain, progressing: ConditionState, now: datetime) -> NodeDrainStatus:
    """Return the current status with another condition `Progressing`."""
    merged = merge(drain.status.conditions, {"Progressing": progressing}, drain.generation, now)
    return drain.status.model_copy(update={"conditions": merged, "waiting": waiting(merged)})


def _estimated_completion(status_input: StatusInput) -> datetime | None:
    """Return when the drain should be done; None if no pod moves or a blocker ends at an unknown time."""
    summary = status_input.pod_summary
    if (
        summary is None
        or status_input.started_at is None
        or status_input.phase is not Phase.DRAINING
        or status_input.wait
    ):
        return None
    if any(blocker.class_ not in drain_eta.TEMPORARY_BLOCKER_CLASSES for blocker in summary.blockers):
        return None
    return drain_eta.completion(
        summary.eviction_groups,
        active_time=status_input.now
        - status_input.started_at
        - paused_duration(status_input.drain.status, status_input.now),
        moved=status_input.moved,
        now=status_input.now,
        rate=status_input.settings.max_evictions_per_second,
    )


def _reported_completion(status_input: StatusInput) -> datetime | None:
    """Return the estimate to report: the earlier one unless it is far off, because each change is a write."""
    eta, before = _estimated_completion(status_input), status_input.drain.status.estimated_completion
    if eta is None or before is None:
        return eta
    reported = parse_time(before)
    return (
        reported
        if reported and status_input.now < reported and abs(reported - eta) <= (eta - status_input.now) / 10
        else eta
    )


def _fits_window_condition(status_input: StatusInput) -> tuple[str, str, str] | None:
    """Return `FitsWindow`: whether the drain ends before its window closes; None without an estimate."""
    windows = status_input.policy.spec.maintenance.windows if status_input.policy else ()
    if (
        not windows
        or not (eta := _reported_completion(status_input))
        or not (window_end := window_state(windows, status_input.now).open_until)
    ):
        return None
    message = messages.window_fit(eta, window_end)
    return ("True", "Fits", message) if eta <= window_end else ("False", "WillNotFit", message)


def _is_bounded_by_window(status_input: StatusInput) -> bool:
    """Whether a window bounds the drain: its only request is Maintenance, and work is left."""
    has_windows = status_input.policy is not None and bool(status_input.policy.spec.maintenance.windows)
    reasons = {request.reason for request in status_input.drain.spec.requests}
    return (
        has_windows
        and reasons == {RequestReason.MAINTENANCE}
        and status_input.phase not in (Phase.DRAINED, Phase.RESTORING)
    )


def has_unreported_local_volume(before: NodeDrainStatus, pod_summary: PodSummary) -> bool:
    """Whether the status does not name a pod on a local volume yet: it must, before any eviction."""
    named = {(b.namespace, b.pod) for b in before.blockers if b.class_ is BlockerClass.LOCAL_VOLUME}
    local = {
        (b.namespace, b.pod)
        for b in pod_summary.blockers[:MAX_REPORTED_BLOCKERS]
        if b.class_ is BlockerClass.LOCAL_VOLUME
    }
    return not local <= named


def _conditions(status_input: StatusInput) -> tuple[Condition, ...]:
    own_conditions = {
        "Progressing": _progressing_condition(status_input),
        "Cordoned": _cordoned_condition(status_input),
        "Drained": _drained_condition(status_input),
        "Blocked": _blocked_condition(status_input),
    }
    conditions_by_type = {c.type: c for c in status_input.drain.status.conditions}
    if status_input.report is Report.PODS_UNKNOWN:  # conditions about pods stay as reported while the pods are unknown
        own_conditions = {
            type_: condition
            for type_, condition in own_conditions.items()
            if type_ in _CONDITIONS_WITHOUT_PODS or type_ not in conditions_by_type
        }
    if not _is_bounded_by_window(status_input):
        conditions_by_type.pop("FitsWindow", None)
    elif fits_window := _fits_window_condition(status_input):
        own_conditions["FitsWindow"] = fits_window
    if status_input.pod_summary and status_input.node:
        if fenced_condition := _fenced_condition(
            status_input, status_input.pod_summary, status_input.node, conditions_by_type.get("Fenced")
        ):
            own_conditions["Fenced"] = fenced_condition
        else:
            conditions_by_type.pop("Fenced", None)  # the condition would be wrong for a node that is back
    generation, now = status_input.drain.generation, status_input.now
    merged = merge(conditions_by_type.values(), own_conditions, generation, now)
    return with_crds_outdated(merged, status_input.outdated_crds, generation, now)


def _fenced_condition(
    status_input: StatusInput, pod_summary: PodSummary, node: Node, before: Condition | None
) -> tuple[str, str, str] | None:
    """Return `Fenced`: whether the boot is proven dead; None if no pod needs a proof."""
    was_fenced = before is not None and before.status == "True"
    proof_used = was_fenced or pod_summary.proven > 0 or fencing.is_taint_recorded(node, status_input.node_record)
    return fencing.fenced_condition(
        status_input.fencing_state, pods_waiting=pod_summary.waiting_for_proof, proof_used=proof_used
    )


_CONDITIONS_WITHOUT_PODS = ("Progressing", "Cordoned")
_IDLE_REPORTED_AFTER = timedelta(seconds=10)
"""Between two pods of one budget, no pod is in flight for a moment: that is not reported."""


def _progressing_condition(status_input: StatusInput) -> tuple[str, str, str]:
    status, reason, message = _progressing_state(status_input)
    return status, reason, "; ".join((message, *map(str, status_input.write_failures)))


def _progressing_state(status_input: StatusInput) -> tuple[str, str, str]:
    """Return `Progressing`: whether the drain continues; the message names what it waits for."""
    if status_input.phase is Phase.RESTORING:
        reason = "OutOfService" if status_input.report is Report.OUT_OF_SERVICE else "Restoring"
        return "True", reason, _restoring_message(status_input)
    if status_input.phase is Phase.DRAINED:
        return "False", "Drained", messages.DRAIN_FINISHED
    if status_input.wait:
        message = messages.wait_before_returns(status_input.wait.message, status_input.pods_to_return)
        return "False", status_input.wait.reason, message
    if status_input.started_at and (timeout_at := deadline(status_input)) and status_input.now >= timeout_at:
        settings = status_input.settings
        return "True", "TimedOut", messages.timeout_passed(settings.timeout, settings.on_timeout)
    if status_input.report is Report.SUSPECTED:
        return "True", SUSPECTED, messages.SUSPECTED_NODE
    if status_input.phase is Phase.BLOCKED:
        return "True", "Blocked", messages.EVICTION_BLOCKED
    return "True", "Draining", _moving_message(status_input)


def _restoring_message(status_input: StatusInput) -> str:
    """Return the message of a restore: what it waits for."""
    if status_input.report is Report.FROZEN and status_input.wait:
        return messages.restore_frozen(status_input.wait.message)
    if status_input.report is Report.OUT_OF_SERVICE:
        return messages.waiting_out_of_service(status_input.node_in_use_by)
    if status_input.report is Report.RETURNING_PODS:
        if not status_input.pods_to_return:
            return messages.returns_unknown(status_input.unsynced_reason)
        causes = {
            f"{b.namespace}/{b.pod}": b.message
            for b in (status_input.pod_summary.blockers if status_input.pod_summary else ())
        }
        named = [f"{pod} ({causes[pod]})" if causes.get(pod) else pod for pod in status_input.pods_to_return]
        return messages.returning_pods(named)
    return messages.RESTORING_NODE


def _moving_message(status_input: StatusInput) -> str:
    """Return the message of a drain that moves pods, or why no pod moves; each new text is a write."""
    summary = status_input.pod_summary
    if status_input.report is Report.PODS_UNKNOWN and status_input.unsynced_reason:
        return messages.pods_not_listed(status_input.unsynced_reason)
    last_move = max((t for t in (status_input.started_at, status_input.last_move_at) if t), default=status_input.now)
    if summary is None or summary.in_flight or status_input.now - last_move < _IDLE_REPORTED_AFTER:
        return messages.MOVING_PODS
    if not summary.existing:
        if summary.detaching_volumes:
            return messages.volumes_attached(sorted(summary.detaching_volumes))
        return _came_back_message(status_input, summary) or messages.NO_POD_LEFT
    return messages.no_pod_leaving(
        waiting_for_replacement=summary.waiting_for_replacement,
        blocked=len(summary.blockers),
        queued=summary.existing - summary.waiting_for_replacement - len(summary.blockers),
        detaching_volumes=sorted(summary.detaching_volumes),
    )


def _came_back_message(status_input: StatusInput, summary: PodSummary) -> str | None:
    """Return why an empty node is not Drained after a pod came back; None if none came back within a minute."""
    last = came_back.last_came_back(summary.came_back, status_input.now)
    return messages.pods_came_back(last.namespace, last.kind, last.name, last.last_created_at) if last else None


def _cordoned_condition(status_input: StatusInput) -> tuple[str, str, str]:
    if status_input.node is None:
        return "Unknown", "NodeGone", messages.NODE_GONE
    if status_input.started_at is None or status_input.phase is Phase.RESTORING:
        return "False", "NotHeld", messages.NODE_NOT_HELD
    if not status_input.node.unschedulable:
        return "False", "NotCordoned", messages.NODE_NOT_CORDONED
    if status_input.node_record and not status_input.node_record.cordoned_by_us:
        return "True", "CordonedBefore", messages.NODE_CORDONED_BEFORE
    return "True", "Cordoned", messages.NODE_CORDONED


def _drained_condition(status_input: StatusInput) -> tuple[str, str, str]:
    summary = status_input.pod_summary
    if status_input.phase is Phase.DRAINED:
        stuck_volumes, waiting_pods = (sorted(summary.stuck_volumes), summary.waits_for_node) if summary else ((), ())
        return "True", "Drained", messages.all_pods_left(stuck_volumes, waiting_pods, staying_pods(summary))
    if summary and not summary.existing and summary.detaching_volumes:
        return "False", "VolumesAttached", messages.volumes_attached(sorted(summary.detaching_volumes))
    if status_input.started_at is None:
        return "False", "NotBegun", messages.DRAIN_NOT_STARTED
    if summary and not summary.existing and (message := _came_back_message(status_input, summary)):
        return "False", "PodsCameBack", message
    existing = summary.existing if summary else None
    return "False", "PodsLeft", messages.pods_left(existing)


def staying_pods(summary: PodSummary | None) -> str:
    """Return which pods stay that could leave under other settings, with their reasons; empty if there are none."""
    return messages.staying_pods([(pod.key, reason) for pod, reason in summary.staying] if summary else [])


def _blocked_condition(status_input: StatusInput) -> tuple[str, str, str]:
    blockers = status_input.pod_summary.blockers if status_input.pod_summary else ()
    if status_input.phase is not Phase.BLOCKED:
        return "False", "NotBlocked", messages.NO_POD_BLOCKS
    cordon_failures = tuple(
        str(failure) for failure in status_input.write_failures if failure.operation is WriteOperation.CORDON
    )
    first = "; ".join((*cordon_failures, *(f"{b.namespace}/{b.pod}: {b.class_}: {b.message}" for b in blockers[:3])))
    more = f"; and {len(blockers) - 3} more" if len(blockers) > 3 else ""
    return "True", blockers[0].class_ if blockers and not cordon_failures else "Blocked", first + more


def node_conditions(
    phase: Phase, started_at: datetime | None, reasons: Iterable[RequestReason]
) -> Mapping[str, tuple[str, str, str]]:
    """Return the node conditions (KEP-5683) by type, as status, reason and message; none before the start."""
    if started_at is None or phase is Phase.RESTORING:
        return {}
    drained = phase is Phase.DRAINED
    wanted = {
        names.DRAIN_IN_PROGRESS: (
            "False" if drained else "True",
            str(phase),
            messages.NODE_DRAINED if drained else messages.NODE_DRAINING,
        ),
        names.DRAINED: ("True" if drained else "False", str(phase), messages.SEE_NODE_DRAIN),
    }
    if set(reasons) & {RequestReason.MAINTENANCE, RequestReason.MANUAL}:
        wanted[names.MAINTENANCE_IN_PROGRESS] = ("True", MAINTENANCE_REASON, messages.NODE_IN_MAINTENANCE)
    return wanted
