"""Field managers move to another version with all their fields."""

from collections.abc import Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rescheduler.cli.storage.managed_fields import moved

ENTRIES = st.lists(
    st.fixed_dictionaries(
        {
            "manager": st.sampled_from(["kubectl", "rescheduler"]),
            "operation": st.sampled_from(["Apply", "Update"]),
            "apiVersion": st.sampled_from(["rescheduler.dev/v1alpha1", "rescheduler.dev/v1beta1"]),
            "fieldsType": st.just("FieldsV1"),
            "fieldsV1": st.recursive(
                st.just({}), lambda sets: st.dictionaries(st.sampled_from(["f:spec", "f:a", "k:{}", "."]), sets)
            ),
        },
        optional={
            "time": st.sampled_from(["2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"]),
            "subresource": st.just("status"),
        },
    )
)


def owned(entries: list[Any]) -> set[tuple[str, ...]]:
    """Return manager, operation, subresource and path of each owned field."""
    return {
        (entry["manager"], entry["operation"], entry.get("subresource", ""), *path)
        for entry in entries
        for path in paths(entry["fieldsV1"])
    }


def paths(fields: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for key, child in fields.items():
        yield (key,)
        yield from ((key, *path) for path in paths(child))


@given(ENTRIES)
def test_every_manager_keeps_its_fields_in_one_entry_of_the_version(entries: list[Any]) -> None:
    found = moved(entries, "v1beta1")
    assert owned(list(found)) == owned(entries)
    assert {entry["apiVersion"] for entry in found} <= {"rescheduler.dev/v1beta1"}
    keys = [(entry["manager"], entry["operation"], entry.get("subresource")) for entry in found]
    assert len(keys) == len(set(keys))
    assert moved(found, "v1beta1") == found


def test_the_newer_time_of_two_entries_stays() -> None:
    entry = {"manager": "m", "operation": "Update", "fieldsV1": {}}
    old = {**entry, "apiVersion": "rescheduler.dev/v1alpha1", "time": "2026-02-01T00:00:00Z"}
    new = {**entry, "apiVersion": "rescheduler.dev/v1beta1", "time": "2026-01-01T00:00:00Z"}
    (found,) = moved([old, new], "v1beta1")
    assert found == {**new, "time": "2026-02-01T00:00:00Z"}


def test_an_entry_without_a_version_of_ours_stays() -> None:
    entries = [{}, {"manager": "m", "apiVersion": "v1"}]
    assert moved(entries, "v1beta1") == entries
