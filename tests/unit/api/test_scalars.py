"""Durations and counts: what is let in, what is not, and that nothing changes on the way through."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from rescheduler.api.scalars import Duration, NumberOrPercent, Time, format_duration, parse_duration

TIME = TypeAdapter(Time)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0),
        ("90s", 90),
        ("1h30m", 5400),
        ("10s30m1h", 5410),
        ("1500ms", 1.5),
        ("1h1m1s1ms", 3661.001),
        ("99999s", 99999),
    ],
)
def test_a_duration_is_the_sum_of_its_parts(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "90", "1.5h", "-1s", "1 h", "1d", "s", "100000s", "1s1s1s1s1s", "1S", "٣s"])
def test_what_is_no_duration_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(ValueError, match="1h30m"):
        parse_duration(text)


@given(st.integers(0, 99_999 * 3_600_000))
def test_a_duration_is_the_same_after_writing_and_reading(milliseconds: int) -> None:
    value = timedelta(milliseconds=milliseconds)
    assert parse_duration(format_duration(value)) == value


@pytest.mark.parametrize("text", ["0s", "60s", "90s", "2m", "3m", "15m", "1h30m", "500ms"])
def test_durations_as_people_write_them_stay_as_they_are(text: str) -> None:
    assert format_duration(parse_duration(text)) == text


@pytest.mark.parametrize(
    ("value", "total", "count"),
    [
        (1, 100, 1),
        (0, 100, 0),
        (7, 3, 7),
        ("10%", 100, 10),
        ("10%", 101, 11),
        ("10%", 3, 1),
        ("10%", 0, 1),
        ("0%", 100, 0),
        ("100%", 7, 7),
    ],
)
def test_a_percentage_rounds_up_and_is_at_least_one(value: int | str, total: int, count: int) -> None:
    assert NumberOrPercent.parse(value).of(total) == count


@pytest.mark.parametrize("value", ["101%", "-1%", "5", "abc", "", "%", "1.5%", "10 %", -1, 1.0, True, None])
def test_what_is_neither_number_nor_percentage_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="20%"):
        NumberOrPercent.parse(value)


@given(st.integers(1, 100), st.integers(1, 10_000))
def test_a_percentage_is_never_rounded_down_nor_by_more_than_one(percent: int, total: int) -> None:
    count = NumberOrPercent(percent, is_percent=True).of(total)
    assert total * percent <= count * 100 < total * percent + 100


@pytest.mark.parametrize("value", [0, 1, "0%", "20%", "100%"])
def test_a_count_is_written_as_it_was_read(value: int | str) -> None:
    adapter = TypeAdapter(NumberOrPercent)
    assert adapter.dump_python(adapter.validate_python(value), mode="json") == value
    assert str(NumberOrPercent.parse(value)) == str(value)


def test_times_are_written_in_utc_with_z() -> None:
    assert TIME.dump_python(TIME.validate_python("2026-01-01T01:00:00+01:00"), mode="json") == "2026-01-01T00:00:00Z"
    assert TIME.validate_python("2026-01-01T00:00:00Z") == datetime(2026, 1, 1, tzinfo=UTC)


def test_a_field_that_is_no_duration_is_a_validation_error() -> None:
    with pytest.raises(ValidationError, match="is no duration"):
        TypeAdapter(Duration).validate_python(90)
