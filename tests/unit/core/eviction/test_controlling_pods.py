"""Pods that another pod controls leave with that pod."""

from collections.abc import Mapping
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rescheduler.core.eviction.controlling_pods import (
    GARBAGE_COLLECTED_AFTER,
    controlling_pods_seen,
    follow_controlling_pods,
)
from rescheduler.core.eviction.pod_actions import EvictionContext, PodAction, PodDecision, needs_placement
from rescheduler.core.model.pods import Owner, Pod
from unit.builders import NOW, pod

EVICT, SKIP, BLOCK = PodDecision(PodAction.EVICT), PodDecision(PodAction.SKIP), PodDecision(PodAction.BLOCK)


def child(name: str = "child", of: str = "main", **fields: str) -> Pod:
    return pod(name, owner=Owner("Pod", of, of), **fields)  # type: ignore[arg-type]


def actions(
    *rows: tuple[Pod, PodDecision], seen: Mapping[str, datetime] | None = None, unreachable: bool = False
) -> dict[str, PodAction]:
    context = EvictionContext(NOW, node_unreachable=unreachable)
    return {found.name: decision.action for found, decision in follow_controlling_pods(rows, seen or {}, context)}


@pytest.mark.parametrize("main", [EVICT, BLOCK, PodDecision(PodAction.WAIT_TERMINATING), PodDecision(PodAction.DELETE)])
def test_a_pod_waits_for_the_pod_that_controls_it(main: PodDecision) -> None:
    assert actions((child(), EVICT), (pod("main"), main))["child"] is PodAction.WAIT_CONTROLLER


def test_a_pod_stays_with_a_controlling_pod_that_stays() -> None:
    assert actions((child(), EVICT), (pod("main"), SKIP))["child"] is PodAction.SKIP
    assert actions((child(), BLOCK), (pod("main"), SKIP))["child"] is PodAction.SKIP


def test_a_waiting_pod_has_the_order_of_its_controlling_pod() -> None:
    rows = [(child(), EVICT), (pod("main"), PodDecision(PodAction.EVICT, 10))]
    found = follow_controlling_pods(rows, {}, EvictionContext(NOW))
    assert [decision.order for _, decision in found] == [10, 10]


def test_a_waiting_pod_needs_no_room_elsewhere() -> None:
    assert not needs_placement(child(), PodDecision(PodAction.WAIT_CONTROLLER))


@pytest.mark.parametrize(
    "decision", [SKIP, BLOCK, PodDecision(PodAction.WAIT_TERMINATING), PodDecision(PodAction.DELETE, forced=True)]
)
def test_other_decisions_for_the_pod_remain(decision: PodDecision) -> None:
    assert actions((child(), decision), (pod("main"), EVICT))["child"] is decision.action


def test_a_finished_pod_leaves_by_itself() -> None:
    assert actions((child(phase="Succeeded"), EVICT), (pod("main"), EVICT))["child"] is PodAction.EVICT


def test_a_pod_controlled_from_another_node_leaves_like_any_other_pod() -> None:
    assert actions((child(), EVICT))["child"] is PodAction.EVICT


def test_garbage_collection_has_some_time_after_the_controlling_pod_is_gone() -> None:
    seen = controlling_pods_seen([child(), pod("main")], {}, NOW - GARBAGE_COLLECTED_AFTER + timedelta(seconds=1))
    assert actions((child(), EVICT), seen=controlling_pods_seen([child()], seen, NOW))["child"] is (
        PodAction.WAIT_CONTROLLER
    )
    late = controlling_pods_seen([child(), pod("main")], {}, NOW - GARBAGE_COLLECTED_AFTER)
    assert actions((child(), EVICT), seen=late)["child"] is PodAction.EVICT


def test_a_pod_that_is_gone_is_forgotten() -> None:
    seen = controlling_pods_seen([child(), pod("main")], {}, NOW)
    assert seen == {"child": NOW}
    assert controlling_pods_seen([], seen, NOW) == {}


def test_a_chain_of_pods_follows_the_first_one() -> None:
    rows = [(child("c", of="b"), EVICT), (child("b", of="a"), EVICT), (pod("a"), SKIP)]
    assert actions(*rows) == dict.fromkeys("abc", PodAction.SKIP)


def test_a_controlling_pod_of_another_namespace_does_not_count() -> None:
    assert actions((child(), EVICT), (pod("main", namespace="other"), SKIP))["child"] is PodAction.EVICT


def test_each_pod_of_an_unreachable_node_has_its_own_decision() -> None:
    assert actions((child(), EVICT), (pod("main"), EVICT), unreachable=True)["child"] is PodAction.EVICT


@given(st.dictionaries(st.sampled_from("abcde"), st.sampled_from("abcdez")))
def test_pods_that_control_each_other_never_wait_forever(owners: dict[str, str]) -> None:
    rows = [(child(name, of=of), EVICT) for name, of in owners.items()]
    found = actions(*rows, (pod("z"), EVICT))
    waiting = {name for name, action in found.items() if action is PodAction.WAIT_CONTROLLER}
    for name in waiting:
        met, current = {name}, owners[name]
        while current in owners:
            assert current not in met
            met.add(current)
            current = owners[current]
