"""The facts in memory: nodes, policies, NodeDrains. No pods: memory must not grow with them.

Kopf's events and the full re-sync both feed it, in any order; the newer resourceVersion wins. Deletions that
Kopf loses across a re-list are found by the re-sync.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import structlog
from pydantic import ValidationError

from rescheduler.api.drains import NodeDrain
from rescheduler.api.policies import Policy
from rescheduler.core import facts, triggers
from rescheduler.core.facts import Node
from rescheduler.core.policies import winning
from rescheduler.core.triggers import Sighting
from rescheduler.core.turns import World

log = structlog.get_logger("rescheduler.store")


class Kind(StrEnum):
    """What the store holds."""

    NODE = "nodes"
    POLICY = "reschedulepolicies"
    DRAIN = "nodedrains"


@dataclass(frozen=True, slots=True)
class _Entry:
    version: int
    value: Any


def _project(kind: Kind, raw: Mapping[str, Any]) -> Any:
    if kind is Kind.NODE:
        return facts.node(raw)
    return Policy.from_object(raw) if kind is Kind.POLICY else NodeDrain.from_object(raw)


class Store:
    """Small facts by kind and name.

    Attributes:
        changed: told the names of nodes to look at after each change; None means all of them.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.changed: Callable[[str | None], None] = lambda _: None
        self._now = now
        self._entries: dict[Kind, dict[str, _Entry]] = {kind: {} for kind in Kind}
        self._sightings: dict[str, Sighting] = {}
        self._promised: dict[str, datetime] = {}

    def put(self, kind: Kind, raw: Mapping[str, Any]) -> None:
        """Take in an object as it is now; an older one than known changes nothing."""
        name, version = raw["metadata"]["name"], int(raw["metadata"]["resourceVersion"])
        known = self._entries[kind].get(name)
        if known and known.version >= version:
            return
        try:
            value = _project(kind, raw)
        except (ValidationError, ValueError, KeyError) as error:
            # The API server's schema lets no such object in; one from an older schema must not stop the rest.
            log.warning("object.unreadable", kind=kind, name=name, error=str(error))
            self.drop(kind, name)
            return
        self._entries[kind][name] = _Entry(version, value)
        if known and kind is Kind.NODE and known.value != value:
            self.see(name)
        if not known or _matters(kind, known.value, value):
            self.changed(None if kind is Kind.POLICY else name)

    def drop(self, kind: Kind, name: str, *, not_after: int | None = None) -> None:
        """Forget a deleted object, unless it was seen after `not_after`."""
        known = self._entries[kind].get(name)
        if known is None or (not_after is not None and known.version > not_after):
            return
        del self._entries[kind][name]
        if kind is Kind.NODE:
            self._sightings.pop(name, None)
        self.changed(None if kind is Kind.POLICY else name)

    def resync(self, kind: Kind, names: Iterable[str], version: int) -> None:
        """Drop what a full list at this version did not have."""
        for name in self._entries[kind].keys() - set(names):
            self.drop(kind, name, not_after=version)

    @property
    def nodes(self) -> Mapping[str, Node]:
        """Nodes by name."""
        return {name: entry.value for name, entry in self._entries[Kind.NODE].items()}

    def node(self, name: str) -> Node | None:
        """One node; None where it is not there."""
        entry = self._entries[Kind.NODE].get(name)
        return entry.value if entry else None

    def drain(self, name: str) -> NodeDrain | None:
        """One NodeDrain; None where it is not there."""
        entry = self._entries[Kind.DRAIN].get(name)
        return entry.value if entry else None

    def drains(self) -> list[str]:
        """Names of all NodeDrains."""
        return list(self._entries[Kind.DRAIN])

    def policies(self) -> list[Policy]:
        """All policies."""
        return [entry.value for entry in self._entries[Kind.POLICY].values()]

    def policy(self, node: Node) -> Policy | None:
        """The policy that decides for this node."""
        return winning(self.policies(), node)

    def see(self, name: str) -> Sighting | None:
        """The sighting of a node, brought up to now."""
        node = self.node(name)
        if node is None:
            return None
        seen = triggers.see(self._sightings.get(name), node, self.policy(node), self._now())
        self._sightings[name] = seen
        return seen

    def promise(self, name: str, when: datetime | None) -> None:
        """Count a drain as begun before its status says so: two must not take one slot. None takes it back."""
        if when is None:
            self._promised.pop(name, None)
        else:
            self._promised[name] = when

    def world(self) -> World:
        """All facts of this moment, promises counted as kept."""
        drains = {}
        for name, entry in self._entries[Kind.DRAIN].items():
            drain: NodeDrain = entry.value
            if name in self._promised and drain.status.started_at is None:
                status = drain.status.model_copy(update={"started_at": self._promised[name]})
                drain = drain.model_copy(update={"status": status})
            drains[name] = drain
        return World(self.nodes, self.policies(), drains)


def _matters(kind: Kind, before: Any, after: Any) -> bool:
    """Whether a change is one: heartbeats of thousands of nodes are none."""
    if kind is not Kind.NODE:
        return True

    def still(node: Node) -> tuple[Any, ...]:
        conditions = tuple((c.type, c.status, c.reason, c.transition) for c in node.conditions)
        return (node.uid, node.boot_id, node.unschedulable, node.labels, node.annotations, node.taints, conditions)

    return still(before) != still(after)
