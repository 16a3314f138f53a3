"""The store: which parts and which subscribers a change reaches."""

from datetime import timedelta
from typing import Any

import pytest

from rescheduler.controllers.store.object_cache import ResourceKind
from rescheduler.controllers.store.store import Store
from rescheduler.core.eligibility.cluster_state import LIST_STALE_AFTER
from rescheduler.core.eligibility.decision import wait_reason
from rescheduler.core.model.wait_reasons import ProgressingReason
from rescheduler.core.pools.membership import MembershipChanges
from unit.builders import NOW, raw_drain, raw_object, raw_pool

NONE = frozenset[str]()


class Subscriber:
    """A store with nodes and drains, at a time that the test sets, and what it reported since."""

    def __init__(self, *names: str) -> None:
        self.now = NOW
        self.store = Store(lambda: self.now)
        self.store.put(ResourceKind.POLICY, raw_object("p", spec={}))
        for name in names:
            self.store.put(ResourceKind.NODE, raw_object(name))
            self.store.put(ResourceKind.DRAIN, raw_drain(name))
        self.changes = list[str | None]()
        self.eligibility_changes = 0
        self.memberships = list[MembershipChanges]()
        self.unreadable = list[int]()
        self.store.subscribe(
            on_change=self.changes.append,
            on_eligibility_change=self._on_eligibility_change,
            on_membership_change=self.memberships.append,
            on_unreadable_change=lambda: self.unreadable.append(len(self.store.cache.unreadable_objects)),
        )

    def _on_eligibility_change(self) -> None:
        self.eligibility_changes += 1

    def wait_reason(self, name: str) -> ProgressingReason | None:
        found = self.store.drain(name)
        assert found is not None
        why = wait_reason(found, self.store.cluster_state(), NOW)
        return why.reason if why else None


def test_a_reserved_slot_counts_before_the_status_is_written() -> None:
    """Two drains must not take the same free slot."""
    place = Subscriber("n1", "n2")
    assert place.wait_reason("n1") is None
    place.store.state_builder.reserve_slot("n1", NOW)
    assert place.wait_reason("n2") is ProgressingReason.MAX_CONCURRENT
    place.store.state_builder.reserve_slot("n1", None)
    assert place.wait_reason("n1") is None


def test_the_drain_of_a_deleted_node_takes_no_slot() -> None:
    place = Subscriber("n1", "n2")
    assert place.wait_reason("n2")
    place.store.drop(ResourceKind.NODE, "n1")
    assert place.wait_reason("n2") is None


def test_a_new_node_is_reported_to_all_subscribers() -> None:
    place = Subscriber()
    place.store.put(ResourceKind.NODE, raw_object("n1"))
    assert (place.changes, place.eligibility_changes) == (["n1"], 1)
    assert place.memberships == [MembershipChanges(nodes=frozenset({"n1"}))]


def test_a_heartbeat_of_a_node_is_recorded_but_not_reported() -> None:
    place = Subscriber("n1")
    memory = {"type": "MemoryPressure", "status": "False", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}
    place.store.put(ResourceKind.NODE, raw_object("n1", version=2, status={"conditions": [memory]}))
    assert place.changes == ["n1"]
    memory = {**memory, "lastHeartbeatTime": "2026-01-01T00:05:00Z"}
    place.store.put(ResourceKind.NODE, raw_object("n1", version=3, status={"conditions": [memory]}))
    assert place.changes == ["n1"]
    found = place.store.node("n1")
    assert found is not None
    assert found.conditions[0].last_heartbeat == NOW + timedelta(minutes=5)


def test_a_drain_that_starts_may_affect_other_drains() -> None:
    place = Subscriber("n1")
    place.store.put(ResourceKind.DRAIN, raw_drain("n1", version=2, status={"startedAt": "2026-01-01T00:00:00Z"}))
    assert (place.changes, place.eligibility_changes) == (["n1"], 1)


def test_the_progress_of_a_drain_affects_no_other_drain() -> None:
    place = Subscriber("n1")
    place.store.put(ResourceKind.DRAIN, raw_drain("n1", version=2, status={"podsEvicted": 3}))
    assert (place.changes, place.eligibility_changes) == (["n1"], 0)


def test_a_policy_affects_all_nodes() -> None:
    place = Subscriber("n1")
    here = place.store.nodes["n1"]
    place.store.put(ResourceKind.POLICY, raw_object("p", version=2, spec={"priority": 7}))
    assert (place.changes, place.eligibility_changes) == ([None], 1)
    found = place.store.policy(here)
    assert found is not None
    assert found.spec.priority == 7
    place.store.drop(ResourceKind.POLICY, "p")
    assert (place.changes, place.eligibility_changes) == ([None, None], 2)
    assert place.store.policy(here) is None


def test_an_unreadable_policy_stays_in_effect() -> None:
    place = Subscriber("n1")
    place.store.put(ResourceKind.POLICY, raw_object("p", version=2, spec={"mode": "Dream"}))
    assert place.store.is_unreadable(ResourceKind.POLICY, "p")
    assert place.store.policy(place.store.nodes["n1"]) is not None
    assert (place.unreadable, place.changes) == ([1], [])


def test_the_deletion_of_an_object_that_was_never_readable_is_reported() -> None:
    place = Subscriber("n1")
    place.store.put(ResourceKind.DRAIN, raw_drain("n2", requests=[{"reason": "Boredom"}]))
    place.store.drop(ResourceKind.DRAIN, "n2")
    assert (place.unreadable, place.changes) == ([1, 0], ["n2"])


def test_a_full_list_drops_what_it_does_not_have() -> None:
    place = Subscriber("n1", "n2")
    place.store.put(ResourceKind.NODE, raw_object("n3", version=9))
    place.changes.clear()
    place.store.resync(ResourceKind.NODE, ["n1"], 5)
    assert set(place.store.nodes) == {"n1", "n3"}  # n3 is newer than the list
    assert place.changes == ["n2"]


def test_a_deleted_node_leaves_no_history() -> None:
    place = Subscriber("n1")
    place.store.drop(ResourceKind.NODE, "n1")
    assert place.store.refresh_history("n1") is None
    assert not place.store.history.conditions
    assert (place.changes, place.memberships) == (["n1"], [MembershipChanges(nodes=frozenset({"n1"}))])


def test_a_namespace_is_reported_only_if_its_pool_may_change() -> None:
    place = Subscriber()
    for version, labels in ((1, {}), (2, {}), (3, {"team": "a"})):
        place.store.put(ResourceKind.NAMESPACE, raw_object("s", version=version, metadata={"labels": labels}))
    place.store.drop(ResourceKind.NAMESPACE, "s")
    assert place.memberships == [MembershipChanges(frozenset({"s"}))] * 3
    assert place.changes == []


def test_a_pool_invalidates_the_cluster_state() -> None:
    place = Subscriber("n1")
    assert not place.store.cluster_state().pool_budgets
    selector = {"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}
    place.store.put(ResourceKind.POOL, raw_pool("q", nodeSelector=selector))
    assert place.store.cluster_state().pool_budgets.keys() == {"n1"}
    place.store.drop(ResourceKind.POOL, "q")
    assert not place.store.cluster_state().pool_budgets
    assert place.eligibility_changes == 2


def test_a_suspicion_is_in_the_history_and_reported_for_its_node() -> None:
    place = Subscriber("n1", "n2")
    one = frozenset({"n1"})
    place.store.set_suspected_nodes(one, one)
    place.store.set_suspected_nodes(one, one)
    assert (place.changes, place.eligibility_changes) == (["n1"], 1)
    assert place.store.history.conditions["n1"].healthy_since is None
    assert place.store.trigger_context("n1", {}).suspected
    assert not place.store.trigger_context("n2", {}).suspected


def test_another_late_lease_is_reported_for_no_node() -> None:
    place = Subscriber("n1")
    place.store.set_suspected_nodes(NONE, frozenset({"n1"}))
    assert (place.changes, place.eligibility_changes) == ([], 1)


@pytest.mark.parametrize("set_problem", [Store.set_blackout, Store.set_failing_view_task])
def test_every_condition_timer_restarts_when_the_view_is_good_again(set_problem: Any) -> None:
    place = Subscriber("n1")
    set_problem(place.store, "a problem")
    place.now += timedelta(minutes=5)
    set_problem(place.store, "")
    assert (place.changes, place.eligibility_changes) == ([None, None], 2)
    assert place.store.history.conditions["n1"].healthy_since == place.now


@pytest.mark.parametrize(
    ("gap", "is_restarted"), [(LIST_STALE_AFTER - timedelta(seconds=1), False), (LIST_STALE_AFTER, True)]
)
def test_condition_timers_restart_after_a_long_time_without_a_list(gap: timedelta, is_restarted: bool) -> None:
    place = Subscriber("n1")
    place.store.set_listed(place.now)
    place.now += gap
    place.store.set_listed(place.now)
    assert (place.store.history.conditions["n1"].healthy_since == place.now) is is_restarted
