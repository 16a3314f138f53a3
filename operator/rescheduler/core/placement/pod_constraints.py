"""What pods of a plan are to each other, and to those that stay: affinity both ways, host ports, spread.

Only what is there before is worked into the board here; what each pod adds when it is placed, a packing counts.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping

from rescheduler.core.placement.pod_requirements import Ask, collide
from rescheduler.core.placement.problem import KEPT_OFF, Board, Domains, Group
from rescheduler.core.placement.topology_spread import Spread


class Relations:
    """Works them into the groups of a board."""

    def __init__(self, board: Board) -> None:
        self._board, self._floor, self._spaces = board, board.floor, board.ground.spaces
        self._labels = self._floor.labels

    def work_in(self) -> None:
        """All of them."""
        groups = self._board.groups
        for group in groups:
            self._keep_off(group)
            group.near = self._near(group)
            group.domains = list(self._domains(group))
        for group in groups:
            if group.ask.near:
                self._draw(group, groups)
            for number, spread in enumerate(group.ask.spreads):
                for other in groups:
                    if other.ask.namespace == group.ask.namespace and spread.counts(other.ask.labels):
                        other.fills.append((group, number))
        self._block(groups)

    # -- those that stay ----------------------------------------------------------------------------------------------

    def _keep_off(self, group: Group) -> None:
        """Take the nodes out that pods which stay keep the group off."""
        taken, bound, labels = self._taken(group.ask), self._bound_to(group.ask), self._labels
        if not taken and not bound:
            return
        before, left = len(group.maybe), [n for n in group.maybe if n not in bound]
        for key, values in taken.items():
            left = [n for n in left if labels[n].get(key) not in values]
        group.narrow(left)
        group.lost[KEPT_OFF] += before - len(left)

    def _taken(self, ask: Ask) -> Mapping[str, set[str]]:
        """Where pods that stay keep these off, or are what these keep off: by label of nodes, the values."""
        found: dict[str, set[str]] = defaultdict(set)
        for key, presence in self._floor.apart(ask, self._spaces):
            for n, _ in self._board.present(presence):
                if key in self._labels[n]:
                    found[key].add(self._labels[n][key])
        return found

    def _bound_to(self, ask: Ask) -> set[int]:
        """Nodes whose host ports are taken."""
        colliding = (p for p in self._floor.bound if ask.ports and collide(ask.ports, p.ports))
        return {n for presence in colliding for n, _ in self._board.present(presence)}

    def _near(self, group: Group) -> Counter[tuple[str, str]]:
        found: Counter[tuple[str, str]] = Counter()
        if group.ask.near:
            for presence in self._floor.meant(group.ask.near, self._spaces):
                for n, count in self._board.present(presence):
                    found.update(places(group, self._labels[n], count))
        return found

    def _domains(self, group: Group) -> Iterator[Domains]:
        ask = group.ask
        for number, spread in enumerate(ask.spreads):
            of = self._counting(ask, spread)
            filled = Counter(dict.fromkeys(of.values(), 0))
            for presence in self._floor.counted(ask, number):
                for n, count in self._board.present(presence):
                    if n in of:
                        filled[of[n]] += count
            yield Domains(of, filled)

    def _counting(self, ask: Ask, spread: Spread) -> Mapping[int, str]:
        """The nodes that count for a constraint, with their domains."""
        found = self._floor.counting(ask, spread.key, frozenset(each.key for each in ask.spreads), affine=spread.affine)
        if spread.tolerated:
            return {n: domain for n, domain in found.items() if self._board.is_tolerated(n, ask)}
        return found

    # -- each other ---------------------------------------------------------------------------------------------------

    def _draw(self, group: Group, groups: Iterable[Group]) -> None:
        for other in groups:
            if all(t.selects(other.ask.namespace, other.ask.labels, self._spaces) for t in group.ask.near):
                other.draws.append(group)
                group.meets_itself = group.meets_itself or other is group

    def _block(self, groups: list[Group]) -> None:
        for group in groups:
            for term in group.ask.apart:
                for other in groups:
                    if term.selects(other.ask.namespace, other.ask.labels, self._spaces):
                        group.blocks.append((term.key, other))
                        if other is not group:
                            other.blocks.append((term.key, group))
            for other in groups if group.ask.ports else ():
                if other.ask.ports and collide(group.ask.ports, other.ask.ports):
                    group.blocks.append((None, other))


def places(group: Group, labels: Mapping[str, str], count: int = 1) -> dict[tuple[str, str], int]:
    """What a pod that the group's affinity asks for counts for, on a node with these labels."""
    found: Counter[tuple[str, str]] = Counter()
    for term in group.ask.near:
        if term.key in labels:
            found[term.key, labels[term.key]] += count
    return found
