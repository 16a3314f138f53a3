"""Namespaces: the fields that pools use."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from rescheduler.api import names
from rescheduler.core.model import object_schemas
from rescheduler.core.model.raw import RawObject

KUBE_SYSTEM = "kube-system"


@dataclass(frozen=True, slots=True)
class Namespace:
    """A Namespace.

    Attributes:
        resource_version: the resourceVersion of the object that was parsed.
        terminating: whether the namespace is being deleted.
        pool: value of the pool label; None if the namespace has none.
        labels: all labels except the pool label.
    """

    name: str
    uid: str
    resource_version: str = ""
    terminating: bool = False
    pool: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


def parse_namespace(raw: RawObject) -> Namespace:
    """Parse a raw Namespace. Raises UnreadableError without a name."""
    meta = object_schemas.sanitize_metadata(raw)["metadata"]
    labels = meta.get("labels") or {}
    return Namespace(
        name=meta["name"],
        uid=meta.get("uid", ""),
        resource_version=meta.get("resourceVersion", ""),
        terminating="deletionTimestamp" in meta,
        pool=labels.get(names.POOL),
        # Thousands of namespaces have the same few keys; each copy would take memory.
        labels={sys.intern(key): value for key, value in labels.items() if key != names.POOL},
    )
