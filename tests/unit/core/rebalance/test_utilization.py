"""How full nodes are, and what a move does to that."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rescheduler.core.model.nodes import Node
from rescheduler.core.rebalance.utilization import Load, Pair, gain, gain_by_requests, load, mean, spread, unit

GI = 2**30


def node(name: str = "n", cpu: int = 8000, memory: int = 32 * GI) -> Node:
    return Node(name, name, allocatable={"cpu": cpu, "memory": memory, "pods": 110})


def full(name: str, cpu: int, memory: int, *samples: Pair, **size: int) -> Load:
    return load(node(name, **size), {"cpu": cpu, "memory": memory, "pods": 5}, samples)


def test_a_node_is_as_full_as_its_pods_ask() -> None:
    found = full("n", 2000, 24 * GI)
    assert found.share == Pair(0.25, 0.75)
    assert found.free == {"cpu": 6000, "memory": 8 * GI, "pods": 105}


def test_what_is_used_counts_once_it_was_used_three_times_in_a_row() -> None:
    high, low = Pair(7000, 8 * GI), Pair(1000, 8 * GI)
    assert full("n", 2000, 24 * GI, high, high).share.cpu == pytest.approx(0.25)
    assert full("n", 2000, 24 * GI, high, high, high).share == Pair(0.875, 0.75)
    assert full("n", 2000, 24 * GI, high, low, high).share.cpu == pytest.approx(0.25)
    assert full("n", 2000, 24 * GI, low, high, high, high).share.cpu == pytest.approx(0.875)


def test_one_peak_is_enough_not_to_be_given_more() -> None:
    assert full("n", 2000, 0, Pair(7000, 0)).taken.cpu == pytest.approx(0.875)
    before_a_move = load(node(), {"cpu": 2000}, (), [Pair(), Pair(7000, 0)])
    assert before_a_move.taken.cpu == pytest.approx(0.875)
    assert before_a_move.share.cpu == pytest.approx(0.25)


def test_of_a_node_that_uses_more_than_is_asked_more_leaves_with_a_pod() -> None:
    used = Pair(4000, 8 * GI)
    assert full("n", 2000, 16 * GI, used, used, used).weight(Pair(1000, GI)) == Pair(2000, GI)


def test_room_is_of_every_resource_and_of_pods() -> None:
    have = load(Node("n", "n", allocatable={"cpu": 1000, "pods": 3, "example.com/gpu": 1}), {"cpu": 500, "pods": 2})
    assert have.room_for({"cpu": 500})
    assert not have.room_for({"cpu": 501})
    assert have.room_for({"example.com/gpu": 1})
    assert not have.room_for({"example.com/fpga": 1})
    crowded = load(Node("n", "n", allocatable={"cpu": 1000, "pods": 2}), {"cpu": 0, "pods": 2})
    assert not crowded.room_for({"cpu": 1})


shares = st.integers(0, 100)
sizes = st.sampled_from([4000, 8000, 16000])


@given(st.lists(st.tuples(shares, shares, sizes), min_size=2, max_size=6), st.integers(0, 1000), st.integers(0, 4 * GI))
def test_the_gain_is_what_the_spread_falls_by_and_the_mean_stays(
    rows: list[tuple[int, int, int]], cpu: int, memory: int
) -> None:
    weight = Pair(cpu, memory)

    def loads(*moved: Pair) -> list[Load]:
        found = []
        for n, (c, m, size) in enumerate(rows):
            more = moved[n] if n < len(moved) else Pair()
            asked = {"cpu": int(1000 + c * size / 100 + more.cpu), "memory": int((4 + m / 10) * GI + more.memory)}
            found.append(load(node(str(n), size, size // 100 * GI), asked))
        return found

    before, after = loads(), loads(Pair() - weight, weight)
    assert gain(before[0], before[1], weight, unit(before)) == pytest.approx(
        gain_by_requests(before[0], before[1], weight, unit(before)), abs=1e-6
    )
    assert spread(before) - spread(after) == pytest.approx(
        gain_by_requests(before[0], before[1], weight, unit(before)), abs=1e-6
    )
    assert mean(after).cpu == pytest.approx(mean(before).cpu, abs=1e-6)
    assert mean(after).memory == pytest.approx(mean(before).memory, abs=1e-6)
