"""What Kopf watches: nodes, the events that must be quick. The handler hands its object to the store and decides nothing.

Only `on.event`: it writes nothing on the object. Kopf's other handlers, its timers and daemons put annotations
or finalizers on every node; its index is quadratic at start. Our own kinds may go while we run, and a watch of Kopf's
that is answered with 404 ends the process: `controllers.runtime.informers` watches them.
"""

from collections.abc import Mapping
from typing import Any

import kopf

from rescheduler.controllers.runtime.store import ResourceKind, Store


def store_event(store: Store, event: Mapping[str, Any]) -> None:
    """Hand one event of the watch to the store."""
    raw = event["object"]
    if event["type"] == "DELETED":
        store.drop(ResourceKind.NODE, raw["metadata"]["name"], not_after=int(raw["metadata"]["resourceVersion"]))
    else:
        store.put(ResourceKind.NODE, raw)


def register(registry: kopf.OperatorRegistry, store: Store) -> None:
    """Watch nodes."""

    @kopf.on.event("", "v1", "nodes", registry=registry)
    async def node_seen(event: Any, **_: Any) -> None:
        store_event(store, event)
