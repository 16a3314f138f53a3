"""The managers of a field, from a record that may have any form."""

import hostile
from rescheduler.core.model.field_managers import parse_field_managers
from rescheduler.core.model.raw import RawObject

CORDON: RawObject = {"f:spec": {"f:unschedulable": {}}}
LABELS: RawObject = {"f:metadata": {"f:labels": {".": {}, "f:a.example.com/b": {}}}}


def test_managers_are_those_whose_entries_have_the_field() -> None:
    entries = [{"manager": "one", "fieldsV1": CORDON}, {"manager": "two", "fieldsV1": LABELS}]
    raw = {"metadata": {"managedFields": [*entries, {"manager": "three", "fieldsV1": CORDON}]}}
    managers = parse_field_managers(raw)
    assert managers.of("spec", "unschedulable") == {"one", "three"}
    assert managers.of("metadata", "labels", "a.example.com/b") == {"two"}
    assert managers.of("metadata", "labels", "b") == frozenset()


def test_a_record_of_any_form_raises_nothing() -> None:
    raw = {"metadata": {"managedFields": [{"manager": "one", "fieldsV1": CORDON}]}}
    for wrong in (*hostile.one_mutated(raw), *hostile.ANYTHING):
        if isinstance(wrong, dict):
            assert parse_field_managers(wrong).of("spec", "unschedulable") is not None
