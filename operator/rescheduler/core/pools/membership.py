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
class MembershipChanges:
    """What may be otherwise since a change."""

    namespaces: frozenset[str] = frozenset()
    nodes: frozenset[str] = frozenset()
    pools: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class PoolConflict:
    """What two pools claim.

    Attributes:
        name: the namespace's or node's.
        other: the other pool.
        keeps: this pool has it, or in mode Audit would have it.
    """

    name: str
    other_pool: str
    is_kept: bool


class _MemberIndex:
    """One kind of members, namespaces or nodes: which pools select which of them."""

    def __init__(self, selects: Callable[[NamespacePool, str, Labels], bool]) -> None:
        self.members_by_pool: dict[str, set[str]] = {}  # by pool
        self.pools_by_member: dict[str, set[str]] = {}  # by member; those that nobody claims are not in it
        self._selects = selects
        self._labels: dict[str, Labels] = {}

    def pools_selecting(self, name: str) -> frozenset[str]:
        """The pools that claim this member."""
        return frozenset(self.pools_by_member.get(name, ()))

    def put(self, name: str, labels: Labels, pools: Iterable[NamespacePool]) -> set[str]:
        """A member as it is now; the pools that claim it, or did."""
        if self._labels.get(name) == labels:
            return self.pools_by_member.get(name, set())
        before = self.drop(name)
        self._labels[name] = labels
        found = {pool.name for pool in pools if self._selects(pool, name, labels)}
        for pool in found:
            self.members_by_pool[pool].add(name)
        if found:
            self.pools_by_member[name] = found
        return before | found

    def drop(self, name: str) -> set[str]:
        """A member that is gone; the pools that claimed it."""
        self._labels.pop(name, None)
        before = self.pools_by_member.pop(name, set())
        for pool in before:
            self.members_by_pool[pool].discard(name)
        return before

    def put_pool(self, pool: NamespacePool) -> set[str]:
        """A pool as it is now; the members that it selects, or did."""
        before = self.drop_pool(pool.name)
        found = {name for name, labels in self._labels.items() if self._selects(pool, name, labels)}
        self.members_by_pool[pool.name] = found
        for name in found:
            self.pools_by_member.setdefault(name, set()).add(pool.name)
        return before | found

    def drop_pool(self, pool: str) -> set[str]:
        """A pool that is gone; the members that it selected."""
        before = self.members_by_pool.pop(pool, set())
        for name in before:
            self.pools_by_member[name].discard(pool)
            if not self.pools_by_member[name]:
                del self.pools_by_member[name]
        return before


class PoolMemberships:
    """The pools with all namespaces and nodes.

    Attributes:
        exempt: namespaces that no pool can have.
        revision: another number whenever a pool, or what one has, may be otherwise.
    """

    def __init__(self, exempt_namespaces: Collection[str] = ()) -> None:
        self.exempt_namespaces = frozenset({KUBE_SYSTEM, *exempt_namespaces})
        self.revision = 0
        self.pools: dict[str, NamespacePool] = {}
        self._listed_namespaces: dict[str, frozenset[str]] = {}  # by pool: namespaces that it names
        self._namespaces = _MemberIndex(self._selects_namespace)
        self._nodes = _MemberIndex(lambda pool, _, labels: pool.spec.node_selector.matches(labels))

    def _selects_namespace(self, pool: NamespacePool, name: str, labels: Labels) -> bool:
        if name in self.exempt_namespaces:
            return False
        selector = pool.spec.namespace_selector
        return name in self._listed_namespaces[pool.name] or (
            selector is not None and not selector.is_empty and selector.matches(labels)
        )

    # -- changes ------------------------------------------------------------------------------------------------------

    def put_pool(self, pool: NamespacePool) -> MembershipChanges:
        """A pool as it is now."""
        before = self.pools.get(pool.name)
        self.pools[pool.name] = pool
        if before and (before.spec, before.created) == (pool.spec, pool.created):
            return MembershipChanges(pools=frozenset({pool.name}))
        self._listed_namespaces[pool.name] = frozenset(pool.spec.namespaces)
        return self._pool_changes(pool.name, self._namespaces.put_pool(pool), self._nodes.put_pool(pool))

    def drop_pool(self, name: str) -> MembershipChanges:
        """A pool that is gone."""
        if self.pools.pop(name, None) is None:
            return MembershipChanges()
        touched = self._pool_changes(name, self._namespaces.drop_pool(name), self._nodes.drop_pool(name))
        del self._listed_namespaces[name]
        return touched

    def _pool_changes(self, pool: str, namespaces: set[str], nodes: set[str]) -> MembershipChanges:
        others = {other for name in namespaces for other in self._namespaces.pools_by_member.get(name, ())}
        others |= {other for name in nodes for other in self._nodes.pools_by_member.get(name, ())}
        self.revision += 1
        return MembershipChanges(frozenset(namespaces), frozenset(nodes), frozenset(others | {pool}))

    def put_namespace(self, namespace: Namespace) -> MembershipChanges:
        """A namespace as it is now."""
        before = self._namespaces.pools_selecting(namespace.name)
        pools = self._namespaces.put(namespace.name, namespace.labels, self.pools.values())
        self.revision += before != self._namespaces.pools_selecting(namespace.name)
        return MembershipChanges(frozenset({namespace.name}), pools=frozenset(pools))

    def drop_namespace(self, name: str) -> MembershipChanges:
        """A namespace that is gone."""
        pools = self._namespaces.drop(name)
        self.revision += bool(pools)
        return MembershipChanges(frozenset({name}), pools=frozenset(pools))

    def put_node(self, node: Node) -> MembershipChanges:
        """A node as it is now. Our own label is not seen by selectors: a pool must not undo itself."""
        labels = node.labels
        if names.NODE_POOL in labels:
            labels = {key: value for key, value in labels.items() if key != names.NODE_POOL}
        before = self._nodes.pools_selecting(node.name)
        pools = self._nodes.put(node.name, labels, self.pools.values())
        self.revision += before != self._nodes.pools_selecting(node.name)
        return MembershipChanges(nodes=frozenset({node.name}), pools=frozenset(pools))

    def drop_node(self, name: str) -> MembershipChanges:
        """A node that is gone."""
        pools = self._nodes.drop(name)
        self.revision += bool(pools)
        return MembershipChanges(nodes=frozenset({name}), pools=frozenset(pools))

    # -- answers ------------------------------------------------------------------------------------------------------

    def _age_key(self, name: str) -> tuple[datetime, str]:
        return self.pools[name].created or _NEVER, name

    def _owning_pool(self, pool_names: Iterable[str]) -> str | None:
        enforced = (name for name in pool_names if self.is_enforcing(name))
        return min(enforced, key=self._age_key, default=None)

    def is_enforcing(self, pool: str | None) -> bool:
        """Whether the pool of this name exists and claims what it selects."""
        found = self.pools.get(pool) if pool else None
        return found is not None and found.spec.mode is Mode.ENFORCE

    def pool_of_namespace(self, name: str) -> str | None:
        """The pool that has this namespace."""
        return self._owning_pool(self._namespaces.pools_by_member.get(name, ()))

    def pool_of_node(self, name: str) -> str | None:
        """The pool that has this node."""
        return self._owning_pool(self._nodes.pools_by_member.get(name, ()))

    def _would_own(self, pool: str, pool_names: Collection[str]) -> bool:
        """Whether the pool has this, or in mode Audit would have it."""
        return not any(
            other != pool and self.is_enforcing(other) and self._age_key(other) < self._age_key(pool)
            for other in pool_names
        )

    def namespaces(self, pool: str) -> list[str]:
        """The pool's namespaces; in mode Audit those that it would have."""
        side = self._namespaces
        return sorted(n for n in side.members_by_pool.get(pool, ()) if self._would_own(pool, side.pools_by_member[n]))

    def nodes(self, pool: str) -> list[str]:
        """The pool's nodes; in mode Audit those that it would have."""
        side = self._nodes
        return sorted(n for n in side.members_by_pool.get(pool, ()) if self._would_own(pool, side.pools_by_member[n]))

    def namespace_conflicts(self, pool: str) -> list[PoolConflict]:
        """Namespaces that another pool claims too."""
        return self._conflicts(pool, self._namespaces)

    def node_conflicts(self, pool: str) -> list[PoolConflict]:
        """Nodes that another pool claims too."""
        return self._conflicts(pool, self._nodes)

    def _conflicts(self, pool: str, index: _MemberIndex) -> list[PoolConflict]:
        found = []
        for name in sorted(index.members_by_pool.get(pool, ())):
            other = self._owning_pool(index.pools_by_member[name] - {pool})
            if other:
                found.append(PoolConflict(name, other, is_kept=self._age_key(pool) < self._age_key(other)))
        return found

    def pools_by_namespace(self) -> dict[str, tuple[str, ...]]:
        """By namespace: the pool that has it, and pools in mode Audit that would have it."""
        return self._owners_by_member(self._namespaces)

    def pools_by_node(self) -> dict[str, tuple[str, ...]]:
        """By node: the pool that has it, and pools in mode Audit that would have it."""
        return self._owners_by_member(self._nodes)

    def _owners_by_member(self, index: _MemberIndex) -> dict[str, tuple[str, ...]]:
        return {
            name: tuple(sorted(pool for pool in claimants if self._would_own(pool, claimants)))
            for name, claimants in index.pools_by_member.items()
        }
