"""Record the conditions of a node over time."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rescheduler.api.policies import ReschedulePolicy
from rescheduler.core.failure.condition_history import (
    HEARTBEAT_STALE_AFTER,
    ConditionHistory,
    observe,
    restart_timers,
    with_failure,
    with_flapping,
)
from rescheduler.core.model.nodes import Node, NodeCondition
from unit.builders import node

START = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = ReschedulePolicy.from_object(
    {
        "metadata": {"name": "p"},
        "spec": {
            "failure": {
                "conditions": [
                    {"type": "Ready", "status": ["Unknown", "False"], "for": "60s"},
                    {"type": "KernelDeadlock", "status": ["True"], "for": "60s"},
                    {"type": "KernelReady", "status": ["False"], "for": "60s"},
                ]
            }
        },
    }
)
DEADLOCK = POLICY.spec.failure.conditions[1]


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def node_with_conditions(ready: str = "True", uid: str = "u", *more: NodeCondition) -> Node:
    """Return an old node with more conditions than Ready."""
    return node(uid=uid, created=at(-9999), conditions=(NodeCondition("Ready", ready), *more))


def deadlock(status: str, since: float, beat: float) -> NodeCondition:
    return NodeCondition("KernelDeadlock", status, last_transition=at(since), last_heartbeat=at(beat))


def story(*steps: tuple[float, Node]) -> ConditionHistory:
    seen = None
    for seconds, now in steps:
        seen = observe(seen, now, POLICY, at(seconds))
    assert seen is not None
    return seen


def test_condition_fails_with_the_status_of_the_policy() -> None:
    ill = node_with_conditions(
        "True", "u", NodeCondition("KernelDeadlock", "True"), NodeCondition("KernelReady", "False")
    )
    assert story((0, ill)).failing_conditions == {"KernelDeadlock", "KernelReady"}
    well = node_with_conditions(
        "True", "u", NodeCondition("KernelDeadlock", "False"), NodeCondition("KernelReady", "True")
    )
    assert story((0, ill), (1, well)).failing_conditions == frozenset()


def test_absent_condition_does_not_fail() -> None:
    assert story((0, node_with_conditions())).healthy_since == at(0)


def test_condition_without_new_heartbeats_becomes_stale() -> None:
    seen = story((0, node_with_conditions("True", "u", deadlock("True", -900, 0))))
    condition = deadlock("True", -900, 0)
    assert not seen.is_stale(condition, at(HEARTBEAT_STALE_AFTER.total_seconds() - 1))
    assert seen.is_stale(condition, at(HEARTBEAT_STALE_AFTER.total_seconds()))


def test_new_heartbeat_keeps_a_condition_fresh_with_a_skewed_clock() -> None:
    """A condition whose clock is an hour behind is stale at first, and fresh after its next heartbeat."""
    seen = story((0, node_with_conditions("True", "u", deadlock("True", -9000, -3600))))
    assert seen.is_stale(deadlock("True", -9000, -3600), at(0))
    seen = observe(seen, node_with_conditions("True", "u", deadlock("True", -9000, -3300)), POLICY, at(300))
    assert not seen.is_stale(deadlock("True", -9000, -3300), at(301))


def test_condition_set_once_never_becomes_stale() -> None:
    once = deadlock("True", 0, 0)
    assert not story((0, node_with_conditions("True", "u", once))).is_stale(once, at(99999))


def test_stale_condition_neither_starts_nor_ends_a_failure() -> None:
    late = HEARTBEAT_STALE_AFTER.total_seconds() + 100
    bad, good = deadlock("True", -900, 0), deadlock("False", 10, 20)
    begun = story((0, node_with_conditions("True", "u", bad)), (late, node_with_conditions("True", "u", bad)))
    assert begun.failing_conditions == {"KernelDeadlock"}  # what it was when it was fresh
    assert not begun.is_met(node_with_conditions("True", "u", bad), DEADLOCK, at(late))
    healthy = story(
        (0, node_with_conditions()),
        (20, node_with_conditions("True", "u", good)),
        (late, node_with_conditions("True", "u", good)),
    )
    assert healthy.failing_conditions == frozenset()


def test_one_reboot_counts_as_one_failure_start() -> None:
    """Ready False, Unknown, False, True: a reboot goes through all of them."""
    seen = story(
        (0, node_with_conditions()),
        (1, node_with_conditions("False")),
        (40, node_with_conditions("Unknown")),
        (80, node_with_conditions("False")),
        (120, node_with_conditions()),
    )
    assert seen.failure_starts == (("Ready=False", at(1)),)
    seen = observe(seen, node_with_conditions("False"), POLICY, at(200))
    assert seen.failure_starts == (("Ready=False", at(1)), ("Ready=False", at(200)))


def test_old_failure_starts_are_forgotten() -> None:
    seen = story(
        (0, node_with_conditions()),
        (1, node_with_conditions("False")),
        (2, node_with_conditions()),
        (1000, node_with_conditions()),
    )
    assert seen.failure_starts == ()


def test_a_suspected_node_is_not_healthy() -> None:
    seen = observe(story((0, node_with_conditions())), node_with_conditions(), POLICY, at(5), suspected=True)
    assert seen.healthy_since is None
    assert observe(seen, node_with_conditions(), POLICY, at(9)).healthy_since == at(9)


def test_every_timer_restarts_after_a_freeze() -> None:
    seen = restart_timers(story((0, node_with_conditions("Unknown"))), at(500))
    assert seen.status_since["Ready"] == ("Unknown", at(500))
    assert restart_timers(story((0, node_with_conditions())), at(500)).healthy_since == at(500)


def test_flapping_in_the_status_of_the_drain_is_restored() -> None:
    assert with_flapping(story((100, node_with_conditions())), 3, at(50)).failure_starts == ((None, at(50)),) * 3


def test_deleted_policy_makes_no_node_healthy() -> None:
    ill = node_with_conditions("True", "u", NodeCondition("KernelDeadlock", "True"))
    seen = story((0, node_with_conditions()), (1, ill))
    for seconds in (10, 20, 30):
        seen = observe(seen, ill, None, at(seconds))
        assert (seen.failing_conditions, seen.healthy_since) == (frozenset({"KernelDeadlock"}), None)
        seen = observe(seen, ill, POLICY, at(seconds + 5))
    assert seen.failure_starts == (("KernelDeadlock", at(1)),)
    assert observe(seen, node_with_conditions(), None, at(40)).healthy_since == at(40)


def test_node_without_a_policy_yet_has_the_default_conditions() -> None:
    assert observe(None, node_with_conditions("False"), None, at(0)).failing_conditions == {"Ready"}
    ill = node_with_conditions("True", "u", NodeCondition("KernelDeadlock", "True"))
    seen = observe(None, ill, None, at(0))
    assert seen.healthy_since == at(0)
    seen = with_failure(seen, DEADLOCK)
    assert observe(seen, ill, None, at(1)).healthy_since is None
    assert observe(seen, node_with_conditions(), None, at(2)).healthy_since == at(2)


@given(st.lists(st.tuples(st.sampled_from(["True", "False", "Unknown"]), st.integers(1, 300)), max_size=20))
def test_status_never_counts_from_before_its_first_observation(steps: list[tuple[str, int]]) -> None:
    seen, now = None, 0.0
    first: dict[str, Any] = {}
    for status, wait in steps:
        now += wait
        seen = observe(seen, node_with_conditions(status), POLICY, at(now))
        if status != "False" or first.get("last") != "Unknown":
            first["start"] = now if status != first.get("last") else first["start"]
        first["last"] = status
        assert seen.status_since["Ready"] == (status, at(first["start"]))
