"""Parse values that others write, with types and bounds.

Annotations, the status of nodes and pods, and specs of any kind can hold any JSON value. A function of this module
raises only the errors that its docstring names. A value that does not fit counts as absent, so that later code can rely
on types and bounds.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

EARLIEST_TIME = datetime(1970, 1, 1, tzinfo=UTC)
LATEST_TIME = datetime(2200, 1, 1, tzinfo=UTC)
"""Times are limited to these bounds, so that adding a duration to a time cannot overflow."""
MAX_SECONDS = 100_000_000
"""Three years, the limit of grace periods and of Lease durations."""
INT32 = 2**31 - 1
INT64 = 2**63 - 1
_MAX_ANNOTATIONS_SIZE = 262_144  # bytes; the API server's limit for all annotations of an object together
_MAX_TIME_LENGTH = 64
_DIGEST_LENGTH = 16  # hexadecimal digits


class UnreadableError(ValueError):
    """An object lacks a field that every object of its kind has. The message names the field."""


# -- single values ----------------------------------------------------------------------------------------------------


def parse_time(value: Any) -> datetime | None:
    """Return an RFC 3339 time with a time zone as UTC; None for any other value, and for a time out of bounds.

    Go also writes and reads the years 0 to 9999, with any zone.
    """
    return _parse_time(value) if type(value) is str and len(value) <= _MAX_TIME_LENGTH else None


@lru_cache(maxsize=1024)
def _parse_time(value: str) -> datetime | None:
    """Parse a time; the conditions of one object often have the same one."""
    try:
        time = datetime.fromisoformat(value)
        # A time without zone raises when it is compared. Near the years 1 and 9999 a change of zone overflows.
        return time.astimezone(UTC) if time.tzinfo is not None and EARLIEST_TIME <= time <= LATEST_TIME else None
    except (ValueError, OverflowError):
        return None


def bounded_integer(value: Any, low: int, high: int, default: int) -> int:
    """Return an integer, limited to its bounds; `default` for any other value."""
    return min(max(value, low), high) if type(value) is int else default


def parse_seconds(value: Any, default: int = 0) -> timedelta:
    """Return a number of seconds as a duration between 0 and MAX_SECONDS; `default` seconds for any other value."""
    return timedelta(seconds=bounded_integer(value, 0, MAX_SECONDS, default))


def bounded_text(value: Any, max_length: int = _MAX_ANNOTATIONS_SIZE) -> str:
    """Return text, cut to `max_length` characters; empty for any other value."""
    return (
        value
        if type(value) is str and len(value) <= max_length
        else value[: max_length - 1] + "…"
        if type(value) is str
        else ""
    )


def truncate_with_digest(value: Any, max_length: int) -> str:
    """Return text cut to `max_length` characters; empty for any other value.

    Cut text ends with a digest, so that different texts stay different.
    """
    if type(value) is not str or len(value) <= max_length:
        return bounded_text(value)
    digest = hashlib.sha256(value.encode(errors="surrogatepass")).hexdigest()[:_DIGEST_LENGTH]
    return f"{value[: max_length - _DIGEST_LENGTH - 2]}… {digest}"


def parse_json_object(value: Any, max_length: int = _MAX_ANNOTATIONS_SIZE) -> dict[str, Any]:
    """Return the JSON object in a text of at most `max_length` characters. Raises ValueError that names the error."""
    if type(value) is not str or len(value) > max_length:
        raise ValueError(f"it is longer than {max_length} characters" if isinstance(value, str) else "it is not text")
    try:
        parsed = json.loads(
            value,
            parse_constant=_reject_constant,
            parse_float=_parse_finite_float,
            object_pairs_hook=_reject_duplicate_keys,
        )
        json.dumps(parsed, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("it contains half a surrogate pair, which cannot be written") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON ({error})"[:200]) from None
    if not isinstance(parsed, dict):
        raise ValueError("it is not a JSON object")  # noqa: TRY004 - callers catch ValueError only
    return parsed


def _reject_constant(constant: str) -> Any:
    raise ValueError(f"{constant} is not a number")


def _parse_finite_float(number: str) -> float:
    value = float(number)
    return value if abs(value) < float("inf") else _reject_constant(number)


def _reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a key occurs twice")
    return members


# -- whole objects ----------------------------------------------------------------------------------------------------

ABSENT = object()
"""What a value schema returns for a value that does not fit."""
ValueSchema = Callable[[Any], Any] | type
"""A type that the value must have, or a function.

The function returns the value itself if it fits, else a copy without the parts that do not fit, or ABSENT. A value that
fits is not copied: a list of all pods of a cluster passes through these functions.
"""


def anything(value: Any) -> Any:
    """Return any value: only the presence of the field counts."""
    return value


def number_or_text(value: Any) -> Any:
    """Return a quantity or a "number or percentage", which is text or a number; else ABSENT."""
    return value if type(value) in (str, int, float) else ABSENT


def pod_count(value: Any) -> Any:
    """Return a number of pods; ABSENT for any other value."""
    return value if type(value) is int and 0 <= value <= INT32 else ABSENT


def _sanitize_value(schema: ValueSchema, value: Any) -> Any:
    if isinstance(schema, type):
        return value if type(value) is schema else ABSENT
    return schema(value)


def list_of(schema: ValueSchema) -> Callable[[Any], Any]:
    """Return the schema of a list. Items that do not fit are left out."""

    def apply(value: Any) -> Any:
        if type(value) is not list and not isinstance(value, tuple):
            return ABSENT
        for item in value:
            if type(item) is not schema and (isinstance(schema, type) or schema(item) is not item):
                break
        else:
            return value
        return [kept for item in value if (kept := _sanitize_value(schema, item)) is not ABSENT]

    return apply


def map_of(*types: type) -> Callable[[Any], Any]:
    """Return the schema of a mapping from any key to these types, such as labels. Other values are left out."""
    all_of = frozenset(types).issuperset

    def apply(value: Any) -> Any:
        if type(value) is not dict and not isinstance(value, Mapping):
            return ABSENT
        if all_of(map(type, value.values())):
            return value
        return {key: item for key, item in value.items() if type(item) in types}

    return apply


def object_of(*required: str, **schemas: ValueSchema) -> Callable[[Any], Any]:
    """Return the schema of an object. Fields that do not fit are left out.

    Without a required field, the object itself does not fit.
    """
    find = schemas.get

    def apply(value: Any) -> Any:
        if type(value) is not dict and not isinstance(value, Mapping):
            return ABSENT
        changed = None
        for name, item in value.items():
            schema = find(name)
            if schema is None or schema is type(item):
                continue
            kept = ABSENT if isinstance(schema, type) else schema(item)
            if kept is not item:
                changed = changed or {}
                changed[name] = kept
        if changed:
            value = {name: item for name, item in {**value, **changed}.items() if item is not ABSENT}
        for name in required:
            if name not in value:
                return ABSENT
        return value

    return apply


LABELS = map_of(str)
QUANTITIES = map_of(str, int, float)


def metadata(**more_fields: ValueSchema) -> Callable[[Any], Any]:
    """Return the schema of an object's metadata, with more fields if its kind needs them."""
    return object_of(
        name=str,
        namespace=str,
        uid=str,
        resourceVersion=str,
        generation=int,
        creationTimestamp=str,
        deletionTimestamp=anything,
        labels=LABELS,
        annotations=LABELS,
        finalizers=list_of(str),
        ownerReferences=list_of(
            object_of("kind", "name", "uid", apiVersion=str, kind=str, name=str, uid=str, controller=bool)
        ),
        **more_fields,
    )


METADATA = metadata()
_CUSTOM_RESOURCE = object_of(metadata=METADATA, spec=anything, status=anything)


class SanitizedObject(dict[str, Any]):
    """A raw object whose known fields have their types. `sanitize` returns it without a second check."""


def sanitize(raw: Any, schema: Callable[[Any], Any], *, required: Iterable[str] = ("name",)) -> SanitizedObject:
    """Return a raw object with only the fields that fit. `metadata`, `spec` and `status` are always present.

    Raises UnreadableError if the value is not an object, or its metadata lacks a required field.
    """
    if isinstance(raw, SanitizedObject):
        return raw
    fitting = schema(raw)
    if fitting is ABSENT:
        raise UnreadableError(f"it is not an object but {type(raw).__name__}")
    meta = fitting.get("metadata") or {}
    if missing := [name for name in required if not meta.get(name)]:
        raise UnreadableError(f"it has no {' and no '.join(f'metadata.{name}' for name in missing)}")
    return SanitizedObject({"spec": {}, "status": {}, **fitting, "metadata": meta})


def sanitize_custom_resource(raw: Any) -> SanitizedObject:
    """Sanitize an object of a Rescheduler kind; the models parse its spec and status.

    Raises UnreadableError if the object has no name.
    """
    return sanitize(raw, _CUSTOM_RESOURCE)
