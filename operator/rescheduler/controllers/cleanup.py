"""The cleanup before an uninstall: remove every change of the operator from nodes, pods, namespaces and NodeDrains.

A change that cannot be undone does not stop the cleanup. It is logged at the end, with the cause and a command.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import structlog

from rescheduler.api import names
from rescheduler.api.drains import NodeDrain, NodeRecord
from rescheduler.controllers import messages
from rescheduler.controllers.manager import ControllerManager
from rescheduler.controllers.messages import CleanupStep
from rescheduler.controllers.pools.taint_safety import pods_requiring_pool
from rescheduler.controllers.store.conflicts import reread
from rescheduler.controllers.store.object_cache import ResourceKind
from rescheduler.controllers.store.store import Store
from rescheduler.core.drain import node_patches
from rescheduler.core.eviction import write_refusals
from rescheduler.core.eviction.api_responses import ErrorResponse
from rescheduler.core.failure.fencing import OUT_OF_SERVICE_TAINT
from rescheduler.core.model.field_managers import FieldManagers, parse_field_managers
from rescheduler.core.model.nodes import Node, parse_node
from rescheduler.core.pools import admission_params, labels_and_taints
from rescheduler.core.pools.labels_and_taints import PoolAssignment
from rescheduler.kube import paths
from rescheduler.kube.backoff import Backoff
from rescheduler.kube.client import STRATEGIC_PATCH, TRANSIENT_ERRORS, ApiError, Client

log = structlog.get_logger("rescheduler.controllers.cleanup")

TIMEOUT = 240.0
"""Time limit in seconds. The Job of the chart may run longer, and helm waits for 300 s."""
_NO_PROGRESS_TIMEOUT = 90.0  # seconds without a deleted NodeDrain: the cleanup does not wait for the others
_ORPHANED_PODS_TIMEOUT = 45.0  # seconds to wait for released pods without a NodeDrain
_MAX_ATTEMPTS = 6
_FIRST_DELAY, _MAX_DELAY = 0.5, 8.0  # seconds


@dataclass(frozen=True, slots=True)
class Leftover:
    """Change that the cleanup could not undo.

    Attributes:
        item: the object.
        cause: why the change could not be undone.
        command: what the user must run.
    """

    item: str
    cause: str
    command: str


def _cause(error: Exception) -> str:
    return write_refusals.describe(
        error.response if isinstance(error, ApiError) else ErrorResponse(0, message=str(error))
    )


def _removed(node: Node, record: NodeRecord | None) -> list[str]:
    """Return the names of what the patch of the node removes."""
    added = [*record.added_labels, *record.added_annotations] if record else []
    cordon = ["cordon"] if record and record.cordoned_by_us and node.unschedulable else []
    return [*cordon, *added, names.CANCELLED, names.WAITING_TAINT_KEY]


class Cleanup:
    """Run of `rescheduler cleanup`."""

    def __init__(
        self, client: Client, store: Store, manager: ControllerManager, namespace: str, deployment: str
    ) -> None:
        self._client, self._store, self._manager, self._namespace = client, store, manager, namespace
        self._deployment = deployment
        self._leftovers: dict[str, Leftover] = {}
        self._step = CleanupStep.LEASE

    async def scale_down(self) -> None:
        """Scale the operator's Deployment to 0, so that the operator does not repeat what the cleanup undoes."""
        path = (
            f"{paths.in_namespace('apps/v1', self._namespace, 'deployments')}/{paths.segment(self._deployment)}/scale"
        )

        async def send() -> None:
            try:
                await self._client.patch(path, {"spec": {"replicas": 0}}, election=True)
                log.info("cleanup.scaled_down", namespace=self._namespace)
            except ApiError as error:
                if error.code != 404:
                    raise
                log.info("cleanup.no_deployment", namespace=self._namespace)

        await self._retry(messages.deployment_leftover(self._namespace, self._deployment), send)

    async def undo(self) -> None:
        """End every drain, return released pods, and clean nodes and namespaces."""
        self._step = CleanupStep.DRAINS
        for drain in list(self._store.drains.values()):
            if drain.deletion_timestamp is None:
                await self._retry(messages.drain_leftover(drain.name), partial(self._delete_drain, drain))
        await self._wait_for_drains()
        self._step = CleanupStep.RELEASED_PODS
        await self._wait_for_orphaned_pods()
        self._step = CleanupStep.NODES
        for node in list(self._store.nodes.values()):
            clean = partial(self._clean_node, node.name)
            await self._retry(messages.node_leftover(node.name), clean, ResourceKind.NODE, node.name)
        await self._remove_pools()

    def report(self, *, finished: bool) -> bool:
        """Log what is left, with cause and command; whether nothing is left.

        `finished`: the cleanup has ended; False: it ran out of time, or lost the Lease.
        """
        if not finished:
            for drain in self._store.drains.values():
                self._record_drain(drain)
            self._record(Leftover(*messages.timeout_leftover(TIMEOUT, self._step)))
        for leftover in self._leftovers.values():
            log.error("cleanup.left", what=leftover.item, cause=leftover.cause, command=leftover.command)
        if not self._leftovers:
            log.info("cleanup.done")
        return not self._leftovers

    # -- steps --------------------------------------------------------------------------------------------------------

    async def _delete_drain(self, drain: NodeDrain) -> None:
        try:
            response = await self._client.delete(paths.drain(drain.name), {"preconditions": {"uid": drain.uid}})
        except ApiError as error:
            if error.code != 404:
                raise
            return
        if response.get("kind") == "NodeDrain":
            self._store.put(ResourceKind.DRAIN, response)

    async def _wait_for_drains(self) -> None:
        """Wait until all NodeDrains are gone, or until none goes for 90 s; record the rest with the cause in their status."""
        while before := set(self._store.drains):
            try:
                async with asyncio.timeout(_NO_PROGRESS_TIMEOUT):
                    while before <= self._store.drains.keys():
                        self._manager.changed.clear()
                        await self._manager.changed.wait()
            except TimeoutError:
                break
        for drain in self._store.drains.values():
            self._record_drain(drain)

    def _record_drain(self, drain: NodeDrain) -> None:
        progressing = next((c.message for c in drain.status.conditions if c.type == "Progressing"), None)
        item, command = messages.drain_leftover(drain.name)
        self._record(Leftover(item, progressing or messages.drain_state_unknown(), command))

    async def _wait_for_orphaned_pods(self) -> None:
        orphaned_pods = self._manager.orphaned_pods
        orphaned_pods.request_scan()  # the last scan may be older than the end of the drains
        try:
            async with asyncio.timeout(_ORPHANED_PODS_TIMEOUT):
                await orphaned_pods.none_left.wait()
        except TimeoutError:
            for pod, reason in orphaned_pods.waiting_reasons.items():
                self._record(Leftover(*messages.released_pod_leftover(pod, reason)))
            if not orphaned_pods.waiting_reasons:
                self._record(Leftover(*messages.released_pods_unknown()))

    async def _clean_node(self, name: str) -> None:
        node = self._store.node(name)
        if node is None:
            return
        record = None
        if not self._has_drain(name):
            if patch := node_patches.conditions_removal_patch(node):
                raw = await self._client.patch(f"{paths.node(name)}/status", patch, kind=STRATEGIC_PATCH)
                self._store.put(ResourceKind.NODE, raw)
                node = parse_node(raw)
                self._report_unknown(node, parse_field_managers(raw))
                log.info("cleanup.node", node=name, removed=list(names.NODE_CONDITIONS))
            if node_patches.may_have_lost_record(node):
                raw = await self._client.get(paths.node(name))
                node = parse_node(raw)
                record = node_patches.lost_record(node, parse_field_managers(raw))
        if patch := node_patches.cleanup_patch(node, record):
            self._store.put(ResourceKind.NODE, await self._client.patch(paths.node(name), patch))
            log.info("cleanup.node", node=name, removed=_removed(node, record))

    def _has_drain(self, name: str) -> bool:
        """Whether the node has a NodeDrain: its record says what to remove, and the cleanup could not end the drain."""
        return self._store.drain(name) is not None or self._store.is_unreadable(ResourceKind.DRAIN, name)

    def _report_unknown(self, node: Node, managers: FieldManagers) -> None:
        """Report what stays on a node without its NodeDrain, because nothing says who wrote it."""
        if node.unschedulable and not managers.of("spec", "unschedulable"):
            self._record(Leftover(*messages.cordon_leftover(node.name)))
        if any((t.key, t.effect) == (OUT_OF_SERVICE_TAINT.key, OUT_OF_SERVICE_TAINT.effect) for t in node.taints):
            self._record(Leftover(*messages.out_of_service_leftover(node.name)))

    async def _remove_pools(self) -> None:
        """Remove pools from namespaces, then from nodes: otherwise new pods would require a label that no node has."""
        for pool in list(self._store.memberships.pools.values()):
            await self._retry(messages.pool_leftover(pool.name), partial(self._remove_admission_label, pool.name))
        for namespace in list(self._store.namespaces.values()):
            remove = partial(self._remove_namespace_label, namespace.name)
            await self._retry(messages.namespace_leftover(namespace.name), remove)
        for node in list(self._store.nodes.values()):
            remove = partial(self._remove_node_pool, node.name)
            await self._retry(messages.node_pool_leftover(node.name), remove, ResourceKind.NODE, node.name)

    async def _remove_admission_label(self, name: str) -> None:
        pool = self._store.memberships.pools.get(name)
        if pool and (patch := admission_params.skip_label_patch(pool, skip=False)):
            self._store.put(ResourceKind.POOL, await self._client.patch(paths.pool(name), patch))

    async def _remove_namespace_label(self, name: str) -> None:
        namespace = self._store.namespaces.get(name)
        if namespace and not namespace.terminating and (patch := labels_and_taints.namespace_patch(namespace, None)):
            self._store.put(ResourceKind.NAMESPACE, await self._client.patch(paths.namespace(name), patch))
            log.info("cleanup.namespace", namespace=name, pool=namespace.pool)

    async def _remove_node_pool(self, name: str) -> None:
        node = self._store.node(name)
        if node is None:
            return
        pool = labels_and_taints.current_assignment(node).pool
        pods = await pods_requiring_pool(self._client, name, pool) if pool else []
        if patch := labels_and_taints.node_patch(node, PoolAssignment(pool if pods else None)):
            self._store.put(ResourceKind.NODE, await self._client.patch(paths.node(name), patch))
            log.info("cleanup.node", node=name, removed=[names.NODE_POOL, names.POOL])
        if pods:
            # Without the label a restarted kubelet would fail these pods, and pending pods would wait forever.
            log.warning("cleanup.label_kept", node=name, label=names.NODE_POOL, pool=pool, pods=pods)

    # -- results ------------------------------------------------------------------------------------------------------

    def _record(self, leftover: Leftover) -> None:
        self._leftovers[leftover.item] = leftover

    async def _retry(
        self,
        item_and_command: tuple[str, str],
        undo: Callable[[], Awaitable[None]],
        kind: ResourceKind | None = None,
        name: str = "",
    ) -> None:
        """Undo a change, with back-off after failures that may pass; otherwise record it as left.

        `kind` and `name`: object that is read again before a retry.
        """
        item, command = item_and_command
        backoff = Backoff(_FIRST_DELAY, _MAX_DELAY)
        for attempt in range(1, _MAX_ATTEMPTS + 1):
            try:
                await undo()
            except TRANSIENT_ERRORS as error:
                permanent = isinstance(error, ApiError) and write_refusals.is_permanent(error.response)
                log.warning("cleanup.failed", what=item, attempt=attempt, error=str(error))
                if permanent or attempt == _MAX_ATTEMPTS:
                    self._record(Leftover(item, _cause(error), command))
                    return
                await asyncio.sleep(backoff.next_delay())
                if kind is ResourceKind.NODE:
                    await reread(self._client, self._store, kind, paths.node(name))
            else:
                return
