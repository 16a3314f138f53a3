"""How a node is, by its policy and by what was seen of it over time: whether it failed, and how sure that is."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from rescheduler.api.policies import ConditionMatch, FailureSettings, ReschedulePolicy
from rescheduler.core.failure.causes import LEASE_NOT_RENEWED, READY_UNKNOWN, FailureCause, cause_name, certainty_of
from rescheduler.core.failure.condition_history import ConditionHistory, matching_condition
from rescheduler.core.model.nodes import Node


class Health(StrEnum):
    """The first that is true."""

    FAILED = "Failed"  # a condition has held for its time
    SUSPECTED = "Suspected"  # its Lease is silent; the node controller is not sure yet
    FLAPPING = "Flapping"  # it comes and goes, and nothing has held for its time
    UNHEALTHY = "Ailing"  # a condition holds, not for long enough
    HEALTHY = "Well"


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
    recheck_at: datetime | None = None
    causes: tuple[FailureCause, ...] = ()


def diagnose(
    node: Node,
    policy: ReschedulePolicy | None,
    history: ConditionHistory,
    now: datetime,
    *,
    failure_known: bool = False,
    suspected: bool = False,
    lease_renewed: bool = False,
) -> Diagnosis:
    """How the node is; `standing`: its failure is known: it is not starting, and a condition that has gone stale since
    does not end it. `heard`: its Lease is renewed.
    """
    if policy is None or not policy.spec.failure.enabled:
        return Diagnosis(Health.HEALTHY)
    failure = policy.spec.failure
    if not failure_known and (grace := _startup_grace_end(node, history, failure, now)):
        return Diagnosis(Health.HEALTHY, recheck_at=grace)
    held = [match for match in failure.conditions if _is_met(node, match, history, now, failure_known=failure_known)]
    due = [
        (history.status_since[match.type][1] + match.for_, match)
        for match in held
        if match.type in history.status_since
    ]
    later = min((time for time, _ in due if time > now), default=None)
    found = failure_causes(node, (match for time, match in due if time <= now), history, lease_renewed=lease_renewed)
    doubt = (LEASE_NOT_RENEWED,) if suspected and failure.lease_timeout else ()
    if found:
        return Diagnosis(Health.FAILED, found[0].match, later, _sorted((*found, *doubt)))
    if doubt:
        return Diagnosis(Health.SUSPECTED, recheck_at=later, causes=doubt)
    if quiet := flapping_until(history, failure, now):
        return Diagnosis(Health.FLAPPING, recheck_at=min(quiet, later) if later else quiet)
    return Diagnosis(Health.UNHEALTHY if held else Health.HEALTHY, recheck_at=later)


def failure_causes(
    node: Node, matches: Iterable[ConditionMatch], history: ConditionHistory, *, lease_renewed: bool = False
) -> tuple[FailureCause, ...]:
    """These conditions as causes of a failure, the most certain first; of one that the node does not have, none."""
    found = []
    for match in matches:
        if condition := matching_condition(node, match):
            certainty = certainty_of(condition.type, condition.status, lease_renewed=lease_renewed)
            name = cause_name(condition.type, condition.status, lease_renewed=lease_renewed)
            since = history.status_since.get(match.type)
            found.append(FailureCause(certainty, name, since[1] if since else None, match))
    return _sorted(found)


def _sorted(causes: Iterable[FailureCause]) -> tuple[FailureCause, ...]:
    return tuple(sorted(causes, key=lambda cause: cause.sort_key))


def _startup_grace_end(
    node: Node, history: ConditionHistory, failure: FailureSettings, now: datetime
) -> datetime | None:
    """Until when a node that was never Ready is only starting; None where it is not."""
    if history.was_ready or node.created is None:
        return None
    end = node.created + failure.startup_grace
    return end if now < end else None


def _is_met(
    node: Node, match: ConditionMatch, history: ConditionHistory, now: datetime, *, failure_known: bool
) -> bool:
    if failure_known and match.type in history.failing_conditions:
        return matching_condition(node, match) is not None
    return history.is_met(node, match, now)


def flapping_until(
    history: ConditionHistory, failure: FailureSettings, now: datetime, braked_causes: Collection[str] = ()
) -> datetime | None:
    """Until when a node that comes and goes must be quiet; None where it does not flap.

    `braked`: names of causes that do not count.
    """
    within = failure.flapping.within
    recent = [
        begin.at for begin in history.failure_starts if begin.at > now - within and begin.cause not in braked_causes
    ]
    return max(recent) + within if len(recent) >= failure.flapping.changes else None


def unhealthy_cause_names(
    node: Node,
    policy: ReschedulePolicy | None,
    history: ConditionHistory | None,
    now: datetime,
    *,
    suspected: bool,
    lease_renewed: bool = False,
    failure_known: bool = False,
) -> frozenset[str]:
    """Names of all causes for which the storm brake counts the node: conditions that hold, for their time or not, and
    the silence of its Lease.

    A condition that has gone stale counts as long as the node has a drain because of it: the agents of many nodes that
    end together must not open the brake.
    """
    if (
        policy is None
        or history is None
        or (not failure_known and _startup_grace_end(node, history, policy.spec.failure, now))
    ):
        return frozenset()
    held = (
        match
        for match in policy.spec.failure.conditions
        if _is_met(node, match, history, now, failure_known=failure_known)
    )
    found = {cause.name for cause in failure_causes(node, held, history, lease_renewed=lease_renewed)}
    return frozenset(found | ({READY_UNKNOWN} if suspected else set()))


def recovered_at(history: ConditionHistory, recover_after: timedelta) -> datetime | None:
    """From when a node that failed counts as well again; None while it is not well at all."""
    return history.healthy_since + recover_after if history.healthy_since else None
