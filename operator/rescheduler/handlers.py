"""Kopf handlers: Kopf watches nodes, and the handler puts each node into the store. It decides nothing.

Only `kopf.on.event` is used, because it writes nothing to the object. Kopf's other handlers, timers and daemons add
annotations or finalizers to every node, and Kopf's index needs quadratic time at the start.
`controllers.store.informers` watches the kinds of this operator, because a 404 ends a watch of Kopf and the process.
"""

from collections.abc import Mapping
from typing import Any

import kopf

from rescheduler.controllers.store.object_cache import ResourceKind
from rescheduler.controllers.store.store import Store


def store_event(store: Store, event: Mapping[str, Any]) -> None:
    """Put the node of one watch event into the store, or drop it."""
    raw = event["object"]
    if event["type"] == "DELETED":
        store.drop(ResourceKind.NODE, raw["metadata"]["name"], not_after=int(raw["metadata"]["resourceVersion"]))
    else:
        store.put(ResourceKind.NODE, raw)


def register(registry: kopf.OperatorRegistry, store: Store) -> None:
    """Register the watch of nodes with Kopf."""

    @kopf.on.event("", "v1", "nodes", registry=registry)
    async def node_event(event: Any, **_: Any) -> None:
        store_event(store, event)
