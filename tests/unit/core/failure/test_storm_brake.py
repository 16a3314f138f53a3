"""Brake drains for a cause that many nodes have at once."""

from typing import Any

import pytest

from rescheduler.api.policies import ReschedulePolicy
from rescheduler.core.failure.storm_brake import any_storm_reason, count_unhealthy, storm_reason
from rescheduler.core.model.nodes import Node
from unit.builders import node, policy


def policy_with_limit(limit: Any = "20%") -> ReschedulePolicy:
    """Return a policy with this `maxUnhealthy`."""
    return policy(failure={"maxUnhealthy": limit})


def reason(rules: ReschedulePolicy, unhealthy: list[Node], healthy: list[Node]) -> str | None:
    counts = count_unhealthy([*((n, rules, {"A"}) for n in unhealthy), *((n, rules, ()) for n in healthy)])
    return storm_reason(unhealthy[0], rules, counts, "A")


@pytest.mark.parametrize(
    ("limit", "unhealthy", "nodes", "is_storm"),
    [
        ("20%", 1, 1, False),
        ("20%", 1, 2, False),
        ("20%", 2, 2, True),
        ("20%", 1, 3, False),
        ("20%", 2, 3, True),
        ("20%", 2, 10, False),
        ("20%", 3, 10, True),
        ("100%", 10, 10, False),
        (2, 2, 3, False),
        (2, 3, 100, True),
        (0, 1, 9, False),  # a single node is never a storm
        (0, 2, 9, True),
    ],
)
def test_storm_over_the_nodes_of_a_policy(limit: Any, unhealthy: int, nodes: int, is_storm: bool) -> None:
    rows = [node(f"n{i}") for i in range(nodes)]
    assert bool(reason(policy_with_limit(limit), rows[:unhealthy], rows[unhealthy:])) is is_storm


def test_one_dead_node_of_three_in_three_zones_is_no_storm() -> None:
    rows = [node(f"n{zone}", zone=zone) for zone in "abc"]
    assert reason(policy_with_limit(), rows[:1], rows[1:]) is None


def test_storm_in_a_zone_brakes_only_that_zone() -> None:
    rules = policy_with_limit()
    dark, other = [node(f"a{i}", zone="a") for i in range(3)], node("b0", zone="b")
    healthy = [node(f"b{i}", zone="b") for i in range(1, 40)]
    counts = count_unhealthy([*((n, rules, {"A"}) for n in [*dark, other]), *((n, rules, ()) for n in healthy)])
    assert "3 of 3 nodes of zone a" in str(storm_reason(dark[0], rules, counts, "A"))
    assert storm_reason(other, rules, counts, "A") is None


def test_two_unhealthy_nodes_of_a_small_zone_are_no_storm() -> None:
    dark = [node("a1", zone="a"), node("a2", zone="a")]
    assert reason(policy_with_limit(), dark, [node(f"b{i}", zone="b") for i in range(20)]) is None


def test_storm_in_a_pool() -> None:
    unhealthy = [node(f"n{i}", pool="shop") for i in range(3)]
    assert "pool shop" in str(reason(policy_with_limit(), unhealthy, [node(f"m{i}") for i in range(30)]))


def test_nodes_without_a_zone_share_no_zone() -> None:
    assert reason(policy_with_limit(), [node(f"n{i}") for i in range(3)], [node(f"m{i}") for i in range(30)]) is None


def test_each_cause_is_counted_on_its_own_and_named() -> None:
    rules = policy_with_limit()
    rows = [node(f"n{i}", zone="a") for i in range(10)]
    causes = [{"GpuBad"}, {"GpuBad"}, {"GpuBad", "Ready=Unknown"}, {"Ready=Unknown"}, *([set[str]()] * 6)]
    counts = count_unhealthy(zip(rows, [rules] * 10, causes, strict=True))
    found = storm_reason(rows[0], rules, counts, "GpuBad")
    assert "3 of 10 nodes of ReschedulePolicy p have the condition GpuBad" in str(found)
    assert "failure.maxUnhealthy 20% (2)" in str(found)
    assert storm_reason(rows[2], rules, counts, "Ready=Unknown") is None
    assert any_storm_reason(rows[9], rules, counts) == found
    assert any_storm_reason(node("elsewhere", zone="b"), ReschedulePolicy("other", "o", 1, rules.spec), counts) is None
