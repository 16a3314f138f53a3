"""Utilization of nodes, and the effect of a move."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rescheduler.core.model.nodes import Node
from rescheduler.core.rebalance.utilization import (
    CpuMemory,
    NodeLoad,
    balance_gain_by_requests,
    gain_function,
    imbalance,
    mean_node_size,
    mean_pod_size,
    mean_utilization,
    node_load,
)

GI = 2**30


def node_of_size(name: str = "n", cpu: int = 8000, memory: int = 32 * GI) -> Node:
    return Node(name, name, allocatable={"cpu": cpu, "memory": memory, "pods": 110})


def full(name: str, cpu: int, memory: int, *samples: CpuMemory, **size: int) -> NodeLoad:
    return node_load(node_of_size(name, **size), {"cpu": cpu, "memory": memory, "pods": 5}, samples)


def test_the_utilization_of_a_node_is_that_of_its_requests() -> None:
    found = full("n", 2000, 24 * GI)
    assert found.sustained_utilization == CpuMemory(0.25, 0.75)
    assert found.free == {"cpu": 6000, "memory": 8 * GI, "pods": 105}


def test_usage_counts_after_three_samples_in_a_row() -> None:
    high, low = CpuMemory(7000, 8 * GI), CpuMemory(1000, 8 * GI)
    assert full("n", 2000, 24 * GI, high, high).sustained_utilization.cpu == pytest.approx(0.25)
    assert full("n", 2000, 24 * GI, high, high, high).sustained_utilization == CpuMemory(0.875, 0.75)
    assert full("n", 2000, 24 * GI, high, low, high).sustained_utilization.cpu == pytest.approx(0.25)
    assert full("n", 2000, 24 * GI, low, high, high, high).sustained_utilization.cpu == pytest.approx(0.875)


def test_one_peak_of_usage_keeps_new_pods_off() -> None:
    assert full("n", 2000, 0, CpuMemory(7000, 0)).peak_utilization.cpu == pytest.approx(0.875)
    before_a_move = node_load(node_of_size(), {"cpu": 2000}, (), [CpuMemory(), CpuMemory(7000, 0)])
    assert before_a_move.peak_utilization.cpu == pytest.approx(0.875)
    assert before_a_move.sustained_utilization.cpu == pytest.approx(0.25)


def test_the_load_of_a_pod_grows_with_the_usage_of_its_node() -> None:
    used = CpuMemory(4000, 8 * GI)
    assert full("n", 2000, 16 * GI, used, used, used).pod_load(CpuMemory(1000, GI)) == CpuMemory(2000, GI)


def test_room_needs_every_resource_and_a_pod_slot() -> None:
    have = node_load(
        Node("n", "n", allocatable={"cpu": 1000, "pods": 3, "example.com/gpu": 1}), {"cpu": 500, "pods": 2}
    )
    assert have.has_room_for({"cpu": 500})
    assert not have.has_room_for({"cpu": 501})
    assert have.has_room_for({"example.com/gpu": 1})
    assert not have.has_room_for({"example.com/fpga": 1})
    crowded = node_load(Node("n", "n", allocatable={"cpu": 1000, "pods": 2}), {"cpu": 0, "pods": 2})
    assert not crowded.has_room_for({"cpu": 1})


def test_the_mean_pod_is_a_share_of_the_mean_node() -> None:
    large = node_load(node_of_size("b", cpu=16000), {"cpu": 4000, "pods": 5})
    found = mean_pod_size([full("a", 2000, 8 * GI), large])
    assert found.cpu == pytest.approx(600 / 12000)
    assert found.memory == pytest.approx(0.8 / 32)
    assert mean_pod_size([node_load(node_of_size(), {})]) == CpuMemory()


shares = st.integers(0, 100)
sizes = st.sampled_from([4000, 8000, 16000])


@given(st.lists(st.tuples(shares, shares, sizes), min_size=2, max_size=6), st.integers(0, 1000), st.integers(0, 4 * GI))
def test_the_gain_is_the_reduction_of_the_imbalance(rows: list[tuple[int, int, int]], cpu: int, memory: int) -> None:
    weight = CpuMemory(cpu, memory)

    def loads(*moved: CpuMemory) -> list[NodeLoad]:
        found = []
        for n, (c, m, size) in enumerate(rows):
            more = moved[n] if n < len(moved) else CpuMemory()
            asked = {"cpu": int(1000 + c * size / 100 + more.cpu), "memory": int((4 + m / 10) * GI + more.memory)}
            found.append(node_load(node_of_size(str(n), size, size // 100 * GI), asked))
        return found

    before, after = loads(), loads(CpuMemory() - weight, weight)
    assert gain_function(before[0], before[1], mean_node_size(before))(weight) == pytest.approx(
        balance_gain_by_requests(before[0], before[1], weight, mean_node_size(before)), abs=1e-6
    )
    assert imbalance(before) - imbalance(after) == pytest.approx(
        balance_gain_by_requests(before[0], before[1], weight, mean_node_size(before)), abs=1e-6
    )
    assert mean_utilization(after).cpu == pytest.approx(mean_utilization(before).cpu, abs=1e-6)
    assert mean_utilization(after).memory == pytest.approx(mean_utilization(before).memory, abs=1e-6)
