"""What a node asks for, and when."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from rescheduler.api import names
from rescheduler.api.drains import Reason
from rescheduler.api.policies import Policy, ReschedulePolicySpec
from rescheduler.core.drain.triggers import View, named, stale_cancellations, wanted
from rescheduler.core.failure.condition_history import Sighting, see
from rescheduler.core.model.nodes import Node, NodeCondition

START = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = Policy("p", "u", 1, ReschedulePolicySpec())


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def node(ready: str = "True", *, transition: float = 0, **more: object) -> Node:
    condition = NodeCondition("Ready", ready, "why", at(transition))
    base: dict[str, object] = {"name": "n", "uid": "u", "created": at(-3600), "conditions": (condition,)}
    return Node(**(base | more))  # type: ignore[arg-type]


def story(*steps: tuple[float, str]) -> Sighting:
    seen = None
    for seconds, ready in steps:
        seen = see(seen, node(ready, transition=seconds), POLICY, at(seconds))
    assert seen is not None
    return seen


def reasons(ready: str, seen: Sighting, seconds: float, *standing: Reason) -> set[Reason]:
    asked = wanted(node(ready), POLICY, seen, at(seconds), View(dict.fromkeys(standing, "")))
    return {want.reason for want in asked.requests}


@pytest.mark.parametrize(
    ("ready", "seconds", "asks"),
    [("Unknown", 59, False), ("Unknown", 60, True), ("False", 179, False), ("False", 180, True)],
)
def test_a_condition_counts_after_its_time(ready: str, seconds: float, asks: bool) -> None:
    seen = story((-5, "True"), (0, ready))
    assert reasons(ready, seen, seconds) == ({Reason.FAILURE} if asks else set())


def test_it_is_looked_at_again_just_when_the_time_is_up() -> None:
    seen = story((-5, "True"), (0, "Unknown"))
    assert wanted(node("Unknown"), POLICY, seen, at(10), View()).look_again == at(60)


def test_time_as_unknown_counts_for_false_too() -> None:
    """A reboot goes through both: its timer does not start anew."""
    seen = story((-5, "True"), (0, "Unknown"), (50, "False"))
    assert reasons("False", seen, 180) == {Reason.FAILURE}


def test_after_a_restart_unknown_counts_from_its_transition_and_false_from_first_sight() -> None:
    unknown = see(None, node("Unknown", transition=0), POLICY, at(50))
    assert reasons("Unknown", unknown, 60) == {Reason.FAILURE}
    ill = see(None, node("False", transition=0), POLICY, at(170))
    assert reasons("False", ill, 180) == set()


def test_a_transition_in_the_future_shortens_nothing() -> None:
    seen = see(None, node("Unknown", transition=1000), POLICY, at(0))
    assert reasons("Unknown", seen, 59) == set()
    assert reasons("Unknown", seen, 60) == {Reason.FAILURE}


def test_a_new_node_that_was_never_ready_has_its_grace() -> None:
    young = node("False", created=at(0))
    seen = see(None, young, POLICY, at(0))
    asked = wanted(young, POLICY, seen, at(500), View())
    assert asked.requests == ()
    assert asked.look_again == at(600)


def test_a_failure_stands_until_it_is_over_for_recover_after() -> None:
    seen = story((-5, "True"), (0, "Unknown"), (100, "True"))
    assert reasons("True", seen, 219, Reason.FAILURE) == {Reason.FAILURE}
    assert reasons("True", seen, 220, Reason.FAILURE) == set()
    assert reasons("True", seen, 110) == set()


def test_another_node_under_the_name_starts_anew() -> None:
    seen = story((0, "Unknown"))
    assert see(seen, node("Unknown", uid="other", transition=90), POLICY, at(100)).since["Ready"] == ("Unknown", at(90))


def test_the_annotation_asks_for_maintenance_and_false_is_refused() -> None:
    seen = story((0, "True"))
    asked = wanted(node(annotations={names.MAINTENANCE: "disk"}), POLICY, seen, at(1), View())
    assert [(want.reason, want.message) for want in asked.requests] == [(Reason.MAINTENANCE, "disk")]
    refused = wanted(node(annotations={names.MAINTENANCE: "false"}), POLICY, seen, at(1), View())
    assert refused.refused
    assert refused.requests == ()


def test_a_cancelled_request_stays_quiet_until_it_changes() -> None:
    seen = story((0, "True"))
    cancelled = {names.CANCELLED: '{"Maintenance": "disk"}'}
    same = node(annotations={names.MAINTENANCE: "disk", **cancelled})
    assert wanted(same, POLICY, seen, at(1), View()).requests == ()
    other = node(annotations={names.MAINTENANCE: "fan", **cancelled})
    asked = wanted(other, POLICY, seen, at(1), View())
    assert [want.message for want in asked.requests] == ["fan"]
    assert stale_cancellations(other, asked, seen) == ("Maintenance",)


@pytest.mark.parametrize("nonsense", ["x", "[]", "null", "3"])
def test_nonsense_in_the_cancelled_annotation_cancels_nothing(nonsense: str) -> None:
    asked = node(annotations={names.MAINTENANCE: "disk", names.CANCELLED: nonsense})
    assert wanted(asked, POLICY, story((0, "True")), at(1), View()).requests


DETECTOR = Policy.from_object(
    {
        "metadata": {"name": "p"},
        "spec": {"maintenance": {"conditions": [{"type": "Detector", "status": ["True"], "for": "30s"}]}},
    }
)


def detected(status: str, **more: object) -> Node:
    return node(conditions=(NodeCondition("Ready", "True"), NodeCondition("Detector", status, "Fan", at(0))), **more)


def test_a_condition_asks_for_maintenance_and_withdraws_it() -> None:
    seen = see(None, detected("True"), DETECTOR, at(0))
    early = wanted(detected("True"), DETECTOR, seen, at(29), View())
    assert (early.requests, early.look_again) == ((), at(30))
    late = wanted(detected("True"), DETECTOR, seen, at(30), View())
    assert [(want.reason, want.message) for want in late.requests] == [
        (Reason.MAINTENANCE, "Detector is True for over 30s (Fan)")
    ]
    seen = see(seen, detected("False"), DETECTOR, at(40))
    after = wanted(detected("False"), DETECTOR, seen, at(41), View({Reason.MAINTENANCE: ""}))
    assert after.requests == ()


def test_the_annotations_words_come_before_the_conditions() -> None:
    annotated = detected("True", annotations={names.MAINTENANCE: "disk"})
    seen = see(None, annotated, DETECTOR, at(0))
    asked = wanted(annotated, DETECTOR, seen, at(60), View())
    assert [want.message for want in asked.requests] == ["disk"]


@pytest.mark.parametrize("value", ["disk", "x" * 256, "x" * 257, "\u00e9" * 100_000, "\ud800" * 300])
def test_a_long_request_is_noted_by_its_hash_and_matches_it(value: str) -> None:
    seen = story((0, "True"))
    (want,) = wanted(node(annotations={names.MAINTENANCE: value}), POLICY, seen, at(60), View()).requests
    assert want.token is not None
    assert len(want.token) <= 256
    noted = {names.CANCELLED: json.dumps({"Maintenance": want.token})}
    same = node(annotations={names.MAINTENANCE: value, **noted})
    asked = wanted(same, POLICY, seen, at(60), View())
    assert asked.requests == ()
    assert stale_cancellations(same, asked, seen) == ()
    other = node(annotations={names.MAINTENANCE: value + "y", **noted})
    assert stale_cancellations(other, wanted(other, POLICY, seen, at(60), View()), seen) == ("Maintenance",)


def test_a_cancelled_condition_stays_cancelled_until_it_changes() -> None:
    seen = see(None, detected("True"), DETECTOR, at(0))
    (want,) = wanted(detected("True"), DETECTOR, seen, at(60), View()).requests
    cancelled = detected("True", annotations={names.CANCELLED: f'{{"Maintenance": "{want.token}"}}'})
    asked = wanted(cancelled, DETECTOR, seen, at(60), View())
    assert asked.requests == ()
    assert stale_cancellations(cancelled, asked, seen) == ()
    healed = detected("False", annotations=dict(cancelled.annotations))
    assert stale_cancellations(healed, asked, seen) == ("Maintenance",)


# -- no policy, or the trigger is disabled ----------------------------------------------------------------------------

GPU = {"conditions": [{"type": "GpuBad", "status": ["True"], "for": "10s"}], "recoverAfter": "1m"}
OTHER = {"conditions": [{"type": "Other", "status": ["True"], "for": "10s"}], "recoverAfter": "1m"}


def policy(**spec: object) -> Policy:
    return Policy("p", "u", 1, ReschedulePolicySpec.model_validate(spec))


def flagged(status: str, *, since: float = 0, **more: object) -> Node:
    return node(conditions=(NodeCondition("Ready", "True"), NodeCondition("GpuBad", status, "Xid", at(since))), **more)


@pytest.mark.parametrize("decides", [None, policy(failure={**GPU, "enabled": False})])
def test_a_failure_stands_though_no_policy_decides_any_more(decides: Policy | None) -> None:
    before = policy(failure=GPU)
    seen = see(None, flagged("True"), before, at(0))
    (want,) = wanted(flagged("True"), before, seen, at(10), View()).requests
    stands = View({Reason.FAILURE: want.message})
    for seconds in (20, 1000):
        seen = see(seen, flagged("True"), decides, at(seconds))
        (kept,) = wanted(flagged("True"), decides, seen, at(seconds), stands).requests
        assert (kept.reason, kept.goes_on, kept.token) == (Reason.FAILURE, True, want.token)
        assert wanted(flagged("True"), decides, seen, at(seconds), View()).requests == ()
    seen = see(seen, flagged("True"), before, at(1001))
    assert wanted(flagged("True"), before, seen, at(1001), stands).requests == (want,)


@pytest.mark.parametrize(("decides", "recovers"), [(None, 120), (policy(failure={**GPU, "enabled": False}), 60)])
def test_without_a_policy_it_ends_once_the_node_is_healthy_for_long_enough(
    decides: Policy | None, recovers: int
) -> None:
    seen = see(None, flagged("True"), policy(failure=GPU), at(0))
    seen = see(seen, flagged("True"), decides, at(20))
    seen = see(seen, flagged("False", since=30), decides, at(30))
    stands = View({Reason.FAILURE: "GpuBad is True for over 10s (Xid)"})
    early = wanted(flagged("False"), decides, seen, at(29 + recovers), stands)
    assert [want.reason for want in early.requests] == [Reason.FAILURE]
    assert early.look_again == at(30 + recovers)
    assert wanted(flagged("False"), decides, seen, at(30 + recovers), stands).requests == ()


def test_a_policy_that_comes_back_without_the_condition_ends_it_as_usual() -> None:
    seen = see(None, flagged("True"), policy(failure=GPU), at(0))
    stands = View({Reason.FAILURE: "GpuBad is True for over 10s"})
    seen = see(seen, flagged("True"), policy(failure=OTHER), at(50))
    assert wanted(flagged("True"), policy(failure=OTHER), seen, at(109), stands).requests
    assert not wanted(flagged("True"), policy(failure=OTHER), seen, at(110), stands).requests


def test_one_that_was_cancelled_stays_so_when_the_policy_is_renamed() -> None:
    seen = see(None, flagged("True"), policy(failure=GPU), at(0))
    (want,) = wanted(flagged("True"), policy(failure=GPU), seen, at(10), View()).requests
    cancelled = flagged("True", annotations={names.CANCELLED: f'{{"Failure": "{want.token}"}}'})
    for before in (seen, None):  # None: after a start of ours
        later = see(before, cancelled, None, at(20))
        asked = wanted(cancelled, None, later, at(20), View())
        assert (asked.requests, stale_cancellations(cancelled, asked, later)) == ((), ())


@pytest.mark.parametrize("decides", [None, policy(maintenance={"enabled": False})])
def test_maintenance_that_a_condition_asked_for_stands_as_long_as_the_condition(decides: Policy | None) -> None:
    seen = see(None, detected("True"), DETECTOR, at(0))
    (want,) = wanted(detected("True"), DETECTOR, seen, at(30), View()).requests
    stands = View({Reason.MAINTENANCE: want.message})
    seen = see(seen, detected("True"), decides, at(40))
    (kept,) = wanted(detected("True"), decides, seen, at(40), stands).requests
    assert (kept.reason, kept.goes_on, kept.token) == (Reason.MAINTENANCE, True, want.token)
    seen = see(seen, detected("False"), decides, at(50))
    assert wanted(detected("False"), decides, seen, at(50), stands).requests == ()


@pytest.mark.parametrize("words", ["swap disk", "", "Ready", "Detector is Bad for over 3s", "a b is True for over 3s"])
def test_maintenance_by_annotation_ends_with_the_annotation_whatever_the_policy(words: str) -> None:
    seen = see(None, detected("True"), None, at(0))
    assert wanted(detected("True"), None, seen, at(1), View({Reason.MAINTENANCE: words})).requests == ()


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
    match = named(words)
    assert (match and (match.type, match.status)) == found
