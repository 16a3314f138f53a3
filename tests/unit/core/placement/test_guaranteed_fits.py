"""Guaranteed fits: what is certain comes true, whatever the scheduler chooses."""

from collections.abc import Sequence
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.random_clusters import random_cluster
from harness.scheduler_check import placement_input_of
from rescheduler.core.model.raw import RawObject
from rescheduler.core.placement.guaranteed_fits import guaranteed_groups
from rescheduler.core.placement.pod_constraints import PodConstraints
from rescheduler.core.placement.problem import PlacementProblem
from rescheduler.core.placement.scheduling_run import SchedulingRun
from unit.builders import ZONE, raw_node, raw_pod
from unit.core.placement.forecasting import FITS, forecast, placement_input, spread


def test_other_nodes_are_certain_where_a_zone_fills_up() -> None:
    nodes = [raw_node("n1", zone="a"), raw_node("n2", zone="b")]
    assert forecast(nodes, [raw_pod(f"p{n}", **spread(ZONE)) for n in range(8)]) == [FITS] * 8


def test_small_pods_are_certain_where_large_ones_cannot_fill_all_nodes() -> None:
    """One large pod may use the room of many small pods, but a few large pods cannot fill every node."""
    large = [raw_pod(f"large{n}", cpu="1800m", labels={"app": "large"}) for n in range(3)]
    pods = [*large, raw_pod("small", cpu="10m", labels={"app": "small"}), raw_pod("spread", cpu="20m", **spread())]
    nodes = [raw_node(f"n{n}", cpu="2", zone="ab"[n % 2]) for n in range(20)]
    assert _certain(nodes, pods) == {"large", "small", "a"}
    assert _certain(nodes[:2], pods) == set()


def _certain(nodes: Sequence[RawObject], pods: Sequence[RawObject]) -> set[str]:
    leaving, ground = placement_input(nodes, pods)
    board = PlacementProblem(ground, leaving)
    PodConstraints(board).apply()
    return {group.requirements.labels["app"] for group in guaranteed_groups(board)}


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**9))
def test_what_is_certain_comes_true_however_pods_are_placed(number: int) -> None:
    leaving, ground = placement_input_of(random_cluster(number))
    board = PlacementProblem(ground, leaving)
    PodConstraints(board).apply()
    groups, random = guaranteed_groups(board), Random(number)
    for weigh in (None, lambda free, *_: free[1], lambda free, *_: -free[1]):
        order = [group for group in board.groups for _ in group.pod_indexes]
        random.shuffle(order)
        packing = SchedulingRun(board, random, weigh, certain_only=True)
        packing.place(order)
        assert all(packing.placed[group] == len(group.pod_indexes) for group in groups)


def test_in_clusters_with_room_some_are_certain() -> None:
    """Without both results, the test above would prove nothing."""
    found = 0
    for number in range(0, 10, 2):
        leaving, ground = placement_input_of(random_cluster(number))
        board = PlacementProblem(ground, leaving)
        PodConstraints(board).apply()
        found += len(guaranteed_groups(board))
    assert found > 10
