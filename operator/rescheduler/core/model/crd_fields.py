"""The fields and the values of enums that a CRD lets the API server store.

The API server silently drops a field that the schema lacks, and refuses a value that an enum lacks.
"""

from collections.abc import Collection, Iterator

from rescheduler.api import VERSION
from rescheduler.core.model.raw import RawObject


def stored_fields(crd: RawObject) -> frozenset[str]:
    """Return the fields as `.status.blockers[].pod`, and the values of enums as `.status.phase=Drained`.

    Only the version of this operator counts; empty if the CRD does not have it.
    """
    schemas = (
        version.get("schema", {}).get("openAPIV3Schema", {})
        for version in crd.get("spec", {}).get("versions", ())
        if version.get("name") == VERSION
    )
    return frozenset(field for schema in schemas for field in _fields(schema, ""))


def _fields(schema: RawObject, path: str) -> Iterator[str]:
    yield from (f"{path}={value}" for value in schema.get("enum") or ())
    for name, child in (schema.get("properties") or {}).items():
        yield f"{path}.{name}"
        yield from _fields(child, f"{path}.{name}")
    if items := schema.get("items"):
        yield from _fields(items, f"{path}[]")


def missing_fields(known: Collection[str], stored: Collection[str]) -> tuple[str, ...]:
    """Return the fields and values that the operator knows and the API server does not store, without their parts."""
    missing: list[str] = []
    for field in sorted(set(known) - set(stored)):
        if not any(field.startswith((f"{whole}.", f"{whole}[]", f"{whole}=")) for whole in missing):
            missing.append(field)
    return tuple(missing)
