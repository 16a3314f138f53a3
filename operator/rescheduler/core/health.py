"""How a node is, by its policy and by what was seen of it over time: whether it failed, and how sure that is."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from rescheduler.api.policies import ConditionMatch, Failure, Policy
from rescheduler.core.facts import Node
from rescheduler.core.sightings import Sighting, matching


class Health(StrEnum):
    """The first that is true."""

    FAILED = "Failed"  # a condition has held for its time
    SUSPECTED = "Suspected"  # its Lease is silent; the node controller is not sure yet
    FLAPPING = "Flapping"  # it comes and goes, and nothing has held for its time
    AILING = "Ailing"  # a condition holds, not for long enough
    WELL = "Well"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What is wrong with a node.

    Attributes:
        match: the condition that has held for its time, where it failed.
        until: when only time would change what is said here; None where it would not.
    """

    health: Health
    match: ConditionMatch | None = None
    until: datetime | None = None


def diagnose(
    node: Node, policy: Policy | None, seen: Sighting, now: datetime, *, standing: bool = False, suspected: bool = False
) -> Diagnosis:
    """How the node is; `standing`: its failure is known: it is not starting, and a condition that has gone stale since
    does not end it.
    """
    if policy is None or not policy.spec.failure.enabled:
        return Diagnosis(Health.WELL)
    failure = policy.spec.failure
    if not standing and (grace := _grace(node, seen, failure, now)):
        return Diagnosis(Health.WELL, until=grace)
    held = [match for match in failure.conditions if _holds(node, match, seen, now, standing=standing)]
    due = [(seen.since[match.type][1] + match.for_, match) for match in held if match.type in seen.since]
    first = min(due, key=lambda pair: pair[0], default=None)
    if first and first[0] <= now:
        return Diagnosis(Health.FAILED, first[1])
    later = first[0] if first else None
    if suspected and failure.lease_timeout:
        return Diagnosis(Health.SUSPECTED, until=later)
    if quiet := flapping_until(seen, failure, now):
        return Diagnosis(Health.FLAPPING, until=min(quiet, later) if later else quiet)
    return Diagnosis(Health.AILING if held else Health.WELL, until=later)


def _grace(node: Node, seen: Sighting, failure: Failure, now: datetime) -> datetime | None:
    """Until when a node that was never Ready is only starting; None where it is not."""
    if seen.was_ready or node.created is None:
        return None
    end = node.created + failure.startup_grace
    return end if now < end else None


def _holds(node: Node, match: ConditionMatch, seen: Sighting, now: datetime, *, standing: bool) -> bool:
    if standing and match.type in seen.ailing:
        return matching(node, match) is not None
    return seen.holds(node, match, now)


def flapping_until(seen: Sighting, failure: Failure, now: datetime) -> datetime | None:
    """Until when a node that comes and goes must be quiet; None where it does not flap."""
    within = failure.flapping.within
    recent = [begin for begin in seen.begins if begin > now - within]
    return max(recent) + within if len(recent) >= failure.flapping.changes else None


def counts(
    node: Node, policy: Policy | None, seen: Sighting | None, now: datetime, *, suspected: bool, standing: bool = False
) -> bool:
    """Whether the storm brake counts the node as unhealthy: a condition holds, for its time or not, or it is suspected."""
    if policy is None or seen is None or (not standing and _grace(node, seen, policy.spec.failure, now)):
        return False
    return suspected or any(seen.holds(node, match, now) for match in policy.spec.failure.conditions)


def recovered_at(seen: Sighting, recover_after: timedelta) -> datetime | None:
    """From when a node that failed counts as well again; None while it is not well at all."""
    return seen.healthy_since + recover_after if seen.healthy_since else None
