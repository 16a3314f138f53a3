"""What keeps a drain from its turn whatever becomes of other nodes: suspension, triggers, windows, gates."""

from collections.abc import Mapping
from datetime import datetime

from rescheduler.api import names
from rescheduler.api.drains import NodeDrain, RequestReason
from rescheduler.api.policies import ReschedulePolicy, Suspend
from rescheduler.core.eligibility.windows import window_state
from rescheduler.core.model.wait_reasons import ProgressingReason, WaitReason


def has_failure_request(drain: NodeDrain) -> bool:
    """Whether the node failed: then it queues behind nobody."""
    return any(r.reason is RequestReason.FAILURE for r in drain.spec.requests)


def has_only_failure_requests(drain: NodeDrain) -> bool:
    """Whether nothing but its failure asks for the drain."""
    return all(r.reason is RequestReason.FAILURE for r in drain.spec.requests)


def steps_back_for(drain: NodeDrain, drains: Mapping[str, NodeDrain]) -> NodeDrain | None:
    """The drain that this one has stepped back for, while that is neither Drained nor gone."""
    name, _, uid = drain.annotations.get(names.STEPPED_BACK, "").rpartition("/")
    other = drains.get(name)
    return other if other and other.uid == uid and not other.status.drained_at else None


def policy_wait_reason(drain: NodeDrain, policy: ReschedulePolicy) -> WaitReason | None:
    """What the policy says of all such drains."""
    spec, begun = policy.spec, drain.status.started_at is not None
    if spec.suspend is Suspend.ALL or (spec.suspend is Suspend.NEW and not begun):
        return WaitReason(ProgressingReason.SUSPENDED, f"ReschedulePolicy {policy.name} has suspend: {spec.suspend}")
    asked = {request.reason for request in drain.spec.requests}
    enabled = {
        RequestReason.MAINTENANCE: spec.maintenance.enabled,
        RequestReason.FAILURE: spec.failure.enabled,
        RequestReason.MANUAL: True,
    }
    if not any(enabled[reason] for reason in asked):
        triggers = " and ".join(sorted(f"{reason.lower()}.enabled: false" for reason in asked))
        return WaitReason(ProgressingReason.DISABLED, f"ReschedulePolicy {policy.name} has {triggers}")
    return None


def closed_gates(drain: NodeDrain, policy: ReschedulePolicy) -> tuple[str, ...]:
    """The gates that are not open: conditions which others have not set to True yet."""
    gates = drain.spec.drain.apply_to(policy.spec.drain).gates
    return tuple(gate for gate in gates if not _is_condition_true(drain, gate))


def window_wait_reason(drain: NodeDrain, policy: ReschedulePolicy, now: datetime) -> WaitReason | None:
    """Windows are for maintenance alone: who asks by hand, or a node that failed, does not wait for one."""
    if not policy.spec.maintenance.windows or any(
        r.reason is not RequestReason.MAINTENANCE for r in drain.spec.requests
    ):
        return None
    found = window_state(policy.spec.maintenance.windows, now)
    if found.open_until:
        return None
    then = (
        f"the next maintenance window opens at {found.next_opening:%Y-%m-%d %H:%M} UTC"
        if found.next_opening
        else "no window opens"
    )
    return WaitReason(ProgressingReason.WINDOW, "; ".join(part for part in (then, found.error) if part))


def _is_condition_true(drain: NodeDrain, type_: str) -> bool:
    return any(c.type == type_ and c.status == "True" for c in drain.status.conditions)
