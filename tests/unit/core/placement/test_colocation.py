"""Colocated pods: which pods must leave together, and one forecast for all of them."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.random_clusters import random_cluster
from harness.scheduler_check import placement_input_of
from rescheduler.core.model.raw import RawObject
from rescheduler.core.placement.planner import plan
from unit.builders import ZONE, raw_node, raw_pod
from unit.core.placement.forecasting import DOES_NOT, FITS, UNKNOWN, affinity, forecast, forecasts


def near(name: str, wants: str, label: str | None = None, **more: Any) -> RawObject:
    """Return a pod of app `label`, by default its own name, that requires a pod of app `wants` on its node."""
    where = affinity("podAffinity", selector={"matchLabels": {"app": wants}})
    return raw_pod(name, labels={"app": label or name}, **where, **more)


def colocated(nodes: list[RawObject], pods: list[RawObject]) -> list[set[str]]:
    """Return the names of the pods that must leave together with each pod of the drained node."""
    return [set(found.colocated_uids) for found in forecasts(nodes, pods)]


ROOMY, SMALL = raw_node("n1", cpu="8"), raw_node("n2", cpu="1500m")


def test_pods_that_require_each_other_leave_together() -> None:
    pods = [near("a", "b"), near("b", "a"), raw_pod("c")]
    assert colocated([ROOMY], pods) == [{"a", "b"}, {"a", "b"}, set()]


def test_three_pods_in_a_circle_leave_together() -> None:
    pods = [near("a", "b"), near("b", "c"), near("c", "a")]
    assert colocated([ROOMY], pods) == [{"a", "b", "c"}] * 3


def test_pods_of_one_owner_with_affinity_to_themselves_leave_together() -> None:
    assert colocated([ROOMY], [near("a1", "a", "a"), near("a2", "a", "a")]) == [{"a1", "a2"}] * 2
    assert colocated([ROOMY], [near("a1", "a", "a")]) == [{"a1"}]


def test_a_pod_that_only_follows_another_leaves_by_itself() -> None:
    assert colocated([ROOMY], [near("a", "b"), raw_pod("b", labels={"app": "b"})]) == [set(), set()]


def test_a_pod_that_follows_colocated_pods_leaves_by_itself() -> None:
    assert colocated([ROOMY], [near("a", "b"), near("b", "b")]) == [set(), {"b"}]


def test_a_pod_with_company_on_another_node_leaves_by_itself() -> None:
    assert colocated([ROOMY], [near("a1", "a", "a"), near("a2", "a", "a", node="n1")]) == [set()]


def test_company_on_a_node_that_takes_no_pods_does_not_help() -> None:
    cordoned = raw_node("n3", unschedulable=True)
    assert colocated([ROOMY, cordoned], [near("a1", "a", "a"), near("a2", "a", "a", node="n3")]) == [{"a1"}]


def test_pods_that_share_a_zone_leave_by_themselves_if_the_zone_has_another_node() -> None:
    pod = raw_pod("a", labels={"app": "a"}, **affinity("podAffinity", key=ZONE))
    here = raw_node("n", zone="z1")
    assert colocated([here, raw_node("n1", zone="z1")], [pod]) == [set()]
    assert colocated([here, raw_node("n1", zone="z2")], [pod]) == [{"a"}]


def test_colocated_pods_fit_if_each_node_has_room_for_all() -> None:
    pods = [near("a1", "a", "a"), near("a2", "a", "a")]
    assert forecast([ROOMY], pods) == [FITS, FITS]


def test_colocated_pods_do_not_all_fit_if_no_node_has_room_for_all() -> None:
    found = forecasts([SMALL, raw_node("n3", cpu="1500m")], [near("a1", "a", "a"), near("a2", "a", "a")])
    assert [(each.fit, each.blocked_by_pods) for each in found] == [(UNKNOWN, False), (DOES_NOT, False)]
    assert found[1].reason == "no other node has room for all 2 pods that must share it: s/a1, s/a2"


def test_colocated_pods_are_unknown_if_only_some_nodes_have_room_for_all() -> None:
    nodes = [raw_node("n1", cpu="2"), *(raw_node(f"n{n}", cpu="1900m") for n in range(2, 9))]
    assert forecast(nodes, [near("a1", "a", "a"), near("a2", "a", "a")]) == [UNKNOWN, UNKNOWN]


def test_a_pod_without_room_keeps_its_own_reason() -> None:
    found = forecasts([SMALL], [near("a1", "a", "a"), near("a2", "a", "a", cpu="3")])
    assert [each.fit for each in found] == [UNKNOWN, DOES_NOT]
    assert "too little cpu" in (found[1].reason or "")


@pytest.mark.parametrize("staying", [True, False])
def test_colocated_pods_that_pods_that_stay_keep_off_may_have_room(staying: bool) -> None:
    where = affinity("podAffinity", selector={"matchLabels": {"app": "a"}})["affinity"]
    where |= affinity("podAntiAffinity", selector={"matchLabels": {"app": "x"}})["affinity"]
    apart = raw_pod("a1", labels={"app": "a"}, affinity=where)
    pods = [apart, near("a2", "a", "a"), *([raw_pod("x", labels={"app": "x"}, node="n1")] if staying else [])]
    assert [each.blocked_by_pods for each in forecasts([ROOMY], pods)] == [staying, False]


def test_pods_of_which_none_can_be_the_first_are_kept_off_by_pods() -> None:
    found = forecasts([ROOMY], [near("a", "b"), near("b", "a")])
    assert [(each.fit, each.blocked_by_pods) for each in found] == [(DOES_NOT, True)] * 2
    assert "blocked by affinity" in (found[0].reason or "")


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**9))
def test_colocated_pods_name_each_other_and_fit_all_or_none(number: int) -> None:
    leaving, cluster = placement_input_of(random_cluster(number))
    found = {pod.uid: each for pod, each in zip(leaving, plan(leaving, cluster), strict=True)}
    for uid, each in found.items():
        assert not each.colocated_uids or uid in each.colocated_uids
        mates = [found[mate] for mate in each.colocated_uids]
        assert {(mate.colocated_uids, mate.fit == FITS) for mate in mates} <= {(each.colocated_uids, each.fit == FITS)}
