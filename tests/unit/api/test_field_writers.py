"""The client that last wrote a field, from a record that may have any form."""

from datetime import UTC, datetime

import hostile
from rescheduler.api.field_writers import FieldWriter, last_field_writer
from rescheduler.core.model.raw import RawObject

PATH = ("metadata", "annotations", "rescheduler.dev/maintenance")


def entry(manager: object, time: object, **fields: object) -> RawObject:
    return {"manager": manager, "time": time, "fieldsV1": {"f:metadata": {"f:annotations": fields}}}


def annotated(manager: str, time: str) -> RawObject:
    return entry(manager, time, **{"f:rescheduler.dev/maintenance": {}})


def test_the_last_writer_of_the_field_counts() -> None:
    other = entry("kubelet", "2026-03-03T00:00:00Z", **{"f:volumes": {}})
    metadata = {
        "managedFields": [
            annotated("argocd", "2026-03-02T00:00:00Z"),
            annotated("kubectl", "2026-03-01T00:00:00Z"),
            other,
        ]
    }
    assert last_field_writer(metadata, *PATH) == FieldWriter("argocd", datetime(2026, 3, 2, tzinfo=UTC))
    assert last_field_writer(metadata, *PATH, without="argocd").manager == "kubectl"
    assert last_field_writer(metadata, "spec", "unschedulable") == FieldWriter()


def test_a_manager_of_any_length_is_cut() -> None:
    metadata = {"managedFields": [annotated("x" * 1000, "")]}
    assert len(last_field_writer(metadata, *PATH).manager) == 128


def test_a_record_of_any_form_raises_nothing() -> None:
    raw = {"metadata": {"managedFields": [annotated("kubectl", "2026-03-01T00:00:00Z")]}}
    for wrong in (*hostile.one_mutated(raw), *hostile.ANYTHING):
        if isinstance(wrong, dict) and isinstance(wrong.get("metadata"), dict):
            assert isinstance(last_field_writer(wrong["metadata"], *PATH), FieldWriter)
