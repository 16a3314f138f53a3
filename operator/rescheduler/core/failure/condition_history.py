"""What was seen of a node over time, on our own clock.

Clocks of nodes are skewed, and ours may jump: times count from our first sight of a thing, never from what a node
wrote. A restart of ours may lengthen a wait but must never shorten it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import NamedTuple

from rescheduler.api.policies import ConditionMatch, Failure, Policy
from rescheduler.core.failure.causes import name_of
from rescheduler.core.model.nodes import UNREACHABLE, Node, NodeCondition

STALE = timedelta(minutes=12)
"""A condition whose heartbeat has stood still for so long says nothing: its agent is dead (agents beat every 5 m)."""
DEFAULT = Failure()
"""By this a node is judged that no policy has decided for yet."""


class Begin(NamedTuple):
    """A failure condition began to hold; `cause`: its name for the storm brake, empty if that is not known any more."""

    cause: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Sighting:
    """What was seen of one node.

    Attributes:
        uid: the node's; another uid under the same name starts anew.
        since: when each condition took the status it has, by type: (status, time).
        beats: the last heartbeat of each condition that the policy names, and when it was first seen.
        ailing: types of the policy's failure conditions that hold; a stale one is as it was when it was fresh.
        begins: which of them began to hold within the policy's flapping window, and when.
        matches: the failure conditions that it is judged by: those of the last policy that decided for the node. A
            policy that is deleted does not make the node healthy.
        was_ready: it was Ready at least once under our eyes.
        healthy_since: from when none held and its Lease was not silent; None while that is not so.
    """

    uid: str
    since: Mapping[str, tuple[str, datetime]] = field(default_factory=dict)
    beats: Mapping[str, tuple[datetime, datetime]] = field(default_factory=dict)
    ailing: frozenset[str] = frozenset()
    begins: tuple[Begin, ...] = ()
    matches: tuple[ConditionMatch, ...] = DEFAULT.conditions
    was_ready: bool = False
    healthy_since: datetime | None = None

    def stale(self, condition: NodeCondition, now: datetime) -> bool:
        """Whether its agent has gone silent; one set once and for all never beats, and never goes stale."""
        known = self.beats.get(condition.type)
        if condition.type == "Ready" or known is None or condition.transition is None:
            return False
        return known[0] > condition.transition and now - known[1] >= STALE

    def holds(self, node: Node, match: ConditionMatch, now: datetime) -> bool:
        """Whether the condition is as the policy means it, and its agent alive."""
        condition = matching(node, match)
        return condition is not None and not self.stale(condition, now)


def matching(node: Node, match: ConditionMatch) -> NodeCondition | None:
    """The node's condition that is as the policy means it; None where it is not."""
    condition = node.condition(match.type)
    return condition if condition and condition.status in match.status else None


def see(
    before: Sighting | None, node: Node, policy: Policy | None, now: datetime, *, suspected: bool = False
) -> Sighting:
    """Bring a sighting up to date with the node as it is now; `suspected`: its Lease is silent."""
    new = before is None or before.uid != node.uid
    known = Sighting(node.uid) if before is None or new else before
    failure = policy.spec.failure if policy else DEFAULT
    matches = failure.conditions if policy else known.matches
    since = {c.type: (c.status, _start(c, known.since.get(c.type), now)) for c in node.conditions}
    seen = replace(
        known,
        since=since,
        beats=_beats(node, policy, known, now),
        matches=matches,
        was_ready=known.was_ready or node.ready == "True",
    )
    ailing = _ailing(node, matches, seen, now, new=new)
    begun = (node.condition(type_) for type_ in sorted(ailing - known.ailing))
    begins = (*known.begins, *(Begin(name_of(c.type, c.status), now) for c in begun if c))
    recent = now - failure.flapping.within
    healthy = None if ailing or suspected else known.healthy_since or now
    return replace(seen, ailing=ailing, begins=tuple(b for b in begins if b.at > recent), healthy_since=healthy)


def _start(condition: NodeCondition, known: tuple[str, datetime] | None, now: datetime) -> datetime:
    if known is None:
        # The node controller stamps this one itself: it is older than our first sight of it.
        stamped = condition.type == "Ready" and condition.status == UNREACHABLE and condition.transition
        return min(now, stamped) if stamped else now
    status, start = known
    # Unknown -> False is a reboot's way through both: the time as Unknown counts.
    same = condition.status == status or (status, condition.status) == (UNREACHABLE, "False")
    return start if same else now


def _beats(node: Node, policy: Policy | None, known: Sighting, now: datetime) -> dict[str, tuple[datetime, datetime]]:
    spec = policy.spec if policy else None
    matches = (*spec.failure.conditions, *spec.maintenance.conditions) if spec else known.matches
    named = {match.type for match in matches} | (known.beats.keys() if spec is None else set())
    found = {}
    for condition in node.conditions:
        beat, last = condition.heartbeat, known.beats.get(condition.type)
        if beat is None or condition.type not in named:
            continue
        # Of one that we have never seen beat only its own word says how old it is.
        first = min(now, beat) if last is None else now
        found[condition.type] = last if last and last[0] == beat else (beat, first)
    return found


def _ailing(
    node: Node, matches: Iterable[ConditionMatch], seen: Sighting, now: datetime, *, new: bool
) -> frozenset[str]:
    found = set()
    for match in matches:
        condition = node.condition(match.type)
        if condition and not new and seen.stale(condition, now):
            found |= {match.type} & seen.ailing
        elif matching(node, match):
            found.add(match.type)
    return frozenset(found)


def anew(seen: Sighting, now: datetime) -> Sighting:
    """After we were blind for a while: every `for` starts anew."""
    return replace(
        seen,
        since={type_: (status, now) for type_, (status, _) in seen.since.items()},
        healthy_since=now if seen.healthy_since else None,
    )


def recall(seen: Sighting, changes: int, last: datetime) -> Sighting:
    """After a start of ours: the NodeDrain says that the node was flapping."""
    return replace(seen, begins=(*(Begin("", last) for _ in range(changes)), *seen.begins))


def judge_by(seen: Sighting, match: ConditionMatch) -> Sighting:
    """After a start of ours without a policy: the NodeDrain names the condition for which the node failed."""
    return replace(seen, matches=(*seen.matches, match), ailing=seen.ailing | {match.type}, healthy_since=None)
