"""Cache of typed objects by kind and name.

Kopf's events, the informers and the resync feed it in any order. The newer resourceVersion wins. An object that this
version cannot read keeps its last readable version.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import structlog

from rescheduler.api import GROUP, VERSION, names
from rescheduler.api.drains import NodeDrain
from rescheduler.api.policies import ReschedulePolicy
from rescheduler.api.pools import NamespacePool
from rescheduler.api.scalars import truncate
from rescheduler.core.model import messages, namespaces
from rescheduler.core.model import nodes as model_nodes
from rescheduler.core.model.namespaces import Namespace
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.raw import RawObject

log = structlog.get_logger("rescheduler.store.object_cache")


class ResourceKind(StrEnum):
    """Kinds of objects in the cache, by resource name."""

    NODE = "nodes"
    POLICY = "reschedulepolicies"
    DRAIN = "nodedrains"
    POOL = "namespacepools"
    NAMESPACE = "namespaces"


_PARSERS: Mapping[ResourceKind, Callable[[RawObject], Any]] = {
    ResourceKind.NODE: model_nodes.parse_node,
    ResourceKind.POLICY: ReschedulePolicy.from_object,
    ResourceKind.DRAIN: NodeDrain.from_object,
    ResourceKind.POOL: NamespacePool.from_object,
    ResourceKind.NAMESPACE: namespaces.parse_namespace,
}


_PARSE_ERRORS = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""Errors that a parser may raise for an object of another version."""


@dataclass(frozen=True, slots=True)
class UnreadableObject:
    """Object that this version of the operator cannot read.

    Attributes:
        kind: its kind.
        name: its name.
        uid: its uid; empty if it has none.
        reason: error text of the parser.
        last_version_kept: an earlier version was readable and stays in effect.
    """

    kind: ResourceKind
    name: str
    uid: str
    reason: str
    last_version_kept: bool


class ObjectUpdate(NamedTuple):
    """A typed object before and after an update; before is None for a new object."""

    before: Any
    after: Any


class ObjectCache:
    """Typed objects by kind and name.

    Attributes:
        nodes: Nodes by name.
        policies: ReschedulePolicies by name.
        drains: NodeDrains by name.
        namespaces: Namespaces by name.
        unreadable_objects: objects that this version cannot read, by kind and name. The last readable version stays.
        missing_fields: fields of this version that the API server does not store, by kind; None before the first check.
    """

    def __init__(self, on_unreadable_change: Callable[[], None]) -> None:
        """Create an empty cache; `on_unreadable_change` is called when an object becomes unreadable or readable."""
        self._on_unreadable_change = on_unreadable_change
        self._versions: dict[ResourceKind, dict[str, int]] = {kind: {} for kind in ResourceKind}
        self._objects: dict[ResourceKind, dict[str, Any]] = {kind: {} for kind in ResourceKind}
        self.nodes: Mapping[str, Node] = self._objects[ResourceKind.NODE]
        self.policies: Mapping[str, ReschedulePolicy] = self._objects[ResourceKind.POLICY]
        self.drains: Mapping[str, NodeDrain] = self._objects[ResourceKind.DRAIN]
        self.namespaces: Mapping[str, Namespace] = self._objects[ResourceKind.NAMESPACE]
        self.unreadable_objects: dict[tuple[ResourceKind, str], UnreadableObject] = {}
        self._not_installed: set[ResourceKind] = set()
        self._not_served: set[ResourceKind] = set()
        self.missing_fields: Mapping[ResourceKind, tuple[str, ...]] | None = None

    @property
    def not_installed(self) -> frozenset[ResourceKind]:
        """The kinds of this operator whose CRD is not installed."""
        return frozenset(self._not_installed)

    @property
    def version_not_served(self) -> str:
        """Return which CRDs do not serve the version of this operator, as text; empty if all do.

        Their objects exist and change, but the operator does not see it.
        """
        crds = [f"{kind}.{GROUP}" for kind in sorted(self._not_served)]
        return messages.version_not_served(crds, VERSION, names.SAME_VERSION_HINT) if crds else ""

    @property
    def outdated_crds(self) -> str | None:
        """Return which CRDs are older than the operator, as text; empty if none is, None before the first check."""
        if self.missing_fields is None:
            return None
        missing = {f"{kind}.{GROUP}": fields for kind, fields in self.missing_fields.items() if fields}
        return messages.outdated_crds(missing, names.UPGRADE_HINT) if missing else ""

    def set_installed(self, kind: ResourceKind, *, installed: bool) -> bool:
        """Record whether the CRD of a kind is installed. Return whether that is a change."""
        changed = installed == (kind in self._not_installed)
        if installed:
            self._not_installed.discard(kind)
        else:
            self._not_installed.add(kind)
        return changed

    def set_served(self, kind: ResourceKind, *, served: bool) -> bool:
        """Record whether the CRD of a kind serves our version. Return whether that is a change."""
        changed = served == (kind in self._not_served)
        if changed and served:
            self._not_served.discard(kind)
            log.info("kind.served", kind=kind, version=VERSION)
        elif changed:
            self._not_served.add(kind)
            log.error("kind.not_served", kind=kind, version=VERSION, hint=names.SAME_VERSION_HINT)
        return changed

    def objects(self, kind: ResourceKind) -> Mapping[str, Any]:
        """Return the readable objects of a kind by name."""
        return self._objects[kind]

    def has_version(self, kind: ResourceKind, name: str, version: int) -> bool:
        """Whether the cache has this version of an object, or a newer one."""
        return self._versions[kind].get(name, -1) >= version

    def put(self, kind: ResourceKind, raw: RawObject) -> ObjectUpdate | None:
        """Add or update an object; None if the cache has a newer version, or if the object is unreadable."""
        name, version = raw["metadata"]["name"], int(raw["metadata"]["resourceVersion"])
        if self.has_version(kind, name, version):
            return None
        self._versions[kind][name] = version
        try:
            value = _PARSERS[kind](raw)
        except _PARSE_ERRORS as error:
            self._record_unreadable(kind, raw, error)
            return None
        if known := self.unreadable_objects.pop((kind, name), None):
            log.info("object.readable", kind=kind, name=name, uid=known.uid)
            self._on_unreadable_change()
        before = self._objects[kind].get(name)
        self._objects[kind][name] = value
        return ObjectUpdate(before, value)

    def _record_unreadable(self, kind: ResourceKind, raw: RawObject, error: Exception) -> None:
        """Record an unreadable object; its last readable version stays in effect.

        Without this a drain would end, nodes would be uncordoned, and labels would be removed.
        """
        meta = raw["metadata"]
        name, reason = meta["name"], truncate(f"{type(error).__name__}: {error}", 400)
        known = self.unreadable_objects.get((kind, name))
        unreadable = UnreadableObject(
            kind, name, meta.get("uid", ""), reason, last_version_kept=name in self._objects[kind]
        )
        self.unreadable_objects[kind, name] = unreadable
        if known != unreadable:
            log.error(
                "object.unreadable",
                kind=kind,
                name=name,
                uid=unreadable.uid,
                last_good_kept=unreadable.last_version_kept,
                error=reason,
            )
            self._on_unreadable_change()

    def drop(self, kind: ResourceKind, name: str, *, not_after: int | None = None) -> bool:
        """Remove a deleted object; False if it is unknown, or if the cache has a version newer than `not_after`."""
        known = self._versions[kind].get(name)
        if known is None or (not_after is not None and known > not_after):
            return False
        del self._versions[kind][name]
        if self.unreadable_objects.pop((kind, name), None):
            self._on_unreadable_change()
        self._objects[kind].pop(name, None)
        return True

    def unlisted(self, kind: ResourceKind, listed: Iterable[str]) -> set[str]:
        """Return the names of the known objects, readable or not, that a full list does not have."""
        return self._versions[kind].keys() - set(listed)
