"""The facts in memory: nodes, namespaces, and our own kinds. No pods: memory must not grow with them.

Kopf's events, watches of ours and the full re-sync feed it, in any order; the newer resourceVersion wins. Deletions that
Kopf loses across a re-list are found by the re-sync.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import structlog

from rescheduler.api import names
from rescheduler.api.drains import NodeDrain, Phase, Reason
from rescheduler.api.policies import Policy
from rescheduler.api.pools import NamespacePool
from rescheduler.api.scalars import cut
from rescheduler.core.drain.triggers import View
from rescheduler.core.eligibility import cluster_state, failure_concurrency
from rescheduler.core.eligibility.cluster_state import World
from rescheduler.core.failure import condition_history, fencing
from rescheduler.core.failure.condition_history import Sighting
from rescheduler.core.failure.fencing import Witness
from rescheduler.core.model import namespaces
from rescheduler.core.model import nodes as model_nodes
from rescheduler.core.model.namespaces import Namespace
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.policy_selection import Winners
from rescheduler.core.pools import max_unavailable
from rescheduler.core.pools.max_unavailable import PoolBudget
from rescheduler.core.pools.membership import Memberships, Touched

log = structlog.get_logger("rescheduler.store")
_STALE = timedelta(seconds=10)


class Kind(StrEnum):
    """What the store holds."""

    NODE = "nodes"
    POLICY = "reschedulepolicies"
    DRAIN = "nodedrains"
    POOL = "namespacepools"
    NAMESPACE = "namespaces"


_PROJECTIONS: Mapping[Kind, Callable[[Mapping[str, Any]], Any]] = {
    Kind.NODE: model_nodes.node,
    Kind.POLICY: Policy.from_object,
    Kind.DRAIN: NodeDrain.from_object,
    Kind.POOL: NamespacePool.from_object,
    Kind.NAMESPACE: namespaces.namespace,
}


_UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""What a projection may raise of an object of another version."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An object that this version cannot read; `known`: an earlier version of it could be read, and holds on."""

    kind: Kind
    name: str
    uid: str
    why: str
    known: bool


class Store:
    """Small facts by kind and name.

    Attributes:
        changed: told the name of the node to look at after each change; None means all of them.
        turned: told when a change may give a waiting drain its turn.
        touched: told what of pools, their namespaces and nodes may be otherwise after each change.
        memberships: which pool has which namespace and node.
        unreadable: objects that this version cannot read, by kind and name: their last good version holds on.
        told: called when an object cannot be read any more, or can again.
        absent: kinds of ours that are not installed.
        listed: when all kinds were last listed in full.
        unwanted: NodeDrains that nothing asks for any more, and that cannot be deleted.
        suspects: nodes whose Lease is silent.
        late: while there are suspects, all nodes whose Lease is late.
        heard: nodes that are Unknown though their Lease is renewed.
        blackout: why what is seen of nodes is not to be believed now; empty where it is.
        doubt: which task that keeps the view current fails; empty if none does.
    """

    def __init__(self, now: Callable[[], datetime], exempt: Collection[str] = ()) -> None:
        """`exempt`: namespaces that no pool can have, besides kube-system."""
        self.changed: Callable[[str | None], None] = lambda _: None
        self.turned: Callable[[], None] = lambda: None
        self.touched: Callable[[Touched], None] = lambda _: None
        self.memberships = Memberships(exempt)
        self.unreadable: dict[tuple[Kind, str], Unreadable] = {}
        self.told: Callable[[], None] = lambda: None
        self.absent: set[Kind] = set()
        self.listed: datetime | None = None
        self.unwanted: set[str] = set()
        self.suspects: frozenset[str] = frozenset()
        self.late: frozenset[str] = frozenset()
        self.heard: frozenset[str] = frozenset()
        self.blackout, self.doubt = "", ""
        self._now = now
        self._versions: dict[Kind, dict[str, int]] = {kind: {} for kind in Kind}
        self._nodes: dict[str, Node] = {}
        self._policies: dict[str, Policy] = {}
        self._drains: dict[str, NodeDrain] = {}
        self._namespaces: dict[str, Namespace] = {}
        self._sightings: dict[str, Sighting] = {}
        self._witnesses: dict[str, Witness] = {}
        self._cordons: dict[str, datetime] = {}
        self._promised: dict[str, datetime] = {}
        self._winners = Winners(())
        self._world: World | None = None
        self._budgets: tuple[int, Mapping[str, PoolBudget]] = (0, {})

    def _kept(self, kind: Kind) -> dict[str, Any]:
        kept: dict[Kind, dict[str, Any]] = {
            Kind.NODE: self._nodes,
            Kind.POLICY: self._policies,
            Kind.DRAIN: self._drains,
            Kind.POOL: self.memberships.pools,
            Kind.NAMESPACE: self._namespaces,
        }
        return kept[kind]

    def put(self, kind: Kind, raw: Mapping[str, Any]) -> None:
        """Take in an object as it is now; an older one than known changes nothing."""
        name, version = raw["metadata"]["name"], int(raw["metadata"]["resourceVersion"])
        if self._versions[kind].get(name, -1) >= version:
            return
        self._versions[kind][name] = version
        try:
            value = _PROJECTIONS[kind](raw)
        except _UNREADABLE as error:
            self._note_unreadable(kind, raw, error)
            return
        if known := self.unreadable.pop((kind, name), None):
            log.info("object.readable", kind=kind, name=name, uid=known.uid)
            self.told()
        before = self._kept(kind).get(name)
        if kind is not Kind.POOL:
            self._kept(kind)[name] = value
        self._take_in(kind, name, before, value)

    def _note_unreadable(self, kind: Kind, raw: Mapping[str, Any], error: Exception) -> None:
        """An object of another version than ours, or that makes no sense: its last good version holds on.

        If it was treated as gone, a drain would end, nodes would be uncordoned and labels taken off.
        """
        meta = raw["metadata"]
        name, why = meta["name"], cut(f"{type(error).__name__}: {error}", 400)
        known = self.unreadable.get((kind, name))
        found = Unreadable(kind, name, meta.get("uid", ""), why, known=name in self._kept(kind))
        self.unreadable[kind, name] = found
        if known != found:
            log.error("object.unreadable", kind=kind, name=name, uid=found.uid, last_good_kept=found.known, error=why)
            self.told()

    def cannot_read(self, kind: Kind, name: str) -> bool:
        """Whether the object is there, and is not to be acted on: what is known of it is old, or nothing."""
        return (kind, name) in self.unreadable

    def _take_in(self, kind: Kind, name: str, before: Any, value: Any) -> None:
        match kind:
            case Kind.POOL:
                self._take_in_pool(value)
            case Kind.NAMESPACE:
                self._take_in_namespace(before, value)
            case Kind.POLICY:
                self._winners = Winners(self._policies.values())
                self._turn()
                self.changed(None)
            case Kind.NODE:
                self._witnesses[name] = fencing.witness(self._witnesses.get(name), value)
                self._note_cordon(name, before, value)
                if before != value:
                    self.see(name)  # the first time too: a standby must know that a node was Ready once
                if not before or _gist(before) != _gist(value):
                    touched = self.memberships.put_node(value)
                    self._turn()
                    self.changed(name)
                    self.touched(touched)
            case Kind.DRAIN:
                if not before or _turn_of(before) != _turn_of(value):
                    self._turn()
                self.changed(name)

    def _note_cordon(self, name: str, before: Node | None, now: Node) -> None:
        """Each change counts: a task that looks later does not see that the node was uncordoned in between."""
        if not now.unschedulable:
            self._cordons.pop(name, None)
        elif before and not before.unschedulable:
            self._cordons[name] = self._now()

    def _take_in_pool(self, pool: NamespacePool) -> None:
        known = self.memberships.revision
        touched = self.memberships.put_pool(pool)
        if self.memberships.revision != known:
            self._turn()
        self.touched(touched)

    def _take_in_namespace(self, before: Namespace | None, now: Namespace) -> None:
        touched = self.memberships.put_namespace(now)
        if before is None or (before.pool, before.ending, before.labels) != (now.pool, now.ending, now.labels):
            self.touched(touched)

    def drop(self, kind: Kind, name: str, *, not_after: int | None = None) -> None:
        """Forget a deleted object, unless it was seen after `not_after`."""
        known = self._versions[kind].get(name)
        if known is None or (not_after is not None and known > not_after):
            return
        del self._versions[kind][name]
        if self.unreadable.pop((kind, name), None):
            self.told()
        if kind is Kind.POOL:
            touched = self.memberships.drop_pool(name)
            self._turn()
            self.touched(touched)
            return
        if self._kept(kind).pop(name, None) is None:
            self.changed(name if kind in (Kind.NODE, Kind.DRAIN) else None)
            return  # it never could be read
        if kind is Kind.NAMESPACE:
            self.touched(self.memberships.drop_namespace(name))
            return
        if kind is Kind.NODE:
            self._sightings.pop(name, None)
            self._witnesses.pop(name, None)
            self._cordons.pop(name, None)
            self._winners.forget(name)
            self.touched(self.memberships.drop_node(name))
        if kind is Kind.POLICY:
            self._winners = Winners(self._policies.values())
        self._turn()
        self.changed(None if kind is Kind.POLICY else name)

    def _turn(self) -> None:
        self._world = None
        self.turned()

    def resync(self, kind: Kind, names: Iterable[str], version: int) -> None:
        """Drop what a full list at this version did not have."""
        for name in self._versions[kind].keys() - set(names):
            self.drop(kind, name, not_after=version)

    @property
    def nodes(self) -> Mapping[str, Node]:
        """Nodes by name."""
        return self._nodes

    def node(self, name: str) -> Node | None:
        """One node; None where it is not there."""
        return self._nodes.get(name)

    @property
    def namespaces(self) -> Mapping[str, Namespace]:
        """Namespaces by name."""
        return self._namespaces

    @property
    def drains(self) -> Mapping[str, NodeDrain]:
        """NodeDrains by name."""
        return self._drains

    @property
    def draining(self) -> int:
        """How many of them move pods."""
        return sum(drain.status.phase is Phase.DRAINING for drain in self._drains.values())

    def drain(self, name: str) -> NodeDrain | None:
        """One NodeDrain; None where it is not there."""
        return self._drains.get(name)

    def policy(self, node: Node) -> Policy | None:
        """The policy that decides for this node."""
        return self._winners.of(node)

    def see(self, name: str) -> Sighting | None:
        """The sighting of a node, brought up to now."""
        node = self.node(name)
        if node is None:
            return None
        suspected = name in self.suspects
        seen = condition_history.see(
            self._sightings.get(name), node, self.policy(node), self._now(), suspected=suspected
        )
        self._sightings[name] = seen
        return seen

    def witness(self, name: str) -> Witness | None:
        """What was seen of a node's boot, as far as it tells news from what is left of an earlier failure."""
        return self._witnesses.get(name)

    def cordoned_at(self, name: str) -> datetime | None:
        """When this process saw the node being cordoned; None if it is not cordoned, or was from the first sight."""
        return self._cordons.get(name)

    def recall(self, name: str, add: Callable[[Sighting], Sighting]) -> Sighting:
        """Its NodeDrain tells of the time before our start."""
        self._sightings[name] = add(self._sightings[name])
        return self._sightings[name]

    def view(self, name: str, standing: Mapping[Reason, str]) -> View:
        """What beside a node itself decides over what it asks for; `standing`: the requests of its NodeDrain."""
        return View(standing, name in self.suspects, name in self.heard, self.blind())

    def suspect(self, names: frozenset[str], late: frozenset[str], heard: frozenset[str] = frozenset()) -> None:
        """These nodes are silent, and no others; `late`: they, and those that may be about to be; `heard`: nodes whose
        Lease is renewed, of those that are Unknown.
        """
        changed, known = self.suspects ^ names, (self.late, self.heard)
        self.suspects, self.late, self.heard = names, late, heard
        for name in changed:
            self.see(name)
        if changed or (late, heard) != known:
            self._turn()
        for name in changed:
            self.changed(name)

    def set_blackout(self, why: str) -> None:
        """What is seen of nodes is not to be believed, or (empty) is again: then every `for` starts anew."""
        if bool(why) != bool(self.blackout):
            log.warning("view.blackout" if why else "view.back", why=why or self.blackout)
            self.blackout = why
            if not why:
                self._start_anew()
            self._turn()
            self.changed(None)

    def set_doubt(self, why: str) -> None:
        """A task that keeps the view current fails, or (empty) works again: then every `for` starts again."""
        before, self.doubt = self.doubt, why
        if bool(why) != bool(before):
            log.warning("view.doubted" if why else "view.trusted", why=why or before)
            if not why:
                self._start_anew()
            self._turn()
            self.changed(None)

    def set_listed(self, when: datetime) -> None:
        """All kinds have been listed in full; after a long time without, every `for` starts anew."""
        if self.listed and when - self.listed >= cluster_state.STALE:
            self._start_anew()
        self.listed = when
        self._world = None

    def _start_anew(self) -> None:
        now = self._now()
        self._sightings = {name: condition_history.anew(seen, now) for name, seen in self._sightings.items()}

    def blind(self) -> bool:
        """Whether what we know of the cluster is not to be acted on."""
        return bool(cluster_state.blind(self.world(), self._now()))

    def promise(self, name: str, when: datetime | None) -> None:
        """Count a drain as begun before its status says so: two must not take one slot. None takes it back."""
        if self._promised.get(name) == when:
            return
        if when is None:
            del self._promised[name]
        else:
            self._promised[name] = when
        self._world = None

    def world(self) -> World:
        """All facts of this moment, promises counted as kept."""
        # Windows open and close by time alone: what was worked out long ago is worked out anew.
        if self._world is None or self._now() - self._world.now > _STALE:
            self._world = World(
                self._nodes,
                self._winners,
                {**self._drains, **self._begun()},
                self._now(),
                self.listed,
                self._sightings,
                self.suspects,
                self.late,
                self.blackout or self.doubt,
                self._pool_budgets(),
                self.heard,
            )
        return self._world

    def _pool_budgets(self) -> Mapping[str, PoolBudget]:
        """Worked out anew where a pool, or what one has, may be otherwise."""
        if self._budgets[0] != self.memberships.revision:
            self._budgets = self.memberships.revision, max_unavailable.survey(self.memberships)
        return self._budgets[1]

    def _begun(self) -> dict[str, NodeDrain]:
        """Drains whose beginning is promised and not in their status yet."""
        found = {}
        for name, when in self._promised.items():
            drain = self._drains.get(name)
            if drain and drain.status.started_at is None:
                waits = tuple(c for c in drain.status.conditions if c.type != "Progressing")
                begun = {"started_at": when, "phase": Phase.DRAINING, "conditions": waits}
                status = drain.status.model_copy(update=begun)
                found[name] = drain.model_copy(update={"status": status})
        return found


def _gist(node: Node) -> tuple[Any, ...]:
    """What of a node is news: heartbeats of thousands of nodes are none."""
    conditions = tuple((c.type, c.status, c.reason, c.transition) for c in node.conditions)
    return (node.uid, node.boot_id, node.unschedulable, node.labels, node.annotations, node.taints, conditions)


def _turn_of(drain: NodeDrain) -> tuple[Any, ...]:
    """What of a drain decides over the turn of others; its progress does not."""
    status = drain.status
    conditions = tuple((c.type, c.status, c.reason) for c in status.conditions)
    stepped = drain.annotations.get(names.STEPPED_BACK)
    return (
        drain.spec,
        status.started_at,
        status.drained_at,
        status.phase,
        drain.deletion_timestamp,
        conditions,
        stepped,
        failure_concurrency.settled(drain),
    )
