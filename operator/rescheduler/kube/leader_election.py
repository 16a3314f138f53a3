"""Lease elections: one process leads an installation, and one installation acts in the cluster.

Two installations in two namespaces would drain the same nodes. Therefore each leader also needs a Lease that all
installations share. Its holder is the namespace of the installation. The Lease is in kube-system, where no tenant can
take it.

Attempts have a fixed period, as `retryPeriod` of client-go, and no `Backoff`. A longer wait after failures would miss
the renew deadline, and would leave an expired Lease without a holder.

`kubernetes.aio.leaderelection` does not fit: it compares wall clocks, calls `sys.exit`, and never releases the Lease.
"""

import asyncio
import random
from collections.abc import Callable
from datetime import datetime

from rescheduler.core.model.raw import RawObject
from rescheduler.kube import paths
from rescheduler.kube.client import TRANSIENT_ERRORS, ApiError, Client
from rescheduler.kube.election_rules import PROCESS_TIMINGS, LeaseTimings, ObservedLease

LEASE_NAME = "rescheduler"
SHARED_LEASE_NAME = "rescheduler-installation"

_MIN_DELAY = 0.05  # seconds

WaitingCallback = Callable[[], None]
"""Called during the wait for a Lease, each time its holder or the error changes."""


class Election:
    """Hold a Lease, or wait for it.

    `needs_namespace`: False if the process may act although the namespace of the Lease is gone. Then no other process
    can hold the Lease.

    Attributes:
        error: why the last read or write of the Lease failed; empty after a success.
    """

    def __init__(
        self,
        client: Client,
        *,
        namespace: str,
        identity: str,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        name: str = LEASE_NAME,
        timings: LeaseTimings = PROCESS_TIMINGS,
        needs_namespace: bool = True,
    ) -> None:
        self.error = ""
        self._needs_namespace = needs_namespace
        self._timings = timings
        self._client, self._identity, self._name = client, identity, name
        self._collection = paths.leases(namespace)
        self._path = f"{self._collection}/{name}"
        self._now, self._monotonic = now, monotonic
        self._renewed_at = float("-inf")
        self._observed = ObservedLease(observed_at=monotonic())

    @property
    def holder(self) -> str:
        """Identity that this process last saw in the Lease."""
        return self._observed.holder

    @property
    def other_holder(self) -> str:
        """Identity of another holder; empty if this process holds the Lease, or if it is free."""
        return "" if self.holds_lease() or self.holder == self._identity else self.holder

    @property
    def other_holder_is_alive(self) -> bool:
        """Whether this process saw the other holder renew the Lease."""
        return bool(self.other_holder) and self._observed.holder_is_alive

    def holds_lease(self) -> bool:
        """Whether this process certainly holds the Lease now. Otherwise it must not write."""
        return self._monotonic() - self._renewed_at < self._timings.renew_deadline

    async def acquire(
        self, on_waiting: WaitingCallback = lambda: None, may_lead: Callable[[], bool] = lambda: True
    ) -> None:
        """Return when this process holds the Lease; do not take it while `may_lead` returns False."""
        reported_state: object = None
        while not (may_lead() and await self._acquire_or_renew()):
            state = (self.holder, self.other_holder_is_alive, self.error)
            if state != reported_state:
                reported_state = state
                on_waiting()
            expires = self._observed.expires_at(self._timings) - self._monotonic()
            wait = (
                min(self._timings.retry_period, expires if expires > 0 else _MIN_DELAY)
                if may_lead()
                else self._timings.retry_period
            )
            await asyncio.sleep(max(_MIN_DELAY, wait) + random.uniform(0, 0.1))  # noqa: S311 - jitter, no secret

    async def renew_until_lost(self) -> None:
        """Renew the Lease; return if it is lost, or not renewed before the deadline: the work must stop."""
        while self.holds_lease():
            await asyncio.sleep(self._timings.retry_period)
            try:
                # Not `wait_for`: before Python 3.12 it may swallow a cancellation, and this would hold the Lease forever.
                async with asyncio.timeout(self._timings.renew_deadline / 2):
                    if not await self._acquire_or_renew():
                        return
            except TimeoutError:
                continue

    async def release(self) -> None:
        """Release the Lease, so that the next process need not wait until it expires."""
        self._renewed_at = float("-inf")
        try:
            lease = await self._client.get(self._path, election=True)
            spec = lease.get("spec") or {}
            if spec.get("holderIdentity") == self._identity:
                spec = {**spec, "holderIdentity": "", "leaseDurationSeconds": 1}
                await self._client.replace(self._path, {**lease, "spec": spec}, election=True)
        except TRANSIENT_ERRORS:
            return  # the Lease expires after its duration

    async def _acquire_or_renew(self) -> bool:
        requested_at = self._monotonic()
        try:
            lease = await self._get_or_create()
            if lease is None:
                self.error, self._renewed_at = "", requested_at
                return True
            spec = dict(lease.get("spec") or {})
            self._observe(spec)
            self.error = ""
            if not self._observed.is_free(self._identity, self._timings, self._monotonic()):
                return False
            taken = self.holder != self._identity
            stamp = self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            spec |= {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": int(self._timings.lease_duration),
                "renewTime": stamp,
            }
            if taken:
                spec |= {"acquireTime": stamp, "leaseTransitions": (spec.get("leaseTransitions") or 0) + 1}
            written = await self._client.replace(self._path, {**lease, "spec": spec}, election=True)
        except TRANSIENT_ERRORS as error:
            self.error = str(error)
            # A 403 must not end the work either: an API server that has just started may not have loaded RBAC yet.
            # The preflight check finds a permission that is really missing.
            return self.holds_lease()
        self._observe(written["spec"])
        self._renewed_at = requested_at
        return True

    async def _get_or_create(self) -> RawObject | None:
        """Return the Lease; None if its namespace is gone and the process needs none."""
        if lease := await self._client.find(self._path, election=True):
            return lease
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name},
            "spec": {"holderIdentity": ""},
        }
        try:
            return await self._client.create(self._collection, body, election=True)
        except ApiError as error:
            if error.code == 404 and not self._needs_namespace:
                return None
            raise

    def _observe(self, spec: RawObject) -> None:
        holder, renew_time = str(spec.get("holderIdentity") or ""), str(spec.get("renewTime") or "")
        self._observed = self._observed.updated(holder, renew_time, self._monotonic())
