"""Moves single pods off nodes that are not drained: into their pool, or to an emptier node.

Whoever wants pods moved says which, and why, by node; each node with such pods has a task of its own
(`controllers.migration.node_task`), under the policy that wins for the node. After a restart nodes with the taint are looked after
until nothing of a move is left on their pods.
"""

import asyncio
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import structlog

from rescheduler.controllers.migration.node_task import PREFIX, Errand, Held, Looked, Shift, Tools
from rescheduler.core.drain import migration
from rescheduler.core.model.pods import Pod

log = structlog.get_logger("rescheduler.shifts")

MOST_AT_ONCE = 16
"""Nodes that pods are moved off at once."""
_FIRST_REST, _LONGEST_REST = 60.0, 300.0  # seconds
_MOST_DOUBLINGS = 10

Moved = Callable[[Pod, str], None]
"""Told of a pod that has left on an errand, and what for."""


@dataclass(frozen=True, slots=True)
class _Rest:
    """Of a node whose pods cannot be moved for now; `until`: monotonic, `times`: so often in a row."""

    until: float
    times: int
    uids: frozenset[str]
    held: tuple[Held, ...]


class Shifts:
    """All shifts; `sources`: who may want pods moved. Nothing is ended before each has said what it wants.

    Attributes:
        moved: who is told of each pod that has left on an errand.
        looked: who is told after each look at a node.
        left: who is told of a node where released pods are left that cannot be returned now.
    """

    def __init__(self, tools: Tools, sources: Collection[str]) -> None:
        self.moved: list[Moved] = []
        self.looked: list[Looked] = []
        self.left: list[Callable[[str], None]] = []
        self._t = tools
        self._silent = set(sources)
        self._wanted: dict[str, Mapping[str, Errand]] = {}
        self._gone: set[str] = set()  # uids of pods that have left, and may be wanted by who has not seen it yet
        self._running: dict[str, tuple[Shift, asyncio.Task[None]]] = {}
        self._resting: dict[str, _Rest] = {}  # by node
        self._on = False
        self._wake = asyncio.Event()

    def begin(self) -> None:
        """From now on nodes with the taint of a move are looked after here, though nothing may run yet."""
        self._on = True

    def want(self, source: str, errands: Mapping[str, Errand]) -> None:
        """All that this source wants moved now, by node."""
        self._silent.discard(source)
        self._wanted[source] = errands
        self._gone &= {uid for wanted in self._wanted.values() for errand in wanted.values() for uid in errand}
        self._wake.set()

    def wake(self, holders: Iterable[str]) -> None:
        """What these hold in view changed."""
        for holder in holders:
            if running := self._running.get(holder.removeprefix(PREFIX)):
                running[0].wake()

    def look_at(self, name: str | None) -> None:
        """The node or its drain changed; None: all may have."""
        for shift, _ in self._running.values():
            if name is None or shift.name == name:
                shift.wake()
        if name is None or self._is_left(name):
            self._wake.set()

    def nodes(self) -> frozenset[str]:
        """Nodes whose released pods are looked after here, or will be."""
        left = {name for name in self._t.store.nodes if self._is_left(name)} if self._on else set()
        return frozenset({*self._running, *left})

    def held(self) -> list[Held]:
        """Pods that cannot be moved now."""
        running = [each for shift, _ in self._running.values() for each in shift.held]
        return [*running, *(each for rest in self._resting.values() for each in rest.held)]

    def _is_left(self, name: str) -> bool:
        """Whether a node has the taint of a move, and no drain says that it is its own."""
        here = self._t.store.node(name)
        return here is not None and migration.is_shunned(here) and not migration.has_record(self._t.store.drain(name))

    def _errands(self) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for wanted in self._wanted.values():
            for name, errand in wanted.items():
                if left := {uid: cause for uid, cause in errand.items() if uid not in self._gone}:
                    found.setdefault(name, {}).update(left)
        return found

    async def run(self) -> None:
        """Keep the shifts that are wanted running until cancelled."""
        try:
            await self._t.supervisor.loop("shifts", self._step, wake=self._wake)
        finally:
            tasks = [task for _, task in self._running.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def end(self) -> None:
        """Leave the tainted nodes to whoever leads now."""
        self._on = False

    async def _step(self) -> float:
        return math.inf if self._silent else self._start()

    def _start(self) -> float:
        """Start what is wanted, and tell those that run; seconds until the next rest is over."""
        errands, now = self._errands(), self._t.clock.monotonic()
        for name, (shift, _) in self._running.items():
            if shift.errand != errands.get(name, {}):
                shift.errand = errands.get(name, {})
                shift.wake()
        self._resting = {name: rest for name, rest in self._resting.items() if name in errands}
        left = [name for name in self._t.store.nodes if self._is_left(name)]
        for name in [*left, *(name for name in sorted(errands) if not self._rests(name, errands[name], now))]:
            if name not in self._running and len(self._running) < MOST_AT_ONCE:
                self._launch(name, errands.get(name, {}))
        rests = (rest.until - now for name, rest in self._resting.items() if name not in self._running)
        return min((wait for wait in rests if wait > 0), default=math.inf)

    def _rests(self, name: str, errand: Errand, now: float) -> bool:
        rest = self._resting.get(name)
        return rest is not None and now < rest.until and rest.uids.issuperset(errand)

    def _launch(self, name: str, errand: dict[str, str]) -> None:
        drain = self._t.store.drain(name)
        if self._t.store.node(name) is None or (drain and drain.status.started_at and not self._is_left(name)):
            return
        shift = Shift(name, self._t, self._note_gone, self._looked)
        shift.errand = errand
        task = asyncio.create_task(shift.run(), name=f"shift {name}")
        self._running[name] = (shift, task)
        task.add_done_callback(lambda done: self._ended(shift, done))
        log.info("shift.began", node=name, pods=len(errand))

    def _note_gone(self, uid: str, pod: Pod | None, cause: str) -> None:
        self._gone.add(uid)
        if pod:
            for tell in self.moved:
                tell(pod, cause)

    def _looked(self) -> None:
        for tell in self.looked:
            tell()

    def _ended(self, shift: Shift, task: asyncio.Task[None]) -> None:
        self._running.pop(shift.name, None)
        if task.cancelled():
            return
        for tell in self.left if shift.left_released else ():
            tell(shift.name)
        error = task.exception()
        if isinstance(error, Exception):
            self._t.supervisor.note("shift", shift.name, error)
        if shift.rested or error:
            before = self._resting.get(shift.name)
            times = before.times + 1 if before else 0
            until = self._t.clock.monotonic() + min(_FIRST_REST * 2 ** min(times, _MOST_DOUBLINGS), _LONGEST_REST)
            self._resting[shift.name] = _Rest(until, times, frozenset(shift.errand), shift.held)
        else:
            self._resting.pop(shift.name, None)
        log.info("shift.ended", node=shift.name, held=len(shift.held), rests=shift.rested)
        self._wake.set()
