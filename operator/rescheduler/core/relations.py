"""What pods of a plan are to each other, and to those that stay: affinity both ways, host ports, spread.

Only what is there before is worked into the board here; what each pod adds when it is placed, a packing counts.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping

from rescheduler.core.affinities import Term
from rescheduler.core.asks import Ask, collide
from rescheduler.core.boards import Board, Domains, Group
from rescheduler.core.censuses import Presence


class Relations:
    """Works them into the groups of a board."""

    def __init__(self, board: Board) -> None:
        self._board, self._spaces = board, board.ground.spaces
        presences = board.ground.census.places
        self._repelling = [presence for presence in presences if presence.apart]
        self._bound = [presence for presence in presences if presence.ports]
        self._by_space: Mapping[str, list[Presence]] = defaultdict(list)
        for presence in presences:
            self._by_space[presence.namespace].append(presence)

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

    def _meant(self, terms: Iterable[Term]) -> Iterator[Presence]:
        """Pods that stay and that all of these terms mean."""
        wanted = tuple(terms)
        first = wanted[0]
        spaces = self._by_space if first.spaces is not None else first.namespaces
        for space in spaces:
            for presence in self._by_space.get(space, ()):
                if all(term.selects(space, presence.labels, self._spaces) for term in wanted):
                    yield presence

    # -- those that stay ----------------------------------------------------------------------------------------------

    def _keep_off(self, group: Group) -> None:
        """Take the nodes out that pods which stay keep the group off."""
        labels = [node.labels for node in self._board.nodes]
        taken, bound = self._taken(group.ask), self._bound_nodes(group.ask)
        if taken or bound:

            def is_left(n: int) -> bool:
                return n not in bound and all(labels[n].get(key) not in values for key, values in taken.items())

            group.maybe, group.sure = list(filter(is_left, group.maybe)), list(filter(is_left, group.sure))

    def _taken(self, ask: Ask) -> Mapping[str, set[str]]:
        """By label of nodes, the values that anti-affinity, of pods that stay or the ask's own, rules out."""
        there = (
            (term.key, presence)
            for presence in self._repelling
            for term in presence.apart
            if term.selects(ask.namespace, ask.labels, self._spaces)
        )
        own = ((term.key, presence) for term in ask.apart for presence in self._meant((term,)))
        found: dict[str, set[str]] = defaultdict(set)
        for key, presence in (*there, *own):
            nodes = (self._board.nodes[n].labels for n, _ in self._board.present(presence))
            found[key].update(labels[key] for labels in nodes if key in labels)
        return found

    def _bound_nodes(self, ask: Ask) -> set[int]:
        """Nodes where a host port that it asks for is taken."""
        if not ask.ports:
            return set()
        taken = (presence for presence in self._bound if collide(ask.ports, presence.ports))
        return {n for presence in taken for n, _ in self._board.present(presence)}

    def _near(self, group: Group) -> Counter[tuple[str, str]]:
        found: Counter[tuple[str, str]] = Counter()
        if group.ask.near:
            for presence in self._meant(group.ask.near):
                for n, count in self._board.present(presence):
                    found.update(places(group, self._board.nodes[n].labels, count))
        return found

    def _domains(self, group: Group) -> Iterator[Domains]:
        ask, nodes = group.ask, self._board.nodes
        keys = [spread.key for spread in ask.spreads]
        selected = set(self._board.selected(ask)) if any(s.affine for s in ask.spreads) else set()
        for spread in ask.spreads:
            of = {
                n: node.labels[spread.key]
                for n, node in enumerate(nodes)
                if all(key in node.labels for key in keys)
                and (not spread.affine or n in selected)
                and (not spread.tolerated or self._board.is_tolerated(n, ask))
            }
            filled = Counter(dict.fromkeys(of.values(), 0))
            for presence in self._by_space.get(ask.namespace, ()):
                if not presence.ending and spread.counts(presence.labels):
                    for n, count in self._board.present(presence):
                        if n in of:
                            filled[of[n]] += count
            yield Domains(of, filled)

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
