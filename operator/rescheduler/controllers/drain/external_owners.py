"""Check live whether another controller holds a node or is about to remove it, if the Node does not show that.

The check runs just before a drain would start, and again while another controller holds the node.
"""

import asyncio

from rescheduler.controllers.drain import messages
from rescheduler.controllers.runtime.clock import Clock
from rescheduler.controllers.runtime.readable import readable_objects
from rescheduler.core.model import external_owners
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.raw import RawObject
from rescheduler.core.model.wait_reasons import ProgressingReason, WaitReason
from rescheduler.kube import paths
from rescheduler.kube.client import Client

_CHECK_INTERVAL = 10.0  # seconds between two checks of one node


class ExternalOwnerCheck:
    """Checks the Machine, the Lease and the upgrade Plans of one node for another owner."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client, self._clock = client, clock
        self._checked_at = float("-inf")
        self._last_result: WaitReason | None = None

    async def wait_reason(self, node: Node) -> WaitReason | None:
        """Return the wait reason that names the other owner; None without one."""
        now = self._clock.monotonic()
        if now - self._checked_at >= _CHECK_INTERVAL:
            owners = await asyncio.gather(self._machine_owner(node), self._lease_owner(node), self._upgrade_owner(node))
            owner = next(filter(None, owners), None)
            self._last_result = (
                WaitReason(ProgressingReason.OWNED_ELSEWHERE, messages.owned_elsewhere(owner)) if owner else None
            )
            self._checked_at = now
        return self._last_result

    async def _machine_owner(self, node: Node) -> str | None:
        machine_ref = external_owners.machine_of(node)
        # Without this request, a version that is no longer served looks like a missing Machine.
        group = await self._client.find(paths.CLUSTER_API_GROUP) if machine_ref else None
        version = external_owners.preferred_version(group) if group else None
        if machine_ref is None or version is None:
            return None
        raw = await self._client.find(paths.machine(version, machine_ref.namespace, machine_ref.name))
        return external_owners.machine_owner_reason(raw) if raw else None

    async def _lease_owner(self, node: Node) -> str | None:
        raw = await self._client.find(f"{paths.leases(external_owners.MEDIK8S_LEASE_NAMESPACE)}/node-{node.name}")
        return external_owners.lease_holder_reason(raw, self._clock.now()) if raw else None

    async def _upgrade_owner(self, node: Node) -> str | None:
        def parse(raw: RawObject) -> str | None:
            return external_owners.upgrade_plan_reason(raw, node)

        plans = await self._client.find(paths.UPGRADE_PLANS) or {}
        return next(filter(None, readable_objects(plans.get("items") or (), parse)), None)
