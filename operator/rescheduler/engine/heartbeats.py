"""Watches the Leases of kubelets: who has fallen silent, and whether so many at once that it must be us.

One raw watch for all nodes, never a Kopf handler: 5,000 nodes renew 500 Leases a second.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from rescheduler.core.facts import UNREACHABLE, Node
from rescheduler.core.pulses import LATE, SILENCE, Pulses
from rescheduler.engine.clock import Clock
from rescheduler.engine.store import Store
from rescheduler.engine.tasks import Supervisor
from rescheduler.kube import paths
from rescheduler.kube.client import Client
from rescheduler.kube.reflectors import Mirror

_TICK = 1.0  # seconds; silence is no event that could be awaited
_RENEWED = 11.0  # seconds; a kubelet renews its Lease every 10 s: nobody is silent before


def _renewal(raw: Mapping[str, Any]) -> str:
    return str((raw.get("spec") or {}).get("renewTime") or "")


class Heartbeats:
    """One for the process, leader or not: a standby that takes over knows who is silent."""

    def __init__(self, client: Client, store: Store, clock: Clock) -> None:
        self._client, self._store, self._clock = client, store, clock
        self._pulses = Pulses()
        self._listed = asyncio.Event()
        self._mirror = Mirror(client, paths.leases(paths.NODE_LEASES), self._take, self._listed.set)
        self._synced = False

    def _take(self, raw: Mapping[str, Any]) -> str:
        name = str(raw["metadata"]["name"])
        self._pulses.beat(name, _renewal(raw), self._clock.monotonic())
        return name

    async def run(self, supervisor: Supervisor) -> None:
        """Look every second until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(supervisor.keep("node_leases", self._mirror.run, subject="watch", vital=True))
            group.create_task(supervisor.loop("node_leases", self._step, vital=True))

    async def _step(self) -> float:
        self.look()
        return _TICK

    async def first(self) -> None:
        """Once nodes are listed: wait for the Leases too, and tell who is silent. Nobody may act before."""
        await self._listed.wait()
        self.look()

    def look(self) -> None:
        """Tell the store who is silent; while the Leases are not in view, nobody new is."""
        now, before = self._clock.monotonic(), self._synced
        self._synced = self._mirror.synced and self._store.listed is not None
        if not self._synced:
            return
        if not before:
            self._pulses.anew(now, blackout=bool(self._store.blackout))
        if self._pulses.unheard:
            self._pulses.presume(self._dark(), now)
        if len(self._pulses.seen) != len(self._mirror.items):
            for name in self._pulses.seen.keys() - set(self._mirror.items.values()):
                self._pulses.forget(name)
        silent = self._pulses.blackout(now)
        self._store.set_blackout(
            f"{silent} of {len(self._pulses.seen)} nodes fell silent together: it is the network, or this view of it"
            if silent
            else ""
        )
        limits = {} if silent else self._limits()
        suspects = self._pulses.silent(limits, now)
        self._store.suspect(suspects, self._pulses.silent(dict.fromkeys(limits, LATE), now) if suspects else suspects)

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
                found[node.name] = max(_RENEWED, limit.total_seconds())
        return found

    async def silent_for_long(self, node: Node) -> bool:
        """Read live: whether we ourselves have not seen the Lease renewed for as long as two renewals take.

        Where there is none, it says nothing against it.
        """
        if not await self.silent(node):
            return False
        known = self._pulses.seen.get(node.name)
        return known is None or self._clock.monotonic() - known[1] >= SILENCE

    async def silent(self, node: Node) -> bool:
        """Read live, just before the first act: whether no kubelet that is alive would have left its Lease so long.

        A watch that lags behind must not condemn a node (k/k#85221); where there is no Lease, it says nothing.
        """
        raw = await self._client.find(f"{paths.leases(paths.NODE_LEASES)}/{node.name}")
        if raw is None:
            return True
        name = self._take(raw)
        self.look()
        silent = self._clock.monotonic() - self._pulses.last(name) >= _RENEWED
        if not silent:
            self._store.suspect(self._store.suspects - {name}, self._store.late - {name})
        return silent
