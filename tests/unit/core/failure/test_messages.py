"""Texts about failed nodes name the state, the cause and the next step."""

from rescheduler.api.scalars import NumberOrPercent
from rescheduler.core.failure import messages


def test_the_hint_is_a_command_to_paste() -> None:
    hint = messages.attest("n1", {"nodeUID": "u"})
    assert """kubectl annotate --overwrite node n1 rescheduler.dev/fenced='{"nodeUID":"u"}'""" in hint


def test_waiting_pods_are_counted_and_each_rejection_is_named() -> None:
    assert (
        messages.waiting_for_proof(2, ["a", "b"]) == "2 pods must not run twice: no proof that the node is dead; a; b"
    )
    assert messages.force_forbidden(1) == "1 pod must not run twice, and failure.force is Never"


def test_a_storm_names_the_count_the_limit_and_the_next_step() -> None:
    message = messages.storm(3, 10, ("zone", "a"), "GpuBad", "", NumberOrPercent.parse("20%"), "Check the agent")
    assert message.startswith(
        "3 of 10 nodes of zone a have the condition GpuBad, more than failure.maxUnhealthy 20% (2):"
    )
    assert message.endswith("Check the agent")


def test_a_blackout_names_the_silent_leases() -> None:
    assert messages.blackout(6, 10).startswith("the Leases of 6 of 10 nodes stopped together")
