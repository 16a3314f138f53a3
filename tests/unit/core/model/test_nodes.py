"""Raw nodes are parsed into records, whatever values they have."""

from datetime import UTC, datetime
from typing import Any

import pytest

from rescheduler.api.untrusted import UnreadableError
from rescheduler.core.model.nodes import Node, parse_node


def of(*, annotations: dict[str, Any] | None = None, **status: Any) -> Node:
    return parse_node({"metadata": {"name": "n", "annotations": annotations or {}}, "status": status})


def test_a_node_without_a_name_is_refused_with_the_field() -> None:
    with pytest.raises(UnreadableError, match=r"metadata\.name"):
        parse_node({"metadata": {"uid": "u"}})


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-01-01T00:00:00Z", datetime(2026, 1, 1, tzinfo=UTC)),
        ("2026-01-01T05:00:00+05:00", datetime(2026, 1, 1, tzinfo=UTC)),
        ("0000-01-01T00:00:00Z", None),
        ("9999-12-31T23:59:59-23:59", None),
        ("2026-01-01T00:00:00", None),
        (7, None),
    ],
)
def test_an_unreadable_condition_time_counts_as_absent(text: Any, time: datetime | None) -> None:
    (found,) = of(conditions=[{"type": "Ready", "status": "False", "lastTransitionTime": text}]).conditions
    assert (found.status, found.last_transition) == ("False", time)


def test_a_long_maintenance_text_is_cut_and_stays_distinct() -> None:
    long = [
        of(annotations={"rescheduler.dev/maintenance": "x" * 200_000 + end}).maintenance_annotation or ""
        for end in ("a", "b")
    ]
    assert [len(text) for text in long] == [1024, 1024]
    assert long[0] != long[1]
    assert of(annotations={"rescheduler.dev/maintenance": "x" * 1024}).maintenance_annotation == "x" * 1024


def test_long_boot_ids_stay_distinct() -> None:
    one, other = (of(nodeInfo={"bootID": "x" * 300 + end}).boot_id for end in ("a", "b"))
    assert one != other
    assert len(one) == len(other) == 253


@pytest.mark.parametrize(
    "text", ["[" * 60_000, "[" * 10_000, "1e999", '{"Maintenance":{}}', '{"Failure":"\\ud800"}', "x" * 200_000]
)
def test_an_unreadable_cancelled_annotation_cancels_nothing(text: str) -> None:
    assert of(annotations={"rescheduler.dev/cancelled": text}).cancelled_requests == {}


def test_an_unreadable_allocatable_quantity_counts_as_zero() -> None:
    found = of(allocatable={"cpu": "4", "example.com/odd": "lots", "memory": "1e999999"}).allocatable
    assert found == {"cpu": 4000, "example.com/odd": 0, "memory": 2**63 - 1}
