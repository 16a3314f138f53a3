"""Records of drains, as the operator writes them and as others may change them."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rescheduler.cli.drain_history.records import finished_drains, parse_drain, running_drains, select

RECORD: dict[str, Any] = {
    "requestedBy": [{"reason": "Maintenance", "message": "kernel 6.18", "manager": "kubectl-annotate"}],
    "startedAt": "2026-03-14T09:12:41Z",
    "moves": [
        {"namespace": "shop", "pod": "web-1", "owner": "Deployment/web", "way": "ReplacedFirst", "newNode": "n4"},
        {"namespace": "shop", "pod": "db-0", "owner": "StatefulSet/db", "way": "Evicted", "blockedSeconds": 95},
        {"namespace": "shop", "pod": "job-1", "way": "Deleted", "forced": "Timeout"},
    ],
    "movesTotal": 3,
    "blockedSeconds": 95,
    "node": "n1",
    "outcome": "Drained",
    "policy": "default",
    "endedAt": "2026-03-14T11:40:12Z",
}


def test_a_record_of_the_operator() -> None:
    (found,) = finished_drains({"20260314T091241Z.u": json.dumps(RECORD)})
    assert (found.node, found.outcome, found.moves_total, found.blocked_seconds) == ("n1", "Drained", 3, 95)
    assert found.requested_by == ("Maintenance (kernel 6.18) by kubectl-annotate",)
    assert [(move.pod, move.way, move.forced) for move in found.interrupted] == [
        ("shop/db-0", "Evicted", ""),
        ("shop/job-1", "Deleted", "Timeout"),
    ]


@pytest.mark.parametrize("text", ["", "no", "[]", "3", "{}", '{"node": ""}', None, 7])
def test_what_is_no_record_is_left_out(text: Any) -> None:
    assert list(finished_drains({"a": text, "b": json.dumps(RECORD)})) == [parse_drain(RECORD)]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*RECORD, "pod", "way"]), inner, max_size=4)
    ),
)


@given(st.dictionaries(st.sampled_from([*RECORD]), _JSON))
def test_a_record_of_any_shape_is_no_error(fields: dict[str, Any]) -> None:
    found = parse_drain(fields)
    assert select([found], None, None, None) == [found]


def test_a_running_drain_is_shown_with_its_history_or_else_with_its_requests() -> None:
    requests = [{"reason": "Manual", "message": "disk"}]
    raws = [
        {"spec": {"nodeName": "n2", "requests": requests}, "status": {"startedAt": "2026-03-15T00:00:00Z"}},
        {"spec": {"nodeName": "n3"}, "status": {"history": {key: RECORD[key] for key in ("startedAt", "moves")}}},
        {"spec": {"nodeName": "n4", "requests": requests}, "status": {"phase": "Waiting"}},
    ]
    first, second = running_drains(raws)
    assert (first.node, first.outcome, first.requested_by) == ("n2", "Running", ("Manual (disk)",))
    assert (second.node, second.moves_total, second.ended_at) == ("n3", 3, None)


def test_drains_are_selected_by_node_and_period_and_sorted_by_start() -> None:
    march, april = parse_drain(RECORD), parse_drain(RECORD | {"startedAt": "2026-04-01T00:00:00Z"})
    other = parse_drain(RECORD | {"node": "n2"})
    unknown = parse_drain({"node": "n1"})
    begin, end = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)
    assert select([april, other, march, unknown], "n1", begin, end) == [march]
    assert select([april, march], None, None, None) == [march, april]
