"""What keeps a drain from its turn whatever becomes of other nodes: suspension, triggers, windows, gates."""

from collections.abc import Mapping
from datetime import datetime

from rescheduler.api import names
from rescheduler.api.drains import NodeDrain, Reason
from rescheduler.api.policies import Policy, Suspend
from rescheduler.core.eligibility.windows import look
from rescheduler.core.model.wait_reasons import Held, Hold


def failed(drain: NodeDrain) -> bool:
    """Whether the node failed: then it queues behind nobody."""
    return any(r.reason is Reason.FAILURE for r in drain.spec.requests)


def only_failed(drain: NodeDrain) -> bool:
    """Whether nothing but its failure asks for the drain."""
    return all(r.reason is Reason.FAILURE for r in drain.spec.requests)


def steps_back_for(drain: NodeDrain, drains: Mapping[str, NodeDrain]) -> NodeDrain | None:
    """The drain that this one has stepped back for, while that is neither Drained nor gone."""
    name, _, uid = drain.annotations.get(names.STEPPED_BACK, "").rpartition("/")
    other = drains.get(name)
    return other if other and other.uid == uid and not other.status.drained_at else None


def by_policy(drain: NodeDrain, policy: Policy) -> Held | None:
    """What the policy says of all such drains."""
    spec, begun = policy.spec, drain.status.started_at is not None
    if spec.suspend is Suspend.ALL or (spec.suspend is Suspend.NEW and not begun):
        return Held(Hold.SUSPENDED, f"ReschedulePolicy {policy.name} has suspend: {spec.suspend}")
    asked = {request.reason for request in drain.spec.requests}
    enabled = {
        Reason.MAINTENANCE: spec.maintenance.enabled,
        Reason.FAILURE: spec.failure.enabled,
        Reason.MANUAL: True,
    }
    if not any(enabled[reason] for reason in asked):
        triggers = " and ".join(sorted(f"{reason.lower()}.enabled: false" for reason in asked))
        return Held(Hold.DISABLED, f"ReschedulePolicy {policy.name} has {triggers}")
    return None


def gated(drain: NodeDrain, policy: Policy) -> tuple[str, ...]:
    """The gates that are not open: conditions which others have not set to True yet."""
    gates = drain.spec.drain.over(policy.spec.drain).gates
    return tuple(gate for gate in gates if not _is_true(drain, gate))


def shut(drain: NodeDrain, policy: Policy, now: datetime) -> Held | None:
    """Windows are for maintenance alone: who asks by hand, or a node that failed, does not wait for one."""
    if not policy.spec.maintenance.windows or any(r.reason is not Reason.MAINTENANCE for r in drain.spec.requests):
        return None
    found = look(policy.spec.maintenance.windows, now)
    if found.until:
        return None
    then = f"the next maintenance window opens at {found.next:%Y-%m-%d %H:%M} UTC" if found.next else "no window opens"
    return Held(Hold.WINDOW, "; ".join(part for part in (then, found.error) if part))


def _is_true(drain: NodeDrain, type_: str) -> bool:
    return any(c.type == type_ and c.status == "True" for c in drain.status.conditions)
