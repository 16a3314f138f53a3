"""Watches the Leases of kubelets: who has fallen silent, and whether so many at once that it must be us.

One raw watch for all nodes, never a Kopf handler: 5,000 nodes renew 500 Leases a second.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from rescheduler.core.facts import Node
from rescheduler.core.pulses import SILENCE, Pulses
from rescheduler.engine.clock import Clock
from rescheduler.engine.store import Store
from rescheduler.kube import paths
from rescheduler.kube.client import ApiError, Client
from rescheduler.kube.reflectors import Mirror

_TICK = 1.0  # seconds; silence is no event that could be awaited


def _renewal(raw: Mapping[str, Any]) -> str:
    return str((raw.get("spec") or {}).get("renewTime") or "")


class Heartbeats:
    """One for the process, leader or not: a standby that takes over knows who is silent."""

    def __init__(self, client: Client, store: Store, clock: Clock) -> None:
        self._client, self._store, self._clock = client, store, clock
        self._pulses = Pulses()
        self._mirror = Mirror(client, paths.leases(paths.NODE_LEASES), self._take, lambda: None)
        self._synced = False

    def _take(self, raw: Mapping[str, Any]) -> str:
        name = str(raw["metadata"]["name"])
        self._pulses.beat(name, _renewal(raw), self._clock.monotonic())
        return name

    async def run(self) -> None:
        """Look every second until cancelled."""
        watching = asyncio.create_task(self._mirror.run(), name="leases of nodes")
        try:
            while True:
                self.look()
                await asyncio.sleep(_TICK)
        finally:
            watching.cancel()

    def look(self) -> None:
        """Tell the store who is silent; while the Leases are not in view, nobody new is."""
        now, before = self._clock.monotonic(), self._synced
        self._synced = self._mirror.synced
        if not self._synced:
            return
        if not before:
            self._pulses.anew(now)
        if len(self._pulses.seen) != len(self._mirror.items):
            for name in self._pulses.seen.keys() - set(self._mirror.items.values()):
                self._pulses.forget(name)
        silent = self._pulses.blackout(now)
        self._store.set_blackout(
            f"{silent} of {len(self._pulses.seen)} nodes fell silent together: it is the network, or this view of it"
            if silent
            else ""
        )
        self._store.suspect(frozenset() if silent else self._pulses.silent(self._limits(), now))

    def _limits(self) -> dict[str, float]:
        found = {}
        for node in self._store.nodes.values():
            policy = self._store.policy(node)
            if policy and policy.spec.failure.enabled and (limit := policy.spec.failure.lease_timeout):
                found[node.name] = limit.total_seconds()
        return found

    async def silent_for_long(self, node: Node) -> bool:
        """Read live: whether the Lease has not been renewed for as long as two renewals take, on our own clock.

        Where there is none, it says nothing against it.
        """
        if not await self.silent(node):
            return False
        known = self._pulses.seen.get(node.name)
        return known is None or self._clock.monotonic() - known[1] >= SILENCE

    async def silent(self, node: Node) -> bool:
        """Read live, just before the first act: whether the Lease is still as we last saw it.

        A watch that lags behind must not condemn a node (k/k#85221); where there is no Lease, it says nothing.
        """
        try:
            raw = await self._client.get(f"{paths.leases(paths.NODE_LEASES)}/{node.name}")
        except ApiError as error:
            if error.code == 404:
                return True
            raise
        known = self._pulses.seen.get(node.name)
        fresh = known is not None and known[0] != _renewal(raw)
        self._take(raw)
        return not fresh
