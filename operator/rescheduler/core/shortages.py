"""Why a pod finds no place, in words for whoever could make one."""

from rescheduler.core.boards import Board, Group
from rescheduler.core.quantities import said


def shortage(group: Group, board: Board) -> str:
    """What the nodes lack for one of this group; the first thing that alone keeps it off all of them."""
    allowed = board.allowed(group.ask)
    if not allowed:
        if not any(True for _ in board.selected(group.ask)):
            return "no node has the labels that it asks for"
        return "each node with the labels that it asks for is cordoned, drained or tainted"
    reached = [n for n in allowed if all(reach.reaches(board.nodes[n]) for reach in group.reaches)]
    if not reached:
        return "no node that takes it reaches its volumes"
    if not any(all(board.free[n][k] >= amount for k, amount in group.need) for n in reached):
        return _lacking(group, board, reached)
    if not group.maybe:
        return "pods that stay keep it off each node that takes it: anti-affinity or host ports"
    rules = (
        ("affinity", group.ask.near),
        ("anti-affinity", group.ask.apart),
        ("spread", group.ask.spreads),
        ("host ports", group.ask.ports),
    )
    if asked := [name for name, rule in rules if rule]:
        return f"no place is left by room and its {' and '.join(asked)} once the others have theirs"
    return "no room is left once the others have their place"


def _lacking(group: Group, board: Board, nodes: list[int]) -> str:
    """Which resource the nodes have too little of, each of them as it is now."""
    short = []
    for k, amount in group.need:
        kind, most = board.kinds[k], max(board.free[n][k] for n in nodes)
        if most < amount:
            needs, free = said(kind, amount), said(kind, max(0, most))
            return f"it asks for {needs} {kind}; of {len(nodes)} nodes that take it, the emptiest has {free} free"
        if count := sum(board.free[n][k] < amount for n in nodes):
            short.append(f"{count} lack {kind}")
    return f"of {len(nodes)} nodes that take it none has all that it asks for: {', '.join(short)}"
