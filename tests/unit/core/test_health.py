"""How a node is: failed, suspected, flapping, ailing or well."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rescheduler.api.policies import Policy
from rescheduler.core.facts import Node, NodeCondition
from rescheduler.core.health import Health, counts, diagnose, flapping_until
from rescheduler.core.sightings import STALE, Sighting, see

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def policy(**failure: Any) -> Policy:
    return Policy.from_object({"metadata": {"name": "p"}, "spec": {"failure": failure}})


def node(ready: str = "True", *more: NodeCondition, created: float = -9999) -> Node:
    return Node("n", "u", created=at(created), conditions=(NodeCondition("Ready", ready), *more))


def story(rules: Policy, *steps: tuple[float, Node]) -> Sighting:
    seen = None
    for seconds, now in steps:
        seen = see(seen, now, rules, at(seconds))
    assert seen is not None
    return seen


def health(rules: Policy, now: Node, seen: Sighting, seconds: float, **more: bool) -> Health:
    return diagnose(now, rules, seen, at(seconds), **more).health


def flapped(rules: Policy, times: int) -> Sighting:
    steps = [(0.0, node())]
    for index in range(times):
        steps += [(100.0 * index + 10, node("False")), (100.0 * index + 40, node())]
    return story(rules, *steps)


def test_a_network_plugin_rolled_over_a_node_for_two_minutes_fails_nothing() -> None:
    rules = policy()
    seen = story(rules, (0, node()), (1, node("False")))
    assert health(rules, node("False"), seen, 121) is Health.AILING
    assert health(rules, node(), see(seen, node(), rules, at(122)), 123) is Health.WELL


def test_of_many_conditions_the_earliest_deadline_decides_when_to_look_again() -> None:
    rules = policy(
        conditions=[
            {"type": "Ready", "status": ["False"], "for": "60s"},
            {"type": "Other", "status": ["True"], "for": "20s"},
        ]
    )
    ill = node("False", NodeCondition("Other", "True"))
    seen = story(rules, (0, ill))
    assert diagnose(ill, rules, seen, at(10)).until == at(20)
    found = diagnose(ill, rules, seen, at(25))
    assert (found.health, found.match and found.match.type) == (Health.FAILED, "Other")


def test_a_node_that_comes_and_goes_flaps_until_it_is_quiet() -> None:
    rules = policy()
    seen = flapped(rules, 3)
    assert health(rules, node(), flapped(rules, 2), 250) is Health.WELL
    assert health(rules, node(), seen, 250) is Health.FLAPPING
    assert flapping_until(seen, rules.spec.failure, at(250)) == at(210 + 900)
    assert health(rules, node(), seen, 210 + 901) is Health.WELL


def test_a_flapping_node_whose_condition_holds_for_its_time_has_failed() -> None:
    rules = policy()
    seen = see(flapped(rules, 3), node("False"), rules, at(300))
    assert health(rules, node("False"), seen, 300 + 179) is Health.FLAPPING
    assert health(rules, node("False"), seen, 300 + 180) is Health.FAILED


def test_one_reboot_is_no_flapping() -> None:
    rules = policy(flapping={"changes": 2})
    seen = story(rules, (0, node()), (1, node("False")), (30, node("Unknown")), (60, node("False")), (70, node()))
    assert health(rules, node(), seen, 71) is Health.WELL


def test_a_silent_lease_makes_a_suspect_only_where_the_policy_asks_for_it() -> None:
    seen = story(policy(), (0, node()))
    assert health(policy(), node(), seen, 30, suspected=True) is Health.WELL
    assert health(policy(leaseTimeout="20s"), node(), seen, 30, suspected=True) is Health.SUSPECTED


def test_a_suspect_that_is_unknown_for_good_has_failed() -> None:
    rules = policy(leaseTimeout="20s")
    seen = story(rules, (0, node()), (40, node("Unknown")))
    assert health(rules, node("Unknown"), seen, 99, suspected=True) is Health.SUSPECTED
    assert health(rules, node("Unknown"), seen, 100, suspected=True) is Health.FAILED


def test_nothing_counts_before_a_new_node_was_first_ready() -> None:
    rules = policy(leaseTimeout="20s")
    young = node("False", created=0)
    seen = story(rules, (0, young))
    assert health(rules, young, seen, 599, suspected=True) is Health.WELL
    assert not counts(young, rules, seen, at(599), suspected=True)
    assert health(rules, young, seen, 601) is Health.FAILED


def test_a_node_whose_failure_is_known_is_not_starting() -> None:
    """After a start of ours nobody has seen it Ready, but its NodeDrain says that it failed."""
    rules = policy()
    young = node("Unknown", created=0)
    seen = story(rules, (100, young))
    assert health(rules, young, seen, 170, standing=True) is Health.FAILED
    assert counts(young, rules, seen, at(101), suspected=False, standing=True)


def test_a_stale_condition_starts_nothing_and_does_not_end_what_stands() -> None:
    rules = policy(conditions=[{"type": "Deadlock", "status": ["True"], "for": "60s"}])
    bad = NodeCondition("Deadlock", "True", transition=at(-900), heartbeat=at(0))
    seen = story(rules, (0, node("True", bad)))
    late = STALE.total_seconds() + 1
    seen = see(seen, node("True", bad), rules, at(late))
    assert health(rules, node("True", bad), seen, late) is Health.WELL
    assert health(rules, node("True", bad), seen, late, standing=True) is Health.FAILED
    assert seen.healthy_since is None
    assert not counts(node("True", bad), rules, seen, at(late), suspected=False)


@pytest.mark.parametrize(
    ("ready", "suspected", "sick"), [("True", False, False), ("True", True, True), ("False", False, True)]
)
def test_the_brake_counts_who_is_unhealthy_at_once(ready: str, suspected: bool, sick: bool) -> None:
    seen = story(policy(), (0, node(ready)))
    assert counts(node(ready), policy(), seen, at(1), suspected=suspected) is sick


def test_failure_switched_off_fails_nothing() -> None:
    rules = policy(enabled=False)
    assert health(rules, node("False"), story(rules, (0, node("False"))), 9999) is Health.WELL
