"""What a node asks for: maintenance by its annotation or conditions, failure by its conditions or its silence."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from rescheduler.api.drains import NodeDrain, Reason
from rescheduler.api.policies import ConditionMatch, Policy
from rescheduler.api.scalars import format_duration
from rescheduler.core.failure.condition_history import DEFAULT, Sighting, matching
from rescheduler.core.failure.health import Health, causes, diagnose, recovered_at
from rescheduler.core.model.nodes import Node, NodeCondition

REFUSED_VALUE = "false"
"""A maintenance annotation with this value is refused: it asks for the opposite of what it would do."""
_LONGEST_TOKEN = 256
"""Characters. A node's annotations hold 256 KiB together: a copy of a longer text might have no room beside it."""


@dataclass(frozen=True, slots=True)
class Want:
    """One reason for which a node should be emptied.

    Attributes:
        token: tells this request from a later one of the same reason (the `cancelled` annotation holds it); None: it
            cannot be told.
        goes_on: it says nothing new, and keeps the words that it came with.
    """

    reason: Reason
    message: str = ""
    token: str | None = None
    goes_on: bool = False


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
        standing: the requests that its NodeDrain holds already, with their words.
        suspected: its Lease is silent.
        heard: its Lease is renewed.
        blind: we do not see the cluster as it is: nothing of failure starts or ends.
    """

    standing: Mapping[Reason, str] = field(default_factory=dict)
    suspected: bool = False
    heard: bool = False
    blind: bool = False


def standing(drain: NodeDrain | None) -> Mapping[Reason, str]:
    """The requests of a NodeDrain, with their words."""
    return {request.reason: request.message for request in drain.spec.requests} if drain else {}


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
    elif kept := _maintenance_kept(node, view):
        wants.insert(0, kept)
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
        else:
            over = seen.healthy_since is not None and not _still_asks(node, noted)
            if over or any(want.reason == reason for want in wants.requests):
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
    kept = Want(Reason.FAILURE, goes_on=True)
    if view.blind:
        return (kept if standing else None), None
    if policy is None or not policy.spec.failure.enabled:
        return _failure_kept(node, policy, seen, now, view)
    found = diagnose(node, policy, seen, now, standing=standing, suspected=view.suspected, heard=view.heard)
    match found.health:
        case Health.FAILED if found.match:
            return _held_for(node, found.match, Reason.FAILURE), found.until
        case Health.SUSPECTED:
            silent = format_duration(policy.spec.failure.lease_timeout or timedelta())
            return Want(Reason.FAILURE, f"suspected: its Lease has been silent for over {silent}", "Lease"), found.until
        case Health.FLAPPING:
            last = max(begin.at for begin in seen.begins)
            often = f"its conditions began to fail {len(seen.begins)} times"
            within = format_duration(policy.spec.failure.flapping.within)
            return Want(
                Reason.FAILURE, f"flapping: {often} within {within}", f"Flapping {last.isoformat()}"
            ), found.until
    well = recovered_at(seen, policy.spec.failure.recover_after)
    if standing and (well is None or now < well):
        return kept, well or found.until
    return None, found.until


def _failure_kept(
    node: Node, policy: Policy | None, seen: Sighting, now: datetime, view: View
) -> tuple[Want | None, datetime | None]:
    """A failure for which a drain stands, while no policy decides or `failure` is disabled: the node is as ill as before.

    It ends as usual, once the node has been healthy for long enough.
    """
    if Reason.FAILURE not in view.standing:
        return None, None
    well = recovered_at(seen, (policy.spec.failure if policy else DEFAULT).recover_after)
    if well and now >= well:
        return None, None
    first = next(iter(causes(node, seen.matches, seen, heard=view.heard)), None)
    condition = node.condition(first.match.type) if first and first.match else None
    return Want(Reason.FAILURE, token=_of(condition) if condition else None, goes_on=True), well


def _maintenance_kept(node: Node, view: View) -> Want | None:
    """Maintenance that a condition asked for, while no policy decides or `maintenance` is disabled: it still does."""
    match = named(view.standing.get(Reason.MAINTENANCE, ""))
    condition = matching(node, match) if match else None
    return Want(Reason.MAINTENANCE, token=_of(condition), goes_on=True) if condition else None


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
    kept = Want(Reason.MAINTENANCE, goes_on=True) if standing and stale else None
    return kept, first[0] if first else None


_HELD_FOR = re.compile(r"([A-Za-z0-9._/-]{1,316}) is (True|False|Unknown) for over ")


def named(message: str) -> ConditionMatch | None:
    """The condition that the words of a request name; None where they name none."""
    found = _HELD_FOR.match(message)
    try:
        return ConditionMatch(type=found[1], status=(found[2],)) if found else None
    except ValueError:
        return None  # words of somebody else


def _held_for(node: Node, match: ConditionMatch, reason: Reason) -> Want:
    condition = node.condition(match.type)
    status, why = (condition.status, condition.reason) if condition else ("", "")
    message = f"{match.type} is {status} for over {format_duration(match.for_)}" + (f" ({why})" if why else "")
    return Want(reason, message, _of(condition) if condition else "")
