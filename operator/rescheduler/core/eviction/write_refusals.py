"""Failed writes: the cause of each, when to retry it, and when to report it.

Only a user can end some refusals (400, 403, 413, 422). These are reported at once and retried twice a minute. Any
other failure can end by itself. It is retried with back-off, and reported once it has lasted.
"""

from dataclasses import dataclass
from enum import Enum

from rescheduler.api.scalars import truncate
from rescheduler.core.eviction import messages
from rescheduler.core.eviction.api_responses import ErrorResponse

MAX_RETRY_DELAY = 30.0
"""Seconds between two attempts at a permanently refused write, and the longest back-off."""
_FIRST_DELAY = 0.1  # seconds
_MAX_RETRY_AFTER = 60.0  # seconds; the limit of Retry-After: without it, a server could stop a drain for hours
_REPORTED_FAILURES = 3  # failures in a row; fewer would report each short outage
_REPORTED_AFTER = 8.0  # seconds; a hanging webhook takes up to 30 s a response, too long for three failures
_TRANSIENT_CODES = frozenset((0, 404, 408, 409, 410, 429))
_MAX_MESSAGE_LENGTH = 400


class WriteOperation(Enum):
    """Write of a drain; `messages.FAILED_WRITES` has the text for each failed write.

    A StrEnum would equal other keys of `WriteAttempts`, such as "restore", and share their pauses.
    """

    CORDON = "cordon"
    SET_METADATA = "set_metadata"
    TAINT = "taint"
    CONDITIONS = "conditions"
    OUT_OF_SERVICE = "out_of_service"
    RESTORE = "restore"
    UNCORDON = "uncordon"
    UNTAINT = "untaint"
    REMOVE_METADATA = "remove_metadata"
    ANNOTATE_CANCELLED = "annotate_cancelled"
    STATUS = "status"
    ANNOTATE = "annotate"
    CREATE = "create"
    UPDATE_REQUESTS = "update_requests"
    DELETE = "delete"
    FINALIZER = "finalizer"
    RECONCILE = "reconcile"


@dataclass(frozen=True, slots=True)
class WriteFailure:
    """Failed write, with the text of `describe` as its cause."""

    operation: WriteOperation
    cause: str

    def __str__(self) -> str:
        return f"{messages.FAILED_WRITES[self.operation.value]}: {self.cause}"


def is_permanent(response: ErrorResponse) -> bool:
    """Whether only a user can end the refusal."""
    return 400 <= response.code < 500 and response.code not in _TRANSIENT_CODES


def is_conflict(response: ErrorResponse) -> bool:
    """Whether the object changed or is gone, so that it must be read again."""
    return response.code in (404, 409)


def is_gone(response: ErrorResponse) -> bool:
    """Whether the object does not exist. Another 404 says that no such kind is served, or comes from a proxy."""
    return response.code == 404 and response.reason == "NotFound"


def retry_delay(response: ErrorResponse, failures: int) -> float:
    """Return the seconds until the next attempt; `failures`: in a row, including this response."""
    return max(
        MAX_RETRY_DELAY if is_permanent(response) else backoff_delay(failures),
        min(response.retry_after, _MAX_RETRY_AFTER),
    )


def backoff_delay(failures: int) -> float:
    """Return the seconds to wait after this number of failures in a row."""
    return min(_FIRST_DELAY * 2.0 ** min(failures - 1, 16), MAX_RETRY_DELAY)


def is_reported(response: ErrorResponse, failures: int, lasted: float = 0.0) -> bool:
    """Whether to report the failure to users; `lasted`: seconds since the first failure in a row."""
    return is_permanent(response) or failures >= _REPORTED_FAILURES or lasted >= _REPORTED_AFTER


def may_other_write_pass(response: ErrorResponse, failures: int) -> bool:
    """Whether another write of the same object can succeed: a rule, a size or a webhook refused, not an overload."""
    return is_permanent(response) or (response.code >= 500 and failures >= _REPORTED_FAILURES)


def describe(response: ErrorResponse) -> str:
    """Return the cause and the next step; the message of the API server has at most 400 characters in it."""
    message = truncate(" ".join(response.message.split()), _MAX_MESSAGE_LENGTH)
    if not response.code:
        return messages.write_not_answered(message)
    return messages.write_refused(f"{response.code} {response.reason}".strip(), message, _next_step(response))


def _next_step(response: ErrorResponse) -> str:
    message = response.message
    if response.code == 403 and " cannot " in message and "User " in message:
        return messages.WRITE_RBAC_STEP
    if response.code == 413 or "Too long" in message or "must have at most" in message:
        return messages.WRITE_TOO_LARGE_STEP
    if "webhook" in message and response.code >= 500:
        return messages.WRITE_WEBHOOK_STEP
    if is_permanent(response):
        return messages.WRITE_DENIED_STEP
    if is_conflict(response):
        return messages.WRITE_CONFLICT_STEP
    return messages.WRITE_FAILED_STEP
