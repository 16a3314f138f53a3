"""Texts of wait reasons name what the drain waits for."""

from datetime import UTC, datetime

import pytest

from rescheduler.api.scalars import NumberOrPercent
from rescheduler.core.eligibility import messages


@pytest.mark.parametrize(
    ("taken", "ahead", "use"),
    [
        (["b", "a"], [], "is taken by a, b:"),
        (["a"], ["c"], "is taken by a, and next comes c:"),
        ([], ["c"], "goes first to c:"),
    ],
)
def test_a_taken_failure_limit_names_drains_in_order(taken: list[str], ahead: list[str], use: str) -> None:
    message = messages.failure_limit_taken(NumberOrPercent.parse("10%"), 1, 10, taken, ahead)
    assert message.startswith(f"failure.maxConcurrent 10% (1 of 10 nodes) {use} this drain starts when")


def test_a_window_names_its_opening_and_invalid_windows() -> None:
    opening = datetime(2026, 1, 1, 22, tzinfo=UTC)
    assert messages.window(opening, "") == "the next maintenance window opens at 2026-01-01 22:00 UTC"
    assert messages.window(None, "windows[0]: x") == "no maintenance window opens; windows[0]: x"


def test_audit_reports_what_would_happen() -> None:
    assert messages.audit("p", None).endswith("the node would be cordoned and drained")
    assert messages.audit("p", ("Storm", "many")).endswith("the drain would wait (Storm: many)")


def test_all_disabled_triggers_are_named() -> None:
    message = messages.disabled("p", ["failure", "maintenance"])
    assert message == "ReschedulePolicy p has failure.enabled: false and maintenance.enabled: false"
