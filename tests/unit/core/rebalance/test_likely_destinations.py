"""Nodes that the scheduler probably chooses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rescheduler.core.model.node_affinity import NodeConstraints
from rescheduler.core.model.nodes import Node
from rescheduler.core.rebalance.likely_destinations import MARGIN, LikelyDestinations
from rescheduler.core.rebalance.utilization import NodeLoad, node_load

ANY = NodeConstraints()


def load(name: str, cpu: int, memory: int = 0, size: int = 100) -> NodeLoad:
    labels = {"name": name}
    node = Node(name, name, labels=labels, allocatable={"cpu": 100 * size, "memory": 100 * size, "pods": 110})
    return node_load(node, {"cpu": cpu * size, "memory": memory * size})


def names(loads: tuple[NodeLoad, ...]) -> list[str]:
    return [each.name for each in loads]


def test_nodes_nearly_as_empty_as_the_emptiest_are_likely() -> None:
    found = LikelyDestinations([load("d", 36), load("a", 30), load("c", 34), load("source", 10)])
    assert names(found.likely({"cpu": 100}, ANY, "source")) == ["a", "c"]


def test_the_larger_share_of_cpu_and_memory_decides() -> None:
    found = LikelyDestinations([load("balanced", 30, 30), load("only memory", 0, 40)])
    assert names(found.likely({"cpu": 100}, ANY, "")) == ["balanced"]


def test_the_first_is_the_least_full_with_the_pod() -> None:
    """A pod of 20 is 10% of the large node and 20% of the small node."""
    found = LikelyDestinations([load("small", 30), load("large", 33, size=200)])
    assert names(found.likely({"cpu": 2000}, ANY, "")) == ["large", "small"]


@pytest.mark.parametrize(
    ("requests", "constraints"),
    [
        ({"cpu": 9000}, ANY),
        ({"cpu": 1, "example.com/gpu": 1}, ANY),
        ({}, NodeConstraints({"nodeSelector": {"a": "b"}})),
    ],
)
def test_a_node_that_cannot_take_the_pod_is_not_likely(requests: dict[str, int], constraints: NodeConstraints) -> None:
    found = LikelyDestinations([load("a", 30), load("b", 30)])
    assert found.emptiest(requests, constraints, "") is None
    assert found.likely(requests, constraints, "") == ()


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), max_size=8), st.integers(0, 50))
def test_likely_destinations_have_room_and_are_the_emptiest(rows: list[tuple[int, int]], cpu: int) -> None:
    loads = [load(f"n{n}", *shares) for n, shares in enumerate(rows)]
    possible = [each for each in loads if each.has_room_for({"cpu": 100 * cpu}) and each.name != "n0"]
    found = LikelyDestinations(loads)
    likely = found.likely({"cpu": 100 * cpu}, ANY, "n0")
    limit = min((each.requested_share for each in possible), default=0) + MARGIN
    assert sorted(names(likely)) == [each.name for each in possible if each.requested_share <= limit]
    emptiest = found.emptiest({"cpu": 100 * cpu}, ANY, "n0")
    assert emptiest in likely if possible else emptiest is None
