"""Watch the Leases of kubelets, and report silent nodes and blackouts to the store.

One raw watch serves all nodes. A Kopf handler would be too slow: 5,000 nodes renew 500 Leases a second.
"""

import asyncio
from collections.abc import Collection

import structlog

from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.controllers.runtime.tasks import Supervisor
from rescheduler.controllers.store.store import Store
from rescheduler.core.failure import messages, node_leases
from rescheduler.core.failure.node_leases import LeaseTracker
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.raw import RawObject
from rescheduler.kube import paths
from rescheduler.kube.backoff import Backoff
from rescheduler.kube.client import TRANSIENT_ERRORS, Client
from rescheduler.kube.informers import Informer

log = structlog.get_logger("rescheduler.failure.lease_monitor")

_CHECK_INTERVAL = 1.0  # seconds; no event reports that a Lease is not renewed
_WATCH_LAG = 4.0  # seconds by which the watch may deliver a renewal late
_LIST_FRESH_FOR = 3.0  # seconds for which a list confirms a blackout
_LIST_TIMEOUT = 20.0  # seconds for a whole list: Leases are not evaluated meanwhile
_PAGE_TIMEOUT = 5.0  # seconds for a page: a connection to a dead server would never answer
_FIRST_RETRY_DELAY, _MAX_RETRY_DELAY = 1.0, 10.0  # seconds between lists that fail, before the jitter
_MAX_LIST_FAILURES = 2  # lists in a row that fail before the network counts as failed


def _spec(raw: RawObject) -> RawObject:
    spec = raw.get("spec")
    return spec if isinstance(spec, dict) else {}


class LeaseMonitor:
    """Monitor the Leases, also as a standby, so that a new leader knows the silent nodes at once.

    A dead watch looks like dead kubelets. So the Leases are listed if the watch delivers no renewal, and before a
    blackout is reported. If the list has renewals, only the watch is dead.
    """

    def __init__(self, client: Client, store: Store, clock: Clock, metrics: Metrics) -> None:
        self._client, self._store, self._clock, self._metrics = client, store, clock, metrics
        self._leases = LeaseTracker()
        self._listed = asyncio.Event()
        self._informer = Informer(
            client, paths.leases(paths.NODE_LEASE_NAMESPACE), self._on_watch_event, self._listed.set, permanent=True
        )
        self._watch_dead = asyncio.Event()  # set: the watch delivers nothing and must be opened again
        self._synced = False
        self._given_up: set[str] = set()  # suspected nodes that the node controller has given up since
        self._last_event_at = clock.monotonic()  # of the watch
        self._listed_at = float("-inf")  # the end of the last list
        self._blackout_unconfirmed = False  # there may be a blackout, but no list has confirmed it
        self._blackout_decided = asyncio.Event()  # cleared while a blackout is unconfirmed
        self._blackout_decided.set()
        self._list_failures, self._list_not_before = 0, float("-inf")
        self._list_backoff = Backoff(_FIRST_RETRY_DELAY, _MAX_RETRY_DELAY)

    def _on_watch_event(self, raw: RawObject) -> str:
        self._last_event_at, self._list_failures = self._clock.monotonic(), 0
        return self._record_lease(raw)

    def _record_lease(self, raw: RawObject) -> str:
        name, spec = str(raw["metadata"]["name"]), _spec(raw)
        duration = node_leases.bounded_duration(spec.get("leaseDurationSeconds"))
        self._leases.record_lease(name, str(spec.get("renewTime") or ""), self._clock.monotonic(), duration)
        return name

    async def run(self, supervisor: Supervisor) -> None:
        """Evaluate the Leases every second until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(supervisor.run_forever("node_leases", self._watch_leases, subject="watch", vital=True))
            group.create_task(supervisor.run_loop("node_leases", self._step, vital=True))

    async def _step(self) -> float:
        self.evaluate()
        if self._needs_list():
            await self._list_again()
        return _CHECK_INTERVAL

    async def _watch_leases(self) -> None:
        """Watch the Leases; open the watch again, from a new list, each time it is dead."""
        while True:
            self._last_event_at = self._clock.monotonic()
            self._watch_dead.clear()
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(self._informer.run(), name="lease watch")
                await self._watch_dead.wait()
                watch.cancel()

    async def wait_for_sync(self) -> None:
        """Wait until the Leases are listed and evaluated; no drain may act before. The nodes must be listed already."""
        await self._listed.wait()
        self.evaluate()
        await self._blackout_decided.wait()

    def evaluate(self) -> None:
        """Report the silent nodes to the store; while the Leases are not synced, no further node becomes silent."""
        now, before = self._clock.monotonic(), self._synced
        self._synced = self._informer.synced and self._store.state_builder.listed_at is not None
        if not self._synced:
            self._store.set_suspected_nodes(
                self._store.history.suspected_nodes, self._store.history.nodes_with_late_lease
            )
            return
        if not before:
            self._leases.reset(now, blackout=bool(self._store.state_builder.blackout_reason))
            self._listed_at = now
        if self._leases.unconfirmed:
            self._leases.presume_silent(node_leases.silence_offsets(self._store.nodes.values()), now)
        if len(self._leases.renewals) != len(self._informer.items):
            for name in self._leases.renewals.keys() - set(self._informer.items.values()):
                self._leases.forget(name)
        silent = self._leases.blackout_size(now)
        self._blackout_unconfirmed = (
            bool(silent) and not self._store.state_builder.blackout_reason and not self._is_blackout_confirmed(now)
        )
        if self._blackout_unconfirmed:
            self._blackout_decided.clear()
        else:
            self._blackout_decided.set()
            self._store.set_blackout(messages.blackout(silent, len(self._leases.renewals)) if silent else "")
        timeouts = {} if silent and not self._blackout_unconfirmed else self._lease_timeouts(now)
        suspected = self._leases.silent_nodes(timeouts, now)
        if self._blackout_unconfirmed:
            suspected &= self._store.history.suspected_nodes  # in a blackout a new suspicion would be wrong
        late_limits = (
            {name: node_leases.late_after(self._leases.duration_of(name)) for name in timeouts} if suspected else {}
        )
        self._count_false_alarms(self._store.history.suspected_nodes - suspected)
        unknown = self._store.history.unknown_nodes
        self._store.set_suspected_nodes(
            suspected, self._leases.silent_nodes(late_limits, now), self._leases.renewing_nodes(unknown, now)
        )

    def _count_false_alarms(self, recovered: Collection[str]) -> None:
        """Count the nodes whose Lease is renewed again and that were Ready all the time."""
        suspected = ((name, self._store.node(name)) for name in self._store.history.suspected_nodes)
        self._given_up |= {name for name, node in suspected if node is None or node.ready_status != "True"}
        self._metrics.false_alarms.inc(len(set(recovered) - self._given_up))
        self._given_up -= set(recovered)

    def silent_seconds(self, name: str) -> float | None:
        """Return the seconds since the last renewal of a node's Lease; None without a Lease."""
        renewal = self._leases.renewals.get(name)
        return self._clock.monotonic() - renewal.seen_at if renewal else None

    def _is_blackout_confirmed(self, now: float) -> bool:
        """Whether a list has shown the same silent Leases, or lists fail too."""
        return now - self._listed_at <= _LIST_FRESH_FOR or self._list_failures >= _MAX_LIST_FAILURES

    def _needs_list(self) -> bool:
        """Whether the Leases must be listed: the watch may be dead, or a blackout is unconfirmed."""
        now = self._clock.monotonic()
        quiet_seconds = now - self._last_event_at
        # The first comparison costs nothing, and is true only for a watch that is quiet.
        is_watch_quiet = (
            quiet_seconds >= _WATCH_LAG and quiet_seconds >= self._leases.next_renewal_within() + _WATCH_LAG
        )
        return self._synced and now >= self._list_not_before and (is_watch_quiet or self._blackout_unconfirmed)

    async def _list_again(self) -> None:
        """List the Leases; if the list has renewals that the watch has not delivered, open the watch again."""
        started_at, was_unconfirmed = self._clock.monotonic(), self._blackout_unconfirmed
        try:
            async with asyncio.timeout(_LIST_TIMEOUT):
                await self._read_pages()
        except (TimeoutError, *TRANSIENT_ERRORS) as error:
            self._list_failures += 1
            log.warning("leases.list_failed", error=str(error) or "timeout", failures=self._list_failures)
            self._list_not_before = self._clock.monotonic() + self._list_backoff.next_delay()
            return
        now = self._clock.monotonic()
        self._list_failures, self._listed_at = 0, now
        self._list_backoff.reset()
        quiet_seconds, self._last_event_at = now - self._last_event_at, max(self._last_event_at, started_at)
        renewed = sum(renewal.seen_at >= started_at for renewal in self._leases.renewals.values())
        if renewed and (
            quiet_seconds >= self._leases.next_renewal_within() + _WATCH_LAG
            or (was_unconfirmed and not self._leases.blackout_size(now))
        ):
            log.warning("leases.watch_dead", renewed=renewed, quiet_seconds=round(quiet_seconds))
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

    def _lease_timeouts(self, now: float) -> dict[str, float]:
        """Return the timeout of each node that may be silent."""
        timeouts = (
            (name, node_leases.lease_timeout(self._store.policy(node), self._leases.duration_of(name)))
            for name in self._leases.overdue_nodes(now)
            if (node := self._store.node(name))
        )
        return {name: timeout for name, timeout in timeouts if timeout is not None}

    async def is_silent_for_long(self, node: Node) -> bool:
        """Whether a live read and the operator's own view show no renewal for two intervals; True without a Lease."""
        if not await self.is_silent(node):
            return False
        known = self._leases.renewals.get(node.name)
        return known is None or self._clock.monotonic() - known.seen_at >= node_leases.silent_after(known.duration)

    async def is_silent(self, node: Node) -> bool:
        """Whether a live read shows no renewal for longer than a kubelet that is alive takes; True without a Lease.

        Read just before the first write for a failure: a watch that lags must not fail a node (k/k#85221).
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
            self._count_false_alarms(self._store.history.suspected_nodes & {name})
            self._store.set_suspected_nodes(
                self._store.history.suspected_nodes - {name},
                self._store.history.nodes_with_late_lease - {name},
                self._store.history.nodes_with_renewed_lease,
            )
        return silent
