"""The slots of a policy: how many of its nodes are drained for maintenance at once, and whose turn it is.

Free slots go first to drains already begun that gave theirs up, the oldest first, then to the others in the order
in which they were asked for: nobody starves, and a drain that cannot go on keeps nobody waiting.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property

from rescheduler.api.drains import NodeDrain, Phase
from rescheduler.api.policies import MaintenanceSettings
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.wait_reasons import ProgressingReason, WaitReason

_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
BLOCKED_KEEPS_SLOT_FOR = timedelta(minutes=5)
"""A drain blocked for longer gives up its slot of maxConcurrent."""


@dataclass(frozen=True)
class MaintenanceQueue:
    """The drains for maintenance or by hand under one policy, whose node still stands.

    Attributes:
        nodes: how many nodes the policy decides for.
        begun: drains that hold their node.
        waiting: drains that wait for a slot and for nothing else, in the order of their turn.
    """

    node_count: int
    started: tuple[NodeDrain, ...]
    waiting: tuple[NodeDrain, ...]

    def waiting_before(self, drain: NodeDrain) -> tuple[NodeDrain, ...]:
        """Those that have not begun and whose turn comes before this drain's."""
        return self.waiting[: bisect_left(self.waiting, queue_sort_key(drain), key=queue_sort_key)]

    @cached_property
    def waiting_to_resume(self) -> tuple[NodeDrain, ...]:
        """Those that gave their slot up and could go on, the oldest first."""
        found = [d for d in self.started if d.status.phase is Phase.WAITING and waits_for_slot(d)]
        return tuple(sorted(found, key=_start_sort_key))


def queue_sort_key(drain: NodeDrain) -> tuple[datetime, str]:
    """Where a drain that has not begun stands in the queue."""
    return drain.created or _LONG_AGO, drain.name


def _start_sort_key(drain: NodeDrain) -> tuple[datetime, str]:
    return drain.status.started_at or _LONG_AGO, drain.name


def waits_for_slot(drain: NodeDrain) -> bool:
    """Whether a drain that has begun is without a slot, as its status says."""
    return any(
        c.type == "Progressing" and c.status == "False" and c.reason == ProgressingReason.MAX_CONCURRENT
        for c in drain.status.conditions
    )


def is_blocked_for_long(drain: NodeDrain, now: datetime) -> bool:
    """Whether nothing has moved for so long that the drain's slot is of more use to others."""
    blocked = next((c for c in drain.status.conditions if c.type == "Blocked" and c.status == "True"), None)
    return (
        drain.status.phase is Phase.BLOCKED
        and blocked is not None
        and now - blocked.last_transition_time >= BLOCKED_KEEPS_SLOT_FOR
    )


def _gave_up_slot(drain: NodeDrain, now: datetime) -> bool:
    return waits_for_slot(drain) or is_blocked_for_long(drain, now)


def start_wait_reason(
    drain: NodeDrain,
    node: Node,
    maintenance: MaintenanceSettings,
    queue: MaintenanceQueue,
    nodes: Mapping[str, Node],
    now: datetime,
) -> WaitReason | None:
    """Why a drain may not begin for want of a slot; None: it may."""
    running = _drains_with_slot(drain, queue, now)
    ahead = [*queue.waiting_to_resume, *queue.waiting_before(drain)]
    slots = maintenance.max_concurrent.of(queue.node_count)
    if len(running) + len(ahead) >= slots:
        return WaitReason(
            ProgressingReason.MAX_CONCURRENT, _taken_message([*running, *ahead], f"maintenance.maxConcurrent {slots}")
        )
    out = [*(d for d in queue.started if d.name != drain.name), *queue.waiting_before(drain)]
    most = maintenance.max_unavailable.of(queue.node_count)
    if maintenance.max_unavailable.is_percent:
        most = max(most, slots)
    if len(out) >= most:
        return WaitReason(ProgressingReason.MAX_UNAVAILABLE, _taken_message(out, f"maintenance.maxUnavailable {most}"))
    return _topology_wait_reason(node, maintenance, running, nodes)


def resume_wait_reason(
    drain: NodeDrain,
    node: Node,
    maintenance: MaintenanceSettings,
    queue: MaintenanceQueue,
    nodes: Mapping[str, Node],
    now: datetime,
) -> WaitReason | None:
    """Why a drain that gave its slot up may not take one again; None: it may, or has never given it up."""
    if not _gave_up_slot(drain, now):
        return None
    running = _drains_with_slot(drain, queue, now)
    ahead = [d for d in queue.waiting_to_resume if _start_sort_key(d) < _start_sort_key(drain)]
    slots = maintenance.max_concurrent.of(queue.node_count)
    if len(running) + len(ahead) >= slots:
        limit = f"it was blocked and gave its slot up; maintenance.maxConcurrent {slots}"
        return WaitReason(ProgressingReason.MAX_CONCURRENT, _taken_message([*running, *ahead], limit))
    found = _topology_wait_reason(node, maintenance, running, nodes)
    return WaitReason(ProgressingReason.MAX_CONCURRENT, found.message) if found else None


def _drains_with_slot(drain: NodeDrain, queue: MaintenanceQueue, now: datetime) -> list[NodeDrain]:
    """The others that have a slot."""
    return [d for d in queue.started if d.name != drain.name and not d.status.drained_at and not _gave_up_slot(d, now)]


def _taken_message(drains: Sequence[NodeDrain], limit: str) -> str:
    names = ", ".join(sorted(d.name for d in drains)[:5])
    more = f" and {len(drains) - 5} more" if len(drains) > 5 else ""
    return f"{limit} is taken by {names}{more}"


def _topology_wait_reason(
    node: Node, maintenance: MaintenanceSettings, drains_with_slot: Iterable[NodeDrain], nodes: Mapping[str, Node]
) -> WaitReason | None:
    """Never nodes of two values of the key at once; a node without the label has a value of its own."""
    key = maintenance.topology_key
    if not key:
        return None

    def value(other: Node) -> tuple[str, str]:
        return ("label", other.labels[key]) if key in other.labels else ("node", other.name)

    for drain in drains_with_slot:
        other = nodes.get(drain.spec.node_name)
        if other and value(other) != value(node):
            return WaitReason(ProgressingReason.TOPOLOGY, f"node {other.name} with another {key} is being drained")
    return None
