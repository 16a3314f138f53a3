"""Groups of a plan that find their places whatever happens: no course of events needs to be tried for them.

Each other pod that may be placed first takes at most so many slots of a group away; where even that leaves enough,
all of the group fit. On a cluster with room that is all groups, after a look at some of the nodes.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import inf

from rescheduler.core.placement.problem import Board, Domains, Group
from rescheduler.core.placement.topology_spread import Spread, room

_EMPTIEST = 200  # nodes
_ENOUGH = 1000  # nodes that are added up; the others are fuller, and add little


def certain(board: Board) -> set[Group]:
    """The groups all of which find a place, wherever the scheduler puts each pod."""
    troubled = _troubled(board.groups)
    sizes = {group: len(group.members) + group.rivals for group in board.groups}
    asked: Counter[int] = Counter()
    for group, size in sizes.items():
        asked.update({kind: size * amount for kind, amount in group.need})
    found = set()
    for group in board.groups:
        if not group.doubt and group not in troubled and _Slots(board, group, sizes, asked).suffice(sizes[group]):
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
    """What the group's own pods let in of it.

    Attributes:
        of: the domain of a node; None: the node takes none.
        allowed: how many a domain lets in.
        domains: all that there are; None: each node is one.
    """

    of: Callable[[int], str | None]
    allowed: Callable[[str], float]
    domains: Collection[str] | None


class _Slots:
    """For how many of one group there is room, when all others come first."""

    def __init__(self, board: Board, group: Group, sizes: Mapping[Group, int], asked: Mapping[int, int]) -> None:
        """`sizes`: pods of each group; `asked`: what all of them ask of each resource."""
        self._board, self._group = board, group
        self._needed = dict(group.need)
        self._asked = asked
        self._rest: Sequence[int] | None = None
        self._taken = sum(size * self._takes(other) for other, size in sizes.items() if other is not group)
        limits = (*self._spread_limits(), *self._own_limits())
        self._wide = [limit for limit in limits if limit.domains is not None]
        self._narrow = [limit for limit in limits if limit.domains is None]

    def _takes(self, other: Group) -> int:
        """How many slots of the group one pod of the other can take away."""
        most = 1  # of the pods that a node may have
        for kind, amount in other.need:
            if kind in self._needed:
                most = max(most, -(-amount // self._needed[kind]))
        return most

    def _own_limits(self) -> Iterator[_Limit]:
        """Its own anti-affinity and host ports: one in each place; nodes without the label are no place."""
        labels = self._board.floor.labels
        for key, other in self._group.blocks:
            if other is self._group and key is None:
                yield _Limit(str, lambda _: 1, None)
            elif other is self._group and key is not None:
                yield _Limit(
                    lambda n, key=key: labels[n].get(key, ""),  # type: ignore[misc]
                    lambda domain: 1 if domain else inf,
                    self._domains(key, ("", *self._board.floor.values(key))),
                )

    def _spread_limits(self) -> Iterator[_Limit]:
        for domains, spread in zip(self._group.domains, self._group.ask.spreads, strict=True):
            known = self._domains(spread.key, domains.filled)
            yield _Limit(domains.of.get, self._allowed(domains, spread), known)

    def _domains(self, key: str, found: Collection[str]) -> Collection[str] | None:
        return None if self._board.floor.tells_apart(key) else found

    def _allowed(self, domains: Domains, spread: Spread) -> Callable[[str], float]:
        """How many a domain lets in while the emptiest stay as they are."""
        labels, filled = self._group.ask.labels, domains.filled
        floor = 0 if len(filled) < spread.least else min(filled.values(), default=0)
        if spread.counts(labels):
            return lambda domain: max(0, floor + spread.skew - filled[domain])
        itself = spread.counts_itself(labels)
        return lambda domain: inf if floor + spread.skew - filled[domain] >= itself else 0

    def suffice(self, wanted: int) -> bool:
        """Whether so many find a place."""
        if len(self._wide) > 1:
            return False
        needed, total, left = wanted + self._taken, 0.0, dict[str, float]()
        for limit in self._wide:
            left = {domain: limit.allowed(domain) for domain in limit.domains or ()}
        for n in self._nodes() if not self._wide or sum(left.values()) >= needed else ():
            count = self._count(n)
            for limit in self._wide:
                domain = limit.of(n)
                count = min(count, left.get(domain, 0)) if domain is not None else 0
                if count:
                    left[domain or ""] -= count
            total += count
            if total >= needed:
                return True
        return self._levels_out(wanted) or self._holds_out(wanted)

    def _nodes(self) -> Iterator[int]:
        group, labels = self._group, self._board.floor.labels
        keys = [term.key for term in group.ask.near]
        for n in self._roomy():
            if all(group.near[key, labels[n].get(key, "")] > 0 for key in keys):
                yield n

    def _roomy(self) -> Iterator[int]:
        """The emptiest first, and most often enough; of the others those alone that have room."""
        yield from self._group.sure[:_EMPTIEST]
        if self._rest is None:
            self._rest = self._board.with_room(self._group.sure[_EMPTIEST:], self._group)
        yield from self._rest

    def _count(self, n: int) -> float:
        row = self._board.free[n]
        count = inf
        for kind, amount in self._group.need:
            count = min(count, row[kind] // amount)
        for limit in self._narrow:
            domain = limit.of(n)
            count = min(count, 0 if domain is None else limit.allowed(domain))
        return max(0, count)

    def _levels_out(self, wanted: int) -> bool:
        """For one spread over zones alone: as the emptiest fill up, the others may take more."""
        spreads = self._group.ask.spreads
        if len(spreads) != 1 or not self._wide or self._narrow or not spreads[0].counts(self._group.ask.labels):
            return False
        domains, slots = self._group.domains[0], Counter[str]()
        open_ = set(domains.filled)
        for n in self._nodes():
            if (domain := domains.of.get(n)) in open_:
                slots[domain] += int(self._count(n))
                if slots[domain] >= wanted + self._taken:
                    open_.discard(domain)  # it holds nobody back
                    if not open_:
                        break
        left = {domain: max(0, count - self._taken) for domain, count in slots.items()}
        return room(domains.filled, left, spreads[0].skew, spreads[0].least) >= wanted

    def _holds_out(self, wanted: int) -> bool:
        """Whether all pods together are too few to leave it no node, or no node of one of its domains.

        To fill a node they must take what is free there of one resource: a share of all that they ask for of it. No
        more than all of each resource can be taken.
        """
        shares: dict[str, list[float]] = defaultdict(list)
        spreads, limit = self._group.ask.spreads, next(iter(self._wide), None)
        if limit:
            if len(spreads) != 1 or self._narrow or not spreads[0].counts(self._group.ask.labels):
                return False
            if len(limit.domains or ()) < spreads[0].least:
                return False
            shares |= {domain: [] for domain in limit.domains or ()}
        for n in islice(self._nodes(), _ENOUGH):
            domain = limit.of(n) if limit else ""
            if domain is not None and self._count(n) > 0:
                shares[domain].append(self._share(n))
        itself = wanted - 1 if self._narrow else 0  # each node that its own pods may keep it off
        most = len(self._needed)
        return bool(shares) and all(sum(sorted(each, reverse=True)[itself:]) > most for each in shares.values())

    def _share(self, n: int) -> float:
        row = self._board.free[n]
        return min((row[kind] - amount + 1) / max(1, self._asked[kind]) for kind, amount in self._group.need)
