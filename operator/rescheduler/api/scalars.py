"""Durations, times, and "number or percentage": their form in the API and their Python values."""

import contextlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetCoreSchemaHandler,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict
from pydantic_core import CoreSchema, core_schema

from rescheduler.api.untrusted import EARLIEST_TIME, LATEST_TIME

DURATION_PATTERN = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"
"""GEP-2257, the form of the Gateway API: `90s`, `1h30m`."""
_DURATION_PART = re.compile(r"([0-9]{1,5})(ms|h|m|s)")
MAX_DURATION = timedelta(hours=99_999)
"""Eleven years: each number of a GEP-2257 duration has at most five digits. A longer sum of parts is cut to this."""
_MAX_DURATION_RULE: JsonDict = {"rule": "duration(self) <= duration('99999h')", "message": "must be at most 99999h"}
POSITIVE_DURATION_RULE: JsonDict = {
    "rule": "self.matches('[1-9]') && duration(self) <= duration('99999h')",
    "message": "must be longer than 0s, and at most 99999h",
}
"""CEL rule for durations that must not be 0. It replaces the rule for all durations."""
_DURATION_UNITS = {
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
}


_YEAR_0 = re.compile(r"^0000(?=-)")  # Go accepts the year 0, Python raises ValueError


class Model(BaseModel):
    """Base of all models: camelCase in JSON, snake_case in Python, frozen. Unknown fields are ignored."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore", arbitrary_types_allowed=True
    )


def dump(model: Model) -> dict[str, Any]:
    """Return the JSON object of a model: camelCase keys, no key with the value None."""
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


def merge_patch(before: Model, after: Model) -> dict[str, Any]:
    """Return the merge patch from one model to the other. Fields that the new model lacks become null."""
    old, new = dump(before), dump(after)
    return {**{key: None for key in old if key not in new}, **new}


def parse_duration(text: str) -> timedelta:
    """Parse a GEP-2257 duration; at most MAX_DURATION. Raises ValueError that shows the form."""
    if not isinstance(text, str) or not re.fullmatch(DURATION_PATTERN[1:-1], text):
        raise ValueError(f"{text!r:.60} is not a duration: write it like 90s, 5m or 1h30m")
    return min(
        MAX_DURATION,
        sum((int(number) * _DURATION_UNITS[unit] for number, unit in _DURATION_PART.findall(text)), timedelta()),
    )


def format_duration(value: timedelta) -> str:
    """Return the GEP-2257 form: `90s`, `3m`, `1h30m`. The value is limited to 0 and MAX_DURATION."""
    milliseconds, parts = min(max(value, timedelta()), MAX_DURATION) // timedelta(milliseconds=1), []
    if milliseconds < 120_000 and milliseconds % 1000 == 0:
        return f"{milliseconds // 1000}s"
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, milliseconds = divmod(milliseconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def _validate_duration(value: Any) -> timedelta:
    return min(max(value, timedelta()), MAX_DURATION) if isinstance(value, timedelta) else parse_duration(value)


Duration = Annotated[
    timedelta,
    PlainValidator(_validate_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": DURATION_PATTERN,
            "maxLength": 24,
            "x-kubernetes-validations": [_MAX_DURATION_RULE],
        }
    ),
]


def _validate_time(value: Any) -> datetime:
    """Return a time of a status, limited so that adding a duration cannot overflow.

    The schema admits the years 0 to 9999.
    """
    time = value
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            time = datetime.fromisoformat(_YEAR_0.sub("0001", value))
    if not isinstance(time, datetime) or time.tzinfo is None:
        raise ValueError(f"{value!r:.60} is not a time with a time zone, such as 2026-01-31T22:00:00Z")
    return EARLIEST_TIME if time < EARLIEST_TIME else min(time, LATEST_TIME)


Time = Annotated[
    datetime,
    PlainValidator(_validate_time),
    PlainSerializer(lambda time: time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]


def truncate(text: Any, max_length: int = 1024) -> Any:
    """Cut text to the maxLength of the schema.

    A webhook's refusal or an annotation can have any length. Without the cut, the API server refuses the whole status.
    """
    return text if not isinstance(text, str) or len(text) <= max_length else text[: max_length - 1] + "…"


TruncatedText = Annotated[str, BeforeValidator(truncate), WithJsonSchema({"type": "string", "maxLength": 1024})]
"""Human-readable text, cut to 1024 characters and never refused."""


_MAX_NODES = 100_000


@dataclass(frozen=True, slots=True)
class NumberOrPercent:
    """A number of nodes, or a percentage of a total. A percentage is rounded up and gives at least 1; 0% gives 0."""

    value: int
    is_percent: bool = False

    @classmethod
    def parse(cls, value: Any) -> "NumberOrPercent":
        """Parse `1` or `"20%"`. Raises ValueError that shows both forms."""
        if isinstance(value, cls):
            return value
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return cls(min(value, _MAX_NODES))
        if isinstance(value, str) and re.fullmatch(r"(100|[0-9]{1,2})%", value):
            return cls(int(value[:-1]), is_percent=True)
        raise ValueError(f'{value!r:.60} is neither a number of nodes like 1 nor a percentage like "20%"')

    def of(self, total: int) -> int:
        """Return the number of nodes, of `total` nodes."""
        if not self.is_percent or self.value == 0:
            return self.value
        return max(1, -(-total * self.value // 100))

    def __str__(self) -> str:
        return f"{self.value}%" if self.is_percent else str(self.value)

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.parse,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda number: str(number) if number.is_percent else number.value
            ),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: CoreSchema, _handler: Any) -> dict[str, Any]:
        return {
            "x-kubernetes-int-or-string": True,
            "x-kubernetes-validations": [
                {
                    "rule": "type(self) == int ? self >= 0 && self <= 100000 : self.matches('^(100|[0-9]{1,2})%$')",
                    "message": 'must be a number of nodes from 0, like 1, or a percentage from 0% to 100%, like "20%"',
                }
            ],
        }
