"""Why a pod finds no place, in words for whoever could make one."""

from rescheduler.core.boards import Board, Group


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
    lacking = {name: count for k, name in enumerate(board.kinds) if (count := _lacking(k, group, board, reached))}
    if not any(all(board.free[n][k] >= amount for k, amount in group.need) for n in reached):
        lacks = ", ".join(f"{count} lack {name}" for name, count in lacking.items())
        return f"of {len(reached)} nodes that it may be put on, {lacks}"
    if not group.maybe:
        return "pods that stay keep it off every node with room: anti-affinity or host ports"
    rules = (
        ("affinity", group.ask.near),
        ("anti-affinity", group.ask.apart),
        ("spread", group.ask.spreads),
        ("host ports", group.ask.ports),
    )
    if asked := [name for name, rule in rules if rule]:
        return f"no place is left by room and its {' and '.join(asked)} once the others have theirs"
    return "no room is left once the others have their place"


def _lacking(kind: int, group: Group, board: Board, nodes: list[int]) -> int:
    amount = dict(group.need).get(kind, 0)
    return sum(board.free[n][kind] < amount for n in nodes)
