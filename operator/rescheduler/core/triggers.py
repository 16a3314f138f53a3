"""What a node asks for: maintenance by its annotation, failure by its conditions.

Timers run on our own clock from the first sight of a condition, never on a node's: clocks of nodes are skewed,
and a restart of ours may lengthen a wait but must never shorten it (DESIGN 5).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from rescheduler.api.drains import Reason
from rescheduler.api.policies import ConditionMatch, Policy
from rescheduler.api.scalars import format_duration
from rescheduler.core.facts import UNREACHABLE, Node, NodeCondition

REFUSED_VALUE = "false"
"""A maintenance annotation with this value is refused: it asks for the opposite of what it would do."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """What was seen of one node over time.

    Attributes:
        uid: the node's; another uid under the same name starts anew.
        since: when each condition took the status it has, by type: (status, time).
        was_ready: it was Ready at least once under our eyes.
        healthy_since: from when no condition of the policy matched; None while one does.
    """

    uid: str
    since: Mapping[str, tuple[str, datetime]] = field(default_factory=dict)
    was_ready: bool = False
    healthy_since: datetime | None = None


def see(before: Sighting | None, node: Node, policy: Policy | None, now: datetime) -> Sighting:
    """Bring a sighting up to date with the node as it is now."""
    if before is None or before.uid != node.uid:
        before = Sighting(node.uid)
    since = {}
    for condition in node.conditions:
        status, start = before.since.get(condition.type, ("", now))
        if not status and condition.status == UNREACHABLE and condition.transition:
            # The node controller stamps this one itself: it is older than our first sight of it.
            start = min(now, condition.transition)
        elif status != condition.status and (status, condition.status) != (UNREACHABLE, "False"):
            # Unknown -> False is a reboot's way through both: the time as Unknown counts.
            start = now
        since[condition.type] = (condition.status, start)
    healthy = None if ill(node, policy) else before.healthy_since or now
    return Sighting(node.uid, since, before.was_ready or node.ready == "True", healthy)


@dataclass(frozen=True, slots=True)
class Want:
    """One reason for which a node should be emptied.

    Attributes:
        token: tells this request from a later one of the same reason (the `cancelled` annotation holds it).
    """

    reason: Reason
    message: str
    token: str


@dataclass(frozen=True, slots=True)
class Wants:
    """All that a node asks for now, and when to look again for what only time changes."""

    requests: tuple[Want, ...] = ()
    look_again: datetime | None = None
    refused: bool = False  # the annotation's value makes no sense


def wanted(node: Node, policy: Policy | None, seen: Sighting, now: datetime, *, standing: frozenset[Reason]) -> Wants:
    """What the node asks for; `standing`: requests that its NodeDrain holds already."""
    failure, again = _failure(node, policy, seen, now, standing=Reason.FAILURE in standing)
    refused = node.maintenance == REFUSED_VALUE
    wants = [failure] if failure else []
    if node.maintenance is not None and not refused:
        wants.insert(0, Want(Reason.MAINTENANCE, node.maintenance, node.maintenance))
    elif policy and policy.spec.maintenance.enabled:
        asked, later = _due(node, policy.spec.maintenance.conditions, seen, now)
        wants[:0] = [_held_for(node, asked, Reason.MAINTENANCE)] if asked else []
        again = min((time for time in (again, later) if time), default=None)
    live = tuple(want for want in wants if node.cancelled.get(want.reason) != want.token)
    return Wants(live, again, refused)


def stale_cancellations(node: Node, wants: Wants, seen: Sighting) -> tuple[str, ...]:
    """Entries of the node's `cancelled` annotation whose request is gone or has changed."""
    stale = []
    for reason, token in node.cancelled.items():
        if reason == Reason.MAINTENANCE and node.maintenance is not None:
            if node.maintenance != token:
                stale.append(reason)
        elif reason == Reason.MAINTENANCE:
            if not _still_asks(node, token):
                stale.append(reason)
        elif seen.healthy_since is not None or any(want.reason == reason for want in wants.requests):
            stale.append(reason)
    return tuple(stale)


def _still_asks(node: Node, token: str) -> bool:
    """Whether the condition that a cancelled request came from is still as it was then."""
    return any(_token(condition) == token for condition in node.conditions)


def _token(condition: NodeCondition) -> str:
    at = condition.transition.isoformat() if condition.transition else ""
    return f"{condition.type}={condition.status} {at}"


def _matches(node: Node, match: ConditionMatch) -> bool:
    condition = node.condition(match.type)
    return condition is not None and condition.status in match.status


def ill(node: Node, policy: Policy | None) -> bool:
    """Whether some failure condition matches, its time passed or not: what the storm brake counts."""
    return policy is not None and any(_matches(node, match) for match in policy.spec.failure.conditions)


def _failure(
    node: Node, policy: Policy | None, seen: Sighting, now: datetime, *, standing: bool
) -> tuple[Want | None, datetime | None]:
    if policy is None or not policy.spec.failure.enabled:
        return None, None
    failure = policy.spec.failure
    if not seen.was_ready and node.created and now < node.created + failure.startup_grace:
        return None, node.created + failure.startup_grace
    found, later = _due(node, failure.conditions, seen, now)
    if found:
        return _held_for(node, found, Reason.FAILURE), None
    if standing and (seen.healthy_since is None or now < seen.healthy_since + failure.recover_after):
        again = seen.healthy_since + failure.recover_after if seen.healthy_since else None
        return Want(Reason.FAILURE, "", ""), again
    return None, later


def _due(
    node: Node, matches: Iterable[ConditionMatch], seen: Sighting, now: datetime
) -> tuple[ConditionMatch | None, datetime | None]:
    """A condition that has held for its time; else when the first will have."""
    due = [
        (seen.since[match.type][1] + match.for_, match)
        for match in matches
        if _matches(node, match) and match.type in seen.since
    ]
    first = min(due, key=lambda pair: pair[0], default=None)
    if first and first[0] <= now:
        return first[1], None
    return None, first[0] if first else None


def _held_for(node: Node, match: ConditionMatch, reason: Reason) -> Want:
    condition = node.condition(match.type)
    status, why = (condition.status, condition.reason) if condition else ("", "")
    message = f"{match.type} is {status} for over {format_duration(match.for_)}" + (f" ({why})" if why else "")
    return Want(reason, message, _token(condition) if condition else "")
