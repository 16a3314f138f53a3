"""Objects of a list that can be read: one that cannot be costs itself only."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import structlog

T = TypeVar("T")
log = structlog.get_logger("rescheduler.readables")


def readable_objects(objects: Iterable[Mapping[str, Any]], parse: Callable[[Mapping[str, Any]], T]) -> Iterator[T]:
    """Yield each object as the projection reads it; log those that it refuses, and leave them out."""
    for raw in objects:
        try:
            found = parse(raw)
        except ValueError as error:
            log.warning("object.unreadable", error=str(error), object=str(raw)[:200])
            continue
        yield found
