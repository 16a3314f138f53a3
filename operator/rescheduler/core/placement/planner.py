"""Will these pods find a place on what is left, all together?

`Fits` is a promise: those pods are placed, on whichever nodes the scheduler chooses, when they ask in the plan's order
and before those that do not fit. It must never be wrong; where it might be, the answer is Unknown. Nothing is
preempted: a plan takes no other pod's place away.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from rescheduler.core.placement.guaranteed_fits import certain
from rescheduler.core.placement.pod_constraints import Relations
from rescheduler.core.placement.pod_snapshot import Resident
from rescheduler.core.placement.problem import Board, Ground, Group
from rescheduler.core.placement.scheduling_run import Packing, Weigh, evened_out, spread_out
from rescheduler.core.placement.unschedulable_reasons import Shortage, Shortages

_CLEAN = 72  # courses of events in a row in which all that is promised came true
_MOST = 216  # are tried in all
_WORK = 10_000  # pods are placed in all of them together, and it is enough
_LARGE = 5_000  # nodes, where half of that is
_UPPER = 4  # for what may fit at best
_TIES = 0.03  # nodes that differ by less may be equal to the scheduler
_OUT_OF_TURN = 8.0  # so many turns early or late a pod may ask


class Fit(StrEnum):
    """Whether a pod finds a place."""

    FITS = "Fits"
    DOES_NOT_FIT = "DoesNotFit"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Forecast:
    """What becomes of one pod.

    Attributes:
        turn: its place in the plan's order: those that fit come first.
        reason: why it does not fit, or why only the scheduler can say.
        crowded: other pods keep it off; more room would not help.
    """

    fit: Fit
    turn: int = 0
    reason: str = ""
    crowded: bool = False


_DEPENDS = "it depends on where the scheduler puts the others"


def plan(leaving: Sequence[Resident], ground: Ground, random: Random | None = None) -> list[Forecast]:
    """A forecast for each of the pods, in their order."""
    board = Board(ground, leaving)
    Relations(board).work_in()
    tries = _Tries(board, random or Random(0))  # noqa: S311 - no secret: the same plan twice is the same
    fewest, most = tries.bounds()
    found: list[tuple[Fit, Shortage]] = [(Fit.FITS, Shortage())] * len(leaving)
    shortages = Shortages(tries.last)
    for group in board.groups:
        none = shortages.of(group) if len(group.members) > most[group] and not group.doubt else Shortage()
        for number, position in enumerate(group.members):
            if group.doubt:
                found[position] = (Fit.UNKNOWN, Shortage(group.doubt))
            elif number >= most[group]:
                found[position] = (Fit.DOES_NOT_FIT, none)
            elif number >= fewest[group]:
                found[position] = (Fit.UNKNOWN, Shortage(_DEPENDS))
    turns = {position: turn for turn, position in enumerate(tries.turns(found))}
    return [Forecast(fit, turns[position], short.reason, short.crowded) for position, (fit, short) in enumerate(found)]


class _Tries:
    """Tries several courses of events, for the fewest and the most pods of each group that find a place.

    Attributes:
        last: one of them, to its end.
    """

    def __init__(self, board: Board, random: Random) -> None:
        self._board, self._random = board, random
        whole = [max(1, sum(column)) for column in zip(*board.offered, strict=True)]
        sizes = {g: max(amount / whole[kind] for kind, amount in g.need) for g in board.groups}
        pods = [(-g.ask.priority, sizes[g], p, g) for g in board.groups for p in g.members if not g.doubt]
        # The scheduler's queue has the more important first. Of equal ones the small first: most find a place so, and
        # those that others leave no room for are the fewest.
        pods.sort(key=lambda pod: pod[:3])
        self._order = [group for *_, group in pods]
        self._positions = [position for *_, position, _ in pods]
        self._rivals = [g for g in board.groups for _ in range(g.rivals + (len(g.members) if g.doubt else 0))]
        self._wanted = Counter(self._order)
        self._rooms: dict[Group, Sequence[int]] = {}
        self.last = Packing(board, random, None, sure=False)
        self._noisy = self._shaken(spread_out, 0.3)
        # The scheduler counts in whole percents, so that many nodes are equal, and takes one of these by chance.
        tied = self._shaken(spread_out, _TIES)
        self._ways = (tied, self._noisy, tied, self._shaken(evened_out, _TIES), tied, None)

    def _shaken(self, weigh: Weigh, most: float) -> Weigh:
        uniform = self._random.uniform
        return lambda free, offered, size: weigh(free, offered, size) + uniform(0, most)

    def turns(self, found: Sequence[tuple[Fit, Shortage]]) -> list[int]:
        """The positions of all pods in the plan's order: those that fit first."""
        rank = {Fit.FITS: 0, Fit.UNKNOWN: 1, Fit.DOES_NOT_FIT: 2}
        doubted = [position for g in self._board.groups if g.doubt for position in g.members]
        return sorted((*self._positions, *doubted), key=lambda position: rank[found[position][0]])

    def bounds(self) -> tuple[Counter[Group], Counter[Group]]:
        """The fewest and the most of each group that find a place."""
        sure = certain(self._board)
        if sure >= self._wanted.keys():
            return self._wanted, self._wanted
        for group in self._board.groups:
            self._rooms[group] = self._board.with_room(group.maybe, group)
        fewest = self._fewest() | Counter({group: self._wanted[group] for group in sure})
        most = Counter(fewest)
        for number in range(_UPPER):
            first, others = self._in_turn(fewest)
            self.last = self._packing((spread_out, self._noisy)[number % 2], sure=False)
            self.last.place(first)
            self.last.place(others)
            most |= self.last.placed
        return fewest, most

    def _fewest(self) -> Counter[Group]:
        fewest, clean, tried, shaken = self._placed(spread_out, self._order), 0, 0, set[Group]()
        work = _WORK / (1 + len(self._board.offered) / _LARGE)
        most = min(_MOST, max(_UPPER, int(work) // len(self._order)))
        while clean < _CLEAN and tried < most:
            order, _ = self._in_turn(fewest)
            course, way = divmod(tried, len(self._ways))
            if course % 2:
                order = self._out_of_turn(order)
            placed = self._placed(self._ways[way], order)
            missing = fewest - placed
            clean = 0 if missing else clean + 1
            shaken |= missing.keys()
            fewest -= missing
            tried += 1
        # It was not tried often enough to promise what has been wrong before.
        return fewest if clean >= _CLEAN else fewest - Counter(shaken)

    def _placed(self, weigh: Weigh | None, order: Sequence[Group]) -> Counter[Group]:
        """How many of each group find a place when others that wait have theirs before."""
        packing = self._packing(weigh, sure=True)
        packing.place(self._rivals)
        before = Counter(packing.placed)
        packing.place(order)
        return packing.placed - before

    def _packing(self, weigh: Weigh | None, *, sure: bool) -> Packing:
        return Packing(self._board, self._random, weigh, sure=sure, rooms=self._rooms)

    def _in_turn(self, fewest: Counter[Group]) -> tuple[list[Group], list[Group]]:
        """Those that fit, and the others, both in the plan's order."""
        seen: Counter[Group] = Counter()
        first, others = list[Group](), list[Group]()
        for group in self._order:
            seen[group] += 1
            (first if seen[group] <= fewest[group] else others).append(group)
        return first, others

    def _out_of_turn(self, order: Sequence[Group]) -> list[Group]:
        turns = sorted((turn + self._random.uniform(0, _OUT_OF_TURN), turn) for turn in range(len(order)))
        return [order[turn] for _, turn in turns]
