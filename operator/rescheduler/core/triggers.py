"""What a node asks for: maintenance by its annotation or conditions, failure by its conditions or its silence."""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from rescheduler.api.drains import Reason
from rescheduler.api.policies import ConditionMatch, Policy
from rescheduler.api.scalars import format_duration
from rescheduler.core.facts import Node, NodeCondition
from rescheduler.core.health import Health, diagnose, recovered_at
from rescheduler.core.sightings import Sighting, matching

REFUSED_VALUE = "false"
"""A maintenance annotation with this value is refused: it asks for the opposite of what it would do."""
_LONGEST_TOKEN = 256
"""Characters. A node's annotations hold 256 KiB together: a copy of a longer text might have no room beside it."""


@dataclass(frozen=True, slots=True)
class Want:
    """One reason for which a node should be emptied.

    Attributes:
        token: tells this request from a later one of the same reason (the `cancelled` annotation holds it); None: it
            only goes on, and says nothing new.
    """

    reason: Reason
    message: str = ""
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Wants:
    """All that a node asks for now, and when to look again for what only time changes."""

    requests: tuple[Want, ...] = ()
    look_again: datetime | None = None
    refused: bool = False  # the annotation's value makes no sense


@dataclass(frozen=True, slots=True)
class View:
    """What beside the node itself decides over what it asks for.

    Attributes:
        standing: requests that its NodeDrain holds already.
        suspected: its Lease is silent.
        blind: we do not see the cluster as it is: nothing of failure starts or ends.
    """

    standing: frozenset[Reason] = frozenset()
    suspected: bool = False
    blind: bool = False


def wanted(node: Node, policy: Policy | None, seen: Sighting, now: datetime, view: View) -> Wants:
    """What the node asks for."""
    failure, again = _failure(node, policy, seen, now, view)
    refused = node.maintenance == REFUSED_VALUE
    wants = [failure] if failure else []
    if node.maintenance is not None and not refused:
        wants.insert(0, Want(Reason.MAINTENANCE, node.maintenance, token(node.maintenance)))
    elif policy and policy.spec.maintenance.enabled:
        asked, later = _maintenance(node, policy, seen, now, view)
        wants[:0] = [asked] if asked else []
        again = min((time for time in (again, later) if time), default=None)
    live = tuple(want for want in wants if want.token is None or node.cancelled.get(want.reason) != want.token)
    return Wants(live, again, refused)


def token(text: str) -> str:
    """Return the text, or the hash that stands for a long one in the `cancelled` annotation."""
    if len(text) <= _LONGEST_TOKEN:
        return text
    return f"sha256:{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()}"


def stale_cancellations(node: Node, wants: Wants, seen: Sighting) -> tuple[str, ...]:
    """Entries of the node's `cancelled` annotation whose request is gone or has changed."""
    stale = []
    for reason, noted in node.cancelled.items():
        if reason == Reason.MAINTENANCE and node.maintenance is not None:
            if token(node.maintenance) != noted:
                stale.append(reason)
        elif reason == Reason.MAINTENANCE:
            if not _still_asks(node, noted):
                stale.append(reason)
        elif seen.healthy_since is not None or any(want.reason == reason for want in wants.requests):
            stale.append(reason)
    return tuple(stale)


def _still_asks(node: Node, noted: str) -> bool:
    """Whether the condition that a cancelled request came from is still as it was then."""
    return any(_of(condition) == noted for condition in node.conditions)


def _of(condition: NodeCondition) -> str:
    at = condition.transition.isoformat() if condition.transition else ""
    return token(f"{condition.type}={condition.status} {at}")


def _failure(
    node: Node, policy: Policy | None, seen: Sighting, now: datetime, view: View
) -> tuple[Want | None, datetime | None]:
    standing = Reason.FAILURE in view.standing
    kept = Want(Reason.FAILURE)
    if policy is None or not policy.spec.failure.enabled:
        return None, None
    if view.blind:
        return (kept if standing else None), None
    found = diagnose(node, policy, seen, now, standing=standing, suspected=view.suspected)
    match found.health:
        case Health.FAILED if found.match:
            return _held_for(node, found.match, Reason.FAILURE), None
        case Health.SUSPECTED:
            silent = format_duration(policy.spec.failure.lease_timeout or timedelta())
            return Want(Reason.FAILURE, f"suspected: its Lease has been silent for over {silent}", "Lease"), found.until
        case Health.FLAPPING:
            last = max(seen.begins)
            often = f"its conditions began to fail {len(seen.begins)} times"
            within = format_duration(policy.spec.failure.flapping.within)
            return Want(
                Reason.FAILURE, f"flapping: {often} within {within}", f"Flapping {last.isoformat()}"
            ), found.until
    well = recovered_at(seen, policy.spec.failure.recover_after)
    if standing and (well is None or now < well):
        return kept, well or found.until
    return None, found.until


def _maintenance(
    node: Node, policy: Policy, seen: Sighting, now: datetime, view: View
) -> tuple[Want | None, datetime | None]:
    """Conditions that ask for maintenance as the annotation does; one that has gone stale neither starts nor ends it."""
    standing = Reason.MAINTENANCE in view.standing
    due, stale = [], False
    for match in policy.spec.maintenance.conditions:
        condition = node.condition(match.type)
        if condition and seen.stale(condition, now):
            stale = True
        elif match.type in seen.since and matching(node, match):
            due.append((seen.since[match.type][1] + match.for_, match))
    first = min(due, key=lambda pair: pair[0], default=None)
    if first and first[0] <= now:
        return _held_for(node, first[1], Reason.MAINTENANCE), None
    kept = Want(Reason.MAINTENANCE) if standing and stale else None
    return kept, first[0] if first else None


def _held_for(node: Node, match: ConditionMatch, reason: Reason) -> Want:
    condition = node.condition(match.type)
    status, why = (condition.status, condition.reason) if condition else ("", "")
    message = f"{match.type} is {status} for over {format_duration(match.for_)}" + (f" ({why})" if why else "")
    return Want(reason, message, _of(condition) if condition else "")
