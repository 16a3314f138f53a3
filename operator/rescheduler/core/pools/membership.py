"""Keep which pool has which namespace and node, and which other pools claim them.

Each change updates only its own members: 200 pools with 5,000 namespaces are a million selector checks, too many for
every change. If two pools claim the same member, the older pool keeps it; of equal age, the first by name. A pool in
mode Audit claims nothing, but its members are computed too.
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
    """Names of the objects that a change may affect."""

    namespaces: frozenset[str] = frozenset()
    nodes: frozenset[str] = frozenset()
    pools: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class PoolConflict:
    """A namespace or node that two pools claim.

    Attributes:
        name: the name of the namespace or node.
        other_pool: the name of the other pool.
        is_kept: whether this pool has the member, or in mode Audit would have it.
    """

    name: str
    other_pool: str
    is_kept: bool


class _MemberIndex:
    """The members of one kind, namespaces or nodes, and the pools that select them."""

    def __init__(self, selects: Callable[[NamespacePool, str, Labels], bool]) -> None:
        self.members_by_pool: dict[str, set[str]] = {}
        self.pools_by_member: dict[str, set[str]] = {}  # without members that no pool selects
        self._selects = selects
        self._labels: dict[str, Labels] = {}

    def pools_selecting(self, name: str) -> frozenset[str]:
        """Return the pools that select this member."""
        return frozenset(self.pools_by_member.get(name, ()))

    def put(self, name: str, labels: Labels, pools: Iterable[NamespacePool]) -> set[str]:
        """Record a member with its labels; return the pools that select it now or did before."""
        if self._labels.get(name) == labels:
            return self.pools_by_member.get(name, set())
        before = self.drop(name)
        self._labels[name] = labels
        selecting = {pool.name for pool in pools if self._selects(pool, name, labels)}
        for pool in selecting:
            self.members_by_pool[pool].add(name)
        if selecting:
            self.pools_by_member[name] = selecting
        return before | selecting

    def drop(self, name: str) -> set[str]:
        """Forget a deleted member; return the pools that selected it."""
        self._labels.pop(name, None)
        before = self.pools_by_member.pop(name, set())
        for pool in before:
            self.members_by_pool[pool].discard(name)
        return before

    def put_pool(self, pool: NamespacePool) -> set[str]:
        """Record a pool; return the members that it selects now or did before."""
        before = self.drop_pool(pool.name)
        selected = {name for name, labels in self._labels.items() if self._selects(pool, name, labels)}
        self.members_by_pool[pool.name] = selected
        for name in selected:
            self.pools_by_member.setdefault(name, set()).add(pool.name)
        return before | selected

    def drop_pool(self, pool: str) -> set[str]:
        """Forget a deleted pool; return the members that it selected."""
        before = self.members_by_pool.pop(pool, set())
        for name in before:
            self.pools_by_member[name].discard(pool)
            if not self.pools_by_member[name]:
                del self.pools_by_member[name]
        return before


class PoolMemberships:
    """The pools with all namespaces and nodes.

    Attributes:
        exempt_namespaces: namespaces that no pool can have.
        revision: a number that grows when a pool or its members may have changed.
        pools: all pools, by name.
    """

    def __init__(self, exempt_namespaces: Collection[str] = ()) -> None:
        self.exempt_namespaces = frozenset({KUBE_SYSTEM, *exempt_namespaces})
        self.revision = 0
        self.pools: dict[str, NamespacePool] = {}
        self._listed_namespaces: dict[str, frozenset[str]] = {}  # by pool: `spec.namespaces`
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
        """Record a pool."""
        before = self.pools.get(pool.name)
        self.pools[pool.name] = pool
        if before and (before.spec, before.created) == (pool.spec, pool.created):
            return MembershipChanges(pools=frozenset({pool.name}))
        self._listed_namespaces[pool.name] = frozenset(pool.spec.namespaces)
        return self._pool_changes(pool.name, self._namespaces.put_pool(pool), self._nodes.put_pool(pool))

    def drop_pool(self, name: str) -> MembershipChanges:
        """Forget a deleted pool."""
        if self.pools.pop(name, None) is None:
            return MembershipChanges()
        changes = self._pool_changes(name, self._namespaces.drop_pool(name), self._nodes.drop_pool(name))
        del self._listed_namespaces[name]
        return changes

    def _pool_changes(self, pool: str, namespaces: set[str], nodes: set[str]) -> MembershipChanges:
        rivals = {rival for name in namespaces for rival in self._namespaces.pools_by_member.get(name, ())}
        rivals |= {rival for name in nodes for rival in self._nodes.pools_by_member.get(name, ())}
        self.revision += 1
        return MembershipChanges(frozenset(namespaces), frozenset(nodes), frozenset(rivals | {pool}))

    def put_namespace(self, namespace: Namespace) -> MembershipChanges:
        """Record a namespace."""
        before = self._namespaces.pools_selecting(namespace.name)
        pools = self._namespaces.put(namespace.name, namespace.labels, self.pools.values())
        self.revision += before != self._namespaces.pools_selecting(namespace.name)
        return MembershipChanges(frozenset({namespace.name}), pools=frozenset(pools))

    def drop_namespace(self, name: str) -> MembershipChanges:
        """Forget a deleted namespace."""
        pools = self._namespaces.drop(name)
        self.revision += bool(pools)
        return MembershipChanges(frozenset({name}), pools=frozenset(pools))

    def put_node(self, node: Node) -> MembershipChanges:
        """Record a node."""
        labels = node.labels
        # With the operator's own label a selector could exclude the nodes of its pool, and the pool would undo itself.
        if names.NODE_POOL in labels:
            labels = {key: value for key, value in labels.items() if key != names.NODE_POOL}
        before = self._nodes.pools_selecting(node.name)
        pools = self._nodes.put(node.name, labels, self.pools.values())
        self.revision += before != self._nodes.pools_selecting(node.name)
        return MembershipChanges(nodes=frozenset({node.name}), pools=frozenset(pools))

    def drop_node(self, name: str) -> MembershipChanges:
        """Forget a deleted node."""
        pools = self._nodes.drop(name)
        self.revision += bool(pools)
        return MembershipChanges(nodes=frozenset({name}), pools=frozenset(pools))

    # -- queries ------------------------------------------------------------------------------------------------------

    def _age_key(self, name: str) -> tuple[datetime, str]:
        return self.pools[name].created or _NEVER, name

    def _owning_pool(self, pool_names: Iterable[str]) -> str | None:
        enforced = (name for name in pool_names if self.is_enforcing(name))
        return min(enforced, key=self._age_key, default=None)

    def is_enforcing(self, pool: str | None) -> bool:
        """Whether the pool of this name exists and is in mode Enforce."""
        known = self.pools.get(pool) if pool else None
        return known is not None and known.spec.mode is Mode.ENFORCE

    def pool_of_namespace(self, name: str) -> str | None:
        """Return the pool that has this namespace; None if no pool has it."""
        return self._owning_pool(self._namespaces.pools_by_member.get(name, ()))

    def pool_of_node(self, name: str) -> str | None:
        """Return the pool that has this node; None if no pool has it."""
        return self._owning_pool(self._nodes.pools_by_member.get(name, ()))

    def _would_own(self, pool: str, pool_names: Collection[str]) -> bool:
        """Whether the pool has a member that these pools select, or in mode Audit would have it."""
        return not any(
            other != pool and self.is_enforcing(other) and self._age_key(other) < self._age_key(pool)
            for other in pool_names
        )

    def namespaces(self, pool: str) -> list[str]:
        """Return the namespaces of the pool; in mode Audit those that it would have."""
        return self._owned_members(pool, self._namespaces)

    def nodes(self, pool: str) -> list[str]:
        """Return the nodes of the pool; in mode Audit those that it would have."""
        return self._owned_members(pool, self._nodes)

    def _owned_members(self, pool: str, index: _MemberIndex) -> list[str]:
        return sorted(n for n in index.members_by_pool.get(pool, ()) if self._would_own(pool, index.pools_by_member[n]))

    def namespace_conflicts(self, pool: str) -> list[PoolConflict]:
        """Return the namespaces of the pool that another pool claims too."""
        return self._conflicts(pool, self._namespaces)

    def node_conflicts(self, pool: str) -> list[PoolConflict]:
        """Return the nodes of the pool that another pool claims too."""
        return self._conflicts(pool, self._nodes)

    def _conflicts(self, pool: str, index: _MemberIndex) -> list[PoolConflict]:
        conflicts = []
        for name in sorted(index.members_by_pool.get(pool, ())):
            rival = self._owning_pool(index.pools_by_member[name] - {pool})
            if rival:
                conflicts.append(PoolConflict(name, rival, is_kept=self._age_key(pool) < self._age_key(rival)))
        return conflicts

    def pools_by_namespace(self) -> dict[str, tuple[str, ...]]:
        """Return by namespace the pool that has it, and the pools in mode Audit that would have it."""
        return self._owners_by_member(self._namespaces)

    def pools_by_node(self) -> dict[str, tuple[str, ...]]:
        """Return by node the pool that has it, and the pools in mode Audit that would have it."""
        return self._owners_by_member(self._nodes)

    def _owners_by_member(self, index: _MemberIndex) -> dict[str, tuple[str, ...]]:
        return {
            name: tuple(sorted(pool for pool in claimants if self._would_own(pool, claimants)))
            for name, claimants in index.pools_by_member.items()
        }
