"""Who may go on, and why not."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rescheduler.api.conditions import Condition
from rescheduler.api.drains import NodeDrain, NodeDrainSpec, NodeDrainStatus, Phase, Reason, Request
from rescheduler.api.policies import Policy, ReschedulePolicySpec
from rescheduler.core.facts import Node, NodeCondition
from rescheduler.core.holds import Hold
from rescheduler.core.policies import Winners
from rescheduler.core.turns import STALE, World, held

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def drain(
    name: str,
    *,
    age: int = 0,
    begun: bool = False,
    reason: Reason = Reason.MAINTENANCE,
    annotations: dict[str, str] | None = None,
    **status: Any,
) -> NodeDrain:
    return NodeDrain(
        name=name,
        uid=name,
        resource_version="1",
        generation=1,
        created=NOW - timedelta(seconds=age),
        deletion_timestamp=None,
        finalizers=(),
        annotations=annotations or {},
        spec=NodeDrainSpec(node_name=name, requests=(Request(reason=reason),)),
        status=NodeDrainStatus(started_at=NOW - timedelta(seconds=age) if begun else None, **status),
    )


def world(
    *drains: NodeDrain, nodes: int = 10, ill: int = 0, labels: dict[str, dict[str, str]] | None = None, **spec: Any
) -> World:
    def node(index: int) -> Node:
        status = "Unknown" if index < ill else "True"
        name = f"n{index}"
        return Node(name, name, labels=(labels or {}).get(name, {}), conditions=(NodeCondition("Ready", status),))

    policy = Policy("p", "u", 1, ReschedulePolicySpec.model_validate(spec))
    return World({f"n{i}": node(i) for i in range(nodes)}, Winners([policy]), {d.name: d for d in drains})


def reason(name: str, place: World) -> Hold | None:
    found = held(place.drains[name], place, NOW)
    return found.reason if found else None


def test_one_alone_may_begin() -> None:
    assert reason("n0", world(drain("n0"))) is None


def test_without_a_policy_nothing_begins() -> None:
    place = world(drain("n0"))
    assert reason("n0", World(place.nodes, Winners([]), place.drains)) is Hold.NO_POLICY


@pytest.mark.parametrize(
    ("spec", "begun", "why"),
    [
        ({"mode": "Audit"}, False, Hold.AUDIT),
        ({"mode": "Audit"}, True, Hold.AUDIT),
        ({"suspend": "New"}, False, Hold.SUSPENDED),
        ({"suspend": "New"}, True, None),
        ({"suspend": "All"}, True, Hold.SUSPENDED),
        ({"maintenance": {"enabled": False}}, False, Hold.DISABLED),
        ({"drain": {"gates": ["example.com/ok"]}}, False, Hold.GATED),
        ({"maintenance": {"windows": [{"schedule": "0 12 * * *", "duration": "1h"}]}}, False, Hold.WINDOW),
    ],
)
def test_the_policy_holds(spec: dict[str, Any], begun: bool, why: Hold | None) -> None:
    assert reason("n0", world(drain("n0", begun=begun), **spec)) is why


def test_slots_go_to_those_begun_and_then_in_the_order_of_asking() -> None:
    place = world(
        drain("n0", age=1),
        drain("n1", age=9, begun=True),
        drain("n2", age=5),
        maintenance={"maxConcurrent": 2, "maxUnavailable": "100%"},
    )
    assert reason("n2", place) is None
    assert reason("n0", place) is Hold.MAX_CONCURRENT


def test_one_that_waits_for_something_else_holds_no_place_in_the_queue() -> None:
    gated = drain("n1", age=9)
    gated = gated.model_copy(
        update={
            "spec": NodeDrainSpec.model_validate(
                {"nodeName": "n1", "requests": [{"reason": "Maintenance"}], "drain": {"gates": ["a"]}}
            )
        }
    )
    assert reason("n0", world(drain("n0"), gated)) is None


def test_drained_nodes_give_their_slot_but_still_count_as_unavailable() -> None:
    done = drain("n1", begun=True, drained_at=NOW)
    assert reason("n0", world(drain("n0"), done, maintenance={"maxUnavailable": 2})) is None
    assert reason("n0", world(drain("n0"), done, maintenance={"maxUnavailable": 1})) is Hold.MAX_UNAVAILABLE


def test_a_percentage_of_unavailable_never_comes_to_less_than_max_concurrent() -> None:
    place = world(drain("n0"), drain("n1", begun=True), maintenance={"maxConcurrent": 2, "maxUnavailable": "10%"})
    assert reason("n0", place) is None


def test_two_values_of_the_topology_key_are_never_drained_at_once() -> None:
    labels = {"n0": {"zone": "a"}, "n1": {"zone": "b"}, "n2": {"zone": "a"}}
    spec: dict[str, Any] = {"maintenance": {"maxConcurrent": 5, "maxUnavailable": 5, "topologyKey": "zone"}}
    assert reason("n0", world(drain("n0"), drain("n1", begun=True), labels=labels, **spec)) is Hold.TOPOLOGY
    assert reason("n0", world(drain("n0"), drain("n2", begun=True), labels=labels, **spec)) is None


def test_a_failed_node_does_not_queue_behind_maintenance() -> None:
    place = world(drain("n0", reason=Reason.FAILURE), drain("n5", begun=True), ill=1)
    assert reason("n0", place) is None


@pytest.mark.parametrize(
    ("nodes", "ill", "why"), [(10, 2, None), (10, 3, Hold.STORM), (2, 1, None), (3, 2, Hold.STORM), (1, 1, None)]
)
def test_the_storm_brake(nodes: int, ill: int, why: Hold | None) -> None:
    assert reason("n0", world(drain("n0", reason=Reason.FAILURE), nodes=nodes, ill=ill)) is why


def test_windows_are_for_maintenance_alone() -> None:
    shut = {"maintenance": {"windows": [{"schedule": "0 12 * * *", "duration": "1h"}]}}
    assert reason("n0", world(drain("n0", reason=Reason.MANUAL), **shut)) is None
    assert reason("n0", world(drain("n0", begun=True), **shut)) is None  # onWindowClose: Finish
    shut["maintenance"]["onWindowClose"] = "Pause"  # type: ignore[assignment]
    assert reason("n0", world(drain("n0", begun=True), **shut)) is Hold.WINDOW
    assert reason("n0", world(drain("n0", begun=True, reason=Reason.MANUAL), **shut)) is None


def test_who_waits_for_a_window_is_ahead_of_nobody() -> None:
    place = world(
        drain("n0", age=9),
        drain("n1", age=5, reason=Reason.MANUAL),
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
    assert reason("n0", world(drain("n0"), blocked("n1", 4), maintenance=ROOMY)) is Hold.MAX_CONCURRENT
    assert reason("n0", world(drain("n0"), blocked("n1", 5), maintenance=ROOMY)) is None


def test_who_gave_its_slot_up_waits_for_a_free_one() -> None:
    place = world(drain("n0", begun=True), blocked("n1", 5), maintenance=ROOMY)
    assert reason("n0", place) is None
    assert reason("n1", place) is Hold.MAX_CONCURRENT
    assert reason("n1", world(blocked("n1", 5), maintenance=ROOMY)) is None


def test_free_slots_go_to_the_oldest_of_those_begun_and_then_to_the_others() -> None:
    place = world(returning("n0", 20), returning("n1", 30), drain("n2", age=99), maintenance=ROOMY)
    assert reason("n1", place) is None
    assert reason("n0", place) is Hold.MAX_CONCURRENT
    assert reason("n2", place) is Hold.MAX_CONCURRENT


def test_one_that_stays_blocked_keeps_nobody_from_beginning() -> None:
    place = world(blocked("n0", 9), blocked("n1", 9), drain("n2"), maintenance=ROOMY)
    assert reason("n2", place) is None


def test_who_stepped_back_waits_until_the_other_is_drained_or_gone() -> None:
    back = {"annotations": {"rescheduler.dev/stepped-back": "n1/n1"}}
    roomy = {"maintenance": {"maxConcurrent": 5, "maxUnavailable": "100%"}}
    assert reason("n0", world(drain("n0", **back), blocked("n1", 9), **roomy)) is Hold.MAX_CONCURRENT
    assert reason("n0", world(drain("n0", **back), drain("n1", begun=True, drained_at=NOW), **roomy)) is None
    assert reason("n0", world(drain("n0", **back), **roomy)) is None


def test_nothing_is_done_on_a_stale_view() -> None:
    place = replace(world(drain("n0", begun=True)), listed=NOW - STALE)
    assert reason("n0", place) is Hold.STALE_VIEW
