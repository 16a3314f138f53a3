"""Decide which failed nodes start together, and how causes affect each other."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rescheduler.api.conditions import Condition
from rescheduler.api.drains import Blocker, BlockerClass, NodeDrain, NodeDrainSpec, Phase, PodCounts, RequestReason
from rescheduler.core.eligibility.cluster_state import ClusterState
from rescheduler.core.eligibility.decision import is_only_suspected, wait_reason
from rescheduler.core.failure.condition_history import FailureStart, observe
from rescheduler.core.model.nodes import Node, NodeCondition
from rescheduler.core.model.policy_selection import PolicySelector
from rescheduler.core.model.wait_reasons import ProgressingReason, WaitReason
from rescheduler.core.pools.max_unavailable import PoolBudget
from unit.builders import NOW, drain, node, policy

LONG_AGO = NOW - timedelta(hours=1)
CONDITIONS = [
    {"type": "GpuBad", "status": ["True"], "for": "0s"},
    {"type": "DiskBad", "status": ["True"], "for": "0s"},
    {"type": "Ready", "status": ["Unknown"], "for": "60s"},
    {"type": "Ready", "status": ["False"], "for": "60s"},
]
WELL = "True"


def ill(name: str, *flags: str, ready: str = WELL, zone: str = "") -> Node:
    found = tuple(NodeCondition(flag, "True") for flag in flags)
    return node(name, zone=zone, conditions=(NodeCondition("Ready", ready), *found))


def failure_drain(name: str, *, begun: bool = False, **status: Any) -> NodeDrain:
    """Return a drain for a failure that started a minute ago, or has not started."""
    phase = {"phase": Phase.DRAINING} if begun else {}
    return drain(name, age=60, begun=begun, reasons=(RequestReason.FAILURE,), **phase | status)


def world(
    *nodes: Node, drains: tuple[NodeDrain, ...] = (), failed_at: Mapping[str, datetime] | None = None, **failure: Any
) -> ClusterState:
    """Return a cluster with one policy, in which every unhealthy node has a drain for its failure."""
    decides = policy(failure={"conditions": CONDITIONS, "leaseTimeout": "20s", **failure})
    seen = {n.name: observe(None, n, decides, (failed_at or {}).get(n.name, LONG_AGO)) for n in nodes}
    made = {n.name: failure_drain(n.name) for n in nodes if seen[n.name].failing_conditions}
    made |= {d.name: d for d in drains}
    return ClusterState({n.name: n for n in nodes}, PolicySelector([decides]), made, NOW, None, seen)


def cluster(count: int, *others: Node, **more: Any) -> ClusterState:
    """Return a cluster of `count` nodes that includes the given nodes."""
    return world(*others, *(ill(f"well{i}") for i in range(count - len(others))), **more)


def why(name: str, place: ClusterState) -> WaitReason | None:
    return wait_reason(place.drains[name], place, NOW)


def reason(name: str, place: ClusterState) -> ProgressingReason | None:
    found = why(name, place)
    return found.reason if found else None


FLAGGED = tuple(ill(f"gpu{i}", "GpuBad") for i in range(3))


# -- a storm of one cause ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [ill("x", "DiskBad"), ill("x", ready="Unknown"), ill("x", ready="False"), ill("x", "GpuBad", ready="False")],
)
def test_storm_of_one_condition_brakes_only_that_condition(other: Node) -> None:
    place = cluster(10, *FLAGGED, other)
    assert {reason(node.name, place) for node in FLAGGED} == {ProgressingReason.STORM}
    assert reason("x", place) is None


def test_falsely_reported_node_that_dies_starts_by_the_certain_cause() -> None:
    dead = replace(FLAGGED[0], conditions=(NodeCondition("Ready", "Unknown"), NodeCondition("GpuBad", "True")))
    place = cluster(10, dead, *FLAGGED[1:])
    assert reason("gpu0", place) is None
    assert reason("gpu1", place) is ProgressingReason.STORM


def test_certain_cause_starts_no_drain_before_its_for() -> None:
    dead = replace(FLAGGED[0], conditions=(NodeCondition("Ready", "Unknown"), NodeCondition("GpuBad", "True")))
    place = cluster(10, dead, *FLAGGED[1:])
    young = observe(None, dead, place.policy_selector.policies[0], NOW - timedelta(seconds=59))
    assert (
        reason("gpu0", replace(place, condition_histories={**place.condition_histories, "gpu0": young}))
        is ProgressingReason.STORM
    )


def test_reported_nodes_that_become_unreachable_are_a_storm_of_both() -> None:
    dead = [ill(f"n{i}", "GpuBad", ready="Unknown") for i in range(3)]
    assert {reason(node.name, cluster(10, *dead)) for node in dead} == {ProgressingReason.STORM}


def test_storm_of_unreachable_nodes_brakes_their_other_causes() -> None:
    """Its pods would be deleted without their budgets, and the agent could not correct its report."""
    dead = [ill("n0", "GpuBad", ready="Unknown"), *(ill(f"n{i}", ready="Unknown") for i in (1, 2))]
    place = cluster(10, *dead, ill("lives", "GpuBad"))
    found = why("n0", place)
    assert found is not None
    assert (found.reason, "3 of 10" in found.message, "Ready=Unknown" in found.message) == (
        ProgressingReason.STORM,
        True,
        True,
    )
    assert reason("lives", place) is None


def test_suspected_nodes_count_as_unreachable() -> None:
    dead = [ill("n0", ready="Unknown"), ill("n1", ready="Unknown"), ill("n2")]
    place = cluster(10, *dead, drains=(failure_drain("n2"),))
    assert reason("n0", place) is None
    place = replace(place, suspected_nodes=frozenset({"n2"}))
    assert {reason(node.name, place) for node in dead} == {ProgressingReason.STORM}


def test_unknown_nodes_with_renewed_leases_do_not_count() -> None:
    """The node controller is wrong about them, and the dead node is still drained."""
    unknown = [ill(f"n{i}", ready="Unknown") for i in range(5)]
    place = cluster(10, *unknown)
    assert reason("n0", place) is ProgressingReason.STORM
    place = replace(place, nodes_with_renewed_lease=frozenset({"n1", "n2", "n3", "n4"}))
    assert reason("n0", place) is None
    assert reason("n1", place) is ProgressingReason.CANCELLED
    begun = {**place.drains, "n2": failure_drain("n2", begun=True)}
    assert reason("n2", replace(place, drains=begun)) is ProgressingReason.CANCELLED
    assert reason("n0", replace(place, drains=begun)) is None


def test_the_message_names_the_condition_the_count_the_limit_and_the_group() -> None:
    found = why("gpu0", cluster(10, *FLAGGED))
    assert found is not None
    for part in ("GpuBad", "3 of 10 nodes", "failure.maxUnhealthy 20% (2)", "ReschedulePolicy p"):
        assert part in found.message


def test_each_cause_is_counted_on_its_own_in_a_zone() -> None:
    flagged = [ill(f"gpu{i}", "GpuBad", zone="a") for i in range(3)]
    place = cluster(40, *flagged, ill("dead", ready="Unknown", zone="a"))
    assert "zone a" in (why("gpu0", place) or WaitReason(ProgressingReason.STORM, "")).message
    assert reason("dead", place) is None


def test_falsely_reported_suspected_node_is_only_suspected() -> None:
    place = replace(cluster(10, *FLAGGED), suspected_nodes=frozenset({"gpu0"}))
    assert reason("gpu0", place) is None
    assert is_only_suspected(place.drains["gpu0"], place, NOW)
    alone = replace(cluster(10, FLAGGED[0]), suspected_nodes=frozenset({"gpu0"}))
    assert reason("gpu0", alone) is None
    assert not is_only_suspected(alone.drains["gpu0"], alone, NOW)


def test_storm_is_checked_again_after_a_suspicion() -> None:
    said = (Condition(type="Progressing", status="True", reason="Suspected", last_transition_time=NOW),)
    was = failure_drain("gpu0", begun=True, conditions=said)
    assert reason("gpu0", cluster(10, *FLAGGED, drains=(was,))) is ProgressingReason.STORM
    dead = ill("gpu0", "GpuBad", ready="Unknown")
    assert reason("gpu0", cluster(10, dead, *FLAGGED[1:], drains=(was,))) is None


def test_drained_nodes_in_maintenance_count_for_no_storm() -> None:
    both = (RequestReason.MAINTENANCE, RequestReason.FAILURE)
    away = drain("gpu2", age=60, begun=True, reasons=both, drained_at=NOW, phase=Phase.DRAINED)
    assert reason("gpu0", cluster(10, *FLAGGED, drains=(away,))) is None


def test_conditions_that_go_stale_together_do_not_open_the_brake() -> None:
    begun = NOW - timedelta(minutes=30)
    flags = (
        NodeCondition("Ready", WELL),
        NodeCondition("GpuBad", "True", last_transition=begun, last_heartbeat=LONG_AGO),
    )
    beating = replace(flags[1], last_heartbeat=begun + timedelta(seconds=1))
    place = cluster(10, *(replace(node, conditions=(flags[0], beating)) for node in FLAGGED))
    stale = {
        name: replace(seen, heartbeats={"GpuBad": (NOW, begun)}) for name, seen in place.condition_histories.items()
    }
    place = replace(place, condition_histories=stale)
    assert place.condition_histories["gpu0"].is_stale(place.nodes["gpu0"].conditions[1], NOW)
    assert reason("gpu0", place) is ProgressingReason.STORM


def flapping(place: ClusterState, cause: str, *names: str) -> ClusterState:
    """Return the state with nodes that failed again and again and are healthy now."""
    begins = (FailureStart(cause, NOW - timedelta(minutes=1)),) * 3
    seen = {
        name: replace(found, failure_starts=begins)
        for name, found in place.condition_histories.items()
        if name in names
    }
    drains = {name: failure_drain(name) for name in names}
    return replace(place, condition_histories={**place.condition_histories, **seen}, drains={**place.drains, **drains})


def test_nodes_that_flap_together_are_braked_and_delay_no_failure() -> None:
    place = cluster(10, ill("dead", ready="Unknown"), ill("n1"), ill("n2"), ill("n3"))
    assert reason("n1", flapping(place, "GpuBad", "n1", "n2")) is ProgressingReason.FLAPPING
    many = flapping(place, "GpuBad", "n1", "n2", "n3")
    assert reason("n1", many) is ProgressingReason.STORM
    assert reason("dead", flapping(place, "Ready=Unknown", "n1", "n2", "n3")) is None


# -- failure.maxConcurrent --------------------------------------------------------------------------------------------


def test_most_certain_failures_start_first() -> None:
    nodes = [
        ill("a", "GpuBad"),
        ill("b", ready="False"),
        ill("c", ready="Unknown"),
        ill("d", ready="Unknown"),
    ]
    place = cluster(10, *nodes, maxUnhealthy="100%")
    assert {name: reason(name, place) for name in "abcd"} == {
        "a": ProgressingReason.MAX_CONCURRENT,
        "b": ProgressingReason.MAX_CONCURRENT,
        "c": None,
        "d": ProgressingReason.MAX_CONCURRENT,
    }


def test_longest_failure_starts_first_of_equally_certain_ones() -> None:
    nodes = [ill(name, ready="False") for name in "abc"]
    assert reason("a", cluster(10, *nodes, maxUnhealthy="100%")) is None
    younger = {"a": NOW - timedelta(minutes=2)}
    place = cluster(10, *nodes, maxUnhealthy="100%", failed_at=younger)
    assert [reason(name, place) for name in "abc"] == [
        ProgressingReason.MAX_CONCURRENT,
        None,
        ProgressingReason.MAX_CONCURRENT,
    ]


def test_running_drain_holds_its_slot_and_is_named() -> None:
    place = cluster(10, ill("a", ready="False"), ill("b", ready="False"), drains=(failure_drain("a", begun=True),))
    found = why("b", place)
    assert found is not None
    assert found.reason is ProgressingReason.MAX_CONCURRENT
    assert "failure.maxConcurrent 10% (1 of 10 nodes) is taken by a" in found.message
    assert reason("b", cluster(20, *place.nodes.values(), drains=(failure_drain("a", begun=True),))) is None


def test_running_drain_of_a_less_certain_failure_holds_back_no_dead_node() -> None:
    place = cluster(10, ill("a", "GpuBad"), ill("b", ready="Unknown"), drains=(failure_drain("a", begun=True),))
    assert reason("b", place) is None


@pytest.mark.parametrize(
    ("status", "holds"),
    [
        ({}, True),
        ({"pods": PodCounts(total=9, remaining=3, blocked=2)}, True),
        ({"pods": PodCounts(total=9, remaining=2, blocked=2), "blockers": ["WaitingForProof"] * 2}, False),
        (
            {"pods": PodCounts(total=9, remaining=2, blocked=2), "blockers": ["WaitingForProof", "BudgetExhausted"]},
            True,
        ),
        ({"pods": PodCounts(total=9, remaining=0)}, False),
        ({"phase": Phase.BLOCKED, "blocked": 4}, True),
        ({"phase": Phase.BLOCKED, "blocked": 5}, False),
        ({"phase": Phase.WAITING}, False),
        ({"phase": Phase.DRAINED, "drained_at": NOW}, False),
    ],
)
def test_drain_holds_a_slot(status: dict[str, Any], holds: bool) -> None:
    blockers = [
        Blocker(namespace="x", pod=str(i), class_=BlockerClass(class_), since=NOW)
        for i, class_ in enumerate(status.pop("blockers", ()))
    ]
    minutes = status.pop("blocked", None)
    conditions: tuple[Condition, ...] = ()
    if minutes:
        at = NOW - timedelta(minutes=minutes)
        conditions = (Condition(type="Blocked", status="True", reason="x", last_transition_time=at),)
    begun = failure_drain("a", begun=True, blockers=tuple(blockers), conditions=conditions, **status)
    place = cluster(10, ill("a", ready="Unknown"), ill("b", ready="Unknown"), drains=(begun,))
    assert (reason("b", place) is ProgressingReason.MAX_CONCURRENT) is holds


def test_unconfirmed_suspicion_gives_up_its_slot() -> None:
    place = cluster(10, ill("a"), ill("b", ready="False"), drains=(failure_drain("a", begun=True),))
    place = replace(place, suspected_nodes=frozenset({"a"}))
    assert reason("b", place) is ProgressingReason.MAX_CONCURRENT
    old = failure_drain("a", begun=True, started_at=NOW - timedelta(minutes=5))
    assert reason("b", replace(place, drains={**place.drains, "a": old})) is None


def test_drain_with_another_wait_reason_holds_back_no_other() -> None:
    nodes = [ill("a", ready="False"), ill("b", ready="False")]
    elsewhere = (Condition(type="Progressing", status="False", reason="OwnedElsewhere", last_transition_time=NOW),)
    place = cluster(10, *nodes, drains=(failure_drain("a", conditions=elsewhere),))
    assert reason("b", place) is None
    gated = failure_drain("a")
    wanted = {"nodeName": "a", "requests": [{"reason": "Failure"}], "drain": {"gates": ["x/ok"]}}
    spec = NodeDrainSpec.model_validate(wanted)
    place = cluster(10, *nodes, drains=(gated.model_copy(update={"spec": spec}),))
    assert (reason("a", place), reason("b", place)) == (ProgressingReason.GATED, None)
    budget = PoolBudget(
        "shop", place.policy_selector.policies[0].spec.failure.max_concurrent, frozenset({"a", "well1"})
    )
    place = cluster(10, *nodes, drains=(drain("well1", age=60, begun=True, phase=Phase.DRAINING),))
    place = replace(place, pool_budgets={"a": budget, "well1": budget})
    assert (reason("a", place), reason("b", place)) == (ProgressingReason.POOL_BUDGET, None)


def test_failed_nodes_do_not_queue_behind_maintenance() -> None:
    busy = tuple(drain(f"well{i}", age=60, begun=True, phase=Phase.DRAINING) for i in range(5))
    assert reason("a", cluster(10, ill("a", ready="False"), drains=busy)) is None


def test_drain_that_waited_needs_a_slot_again() -> None:
    rested = (Condition(type="Progressing", status="False", reason="Cancelled", last_transition_time=NOW),)
    back = failure_drain("b", begun=True, phase=Phase.WAITING, conditions=rested)
    nodes = [ill("a", ready="False"), ill("b", ready="False")]
    place = cluster(10, *nodes, drains=(failure_drain("a", begun=True), back))
    assert reason("b", place) is ProgressingReason.MAX_CONCURRENT
    waits = (Condition(type="Progressing", status="False", reason="MaxConcurrent", last_transition_time=NOW),)
    waiting = back.model_copy(update={"status": back.status.model_copy(update={"conditions": waits})})
    assert reason("b", replace(place, drains={**place.drains, "b": waiting})) is ProgressingReason.MAX_CONCURRENT
    assert reason("b", replace(place, drains={"b": waiting})) is None


# -- always -----------------------------------------------------------------------------------------------------------

_STATE = st.tuples(st.sampled_from([WELL, WELL, "Unknown", "False"]), st.sets(st.sampled_from(["GpuBad", "DiskBad"])))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(_STATE, min_size=4, max_size=14), st.sampled_from([1, 2, "10%", "25%"]), st.randoms(use_true_random=False)
)
def test_limit_is_never_exceeded_by_equally_certain_failures(
    states: list[tuple[str, set[str]]], limit: Any, chance: Any
) -> None:
    nodes = [ill(f"n{i}", *sorted(flags), ready=ready) for i, (ready, flags) in enumerate(states)]
    place = world(*nodes, maxUnhealthy="100%", maxConcurrent=limit)
    slots = max(1, place.policy_selector.policies[0].spec.failure.max_concurrent.of(len(nodes)))
    names = list(place.drains)
    chance.shuffle(names)
    certainty = {name: place.diagnose(place.nodes[name], NOW).causes[0].certainty for name in names}
    begun: list[str] = []
    for name in names * 2:
        if name in begun or reason(name, place):
            continue
        begun.append(name)
        place = replace(place, drains={**place.drains, name: failure_drain(name, begun=True)})
        assert sum(certainty[other] <= certainty[name] for other in begun) <= slots
    waiting = [certainty[name] for name in names if name not in begun]
    assert all(certainty[name] <= least for name in begun for least in waiting) or not waiting


@settings(max_examples=150, deadline=None)
@given(st.lists(_STATE, min_size=4, max_size=12), st.integers(0, 12), st.sampled_from(["GpuBad", "DiskBad"]))
def test_a_storm_of_one_condition_never_brakes_another(
    states: list[tuple[str, set[str]]], flood: int, flag: str
) -> None:
    """More nodes with one condition never brake a node with another cause."""
    calm = [ill(f"n{i}", *sorted(flags), ready=ready) for i, (ready, flags) in enumerate(states)]
    flooded = [
        ill(f"n{i}", *sorted({*flags, flag} if i < flood else flags), ready=ready)
        for i, (ready, flags) in enumerate(states)
    ]
    before, after = world(*calm), world(*flooded)
    for each in calm:
        others = before.diagnose(each, NOW).causes
        if any(cause.name != flag for cause in others) and reason(each.name, before) is not ProgressingReason.STORM:
            braked = before.apply_storm_brake(each, before.policy_selector.policies[0], NOW).most_certain_cause
            if braked and braked.name != flag:
                assert reason(each.name, after) is not ProgressingReason.STORM
