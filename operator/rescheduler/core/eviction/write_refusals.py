"""Writes that the API server refused, or that it did not answer: what each means, and when it is tried again.

A refusal that only a person can end (400, 403, 413, 422) is reported at once and costs two requests a minute. Any
other failure may end by itself: it is retried with back-off, and reported once it has lasted.
"""

from dataclasses import dataclass
from enum import StrEnum

from rescheduler.api.scalars import truncate
from rescheduler.core.eviction.api_responses import ErrorResponse

MAX_RETRY_DELAY = 30.0
"""Seconds between two attempts at a write that is refused for good, and the longest back-off."""
_FIRST_DELAY = 0.1
_MAX_RETRY_AFTER = 60.0  # seconds; a server that asks for more with Retry-After is asked again all the same
_REPORTED_FAILURES = 3  # failures in a row; fewer are not worth a word
_REPORTED_AFTER = 8.0  # seconds; a webhook that hangs takes up to 30 s for each answer
_TRANSIENT_CODES = frozenset((0, 404, 408, 409, 410, 429))
_MAX_MESSAGE_LENGTH = 400


class WriteOperation(StrEnum):
    """What could not be done, as a person reads it."""

    CORDON = "the node cannot be cordoned, and nothing is moved before it is"
    SET_METADATA = "the drain's labels and annotations cannot be set on the node, and the drain goes on without them"
    TAINT = "the taint of a node that waits cannot be set, and the drain waits without it"
    CONDITIONS = "Rescheduler's conditions cannot be written on the node, and the drain goes on without them"
    OUT_OF_SERVICE = "the out-of-service taint cannot be written"
    RESTORE = "the node cannot be restored"
    UNCORDON = "the node cannot be uncordoned"
    UNTAINT = "the drain's taints cannot be removed from the node"
    REMOVE_METADATA = "the drain's labels and annotations cannot be removed from the node"
    ANNOTATE_CANCELLED = (
        "the node cannot be annotated with the cancelled request: remove rescheduler.dev/maintenance from the node"
    )
    STATUS = "the status of the NodeDrain cannot be written"
    ANNOTATE = "the NodeDrain cannot be annotated"
    CREATE = "the NodeDrain cannot be created"
    UPDATE_REQUESTS = "the requests of the NodeDrain cannot be changed"
    DELETE = "the NodeDrain cannot be deleted"
    FINALIZER = "the finalizer of the NodeDrain cannot be removed"
    RECONCILE = "the drain cannot go on"


@dataclass(frozen=True, slots=True)
class WriteFailure:
    """One act that fails, and the cause."""

    operation: WriteOperation
    cause: str

    def __str__(self) -> str:
        return f"{self.operation}: {self.cause}"


def is_permanent(response: ErrorResponse) -> bool:
    """Whether only a person can end the refusal."""
    return 400 <= response.code < 500 and response.code not in _TRANSIENT_CODES


def is_conflict(response: ErrorResponse) -> bool:
    """Whether the object changed or is gone: it is read again, and everything is decided again."""
    return response.code in (404, 409)


def retry_delay(response: ErrorResponse, failures: int) -> float:
    """Return the seconds until the next attempt; `failures`: in a row, this one included."""
    return max(
        MAX_RETRY_DELAY if is_permanent(response) else backoff_delay(failures),
        min(response.retry_after, _MAX_RETRY_AFTER),
    )


def backoff_delay(failures: int) -> float:
    """Return the seconds to wait after so many times in a row."""
    return min(_FIRST_DELAY * 2.0 ** min(failures - 1, 16), MAX_RETRY_DELAY)


def is_reported(response: ErrorResponse, failures: int, lasted: float = 0.0) -> bool:
    """Whether a person is to hear of it; `lasted`: seconds since the first failure, for each may take long by itself."""
    return is_permanent(response) or failures >= _REPORTED_FAILURES or lasted >= _REPORTED_AFTER


def may_other_write_pass(response: ErrorResponse, failures: int) -> bool:
    """Whether another write of the same object may go through: a rule, a size or a webhook is in the way, not the load."""
    return is_permanent(response) or (response.code >= 500 and failures >= _REPORTED_FAILURES)


def describe(response: ErrorResponse) -> str:
    """Return the cause and the next step, in at most some hundred characters whatever the server says."""
    said = truncate(" ".join(response.message.split()), _MAX_MESSAGE_LENGTH)
    if not response.code:
        return f"the API server does not answer ({said}); look at the API server and the network"
    code = f"{response.code} {response.reason}".strip()
    return f"{code}: {said}; {_next_step(response)}"


def _next_step(response: ErrorResponse) -> str:
    message = response.message
    if response.code == 403 and " cannot " in message and "User " in message:
        return "grant the operator the rights of the chart's ClusterRole"
    if response.code == 413 or "Too long" in message or "must have at most" in message:
        return "make the object smaller"
    if "webhook" in message and response.code >= 500:
        return "look at the service and the logs of the webhook"
    if is_permanent(response):
        return "change the admission policy or webhook that it names"
    if is_conflict(response):
        return "look at what else keeps writing the object"
    return "look at the load and the logs of the API server"
