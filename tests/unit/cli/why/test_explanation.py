"""The explanation of one pod."""

from datetime import timedelta
from typing import Any

import click
import pytest

from rescheduler.api.drains import Blocker, Phase
from rescheduler.cli.cluster_api import PluginError
from rescheduler.cli.why import messages
from rescheduler.cli.why.explanation import Explanation, as_json, as_text, read_explanation
from rescheduler.core.drain.pod_preview import PodOutcome, PodPreview
from rescheduler.core.placement.planner import Fit
from unit.builders import NOW, drain, pod, release_record
from unit.fakes import FakeClusterApi

SOURCE = "with ReschedulePolicy default"
REPLACED = PodPreview(PodOutcome.REPLACED_FIRST, fit=Fit.FITS)
SINCE = NOW - timedelta(minutes=3)


def explain(preview: PodPreview | None = REPLACED, *, running: Any = None, **fields: Any) -> str:
    found = Explanation(pod(node="n", **fields), NOW, SOURCE, preview, running)
    return "\n".join(as_text(found))


def test_a_pod_that_would_be_replaced_first() -> None:
    text = explain()
    assert text.startswith("s/p on n, of ReplicaSet web\n")
    assert "If the node is drained, a new pod starts first" in text
    assert SOURCE in text
    assert "Its new pod fits on another node" in text
    assert text.endswith("No drain of this node is requested")


def test_a_pod_that_is_not_replaced_first_says_why() -> None:
    assert "because its Deployment allows no additional pod" in explain(
        PodPreview(PodOutcome.EVICTED, not_replaced_reason="NoSurge", fit=Fit.FITS)
    )


def test_a_reason_is_not_given_twice() -> None:
    preview = PodPreview(PodOutcome.BLOCKED, message="no room: full", fit=Fit.DOES_NOT_FIT, fit_reason="full")
    assert explain(preview).count("full") == 1


def test_a_blocker_of_the_running_drain_has_its_age_and_hint() -> None:
    row = Blocker.model_validate(
        {"namespace": "s", "pod": "p", "class": "DoNotDisrupt", "message": "asked", "since": SINCE, "hint": "wait"}
    )
    text = explain(running=drain(begun=True, age=600, phase=Phase.BLOCKED, blockers=(row,)))
    assert "n is being drained (Maintenance): Blocked, for 10m" in text
    assert "This pod blocks it for 3m: DoNotDisrupt: asked\n  -> wait" in text


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"released": True, "release_record": release_record(released_at=SINCE)}, "released for 3m"),
        ({"deletion_timestamp": NOW + timedelta(seconds=20)}, "Terminating, for at most 20s more"),
        ({"deletion_timestamp": SINCE}, "its grace period is over"),
        ({}, messages.IN_TURN),
    ],
)
def test_the_state_of_the_pod_in_a_running_drain(fields: dict[str, Any], words: str) -> None:
    assert words in explain(running=drain(begun=True, phase=Phase.DRAINING), **fields)


def test_a_pod_that_waits_for_its_node() -> None:
    running = drain(begun=True, phase=Phase.DRAINING, waits_for_node=("s/p",))
    assert messages.WAITS_FOR_NODE in explain(running=running)
    found = as_json(Explanation(pod(node="n"), NOW, SOURCE, REPLACED, running))
    assert found["drain"]["waitsForNode"] is True
    assert found["onDrain"]["outcome"] == "ReplacedFirst"


def test_a_pod_without_a_node_is_no_concern_of_a_drain() -> None:
    found = Explanation(pod(unschedulable_message="0/3 nodes"), NOW)
    assert as_text(found)[1] == "  It has no node, so no drain concerns it: 0/3 nodes"
    assert as_json(found)["onDrain"] is None


def test_each_outcome_has_a_text() -> None:
    assert {*messages.OUTCOME_TEXTS} == {*PodOutcome}


@pytest.mark.parametrize("name", ["p", "/p", "s/", "s/p/x", "../p", "s/.."])
def test_a_name_must_be_a_namespace_and_a_pod(name: str) -> None:
    with pytest.raises(click.UsageError):
        read_explanation(FakeClusterApi({}), name)


def test_an_absent_pod_is_an_error_of_one_line() -> None:
    with pytest.raises(PluginError, match="pod s/p does not exist"):
        read_explanation(FakeClusterApi({}), "s/p")


def test_control_characters_of_others_do_not_reach_the_terminal() -> None:
    assert "\x1b" not in explain(PodPreview(PodOutcome.BLOCKED, message="a\x1b[2J"))
