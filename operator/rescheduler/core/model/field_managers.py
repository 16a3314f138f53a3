"""The managers of the fields of an object: the clients that wrote them, as the API server records in `managedFields`."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from rescheduler.core.model.raw import RawObject

_MAX_DEPTH = 3
"""Levels that are read, such as `metadata`, `annotations` and a key."""


@dataclass(frozen=True, slots=True)
class FieldManagers:
    """The managers of each field of one object; `by_path`: by the names of the levels, such as `spec`, `unschedulable`."""

    by_path: Mapping[tuple[str, ...], frozenset[str]] = field(default_factory=dict)

    def of(self, *path: str) -> frozenset[str]:
        """Return the managers of a field; empty if none is recorded, or if the record was removed."""
        return self.by_path.get(path, frozenset())


def parse_field_managers(raw: RawObject) -> FieldManagers:
    """Parse the field managers of a raw object; an entry of another form than that of the API server counts for nothing."""
    meta = raw.get("metadata")
    entries = meta.get("managedFields") if isinstance(meta, Mapping) else None
    managers: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, Mapping) and isinstance(manager := entry.get("manager"), str):
            for path in _paths(entry.get("fieldsV1")):
                managers[path].add(manager)
    return FieldManagers({path: frozenset(names) for path, names in managers.items()})


def _paths(fields: object, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if not isinstance(fields, Mapping) or len(above) == _MAX_DEPTH:
        return
    for name, below in fields.items():
        if isinstance(name, str) and name.startswith("f:"):
            path = (*above, name.removeprefix("f:"))
            yield path
            yield from _paths(below, path)
