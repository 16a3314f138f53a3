"""Leaving: nothing of ours may hold a node, a pod or a NodeDrain after us.

What cannot be undone keeps nothing else from being undone: it is listed at the end, with the cause and with what to do
by hand.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import structlog

from rescheduler.api import names
from rescheduler.api.drains import NodeDrain
from rescheduler.controllers.manager import ControllerManager
from rescheduler.controllers.pools.taint_safety import pods_requiring_pool
from rescheduler.controllers.runtime.conflicts import reread
from rescheduler.controllers.runtime.store import ResourceKind, Store
from rescheduler.core.drain import node_patches
from rescheduler.core.eviction import write_refusals
from rescheduler.core.eviction.api_responses import ErrorResponse
from rescheduler.core.pools import admission_params, labels_and_taints
from rescheduler.core.pools.labels_and_taints import PoolAssignment
from rescheduler.kube import paths
from rescheduler.kube.client import TRANSIENT_ERRORS, ApiError, Client

log = structlog.get_logger("rescheduler.cleanup")

TIMEOUT = 240.0
"""Seconds; the Job that the chart runs may take longer, and helm waits for 300 s."""
_NO_PROGRESS_TIMEOUT = 90.0  # seconds without a NodeDrain that goes: those left will not go
_ORPHANED_PODS_TIMEOUT = 45.0  # seconds that released pods without a NodeDrain are waited for
_MAX_ATTEMPTS, _FIRST_DELAY = 6, 0.5  # seconds, doubled each time


@dataclass(frozen=True, slots=True)
class Leftover:
    """What could not be undone, why, and what a person has to do."""

    item: str
    cause: str
    command: str


def _cause(error: Exception) -> str:
    return write_refusals.describe(
        error.response if isinstance(error, ApiError) else ErrorResponse(0, message=str(error))
    )


class Cleanup:
    """One run of `rescheduler cleanup`."""

    def __init__(self, client: Client, store: Store, manager: ControllerManager, namespace: str) -> None:
        self._client, self._store, self._manager, self._namespace = client, store, manager, namespace
        self._leftovers: dict[str, Leftover] = {}
        self._step = ""

    async def scale_down(self) -> None:
        """Scale the operator to nothing, so that nobody begins anew what is being undone."""
        path = f"{paths.in_namespace('apps/v1', self._namespace, 'deployments')}/rescheduler/scale"

        async def send() -> None:
            try:
                await self._client.patch(path, {"spec": {"replicas": 0}}, election=True)
                log.info("cleanup.scaled_down", namespace=self._namespace)
            except ApiError as error:
                if error.code != 404:
                    raise
                log.info("cleanup.no_deployment", namespace=self._namespace)

        command = f"kubectl scale deployment rescheduler -n {self._namespace} --replicas=0"
        await self._retry("the Deployment rescheduler", command, send)

    async def undo(self) -> None:
        """End every drain, return released pods, and remove from nodes and namespaces what is left."""
        self._step = "NodeDrains are ended"
        for drain in list(self._store.drains.values()):
            if drain.deletion_timestamp is None:
                await self._retry(
                    f"NodeDrain {drain.name}", _manual_command(drain.name), partial(self._delete_drain, drain)
                )
        await self._wait_for_drains()
        self._step = "released pods are returned"
        await self._wait_for_orphaned_pods()
        self._step = "nodes and namespaces are cleaned"
        for node in list(self._store.nodes.values()):
            command = f"kubectl annotate node {node.name} {names.CANCELLED}-; "
            command += f"kubectl taint node {node.name} {names.WAITING_TAINT_KEY}-"
            await self._retry(
                f"node {node.name}", command, partial(self._clean_node, node.name), ResourceKind.NODE, node.name
            )
        await self._remove_pools()

    def report(self, *, finished: bool) -> bool:
        """Log what is left, each with its cause and a command; whether nothing is.

        `ended`: it has come to its end; otherwise its time was up.
        """
        if not finished:
            cause = f"not done within {TIMEOUT:.0f} s: {self._step or 'waits for the Lease of the operator'}"
            command = "see the log above, then run rescheduler cleanup again"
            for drain in self._store.drains.values():
                self._record_drain(drain)
            self._record(Leftover("the cleanup", cause, command))
        for left in self._leftovers.values():
            log.error("cleanup.left", what=left.item, cause=left.cause, command=left.command)
        if not self._leftovers:
            log.info("cleanup.done")
        return not self._leftovers

    # -- steps --------------------------------------------------------------------------------------------------------

    async def _delete_drain(self, drain: NodeDrain) -> None:
        try:
            answer = await self._client.delete(paths.drain(drain.name), {"preconditions": {"uid": drain.uid}})
        except ApiError as error:
            if error.code != 404:
                raise
            return
        if answer.get("kind") == "NodeDrain":
            self._store.put(ResourceKind.DRAIN, answer)

    async def _wait_for_drains(self) -> None:
        """Wait until all are gone, or none has gone for long; those left are named with what their status says."""
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
        said = next((c.message for c in drain.status.conditions if c.type == "Progressing"), "nothing is known")
        self._record(Leftover(f"NodeDrain {drain.name}", said, _manual_command(drain.name)))

    async def _wait_for_orphaned_pods(self) -> None:
        strays = self._manager.orphaned_pods
        strays.request_scan()  # its last one may be from before the drains ended
        try:
            async with asyncio.timeout(_ORPHANED_PODS_TIMEOUT):
                await strays.none_left.wait()
        except TimeoutError:
            for pod, why in (strays.waiting_reasons or {"released pods": ""}).items():
                cause = f"it is released, and runs on under its Deployment: {why or 'it could not be returned in time'}"
                space, _, name = pod.partition("/")
                self._record(
                    Leftover(f"pod {pod}", cause, f"kubectl delete pod {name} -n {space} once another one is Ready")
                )

    async def _clean_node(self, name: str) -> None:
        node = self._store.node(name)
        if node and (patch := node_patches.cleanup_patch(node)):
            self._store.put(ResourceKind.NODE, await self._client.patch(paths.node(name), patch))
            log.info("cleanup.node", node=name, removed=[names.CANCELLED, names.WAITING_TAINT_KEY])

    async def _remove_pools(self) -> None:
        """Take pools off namespaces, then off nodes: what is created from now on must not look for a label that goes."""
        for pool in list(self._store.memberships.pools.values()):
            command = f"kubectl label nsp {pool.name} {names.ADMISSION_SKIP}-"
            await self._retry(f"NamespacePool {pool.name}", command, partial(self._remove_admission_label, pool.name))
        for space in list(self._store.namespaces.values()):
            command = f"kubectl label namespace {space.name} {names.POOL}-"
            await self._retry(f"namespace {space.name}", command, partial(self._remove_namespace_label, space.name))
        for node in list(self._store.nodes.values()):
            command = f"kubectl taint node {node.name} {names.POOL}-; kubectl label node {node.name} {names.NODE_POOL}-"
            await self._retry(
                f"the pool of node {node.name}",
                command,
                partial(self._remove_node_pool, node.name),
                ResourceKind.NODE,
                node.name,
            )

    async def _remove_admission_label(self, name: str) -> None:
        pool = self._store.memberships.pools.get(name)
        if pool and (patch := admission_params.skip_label_patch(pool, skip=False)):
            self._store.put(ResourceKind.POOL, await self._client.patch(paths.pool(name), patch))

    async def _remove_namespace_label(self, name: str) -> None:
        space = self._store.namespaces.get(name)
        if space and not space.terminating and (patch := labels_and_taints.namespace_patch(space, None)):
            self._store.put(ResourceKind.NAMESPACE, await self._client.patch(paths.namespace(name), patch))
            log.info("cleanup.namespace", namespace=name, pool=space.pool)

    async def _remove_node_pool(self, name: str) -> None:
        node = self._store.node(name)
        if node is None:
            return
        have = labels_and_taints.current_assignment(node).pool
        selecting = await pods_requiring_pool(self._client, name, have) if have else []
        if patch := labels_and_taints.node_patch(node, PoolAssignment(have if selecting else None)):
            self._store.put(ResourceKind.NODE, await self._client.patch(paths.node(name), patch))
            log.info("cleanup.node", node=name, removed=[names.NODE_POOL, names.POOL])
        if selecting:
            # A kubelet that restarts would fail them; and those that wait for a node would wait for ever.
            log.warning("cleanup.label_kept", node=name, label=names.NODE_POOL, pool=have, pods=selecting)

    # -- results ------------------------------------------------------------------------------------------------------

    def _record(self, leftover: Leftover) -> None:
        self._leftovers[leftover.item] = leftover

    async def _retry(
        self,
        item: str,
        command: str,
        undo: Callable[[], Awaitable[None]],
        kind: ResourceKind | None = None,
        name: str = "",
    ) -> None:
        """Do it; again, with back-off, if it fails for a reason that may pass. Otherwise note it as left."""
        for attempt in range(1, _MAX_ATTEMPTS + 1):
            try:
                await undo()
            except TRANSIENT_ERRORS as error:
                lasting = isinstance(error, ApiError) and write_refusals.is_permanent(error.response)
                log.warning("cleanup.failed", what=item, attempt=attempt, error=str(error))
                if lasting or attempt == _MAX_ATTEMPTS:
                    self._record(Leftover(item, _cause(error), command))
                    return
                await asyncio.sleep(_FIRST_DELAY * 2 ** (attempt - 1))
                if kind is ResourceKind.NODE:
                    await reread(self._client, self._store, kind, paths.node(name))
            else:
                return


def _manual_command(node: str) -> str:
    """How a person lets go of a node: what was added to it stands in the NodeDrain's status.node."""
    finalizers = """--type=merge -p '{"metadata":{"finalizers":null}}'"""
    return (
        f"kubectl get nodedrain {node} -o jsonpath='{{.status.node}}' shows what to remove from the node; "
        f"kubectl uncordon {node}; kubectl delete nodedrain {node} --wait=false; kubectl patch nodedrain {node} {finalizers}"
    )
