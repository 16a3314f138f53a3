"""Which pods that are out of place are moved, and why the others stay."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rescheduler.api import names
from rescheduler.api.policies import Suspend
from rescheduler.core.model.nodes import Node, NodeCondition
from rescheduler.core.model.resource_requests import Amounts
from rescheduler.core.model.wait_reasons import Held, Hold
from rescheduler.core.pools import labels_and_taints, move_selection
from rescheduler.core.pools.misplaced_pods import Misplaced
from rescheduler.core.pools.move_selection import Journeys, Plan, Site

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=1)


def node(name: str, pool: str | None = None, *, cpu: int = 1000, ready: str = "True", **more: Any) -> Node:
    labels = {names.NODE_POOL: pool} if pool else {}
    room = {"cpu": cpu, "pods": 10}
    return Node(name, name, labels=labels, conditions=(NodeCondition("Ready", ready),), allocatable=room, **more)


def pod(name: str = "x", *, on: str = "out", cpu: int = 100, **more: Any) -> Misplaced:
    made = {"namespace": "a", "uid": name, "node": on, "pool": "a", "home": "a", "owner": "o", "asked": {"cpu": cpu}}
    return Misplaced(name=name, **(made | more))


def site(*nodes: Node, used: Mapping[str, Amounts] | None = None, **more: Any) -> Site:
    ground = {n.name: n.labels.get(names.NODE_POOL) for n in nodes}
    made = {
        "settled": lambda _: True,
        "mapped": lambda *_: LONG_AGO,
        "held": lambda _: None,
        "suspend": lambda _: Suspend.NONE,
        "journeys": Journeys(),
    }
    return Site(now=NOW, nodes={n.name: n for n in nodes}, ground=ground, used=used or {}, **(made | more))


def plan(*pods: Misplaced, where: Site | None = None) -> Plan:
    return move_selection.plan(pods, where or site(node("out"), node("in", "a")))


def classes(found: Plan, pool: str = "a") -> list[str]:
    return [blocker.class_ for blocker in found.blockers.get(pool, [])]


def test_a_pod_outside_goes_home() -> None:
    assert plan(pod()).errands == {"out": {"x": "NamespacePool/a"}}


def test_nothing_moves_before_every_api_server_knows_the_namespaces_label() -> None:
    """The replacement would come up outside again."""
    found = plan(pod(), where=site(node("out"), node("in", "a"), settled=lambda _: False))
    assert found == Plan()


def test_a_pod_that_no_node_of_its_pool_meets_stays_and_is_named() -> None:
    found = plan(pod(where={"nodeSelector": {"gpu": "yes"}}))
    assert not found.errands
    assert classes(found) == ["NoRoomInPool"]


def test_the_selector_of_the_pool_that_it_was_made_for_does_not_count() -> None:
    assert plan(pod(where={"nodeSelector": {names.NODE_POOL: "old"}})).errands


@pytest.mark.parametrize("more", [{"ready": "Unknown"}, {"unschedulable": True}, {"deleting": True}])
def test_a_node_that_takes_no_pods_is_no_place_to_go(more: dict[str, Any]) -> None:
    assert classes(plan(pod(), where=site(node("out"), node("in", "a", **more)))) == ["NoRoomInPool"]


def test_a_node_that_is_not_labelled_yet_would_not_take_it() -> None:
    where = replace(site(node("out"), node("in")), ground={"in": "a"})
    assert classes(plan(pod(), where=where)) == ["NoRoomInPool"]


def test_room_is_given_once() -> None:
    where = site(node("out"), node("in", "a"), used={"in": {"cpu": 750, "pods": 1}})
    found = plan(pod("p1"), pod("p2"), pod("p3"), where=where)
    assert found.errands == {"out": {"p1": "NamespacePool/a", "p2": "NamespacePool/a"}}
    assert [(b.pod, b.class_) for b in found.blockers["a"]] == [("p3", "NoRoomInPool")]
    assert "cpu 100m" in found.blockers["a"][0].message


def test_what_was_let_go_of_has_its_room_already() -> None:
    where = site(node("out"), node("in", "a"), used={"in": {"cpu": 1000, "pods": 1}})
    assert plan(pod(released=True), where=where).errands


def test_a_stranger_goes_wherever_taints_let_it() -> None:
    there = node("in", "a", taints=(labels_and_taints.taint("a"),))
    guest = pod(on="in", home=None, namespace="other")
    assert plan(guest, where=site(there, node("free"))).errands == {"in": {"x": "NamespacePool/a"}}
    taken = node("b1", "b", taints=(labels_and_taints.taint("b"),))
    assert classes(plan(guest, where=site(there, taken))) == ["NoRoomInPool"]


def test_a_stranger_stays_where_no_taint_would_keep_it_off() -> None:
    found = plan(pod(on="in", home=None), where=site(node("in", "a"), node("free")))
    assert classes(found) == ["TaintHeldBack"]


def test_without_a_policy_nothing_moves_and_the_pool_says_so() -> None:
    held = Held(Hold.NO_POLICY, "no ReschedulePolicy selects its node out")
    found = plan(pod(), where=site(node("out"), node("in", "a"), held=lambda _: held))
    assert not found.errands
    assert [(b.class_, b.message) for b in found.blockers["a"]] == [("NoPolicy", held.message)]


def test_suspended_for_what_is_new_what_has_begun_goes_on() -> None:
    held = Held(Hold.SUSPENDED, "suspend: New")
    where = site(node("out"), node("in", "a"), held=lambda _: held, suspend=lambda _: Suspend.NEW)
    found = plan(pod("old", released=True), pod("new"), where=where)
    assert found.errands == {"out": {"old": "NamespacePool/a"}}
    assert classes(found) == ["Suspended"]


def test_a_node_that_is_not_ready_is_left_to_its_drain() -> None:
    found = plan(pod(), where=site(node("out", ready="Unknown"), node("in", "a")))
    assert classes(found) == ["NodeNotReady"]


def test_what_came_up_out_of_place_again_is_left_for_a_while() -> None:
    journeys = Journeys()
    journeys.left("o", "a", NOW - timedelta(minutes=1))
    later, before = pod("p1", created=NOW), pod("p2", created=NOW - timedelta(hours=1))
    found = plan(later, before, where=site(node("out"), node("in", "a"), journeys=journeys))
    assert found.errands == {"out": {"p2": "NamespacePool/a"}}
    assert classes(found) == ["CameBack"]


def test_what_stands_where_it_was_right_a_moment_ago_did_not_come_back() -> None:
    """Its namespace or its node was mapped otherwise since: that is another change."""
    journeys = Journeys()
    journeys.left("o", "a", NOW - timedelta(minutes=2))
    arrived = pod(created=NOW - timedelta(minutes=1))
    where = site(node("out"), node("in", "a"), journeys=journeys)
    assert classes(plan(arrived, where=where)) == ["CameBack"]
    assert plan(arrived, where=replace(where, mapped=lambda *_: NOW)).errands


def test_a_move_to_another_pool_is_another_journey() -> None:
    journeys = Journeys()
    journeys.left("o", "b", NOW - timedelta(minutes=1))
    assert journeys.again(pod(created=NOW), LONG_AGO, NOW) is None


def test_after_a_while_it_is_tried_again() -> None:
    journeys = Journeys()
    journeys.left("o", "a", NOW)
    assert journeys.again(pod(created=NOW), LONG_AGO, NOW + timedelta(minutes=14)) == NOW + timedelta(minutes=15)
    assert journeys.again(pod(created=NOW), LONG_AGO, NOW + timedelta(minutes=16)) is None
