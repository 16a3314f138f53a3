"""Groups of a plan that find their places whatever happens: no course of events needs to be tried for them.

Each other pod that may be placed first takes at most so many slots of a group away; where even that leaves enough,
all of the group fit. On a cluster with room that is all groups, after a look at some of the nodes.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import inf

from rescheduler.core.boards import Board, Group
from rescheduler.core.spreads import room

_EMPTIEST = 200  # nodes


def certain(board: Board) -> set[Group]:
    """The groups all of which find a place, wherever the scheduler puts each pod."""
    troubled = _troubled(board.groups)
    sizes = {group: len(group.members) + group.rivals for group in board.groups}
    found = set()
    for group in board.groups:
        if not group.doubt and group not in troubled and _Slots(board, group, sizes).suffice(sizes[group]):
            found.add(group)
    return found


def _troubled(groups: Iterable[Group]) -> set[Group]:
    """Groups that others can keep off otherwise than by taking room, or whose affinity asks for pods not there yet."""
    found = {group for group in groups if group.ask.near and not group.near}
    for group in groups:
        found.update(other for _, other in group.blocks if other is not group)
        found.update(other for other, _ in group.fills if other is not group)
    return found


@dataclass(frozen=True, slots=True)
class _Limit:
    """What the group's own pods let in of it, by domain; a node of which `of` knows nothing takes none."""

    of: Mapping[int, str]
    allowed: Mapping[str, float]


class _Slots:
    """For how many of one group there is room, when all others come first."""

    def __init__(self, board: Board, group: Group, sizes: Mapping[Group, int]) -> None:
        self._board, self._group = board, group
        self._needed = dict(group.need)
        self._taken = sum(size * self._takes(other) for other, size in sizes.items() if other is not group)
        self._limits = [*self._spread_limits(), *self._own_limits()]

    def _takes(self, other: Group) -> int:
        """How many slots of the group one pod of the other can take away."""
        most = 1  # of the pods that a node may have
        for kind, amount in other.need:
            if kind in self._needed:
                most = max(most, -(-amount // self._needed[kind]))
        return most

    def _own_limits(self) -> Iterable[_Limit]:
        """Its own anti-affinity and host ports: one in each place."""
        for key, other in self._group.blocks:
            if other is self._group:
                of = {n: self._place(n, key) for n in self._group.sure}
                yield _Limit(of, dict.fromkeys(of.values(), 1) | {"": inf})

    def _place(self, n: int, key: str | None) -> str:
        return str(n) if key is None else self._board.nodes[n].labels.get(key, "")

    def _spread_limits(self) -> Iterable[_Limit]:
        for domains, spread in zip(self._group.domains, self._group.ask.spreads, strict=True):
            labels, filled = self._group.ask.labels, domains.filled
            floor = 0 if len(filled) < spread.least else min(filled.values(), default=0)
            fits = {domain: floor + spread.skew - count for domain, count in filled.items()}
            if spread.counts(labels):
                allowed: dict[str, float] = {domain: max(0, left) for domain, left in fits.items()}
            else:
                itself = spread.counts_itself(labels)
                allowed = {domain: inf if left >= itself else 0 for domain, left in fits.items()}
            yield _Limit(domains.of, allowed)

    def suffice(self, wanted: int) -> bool:
        """Whether so many find a place."""
        wide = [limit for limit in self._limits if not self._of_one_node(limit)]
        narrow = [limit for limit in self._limits if limit not in wide]
        if len(wide) > 1:
            return False
        needed, total, left = wanted + self._taken, 0.0, dict(wide[0].allowed) if wide else {}
        for n in self._nodes() if not wide or sum(left.values()) >= needed else ():
            count = self._count(n, narrow)
            if wide:
                domain = wide[0].of.get(n)
                count = min(count, left.get(domain, 0)) if domain is not None else 0
                if domain is not None:
                    left[domain] -= count
            total += count
            if total >= needed:
                return True
        return self._levels_out(wanted, narrow)

    def _nodes(self) -> Iterator[int]:
        group, labels = self._group, self._board.floor.labels
        keys = [term.key for term in group.ask.near]
        for n in self._roomy():
            if all(group.near[key, labels[n].get(key, "")] > 0 for key in keys):
                yield n

    def _roomy(self) -> Iterator[int]:
        """The emptiest first, and most often enough; of the others those alone that have room."""
        yield from self._group.sure[:_EMPTIEST]
        yield from self._board.with_room(self._group.sure[_EMPTIEST:], self._group)

    def _count(self, n: int, narrow: Iterable[_Limit]) -> float:
        row = self._board.free[n]
        count = inf
        for kind, amount in self._group.need:
            count = min(count, row[kind] // amount)
        for limit in narrow:
            domain = limit.of.get(n)
            count = min(count, 0 if domain is None else limit.allowed.get(domain, 0))
        return max(0, count)

    def _of_one_node(self, limit: _Limit) -> bool:
        """Whether its domains are single nodes: then it limits each node by itself."""
        counts = Counter(limit.of[n] for n in self._group.sure if n in limit.of)
        return all(count == 1 or limit.allowed.get(domain) == inf for domain, count in counts.items())

    def _levels_out(self, wanted: int, narrow: list[_Limit]) -> bool:
        """For a spread over zones alone: as the emptiest fill up, the others may take more."""
        spreads = self._group.ask.spreads
        if len(spreads) != 1 or narrow or len(self._limits) != 1 or not spreads[0].counts(self._group.ask.labels):
            return False
        domains, slots = self._group.domains[0], Counter[str]()
        open_ = set(domains.filled)
        for n in self._nodes():
            if (domain := domains.of.get(n)) in open_:
                slots[domain] += int(self._count(n, ()))
                if slots[domain] >= wanted + self._taken:
                    open_.discard(domain)  # it holds nobody back
                    if not open_:
                        break
        left = {domain: max(0, count - self._taken) for domain, count in slots.items()}
        return room(domains.filled, left, spreads[0].skew, spreads[0].least) >= wanted
