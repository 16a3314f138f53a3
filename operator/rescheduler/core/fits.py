"""Will these pods find a place on what is left, all together?

`Fits` is a promise: the scheduler places them, whichever nodes it chooses and in whichever order those that fit ask
for a place, as long as they ask before those that do not. It must never be wrong; where it might be, the answer is
Unknown. Nothing is preempted: a plan takes no other pod's place away.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from random import Random

from rescheduler.core.boards import Board, Ground, Group
from rescheduler.core.censuses import Resident
from rescheduler.core.packings import Packing, Weigh, fill_up, spread_out
from rescheduler.core.relations import Relations
from rescheduler.core.shortages import shortage

_TRIES = 24
_WAYS: tuple[Weigh | None, ...] = (spread_out, None, spread_out, fill_up)


class Fit(StrEnum):
    """Whether a pod finds a place."""

    FITS = "Fits"
    DOES_NOT_FIT = "DoesNotFit"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Forecast:
    """What becomes of one pod.

    Attributes:
        reason: why it does not fit, or why only the scheduler can say.
    """

    fit: Fit
    reason: str = ""


def plan(leaving: Sequence[Resident], ground: Ground, random: Random) -> list[Forecast]:
    """A forecast for each of the pods, in their order; the more important ones, then the first, have a place first."""
    board = Board(ground, leaving)
    Relations(board).work_in()
    certain = set(_certain(board))
    settled = all(group in certain or group.doubt or not group.members for group in board.groups)
    fewest, most = (Counter(), Counter()) if settled else _Tries(board, random).bounds()
    found: list[Forecast] = [Forecast(Fit.UNKNOWN)] * len(leaving)
    for group in board.groups:
        for number, position in enumerate(group.members):
            if group.doubt:
                found[position] = Forecast(Fit.UNKNOWN, group.doubt)
            elif group in certain or number < fewest[group]:
                found[position] = Forecast(Fit.FITS)
            elif number >= most[group]:
                found[position] = Forecast(Fit.DOES_NOT_FIT, shortage(group, board))
            else:
                found[position] = Forecast(Fit.UNKNOWN, "it depends on where the scheduler puts the others")
    return found


def _certain(board: Board) -> Iterator[Group]:
    """Groups whose pods all fit whatever the others do: there are more nodes with room than pods to fill them.

    A pod spoils for others no more than the node that it is put on, unless by affinity or spread.
    """
    pods = sum(len(group.members) + group.rivals for group in board.groups)
    kept_off = {other for group in board.groups for _, other in group.blocks}
    for group in board.groups:
        if group.doubt or group.ask.spreads or group.ask.near or group in kept_off:
            continue
        roomy = (n for n in group.sure if all(board.free[n][k] >= amount for k, amount in group.need))
        if len(tuple(islice(roomy, pods))) == pods:
            yield group


class _Tries:
    """Tries several courses of events, for the fewest and the most pods of each group that find a place."""

    def __init__(self, board: Board, random: Random) -> None:
        self._board, self._random = board, random
        pods = [(-g.ask.priority, position, g) for g in board.groups for position in g.members if not g.doubt]
        self._order = [group for _, _, group in sorted(pods, key=lambda pod: pod[:2])]
        self._rivals = [g for g in board.groups for _ in range(g.rivals + (len(g.members) if g.doubt else 0))]
        self._wanted = Counter(self._order)

    def bounds(self) -> tuple[Counter[Group], Counter[Group]]:
        """The fewest and the most of each group that find a place."""
        fewest = Counter(self._wanted)
        for number in range(_TRIES):
            order = self._order if number % 2 == 0 else self._shuffled(fewest)
            packing = self._packing(number, sure=True)
            packing.place(self._rivals)
            packing.placed.clear()
            packing.place(order)
            fewest = fewest & packing.placed
        most: Counter[Group] = Counter()
        for number in range(_TRIES):
            packing = self._packing(number, sure=False)
            if number % 2:
                packing.place(self._shuffled(fewest))
                packing.place(self._shuffled(self._wanted - fewest))
            else:
                packing.place(self._order)
            most = most | packing.placed
        return fewest, most

    def _packing(self, number: int, *, sure: bool) -> Packing:
        return Packing(self._board, self._random, _WAYS[number // 2 % len(_WAYS)], sure=sure)

    def _shuffled(self, counts: Counter[Group]) -> list[Group]:
        order = list(counts.elements())
        self._random.shuffle(order)
        return order
