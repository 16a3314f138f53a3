"""Whether somebody else holds a node or is about to remove it, where that does not stand on the Node itself.

Asked live, just before a drain would begin, and again while the answer is yes.
"""

import asyncio

from rescheduler.controllers.runtime.clock import Clock
from rescheduler.core.model import external_owners
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.wait_reasons import ProgressingReason, WaitReason
from rescheduler.kube import paths
from rescheduler.kube.client import Client

_CHECK_INTERVAL = 10.0  # seconds between two questions about one node


class ExternalOwnerCheck:
    """What one drain asks of other controllers' objects."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client, self._clock = client, clock
        self._checked_at = float("-inf")
        self._last_result: WaitReason | None = None

    async def wait_reason(self, node: Node) -> WaitReason | None:
        """Who holds the node; None where nobody does."""
        now = self._clock.monotonic()
        if now - self._checked_at >= _CHECK_INTERVAL:
            machine, lease = await asyncio.gather(self._machine_owner(node), self._lease_owner(node))
            whose = machine or lease
            self._last_result = (
                WaitReason(ProgressingReason.OWNED_ELSEWHERE, f"{whose}: the node is left to it") if whose else None
            )
            self._checked_at = now
        return self._last_result

    async def _machine_owner(self, node: Node) -> str:
        behind = external_owners.machine_of(node)
        # Asked first: a version that is served no more is answered like a Machine that is not there.
        group = await self._client.find(paths.CLUSTER_API_GROUP) if behind else None
        version = external_owners.preferred_version(group) if group else ""
        if behind is None or not version:
            return ""
        raw = await self._client.find(paths.machine(version, behind.namespace, behind.name))
        return external_owners.machine_removal_reason(raw) if raw else ""

    async def _lease_owner(self, node: Node) -> str:
        raw = await self._client.find(f"{paths.leases(external_owners.MEDIK8S_LEASE_NAMESPACE)}/node-{node.name}")
        return external_owners.lease_holder_reason(raw, self._clock.now()) if raw else ""
