"""Plans: each rule of the scheduler on its own, and laws that hold in every cluster."""

from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.random_clusters import random_cluster
from harness.scheduler_check import placement_input_of
from rescheduler.core.model.raw import RawObject
from rescheduler.core.model.volume_topology import ClusterVolumes, parse_volume_topology
from rescheduler.core.placement import planner
from rescheduler.core.placement.planner import Fit, plan
from rescheduler.core.placement.pod_constraints import PodConstraints
from rescheduler.core.placement.problem import PlacementProblem
from rescheduler.core.placement.scheduling_run import default_score
from unit.builders import HOST, ZONE, raw_node, raw_pod
from unit.core.placement.forecasting import (
    DOES_NOT,
    FITS,
    UNKNOWN,
    affinity,
    forecast,
    forecasts,
    placement_input,
    spread,
)


def test_requests_of_all_pods_count_together() -> None:
    assert forecast([raw_node("n1", cpu="2")], [raw_pod("p1"), raw_pod("p2"), raw_pod("p3")]) == [FITS, FITS, DOES_NOT]


def test_requests_of_running_pods_are_not_free() -> None:
    assert forecast([raw_node("n1", cpu="2")], [raw_pod("p1"), raw_pod("there", node="n1", cpu="1500m")]) == [DOES_NOT]


def test_a_finished_pod_takes_no_room() -> None:
    done = raw_pod("done", node="n1", cpu="2", phase="Succeeded")
    assert forecast([raw_node("n1", cpu="2")], [raw_pod("p1"), done]) == [FITS]


def test_a_node_takes_no_more_pods_than_its_limit() -> None:
    assert forecast([raw_node("n1", pods="2")], [raw_pod("p1"), raw_pod("p2"), raw_pod("there", node="n1")]) == [
        FITS,
        DOES_NOT,
    ]


def test_extended_resources_count() -> None:
    gpu: dict[str, Any] = {"resources": {"example.com/gpu": "1"}}
    nodes = [raw_node("n1", resources={"example.com/gpu": "1"}), raw_node("n2")]
    assert forecast(nodes, [raw_pod("p1", **gpu), raw_pod("p2", **gpu)]) == [FITS, DOES_NOT]


def test_a_resource_that_no_node_offers_may_come_from_a_driver() -> None:
    assert forecast([raw_node("n1")], [raw_pod("p1", resources={"example.com/gpu": "1"})]) == [UNKNOWN]


def test_resource_that_devices_may_serve_elsewhere_is_left_to_the_scheduler() -> None:
    mixed: dict[str, Any] = {"resources": {"example.com/gpu": "1"}}
    nodes = [raw_node("n1", resources={"example.com/gpu": "1"}), raw_node("n2")]
    pods = [raw_pod("p1", **mixed), raw_pod("p2", **mixed), raw_pod("p3")]
    found = forecasts(nodes, pods, device_resources=frozenset({"example.com/gpu"}))
    assert [each.fit for each in found] == [UNKNOWN, UNKNOWN, FITS]
    assert found[0].reason == "a DeviceClass may serve example.com/gpu on nodes that do not offer it"


@pytest.mark.parametrize("value", ["900", "950"])
@pytest.mark.parametrize("operator", ["Gt", "Lt", "Near"])
def test_unknown_operator_of_a_toleration_is_left_to_the_scheduler(operator: str, value: str) -> None:
    tainted = raw_node("n1", taints=[{"key": "sla", "value": "950", "effect": "NoSchedule"}])
    pod = raw_pod("p1", tolerations=[{"key": "sla", "operator": operator, "value": value}])
    assert forecast([tainted], [pod]) == [UNKNOWN]
    assert forecast([raw_node("n2")], [pod]) == [FITS]
    elsewhere = raw_pod("p1", tolerations=pod["spec"]["tolerations"], nodeSelector={HOST: "n2"})
    assert forecast([tainted, raw_node("n2")], [elsewhere]) == [FITS]


def test_a_taint_keeps_off_pods_that_do_not_tolerate_it() -> None:
    tainted = raw_node("n1", taints=[{"key": "own", "value": "x", "effect": "NoSchedule"}])
    tolerant = raw_pod("p2", tolerations=[{"key": "own", "operator": "Exists"}])
    assert forecast([tainted], [raw_pod("p1"), tolerant]) == [DOES_NOT, FITS]


@pytest.mark.parametrize(("zone", "fit"), [("a", FITS), ("b", DOES_NOT)])
def test_node_affinity_decides(zone: str, fit: Fit) -> None:
    terms = [{"matchExpressions": [{"key": ZONE, "operator": "In", "values": ["a"]}]}]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    assert forecast([raw_node("n1", zone=zone)], [raw_pod("p1", affinity={"nodeAffinity": required})]) == [fit]


def test_cordoned_excluded_and_deleting_nodes_take_no_pods() -> None:
    going = raw_node("n3")
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert forecast(
        [raw_node("n1", unschedulable=True), raw_node("n2"), going], [raw_pod("p1")], excluded_nodes={"n2"}
    ) == [DOES_NOT]


def test_anti_affinity_keeps_its_own_pods_apart() -> None:
    apart = affinity("podAntiAffinity")
    assert forecast([raw_node("n1")], [raw_pod("p1", **apart), raw_pod("p2", **apart)]) == [FITS, DOES_NOT]


@pytest.mark.parametrize("who", ["the one that leaves", "the one that stays"])
def test_anti_affinity_holds_both_ways(who: str) -> None:
    free: dict[str, Any] = {}
    apart = affinity("podAntiAffinity", selector={"matchExpressions": [{"key": "app", "operator": "Exists"}]})
    leaving, staying = (apart, free) if who == "the one that leaves" else (free, apart)
    pods = [raw_pod("p1", **leaving), raw_pod("there", node="n1", labels={"app": "b"}, **staying)]
    assert forecast([raw_node("n1")], pods) == [DOES_NOT]


def test_anti_affinity_asks_for_labels_of_namespaces() -> None:
    apart = affinity("podAntiAffinity", namespaceSelector={"matchLabels": {"team": "x"}})
    pods = [raw_pod("p1", **apart), raw_pod("there", node="n1")]
    assert forecast([raw_node("n1")], pods, namespace_labels={"s": {"team": "x"}}) == [DOES_NOT]
    assert forecast([raw_node("n1")], pods, namespace_labels={"s": {"team": "y"}}) == [FITS]


def test_affinity_needs_a_selected_pod() -> None:
    near = affinity("podAffinity", selector={"matchLabels": {"app": "b"}})
    company = raw_pod("there", node="n1", labels={"app": "b"})
    assert forecast([raw_node("n1"), raw_node("n2")], [raw_pod("p1", **near), company]) == [FITS]
    assert forecast([raw_node("n1"), raw_node("n2")], [raw_pod("p1", **near)]) == [DOES_NOT]


def test_a_pod_selected_by_its_own_affinity_may_be_the_first() -> None:
    assert forecast([raw_node("n1")], [raw_pod("p1", **affinity("podAffinity"))]) == [FITS]


def test_spread_is_limited_by_the_emptiest_domain() -> None:
    nodes = [raw_node("n1", zone="a"), raw_node("n2", cpu="1", zone="b")]
    assert forecast(nodes, [raw_pod(f"p{n}", **spread()) for n in range(4)]) == [FITS, FITS, FITS, DOES_NOT]


def test_a_host_port_is_used_once_on_a_node() -> None:
    port: dict[str, Any] = {"ports": [{"containerPort": 80, "hostPort": 8080}]}
    assert forecast([raw_node("n1")], [raw_pod("p1", **port), raw_pod("p2", **port)]) == [FITS, DOES_NOT]


def test_a_volume_ties_its_pod_to_a_zone() -> None:
    terms = [{"matchExpressions": [{"key": ZONE, "operator": "In", "values": ["a"]}]}]
    spec = {"nodeAffinity": {"required": {"nodeSelectorTerms": terms}}, "csi": {"driver": "d"}}
    storage = ClusterVolumes(
        {("s", "data"): "v"}, {"v": parse_volume_topology({"metadata": {"name": "v"}, "spec": spec})}
    )
    bound = raw_pod("p1", volumes=[{"persistentVolumeClaim": {"claimName": "data"}}])
    assert forecast([raw_node("n1", zone="a")], [bound], cluster_volumes=storage) == [FITS]
    assert forecast([raw_node("n1", zone="b")], [bound], cluster_volumes=storage) == [DOES_NOT]
    full = ClusterVolumes(storage.volume_by_claim, storage.topologies, {"n1": {"d": 0}})
    assert forecast([raw_node("n1", zone="a")], [bound], cluster_volumes=full) == [UNKNOWN]
    assert forecast([raw_node("n1", zone="a")], [bound]) == [UNKNOWN]


def test_a_pod_with_higher_priority_fits_first() -> None:
    assert forecast([raw_node("n1", cpu="1")], [raw_pod("p1"), raw_pod("p2", priority=10)]) == [DOES_NOT, FITS]


def test_a_pending_pod_is_in_the_group_of_equal_pods() -> None:
    pending = raw_pod("pending", node="")
    leaving, cluster = placement_input([raw_node("n1")], [raw_pod("p1"), pending])
    (group,) = PlacementProblem(cluster, leaving).groups
    assert (len(group.pod_indexes), group.competing_count) == (1, 1)


def test_a_pending_pod_may_take_the_room_first() -> None:
    assert forecast([raw_node("n1", cpu="1")], [raw_pod("p1"), raw_pod("waiting", node="")]) == [UNKNOWN]


@pytest.mark.parametrize(
    "spec",
    [
        {"schedulerName": "other"},
        {"resourceClaims": [{"name": "gpu"}]},
        {"volumes": [{"ephemeral": {}}]},
        {"volumes": [{"persistentVolumeClaim": {"claimName": "unbound"}}]},
        affinity("podAntiAffinity", selector={"matchLabels": {"statefulset.kubernetes.io/pod-name": "p1"}}),
    ],
)
def test_a_case_for_the_scheduler_is_unknown(spec: RawObject) -> None:
    (found,) = forecasts([raw_node("n1")], [raw_pod("p1", **spec)])
    assert found.fit is UNKNOWN
    assert found.reason


def test_with_more_nodes_than_pods_all_pods_fit() -> None:
    nodes = [raw_node(f"n{n}") for n in range(4)]
    assert forecast(nodes, [raw_pod("p1"), raw_pod("p2", schedulerName="other"), raw_pod("waiting", node="")]) == [
        FITS,
        UNKNOWN,
    ]
    assert forecast(nodes[:1], [raw_pod("p1"), raw_pod("p2", cpu="4", schedulerName="other")]) == [UNKNOWN, UNKNOWN]


class RecordedSimulation(planner._Simulation):
    """A simulation that remembers the bounds of each tried order, and verifies nothing."""

    def __init__(self, problem: PlacementProblem, random: Random) -> None:
        super().__init__(problem, random)
        self.tried: list[planner._Bounds] = []

    def _bounds_of(self, order: planner._Order, better_than: planner._Bounds | None = None) -> planner._Bounds:
        self.tried.append(super()._bounds_of(order, better_than))
        return self.tried[-1]

    def _verified(self, bounds: planner._Bounds) -> planner._Bounds:
        return bounds


SIZES = st.lists(st.integers(1, 8), min_size=1, max_size=8)


@settings(max_examples=30)
@given(SIZES, SIZES)
def test_no_more_pods_fit_than_the_nodes_have_room_for(nodes: list[int], pods: list[int]) -> None:
    made = [raw_node(f"n{n}", cpu=str(size)) for n, size in enumerate(nodes)]
    found = forecast(made, [raw_pod(f"p{n}", cpu=str(size)) for n, size in enumerate(pods)])
    assert sum(size for size, fit in zip(pods, found, strict=True) if fit is FITS) <= sum(nodes)
    assert all(size <= max(nodes) for size, fit in zip(pods, found, strict=True) if fit is FITS)


@settings(max_examples=30)
@given(SIZES, st.integers(1, 20))
def test_as_many_equal_pods_fit_as_the_nodes_have_room_for(nodes: list[int], pods: int) -> None:
    made = [raw_node(f"n{n}", cpu=str(size)) for n, size in enumerate(nodes)]
    found = forecast(made, [raw_pod(f"p{n}", cpu="2") for n in range(pods)])
    room = sum(size // 2 for size in nodes)
    assert found == [FITS] * min(room, pods) + [DOES_NOT] * max(0, pods - room)


BIG = raw_pod("big", cpu="4", labels={"app": "b"})


def test_large_pods_come_first_if_all_pods_then_fit() -> None:
    nodes = [raw_node("n1", cpu="8"), raw_node("n2", cpu="8")]
    found = forecasts(nodes, [*(raw_pod(f"p{n}") for n in range(12)), BIG])
    assert [each.fit for each in found] == [FITS] * 13
    assert found[-1].rank == 0


def test_small_pods_come_first_if_more_pods_then_fit() -> None:
    found = forecasts([raw_node("n1")], [BIG, raw_pod("p1"), raw_pod("p2")])
    assert [each.rank for each in found] == [2, 0, 1]
    assert [each.fit for each in found[1:]] == [FITS, FITS]


def test_a_pod_that_fits_in_one_of_both_orders_may_fit() -> None:
    assert forecast([raw_node("n1")], [BIG, raw_pod("p1"), raw_pod("p2")])[0] is UNKNOWN
    larger = raw_pod("larger", cpu="5", labels={"app": "b"})
    assert forecast([raw_node("n1")], [larger, raw_pod("p1"), raw_pod("p2")])[0] is DOES_NOT


def test_pods_keep_their_turn_if_the_scheduler_places_all_as_a_rule() -> None:
    nodes, pods = [raw_node("n1", cpu="4"), raw_node("n2", cpu="8")], [("p3", "3"), ("p4", "4"), ("p5", "5")]
    found = forecasts(nodes, [raw_pod(name, cpu=cpu, labels={"app": name}) for name, cpu in pods])
    assert [each.rank for each in found] == [2, 1, 0]
    assert [each.fit for each in found] == [FITS, UNKNOWN, UNKNOWN]  # if `p4` comes early, it may take the room of `p5`


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


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 10**9))
def test_the_same_plan_twice_is_the_same(number: int) -> None:
    leaving, ground = placement_input_of(random_cluster(number))
    assert plan(leaving, ground) == plan(leaving, ground)


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 10**9))
def test_ranks_are_an_order_and_pods_that_do_not_fit_are_last(number: int) -> None:
    leaving, ground = placement_input_of(random_cluster(number))
    found = plan(leaving, ground)
    assert sorted(each.rank for each in found) == list(range(len(found)))
    if any(each.fit is DOES_NOT and not each.colocated_uids for each in found):
        count = Counter(each.fit for each in found)
        assert all((each.rank < count[FITS]) == (each.fit is FITS) for each in found)
        assert all((each.rank >= len(found) - count[DOES_NOT]) == (each.fit is DOES_NOT) for each in found)
    assert all(bool(each.reason) == (each.fit is not Fit.FITS) for each in found)


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 10**9))
def test_order_of_a_plan_promises_no_fewer_pods_than_the_other(number: int) -> None:
    leaving, cluster = placement_input_of(random_cluster(number))
    problem = PlacementProblem(cluster, leaving)
    PodConstraints(problem).apply()
    simulation = RecordedSimulation(problem, Random(0))
    chosen = simulation.compute_bounds()
    for tried in simulation.tried:
        assert tried.most <= chosen.most
        if tried.order.keeps_turns == chosen.order.keeps_turns or not chosen.order.keeps_turns:
            assert tried.fewest.total() <= chosen.fewest.total()
    assert len(simulation.tried) <= 1 or simulation.tried[0].fewest.total() < sum(
        len(group.pod_indexes) for group in problem.groups if not group.unknown_reason
    )


def simulation_of(number: int) -> planner._Simulation:
    leaving, cluster = placement_input_of(random_cluster(number))
    problem = PlacementProblem(cluster, leaving)
    PodConstraints(problem).apply()
    return planner._Simulation(problem, Random(0))


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 10**9))
def test_an_order_with_some_pods_first_has_the_same_pods(number: int) -> None:
    for order in simulation_of(number)._orders():
        counts = Counter({group: order.groups.count(group) // 2 for group in order.groups})
        changed = order.with_first(counts)
        assert sorted(zip(changed.pod_indexes, map(id, changed.groups), strict=True)) == sorted(
            zip(order.pod_indexes, map(id, order.groups), strict=True)
        )
        assert [group.requirements.priority for group in changed.groups] == sorted(
            (group.requirements.priority for group in order.groups), reverse=True
        )
        for priority in {group.requirements.priority for group in order.groups}:
            same = [group for group in changed.groups if group.requirements.priority == priority]
            first = sum(count for group, count in counts.items() if group.requirements.priority == priority)
            assert Counter(same[:first]) == +Counter({group: counts[group] for group in same})


def test_a_plan_promises_pods_that_every_run_places_after_the_others() -> None:
    more = []
    for number in (29, 31, 83, 177, 187):
        simulation = simulation_of(number)
        first = simulation._bounds_of(simulation._orders()[0])
        more.append(simulation._with_later_pods(first).fewest.total() - first.fewest.total())
    assert min(more) >= 0
    assert max(more) > 0


def test_a_plan_starts_its_counts_from_several_runs() -> None:
    simulation, once = simulation_of(43), simulation_of(43)
    order = simulation._orders()[1]
    start = simulation._count_placed(default_score, order.groups)
    best = simulation._best_guaranteed_counts(order, start, -1)
    assert best.total() > once._guaranteed_counts(once._orders()[1], start, -1).total()


def test_what_the_luckiest_count_promised_is_verified() -> None:
    simulation = simulation_of(259)
    verified = simulation.compute_bounds()
    queue, _ = planner._split(verified.order, verified.fewest)
    for _ in range(200):
        placed = simulation._count_placed(simulation._tied_score, simulation._perturb_order(queue).groups)
        assert not verified.fewest - placed
