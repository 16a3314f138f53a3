"""The causes for which a node counts as failed: how certain each is, and by what name the storm brake counts it.

A condition of an agent is its type. `Ready` is two conditions: `False` is a kubelet that says so, and `Unknown` is the node
controller that hears nothing. The Lease of the node tells whether that is so: a kubelet that renews it is alive.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum

from rescheduler.api.policies import ConditionMatch
from rescheduler.core.model.nodes import CONDITION_UNKNOWN

READY_UNKNOWN = "Ready=Unknown"
"""The name of nodes that nobody hears of: the node controller says so, or their Lease is silent."""
READY_UNKNOWN_LEASE_RENEWED = "Ready=Unknown with a renewed Lease"
_LATEST_TIME = datetime.max.replace(tzinfo=UTC)


class Certainty(IntEnum):
    """The more certain failure comes first."""

    UNREACHABLE = 0  # Ready is Unknown, and no Lease contradicts it
    SUSPECTED = 1  # the Lease is silent, and Ready is not Unknown yet
    NOT_READY = 2  # Ready is False
    REPORTED = 3  # a condition that an agent sets
    CONTRADICTED = 4  # Ready is Unknown, and the Lease is renewed all the same


@dataclass(frozen=True, slots=True)
class FailureCause:
    """A failure condition that holds on a node.

    Attributes:
        name: what the storm brake counts it by.
        since: when the condition took its status; None of a suspicion.
        match: the entry of the policy; None of a suspicion.
    """

    certainty: Certainty
    name: str
    since: datetime | None = None
    match: ConditionMatch | None = None

    @property
    def sort_key(self) -> tuple[int, datetime]:
        """Sorts the most certain cause first, then the one that has lasted longest."""
        return self.certainty, self.since or _LATEST_TIME


LEASE_NOT_RENEWED = FailureCause(Certainty.SUSPECTED, READY_UNKNOWN)


def cause_name(type_: str, status: str, *, lease_renewed: bool = False) -> str:
    """Return the name by which a condition is counted; `heard`: the Lease of the node is renewed."""
    if type_ != "Ready":
        return type_
    return READY_UNKNOWN_LEASE_RENEWED if status == CONDITION_UNKNOWN and lease_renewed else f"{type_}={status}"


def certainty_of(type_: str, status: str, *, lease_renewed: bool = False) -> Certainty:
    """Return how certain it is that a node with this condition has failed."""
    if (type_, status) == ("Ready", CONDITION_UNKNOWN):
        return Certainty.CONTRADICTED if lease_renewed else Certainty.UNREACHABLE
    return Certainty.NOT_READY if (type_, status) == ("Ready", "False") else Certainty.REPORTED
