"""Migrations off a node that is not drained: stricter settings, and a taint that is removed again."""

import pytest

from rescheduler.api import names
from rescheduler.api.drains import BlockerClass, NodeRecord, TaintRecord
from rescheduler.api.policies import DrainSettings
from rescheduler.core.drain import migration
from rescheduler.core.eviction.pod_actions import EvictionContext, PodAction, decide_action
from rescheduler.core.model.nodes import Node, Taint
from rescheduler.core.model.wait_reasons import ProgressingReason
from unit.builders import NOW, drain, pod, policy

OTHER = Taint("gpu", "", "NoSchedule")


def test_migration_never_deletes_or_loses_a_pod_or_moves_it_without_room() -> None:
    words = {
        "replacement": "Preferred",
        "timeout": "1h",
        "onTimeout": "Delete",
        "unmanaged": "Evict",
        "noRoom": "Evict",
    }
    found = migration.settings(DrainSettings.model_validate(words))
    assert (found.replacement, found.on_timeout, found.unmanaged, found.no_room) == (
        "Required",
        "Hold",
        "Block",
        "Hold",
    )
    assert not found.timeout


def test_migration_moves_no_pod_that_asks_another_tool_to_be_left_alone() -> None:
    found = migration.settings(DrainSettings())
    for annotations in (
        {names.KARPENTER_DO_NOT_DISRUPT: "true"},
        {names.SAFE_TO_EVICT: "false"},
        {names.PREFER_NO_EVICTION: ""},
    ):
        decision = decide_action(pod(annotations=annotations), found, EvictionContext(NOW))
        assert decision.blocker_class is BlockerClass.DO_NOT_DISRUPT
    assert decide_action(pod(), found, EvictionContext(NOW)).action is PodAction.EVICT


@pytest.mark.parametrize("word", ["Never", "WhenBlocked", "Required"])
def test_who_wants_no_replacement_first_gets_none(word: str) -> None:
    assert migration.settings(DrainSettings.model_validate({"replacement": word})).replacement == word


def test_a_policy_may_move_hold_or_be_missing() -> None:
    node = Node("n", "n")
    assert migration.why_no_migration(node, policy(), "") is None
    for found, reason in (
        (migration.why_no_migration(node, None, ""), ProgressingReason.NO_POLICY),
        (migration.why_no_migration(node, policy(mode="Audit"), ""), ProgressingReason.AUDIT),
        (migration.why_no_migration(node, policy(suspend="New"), ""), ProgressingReason.SUSPENDED),
        (migration.why_no_migration(node, policy(suspend="All"), ""), ProgressingReason.SUSPENDED),
        (migration.why_no_migration(node, policy(), "not listed"), ProgressingReason.STALE_VIEW),
    ):
        assert found is not None
        assert found.reason is reason


def test_the_source_is_tainted_softly_and_as_it_was_afterwards() -> None:
    node = Node("n", "u", "7", taints=(OTHER,))
    patch = migration.taint_patch(node)
    assert patch == {
        "metadata": {"resourceVersion": "7", "uid": "u"},
        "spec": {"taints": [OTHER.as_json(), {"key": names.WAITING_TAINT_KEY, "effect": "PreferNoSchedule"}]},
    }
    shunned = Node("n", "u", "8", taints=(OTHER, migration.MIGRATION_TAINT))
    assert migration.taint_patch(shunned) is None
    back = migration.untaint_patch(shunned)
    assert back is not None
    assert back["spec"]["taints"] == [OTHER.as_json()]
    assert migration.untaint_patch(node) is None


def test_a_taint_that_a_drain_has_recorded_is_the_drains() -> None:
    record = NodeRecord(added_taints=(TaintRecord(key=names.WAITING_TAINT_KEY, effect="PreferNoSchedule"),))
    assert migration.drain_owns_taint(drain("n", node=record))
    assert not migration.drain_owns_taint(drain("n"))
    assert not migration.drain_owns_taint(None)


def test_no_rule_weakens_the_settings_of_a_migration() -> None:
    rules = [{"unmanaged": "Evict", "localVolume": "Evict", "replacement": "Preferred", "timeout": "1h"}]
    found = migration.settings(DrainSettings.model_validate({"localVolume": "Evict", "rules": rules}))
    merged = found.with_rule(found.rules[0])
    assert (merged.unmanaged, merged.local_volume, merged.replacement) == ("Block", "Block", "Required")
    assert not merged.timeout
