"""Groups of nodes that rebalancing treats together."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from rescheduler.api.drains import NodeDrain
from rescheduler.api.policies import ReschedulePolicy
from rescheduler.core.eligibility.cluster_state import ClusterState
from rescheduler.core.failure.condition_history import observe
from rescheduler.core.model.nodes import Node, NodeCondition, Taint
from rescheduler.core.model.policy_selection import PolicySelector
from rescheduler.core.rebalance.node_groups import build_groups, nodes_with_started_drain
from unit.builders import NOW, drain, node, policy


def rebalancing_policy(name: str = "p", **spec: Any) -> ReschedulePolicy:
    """Return a policy with rebalancing enabled."""
    return policy(name, **{"rebalance": {"enabled": True}, **spec})


def world(
    *nodes: Node, drains: tuple[NodeDrain, ...] = (), policies: tuple[ReschedulePolicy, ...] | None = None
) -> ClusterState:
    winners = PolicySelector((rebalancing_policy(),) if policies is None else policies)
    return ClusterState({n.name: n for n in nodes}, winners, {d.name: d for d in drains}, NOW)


def named(found: ClusterState) -> dict[str, list[str]]:
    return {arena.pool: [n.name for n in arena.nodes] for arena in build_groups(found)}


def test_each_pool_and_the_nodes_without_pool_form_a_group() -> None:
    found = named(world(node("a", pool="shop"), node("b"), node("c", pool="shop"), node("d")))
    assert found == {"": ["b", "d"], "shop": ["a", "c"]}


def test_only_nodes_whose_winning_policy_rebalances_take_part() -> None:
    off = rebalancing_policy("off", rebalance={"enabled": False})
    assert named(world(node("a"), policies=())) == {}
    assert named(world(node("a"), policies=(off,))) == {}
    wins = rebalancing_policy("z", priority=1, rebalance={"enabled": False})
    assert named(world(node("a"), policies=(rebalancing_policy(), wins))) == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"conditions": (NodeCondition("Ready", "Unknown"),)},
        {"unschedulable": True},
        {"deleting": True},
        {"annotations": {"rescheduler.dev/maintenance": "disk"}},
        {"taints": (Taint("karpenter.sh/disrupted", "", "NoSchedule"),)},
        {"labels": {"dgxc.nvidia.com/nvsentinel-state": "quarantined"}},
    ],
)
def test_only_nodes_in_service_take_part(changes: dict[str, Any]) -> None:
    assert named(world(node("a"), node("b", **changes))) == {"": ["a"]}


def test_a_node_with_a_waiting_drain_takes_no_part() -> None:
    assert named(world(node("a"), node("b"), drains=(drain("b"),))) == {"": ["a"]}


def test_a_pool_waits_while_one_of_its_nodes_is_drained() -> None:
    started = drain("b", begun=True)
    nodes = node("a", pool="shop"), node("b", pool="shop"), node("c")
    waits = {arena.pool: arena.pause_reason for arena in build_groups(world(*nodes, drains=(started,)))}
    assert waits == {"": None, "shop": "node b is being drained"}
    done = drain("b", begun=True, drained_at=NOW)
    assert not any(arena.pause_reason for arena in build_groups(world(*nodes, drains=(done,))))


@pytest.mark.parametrize("suspend", ["New", "All"])
def test_a_suspended_policy_moves_nothing(suspend: str) -> None:
    (arena,) = build_groups(world(node("a"), policies=(rebalancing_policy(suspend=suspend),)))
    assert arena.pause_reason == f"ReschedulePolicy p has suspend: {suspend}"


@pytest.mark.parametrize(
    ("spec", "goes_on"),
    [({}, True), ({"suspend": "New"}, True), ({"suspend": "All"}, False), ({"mode": "Audit"}, False)],
)
def test_started_moves_may_finish_unless_the_policy_forbids(spec: dict[str, Any], goes_on: bool) -> None:
    (arena,) = build_groups(world(node("a"), policies=(rebalancing_policy(**spec),)))
    assert arena.may_finish_moves is goes_on


def test_on_a_stale_view_nothing_is_moved() -> None:
    found = replace(world(node("a")), listed_at=NOW - timedelta(minutes=3))
    assert "could not be listed" in str(build_groups(found)[0].pause_reason)


def test_in_a_storm_nothing_is_moved() -> None:
    ill = NodeCondition("Ready", "False", last_transition=NOW - timedelta(minutes=9), last_heartbeat=NOW)
    found = world(node("a"), node("b", conditions=(ill,)), node("c", conditions=(ill,)))
    seen = {n.name: observe(None, n, rebalancing_policy(), NOW - timedelta(minutes=9)) for n in found.nodes.values()}
    (arena,) = build_groups(replace(found, condition_histories=seen))
    assert str(arena.pause_reason).startswith("2 of 3 nodes")


def test_a_suspected_node_takes_no_part() -> None:
    assert named(replace(world(node("a"), node("b")), suspected_nodes=frozenset({"b"}))) == {"": ["a"]}


def test_thresholds_come_from_the_policy() -> None:
    (arena,) = build_groups(
        world(node("a"), policies=(rebalancing_policy(rebalance={"enabled": True, "high": "70%", "low": "5%"}),))
    )
    assert (arena.thresholds.high, arena.thresholds.low) == (0.7, 0.05)


def test_nodes_with_a_started_drain_are_listed() -> None:
    rows = drain("a"), drain("b", begun=True)
    assert nodes_with_started_drain({d.name: d for d in rows}) == {"b"}
