"""Decide whether a drain may start or continue, and why it waits."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from rescheduler.api.conditions import Condition
from rescheduler.api.drains import NodeDrain, NodeDrainSpec, Phase, RequestReason
from rescheduler.api.policies import ReschedulePolicy, ReschedulePolicySpec
from rescheduler.api.scalars import NumberOrPercent
from rescheduler.core.eligibility.cluster_state import LIST_STALE_AFTER, ClusterState
from rescheduler.core.eligibility.decision import is_only_suspected, wait_reason
from rescheduler.core.failure.condition_history import FailureStart, observe
from rescheduler.core.model.nodes import Node, NodeCondition, Taint
from rescheduler.core.model.policy_selection import PolicySelector
from rescheduler.core.model.wait_reasons import ProgressingReason
from rescheduler.core.pools.max_unavailable import PoolBudget
from unit.builders import NOW, drain


def world(
    *drains: NodeDrain, nodes: int = 10, ill: int = 0, labels: dict[str, dict[str, str]] | None = None, **spec: Any
) -> ClusterState:
    def node(index: int) -> Node:
        status = "Unknown" if index < ill else "True"
        name = f"n{index}"
        return Node(name, name, labels=(labels or {}).get(name, {}), conditions=(NodeCondition("Ready", status),))

    policy = ReschedulePolicy("p", "u", 1, ReschedulePolicySpec.model_validate(spec))
    there = {f"n{i}": node(i) for i in range(nodes)}
    seen = {name: observe(None, each, policy, NOW - timedelta(hours=1)) for name, each in there.items()}
    return ClusterState(there, PolicySelector([policy]), {d.name: d for d in drains}, NOW, None, seen)


def reason(name: str, place: ClusterState) -> ProgressingReason | None:
    found = wait_reason(place.drains[name], place, NOW)
    return found.reason if found else None


def test_single_drain_may_begin() -> None:
    assert reason("n0", world(drain("n0"))) is None


def test_no_drain_begins_without_a_policy() -> None:
    place = world(drain("n0"))
    assert reason("n0", ClusterState(place.nodes, PolicySelector([]), place.drains)) is ProgressingReason.NO_POLICY


@pytest.mark.parametrize(
    ("spec", "begun", "why"),
    [
        ({"mode": "Audit"}, False, ProgressingReason.AUDIT),
        ({"mode": "Audit"}, True, ProgressingReason.AUDIT),
        ({"suspend": "New"}, False, ProgressingReason.SUSPENDED),
        ({"suspend": "New"}, True, None),
        ({"suspend": "All"}, True, ProgressingReason.SUSPENDED),
        ({"maintenance": {"enabled": False}}, False, ProgressingReason.DISABLED),
        ({"drain": {"gates": ["example.com/ok"]}}, False, ProgressingReason.GATED),
        ({"maintenance": {"windows": [{"schedule": "0 12 * * *", "duration": "1h"}]}}, False, ProgressingReason.WINDOW),
    ],
)
def test_policy_holds_drains_back(spec: dict[str, Any], begun: bool, why: ProgressingReason | None) -> None:
    assert reason("n0", world(drain("n0", begun=begun), **spec)) is why


def test_slots_go_to_started_drains_then_by_creation() -> None:
    place = world(
        drain("n0", age=1),
        drain("n1", age=9, begun=True),
        drain("n2", age=5),
        maintenance={"maxConcurrent": 2, "maxUnavailable": "100%"},
    )
    assert reason("n2", place) is None
    assert reason("n0", place) is ProgressingReason.MAX_CONCURRENT


def test_drain_with_another_wait_reason_has_no_place_in_the_queue() -> None:
    gated = drain("n1", age=9)
    gated = gated.model_copy(
        update={
            "spec": NodeDrainSpec.model_validate(
                {"nodeName": "n1", "requests": [{"reason": "Maintenance"}], "drain": {"gates": ["a"]}}
            )
        }
    )
    assert reason("n0", world(drain("n0"), gated)) is None


def test_drained_nodes_free_their_slot_but_count_as_unavailable() -> None:
    done = drain("n1", begun=True, drained_at=NOW)
    assert reason("n0", world(drain("n0"), done, maintenance={"maxUnavailable": 2})) is None
    assert (
        reason("n0", world(drain("n0"), done, maintenance={"maxUnavailable": 1})) is ProgressingReason.MAX_UNAVAILABLE
    )


def test_percentage_of_unavailable_is_at_least_max_concurrent() -> None:
    place = world(drain("n0"), drain("n1", begun=True), maintenance={"maxConcurrent": 2, "maxUnavailable": "10%"})
    assert reason("n0", place) is None


def test_two_values_of_the_topology_key_are_never_drained_at_once() -> None:
    labels = {"n0": {"zone": "a"}, "n1": {"zone": "b"}, "n2": {"zone": "a"}}
    spec: dict[str, Any] = {"maintenance": {"maxConcurrent": 5, "maxUnavailable": 5, "topologyKey": "zone"}}
    assert (
        reason("n0", world(drain("n0"), drain("n1", begun=True), labels=labels, **spec)) is ProgressingReason.TOPOLOGY
    )
    assert reason("n0", world(drain("n0"), drain("n2", begun=True), labels=labels, **spec)) is None


def test_node_that_fails_during_its_drain_frees_its_slot() -> None:
    both = {"nodeName": "n1", "requests": [{"reason": "Maintenance"}, {"reason": "Failure"}]}
    begun = drain("n1", begun=True)
    failed = begun.model_copy(update={"spec": NodeDrainSpec.model_validate(both)})
    assert reason("n0", world(drain("n0"), begun)) is ProgressingReason.MAX_CONCURRENT
    assert reason("n0", world(drain("n0"), failed)) is None


def test_a_failed_node_does_not_queue_behind_maintenance() -> None:
    place = world(drain("n0", reasons=(RequestReason.FAILURE,)), drain("n5", begun=True), ill=1)
    assert reason("n0", place) is None


@pytest.mark.parametrize(
    ("nodes", "ill", "why"),
    [(10, 2, None), (10, 3, ProgressingReason.STORM), (2, 1, None), (3, 2, ProgressingReason.STORM), (1, 1, None)],
)
def test_the_storm_brake(nodes: int, ill: int, why: ProgressingReason | None) -> None:
    assert reason("n0", world(drain("n0", reasons=(RequestReason.FAILURE,)), nodes=nodes, ill=max(ill, 1))) is why


def test_only_maintenance_waits_for_windows() -> None:
    shut: dict[str, Any] = {"maintenance": {"windows": [{"schedule": "0 12 * * *", "duration": "1h"}]}}
    assert reason("n0", world(drain("n0", reasons=(RequestReason.MANUAL,)), **shut)) is None
    assert reason("n0", world(drain("n0", begun=True), **shut)) is None  # onWindowClose: Finish
    shut["maintenance"]["onWindowClose"] = "Pause"
    assert reason("n0", world(drain("n0", begun=True), **shut)) is ProgressingReason.WINDOW
    assert reason("n0", world(drain("n0", begun=True, reasons=(RequestReason.MANUAL,)), **shut)) is None


def test_drain_that_waits_for_a_window_holds_back_no_other() -> None:
    place = world(
        drain("n0", age=9),
        drain("n1", age=5, reasons=(RequestReason.MANUAL,)),
        maintenance={"windows": [{"schedule": "0 12 * * *", "duration": "1h"}]},
    )
    assert reason("n1", place) is None


def condition(type_: str, status: str, reason: str, age: timedelta = timedelta()) -> Condition:
    return Condition(type=type_, status=status, reason=reason, last_transition_time=NOW - age)


def blocked(name: str, minutes: int, **more: Any) -> NodeDrain:
    stands = condition("Blocked", "True", "BudgetExhausted", timedelta(minutes=minutes))
    return drain(name, age=3600, begun=True, phase=Phase.BLOCKED, conditions=(stands,), **more)


def returning(name: str, age: int) -> NodeDrain:
    waits = condition("Progressing", "False", "MaxConcurrent")
    return drain(name, age=age, begun=True, phase=Phase.WAITING, conditions=(waits,))


ROOMY: dict[str, Any] = {"maxConcurrent": 1, "maxUnavailable": "100%"}


def test_a_drain_blocked_for_five_minutes_gives_up_its_slot() -> None:
    assert reason("n0", world(drain("n0"), blocked("n1", 4), maintenance=ROOMY)) is ProgressingReason.MAX_CONCURRENT
    assert reason("n0", world(drain("n0"), blocked("n1", 5), maintenance=ROOMY)) is None


def test_drain_that_gave_up_its_slot_waits_for_a_free_slot() -> None:
    place = world(drain("n0", begun=True), blocked("n1", 5), maintenance=ROOMY)
    assert reason("n0", place) is None
    assert reason("n1", place) is ProgressingReason.MAX_CONCURRENT
    assert reason("n1", world(blocked("n1", 5), maintenance=ROOMY)) is None


def test_free_slots_go_to_the_oldest_started_drain_first() -> None:
    place = world(returning("n0", 20), returning("n1", 30), drain("n2", age=99), maintenance=ROOMY)
    assert reason("n1", place) is None
    assert reason("n0", place) is ProgressingReason.MAX_CONCURRENT
    assert reason("n2", place) is ProgressingReason.MAX_CONCURRENT


def test_blocked_drain_holds_back_no_other() -> None:
    place = world(blocked("n0", 9), blocked("n1", 9), drain("n2"), maintenance=ROOMY)
    assert reason("n2", place) is None


def test_drain_that_stepped_back_waits_for_the_other_drain() -> None:
    back: dict[str, Any] = {"annotations": {"rescheduler.dev/stepped-back": "n1/n1"}}
    roomy: dict[str, Any] = {"maintenance": {"maxConcurrent": 5, "maxUnavailable": "100%"}}
    assert reason("n0", world(drain("n0", **back), blocked("n1", 9), **roomy)) is ProgressingReason.MAX_CONCURRENT
    assert reason("n0", world(drain("n0", **back), drain("n1", begun=True, drained_at=NOW), **roomy)) is None
    assert reason("n0", world(drain("n0", **back), **roomy)) is None


def test_no_drain_continues_on_a_stale_view() -> None:
    place = replace(world(drain("n0", begun=True)), listed_at=NOW - LIST_STALE_AFTER)
    assert reason("n0", place) is ProgressingReason.STALE_VIEW


def of(name: str, place: ClusterState, **changes: Any) -> ClusterState:
    """Return the state with one changed node."""
    return replace(place, nodes={**place.nodes, name: replace(place.nodes[name], **changes)})


def failing(name: str = "n0", **more: Any) -> NodeDrain:
    return drain(name, reasons=(RequestReason.FAILURE,), **more)


def test_drain_of_a_recovered_node_is_cancelled() -> None:
    assert reason("n0", world(failing(begun=True))) is ProgressingReason.CANCELLED
    assert reason("n0", world(failing(begun=True), ill=1)) is None
    assert reason("n0", world(drain("n0", begun=True))) is None


def test_flapping_node_is_only_cordoned() -> None:
    place = world(failing())
    flapping = replace(place.condition_histories["n0"], failure_starts=(FailureStart("Ready=False", NOW),) * 3)
    assert (
        reason("n0", replace(place, condition_histories={**place.condition_histories, "n0": flapping}))
        is ProgressingReason.FLAPPING
    )


def test_storm_brakes_a_drain_that_waited_but_not_a_running_one() -> None:
    rested = failing(begun=True, conditions=(condition("Progressing", "False", "Flapping"),))
    assert reason("n0", world(rested, ill=5)) is ProgressingReason.STORM
    assert reason("n0", world(failing(begun=True), ill=5)) is None


def test_node_drained_for_maintenance_does_not_count_for_a_storm() -> None:
    away = [drain(f"n{i}", begun=True, drained_at=NOW) for i in (1, 2)]
    assert reason("n0", world(failing(), ill=3)) is ProgressingReason.STORM
    assert reason("n0", world(failing(), *away, ill=3)) is None


def test_one_control_plane_node_at_a_time() -> None:
    labels = {name: {"node-role.kubernetes.io/control-plane": ""} for name in ("n0", "n1")}
    many: dict[str, Any] = {"maintenance": {"maxConcurrent": 5, "maxUnavailable": 5}}
    for other in (drain("n1", begun=True), drain("n1", begun=True, drained_at=NOW)):
        assert reason("n0", world(failing(), other, ill=1, labels=labels)) is ProgressingReason.CONTROL_PLANE
        assert reason("n0", world(drain("n0"), other, labels=labels, **many)) is ProgressingReason.CONTROL_PLANE
        assert reason("n5", world(drain("n5"), other, labels=labels, **many)) is None
    assert reason("n0", world(failing(), drain("n1"), ill=1, labels=labels)) is None


def test_node_that_another_party_removes_is_left_alone() -> None:
    taken = (Taint("karpenter.sh/disrupted", "", "NoSchedule"),)
    for mine in (drain("n0"), drain("n0", begun=True), failing()):
        assert reason("n0", of("n0", world(mine, ill=1), taints=taken)) is ProgressingReason.OWNED_ELSEWHERE


def test_node_that_another_party_holds_keeps_only_new_drains_waiting() -> None:
    held = (Taint("medik8s.io/drain", "", "NoSchedule"),)
    for mine in (drain("n0"), failing()):
        assert reason("n0", of("n0", world(mine, ill=1), taints=held)) is ProgressingReason.OWNED_ELSEWHERE
    begun = of("n0", world(drain("n0", begun=True), ill=1), taints=held)
    assert reason("n0", begun) is not ProgressingReason.OWNED_ELSEWHERE


def test_no_drain_continues_in_a_blackout() -> None:
    for mine in (drain("n0"), drain("n0", begun=True), failing()):
        place = replace(world(mine, ill=1), view_problem="all are silent")
        assert reason("n0", place) is ProgressingReason.STALE_VIEW


def test_suspected_node_begins_as_only_suspected() -> None:
    place = replace(world(failing(), failure={"leaseTimeout": "20s"}), suspected_nodes=frozenset({"n0"}))
    assert reason("n0", place) is None
    assert is_only_suspected(place.drains["n0"], place, NOW)
    failed = replace(world(failing(), ill=1, failure={"leaseTimeout": "20s"}), suspected_nodes=frozenset({"n0"}))
    assert not is_only_suspected(failed.drains["n0"], failed, NOW)


def test_suspected_node_waits_while_many_leases_are_late() -> None:
    place = world(failing(), failure={"leaseTimeout": "20s"})
    place = replace(place, suspected_nodes=frozenset({"n0"}))
    assert reason("n0", replace(place, nodes_with_late_lease=frozenset({"n0", "n1"}))) is None
    late = frozenset({"n0", "n1", "n2"})
    assert reason("n0", replace(place, nodes_with_late_lease=late)) is ProgressingReason.STORM
    begun = replace(place, drains={"n0": failing(begun=True)}, nodes_with_late_lease=late)
    assert reason("n0", begun) is None
    failed = replace(
        world(failing(), ill=1, failure={"leaseTimeout": "20s"}),
        suspected_nodes=frozenset({"n0"}),
        nodes_with_late_lease=late,
    )
    assert reason("n0", failed) is None


def test_audit_reports_the_action_and_the_wait_reason() -> None:
    place = world(failing(), ill=5, mode="Audit")
    found = wait_reason(place.drains["n0"], place, NOW)
    assert found is not None
    assert found.reason is ProgressingReason.AUDIT
    assert "Storm" in found.message
    free = world(drain("n0"), mode="Audit")
    found = wait_reason(free.drains["n0"], free, NOW)
    assert found is not None
    assert "would be cordoned and drained" in found.message


def pooled(place: ClusterState, limit: int, *members: str) -> ClusterState:
    """Return the state with a pool of these nodes and this limit."""
    budget = PoolBudget("shop", NumberOrPercent(limit), frozenset(members))
    return replace(place, pool_budgets=dict.fromkeys(members, budget))


MANY: dict[str, Any] = {"maintenance": {"maxConcurrent": 10, "maxUnavailable": 10}}


def test_pool_budget_counts_nodes_that_are_out_for_any_reason() -> None:
    others = (
        drain("n2", begun=True, reasons=(RequestReason.MANUAL,)),
        drain("n3", begun=True, reasons=(RequestReason.FAILURE,)),
    )
    place = world(drain("n1"), drain("n4"), *others, **MANY)
    assert reason("n1", pooled(place, 2, "n1", "n2", "n3")) is ProgressingReason.POOL_BUDGET
    assert reason("n4", pooled(place, 2, "n1", "n2", "n3")) is None
    assert reason("n1", pooled(place, 3, "n1", "n2", "n3")) is None


def test_failed_node_takes_a_pool_slot_before_its_drain_begins() -> None:
    place = world(drain("n1"), ill=1, failure={"maxUnhealthy": "100%"}, **MANY)
    assert reason("n1", pooled(place, 1, "n0", "n1")) is ProgressingReason.POOL_BUDGET


def test_an_unreachable_node_never_waits_for_its_pool() -> None:
    place = world(
        drain("n0", reasons=(RequestReason.FAILURE,)), drain("n1", begun=True), ill=1, failure={"maxUnhealthy": "100%"}
    )
    assert reason("n0", pooled(place, 1, "n0", "n1")) in (None, ProgressingReason.CANCELLED)


def test_ill_node_waits_while_other_nodes_fill_the_pool_budget() -> None:
    place = world(drain("n0", reasons=(RequestReason.FAILURE,)), drain("n1", begun=True))
    assert reason("n0", pooled(place, 1, "n0", "n1")) is ProgressingReason.POOL_BUDGET


def test_first_drain_of_a_pool_starts_first() -> None:
    place = pooled(world(drain("n1", age=1), drain("n2", age=2), **MANY), 1, "n1", "n2")
    assert reason("n2", place) is None
    assert reason("n1", place) is ProgressingReason.POOL_BUDGET


def test_drain_that_waits_for_its_pool_holds_back_no_other_pool() -> None:
    """The policy has one slot, and the pool of the first drain in the queue cannot lose its node."""
    place = world(
        drain("n1", age=2),
        drain("n4", age=1),
        drain("n2", begun=True, drained_at=NOW),
        maintenance={"maxUnavailable": 10},
    )
    place = pooled(place, 1, "n1", "n2")
    assert reason("n1", place) is ProgressingReason.POOL_BUDGET
    assert reason("n4", place) is None


def test_started_drain_continues_when_its_pool_shrinks() -> None:
    place = pooled(world(drain("n1", begun=True), drain("n2", begun=True), **MANY), 1, "n1", "n2")
    assert (reason("n1", place), reason("n2", place)) == (None, None)
