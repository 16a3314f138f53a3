"""Events and metrics of evening out: what is moved off which node, and why; on the node, for nobody asked for it."""

from collections.abc import Sequence

from rescheduler.controllers.drain.events import of_node
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.core.rebalance.node_groups import Arena
from rescheduler.core.rebalance.selection import Shift, Sides
from rescheduler.core.rebalance.utilization import Load, deviation
from rescheduler.kube.event_recorder import Kind, Recorder


class RebalanceAnnouncer:
    """Says what changed, once."""

    def __init__(self, recorder: Recorder, metrics: Metrics) -> None:
        self._recorder, self._metrics = recorder, metrics
        self._would: dict[tuple[str, str], frozenset[str]] = {}  # by arena: uids of pods that Audit named

    def measured(self, arena: Arena, loads: Sequence[Load]) -> None:
        """How uneven an arena is now."""
        found = deviation(loads)
        for resource, value in (("cpu", found.cpu), ("memory", found.memory)):
            self._metrics.load_deviation.labels(arena.pool, arena.policy.name, resource).set(value)

    def forget(self, pool: str, policy: str) -> None:
        """An arena is gone."""
        self._would.pop((pool, policy), None)
        for resource in ("cpu", "memory"):
            self._metrics.load_deviation.remove(pool, policy, resource)

    def moving(self, arena: Arena, found: Sides, shifts: Sequence[Shift]) -> None:
        """These are moved now."""
        for shift in shifts:
            self._say(arena, found, shift, "Rebalancing", "Moving")

    def would_move(self, arena: Arena, found: Sides, shifts: Sequence[Shift]) -> None:
        """In mode Audit: these would be moved."""
        uids = frozenset(shift.candidate.pod.uid for shift in shifts)
        if self._would.get(arena.key) != uids:
            self._would[arena.key] = uids
            for shift in shifts:
                self._say(arena, found, shift, "WouldRebalance", "In mode Enforce this would move")

    def moved(self, arena: Arena, outcome: str) -> None:
        """What became of one move."""
        self._metrics.rebalance_moves.labels(arena.pool, outcome).inc()

    def gave_up(self, arena: Arena) -> None:
        """Moves have not made the nodes more even: none is tried again before something changes."""
        message = (
            f"Moving pods has not evened out {arena.words}: the scheduler puts them elsewhere than on the emptiest. "
            "Nothing more is moved until nodes, requests or the policy change"
        )
        self._recorder.emit(of_node(arena.nodes[0]), Kind.WARNING, "RebalancingStopped", message)

    def _say(self, arena: Arena, found: Sides, shift: Shift, reason: str, word: str) -> None:
        pod = shift.candidate.pod
        giver = next(load for load in found.givers if load.name == pod.node)
        share, high = giver.share, arena.policy.spec.rebalance.high
        fuller = share.most > arena.bounds.high
        why = f"above high ({high})" if fuller else "fuller than the mean"
        takers = [load.name for load in found.takers]
        others = f"{', '.join(takers[:3])}{' and others' if len(takers) > 3 else ''}"
        message = (
            f"{word} pod {pod.key} ({_percent(shift.share.cpu)} of the node's CPU, {_percent(shift.share.memory)} of its "
            f"memory) off this node, which is {why} with {_percent(share.cpu)} CPU and {_percent(share.memory)} memory; "
            f"{others} {'has' if len(takers) == 1 else 'have'} room"
        )
        self._recorder.emit(of_node(giver.node), Kind.NORMAL, reason, message)


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"
