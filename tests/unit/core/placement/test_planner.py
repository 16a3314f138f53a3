"""Plans: each rule of the scheduler on its own, and laws that hold in every cluster."""

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rescheduler.core.model import nodes as model_nodes
from rescheduler.core.model.volume_topology import ClusterVolumes, parse_volume_topology
from rescheduler.core.placement.planner import Fit, plan
from rescheduler.core.placement.pod_requirements import PodRequirementsParser
from rescheduler.core.placement.pod_snapshot import PodSnapshot, ScheduledPod
from rescheduler.core.placement.problem import PlacementInput

Raw = dict[str, Any]
FITS, DOES_NOT, UNKNOWN = Fit.FITS, Fit.DOES_NOT_FIT, Fit.UNKNOWN
HOST, ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"
SELF = {"matchLabels": {"app": "a"}}


def node(name: str, cpu: str = "4", *, pods: str = "20", zone: str = "", more: Raw | None = None, **spec: Any) -> Raw:
    labels = {HOST: name} | ({ZONE: zone} if zone else {})
    size = {"cpu": cpu, "memory": "16Gi", "pods": pods, **(more or {})}
    return {"metadata": {"name": name, "labels": labels}, "spec": spec, "status": {"allocatable": size}}


def pod(name: str, on: str = "old", cpu: str = "1", *, labels: Raw | None = None, **spec: Any) -> Raw:
    requests = {"cpu": cpu, **spec.pop("more", {})}
    meta = {"namespace": "s", "name": name, "uid": name, "labels": labels or {"app": "a"}}
    box = {"name": "c", "resources": {"requests": requests}, "ports": spec.pop("ports", [])}
    return {"metadata": meta, "spec": {"nodeName": on, "containers": [box], **spec}}


def forecast(nodes: Sequence[Raw], pods: Sequence[Raw], **more: Any) -> list[Fit]:
    """Plan the drain of the old node, with its pods in this order."""
    return [each.fit for each in forecasts(nodes, pods, **more)]


def forecasts(nodes: Sequence[Raw], pods: Sequence[Raw], **more: Any) -> Any:
    leaving, ground = situation(nodes, pods, **more)
    return plan(leaving, ground, Random(0))


def situation(nodes: Sequence[Raw], pods: Sequence[Raw], **more: Any) -> tuple[list[ScheduledPod], PlacementInput]:
    census = PodSnapshot(PodRequirementsParser(), {"old"})
    for each in pods:
        census.add(each)
    known = {n.name: n for n in map(model_nodes.parse_node, [node("old", "16"), *nodes])}
    return census.pods_by_node["old"], PlacementInput(known, census, competing_pods=census.pending, **more)


def affine(kind: str, key: str = HOST, selector: Raw | None = None, **more: Any) -> Raw:
    term = {"topologyKey": key, "labelSelector": selector or SELF, **more}
    return {"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}


def spread(key: str = ZONE, skew: int = 1, **more: Any) -> Raw:
    constraint = {"topologyKey": key, "maxSkew": skew, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": SELF}
    return {"topologySpreadConstraints": [constraint | more]}


def test_requests_of_all_pods_count_together() -> None:
    assert forecast([node("n1", "2")], [pod("p1"), pod("p2"), pod("p3")]) == [FITS, FITS, DOES_NOT]


def test_requests_of_running_pods_are_not_free() -> None:
    assert forecast([node("n1", "2")], [pod("p1"), pod("there", "n1", "1500m")]) == [DOES_NOT]


def test_a_finished_pod_takes_no_room() -> None:
    done = pod("done", "n1", "2") | {"status": {"phase": "Succeeded"}}
    assert forecast([node("n1", "2")], [pod("p1"), done]) == [FITS]


def test_a_node_takes_no_more_pods_than_its_limit() -> None:
    assert forecast([node("n1", pods="2")], [pod("p1"), pod("p2"), pod("there", "n1")]) == [FITS, DOES_NOT]


def test_extended_resources_count() -> None:
    gpu: dict[str, Any] = {"more": {"example.com/gpu": "1"}}
    nodes = [node("n1", more={"example.com/gpu": "1"}), node("n2")]
    assert forecast(nodes, [pod("p1", **gpu), pod("p2", **gpu)]) == [FITS, DOES_NOT]


def test_a_resource_that_no_node_offers_may_come_from_a_driver() -> None:
    assert forecast([node("n1")], [pod("p1", more={"example.com/gpu": "1"})]) == [UNKNOWN]


def test_a_taint_keeps_off_pods_that_do_not_tolerate_it() -> None:
    tainted = node("n1", taints=[{"key": "own", "value": "x", "effect": "NoSchedule"}])
    tolerant = pod("p2", tolerations=[{"key": "own", "operator": "Exists"}])
    assert forecast([tainted], [pod("p1"), tolerant]) == [DOES_NOT, FITS]


@pytest.mark.parametrize(("zone", "fit"), [("a", FITS), ("b", DOES_NOT)])
def test_node_affinity_decides(zone: str, fit: Fit) -> None:
    terms = [{"matchExpressions": [{"key": ZONE, "operator": "In", "values": ["a"]}]}]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    assert forecast([node("n1", zone=zone)], [pod("p1", affinity={"nodeAffinity": required})]) == [fit]


def test_cordoned_excluded_and_deleting_nodes_take_no_pods() -> None:
    going = node("n3")
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert forecast([node("n1", unschedulable=True), node("n2"), going], [pod("p1")], excluded_nodes={"n2"}) == [
        DOES_NOT
    ]


def test_anti_affinity_keeps_its_own_pods_apart() -> None:
    apart = affine("podAntiAffinity")
    assert forecast([node("n1")], [pod("p1", **apart), pod("p2", **apart)]) == [FITS, DOES_NOT]


@pytest.mark.parametrize("who", ["the one that leaves", "the one that stays"])
def test_anti_affinity_holds_both_ways(who: str) -> None:
    free: dict[str, Any] = {}
    apart = affine("podAntiAffinity", selector={"matchExpressions": [{"key": "app", "operator": "Exists"}]})
    leaving, staying = (apart, free) if who == "the one that leaves" else (free, apart)
    pods = [pod("p1", **leaving), pod("there", "n1", labels={"app": "b"}, **staying)]
    assert forecast([node("n1")], pods) == [DOES_NOT]


def test_anti_affinity_asks_for_labels_of_namespaces() -> None:
    apart = affine("podAntiAffinity", namespaceSelector={"matchLabels": {"team": "x"}})
    pods = [pod("p1", **apart), pod("there", "n1")]
    assert forecast([node("n1")], pods, namespace_labels={"s": {"team": "x"}}) == [DOES_NOT]
    assert forecast([node("n1")], pods, namespace_labels={"s": {"team": "y"}}) == [FITS]


def test_affinity_needs_a_selected_pod() -> None:
    near = affine("podAffinity", selector={"matchLabels": {"app": "b"}})
    company = pod("there", "n1", labels={"app": "b"})
    assert forecast([node("n1"), node("n2")], [pod("p1", **near), company]) == [FITS]
    assert forecast([node("n1"), node("n2")], [pod("p1", **near)]) == [DOES_NOT]


def test_a_pod_selected_by_its_own_affinity_may_be_the_first() -> None:
    assert forecast([node("n1")], [pod("p1", **affine("podAffinity"))]) == [FITS]


def test_spread_is_limited_by_the_emptiest_domain() -> None:
    nodes = [node("n1", zone="a"), node("n2", "1", zone="b")]
    assert forecast(nodes, [pod(f"p{n}", **spread()) for n in range(4)]) == [FITS, FITS, FITS, DOES_NOT]


def test_a_host_port_is_used_once_on_a_node() -> None:
    port: dict[str, Any] = {"ports": [{"containerPort": 80, "hostPort": 8080}]}
    assert forecast([node("n1")], [pod("p1", **port), pod("p2", **port)]) == [FITS, DOES_NOT]


def test_a_volume_ties_its_pod_to_a_zone() -> None:
    terms = [{"matchExpressions": [{"key": ZONE, "operator": "In", "values": ["a"]}]}]
    spec = {"nodeAffinity": {"required": {"nodeSelectorTerms": terms}}, "csi": {"driver": "d"}}
    storage = ClusterVolumes(
        {("s", "data"): "v"}, {"v": parse_volume_topology({"metadata": {"name": "v"}, "spec": spec})}
    )
    bound = pod("p1", volumes=[{"persistentVolumeClaim": {"claimName": "data"}}])
    assert forecast([node("n1", zone="a")], [bound], cluster_volumes=storage) == [FITS]
    assert forecast([node("n1", zone="b")], [bound], cluster_volumes=storage) == [DOES_NOT]
    full = ClusterVolumes(storage.volume_by_claim, storage.topologies, {"n1": {"d": 0}})
    assert forecast([node("n1", zone="a")], [bound], cluster_volumes=full) == [UNKNOWN]
    assert forecast([node("n1", zone="a")], [bound]) == [UNKNOWN]


def test_a_pod_with_higher_priority_fits_first() -> None:
    assert forecast([node("n1", "1")], [pod("p1"), pod("p2", priority=10)]) == [DOES_NOT, FITS]


def test_a_pending_pod_may_take_the_room_first() -> None:
    assert forecast([node("n1", "1")], [pod("p1"), pod("waiting", "")]) == [UNKNOWN]


@pytest.mark.parametrize(
    "spec",
    [
        {"schedulerName": "other"},
        {"resourceClaims": [{"name": "gpu"}]},
        {"volumes": [{"ephemeral": {}}]},
        {"volumes": [{"persistentVolumeClaim": {"claimName": "unbound"}}]},
        affine("podAntiAffinity", selector={"matchLabels": {"statefulset.kubernetes.io/pod-name": "p1"}}),
    ],
)
def test_a_case_for_the_scheduler_is_unknown(spec: Raw) -> None:
    (found,) = forecasts([node("n1")], [pod("p1", **spec)])
    assert found.fit is UNKNOWN
    assert found.reason


def test_with_more_nodes_than_pods_all_pods_fit() -> None:
    nodes = [node(f"n{n}") for n in range(4)]
    assert forecast(nodes, [pod("p1"), pod("p2", schedulerName="other"), pod("waiting", "")]) == [FITS, UNKNOWN]
    assert forecast(nodes[:1], [pod("p1"), pod("p2", cpu="4", schedulerName="other")]) == [UNKNOWN, UNKNOWN]


SIZES = st.lists(st.integers(1, 8), min_size=1, max_size=8)


@settings(max_examples=30)
@given(SIZES, SIZES)
def test_no_more_pods_fit_than_the_nodes_have_room_for(nodes: list[int], pods: list[int]) -> None:
    made = [node(f"n{n}", str(size)) for n, size in enumerate(nodes)]
    found = forecast(made, [pod(f"p{n}", cpu=str(size)) for n, size in enumerate(pods)])
    assert sum(size for size, fit in zip(pods, found, strict=True) if fit is FITS) <= sum(nodes)
    assert all(size <= max(nodes) for size, fit in zip(pods, found, strict=True) if fit is FITS)


@settings(max_examples=30)
@given(SIZES, st.integers(1, 20))
def test_as_many_equal_pods_fit_as_the_nodes_have_room_for(nodes: list[int], pods: int) -> None:
    made = [node(f"n{n}", str(size)) for n, size in enumerate(nodes)]
    found = forecast(made, [pod(f"p{n}", cpu="2") for n in range(pods)])
    room = sum(size // 2 for size in nodes)
    assert found == [FITS] * min(room, pods) + [DOES_NOT] * max(0, pods - room)
