"""What Kopf watches. Each handler hands its object to the store and decides nothing.

Only `on.event`: it writes nothing on the object. Kopf's other handlers, its timers and daemons put annotations
or finalizers on every node; its index is quadratic at start.
"""

from collections.abc import Mapping
from typing import Any

import kopf

from rescheduler.api import GROUP, VERSION
from rescheduler.engine.store import Kind, Store


def take(store: Store, kind: Kind, event: Mapping[str, Any]) -> None:
    """Hand one event of a watch to the store."""
    raw = event["object"]
    if event["type"] == "DELETED":
        store.drop(kind, raw["metadata"]["name"], not_after=int(raw["metadata"]["resourceVersion"]))
    else:
        store.put(kind, raw)


def register(registry: kopf.OperatorRegistry, store: Store) -> None:
    """Watch nodes and our own kinds."""

    @kopf.on.event("", "v1", "nodes", registry=registry)
    async def node_seen(event: Any, **_: Any) -> None:
        take(store, Kind.NODE, event)

    @kopf.on.event(GROUP, VERSION, "reschedulepolicies", registry=registry)
    async def policy_seen(event: Any, **_: Any) -> None:
        take(store, Kind.POLICY, event)

    @kopf.on.event(GROUP, VERSION, "nodedrains", registry=registry)
    async def drain_seen(event: Any, **_: Any) -> None:
        take(store, Kind.DRAIN, event)

    @kopf.on.event(GROUP, VERSION, "namespacepools", registry=registry)
    async def pool_seen(event: Any, **_: Any) -> None:
        take(store, Kind.POOL, event)
