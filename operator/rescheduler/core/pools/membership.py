"""Which pool has which namespace and which node, and who else claims it.

Kept up to date change by change: 200 pools times 5,000 namespaces are a million questions, and must not be asked
anew whenever one of them changes. Where two pools claim the same, the older one keeps it, then the first by name.
A pool in mode Audit claims nothing; what it would have is known all the same.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from rescheduler.api import names
from rescheduler.api.policies import Mode
from rescheduler.api.pools import NamespacePool
from rescheduler.core.model.namespaces import KUBE_SYSTEM, Namespace
from rescheduler.core.model.nodes import Node

_NEVER = datetime.max.replace(tzinfo=UTC)
Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Touched:
    """What may be otherwise since a change."""

    namespaces: frozenset[str] = frozenset()
    nodes: frozenset[str] = frozenset()
    pools: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Dispute:
    """What two pools claim.

    Attributes:
        name: the namespace's or node's.
        other: the other pool.
        keeps: this pool has it, or in mode Audit would have it.
    """

    name: str
    other: str
    keeps: bool


class _Side:
    """One kind of members, namespaces or nodes: which pools select which of them."""

    def __init__(self, selects: Callable[[NamespacePool, str, Labels], bool]) -> None:
        self.selected: dict[str, set[str]] = {}  # by pool
        self.claimants: dict[str, set[str]] = {}  # by member; those that nobody claims are not in it
        self._selects = selects
        self._labels: dict[str, Labels] = {}

    def claims(self, name: str) -> frozenset[str]:
        """The pools that claim this member."""
        return frozenset(self.claimants.get(name, ()))

    def put(self, name: str, labels: Labels, pools: Iterable[NamespacePool]) -> set[str]:
        """A member as it is now; the pools that claim it, or did."""
        if self._labels.get(name) == labels:
            return self.claimants.get(name, set())
        before = self.drop(name)
        self._labels[name] = labels
        found = {pool.name for pool in pools if self._selects(pool, name, labels)}
        for pool in found:
            self.selected[pool].add(name)
        if found:
            self.claimants[name] = found
        return before | found

    def drop(self, name: str) -> set[str]:
        """A member that is gone; the pools that claimed it."""
        self._labels.pop(name, None)
        before = self.claimants.pop(name, set())
        for pool in before:
            self.selected[pool].discard(name)
        return before

    def put_pool(self, pool: NamespacePool) -> set[str]:
        """A pool as it is now; the members that it selects, or did."""
        before = self.drop_pool(pool.name)
        found = {name for name, labels in self._labels.items() if self._selects(pool, name, labels)}
        self.selected[pool.name] = found
        for name in found:
            self.claimants.setdefault(name, set()).add(pool.name)
        return before | found

    def drop_pool(self, pool: str) -> set[str]:
        """A pool that is gone; the members that it selected."""
        before = self.selected.pop(pool, set())
        for name in before:
            self.claimants[name].discard(pool)
            if not self.claimants[name]:
                del self.claimants[name]
        return before


class Memberships:
    """The pools with all namespaces and nodes.

    Attributes:
        exempt: namespaces that no pool can have.
        revision: another number whenever a pool, or what one has, may be otherwise.
    """

    def __init__(self, exempt: Collection[str] = ()) -> None:
        self.exempt = frozenset({KUBE_SYSTEM, *exempt})
        self.revision = 0
        self.pools: dict[str, NamespacePool] = {}
        self._named: dict[str, frozenset[str]] = {}  # by pool: namespaces that it names
        self._namespaces = _Side(self._has_namespace)
        self._nodes = _Side(lambda pool, _, labels: pool.spec.node_selector.matches(labels))

    def _has_namespace(self, pool: NamespacePool, name: str, labels: Labels) -> bool:
        if name in self.exempt:
            return False
        selector = pool.spec.namespace_selector
        return name in self._named[pool.name] or (
            selector is not None and not selector.is_empty and selector.matches(labels)
        )

    # -- changes ------------------------------------------------------------------------------------------------------

    def put_pool(self, pool: NamespacePool) -> Touched:
        """A pool as it is now."""
        before = self.pools.get(pool.name)
        self.pools[pool.name] = pool
        if before and (before.spec, before.created) == (pool.spec, pool.created):
            return Touched(pools=frozenset({pool.name}))
        self._named[pool.name] = frozenset(pool.spec.namespaces)
        return self._touched(pool.name, self._namespaces.put_pool(pool), self._nodes.put_pool(pool))

    def drop_pool(self, name: str) -> Touched:
        """A pool that is gone."""
        if self.pools.pop(name, None) is None:
            return Touched()
        touched = self._touched(name, self._namespaces.drop_pool(name), self._nodes.drop_pool(name))
        del self._named[name]
        return touched

    def _touched(self, pool: str, namespaces: set[str], nodes: set[str]) -> Touched:
        others = {other for name in namespaces for other in self._namespaces.claimants.get(name, ())}
        others |= {other for name in nodes for other in self._nodes.claimants.get(name, ())}
        self.revision += 1
        return Touched(frozenset(namespaces), frozenset(nodes), frozenset(others | {pool}))

    def put_namespace(self, namespace: Namespace) -> Touched:
        """A namespace as it is now."""
        before = self._namespaces.claims(namespace.name)
        pools = self._namespaces.put(namespace.name, namespace.labels, self.pools.values())
        self.revision += before != self._namespaces.claims(namespace.name)
        return Touched(frozenset({namespace.name}), pools=frozenset(pools))

    def drop_namespace(self, name: str) -> Touched:
        """A namespace that is gone."""
        pools = self._namespaces.drop(name)
        self.revision += bool(pools)
        return Touched(frozenset({name}), pools=frozenset(pools))

    def put_node(self, node: Node) -> Touched:
        """A node as it is now. Our own label is not seen by selectors: a pool must not undo itself."""
        labels = node.labels
        if names.NODE_POOL in labels:
            labels = {key: value for key, value in labels.items() if key != names.NODE_POOL}
        before = self._nodes.claims(node.name)
        pools = self._nodes.put(node.name, labels, self.pools.values())
        self.revision += before != self._nodes.claims(node.name)
        return Touched(nodes=frozenset({node.name}), pools=frozenset(pools))

    def drop_node(self, name: str) -> Touched:
        """A node that is gone."""
        pools = self._nodes.drop(name)
        self.revision += bool(pools)
        return Touched(nodes=frozenset({name}), pools=frozenset(pools))

    # -- answers ------------------------------------------------------------------------------------------------------

    def _age(self, name: str) -> tuple[datetime, str]:
        return self.pools[name].created or _NEVER, name

    def _owner(self, claimants: Iterable[str]) -> str | None:
        enforced = (name for name in claimants if self.enforces(name))
        return min(enforced, key=self._age, default=None)

    def enforces(self, pool: str | None) -> bool:
        """Whether the pool of this name exists and claims what it selects."""
        found = self.pools.get(pool) if pool else None
        return found is not None and found.spec.mode is Mode.ENFORCE

    def of_namespace(self, name: str) -> str | None:
        """The pool that has this namespace."""
        return self._owner(self._namespaces.claimants.get(name, ()))

    def of_node(self, name: str) -> str | None:
        """The pool that has this node."""
        return self._owner(self._nodes.claimants.get(name, ()))

    def _would_have(self, pool: str, claimants: Collection[str]) -> bool:
        """Whether the pool has this, or in mode Audit would have it."""
        return not any(
            other != pool and self.enforces(other) and self._age(other) < self._age(pool) for other in claimants
        )

    def namespaces(self, pool: str) -> list[str]:
        """The pool's namespaces; in mode Audit those that it would have."""
        side = self._namespaces
        return sorted(n for n in side.selected.get(pool, ()) if self._would_have(pool, side.claimants[n]))

    def nodes(self, pool: str) -> list[str]:
        """The pool's nodes; in mode Audit those that it would have."""
        side = self._nodes
        return sorted(n for n in side.selected.get(pool, ()) if self._would_have(pool, side.claimants[n]))

    def disputed_namespaces(self, pool: str) -> list[Dispute]:
        """Namespaces that another pool claims too."""
        return self._disputed(pool, self._namespaces)

    def disputed_nodes(self, pool: str) -> list[Dispute]:
        """Nodes that another pool claims too."""
        return self._disputed(pool, self._nodes)

    def _disputed(self, pool: str, side: _Side) -> list[Dispute]:
        found = []
        for name in sorted(side.selected.get(pool, ())):
            other = self._owner(side.claimants[name] - {pool})
            if other:
                found.append(Dispute(name, other, keeps=self._age(pool) < self._age(other)))
        return found

    def concerned_with_namespaces(self) -> dict[str, tuple[str, ...]]:
        """By namespace: the pool that has it, and pools in mode Audit that would have it."""
        return self._concerned(self._namespaces)

    def concerned_with_nodes(self) -> dict[str, tuple[str, ...]]:
        """By node: the pool that has it, and pools in mode Audit that would have it."""
        return self._concerned(self._nodes)

    def _concerned(self, side: _Side) -> dict[str, tuple[str, ...]]:
        return {
            name: tuple(sorted(pool for pool in claimants if self._would_have(pool, claimants)))
            for name, claimants in side.claimants.items()
        }
