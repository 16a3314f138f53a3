"""The versions that a CRD serves, and the fields and values of enums that it lets the API server store.

The API server silently drops a field that the schema lacks, and refuses a value that an enum lacks. A request in a
version that it does not serve is not found.
"""

from collections.abc import Collection, Iterator

from rescheduler.api import VERSION
from rescheduler.core.model.raw import RawObject


def stored_fields(crd: RawObject) -> frozenset[str]:
    """Return what a CRD has: `version v1beta1`, fields as `.status.blockers[].pod`, and values as `.status.phase=Drained`.

    Only the fields of the version that the programs use count; empty if the CRD does not have that version.
    """
    versions = crd.get("spec", {}).get("versions", ())
    schemas = [
        version.get("schema", {}).get("openAPIV3Schema", {}) for version in versions if version.get("name") == VERSION
    ]
    served = (f"version {version.get('name')}" for version in versions if version.get("served")) if schemas else ()
    return frozenset(served) | {field for schema in schemas for field in _fields(schema, "")}


def is_served(crd: RawObject) -> bool:
    """Whether a CRD serves the version that the programs use."""
    versions = (crd.get("spec") or {}).get("versions") or ()
    return any(version.get("name") == VERSION and version.get("served") for version in versions)


def _fields(schema: RawObject, path: str) -> Iterator[str]:
    yield from (f"{path}={value}" for value in schema.get("enum") or ())
    for name, child in (schema.get("properties") or {}).items():
        yield f"{path}.{name}"
        yield from _fields(child, f"{path}.{name}")
    if items := schema.get("items"):
        yield from _fields(items, f"{path}[]")


def missing_fields(known: Collection[str], stored: Collection[str]) -> tuple[str, ...]:
    """Return the versions, fields and values that the operator knows and the API server lacks, without their parts."""
    missing: list[str] = []
    for field in sorted(set(known) - set(stored)):
        if not any(field.startswith((f"{whole}.", f"{whole}[]", f"{whole}=")) for whole in missing):
            missing.append(field)
    return tuple(missing)
