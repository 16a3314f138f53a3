"""The builder of the cluster state: slots, pool budgets, winning policies, the stale view and the cached state."""

from datetime import timedelta
from typing import Any

import pytest

from rescheduler.api.drains import Phase
from rescheduler.controllers.store.cluster_state_builder import ClusterStateBuilder
from rescheduler.controllers.store.node_history import NodeHistory
from rescheduler.controllers.store.object_cache import ObjectCache, ResourceKind
from rescheduler.core.eligibility.cluster_state import LIST_STALE_AFTER
from rescheduler.core.model.raw import RawObject
from rescheduler.core.pools.membership import PoolMemberships
from unit.builders import NOW, raw_object


class Parts:
    """A builder with its parts, at a time that the test sets."""

    def __init__(self) -> None:
        self.now = NOW
        self.version = 0
        self.cache = ObjectCache(lambda: None)
        self.memberships = PoolMemberships()
        self.history = NodeHistory(lambda: self.now)
        self.builder = ClusterStateBuilder(self.cache, self.memberships, self.history, lambda: self.now)

    def put(self, kind: ResourceKind, name: str, spec: RawObject | None = None, **meta: Any) -> Any:
        self.version += 1
        update = self.cache.put(kind, raw_object(name, version=self.version, metadata=meta, spec=spec or {}))
        assert update is not None
        return update.after

    def put_drain(self, name: str) -> None:
        self.put(ResourceKind.DRAIN, name, {"nodeName": name, "requests": [{"reason": "Maintenance"}]})


@pytest.fixture
def parts() -> Parts:
    return Parts()


def test_a_drain_with_a_reserved_slot_counts_as_started(parts: Parts) -> None:
    parts.put_drain("n1")
    parts.builder.reserve_slot("n1", NOW)
    status = parts.builder.state().drains["n1"].status
    assert (status.started_at, status.phase) == (NOW, Phase.DRAINING)
    parts.builder.reserve_slot("n1", None)
    assert parts.builder.state().drains["n1"].status.started_at is None


def test_a_reserved_slot_without_a_drain_adds_no_drain(parts: Parts) -> None:
    parts.builder.reserve_slot("n1", NOW)
    assert not parts.builder.state().drains


def test_the_state_is_kept_for_ten_seconds(parts: Parts) -> None:
    state = parts.builder.state()
    parts.now += timedelta(seconds=10)
    assert parts.builder.state() is state
    parts.now += timedelta(seconds=1)
    assert parts.builder.state().now == parts.now


def test_an_invalid_state_is_built_again(parts: Parts) -> None:
    state = parts.builder.state()
    parts.builder.invalidate()
    assert parts.builder.state() is not state


def test_a_new_policy_wins_only_after_a_new_selection(parts: Parts) -> None:
    node = parts.put(ResourceKind.NODE, "n1")
    policy = parts.put(ResourceKind.POLICY, "p")
    assert parts.builder.policy(node) is None
    parts.builder.select_policies_again()
    assert parts.builder.policy(node) == policy
    assert parts.builder.state().policy(node) == policy


def test_pool_budgets_follow_the_memberships(parts: Parts) -> None:
    parts.memberships.put_node(parts.put(ResourceKind.NODE, "n1", labels={"disk": "ssd"}))
    assert not parts.builder.state().pool_budgets
    spec = {"nodeSelector": {"matchLabels": {"disk": "ssd"}}, "maxUnavailable": 2}
    parts.memberships.put_pool(parts.put(ResourceKind.POOL, "shop", spec))
    parts.builder.invalidate()
    assert parts.builder.state().pool_budgets["n1"].pool == "shop"


def test_the_state_has_the_suspected_nodes(parts: Parts) -> None:
    parts.history.set_suspected_nodes(frozenset({"a"}), frozenset({"a", "b"}), frozenset({"c"}))
    state = parts.builder.state()
    assert state.suspected_nodes == {"a"}
    assert state.nodes_with_late_lease == {"a", "b"}
    assert state.nodes_with_renewed_lease == {"c"}


def test_the_view_is_stale_in_a_blackout(parts: Parts) -> None:
    assert not parts.builder.is_view_stale()
    assert parts.builder.set_blackout("all Leases are silent")
    assert not parts.builder.set_blackout("more Leases are silent")
    assert parts.builder.is_view_stale()
    assert parts.builder.state().view_problem == "all Leases are silent"
    assert parts.builder.set_blackout("")
    assert not parts.builder.is_view_stale()


def test_the_view_is_stale_while_a_task_of_the_view_fails(parts: Parts) -> None:
    assert parts.builder.set_failing_view_task("watch of nodes")
    assert not parts.builder.set_failing_view_task("watch of pools")
    assert parts.builder.failing_view_task == "watch of pools"
    assert parts.builder.is_view_stale()
    assert parts.builder.set_failing_view_task("")
    assert not parts.builder.is_view_stale()


def test_the_view_is_stale_after_a_long_time_without_a_full_list(parts: Parts) -> None:
    assert not parts.builder.set_listed(NOW)
    parts.now += LIST_STALE_AFTER
    assert parts.builder.is_view_stale()
    assert parts.builder.set_listed(parts.now)
    assert not parts.builder.is_view_stale()
