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
from rescheduler.controllers.manager import Engine
from rescheduler.controllers.pools.taint_safety import bound_to
from rescheduler.controllers.runtime.conflicts import reread
from rescheduler.controllers.runtime.store import Kind, Store
from rescheduler.core.drain import node_patches
from rescheduler.core.eviction import write_refusals
from rescheduler.core.eviction.api_responses import Refusal
from rescheduler.core.pools import admission_params, labels_and_taints
from rescheduler.core.pools.labels_and_taints import Mark
from rescheduler.kube import paths
from rescheduler.kube.client import TRANSIENT, ApiError, Client

log = structlog.get_logger("rescheduler.cleanup")

LIMIT = 240.0
"""Seconds; the Job that the chart runs may take longer, and helm waits for 300 s."""
_NO_PROGRESS = 90.0  # seconds without a NodeDrain that goes: those left will not go
_STRAYS = 45.0  # seconds that released pods without a NodeDrain are waited for
_ATTEMPTS, _PAUSE = 6, 0.5  # seconds, doubled each time


@dataclass(frozen=True, slots=True)
class Left:
    """What could not be undone, why, and what a person has to do."""

    what: str
    cause: str
    command: str


def _cause(error: Exception) -> str:
    return write_refusals.cause(error.refusal if isinstance(error, ApiError) else Refusal(0, message=str(error)))


class Cleanup:
    """One run of `rescheduler cleanup`."""

    def __init__(self, client: Client, store: Store, engine: Engine, namespace: str) -> None:
        self._client, self._store, self._engine, self._namespace = client, store, engine, namespace
        self._left: dict[str, Left] = {}
        self._step = ""

    async def scale_down(self) -> None:
        """Scale the operator to nothing, so that nobody begins anew what is being undone."""
        path = f"{paths.namespaced('apps/v1', self._namespace, 'deployments')}/rescheduler/scale"

        async def send() -> None:
            try:
                await self._client.patch(path, {"spec": {"replicas": 0}}, election=True)
                log.info("cleanup.scaled_down", namespace=self._namespace)
            except ApiError as error:
                if error.code != 404:
                    raise
                log.info("cleanup.no_deployment", namespace=self._namespace)

        command = f"kubectl scale deployment rescheduler -n {self._namespace} --replicas=0"
        await self._insist("the Deployment rescheduler", command, send)

    async def undo(self) -> None:
        """End every drain, return released pods, and remove from nodes and namespaces what is left."""
        self._step = "NodeDrains are ended"
        for drain in list(self._store.drains.values()):
            if drain.deletion_timestamp is None:
                await self._insist(f"NodeDrain {drain.name}", _by_hand(drain.name), partial(self._withdraw, drain))
        await self._wait_for_drains()
        self._step = "released pods are returned"
        await self._wait_for_strays()
        self._step = "nodes and namespaces are cleaned"
        for node in list(self._store.nodes.values()):
            command = f"kubectl annotate node {node.name} {names.CANCELLED}-; "
            command += f"kubectl taint node {node.name} {names.WAITING_TAINT}-"
            await self._insist(f"node {node.name}", command, partial(self._leave, node.name), Kind.NODE, node.name)
        await self._unmap()

    def report(self, *, ended: bool) -> bool:
        """Log what is left, each with its cause and a command; whether nothing is.

        `ended`: it has come to its end; otherwise its time was up.
        """
        if not ended:
            cause = f"not done within {LIMIT:.0f} s: {self._step or 'waits for the Lease of the operator'}"
            command = "see the log above, then run rescheduler cleanup again"
            for drain in self._store.drains.values():
                self._note_drain(drain)
            self._note(Left("the cleanup", cause, command))
        for left in self._left.values():
            log.error("cleanup.left", what=left.what, cause=left.cause, command=left.command)
        if not self._left:
            log.info("cleanup.done")
        return not self._left

    # -- steps --------------------------------------------------------------------------------------------------------

    async def _withdraw(self, drain: NodeDrain) -> None:
        try:
            answer = await self._client.delete(paths.drain(drain.name), {"preconditions": {"uid": drain.uid}})
        except ApiError as error:
            if error.code != 404:
                raise
            return
        if answer.get("kind") == "NodeDrain":
            self._store.put(Kind.DRAIN, answer)

    async def _wait_for_drains(self) -> None:
        """Wait until all are gone, or none has gone for long; those left are named with what their status says."""
        while before := set(self._store.drains):
            try:
                async with asyncio.timeout(_NO_PROGRESS):
                    while before <= self._store.drains.keys():
                        self._engine.news.clear()
                        await self._engine.news.wait()
            except TimeoutError:
                break
        for drain in self._store.drains.values():
            self._note_drain(drain)

    def _note_drain(self, drain: NodeDrain) -> None:
        said = next((c.message for c in drain.status.conditions if c.type == "Progressing"), "nothing is known")
        self._note(Left(f"NodeDrain {drain.name}", said, _by_hand(drain.name)))

    async def _wait_for_strays(self) -> None:
        strays = self._engine.strays
        strays.scan()  # its last one may be from before the drains ended
        try:
            async with asyncio.timeout(_STRAYS):
                await strays.none_left.wait()
        except TimeoutError:
            for pod, why in (strays.waiting or {"released pods": ""}).items():
                cause = f"it is released, and runs on under its Deployment: {why or 'it could not be returned in time'}"
                space, _, name = pod.partition("/")
                self._note(Left(f"pod {pod}", cause, f"kubectl delete pod {name} -n {space} once another one is Ready"))

    async def _leave(self, name: str) -> None:
        node = self._store.node(name)
        if node and (patch := node_patches.leave_patch(node)):
            self._store.put(Kind.NODE, await self._client.patch(paths.node(name), patch))
            log.info("cleanup.node", node=name, removed=[names.CANCELLED, names.WAITING_TAINT])

    async def _unmap(self) -> None:
        """Take pools off namespaces, then off nodes: what is created from now on must not look for a label that goes."""
        for pool in list(self._store.memberships.pools.values()):
            command = f"kubectl label nsp {pool.name} {names.SPOKEN_FOR}-"
            await self._insist(f"NamespacePool {pool.name}", command, partial(self._unspeak, pool.name))
        for space in list(self._store.namespaces.values()):
            command = f"kubectl label namespace {space.name} {names.POOL}-"
            await self._insist(f"namespace {space.name}", command, partial(self._unlabel, space.name))
        for node in list(self._store.nodes.values()):
            command = f"kubectl taint node {node.name} {names.POOL}-; kubectl label node {node.name} {names.NODE_POOL}-"
            await self._insist(
                f"the pool of node {node.name}", command, partial(self._unmark, node.name), Kind.NODE, node.name
            )

    async def _unspeak(self, name: str) -> None:
        pool = self._store.memberships.pools.get(name)
        if pool and (patch := admission_params.patch(pool, spoken=False)):
            self._store.put(Kind.POOL, await self._client.patch(paths.pool(name), patch))

    async def _unlabel(self, name: str) -> None:
        space = self._store.namespaces.get(name)
        if space and not space.ending and (patch := labels_and_taints.namespace_patch(space, None)):
            self._store.put(Kind.NAMESPACE, await self._client.patch(paths.namespace(name), patch))
            log.info("cleanup.namespace", namespace=name, pool=space.pool)

    async def _unmark(self, name: str) -> None:
        node = self._store.node(name)
        if node is None:
            return
        have = labels_and_taints.marked(node).pool
        selecting = await bound_to(self._client, name, have) if have else []
        if patch := labels_and_taints.node_patch(node, Mark(have if selecting else None)):
            self._store.put(Kind.NODE, await self._client.patch(paths.node(name), patch))
            log.info("cleanup.node", node=name, removed=[names.NODE_POOL, names.POOL])
        if selecting:
            # A kubelet that restarts would fail them; and those that wait for a node would wait for ever.
            log.warning("cleanup.label_kept", node=name, label=names.NODE_POOL, pool=have, pods=selecting)

    # -- results ------------------------------------------------------------------------------------------------------

    def _note(self, left: Left) -> None:
        self._left[left.what] = left

    async def _insist(
        self,
        what: str,
        command: str,
        work: Callable[[], Awaitable[None]],
        kind: Kind | None = None,
        name: str = "",
    ) -> None:
        """Do it; again, with back-off, if it fails for a reason that may pass. Otherwise note it as left."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                await work()
            except TRANSIENT as error:
                lasting = isinstance(error, ApiError) and write_refusals.is_lasting(error.refusal)
                log.warning("cleanup.failed", what=what, attempt=attempt, error=str(error))
                if lasting or attempt == _ATTEMPTS:
                    self._note(Left(what, _cause(error), command))
                    return
                await asyncio.sleep(_PAUSE * 2 ** (attempt - 1))
                if kind is Kind.NODE:
                    await reread(self._client, self._store, kind, paths.node(name))
            else:
                return


def _by_hand(node: str) -> str:
    """How a person lets go of a node: what was added to it stands in the NodeDrain's status.node."""
    finalizers = """--type=merge -p '{"metadata":{"finalizers":null}}'"""
    return (
        f"kubectl get nodedrain {node} -o jsonpath='{{.status.node}}' shows what to remove from the node; "
        f"kubectl uncordon {node}; kubectl delete nodedrain {node} --wait=false; kubectl patch nodedrain {node} {finalizers}"
    )
