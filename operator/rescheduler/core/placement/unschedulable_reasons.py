"""Why no node takes a pod, in words that a person can act on."""

from collections import Counter
from dataclasses import dataclass

from rescheduler.api import names
from rescheduler.core.model import node_affinity
from rescheduler.core.model.quantities import PODS, said
from rescheduler.core.placement.pod_requirements import Ask
from rescheduler.core.placement.problem import KEPT_OFF, Board, Group
from rescheduler.core.placement.scheduling_run import Packing

_CLOSED = "cordoned or being drained"
_NOT_ASKED = "ruled out by its nodeSelector or node affinity"


@dataclass(frozen=True, slots=True)
class Shortage:
    """Why a pod finds no place.

    Attributes:
        crowded: somewhere there is room, and other pods keep it off.
    """

    reason: str = ""
    crowded: bool = False


class Shortages:
    """Of one plan, after one packing."""

    def __init__(self, packing: Packing) -> None:
        self._packing, self._board = packing, packing.board
        self._shut: dict[str, Counter[str]] = {}

    def of(self, group: Group) -> Shortage:
        """Why one more of the group finds no place."""
        key = group.ask.place_key
        if key not in self._shut:
            self._shut[key] = _shut(self._board, group.ask)
        lost, most, nodes = self._shut[key] + group.lost, Counter[str](), group.maybe
        free, kinds = self._board.free, self._board.kinds
        for kind, amount in group.need:
            full = [n for n in nodes if free[n][kind] < amount]
            if full:
                lost[kinds[kind]] += len(full)
                most[kinds[kind]] = max(free[n][kind] for n in full)
                nodes = [n for n in nodes if free[n][kind] >= amount]
        for n in nodes:
            name = self._packing.lacks(group, n)
            lost[name or KEPT_OFF] += 1
            if name:
                most[name] = max(most[name], self._packing.free(n)[kinds.index(name)])
        parts = [f"{count} {self._said(group, why, most)}" for why, count in lost.most_common() if count]
        if not parts:
            return Shortage("there is no other node")
        return Shortage(f"of {lost.total()} other nodes none takes it: {', '.join(parts)}", lost[KEPT_OFF] > 0)

    def _said(self, group: Group, why: str, most: Counter[str]) -> str:
        if why == PODS:
            return "full (number of pods)"
        if why not in self._board.kinds:
            return why
        asked, free = said(why, group.ask.demand[why]), said(why, max(0, most[why]))
        return f"with too little {why} ({asked} asked for, at most {free} free)"


def _shut(board: Board, ask: Ask) -> Counter[str]:
    """How many nodes take none of these pods whatever they hold, by the reason."""
    allowed = set(board.allowed(ask))
    others = (n for n, node in enumerate(board.nodes) if n not in allowed and node.name not in board.homes)
    return Counter(_why(board, ask, n) for n in others)


def _why(board: Board, ask: Ask, n: int) -> str:
    node = board.nodes[n]
    if node.name in board.closed or node.deleting or (node.unschedulable and not board.floor.is_open(n, ask)):
        return _CLOSED
    if not node_affinity.selects(ask.where, node):
        pool = ask.where["nodeSelector"].get(names.NODE_POOL)
        return f"not of pool {pool}" if pool and node.labels.get(names.NODE_POOL) != pool else _NOT_ASKED
    return "with a taint that it does not tolerate"
