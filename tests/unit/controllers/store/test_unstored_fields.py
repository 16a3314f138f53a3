"""Fields of a status that the API server drops, and what is known of them."""

from rescheduler.api.drains import NodeDrainStatus, PodCounts
from rescheduler.api.scalars import dump
from rescheduler.controllers.store.unstored_fields import UnstoredFields

WRITTEN = NodeDrainStatus(progress="1/2", blockers_total=3, pods=PodCounts(total=2, moved=1, waits_for_node=1))


def stored_without(*fields: str) -> NodeDrainStatus:
    status = {key: value for key, value in dump(WRITTEN).items() if key not in fields}
    status["pods"] = {key: value for key, value in status.get("pods", {}).items() if key not in fields}
    return NodeDrainStatus.model_validate(status)


def test_a_dropped_field_counts_as_written_and_others_are_as_stored() -> None:
    fields, stored = UnstoredFields[NodeDrainStatus](), stored_without("blockersTotal", "waitsForNode")
    assert fields.add_to(stored) is stored
    fields.record(WRITTEN, {"status": dump(stored)})
    assert fields.add_to(stored) == WRITTEN
    assert fields.add_to(stored.model_copy(update={"progress": "2/2"})).progress == "2/2"


def test_a_field_that_changed_meanwhile_is_as_stored() -> None:
    fields, stored = UnstoredFields[NodeDrainStatus](), stored_without("blockersTotal")
    fields.record(WRITTEN, {"status": dump(stored)})
    assert fields.add_to(stored.model_copy(update={"blockers_total": 5})).blockers_total == 5


def test_a_write_that_stores_all_fields_forgets_the_dropped_ones() -> None:
    fields, stored = UnstoredFields[NodeDrainStatus](), stored_without("blockersTotal")
    fields.record(WRITTEN, {"status": dump(stored)})
    fields.record(WRITTEN, {"status": dump(WRITTEN)})
    assert fields.add_to(stored) is stored


def test_conditions_are_as_stored() -> None:
    """Other parties write some of them."""
    fields = UnstoredFields[NodeDrainStatus]()
    condition = {"type": "x", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    fields.record(NodeDrainStatus.model_validate({"conditions": [condition]}), {"status": {}})
    assert fields.add_to(NodeDrainStatus()) == NodeDrainStatus()


def test_an_answer_that_cannot_be_read_forgets_the_dropped_fields() -> None:
    fields, stored = UnstoredFields[NodeDrainStatus](), stored_without("blockersTotal")
    fields.record(WRITTEN, {"status": dump(stored)})
    fields.record(WRITTEN, {"status": {"pods": "many"}})
    assert fields.add_to(stored) is stored
