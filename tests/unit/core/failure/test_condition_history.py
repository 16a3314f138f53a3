"""What was seen of a node over time."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from rescheduler.api.policies import Policy
from rescheduler.core.failure.condition_history import STALE, Sighting, anew, judge_by, recall, see
from rescheduler.core.model.nodes import Node, NodeCondition

START = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = Policy.from_object(
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


def node(ready: str = "True", uid: str = "u", *more: NodeCondition) -> Node:
    return Node("n", uid, created=at(-9999), conditions=(NodeCondition("Ready", ready), *more))


def deadlock(status: str, since: float, beat: float) -> NodeCondition:
    return NodeCondition("KernelDeadlock", status, transition=at(since), heartbeat=at(beat))


def story(*steps: tuple[float, Node]) -> Sighting:
    seen = None
    for seconds, now in steps:
        seen = see(seen, now, POLICY, at(seconds))
    assert seen is not None
    return seen


def test_both_polarities_ail_a_node_as_the_policy_writes_them() -> None:
    ill = node("True", "u", NodeCondition("KernelDeadlock", "True"), NodeCondition("KernelReady", "False"))
    assert story((0, ill)).ailing == {"KernelDeadlock", "KernelReady"}
    well = node("True", "u", NodeCondition("KernelDeadlock", "False"), NodeCondition("KernelReady", "True"))
    assert story((0, ill), (1, well)).ailing == frozenset()


def test_a_condition_that_the_node_does_not_have_ails_it_not() -> None:
    assert story((0, node())).healthy_since == at(0)


def test_a_heartbeat_that_stands_still_makes_a_condition_stale() -> None:
    seen = story((0, node("True", "u", deadlock("True", -900, 0))))
    condition = deadlock("True", -900, 0)
    assert not seen.stale(condition, at(STALE.total_seconds() - 1))
    assert seen.stale(condition, at(STALE.total_seconds()))


def test_a_heartbeat_that_moves_keeps_it_fresh_whatever_the_nodes_clock_says() -> None:
    """An agent whose clock is an hour behind: stale at first sight, and not any more once it beats."""
    seen = story((0, node("True", "u", deadlock("True", -9000, -3600))))
    assert seen.stale(deadlock("True", -9000, -3600), at(0))
    seen = see(seen, node("True", "u", deadlock("True", -9000, -3300)), POLICY, at(300))
    assert not seen.stale(deadlock("True", -9000, -3300), at(301))


def test_a_condition_set_once_has_no_heartbeat_to_go_stale() -> None:
    once = deadlock("True", 0, 0)
    assert not story((0, node("True", "u", once))).stale(once, at(99999))


def test_a_stale_condition_neither_starts_nor_ends_anything() -> None:
    late = STALE.total_seconds() + 100
    bad, good = deadlock("True", -900, 0), deadlock("False", 10, 20)
    begun = story((0, node("True", "u", bad)), (late, node("True", "u", bad)))
    assert begun.ailing == {"KernelDeadlock"}  # what it was when it was fresh
    assert not begun.holds(node("True", "u", bad), DEADLOCK, at(late))
    healthy = story((0, node()), (20, node("True", "u", good)), (late, node("True", "u", good)))
    assert healthy.ailing == frozenset()


def test_beginnings_are_counted_once_each_and_one_reboot_is_one() -> None:
    """Ready False, Unknown, False, True: a reboot goes through all of them."""
    seen = story((0, node()), (1, node("False")), (40, node("Unknown")), (80, node("False")), (120, node()))
    assert seen.begins == (("Ready=False", at(1)),)
    seen = see(seen, node("False"), POLICY, at(200))
    assert seen.begins == (("Ready=False", at(1)), ("Ready=False", at(200)))


def test_old_beginnings_are_forgotten() -> None:
    seen = story((0, node()), (1, node("False")), (2, node()), (1000, node()))
    assert seen.begins == ()


def test_a_suspected_node_is_not_healthy() -> None:
    seen = see(story((0, node())), node(), POLICY, at(5), suspected=True)
    assert seen.healthy_since is None
    assert see(seen, node(), POLICY, at(9)).healthy_since == at(9)


def test_after_blindness_every_time_starts_anew() -> None:
    seen = anew(story((0, node("Unknown"))), at(500))
    assert seen.since["Ready"] == ("Unknown", at(500))
    assert anew(story((0, node())), at(500)).healthy_since == at(500)


def test_flapping_that_a_node_drain_tells_of_is_recalled() -> None:
    assert recall(story((100, node())), 3, at(50)).begins == (("", at(50)),) * 3


def test_a_policy_that_goes_makes_no_node_healthy_and_one_that_comes_back_is_no_change() -> None:
    ill = node("True", "u", NodeCondition("KernelDeadlock", "True"))
    seen = story((0, node()), (1, ill))
    for seconds in (10, 20, 30):
        seen = see(seen, ill, None, at(seconds))
        assert (seen.ailing, seen.healthy_since) == ({"KernelDeadlock"}, None)
        seen = see(seen, ill, POLICY, at(seconds + 5))
    assert seen.begins == (("KernelDeadlock", at(1)),)
    assert see(seen, node(), None, at(40)).healthy_since == at(40)


def test_without_any_policy_so_far_a_node_is_judged_by_the_defaults() -> None:
    assert see(None, node("False"), None, at(0)).ailing == {"Ready"}
    ill = node("True", "u", NodeCondition("KernelDeadlock", "True"))
    seen = see(None, ill, None, at(0))
    assert seen.healthy_since == at(0)
    seen = judge_by(seen, DEADLOCK)
    assert see(seen, ill, None, at(1)).healthy_since is None
    assert see(seen, node(), None, at(2)).healthy_since == at(2)


@given(st.lists(st.tuples(st.sampled_from(["True", "False", "Unknown"]), st.integers(1, 300)), max_size=20))
def test_a_status_never_counts_from_before_it_was_seen(steps: list[tuple[str, int]]) -> None:
    seen, now, first = None, 0.0, {}
    for status, wait in steps:
        now += wait
        seen = see(seen, node(status), POLICY, at(now))
        if status != "False" or first.get("last") != "Unknown":
            first["start"] = now if status != first.get("last") else first["start"]
        first["last"] = status
        assert seen.since["Ready"] == (status, at(first["start"]))
