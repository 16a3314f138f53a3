"""Leader election on one Lease: 15 s long, renewed every 2 s, given up after 10 s without success.

Time is taken from our own monotonic clock and from changes that we see, never from what others wrote into the
Lease: clocks of machines differ.
"""

import asyncio
import random
from collections.abc import Callable
from datetime import datetime

from rescheduler.kube import paths
from rescheduler.kube.client import TRANSIENT, Client, Json

LEASE = "rescheduler"
DURATION, RENEW_DEADLINE, RETRY = 15.0, 10.0, 2.0  # seconds


class Election:
    """Holds a Lease, or waits for it.

    Attributes:
        holder: the identity last seen in the Lease.
    """

    def __init__(
        self,
        client: Client,
        *,
        namespace: str,
        identity: str,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        name: str = LEASE,
    ) -> None:
        self.holder = ""
        self._client, self._identity, self._name = client, identity, name
        self._collection = paths.leases(namespace)
        self._path = f"{self._collection}/{name}"
        self._now, self._monotonic = now, monotonic
        self._renewed = float("-inf")
        self._seen: tuple[str, str] = ("", "")
        self._seen_at = monotonic()

    def sure(self) -> bool:
        """Whether this process certainly holds the Lease now: only then may it write."""
        return self._monotonic() - self._renewed < RENEW_DEADLINE

    async def acquire(self) -> None:
        """Return when the Lease is ours."""
        while not await self._try():
            expires = self._seen_at + DURATION - self._monotonic()
            wait = min(RETRY, expires) if expires > 0 else 0.05
            await asyncio.sleep(max(0.05, wait) + random.uniform(0, 0.1))  # noqa: S311 - jitter, no secret

    async def hold(self) -> None:
        """Renew until it fails for RENEW_DEADLINE; then return: the process must stop."""
        while self.sure():
            await asyncio.sleep(RETRY)
            try:
                if not await asyncio.wait_for(self._try(), RENEW_DEADLINE / 2):
                    return
            except TimeoutError:
                continue

    async def release(self) -> None:
        """Leave the Lease to the next, if it is ours."""
        self._renewed = float("-inf")
        try:
            lease = await self._client.get(self._path, election=True)
            if lease["spec"].get("holderIdentity") == self._identity:
                lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                await self._client.replace(self._path, lease, election=True)
        except TRANSIENT:
            return  # it runs out by itself

    async def _try(self) -> bool:
        asked = self._monotonic()
        try:
            lease = await self._read()
            spec = lease["spec"]
            self._observe(spec)
            if self.holder not in ("", self._identity) and self._monotonic() < self._seen_at + DURATION:
                return False
            taken = self.holder != self._identity
            stamp = self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            spec |= {"holderIdentity": self._identity, "leaseDurationSeconds": int(DURATION), "renewTime": stamp}
            if taken:
                spec |= {"acquireTime": stamp, "leaseTransitions": spec.get("leaseTransitions", 0) + 1}
            written = await self._client.replace(self._path, lease, election=True)
        except TRANSIENT:
            # A 403 too: an API server that has just come back knows no RBAC yet (a right that is missing for good
            # is found before the start).
            return self.sure()
        self._observe(written["spec"])
        self._renewed = asked
        return True

    async def _read(self) -> Json:
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
        seen = (spec.get("holderIdentity") or "", spec.get("renewTime") or "")
        if seen != self._seen:
            self._seen, self._seen_at = seen, self._monotonic()
        self.holder = seen[0]
