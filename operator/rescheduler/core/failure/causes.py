"""The causes for which a node counts as failed: the certainty of each, and its name for the storm brake.

The name of an agent's condition is its type. `Ready` has two names: with `False` the kubelet reports a failure, and with
`Unknown` the node controller does not hear of the node. A renewed Lease contradicts `Unknown`: its kubelet is alive.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum

from rescheduler.api.policies import ConditionMatch
from rescheduler.core.model.nodes import CONDITION_UNKNOWN

READY_UNKNOWN = "Ready=Unknown"
"""The cause of unreachable nodes: the node controller does not hear of them, or their Lease is silent."""
READY_UNKNOWN_LEASE_RENEWED = "Ready=Unknown with a renewed Lease"
_LATEST_TIME = datetime.max.replace(tzinfo=UTC)


class Certainty(IntEnum):
    """The certainty of a failure, the most certain first."""

    UNREACHABLE = 0  # Ready is Unknown, and no Lease contradicts it
    SUSPECTED = 1  # the Lease is silent, and Ready is not Unknown yet
    NOT_READY = 2  # Ready is False
    REPORTED = 3  # a condition that an agent sets
    CONTRADICTED = 4  # Ready is Unknown, but the Lease is renewed


@dataclass(frozen=True, slots=True)
class FailureCause:
    """A failure condition that holds on a node.

    Attributes:
        certainty: the rank of the cause.
        name: the name by which the storm brake counts the cause.
        since: when the condition took its status; None for a suspicion.
        match: the entry of the policy; None for a suspicion.
    """

    certainty: Certainty
    name: str
    since: datetime | None = None
    match: ConditionMatch | None = None

    @property
    def sort_key(self) -> tuple[int, datetime]:
        """The sort key: the most certain cause first, then the cause that has lasted longest."""
        return self.certainty, self.since or _LATEST_TIME


LEASE_NOT_RENEWED = FailureCause(Certainty.SUSPECTED, READY_UNKNOWN)


def cause_name(type_: str, status: str, *, lease_renewed: bool = False) -> str:
    """Return the name by which the storm brake counts a condition."""
    if type_ != "Ready":
        return type_
    return READY_UNKNOWN_LEASE_RENEWED if status == CONDITION_UNKNOWN and lease_renewed else f"{type_}={status}"


def certainty_of(type_: str, status: str, *, lease_renewed: bool = False) -> Certainty:
    """Return how certain it is that a node with this condition has failed."""
    if (type_, status) == ("Ready", CONDITION_UNKNOWN):
        return Certainty.CONTRADICTED if lease_renewed else Certainty.UNREACHABLE
    return Certainty.NOT_READY if (type_, status) == ("Ready", "False") else Certainty.REPORTED
