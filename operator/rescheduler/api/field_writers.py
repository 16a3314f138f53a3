"""The client that last wrote a field of an object, as the API server records in `metadata.managedFields`."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rescheduler.api.untrusted import EARLIEST_TIME, bounded_text, parse_time

_MAX_MANAGER_LENGTH = 128


@dataclass(frozen=True, slots=True)
class FieldWriter:
    """A client that wrote a field; `manager` is empty and `time` is None if the object does not record them."""

    manager: str = ""
    time: datetime | None = None


def last_field_writer(metadata: Mapping[str, Any], *path: str, without: str = "") -> FieldWriter:
    """Return the client that last wrote the field at this path; `without`: a manager that does not count."""
    entries = metadata.get("managedFields")
    writers = [
        FieldWriter(bounded_text(entry.get("manager"), _MAX_MANAGER_LENGTH), parse_time(entry.get("time")))
        for entry in (entries if isinstance(entries, list) else ())
        if isinstance(entry, Mapping) and _has_field(entry.get("fieldsV1"), path)
    ]
    counted = (writer for writer in writers if writer.manager and writer.manager != without)
    return max(counted, key=lambda writer: writer.time or EARLIEST_TIME, default=FieldWriter())


def _has_field(fields: object, path: tuple[str, ...]) -> bool:
    for name in path:
        if not isinstance(fields, Mapping) or f"f:{name}" not in fields:
            return False
        fields = fields[f"f:{name}"]
    return True
