"""Places for the largest pods of a node group."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from rescheduler.core.model.nodes import Node
from rescheduler.core.model.resource_requests import PodSize
from rescheduler.core.rebalance.place_guard import PlaceGuard, count_places
from rescheduler.core.rebalance.utilization import NodeLoad, node_load


def load(name: str, *sizes: PodSize) -> NodeLoad:
    node = Node(name, name, allocatable={"cpu": 100, "memory": 100, "pods": 10})
    requested = {"cpu": sum(cpu for cpu, _ in sizes), "memory": sum(memory for _, memory in sizes), "pods": len(sizes)}
    return node_load(node, requested, pod_sizes=Counter(sizes))


def allows(loads: list[NodeLoad], size: PodSize) -> bool:
    """Whether a pod of this size may move from the first node to the second."""
    return PlaceGuard(loads).allows({"cpu": size[0], "memory": size[1]}, loads[0], loads[1])


def test_a_place_needs_cpu_memory_and_a_pod_slot() -> None:
    assert count_places(load("n", (40, 10)), (20, 20)) == 3
    assert count_places(load("n", (40, 70)), (20, 20)) == 1
    assert count_places(load("n", *[(1, 1)] * 9), (20, 20)) == 1
    assert count_places(load("n", (90, 0)), (20, 0)) == 0


def test_no_move_takes_away_the_last_place_for_the_largest_pod() -> None:
    full, empty = load("full", (50, 0), (20, 0), (20, 0)), load("empty", (45, 0))
    assert not allows([full, empty], (20, 0))
    assert allows([full, empty], (5, 0))
    assert allows([full, empty, load("other")], (20, 0))


def test_as_many_places_are_needed_as_one_node_runs_of_the_largest_pods() -> None:
    full, empty = load("full", (45, 0), (45, 0), (9, 0)), load("empty", (9, 0))
    assert not allows([full, empty], (9, 0))  # one of two places would remain
    assert allows([load("a", (45, 0), (9, 0)), empty, load("b", (45, 0))], (9, 0))


def test_a_place_that_becomes_free_on_the_source_counts() -> None:
    full, empty = load("full", (50, 0), (45, 0)), load("empty", (40, 0))
    assert allows([full, empty], (45, 0))


def test_the_pods_with_the_most_memory_have_places_too() -> None:
    full, empty = load("full", (60, 5), (5, 60), (20, 20)), load("empty", (0, 30))
    assert not allows([full, empty], (20, 20))
    assert allows([load("full", (60, 5), (20, 20)), empty], (20, 20))


def test_a_pod_larger_than_its_node_does_not_count() -> None:
    full, empty = load("full", (50, 0), (20, 0), (20, 0)), load("empty", (45, 0))
    hostile = node_load(full.node, {"cpu": 90, "pods": 3}, pod_sizes={**full.pod_sizes, (10**9, 0): 1})
    assert not allows([hostile, empty], (20, 0))


def test_the_moves_of_a_round_count_together() -> None:
    full, other = load("full", (50, 0), (20, 0), (20, 0)), load("other", (50, 0), (20, 0), (20, 0))
    first, second = load("first", (45, 0)), load("second", (45, 0))
    guard = PlaceGuard([full, other, first, second])
    assert guard.allows({"cpu": 20}, other, second)
    guard.record_move({"cpu": 20}, full, first)
    assert not guard.allows({"cpu": 20}, other, second)


_sizes = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=5).map(
    lambda sizes: [
        size for n, size in enumerate(sizes) if all(sum(s[k] for s in sizes[: n + 1]) <= 100 for k in (0, 1))
    ]
)


@given(st.lists(_sizes, min_size=2, max_size=5))
def test_allowed_moves_leave_the_needed_places(rows: list[list[PodSize]]) -> None:
    loads = [load(f"n{n}", *sizes) for n, sizes in enumerate(rows)]
    everything = [size for sizes in rows for size in sizes]
    for size in rows[0]:
        if not loads[1].has_room_for({"cpu": size[0], "memory": size[1]}) or not allows(loads, size):
            continue
        first = list(rows[0])
        first.remove(size)
        after = [load("n0", *first), load("n1", *rows[1], size), *loads[2:]]
        for largest in (max(everything), max(everything, key=lambda each: each[::-1])):
            needed = max(sizes.count(largest) for sizes in rows)
            before = sum(count_places(each, largest) for each in loads)
            assert sum(count_places(each, largest) for each in after) >= min(before, needed)
