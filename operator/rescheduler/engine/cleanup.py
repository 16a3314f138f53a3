"""Leaving: nothing of ours may hold a node, a pod or a NodeDrain after us."""

import asyncio

import structlog

from rescheduler.api import names
from rescheduler.core import nodes, pools, spokesmen
from rescheduler.core.pools import Mark
from rescheduler.engine.exclusions import bound_to
from rescheduler.engine.operator import Engine
from rescheduler.engine.store import Kind, Store
from rescheduler.kube import paths
from rescheduler.kube.client import TRANSIENT, ApiError, Client

log = structlog.get_logger("rescheduler.cleanup")

_ATTEMPTS, _PAUSE = 6, 0.5  # seconds, doubled each time


async def scale_down(client: Client, namespace: str) -> None:
    """Scale the operator to nothing, so that nobody begins anew what is being undone."""
    path = f"{paths.namespaced('apps/v1', namespace, 'deployments')}/rescheduler/scale"
    try:
        await client.patch(path, {"spec": {"replicas": 0}}, election=True)
        log.info("cleanup.scaled_down", namespace=namespace)
    except ApiError as error:
        if error.code != 404:
            raise
        log.info("cleanup.no_deployment", namespace=namespace)


async def undo(client: Client, store: Store, engine: Engine) -> None:
    """End every drain, return released pods, take off nodes what is left; what others disturb is done again."""
    for attempt in range(_ATTEMPTS):
        try:
            await _undo(client, store, engine)
        except TRANSIENT as error:
            log.warning("cleanup.again", attempt=attempt + 1, error=str(error))
            await asyncio.sleep(_PAUSE * 2**attempt)
        else:
            return
    await _undo(client, store, engine)


async def _undo(client: Client, store: Store, engine: Engine) -> None:
    for drain in list(store.drains.values()):
        if drain.deletion_timestamp is None:
            try:
                answer = await client.delete(paths.drain(drain.name), {"preconditions": {"uid": drain.uid}})
            except ApiError as error:
                if error.code != 404:
                    raise
                continue
            if answer.get("kind") == "NodeDrain":
                store.put(Kind.DRAIN, answer)
    await engine.emptied.wait()
    engine.strays.scan()
    await engine.strays.none_left.wait()
    for node in list(store.nodes.values()):
        if patch := nodes.leave_patch(node):
            store.put(Kind.NODE, await client.patch(paths.node(node.name), patch))
            log.info("cleanup.node", node=node.name, removed=[names.CANCELLED, names.WAITING_TAINT])
    await _unmap(client, store)
    log.info("cleanup.done")


async def _unmap(client: Client, store: Store) -> None:
    """Take pools off namespaces, then off nodes: what is created from now on must not look for a label that goes."""
    for pool in list(store.memberships.pools.values()):
        if patch := spokesmen.patch(pool, spoken=False):
            store.put(Kind.POOL, await client.patch(paths.pool(pool.name), patch))
    for space in list(store.namespaces.values()):
        if not space.ending and (patch := pools.namespace_patch(space, None)):
            store.put(Kind.NAMESPACE, await client.patch(paths.namespace(space.name), patch))
            log.info("cleanup.namespace", namespace=space.name, pool=space.pool)
    for node in list(store.nodes.values()):
        have = pools.marked(node).pool
        selecting = await bound_to(client, node.name, have) if have else []
        if patch := pools.node_patch(node, Mark(have if selecting else None)):
            store.put(Kind.NODE, await client.patch(paths.node(node.name), patch))
            log.info("cleanup.node", node=node.name, removed=[names.NODE_POOL, names.POOL])
        if selecting:
            # A kubelet that restarts would fail them; and those that wait for a node would wait for ever.
            log.warning("cleanup.label_kept", node=node.name, label=names.NODE_POOL, pool=have, pods=selecting)
