"""Diagnose a node: failed, suspected, flapping, unhealthy or healthy."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rescheduler.api.policies import ReschedulePolicy
from rescheduler.core.failure.causes import Certainty
from rescheduler.core.failure.condition_history import HEARTBEAT_STALE_AFTER, ConditionHistory, observe
from rescheduler.core.failure.health import Health, diagnose, flapping_until, unhealthy_cause_names
from rescheduler.core.model.nodes import Node, NodeCondition
from unit.builders import node, policy

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def policy_on_failure(**failure: Any) -> ReschedulePolicy:
    """Return a policy with these fields of its raw `failure`."""
    return policy(failure=failure)


def node_with_conditions(ready: str = "True", *more: NodeCondition, created: float = -9999) -> Node:
    """Return a node with more conditions than Ready; `created`: in seconds after the start of the test's time."""
    return node(uid="u", created=at(created), conditions=(NodeCondition("Ready", ready), *more))


def story(rules: ReschedulePolicy, *steps: tuple[float, Node]) -> ConditionHistory:
    seen = None
    for seconds, now in steps:
        seen = observe(seen, now, rules, at(seconds))
    assert seen is not None
    return seen


def health(rules: ReschedulePolicy, now: Node, seen: ConditionHistory, seconds: float, **more: bool) -> Health:
    return diagnose(now, rules, seen, at(seconds), **more).health


def flapped(rules: ReschedulePolicy, times: int) -> ConditionHistory:
    steps = [(0.0, node_with_conditions())]
    for index in range(times):
        steps += [(100.0 * index + 10, node_with_conditions("False")), (100.0 * index + 40, node_with_conditions())]
    return story(rules, *steps)


def test_two_minutes_of_not_ready_are_no_failure() -> None:
    rules = policy_on_failure()
    seen = story(rules, (0, node_with_conditions()), (1, node_with_conditions("False")))
    assert health(rules, node_with_conditions("False"), seen, 121) is Health.UNHEALTHY
    assert (
        health(rules, node_with_conditions(), observe(seen, node_with_conditions(), rules, at(122)), 123)
        is Health.HEALTHY
    )


def test_earliest_deadline_is_the_next_recheck() -> None:
    rules = policy_on_failure(
        conditions=[
            {"type": "Ready", "status": ["False"], "for": "60s"},
            {"type": "Other", "status": ["True"], "for": "20s"},
        ]
    )
    ill = node_with_conditions("False", NodeCondition("Other", "True"))
    seen = story(rules, (0, ill))
    assert diagnose(ill, rules, seen, at(10)).recheck_at == at(20)
    found = diagnose(ill, rules, seen, at(25))
    assert (found.health, found.match and found.match.type) == (Health.FAILED, "Other")


def test_flapping_node_flaps_until_it_is_quiet() -> None:
    rules = policy_on_failure()
    seen = flapped(rules, 3)
    assert health(rules, node_with_conditions(), flapped(rules, 2), 250) is Health.HEALTHY
    assert health(rules, node_with_conditions(), seen, 250) is Health.FLAPPING
    assert flapping_until(seen, rules.spec.failure, at(250)) == at(210 + 900)
    assert health(rules, node_with_conditions(), seen, 210 + 901) is Health.HEALTHY


def test_flapping_node_fails_if_a_condition_holds_for_its_for() -> None:
    rules = policy_on_failure()
    seen = observe(flapped(rules, 3), node_with_conditions("False"), rules, at(300))
    assert health(rules, node_with_conditions("False"), seen, 300 + 179) is Health.FLAPPING
    assert health(rules, node_with_conditions("False"), seen, 300 + 180) is Health.FAILED


def test_one_reboot_is_no_flapping() -> None:
    rules = policy_on_failure(flapping={"changes": 2})
    seen = story(
        rules,
        (0, node_with_conditions()),
        (1, node_with_conditions("False")),
        (30, node_with_conditions("Unknown")),
        (60, node_with_conditions("False")),
        (70, node_with_conditions()),
    )
    assert health(rules, node_with_conditions(), seen, 71) is Health.HEALTHY


def test_silent_lease_is_a_suspicion_only_with_lease_timeout() -> None:
    seen = story(policy_on_failure(), (0, node_with_conditions()))
    assert health(policy_on_failure(), node_with_conditions(), seen, 30, suspected=True) is Health.HEALTHY
    assert (
        health(policy_on_failure(leaseTimeout="20s"), node_with_conditions(), seen, 30, suspected=True)
        is Health.SUSPECTED
    )


def test_suspected_node_fails_once_it_is_unknown_for_its_for() -> None:
    rules = policy_on_failure(leaseTimeout="20s")
    seen = story(rules, (0, node_with_conditions()), (40, node_with_conditions("Unknown")))
    assert health(rules, node_with_conditions("Unknown"), seen, 99, suspected=True) is Health.SUSPECTED
    assert health(rules, node_with_conditions("Unknown"), seen, 100, suspected=True) is Health.FAILED


def test_new_node_is_healthy_during_startup_grace() -> None:
    rules = policy_on_failure(leaseTimeout="20s")
    young = node_with_conditions("False", created=0)
    seen = story(rules, (0, young))
    assert health(rules, young, seen, 599, suspected=True) is Health.HEALTHY
    assert not unhealthy_cause_names(young, rules, seen, at(599), suspected=True)
    assert health(rules, young, seen, 601) is Health.FAILED


def test_node_with_a_known_failure_has_no_startup_grace() -> None:
    """After a start of the operator the node has not been Ready, but its NodeDrain reports the failure."""
    rules = policy_on_failure()
    young = node_with_conditions("Unknown", created=0)
    seen = story(rules, (100, young))
    assert health(rules, young, seen, 170, failure_known=True) is Health.FAILED
    assert unhealthy_cause_names(young, rules, seen, at(101), suspected=False, failure_known=True)


def test_stale_condition_neither_starts_nor_ends_a_failure() -> None:
    rules = policy_on_failure(conditions=[{"type": "Deadlock", "status": ["True"], "for": "60s"}])
    bad = NodeCondition("Deadlock", "True", last_transition=at(-900), last_heartbeat=at(0))
    seen = story(rules, (0, node_with_conditions("True", bad)))
    late = HEARTBEAT_STALE_AFTER.total_seconds() + 1
    seen = observe(seen, node_with_conditions("True", bad), rules, at(late))
    assert health(rules, node_with_conditions("True", bad), seen, late) is Health.HEALTHY
    assert health(rules, node_with_conditions("True", bad), seen, late, failure_known=True) is Health.FAILED
    assert seen.healthy_since is None
    assert not unhealthy_cause_names(node_with_conditions("True", bad), rules, seen, at(late), suspected=False)


def test_stale_condition_counts_while_its_drain_exists() -> None:
    """Otherwise the brake would open for all nodes when a wrong detector ends."""
    rules = policy_on_failure(conditions=[{"type": "Deadlock", "status": ["True"], "for": "60s"}])
    bad = node_with_conditions(
        "True", NodeCondition("Deadlock", "True", last_transition=at(-900), last_heartbeat=at(0))
    )
    late = HEARTBEAT_STALE_AFTER.total_seconds() + 1
    seen = story(rules, (0, bad), (late, bad))
    assert unhealthy_cause_names(bad, rules, seen, at(late), suspected=False, failure_known=True) == {"Deadlock"}


@pytest.mark.parametrize(
    ("ready", "suspected", "heard", "causes"),
    [
        ("True", False, False, set()),
        ("True", True, False, {"Ready=Unknown"}),
        ("False", False, False, {"Ready=False"}),
        ("Unknown", False, False, {"Ready=Unknown"}),
        ("Unknown", True, False, {"Ready=Unknown"}),
        ("Unknown", False, True, {"Ready=Unknown with a renewed Lease"}),
        ("False", True, False, {"Ready=False", "Ready=Unknown"}),
    ],
)
def test_unhealthy_node_counts_at_once_for_each_cause(
    ready: str, suspected: bool, heard: bool, causes: set[str]
) -> None:
    seen = story(policy_on_failure(), (0, node_with_conditions(ready)))
    assert (
        unhealthy_cause_names(
            node_with_conditions(ready), policy_on_failure(), seen, at(1), suspected=suspected, lease_renewed=heard
        )
        == causes
    )


TWO = policy_on_failure(
    conditions=[
        {"type": "GpuBad", "status": ["True", "Unknown"]},
        {"type": "Ready", "status": ["Unknown"], "for": "60s"},
        {"type": "Ready", "status": ["False"], "for": "60s"},
    ]
)


def certainties(ready: str, *, heard: bool = False) -> tuple[str, list[str]]:
    """Return the condition for which a node with a bad GPU failed, and all its causes in order."""
    ill = node_with_conditions(ready, NodeCondition("GpuBad", "Unknown"))
    found = diagnose(ill, TWO, story(TWO, (0, ill)), at(60), lease_renewed=heard)
    return found.match.type if found.match else "", [cause.name for cause in found.causes]


def test_most_certain_cause_comes_first_in_any_order_of_the_policy() -> None:
    assert certainties("Unknown") == ("Ready", ["Ready=Unknown", "GpuBad"])
    assert certainties("False") == ("Ready", ["Ready=False", "GpuBad"])
    assert certainties("True") == ("GpuBad", ["GpuBad"])
    assert certainties("Unknown", heard=True) == ("GpuBad", ["GpuBad", "Ready=Unknown with a renewed Lease"])


def test_failed_node_is_rechecked_for_a_more_certain_cause() -> None:
    ill = node_with_conditions("Unknown", NodeCondition("GpuBad", "True"))
    found = diagnose(ill, TWO, story(TWO, (0, ill)), at(10))
    assert (found.health, [cause.name for cause in found.causes], found.recheck_at) == (
        Health.FAILED,
        ["GpuBad"],
        at(60),
    )


def test_suspicion_is_one_cause_among_others() -> None:
    rules = policy_on_failure(leaseTimeout="20s", conditions=[{"type": "GpuBad", "status": ["True"]}])
    ill = node_with_conditions("True", NodeCondition("GpuBad", "True"))
    found = diagnose(ill, rules, story(rules, (0, ill)), at(1), suspected=True)
    assert [cause.certainty for cause in found.causes] == [Certainty.SUSPECTED, Certainty.REPORTED]


def test_braked_causes_do_not_count_as_flapping() -> None:
    rules = policy_on_failure(conditions=[{"type": "A", "status": ["True"]}, {"type": "B", "status": ["True"]}])
    steps = [(0.0, node_with_conditions())]
    for index, cause in enumerate("AABA"):
        steps += [
            (10.0 * index + 1, node_with_conditions("True", NodeCondition(cause, "True"))),
            (10.0 * index + 5, node_with_conditions()),
        ]
    seen = story(rules, *steps)
    assert flapping_until(seen, rules.spec.failure, at(50))
    assert not flapping_until(seen, rules.spec.failure, at(50), ["A"])
    assert flapping_until(seen, rules.spec.failure, at(50), ["B"])


def test_no_node_fails_with_failure_disabled() -> None:
    rules = policy_on_failure(enabled=False)
    assert (
        health(rules, node_with_conditions("False"), story(rules, (0, node_with_conditions("False"))), 9999)
        is Health.HEALTHY
    )
