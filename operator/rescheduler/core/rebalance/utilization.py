"""How full the nodes of one pool are, and what moving a pod would do to that.

The spread weighs each node by its size: so its mean stays where it is whatever is moved, and a move between two
nodes changes it by the same amount whatever happens on others. That is what makes "every move lowers the spread by
at least so much" a promise that ends.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from statistics import pstdev

from rescheduler.core.model.nodes import Node
from rescheduler.core.model.quantities import CPU, MEMORY, PODS
from rescheduler.core.model.resource_requests import Amounts

STEADY = 3
"""So many samples in a row must agree before a node gives because of its usage: one peak moves nothing."""


@dataclass(frozen=True, slots=True)
class Pair:
    """CPU and memory: amounts (thousandths, bytes) or shares of a node."""

    cpu: float = 0.0
    memory: float = 0.0

    @classmethod
    def of(cls, amounts: Amounts) -> "Pair":
        """Those two of a ResourceList."""
        return cls(amounts.get(CPU, 0), amounts.get(MEMORY, 0))

    def __add__(self, other: "Pair") -> "Pair":
        return Pair(self.cpu + other.cpu, self.memory + other.memory)

    def __sub__(self, other: "Pair") -> "Pair":
        return Pair(self.cpu - other.cpu, self.memory - other.memory)

    def __mul__(self, other: "Pair") -> "Pair":
        return Pair(self.cpu * other.cpu, self.memory * other.memory)

    def __truediv__(self, other: "Pair") -> "Pair":
        """Share by share; of nothing there is no share."""
        return Pair(self.cpu / other.cpu if other.cpu else 0.0, self.memory / other.memory if other.memory else 0.0)

    @property
    def most(self) -> float:
        """The larger one, of shares."""
        return max(self.cpu, self.memory)

    @property
    def sum(self) -> float:
        """Both together, of shares."""
        return self.cpu + self.memory


def larger(one: Pair, other: Pair) -> Pair:
    """The larger of each."""
    return Pair(max(one.cpu, other.cpu), max(one.memory, other.memory))


def smaller(one: Pair, other: Pair) -> Pair:
    """The smaller of each."""
    return Pair(min(one.cpu, other.cpu), min(one.memory, other.memory))


@dataclass(frozen=True, slots=True)
class Load:
    """How full one node is.

    Attributes:
        whole: what it has for pods (allocatable).
        requested: what its pods ask for.
        burden: what counts when it gives: the requests, or more where more was used for some time.
        claimed: what counts when it takes: the requests, or the highest usage seen of late.
        free: by resource, what no pod has asked for; `pods` among them.
    """

    node: Node
    whole: Pair
    requested: Pair
    burden: Pair
    claimed: Pair
    free: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The node's."""
        return self.node.name

    @property
    def share(self) -> Pair:
        """How full it is."""
        return self.burden / self.whole

    @property
    def taken(self) -> Pair:
        """How full it is when another pod is to come."""
        return self.claimed / self.whole

    def weight(self, asked: Pair) -> Pair:
        """What leaves with a pod that asks for this: of a node that uses more than is asked, in proportion more."""
        return asked * larger(self.burden / self.requested, Pair(1, 1))

    def room_for(self, asked: Amounts) -> bool:
        """Whether the scheduler would find room for it."""
        return self.free.get(PODS, 0) >= 1 and all(self.free.get(name, 0) >= size for name, size in asked.items())


def load(node: Node, requested: Amounts, recent: Sequence[Pair] = (), known: Sequence[Pair] = ()) -> Load:
    """A node with what its pods ask for, `pods` their number.

    `recent`: samples of its usage since pods were last moved here; `known`: of late, from before that too.
    """
    asked = Pair.of(requested)
    burden, claimed = asked, reduce(larger, (*known, *recent), asked)
    if len(recent) >= STEADY:
        burden = larger(asked, reduce(smaller, recent[-STEADY:]))
    free = {name: size - requested.get(name, 0) for name, size in node.allocatable.items()}
    return Load(node, Pair.of(node.allocatable), asked, burden, claimed, free)


def mean(loads: Iterable[Load]) -> Pair:
    """How full they are together."""
    burden = whole = Pair()
    for each in loads:
        burden, whole = burden + each.burden, whole + each.whole
    return burden / whole


def unit(loads: Sequence[Load]) -> Pair:
    """The mean size of these nodes."""
    whole = reduce(add, (each.whole for each in loads), Pair())
    return whole / Pair(len(loads), len(loads))


def spread(loads: Sequence[Load]) -> float:
    """How unevenly full they are, by requests: the squares of the distances from the mean, in nodes of mean size."""
    size, whole = unit(loads), reduce(add, (each.whole for each in loads), Pair())
    middle = reduce(add, (each.requested for each in loads), Pair()) / whole
    squares = Pair()
    for each in loads:
        distance = each.requested / each.whole - middle
        squares += each.whole / size * distance * distance
    return squares.sum


def gain(giver: Load, taker: Load, asked: Pair, size: Pair) -> float:
    """By how much nodes are more evenly full once a pod that asks for this goes from one to the other.

    As `spread`, but by what counts as their load. `size`: the unit of the spread.
    """
    return _fall(giver.share - taker.taken, giver, taker, giver.weight(asked), size)


def gain_by_requests(giver: Load, taker: Load, asked: Pair, size: Pair) -> float:
    """By how much the spread falls."""
    return _fall(giver.requested / giver.whole - taker.requested / taker.whole, giver, taker, asked, size)


def _fall(gap: Pair, giver: Load, taker: Load, weight: Pair, size: Pair) -> float:
    return (weight / size * (gap + gap - weight / giver.whole - weight / taker.whole)).sum


def deviation(loads: Sequence[Load]) -> Pair:
    """For people: the standard deviation of the requested share, of CPU and of memory."""
    shares = [each.requested / each.whole for each in loads]
    return Pair(pstdev([share.cpu for share in shares]), pstdev([share.memory for share in shares]))
