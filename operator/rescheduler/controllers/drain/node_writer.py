"""Writes on the node of a drain: record, cordon, conditions, and taking all of it off again."""

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import replace
from typing import Protocol

import structlog

from rescheduler.api.drains import NodeDrain, NodeRecord, Phase
from rescheduler.controllers.drain.events import Announcer
from rescheduler.controllers.failure.lease_monitor import Heartbeats
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.store import Kind, Store
from rescheduler.controllers.runtime.write_attempts import Attempts
from rescheduler.core.drain import node_patches, status, triggers
from rescheduler.core.drain.node_patches import Part
from rescheduler.core.drain.state_machine import Fact
from rescheduler.core.eligibility import decision, preconditions
from rescheduler.core.eviction import write_refusals
from rescheduler.core.eviction.write_refusals import Act
from rescheduler.core.failure import condition_history, fencing
from rescheduler.core.model.nodes import UNREACHABLE, Node, node
from rescheduler.core.model.wait_reasons import Hold
from rescheduler.kube import paths
from rescheduler.kube.client import MERGE_PATCH, STRATEGIC_PATCH, ApiError, Client, Json

log = structlog.get_logger("rescheduler.keeper")

_RESTORE, _MARK, _TAINT = "restore", "mark", "taint"  # what is done again and again is done at a pace
_PARTS = {
    Part.UNCORDON: Act.UNCORDON,
    Part.UNTAINT: Act.UNTAINT,
    Part.UNDECORATE: Act.UNDECORATE,
    Part.CANCEL_NOTE: Act.CANCEL_NOTE,
}
RECENT = 1.0  # seconds that an answer about the node is good for, where nothing is forced


class Write(Protocol):
    """Writes the NodeDrain's status; `now`: without waiting for more to say."""

    def __call__(self, scene: status.Scene, *, now: bool = False) -> Awaitable[None]: ...


class Keeper:
    """One drain's node.

    Attributes:
        busy: something there is Terminating, or attached though no pod uses it, or that is not known.
        wrote: the node was changed since this was last set to False.
    """

    def __init__(
        self,
        name: str,
        client: Client,
        store: Store,
        clock: Clock,
        announcer: Announcer,
        heartbeats: Heartbeats,
        attempts: Attempts,
        *,
        leaving: bool = False,
    ) -> None:
        self.busy, self.wrote = True, False
        self._attempts, self._leaving = attempts, leaving
        self._cleared = False  # our conditions were removed once
        self._restores = 0  # in a row
        self._piecemeal = False  # the whole restore was refused: its parts are written on their own
        self._marked: Mapping[str, tuple[str, str, str]] = {}  # the conditions last written
        self._decorated: tuple[object, object] | None = None  # the labels and annotations last written
        self._name, self._client, self._store = name, client, store
        self._clock, self._announcer, self._heartbeats = clock, announcer, heartbeats
        self._lost_race = False  # the last patch failed: what its record says is not on the node
        self._before: NodeRecord | None = None  # what the record said before that patch
        self._undone = False  # somebody uncordoned the node, and it is not cordoned again yet
        self._told: tuple[float, Node | None] = (float("-inf"), None)  # when we last asked, and what the answer was
        self._asking = asyncio.Lock()

    async def live(self, name: str) -> Node | None:
        """The node read live: absent from memory may mean not seen yet."""
        asked = self._clock.monotonic()
        if raw := await self._client.find(paths.node(name)):
            return self._take_in(raw, asked)
        self._told = (asked, None)
        return None

    async def recent(self, name: str) -> Node | None:
        """The node as the server told it a moment ago, be it in answer to a write, where there is no news since; else
        read live.
        """
        async with self._asking:
            (asked, told), known = self._told, self._store.node(name)
            if told and known and told.version == known.version and self._clock.monotonic() - asked < RECENT:
                return told
            return await self.live(name)

    def _take_in(self, raw: Json, asked: float) -> Node:
        self._store.put(Kind.NODE, raw)
        self._told = (asked, node(raw))
        return node(raw)

    async def _write(self, path: str, patch: node_patches.Patch, *, kind: str = MERGE_PATCH) -> Node:
        asked = self._clock.monotonic()
        self.wrote = True
        return self._take_in(await self._client.patch(path, patch, kind=kind), asked)

    def nothing_left(self, drain: NodeDrain, here: Node) -> bool:
        """Whether nothing of ours is on the node.

        Conditions are only words: once they were removed, or their removal was refused, nothing waits for them.
        """
        given_up = self._cleared or self._attempts.lasting(Act.CONDITIONS)
        conditions = not given_up and any(map(node_patches.is_ours, here.conditions))
        patch = node_patches.restore_patch(here, self._ours(drain, here), self._cancelled(drain, here))
        return patch is None and not conditions

    def fenced(self, drain: NodeDrain, here: Node) -> bool:
        """Whether the out-of-service taint is ours and may not go: the node cannot be put back yet."""
        return not self._leaving and fencing.stays(here, drain.status.node, busy=self.busy)

    def _ours(self, drain: NodeDrain, here: Node) -> NodeRecord | None:
        """What is to be taken off: on leaving for good all but a taint that may not go."""
        record = drain.status.node
        stays = self._leaving and fencing.stays(here, record, busy=self.busy)
        return node_patches.in_service_record(record) if record and stays else record

    async def hold(self, scene: status.Scene, here: Node, write: Write) -> status.Scene:
        """Record, then cordon: what is not in the record yet is written there before it is written on the node.

        Return the scene itself if there was nothing to do, or nothing that may be tried now.
        """
        before_us = self._undone or status.cordoned(scene.drain.status)
        self._undone = before_us and not here.unschedulable
        if scene.held and scene.held.reason is Hold.CANCELLED and not here.unschedulable and not before_us:
            return scene  # it is well again: nothing is cordoned anew
        drain, reasons = scene.drain, {r.reason for r in scene.drain.spec.requests}
        exclude = (
            scene.policy is not None and drain.spec.drain.over(scene.policy.spec.drain).exclude_from_load_balancers
        )
        adds = node_patches.additions(here, reasons, exclude_from_load_balancers=exclude)
        before = self._before = self._before if self._lost_race else drain.status.node
        record = node_patches.record(here, before, adds)
        self._settle(here, record)
        if record == drain.status.node and self._hold_patch(here, record) is None:
            return scene
        if scene.begun is None and self._overtaken(scene):
            return replace(scene, phase=Phase.WAITING)
        begun = scene.begun or scene.now
        self._store.promise(self._name, begun)
        try:
            # Until the cordon was seen to be through, also after a lost race, the node may have healed.
            if preconditions.only_failed(drain) and not before_us:
                live = await self.recent(here.name)
                if live is None or not await self._still(scene, live):
                    # Healed or gone meanwhile: so will its request be.
                    return replace(scene, node=live or here, phase=Phase.WAITING)
                here = live
                record = node_patches.record(here, before, adds)
            # The status says that the cordon was through: a crash before it is nobody's uncordoning.
            undone = bool(scene.begun and not here.unschedulable and before_us)
            phase = Phase.DRAINING if undone and scene.phase is Phase.DRAINED else scene.phase
            scene = replace(scene, record=record, begun=begun, node=here, phase=phase)
            # After a crash the status would say that the first cordon still holds.
            if record != drain.status.node or drain.status.started_at is None or undone:
                await write(scene, now=True)
            if await self._put_on(here, record) and not here.unschedulable:
                # Noted once it is through: one that lost a race has not been done, and is done again.
                self._undone, cordoned = False, self._clock.now()
                scene = replace(scene, now=cordoned, recordoned=cordoned if undone else None)
                log.info("node.cordoned", node=here.name, drain=self._name, uid=here.uid)
                self._announcer.cordoned(scene)
        finally:
            self._store.promise(self._name, None)
        seen = self._store.node(here.name) or here
        return replace(scene, drain=self._store.drain(self._name) or scene.drain, node=seen)

    def _settle(self, here: Node, record: NodeRecord) -> None:
        """What is there, whoever wrote it, fails no more."""
        self._attempts.clear(Act.TAINT)
        if here.unschedulable:
            self._attempts.clear(Act.CORDON)
        if node_patches.hold_patch(here, record) == node_patches.hold_patch(here, record, decorate=False):
            self._attempts.clear(Act.DECORATE)

    def _hold_patch(self, here: Node, record: NodeRecord) -> node_patches.Patch | None:
        """Return what is to be written now; None while it is there, or may not be tried again yet.

        What somebody keeps removing is set again twice a minute.
        """
        decorate = self._attempts.due(Act.DECORATE) or self._decorated != _decoration(record)
        patch = node_patches.hold_patch(here, record, decorate=decorate)
        if patch is None or (not here.unschedulable and not self._attempts.due(Act.CORDON)):
            return None
        return patch

    async def _put_on(self, here: Node, record: NodeRecord) -> bool:
        """Cordon and decorate in one write; if it is refused, cordon on its own. Return whether one went through."""
        patch, plain = self._hold_patch(here, record), node_patches.hold_patch(here, record, decorate=False)
        if patch is None:
            return False
        decorates = patch != plain
        whole = await self._attempts.make(
            Act.CORDON if plain is not None else Act.DECORATE, lambda: self._patch(here, patch)
        )
        if decorates:
            self._decorated = _decoration(record)
        if whole and decorates:
            self._attempts.clear(Act.DECORATE)
            self._attempts.rest(Act.DECORATE, write_refusals.PACE)
        elif not whole and decorates and plain is not None and self._attempts.may_differ(Act.CORDON):
            self._attempts.blame(Act.CORDON, Act.DECORATE)
            whole = await self._attempts.make(Act.CORDON, lambda: self._patch(here, plain))
        return whole

    def until_restoring(self) -> float:
        """Return the seconds until the node may be put back again."""
        failed = self._attempts.soonest(Act.RESTORE, *_PARTS.values())
        return max(self._attempts.wait(_RESTORE), 0.0 if failed == float("inf") else failed)

    def begin_anew(self) -> None:
        """The node was put back, and will be held again."""
        self._restores, self._piecemeal, self._cleared, self._undone = 0, False, False, False

    def _overtaken(self, scene: status.Scene) -> bool:
        """Whether it is this drain's turn no more: while it asked others, another may have begun in its place."""
        now = decision.held(scene.drain, self._store.world(), self._clock.now())
        return (now.reason if now else None) != (scene.held.reason if scene.held else None)

    async def queue_up(self, scene: status.Scene, here: Node, write: Write) -> status.Scene:
        """While the node waits for its turn: pods that others lose had better not come here."""
        record = node_patches.waiting_record(here, scene.drain.status.node)
        if node_patches.taint_patch(here, record) is None:
            self._attempts.clear(Act.TAINT)
            return scene
        again = record == scene.drain.status.node and not self._attempts.due(_TAINT)  # somebody keeps removing it
        if again or not self._attempts.due(Act.TAINT):
            return scene
        self._attempts.rest(_TAINT, write_refusals.PACE)
        self._before = scene.drain.status.node
        scene = replace(scene, record=record)
        if record != scene.drain.status.node:
            await write(scene, now=True)
        await self._attempts.make(Act.TAINT, lambda: self._patch(here, node_patches.taint_patch(here, record)))
        return replace(scene, drain=self._store.drain(self._name) or scene.drain)

    async def _patch(self, here: Node, patch: node_patches.Patch | None) -> None:
        """Write what the record promises. Where somebody was faster, it is found out anew who had cordoned the node."""
        if patch is None:
            return
        try:
            await self.patch(here, patch)
        except ApiError as error:
            self._lost_race = self._lost_race or error.code == 409
            raise
        self._lost_race = False

    async def patch(self, here: Node, patch: node_patches.Patch) -> None:
        """Write on the node. The patch carries the version that it was made from: where somebody was faster it
        fails, and the node is read again.
        """
        try:
            await self._write(paths.node(here.name), patch)
        except ApiError as error:
            if error.code == 409:
                await self.live(here.name)
            raise

    def may(self, act: Act, *, wanted: bool) -> bool:
        """Whether the act may be tried now; what is not wanted any more fails no more."""
        if not wanted:
            self._attempts.clear(act)
        return wanted and self._attempts.due(act)

    async def attempt(self, act: Act, here: Node, patch: node_patches.Patch) -> bool:
        """Write on the node what the drain can do without; whether it went through."""
        return await self._attempts.make(act, lambda: self.patch(here, patch))

    async def _still(self, scene: status.Scene, here: Node) -> bool:
        """Whether the node, as just read, is still what the drain is for, and what we see is to be believed."""
        if scene.fact is Fact.SET_ASIDE:
            return True  # it comes and goes
        conditions = scene.policy.spec.failure.conditions if scene.policy else ()
        if scene.fact is not Fact.SUSPECTED and not any(
            condition_history.matching(here, match) for match in conditions
        ):
            return False
        said = here.ready != UNREACHABLE and scene.fact is not Fact.SUSPECTED
        return (said or await self._heartbeats.silent(here)) and not self._store.blind()

    async def mark(self, scene: status.Scene) -> None:
        """Our conditions on the node."""
        here = self._store.node(scene.drain.spec.node_name)
        if here is None:
            return
        wanted = status.node_conditions(scene.phase, scene.begun, {r.reason for r in scene.drain.spec.requests})
        patch = node_patches.conditions(wanted, here, scene.now)
        if patch is None:
            self._attempts.clear(Act.CONDITIONS)
            return
        if wanted != self._marked or self._attempts.due(_MARK):
            path = f"{paths.node(here.name)}/status"
            await self._attempts.make(Act.CONDITIONS, lambda: self._write(path, patch, kind=STRATEGIC_PATCH))
            self._marked = wanted
            self._attempts.rest(_MARK, write_refusals.PACE)  # somebody may keep writing the same ones

    def _cancelled(self, drain: NodeDrain, here: Node) -> dict[str, str]:
        """Requests that still stand though the NodeDrain was deleted: they must not start again by themselves."""
        seen = self._store.see(here.name)
        if seen is None or self._leaving:
            return {}
        standing = triggers.standing(drain)
        view = self._store.view(here.name, standing)
        wants = triggers.wanted(here, self._store.policy(here), seen, self._clock.now(), view)
        # What it was never asked for nobody has cancelled: the node may have failed since it was withdrawn.
        asked = [want for want in wants.requests if want.reason in standing]
        return {str(want.reason): want.token for want in asked if want.token is not None}

    async def restore(self, drain: NodeDrain) -> None:
        """Put the node back, for good; requests that still stand are noted as cancelled."""
        here = self._store.node(drain.spec.node_name)
        cancelled = self._cancelled(drain, here) if here else {}
        if here := await self.put_back(drain, cancelled):
            log.info("node.restored", node=here.name, drain=self._name, uid=here.uid)
            self._announcer.restored(drain, here)

    async def put_back(self, drain: NodeDrain, cancelled: Mapping[str, str]) -> Node | None:
        """Take off the node our conditions, then all that the record names.

        None where the node is gone, must stay out of service for now, or something could not be taken off.
        """
        if not self._attempts.due(_RESTORE):
            return None
        self._restores += 1
        self._attempts.rest(_RESTORE, write_refusals.back_off(self._restores))  # somebody may keep undoing it
        here = await self.live(drain.spec.node_name)
        if here is None or self.fenced(drain, here):
            return None
        ours = self._ours(drain, here)
        if ours != drain.status.node:
            self._announcer.left_out_of_service(drain, here)
        here = await self._unmark(here)
        if not self._piecemeal:
            here, done = await self._take_off(here, Act.RESTORE, node_patches.restore_patch(here, ours, cancelled))
            self._piecemeal = self._attempts.may_differ(Act.RESTORE)
            if not self._piecemeal:
                return here if done else None
        done = True
        for part, act in _PARTS.items():
            here, through = await self._take_off(here, act, node_patches.restore_patch(here, ours, cancelled, (part,)))
            done = done and through
        # Until a part is named, the whole names the cause.
        if done or any(map(self._attempts.troubled, _PARTS.values())):
            self._attempts.clear(Act.RESTORE)
        return here if done else None

    async def _unmark(self, here: Node) -> Node:
        if (patch := node_patches.conditions({}, here, self._clock.now())) and not self._cleared:
            path = f"{paths.node(here.name)}/status"
            through = await self._attempts.make(Act.CONDITIONS, lambda: self._write(path, patch, kind=STRATEGIC_PATCH))
            self._cleared = through
        return self._store.node(here.name) or here

    async def _take_off(self, here: Node, act: Act, patch: node_patches.Patch | None) -> tuple[Node, bool]:
        """Return the node as it is then, and whether nothing of this is left."""
        through = patch is None
        if patch is not None:
            through = await self._attempts.make(act, lambda: self.patch(here, patch))
        if through:
            self._attempts.clear(act)
        return self._store.node(here.name) or here, through


def _decoration(record: NodeRecord) -> tuple[object, object]:
    return record.added_labels, record.added_annotations
