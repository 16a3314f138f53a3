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
from rescheduler.core.failure.node_leases import LeaseTracker
from rescheduler.core.model.nodes import CONDITION_UNKNOWN, Node
from rescheduler.kube import paths
from rescheduler.kube.client import TRANSIENT_ERRORS, Client
from rescheduler.kube.informers import Informer

log = structlog.get_logger("rescheduler.heartbeats")

_CHECK_INTERVAL = 1.0  # seconds; silence is no event that could be awaited
_WATCH_LAG = 4.0  # seconds that the watch may be late with a renewal
_LIST_FRESH_FOR = 3.0  # seconds for which a list is good to confirm a blackout
_LIST_TIMEOUT = 20.0  # seconds for a list as a whole: nobody is looked at meanwhile
_PAGE_TIMEOUT = 5.0  # seconds for a page of a list: a connection to a server that died answers nothing for ever
_FIRST_RETRY_DELAY, _MAX_RETRY_DELAY = 1.0, 15.0  # seconds between lists that fail
_MAX_LIST_FAILURES = 2  # lists in a row; after so many it is the network


def _spec(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    spec = raw.get("spec")
    return spec if isinstance(spec, Mapping) else {}


class LeaseMonitor:
    """One for the process, leader or not: a standby that takes over knows who is silent.

    A watch that has died is as silent as dead kubelets are. So when no renewal at all comes, and before so many silent
    Leases are called a blackout, the Leases are listed: if the list has renewals, only the watch was dead.
    """

    def __init__(self, client: Client, store: Store, clock: Clock) -> None:
        self._client, self._store, self._clock = client, store, clock
        self._leases = LeaseTracker()
        self._listed = asyncio.Event()
        self._informer = Informer(
            client, paths.leases(paths.NODE_LEASE_NAMESPACE), self._on_watch_event, self._listed.set, permanent=True
        )
        self._watch_dead = asyncio.Event()  # the watch brings nothing any more: it is to be opened again
        self._synced = False
        self._last_event_at = clock.monotonic()  # when the watch last brought anything
        self._listed_at = float("-inf")  # when the last list was in
        self._blackout_unconfirmed = False  # so many Leases are silent that it may be a blackout
        self._blackout_decided = asyncio.Event()  # it is not doubtful
        self._blackout_decided.set()
        self._list_failures, self._retry_delay, self._list_not_before = 0, _FIRST_RETRY_DELAY, float("-inf")

    def _on_watch_event(self, raw: Mapping[str, Any]) -> str:
        self._last_event_at, self._list_failures = self._clock.monotonic(), 0
        return self._record_lease(raw)

    def _record_lease(self, raw: Mapping[str, Any]) -> str:
        name, spec = str(raw["metadata"]["name"]), _spec(raw)
        lasts = node_leases.bounded_duration(spec.get("leaseDurationSeconds"))
        self._leases.record_lease(name, str(spec.get("renewTime") or ""), self._clock.monotonic(), lasts)
        return name

    async def run(self, supervisor: Supervisor) -> None:
        """Look every second until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(supervisor.run_forever("node_leases", self._watch_leases, subject="watch", vital=True))
            group.create_task(supervisor.run_loop("node_leases", self._step, vital=True))

    async def _step(self) -> float:
        self.evaluate()
        if self._needs_list():
            await self._list_again()
        return _CHECK_INTERVAL

    async def _watch_leases(self) -> None:
        """Watch the Leases; from a new list on each time that the watch is found dead."""
        while True:
            self._last_event_at = self._clock.monotonic()
            self._watch_dead.clear()
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(self._informer.run(), name="watch of leases")
                await self._watch_dead.wait()
                watching.cancel()

    async def wait_for_sync(self) -> None:
        """Once nodes are listed: wait for the Leases too, and tell who is silent. Nobody may act before."""
        await self._listed.wait()
        self.evaluate()
        await self._blackout_decided.wait()

    def evaluate(self) -> None:
        """Tell the store who is silent; while the Leases are not in view, nobody new is."""
        now, before = self._clock.monotonic(), self._synced
        self._synced = self._informer.synced and self._store.listed_at is not None
        if not self._synced:
            self._store.set_suspected_nodes(self._store.suspected_nodes, self._store.nodes_with_late_lease)
            return
        if not before:
            self._leases.reset(now, blackout=bool(self._store.blackout_reason))
            self._listed_at = now
        if self._leases.unconfirmed:
            self._leases.presume_silent(self._silence_offsets(), now)
        if len(self._leases.renewals) != len(self._informer.items):
            for name in self._leases.renewals.keys() - set(self._informer.items.values()):
                self._leases.forget(name)
        silent = self._leases.blackout_size(now)
        self._blackout_unconfirmed = (
            bool(silent) and not self._store.blackout_reason and not self._is_blackout_confirmed(now)
        )
        if self._blackout_unconfirmed:
            self._blackout_decided.clear()
        else:
            self._blackout_decided.set()
            self._store.set_blackout(
                f"{silent} of {len(self._leases.renewals)} nodes fell silent together: it is the network, or this view of it"
                if silent
                else ""
            )
        limits = {} if silent and not self._blackout_unconfirmed else self._lease_timeouts()
        suspects = self._leases.silent_nodes(limits, now)
        if self._blackout_unconfirmed:
            suspects &= self._store.suspected_nodes  # nobody new
        late = {name: node_leases.late_after(self._leases.duration_of(name)) for name in limits} if suspects else {}
        unknown = (node.name for node in self._store.nodes.values() if node.ready_status == CONDITION_UNKNOWN)
        self._store.set_suspected_nodes(
            suspects, self._leases.silent_nodes(late, now), self._leases.renewing_nodes(unknown, now)
        )

    def _is_blackout_confirmed(self, now: float) -> bool:
        """Whether a list has found the Leases as silent as the watch does, or no list is answered at all."""
        return now - self._listed_at <= _LIST_FRESH_FOR or self._list_failures >= _MAX_LIST_FAILURES

    def _needs_list(self) -> bool:
        """Whether the watch may be dead."""
        now = self._clock.monotonic()
        quiet = now - self._last_event_at >= self._leases.next_renewal_within() + _WATCH_LAG
        return self._synced and now >= self._list_not_before and (quiet or self._blackout_unconfirmed)

    async def _list_again(self) -> None:
        """List the Leases afresh; if it has renewals that the watch should have brought, open the watch again."""
        asked, doubted = self._clock.monotonic(), self._blackout_unconfirmed
        try:
            async with asyncio.timeout(_LIST_TIMEOUT):
                await self._read_pages()
        except (TimeoutError, *TRANSIENT_ERRORS) as error:
            self._list_failures += 1
            log.warning("leases.list_failed", error=str(error) or "no answer", failures=self._list_failures)
            self._list_not_before = self._clock.monotonic() + self._retry_delay * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
            self._retry_delay = min(self._retry_delay * 2, _MAX_RETRY_DELAY)
            return
        now = self._clock.monotonic()
        self._list_failures, self._retry_delay, self._listed_at = 0, _FIRST_RETRY_DELAY, now
        quiet, self._last_event_at = now - self._last_event_at, max(self._last_event_at, asked)
        renewed = sum(pulse.seen_at >= asked for pulse in self._leases.renewals.values())
        if renewed and (
            quiet >= self._leases.next_renewal_within() + _WATCH_LAG
            or (doubted and not self._leases.blackout_size(now))
        ):
            log.warning("leases.watch_dead", renewed=renewed, quiet_seconds=round(quiet))
            self._watch_dead.set()

    async def _read_pages(self) -> None:
        pages = aiter(self._client.list(paths.leases(paths.NODE_LEASE_NAMESPACE)))
        while True:
            async with asyncio.timeout(_PAGE_TIMEOUT):
                try:
                    page = await anext(pages)
                except StopAsyncIteration:
                    return
            for raw in page["items"]:
                self._record_lease(raw)

    def _silence_offsets(self) -> dict[str, float]:
        """Nodes that the node controller has not heard of: how long before the last of them each fell silent."""
        since = {
            node.name: ready.last_transition
            for node in self._store.nodes.values()
            if (ready := node.condition("Ready")) and ready.status == CONDITION_UNKNOWN and ready.last_transition
        }
        last = max(since.values(), default=None)
        return {name: (last - when).total_seconds() for name, when in since.items() if last}

    def _lease_timeouts(self) -> dict[str, float]:
        found = {}
        for node in self._store.nodes.values():
            policy = self._store.policy(node)
            if policy and policy.spec.failure.enabled and (limit := policy.spec.failure.lease_timeout):
                found[node.name] = max(
                    node_leases.renewal_interval(self._leases.duration_of(node.name)), limit.total_seconds()
                )
        return found

    async def is_silent_for_long(self, node: Node) -> bool:
        """Read live: whether we ourselves have not seen the Lease renewed for as long as two renewals take.

        Where there is none, it says nothing against it.
        """
        if not await self.is_silent(node):
            return False
        known = self._leases.renewals.get(node.name)
        return known is None or self._clock.monotonic() - known.seen_at >= node_leases.silent_after(known.duration)

    async def is_silent(self, node: Node) -> bool:
        """Read live, just before the first act: whether no kubelet that is alive would have left its Lease so long.

        A watch that lags behind must not condemn a node (k/k#85221); where there is no Lease, it says nothing.
        """
        raw = await self._client.find(f"{paths.leases(paths.NODE_LEASE_NAMESPACE)}/{node.name}")
        if raw is None:
            return True
        name = self._record_lease(raw)
        self.evaluate()
        silent = self._clock.monotonic() - self._leases.last_renewed(name) >= node_leases.renewal_interval(
            self._leases.duration_of(name)
        )
        if not silent:
            self._store.set_suspected_nodes(
                self._store.suspected_nodes - {name},
                self._store.nodes_with_late_lease - {name},
                self._store.nodes_with_renewed_lease,
            )
        return silent
