"""Bounded reads of values that others write.

Annotations, status of nodes and pods, and specs of any kind may hold anything. A function here never raises on any JSON
value, except where its docstring names the error. A value that does not fit counts as absent, so that later code relies
on types and bounds.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

EARLIEST_TIME = datetime(1970, 1, 1, tzinfo=UTC)
LATEST_TIME = datetime(2200, 1, 1, tzinfo=UTC)
"""Times are kept within these, so that a time and a duration always add up to a time."""
MAX_SECONDS = 100_000_000
"""Three years: no grace period and no lifetime of a Lease is longer."""
INT32 = 2**31 - 1
INT64 = 2**63 - 1
_MAX_ANNOTATIONS_SIZE = 262_144  # bytes; all annotations of one object together have no more
_DIGEST_LENGTH = 16  # hexadecimal digits


class UnreadableError(ValueError):
    """An object lacks what every object of its kind has: nothing can be said of it but this."""


# -- single values ----------------------------------------------------------------------------------------------------


def parse_time(value: Any) -> datetime | None:
    """Return an RFC 3339 time with a time zone as UTC; None for anything else, and for a time out of all bounds.

    Go also writes and reads the years 0 to 9999, with any zone.
    """
    if type(value) is not str:
        return None
    try:
        found = datetime.fromisoformat(value)
        # A time without zone cannot be compared. Near the years 1 and 9999 a change of zone overflows.
        return found.astimezone(UTC) if found.tzinfo is not None and EARLIEST_TIME <= found <= LATEST_TIME else None
    except (ValueError, OverflowError):
        return None


def bounded_integer(value: Any, low: int, high: int, default: int) -> int:
    """Return a whole number, moved within its bounds; `default` for anything else."""
    return min(max(value, low), high) if type(value) is int else default


def parse_seconds(value: Any, default: int = 0) -> timedelta:
    """Return a number of seconds as a duration that any time can be added to."""
    return timedelta(seconds=bounded_integer(value, 0, MAX_SECONDS, default))


def bounded_text(value: Any, max_length: int = _MAX_ANNOTATIONS_SIZE) -> str:
    """Return text, cut to so many characters; empty for anything else."""
    return (
        value
        if type(value) is str and len(value) <= max_length
        else value[: max_length - 1] + "…"
        if type(value) is str
        else ""
    )


def truncate_with_digest(value: Any, max_length: int) -> str:
    """Return text of at most so many characters that differs where the whole texts differ; empty for anything else."""
    if type(value) is not str or len(value) <= max_length:
        return bounded_text(value)
    digest = hashlib.sha256(value.encode(errors="surrogatepass")).hexdigest()[:_DIGEST_LENGTH]
    return f"{value[: max_length - _DIGEST_LENGTH - 2]}… {digest}"


def parse_json_object(value: Any, max_length: int = _MAX_ANNOTATIONS_SIZE) -> dict[str, Any]:
    """Return the JSON object in a text of at most so many characters. Raises ValueError that says what is wrong."""
    if type(value) is not str or len(value) > max_length:
        raise ValueError(f"it is longer than {max_length} characters" if isinstance(value, str) else "it is no text")
    try:
        found = json.loads(
            value,
            parse_constant=_reject_constant,
            parse_float=_parse_finite_float,
            object_pairs_hook=_reject_duplicate_keys,
        )
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("it holds half a character, which could not be written again") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is no JSON ({error})"[:200]) from None
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 - callers know one error
    return found


def _reject_constant(constant: str) -> Any:
    raise ValueError(f"{constant} is no number")


def _parse_finite_float(number: str) -> float:
    value = float(number)
    return value if abs(value) < float("inf") else _reject_constant(number)


def _reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


# -- whole objects ----------------------------------------------------------------------------------------------------

ABSENT = object()
"""What a fit returns for a value that does not fit."""
ValueSchema = Callable[[Any], Any] | type
"""A type that the value must have; or a function that returns the value itself if it fits, else a copy without what does not
fit, or ABSENT.

What fits costs no copy: lists of all pods of a cluster go through this.
"""


def anything(value: Any) -> Any:
    """Whatever it is: only its presence counts."""
    return value


def number_or_text(value: Any) -> Any:
    """A quantity, or "number or percentage": text or a number."""
    return value if type(value) in (str, int, float) else ABSENT


def pod_count(value: Any) -> Any:
    """A number of pods."""
    return value if type(value) is int and 0 <= value <= INT32 else ABSENT


def _sanitize_value(schema: ValueSchema, value: Any) -> Any:
    if isinstance(schema, type):
        return value if type(value) is schema else ABSENT
    return schema(value)


def list_of(schema: ValueSchema) -> Callable[[Any], Any]:
    """A list; items that do not fit are left out."""

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
    """A mapping with any keys to values of these types, such as labels; others are left out."""
    all_of = frozenset(types).issuperset

    def apply(value: Any) -> Any:
        if type(value) is not dict and not isinstance(value, Mapping):
            return ABSENT
        if all_of(map(type, value.values())):
            return value
        return {key: item for key, item in value.items() if type(item) in types}

    return apply


def object_of(*required: str, **schemas: ValueSchema) -> Callable[[Any], Any]:
    """An object; fields that do not fit are left out, and without one of the required ones it does not fit itself."""
    find = schemas.get

    def apply(value: Any) -> Any:
        if type(value) is not dict and not isinstance(value, Mapping):
            return ABSENT
        changed = None
        for name, found in value.items():
            fit = find(name)
            if fit is None or fit is type(found):
                continue
            kept = ABSENT if isinstance(fit, type) else fit(found)
            if kept is not found:
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
    """The metadata of an object, with more fields if its kind needs them."""
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
    """An object whose known fields have their types: it is not gone through again."""


def sanitize(raw: Any, schema: Callable[[Any], Any], *, required: Iterable[str] = ("name",)) -> SanitizedObject:
    """Return the object with only fields that fit; `metadata`, `spec` and `status` are always there.

    Raises UnreadableError if it is no object, or its metadata lacks a required field.
    """
    if isinstance(raw, SanitizedObject):
        return raw
    found = schema(raw)
    if found is ABSENT:
        raise UnreadableError(f"it is no object but {type(raw).__name__}")
    meta = found.get("metadata") or {}
    if missing := [name for name in required if not meta.get(name)]:
        raise UnreadableError(f"it has no {' and no '.join(f'metadata.{name}' for name in missing)}")
    return SanitizedObject({"spec": {}, "status": {}, **found, "metadata": meta})


def sanitize_custom_resource(raw: Any) -> SanitizedObject:
    """Return an object of one of our kinds: the models read its spec and status. Raises UnreadableError without a name."""
    return sanitize(raw, _CUSTOM_RESOURCE)
