"""What stands still while a plan is made: which nodes could take which pods, and what already keeps them off.

Pods that ask the same are one group, and are told apart nowhere: of 250 pods there are some ten groups.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rescheduler.core.model import node_affinity
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.volume_topology import Reach, Storage
from rescheduler.core.placement.node_snapshot import Floor
from rescheduler.core.placement.pod_affinity import Labels
from rescheduler.core.placement.pod_requirements import Ask
from rescheduler.core.placement.pod_snapshot import Census, Presence, Resident

OUT_OF_REACH = "out of reach of its volume"
_RIVALS = 200  # kinds of pods; with more that wait there is no room for any
KEPT_OFF = "kept off by affinity, anti-affinity, spread or host ports of other pods"


@dataclass(frozen=True, slots=True)
class Ground:
    """What a plan is made on.

    Attributes:
        closed: nodes that take no pod although they may look as if they did: drained now, or about to be.
        rivals: pods that need a place too, and may have it first.
        spaces: labels of namespaces by name, where a term asks for them.
        floor: of these nodes and this census, where several plans are made on it; None: it is worked out for each.
    """

    nodes: Mapping[str, Node]
    census: Census
    closed: Collection[str] = ()
    rivals: Mapping[Ask, int] = field(default_factory=dict)
    spaces: Mapping[str, Labels] = field(default_factory=dict)
    storage: Storage = field(default_factory=Storage)
    floor: Floor | None = None


@dataclass(slots=True)
class Domains:
    """One spread constraint of a group, on these nodes.

    Attributes:
        of: the domain of each node that counts, by the node's index.
        filled: pods that count, by domain.
    """

    of: Mapping[int, str]
    filled: Counter[str]


@dataclass(slots=True, eq=False)
class Group:
    """Pods that ask the same and have their data in the same places.

    Attributes:
        members: which of the pods that need a place; `rivals`: how many more may have one first.
        need: how much of which resource, by its index.
        sure: nodes that take one if they have room; `maybe`: those of which only the scheduler knows, too.
        lost: how many nodes take none whatever room they have, by the reason.
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
    domains: list[Domains] = field(default_factory=list)
    near: Counter[tuple[str, str]] = field(default_factory=Counter)
    meets_itself: bool = False
    fills: list[tuple["Group", int]] = field(default_factory=list)
    blocks: list[tuple[str | None, "Group"]] = field(default_factory=list)
    draws: list["Group"] = field(default_factory=list)

    def narrow(self, kept: list[int]) -> None:
        """Keep these nodes alone."""
        if self.sure is self.maybe:
            self.sure = self.maybe = kept
        else:
            left = set(kept)
            self.maybe, self.sure = kept, [n for n in self.sure if n in left]


class Board:
    """Groups and nodes of one plan; nothing of it changes once it is made.

    Attributes:
        homes: where the pods are that need a place; `closed`: these, and all others that take no pods.
    """

    def __init__(self, ground: Ground, leaving: Sequence[Resident]) -> None:
        """`leaving`: the pods that need a place; their nodes take none."""
        self.ground, self.floor = ground, ground.floor or Floor(ground.nodes, ground.census)
        self.nodes, self.kinds = self.floor.nodes, self.floor.kinds
        self.offered, self.free = self.floor.offered, self.floor.free
        self.homes = {resident.node for resident in leaving}
        self.closed = {*ground.closed, *self.homes}
        self.groups = _grouped(leaving, ground)
        self._shut = {self.floor.index[name] for name in self.closed if name in self.floor.index}
        self._gone: dict[Presence, Counter[str]] = defaultdict(Counter)
        for resident in leaving:
            self._gone[resident.presence][resident.node] += 1
        self._coming = Counter(r.driver for group in self.groups for r in group.reaches for _ in group.members)
        self._allowed: dict[str, list[int]] = {}
        for group in self.groups:
            self._settle(group)

    def present(self, presence: Presence) -> Iterator[tuple[int, int]]:
        """Nodes with pods of this presence that stay, and how many."""
        gone = self._gone.get(presence) or Counter()
        for name, count in self.ground.census.places[presence].items():
            left = count - gone[name]
            if left > 0 and name in self.floor.index:
                yield self.floor.index[name], left

    def _settle(self, group: Group) -> None:
        """Find out which nodes could take one of the group as things are."""
        index = {kind: k for k, kind in enumerate(self.kinds)}
        unknown = sorted(name for name in group.ask.demand if name not in index)
        if unknown and not group.doubt:
            group.doubt = f"no node offers {', '.join(unknown)}: a device driver may"
        known = ((name, value) for name, value in group.ask.demand.items() if name in index)
        group.need = ((0, 1), *((index[name], value) for name, value in known))
        group.maybe = group.sure = self.allowed(group.ask)
        if group.reaches:
            found = [n for n in group.maybe if all(reach.reaches(self.nodes[n]) for reach in group.reaches)]
            group.lost[OUT_OF_REACH] += len(group.maybe) - len(found)
            crowded = self.ground.storage.crowded
            group.maybe = found
            group.sure = [n for n in found if not crowded(group.reaches, self.nodes[n].name, self._coming)]

    def allowed(self, ask: Ask) -> list[int]:
        """Nodes that a pod of this ask may be put on by name, labels and taints."""
        key = ask.place_key
        if key not in self._allowed:
            self._allowed[key] = [n for n in self.floor.taking(ask) if n not in self._shut]
        return self._allowed[key]

    def with_room(self, nodes: Sequence[int], group: Group) -> Sequence[int]:
        """Those of the nodes that have room for one of the group as things are."""
        free = self.free
        for kind, amount in group.need:
            nodes = [n for n in nodes if free[n][kind] >= amount]
        return nodes

    def is_tolerated(self, n: int, ask: Ask) -> bool:
        """Whether the node's taints let these pods in, its cordon's among them."""
        node, tolerations = self.nodes[n], ask.where["tolerations"]
        cordoned = node.unschedulable or n in self._shut
        if cordoned and not node_affinity.tolerates_cordon(tolerations):
            return False
        return not node.taints or node_affinity.tolerates(tolerations, node.taints)


def _grouped(leaving: Sequence[Resident], ground: Ground) -> list[Group]:
    found: dict[tuple[Ask, frozenset[Reach], str], Group] = {}
    for position, resident in enumerate(leaving):
        reaches, doubt = ground.storage.of(resident.ask.namespace, resident.claims)
        key = (resident.ask, reaches, doubt)
        group = found.get(key) or found.setdefault(key, Group(resident.ask, reaches, resident.ask.doubt or doubt))
        group.members.append(position)
    for ask, count in Counter(ground.rivals).most_common(_RIVALS):
        key = (ask, frozenset(), "")
        group = found.get(key) or found.setdefault(key, Group(ask, frozenset(), ask.doubt))
        group.rivals += count
    return list(found.values())
