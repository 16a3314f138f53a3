"""Evaluate maintenance windows: time zones, midnight, daylight saving, unions and invalid windows."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rescheduler.api.windows import Window
from rescheduler.core.eligibility.windows import window_state


def window(schedule: str, duration: str, zone: str = "UTC") -> Window:
    return Window.model_validate({"schedule": schedule, "duration": duration, "timeZone": zone})


def at(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc]


@pytest.mark.parametrize(
    ("schedule", "duration", "zone", "now", "until"),
    [
        ("0 22 * * SAT", "4h", "UTC", at(2026, 11, 28, 22, 0), at(2026, 11, 29, 2, 0)),
        ("0 22 * * SAT", "4h", "UTC", at(2026, 11, 28, 21, 59, 59), None),
        ("0 22 * * SAT", "4h", "UTC", at(2026, 11, 29, 1, 59, 59), at(2026, 11, 29, 2, 0)),
        ("0 22 * * SAT", "4h", "UTC", at(2026, 11, 29, 2, 0), None),
        ("0 22 * * fri", "6h", "UTC", at(2026, 11, 28, 2, 0), at(2026, 11, 28, 4, 0)),  # opened the day before
        ("0 22 * * SAT", "4h", "Europe/Berlin", at(2026, 11, 28, 21, 0), at(2026, 11, 29, 1, 0)),
        ("0 22 * * SAT", "4h", "Europe/Berlin", at(2026, 7, 4, 20, 0), at(2026, 7, 5, 0, 0)),
        # 2026-03-29, Berlin: 02:30 does not exist; the window opens when daylight saving begins.
        ("30 2 * * *", "1h", "Europe/Berlin", at(2026, 3, 29, 1, 10), at(2026, 3, 29, 2, 0)),
        # 2026-10-25, Berlin: 02:30 comes twice; the window opens once and stays open for its hour.
        ("30 2 * * *", "1h", "Europe/Berlin", at(2026, 10, 25, 1, 20), at(2026, 10, 25, 1, 30)),
        ("30 2 * * *", "1h", "Europe/Berlin", at(2026, 10, 25, 1, 40), None),
        ("0 0 * * *", "48h", "UTC", at(2026, 1, 1, 12, 0), at(2026, 1, 3, 0, 0)),
    ],
)
def test_open_until(schedule: str, duration: str, zone: str, now: datetime, until: datetime | None) -> None:
    assert window_state([window(schedule, duration, zone)], now).open_until == until


def test_windows_are_a_union() -> None:
    windows = [window("0 1 * * *", "2h"), window("0 2 * * *", "3h")]
    assert window_state(windows, at(2026, 1, 1, 2, 30)).open_until == at(2026, 1, 1, 5, 0)
    assert window_state(windows, at(2026, 1, 1, 6, 0)).next_opening == at(2026, 1, 2, 1, 0)


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ({"schedule": "0 22-6 * * *"}, "schedule"),
        ({"timeZone": "Europe/Nowhere"}, "timeZone 'Europe/Nowhere'"),
        ({"timeZone": "Europe"}, "timeZone 'Europe'"),
        ({"schedule": "0 0 31 2 *"}, ""),
    ],
)
def test_invalid_window_never_opens_and_is_named(broken: dict[str, Any], says: str) -> None:
    body = {"schedule": "0 0 * * *", "duration": "24h"} | broken
    found = window_state([Window.model_validate(body)], at(2026, 1, 1, 12, 0))
    assert found.open_until is None
    assert found.error is not None
    assert says in found.error
    beside = window_state([Window.model_validate(body), window("0 0 * * *", "24h")], at(2026, 1, 1, 12, 0))
    assert beside.open_until == at(2026, 1, 2, 0, 0)


def test_window_is_closed_a_second_before_its_opening() -> None:
    opening = at(2026, 1, 1, 3, 0)
    assert window_state([window("0 3 * * *", "1h")], opening - timedelta(seconds=1)).open_until is None
