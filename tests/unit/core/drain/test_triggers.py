"""Requests of a node, and when they start and end."""

import json
from datetime import datetime, timedelta
from typing import Unpack

import pytest

from rescheduler.api import names
from rescheduler.api.drains import RequestReason
from rescheduler.api.policies import ReschedulePolicy
from rescheduler.core.drain.triggers import (
    TriggerContext,
    parse_condition_message,
    stale_cancellations,
    wanted_requests,
)
from rescheduler.core.failure.condition_history import ConditionHistory, observe
from rescheduler.core.model.nodes import Node, NodeCondition
from unit.builders import NOW, NodeFields, node, policy

POLICY = policy()


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def node_with_ready(ready: str = "True", *, transition: float = 0, **fields: Unpack[NodeFields]) -> Node:
    """Return a node of the last hour whose condition Ready changed at this second."""
    given: NodeFields = {"created": at(-3600), **fields}
    return node(conditions=(NodeCondition("Ready", ready, "why", at(transition)),), **given)


def story(*steps: tuple[float, str]) -> ConditionHistory:
    seen = None
    for seconds, ready in steps:
        seen = observe(seen, node_with_ready(ready, transition=seconds), POLICY, at(seconds))
    assert seen is not None
    return seen


def reasons(ready: str, seen: ConditionHistory, seconds: float, *standing: RequestReason) -> set[RequestReason]:
    asked = wanted_requests(
        node_with_ready(ready), POLICY, seen, at(seconds), TriggerContext(dict.fromkeys(standing, ""))
    )
    return {want.reason for want in asked.requests}


@pytest.mark.parametrize(
    ("ready", "seconds", "asks"),
    [("Unknown", 59, False), ("Unknown", 60, True), ("False", 179, False), ("False", 180, True)],
)
def test_a_condition_counts_after_its_time(ready: str, seconds: float, asks: bool) -> None:
    seen = story((-5, "True"), (0, ready))
    assert reasons(ready, seen, seconds) == ({RequestReason.FAILURE} if asks else set())


def test_it_is_looked_at_again_just_when_the_time_is_up() -> None:
    seen = story((-5, "True"), (0, "Unknown"))
    assert wanted_requests(node_with_ready("Unknown"), POLICY, seen, at(10), TriggerContext()).recheck_at == at(60)


def test_time_as_unknown_counts_for_false_too() -> None:
    """A reboot shows both statuses; the timer does not start again."""
    seen = story((-5, "True"), (0, "Unknown"), (50, "False"))
    assert reasons("False", seen, 180) == {RequestReason.FAILURE}


def test_after_restart_unknown_counts_from_transition_false_from_now() -> None:
    unknown = observe(None, node_with_ready("Unknown", transition=0), POLICY, at(50))
    assert reasons("Unknown", unknown, 60) == {RequestReason.FAILURE}
    ill = observe(None, node_with_ready("False", transition=0), POLICY, at(170))
    assert reasons("False", ill, 180) == set()


def test_a_transition_in_the_future_shortens_nothing() -> None:
    seen = observe(None, node_with_ready("Unknown", transition=1000), POLICY, at(0))
    assert reasons("Unknown", seen, 59) == set()
    assert reasons("Unknown", seen, 60) == {RequestReason.FAILURE}


def test_a_new_node_that_was_never_ready_has_its_grace() -> None:
    young = node_with_ready("False", created=at(0))
    seen = observe(None, young, POLICY, at(0))
    asked = wanted_requests(young, POLICY, seen, at(500), TriggerContext())
    assert asked.requests == ()
    assert asked.recheck_at == at(600)


def test_a_failure_stands_until_it_is_over_for_recover_after() -> None:
    seen = story((-5, "True"), (0, "Unknown"), (100, "True"))
    assert reasons("True", seen, 219, RequestReason.FAILURE) == {RequestReason.FAILURE}
    assert reasons("True", seen, 220, RequestReason.FAILURE) == set()
    assert reasons("True", seen, 110) == set()


def test_another_node_under_the_name_starts_anew() -> None:
    seen = story((0, "Unknown"))
    assert observe(seen, node_with_ready("Unknown", uid="other", transition=90), POLICY, at(100)).status_since[
        "Ready"
    ] == (
        "Unknown",
        at(90),
    )


def test_the_annotation_asks_for_maintenance_and_false_is_refused() -> None:
    seen = story((0, "True"))
    asked = wanted_requests(
        node_with_ready(annotations={names.MAINTENANCE: "disk"}), POLICY, seen, at(1), TriggerContext()
    )
    assert [(want.reason, want.message) for want in asked.requests] == [(RequestReason.MAINTENANCE, "disk")]
    refused = wanted_requests(
        node_with_ready(annotations={names.MAINTENANCE: "false"}), POLICY, seen, at(1), TriggerContext()
    )
    assert refused.refused
    assert refused.requests == ()


def test_a_cancelled_request_stays_quiet_until_it_changes() -> None:
    seen = story((0, "True"))
    cancelled = {names.CANCELLED: '{"Maintenance": "disk"}'}
    same = node_with_ready(annotations={names.MAINTENANCE: "disk", **cancelled})
    assert wanted_requests(same, POLICY, seen, at(1), TriggerContext()).requests == ()
    other = node_with_ready(annotations={names.MAINTENANCE: "fan", **cancelled})
    asked = wanted_requests(other, POLICY, seen, at(1), TriggerContext())
    assert [want.message for want in asked.requests] == ["fan"]
    assert stale_cancellations(other, asked, seen) == ("Maintenance",)


@pytest.mark.parametrize("nonsense", ["x", "[]", "null", "3"])
def test_nonsense_in_the_cancelled_annotation_cancels_nothing(nonsense: str) -> None:
    asked = node_with_ready(annotations={names.MAINTENANCE: "disk", names.CANCELLED: nonsense})
    assert wanted_requests(asked, POLICY, story((0, "True")), at(1), TriggerContext()).requests


DETECTOR = policy(maintenance={"conditions": [{"type": "Detector", "status": ["True"], "for": "30s"}]})


def detected(status: str, **fields: Unpack[NodeFields]) -> Node:
    return node(conditions=(NodeCondition("Ready", "True"), NodeCondition("Detector", status, "Fan", at(0))), **fields)


def test_a_condition_asks_for_maintenance_and_withdraws_it() -> None:
    seen = observe(None, detected("True"), DETECTOR, at(0))
    early = wanted_requests(detected("True"), DETECTOR, seen, at(29), TriggerContext())
    assert (early.requests, early.recheck_at) == ((), at(30))
    late = wanted_requests(detected("True"), DETECTOR, seen, at(30), TriggerContext())
    assert [(want.reason, want.message) for want in late.requests] == [
        (RequestReason.MAINTENANCE, "Detector is True for over 30s (Fan)")
    ]
    seen = observe(seen, detected("False"), DETECTOR, at(40))
    after = wanted_requests(detected("False"), DETECTOR, seen, at(41), TriggerContext({RequestReason.MAINTENANCE: ""}))
    assert after.requests == ()


def test_the_annotations_words_come_before_the_conditions() -> None:
    annotated = detected("True", annotations={names.MAINTENANCE: "disk"})
    seen = observe(None, annotated, DETECTOR, at(0))
    asked = wanted_requests(annotated, DETECTOR, seen, at(60), TriggerContext())
    assert [want.message for want in asked.requests] == ["disk"]


@pytest.mark.parametrize("value", ["disk", "x" * 256, "x" * 257, "\u00e9" * 100_000, "\ud800" * 300])
def test_a_long_request_is_noted_by_its_hash_and_matches_it(value: str) -> None:
    seen = story((0, "True"))
    (want,) = wanted_requests(
        node_with_ready(annotations={names.MAINTENANCE: value}), POLICY, seen, at(60), TriggerContext()
    ).requests
    assert want.token is not None
    assert len(want.token) <= 256
    noted = {names.CANCELLED: json.dumps({"Maintenance": want.token})}
    same = node_with_ready(annotations={names.MAINTENANCE: value, **noted})
    asked = wanted_requests(same, POLICY, seen, at(60), TriggerContext())
    assert asked.requests == ()
    assert stale_cancellations(same, asked, seen) == ()
    other = node_with_ready(annotations={names.MAINTENANCE: value + "y", **noted})
    assert stale_cancellations(other, wanted_requests(other, POLICY, seen, at(60), TriggerContext()), seen) == (
        "Maintenance",
    )


def test_a_cancelled_condition_stays_cancelled_until_it_changes() -> None:
    seen = observe(None, detected("True"), DETECTOR, at(0))
    (want,) = wanted_requests(detected("True"), DETECTOR, seen, at(60), TriggerContext()).requests
    cancelled = detected("True", annotations={names.CANCELLED: f'{{"Maintenance": "{want.token}"}}'})
    asked = wanted_requests(cancelled, DETECTOR, seen, at(60), TriggerContext())
    assert asked.requests == ()
    assert stale_cancellations(cancelled, asked, seen) == ()
    healed = detected("False", annotations=dict(cancelled.annotations))
    assert stale_cancellations(healed, asked, seen) == ("Maintenance",)


# -- no policy, or the trigger is disabled ----------------------------------------------------------------------------

GPU = {"conditions": [{"type": "GpuBad", "status": ["True"], "for": "10s"}], "recoverAfter": "1m"}
OTHER = {"conditions": [{"type": "Other", "status": ["True"], "for": "10s"}], "recoverAfter": "1m"}


def flagged(status: str, *, since: float = 0, **fields: Unpack[NodeFields]) -> Node:
    return node(
        conditions=(NodeCondition("Ready", "True"), NodeCondition("GpuBad", status, "Xid", at(since))), **fields
    )


@pytest.mark.parametrize("decides", [None, policy(failure={**GPU, "enabled": False})])
def test_a_failure_stands_though_no_policy_decides_any_more(decides: ReschedulePolicy | None) -> None:
    before = policy(failure=GPU)
    seen = observe(None, flagged("True"), before, at(0))
    (want,) = wanted_requests(flagged("True"), before, seen, at(10), TriggerContext()).requests
    stands = TriggerContext({RequestReason.FAILURE: want.message})
    for seconds in (20, 1000):
        seen = observe(seen, flagged("True"), decides, at(seconds))
        (kept,) = wanted_requests(flagged("True"), decides, seen, at(seconds), stands).requests
        assert (kept.reason, kept.is_unchanged, kept.token) == (RequestReason.FAILURE, True, want.token)
        assert wanted_requests(flagged("True"), decides, seen, at(seconds), TriggerContext()).requests == ()
    seen = observe(seen, flagged("True"), before, at(1001))
    assert wanted_requests(flagged("True"), before, seen, at(1001), stands).requests == (want,)


@pytest.mark.parametrize(("decides", "recovers"), [(None, 120), (policy(failure={**GPU, "enabled": False}), 60)])
def test_without_a_policy_it_ends_once_the_node_is_healthy_for_long_enough(
    decides: ReschedulePolicy | None, recovers: int
) -> None:
    seen = observe(None, flagged("True"), policy(failure=GPU), at(0))
    seen = observe(seen, flagged("True"), decides, at(20))
    seen = observe(seen, flagged("False", since=30), decides, at(30))
    stands = TriggerContext({RequestReason.FAILURE: "GpuBad is True for over 10s (Xid)"})
    early = wanted_requests(flagged("False"), decides, seen, at(29 + recovers), stands)
    assert [want.reason for want in early.requests] == [RequestReason.FAILURE]
    assert early.recheck_at == at(30 + recovers)
    assert wanted_requests(flagged("False"), decides, seen, at(30 + recovers), stands).requests == ()


def test_a_policy_that_comes_back_without_the_condition_ends_it_as_usual() -> None:
    seen = observe(None, flagged("True"), policy(failure=GPU), at(0))
    stands = TriggerContext({RequestReason.FAILURE: "GpuBad is True for over 10s"})
    seen = observe(seen, flagged("True"), policy(failure=OTHER), at(50))
    assert wanted_requests(flagged("True"), policy(failure=OTHER), seen, at(109), stands).requests
    assert not wanted_requests(flagged("True"), policy(failure=OTHER), seen, at(110), stands).requests


def test_one_that_was_cancelled_stays_so_when_the_policy_is_renamed() -> None:
    seen = observe(None, flagged("True"), policy(failure=GPU), at(0))
    (want,) = wanted_requests(flagged("True"), policy(failure=GPU), seen, at(10), TriggerContext()).requests
    cancelled = flagged("True", annotations={names.CANCELLED: f'{{"Failure": "{want.token}"}}'})
    for before in (seen, None):  # None: after a start of ours
        later = observe(before, cancelled, None, at(20))
        asked = wanted_requests(cancelled, None, later, at(20), TriggerContext())
        assert (asked.requests, stale_cancellations(cancelled, asked, later)) == ((), ())


@pytest.mark.parametrize("decides", [None, policy(maintenance={"enabled": False})])
def test_maintenance_by_condition_stands_as_long_as_the_condition(
    decides: ReschedulePolicy | None,
) -> None:
    seen = observe(None, detected("True"), DETECTOR, at(0))
    (want,) = wanted_requests(detected("True"), DETECTOR, seen, at(30), TriggerContext()).requests
    stands = TriggerContext({RequestReason.MAINTENANCE: want.message})
    seen = observe(seen, detected("True"), decides, at(40))
    (kept,) = wanted_requests(detected("True"), decides, seen, at(40), stands).requests
    assert (kept.reason, kept.is_unchanged, kept.token) == (RequestReason.MAINTENANCE, True, want.token)
    seen = observe(seen, detected("False"), decides, at(50))
    assert wanted_requests(detected("False"), decides, seen, at(50), stands).requests == ()


@pytest.mark.parametrize("words", ["swap disk", "", "Ready", "Detector is Bad for over 3s", "a b is True for over 3s"])
def test_maintenance_by_annotation_ends_with_it_under_any_policy(words: str) -> None:
    seen = observe(None, detected("True"), None, at(0))
    assert (
        wanted_requests(
            detected("True"), None, seen, at(1), TriggerContext({RequestReason.MAINTENANCE: words})
        ).requests
        == ()
    )


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("GpuBad is True for over 10s (Xid)", ("GpuBad", ("True",))),
        ("example.com/Bad is Unknown for over 1m", ("example.com/Bad", ("Unknown",))),
        ("suspected: its Lease has been silent for over 20s", None),
        (f"{'a' * 400} is True for over 1s", None),
        ("-/- is True for over 1s", None),
    ],
)
def test_the_words_of_a_request_name_its_condition(words: str, found: tuple[str, tuple[str, ...]] | None) -> None:
    match = parse_condition_message(words)
    assert (match and (match.type, match.status)) == found
