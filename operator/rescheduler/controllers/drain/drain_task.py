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
from rescheduler.api.drains import NodeDrain, Phase
from rescheduler.api.policies import Drain, OnTimeout, Policy
from rescheduler.controllers.drain.deadlocks import Standoffs
from rescheduler.controllers.drain.events import Announcer
from rescheduler.controllers.drain.external_owners import Claims
from rescheduler.controllers.drain.fencing import Fence
from rescheduler.controllers.drain.node_writer import Keeper
from rescheduler.controllers.drain.status_writer import Record
from rescheduler.controllers.evacuation.pod_mover import Movers, NodePods
from rescheduler.controllers.evacuation.related_objects import Surroundings
from rescheduler.controllers.failure.lease_monitor import Heartbeats
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.conflicts import is_outdated, reread
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.controllers.runtime.store import Kind, Store
from rescheduler.controllers.runtime.tasks import Supervisor
from rescheduler.controllers.runtime.write_attempts import Attempts
from rescheduler.core.drain import state_machine, status
from rescheduler.core.drain.pod_summary import Tally
from rescheduler.core.drain.state_machine import Command, Fact
from rescheduler.core.eligibility import decision, preconditions
from rescheduler.core.eviction.pod_actions import Circumstances, deadline
from rescheduler.core.eviction.write_refusals import Act
from rescheduler.core.failure import fencing
from rescheduler.core.failure.fencing import Standing
from rescheduler.core.failure.health import Health
from rescheduler.core.model.nodes import UNREACHABLE, Node
from rescheduler.core.model.wait_reasons import IN_LINE, Held, Hold
from rescheduler.kube import paths
from rescheduler.kube.client import TRANSIENT, ApiError, Client

log = structlog.get_logger("rescheduler.drainer")

_LOOK_AGAIN = 10.0  # seconds, where nothing happens: time alone changes some facts
_TIMED = 1.0  # seconds, where pods have deadlines
_SETTLE = 0.02  # seconds; a burst of pod events is one look
_LONGEST_SETTLE = 0.5
_SHARE, _MANY = 3, 10
"""Looks take at most one part in so many of the time, over all drains: requests must not wait for them. The more there
are the less, for the API server needs the machine too, and there is always one with something to send.
"""
_NO_ANSWER = 10.0  # seconds at most between two looks while the API server does not answer
_SLOW = 10.0  # seconds; a view of the cluster that is missing for longer is named
_WITHOUT_FINALIZER = 10.0  # seconds at most for which a new task waits for the finalizer
RETURNED, RETURNED_BY_LEAVING = timedelta(minutes=10), timedelta(minutes=1)
"""A drain that is over waits so long for its released pods before it restores the node without them."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What every drain task shares; `leaving`: the operator leaves the cluster for good."""

    client: Client
    store: Store
    clock: Clock
    movers: Movers
    surroundings: Surroundings
    announcer: Announcer
    metrics: Metrics
    heartbeats: Heartbeats
    supervisor: Supervisor
    own_pod: str = ""
    leaving: bool = False


class Drainer:
    """One NodeDrain's task."""

    def __init__(self, name: str, tools: Tools) -> None:
        self.name = name
        self._t = tools
        self._wake = asyncio.Event()
        shared = (tools.client, tools.store, tools.clock, tools.announcer, tools.heartbeats)
        self._attempts = Attempts(tools.clock, drain=name)
        written = (tools.client, tools.store, tools.clock, tools.announcer, self._attempts)
        self._record = Record(name, *written, self.wake)
        self._keeper = Keeper(name, *shared, self._attempts, leaving=tools.leaving)
        self._fence = Fence(*shared, self._keeper)
        self._pods = self._new_pods()
        self._standoffs = Standoffs(tools.client, tools.store, tools.clock, tools.movers.budgets)
        self._claims = Claims(tools.client, tools.clock)
        self._cost = 0.0  # seconds that the last look at the pods took
        self._unseen: float | None = None  # since when a view is missing; monotonic
        self._born, self._born_at = tools.clock.monotonic(), tools.clock.now()

    def _new_pods(self) -> NodePods:
        return NodePods(self.name, self._t.movers, self.wake, self._fence.confirm)

    def wake(self) -> None:
        """Something changed: look again."""
        self._wake.set()

    @property
    def left_released(self) -> bool:
        """Whether a released pod is on its node, as far as was seen."""
        return self._pods.left_released

    async def run(self) -> None:
        """Step until the NodeDrain is gone."""
        try:
            await self._t.supervisor.loop(
                "drain", self._step, subject=self.name, wake=self._wake, settle=self._settle, retry=self._failed
            )
        finally:
            self._close()

    async def _step(self) -> float | None:
        """One look; seconds until the next, None: the NodeDrain is gone."""
        drain = self._t.store.drain(self.name)
        if drain is None:
            return None
        try:
            pause = await self._look(drain)
        except TRANSIENT:
            raise
        except Exception as error:
            self._close()  # what it has in memory may be the cause: the next look starts from the cluster
            self._pods = self._new_pods()
            await self._record.failed(drain, error)
            raise
        self._attempts.clear(Act.LOOK)
        return min(pause, self._attempts.soonest())

    async def _failed(self, error: Exception) -> float:
        """A look failed: name the cause once it lasts. Return the seconds until the next look."""
        if is_outdated(error):
            await reread(self._t.client, self._t.store, Kind.DRAIN, paths.drain(self.name))
        pause, drain = self._attempts.failed(Act.LOOK, error), self._t.store.drain(self.name)
        if drain and self._attempts.troubled(Act.LOOK) and not self._attempts.troubled(Act.STATUS):
            try:
                await self._record.tell(drain, self._t.store.node(drain.spec.node_name))
            except TRANSIENT as untold:
                log.warning("drain.cause_untold", drain=self.name, error=str(untold))
        return pause if isinstance(error, ApiError) else min(pause, _NO_ANSWER)

    def _settle(self) -> float:
        """Seconds for which a burst of pod events is one look."""
        busy = self._t.store.draining
        share = min(_SHARE + busy - 1, _MANY)
        return min(max(_SETTLE, self._cost * share * busy), _LONGEST_SETTLE)

    def _close(self) -> None:
        self._t.store.promise(self.name, None)
        self._t.surroundings.forget(self.name)
        self._pods.close()

    async def _look(self, drain: NodeDrain) -> float:
        """One step; seconds until the next where nothing happens."""
        store, now = self._t.store, self._t.clock.now()
        if store.cannot_read(Kind.DRAIN, self.name):
            return _LOOK_AGAIN  # what is known of it is old: nothing is done for it, and it is not written
        here = store.node(drain.spec.node_name)
        if here is None:
            here = await self._keeper.live(drain.spec.node_name)
        if here and (wait := self._until_finalizer(drain)) > 0:
            return wait
        held = decision.held(drain, store.world(), now)
        if self.name in store.unwanted and (held is None or held.reason is not Hold.STALE_VIEW):
            held = Held(Hold.CANCELLED, "nothing asks for the drain any more, and its NodeDrain cannot be deleted")
        if drain.status.started_at is None and here and (held is None or _keeps_cordon(drain, held)):
            held = await self._ask(drain, here) or held
        policy = store.policy(here) if here else None
        standing = await self._standing(drain, here, policy, now)
        held = held or (self._fence.rest(drain, here, policy) if here else None)
        if here and (drain.status.started_at or (held and held.reason is Hold.AUDIT)):
            self._pods.follow(here.name)
        withdrawn = drain.deletion_timestamp is not None
        if withdrawn:
            self._attempts.clear(Act.CORDON, Act.DECORATE, Act.TAINT, Act.ANNOTATE)
        may_move = (held is None or _yields(drain, held)) and not withdrawn
        early, began = decision.suspected(drain, store.world(), now), self._t.clock.monotonic()
        settings = drain.spec.drain.over(policy.spec.drain if policy else Drain())
        seen = self._seen(drain, here, settings, standing, now)
        tally = self._pods.look(drain.status, settings, seen, may_move=may_move, early=early) if seen else None
        self._cost = self._t.clock.monotonic() - began
        self._keeper.busy = seen is None or self._pods.busy(seen.volumes)
        self._unseen = None if tally else self._unseen
        tally = tally if policy else None
        situation = self._situation(drain, here, held, tally, now, settings)
        situation = replace(situation, suspected=early)
        fact = state_machine.fact(situation)
        phase, commands = state_machine.step(drain.status.phase or Phase.WAITING, fact)
        returning = self._pods.returning() if withdrawn or fact is Fact.RETREATING else ()
        scene = status.Scene(
            drain=drain,
            node=here,
            policy=policy,
            phase=phase,
            fact=fact,
            held=None if fact in (Fact.GRANTED, Fact.EMPTY, Fact.EMPTY_AND_HELD) else held,
            record=drain.status.node,
            begun=drain.status.started_at,
            tally=tally,
            moved=(self._pods.moved or 0) + (tally.objects - tally.remaining if tally else 0),
            now=now,
            settings=settings,
            standing=standing,
            traces=returning,
            busy=self._pods.occupying(seen.volumes) if seen and fact is Fact.FENCED else (),
            unseen=self._missing(seen) if tally is None else "",
            last_move=self._pods.last_move,
        )
        return await self._carry_out(commands, scene)

    def _until_finalizer(self, drain: NodeDrain) -> float:
        """Return the seconds to wait at most for the finalizer, which a NodeDrain made by a user does not have yet.

        The node controller writes it at the same time: without the wait one of the two writes meets a conflict. The
        wait ends, for the drain must go on if the finalizer is refused.
        """
        if names.FINALIZER in drain.finalizers or drain.deletion_timestamp is not None:
            return 0.0
        return self._born + _WITHOUT_FINALIZER - self._t.clock.monotonic()

    def _missing(self, seen: Circumstances | None) -> str:
        """Which view of the cluster is missing, once it has been missing for long."""
        what = self._pods.unseen if seen else self._t.surroundings.missing(self.name)
        now = self._t.clock.monotonic()
        self._unseen = now if self._unseen is None else self._unseen
        return what if now - self._unseen >= _SLOW else ""

    def _situation(
        self,
        drain: NodeDrain,
        here: Node | None,
        held: Held | None,
        tally: Tally | None,
        now: datetime,
        settings: Drain,
    ) -> state_machine.Situation:
        record = drain.status.node
        withdrawn = drain.deletion_timestamp is not None
        restored = withdrawn and here is not None and self._keeper.nothing_left(drain, here)
        return state_machine.Situation(
            now=now,
            same_node=here is not None and (record is None or not record.uid or record.uid == here.uid),
            withdrawn=withdrawn,
            restored=restored,
            held=held is not None,
            frozen=held is not None and held.reason is Hold.STALE_VIEW,
            yields=held is not None and _yields(drain, held),
            fenced=here is not None and self._keeper.fenced(drain, here),
            steps_back=names.STEPPED_BACK in drain.annotations and held is not None,
            set_aside=held is not None and _keeps_cordon(drain, held),
            traces=self._waits_for_returns(drain, now),
            expired=self._expired(drain, settings, now),
            begun=drain.status.started_at,
            cordoned=self._cordoned_at(drain),
            remaining=tally.objects + len(tally.detaching) if tally else None,
            blocked=(len(tally.blockers) if tally else 0) + self._attempts.troubled(Act.CORDON),
            last_move=self._pods.last_move,
        )

    def _cordoned_at(self, drain: NodeDrain) -> datetime | None:
        """Return when the node was cordoned, rather late than early; None while the status does not say that it is.

        Before our start the node may have been uncordoned for a while: without news the cordon counts from the start,
        unless the node was found Drained then.
        """
        seen = self._t.store.cordoned_at(drain.spec.node_name)
        found = status.cordoned_at(drain.status, seen)
        if found is None or seen or drain.status.phase is Phase.DRAINED:
            return found
        return max(found, self._born_at)

    def _waits_for_returns(self, drain: NodeDrain, now: datetime) -> bool:
        """Whether released pods are left on the node, or it is not known that none are.

        A node is not kept cordoned for ever for a pod that cannot be returned: such pods are looked after without it.
        """
        if drain.status.started_at is None:
            return False
        patience = RETURNED_BY_LEAVING if self._t.leaving else RETURNED
        late = drain.deletion_timestamp is not None and now - drain.deletion_timestamp >= patience
        return not late and (self._pods.traces or not self._pods.synced)

    @staticmethod
    def _expired(drain: NodeDrain, settings: Drain, now: datetime) -> bool:
        """Whether the drain's time is up and it is to be cancelled."""
        seen = Circumstances(now, drain.status.started_at, status.paused(drain.status, now))
        end = deadline(settings.timeout, seen)
        return settings.on_timeout is OnTimeout.CANCEL and end is not None and now >= end

    async def _ask(self, drain: NodeDrain, here: Node) -> Held | None:
        """Who else holds a node that is about to be drained; one that failed is read live beside it, for the cordon."""
        if not preconditions.only_failed(drain):
            return await self._claims.look(here)
        found, _ = await asyncio.gather(self._claims.look(here), self._keeper.recent(here.name))
        return found

    async def _standing(self, drain: NodeDrain, here: Node | None, policy: Policy | None, now: datetime) -> Standing:
        if here is None or drain.status.started_at is None:
            return Standing()
        health = self._t.store.world().diagnose(here, now).health
        failing = drain.deletion_timestamp is None and preconditions.failed(drain) and health is Health.FAILED
        return await self._fence.look(drain, here, policy, failing=failing)

    def _seen(
        self, drain: NodeDrain, here: Node | None, settings: Drain, standing: Standing, now: datetime
    ) -> Circumstances | None:
        """What the verdicts on the pods depend on; None while it is not known."""
        if here is None:
            return None
        seen = Circumstances(
            now=now,
            started=drain.status.started_at,
            paused=status.paused(drain.status, now),
            unreachable=here.ready == UNREACHABLE or standing.proof is not None,
            failing=standing.failing,
            dead=standing.proof is not None,
            proof_hint=standing.hint or fencing.hint(here),
            own=self._t.own_pod,
        )
        attached = standing.proof is not None or fencing.recorded(here, drain.status.node)
        return self._t.surroundings.look(self.name, here.name, seen, settings, self._pods.rows(), attached=attached)

    # -- commands -----------------------------------------------------------------------------------------------

    async def _end(self, commands: Iterable[Command], scene: status.Scene) -> float | None:
        """Commands after which the drain is over, or another one; seconds until the next look, None: there was none."""
        if Command.FORGET in commands:
            if not await self._record.forget(scene.drain, scene.node):
                await self._write(scene)
            return _LOOK_AGAIN
        if Command.RESTORE in commands and scene.node is not None:
            await self._write(scene)
            await self._keeper.restore(scene.drain)
            return min(self._keeper.until_restoring(), _LOOK_AGAIN)
        if Command.CANCEL in commands:
            if await self._record.cancel(scene):
                return 0.0
            await self._write(scene)
            return _LOOK_AGAIN
        if Command.STEP_BACK in commands:
            return await self._step_back(scene)
        if scene.fact is Fact.GRANTED and names.STEPPED_BACK in scene.drain.annotations:
            if await self._attempts.make(Act.ANNOTATE, lambda: self._standoffs.forget(scene.drain)):
                return 0.0
            await self._write(scene)
            return _LOOK_AGAIN
        return None

    async def _carry_out(self, commands: Iterable[Command], scene: status.Scene) -> float:
        if (pause := await self._end(commands, scene)) is not None:
            return pause
        self._attempts.clear(Act.DELETE, Act.FINALIZER)
        here, judged = scene.node, scene
        self._keeper.wrote = False
        if Command.GIVE_BACK in commands:
            self._pods.give_back()
            if scene.fact is Fact.RETURNING:
                self._pods.finish(scene.policy.name if scene.policy else "")
        if scene.held and scene.held.reason in IN_LINE and here is not None and scene.begun is None:
            scene = await self._keeper.queue_up(scene, here, self._write)
        if Command.RECORD in commands and here is not None:
            self._pods.follow(here.name)  # the list is under way while the node is cordoned
            scene = await self._keeper.hold(scene, here, self._write)
        scene = await self._foretell(scene)
        # What was chosen before a write was awaited may not be right any more: it is chosen again.
        as_judged = scene is judged
        pause = self._move(scene, commands) if as_judged else None
        scene = await self._tend(scene, commands) if as_judged else scene
        if scene.fact is Fact.UNSEEN and not self._keeper.wrote and not scene.unseen:
            return _LOOK_AGAIN  # nothing new can be said before the pods are seen
        await self._write(scene)
        if scene.fact is Fact.STUCK and here is not None and (drain := self._t.store.drain(self.name)):
            await self._attempts.make(Act.ANNOTATE, lambda: self._standoffs.look(drain, here))
        if scene.fact is not Fact.UNSEEN and (scene.fact is not Fact.HELD or scene.begun):
            await self._keeper.mark(scene)
        if not as_judged and (self._keeper.wrote or scene.drain is not judged.drain):
            return 0.0
        timed = self._fence.impatient or scene.settings.timeout or any(rule.timeout for rule in scene.settings.rules)
        patience = _TIMED if timed else self._pods.patience(scene.now) if self._pods.impatient else _LOOK_AGAIN
        return min(patience, pause if pause is not None else _LOOK_AGAIN, self._until_settled(scene))

    async def _foretell(self, scene: status.Scene) -> status.Scene:
        """What has to be said before any pod is moved."""
        if scene.tally is None:
            return scene
        self._t.announcer.notes(scene.tally)
        self._t.announcer.taken(scene)
        self._t.announcer.hanging(scene)
        if scene.phase is Phase.RESTORING or not status.unsaid(scene.drain.status, scene.tally):
            return scene
        await self._write(scene, now=True)
        drain = self._t.store.drain(self.name) or scene.drain
        return scene if drain is scene.drain else replace(scene, drain=drain)

    async def _tend(self, scene: status.Scene, commands: Iterable[Command]) -> status.Scene:
        """The out-of-service taint: set once all pods that it lets go are Terminating."""
        here, tally, busy = scene.node, scene.tally, self._keeper.busy
        if here is None or scene.begun is None or scene.fact is Fact.FROZEN:
            return scene
        left = tally and (tally.lost or tally.detaching or tally.hanging)
        due = bool(scene.standing.proof and tally and left and not tally.unsent)
        may_set = Command.MOVE in commands
        lost = tally.lost if tally else ()
        return await self._fence.tend(scene, here, lost, due=due, busy=busy, may_set=may_set, write=self._write)

    def _until_settled(self, scene: status.Scene) -> float:
        if scene.begun is None or scene.phase is not Phase.DRAINING:
            return _LOOK_AGAIN
        since = self._cordoned_at(scene.drain) or scene.now
        settled = (since + state_machine.SETTLE - scene.now).total_seconds()
        return settled if settled > 0 else _LOOK_AGAIN

    def _move(self, scene: status.Scene, commands: Iterable[Command]) -> float | None:
        tally, policy, finish = scene.tally, scene.policy, Command.FINISH in commands
        here = self._t.store.node(scene.drain.spec.node_name)
        # The cordon may have been given up just now: whoever was found to be well is left alone.
        if tally is None or scene.begun is None or here is None or not here.unschedulable:
            return None
        if Command.RELEASE in commands:
            self._pods.release()
        if policy is None or not (finish or Command.MOVE in commands):
            return None
        return self._pods.move(tally, policy, scene.settings, begun=finish)

    async def _write(self, scene: status.Scene, *, now: bool = False) -> None:
        await self._record.write(scene, self._pods, now=now)

    async def _step_back(self, scene: status.Scene) -> float:
        """Put the node back, and be as a drain that has not begun. Return the seconds until the next look."""
        here = await self._keeper.put_back(scene.drain, {})
        if here is None:
            await self._write(scene)
            return min(self._keeper.until_restoring(), _LOOK_AGAIN)
        self._t.announcer.stepped_back(scene)
        self._pods.close()
        self._pods = self._new_pods()
        await self._write(replace(scene, node=here, record=None, begun=None, tally=None), now=True)
        self._keeper.begin_anew()
        return 0.0


def _yields(drain: NodeDrain, held: Held) -> bool:
    """Whether the drain has begun, and waits for a slot only because it gave its own up."""
    return (
        drain.status.started_at is not None
        and held.reason is Hold.MAX_CONCURRENT
        and names.STEPPED_BACK not in drain.annotations
    )


def _keeps_cordon(drain: NodeDrain, held: Held) -> bool:
    """Whether the node is cordoned all the same: it flaps, or is not well for long enough yet."""
    return held.reason is Hold.FLAPPING or (held.reason is Hold.CANCELLED and drain.status.started_at is not None)
