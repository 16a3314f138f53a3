"""Parsing of untrusted values never fails, and keeps values that fit."""

import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hostile
from rescheduler.api import untrusted
from rescheduler.api.untrusted import EARLIEST_TIME, LATEST_TIME


@given(hostile.json_values() | hostile.times())
def test_a_time_can_be_added_to_and_written(value: Any) -> None:
    found = untrusted.parse_time(value)
    if found is not None:
        assert EARLIEST_TIME <= found <= LATEST_TIME
        assert (found + timedelta(hours=4 * 99_999)).isoformat()
        assert found.utcoffset() == timedelta()


@pytest.mark.parametrize(
    ("value", "number"), [(5, 5), (-(2**63), 0), (2**63, 9), (True, 3), (5.0, 3), ("5", 3), (None, 3), ([], 3)]
)
def test_an_integer_stays_within_its_bounds(value: Any, number: int) -> None:
    assert untrusted.bounded_integer(value, 0, 9, 3) == number


@given(hostile.json_values())
def test_seconds_can_be_added_to_any_time(value: Any) -> None:
    assert LATEST_TIME + untrusted.parse_seconds(value)
    assert EARLIEST_TIME - untrusted.parse_seconds(value) < LATEST_TIME


@given(st.text(max_size=40), st.text(max_size=40))
def test_text_made_short_differs_where_the_text_does(one: str, other: str) -> None:
    short = [untrusted.truncate_with_digest(text, 20) for text in (one, other)]
    assert (short[0] == short[1]) == (one == other)
    assert all(len(text) <= 20 for text in short)


@given(hostile.json_values() | hostile.texts())
def test_a_json_object_has_numbers_that_can_be_counted_and_written(value: Any) -> None:
    try:
        found = untrusted.parse_json_object(value)
    except ValueError as error:
        assert 0 < len(str(error)) <= 200  # noqa: PT017 - either is right
    else:
        assert isinstance(found, dict)
        assert all(math.isfinite(number) for number in found.values() if isinstance(number, float))


SHAPE = untrusted.object_of(
    "name",
    name=str,
    count=int,
    labels=untrusted.LABELS,
    rows=untrusted.list_of(untrusted.object_of("key", key=str, size=untrusted.number_or_text)),
)


@pytest.mark.parametrize(
    ("value", "left"),
    [
        ({"name": "a", "count": True}, {"name": "a"}),
        ({"name": "a", "count": None, "other": {"x": 1}}, {"name": "a", "other": {"x": 1}}),
        ({"name": "a", "labels": {"x": "y", "z": 5}}, {"name": "a", "labels": {"x": "y"}}),
        ({"name": "a", "labels": []}, {"name": "a"}),
        ({"name": "a", "rows": [{"key": "k", "size": []}, {"size": "1"}, 7]}, {"name": "a", "rows": [{"key": "k"}]}),
        ({"name": "a", "rows": "abc"}, {"name": "a"}),
        ({"name": 5}, untrusted.ABSENT),
        ([], untrusted.ABSENT),
    ],
)
def test_what_does_not_fit_is_left_out(value: Any, left: Any) -> None:
    assert SHAPE(value) == left


def test_what_fits_is_not_copied() -> None:
    value = {"name": "a", "labels": {"x": "y"}, "rows": [{"key": "k", "size": "1Gi"}], "other": None}
    assert SHAPE(value) is value
