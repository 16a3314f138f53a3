"""Assign the slots of a policy: how many of its nodes are drained for maintenance at once, and which come next.

Free slots go first to drains that have begun and gave up their slot, the oldest first. Then they go to new drains in the
order of their creation. So no drain starves, and a drain that cannot continue does not hold back others.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property

from rescheduler.api.drains import NodeDrain, Phase
from rescheduler.api.policies import MaintenanceSettings
from rescheduler.core.eligibility import messages
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.wait_reasons import ProgressingReason, WaitReason

_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
BLOCKED_KEEPS_SLOT_FOR = timedelta(minutes=5)
"""A drain that is Blocked for longer gives up its slot of `maintenance.maxConcurrent`."""


@dataclass(frozen=True)
class MaintenanceQueue:
    """The drains for maintenance or by hand under one policy.

    Attributes:
        node_count: the number of nodes that the policy decides for.
        started: drains that hold their node.
        waiting: drains that wait only for a slot, in the order in which they start.
    """

    node_count: int
    started: tuple[NodeDrain, ...]
    waiting: tuple[NodeDrain, ...]

    def waiting_before(self, drain: NodeDrain) -> tuple[NodeDrain, ...]:
        """Return the waiting drains that start before this drain."""
        return self.waiting[: bisect_left(self.waiting, queue_sort_key(drain), key=queue_sort_key)]

    @cached_property
    def waiting_to_resume(self) -> tuple[NodeDrain, ...]:
        """The drains that gave up their slot and could continue, the oldest first."""
        waiting = [d for d in self.started if d.status.phase is Phase.WAITING and waits_for_slot(d)]
        return tuple(sorted(waiting, key=_start_sort_key))


def queue_sort_key(drain: NodeDrain) -> tuple[datetime, str]:
    """Return the sort key of a drain in the queue: its creation, then its name."""
    return drain.created or _LONG_AGO, drain.name


def _start_sort_key(drain: NodeDrain) -> tuple[datetime, str]:
    return drain.status.started_at or _LONG_AGO, drain.name


def waits_for_slot(drain: NodeDrain) -> bool:
    """Whether the status of a drain that has begun reports that it waits for a slot."""
    return any(
        c.type == "Progressing" and c.status == "False" and c.reason == ProgressingReason.MAX_CONCURRENT
        for c in drain.status.conditions
    )


def is_blocked_for_long(drain: NodeDrain, now: datetime) -> bool:
    """Whether the drain has been Blocked for longer than it may keep its slot."""
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
    """Return why a drain may not begin because of slots or topology; None if it may."""
    running = _drains_with_slot(drain, queue, now)
    slots = maintenance.max_concurrent.of(queue.node_count)
    if taken := _taken_slots_message(slots, [*running, *queue.waiting_to_resume, *queue.waiting_before(drain)]):
        return WaitReason(ProgressingReason.MAX_CONCURRENT, taken)
    unavailable = [*(d for d in queue.started if d.name != drain.name), *queue.waiting_before(drain)]
    max_unavailable = maintenance.max_unavailable.of(queue.node_count)
    if maintenance.max_unavailable.is_percent:
        max_unavailable = max(max_unavailable, slots)
    if len(unavailable) >= max_unavailable:
        message = messages.limit_taken(f"maintenance.maxUnavailable {max_unavailable}", _names(unavailable))
        return WaitReason(ProgressingReason.MAX_UNAVAILABLE, message)
    return _topology_wait_reason(node, maintenance, running, nodes)


def resume_wait_reason(
    drain: NodeDrain,
    node: Node,
    maintenance: MaintenanceSettings,
    queue: MaintenanceQueue,
    nodes: Mapping[str, Node],
    now: datetime,
) -> WaitReason | None:
    """Return why a drain that gave up its slot may not take one again; None if it may, or has a slot."""
    if not _gave_up_slot(drain, now):
        return None
    running = _drains_with_slot(drain, queue, now)
    ahead = [d for d in queue.waiting_to_resume if _start_sort_key(d) < _start_sort_key(drain)]
    slots = maintenance.max_concurrent.of(queue.node_count)
    if taken := _taken_slots_message(slots, [*running, *ahead]):
        return WaitReason(ProgressingReason.MAX_CONCURRENT, messages.slot_given_up(taken))
    topology_reason = _topology_wait_reason(node, maintenance, running, nodes)
    return WaitReason(ProgressingReason.MAX_CONCURRENT, topology_reason.message) if topology_reason else None


def _taken_slots_message(slots: int, first: Sequence[NodeDrain]) -> str | None:
    """Return the message that all slots are taken; None if one is free. `first`: drains with a slot or next to get one."""
    if len(first) < slots:
        return None
    return messages.limit_taken(f"maintenance.maxConcurrent {slots}", _names(first))


def _drains_with_slot(drain: NodeDrain, queue: MaintenanceQueue, now: datetime) -> list[NodeDrain]:
    """Return the other drains that have a slot."""
    return [d for d in queue.started if d.name != drain.name and not d.status.drained_at and not _gave_up_slot(d, now)]


def _names(drains: Sequence[NodeDrain]) -> list[str]:
    return [drain.name for drain in drains]


def _topology_wait_reason(
    node: Node, maintenance: MaintenanceSettings, drains_with_slot: Iterable[NodeDrain], nodes: Mapping[str, Node]
) -> WaitReason | None:
    """Return the wait reason if a node with another value of the topology key is being drained; None if there is none.

    A node without the label counts as a value of its own.
    """
    key = maintenance.topology_key
    if not key:
        return None

    def topology_value(labelled: Node) -> tuple[str, str]:
        return ("label", labelled.labels[key]) if key in labelled.labels else ("node", labelled.name)

    for drain in drains_with_slot:
        other_node = nodes.get(drain.spec.node_name)
        if other_node and topology_value(other_node) != topology_value(node):
            return WaitReason(ProgressingReason.TOPOLOGY, messages.topology(other_node.name, key))
    return None
