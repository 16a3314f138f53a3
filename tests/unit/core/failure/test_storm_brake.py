"""The storm brake."""

from typing import Any

import pytest

from rescheduler.api import names
from rescheduler.api.policies import ReschedulePolicy
from rescheduler.core.failure.storm_brake import any_storm_reason, count_unhealthy, storm_reason
from rescheduler.core.model.nodes import Node


def policy(limit: Any = "20%") -> ReschedulePolicy:
    return ReschedulePolicy.from_object({"metadata": {"name": "p"}, "spec": {"failure": {"maxUnhealthy": limit}}})


def node(name: str, zone: str = "", pool: str = "") -> Node:
    labels = {names.ZONE: zone} if zone else {}
    return Node(name, name, labels=labels | ({names.NODE_POOL: pool} if pool else {}))


def says(rules: ReschedulePolicy, sick: list[Node], well: list[Node]) -> str | None:
    weather = count_unhealthy([*((n, rules, {"A"}) for n in sick), *((n, rules, ()) for n in well)])
    return storm_reason(sick[0], rules, weather, "A")


@pytest.mark.parametrize(
    ("limit", "sick", "nodes", "stormy"),
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
        (0, 1, 9, False),  # one node alone is never a storm
        (0, 2, 9, True),
    ],
)
def test_over_the_policys_nodes(limit: Any, sick: int, nodes: int, stormy: bool) -> None:
    rows = [node(f"n{i}") for i in range(nodes)]
    assert bool(says(policy(limit), rows[:sick], rows[sick:])) is stormy


def test_three_nodes_in_three_zones_one_dead_is_handled() -> None:
    rows = [node(f"n{zone}", zone) for zone in "abc"]
    assert says(policy(), rows[:1], rows[1:]) is None


def test_a_zone_where_three_are_dark_is_a_storm_there_and_not_elsewhere() -> None:
    rules = policy()
    dark, other = [node(f"a{i}", "a") for i in range(3)], node("b0", "b")
    well = [node(f"b{i}", "b") for i in range(1, 40)]
    weather = count_unhealthy([*((n, rules, {"A"}) for n in [*dark, other]), *((n, rules, ()) for n in well)])
    assert "3 of 3 nodes of zone a" in storm_reason(dark[0], rules, weather, "A")
    assert storm_reason(other, rules, weather, "A") is None


def test_two_dark_nodes_of_a_small_zone_are_none() -> None:
    dark = [node("a1", "a"), node("a2", "a")]
    assert says(policy(), dark, [node(f"b{i}", "b") for i in range(20)]) is None


def test_a_pool_is_a_place_too() -> None:
    sick = [node(f"n{i}", pool="shop") for i in range(3)]
    assert "pool shop" in says(policy(), sick, [node(f"m{i}") for i in range(30)])


def test_nodes_without_a_zone_are_in_none() -> None:
    assert says(policy(), [node(f"n{i}") for i in range(3)], [node(f"m{i}") for i in range(30)]) is None


def test_each_cause_is_counted_by_itself_and_the_words_name_what_is_counted() -> None:
    rules = policy()
    rows = [node(f"n{i}", "a") for i in range(10)]
    causes = [{"GpuBad"}, {"GpuBad"}, {"GpuBad", "Ready=Unknown"}, {"Ready=Unknown"}, *([set[str]()] * 6)]
    weather = count_unhealthy(zip(rows, [rules] * 10, causes, strict=True))
    found = storm_reason(rows[0], rules, weather, "GpuBad")
    assert "3 of 10 nodes of ReschedulePolicy p have the condition GpuBad" in found
    assert "failure.maxUnhealthy 20% (2)" in found
    assert storm_reason(rows[2], rules, weather, "Ready=Unknown") is None
    assert any_storm_reason(rows[9], rules, weather) == found
    assert any_storm_reason(node("elsewhere", "b"), ReschedulePolicy("other", "o", 1, rules.spec), weather) is None
