"""The task that runs one NodeDrain, from its first sight until it is gone.

It finds out what is so, asks `core.drains` for the step, and carries the commands out; after anything that goes
wrong it starts again from what the cluster says then. Every command can be repeated.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from rescheduler.api import names
from rescheduler.api.drains import NodeDrain, NodeDrainStatus, Phase, Reason
from rescheduler.api.policies import Policy
from rescheduler.api.scalars import dump
from rescheduler.core import drains, nodes, pods, reports, tallies, triggers, turns
from rescheduler.core.answers import Answer
from rescheduler.core.drains import Command, Fact
from rescheduler.core.facts import UNREACHABLE, Node, node
from rescheduler.core.pods import Pod
from rescheduler.core.tallies import Tally
from rescheduler.core.turns import Held
from rescheduler.engine.announcements import Announcer
from rescheduler.engine.budgets import Budgets
from rescheduler.engine.clock import Clock
from rescheduler.engine.evictions import Evictions, Sender
from rescheduler.engine.metrics import Metrics
from rescheduler.engine.store import Kind, Store
from rescheduler.kube import paths
from rescheduler.kube.client import STRATEGIC_PATCH, TRANSIENT, ApiError, Client
from rescheduler.kube.reflectors import Mirror

log = structlog.get_logger("rescheduler.drainer")

_LOOK_AGAIN = 10.0  # seconds, where nothing happens: time alone changes some facts
_SETTLE = 0.02  # seconds; a burst of pod events is one look
_PATIENCE = timedelta(seconds=5)  # a budget that waits for the last pod's replacement is no blocker yet
_WRITE_EVERY = 1.0  # seconds between writes of mere progress
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 10.0  # seconds


@dataclass(frozen=True, slots=True)
class Tools:
    """What every drain task shares."""

    client: Client
    store: Store
    clock: Clock
    budgets: Budgets
    evictions: Evictions
    announcer: Announcer
    metrics: Metrics


class Drainer:
    """One NodeDrain's task."""

    def __init__(self, name: str, tools: Tools) -> None:
        self.name = name
        self._t = tools
        self._wake = asyncio.Event()
        self._sender = Sender(self.wake)
        self._pods: Mirror[Pod] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._leaving: frozenset[str] = frozenset()
        self._moved: int | None = None
        self._last_move: datetime | None = None
        self._written_at = float("-inf")
        self._labels: dict[str, dict[str, str]] = {}
        self._refused: dict[str, datetime] = {}

    def wake(self) -> None:
        """Something changed: look again."""
        self._wake.set()

    async def run(self) -> None:
        """Step until the NodeDrain is gone."""
        wait = _FIRST_WAIT
        try:
            while drain := self._t.store.drain(self.name):
                self._wake.clear()
                try:
                    pause = await self._look(drain)
                    wait = _FIRST_WAIT
                except TRANSIENT as error:
                    log.warning("drain.step_failed", node=drain.spec.node_name, drain=self.name, error=str(error))
                    await self._reread(error)
                    pause, wait = wait, min(wait * 2, _LONGEST_WAIT)
                    await asyncio.sleep(pause)
                    continue
                await self._sleep(pause)
        finally:
            self._close()

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(_SETTLE, seconds)):
                await self._wake.wait()
        except TimeoutError:
            return
        await asyncio.sleep(_SETTLE)

    def _close(self) -> None:
        self._t.store.promise(self.name, None)
        self._t.budgets.hold(self.name, ())
        self._t.budgets.forget(self._sender.attempts)
        if self._watch:
            self._watch.cancel()
        for task in list(self._sender.tasks.values()):
            task.cancel()

    async def _reread(self, error: Exception) -> None:
        """After a conflict the copy in memory is old: read the NodeDrain live, and forget it where it is gone."""
        if not isinstance(error, ApiError) or error.code not in (404, 409, 422):
            return
        try:
            self._t.store.put(Kind.DRAIN, await self._t.client.get(paths.drain(self.name)))
        except ApiError as gone:
            if gone.code == 404:
                self._t.store.drop(Kind.DRAIN, self.name)
        except TRANSIENT:
            return

    async def _look(self, drain: NodeDrain) -> float:
        """One step; seconds until the next where nothing happens."""
        store, now = self._t.store, self._t.clock.now()
        here = store.node(drain.spec.node_name)
        if here is None:
            here = await self._live(drain)
        held = turns.held(drain, store.world(), now)
        policy = store.policy(here) if here else None
        if drain.status.started_at and here:
            self._follow(here.name)
        tally = self._tally(drain, here, policy, now)
        situation = self._situation(drain, here, held, tally, now)
        fact = drains.fact(situation)
        phase, commands = drains.step(drain.status.phase or Phase.WAITING, fact)
        scene = reports.Scene(
            drain=drain,
            node=here,
            policy=policy,
            phase=phase,
            fact=fact,
            held=None if fact in (Fact.GRANTED, Fact.EMPTY) else held,
            record=drain.status.node,
            begun=drain.status.started_at,
            tally=tally,
            moved=(self._moved or 0) + (tally.objects - tally.remaining if tally else 0),
            now=now,
        )
        return await self._carry_out(commands, scene)

    async def _live(self, drain: NodeDrain) -> Node | None:
        """The node read live: absent from memory may mean not seen yet."""
        try:
            raw = await self._t.client.get(paths.node(drain.spec.node_name))
        except ApiError as error:
            if error.code == 404:
                return None
            raise
        self._t.store.put(Kind.NODE, raw)
        return node(raw)

    def _situation(
        self, drain: NodeDrain, here: Node | None, held: Held | None, tally: Tally | None, now: datetime
    ) -> drains.Situation:
        record = drain.status.node
        withdrawn = drain.deletion_timestamp is not None
        restored = withdrawn and here is not None and self._nothing_left(drain, here)
        return drains.Situation(
            now=now,
            same_node=here is not None and (record is None or not record.uid or record.uid == here.uid),
            withdrawn=withdrawn,
            restored=restored,
            held=held is not None,
            begun=drain.status.started_at,
            remaining=tally.objects if tally else None,
            blocked=len(tally.blockers) if tally else 0,
            last_move=self._last_move,
        )

    def _nothing_left(self, drain: NodeDrain, here: Node) -> bool:
        conditions = any(here.condition(type_) for type_ in names.NODE_CONDITIONS)
        patch = nodes.restore_patch(here, drain.status.node, self._cancelled(drain, here))
        return patch is None and not conditions

    # -- pods ---------------------------------------------------------------------------------------------------

    def _follow(self, node_name: str) -> None:
        """Keep the pods of the node in view, from the cordon on."""
        if self._pods is None:
            self._pods = Mirror(
                self._t.client, paths.PODS, pods.pod, self.wake, fieldSelector=f"spec.nodeName={node_name}"
            )
            self._watch = asyncio.create_task(self._pods.run(), name=f"pods of {node_name}")

    def _tally(self, drain: NodeDrain, here: Node | None, policy: Policy | None, now: datetime) -> Tally | None:
        if self._pods is None or not self._pods.synced or here is None or policy is None:
            return None
        settings = drain.spec.drain.over(policy.spec.drain)
        unreachable = here.ready == UNREACHABLE
        judged = [
            (
                pod,
                pods.judge(
                    pod,
                    settings,
                    now=now,
                    namespace_labels=self._labels.get(pod.namespace, {}),
                    unreachable=unreachable,
                ),
            )
            for pod in self._pods.items.values()
        ]
        self._t.budgets.hold(self.name, {pod.namespace for pod, verdict in judged if verdict.fate is pods.Fate.EVICT})
        refusals = self._lasting(self._t.evictions.refusals(judged), now)
        known = {(b.namespace, b.pod, str(b.class_)): b.since for b in drain.status.blockers}
        tally = tallies.tally(judged, self._sender.attempts, refusals, known, now, unreachable=unreachable)
        self._count(drain, tally, now)
        return tally

    def _lasting(self, refusals: dict[str, Answer], now: datetime) -> dict[str, Answer]:
        """Those refusals that have lasted: most budgets have room again as soon as a replacement is Ready."""
        self._refused = {uid: self._refused.get(uid, now) for uid in refusals}
        return {uid: answer for uid, answer in refusals.items() if now - self._refused[uid] >= _PATIENCE}

    def _count(self, drain: NodeDrain, tally: Tally, now: datetime) -> None:
        """How many have left: those that had to go and are not there any more."""
        if self._moved is None:
            self._moved = drain.status.pods.moved if drain.status.pods else 0
        gone = self._leaving - tally.leaving
        self._leaving = tally.leaving
        if gone:
            self._moved += len(gone)
            self._t.metrics.pods_moved.inc(len(gone))
            self._sender.forget(list(gone))
            self._t.budgets.forget(gone)
        if gone or tally.in_flight:
            self._last_move = now

    # -- commands -----------------------------------------------------------------------------------------------

    async def _carry_out(self, commands: Iterable[Command], scene: reports.Scene) -> float:
        here = scene.node
        if Command.FORGET in commands:
            await self._forget(scene.drain, here)
            return _LOOK_AGAIN
        if Command.RESTORE in commands and here is not None:
            await self._write(scene)
            await self._restore(scene.drain)
            return 0.0
        if Command.RECORD in commands and here is not None:
            scene = await self._hold(scene, here)
        pause = self._move(scene) if Command.MOVE in commands and scene.tally else None
        await self._write(scene)
        if scene.fact is not Fact.HELD or scene.begun:
            await self._mark(scene)
        patience = _PATIENCE.total_seconds() if self._refused else _LOOK_AGAIN
        return min(patience, pause if pause is not None else _LOOK_AGAIN, self._until_settled(scene))

    def _until_settled(self, scene: reports.Scene) -> float:
        if scene.begun is None or scene.phase is not Phase.DRAINING:
            return _LOOK_AGAIN
        settled = (scene.begun + drains.SETTLE - scene.now).total_seconds()
        return settled if settled > 0 else _LOOK_AGAIN

    async def _hold(self, scene: reports.Scene, here: Node) -> reports.Scene:
        """Record, then cordon: what is not in the record yet is written there before it is written on the node."""
        drain, reasons = scene.drain, {r.reason for r in scene.drain.spec.requests}
        exclude = (
            scene.policy is not None and drain.spec.drain.over(scene.policy.spec.drain).exclude_from_load_balancers
        )
        adds = nodes.additions(here, reasons, exclude_from_load_balancers=exclude)
        record = nodes.record(here, drain.status.node, adds)
        begun = scene.begun or scene.now
        if record == drain.status.node and nodes.hold_patch(here, record) is None:
            return scene
        self._t.store.promise(self.name, begun)
        try:
            fresh = await self._fresh(here)
            if scene.begun is None and turns.only_failed(drain) and not triggers.ill(fresh, scene.policy):
                return replace(scene, node=fresh, phase=Phase.WAITING)  # healed meanwhile: its request will go
            record = nodes.record(fresh, drain.status.node, adds)
            again = scene.begun if drain.status.node and not fresh.unschedulable else None
            scene = replace(scene, record=record, begun=begun, node=fresh, recordoned=scene.now if again else None)
            if scene.recordoned or record != drain.status.node or scene.drain.status.started_at is None:
                await self._write(scene, now=True)
            if patch := nodes.hold_patch(fresh, record):
                raw = await self._t.client.patch(paths.node(fresh.name), patch)
                self._t.store.put(Kind.NODE, raw)
                log.info("node.cordoned", node=fresh.name, drain=self.name, uid=fresh.uid)
                if not here.unschedulable:
                    await self._t.announcer.cordoned(scene)
        finally:
            self._t.store.promise(self.name, None)
        self._follow(fresh.name)
        written = self._t.store.drain(self.name)
        return replace(scene, drain=written or scene.drain)

    async def _fresh(self, here: Node) -> Node:
        """The node as it is now: nobody's write is lost, and no healed node is cordoned."""
        raw = await self._t.client.get(paths.node(here.name))
        self._t.store.put(Kind.NODE, raw)
        return node(raw)

    def _move(self, scene: reports.Scene) -> float | None:
        tally, policy = scene.tally, scene.policy
        if tally is None or policy is None or scene.begun is None:
            return None
        settings = scene.drain.spec.drain.over(policy.spec.drain)
        self._sender.grace = settings.grace_period_seconds
        return self._t.evictions.send(
            self._sender, tally.next, policy=policy.name, rate=settings.max_evictions_per_second
        )

    async def _write(self, scene: reports.Scene, *, now: bool = False) -> None:
        """Write the status where it differs; mere progress at most once a second."""
        wanted = reports.status(scene)
        before = scene.drain.status
        if wanted == before:
            return
        urgent = now or _gist(wanted) != _gist(before)
        monotonic = self._t.clock.monotonic()
        if not urgent and monotonic - self._written_at < _WRITE_EVERY:
            asyncio.get_running_loop().call_later(_WRITE_EVERY, self.wake)
            return
        self._written_at = monotonic
        body = {"metadata": {"resourceVersion": scene.drain.resource_version}, "status": _cleared(before, wanted)}
        raw = await self._t.client.patch(f"{paths.drain(self.name)}/status", body)
        self._t.store.put(Kind.DRAIN, raw)
        known = self._pods.items.values() if self._pods else ()
        await self._t.announcer.changed(scene, before, wanted, {pod.key: pod.uid for pod in known})

    async def _mark(self, scene: reports.Scene) -> None:
        """Our conditions on the node."""
        here = self._t.store.node(scene.drain.spec.node_name)
        if here is None:
            return
        wanted = reports.node_conditions(scene.phase, scene.begun, {r.reason for r in scene.drain.spec.requests})
        if patch := nodes.conditions(wanted, here, scene.now):
            raw = await self._t.client.patch(f"{paths.node(here.name)}/status", patch, kind=STRATEGIC_PATCH)
            self._t.store.put(Kind.NODE, raw)

    def _cancelled(self, drain: NodeDrain, here: Node) -> dict[str, str]:
        """Requests that still stand though the NodeDrain was deleted: they must not start again by themselves."""
        seen = self._t.store.see(here.name)
        if seen is None:
            return {}
        standing = frozenset(r.reason for r in drain.spec.requests if r.reason is Reason.FAILURE)
        wants = triggers.wanted(here, self._t.store.policy(here), seen, self._t.clock.now(), standing=standing)
        return {str(want.reason): want.token for want in wants.requests if want.token}

    async def _restore(self, drain: NodeDrain) -> None:
        """Put the node back: its conditions, then all that the record names."""
        here = await self._live(drain)
        if here is None:
            return
        if patch := nodes.conditions({}, here, self._t.clock.now()):
            raw = await self._t.client.patch(f"{paths.node(here.name)}/status", patch, kind=STRATEGIC_PATCH)
            self._t.store.put(Kind.NODE, raw)
            here = node(raw)
        if patch := nodes.restore_patch(here, drain.status.node, self._cancelled(drain, here)):
            raw = await self._t.client.patch(paths.node(here.name), patch)
            self._t.store.put(Kind.NODE, raw)
        log.info("node.restored", node=here.name, drain=self.name, uid=here.uid)
        await self._t.announcer.restored(drain, here)

    async def _forget(self, drain: NodeDrain, here: Node | None) -> None:
        """Let the NodeDrain go; one whose node is gone is deleted first."""
        record = drain.status.node
        if drain.deletion_timestamp is None:
            await self._t.announcer.node_gone(drain, here)
            await self._t.client.delete(paths.drain(self.name), {"preconditions": {"uid": drain.uid}})
        if names.FINALIZER in drain.finalizers:
            kept = [f for f in drain.finalizers if f != names.FINALIZER]
            fresh = await self._t.client.get(paths.drain(self.name))
            body = {"metadata": {"resourceVersion": fresh["metadata"]["resourceVersion"], "finalizers": kept}}
            await self._t.client.patch(paths.drain(self.name), body)
        log.info("drain.gone", drain=self.name, node=drain.spec.node_name, uid=record.uid if record else "")
        self._t.store.drop(Kind.DRAIN, self.name)


def _gist(status: NodeDrainStatus) -> tuple[object, ...]:
    """What a person waits for: a change of it is written at once."""
    blockers = tuple((b.namespace, b.pod, b.class_) for b in status.blockers)
    conditions = tuple((c.type, c.status, c.reason) for c in status.conditions)
    return (status.phase, status.node, status.started_at, blockers, conditions)


def _cleared(before: NodeDrainStatus, wanted: NodeDrainStatus) -> dict[str, object]:
    """Merge patch of the status: fields that are no more become null."""
    old, new = dump(before), dump(wanted)
    return {**{key: None for key in old if key not in new}, **new}
