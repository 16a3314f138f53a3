"""How a node is, by its policy and by what was seen of it over time: whether it failed, and how sure that is."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from rescheduler.api.policies import ConditionMatch, Failure, Policy
from rescheduler.core.failure.causes import SILENT, SUSPICION, Cause, certainty_of, name_of
from rescheduler.core.failure.condition_history import Sighting, matching
from rescheduler.core.model.nodes import Node


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
        match: the most certain condition that has held for its time, where it failed.
        until: when only time would change what is said here; None where it would not.
        causes: all conditions that have held for their time, and the suspicion; the most certain first.
    """

    health: Health
    match: ConditionMatch | None = None
    until: datetime | None = None
    causes: tuple[Cause, ...] = ()


def diagnose(
    node: Node,
    policy: Policy | None,
    seen: Sighting,
    now: datetime,
    *,
    standing: bool = False,
    suspected: bool = False,
    heard: bool = False,
) -> Diagnosis:
    """How the node is; `standing`: its failure is known: it is not starting, and a condition that has gone stale since
    does not end it. `heard`: its Lease is renewed.
    """
    if policy is None or not policy.spec.failure.enabled:
        return Diagnosis(Health.WELL)
    failure = policy.spec.failure
    if not standing and (grace := _grace(node, seen, failure, now)):
        return Diagnosis(Health.WELL, until=grace)
    held = [match for match in failure.conditions if _holds(node, match, seen, now, standing=standing)]
    due = [(seen.since[match.type][1] + match.for_, match) for match in held if match.type in seen.since]
    later = min((time for time, _ in due if time > now), default=None)
    found = causes(node, (match for time, match in due if time <= now), seen, heard=heard)
    doubt = (SUSPICION,) if suspected and failure.lease_timeout else ()
    if found:
        return Diagnosis(Health.FAILED, found[0].match, later, _sorted((*found, *doubt)))
    if doubt:
        return Diagnosis(Health.SUSPECTED, until=later, causes=doubt)
    if quiet := flapping_until(seen, failure, now):
        return Diagnosis(Health.FLAPPING, until=min(quiet, later) if later else quiet)
    return Diagnosis(Health.AILING if held else Health.WELL, until=later)


def causes(node: Node, matches: Iterable[ConditionMatch], seen: Sighting, *, heard: bool = False) -> tuple[Cause, ...]:
    """These conditions as causes of a failure, the most certain first; of one that the node does not have, none."""
    found = []
    for match in matches:
        if condition := matching(node, match):
            certainty = certainty_of(condition.type, condition.status, heard=heard)
            name = name_of(condition.type, condition.status, heard=heard)
            since = seen.since.get(match.type)
            found.append(Cause(certainty, name, since[1] if since else None, match))
    return _sorted(found)


def _sorted(causes: Iterable[Cause]) -> tuple[Cause, ...]:
    return tuple(sorted(causes, key=lambda cause: cause.rank))


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


def flapping_until(seen: Sighting, failure: Failure, now: datetime, braked: Collection[str] = ()) -> datetime | None:
    """Until when a node that comes and goes must be quiet; None where it does not flap.

    `braked`: names of causes that do not count.
    """
    within = failure.flapping.within
    recent = [begin.at for begin in seen.begins if begin.at > now - within and begin.cause not in braked]
    return max(recent) + within if len(recent) >= failure.flapping.changes else None


def symptoms(
    node: Node,
    policy: Policy | None,
    seen: Sighting | None,
    now: datetime,
    *,
    suspected: bool,
    heard: bool = False,
    standing: bool = False,
) -> frozenset[str]:
    """Names of all causes for which the storm brake counts the node: conditions that hold, for their time or not, and
    the silence of its Lease.

    A condition that has gone stale counts as long as the node has a drain because of it: the agents of many nodes that
    end together must not open the brake.
    """
    if policy is None or seen is None or (not standing and _grace(node, seen, policy.spec.failure, now)):
        return frozenset()
    held = (match for match in policy.spec.failure.conditions if _holds(node, match, seen, now, standing=standing))
    found = {cause.name for cause in causes(node, held, seen, heard=heard)}
    return frozenset(found | ({SILENT} if suspected else set()))


def recovered_at(seen: Sighting, recover_after: timedelta) -> datetime | None:
    """From when a node that failed counts as well again; None while it is not well at all."""
    return seen.healthy_since + recover_after if seen.healthy_since else None
