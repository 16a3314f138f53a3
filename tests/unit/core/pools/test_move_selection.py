"""Select the misplaced pods to move, and report why the others stay."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from rescheduler.api import names
from rescheduler.api.policies import Suspend
from rescheduler.core.model.node_affinity import NodeConstraints
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.resource_requests import ResourceList
from rescheduler.core.model.wait_reasons import ProgressingReason, WaitReason
from rescheduler.core.pools import labels_and_taints, move_selection
from rescheduler.core.pools.misplaced_pods import MisplacedPod
from rescheduler.core.pools.move_selection import MoveSelection, MoveSelectionInput, PoolMoveHistory
from unit.builders import NOW, node

LONG_AGO = NOW - timedelta(days=1)


def misplaced_pod(name: str = "x", *, on: str = "out", cpu: int = 100, **more: Any) -> MisplacedPod:
    made: dict[str, Any] = {
        "namespace": "a",
        "uid": name,
        "node": on,
        "requesting_pool": "a",
        "target_pool": "a",
        "owner_uid": "o",
        "resource_requests": {"cpu": cpu},
    }
    return MisplacedPod(name=name, **(made | more))


def inputs_of(*nodes: Node, used: Mapping[str, ResourceList] | None = None, **more: Any) -> MoveSelectionInput:
    ground = {n.name: n.labels.get(names.NODE_POOL) for n in nodes}
    made: dict[str, Any] = {
        "is_label_propagated": lambda _: True,
        "mapped_since": lambda *_: LONG_AGO,
        "wait_reason": lambda _: None,
        "suspend": lambda _: Suspend.NONE,
        "move_history": PoolMoveHistory(),
    }
    return MoveSelectionInput(
        now=NOW, nodes={n.name: n for n in nodes}, pool_of_node=ground, requests_by_node=used or {}, **(made | more)
    )


def plan(*pods: MisplacedPod, inputs: MoveSelectionInput | None = None) -> MoveSelection:
    return move_selection.select(pods, inputs or inputs_of(node("out"), node("in", pool="a")))


def classes(found: MoveSelection, pool: str = "a") -> list[str]:
    return [blocker.class_ for blocker in found.blockers.get(pool, [])]


def test_pod_outside_moves_to_its_pool() -> None:
    assert plan(misplaced_pod()).migration_requests == {"out": {"x": "NamespacePool/a"}}


def test_no_pod_moves_before_the_namespace_label_has_propagated() -> None:
    """Otherwise the replacement would come up outside again."""
    found = plan(
        misplaced_pod(), inputs=inputs_of(node("out"), node("in", pool="a"), is_label_propagated=lambda _: False)
    )
    assert found == MoveSelection()


def test_pod_that_matches_no_node_of_its_pool_is_a_blocker() -> None:
    found = plan(misplaced_pod(node_constraints=NodeConstraints({"nodeSelector": {"gpu": "yes"}})))
    assert not found.migration_requests
    assert classes(found) == ["NoRoomInPool"]


def test_selector_of_an_earlier_pool_is_ignored() -> None:
    assert plan(
        misplaced_pod(node_constraints=NodeConstraints({"nodeSelector": {names.NODE_POOL: "old"}}))
    ).migration_requests


@pytest.mark.parametrize("more", [{"ready": "Unknown"}, {"unschedulable": True}, {"deleting": True}])
def test_node_that_takes_no_pods_is_no_target(more: dict[str, Any]) -> None:
    assert classes(plan(misplaced_pod(), inputs=inputs_of(node("out"), node("in", pool="a", **more)))) == [
        "NoRoomInPool"
    ]


def test_node_without_the_pool_label_is_no_target() -> None:
    inputs = replace(inputs_of(node("out"), node("in")), pool_of_node={"in": "a"})
    assert classes(plan(misplaced_pod(), inputs=inputs)) == ["NoRoomInPool"]


def test_room_is_reserved_once() -> None:
    inputs = inputs_of(node("out"), node("in", pool="a"), used={"in": {"cpu": 750, "pods": 1}})
    found = plan(misplaced_pod("p1"), misplaced_pod("p2"), misplaced_pod("p3"), inputs=inputs)
    assert found.migration_requests == {"out": {"p1": "NamespacePool/a", "p2": "NamespacePool/a"}}
    assert [(b.pod, b.class_) for b in found.blockers["a"]] == [("p3", "NoRoomInPool")]
    assert "cpu 100m" in found.blockers["a"][0].message


def test_released_pod_needs_no_more_room() -> None:
    inputs = inputs_of(node("out"), node("in", pool="a"), used={"in": {"cpu": 1000, "pods": 1}})
    assert plan(misplaced_pod(released=True), inputs=inputs).migration_requests


def test_foreign_pod_moves_to_any_node_that_it_tolerates() -> None:
    there = node("in", pool="a", taints=(labels_and_taints.pool_taint("a"),))
    foreign = misplaced_pod(on="in", target_pool=None, namespace="other")
    assert plan(foreign, inputs=inputs_of(there, node("free"))).migration_requests == {"in": {"x": "NamespacePool/a"}}
    taken = node("b1", pool="b", taints=(labels_and_taints.pool_taint("b"),))
    assert classes(plan(foreign, inputs=inputs_of(there, taken))) == ["NoRoomInPool"]


def test_foreign_pod_stays_on_a_node_without_the_taint() -> None:
    found = plan(misplaced_pod(on="in", target_pool=None), inputs=inputs_of(node("in", pool="a"), node("free")))
    assert classes(found) == ["TaintHeldBack"]


def test_no_pod_moves_without_a_policy_and_the_pool_reports_it() -> None:
    held = WaitReason(ProgressingReason.NO_POLICY, "no ReschedulePolicy selects its node out")
    found = plan(misplaced_pod(), inputs=inputs_of(node("out"), node("in", pool="a"), wait_reason=lambda _: held))
    assert not found.migration_requests
    assert [(b.class_, b.message) for b in found.blockers["a"]] == [("NoPolicy", held.message)]


def test_suspend_new_continues_only_released_pods() -> None:
    held = WaitReason(ProgressingReason.SUSPENDED, "suspend: New")
    inputs = inputs_of(node("out"), node("in", pool="a"), wait_reason=lambda _: held, suspend=lambda _: Suspend.NEW)
    found = plan(misplaced_pod("old", released=True), misplaced_pod("new"), inputs=inputs)
    assert found.migration_requests == {"out": {"old": "NamespacePool/a"}}
    assert classes(found) == ["Suspended"]


def test_pod_on_a_node_that_is_not_ready_is_a_blocker() -> None:
    found = plan(misplaced_pod(), inputs=inputs_of(node("out", ready="Unknown"), node("in", pool="a")))
    assert classes(found) == ["NodeNotReady"]


def test_pod_that_came_back_stays_for_a_while() -> None:
    history = PoolMoveHistory()
    history.record_move("o", "a", NOW - timedelta(minutes=1))
    later, before = misplaced_pod("p1", created=NOW), misplaced_pod("p2", created=NOW - timedelta(hours=1))
    found = plan(later, before, inputs=inputs_of(node("out"), node("in", pool="a"), move_history=history))
    assert found.migration_requests == {"out": {"p2": "NamespacePool/a"}}
    assert classes(found) == ["CameBack"]


def test_pod_that_was_in_place_before_did_not_come_back() -> None:
    """Its namespace or node has changed the pool since."""
    history = PoolMoveHistory()
    history.record_move("o", "a", NOW - timedelta(minutes=2))
    arrived = misplaced_pod(created=NOW - timedelta(minutes=1))
    inputs = inputs_of(node("out"), node("in", pool="a"), move_history=history)
    assert classes(plan(arrived, inputs=inputs)) == ["CameBack"]
    assert plan(arrived, inputs=replace(inputs, mapped_since=lambda *_: NOW)).migration_requests


def test_move_to_another_pool_starts_a_new_window() -> None:
    history = PoolMoveHistory()
    history.record_move("o", "b", NOW - timedelta(minutes=1))
    assert history.hold_until(misplaced_pod(created=NOW), LONG_AGO, NOW) is None


def test_pod_that_came_back_is_retried_after_the_window() -> None:
    history = PoolMoveHistory()
    history.record_move("o", "a", NOW)
    assert history.hold_until(misplaced_pod(created=NOW), LONG_AGO, NOW + timedelta(minutes=14)) == NOW + timedelta(
        minutes=15
    )
    assert history.hold_until(misplaced_pod(created=NOW), LONG_AGO, NOW + timedelta(minutes=16)) is None
