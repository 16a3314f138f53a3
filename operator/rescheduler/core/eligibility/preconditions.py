"""Check what holds a drain back regardless of other nodes: suspension, disabled triggers, windows and gates."""

from collections.abc import Mapping
from datetime import datetime

from rescheduler.api import names
from rescheduler.api.drains import NodeDrain, RequestReason
from rescheduler.api.policies import ReschedulePolicy, Suspend
from rescheduler.core.eligibility import messages
from rescheduler.core.eligibility.windows import window_state
from rescheduler.core.model.wait_reasons import ProgressingReason, WaitReason


def has_failure_request(drain: NodeDrain) -> bool:
    """Whether the drain has a failure request; such a drain does not queue behind maintenance."""
    return any(r.reason is RequestReason.FAILURE for r in drain.spec.requests)


def has_only_failure_requests(drain: NodeDrain) -> bool:
    """Whether all requests of the drain are failure requests."""
    return all(r.reason is RequestReason.FAILURE for r in drain.spec.requests)


def steps_back_for(drain: NodeDrain, drains: Mapping[str, NodeDrain]) -> NodeDrain | None:
    """Return the drain that this drain stepped back for; None once that drain is Drained or deleted."""
    name, _, uid = drain.annotations.get(names.STEPPED_BACK, "").rpartition("/")
    rival = drains.get(name)
    return rival if rival and rival.uid == uid and not rival.status.drained_at else None


def policy_wait_reason(drain: NodeDrain, policy: ReschedulePolicy) -> WaitReason | None:
    """Return why the policy holds the drain back, by `suspend` and disabled triggers; None if it does not."""
    spec, started = policy.spec, drain.status.started_at is not None
    if spec.suspend is Suspend.ALL or (spec.suspend is Suspend.NEW and not started):
        return WaitReason(ProgressingReason.SUSPENDED, messages.suspended(policy.name, spec.suspend))
    requested = {request.reason for request in drain.spec.requests}
    enabled = {
        RequestReason.MAINTENANCE: spec.maintenance.enabled,
        RequestReason.FAILURE: spec.failure.enabled,
        RequestReason.MANUAL: True,
    }
    if not any(enabled[reason] for reason in requested):
        triggers = sorted(reason.lower() for reason in requested)
        return WaitReason(ProgressingReason.DISABLED, messages.disabled(policy.name, triggers))
    return None


def closed_gates(drain: NodeDrain, policy: ReschedulePolicy) -> tuple[str, ...]:
    """Return the gates whose condition no party has set to True yet."""
    gates = drain.spec.drain.apply_to(policy.spec.drain).gates
    return tuple(gate for gate in gates if not _is_condition_true(drain, gate))


def window_wait_reason(drain: NodeDrain, policy: ReschedulePolicy, now: datetime) -> WaitReason | None:
    """Return why the drain waits for a window; None if it does not. Only drains for maintenance wait for windows."""
    if not policy.spec.maintenance.windows or any(
        r.reason is not RequestReason.MAINTENANCE for r in drain.spec.requests
    ):
        return None
    state = window_state(policy.spec.maintenance.windows, now)
    if state.open_until:
        return None
    return WaitReason(ProgressingReason.WINDOW, messages.window(state.next_opening, state.error))


def _is_condition_true(drain: NodeDrain, type_: str) -> bool:
    return any(c.type == type_ and c.status == "True" for c in drain.status.conditions)
