"""Derive the requests of a node: maintenance by annotation or conditions, failure by conditions or its Lease."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from rescheduler.api.drains import NodeDrain, RequestReason
from rescheduler.api.policies import ConditionMatch, ReschedulePolicy
from rescheduler.core.drain import messages
from rescheduler.core.failure.condition_history import DEFAULT_FAILURE_SETTINGS, ConditionHistory, matching_condition
from rescheduler.core.failure.health import Health, diagnose, failure_causes, recovered_at
from rescheduler.core.model.nodes import Node, NodeCondition

REFUSED_MAINTENANCE_VALUE = "false"
"""The value `false` is refused: the presence of the annotation is the request, so the value contradicts it."""
_MAX_TOKEN_LENGTH = 256
"""Characters. All annotations of a node share 256 KiB: a copy of a longer value might not fit."""


@dataclass(frozen=True, slots=True)
class WantedRequest:
    """A wanted request.

    Attributes:
        reason: Maintenance or Failure.
        message: the text for the user.
        token: identifies this request in the annotation `cancelled`; None if nothing identifies the request.
        is_unchanged: the request stands, and the NodeDrain keeps its message.
    """

    reason: RequestReason
    message: str = ""
    token: str | None = None
    is_unchanged: bool = False


@dataclass(frozen=True, slots=True)
class WantedRequests:
    """The wanted requests of a node.

    Attributes:
        requests: the requests now.
        recheck_at: when the requests may change by time only; None if never.
        refused: the maintenance annotation has a refused value.
    """

    requests: tuple[WantedRequest, ...] = ()
    recheck_at: datetime | None = None
    refused: bool = False


@dataclass(frozen=True, slots=True)
class TriggerContext:
    """Facts next to the Node that decide about its requests.

    Attributes:
        existing_requests: the requests of the NodeDrain, with their messages.
        suspected: the Lease is silent.
        lease_renewed: the Lease is renewed.
        view_is_stale: the view of the cluster is stale, so no failure request starts or ends.
    """

    existing_requests: Mapping[RequestReason, str] = field(default_factory=dict)
    suspected: bool = False
    lease_renewed: bool = False
    view_is_stale: bool = False


def existing_requests(drain: NodeDrain | None) -> Mapping[RequestReason, str]:
    """Return the requests of a NodeDrain with their messages."""
    return {request.reason: request.message for request in drain.spec.requests} if drain else {}


def wanted_requests(
    node: Node, policy: ReschedulePolicy | None, history: ConditionHistory, now: datetime, context: TriggerContext
) -> WantedRequests:
    """Return the wanted requests of the node."""
    failure, recheck_at = _failure_request(node, policy, history, now, context)
    refused = node.maintenance_annotation == REFUSED_MAINTENANCE_VALUE
    requests = [failure] if failure else []
    if node.maintenance_annotation is not None and not refused:
        requests.insert(
            0, WantedRequest(RequestReason.MAINTENANCE, node.maintenance_annotation, token(node.maintenance_annotation))
        )
    elif policy and policy.spec.maintenance.enabled:
        requested, maintenance_recheck_at = _maintenance_request(node, policy, history, now, context)
        requests[:0] = [requested] if requested else []
        recheck_at = min((time for time in (recheck_at, maintenance_recheck_at) if time), default=None)
    elif kept_request := _kept_maintenance_request(node, context):
        requests.insert(0, kept_request)
    not_cancelled = tuple(
        request
        for request in requests
        if request.token is None or node.cancelled_requests.get(request.reason) != request.token
    )
    return WantedRequests(not_cancelled, recheck_at, refused)


def token(text: str) -> str:
    """Return the text, or the hash that stands for a long one in the `cancelled` annotation."""
    if len(text) <= _MAX_TOKEN_LENGTH:
        return text
    return f"sha256:{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()}"


def stale_cancellations(node: Node, wanted: WantedRequests, history: ConditionHistory) -> tuple[str, ...]:
    """Return entries of the annotation `cancelled` whose request has ended or changed."""
    stale = []
    for reason, cancelled_token in node.cancelled_requests.items():
        if reason == RequestReason.MAINTENANCE and node.maintenance_annotation is not None:
            if token(node.maintenance_annotation) != cancelled_token:
                stale.append(reason)
        elif reason == RequestReason.MAINTENANCE:
            if not _is_condition_unchanged(node, cancelled_token):
                stale.append(reason)
        else:
            has_ended = history.healthy_since is not None and not _is_condition_unchanged(node, cancelled_token)
            if has_ended or any(request.reason == reason for request in wanted.requests):
                stale.append(reason)
    return tuple(stale)


def _is_condition_unchanged(node: Node, cancelled_token: str) -> bool:
    """Whether the condition of a cancelled request is unchanged since the cancellation."""
    return any(_condition_token(condition) == cancelled_token for condition in node.conditions)


def _condition_token(condition: NodeCondition) -> str:
    at = condition.last_transition.isoformat() if condition.last_transition else ""
    return token(f"{condition.type}={condition.status} {at}")


def _failure_request(
    node: Node, policy: ReschedulePolicy | None, history: ConditionHistory, now: datetime, context: TriggerContext
) -> tuple[WantedRequest | None, datetime | None]:
    has_request = RequestReason.FAILURE in context.existing_requests
    kept_request = WantedRequest(RequestReason.FAILURE, is_unchanged=True)
    if context.view_is_stale:
        return (kept_request if has_request else None), None
    if policy is None or not policy.spec.failure.enabled:
        return _kept_failure_request(node, policy, history, now, context)
    diagnosis = diagnose(
        node,
        policy,
        history,
        now,
        failure_known=has_request,
        suspected=context.suspected,
        lease_renewed=context.lease_renewed,
    )
    match diagnosis.health:
        case Health.FAILED if diagnosis.match:
            return _condition_request(node, diagnosis.match, RequestReason.FAILURE), diagnosis.recheck_at
        case Health.SUSPECTED:
            message = messages.suspected_request(policy.spec.failure.lease_timeout or timedelta())
            return WantedRequest(RequestReason.FAILURE, message, "Lease"), diagnosis.recheck_at
        case Health.FLAPPING:
            last_start = max(begin.at for begin in history.failure_starts)
            within = policy.spec.failure.flapping.within
            message = messages.flapping_request(len(history.failure_starts), within)
            return WantedRequest(
                RequestReason.FAILURE, message, f"Flapping {last_start.isoformat()}"
            ), diagnosis.recheck_at
    recovers_at = recovered_at(history, policy.spec.failure.recover_after)
    if has_request and (recovers_at is None or now < recovers_at):
        return kept_request, recovers_at or diagnosis.recheck_at
    return None, diagnosis.recheck_at


def _kept_failure_request(
    node: Node, policy: ReschedulePolicy | None, history: ConditionHistory, now: datetime, context: TriggerContext
) -> tuple[WantedRequest | None, datetime | None]:
    """Return the failure request that stays while no policy decides or `failure` is disabled.

    The request ends when the node has been healthy for `recoverAfter`.
    """
    if RequestReason.FAILURE not in context.existing_requests:
        return None, None
    recovers_at = recovered_at(history, (policy.spec.failure if policy else DEFAULT_FAILURE_SETTINGS).recover_after)
    if recovers_at and now >= recovers_at:
        return None, None
    cause = next(
        iter(failure_causes(node, history.condition_matches, history, lease_renewed=context.lease_renewed)), None
    )
    condition = node.condition(cause.match.type) if cause and cause.match else None
    return WantedRequest(
        RequestReason.FAILURE, token=_condition_token(condition) if condition else None, is_unchanged=True
    ), recovers_at


def _kept_maintenance_request(node: Node, context: TriggerContext) -> WantedRequest | None:
    """Return the maintenance request of a condition, while no policy decides or `maintenance` is disabled."""
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
    """Return the maintenance request of a node condition; a stale condition neither starts nor ends a request."""
    has_request = RequestReason.MAINTENANCE in context.existing_requests
    due_matches, is_stale = [], False
    for match in policy.spec.maintenance.conditions:
        condition = node.condition(match.type)
        if condition and history.is_stale(condition, now):
            is_stale = True
        elif match.type in history.status_since and matching_condition(node, match):
            due_matches.append((history.status_since[match.type][1] + match.for_, match))
    first = min(due_matches, key=lambda pair: pair[0], default=None)
    if first and first[0] <= now:
        return _condition_request(node, first[1], RequestReason.MAINTENANCE), None
    kept_request = WantedRequest(RequestReason.MAINTENANCE, is_unchanged=True) if has_request and is_stale else None
    return kept_request, first[0] if first else None


_CONDITION_MESSAGE = re.compile(r"([A-Za-z0-9._/-]{1,316}) is (True|False|Unknown) for over ")


def parse_condition_message(message: str) -> ConditionMatch | None:
    """Return the condition that a request message names; None if the message names none."""
    parsed = _CONDITION_MESSAGE.match(message)
    try:
        return ConditionMatch(type=parsed[1], status=(parsed[2],)) if parsed else None
    except ValueError:
        return None  # a message that a user wrote


def _condition_request(node: Node, match: ConditionMatch, reason: RequestReason) -> WantedRequest:
    condition = node.condition(match.type)
    status, condition_reason = (condition.status, condition.reason) if condition else ("", "")
    message = messages.condition_request(match.type, status, match.for_, condition_reason)
    return WantedRequest(reason, message, _condition_token(condition) if condition else "")
