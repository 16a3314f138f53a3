"""What stands still while a plan is made: which nodes could take which pods, and what already keeps them off.

Pods that ask the same are one group, and are told apart nowhere: of 250 pods there are some ten groups.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rescheduler.core import placement
from rescheduler.core.affinities import Labels
from rescheduler.core.asks import Ask
from rescheduler.core.censuses import Census, Presence, Resident
from rescheduler.core.facts import Node
from rescheduler.core.quantities import CPU, MEMORY, PODS
from rescheduler.core.reaches import Reach, Storage

_NAME, _HOSTNAME = "metadata.name", "kubernetes.io/hostname"
OUT_OF_REACH = "out of reach of its volume"
KEPT_OFF = "kept off by affinity, anti-affinity, spread or host ports of other pods"


@dataclass(frozen=True, slots=True)
class Ground:
    """What a plan is made on.

    Attributes:
        closed: nodes that take no pod although they may look as if they did: drained now, or about to be.
        rivals: pods that need a place too, and may have it first.
        spaces: labels of namespaces by name, where a term asks for them.
    """

    nodes: Mapping[str, Node]
    census: Census
    closed: Collection[str] = ()
    rivals: Mapping[Ask, int] = field(default_factory=dict)
    spaces: Mapping[str, Labels] = field(default_factory=dict)
    storage: Storage = field(default_factory=Storage)


@dataclass(slots=True)
class Domains:
    """One spread constraint of a group, on these nodes.

    Attributes:
        of: the domain of each node that counts, by the node's index.
        filled: pods that count, by domain.
    """

    of: dict[int, str]
    filled: Counter[str]


@dataclass(slots=True, eq=False)
class Group:
    """Pods that ask the same and have their data in the same places.

    Attributes:
        members: which of the pods that need a place; `rivals`: how many more may have one first.
        need: how much of which resource, by its index.
        sure: nodes that take one as things are; `maybe`: those of which only the scheduler knows, too.
        lost: how many nodes take none, by the reason.
        most: of a resource that nodes have too little of, how much is free where most is.
        domains: of its spread constraints, in their order.
        near: pods that its affinity asks for, by label of nodes and value.
        meets_itself: it is what its own affinity asks for.
        fills: placed, it counts for these constraints of these groups.
        blocks: placed, it keeps these groups off the nodes with the same value of a label; None: off its node.
        draws: placed, it is what the affinity of these groups asks for.
    """

    ask: Ask
    reaches: frozenset[Reach]
    doubt: str
    members: list[int] = field(default_factory=list)
    rivals: int = 0
    need: tuple[tuple[int, int], ...] = ()
    sure: list[int] = field(default_factory=list)
    maybe: list[int] = field(default_factory=list)
    lost: Counter[str] = field(default_factory=Counter)
    most: Counter[str] = field(default_factory=Counter)
    domains: list[Domains] = field(default_factory=list)
    near: Counter[tuple[str, str]] = field(default_factory=Counter)
    meets_itself: bool = False
    fills: list[tuple["Group", int]] = field(default_factory=list)
    blocks: list[tuple[str | None, "Group"]] = field(default_factory=list)
    draws: list["Group"] = field(default_factory=list)


class Board:
    """Groups and nodes of one plan; nothing of it changes once it is made.

    Attributes:
        homes: where the pods are that need a place; `closed`: these, and all others that take no pods.
        kinds: the resources that count, by index; pods, CPU and memory first.
        offered: how much of each every node has in all.
        free: how much of each is free on every node.
    """

    def __init__(self, ground: Ground, leaving: Sequence[Resident]) -> None:
        """`leaving`: the pods that need a place; their nodes take none."""
        self.ground = ground
        # Emptiest first: whoever only wants to know whether there is room enough need not look far.
        self.nodes = sorted(ground.nodes.values(), key=self._emptiness)
        self.homes = {resident.node for resident in leaving}
        self.closed = {*ground.closed, *self.homes}
        self.groups = _grouped(leaving, ground)
        asked = {name for group in self.groups for name in group.ask.demand}
        self.kinds = [PODS, CPU, MEMORY, *sorted(asked - {PODS, CPU, MEMORY})]
        self.offered = [[node.allocatable.get(kind, 0) for kind in self.kinds] for node in self.nodes]
        self.free = [self._free(node, offered) for node, offered in zip(self.nodes, self.offered, strict=True)]
        self._index = {node.name: n for n, node in enumerate(self.nodes)}
        self._gone: dict[Presence, Counter[str]] = defaultdict(Counter)
        for resident in leaving:
            self._gone[resident.presence][resident.node] += 1
        self._offered = {name for node in self.nodes for name, value in node.allocatable.items() if value}
        self._coming = Counter(r.driver for group in self.groups for r in group.reaches for _ in group.members)
        self._alike = self._classified()
        self._allowed: dict[str, list[int]] = {}
        for group in self.groups:
            self._settle(group)

    def _emptiness(self, node: Node) -> tuple[int, str]:
        used = self.ground.census.used.get(node.name) or Counter()
        return used[CPU] - node.allocatable.get(CPU, 0), node.name

    def _free(self, node: Node, offered: list[int]) -> list[int]:
        used = self.ground.census.used.get(node.name) or Counter()
        return [have - used[kind] for have, kind in zip(offered, self.kinds, strict=True)]

    def present(self, presence: Presence) -> Iterator[tuple[int, int]]:
        """Nodes with pods of this presence that stay, and how many."""
        gone = self._gone.get(presence) or Counter()
        for name, count in self.ground.census.places[presence].items():
            left = count - gone[name]
            if left > 0 and name in self._index:
                yield self._index[name], left

    # -- which nodes --------------------------------------------------------------------------------------------------

    def _settle(self, group: Group) -> None:
        """Find out which nodes could take one of the group as things are."""
        index = {kind: k for k, kind in enumerate(self.kinds)}
        group.need = ((0, 1), *((index[name], value) for name, value in group.ask.demand.items()))
        unknown = sorted(n for n in group.ask.demand if "/" in n and n not in self._offered)
        if unknown and not group.doubt:
            group.doubt = f"no node offers {', '.join(unknown)}: a device driver may"
        nodes = self.allowed(group.ask)
        if group.reaches:
            found = [n for n in nodes if all(reach.reaches(self.nodes[n]) for reach in group.reaches)]
            group.lost[OUT_OF_REACH] += len(nodes) - len(found)
            nodes = found
        for kind, amount in group.need:
            nodes = self._with_room(group, nodes, kind, amount)
        crowded = self.ground.storage.crowded
        group.maybe = group.sure = nodes
        if group.reaches:
            group.sure = [n for n in nodes if not crowded(group.reaches, self.nodes[n].name, self._coming)]

    def _with_room(self, group: Group, nodes: list[int], kind: int, amount: int) -> list[int]:
        free = self.free
        found = [n for n in nodes if free[n][kind] >= amount]
        if len(found) < len(nodes):
            name = self.kinds[kind]
            group.lost[name] += len(nodes) - len(found)
            group.most[name] = max(free[n][kind] for n in nodes if free[n][kind] < amount)
        return found

    def allowed(self, ask: Ask) -> list[int]:
        """Nodes that a pod of this ask may be put on by name, labels and taints."""
        key = ask.place_key
        if key not in self._allowed:
            self._allowed[key] = [n for n in self.selected(ask) if self.is_open(n, ask)]
        return self._allowed[key]

    def selected(self, ask: Ask) -> Iterator[int]:
        """Nodes with the name and the labels that it asks for."""
        if placement.selecting(ask.where) & {_NAME, _HOSTNAME}:
            yield from (n for n, node in enumerate(self.nodes) if placement.selects(ask.where, node))
            return
        for alike in self._alike:
            if placement.selects(ask.where, self.nodes[alike[0]]):
                yield from alike

    def is_open(self, n: int, ask: Ask) -> bool:
        """Whether the node takes pods, and these: by its cordon and taints."""
        node = self.nodes[n]
        if node.name in self.closed or node.deleting:
            return False
        if node.unschedulable and not placement.tolerates_cordon(ask.where["tolerations"]):
            return False
        return not node.taints or placement.tolerates(ask.where["tolerations"], node.taints)

    def is_tolerated(self, n: int, ask: Ask) -> bool:
        """Whether the node's taints let these pods in, its cordon's among them."""
        node, tolerations = self.nodes[n], ask.where["tolerations"]
        cordoned = node.unschedulable or node.name in self.closed
        if cordoned and not placement.tolerates_cordon(tolerations):
            return False
        return not node.taints or placement.tolerates(tolerations, node.taints)

    def _classified(self) -> list[list[int]]:
        """Nodes that are the same to every ask that names none."""
        asked = {label for group in self.groups for label in placement.selecting(group.ask.where)}
        labels = sorted(asked - {_NAME, _HOSTNAME})
        found: dict[tuple[str | None, ...], list[int]] = defaultdict(list)
        for n, node in enumerate(self.nodes):
            found[tuple(map(node.labels.get, labels))].append(n)
        return list(found.values())


def _grouped(leaving: Sequence[Resident], ground: Ground) -> list[Group]:
    found: dict[tuple[Ask, frozenset[Reach], str], Group] = {}
    for position, resident in enumerate(leaving):
        reaches, doubt = ground.storage.of(resident.ask.namespace, resident.claims)
        key = (resident.ask, reaches, doubt)
        group = found.get(key) or found.setdefault(key, Group(resident.ask, reaches, resident.ask.doubt or doubt))
        group.members.append(position)
    for ask, count in ground.rivals.items():
        key = (ask, frozenset(), "")
        group = found.get(key) or found.setdefault(key, Group(ask, frozenset(), ask.doubt))
        group.rivals += count
    return list(found.values())
