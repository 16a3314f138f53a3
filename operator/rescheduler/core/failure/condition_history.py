"""What was seen of a node over time, on our own clock.

Clocks of nodes are skewed, and ours may jump: times count from our first sight of a thing, never from what a node
wrote. A restart of ours may lengthen a wait but must never shorten it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import NamedTuple

from rescheduler.api.policies import ConditionMatch, FailureSettings, ReschedulePolicy
from rescheduler.core.failure.causes import cause_name
from rescheduler.core.model.nodes import CONDITION_UNKNOWN, Node, NodeCondition

HEARTBEAT_STALE_AFTER = timedelta(minutes=12)
"""A condition whose heartbeat has stood still for so long says nothing: its agent is dead (agents beat every 5 m)."""
DEFAULT_FAILURE_SETTINGS = FailureSettings()
"""By this a node is judged that no policy has decided for yet."""


class FailureStart(NamedTuple):
    """A failure condition began to hold; `cause`: its name for the storm brake, empty if that is not known any more."""

    cause: str
    at: datetime


@dataclass(frozen=True, slots=True)
class ConditionHistory:
    """What was seen of one node.

    Attributes:
        uid: the node's; another uid under the same name starts anew.
        since: when each condition took the status it has, by type: (status, time).
        beats: the last heartbeat of each condition that the policy names, and when it was first seen.
        ailing: types of the policy's failure conditions that hold; a stale one is as it was when it was fresh.
        begins: which of them began to hold within the policy's flapping window, and when.
        matches: the failure conditions that it is judged by: those of the last policy that decided for the node. A
            policy that is deleted does not make the node healthy.
        was_ready: it was Ready at least once under our eyes.
        healthy_since: from when none held and its Lease was not silent; None while that is not so.
    """

    node_uid: str
    status_since: Mapping[str, tuple[str, datetime]] = field(default_factory=dict)
    heartbeats: Mapping[str, tuple[datetime, datetime]] = field(default_factory=dict)
    failing_conditions: frozenset[str] = frozenset()
    failure_starts: tuple[FailureStart, ...] = ()
    condition_matches: tuple[ConditionMatch, ...] = DEFAULT_FAILURE_SETTINGS.conditions
    was_ready: bool = False
    healthy_since: datetime | None = None

    def is_stale(self, condition: NodeCondition, now: datetime) -> bool:
        """Whether its agent has gone silent; one set once and for all never beats, and never goes stale."""
        known = self.heartbeats.get(condition.type)
        if condition.type == "Ready" or known is None or condition.last_transition is None:
            return False
        return known[0] > condition.last_transition and now - known[1] >= HEARTBEAT_STALE_AFTER

    def is_met(self, node: Node, match: ConditionMatch, now: datetime) -> bool:
        """Whether the condition is as the policy means it, and its agent alive."""
        condition = matching_condition(node, match)
        return condition is not None and not self.is_stale(condition, now)


def matching_condition(node: Node, match: ConditionMatch) -> NodeCondition | None:
    """The node's condition that is as the policy means it; None where it is not."""
    condition = node.condition(match.type)
    return condition if condition and condition.status in match.status else None


def observe(
    previous: ConditionHistory | None,
    node: Node,
    policy: ReschedulePolicy | None,
    now: datetime,
    *,
    suspected: bool = False,
) -> ConditionHistory:
    """Bring a sighting up to date with the node as it is now; `suspected`: its Lease is silent."""
    new = previous is None or previous.node_uid != node.uid
    known = ConditionHistory(node.uid) if previous is None or new else previous
    failure = policy.spec.failure if policy else DEFAULT_FAILURE_SETTINGS
    matches = failure.conditions if policy else known.condition_matches
    since = {c.type: (c.status, _status_since(c, known.status_since.get(c.type), now)) for c in node.conditions}
    seen = replace(
        known,
        status_since=since,
        heartbeats=_heartbeats(node, policy, known, now),
        condition_matches=matches,
        was_ready=known.was_ready or node.ready_status == "True",
    )
    ailing = _failing_conditions(node, matches, seen, now, new=new)
    begun = (node.condition(type_) for type_ in sorted(ailing - known.failing_conditions))
    begins = (*known.failure_starts, *(FailureStart(cause_name(c.type, c.status), now) for c in begun if c))
    recent = now - failure.flapping.within
    healthy = None if ailing or suspected else known.healthy_since or now
    return replace(
        seen, failing_conditions=ailing, failure_starts=tuple(b for b in begins if b.at > recent), healthy_since=healthy
    )


def _status_since(condition: NodeCondition, known: tuple[str, datetime] | None, now: datetime) -> datetime:
    if known is None:
        # The node controller stamps this one itself: it is older than our first sight of it.
        stamped = condition.type == "Ready" and condition.status == CONDITION_UNKNOWN and condition.last_transition
        return min(now, stamped) if stamped else now
    status, start = known
    # Unknown -> False is a reboot's way through both: the time as Unknown counts.
    same = condition.status == status or (status, condition.status) == (CONDITION_UNKNOWN, "False")
    return start if same else now


def _heartbeats(
    node: Node, policy: ReschedulePolicy | None, known: ConditionHistory, now: datetime
) -> dict[str, tuple[datetime, datetime]]:
    spec = policy.spec if policy else None
    matches = (*spec.failure.conditions, *spec.maintenance.conditions) if spec else known.condition_matches
    named = {match.type for match in matches} | (known.heartbeats.keys() if spec is None else set())
    found = {}
    for condition in node.conditions:
        beat, last = condition.last_heartbeat, known.heartbeats.get(condition.type)
        if beat is None or condition.type not in named:
            continue
        # Of one that we have never seen beat only its own word says how old it is.
        first = min(now, beat) if last is None else now
        found[condition.type] = last if last and last[0] == beat else (beat, first)
    return found


def _failing_conditions(
    node: Node, matches: Iterable[ConditionMatch], history: ConditionHistory, now: datetime, *, new: bool
) -> frozenset[str]:
    found = set()
    for match in matches:
        condition = node.condition(match.type)
        if condition and not new and history.is_stale(condition, now):
            found |= {match.type} & history.failing_conditions
        elif matching_condition(node, match):
            found.add(match.type)
    return frozenset(found)


def restart_timers(history: ConditionHistory, now: datetime) -> ConditionHistory:
    """After we were blind for a while: every `for` starts anew."""
    return replace(
        history,
        status_since={type_: (status, now) for type_, (status, _) in history.status_since.items()},
        healthy_since=now if history.healthy_since else None,
    )


def with_flapping(history: ConditionHistory, changes: int, last_change: datetime) -> ConditionHistory:
    """After a start of ours: the NodeDrain says that the node was flapping."""
    return replace(
        history, failure_starts=(*(FailureStart("", last_change) for _ in range(changes)), *history.failure_starts)
    )


def with_failure(history: ConditionHistory, match: ConditionMatch) -> ConditionHistory:
    """After a start of ours without a policy: the NodeDrain names the condition for which the node failed."""
    return replace(
        history,
        condition_matches=(*history.condition_matches, match),
        failing_conditions=history.failing_conditions | {match.type},
        healthy_since=None,
    )
