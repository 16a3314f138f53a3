"""Writes that the API server refused, or that it did not answer: what each means, and when it is tried again.

A refusal that only a person can end (400, 403, 413, 422) is reported at once and costs two requests a minute. Any
other failure may end by itself: it is retried with back-off, and reported once it has lasted.
"""

from dataclasses import dataclass
from enum import StrEnum

from rescheduler.api.scalars import cut
from rescheduler.core.eviction.api_responses import Refusal

PACE = 30.0
"""Seconds between two attempts at a write that is refused for good, and the longest back-off."""
_FIRST = 0.1
_LONGEST_ASKED = 60.0  # seconds; a server that asks for more with Retry-After is asked again all the same
_NOISE = 3  # failures in a row; fewer are not worth a word
_LONG = 8.0  # seconds; a webhook that hangs takes up to 30 s for each answer
_PASSING = frozenset((0, 404, 408, 409, 410, 429))
_MOST_WORDS = 400


class Act(StrEnum):
    """What could not be done, as a person reads it."""

    CORDON = "the node cannot be cordoned, and nothing is moved before it is"
    DECORATE = "the drain's labels and annotations cannot be set on the node, and the drain goes on without them"
    TAINT = "the taint of a node that waits cannot be set, and the drain waits without it"
    CONDITIONS = "Rescheduler's conditions cannot be written on the node, and the drain goes on without them"
    OUT_OF_SERVICE = "the out-of-service taint cannot be written"
    RESTORE = "the node cannot be restored"
    UNCORDON = "the node cannot be uncordoned"
    UNTAINT = "the drain's taints cannot be removed from the node"
    UNDECORATE = "the drain's labels and annotations cannot be removed from the node"
    CANCEL_NOTE = (
        "the node cannot be annotated with the cancelled request: remove rescheduler.dev/maintenance from the node"
    )
    STATUS = "the status of the NodeDrain cannot be written"
    ANNOTATE = "the NodeDrain cannot be annotated"
    CREATE = "the NodeDrain cannot be created"
    AMEND = "the requests of the NodeDrain cannot be changed"
    DELETE = "the NodeDrain cannot be deleted"
    FINALIZER = "the finalizer of the NodeDrain cannot be removed"
    LOOK = "the drain cannot go on"


@dataclass(frozen=True, slots=True)
class Trouble:
    """One act that fails, and the cause."""

    act: Act
    cause: str

    def __str__(self) -> str:
        return f"{self.act}: {self.cause}"


def is_lasting(refusal: Refusal) -> bool:
    """Whether only a person can end the refusal."""
    return 400 <= refusal.code < 500 and refusal.code not in _PASSING


def is_conflict(refusal: Refusal) -> bool:
    """Whether the object changed or is gone: it is read again, and everything is decided again."""
    return refusal.code in (404, 409)


def wait(refusal: Refusal, failures: int) -> float:
    """Return the seconds until the next attempt; `failures`: in a row, this one included."""
    return max(PACE if is_lasting(refusal) else back_off(failures), min(refusal.retry_after, _LONGEST_ASKED))


def back_off(times: int) -> float:
    """Return the seconds to wait after so many times in a row."""
    return min(_FIRST * 2.0 ** min(times - 1, 16), PACE)


def is_reported(refusal: Refusal, failures: int, lasted: float = 0.0) -> bool:
    """Whether a person is to hear of it; `lasted`: seconds since the first failure, for each may take long by itself."""
    return is_lasting(refusal) or failures >= _NOISE or lasted >= _LONG


def may_differ(refusal: Refusal, failures: int) -> bool:
    """Whether another write of the same object may go through: a rule, a size or a webhook is in the way, not the load."""
    return is_lasting(refusal) or (refusal.code >= 500 and failures >= _NOISE)


def cause(refusal: Refusal) -> str:
    """Return the cause and the next step, in at most some hundred characters whatever the server says."""
    said = cut(" ".join(refusal.message.split()), _MOST_WORDS)
    if not refusal.code:
        return f"the API server does not answer ({said}); look at the API server and the network"
    code = f"{refusal.code} {refusal.reason}".strip()
    return f"{code}: {said}; {_next_step(refusal)}"


def _next_step(refusal: Refusal) -> str:
    message = refusal.message
    if refusal.code == 403 and " cannot " in message and "User " in message:
        return "grant the operator the rights of the chart's ClusterRole"
    if refusal.code == 413 or "Too long" in message or "must have at most" in message:
        return "make the object smaller"
    if "webhook" in message and refusal.code >= 500:
        return "look at the service and the logs of the webhook"
    if is_lasting(refusal):
        return "change the admission policy or webhook that it names"
    if is_conflict(refusal):
        return "look at what else keeps writing the object"
    return "look at the load and the logs of the API server"
