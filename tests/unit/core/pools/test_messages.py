"""Texts about pools name the object first."""

from datetime import UTC, datetime

from rescheduler.core.pools import messages


def test_a_blocker_without_a_target_pool_names_no_pool() -> None:
    assert messages.no_matching_node("shop").startswith("no open node of pool shop meets")
    assert messages.no_matching_node(None).startswith("no other open node meets")
    assert messages.no_room_in_pool(None, {}) == "no other open node has room for the pod (one pod)"


def test_missing_room_is_reported_without_any_open_node() -> None:
    assert messages.no_room_by_totals("n1", "cpu", 1500).startswith("without node n1 the other nodes lack cpu 1500m")
    assert messages.no_room_by_totals(None, "pods", 2).startswith("without an open node the pool lacks pods 2")


def test_a_pod_that_came_back_stays_until_a_time() -> None:
    assert "it stays until 12:00:00 UTC" in messages.came_back(datetime(2026, 1, 1, 12, tzinfo=UTC))
