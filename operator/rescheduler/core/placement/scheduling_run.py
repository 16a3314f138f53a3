"""One way in which the scheduler may place the pods of a plan, pod after pod.

Which of the nodes that can take a pod it chooses depends on its configuration, on ties and on chance, and so may how
many find a place. One packing is one such course of events; a plan tries several.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from random import Random

from rescheduler.core.placement.pod_constraints import places
from rescheduler.core.placement.problem import Board, Group

_LOOK_AT = 50  # nodes that can take a pod; of more than so many the scheduler looks at some alone
_LEAST_CPU, _LEAST_MEMORY = 100, 200 * 1024**2  # what the scheduler reckons with for pods that ask for none

Weigh = Callable[[list[int], list[int], tuple[int, int]], float]
"""How gladly a node is taken: by what is free of it, what it offers, and the CPU and memory asked; the highest is."""


class _Level:
    """One spread constraint of a group: pods in each domain, and the fewest of them."""

    def __init__(self, group: Group, number: int) -> None:
        spread, domains = group.ask.spreads[number], group.domains[number]
        self._of, self._most = domains.of, spread.skew - spread.counts_itself(group.ask.labels)
        self._filled = Counter(domains.filled)
        self._domains = Counter(domains.filled.values())
        self._short = len(domains.filled) < spread.least
        self._fewest = min(self._domains, default=0)

    def lets_in(self, n: int) -> bool:
        """Whether the node may have one more of the group."""
        domain = self._of.get(n)
        if domain is None:
            return False
        return self._filled[domain] - (0 if self._short else self._fewest) <= self._most

    def add(self, domain: str) -> None:
        before = self._filled[domain]
        self._filled[domain] = before + 1
        self._domains[before] -= 1
        self._domains[before + 1] += 1
        while not self._domains[self._fewest]:
            self._fewest += 1


class Packing:
    """Nodes being filled.

    Attributes:
        board: what it starts from.
        placed: how many of each group have a place.
    """

    def __init__(
        self,
        board: Board,
        random: Random,
        weigh: Weigh | None,
        *,
        sure: bool,
        rooms: Mapping[Group, Sequence[int]] | None = None,
    ) -> None:
        """`weigh`: None chooses by chance; `sure`: nodes of which only the scheduler knows count as full.

        `rooms`: of each group, the nodes that have room at first, where that is known.
        """
        self.board, self._random, self._weigh = board, random, weigh
        self.placed: Counter[Group] = Counter()
        self._rows: dict[int, list[int]] = {}  # nodes that pods were placed on
        self._pool = {group: _pool(group, rooms or {}, sure=sure) for group in board.groups}
        self._sizes = {group: _size(group) for group in board.groups}
        self._off_node: dict[Group, set[int]] = defaultdict(set)
        self._off: dict[Group, dict[str, set[str]]] = {}
        self._near = {group: Counter(group.near) for group in board.groups if group.ask.near}
        self._levels = {
            group: [_Level(group, number) for number in range(len(group.domains))]
            for group in board.groups
            if group.domains
        }
        self._stuck: set[Group] = set()

    def place(self, order: Sequence[Group]) -> None:
        """Place one pod of each of these, in turn; those that find no place try again when others have one."""
        while order:
            left = [group for group in order if not self._try(group)]
            order = [group for group in left if group not in self._stuck]

    def _try(self, group: Group) -> bool:
        if group in self._stuck:
            return False
        n = self._choose(group)
        if n is None:
            self._stuck.add(group)
            return False
        self._take(group, n)
        return True

    def free(self, n: int) -> list[int]:
        """What is free of each resource on the node now."""
        return self._rows.get(n) or self.board.free[n]

    def lacks(self, group: Group, n: int) -> str:
        """The first resource that the node has too little of for one more of the group; empty where it has enough."""
        row = self.free(n)
        return next((self.board.kinds[kind] for kind, amount in group.need if row[kind] < amount), "")

    # -- choosing -----------------------------------------------------------------------------------------------------

    def _choose(self, group: Group) -> int | None:
        """A node that can take one; None where none can."""
        pool, best, chosen, seen, at = self._pool[group], float("-inf"), None, 0, 0
        if not pool:
            return None
        size = self._sizes[group]
        at = self._random.randrange(len(pool))
        for _ in range(len(pool)):
            at = at if at < len(pool) else 0
            n = pool[at]
            if not self._has_room(group, n):
                # What is full, or kept off, stays so: it is not looked at again.
                pool[at] = pool[-1]
                pool.pop()
                continue
            at += 1
            if not self._suits(group, n):
                continue
            if self._weigh is None:
                return n
            weight = self._weigh(self.free(n), self.board.offered[n], size)
            if weight > best:
                best, chosen = weight, n
            seen += 1
            if seen >= _LOOK_AT:
                break
        return chosen

    def _has_room(self, group: Group, n: int) -> bool:
        row = self._rows.get(n) or self.board.free[n]
        for kind, amount in group.need:
            if row[kind] < amount:
                return False
        if n in self._off_node.get(group, ()):
            return False
        if off := self._off.get(group):
            labels = self.board.nodes[n].labels
            return all(labels.get(key) not in values for key, values in off.items())
        return True

    def _suits(self, group: Group, n: int) -> bool:
        """Whether spread and affinity let it in as things are now."""
        for level in self._levels.get(group, ()):
            if not level.lets_in(n):
                return False
        if not group.ask.near:
            return True
        labels, near = self.board.nodes[n].labels, self._near[group]
        if any(term.key not in labels for term in group.ask.near):
            return False
        if not near:
            return group.meets_itself
        return all(near[term.key, labels[term.key]] > 0 for term in group.ask.near)

    # -- taking -------------------------------------------------------------------------------------------------------

    def _take(self, group: Group, n: int) -> None:
        row = self._rows.get(n)
        if row is None:
            row = self._rows[n] = list(self.board.free[n])
        for kind, amount in group.need:
            row[kind] -= amount
        self.placed[group] += 1
        labels = self.board.nodes[n].labels
        for key, other in group.blocks:
            if key is None:
                self._off_node[other].add(n)
            elif key in labels:
                self._off.setdefault(other, {}).setdefault(key, set()).add(labels[key])
        for other, number in group.fills:
            if (domain := other.domains[number].of.get(n)) is not None:
                self._levels[other][number].add(domain)
                self._stuck.discard(other)
        for other in group.draws:
            self._near[other].update(places(other, labels))
            self._stuck.discard(other)


def _pool(group: Group, rooms: Mapping[Group, Sequence[int]], *, sure: bool) -> list[int]:
    nodes = rooms.get(group, group.maybe)
    if not sure or group.sure is group.maybe:
        return list(nodes)
    left = set(group.sure)
    return [n for n in nodes if n in left]


def _size(group: Group) -> tuple[int, int]:
    """CPU and memory that one of it asks for."""
    asked = dict(group.need)
    return asked.get(1, 0), asked.get(2, 0)


def spread_out(free: list[int], offered: list[int], size: tuple[int, int]) -> float:
    """The scheduler's default: where most is left, and where CPU and memory even out."""
    whole_cpu, whole_memory = offered[1] or 1, offered[2] or 1
    cpu, memory = free[1] / whole_cpu, free[2] / whole_memory
    left = cpu + memory - (size[0] or _LEAST_CPU) / whole_cpu - (size[1] or _LEAST_MEMORY) / whole_memory
    uneven = abs(cpu - memory - size[0] / whole_cpu + size[1] / whole_memory)
    return left + (abs(cpu - memory) - uneven) / 2


def evened_out(free: list[int], offered: list[int], size: tuple[int, int]) -> float:
    """The same before Kubernetes 1.35: how even they are counts, not whether they become it."""
    cpu, memory = (free[1] - size[0]) / (offered[1] or 1), (free[2] - size[1]) / (offered[2] or 1)
    return cpu + memory - abs(cpu - memory)
