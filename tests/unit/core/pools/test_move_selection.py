"""Which pods that are out of place are moved, and why the others stay."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rescheduler.api import names
from rescheduler.api.policies import Suspend
from rescheduler.core.model.nodes import Node, NodeCondition
from rescheduler.core.model.resource_requests import ResourceList
from rescheduler.core.model.wait_reasons import ProgressingReason, WaitReason
from rescheduler.core.pools import labels_and_taints, move_selection
from rescheduler.core.pools.misplaced_pods import MisplacedPod
from rescheduler.core.pools.move_selection import MoveSelection, MoveSelectionInput, PoolMoveHistory

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=1)


def node(name: str, pool: str | None = None, *, cpu: int = 1000, ready: str = "True", **more: Any) -> Node:
    labels = {names.NODE_POOL: pool} if pool else {}
    room = {"cpu": cpu, "pods": 10}
    return Node(name, name, labels=labels, conditions=(NodeCondition("Ready", ready),), allocatable=room, **more)


def pod(name: str = "x", *, on: str = "out", cpu: int = 100, **more: Any) -> MisplacedPod:
    made = {
        "namespace": "a",
        "uid": name,
        "node": on,
        "requesting_pool": "a",
        "target_pool": "a",
        "owner_uid": "o",
        "resource_requests": {"cpu": cpu},
    }
    return MisplacedPod(name=name, **(made | more))


def site(*nodes: Node, used: Mapping[str, ResourceList] | None = None, **more: Any) -> MoveSelectionInput:
    ground = {n.name: n.labels.get(names.NODE_POOL) for n in nodes}
    made = {
        "is_label_propagated": lambda _: True,
        "mapped_since": lambda *_: LONG_AGO,
        "wait_reason": lambda _: None,
        "suspend": lambda _: Suspend.NONE,
        "move_history": PoolMoveHistory(),
    }
    return MoveSelectionInput(
        now=NOW, nodes={n.name: n for n in nodes}, pool_of_node=ground, requests_by_node=used or {}, **(made | more)
    )


def plan(*pods: MisplacedPod, where: MoveSelectionInput | None = None) -> MoveSelection:
    return move_selection.select(pods, where or site(node("out"), node("in", "a")))


def classes(found: MoveSelection, pool: str = "a") -> list[str]:
    return [blocker.class_ for blocker in found.blockers.get(pool, [])]


def test_a_pod_outside_goes_home() -> None:
    assert plan(pod()).migration_requests == {"out": {"x": "NamespacePool/a"}}


def test_nothing_moves_before_every_api_server_knows_the_namespaces_label() -> None:
    """The replacement would come up outside again."""
    found = plan(pod(), where=site(node("out"), node("in", "a"), is_label_propagated=lambda _: False))
    assert found == MoveSelection()


def test_a_pod_that_no_node_of_its_pool_meets_stays_and_is_named() -> None:
    found = plan(pod(scheduling_constraints={"nodeSelector": {"gpu": "yes"}}))
    assert not found.migration_requests
    assert classes(found) == ["NoRoomInPool"]


def test_the_selector_of_the_pool_that_it_was_made_for_does_not_count() -> None:
    assert plan(pod(scheduling_constraints={"nodeSelector": {names.NODE_POOL: "old"}})).migration_requests


@pytest.mark.parametrize("more", [{"ready": "Unknown"}, {"unschedulable": True}, {"deleting": True}])
def test_a_node_that_takes_no_pods_is_no_place_to_go(more: dict[str, Any]) -> None:
    assert classes(plan(pod(), where=site(node("out"), node("in", "a", **more)))) == ["NoRoomInPool"]


def test_a_node_that_is_not_labelled_yet_would_not_take_it() -> None:
    where = replace(site(node("out"), node("in")), pool_of_node={"in": "a"})
    assert classes(plan(pod(), where=where)) == ["NoRoomInPool"]


def test_room_is_given_once() -> None:
    where = site(node("out"), node("in", "a"), used={"in": {"cpu": 750, "pods": 1}})
    found = plan(pod("p1"), pod("p2"), pod("p3"), where=where)
    assert found.migration_requests == {"out": {"p1": "NamespacePool/a", "p2": "NamespacePool/a"}}
    assert [(b.pod, b.class_) for b in found.blockers["a"]] == [("p3", "NoRoomInPool")]
    assert "cpu 100m" in found.blockers["a"][0].message


def test_what_was_let_go_of_has_its_room_already() -> None:
    where = site(node("out"), node("in", "a"), used={"in": {"cpu": 1000, "pods": 1}})
    assert plan(pod(released=True), where=where).migration_requests


def test_a_stranger_goes_wherever_taints_let_it() -> None:
    there = node("in", "a", taints=(labels_and_taints.pool_taint("a"),))
    guest = pod(on="in", target_pool=None, namespace="other")
    assert plan(guest, where=site(there, node("free"))).migration_requests == {"in": {"x": "NamespacePool/a"}}
    taken = node("b1", "b", taints=(labels_and_taints.pool_taint("b"),))
    assert classes(plan(guest, where=site(there, taken))) == ["NoRoomInPool"]


def test_a_stranger_stays_where_no_taint_would_keep_it_off() -> None:
    found = plan(pod(on="in", target_pool=None), where=site(node("in", "a"), node("free")))
    assert classes(found) == ["TaintHeldBack"]


def test_without_a_policy_nothing_moves_and_the_pool_says_so() -> None:
    held = WaitReason(ProgressingReason.NO_POLICY, "no ReschedulePolicy selects its node out")
    found = plan(pod(), where=site(node("out"), node("in", "a"), wait_reason=lambda _: held))
    assert not found.migration_requests
    assert [(b.class_, b.message) for b in found.blockers["a"]] == [("NoPolicy", held.message)]


def test_suspended_for_what_is_new_what_has_begun_goes_on() -> None:
    held = WaitReason(ProgressingReason.SUSPENDED, "suspend: New")
    where = site(node("out"), node("in", "a"), wait_reason=lambda _: held, suspend=lambda _: Suspend.NEW)
    found = plan(pod("old", released=True), pod("new"), where=where)
    assert found.migration_requests == {"out": {"old": "NamespacePool/a"}}
    assert classes(found) == ["Suspended"]


def test_a_node_that_is_not_ready_is_left_to_its_drain() -> None:
    found = plan(pod(), where=site(node("out", ready="Unknown"), node("in", "a")))
    assert classes(found) == ["NodeNotReady"]


def test_what_came_up_out_of_place_again_is_left_for_a_while() -> None:
    journeys = PoolMoveHistory()
    journeys.record_move("o", "a", NOW - timedelta(minutes=1))
    later, before = pod("p1", created=NOW), pod("p2", created=NOW - timedelta(hours=1))
    found = plan(later, before, where=site(node("out"), node("in", "a"), move_history=journeys))
    assert found.migration_requests == {"out": {"p2": "NamespacePool/a"}}
    assert classes(found) == ["CameBack"]


def test_what_stands_where_it_was_right_a_moment_ago_did_not_come_back() -> None:
    """Its namespace or its node was mapped otherwise since: that is another change."""
    journeys = PoolMoveHistory()
    journeys.record_move("o", "a", NOW - timedelta(minutes=2))
    arrived = pod(created=NOW - timedelta(minutes=1))
    where = site(node("out"), node("in", "a"), move_history=journeys)
    assert classes(plan(arrived, where=where)) == ["CameBack"]
    assert plan(arrived, where=replace(where, mapped_since=lambda *_: NOW)).migration_requests


def test_a_move_to_another_pool_is_another_journey() -> None:
    journeys = PoolMoveHistory()
    journeys.record_move("o", "b", NOW - timedelta(minutes=1))
    assert journeys.hold_until(pod(created=NOW), LONG_AGO, NOW) is None


def test_after_a_while_it_is_tried_again() -> None:
    journeys = PoolMoveHistory()
    journeys.record_move("o", "a", NOW)
    assert journeys.hold_until(pod(created=NOW), LONG_AGO, NOW + timedelta(minutes=14)) == NOW + timedelta(minutes=15)
    assert journeys.hold_until(pod(created=NOW), LONG_AGO, NOW + timedelta(minutes=16)) is None
