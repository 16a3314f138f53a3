"""Whether somebody else holds a node or is about to remove it, where that does not stand on the Node itself.

Asked live, just before a drain would begin, and again while the answer is yes.
"""

import asyncio

from rescheduler.controllers.runtime.clock import Clock
from rescheduler.core.model import external_owners
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.wait_reasons import Held, Hold
from rescheduler.kube import paths
from rescheduler.kube.client import Client

_EVERY = 10.0  # seconds between two questions about one node


class Claims:
    """What one drain asks of other controllers' objects."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client, self._clock = client, clock
        self._asked = float("-inf")
        self._found: Held | None = None

    async def look(self, node: Node) -> Held | None:
        """Who holds the node; None where nobody does."""
        now = self._clock.monotonic()
        if now - self._asked >= _EVERY:
            machine, lease = await asyncio.gather(self._machine(node), self._lease(node))
            whose = machine or lease
            self._found = Held(Hold.OWNED_ELSEWHERE, f"{whose}: the node is left to it") if whose else None
            self._asked = now
        return self._found

    async def _machine(self, node: Node) -> str:
        behind = external_owners.machine(node)
        # Asked first: a version that is served no more is answered like a Machine that is not there.
        group = await self._client.find(paths.CLUSTER_API) if behind else None
        version = external_owners.served_version(group) if group else ""
        if behind is None or not version:
            return ""
        raw = await self._client.find(paths.machine(version, behind.namespace, behind.name))
        return external_owners.machine_owner(raw) if raw else ""

    async def _lease(self, node: Node) -> str:
        raw = await self._client.find(f"{paths.leases(external_owners.MEDIK8S)}/node-{node.name}")
        return external_owners.lease_owner(raw, self._clock.now()) if raw else ""
