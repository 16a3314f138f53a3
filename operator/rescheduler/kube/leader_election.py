"""Election on a Lease: of the process that leads an installation, and of the installation that acts in the cluster.

Two installations in two namespaces would both drain the same nodes. Therefore the leader of each also needs a Lease that
the whole cluster shares, in the name of its namespace; it is in kube-system, where no tenant can take it.
"""

import asyncio
import random
from collections.abc import Callable
from datetime import datetime

from rescheduler.kube import paths
from rescheduler.kube.client import TRANSIENT_ERRORS, Client, Json
from rescheduler.kube.election_rules import PROCESS_TIMINGS, LeaseTimings, ObservedLease

LEASE_NAME = "rescheduler"
SHARED_LEASE_NAME = "rescheduler-installation"

_MIN_DELAY = 0.05  # seconds

WaitingCallback = Callable[[], None]
"""Called while a Lease is waited for, whenever something new is known of it."""


class Election:
    """Holds a Lease, or waits for it.

    Attributes:
        error: why the Lease could not be read or written; empty if it could.
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
    ) -> None:
        self.error = ""
        self._timings = timings
        self._client, self._identity, self._name = client, identity, name
        self._collection = paths.leases(namespace)
        self._path = f"{self._collection}/{name}"
        self._now, self._monotonic = now, monotonic
        self._renewed_at = float("-inf")
        self._observed = ObservedLease(observed_at=monotonic())

    @property
    def holder(self) -> str:
        """The identity last seen in the Lease."""
        return self._observed.holder

    @property
    def other_holder(self) -> str:
        """The identity that holds the Lease in our place, or may; empty if none does."""
        return "" if self.holds_lease() or self.holder == self._identity else self.holder

    @property
    def other_holder_is_alive(self) -> bool:
        """Whether that identity was seen to renew the Lease."""
        return bool(self.other_holder) and self._observed.holder_is_alive

    def holds_lease(self) -> bool:
        """Whether this process certainly holds the Lease now: only then may it write."""
        return self._monotonic() - self._renewed_at < self._timings.renew_deadline

    async def acquire(
        self, on_waiting: WaitingCallback = lambda: None, may_lead: Callable[[], bool] = lambda: True
    ) -> None:
        """Return when the Lease is ours; it is not taken while this process is not `fit` to hold it."""
        known: object = None
        while not (may_lead() and await self._acquire_or_renew()):
            news = (self.holder, self.other_holder_is_alive, self.error)
            if news != known:
                known = news
                on_waiting()
            expires = self._observed.expires_at(self._timings) - self._monotonic()
            wait = (
                min(self._timings.retry_period, expires if expires > 0 else _MIN_DELAY)
                if may_lead()
                else self._timings.retry_period
            )
            await asyncio.sleep(max(_MIN_DELAY, wait) + random.uniform(0, 0.1))  # noqa: S311 - jitter, no secret

    async def renew_until_lost(self) -> None:
        """Renew until it fails for the deadline of the terms; then return: the process must stop."""
        while self.holds_lease():
            await asyncio.sleep(self._timings.retry_period)
            try:
                # Not `wait_for`: before Python 3.12 it may swallow a cancellation, and would hold the Lease for ever.
                async with asyncio.timeout(self._timings.renew_deadline / 2):
                    if not await self._acquire_or_renew():
                        return
            except TimeoutError:
                continue

    async def release(self) -> None:
        """Leave the Lease to the next, if it is ours."""
        self._renewed_at = float("-inf")
        try:
            lease = await self._client.get(self._path, election=True)
            if lease.setdefault("spec", {}).get("holderIdentity") == self._identity:
                lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                await self._client.replace(self._path, lease, election=True)
        except TRANSIENT_ERRORS:
            return  # it runs out by itself

    async def _acquire_or_renew(self) -> bool:
        asked = self._monotonic()
        try:
            lease = await self._get_or_create()
            spec = lease.setdefault("spec", {})
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
            written = await self._client.replace(self._path, lease, election=True)
        except TRANSIENT_ERRORS as error:
            self.error = str(error)
            # A 403 too: an API server that has just come back knows no RBAC yet (a right that is missing for good
            # is found before the start).
            return self.holds_lease()
        self._observe(written["spec"])
        self._renewed_at = asked
        return True

    async def _get_or_create(self) -> Json:
        if found := await self._client.find(self._path, election=True):
            return found
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name},
            "spec": {"holderIdentity": ""},
        }
        return await self._client.create(self._collection, body, election=True)

    def _observe(self, spec: Json) -> None:
        holder, renewal = str(spec.get("holderIdentity") or ""), str(spec.get("renewTime") or "")
        self._observed = self._observed.updated(holder, renewal, self._monotonic())
