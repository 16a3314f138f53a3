"""Durations, "N or %", and times: how they are written in the API and what they are in Python."""

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

DURATION_PATTERN = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"
"""GEP-2257, the Gateway API's form: `90s`, `1h30m`."""
_PART = re.compile(r"([0-9]{1,5})(ms|h|m|s)")
_MOST = timedelta(hours=100_000)
"""A GEP-2257 duration is shorter than this: hours have five digits."""
POSITIVE: JsonDict = {"rule": "self.matches('[1-9]')", "message": "must be longer than 0s"}
"""CEL for durations that make no sense as nothing."""
_UNITS = {
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
}


class Model(BaseModel):
    """Base of all models: camelCase outside, snake_case inside, frozen, tolerant of fields of a newer version."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore", arbitrary_types_allowed=True
    )


def dump(model: Model) -> dict[str, Any]:
    """The model as the API server takes it: camelCase, nothing that is None."""
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


def replacing(before: Model, after: Model) -> dict[str, Any]:
    """A merge patch from one to the other: fields that are no more become null."""
    old, new = dump(before), dump(after)
    return {**{key: None for key in old if key not in new}, **new}


def parse_duration(text: str) -> timedelta:
    """A GEP-2257 duration. Raises ValueError that shows the form."""
    if not isinstance(text, str) or not re.fullmatch(DURATION_PATTERN[1:-1], text):
        raise ValueError(f"{text!r} is no duration: write it like 90s, 5m or 1h30m")
    return sum((int(number) * _UNITS[unit] for number, unit in _PART.findall(text)), timedelta())


def format_duration(value: timedelta) -> str:
    """A GEP-2257 form as people write it: `90s`, `3m`, `1h30m`; nothing is `0s`.

    Raises ValueError for what the form cannot say: less than nothing, or 100,000 hours and more.
    """
    if not timedelta() <= value < _MOST:
        raise ValueError(f"{value} cannot be written as a duration")
    rest, parts = value // timedelta(milliseconds=1), []
    if rest < 120_000 and rest % 1000 == 0:
        return f"{rest // 1000}s"
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def _duration(value: Any) -> timedelta:
    return value if isinstance(value, timedelta) else parse_duration(value)


Duration = Annotated[
    timedelta,
    PlainValidator(_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN, "maxLength": 24}),
]


def _time(value: Any) -> datetime:
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ValueError(f"{value!r} is no time with a time zone, such as 2026-01-31T22:00:00Z")
    return value


Time = Annotated[
    datetime,
    PlainValidator(_time),
    PlainSerializer(lambda time: time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]


def cut(text: Any, most: int = 1024) -> Any:
    """Text that the schema's maxLength lets in.

    What others say (a webhook's refusal, an annotation) may be of any length, and must not make a status unwritable.
    """
    return text if not isinstance(text, str) or len(text) <= most else text[: most - 1] + "…"


Words = Annotated[str, BeforeValidator(cut), WithJsonSchema({"type": "string", "maxLength": 1024})]
"""Text for people: cut to 1024 characters, never refused."""


@dataclass(frozen=True, slots=True)
class NumberOrPercent:
    """A count of nodes: a number, or a percentage of a total, rounded up and at least 1; 0 is nothing."""

    value: int
    is_percent: bool = False

    @classmethod
    def parse(cls, value: Any) -> "NumberOrPercent":
        """From `1` or `"20%"`. Raises ValueError that shows both forms."""
        if isinstance(value, cls):
            return value
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return cls(value)
        if isinstance(value, str) and re.fullmatch(r"(100|[0-9]{1,2})%", value):
            return cls(int(value[:-1]), is_percent=True)
        raise ValueError(f'{value!r} is neither a number of nodes like 1 nor a percentage like "20%"')

    def of(self, total: int) -> int:
        """How many of `total` this is."""
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
