"""Quantities in the notation of the API."""

import pytest

from rescheduler.core.model.quantities import MAX_QUANTITY, format_quantity, parse_quantity


@pytest.mark.parametrize(
    ("resource", "text", "value"),
    [
        ("cpu", "2", 2000),
        ("cpu", "500m", 500),
        ("cpu", "0.1", 100),
        ("cpu", "1e1", 10_000),
        ("cpu", "100u", 1),
        ("memory", "1Gi", 2**30),
        ("memory", "1.5Ki", 1536),
        ("memory", "1G", 10**9),
        ("memory", "2e3", 2000),
        ("memory", "5E", 5 * 10**18),
        ("memory", "100m", 1),
        ("memory", "128974848", 128974848),
        ("example.com/gpu", 2, 2),
    ],
)
def test_quantities_are_whole_numbers_rounded_up(resource: str, text: str, value: int) -> None:
    assert parse_quantity(resource, text) == value


@pytest.mark.parametrize("text", ["", "Gi", "one", "1KiB", "nan", "Infinity", "1_000", "٣", "1e", "1e99999999999"])
def test_an_unreadable_quantity_counts_as_the_default(text: str) -> None:
    assert parse_quantity("memory", text) == MAX_QUANTITY
    assert parse_quantity("memory", text, default=0) == 0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e999999", MAX_QUANTITY),
        ("1E+400", MAX_QUANTITY),
        ("9223372036854775808", MAX_QUANTITY),
        ("8Ei", MAX_QUANTITY),
        ("1e-999999", 1),
        ("0e999999", 0),
        ("-5Gi", 0),
        (1e999, MAX_QUANTITY),
    ],
)
def test_quantities_stay_within_the_limits_of_kubernetes(text: str | float, value: int) -> None:
    assert parse_quantity("memory", text) == value
    assert parse_quantity("cpu", text) == value


@pytest.mark.parametrize(
    ("resource", "value", "text"),
    [
        ("cpu", 2000, "2"),
        ("cpu", 250, "250m"),
        ("memory", 2**30, "1Gi"),
        ("memory", 1536 * 2**20, "1.5Gi"),
        ("memory", 100, "100"),
        ("pods", 3, "3"),
    ],
)
def test_quantities_are_formatted_in_the_notation_of_kubernetes(resource: str, value: int, text: str) -> None:
    assert format_quantity(resource, value) == text
