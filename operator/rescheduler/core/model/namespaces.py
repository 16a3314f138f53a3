"""Namespaces, as far as pools care."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rescheduler.api import names
from rescheduler.core.model import object_schemas

KUBE_SYSTEM = "kube-system"


@dataclass(frozen=True, slots=True)
class Namespace:
    """A Namespace.

    Attributes:
        version: the resourceVersion that this was read at.
        ending: it is being deleted, and will not come back.
        labels: all but the pool's; `pool`: that one's value, None where it has none.
    """

    name: str
    uid: str
    resource_version: str = ""
    terminating: bool = False
    pool: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


def parse_namespace(raw: Mapping[str, Any]) -> Namespace:
    """Project a raw Namespace. Raises UnreadableError without a name."""
    meta = object_schemas.sanitize_metadata(raw)["metadata"]
    labels = meta.get("labels") or {}
    return Namespace(
        name=meta["name"],
        uid=meta.get("uid", ""),
        resource_version=meta.get("resourceVersion", ""),
        terminating="deletionTimestamp" in meta,
        pool=labels.get(names.POOL),
        # Thousands of namespaces have the same few keys.
        labels={sys.intern(key): value for key, value in labels.items() if key != names.POOL},
    )
