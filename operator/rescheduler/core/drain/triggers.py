"""What a node asks for: maintenance by its annotation or conditions, failure by its conditions or its silence."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from rescheduler.api.drains import NodeDrain, RequestReason
from rescheduler.api.policies import ConditionMatch, ReschedulePolicy
from rescheduler.api.scalars import format_duration
from rescheduler.core.failure.condition_history import DEFAULT_FAILURE_SETTINGS, ConditionHistory, matching_condition
from rescheduler.core.failure.health import Health, diagnose, failure_causes, recovered_at
from rescheduler.core.model.nodes import Node, NodeCondition

REFUSED_MAINTENANCE_VALUE = "false"
"""A maintenance annotation with this value is refused: it asks for the opposite of what it would do."""
_MAX_TOKEN_LENGTH = 256
"""Characters. A node's annotations hold 256 KiB together: a copy of a longer text might have no room beside it."""


@dataclass(frozen=True, slots=True)
class WantedRequest:
    """One reason for which a node should be emptied.

    Attributes:
        token: tells this request from a later one of the same reason (the `cancelled` annotation holds it); None: it
            cannot be told.
        goes_on: it says nothing new, and keeps the words that it came with.
    """

    reason: RequestReason
    message: str = ""
    token: str | None = None
    is_unchanged: bool = False


@dataclass(frozen=True, slots=True)
class WantedRequests:
    """All that a node asks for now, and when to look again for what only time changes."""

    requests: tuple[WantedRequest, ...] = ()
    recheck_at: datetime | None = None
    refused: bool = False  # the annotation's value makes no sense


@dataclass(frozen=True, slots=True)
class TriggerContext:
    """What beside the node itself decides over what it asks for.

    Attributes:
        standing: the requests that its NodeDrain holds already, with their words.
        suspected: its Lease is silent.
        heard: its Lease is renewed.
        blind: we do not see the cluster as it is: nothing of failure starts or ends.
    """

    existing_requests: Mapping[RequestReason, str] = field(default_factory=dict)
    suspected: bool = False
    lease_renewed: bool = False
    view_is_stale: bool = False


def existing_requests(drain: NodeDrain | None) -> Mapping[RequestReason, str]:
    """The requests of a NodeDrain, with their words."""
    return {request.reason: request.message for request in drain.spec.requests} if drain else {}


def wanted_requests(
    node: Node, policy: ReschedulePolicy | None, history: ConditionHistory, now: datetime, context: TriggerContext
) -> WantedRequests:
    """What the node asks for."""
    failure, again = _failure_request(node, policy, history, now, context)
    refused = node.maintenance_annotation == REFUSED_MAINTENANCE_VALUE
    wants = [failure] if failure else []
    if node.maintenance_annotation is not None and not refused:
        wants.insert(
            0, WantedRequest(RequestReason.MAINTENANCE, node.maintenance_annotation, token(node.maintenance_annotation))
        )
    elif policy and policy.spec.maintenance.enabled:
        asked, later = _maintenance_request(node, policy, history, now, context)
        wants[:0] = [asked] if asked else []
        again = min((time for time in (again, later) if time), default=None)
    elif kept := _kept_maintenance_request(node, context):
        wants.insert(0, kept)
    live = tuple(want for want in wants if want.token is None or node.cancelled_requests.get(want.reason) != want.token)
    return WantedRequests(live, again, refused)


def token(text: str) -> str:
    """Return the text, or the hash that stands for a long one in the `cancelled` annotation."""
    if len(text) <= _MAX_TOKEN_LENGTH:
        return text
    return f"sha256:{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()}"


def stale_cancellations(node: Node, wanted: WantedRequests, history: ConditionHistory) -> tuple[str, ...]:
    """Entries of the node's `cancelled` annotation whose request is gone or has changed."""
    stale = []
    for reason, noted in node.cancelled_requests.items():
        if reason == RequestReason.MAINTENANCE and node.maintenance_annotation is not None:
            if token(node.maintenance_annotation) != noted:
                stale.append(reason)
        elif reason == RequestReason.MAINTENANCE:
            if not _is_condition_unchanged(node, noted):
                stale.append(reason)
        else:
            over = history.healthy_since is not None and not _is_condition_unchanged(node, noted)
            if over or any(want.reason == reason for want in wanted.requests):
                stale.append(reason)
    return tuple(stale)


def _is_condition_unchanged(node: Node, cancelled_token: str) -> bool:
    """Whether the condition that a cancelled request came from is still as it was then."""
    return any(_condition_token(condition) == cancelled_token for condition in node.conditions)


def _condition_token(condition: NodeCondition) -> str:
    at = condition.last_transition.isoformat() if condition.last_transition else ""
    return token(f"{condition.type}={condition.status} {at}")


def _failure_request(
    node: Node, policy: ReschedulePolicy | None, history: ConditionHistory, now: datetime, context: TriggerContext
) -> tuple[WantedRequest | None, datetime | None]:
    standing = RequestReason.FAILURE in context.existing_requests
    kept = WantedRequest(RequestReason.FAILURE, is_unchanged=True)
    if context.view_is_stale:
        return (kept if standing else None), None
    if policy is None or not policy.spec.failure.enabled:
        return _kept_failure_request(node, policy, history, now, context)
    found = diagnose(
        node,
        policy,
        history,
        now,
        failure_known=standing,
        suspected=context.suspected,
        lease_renewed=context.lease_renewed,
    )
    match found.health:
        case Health.FAILED if found.match:
            return _condition_request(node, found.match, RequestReason.FAILURE), found.recheck_at
        case Health.SUSPECTED:
            silent = format_duration(policy.spec.failure.lease_timeout or timedelta())
            return WantedRequest(
                RequestReason.FAILURE, f"suspected: its Lease has been silent for over {silent}", "Lease"
            ), found.recheck_at
        case Health.FLAPPING:
            last = max(begin.at for begin in history.failure_starts)
            often = f"its conditions began to fail {len(history.failure_starts)} times"
            within = format_duration(policy.spec.failure.flapping.within)
            return WantedRequest(
                RequestReason.FAILURE, f"flapping: {often} within {within}", f"Flapping {last.isoformat()}"
            ), found.recheck_at
    well = recovered_at(history, policy.spec.failure.recover_after)
    if standing and (well is None or now < well):
        return kept, well or found.recheck_at
    return None, found.recheck_at


def _kept_failure_request(
    node: Node, policy: ReschedulePolicy | None, history: ConditionHistory, now: datetime, context: TriggerContext
) -> tuple[WantedRequest | None, datetime | None]:
    """A failure for which a drain stands, while no policy decides or `failure` is disabled: the node is as ill as before.

    It ends as usual, once the node has been healthy for long enough.
    """
    if RequestReason.FAILURE not in context.existing_requests:
        return None, None
    well = recovered_at(history, (policy.spec.failure if policy else DEFAULT_FAILURE_SETTINGS).recover_after)
    if well and now >= well:
        return None, None
    first = next(
        iter(failure_causes(node, history.condition_matches, history, lease_renewed=context.lease_renewed)), None
    )
    condition = node.condition(first.match.type) if first and first.match else None
    return WantedRequest(
        RequestReason.FAILURE, token=_condition_token(condition) if condition else None, is_unchanged=True
    ), well


def _kept_maintenance_request(node: Node, context: TriggerContext) -> WantedRequest | None:
    """Maintenance that a condition asked for, while no policy decides or `maintenance` is disabled: it still does."""
    match = parse_condition_message(context.existing_requests.get(RequestReason.MAINTENANCE, ""))
    condition = matching_condition(node, match) if match else None
    return (
        WantedRequest(RequestReason.MAINTENANCE, token=_condition_token(condition), is_unchanged=True)
        if condition
        else None
    )


def _maintenance_request(
    node: Node, policy: ReschedulePolicy, history: ConditionHistory, now: datetime, context: TriggerContext
) -> tuple[WantedRequest | None, datetime | None]:
    """Conditions that ask for maintenance as the annotation does; one that has gone stale neither starts nor ends it."""
    standing = RequestReason.MAINTENANCE in context.existing_requests
    due, stale = [], False
    for match in policy.spec.maintenance.conditions:
        condition = node.condition(match.type)
        if condition and history.is_stale(condition, now):
            stale = True
        elif match.type in history.status_since and matching_condition(node, match):
            due.append((history.status_since[match.type][1] + match.for_, match))
    first = min(due, key=lambda pair: pair[0], default=None)
    if first and first[0] <= now:
        return _condition_request(node, first[1], RequestReason.MAINTENANCE), None
    kept = WantedRequest(RequestReason.MAINTENANCE, is_unchanged=True) if standing and stale else None
    return kept, first[0] if first else None


_CONDITION_MESSAGE = re.compile(r"([A-Za-z0-9._/-]{1,316}) is (True|False|Unknown) for over ")


def parse_condition_message(message: str) -> ConditionMatch | None:
    """The condition that the words of a request name; None where they name none."""
    found = _CONDITION_MESSAGE.match(message)
    try:
        return ConditionMatch(type=found[1], status=(found[2],)) if found else None
    except ValueError:
        return None  # words of somebody else


def _condition_request(node: Node, match: ConditionMatch, reason: RequestReason) -> WantedRequest:
    condition = node.condition(match.type)
    status, why = (condition.status, condition.reason) if condition else ("", "")
    message = f"{match.type} is {status} for over {format_duration(match.for_)}" + (f" ({why})" if why else "")
    return WantedRequest(reason, message, _condition_token(condition) if condition else "")
