"""Diagnose a node by its policy and its history: whether it has failed, and how certain the failure is."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from rescheduler.api.policies import ConditionMatch, FailureSettings, ReschedulePolicy
from rescheduler.core.failure.causes import LEASE_NOT_RENEWED, READY_UNKNOWN, FailureCause, cause_name, certainty_of
from rescheduler.core.failure.condition_history import ConditionHistory, matching_condition
from rescheduler.core.model.nodes import Node


class Health(StrEnum):
    """The health of a node; the first value that applies."""

    FAILED = "Failed"  # a condition has held for its `for`
    SUSPECTED = "Suspected"  # the Lease is silent, and Ready is not Unknown yet
    FLAPPING = "Flapping"  # conditions began to fail often, and none has held for its `for`
    UNHEALTHY = "Ailing"  # a condition holds, but not for its `for` yet
    HEALTHY = "Well"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The health of a node, with its causes.

    Attributes:
        health: the first value that applies.
        match: the entry of the policy for the most certain cause; None unless the node has failed.
        recheck_at: when the diagnosis changes without a new observation; None: it does not.
        causes: all conditions that have held for their `for`, and a suspicion; the most certain first.
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
    """Return the health of the node.

    `failure_known`: the node has a drain for its failure. It then has no startup grace, and a condition that became stale
    does not end the failure. `suspected`: its Lease is silent. `lease_renewed`: its Lease is renewed.
    """
    if policy is None or not policy.spec.failure.enabled:
        return Diagnosis(Health.HEALTHY)
    failure = policy.spec.failure
    if not failure_known and (grace := _startup_grace_end(node, history, failure, now)):
        return Diagnosis(Health.HEALTHY, recheck_at=grace)
    met = [match for match in failure.conditions if _is_met(node, match, history, now, failure_known=failure_known)]
    deadlines = [
        (history.status_since[match.type][1] + match.for_, match) for match in met if match.type in history.status_since
    ]
    next_deadline = min((time for time, _ in deadlines if time > now), default=None)
    past_deadline = (match for time, match in deadlines if time <= now)
    causes = failure_causes(node, past_deadline, history, lease_renewed=lease_renewed)
    suspicion = (LEASE_NOT_RENEWED,) if suspected and failure.lease_timeout else ()
    if causes:
        return Diagnosis(Health.FAILED, causes[0].match, next_deadline, _sorted((*causes, *suspicion)))
    if suspicion:
        return Diagnosis(Health.SUSPECTED, recheck_at=next_deadline, causes=suspicion)
    if quiet_at := flapping_until(history, failure, now):
        return Diagnosis(Health.FLAPPING, recheck_at=min(quiet_at, next_deadline) if next_deadline else quiet_at)
    return Diagnosis(Health.UNHEALTHY if met else Health.HEALTHY, recheck_at=next_deadline)


def failure_causes(
    node: Node, matches: Iterable[ConditionMatch], history: ConditionHistory, *, lease_renewed: bool = False
) -> tuple[FailureCause, ...]:
    """Return the conditions that the node has as causes of its failure, the most certain first."""
    causes = []
    for match in matches:
        if condition := matching_condition(node, match):
            certainty = certainty_of(condition.type, condition.status, lease_renewed=lease_renewed)
            name = cause_name(condition.type, condition.status, lease_renewed=lease_renewed)
            since = history.status_since.get(match.type)
            causes.append(FailureCause(certainty, name, since[1] if since else None, match))
    return _sorted(causes)


def _sorted(causes: Iterable[FailureCause]) -> tuple[FailureCause, ...]:
    return tuple(sorted(causes, key=lambda cause: cause.sort_key))


def _startup_grace_end(
    node: Node, history: ConditionHistory, failure: FailureSettings, now: datetime
) -> datetime | None:
    """Return the end of the startup grace of a node that was never Ready; None if the grace does not apply."""
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
    """Return until when a flapping node must stay quiet; None if the node does not flap.

    `braked_causes`: names of causes that do not count, because a storm brakes them.
    """
    within = failure.flapping.within
    recent_starts = [
        start.at for start in history.failure_starts if start.at > now - within and start.cause not in braked_causes
    ]
    return max(recent_starts) + within if len(recent_starts) >= failure.flapping.changes else None


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
    """Return the names of all causes for which the storm brake counts the node.

    These are the conditions that hold, before or after their `for`, and a silent Lease. A stale condition counts while
    the node has a drain for it: if the agents of many nodes end together, the brake must not open.
    """
    if (
        policy is None
        or history is None
        or (not failure_known and _startup_grace_end(node, history, policy.spec.failure, now))
    ):
        return frozenset()
    met = (
        match
        for match in policy.spec.failure.conditions
        if _is_met(node, match, history, now, failure_known=failure_known)
    )
    cause_names = {cause.name for cause in failure_causes(node, met, history, lease_renewed=lease_renewed)}
    return frozenset(cause_names | ({READY_UNKNOWN} if suspected else set()))


def recovered_at(history: ConditionHistory, recover_after: timedelta) -> datetime | None:
    """Return when a failed node counts as recovered; None while it is unhealthy."""
    return history.healthy_since + recover_after if history.healthy_since else None
