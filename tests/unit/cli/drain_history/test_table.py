"""The table of past drains."""

from datetime import UTC, datetime, timedelta
from typing import Any

import click
import pytest

from rescheduler.cli.cluster_api import PluginError
from rescheduler.cli.drain_history.records import parse_drain
from rescheduler.cli.drain_history.table import as_text, parse_moment, read_drains
from unit.fakes import FakeClusterApi

NOW = datetime(2026, 3, 14, 12, tzinfo=UTC)
MOVES = [
    {"namespace": "shop", "pod": "web-1", "way": "ReplacedFirst"},
    {"namespace": "shop", "pod": "db-0", "owner": "StatefulSet/db", "way": "Evicted", "blockedSeconds": 95},
    {"namespace": "shop", "pod": "job-1", "way": "Deleted", "forced": "Timeout"},
]
FIELDS: dict[str, Any] = {
    "node": "n1",
    "outcome": "Drained",
    "startedAt": "2026-03-14T09:12:41Z",
    "endedAt": "2026-03-14T09:15:02Z",
    "requestedBy": [{"reason": "Maintenance", "manager": "kubectl-annotate"}],
    "moves": MOVES,
    "movesTotal": 3,
}


def text_of(*, with_pods: bool = True, **changes: Any) -> str:
    return "\n".join(as_text([parse_drain(FIELDS | changes)], NOW, with_pods=with_pods))


def test_a_row_has_who_asked_and_how_many_pods_it_interrupted() -> None:
    row = text_of(with_pods=False).splitlines()[1]
    expected = [
        "n1",
        "2026-03-14",
        "09:12Z",
        "2m21s",
        "Drained",
        "Maintenance",
        "by",
        "kubectl-annotate",
        "3",
        "2",
        "1",
        "0s",
    ]
    assert row.split() == expected


def test_the_interrupted_pods_of_a_node_are_named() -> None:
    text = text_of()
    assert "n1, 2026-03-14 09:12Z: 2 pods left without a replacement first" in text
    assert "shop/db-0" in text
    assert "blocked for 1m35s" in text
    assert "forced: Timeout" in text
    assert "shop/web-1" not in text


def test_a_drain_that_interrupted_nothing_says_so() -> None:
    assert text_of(moves=MOVES[:1], movesTotal=1).endswith("no pod left without a replacement first")


def test_a_record_that_names_not_all_pods_says_so() -> None:
    text = text_of(movesTotal=150)
    assert "2+" in text
    assert "147 more pods left" in text


def test_a_running_drain_takes_until_now() -> None:
    assert "2h47m19s" in text_of(endedAt=None)


def test_control_characters_of_others_do_not_reach_the_terminal() -> None:
    hostile = [{"namespace": "s", "pod": "a\x1b[2J", "way": "Evicted"}]
    assert "\x1b" not in text_of(moves=hostile, proof="\x1b[2J", node="\x1b")


def test_without_an_audit_record_the_error_names_the_next_step() -> None:
    with pytest.raises(PluginError, match="install the chart of this version"):
        read_drains(FakeClusterApi({}), "sys")


def test_records_are_read_in_the_namespace_of_the_operator() -> None:
    path = "v1/namespaces/sys/configmaps/rescheduler-history"
    api = FakeClusterApi({path: {"data": {"a": '{"node": "n1"}'}}})
    assert [drain.node for drain in read_drains(api, "sys")] == ["n1"]
    assert [drain.node for drain in read_drains(FakeClusterApi({path: {}}), "sys")] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("72h", NOW - timedelta(hours=72)),
        ("2026-03-01", datetime(2026, 3, 1, tzinfo=UTC)),
        ("2026-03-01T12:00:00+01:00", datetime(2026, 3, 1, 11, tzinfo=UTC)),
    ],
)
def test_a_moment_is_a_date_a_time_or_a_span(text: str, expected: datetime) -> None:
    assert parse_moment(text, NOW) == expected


def test_any_other_text_is_an_error() -> None:
    with pytest.raises(click.UsageError, match="is no time"):
        parse_moment("yesterday", NOW)
