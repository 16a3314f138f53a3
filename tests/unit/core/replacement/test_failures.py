"""Causes of a failed replacement, and the attempts and pauses that follow."""

from datetime import timedelta

import pytest

from rescheduler.api.policies import DrainSettings
from rescheduler.core.model.pods import Owner
from rescheduler.core.model.workloads import Deployment, ReplicaSet, Workload
from rescheduler.core.replacement import failures
from rescheduler.core.replacement.failures import ReplacementFailure, attempt_duration, next_backoff
from unit.builders import NOW, PodFields, pod

DEPLOYMENT = Deployment("s", "web", "web", replicas=2, revision="1")
CURRENT = ReplicaSet("s", "web-a", "web-a", "web", replicas=2, revision="1", replica_failure="exceeded quota: q")


def test_three_attempts_with_growing_pauses_end_within_three_timeouts() -> None:
    drain, now, backoff, pauses = DrainSettings(), NOW, None, []
    for _ in range(3):
        now += attempt_duration(backoff, drain, required=False)
        backoff = next_backoff(ReplacementFailure.NOT_READY, "late", backoff, drain, now, required=False)
        pauses.append((backoff.retry_at - now).total_seconds())
        if len(pauses) < 3:
            now = backoff.retry_at
    assert now == NOW + 2.75 * drain.replacement_timeout
    assert pauses == [37.5, 75, 300]


def test_a_required_replacement_pauses_for_the_timeout_after_each_attempt() -> None:
    backoff = None
    for _ in range(4):
        backoff = next_backoff(ReplacementFailure.NOT_READY, "late", backoff, DrainSettings(), NOW, required=True)
        assert backoff.retry_at == NOW + timedelta(minutes=5)
        assert attempt_duration(backoff, DrainSettings(), required=True) == timedelta(minutes=5)


def test_each_cause_has_a_hint() -> None:
    assert all(failures.hint(failure) for failure in ReplacementFailure)


def test_alternating_causes_count_together_and_a_held_cause_begins_again() -> None:
    backoff = None
    for failure, attempts in (("Gated", 1), ("ReplacementNotReady", 2), ("NoRoom", 1), ("NoRoom", 2), ("Quota", 1)):
        found = ReplacementFailure(failure)
        backoff = next_backoff(found, "why", backoff, DrainSettings(), NOW, required=False)
        assert backoff.attempts == attempts


@pytest.mark.parametrize(
    ("new", "failure"),
    [
        ([{"node": "n2"}, {"scheduling_gates": ("g",), "node": ""}], ReplacementFailure.GATED),
        ([{"start_failure": "crash"}, {"scheduling_gates": ("g",), "node": ""}], ReplacementFailure.GATED),
        ([{"scheduling_gates": ("g",), "node": ""}, {"unschedulable_message": "x"}], ReplacementFailure.NO_ROOM),
        ([{"created": NOW - timedelta(hours=1)}], ReplacementFailure.QUOTA),
    ],
)
def test_the_first_obstacle_of_any_new_pod_is_the_cause(new: list[PodFields], failure: ReplacementFailure) -> None:
    owner = Owner("ReplicaSet", "web-a", "web-a")
    given: list[PodFields] = [{"owner": owner, "created": NOW, **fields} for fields in new]
    pods = tuple(pod(f"new{number}", ready=False, **fields) for number, fields in enumerate(given))
    found = Workload(DEPLOYMENT, (CURRENT,), pods)
    assert failures.diagnose(found, CURRENT, NOW)[0] is failure
