"""Record the conditions of a node over time, by the operator's clock.

Clocks of nodes are skewed. So times count from the operator's first observation, never from a time that a node wrote. A
restart of the operator may lengthen a wait, but never shortens it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import NamedTuple

from rescheduler.api.policies import ConditionMatch, FailureSettings, ReschedulePolicy
from rescheduler.core.failure.causes import cause_name
from rescheduler.core.model.nodes import CONDITION_UNKNOWN, Node, NodeCondition

HEARTBEAT_STALE_AFTER = timedelta(minutes=12)
"""Age of a heartbeat after which a condition is stale: agents write one every 5 m, so the agent is dead."""
DEFAULT_FAILURE_SETTINGS = FailureSettings()
"""The settings for a node that has had no policy yet."""


class FailureStart(NamedTuple):
    """The time when a failure condition began to hold; `cause`: its name for the storm brake, None if unknown."""

    cause: str | None
    at: datetime


@dataclass(frozen=True, slots=True)
class ConditionHistory:
    """The observations of one node.

    Attributes:
        node_uid: the UID of the node; a new node with the same name has a new history.
        status_since: by type of condition, its status and when it took that status.
        heartbeats: by type of condition that the policy names, the last heartbeat and when it was first observed.
        failing_conditions: types of the policy's failure conditions that hold; a stale condition stays as it was.
        failure_starts: the times within the policy's flapping window when such a condition began to hold.
        condition_matches: the failure conditions of the last policy of the node. If the policy is deleted they stay, so
            that the deletion does not make the node healthy.
        was_ready: whether the node was Ready at least once while the operator observed it.
        healthy_since: since when no failure condition holds and the Lease is renewed; None while the node is unhealthy.
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
        """Whether the agent of the condition is dead; a condition without a heartbeat since its change is never stale."""
        known = self.heartbeats.get(condition.type)
        if condition.type == "Ready" or known is None or condition.last_transition is None:
            return False
        return known[0] > condition.last_transition and now - known[1] >= HEARTBEAT_STALE_AFTER

    def is_met(self, node: Node, match: ConditionMatch, now: datetime) -> bool:
        """Whether the condition matches the entry of the policy, and its agent is alive."""
        condition = matching_condition(node, match)
        return condition is not None and not self.is_stale(condition, now)


def matching_condition(node: Node, match: ConditionMatch) -> NodeCondition | None:
    """Return the node's condition that matches the entry of the policy; None if there is none."""
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
    """Return the history after one observation of the node; `suspected`: its Lease is silent."""
    new = previous is None or previous.node_uid != node.uid
    known = ConditionHistory(node.uid) if previous is None or new else previous
    failure = policy.spec.failure if policy else DEFAULT_FAILURE_SETTINGS
    matches = failure.conditions if policy else known.condition_matches
    since = {c.type: (c.status, _status_since(c, known.status_since.get(c.type), now)) for c in node.conditions}
    history = replace(
        known,
        status_since=since,
        heartbeats=_heartbeats(node, policy, known, now),
        condition_matches=matches,
        was_ready=known.was_ready or node.ready_status == "True",
    )
    failing = _failing_conditions(node, matches, history, now, new=new)
    started = (node.condition(type_) for type_ in sorted(failing - known.failing_conditions))
    starts = (*known.failure_starts, *(FailureStart(cause_name(c.type, c.status), now) for c in started if c))
    window_start = now - failure.flapping.within
    return replace(
        history,
        failing_conditions=failing,
        failure_starts=tuple(start for start in starts if start.at > window_start),
        healthy_since=None if failing or suspected else known.healthy_since or now,
    )


def _status_since(condition: NodeCondition, known: tuple[str, datetime] | None, now: datetime) -> datetime:
    if known is None:
        # The node controller wrote this time, not the node: without it a restart would lengthen the wait for nothing.
        stamped = condition.type == "Ready" and condition.status == CONDITION_UNKNOWN and condition.last_transition
        return min(now, stamped) if stamped else now
    status, start = known
    # A reboot goes from Unknown to False: a new time would make the node wait its `for` twice.
    same = condition.status == status or (status, condition.status) == (CONDITION_UNKNOWN, "False")
    return start if same else now


def _heartbeats(
    node: Node, policy: ReschedulePolicy | None, known: ConditionHistory, now: datetime
) -> dict[str, tuple[datetime, datetime]]:
    spec = policy.spec if policy else None
    matches = (*spec.failure.conditions, *spec.maintenance.conditions) if spec else known.condition_matches
    named = {match.type for match in matches} | (known.heartbeats.keys() if spec is None else set())
    heartbeats = {}
    for condition in node.conditions:
        heartbeat, last = condition.last_heartbeat, known.heartbeats.get(condition.type)
        if heartbeat is None or condition.type not in named:
            continue
        # Before the second heartbeat only the time in the condition shows its age.
        first_observed = min(now, heartbeat) if last is None else now
        heartbeats[condition.type] = last if last and last[0] == heartbeat else (heartbeat, first_observed)
    return heartbeats


def _failing_conditions(
    node: Node, matches: Iterable[ConditionMatch], history: ConditionHistory, now: datetime, *, new: bool
) -> frozenset[str]:
    failing = set()
    for match in matches:
        condition = node.condition(match.type)
        if condition and not new and history.is_stale(condition, now):
            failing |= {match.type} & history.failing_conditions
        elif matching_condition(node, match):
            failing.add(match.type)
    return frozenset(failing)


def restart_timers(history: ConditionHistory, now: datetime) -> ConditionHistory:
    """Return the history after a freeze: every `for` starts again."""
    return replace(
        history,
        status_since={type_: (status, now) for type_, (status, _) in history.status_since.items()},
        healthy_since=now if history.healthy_since else None,
    )


def with_flapping(history: ConditionHistory, changes: int, last_change: datetime) -> ConditionHistory:
    """Return the history after a start of the operator, with the flapping that the NodeDrain reports."""
    return replace(
        history, failure_starts=(*(FailureStart(None, last_change) for _ in range(changes)), *history.failure_starts)
    )


def with_failure(history: ConditionHistory, match: ConditionMatch) -> ConditionHistory:
    """Return the history after a start of the operator, with the failure condition that the NodeDrain reports."""
    return replace(
        history,
        condition_matches=(*history.condition_matches, match),
        failing_conditions=history.failing_conditions | {match.type},
        healthy_since=None,
    )
