"""Facts in memory."""

from datetime import UTC, datetime
from typing import Any

from rescheduler.core.holds import Hold
from rescheduler.core.turns import held
from rescheduler.engine.store import Kind, Store

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def node(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": name, "resourceVersion": "1"}}


def drain(name: str) -> dict[str, Any]:
    spec = {"nodeName": name, "requests": [{"reason": "Maintenance"}]}
    return {
        "metadata": {"name": name, "uid": name, "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": spec,
    }


def store(*names: str) -> Store:
    found = Store(lambda: NOW)
    found.put(Kind.POLICY, {"metadata": {"name": "p", "uid": "p", "resourceVersion": "1"}, "spec": {}})
    for name in names:
        found.put(Kind.NODE, node(name))
        found.put(Kind.DRAIN, drain(name))
    return found


def may_begin(place: Store, name: str) -> bool:
    found = place.drain(name)
    assert found is not None
    return held(found, place.world(), NOW) is None


def test_a_beginning_that_is_promised_takes_the_slot_before_any_status_says_so() -> None:
    """Two looks in one moment must not both find the slot free."""
    place = store("n1", "n2")
    assert may_begin(place, "n1")
    place.promise("n1", NOW)
    found = place.drain("n2")
    assert found is not None
    why = held(found, place.world(), NOW)
    assert why is not None
    assert why.reason is Hold.MAX_CONCURRENT
    place.promise("n1", None)
    assert may_begin(place, "n1")


def test_the_drain_of_a_node_that_is_gone_takes_no_slot() -> None:
    place = store("n1", "n2")
    assert not may_begin(place, "n2")
    place.drop(Kind.NODE, "n1")
    assert may_begin(place, "n2")
