"""Watches the Leases of kubelets: who has fallen silent, and whether so many at once that it must be us.

One raw watch for all nodes, never a Kopf handler: 5,000 nodes renew 500 Leases a second.
"""

import asyncio
import random
from collections.abc import Mapping
from typing import Any

import structlog

from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.store import Store
from rescheduler.controllers.runtime.tasks import Supervisor
from rescheduler.core.failure import node_leases
from rescheduler.core.failure.node_leases import Pulses
from rescheduler.core.model.nodes import UNREACHABLE, Node
from rescheduler.kube import paths
from rescheduler.kube.client import TRANSIENT, Client
from rescheduler.kube.informers import Mirror

log = structlog.get_logger("rescheduler.heartbeats")

_TICK = 1.0  # seconds; silence is no event that could be awaited
_SLACK = 4.0  # seconds that the watch may be late with a renewal
_FRESH = 3.0  # seconds for which a list is good to confirm a blackout
_LIST = 20.0  # seconds for a list as a whole: nobody is looked at meanwhile
_ANSWER = 5.0  # seconds for a page of a list: a connection to a server that died answers nothing for ever
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 15.0  # seconds between lists that fail
_FAILURES = 2  # lists in a row; after so many it is the network


def _spec(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    spec = raw.get("spec")
    return spec if isinstance(spec, Mapping) else {}


class Heartbeats:
    """One for the process, leader or not: a standby that takes over knows who is silent.

    A watch that has died is as silent as dead kubelets are. So when no renewal at all comes, and before so many silent
    Leases are called a blackout, the Leases are listed: if the list has renewals, only the watch was dead.
    """

    def __init__(self, client: Client, store: Store, clock: Clock) -> None:
        self._client, self._store, self._clock = client, store, clock
        self._pulses = Pulses()
        self._listed = asyncio.Event()
        self._mirror = Mirror(client, paths.leases(paths.NODE_LEASES), self._watched, self._listed.set, keep=True)
        self._dead = asyncio.Event()  # the watch brings nothing any more: it is to be opened again
        self._synced = False
        self._event_at = clock.monotonic()  # when the watch last brought anything
        self._fresh_at = float("-inf")  # when the last list was in
        self._doubtful = False  # so many Leases are silent that it may be a blackout
        self._certain = asyncio.Event()  # it is not doubtful
        self._certain.set()
        self._failures, self._wait, self._not_before = 0, _FIRST_WAIT, float("-inf")

    def _watched(self, raw: Mapping[str, Any]) -> str:
        self._event_at, self._failures = self._clock.monotonic(), 0
        return self._take(raw)

    def _take(self, raw: Mapping[str, Any]) -> str:
        name, spec = str(raw["metadata"]["name"]), _spec(raw)
        lasts = node_leases.duration(spec.get("leaseDurationSeconds"))
        self._pulses.beat(name, str(spec.get("renewTime") or ""), self._clock.monotonic(), lasts)
        return name

    async def run(self, supervisor: Supervisor) -> None:
        """Look every second until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(supervisor.keep("node_leases", self._follow, subject="watch", vital=True))
            group.create_task(supervisor.loop("node_leases", self._step, vital=True))

    async def _step(self) -> float:
        self.look()
        if self._unsure():
            await self._list()
        return _TICK

    async def _follow(self) -> None:
        """Watch the Leases; from a new list on each time that the watch is found dead."""
        while True:
            self._event_at = self._clock.monotonic()
            self._dead.clear()
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(self._mirror.run(), name="watch of leases")
                await self._dead.wait()
                watching.cancel()

    async def first(self) -> None:
        """Once nodes are listed: wait for the Leases too, and tell who is silent. Nobody may act before."""
        await self._listed.wait()
        self.look()
        await self._certain.wait()

    def look(self) -> None:
        """Tell the store who is silent; while the Leases are not in view, nobody new is."""
        now, before = self._clock.monotonic(), self._synced
        self._synced = self._mirror.synced and self._store.listed is not None
        if not self._synced:
            self._store.suspect(self._store.suspects, self._store.late)
            return
        if not before:
            self._pulses.anew(now, blackout=bool(self._store.blackout))
            self._fresh_at = now
        if self._pulses.unheard:
            self._pulses.presume(self._dark(), now)
        if len(self._pulses.seen) != len(self._mirror.items):
            for name in self._pulses.seen.keys() - set(self._mirror.items.values()):
                self._pulses.forget(name)
        silent = self._pulses.blackout(now)
        self._doubtful = bool(silent) and not self._store.blackout and not self._confirmed(now)
        if self._doubtful:
            self._certain.clear()
        else:
            self._certain.set()
            self._store.set_blackout(
                f"{silent} of {len(self._pulses.seen)} nodes fell silent together: it is the network, or this view of it"
                if silent
                else ""
            )
        limits = {} if silent and not self._doubtful else self._limits()
        suspects = self._pulses.silent(limits, now)
        if self._doubtful:
            suspects &= self._store.suspects  # nobody new
        late = {name: node_leases.late(self._pulses.lasts(name)) for name in limits} if suspects else {}
        unknown = (node.name for node in self._store.nodes.values() if node.ready == UNREACHABLE)
        self._store.suspect(suspects, self._pulses.silent(late, now), self._pulses.heard(unknown, now))

    def _confirmed(self, now: float) -> bool:
        """Whether a list has found the Leases as silent as the watch does, or no list is answered at all."""
        return now - self._fresh_at <= _FRESH or self._failures >= _FAILURES

    def _unsure(self) -> bool:
        """Whether the watch may be dead."""
        now = self._clock.monotonic()
        quiet = now - self._event_at >= self._pulses.rest() + _SLACK
        return self._synced and now >= self._not_before and (quiet or self._doubtful)

    async def _list(self) -> None:
        """List the Leases afresh; if it has renewals that the watch should have brought, open the watch again."""
        asked, doubted = self._clock.monotonic(), self._doubtful
        try:
            async with asyncio.timeout(_LIST):
                await self._read()
        except (TimeoutError, *TRANSIENT) as error:
            self._failures += 1
            log.warning("leases.not_listed", error=str(error) or "no answer", failures=self._failures)
            self._not_before = self._clock.monotonic() + self._wait * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
            self._wait = min(self._wait * 2, _LONGEST_WAIT)
            return
        now = self._clock.monotonic()
        self._failures, self._wait, self._fresh_at = 0, _FIRST_WAIT, now
        quiet, self._event_at = now - self._event_at, max(self._event_at, asked)
        renewed = sum(pulse.at >= asked for pulse in self._pulses.seen.values())
        if renewed and (quiet >= self._pulses.rest() + _SLACK or (doubted and not self._pulses.blackout(now))):
            log.warning("leases.watch_dead", renewed=renewed, quiet_seconds=round(quiet))
            self._dead.set()

    async def _read(self) -> None:
        pages = aiter(self._client.list(paths.leases(paths.NODE_LEASES)))
        while True:
            async with asyncio.timeout(_ANSWER):
                try:
                    page = await anext(pages)
                except StopAsyncIteration:
                    return
            for raw in page["items"]:
                self._take(raw)

    def _dark(self) -> dict[str, float]:
        """Nodes that the node controller has not heard of: how long before the last of them each fell silent."""
        since = {
            node.name: ready.transition
            for node in self._store.nodes.values()
            if (ready := node.condition("Ready")) and ready.status == UNREACHABLE and ready.transition
        }
        last = max(since.values(), default=None)
        return {name: (last - when).total_seconds() for name, when in since.items() if last}

    def _limits(self) -> dict[str, float]:
        found = {}
        for node in self._store.nodes.values():
            policy = self._store.policy(node)
            if policy and policy.spec.failure.enabled and (limit := policy.spec.failure.lease_timeout):
                found[node.name] = max(node_leases.renewed(self._pulses.lasts(node.name)), limit.total_seconds())
        return found

    async def silent_for_long(self, node: Node) -> bool:
        """Read live: whether we ourselves have not seen the Lease renewed for as long as two renewals take.

        Where there is none, it says nothing against it.
        """
        if not await self.silent(node):
            return False
        known = self._pulses.seen.get(node.name)
        return known is None or self._clock.monotonic() - known.at >= node_leases.silence(known.duration)

    async def silent(self, node: Node) -> bool:
        """Read live, just before the first act: whether no kubelet that is alive would have left its Lease so long.

        A watch that lags behind must not condemn a node (k/k#85221); where there is no Lease, it says nothing.
        """
        raw = await self._client.find(f"{paths.leases(paths.NODE_LEASES)}/{node.name}")
        if raw is None:
            return True
        name = self._take(raw)
        self.look()
        silent = self._clock.monotonic() - self._pulses.last(name) >= node_leases.renewed(self._pulses.lasts(name))
        if not silent:
            self._store.suspect(self._store.suspects - {name}, self._store.late - {name}, self._store.heard)
        return silent
