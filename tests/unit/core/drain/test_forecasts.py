"""Forecasts of placement: rank and reason, and rules that hold on every cluster."""

from collections import Counter
from collections.abc import Sequence
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.random_clusters import random_cluster
from harness.scheduler_check import placement_input_of
from rescheduler.core.placement.guaranteed_fits import guaranteed_groups
from rescheduler.core.placement.planner import Fit, plan
from rescheduler.core.placement.pod_constraints import PodConstraints
from rescheduler.core.placement.problem import PlacementProblem
from rescheduler.core.placement.scheduling_run import SchedulingRun
from unit.builders import HOST, ZONE, RawDict, raw_node, raw_pod
from unit.core.placement.forecasting import DOES_NOT, FITS, affinity, forecast, forecasts, placement_input, spread

ANY = settings(max_examples=15, deadline=None)
NUMBERS = st.integers(0, 10**9)


def test_of_equals_the_small_have_room_first() -> None:
    pods = [raw_pod("big", cpu="3", labels={"app": "b"}), raw_pod("p1"), raw_pod("p2")]
    assert forecast([raw_node("n1")], pods) == [DOES_NOT, FITS, FITS]


def test_those_that_fit_have_the_first_turns() -> None:
    pods = [raw_pod("big", cpu="3", labels={"app": "b"}), raw_pod("p1"), raw_pod("p2")]
    assert [found.rank for found in forecasts([raw_node("n1")], pods)] == [2, 0, 1]


def test_reasons_count_the_nodes_and_name_what_is_short() -> None:
    nodes = [raw_node("n1", cpu="500m"), raw_node("n2", unschedulable=True), raw_node("n3", pods="0")]
    (found,) = forecasts(nodes, [raw_pod("p1")])
    assert found.reason == (
        "0 of 3 other nodes can take the pod: 1 cordoned or being drained, 1 full (number of pods), "
        "1 with too little cpu (1 requested, at most 500m free)"
    )
    assert not found.blocked_by_pods


def test_what_the_others_take_is_counted_as_taken() -> None:
    *_, last = forecasts([raw_node("n1")], [raw_pod(f"p{n}", labels={"app": str(n)}) for n in range(5)])
    assert last.reason == "0 of 1 other nodes can take the pod: 1 with too little cpu (1 requested, at most 0 free)"


def test_where_there_is_no_other_node_that_is_the_reason() -> None:
    (found,) = forecasts([], [raw_pod("p1")])
    assert found.reason == "there is no other node"


def test_crowded_is_where_room_would_not_help() -> None:
    lonely = raw_pod("there", node="n1", **affinity("podAntiAffinity"))
    (found,) = forecasts([raw_node("n1")], [raw_pod("p1"), lonely])
    assert (found.fit, found.blocked_by_pods) == (DOES_NOT, True)


def test_the_drained_node_stays_a_domain_of_spread() -> None:
    nodes = [raw_node("n1"), raw_node("n2")]
    assert forecast(nodes, [raw_pod(f"p{n}", **spread(HOST)) for n in range(3)]) == [FITS, FITS, DOES_NOT]
    honored = spread(HOST, nodeTaintsPolicy="Honor")
    assert forecast(nodes, [raw_pod(f"p{n}", **honored) for n in range(4)]) == [FITS] * 4


def test_a_pod_that_tolerates_the_cordon_may_be_put_on_a_cordoned_node() -> None:
    tolerant = raw_pod("p1", tolerations=[{"operator": "Exists"}])
    assert forecast([raw_node("n1", unschedulable=True)], [tolerant]) == [FITS]


def test_a_pod_for_one_node_by_name_stays_without() -> None:
    field = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [field]}}}
    assert forecast([raw_node("n1")], [raw_pod("p1", affinity=affinity)]) == [DOES_NOT]


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


def _certain(nodes: Sequence[RawDict], pods: Sequence[RawDict]) -> set[str]:
    leaving, ground = placement_input(nodes, pods)
    board = PlacementProblem(ground, leaving)
    PodConstraints(board).apply()
    return {group.requirements.labels["app"] for group in guaranteed_groups(board)}


@ANY
@given(NUMBERS)
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


@ANY
@given(NUMBERS)
def test_the_same_plan_twice_is_the_same(number: int) -> None:
    leaving, ground = placement_input_of(random_cluster(number))
    assert plan(leaving, ground) == plan(leaving, ground)


@ANY
@given(NUMBERS)
def test_turns_are_an_order_and_those_that_fit_are_first(number: int) -> None:
    leaving, ground = placement_input_of(random_cluster(number))
    found = plan(leaving, ground)
    assert sorted(each.rank for each in found) == list(range(len(found)))
    count = Counter(each.fit for each in found)[FITS]
    assert all((each.rank < count) == (each.fit is FITS) for each in found)
    assert all(bool(each.reason) == (each.fit is not Fit.FITS) for each in found)


def test_in_clusters_with_room_some_are_certain() -> None:
    """Without both results, the test above would prove nothing."""
    found = 0
    for number in range(0, 10, 2):
        leaving, ground = placement_input_of(random_cluster(number))
        board = PlacementProblem(ground, leaving)
        PodConstraints(board).apply()
        found += len(guaranteed_groups(board))
    assert found > 10
