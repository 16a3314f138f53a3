"""Moves single pods off one node that is not drained, as a drain would: within their budgets, replacement first.

The node is tainted PreferNoSchedule for that time. A drain that begins on it takes over; a pod that cannot be moved
stays, and is named.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rescheduler.api.drains import Blocker, BlockerClass, NodeDrainStatus
from rescheduler.api.policies import Drain, Policy, Suspend
from rescheduler.controllers.evacuation.pod_mover import PATIENCE, Movers, NodePods
from rescheduler.controllers.evacuation.related_objects import Surroundings
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.conflicts import is_outdated, reread
from rescheduler.controllers.runtime.store import Kind, Store
from rescheduler.controllers.runtime.tasks import Supervisor
from rescheduler.core.drain import migration
from rescheduler.core.drain.node_patches import Patch
from rescheduler.core.drain.pod_summary import Tally
from rescheduler.core.eligibility import cluster_state
from rescheduler.core.eviction.pod_actions import Circumstances, Verdict
from rescheduler.core.model.nodes import Node, node
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.wait_reasons import Hold
from rescheduler.kube import paths
from rescheduler.kube.client import TRANSIENT, Client

_LOOK_AGAIN = 10.0  # seconds, where nothing happens
_SETTLE = 0.05  # seconds; a burst of pod events is one look
_REST_AFTER = 60.0  # seconds without a move, all blocked: others have their turn

Errand = Mapping[str, str]
"""Pods of one node that are to be moved: by uid, what for (`NamespacePool/shop`)."""
Gone = Callable[[str, Pod | None, str], None]
"""Told that a pod is not there any more: its uid, itself (None: it never was), and what it was to be moved for."""
Looked = Callable[[], None]
"""Told that a node was looked at: who is held may be otherwise."""
PREFIX = "shift/"
"""As a holder of mirrors; no drain has a name like this."""


@dataclass(frozen=True, slots=True)
class Held:
    """A pod that could not be moved so far, and what for it was to be."""

    cause: str
    blocker: Blocker


@dataclass(frozen=True, slots=True)
class Tools:
    """What every shift shares."""

    client: Client
    store: Store
    clock: Clock
    movers: Movers
    surroundings: Surroundings
    supervisor: Supervisor


async def _nothing_to_confirm(_pod: Pod, _verdict: Verdict) -> str:
    """Nothing is deleted past its budget here, so nothing rests on a premise."""
    return ""


class Shift:
    """One node's task.

    Attributes:
        errand: what is to be moved; nothing: whatever was begun is brought to an end.
        held: pods that cannot be moved now.
    """

    def __init__(self, name: str, tools: Tools, gone: Gone, looked: Looked) -> None:
        self.name, self.errand = name, dict[str, str]()
        self.held: tuple[Held, ...] = ()
        self.rested = False
        self._t, self._gone, self._looked = tools, gone, looked
        self._wake = asyncio.Event()
        self._pods = NodePods(PREFIX + name, tools.movers, self.wake, _nothing_to_confirm)
        self._followed: dict[str, tuple[Pod, str]] = {}  # by uid, until they are gone: what was wanted, and what for
        self._tally: Tally | None = None
        self._last = tools.clock.monotonic()

    def wake(self) -> None:
        """Look now."""
        self._wake.set()

    @property
    def left_released(self) -> bool:
        """Whether a released pod is on its node, as far as was seen."""
        return self._pods.left_released

    async def run(self) -> None:
        """Until nothing is left to be done here, or nothing can be."""
        try:
            await self._t.supervisor.loop(
                "shift", self._step, subject=self.name, wake=self._wake, settle=lambda: _SETTLE
            )
        finally:
            self._t.surroundings.forget(PREFIX + self.name)
            self._pods.close()

    async def _step(self) -> float | None:
        try:
            return await self._look()
        except TRANSIENT as error:
            if is_outdated(error):
                await reread(self._t.client, self._t.store, Kind.NODE, paths.node(self.name))
            raise

    async def _look(self) -> float | None:
        """One step; seconds until the next where nothing happens, None: this was the last."""
        here, drain = self._t.store.node(self.name), self._t.store.drain(self.name)
        if here is None:
            return None
        if drain and drain.status.started_at:
            # Its pods are the drain's now, the released ones too; the cordon is stronger than the taint.
            await self._write(here, None if migration.has_record(drain) else migration.welcome_patch(here))
            return None
        policy = self._t.store.policy(here)
        held = migration.held(here, policy, cluster_state.blind(self._t.store.world(), self._t.clock.now()))
        if held and held.reason is Hold.STALE_VIEW:
            return _LOOK_AGAIN
        self._pods.follow(self.name)
        settings = migration.settings(policy.spec.drain if policy else Drain())
        goes_on = held is None or (policy is not None and policy.spec.suspend is Suspend.NEW)
        self._pods.errand = self._errand(only_begun=held is not None)
        tally = self._judge(here, settings, may_move=goes_on)
        if tally is None:
            return _LOOK_AGAIN
        self._note(tally)
        if self._followed and held is None:
            here = await self._write(here, migration.shun_patch(here))
        return await self._act(here, tally, policy if goes_on else None, settings)

    def _errand(self, *, only_begun: bool) -> dict[str, str]:
        begun = {pod.uid for pod in self._pods.rows() if pod.move}
        return {uid: cause for uid, cause in self.errand.items() if not only_begun or uid in begun}

    def _judge(self, here: Node, settings: Drain, *, may_move: bool) -> Tally | None:
        seen = Circumstances(now=self._t.clock.now())
        rows = self._pods.rows()
        known = self._t.surroundings.look(PREFIX + self.name, here.name, seen, settings, rows, attached=False)
        if known is None:
            return None
        status = NodeDrainStatus(blockers=tuple(each.blocker for each in self.held)[:50])
        return self._pods.look(status, settings, known, may_move=may_move)

    def _note(self, tally: Tally) -> None:
        """Who has left since, and who is held."""
        self._follow_up({pod.uid: pod for pod in self._pods.rows()})
        if tally.in_flight or self._tally is None or tally.leaving != self._tally.leaving:
            self._last = self._t.clock.monotonic()
        self._tally = tally
        causes = {pod.key: cause for pod, cause in self._followed.values()}
        found = [(causes.get(f"{b.namespace}/{b.pod}"), b) for b in tally.blockers]
        self.held = (*(Held(cause, blocker) for cause, blocker in found if cause), *self._staying(tally))
        self._looked()

    def _follow_up(self, rows: Mapping[str, Pod]) -> None:
        """One that is Terminating is wanted no more by whoever looks for pods to move; its move is not over yet."""
        for uid in [uid for uid in self.errand if uid not in rows]:
            known = self._followed.pop(uid, None)
            self._gone(uid, *(known or (None, self.errand[uid])))
            del self.errand[uid]
        for uid, (pod, cause) in list(self._followed.items()):
            if uid not in rows:
                self._gone(uid, pod, cause)
            if uid not in rows or (uid not in self.errand and not rows[uid].deleting):
                del self._followed[uid]
        for uid, pod in rows.items():
            if cause := self.errand.get(uid) or (self._followed[uid][1] if uid in self._followed else ""):
                self._followed[uid] = (pod, cause)

    def _staying(self, tally: Tally) -> list[Held]:
        """Pods that its policy leaves where they are."""
        asked, now = self._pods.errand or {}, self._t.clock.now()
        return [
            Held(
                cause,
                Blocker(
                    namespace=pod.namespace,
                    pod=pod.name,
                    class_=BlockerClass.DO_NOT_DISRUPT,
                    message="a rule of its node's policy says Skip, or it tolerates cordoned nodes",
                    since=now,
                ),
            )
            for uid, (pod, cause) in self._followed.items()
            if uid in asked and uid not in tally.leaving
        ]

    async def _act(self, here: Node, tally: Tally, policy: Policy | None, settings: Drain) -> float | None:
        pause: float | None = None
        if policy is not None:
            pause = self._pods.move(tally, policy, settings)
        else:
            self._pods.give_back()
        if not tally.leaving and self._pods.traces:
            self._pods.finish(policy.name if policy else "")
        # Pods that cannot be returned are looked after elsewhere: no node waits for them.
        if self._is_over(tally) and self._pods.traces_held:
            drain = self._t.store.drain(self.name)
            await self._write(here, None if migration.has_record(drain) else migration.welcome_patch(here))
            return None
        patience = PATIENCE.total_seconds() if self._pods.impatient else _LOOK_AGAIN
        return min(patience, pause if pause is not None else _LOOK_AGAIN)

    def _is_over(self, tally: Tally) -> bool:
        if not self._followed:
            return True
        idle = self._t.clock.monotonic() - self._last >= _REST_AFTER
        self.rested = idle and tally.in_flight == 0
        return self.rested

    async def _write(self, here: Node, patch: Patch | None) -> Node:
        if patch is None:
            return here
        raw = await self._t.client.patch(paths.node(here.name), patch)
        self._t.store.put(Kind.NODE, raw)
        return node(raw)
