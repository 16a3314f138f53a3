"""Durations, times, numbers of nodes and selectors in the form of the API."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rescheduler.api.drains import DrainOverrides, NodeDrainStatus
from rescheduler.api.policies import DrainSettings, OnTimeout
from rescheduler.api.scalars import NumberOrPercent, dump, format_duration, parse_duration
from rescheduler.api.selectors import LabelSelector


@given(st.integers(0, 99999 * 3600 * 1000))
def test_a_duration_is_read_as_it_was_written(milliseconds: int) -> None:
    value = timedelta(milliseconds=milliseconds)
    assert parse_duration(format_duration(value)) == value


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("1h30m", 5400), ("0s", 0), ("250ms", 0.25)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text).total_seconds() == seconds


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (timedelta(days=-1), "0s"),
        (timedelta(hours=99_999), "99999h"),
        (timedelta(hours=100_000), "99999h"),
        (timedelta.max, "99999h"),
    ],
)
def test_every_duration_can_be_written(value: timedelta, text: str) -> None:
    assert format_duration(value) == text


def test_a_duration_in_many_pieces_is_the_longest_at_most() -> None:
    assert parse_duration("99999h99999h99999h99999h") == timedelta(hours=99_999)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("0000-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
        ("0001-01-01T00:00:00+23:59", "1970-01-01T00:00:00Z"),
        ("9999-12-31T23:59:59-23:59", "2200-01-01T00:00:00Z"),
        ("2026-01-01T01:00:00+01:00", "2026-01-01T00:00:00Z"),
    ],
)
def test_a_time_of_a_status_is_limited_to_its_bounds(text: str, time: str) -> None:
    assert dump(NodeDrainStatus.model_validate({"startedAt": text}))["startedAt"] == time


@pytest.mark.parametrize("text", ["", "5", "5d", "-1s", "1.5h", " 5s", "5 s", "5s\n"])
def test_an_invalid_duration_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(ValueError, match="write it like 90s"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("value", "total", "count"),
    [(1, 10, 1), ("20%", 10, 2), ("20%", 11, 3), ("1%", 3, 1), ("0%", 50, 0), (0, 9, 0), ("100%", 7, 7), ("15%", 7, 2)],
)
def test_numbers_and_percentages(value: object, total: int, count: int) -> None:
    assert NumberOrPercent.parse(value).of(total) == count


@pytest.mark.parametrize("value", ["101%", "-1%", -1, "5", True, None, 1.5, "%"])
def test_neither_number_nor_percentage_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="neither a number"):
        NumberOrPercent.parse(value)


@pytest.mark.parametrize(
    ("expression", "labels", "matches"),
    [
        ({"key": "a", "operator": "In", "values": ["1"]}, {"a": "1"}, True),
        ({"key": "a", "operator": "In", "values": ["1"]}, {}, False),
        ({"key": "a", "operator": "NotIn", "values": ["1"]}, {}, True),
        ({"key": "a", "operator": "NotIn", "values": ["1"]}, {"a": "1"}, False),
        ({"key": "a", "operator": "Exists"}, {"a": ""}, True),
        ({"key": "a", "operator": "DoesNotExist"}, {"a": ""}, False),
    ],
)
def test_selectors(expression: object, labels: dict[str, str], matches: bool) -> None:
    assert LabelSelector.model_validate({"matchExpressions": [expression]}).matches(labels) is matches


def test_an_override_replaces_only_what_it_names() -> None:
    policy = DrainSettings(max_evictions_per_second=7)
    merged = DrainOverrides.model_validate({"onTimeout": "Cancel"}).apply_to(policy)
    assert (merged.on_timeout, merged.max_evictions_per_second) == (OnTimeout.CANCEL, 7)
    assert DrainOverrides().apply_to(policy) is policy
