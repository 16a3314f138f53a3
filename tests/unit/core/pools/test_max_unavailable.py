"""A pool never loses more nodes at once than its `maxUnavailable`, for all reasons together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rescheduler.api.scalars import NumberOrPercent
from rescheduler.core.model.wait_reasons import ProgressingReason
from rescheduler.core.pools import max_unavailable
from rescheduler.core.pools.max_unavailable import PoolBudget
from unit.builders import drain, memberships_of, node, pool


def pool_budget(limit: str | int = 1, nodes: int = 10) -> PoolBudget:
    return PoolBudget("shop", NumberOrPercent.parse(limit), frozenset(f"n{i}" for i in range(nodes)))


def test_drain_starts_in_a_free_slot_and_names_a_taken_one() -> None:
    assert max_unavailable.wait_reason(node("n0"), pool_budget(), unavailable=[]) is None
    held = max_unavailable.wait_reason(node("n0"), pool_budget(), unavailable=["n1"])
    assert held is not None
    assert held.reason is ProgressingReason.POOL_BUDGET
    assert "NamespacePool shop (1 of 10 nodes) is taken by n1" in held.message


def test_node_does_not_wait_for_itself() -> None:
    assert max_unavailable.wait_reason(node("n0"), pool_budget(), unavailable=["n0"]) is None


def test_nodes_outside_the_pool_take_no_slot() -> None:
    assert max_unavailable.wait_reason(node("n0"), pool_budget(), unavailable=["m1"], queued_ahead=["m2"]) is None


def test_queued_drains_ahead_take_slots() -> None:
    assert max_unavailable.wait_reason(node("n0"), pool_budget(), unavailable=[], queued_ahead=["n1"]) is not None
    assert max_unavailable.wait_reason(node("n0"), pool_budget(2), unavailable=[], queued_ahead=["n1"]) is None


def test_unreachable_node_never_waits_but_an_ill_node_does() -> None:
    assert max_unavailable.wait_reason(node("n0", ready="Unknown"), pool_budget(), unavailable=["n1"]) is None
    assert max_unavailable.wait_reason(node("n0", ready="False"), pool_budget(), unavailable=["n1"]) is not None
    assert max_unavailable.wait_reason(node("n0", ready="False"), pool_budget(), unavailable=[]) is None


def test_pool_with_limit_zero_allows_no_drain() -> None:
    assert max_unavailable.wait_reason(node("n0"), pool_budget(0), unavailable=[]) is not None


@pytest.mark.parametrize(("limit", "nodes", "slots"), [("20%", 10, 2), ("20%", 3, 1), (3, 10, 3), ("0%", 10, 0)])
def test_percentage_of_the_pools_nodes_is_rounded_up(limit: str | int, nodes: int, slots: int) -> None:
    assert pool_budget(limit, nodes).slots == slots


def test_nodes_with_a_started_drain_and_failed_nodes_are_unavailable() -> None:
    drains = [drain("n1", begun=True), drain("n2"), drain("m1", begun=True)]
    assert max_unavailable.unavailable_nodes(drains, failed={"n3"}) == {"n1", "m1", "n3"}


def test_node_has_the_budget_of_its_pool() -> None:
    older, newer = pool("b", age=2, maxUnavailable=2), pool("c", age=1, maxUnavailable=3)
    audit = pool("a", age=3, mode="Audit")
    found = max_unavailable.budgets_by_node(
        memberships_of(older, newer, audit, node("n1", labels={"disk": "ssd"}), node("n2"))
    )
    assert {name: (b.pool, b.slots) for name, b in found.items()} == {"n1": ("b", 2)}


@given(st.integers(0, 4), st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=30))
def test_limit_is_never_exceeded_in_any_order_of_events(limit: int, events: list[tuple[int, bool]]) -> None:
    place, taken = pool_budget(limit), set[str]()
    for index, asks in events:
        name = f"n{index}"
        if not asks:
            taken.discard(name)
        elif max_unavailable.wait_reason(node(name), place, taken) is None:
            taken.add(name)
        assert len(taken) <= limit
