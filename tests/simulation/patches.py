"""Patches as the API server applies them."""

from typing import Any

from invariants.objects import copied
from rescheduler.core.model.raw import RawObject


def merged(target: Any, patch: Any) -> Any:
    """Apply a merge patch: RFC 7396."""
    if not isinstance(patch, dict):
        return copied(patch)
    found = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merged(found.get(key), value)
    return copied(found)


def strategic(target: RawObject, patch: RawObject) -> RawObject:
    """Apply a strategic merge patch of a status: `conditions` merge by type, all other fields by RFC 7396."""
    conditions = {c["type"]: c for c in copied((target.get("status") or {}).get("conditions") or [])}
    for entry in (patch.get("status") or {}).get("conditions") or ():
        if entry.get("$patch") == "delete":
            conditions.pop(entry["type"], None)
        else:
            conditions[entry["type"]] = {**conditions.get(entry["type"], {}), **entry}
    rest = {**patch, "status": {k: v for k, v in (patch.get("status") or {}).items() if k != "conditions"}}
    found: RawObject = merged(target, rest)
    found["status"]["conditions"] = list(conditions.values())
    return found
