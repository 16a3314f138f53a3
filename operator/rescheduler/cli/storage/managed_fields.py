"""Move the field managers of an object to another version.

`metadata.managedFields` has the version in which each client wrote. When a version is no longer served, the API server
refuses each server-side apply of an object with an entry of that version: "request to convert CR to an invalid
group/version". All versions have the same schema, so the fields of an entry stay as they are.
"""

from collections.abc import Sequence

from rescheduler.api import GROUP
from rescheduler.core.model.raw import RawObject


def moved(entries: Sequence[RawObject], version: str) -> list[RawObject]:
    """Return the entries of `managedFields` in this version.

    A client that wrote in two versions has two entries. The API server knows one entry for each client, operation and
    subresource in a version, so they become one, with the fields of both.
    """
    found: dict[tuple[str, str, str], RawObject] = {}
    for entry in entries:
        if not str(entry.get("apiVersion", "")).startswith(f"{GROUP}/"):
            found["", "", str(len(found))] = entry
            continue
        key = str(entry.get("manager", "")), str(entry.get("operation", "")), str(entry.get("subresource", ""))
        before = found.get(key, {})
        fields = _union(before.get("fieldsV1") or {}, entry.get("fieldsV1") or {})
        times = [str(each["time"]) for each in (before, entry) if each.get("time")]
        time = {"time": max(times)} if times else {}
        found[key] = {**entry, "apiVersion": f"{GROUP}/{version}", "fieldsV1": fields, **time}
    return list(found.values())


def _union(one: RawObject, other: RawObject) -> RawObject:
    """Return the fields of both sets; a set has its parts as keys."""
    return {**one, **{key: _union(one.get(key) or {}, fields or {}) for key, fields in other.items()}}
