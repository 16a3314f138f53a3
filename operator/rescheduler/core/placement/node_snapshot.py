"""Nodes with what they offer and hold: the same for all plans that are made of one moment, and worked out once."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain

from rescheduler.core.model import node_affinity
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.quantities import CPU, MEMORY, PODS
from rescheduler.core.placement.pod_affinity import Labels, Term
from rescheduler.core.placement.pod_requirements import Ask
from rescheduler.core.placement.pod_snapshot import Census, Presence

_NAME, _HOSTNAME = "metadata.name", "kubernetes.io/hostname"


class Floor:
    """The nodes of a cluster, by index.

    Attributes:
        nodes: the emptiest first: whoever only wants to know whether there is room enough need not look far.
        kinds: the resources that any node offers, by index; pods, CPU and memory first.
        offered, free: how much of each every node has in all, and left.
    """

    def __init__(self, nodes: Mapping[str, Node], census: Census) -> None:
        self._census = census
        self.nodes = sorted(nodes.values(), key=self._emptiness)
        self.labels = [node.labels for node in self.nodes]
        self.index = {node.name: n for n, node in enumerate(self.nodes)}
        named = {name for node in self.nodes for name, value in node.allocatable.items() if value}
        self.kinds = [PODS, CPU, MEMORY, *sorted(named - {PODS, CPU, MEMORY})]
        self.offered = [[node.allocatable.get(kind, 0) for kind in self.kinds] for node in self.nodes]
        self.free = [self._free(node, offered) for node, offered in zip(self.nodes, self.offered, strict=True)]
        self._alike: dict[frozenset[str], list[list[int]]] = {}
        self._taking: dict[str, list[int]] = {}
        self._counting: dict[tuple[str, frozenset[str], str], dict[int, str]] = {}
        self._values: dict[str, Counter[str]] = {}
        self._apart: dict[Ask, list[tuple[str, Presence]]] = {}
        self._counted: dict[tuple[Ask, int], list[Presence]] = {}

    def _emptiness(self, node: Node) -> tuple[int, str]:
        used = self._census.used.get(node.name) or Counter()
        return used[CPU] - node.allocatable.get(CPU, 0), node.name

    def _free(self, node: Node, offered: Sequence[int]) -> list[int]:
        used = self._census.used.get(node.name) or Counter()
        return [have - used[kind] for have, kind in zip(offered, self.kinds, strict=True)]

    # -- which nodes --------------------------------------------------------------------------------------------------

    def selected(self, ask: Ask) -> Iterator[int]:
        """Nodes with the name and the labels that it asks for."""
        asked = node_affinity.selecting(ask.where)
        if asked & {_NAME, _HOSTNAME}:
            yield from (n for n, node in enumerate(self.nodes) if node_affinity.selects(ask.where, node))
            return
        if asked not in self._alike:
            self._alike[asked] = self._classified(sorted(asked))
        for alike in self._alike[asked]:
            if node_affinity.selects(ask.where, self.nodes[alike[0]]):
                yield from alike

    def _classified(self, labels: Sequence[str]) -> list[list[int]]:
        """Nodes that have the same values of these labels."""
        found: dict[tuple[str | None, ...], list[int]] = defaultdict(list)
        for n, have in enumerate(self.labels):
            found[tuple(map(have.get, labels))].append(n)
        return list(found.values())

    def values(self, key: str) -> Counter[str]:
        """The values of a label, and how many nodes have each."""
        if key not in self._values:
            self._values[key] = Counter(have[key] for have in self.labels if key in have)
        return self._values[key]

    def tells_apart(self, key: str) -> bool:
        """Whether no two nodes have the same value of a label."""
        found = self.values(key)
        return len(found) == found.total()

    def taking(self, ask: Ask) -> list[int]:
        """Nodes that may have a pod of this ask, by name, labels, cordon and taints."""
        key = ask.place_key
        if key not in self._taking:
            self._taking[key] = sorted(n for n in self.selected(ask) if self.is_open(n, ask))
        return self._taking[key]

    def is_open(self, n: int, ask: Ask) -> bool:
        """Whether the node takes pods, and these: by its cordon and taints."""
        node = self.nodes[n]
        if node.deleting or (node.unschedulable and not node_affinity.tolerates_cordon(ask.where["tolerations"])):
            return False
        return not node.taints or node_affinity.tolerates(ask.where["tolerations"], node.taints)

    def counting(self, ask: Ask, key: str, keys: frozenset[str], *, affine: bool) -> Mapping[int, str]:
        """The nodes with all these labels, and their values of one; `affine`: of those that it asks for."""
        known = (key, keys, ask.place_key if affine else "")
        if known not in self._counting:
            nodes: Iterable[int] = self.selected(ask) if affine else range(len(self.nodes))
            have = ((n, self.labels[n]) for n in nodes)
            self._counting[known] = {n: labels[key] for n, labels in have if all(each in labels for each in keys)}
        return self._counting[known]

    # -- which pods ---------------------------------------------------------------------------------------------------

    @cached_property
    def by_space(self) -> Mapping[str, list[Presence]]:
        """Pods that are there, by namespace."""
        found: dict[str, list[Presence]] = defaultdict(list)
        for presence in self._census.places:
            found[presence.namespace].append(presence)
        return found

    @cached_property
    def _repelling(self) -> Mapping[str, list[tuple[Term, Presence]]]:
        """Anti-affinity of those that are there, by the namespaces that it means; under "" what may mean others too."""
        found: dict[str, list[tuple[Term, Presence]]] = defaultdict(list)
        for presence in self._census.places:
            for term in presence.apart:
                for space in ("",) if term.spaces is not None else term.namespaces:
                    found[space].append((term, presence))
        return found

    def meant(self, wanted: Sequence[Term], spaces: Mapping[str, Labels]) -> Iterator[Presence]:
        """Pods that all of these terms mean."""
        first = wanted[0]
        for space in self.by_space if first.spaces is not None else first.namespaces:
            for presence in self.by_space.get(space, ()):
                if all(term.selects(space, presence.labels, spaces) for term in wanted):
                    yield presence

    def apart(self, ask: Ask, spaces: Mapping[str, Labels]) -> Sequence[tuple[str, Presence]]:
        """Pods that keep these off, or that these keep off, with the label of nodes that it is about."""
        if ask not in self._apart:
            candidates = chain(self._repelling.get(ask.namespace, ()), self._repelling.get("", ()))
            theirs = [(t.key, presence) for t, presence in candidates if t.selects(ask.namespace, ask.labels, spaces)]
            ours = [(term.key, presence) for term in ask.apart for presence in self.meant((term,), spaces)]
            self._apart[ask] = [*theirs, *ours]
        return self._apart[ask]

    def counted(self, ask: Ask, number: int) -> Sequence[Presence]:
        """Pods that count for one of its spread constraints."""
        if (ask, number) not in self._counted:
            spread = ask.spreads[number]
            rows = self.by_space.get(ask.namespace, ())
            self._counted[ask, number] = [p for p in rows if not p.ending and spread.counts(p.labels)]
        return self._counted[ask, number]

    @cached_property
    def bound(self) -> list[Presence]:
        """Those that have host ports."""
        return [presence for presence in self._census.places if presence.ports]
