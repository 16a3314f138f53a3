"""How far the evening out of one pool may go on: more at once while it helps, not at all once it does not.

Where pods land is the scheduler's business. One that packs nodes full instead of evening them out would undo every
move for ever: the first round is one pod, each that helped doubles the next, one that did not is followed by one pod
of another owner, and two of these in a row end it until the pool itself has changed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from rescheduler.core.rebalance.selection import Roles, Shift, Sides
from rescheduler.core.rebalance.utilization import Load, Pair, spread

MOST = 8
"""Moves of one round at most."""
_MOST_FAILURES = 2
_KEPT = 0.5  # so much of what a round promised must have come true
_CHANGED = 0.05  # of all that the pool has: so much more or less is requested


@dataclass(frozen=True, slots=True)
class Course:
    """What is remembered of one pool.

    Attributes:
        nodes: those that could give or take, and `generation` of their policy.
        requested: how full they were together, by requests, when this course began.
        roles: of its nodes, until nothing is left to move.
        allowance: moves of the next round; `failures`: rounds in a row that have not helped.
        spared: uids of owners whose pods landed where that did not help.
        before: the spread, by requests, before the round that is under way; None: none is.
        moved: what that round has moved.
    """

    nodes: frozenset[str]
    generation: int
    requested: Pair
    roles: Roles = field(default_factory=Roles)
    allowance: int = 1
    failures: int = 0
    spared: frozenset[str] = frozenset()
    before: float | None = None
    moved: tuple[Shift, ...] = ()

    @property
    def rests(self) -> bool:
        """Moves have not helped: nothing is tried again before something changes."""
        return self.failures >= _MOST_FAILURES

    def begin(self, found: Sides) -> "Course":
        """A round of moves begins."""
        return replace(self, before=spread(found.loads), moved=(), roles=found.roles)

    def end(self, moved: Sequence[Shift]) -> "Course":
        """The round is over, and has moved these; one that has moved nothing says nothing."""
        return replace(self, moved=tuple(moved)) if moved else replace(self, before=None)

    def settle(self) -> "Course":
        """Nothing is left to move: only a node above `high` or below `low` begins it anew."""
        return replace(self, roles=Roles())


def follow(course: Course | None, loads: Sequence[Load], generation: int) -> Course:
    """The course as of now: begun anew where the pool has changed, else with what the last round came to."""
    nodes, requested = frozenset(load.name for load in loads), _requested(loads)
    if course is None or (course.nodes, course.generation) != (nodes, generation) or _far(requested, course.requested):
        return Course(nodes, generation, requested)
    if course.before is None:
        return course
    done = replace(course, before=None, moved=())
    if course.before - spread(loads) >= sum(shift.evens - (1 - _KEPT) * shift.gain for shift in course.moved):
        return replace(done, allowance=min(2 * course.allowance, MOST), failures=0)
    owners = frozenset(shift.candidate.owner for shift in course.moved)
    return replace(done, allowance=1, failures=course.failures + 1, spared=course.spared | owners)


def _requested(loads: Sequence[Load]) -> Pair:
    asked = whole = Pair()
    for load in loads:
        asked, whole = asked + load.requested, whole + load.whole
    return asked / whole


def _far(one: Pair, other: Pair) -> bool:
    return max(abs(one.cpu - other.cpu), abs(one.memory - other.memory)) > _CHANGED
