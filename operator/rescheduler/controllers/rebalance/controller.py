"""Evens out nodes: every few minutes, and when a node or a policy changes, while a policy asks for it.

All pods are listed in pieces, summed by node and dropped (after a round of moves, those of the pool's nodes); only the
pods of the few fullest nodes are looked at one by one, and forgotten too. What is remembered is small: how far each
pool has come, and whose pods were moved of late.
"""

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

import structlog

from rescheduler.api.policies import Mode
from rescheduler.controllers.rebalance.events import RebalanceAnnouncer
from rescheduler.controllers.rebalance.moves import Outcome
from rescheduler.controllers.rebalance.node_usage import Usages
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.readable import readable
from rescheduler.controllers.runtime.store import Store
from rescheduler.controllers.runtime.tasks import Supervisor
from rescheduler.core.eviction.pod_actions import Circumstances
from rescheduler.core.model import disruption_budgets, object_schemas
from rescheduler.core.model.quantities import PODS
from rescheduler.core.model.resource_requests import held
from rescheduler.core.rebalance import candidates as rebalance_candidates
from rescheduler.core.rebalance import node_groups, progress, selection
from rescheduler.core.rebalance.node_groups import Arena, Key
from rescheduler.core.rebalance.progress import Course
from rescheduler.core.rebalance.selection import Candidate, Shift, Sides
from rescheduler.core.rebalance.utilization import load
from rescheduler.core.replacement.move_history import Lineages
from rescheduler.kube import paths
from rescheduler.kube.client import TRANSIENT, Client

log = structlog.get_logger("rescheduler.rebalancer")

_EVERY = 180.0  # seconds between looks where nothing changes
_SAMPLED = 60.0  # seconds between samples of usage
_SOON = 2.0  # seconds from a change or a round's end to the next look, at least
_SHARE = 20  # counting pods may take 1/20 of the time
_FEW = 100  # nodes whose pods are listed node by node, rather than all pods at once
_SETTLE = 1.0  # seconds; heartbeats of many nodes are one look at what is in memory
_FIRST_WAIT, _LONGEST_WAIT = 2.0, 60.0  # seconds, where a look failed
_REFILLED = timedelta(hours=1)  # so long after it came back a node is filled
_BARREN = timedelta(minutes=10)  # so long nodes with nothing to move are passed over
_UNFINISHED = "status.phase!=Succeeded,status.phase!=Failed"


class Mover(Protocol):
    """Moves one pod off a node that is not cordoned, within its budget and the policy's pace."""

    def begin(self) -> None:
        """Nothing is wanted yet."""
        ...

    async def move(self, candidate: Candidate, arena: Arena) -> Outcome:
        """Move it; what became of that, once it is over."""
        ...

    def keep(self, nodes: Collection[str]) -> None:
        """Only off these nodes pods may still be moved."""
        ...


class Rebalancer:
    """One for the process; runs while it leads."""

    def __init__(
        self,
        client: Client,
        store: Store,
        clock: Clock,
        mover: Mover,
        usages: Usages,
        announcer: RebalanceAnnouncer,
        supervisor: Supervisor,
        *,
        own_pod: str = "",
    ) -> None:
        self._client, self._store, self._clock, self._mover = client, store, clock, mover
        self._usages, self._announcer, self._own_pod = usages, announcer, own_pod
        self._supervisor = supervisor
        self._wake = asyncio.Event()
        self._courses: dict[Key, Course] = {}
        self._rounds: dict[Key, asyncio.Task[None]] = {}
        self._rests: dict[str, datetime] = {}  # by uid of an owner: until when it is waited for
        self._spared: dict[str, datetime] = {}  # the same: until when its pods are no candidates at all
        self._barren: dict[str, datetime] = {}  # by node: until when it is not asked again for pods to move
        self._moving: Counter[str] = Counter()  # by uid of an owner
        self._lineages = Lineages()
        self._away: frozenset[str] = frozenset()
        self._returned: dict[str, datetime] = {}  # by node: until when it is filled
        self._gist: object = None
        self._due, self._not_before, self._sample_at = 0.0, 0.0, 0.0
        self._again: set[Key] = set()  # arenas to be looked at again, before all others are
        self._again_at = 0.0
        self._wait = _FIRST_WAIT

    def wake(self) -> None:
        """A node, a policy or a drain may have changed."""
        self._wake.set()

    async def run(self) -> None:
        """Look until cancelled."""
        self._mover.begin()
        self._courses.clear()
        self._gist = None  # what another leader did meanwhile is not known: look at once
        try:
            await self._supervisor.loop("rebalance", self._step, wake=self._wake, settle=lambda: _SETTLE)
        finally:
            rounds = list(self._rounds.values())
            for task in rounds:
                task.cancel()
            await asyncio.gather(*rounds, return_exceptions=True)
            self._supervisor.forget("rebalance")

    async def _step(self) -> float:
        """Do what is due; seconds until the next is."""
        await self._turn(node_groups.survey(self._store.world()))
        again = self._again_at if self._again else float("inf")
        return min(max(self._due, self._not_before), self._sample_at, again) - self._clock.monotonic()

    async def _turn(self, found: Sequence[Arena]) -> None:
        now = self._clock.monotonic()
        self._see_returns(found)
        gist = [(a.key, a.waits, a.policy.generation, a.policy.uid, frozenset(n.name for n in a.nodes)) for a in found]
        if gist != self._gist:
            self._gist = gist
            self._barren.clear()
            self._due, self._sample_at = min(self._due, now), min(self._sample_at, now)
        self._forget({arena.key for arena in found})
        self._mover.keep({node.name for arena in found if arena.goes_on for node in arena.nodes})
        if not found:
            self._due = self._sample_at = float("inf")
            return
        try:
            if now >= self._sample_at:
                self._sample_at = now + _SAMPLED
                await self._usages.sample()
            if now >= max(self._due, self._not_before):
                self._due = now + _EVERY
                self._not_before = await self._look(found)
            elif self._again and now >= self._again_at:
                self._again_at = await self._look([arena for arena in found if arena.key in self._again])
            self._wait = _FIRST_WAIT
        except TRANSIENT as error:
            log.warning("rebalance.look_failed", error=str(error))
            self._due = self._not_before = self._clock.monotonic() + self._wait
            self._wait = min(self._wait * 2, _LONGEST_WAIT)

    def _see_returns(self, found: Sequence[Arena]) -> None:
        """Nodes that were drained and now stand there empty."""
        now, away = self._clock.now(), node_groups.begun(self._store.drains)
        whole = {node.name for arena in found for node in arena.nodes}
        self._away = (self._away | away) & self._store.nodes.keys()
        for name in (self._away - away) & whole:
            self._returned[name] = now + _REFILLED
            log.info("rebalance.node_returned", node=name)
        self._away -= self._returned.keys() - away
        self._returned = {name: until for name, until in self._returned.items() if now < until and name in whole}

    def _forget(self, keys: set[Key]) -> None:
        for key in self._courses.keys() - keys:
            del self._courses[key]
            self._announcer.forget(*key)
            self._supervisor.clear("rebalance", _name(key))

    # -- looking ------------------------------------------------------------------------------------------------------

    async def _look(self, found: Sequence[Arena]) -> float:
        """Look at these; when, at the earliest, they may be looked at again."""
        self._again -= {arena.key for arena in found}
        self._expire(self._clock.now())
        began = self._clock.monotonic()
        asked = await self._count({node.name for arena in found for node in arena.nodes})
        ended = self._clock.monotonic()
        for arena in found:
            if arena.key not in self._rounds and len(arena.nodes) > 1:
                await self._try_to_even_out(arena, asked)
        return self._clock.monotonic() + max(_SOON, (ended - began) * _SHARE)

    def _expire(self, now: datetime) -> None:
        for kept in (self._rests, self._spared, self._barren):
            for name in [name for name, until in kept.items() if until <= now]:
                del kept[name]

    async def _count(self, names: Collection[str]) -> Mapping[str, Counter[str]]:
        """What the pods on each of these nodes ask for, and how many they are."""
        places = [f"spec.nodeName={name}" for name in sorted(names)] if len(names) <= _FEW else ["spec.nodeName!="]
        found: dict[str, Counter[str]] = {}
        for place in places:
            async for page in self._client.list(paths.PODS, fieldSelector=f"{place},{_UNFINISHED}"):
                for raw in readable(page["items"], object_schemas.pod):
                    sums = found.setdefault(raw["spec"].get("nodeName", ""), Counter())
                    sums.update(held(raw))
                    sums[PODS] += 1
        return found

    async def _try_to_even_out(self, arena: Arena, asked: Mapping[str, Counter[str]]) -> None:
        """A group that cannot be looked at costs only itself."""
        try:
            await self._even_out(arena, asked)
        except TRANSIENT:
            raise
        except Exception as error:  # noqa: BLE001 - the others go on
            self._supervisor.note("rebalance", _name(arena.key), error)
        else:
            self._supervisor.clear("rebalance", _name(arena.key))

    async def _even_out(self, arena: Arena, asked: Mapping[str, Counter[str]]) -> None:
        loads = [load(node, asked.get(node.name, {}), *self._usages.of(node.name)) for node in arena.nodes]
        before = self._courses.get(arena.key)
        course = progress.follow(before, loads, arena.policy.generation)
        self._announcer.measured(arena, loads)
        if course.rests and not (before and before.rests):
            self._announcer.gave_up(arena)
            log.warning("rebalance.helps_not", pool=arena.pool, policy=arena.policy.name)
        found = selection.sides(
            loads, arena.bounds, course.roles, returned=self._returned.keys(), barren=self._barren.keys()
        )
        self._courses[arena.key] = course.settle() if found.idle else course
        if found.idle or arena.waits or course.rests:
            return
        candidates = [each for each in await self._candidates(found, arena) if self._may_move(each, course)]
        resting = self._rests.keys() | self._moving.keys()
        shifts = selection.choose(found, candidates, resting=resting, most=course.allowance)
        if not shifts:
            self._wait_for(arena, found, candidates, resting)
        elif arena.policy.spec.mode is Mode.AUDIT:
            self._announcer.would_move(arena, found, shifts)
        else:
            self._courses[arena.key] = course.begin(found)
            self._announcer.moving(arena, found, shifts)
            self._moving.update(shift.candidate.owner for shift in shifts)
            task = self._rounds[arena.key] = asyncio.create_task(self._round(arena, shifts))
            task.add_done_callback(partial(self._ended, arena.key))

    def _may_move(self, candidate: Candidate, course: Course) -> bool:
        """Not an owner whose moves came to nothing, and no pod that has come from another node just now."""
        came = self._lineages.replaces(candidate.pod, self._clock.now())
        return not came and candidate.owner not in self._spared and candidate.owner not in course.spared

    def _wait_for(self, arena: Arena, found: Sides, candidates: Sequence[Candidate], resting: Collection[str]) -> None:
        """Nothing is to be moved now: look at other nodes, or again when the first of these owners has rested."""
        now, waiting = self._clock.now(), {each.pod.node: each.owner for each in candidates if each.owner in resting}
        barren = [load.name for load in found.givers if load.name not in waiting]
        self._barren |= dict.fromkeys(barren, now + _BARREN)
        ends = [self._rests[owner] for owner in waiting.values() if owner in self._rests]
        if barren:
            self._again.add(arena.key)
        elif ends:
            soonest = (min(ends) - now).total_seconds()
            self._due = min(self._due, self._clock.monotonic() + max(_SOON, soonest))

    async def _candidates(self, found: Sides, arena: Arena) -> list[Candidate]:
        """Pods of the nodes that give; listed, judged and dropped."""
        drain = arena.policy.spec.drain
        seen = Circumstances(self._clock.now(), labels=await self._labels(arena), own=self._own_pod)
        rows = []
        for giver in found.givers:
            async for page in self._client.list(paths.PODS, fieldSelector=f"spec.nodeName={giver.name}"):
                rows += [
                    c
                    for raw in readable(page["items"], object_schemas.pod)
                    if (c := rebalance_candidates.candidate(raw, drain, seen))
                ]
        calm = {key: is_calm for space in _spaces(rows) for key, is_calm in await self._deployments(space)}
        rows = [sure for row in rows if (sure := rebalance_candidates.confirmed(row, calm))]
        asks = [row for row in rows if not row.first]
        over = [budget for space in _spaces(asks) for budget in await self._budgets(space)]
        return [row for row in rows if rebalance_candidates.permitted(row, over)]

    async def _labels(self, arena: Arena) -> Mapping[str, Mapping[str, str]]:
        """Labels of namespaces, where a rule asks for them."""
        found: dict[str, Mapping[str, str]] = {}
        if any(not rule.namespace_selector.is_empty for rule in arena.policy.spec.drain.rules):
            async for page in self._client.list(paths.NAMESPACES):
                metas = [raw["metadata"] for raw in readable(page["items"], object_schemas.plain)]
                found |= {meta["name"]: meta.get("labels") or {} for meta in metas}
        return found

    async def _budgets(self, space: str) -> list[disruption_budgets.Budget]:
        pages = self._client.list(paths.budgets(space))
        return [found async for page in pages for found in readable(page["items"], disruption_budgets.budget)]

    async def _deployments(self, space: str) -> list[tuple[tuple[str, str], bool]]:
        """Which of a namespace's Deployments are calm."""
        path = paths.namespaced("apps/v1", space, "deployments")
        return [
            ((space, raw["metadata"]["name"]), rebalance_candidates.calm(raw))
            async for page in self._client.list(path)
            for raw in readable(page["items"], object_schemas.deployment)
        ]

    # -- moving -------------------------------------------------------------------------------------------------------

    async def _round(self, arena: Arena, shifts: Sequence[Shift]) -> None:
        """Move these side by side; the next round begins when all of them are over."""
        try:
            outcomes = await asyncio.gather(*(self._move(arena, shift) for shift in shifts))
        finally:
            del self._rounds[arena.key]
        if course := self._courses.get(arena.key):
            pairs = zip(shifts, outcomes, strict=True)
            self._courses[arena.key] = course.end([shift for shift, outcome in pairs if outcome is Outcome.MOVED])
        self._usages.begin_anew(node.name for node in arena.nodes)
        self._again.add(arena.key)
        self._wake.set()

    def _ended(self, key: Key, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            self._supervisor.note("rebalance", _name(key), error)

    async def _move(self, arena: Arena, shift: Shift) -> Outcome:
        owner, began = shift.candidate.owner, self._clock.now()
        try:
            outcome = await self._mover.move(shift.candidate, arena)
        finally:
            self._moving -= Counter([owner])
        if outcome is Outcome.MOVED:
            self._rests[owner] = self._clock.now() + rebalance_candidates.COOL_DOWN
            self._lineages.moved(shift.candidate.pod, began)
        elif outcome is Outcome.RETURNED:
            self._spared[owner] = self._clock.now() + rebalance_candidates.SETBACK
        self._announcer.moved(arena, outcome)
        pod = shift.candidate.pod
        log.info("rebalance.moved", pod=pod.key, uid=pod.uid, node=pod.node, pool=arena.pool, outcome=outcome)
        return outcome


def _spaces(rows: Sequence[Candidate]) -> list[str]:
    return sorted({row.pod.namespace for row in rows})


def _name(key: Key) -> str:
    return "/".join(filter(None, key))
