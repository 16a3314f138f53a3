"""Parsing and writing a NodeDrain, and its overrides of a policy."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rescheduler.api.drains import (
    Blocker,
    BlockerClass,
    DrainOverrides,
    NodeDrain,
    NodeDrainStatus,
    NodeRecord,
    Phase,
    RequestReason,
)
from rescheduler.api.policies import DrainRule, DrainSettings, OnTimeout, RuleAction
from rescheduler.api.scalars import dump

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
RAW: dict[str, Any] = {
    "metadata": {
        "name": "n1",
        "uid": "u",
        "resourceVersion": "7",
        "generation": 2,
        "creationTimestamp": "2026-01-01T12:00:00Z",
        "deletionTimestamp": "2026-01-01T13:00:00Z",
        "finalizers": ["rescheduler.dev/restore"],
    },
    "spec": {"nodeName": "n1", "requests": [{"reason": "Maintenance", "message": "disk"}]},
    "status": {"phase": "Draining", "node": {"uid": "x", "bootID": "b", "cordonedByUs": True}},
}


def test_a_drain_is_read_from_its_object() -> None:
    drain = NodeDrain.from_object(RAW)
    assert (drain.name, drain.uid, drain.resource_version, drain.generation) == ("n1", "u", "7", 2)
    assert (drain.created, drain.deletion_timestamp) == (NOON, NOON + timedelta(hours=1))
    assert drain.finalizers == ("rescheduler.dev/restore",)
    assert [(r.reason, r.message) for r in drain.spec.requests] == [(RequestReason.MAINTENANCE, "disk")]
    assert drain.status.phase is Phase.DRAINING
    assert drain.status.node == NodeRecord(uid="x", boot_id="b", cordoned_by_us=True)


def test_a_drain_without_status_has_an_empty_one() -> None:
    assert NodeDrain.from_object({"metadata": {"name": "n1"}, "spec": RAW["spec"]}).status == NodeDrainStatus()


def test_status_is_the_same_after_writing_and_reading() -> None:
    blocker = Blocker(namespace="a", pod="b", class_=BlockerClass.EMPTY_DIR, since=NOON, message="m", hint="h")
    status = NodeDrainStatus(started_at=NOON, blockers=(blocker,), node=NodeRecord(uid="x", boot_id="b"))
    body = dump(status)
    assert body["startedAt"] == "2026-01-01T12:00:00Z"
    assert body["node"]["bootID"] == "b"
    assert body["blockers"][0]["class"] == "EmptyDir"
    assert NodeDrainStatus.model_validate(body) == status


def test_no_override_leaves_the_policys_drain() -> None:
    drain = DrainSettings(timeout=timedelta(hours=1))
    assert DrainOverrides().apply_to(drain) == drain
    assert dump(DrainOverrides()) == {}


def test_overrides_replace_field_by_field() -> None:
    policy = DrainSettings(timeout=timedelta(hours=1), on_timeout=OnTimeout.DELETE, max_evictions_per_second=5)
    merged = DrainOverrides.model_validate({"timeout": "0s", "excludeFromLoadBalancers": True}).apply_to(policy)
    assert merged == policy.model_copy(update={"timeout": timedelta(), "exclude_from_load_balancers": True})


@pytest.mark.parametrize("given", [[], [{"action": "Skip"}]])
def test_overriding_rules_replaces_all_of_them(given: list[Any]) -> None:
    policy = DrainSettings(rules=(DrainRule(order=1), DrainRule(order=2, action=RuleAction.WAIT_COMPLETED)))
    merged = DrainOverrides.model_validate({"rules": given}).apply_to(policy)
    assert [rule.action for rule in merged.rules] == [rule["action"] for rule in given]


def test_every_field_of_a_drain_can_be_overridden() -> None:
    assert set(DrainOverrides.model_fields) == set(DrainSettings.model_fields)


def test_an_answer_of_any_length_makes_a_blocker() -> None:
    """A webhook's refusal may be pages long and must not make the status unwritable."""
    blocker = Blocker(namespace="a", pod="b", class_=BlockerClass.ADMISSION_DENIED, message="x" * 9999, since=NOON)
    assert len(blocker.message) == 1024
